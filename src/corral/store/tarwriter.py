"""Tar headers for what Corral writes: ustar where it fits, PAX records for what does not.

The result depends on the entry alone, so equal trees give equal archives.
"""

from __future__ import annotations

from corral.store.tar import BLOCK, DIRECTORY, REGULAR, Entry

END = bytes(2 * BLOCK)
_OCTAL7_MAX = 0o7777777
_OCTAL11_MAX = 0o77777777777
_NS = 1_000_000_000


def header(entry: Entry) -> bytes:
    """The header block of `entry`, after its PAX records if it needs any.  Data and padding are the caller's."""
    name = entry.name.encode("utf-8", "surrogateescape")
    if entry.type == DIRECTORY and not name.endswith(b"/"):
        name += b"/"
    link = entry.linkname.encode("utf-8", "surrogateescape")
    records = _records(entry, name, link)
    seconds = entry.mtime_ns // _NS
    block = _block(
        name[:100], entry.type, entry.mode & 0o7777,
        entry.uid if 0 <= entry.uid <= _OCTAL7_MAX else 0,
        entry.gid if 0 <= entry.gid <= _OCTAL7_MAX else 0,
        entry.size if entry.size <= _OCTAL11_MAX else 0,
        seconds if 0 <= seconds <= _OCTAL11_MAX else 0,
        link[:100], entry.devmajor, entry.devminor,
    )  # fmt: skip
    if not records:
        return block
    data = b"".join(_record(key, value) for key, value in sorted(records.items()))
    extended_name = b"PaxHeaders.0/" + name.rstrip(b"/").rpartition(b"/")[2][:80]
    return _block(extended_name, b"x", 0o644, 0, 0, len(data), 0, b"", 0, 0) + data + bytes(-len(data) % BLOCK) + block


def small_file(entry: Entry, data: bytes) -> bytes:
    """A whole member: header, data and padding."""
    entry.type = REGULAR
    entry.size = entry.real_size = len(data)
    return header(entry) + data + bytes(-len(data) % BLOCK)


def padding(size: int) -> bytes:
    """What follows `size` bytes of data."""
    return bytes(-size % BLOCK)


def _records(entry: Entry, name: bytes, link: bytes) -> dict[bytes, bytes]:
    records: dict[bytes, bytes] = {}
    if len(name) > 100 or not name.isascii():
        records[b"path"] = name
    if len(link) > 100 or not link.isascii():
        records[b"linkpath"] = link
    if not 0 <= entry.uid <= _OCTAL7_MAX:
        records[b"uid"] = b"%d" % entry.uid
    if not 0 <= entry.gid <= _OCTAL7_MAX:
        records[b"gid"] = b"%d" % entry.gid
    if entry.size > _OCTAL11_MAX:
        records[b"size"] = b"%d" % entry.size
    seconds, fraction = divmod(abs(entry.mtime_ns), _NS)
    if entry.mtime_ns < 0 or fraction or seconds > _OCTAL11_MAX:
        sign = b"-" if entry.mtime_ns < 0 else b""
        text = b"%s%d.%09d" % (sign, seconds, fraction)
        records[b"mtime"] = text.rstrip(b"0").rstrip(b".")
    for key, value in entry.xattrs.items():
        records[b"SCHILY.xattr." + key.encode("utf-8", "surrogateescape")] = value
    return records


def _record(key: bytes, value: bytes) -> bytes:
    """`LENGTH KEY=VALUE\\n` where LENGTH counts itself."""
    rest = len(key) + len(value) + 3
    length = rest + len(str(rest))
    length = rest + len(str(length))
    return b"%d %s=%s\n" % (length, key, value)


def _block(
    name: bytes,
    kind: bytes,
    mode: int,
    uid: int,
    gid: int,
    size: int,
    seconds: int,
    link: bytes,
    major: int,
    minor: int,
) -> bytes:
    head = b"%s%07o\0%07o\0%07o\0%011o\0%011o\0" % (name.ljust(100, b"\0"), mode, uid, gid, size, seconds)
    tail = b"%s%sustar\x0000%s%07o\0%07o\0%s" % (kind, link.ljust(100, b"\0"), bytes(64), major, minor, bytes(167))
    checksum = sum(head) + sum(tail) + 8 * 0x20
    return b"%s%06o\0 %s" % (head, checksum, tail)
