"""The vault: secrets and configs of plain containers, encrypted at rest.

Rows of the table `setting` under `vault/NAME`, each with what is told of the item and its content, encrypted with
AES-256-GCM (the item's id is authenticated with it).  The key is a file of its own, so that a copy of the database
alone tells nothing: DATA_ROOT/vault.key, or where the configuration says.
"""

from __future__ import annotations

import os
import re
import secrets
import threading
from dataclasses import dataclass

import msgspec

from corral.errors import Conflict, DataLoss, InvalidParameter, NotFound
from corral.linux import files
from corral.store.db import Database

KINDS = ("secret", "config")
_NAME = re.compile(r"[a-zA-Z0-9](?:[a-zA-Z0-9_.-]{0,62}[a-zA-Z0-9])?", re.ASCII)
_SIZE_MAX = {"secret": 500 << 10, "config": 1000 << 10}
_KEY_LENGTH = 32
_NONCE_LENGTH = 12
_PREFIX = "vault/"


class NoSuchItem(NotFound):
    """No secret or config of that name."""

    def __init__(self, kind: str, name: str) -> None:
        super().__init__(f"{kind} {name} not found")


class ItemExists(Conflict):
    """The name is taken."""

    def __init__(self, name: str) -> None:
        super().__init__(f"a secret or config with the name {name} exists")


class InvalidItem(InvalidParameter):
    """A name or a content that cannot be."""


class BadKey(DataLoss):
    """The key is not the one that the vault was written with."""

    def __init__(self, path: str) -> None:
        super().__init__(f"cannot open the vault: {path} is not its key")


class _Row(msgspec.Struct, frozen=True):
    id: str
    kind: str
    labels: dict[str, str]
    created_ns: int
    updated_ns: int
    sealed: bytes


@dataclass(frozen=True, slots=True)
class Item:
    """What is told of a secret or config; times in nanoseconds since the epoch."""

    id: str
    name: str
    kind: str
    labels: dict[str, str]
    created_ns: int
    updated_ns: int


class Vault:
    """The items.  Safe from any thread; writing blocks until it is durable."""

    def __init__(self, db: Database, key_path: str) -> None:
        self._db = db
        self._key_path = key_path
        self._lock = threading.Lock()
        self._rows: dict[str, _Row] = {
            key.removeprefix(_PREFIX): msgspec.json.decode(value, type=_Row)
            for key, value in db.read("SELECT key, value FROM setting WHERE key LIKE 'vault/%'")
        }

    def list(self) -> list[Item]:
        """All of them, by name."""
        return [_item(name, row) for name, row in sorted(self._rows.items())]

    def get(self, name: str, kind: str = "secret") -> Item:
        """One of them; raises NoSuchItem."""
        return _item(name, self._find(name, kind))

    def open(self, name: str, kind: str) -> bytes:
        """The content; raises NoSuchItem or BadKey."""
        from cryptography.exceptions import InvalidTag

        row = self._find(name, kind)
        try:
            return self._cipher().decrypt(row.sealed[:_NONCE_LENGTH], row.sealed[_NONCE_LENGTH:], row.id.encode())
        except InvalidTag as error:
            raise BadKey(self._key_path) from error

    def create(self, name: str, kind: str, data: bytes, labels: dict[str, str], now_ns: int) -> Item:
        """Keep something new; raises InvalidItem or ItemExists."""
        _check(name, kind, data)
        with self._lock:
            if name in self._rows:
                raise ItemExists(name)
            ident = secrets.token_hex(13)
            self._write(name, _Row(ident, kind, labels, now_ns, now_ns, self._seal(data, ident)))
        return self.get(name, kind)

    def update(self, name: str, kind: str, data: bytes, now_ns: int) -> Item:
        """Replace the content; raises NoSuchItem or InvalidItem."""
        _check(name, kind, data)
        with self._lock:
            row = self._find(name, kind)
            sealed = self._seal(data, row.id)
            self._write(name, msgspec.structs.replace(row, updated_ns=now_ns, sealed=sealed))
        return self.get(name, kind)

    def remove(self, name: str, kind: str) -> Item:
        """Forget one; raises NoSuchItem."""
        with self._lock:
            item = self.get(name, kind)
            self._db.submit(("DELETE FROM setting WHERE key = ?", (_PREFIX + name,))).result()
            del self._rows[name]
        return item

    def _find(self, name: str, kind: str) -> _Row:
        row = self._rows.get(name)
        if row is None or row.kind != kind:
            raise NoSuchItem(kind, name)
        return row

    def _write(self, name: str, row: _Row) -> None:
        statement = ("INSERT OR REPLACE INTO setting VALUES (?, ?)", (_PREFIX + name, msgspec.json.encode(row)))
        self._db.submit(statement).result()
        self._rows[name] = row

    def _seal(self, data: bytes, ident: str) -> bytes:
        nonce = secrets.token_bytes(_NONCE_LENGTH)
        return nonce + self._cipher().encrypt(nonce, data, ident.encode())

    def _cipher(self) -> AESGCM:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        return AESGCM(self._key())

    def _key(self) -> bytes:
        try:
            with open(self._key_path, "rb") as file:
                key = file.read()
        except FileNotFoundError:
            if self._rows:
                raise BadKey(self._key_path) from None
            key = secrets.token_bytes(_KEY_LENGTH)
            files.write_atomic(self._key_path, key, 0o600)
        if len(key) != _KEY_LENGTH or os.stat(self._key_path).st_mode & 0o077:
            raise BadKey(f"{self._key_path} (32 bytes that only its owner can read)")
        return key


TYPE_CHECKING = False
if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM


def _item(name: str, row: _Row) -> Item:
    return Item(row.id, name, row.kind, row.labels, row.created_ns, row.updated_ns)


def _check(name: str, kind: str, data: bytes) -> None:
    if kind not in KINDS:
        raise InvalidItem(f"there is no kind {kind}: only {' and '.join(KINDS)}")
    if not _NAME.fullmatch(name):
        raise InvalidItem(f"invalid name {name!r}: 64 of [a-zA-Z0-9-_.] at most, begun and ended by [a-zA-Z0-9]")
    if not data or len(data) > _SIZE_MAX[kind]:
        raise InvalidItem(f"{kind} data must be larger than 0 and less than {_SIZE_MAX[kind]} bytes")
