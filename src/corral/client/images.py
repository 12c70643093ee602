"""`client.images`: pull, push, build, load, save, tag, list, remove."""

from __future__ import annotations

import base64
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypedDict, TypeVar, Unpack

import msgspec

from corral import endpoint, logins
from corral.client import archives
from corral.client.errors import BadArgument, UnreadableAnswer
from corral.client.flavours import Awaiting, Blocking, Source, flow, verb
from corral.client.http import Answer, Body
from corral.client.session import Pieces, Session, segment
from corral.client.streams import Advance, Whole
from corral.wire.shown.images import HistoryItem, ImageInfo, ImageSummary, Progress, Removed

D = TypeVar("D")
Watcher = Callable[[Progress], object]
_TAR = {"Content-Type": "application/x-tar"}


class Login(msgspec.Struct, frozen=True, kw_only=True):
    """Who one is for a registry."""

    username: str = ""
    password: str = ""
    identity_token: str = ""

    def fields(self) -> dict[str, str]:
        """As the API has it."""
        if self.identity_token:
            return {"identitytoken": self.identity_token}
        return {"username": self.username, "password": self.password}


class Recipe(TypedDict, total=False):
    """How to build."""

    tags: Sequence[str]
    dockerfile: str
    arguments: Mapping[str, str]
    labels: Mapping[str, str]
    target: str
    platform: str
    network: str
    cache: bool
    pull: bool


class ImagesVerbs:
    """What can be done with images.  A `login` that is not given is looked up in Docker's configuration.

    `watch` is called with each record of progress; what has to be awaited is better done with the flows
    (`pulling`, `pushing`, `building`), which give the same records.
    """

    def __init__(self, session: Session) -> None:
        self._session = session

    @verb
    async def pull(
        self, name: str, *, platform: str | None = None, login: Login | None = None, watch: Watcher | None = None
    ) -> ImageInfo:
        """Fetch an image; the tag is `latest` unless one is given."""
        await _through(await self._pulling(name, platform, login), watch)
        return await self._info(name)

    @flow
    async def pulling(self, name: str, *, platform: str | None = None, login: Login | None = None) -> Source[Progress]:
        """Fetch an image; it is there when the stream has ended by itself."""
        return await self._pulling(name, platform, login)

    async def _pulling(self, name: str, platform: str | None, login: Login | None) -> Pieces[Progress]:
        repository, tag = _parts(name)
        query = {"fromImage": repository, "tag": tag, "platform": platform}
        answer = await self._session.open("POST", "/images/create", query, headers=_auth(name, login), patient=True)
        return Pieces(answer, Advance())

    @verb
    async def push(self, name: str, *, login: Login | None = None, watch: Watcher | None = None) -> str:
        """Send an image to its registry; the digest that it has there."""
        records = await _through(await self._pushing(name, login), watch)
        return next((record.aux.digest for record in reversed(records) if record.aux is not None), "")

    @flow
    async def pushing(self, name: str, *, login: Login | None = None) -> Source[Progress]:
        """Send an image to its registry; it is there when the stream has ended by itself."""
        return await self._pushing(name, login)

    async def _pushing(self, name: str, login: Login | None) -> Pieces[Progress]:
        repository, tag = _parts(name)
        # The header must be there, even if it says nothing.
        headers = _auth(name, login) or {"X-Registry-Auth": "e30="}
        path = f"/images/{segment(repository)}/push"
        return Pieces(await self._session.open("POST", path, {"tag": tag}, headers=headers, patient=True), Advance())

    @verb
    async def build(
        self, context: str | os.PathLike[str] | Body, *, watch: Watcher | None = None, **recipe: Unpack[Recipe]
    ) -> ImageInfo:
        """Build an image of a folder (less what its `.dockerignore` names), or of a tar archive."""
        records = await _through(await self._building(context, recipe), watch)
        built = next((record.aux.id for record in reversed(records) if record.aux is not None and record.aux.id), "")
        if not built:
            raise UnreadableAnswer("the daemon did not say which image it has built")
        return await self._info(built)

    @flow
    async def building(self, context: str | os.PathLike[str] | Body, **recipe: Unpack[Recipe]) -> Source[Progress]:
        """The same; output is in `stream`, the image's id in the last record with `aux`."""
        return await self._building(context, recipe)

    async def _building(self, context: Any, recipe: Recipe) -> Pieces[Progress]:
        if unknown := recipe.keys() - Recipe.__annotations__.keys():
            raise TypeError(f"there is no option {min(unknown)!r}")
        tags, dockerfile = recipe.get("tags", ()), recipe.get("dockerfile", "Dockerfile")
        if isinstance(tags, str):
            raise BadArgument("tags: a list is needed, not a text")
        query = {
            "t": list(tags), "dockerfile": dockerfile, "buildargs": dict(recipe.get("arguments") or {}),
            "labels": dict(recipe.get("labels") or {}), "target": recipe.get("target"),
            "platform": recipe.get("platform"), "networkmode": recipe.get("network"),
            "nocache": not recipe.get("cache", True), "pull": recipe.get("pull") or None, "rm": True,
        }  # fmt: skip
        if isinstance(context, str | os.PathLike):
            context = archives.of_folder(os.fspath(context), dockerfile)
        answer = await self._session.open("POST", "/build", query, context, {**_TAR, **_all_logins()}, patient=True)
        return Pieces(answer, Advance())

    @verb
    async def load(self, archive: Body, *, watch: Watcher | None = None) -> list[str]:
        """Take in images of `save`, or of an OCI layout in a tar; their names (or ids, for images without one)."""
        answer = await self._session.open("POST", "/images/load", {"quiet": True}, archive, _TAR, patient=True)
        records = await _through(Pieces(answer, Advance()), watch)
        lines = [line for record in records for line in record.stream.splitlines()]
        return [line.partition(": ")[2] for line in lines if line.startswith("Loaded image")]

    @flow
    async def save(self, *names: str) -> Source[bytes]:
        """Images as a tar archive."""
        answer = await self._session.open("GET", "/images/get", {"names": list(names)}, patient=True)
        return Pieces(answer, Whole())

    @verb
    async def get(self, name: str) -> ImageInfo:
        """The image with this name or id; raises NotFound."""
        return await self._info(name)

    async def _info(self, name: str) -> ImageInfo:
        return await self._session.get(f"/images/{segment(name)}/json", ImageInfo)

    @verb
    async def history(self, name: str) -> tuple[HistoryItem, ...]:
        """How it was made, latest first."""
        return await self._session.get(f"/images/{segment(name)}/history", tuple[HistoryItem, ...])

    @verb
    async def tag(self, name: str, new: str) -> None:
        """Give an image a further name."""
        repository, tag = _parts(new)
        await self._session.do("POST", f"/images/{segment(name)}/tag", {"repo": repository, "tag": tag})

    @verb
    async def list(self, *, filters: Mapping[str, Sequence[str]] | None = None) -> tuple[ImageSummary, ...]:
        """What there is.  Filters as docker's: `{"reference": ["app:*"]}`."""
        return await self._session.get("/images/json", tuple[ImageSummary, ...], {"filters": filters})

    @verb
    async def remove(self, name: str, *, force: bool = False) -> tuple[Removed, ...]:
        """Take a name away, and with the last one the image."""
        answer = await self._session.open("DELETE", f"/images/{segment(name)}", {"force": force}, patient=True)
        return await _read(answer, tuple[Removed, ...])


