"""Pseudo-terminals: a new pair on a given devpts, window size, controlling terminal."""

from __future__ import annotations

import fcntl
import os

_TIOCSCTTY = 0x540E
_TIOCSWINSZ = 0x5414
_TIOCSPTLCK = 0x40045431
_TIOCGPTN = 0x80045430
_TIOCGPTPEER = 0x5441


def new_pair(ptmx: str) -> tuple[int, int, int]:
    """(master, slave, number) from the multiplexer at `ptmx`; the slave is opened through its master (TIOCGPTPEER)."""
    master = os.open(ptmx, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        fcntl.ioctl(master, _TIOCSPTLCK, (0).to_bytes(4, "little"))
        number = int.from_bytes(fcntl.ioctl(master, _TIOCGPTN, bytes(4)), "little")
        slave = fcntl.ioctl(master, _TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    except BaseException:
        os.close(master)
        raise
    return master, slave, number


def set_size(fd: int, rows: int, columns: int) -> None:
    """Window size in character cells."""
    data = rows.to_bytes(2, "little") + columns.to_bytes(2, "little") + bytes(4)
    fcntl.ioctl(fd, _TIOCSWINSZ, data)


def make_controlling(fd: int) -> None:
    """Make `fd` the controlling terminal of the calling session leader."""
    fcntl.ioctl(fd, _TIOCSCTTY, 0)
