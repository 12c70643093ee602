"""The tar format: a streaming reader and a header writer.

The reader takes whatever people make (ustar, GNU, PAX, sparse files of three kinds, base-256 numbers) from a source
that may be hostile: every length is bounded before it is believed, and nothing here touches a file system.  It
exists beside `tarfile` because a layer is tens of thousands of entries: this reader spends about a third of the
time on each, keeps nanosecond times exact and leaves out nothing that a layer carries.

Format: POSIX.1-2017 `pax`, and the GNU tar manual, "Basic Tar Format".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

from corral.errors import InvalidParameter

BLOCK = 512

REGULAR = b"0"
HARD_LINK = b"1"
SYMLINK = b"2"
CHARACTER = b"3"
BLOCK_DEVICE = b"4"
DIRECTORY = b"5"
FIFO = b"6"

_OLD_REGULAR = (b"\0", b"7")
_GNU_LONG_NAME, _GNU_LONG_LINK, _GNU_SPARSE = b"L", b"K", b"S"
_PAX, _PAX_GLOBAL, _PAX_SUN = b"x", b"g", b"X"
_IGNORED = frozenset((b"V", b"M", b"N", b"D"))  # GNU volume label, continuation, old names, dump directory
_WITHOUT_DATA = frozenset((HARD_LINK, SYMLINK, CHARACTER, BLOCK_DEVICE, DIRECTORY, FIFO))

_ZERO_BLOCK = bytes(BLOCK)
_EXTENSION_MAX_BYTES = 1 << 20
_SPARSE_PIECES_MAX = 1 << 16
_SIZE_MAX = 1 << 56
_XATTR_PREFIX = "SCHILY.xattr."
_OCTAL = frozenset(b"01234567")


class InvalidTar(InvalidParameter):
    """Bytes that are not a tar archive, or one that ends early."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"cannot read tar archive: {reason}")


class Entry:
    """One member.  `size` is what the archive holds; `real_size` the file's length (they differ when sparse)."""

    __slots__ = (
        "devmajor", "devminor", "gid", "linkname", "mode", "mtime_ns", "name",
        "real_size", "size", "sparse", "type", "uid", "xattrs",
    )  # fmt: skip

    def __init__(self, name: str, kind: bytes = REGULAR, mode: int = 0o644, size: int = 0) -> None:
        self.name = name
        self.type = kind
        self.mode = mode
        self.size = size
        self.real_size = size
        self.uid = 0
        self.gid = 0
        self.mtime_ns = 0
        self.linkname = ""
        self.devmajor = 0
        self.devminor = 0
        self.xattrs: dict[str, bytes] = {}
        self.sparse: list[tuple[int, int]] | None = None


class Data(Protocol):
    """The data of one member, as an unpacker takes it."""

    def read_all(self) -> bytes: ...

    def chunks(self) -> Iterator[memoryview]: ...


