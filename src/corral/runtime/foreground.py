"""A process in the foreground: signals go to it, its terminal is ours, its exit status becomes ours."""

from __future__ import annotations

import errno
import fcntl
import os
import select
import signal
import termios

from corral.linux import credentials

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_FORWARDED = (
    signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGCONT,
)  # fmt: skip
_CHUNK = 65536


def adopt_orphans() -> None:
    """Be the parent of a container's init even if a helper forked it."""
    credentials.prctl(credentials.PR_SET_CHILD_SUBREAPER, 1)


def pass_signals_on(pid: int) -> int:
    """From now on our signals go to `pid`; returns its pidfd.  To be called before the program can be heard of."""
    pidfd = os.pidfd_open(pid)

    def forward(number: int, frame: Any) -> None:
        try:
            signal.pidfd_send_signal(pidfd, number)
        except ProcessLookupError:
            return

    for number in _FORWARDED:
        signal.signal(number, forward)
    return pidfd


def wait(pid: int, pidfd: int, console: int) -> int:
    """Until `pid` ends; its status as a shell would say it (128 + signal).  Closes `pidfd`."""
    try:
        if console >= 0:
            _relay(pidfd, console)
        else:
            _poll([pidfd])
    finally:
        for number in _FORWARDED:
            signal.signal(number, signal.SIG_DFL)
        os.close(pidfd)
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _poll(fds: list[int]) -> list[int]:
    return select.select(fds, [], [])[0]


def _relay(pidfd: int, console: int) -> None:
    """Copy between our stdio and the terminal until the process has ended and its output is read."""
    saved = _raw_mode()

    def resize(number: int, frame: Any) -> None:
        _copy_size(console)

    signal.signal(signal.SIGWINCH, resize)
    _copy_size(console)
    readable = [0, console, pidfd]
    try:
        while True:
            ready = _poll(readable)
            if 0 in ready:
                data = os.read(0, _CHUNK)
                if data:
                    _write_all(console, data)
                else:
                    readable.remove(0)
            if console in ready:
                data = _read_terminal(console)
                if not data:
                    break
                _write_all(1, data)
            elif pidfd in ready:
                break
        _poll([pidfd])
    finally:
        if saved is not None:
            termios.tcsetattr(0, termios.TCSADRAIN, saved)
        os.close(console)


def _read_terminal(console: int) -> bytes:
    try:
        return os.read(console, _CHUNK)
    except OSError as error:
        if error.errno == errno.EIO:  # how a terminal says that nobody has it open any more
            return b""
        raise


def _write_all(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]


def _raw_mode() -> list[Any] | None:
    """Our terminal passes every key on; None if stdin is none."""
    if not os.isatty(0):
        return None
    import tty

    saved = termios.tcgetattr(0)
    tty.setraw(0)
    return saved


def _copy_size(console: int) -> None:
    if os.isatty(0):
        fcntl.ioctl(console, termios.TIOCSWINSZ, fcntl.ioctl(0, termios.TIOCGWINSZ, bytes(8)))
