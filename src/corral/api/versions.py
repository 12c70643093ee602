"""API versions: what is served, and how a path asks for one."""

from __future__ import annotations

from corral.errors import InvalidParameter

Version = tuple[int, int]

NEWEST: Version = (1, 56)
OLDEST: Version = (1, 24)


class VersionTooNew(InvalidParameter):
    """The client asks for a version from the future."""

    def __init__(self, version: Version) -> None:
        super().__init__(f"client version {text(version)} is too new. Maximum supported API version is {text(NEWEST)}")


class VersionTooOld(InvalidParameter):
    """The client asks for a version that is no longer served."""

    def __init__(self, version: Version) -> None:
        super().__init__(
            f"client version {text(version)} is too old. Minimum supported API version is {text(OLDEST)}, "
            "please upgrade your client to a newer version"
        )


def text(version: Version) -> str:
    """`1.44`."""
    return f"{version[0]}.{version[1]}"


def split(path: str) -> tuple[Version, str]:
    """The version and the rest of `/v1.44/containers/json`; a bare path gets the newest.

    Raises VersionTooNew or VersionTooOld.  A first part that only looks like a version is left in the path.
    """
    first, slash, rest = path[1:].partition("/")
    major, dot, minor = first[1:].partition(".")
    if not (first.startswith("v") and dot and slash and major.isdecimal() and minor.isdecimal()):
        return NEWEST, path
    version = (int(major), int(minor))
    if version > NEWEST:
        raise VersionTooNew(version)
    if version < OLDEST:
        raise VersionTooOld(version)
    return version, "/" + rest
