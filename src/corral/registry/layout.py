"""The registry's folder: where everything is, who may change it when, and how a change becomes durable.

    ROOT/
        corral-registry                                 {"version": 1}: this folder is ours
        lock, lock-next                                 see `sharing` and `alone`
        token-key                                       secret of the built-in token endpoint (tokens.py)
        blobs/sha256/<hex>, blobs/sha512/<hex>          content of all repositories: whole, verified, never changed
        incoming/<random>                               documents on their way in
        fetches/<algorithm>-<hex>                       blobs on their way from an upstream registry (upstream.py)
        repositories/<name>/_blobs/<algorithm>/<hex>    empty file: the repository has this blob
        repositories/<name>/_manifests/<algorithm>/<hex>    symbolic link to its media type: it has this manifest
        repositories/<name>/_tags/<tag>                 symbolic link to a digest
        repositories/<name>/_referrers/<algorithm>/<hex>/<digest>   empty file: that manifest has this subject
        repositories/<name>/_uploads/<random>           the bytes of an upload so far; its size is the offset

A component of a name never begins with an underscore, so names cannot collide with the folders in a repository.  What
is a symbolic link is one because its text is made, replaced and brought to disk with its directory, in one step.

Any number of processes may use one root.  Whatever *adds* something holds the lock shared, which costs nothing while
nobody collects; the collector (collect.py) marks without the lock and holds it alone only while it removes.

A blob is written and brought to disk under another name, renamed, its directory brought to disk, and then linked from
a repository.  A kill or a power cut leaves at most files that nothing names, which the collector removes.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from corral.errors import InvalidParameter, System
from corral.oci.digest import algorithm_of, hex_of

_MARKER = "corral-registry"
_VERSION = 1
_ALGORITHMS = ("sha256", "sha512")
_UNSYNCED_S = 60.0


class NotOurRoot(InvalidParameter):
    """A folder with something else in it, or of a newer version."""


class RootUnusable(System):
    """A folder that cannot be made or written."""


class _Batch:
    """Threads that wait for one fsync."""

    def __init__(self) -> None:
        self.done = threading.Event()
        self.error: OSError | None = None


class DirectorySync:
    """fsync of directories, shared by all threads that want it at about the same time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[str, _Batch] = {}
        self._running: dict[str, threading.Lock] = {}

    def sync(self, path: str) -> None:
        """Bring to disk what was made, renamed or removed in the directory before this call."""
        with self._lock:
            batch = self._waiting.get(path)
            leads = batch is None
            if batch is None:
                batch = self._waiting[path] = _Batch()
                if len(self._running) > 1024:
                    self._running = {name: lock for name, lock in self._running.items() if lock.locked()}
                running = self._running.setdefault(path, threading.Lock())
        if not leads:
            batch.done.wait()
        else:
            with running:
                with self._lock:
                    del self._waiting[path]  # who comes from now on is not covered by the fsync that begins
                try:
                    _fsync_directory(path)
                except OSError as error:
                    batch.error = error
                batch.done.set()
        if batch.error is not None:
            raise batch.error