async def _read(answer: Answer, kind: type[D]) -> D:
    from corral.client import streams

    return streams.read(await answer.whole(), kind)


async def _through(source: Pieces[Progress], watch: Watcher | None) -> list[Progress]:
    """To the end; the records that end something or say something."""
    kept: list[Progress] = []
    while True:
        try:
            record = await source.next()
        except StopAsyncIteration:
            return kept
        except BaseException:
            source.close()
            raise
        if watch is not None:
            watch(record)
        if record.aux is not None or record.stream.startswith("Loaded image"):
            kept.append(record)


def _parts(name: str) -> tuple[str, str | None]:
    """Repository and tag; of a name with a digest, the whole and nothing."""
    if "@" in name:
        return name, None
    head, colon, tag = name.rpartition(":")
    return (head, tag) if colon and "/" not in tag else (name, "latest")


def _auth(name: str, login: Login | None) -> dict[str, str]:
    registry = logins.registry_of(name)
    if login is not None:
        return logins.encoded(login.fields(), registry)
    found = logins.find(endpoint.read_config(endpoint.config_folder()), registry)
    return logins.encoded(found, registry) if found else {}


def _all_logins() -> dict[str, str]:
    """For the images that a build starts from."""
    config = endpoint.read_config(endpoint.config_folder())
    found = {
        registry: {**login, "serveraddress": registry}
        for registry in config.get("auths") or {}
        if (login := logins.find(config, registry))
    }
    return {"X-Registry-Config": base64.urlsafe_b64encode(msgspec.json.encode(found)).decode()} if found else {}


class Images(ImagesVerbs, Blocking):
    """`Client.images`."""


class AsyncImages(ImagesVerbs, Awaiting):
    """`AsyncClient.images`."""
