"""bzip2 and xz: archives come in them (`docker import`, `docker load`), layers of images cannot."""

from __future__ import annotations

import bz2
import lzma
from collections.abc import Callable

from corral.image.layers import CorruptLayer, Source

_Decompressor = bz2.BZ2Decompressor | lzma.LZMADecompressor

_BZIP2_MAGIC = b"BZh"
_XZ_MAGIC = b"\xfd7zXZ\x00"
_PIECE = 1 << 20
_XZ_MEMORY_MAX_BYTES = 256 << 20


def unwrap(source: Source) -> Source:
    """A source of the same bytes, without the outer bzip2 or xz if there is one; other forms pass unchanged.

    The source raises CorruptLayer for a damaged or truncated stream.
    """
    head = b""
    while len(head) < len(_XZ_MAGIC) and (piece := source()):
        head += piece

    def again() -> bytes:
        nonlocal head
        if head:
            data, head = head, b""
            return data
        return source()

    if head.startswith(_XZ_MAGIC):
        return _inflate(again, lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY_MAX_BYTES), "xz")
    if head.startswith(_BZIP2_MAGIC):
        return _inflate(again, bz2.BZ2Decompressor, "bzip2")
    return again


def _inflate(source: Source, make: Callable[[], _Decompressor], name: str) -> Source:
    decompressor = make()
    pending = b""

    def read() -> bytes:
        nonlocal decompressor, pending
        while True:
            if decompressor.eof:  # several streams one after another are one; padding may follow
                pending = decompressor.unused_data.lstrip(b"\0")
                while not pending and (more := source()):
                    pending = more.lstrip(b"\0")
                if not pending:
                    return b""
                decompressor = make()
            elif decompressor.needs_input and not pending:
                pending = source()
                if not pending:
                    raise CorruptLayer(f"{name}: unexpected EOF")
            try:
                data: bytes = decompressor.decompress(pending, _PIECE)
            except (lzma.LZMAError, OSError) as error:
                raise CorruptLayer(f"{name}: {error}") from error
            pending = b""
            if data:
                return data

    return read
