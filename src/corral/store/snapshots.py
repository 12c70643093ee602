"""Snapshots: overlay directories, read-only ones from layers and writable ones of containers.

    DATA_ROOT/overlay/
        <id>/fs           a layer's files (committed), or a container's upper directory (active)
        <id>/work         overlayfs's work directory (active only)

    table layer     (chain_id, record)        record: dir, parent chain id, diff id, blob, bytes, boot
    table snapshot  (key, parent, record)     record: dir, kind

What a container had written at some moment can be committed too (`freeze`): a directory like a layer's, without a
digest.  A snapshot's parent is therefore a chain id or the key of a committed snapshot; below those is always a layer.
A committed snapshot is kept while it is named or something stands on it.

A directory without a row is garbage, so a crash leaves nothing but what `recover` drops.  Rows are written before a
directory is used and removed before it is deleted.

A layer's files are not brought to disk when its row is committed; its blob is.  The row keeps the boot in which it
was unpacked until a `syncfs` has happened (`settle_disk`, in the background): a layer that another boot finds still
marked may be torn, and is unpacked from its blob again.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Literal

import msgspec

from corral.errors import Conflict, NotFound, System
from corral.linux import filesystem
from corral.oci.digest import ChainID, digest_of
from corral.store import duplicate
from corral.store.db import Database, Statement
from corral.store.directories import Directories

_DEPTH_MAX = 200  # overlayfs takes 500, and classic mount(2) a page of names


class NoSuchSnapshot(NotFound):
    """No snapshot of that key, or no layer of that chain id."""

    def __init__(self, key: str) -> None:
        super().__init__(f"snapshot {key} does not exist")


class SnapshotExists(Conflict):
    """The key is taken."""

    def __init__(self, key: str) -> None:
        super().__init__(f"snapshot {key} already exists")


class TooDeep(Conflict):
    """Overlayfs takes only so many layers."""

    def __init__(self, key: str) -> None:
        super().__init__(
            f"cannot make a snapshot: {key[:12]} stands on {_DEPTH_MAX} layers already; commit it to an image, "
            "squashed if need be, and go on from that"
        )


class LayerMissing(System):
    """A directory that the database promises is not on disk."""

    def __init__(self, path: str) -> None:
        super().__init__(f"cannot mount snapshot: layer directory {path} is missing")


@dataclass(frozen=True, slots=True)
class OverlayMount:
    """What overlayfs is told: `lower` with the top-most layer first; `upper` and `work` are empty for a view."""

    lower: tuple[str, ...]
    upper: str = ""
    work: str = ""


@dataclass(frozen=True, slots=True)
class Usage:
    """Disk use of one directory tree."""

    bytes: int
    inodes: int


class Layer(msgspec.Struct, frozen=True):
    """A committed layer.  `size` is of the unpacked files, in bytes; `boot` is "" once it is known to be on disk."""

    dir: str
    parent: str
    diff_id: str
    blob: str
    size: int
    boot: str
    mode: int = 0o755
    uid: int = 0
    gid: int = 0


class Frozen(msgspec.Struct, frozen=True):
    """A committed snapshot: what a container had written; `parent` is a chain id or another one's key."""

    dir: str
    parent: str
    named: bool


class _Record(msgspec.Struct, frozen=True, omit_defaults=True):
    dir: str
    kind: Literal["active", "named", "unnamed"] = "active"


@dataclass(frozen=True, slots=True)
class Change:
    """Statements for a transaction of the caller's, who calls `done` after it, or `undo` if it failed."""

    statements: tuple[Statement, ...]
    done: Callable[[], None]
    undo: Callable[[], None]


_decode_layer = msgspec.json.Decoder(Layer).decode
_decode_record = msgspec.json.Decoder(_Record).decode


