"""Where a build's result goes: `--output`, and what `--cache-to` and `--cache-from` mean."""

from __future__ import annotations

import os
import sys

from corral.cli.problems import CliError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_KINDS = ("local", "tar", "oci", "docker", "image", "registry")


class Output:
    """One --output: `kind`, `dest` ("" or "-": standard output), and the attributes given."""

    __slots__ = ("attributes", "dest", "kind")

    def __init__(self, kind: str, dest: str, attributes: dict[str, str]) -> None:
        self.kind = kind
        self.dest = dest
        self.attributes = attributes

    @property
    def wire(self) -> str:
        """What the daemon sends for it."""
        if self.kind in ("local", "tar"):
            return "tar"
        if self.kind in ("oci", "docker") and (self.dest or self.kind == "oci"):
            return self.kind
        return ""


def attributes(text: str) -> dict[str, str]:
    """`type=x,dest=y` as a dict; a lone word is under "": raises ValueError with the reason."""
    found: dict[str, str] = {}
    for part in text.split(","):
        name, equals, value = part.partition("=")
        if not equals:
            if found or "," in text:
                raise ValueError(f"invalid value {part}")
            return {"": part}
        found[name.strip().lower()] = value
    return found


def read(text: str) -> Output:
    """One --output; raises ValueError with the reason."""
    found = attributes(text)
    if "" in found:
        return Output("tar", "-", {}) if found[""] == "-" else Output("local", found[""], {})
    kind = found.pop("type", "")
    if kind not in _KINDS:
        raise ValueError(f"type is required for output {text!r}: one of {', '.join(_KINDS)}")
    dest = found.pop("dest", found.pop("destination", ""))
    if kind == "local" and not dest:
        raise ValueError("dest is required for local output")
    return Output(kind, dest, found)


def receive(output: Output, pieces: Iterator[bytes]) -> None:
    """Put what the daemon sends in its place; raises CliError."""
    if output.kind == "local":
        unpack(pieces, output.dest)
        return
    from corral.cli.archives import write_to

    if output.dest in ("", "-"):
        if os.isatty(1):
            raise CliError("dest file is required for this output: refusing to write an archive to a terminal")
        write_to("", pieces)
    else:
        write_to(output.dest, pieces)


class _Reader:
    """Pieces as a file that tarfile can read."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._held = b""

    def read(self, size: int = -1) -> bytes:
        while size < 0 or len(self._held) < size:
            piece = next(self._pieces, None)
            if piece is None:
                break
            self._held += piece
        if size < 0:
            size = len(self._held)
        data, self._held = self._held[:size], self._held[size:]
        return data


def unpack(pieces: Iterator[bytes], folder: str) -> None:
    """Unpack a tar into a folder, which is made if need be; nothing gets out of it (tarfile's `tar` filter)."""
    import tarfile

    os.makedirs(folder, exist_ok=True)
    owner = os.geteuid() == 0
    with tarfile.open(fileobj=_Reader(pieces), mode="r|") as tar:  # type: ignore[call-overload]
        for member in tar:
            if member.ischr() or member.isblk():
                continue
            if not owner:
                member.uid, member.gid = os.geteuid(), os.getegid()
                member.uname = member.gname = ""
            try:
                tar.extract(member, folder, numeric_owner=True, filter="tar")
            except tarfile.FilterError as error:
                sys.stderr.write(f"left out: {error}\n")
