"""The user's terminal: raw mode, size and its changes.  Bare C modules, because `signal` and `tty` load `enum`."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Any


def is_terminal(fd: int) -> bool:
    """Whether the descriptor is a terminal; a closed one is not."""
    try:
        return os.isatty(fd)
    except OSError:
        return False


def size(fd: int = 1) -> tuple[int, int]:
    """Rows and columns; zeros if there is no terminal."""
    try:
        found = os.get_terminal_size(fd)
    except OSError:
        return 0, 0
    return found.lines, found.columns


class Raw:
    """The terminal in raw mode for the time of the context; nothing if standard input is none."""

    def __init__(self, wanted: bool) -> None:
        self._wanted = wanted and is_terminal(0)
        self._saved: list[Any] | None = None

    def __enter__(self) -> None:
        if not self._wanted:
            return
        import termios

        self._saved = termios.tcgetattr(0)
        mode = termios.tcgetattr(0)
        mode[0] &= ~(
            termios.IGNBRK | termios.BRKINT | termios.PARMRK | termios.ISTRIP
            | termios.INLCR | termios.IGNCR | termios.ICRNL | termios.IXON
        )  # fmt: skip
        mode[1] &= ~termios.OPOST
        mode[2] = mode[2] & ~(termios.CSIZE | termios.PARENB) | termios.CS8
        mode[3] &= ~(termios.ECHO | termios.ECHONL | termios.ICANON | termios.ISIG | termios.IEXTEN)
        mode[6][termios.VMIN], mode[6][termios.VTIME] = 1, 0
        termios.tcsetattr(0, termios.TCSANOW, mode)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._saved is None:
            return
        import termios

        try:
            termios.tcsetattr(0, termios.TCSANOW, self._saved)
        except termios.error:
            pass  # the terminal is gone


def on_resize(act: Callable[[int, int], None]) -> None:
    """Call `act(rows, columns)` whenever the terminal changes its size."""

    def changed(number: int, frame: object) -> None:
        rows, columns = size()
        if rows and columns:
            act(rows, columns)

    _signal.signal(_signal.SIGWINCH, changed)


_NOT_PASSED_ON = ("SIGCHLD", "SIGPIPE", "SIGURG", "SIGKILL", "SIGSTOP", "SIGWINCH", "SIGCLD", "SIGTTIN", "SIGTTOU")
_FAULTS = ("SIGSEGV", "SIGBUS", "SIGFPE", "SIGILL", "SIGABRT", "SIGIOT", "SIGTRAP", "SIGSYS")


def pass_signals_on(act: Callable[[str], None]) -> None:
    """Call `act("TERM")` in place of what a signal does to us."""
    for name in dir(_signal):
        number = getattr(_signal, name)
        if not (name.startswith("SIG") and "_" not in name and isinstance(number, int)) or name in (
            "SIGRTMIN",
            "SIGRTMAX",
        ):
            continue
        if name in _NOT_PASSED_ON or name in _FAULTS or number < 1:
            continue

        def arrived(number: int, frame: object, name: str = name[3:]) -> None:
            act(name)

        _signal.signal(number, arrived)


def confirm(question: str) -> bool:
    """Ask; whether the answer is yes."""
    sys.stdout.write(question + " [y/N] ")
    sys.stdout.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")