def _fsync_directory(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def open_existing(root: str) -> Layout:
    """Open a root that is there; raises NotOurRoot or RootUnusable."""
    if not os.path.exists(os.path.join(root, _MARKER)):
        raise NotOurRoot(f"cannot use {os.path.abspath(root)}: there is no registry")
    return Layout(root)


class Layout:
    """An open root."""

    def __init__(self, root: str) -> None:
        """Open or make the root; raises NotOurRoot or RootUnusable."""
        self.root = os.path.abspath(root)
        self.repositories = os.path.join(self.root, "repositories")
        self.incoming = os.path.join(self.root, "incoming")
        self.fetches = os.path.join(self.root, "fetches")
        self._lock_path = os.path.join(self.root, "lock")
        self._next_path = os.path.join(self.root, "lock-next")
        self._directories = DirectorySync()
        try:
            self._open()
        except OSError as error:
            raise RootUnusable(f"cannot use {self.root}: {error.strerror or error}") from error

    def _open(self) -> None:
        os.makedirs(self.root, mode=0o700, exist_ok=True)
        marker = os.path.join(self.root, _MARKER)
        try:
            with open(marker, "rb") as file:
                version = json.loads(file.read(1024))["version"]
        except FileNotFoundError:
            strange = set(os.listdir(self.root)) - {"lost+found", _MARKER, f"{_MARKER}.new"}
            if strange:
                raise NotOurRoot(
                    f"cannot use {self.root}: it is not empty and not a registry's root (there is {min(strange)!r})"
                ) from None
            version = _VERSION
            self._write_marker(marker)
        except (ValueError, LookupError, TypeError) as error:
            raise NotOurRoot(f"cannot use {self.root}: {marker} is damaged") from error
        if version != _VERSION:
            raise NotOurRoot(f"cannot use {self.root}: it is of version {version}, this program knows {_VERSION}")
        folders = [f"blobs/{algorithm}" for algorithm in _ALGORITHMS]
        for folder in ("repositories", "incoming", "fetches", *folders):
            os.makedirs(os.path.join(self.root, folder), mode=0o700, exist_ok=True)
        for path in (self._lock_path, self._next_path):
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        _fsync_directory(self.root)

    def _write_marker(self, marker: str) -> None:
        with open(marker + ".new", "w") as file:
            json.dump({"version": _VERSION}, file)
            file.flush()
            os.fsync(file.fileno())
        os.rename(marker + ".new", marker)

    # -- places ------------------------------------------------------------------------------------

    def blob(self, digest: str) -> str:
        """Where the blob is or would be.  `digest` has been checked (names.py), here and below."""
        return f"{self.root}/blobs/{algorithm_of(digest)}/{hex_of(digest)}"

    def repository(self, name: str) -> str:
        """The folder of a repository."""
        return f"{self.repositories}/{name}"

    def blob_link(self, name: str, digest: str) -> str:
        """The file that says that the repository has the blob."""
        return f"{self.repositories}/{name}/_blobs/{algorithm_of(digest)}/{hex_of(digest)}"

    def manifest_link(self, name: str, digest: str) -> str:
        """The link that says that the repository has the manifest."""
        return f"{self.repositories}/{name}/_manifests/{algorithm_of(digest)}/{hex_of(digest)}"

    def tags(self, name: str) -> str:
        """The folder of a repository's tags."""
        return f"{self.repositories}/{name}/_tags"

    def referrers(self, name: str, subject: str) -> str:
        """The folder of what refers to `subject`."""
        return f"{self.repositories}/{name}/_referrers/{algorithm_of(subject)}/{hex_of(subject)}"

    def uploads(self, name: str) -> str:
        """The folder of a repository's uploads."""
        return f"{self.repositories}/{name}/_uploads"

    def fetch(self, digest: str) -> str:
        """The file of a blob on its way from upstream."""
        return f"{self.fetches}/{digest.replace(':', '-')}"

    def token_key(self) -> str:
        """The file of the secret that our tokens are signed with."""
        return f"{self.root}/token-key"

    def names(self) -> list[str]:
        """Every repository that has or had a manifest, a blob or an upload, sorted."""
        found: list[str] = []
        pending = [""]
        while pending:
            prefix = pending.pop()
            inside = list_directory(os.path.join(self.repositories, prefix))
            if not {"_manifests", "_blobs", "_uploads"}.isdisjoint(inside):
                found.append(prefix)
            pending.extend(f"{prefix}/{entry}" if prefix else entry for entry in inside if not entry.startswith("_"))
        return sorted(found)

    # -- changes -----------------------------------------------------------------------------------

    @contextmanager
    def sharing(self) -> Iterator[None]:
        """While something is added, together with others who add.  Not within another `sharing`."""
        yield from self._locked(fcntl.LOCK_SH)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """While nobody adds anything."""
        yield from self._locked(fcntl.LOCK_EX)

    def _locked(self, kind: int) -> Iterator[None]:
        """Hold the lock.

        On the way to it everybody passes `lock-next`: the kernel would let those who share overtake one who waits to
        be alone for ever, and there they have to wait for him.
        """
        next_fd = os.open(self._next_path, os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.flock(next_fd, kind)
            fd = os.open(self._lock_path, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(fd, kind)
                if kind == fcntl.LOCK_SH:
                    fcntl.flock(next_fd, fcntl.LOCK_UN)
                yield
            finally:
                os.close(fd)
        finally:
            os.close(next_fd)

    def make_folder(self, path: str) -> None:
        """Make a folder below the root and whatever is missing above it, durably."""
        missing = []
        while not os.path.isdir(path):
            missing.append(path)
            path = os.path.dirname(path)
        for folder in reversed(missing):
            try:
                os.mkdir(folder, 0o700)
            except FileExistsError:
                pass
            self._directories.sync(os.path.dirname(folder))

    def mark(self, path: str) -> None:
        """Make an empty file, durably, or make the one that is there young again (see collect.py)."""
        self._made(path, self._mark)

    def _mark(self, path: str) -> None:
        try:
            age_s = time.time() - os.stat(path).st_mtime
            os.utime(path)
        except FileNotFoundError:
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
            age_s = 0.0
        if age_s < _UNSYNCED_S:  # by us, or by another who may not have brought it to disk yet
            self.sync(os.path.dirname(path))

    def write_link(self, path: str, text: str) -> None:
        """Make or replace a symbolic link, durably."""

        def place(path: str) -> None:
            folder = os.path.dirname(path)
            temporary = f"{folder}/.{secrets.token_hex(8)}"
            os.symlink(text, temporary)
            os.rename(temporary, path)
            self.sync(folder)

        self._made(path, place)

    def _made(self, path: str, make: object) -> None:
        assert callable(make)
        try:
            make(path)
        except FileNotFoundError:
            self.make_folder(os.path.dirname(path))
            make(path)

    def sync(self, folder: str) -> None:
        """Bring to disk what was made, renamed or removed in `folder`."""
        self._directories.sync(folder)

    def remove(self, path: str) -> bool:
        """Remove a file or link, durably; whether it was there."""
        try:
            os.unlink(path)
        except (FileNotFoundError, NotADirectoryError):
            return False
        try:
            self.sync(os.path.dirname(path))
        except FileNotFoundError:
            pass  # the collector has removed the empty folder
        return True


def list_directory(path: str) -> list[str]:
    """The names in a directory but those of unfinished work; empty where there is none."""
    try:
        return [name for name in os.listdir(path) if not name.startswith(".")]
    except (FileNotFoundError, NotADirectoryError):
        return []


def read_link(path: str) -> str | None:
    """The text of a symbolic link; None where there is none."""
    try:
        return os.readlink(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:  # EINVAL: not a link
        raise RootUnusable(f"cannot read {path}: {error.strerror}") from error
