"""A Debian image without a registry: mmdebstrap assembles a minimal system, which is imported as it is written."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time

from corral import jsontext
from corral.cli.problems import CliError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from corral.cli.transport import Client

_MIRROR = "http://deb.debian.org/debian"
_READ_BYTES = 1 << 18
_APT_CONFIGURATION = "/etc/apt/apt.conf.d"
_SHELL = ["bash"]


def import_debian(client: Client, image: str, suite: str, say: Callable[[str], None]) -> None:
    """Assemble `suite` and import it as `image`; raises CliError with what mmdebstrap said."""
    if not shutil.which("mmdebstrap"):
        raise CliError("mmdebstrap is missing, which assembles the Debian image (apt-get install mmdebstrap)")
    sources = host_sources(suite)
    origin = ", ".join(sources) if sources else _MIRROR
    say(f"the image {image} is not there: assembling a minimal Debian {suite} with mmdebstrap")
    say(f"packages come from Debian's signed mirror ({origin}); nothing comes from an image registry")
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="corral-debian-") as folder:
        errors = os.path.join(folder, "messages")
        with open(errors, "wb") as messages:
            process = subprocess.Popen(
                arguments(suite, sources),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=messages,
                start_new_session=True,  # it signals its whole process group when it fails
            )
        query = {
            "fromSrc": "-",
            "repo": image.partition(":")[0],
            "tag": image.partition(":")[2],
            "message": f"Debian {suite} assembled by mmdebstrap",
            "changes": [f"CMD {jsontext.dumps(_SHELL)}"],
        }
        assert process.stdout is not None
        archive = _Archive(process.stdout.fileno(), process, errors)
        try:
            for record in client.request("POST", "/images/create", query, stream=archive.parts()).records():
                if "error" in record:
                    raise CliError(str(record["error"]))
        finally:
            process.stdout.close()
            process.wait()
            archive.clear_line()
    say(f"{image} is ready ({archive.size_bytes / 1e6:.0f} MB in {time.monotonic() - began:.0f} s)")


def arguments(suite: str, sources: list[str]) -> list[str]:
    """The mmdebstrap command: the host's mirrors, keys and apt settings, none of which end up in the image."""
    words = ["mmdebstrap", "--variant=minbase", "--mode=root", "--verbose", "--format=tar"]
    if os.path.isdir(_APT_CONFIGURATION):
        words += [
            f"--aptopt={os.path.join(_APT_CONFIGURATION, name)}"
            for name in sorted(os.listdir(_APT_CONFIGURATION))
            if _concerns_fetching(os.path.join(_APT_CONFIGURATION, name))
        ]
    words += ['--customize-hook=rm -f "$1/etc/apt/apt.conf.d/99mmdebstrap" "$1/etc/resolv.conf" "$1/etc/hostname"']
    return [*words, suite, "-", *(sources or [_MIRROR])]


def _concerns_fetching(path: str) -> bool:
    """Whether a file of apt settings is about where and how packages are fetched (proxies, certificates, dates)."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return "Acquire::" in file.read()
    except OSError:
        return False


def host_sources(suite: str) -> list[str]:
    """The files of the machine's own apt sources that have the suite and Debian's packages; empty if none has."""
    folder = "/etc/apt/sources.list.d"
    names = [os.path.join(folder, name) for name in sorted(os.listdir(folder))] if os.path.isdir(folder) else []
    found = []
    for path in ["/etc/apt/sources.list", *names]:
        if not path.endswith((".list", ".sources")) or not os.path.isfile(path):
            continue
        with open(path, encoding="utf-8", errors="replace") as file:
            lines = [line for line in file if not line.lstrip().startswith("#")]
        words = " ".join(lines).split()
        if suite in words and any("debian" in word and "://" in word for word in words) and "main" in words:
            found.append(path)
    return found


class _Archive:
    """The tar that mmdebstrap writes, with its messages shown as one line of progress."""

    def __init__(self, fd: int, process: subprocess.Popen[bytes], messages_path: str) -> None:
        self._fd = fd
        self._process = process
        self._messages_path = messages_path
        self.size_bytes = 0
        self._terminal = os.isatty(2)
        self._shown = ""
        self._last_line = 0.0

    def parts(self) -> Iterator[bytes]:
        """The archive's bytes; raises CliError if mmdebstrap fails, so that half a system is never imported."""
        import select

        waiter = select.poll()
        waiter.register(self._fd, select.POLLIN)
        while True:
            if not waiter.poll(200):
                self._progress()
                continue
            data = os.read(self._fd, _READ_BYTES)
            if not data:
                break
            self.size_bytes += len(data)
            self._progress()
            yield data
        if self._process.wait() != 0:
            self.clear_line()
            raise CliError(f"mmdebstrap failed:\n{self._messages()[-3000:].rstrip()}")

    def _messages(self) -> str:
        with open(self._messages_path, "rb") as file:
            return file.read().decode("utf-8", "replace")

    def _progress(self) -> None:
        if time.monotonic() - self._last_line < 0.2:
            return
        self._last_line = time.monotonic()
        steps = [
            line
            for line in self._messages().splitlines()
            if line.startswith(("I: ", "Get:", "Unpacking ", "Setting up "))
        ]
        text = f"{self.size_bytes / 1e6:.0f} MB written" if self.size_bytes else (steps[-1] if steps else "")
        if self._terminal:
            sys.stderr.write(f"\r\x1b[2K    {text[:74]}")
        elif text.startswith("I: ") and text != self._shown:
            sys.stderr.write(f"    {text.removeprefix('I: ')}\n")
        sys.stderr.flush()
        self._shown = text

    def clear_line(self) -> None:
        """Take the progress line away."""
        if self._terminal and self._shown:
            sys.stderr.write("\r\x1b[2K")
            sys.stderr.flush()
