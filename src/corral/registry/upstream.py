"""A pull-through cache of another registry: what is missing here is fetched there, once, however many ask for it.

A blob is fetched into `fetches/<digest>` under a lock on that file, by a thread that nobody's connection depends on;
whoever wants it reads the file as it grows.  The lock and the file are all that processes share: one that finds the
lock taken follows the file the same way, and looks at it twenty times a second, as there is nothing across processes
that would tell it.  A fetch that breaks off is resumed by the next request with a range.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import threading
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import msgspec

from corral.errors import CorralError, Unavailable
from corral.image import refusals as client
from corral.image.blobs import BlobStream
from corral.image.registry import Registry
from corral.oci.digest import Digest, algorithm_of
from corral.registry import names
from corral.registry import settings as configuration
from corral.registry.blobs import Blobs
from corral.registry.http.messages import Flow
from corral.registry.http.wire import ClientGone
from corral.registry.layout import Layout, read_link
from corral.registry.manifests import Manifests
from corral.registry.metrics import Metrics
from corral.registry.refusals import BlobUnknown, Coded, ManifestInvalid, ManifestUnknown

_PIECE = 1 << 20
_LOOK_S = 0.05
_ATTEMPTS = 3
_TAG_PAGES_MAX = 100


class _Tags(msgspec.Struct):
    """A list of tags as registries answer it."""

    tags: list[str] | None = None


class UpstreamFailed(Coded, Unavailable):
    """The other registry cannot be reached, refuses us, or sends something else."""

    code = "UNAVAILABLE"


class Upstream:
    """The other registry, and what of it is here.  Safe from any thread of any process."""

    def __init__(
        self,
        settings: configuration.Upstream,
        layout: Layout,
        blobs: Blobs,
        manifests: Manifests,
        metrics: Metrics,
    ) -> None:
        """Raises BadSettings."""
        self._layout = layout
        self._blobs = blobs
        self._manifests = manifests
        self._metrics = metrics
        self._ttl_s = configuration.duration_s(settings.tag_ttl)
        parts = urlsplit(settings.url)
        self._host = parts.netloc
        self._insecure = settings.insecure or parts.scheme == "http"
        self._auth = {"username": settings.username, "password": _password(settings)} if settings.username else {}
        self._sessions: dict[str, dict[str, Any]] = {}
        self._growing = threading.Condition()

    def _client(self, name: str) -> Registry:
        return Registry(
            {
                "host": self._host,
                "repository": name,
                "shown": f"{self._host}/{name}",
                "auth": self._auth,
                "insecure": self._insecure,
                "session": self._sessions.get(name),
            }
        )

    def _learnt(self, name: str, registry: Registry) -> None:
        if len(self._sessions) > 10_000:
            self._sessions.clear()
        self._sessions[name] = registry.session
        registry.close()

    # -- manifests ---------------------------------------------------------------------------------

    def refresh(self, name: str, reference: str) -> None:
        """Have the manifest here, and a tag no older than its time; an older one will do while upstream is away.

        Raises ManifestUnknown or UpstreamFailed.
        """
        if ":" not in reference and not names.is_tag(reference):
            raise ManifestUnknown(reference)  # nothing else becomes part of a request of ours
        here = self._have(name, reference)
        if here and (":" in reference or self._manifests.tag_age_s(name, reference) < self._ttl_s):
            return
        registry = self._client(name)
        try:
            media_type, data = registry.manifest(reference)
        except (client.ManifestUnknown, client.AccessDenied) as error:
            raise ManifestUnknown(reference) from error
        except CorralError as error:
            self._metrics.add("corral_registry_upstream_errors_total")
            if here:
                return
            raise UpstreamFailed(f"cannot fetch from upstream: {error}") from error
        finally:
            self._learnt(name, registry)
        self._store(name, reference, media_type, data)

    def _have(self, name: str, reference: str) -> bool:
        try:
            digest = self._manifests.resolve(name, reference)
        except ManifestUnknown:
            return False
        return read_link(self._layout.manifest_link(name, digest)) is not None

    def _store(self, name: str, reference: str, media_type: str, data: bytes) -> None:
        algorithm = algorithm_of(reference) if ":" in reference else "sha256"
        digest = Digest(f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}")
        if ":" in reference and digest != reference:
            raise UpstreamFailed("cannot fetch from upstream: the manifest is not what its digest says")
        try:
            self._manifests.adopt(name, digest, data, media_type, None if ":" in reference else reference)
        except ManifestInvalid as error:
            raise UpstreamFailed(f"cannot fetch from upstream: {error}") from error

    def tags(self, name: str) -> list[str] | None:
        """Every tag that upstream has, sorted; None when it cannot be asked or does not tell."""
        registry = self._client(name)
        found: set[str] = set()
        target = f"/v2/{name}/tags/list"
        try:
            for _ in range(_TAG_PAGES_MAX):
                answer = registry.request("GET", target)
                if answer.status != 200:
                    return None
                page = msgspec.json.decode(answer.body, type=_Tags)
                found.update(tag for tag in page.tags or () if names.is_tag(tag))
                link = urlsplit((answer.headers.get("Link") or "").partition("<")[2].partition(">")[0])
                if link.path != f"/v2/{name}/tags/list":
                    break
                target = f"{link.path}?{link.query}"
        except (CorralError, msgspec.DecodeError):
            self._metrics.add("corral_registry_upstream_errors_total")
            return None
        finally:
            self._learnt(name, registry)
        return sorted(found)

    # -- blobs -------------------------------------------------------------------------------------

    def blob_size(self, name: str, digest: str) -> int:
        """Bytes of a blob that is not here; raises BlobUnknown or UpstreamFailed."""
        registry = self._client(name)
        try:
            answer = registry.request("HEAD", f"/v2/{name}/blobs/{digest}")
        except CorralError as error:
            self._metrics.add("corral_registry_upstream_errors_total")
            raise UpstreamFailed(f"cannot fetch from upstream: {error}") from error
        finally:
            self._learnt(name, registry)
        text = answer.headers.get("Content-Length") or ""
        if answer.status == 404:
            raise BlobUnknown(digest)
        if answer.status != 200 or not text.isdigit():
            raise UpstreamFailed(f"cannot fetch from upstream: status {answer.status}")
        return int(text)

    def blob(self, name: str, digest: str) -> Flow:
        """A blob that is not here: fetched, kept, and passed on as it comes.  Raises BlobUnknown or UpstreamFailed."""
        size = self.blob_size(name, digest)  # also says whether this repository may be asked for it
        if os.path.exists(self._layout.blob(digest)):
            with self._layout.sharing():
                self._blobs.link(name, digest)
        return Flow(self._follow(name, digest, size), size)

    def _follow(self, name: str, digest: str, size: int) -> Iterator[bytes]:
        """The bytes from the file as it grows; begins the fetch if nobody has."""
        offset = attempts = 0
        while offset < size:
            attempts += 1
            if attempts > _ATTEMPTS:
                raise ClientGone  # nothing but a broken connection can tell the client now
            fd = self._open(name, digest, size)
            try:
                while offset < size:
                    data = os.pread(fd, min(_PIECE, size - offset), offset)
                    if data:
                        offset += len(data)
                        attempts = 0
                        yield data
                    elif self._is_running(fd):
                        with self._growing:
                            self._growing.wait(_LOOK_S)
                    elif os.fstat(fd).st_size <= offset:
                        break  # broke off: begin or join another fetch
            finally:
                os.close(fd)

    def _open(self, name: str, digest: str, size: int) -> int:
        """The blob, or its beginning with a fetch running; raises UpstreamFailed."""
        while True:
            try:
                return os.open(self._layout.blob(digest), os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                pass
            path = self._layout.fetch(digest)
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return fd
            if not _is_at(fd, path) or os.path.exists(self._layout.blob(digest)):
                if _is_at(fd, path):
                    os.unlink(path)
                os.close(fd)  # finished meanwhile
                continue
            reading = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            threading.Thread(target=self._fetch, args=(fd, name, digest, size), daemon=True).start()
            return reading

    @staticmethod
    def _is_running(fd: int) -> bool:
        """Whether somebody still writes."""
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        fcntl.flock(fd, fcntl.LOCK_UN)
        return False

    def _fetch(self, fd: int, name: str, digest: str, size: int) -> None:
        """Fill the file, verify it, and make it a blob; owns `fd`, whose lock it ends with."""
        registry = self._client(name)
        try:
            self._metrics.add("corral_registry_upstream_fetches_total")
            self._fill(fd, registry, digest, size)
            os.fsync(fd)
            with self._layout.sharing():
                self._blobs.adopt(self._layout.fetch(digest), digest)
                self._blobs.link(name, digest)
        except (CorralError, OSError):
            self._metrics.add("corral_registry_upstream_errors_total")
        finally:
            self._learnt(name, registry)
            os.close(fd)
            with self._growing:
                self._growing.notify_all()

    def _fill(self, fd: int, registry: Registry, digest: str, size: int) -> None:
        value = hashlib.new(algorithm_of(digest))
        offset = 0
        while data := os.pread(fd, _PIECE, offset):
            value.update(data)
            offset += len(data)
        stream = BlobStream([registry], digest, size, offset, (), lambda _: None)
        while data := stream.read():
            os.pwrite(fd, data, offset)
            value.update(data)
            offset += len(data)
            self._metrics.add("corral_registry_upstream_bytes_total", len(data))
            with self._growing:
                self._growing.notify_all()
        if f"{algorithm_of(digest)}:{value.hexdigest()}" != digest:
            os.ftruncate(fd, 0)
            raise UpstreamFailed(f"cannot fetch {digest} from upstream: the content is something else")


def _is_at(fd: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except FileNotFoundError:
        return False


def _password(settings: configuration.Upstream) -> str:
    if not settings.password_file:
        return ""
    try:
        with open(settings.password_file, encoding="utf-8") as file:
            return file.read().strip("\n")
    except OSError as error:
        raise configuration.BadSettings(f"cannot read {settings.password_file}: {error.strerror}") from error
