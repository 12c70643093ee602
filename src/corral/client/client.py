"""The client itself, in both flavours: which daemon, and its nouns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from corral import endpoint
from corral.client.containers import AsyncContainers, Containers
from corral.client.flavours import Awaiting, Blocking, Source, flow, verb
from corral.client.http import Answer, Body
from corral.client.images import AsyncImages, Images
from corral.client.networks import AsyncNetworks, Networks
from corral.client.session import Pieces, Session
from corral.client.streams import Records, read
from corral.client.vault import AsyncVault, Vault
from corral.client.volumes import AsyncVolumes, Volumes
from corral.client.waiting import Looping, Polling
from corral.endpoint import Endpoint, Tls
from corral.wire.shown.system import Event, SystemInfo, VersionInfo

_TIMEOUT_S = 60.0


def _endpoint(host: str | None, context: str | None, tls: Tls | None) -> Endpoint:
    """As the command line finds it: what is given, $CORRAL_HOST, $DOCKER_HOST, the context in use, the usual socket."""
    folder = endpoint.config_folder()
    if tls is None and context is None:
        tls = endpoint.environment_tls(folder)
    return endpoint.resolve(folder, context or "", [host] if host else [], tls)


class ClientVerbs:
    """What can be asked of a daemon as a whole."""

    session: Session

    def close(self) -> None:
        """Give up the kept connections.  Streams that are open go on to their end."""
        self.session.close()

    @property
    def host(self) -> str:
        """The daemon's address."""
        return self.session.endpoint.host

    @verb
    async def ping(self) -> str:
        """Whether a daemon answers; the version of the API that is used with it.  Raises NotConnected."""
        answer = await self.session.open("GET", "/_ping")
        await answer.whole()
        return await self.session.version()

    @verb
    async def version(self) -> VersionInfo:
        """What the daemon is."""
        return await self.session.get("/version", VersionInfo)

    @verb
    async def info(self) -> SystemInfo:
        """What it has, and the machine below it."""
        return await self.session.get("/info", SystemInfo)

    @flow
    async def events(
        self,
        *,
        since: float | None = None,
        until: float | None = None,
        filters: Mapping[str, Sequence[str]] | None = None,
    ) -> Source[Event]:
        """What happens, from when the stream begins, or `since` (seconds since 1970)."""
        query = {"since": since, "until": until, "filters": filters}
        return Pieces(await self.session.open("GET", "/events", query, patient=True), Records(Event))

    @verb
    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: Any = None,
    ) -> Any:
        """Anything that has no method here: `body` as JSON (or bytes), and the answer's JSON (or bytes, or None)."""
        content: Body | None = None
        headers = None
        if isinstance(body, bytes):
            content, headers = body, {"Content-Type": "application/x-tar"}
        elif body is not None:
            content, headers = _encode(body), {"Content-Type": "application/json"}
        return await _anything(await self.session.open(method, path, query, content, headers))

    async def _finish(self) -> None:
        self.close()


def _encode(body: Any) -> bytes:
    import msgspec

    return msgspec.json.encode(body)


async def _anything(answer: Answer) -> Any:
    data = await answer.whole()
    if answer.headers.get("content-type", "").startswith("application/json"):
        return read(data, object) if data.strip() else None
    return data or None


class Client(ClientVerbs, Blocking):
    """A daemon, for programs without an event loop.  May be shared among threads.  Its `with` block closes it."""

    def __init__(
        self,
        host: str | None = None,
        *,
        context: str | None = None,
        tls: Tls | None = None,
        timeout: float | None = _TIMEOUT_S,
    ) -> None:
        """`host` is unix://PATH or tcp://HOST:PORT; without it, the daemon that the command line would talk to.

        `timeout` bounds in seconds each wait for the daemon, but for calls that may take as long as they take: those
        that wait, stream, transfer data or stop containers.
        """
        self.session = Session(_endpoint(host, context, tls), Polling, timeout)
        self.containers = Containers(self.session)
        self.images = Images(self.session)
        self.networks = Networks(self.session)
        self.volumes = Volumes(self.session)
        self.secrets = Vault(self.session, "secret")
        self.configs = Vault(self.session, "config")


class AsyncClient(ClientVerbs, Awaiting):
    """A daemon, for asyncio.  Its `async with` block closes it."""

    def __init__(
        self,
        host: str | None = None,
        *,
        context: str | None = None,
        tls: Tls | None = None,
        timeout: float | None = _TIMEOUT_S,
    ) -> None:
        """As for Client."""
        self.session = Session(_endpoint(host, context, tls), Looping, timeout)
        self.containers = AsyncContainers(self.session)
        self.images = AsyncImages(self.session)
        self.networks = AsyncNetworks(self.session)
        self.volumes = AsyncVolumes(self.session)
        self.secrets = AsyncVault(self.session, "secret")
        self.configs = AsyncVault(self.session, "config")