class TarReader:
    """Iterate over entries; `read_all` or `chunks` take the current entry's data, the rest of it is skipped."""

    def __init__(self, source: Callable[[], bytes]) -> None:
        """`source` returns the next piece of the archive, of any length, and b"" at its end."""
        self._source = source
        self._buffer = b""
        self._position = 0
        self._left = 0  # bytes of the current entry's data not yet taken
        self._padding = 0
        self._globals: dict[str, bytes] = {}

    def __iter__(self) -> Iterator[Entry]:
        while (entry := self.next()) is not None:
            yield entry

    def next(self) -> Entry | None:
        """The next entry, or None at the end of the archive; raises InvalidTar."""
        if self._left or self._padding:
            self._skip(self._left + self._padding)
            self._left = self._padding = 0
        extended: dict[str, bytes] = {}
        long_name = long_link = None
        while True:
            header = self._header()
            if header is None:
                return None
            kind = header[156:157]
            if kind == REGULAR or kind in _WITHOUT_DATA:
                break
            if kind in (_PAX, _PAX_SUN):
                extended = _parse_pax(self._extension(header))
            elif kind == _PAX_GLOBAL:
                self._globals.update(_parse_pax(self._extension(header)))
            elif kind == _GNU_LONG_NAME:
                long_name = self._extension(header).partition(b"\0")[0]
            elif kind == _GNU_LONG_LINK:
                long_link = self._extension(header).partition(b"\0")[0]
            elif kind in _IGNORED:
                self._skip(_padded(_number(header, 124, 136)))
            else:
                break
        entry = _basic(header, kind)
        if long_name is not None:
            entry.name = _text(long_name)
        if long_link is not None:
            entry.linkname = _text(long_link)
        if self._globals or extended:
            _apply_pax(entry, {**self._globals, **extended})
        self._begin_data(entry, header, kind)
        if extended:
            self._pax_sparse(entry, extended)
        return entry

    def read_all(self) -> bytes:
        """The rest of the current entry's data; for entries that the caller knows to be small."""
        size = self._left
        end = self._position + size
        if end <= len(self._buffer):
            data = self._buffer[self._position : end]
            self._position = end
        else:
            data = self._exactly(size)
        self._left = 0
        return data

    def chunks(self) -> Iterator[memoryview]:
        """The rest of the current entry's data in the pieces that the source delivered."""
        while self._left:
            if self._position == len(self._buffer):
                self._refill()
            piece = memoryview(self._buffer)[self._position : self._position + self._left]
            self._position += len(piece)
            self._left -= len(piece)
            yield piece

    def drain(self) -> None:
        """Read the source to its end (bytes after the end marker count for a digest)."""
        self._buffer, self._position = b"", 0
        while self._source():
            pass

    def _refill(self) -> None:
        self._buffer, self._position = self._source(), 0
        if not self._buffer:
            raise InvalidTar("unexpected EOF")

    def _exactly(self, count: int) -> bytes:
        pieces = []
        while count:
            if self._position == len(self._buffer):
                self._refill()
            piece = self._buffer[self._position : self._position + count]
            self._position += len(piece)
            count -= len(piece)
            pieces.append(piece)
        return b"".join(pieces)

    def _skip(self, count: int) -> None:
        available = len(self._buffer) - self._position
        while count > available:
            count -= available
            self._refill()
            available = len(self._buffer)
        self._position += count

    def _header(self) -> bytes | None:
        """The next header block, or None at the end: a zero block, or a source that ends where a header would begin."""
        start = self._position
        block = self._buffer[start : start + BLOCK]
        if len(block) == BLOCK:
            self._position = start + BLOCK
        elif not block:
            self._buffer, self._position = self._source(), 0
            if not self._buffer:
                return None
            return self._header()
        else:
            block = self._exactly(BLOCK)
        try:
            stored = int(block[148:154], 8)
        except ValueError:
            if block == _ZERO_BLOCK:
                return None
            stored = _number(block, 148, 156)
        # Historic archivers summed signed bytes; nothing made in this century does, so only the unsigned sum counts.
        if sum(block) - sum(block[148:156]) + 8 * 0x20 != stored:
            raise InvalidTar("invalid tar header")
        return block

    def _extension(self, header: bytes) -> bytes:
        size = _number(header, 124, 136)
        if not 0 <= size <= _EXTENSION_MAX_BYTES:
            raise InvalidTar(f"extended header of {size} bytes is too long")
        data = self._exactly(size)
        self._skip(-size % BLOCK)
        return data

    def _begin_data(self, entry: Entry, header: bytes, kind: bytes) -> None:
        if kind in _WITHOUT_DATA:
            # POSIX lets a hard link carry data again; archivers that do so are extinct and readers ignore the size.
            entry.size = entry.real_size = 0
            return
        if not 0 <= entry.size < _SIZE_MAX:
            raise InvalidTar(f"size {entry.size} is out of range")
        if kind == _GNU_SPARSE:
            entry.sparse, entry.real_size = self._gnu_sparse(header)
            entry.type = REGULAR
        self._left = entry.size
        self._padding = -entry.size % BLOCK

    def _gnu_sparse(self, header: bytes) -> tuple[list[tuple[int, int]], int]:
        pieces = _sparse_pieces(header, 386, 4)
        more = header[482]
        while more:
            block = self._exactly(BLOCK)
            pieces += _sparse_pieces(block, 0, 21)
            more = block[504]
            if len(pieces) > _SPARSE_PIECES_MAX:
                raise InvalidTar("sparse file has too many pieces")
        return pieces, _number(header, 483, 495)

    def _pax_sparse(self, entry: Entry, extended: dict[str, bytes]) -> None:
        """GNU sparse formats 0.0/0.1 (map in the header) and 1.0 (map in front of the data)."""
        if extended.get("GNU.sparse.major") == b"1":
            entry.sparse = self._sparse_map_in_data(entry)
            entry.real_size = _decimal(extended.get("GNU.sparse.realsize", b"0"))
        elif "GNU.sparse.map" in extended:
            numbers = [_decimal(part) for part in extended["GNU.sparse.map"].split(b",") if part]
            entry.sparse = list(zip(numbers[::2], numbers[1::2], strict=False))
            entry.real_size = _decimal(extended.get("GNU.sparse.size", b"0"))
        else:
            return
        if "GNU.sparse.name" in extended:
            entry.name = _text(extended["GNU.sparse.name"])

    def _sparse_map_in_data(self, entry: Entry) -> list[tuple[int, int]]:
        text = b""
        wanted = 1
        while text.count(b"\n") < wanted:
            if self._left < BLOCK:
                raise InvalidTar("sparse map is cut short")
            text += self._exactly(BLOCK)
            self._left -= BLOCK
            entry.size -= BLOCK
            count = _decimal(text.partition(b"\n")[0]) if b"\n" in text else 0
            if count > _SPARSE_PIECES_MAX:
                raise InvalidTar("sparse file has too many pieces")
            wanted = 1 + 2 * count
        numbers = [_decimal(line) for line in text.split(b"\n")[1:wanted]]
        return list(zip(numbers[::2], numbers[1::2], strict=True))


