"""Where a build's result goes: `--output`, and what `--cache-to` and `--cache-from` mean."""

from __future__ import annotations

import os

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


def unpack(pieces: Iterator[bytes], folder: str) -> None:
    """Unpack a tar into a folder, which is made if need be; nothing gets out of it, and devices are left out."""
    import tarfile

    from corral.cli.copy import Reader, Unpacker

    class Whole(Unpacker):
        """Keeps every name as it is."""

        def _renamed(self, name: str) -> str:
            renamed = os.path.normpath(name.strip("/") or ".")
            if renamed == ".." or renamed.startswith("../"):
                raise CliError(f"refused to unpack {name}: it would leave {folder}")
            return renamed

        def _member(self, member: tarfile.TarInfo) -> None:
            if not (member.ischr() or member.isblk()):
                super()._member(member)

    os.makedirs(folder, exist_ok=True)
    try:
        with tarfile.open(fileobj=Reader(pieces), mode="r|") as archive:  # type: ignore[call-overload]
            Whole(archive, folder, "", os.geteuid() == 0).run()
    except tarfile.TarError as error:
        raise CliError(f"cannot read the daemon's archive: {error}") from None