class Snapshots:
    """The open store below DATA_ROOT/overlay.  Safe from any thread."""

    def __init__(self, db: Database, root: str) -> None:
        self._db = db
        self.root = root
        self._directories = Directories(root)
        self.has_quotas = self._directories.has_quotas
        self._lock = threading.Lock()
        self._boot = _boot_id()
        self._layers: dict[str, Layer] = {
            chain: _decode_layer(record) for chain, record in db.read("SELECT chain_id, record FROM layer")
        }
        self._active: dict[str, tuple[str, str]] = {}
        self._frozen: dict[str, Frozen] = {}
        for key, parent, raw in db.read("SELECT key, parent, record FROM snapshot"):
            record = _decode_record(raw)
            if record.kind == "active":
                self._active[key] = (parent or "", record.dir)
            else:
                self._frozen[key] = Frozen(record.dir, parent or "", record.kind == "named")

    # --- containers ------------------------------------------------------------------------------------------

    def prepare(self, key: str, parent: str | None) -> OverlayMount:
        """Make the writable snapshot `key` on top of `parent` (a chain id, or a committed snapshot), durably."""
        mount, statement = self.stage(key, parent)
        self._db.submit(statement).result()
        return mount

    def stage(self, key: str, parent: str | None, limit_bytes: int = 0) -> tuple[OverlayMount, Statement]:
        """As `prepare`, but the caller submits the statement with its own; if that fails it calls `remove`.

        With a limit, which needs `has_quotas`, no more than that can be written into it.
        """
        with self._lock:
            stack = self._stack(parent)
            if key in self._active:
                raise SnapshotExists(key)
            folder = self._directories.begin()
            self._active[key] = (parent or "", folder)
        self._directories.kept(folder)
        try:
            self._furnish(folder, parent, limit_bytes)
        except BaseException:
            self.removed(key)
            raise
        mount = OverlayMount(stack, self._directories.path(folder, "fs"), self._directories.path(folder, "work"))
        return mount, _insertion(key, parent or "", _Record(folder))

    def mounts(self, key: str) -> OverlayMount:
        """The mount of an existing snapshot; raises NoSuchSnapshot or LayerMissing."""
        parent, folder = self._find(key)
        stack = self._stack(parent)
        for path in stack:
            if not os.path.isdir(path):
                raise LayerMissing(path)
        return OverlayMount(stack, self._directories.path(folder, "fs"), self._directories.path(folder, "work"))

    def view(self, chain: ChainID | None) -> OverlayMount:
        """A read-only mount of a stack of layers."""
        return OverlayMount(self._stack(chain))

    def parent(self, key: str) -> ChainID | None:
        """The stack of layers below a snapshot."""
        name = self._find(key)[0]
        while name in self._frozen:
            name = self._frozen[name].parent
        return ChainID(name) if name else None

    def own(self, key: str) -> tuple[str, ...]:
        """The directories of a snapshot above its layers, top-most first: its own, and the committed ones below."""
        found, name = [], key
        if key not in self._frozen:
            name, folder = self._find(key)
            found = [self._directories.path(folder, "fs")]
        while name in self._frozen:
            found.append(self._directories.path(self._frozen[name].dir, "fs"))
            name = self._frozen[name].parent
        return tuple(found)

    def remove(self, key: str) -> None:
        """Forget a snapshot durably and delete its files in the background; absent is fine."""
        self._db.submit(self.removal(key)).result()
        self.removed(key)

    @staticmethod
    def removal(key: str) -> Statement:
        """The statement of `remove`, for a transaction of the caller's, who calls `removed` once it is committed."""
        return ("DELETE FROM snapshot WHERE key = ?", (key,))

    def removed(self, key: str) -> None:
        """Delete the files of a snapshot whose row is gone; absent is fine."""
        with self._lock:
            held = self._active.pop(key, None)
        if held:
            self._directories.throw_away(held[1])
            self._drop_unreachable()

    def usage(self, key: str) -> Usage:
        """Disk use of a snapshot's own files (not of the layers below)."""
        found = [disk_usage(path) for path in self.own(key)]
        return Usage(sum(one.bytes for one in found), sum(one.inodes for one in found))

    def keys(self) -> list[str]:
        """All snapshots of containers."""
        return list(self._active)

    # --- committed snapshots ---------------------------------------------------------------------------------

    def committed(self) -> dict[str, Frozen]:
        """Every committed snapshot by key."""
        return dict(self._frozen)

    def freeze(self, key: str, name: str, limit_bytes: int = 0) -> Change:
        """Commit what `key` holds as `name`, and give it an empty directory on top: no file is copied.

        Only while nothing has it mounted.  What was written must be on disk before the caller commits: `sync`.
        """
        parent, folder = self._find(key)
        self._check_depth(key)
        fresh = self._directories.begin()
        self._furnish(fresh, None, limit_bytes, like=self._directories.path(folder, "fs"))

        def done() -> None:
            with self._lock:
                self._frozen[name] = Frozen(folder, parent, True)
                self._active[key] = (name, fresh)
                self._directories.kept(fresh)

        statements = (_insertion(name, parent, _Record(folder, "named")), _moved(key, name, fresh))
        return Change(statements, done, lambda: self._directories.throw_away(fresh))

    def duplicate(self, key: str, name: str) -> Change:
        """Commit a copy of what `key` holds as `name`; the caller sees to it that nobody writes meanwhile."""
        parent, folder = self._find(key)
        self._check_depth(key)
        fresh = self._directories.begin()
        try:
            duplicate.duplicate(self._directories.path(folder, "fs"), self._directories.path(fresh, "fs"))
        except BaseException:
            self._directories.throw_away(fresh)
            raise

        def done() -> None:
            with self._lock:
                self._frozen[name] = Frozen(fresh, parent, True)
                self._directories.kept(fresh)

        return Change(
            (_insertion(name, parent, _Record(fresh, "named")),), done, lambda: self._directories.throw_away(fresh)
        )

    def rewind(self, key: str, name: str, limit_bytes: int = 0) -> Change:
        """Put `key` on top of the committed snapshot `name`, without what it has written since."""
        old = self._find(key)
        if name not in self._frozen:
            raise NoSuchSnapshot(name)
        fresh = self._directories.begin()
        self._furnish(fresh, name, limit_bytes)

        def done() -> None:
            with self._lock:
                self._active[key] = (name, fresh)
                self._directories.kept(fresh)
            self._directories.throw_away(old[1])
            self._drop_unreachable()

        return Change((_moved(key, name, fresh),), done, lambda: self._directories.throw_away(fresh))

    def forget(self, names: Sequence[str]) -> Change:
        """Keep committed snapshots only while something stands on them."""
        rows = {name: self._frozen[name] for name in names if name in self._frozen}

        def done() -> None:
            with self._lock:
                for name, frozen in rows.items():
                    self._frozen[name] = msgspec.structs.replace(frozen, named=False)
            self._drop_unreachable()

        statements = tuple(_named_no_more(name, frozen) for name, frozen in rows.items())
        return Change(statements, done, lambda: None)

    def sync(self) -> None:
        """Bring everything written to the file system of the snapshots to disk."""
        filesystem.sync(self.root)

    def _check_depth(self, key: str) -> None:
        if len(self._stack(self._find(key)[0])) >= _DEPTH_MAX:
            raise TooDeep(key)

    def _drop_unreachable(self) -> None:
        """Delete committed snapshots that have no name and that nothing stands on; a crash leaves it to `recover`.

        Nobody waits for the disk: a directory goes once its row has gone.
        """
        if not self._frozen:
            return
        with self._lock:
            kept: set[str] = set()
            starts = [parent for parent, _ in self._active.values()]
            starts += [name for name, frozen in self._frozen.items() if frozen.named]
            for name in starts:
                while name in self._frozen and name not in kept:
                    kept.add(name)
                    name = self._frozen[name].parent
            gone = [(name, self._frozen.pop(name)) for name in set(self._frozen) - kept]
        for name, frozen in gone:
            self._db.submit(self.removal(name)).add_done_callback(partial(self._row_gone, frozen.dir))

    def _row_gone(self, folder: str, row: Future[None]) -> None:
        if row.exception() is None:
            self._directories.throw_away(folder)

    # --- layers ----------------------------------------------------------------------------------------------

    def has_layer(self, chain: str) -> bool:
        """Whether the stack up to `chain` is unpacked."""
        return chain in self._layers

    def layer(self, chain: str) -> Layer:
        """A layer's record; raises NoSuchSnapshot."""
        try:
            return self._layers[chain]
        except KeyError as error:
            raise NoSuchSnapshot(chain) from error

    def begin_layer(self) -> str:
        """An empty directory to unpack into: `<root>/<id>/fs`."""
        folder = self._directories.begin()
        path = self._directories.path(folder, "fs")
        os.mkdir(path, 0o755)
        os.chmod(path, 0o755)
        return path

    def commit_layer(
        self, path: str, chain: ChainID, parent: ChainID | None, diff_id: str, blob: str, size: int
    ) -> None:
        """Make an unpacked directory (from `begin_layer`, settled) the layer `chain`; loses against an equal one."""
        if parent and parent not in self._layers:
            raise NoSuchSnapshot(parent)
        folder = os.path.basename(os.path.dirname(path))
        status = os.stat(path)
        layer = Layer(
            folder, parent or "", diff_id, blob, size, self._boot,
            status.st_mode & 0o7777, status.st_uid, status.st_gid,
        )  # fmt: skip
        with self._lock:
            if chain in self._layers:
                lost = True
            else:
                lost = False
                self._layers[chain] = layer
                self._directories.kept(folder)
        if lost:
            self._directories.throw_away(folder)
            return
        row: Statement = ("INSERT OR REPLACE INTO layer VALUES (?, ?)", (chain, msgspec.json.encode(layer)))
        self._db.submit(row).result()

    def abandon_layer(self, path: str) -> None:
        """Drop a directory from `begin_layer`."""
        self._directories.throw_away(os.path.basename(os.path.dirname(path)))

    def remove_layers(self, chains: Sequence[str]) -> None:
        """Forget layers that nothing uses any more (the caller knows) and delete their files in the background."""
        with self._lock:
            gone = [(chain, self._layers.pop(chain)) for chain in chains if chain in self._layers]
        if not gone:
            return
        self._db.submit(*(("DELETE FROM layer WHERE chain_id = ?", (chain,)) for chain, _ in gone)).result()
        for _, layer in gone:
            self._directories.throw_away(layer.dir)

    def layers(self) -> dict[str, Layer]:
        """Every layer by chain id."""
        return dict(self._layers)

    def layer_directory(self, chain: str) -> str:
        """The directory of one layer, whether it is there or not."""
        return self._directories.path(self.layer(chain).dir, "fs")

    def chain_of(self, layer: Layer) -> str:
        """What a layer's chain id must be, by its diff id and the layer below."""
        return layer.diff_id if not layer.parent else digest_of(f"{layer.parent} {layer.diff_id}".encode())

    def layer_paths(self, chain: ChainID | None) -> tuple[str, ...]:
        """The directories of a stack, top-most first."""
        return self._stack(chain)

    def used_chains(self) -> set[str]:
        """The chain ids that snapshots stand on, with everything below them."""
        used: set[str] = set()
        with self._lock:
            standing = [parent for parent, _ in self._active.values()]
            standing += [frozen.parent for frozen in self._frozen.values()]
        for parent in standing:
            if parent not in self._frozen:  # its own parent is in the list
                self.with_ancestors(parent, used)
        return used

    def with_ancestors(self, chain: str, into: set[str]) -> None:
        """Add `chain` and every layer below it."""
        while chain and chain not in into:
            into.add(chain)
            layer = self._layers.get(chain)
            chain = layer.parent if layer else ""

    # --- keeping house ---------------------------------------------------------------------------------------

    def stray_directories(self) -> list[str]:
        """Directories that no row names and nobody is working on."""
        found = self._directories.names()  # before looking at what is known: what is made meanwhile is not in it
        making = self._directories.in_the_making()
        with self._lock:
            known = {layer.dir for layer in self._layers.values()} | {folder for _, folder in self._active.values()}
            known |= {frozen.dir for frozen in self._frozen.values()}
            return sorted(found - known - making)

    def drop_stray(self, folder: str) -> None:
        """Delete one of `stray_directories`."""
        self._directories.throw_away(folder)

    def recover(self) -> None:
        """Drop directories that no row names (a crash made them); call once, before anything is staged."""
        self._drop_unreachable()
        for name in self.stray_directories():
            self._directories.throw_away(name)
        self._directories.empty_trash()

    def torn_layers(self) -> list[ChainID]:
        """Layers that may not have reached the disk before the machine went down, lowest first."""
        torn = {chain for chain, layer in self._layers.items() if layer.boot and layer.boot != self._boot}
        torn |= {
            chain for chain, layer in self._layers.items() if not os.path.isdir(self._directories.path(layer.dir, "fs"))
        }
        return sorted((ChainID(chain) for chain in torn), key=lambda chain: len(self._ancestors(chain)))

    def replace_layer(self, chain: ChainID, path: str, size: int) -> None:
        """Put a freshly unpacked directory in the place of a torn layer's."""
        old = self.layer(chain)
        folder = os.path.basename(os.path.dirname(path))
        layer = msgspec.structs.replace(old, dir=folder, boot=self._boot, size=size)
        self._db.submit(
            ("UPDATE layer SET record = ? WHERE chain_id = ?", (msgspec.json.encode(layer), chain))
        ).result()
        with self._lock:
            self._layers[chain] = layer
            self._directories.kept(folder)
        self._directories.throw_away(old.dir)

    def settle_disk(self) -> None:
        """Bring unpacked layers to disk and note it; run in the background after layers were committed."""
        marked = {chain: layer for chain, layer in self._layers.items() if layer.boot}
        if not marked:
            return
        filesystem.sync(self.root)
        rows: list[Statement] = []
        with self._lock:
            for chain, layer in marked.items():
                if self._layers.get(chain) is layer:
                    self._layers[chain] = clean = msgspec.structs.replace(layer, boot="")
                    rows.append(("UPDATE layer SET record = ? WHERE chain_id = ?", (msgspec.json.encode(clean), chain)))
        if rows:
            self._db.submit(*rows).result()

    def later(self) -> None:
        """Run `settle_disk` in the background."""
        self._directories.later(self.settle_disk)

    def close(self) -> None:
        """Wait for background work."""
        self._db.submit().result()  # whose end may bring directories to be deleted
        self._directories.close()

    def _ancestors(self, chain: str) -> set[str]:
        found: set[str] = set()
        self.with_ancestors(chain, found)
        return found

    def _find(self, key: str) -> tuple[str, str]:
        try:
            return self._active[key]
        except KeyError as error:
            raise NoSuchSnapshot(key) from error

    def _stack(self, name: str | None) -> tuple[str, ...]:
        paths = []
        while name:
            below = self._frozen.get(name) or self.layer(name)
            paths.append(self._directories.path(below.dir, "fs"))
            name = below.parent
        return tuple(paths)

    def _furnish(self, folder: str, parent: str | None, limit_bytes: int, like: str = "") -> None:
        """The two directories of an active snapshot.

        The upper's root has the mode and owner of what is below it (or of `like`): it is what `/` shows.
        """
        try:
            if limit_bytes:
                self._directories.limit(folder, limit_bytes)
            os.mkdir(self._directories.path(folder, "work"), 0o700)
            below = like or next(iter(self._stack(parent)), "")
            top = self._layers.get(parent or "")
            if top is not None:
                mode, owner = top.mode, (top.uid, top.gid)
            elif below:
                status = os.stat(below)
                mode, owner = status.st_mode & 0o7777, (status.st_uid, status.st_gid)
            else:
                mode, owner = 0o755, (0, 0)
            _make_root(self._directories.path(folder, "fs"), mode, owner)
        except BaseException:
            self._directories.throw_away(folder)
            raise