def _basic(header: bytes, kind: bytes) -> Entry:
    entry = Entry.__new__(Entry)
    name = header[:100].partition(b"\0")[0]
    if header[257:263] == b"ustar\0":  # GNU's magic has a space there, and times where the prefix would be
        prefix = header[345:500].partition(b"\0")[0]
        if prefix:
            name = prefix + b"/" + name
    entry.name = name.decode("utf-8", "surrogateescape")
    if kind in _OLD_REGULAR or kind not in _WITHOUT_DATA:
        # Before ustar a trailing slash was how a directory looked.
        old_directory = kind == b"\0" and name.endswith(b"/")
        kind = DIRECTORY if old_directory else REGULAR
    entry.type = kind
    try:
        entry.mode = int(header[100:107], 8)
        entry.uid = int(header[108:115], 8)
        entry.gid = int(header[116:123], 8)
        entry.size = int(header[124:135], 8)
        entry.mtime_ns = int(header[136:147], 8) * 1_000_000_000
    except ValueError:
        entry.mode = _number(header, 100, 108)
        entry.uid = _number(header, 108, 116)
        entry.gid = _number(header, 116, 124)
        entry.size = _number(header, 124, 136)
        entry.mtime_ns = _number(header, 136, 148) * 1_000_000_000
    if header[124] & 0x80:
        entry.size = _number(header, 124, 136)
    entry.real_size = entry.size
    entry.linkname = ""
    entry.devmajor = entry.devminor = 0
    if kind in (SYMLINK, HARD_LINK):
        entry.linkname = _text(header[157:257].partition(b"\0")[0])
    elif kind in (CHARACTER, BLOCK_DEVICE):
        entry.devmajor = _number(header, 329, 337)
        entry.devminor = _number(header, 337, 345)
    entry.xattrs = {}
    entry.sparse = None
    return entry


def _number(block: bytes, start: int, end: int) -> int:
    """A numeric field: octal text, or base 256 when the top bit is set (GNU, for large and negative numbers)."""
    first = block[start]
    if first & 0x80:
        value = int.from_bytes(bytes((first & 0x7F,)) + block[start + 1 : end], "big")
        if first & 0x40:  # two's complement over the field without its marker bit
            value -= 1 << (8 * (end - start) - 1)
        return value
    text = block[start:end].strip(b" \0")
    if not text:
        return 0
    if not _OCTAL.issuperset(text):
        raise InvalidTar("invalid tar header")
    return int(text, 8)


def _decimal(text: bytes) -> int:
    if not text.isdigit() or len(text) > 20:
        raise InvalidTar(f"number {text[:30]!r} in an extended header")
    return int(text)


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _padded(size: int) -> int:
    if not 0 <= size < _SIZE_MAX:
        raise InvalidTar(f"size {size} is out of range")
    return size + -size % BLOCK


def _parse_pax(data: bytes) -> dict[str, bytes]:
    """Records `LENGTH KEY=VALUE\\n`; an empty value deletes a global one."""
    records: dict[str, bytes] = {}
    position = 0
    while position < len(data):
        if data[position] == 0:  # padding that some writers count as data
            break
        space = data.find(b" ", position, position + 20)
        if space < 0:
            raise InvalidTar("malformed extended header")
        end = position + _decimal(data[position:space])
        record = data[space + 1 : end]
        key, equals, value = record.partition(b"=")
        if end > len(data) or not equals or not value.endswith(b"\n"):
            raise InvalidTar("malformed extended header")
        name = _text(key)
        if name in ("GNU.sparse.offset", "GNU.sparse.numbytes"):  # format 0.0 repeats the keys in order
            records["GNU.sparse.map"] = records.get("GNU.sparse.map", b"") + value[:-1] + b","
        else:
            records[name] = value[:-1]
        position = end
    return records


def _apply_pax(entry: Entry, records: dict[str, bytes]) -> None:
    for key, value in records.items():
        if not value and not key.startswith(_XATTR_PREFIX):
            continue
        if key == "path":
            entry.name = _text(value)
        elif key == "linkpath":
            entry.linkname = _text(value)
        elif key == "size":
            entry.size = entry.real_size = _decimal(value)
        elif key == "uid":
            entry.uid = _decimal(value)
        elif key == "gid":
            entry.gid = _decimal(value)
        elif key == "mtime":
            entry.mtime_ns = parse_time_ns(value)
        elif key.startswith(_XATTR_PREFIX):
            entry.xattrs[key[len(_XATTR_PREFIX) :]] = value


def parse_time_ns(value: bytes) -> int:
    """A PAX time (`-1.5`, `1700000000.123456789`) in nanoseconds since the epoch; finer digits are cut off."""
    negative = value.startswith(b"-")
    whole, _, fraction = value.lstrip(b"-").partition(b".")
    ns = _decimal(whole or b"0") * 1_000_000_000
    if fraction:
        ns += _decimal(fraction[:9].ljust(9, b"0"))
    return -ns if negative else ns


def _sparse_pieces(block: bytes, start: int, count: int) -> list[tuple[int, int]]:
    pieces = []
    for at in range(start, start + 24 * count, 24):
        if not block[at]:
            break
        pieces.append((_number(block, at, at + 12), _number(block, at + 12, at + 24)))
    return pieces
