"""Platforms: `os/architecture[/variant]`, and which entry of an index serves a machine."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

import msgspec

from corral.errors import InvalidParameter

T = TypeVar("T")

_ARCHITECTURES = {
    "x86_64": ("amd64", ""),
    "x86-64": ("amd64", ""),
    "i386": ("386", ""),
    "i686": ("386", ""),
    "aarch64": ("arm64", ""),
    "armhf": ("arm", "v7"),
    "armel": ("arm", "v6"),
    "armv7l": ("arm", "v7"),
}
_KNOWN_ARCHITECTURES = frozenset(
    ("386", "amd64", "arm", "arm64", "loong64", "mips", "mips64", "mips64le", "mipsle", "ppc64", "ppc64le", "riscv64")
) | {"s390x", "wasm"}
_KNOWN_SYSTEMS = frozenset(
    ("linux", "windows", "darwin", "freebsd", "netbsd", "openbsd", "solaris", "wasip1", "js", "unknown")
)


class InvalidPlatform(InvalidParameter):
    """A platform that cannot be understood."""

    def __init__(self, text: str) -> None:
        super().__init__(f'"{text[:100]}": unknown operating system or architecture: invalid argument')


class Platform(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename={"os_version": "os.version"}):
    """A platform as in an index's descriptor; also what `--platform` means."""

    architecture: str = ""
    os: str = ""
    os_version: str = ""
    variant: str = ""

    def __str__(self) -> str:
        return "/".join(filter(None, (self.os, self.architecture, self.variant)))


def parse_platform(text: str, default_architecture: str = "amd64") -> Platform:
    """Parse `os`, `architecture`, `os/architecture` or `os/architecture/variant`; raises InvalidPlatform."""
    parts = text.strip().lower().split("/")
    if not 1 <= len(parts) <= 3 or not all(parts):
        raise InvalidPlatform(text)
    if len(parts) == 1:
        name, variant = _ARCHITECTURES.get(parts[0], (parts[0], ""))
        if name in _KNOWN_ARCHITECTURES:
            return Platform(os="linux", architecture=name, variant=variant)
        if name in _KNOWN_SYSTEMS:
            return Platform(os=name, architecture=default_architecture)
        raise InvalidPlatform(text)
    name, variant = _ARCHITECTURES.get(parts[1], (parts[1], ""))
    if parts[0] not in _KNOWN_SYSTEMS or name not in _KNOWN_ARCHITECTURES | {"unknown"}:
        raise InvalidPlatform(text)
    return Platform(os=parts[0], architecture=name, variant=parts[2] if len(parts) == 3 else variant)


def read_platform(text: str, default_architecture: str = "amd64") -> Platform:
    """A platform as a request names it: the JSON of an OCI platform, or as `parse_platform`; raises InvalidPlatform."""
    if not text.lstrip().startswith("{"):
        return parse_platform(text, default_architecture)
    try:
        found = msgspec.json.decode(text, type=Platform)
    except msgspec.DecodeError as error:
        raise InvalidPlatform(text) from error
    if not found.os or not found.architecture:
        raise InvalidPlatform(text)
    return found


def machine_platform(machine: str) -> Platform:
    """The platform of a Linux machine by its `uname -m`."""
    name, variant = _ARCHITECTURES.get(machine, (machine, ""))
    return Platform(os="linux", architecture=name, variant=variant)


def _normal(platform: Platform) -> tuple[str, str, str]:
    architecture, variant = _ARCHITECTURES.get(platform.architecture, (platform.architecture, ""))
    variant = platform.variant or variant
    if architecture == "arm64" and variant in ("8", "v8"):
        variant = ""
    if architecture == "arm" and not variant:
        variant = "v7"
    if architecture == "amd64" and variant == "v1":
        variant = ""
    return platform.os or "linux", architecture, variant


def rank(wanted: Platform, offered: Platform) -> int | None:
    """How well `offered` runs where `wanted` is asked for: 0 is exact, higher is worse, None is not at all."""
    want_os, want_architecture, want_variant = _normal(wanted)
    os, architecture, variant = _normal(offered)
    if os != want_os or architecture != want_architecture:
        return None
    if variant == want_variant:
        return 0
    if architecture == "arm" and variant < want_variant:  # v7 machines run v6 and v5 code
        return int(want_variant[1:2] or 0) - int(variant[1:2] or 0)
    return 5 if architecture == "arm64" and not variant else None


def best(wanted: Platform, offers: Iterable[T], platform_of: Callable[[T], Platform | None]) -> T | None:
    """The best match among `offers`, the first of equals; an offer without a platform is the last resort."""
    found: T | None = None
    found_rank = 1000
    for offer in offers:
        platform = platform_of(offer)
        offer_rank = 100 if platform is None else rank(wanted, platform)
        if offer_rank is not None and offer_rank < found_rank:
            found, found_rank = offer, offer_rank
    return found