def disk_usage(path: str) -> Usage:
    """Bytes and inodes below `path`; a file with several names counts once, sparse files by what they occupy."""
    total = inodes = 0
    seen: set[int] = set()
    pending = [path]
    while pending:
        inodes += 1
        with os.scandir(pending.pop()) as found:
            for entry in found:
                status = entry.stat(follow_symlinks=False)
                if entry.is_dir(follow_symlinks=False):
                    pending.append(entry.path)
                    continue
                if status.st_nlink > 1:
                    if status.st_ino in seen:
                        continue
                    seen.add(status.st_ino)
                inodes += 1
                total += min(status.st_size, status.st_blocks * 512) if status.st_blocks else 0
    return Usage(total, inodes)


def _insertion(key: str, parent: str, record: _Record) -> Statement:
    return "INSERT INTO snapshot VALUES (?, ?, ?)", (key, parent, msgspec.json.encode(record))


def _moved(key: str, parent: str, folder: str) -> Statement:
    record = msgspec.json.encode(_Record(folder))
    return "UPDATE snapshot SET parent = ?, record = ? WHERE key = ?", (parent, record, key)


def _named_no_more(name: str, frozen: Frozen) -> Statement:
    record = msgspec.json.encode(_Record(frozen.dir, "unnamed"))
    return "UPDATE snapshot SET record = ? WHERE key = ?", (record, name)


def _make_root(path: str, mode: int, owner: tuple[int, int]) -> None:
    os.mkdir(path, mode)
    os.chmod(path, mode)
    if any(owner):
        os.chown(path, *owner)


def _boot_id() -> str:
    with open("/proc/sys/kernel/random/boot_id") as file:
        return file.read().strip()
