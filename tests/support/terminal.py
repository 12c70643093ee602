"""A program on a pseudo-terminal, as a person would use it: type, wait for text, resize."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import termios
import time
from collections.abc import Sequence
from types import TracebackType


class Terminal:
    """Runs argv on a new terminal; a context manager that ends it."""

    def __init__(self, argv: Sequence[str], environment: dict[str, str], rows: int = 24, columns: int = 80) -> None:
        self.seen = b""
        self.status: int | None = None
        self.pid, self._fd = pty.fork()
        if self.pid == 0:
            try:
                fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
                os.execvpe(argv[0], list(argv), environment)
            finally:
                os._exit(127)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.status is None:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self._fd)

    def type(self, text: str) -> None:
        """Press keys."""
        data = text.encode()
        while data:
            data = data[os.write(self._fd, data) :]

    def resize(self, rows: int, columns: int) -> None:
        """Change the window's size."""
        fcntl.ioctl(self._fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def expect(self, text: str, timeout_s: float = 15.0) -> str:
        """Read until `text` appears; everything before it.  What follows stays for the next call."""
        wanted = text.encode()
        deadline = time.monotonic() + timeout_s
        while wanted not in self.seen:
            left = deadline - time.monotonic()
            assert left > 0, f"{text!r} did not appear in {self.seen!r}"
            if select.select([self._fd], [], [], left)[0]:
                assert self._read(), f"{text!r} did not appear before the end in {self.seen!r}"
        before, _, self.seen = self.seen.partition(wanted)
        return before.decode(errors="replace")

    def hang_up(self) -> None:
        """Let the terminal vanish, as a window that is closed."""
        os.close(self._fd)

    def has_ended(self) -> bool:
        """Whether the program has; its exit code is in `status` then."""
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        if pid:
            self.status = os.waitstatus_to_exitcode(status)
        return bool(pid)

    def mode(self) -> list[object]:
        """The terminal's settings, without the speed and what only the kernel changes."""
        found = termios.tcgetattr(self._fd)
        return [*found[:4], found[6]]

    def drain(self) -> None:
        """Take what the program has written so far, so that it never waits for us."""
        while select.select([self._fd], [], [], 0)[0] and self._read():
            pass

    def finish(self, timeout_s: float = 15.0) -> int:
        """Read to the end; the program's exit code."""
        deadline = time.monotonic() + timeout_s
        while True:
            left = deadline - time.monotonic()
            assert left > 0, f"the program did not end; it said {self.seen!r}"
            if select.select([self._fd], [], [], left)[0] and not self._read():
                break
        _, status = os.waitpid(self.pid, 0)
        self.status = os.waitstatus_to_exitcode(status)
        return self.status

    def _read(self) -> bool:
        try:
            data = os.read(self._fd, 65536)
        except OSError:  # EIO: the other side was closed
            return False
        self.seen += data
        return bool(data)
