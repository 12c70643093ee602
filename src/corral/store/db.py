"""The database: one sqlite file that holds every durable fact that is not a blob or a directory.

Layout (each `record` is the JSON of a Struct in `corral.store.records`; other columns exist to be unique):

    container (id PRIMARY KEY, name UNIQUE, record)
    network   (id PRIMARY KEY, name UNIQUE, record)
    volume    (name PRIMARY KEY, record)
    image     (name PRIMARY KEY, record)          name -> descriptor; "" never occurs
    snapshot  (key PRIMARY KEY, parent, record)
    layer     (chain_id PRIMARY KEY, record)
    setting   (key PRIMARY KEY, value)

Durability: WAL with `synchronous=FULL`, so a commit that was acknowledged survives a power cut.  One thread
writes; callers that arrive while it waits for the disk are committed together, so a burst of writes costs one
`fsync`.  Reads come from any thread over a connection of their own and see every acknowledged write.
"""

from __future__ import annotations

import queue
import sqlite3
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

Statement = tuple[str, Sequence[Any]]

_SCHEMA = """
CREATE TABLE container (id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, record BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE network (id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, record BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE volume (name TEXT PRIMARY KEY, record BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE image (name TEXT PRIMARY KEY, record BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE snapshot (key TEXT PRIMARY KEY, parent TEXT, record BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE layer (chain_id TEXT PRIMARY KEY, record BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE setting (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
"""
_VERSION = 1


class Database:
    """The open database.  `submit` to write, `read` to read; both may be called from any thread."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._reader = self._connect()
        self._reader_lock = threading.Lock()
        self._writer = self._connect()
        self._migrate()
        self._queue: queue.SimpleQueue[tuple[tuple[Statement, ...], Future[None]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._write_loop, name="db-writer", daemon=True)
        self._thread.start()

    def submit(self, *statements: Statement) -> Future[None]:
        """Run `statements` as one transaction; the future resolves once they are on disk.

        sqlite3.IntegrityError arrives through the future when a name is taken; then nothing was changed.
        """
        done: Future[None] = Future()
        self._queue.put((statements, done))
        return done

    def read(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """All rows of a query."""
        with self._reader_lock:
            return self._reader.execute(sql, parameters).fetchall()

    def close(self) -> None:
        """Finish what was submitted, then close."""
        self._queue.put(None)
        self._thread.join()
        self._reader.close()
        self._writer.close()

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, check_same_thread=False, isolation_level=None)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        return connection

    def _migrate(self) -> None:
        (version,) = self._writer.execute("PRAGMA user_version").fetchone()
        if version == _VERSION:
            return
        if version:
            raise sqlite3.DatabaseError(f"cannot open {self._path}: its schema {version} is newer than {_VERSION}")
        self._writer.executescript(f"BEGIN;{_SCHEMA}PRAGMA user_version={_VERSION};COMMIT;")

    def _write_loop(self) -> None:
        while True:
            item = self._queue.get()
            batch = []
            while item is not None:
                batch.append(item)
                try:
                    item = self._queue.get_nowait()
                except queue.Empty:
                    break
            self._commit(batch)
            if item is None:
                return

    def _commit(self, batch: list[tuple[tuple[Statement, ...], Future[None]]]) -> None:
        """Commit a batch; each caller's statements stand or fall on their own (a savepoint each)."""
        if not batch:
            return
        committed: list[Future[None]] = []
        try:
            self._writer.execute("BEGIN IMMEDIATE")
            for statements, done in batch:
                self._writer.execute("SAVEPOINT one")
                try:
                    for sql, parameters in statements:
                        self._writer.execute(sql, parameters)
                except sqlite3.Error as error:
                    self._writer.execute("ROLLBACK TO one")
                    done.set_exception(error)
                else:
                    committed.append(done)
                self._writer.execute("RELEASE one")
            self._writer.execute("COMMIT")
        except sqlite3.Error as error:  # a full or failing disk: nobody is told that anything was kept
            if self._writer.in_transaction:
                self._writer.execute("ROLLBACK")
            for _, done in batch:
                if not done.done():
                    done.set_exception(error)
        else:
            for done in committed:
                done.set_result(None)
