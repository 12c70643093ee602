"""Values of the volume rooms.  Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Tls:
    """What a plugin's NAME.json says of a connection over TLS: paths of PEM files, "" for none."""

    ca: str = ""
    cert: str = ""
    key: str = ""
    insecure: bool = False
