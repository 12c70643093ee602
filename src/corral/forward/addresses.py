"""Where a log goes: `udp://host:514`, `tcp+tls://host:6514`, `unix:///dev/log`.  Pure."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from corral.errors import InvalidParameter


class BadAddress(InvalidParameter):
    """An address that the driver cannot use."""

    def __init__(self, option: str, text: str, schemes: tuple[str, ...]) -> None:
        super().__init__(
            f"log opt '{option}': {text!r} is not an address: it must begin with one of {', '.join(schemes)}"
        )


@dataclass(frozen=True, slots=True)
class Address:
    """`path` for sockets of this machine, else `host` and `port`."""

    scheme: str
    host: str = ""
    port: int = 0
    path: str = ""


def parse_address(option: str, text: str, schemes: tuple[str, ...], port: int) -> Address:
    """Read an address; `port` where it names none.  Raises BadAddress."""
    try:
        parts = urlsplit(text)
        found_port = parts.port or port
    except ValueError:
        raise BadAddress(option, text, schemes) from None
    if parts.scheme not in schemes:
        raise BadAddress(option, text, schemes)
    if parts.scheme.startswith("unix"):
        if not parts.path.startswith("/"):
            raise BadAddress(option, text, schemes)
        return Address(parts.scheme, path=parts.path)
    if not parts.hostname:
        raise BadAddress(option, text, schemes)
    return Address(parts.scheme, parts.hostname, found_port)
