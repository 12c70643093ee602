"""A small event loop: descriptors, child exits and deadlines, in one thread."""

from __future__ import annotations

import os
import select
import signal
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Deadline = tuple[float, Callable[[], None]]

READ = select.EPOLLIN
WRITE = select.EPOLLOUT
HANG_UP = select.EPOLLHUP | select.EPOLLERR


class Loop:
    """Calls back when a watched descriptor is ready, a child has exited or a deadline has passed."""

    def __init__(self, on_child: Callable[[], None]) -> None:
        self._epoll = select.epoll()
        self._callbacks: dict[int, Callable[[int], None]] = {}
        self._deadlines: list[tuple[float, Callable[[], None]]] = []
        self._on_child = on_child
        self._stopped = False
        self._wake_read, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        self.watch(self._wake_read, READ, self._woken)

    def watch(self, fd: int, events: int, callback: Callable[[int], None]) -> None:
        """Call `callback(ready events)` whenever `fd` has one of `events`; the last call for an fd counts."""
        if fd in self._callbacks:
            self._epoll.modify(fd, events)
        else:
            self._epoll.register(fd, events)
        self._callbacks[fd] = callback

    def forget(self, fd: int) -> None:
        """Stop watching `fd`; harmless when it is not watched."""
        if self._callbacks.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def at(self, delay_s: float, callback: Callable[[], None]) -> Deadline:
        """Call `callback` once, `delay_s` from now."""
        deadline = time.monotonic() + delay_s, callback
        self._deadlines.append(deadline)
        return deadline

    def cancel(self, deadline: Deadline) -> None:
        """Do not call back after all; harmless when it has been."""
        if deadline in self._deadlines:
            self._deadlines.remove(deadline)

    def stop(self) -> None:
        """Leave `run` after the present callback."""
        self._stopped = True

    def run(self) -> None:
        """Serve until `stop`."""
        while not self._stopped:
            timeout = -1.0
            if self._deadlines:
                timeout = max(0.0, min(when for when, _ in self._deadlines) - time.monotonic())
            for fd, events in self._epoll.poll(timeout):
                callback = self._callbacks.get(fd)
                if callback is not None:  # an earlier callback of this round may have forgotten it
                    callback(events)
            if self._deadlines:
                self._run_deadlines()

    def _run_deadlines(self) -> None:
        now = time.monotonic()
        due = [entry for entry in self._deadlines if entry[0] <= now]
        self._deadlines = [entry for entry in self._deadlines if entry[0] > now]
        for _, callback in due:
            callback()

    def _woken(self, events: int) -> None:
        os.read(self._wake_read, 4096)
        self._on_child()
