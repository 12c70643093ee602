"""What earlier builds have made: steps by what went into them, with the layers they left.

A record's keys name inputs: the definition of a step on top of its parent's key, and, where files come in, the digest
of their content.  Whoever builds, through whatever door, asks with the same keys.  A lease keeps the layers of every
record from being swept; records go by prune, or oldest first when the cache is larger than it may be.

    table build_cache (id PRIMARY KEY, record)
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import time
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from corral.store.db import Database, Statement
from corral.store.gc import Lease
from corral.store.snapshots import Snapshots

REGULAR, SOURCE_LOCAL, SOURCE_IMAGE, CACHE_MOUNT = "regular", "source.local", "source.image", "exec.cachemount"


class Record(msgspec.Struct):
    """One step.  `chain` is the file system after it ("" is an empty one), `size` of its own layer in bytes."""

    id: str
    keys: list[str]
    parent: str
    chain: str
    empty: bool
    description: str
    kind: str
    size: int
    created: str
    created_ns: int
    used_ns: int
    uses: int = 0


_decode = msgspec.json.Decoder(Record).decode


def key_of(*parts: Any) -> str:
    """One digest for all that goes into a step."""
    return hashlib.sha256(msgspec.json.encode(parts)).hexdigest()


class Cache:
    """The records, in memory and in the database.  For the event loop's thread."""

    def __init__(self, db: Database, snapshots: Snapshots, lease: Lease, limit_bytes: int) -> None:
        self._db = db
        self._snapshots = snapshots
        self._lease = lease
        self.limit_bytes = limit_bytes
        self._flights: dict[str, asyncio.Future[None]] = {}
        db.submit(
            ("CREATE TABLE IF NOT EXISTS build_cache (id TEXT PRIMARY KEY, record BLOB) WITHOUT ROWID", ())
        ).result()
        self._records: dict[str, Record] = {}
        self._by_key: dict[str, Record] = {}
        for (raw,) in db.read("SELECT record FROM build_cache"):
            self._add(_decode(raw))

    def _add(self, record: Record) -> None:
        self._records[record.id] = record
        for key in record.keys:
            self._by_key[key] = record
        if record.chain:
            self._lease.add(record.chain)

    # --- building --------------------------------------------------------------------------------------------

    def find(self, *keys: str) -> Record | None:
        """A step with one of these keys whose layers are here; it counts as used now."""
        for key in keys:
            record = self._by_key.get(key)
            if record is None:
                continue
            if record.chain and not self._snapshots.has_layer(record.chain):
                self.drop([record])  # removed behind our back, by force
                continue
            record.used_ns = time.time_ns()
            record.uses += 1
            self._db.submit(_save(record))
            return record
        return None

    def put(self, record: Record) -> Record:
        """Keep what a step has made; what had one of its keys before goes."""
        old = {id(held): held for key in record.keys if (held := self._by_key.get(key)) is not None}
        self._add(record)
        statements = [_delete(held) for held in old.values()]
        for held in old.values():
            self._forget(held)
        self._db.submit(*statements, _save(record))
        return record

    def also(self, record: Record, key: str) -> None:
        """Find `record` by one more key."""
        if key not in record.keys:
            record.keys.append(key)
            self._by_key[key] = record
            self._db.submit(_save(record))

    def new(self, keys: Iterable[str], *, parent: str, chain: str, empty: bool, description: str, kind: str,
            created: str) -> Record:  # fmt: skip
        """A record for a step that was carried out just now."""
        now = time.time_ns()
        size = 0 if empty or not chain else self._snapshots.layer(chain).size
        return Record(
            secrets.token_hex(13), [*keys], parent, chain, empty, description, kind, size, created, now, now
        )  # fmt: skip

    async def claim(self, key: str) -> Callable[[], None]:
        """Wait while somebody else carries out this very step; call the result when ours is recorded or given up."""
        while (flight := self._flights.get(key)) is not None:
            await asyncio.wait((flight,))
        mine: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._flights[key] = mine

        def release() -> None:
            if not mine.done():
                mine.set_result(None)
                del self._flights[key]

        return release

    # --- keeping house ---------------------------------------------------------------------------------------

    def records(self) -> list[Record]:
        """Everything, the least recently used first."""
        return sorted(self._records.values(), key=lambda record: record.used_ns)

    def drop(self, records: Iterable[Record]) -> None:
        """Forget records; their layers go with the next collection, unless something else keeps them."""
        gone = list(records)
        for record in gone:
            self._forget(record)
        if gone:
            self._db.submit(*(_delete(record) for record in gone))

    def _forget(self, record: Record) -> None:
        if self._records.pop(record.id, None) is None:
            return
        for key in record.keys:
            if self._by_key.get(key) is record:
                del self._by_key[key]
        if record.chain:
            self._lease.drop(record.chain)


def _save(record: Record) -> Statement:
    return "INSERT OR REPLACE INTO build_cache VALUES (?, ?)", (record.id, msgspec.json.encode(record))


def _delete(record: Record) -> Statement:
    return "DELETE FROM build_cache WHERE id = ?", (record.id,)
