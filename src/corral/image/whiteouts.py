"""How a layer's tar and overlayfs each say that something below is gone.

A tar has an empty file `.wh.NAME` beside where NAME was, and `.wh..wh..opq` in a directory that hides everything
below it (image specification, layer.md).  overlayfs has a character device 0:0 called NAME, and the extended
attribute `trusted.overlay.opaque=y` on the directory (kernel, Documentation/filesystems/overlayfs.rst).
"""

from __future__ import annotations

PREFIX = ".wh."
OPAQUE_NAME = ".wh..wh..opq"
OPAQUE_XATTR = "trusted.overlay.opaque"
OPAQUE_VALUE = b"y"
_RESERVED = ".wh..wh."


def hidden_name(leaf: str) -> str | None:
    """The NAME that the whiteout `leaf` hides; None for other files, for the opaque mark and for AUFS's own files."""
    if not leaf.startswith(PREFIX) or leaf.startswith(_RESERVED):
        return None
    return leaf[len(PREFIX) :]


def is_metadata(leaf: str) -> bool:
    """Whether `leaf` is one of AUFS's own files (`.wh..wh.plnk`, ...), which mean nothing outside of AUFS."""
    return leaf.startswith(_RESERVED) and leaf != OPAQUE_NAME


def whiteout_name(path: str) -> str:
    """The member that hides `path`."""
    parent, slash, leaf = path.rpartition("/")
    return f"{parent}{slash}{PREFIX}{leaf}"
