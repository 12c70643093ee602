"""File capabilities as the two sides of a user namespace see them (capabilities(7), "File capability extended ...").

What counts in a container says on the host, outside of its namespace, for which root it counts: version 3 of the
attribute, with a user id at the end.  Inside it is version 2, as in any image.  Pure.
"""

from __future__ import annotations

import struct

from corral.oci.idmap import IdMap, UnmappedId

XATTR = "security.capability"

_MAGIC = struct.Struct("<I")
_REVISION, _VERSION_2, _VERSION_3 = 0xFF000000, 0x02000000, 0x03000000
_LENGTH_2, _LENGTH_3 = 20, 24


def seen_inside(value: bytes, ids: IdMap) -> bytes:
    """The attribute of a file of a container with these ids, as it is seen in there."""
    if len(value) != _LENGTH_3 or not _is(value, _VERSION_3):
        return value
    root = ids.to_container(int.from_bytes(value[_LENGTH_2:], "little"), 0)[0]
    return _with(value, _VERSION_2) if root == 0 else value[:_LENGTH_2] + _MAGIC.pack(root)


def seen_outside(value: bytes, ids: IdMap) -> bytes:
    """The attribute to be set from the host; one that the container could not have stays as it is."""
    if len(value) == _LENGTH_2 and _is(value, _VERSION_2):
        return _with(value, _VERSION_3) + _MAGIC.pack(ids.root[0])
    if len(value) == _LENGTH_3 and _is(value, _VERSION_3):
        try:
            return value[:_LENGTH_2] + _MAGIC.pack(ids.to_host(int.from_bytes(value[_LENGTH_2:], "little"), 0)[0])
        except UnmappedId:
            return value
    return value


def _is(value: bytes, version: int) -> bool:
    return bool(_MAGIC.unpack_from(value)[0] & _REVISION == version)


def _with(value: bytes, version: int) -> bytes:
    return _MAGIC.pack(_MAGIC.unpack_from(value)[0] & ~_REVISION | version) + value[_MAGIC.size : _LENGTH_2]
