"""Whole images and containers as archives: `import`, `load`, `save`, `export`."""

from __future__ import annotations

import os
import sys

from corral.cli.command import Command, Session
from corral.cli.flags import Flag
from corral.cli.problems import CliError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_READ_BYTES = 1 << 18


def blocks(fd: int) -> Iterator[bytes]:
    """What can be read from a descriptor."""
    while data := os.read(fd, _READ_BYTES):
        yield data


def open_input(path: str) -> int:
    """A descriptor of a file; raises CliError."""
    try:
        return os.open(path, os.O_RDONLY)
    except OSError as error:
        raise CliError(f"open {path}: {(error.strerror or '').lower()}") from None


def write_to(path: str, parts: Iterable[bytes]) -> None:
    """Write an archive to a file that appears when it is complete, or to standard output if `path` is empty."""
    if not path:
        from corral.cli.relay import write_all

        sys.stdout.flush()
        for part in parts:
            write_all(1, part)
        return
    folder, name = os.path.split(path)
    temporary = os.path.join(folder, f".{name}.{os.getpid()}.partial")
    try:
        with open(temporary, "wb") as file:
            for part in parts:
                file.write(part)
        os.replace(temporary, path)
    except BaseException:
        if os.path.exists(temporary):
            os.unlink(temporary)
        raise


def check_output(path: str, what: str) -> None:
    """Refuse a terminal, a missing folder and what is no regular file as the output; raises CliError, Docker's texts.

    The file is replaced as a whole when it is complete: done to /dev/null, that would be the end of it.
    """
    if not path:
        from corral.cli.terminal import is_terminal

        if is_terminal(1):
            raise CliError("cowardly refusing to save to a terminal. Use the -o flag or redirect")
        return
    folder = os.path.dirname(path) or "."
    if not os.path.isdir(folder):
        raise CliError(f"failed to {what}: invalid output path: stat {folder}: no such file or directory")
    kind = _kind(path)
    if kind:
        raise CliError(f"failed to {what}: cannot write to {kind}")


def _kind(path: str) -> str:
    """What a path is if not a regular file and not nothing."""
    import stat

    try:
        mode = os.lstat(path).st_mode
    except OSError:
        return ""
    for test, name in (
        (stat.S_ISDIR, "a directory"),
        (stat.S_ISLNK, "a symbolic link directly"),
        (stat.S_ISCHR, "a character device file"),
        (stat.S_ISBLK, "a block device file"),
        (stat.S_ISFIFO, "a named pipe (FIFO)"),
        (stat.S_ISSOCK, "a socket"),
    ):
        if test(mode):
            return name
    return ""


def _import(session: Session) -> int:
    flags, source = session.flags, session.arguments[0]
    name = session.arguments[1] if len(session.arguments) > 1 else ""
    query = {
        "fromSrc": source if source.startswith(("http://", "https://")) else "-",
        "repo": name,
        "message": flags["message"] or None,
        "changes": flags["change"],
        "platform": flags["platform"] or None,
    }
    stream: Iterable[bytes] | None
    from corral.cli import progress

    if source == "-":
        stream = progress.metered(blocks(0), "Sending")
    elif query["fromSrc"] == "-":
        fd = open_input(source)
        stream = progress.metered(blocks(fd), "Sending", _size(fd))
    else:
        stream = None
    progress.show(session.client.request("POST", "/images/create", query, stream=stream).records())
    return 0


def _load(session: Session) -> int:
    flags = session.flags
    if not flags["input"]:
        from corral.cli.terminal import is_terminal

        if is_terminal(0):
            raise CliError("requested load from stdin, but stdin is empty")
    fd = open_input(flags["input"]) if flags["input"] else 0
    quiet = flags["quiet"] or not sys.stdout.isatty()
    query = {"quiet": quiet, "platform": platform_json(flags["platform"])}
    from corral.cli import progress

    stream = progress.metered(blocks(fd), "Sending", _size(fd), flags["quiet"])
    progress.show(session.client.request("POST", "/images/load", query, stream=stream).records())
    return 0


def _size(fd: int) -> int:
    """Of a file; 0 for anything whose end is not known."""
    import stat

    found = os.fstat(fd)
    return found.st_size if stat.S_ISREG(found.st_mode) else 0


def platform_json(text: str) -> str | None:
    """`linux/arm/v7` as the API's JSON."""
    if not text:
        return None
    from corral import jsontext

    parts = dict(zip(("os", "architecture", "variant"), text.split("/"), strict=False))
    return jsontext.dumps(dict(sorted(parts.items())))


def _save(session: Session) -> int:
    flags = session.flags
    check_output(flags["output"], "save image")
    query = {"names": session.arguments, "platform": platform_json(flags["platform"])}
    from corral.cli import progress

    parts = session.client.request("GET", "/images/get", query).chunks()
    write_to(flags["output"], progress.metered(parts, "Saving"))
    return 0


def _export(session: Session) -> int:
    flags = session.flags
    check_output(flags["output"], "export container")
    from corral.cli import progress

    parts = session.client.request("GET", f"/containers/{session.arguments[0]}/export").chunks()
    write_to(flags["output"], progress.metered(parts, "Exporting"))
    return 0


_OUTPUT = Flag("output", "o", "string", "Write to this file in place of standard output")
_PLATFORM = Flag("platform", "", "string", "Only this platform of the image (os[/arch[/variant]])")
IMPORT = Command(
    _import,
    "Make an image of a tar archive of files",
    "[OPTIONS] file|URL|- [REPOSITORY[:TAG]]",
    (
        Flag("change", "c", "list", "Dockerfile instruction to apply to the image"),
        Flag("message", "m", "string", "Message to keep with the image"),
        Flag("platform", "", "string", "Platform of the image (os[/arch[/variant]])"),
    ),
    least=1,
    most=None,
    aliases="image import, import",
    examples=("import rootfs.tar base:1", "import -c 'CMD [\"bash\"]' - base < rootfs.tar"),
)
LOAD = Command(
    _load,
    "Load images from an archive made by `save`, or an OCI layout",
    "[OPTIONS]",
    (
        Flag("input", "i", "string", "Read this file in place of standard input"),
        _PLATFORM,
        Flag("quiet", "q", "bool", "Do not show progress"),
    ),
    aliases="image load, load",
)
SAVE = Command(
    _save,
    "Write images to an archive that `load` reads",
    "[OPTIONS] IMAGE [IMAGE...]",
    (_OUTPUT, _PLATFORM),
    least=1,
    most=None,
    aliases="image save, save",
    examples=("save -o base.tar base:1",),
)
EXPORT = Command(
    _export,
    "Write a container's files as a tar archive",
    "[OPTIONS] CONTAINER",
    (_OUTPUT,),
    least=1,
    most=1,
    aliases="container export, export",
)
