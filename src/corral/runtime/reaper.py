"""An init for a container that asks for one (`plan.INIT_ANNOTATION`): forwards signals, reaps orphans.

The first process does not execve the container's program but forks, and the child does.  What stays is a copy of the
caller without descriptors, without capabilities but CAP_KILL, under the container's own filter, and not dumpable: no
process of the container can look into it through /proc or trace it without CAP_SYS_PTRACE.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # what `signal` wraps in enums at ten times the cost
import ctypes
import os
import signal

from corral.linux import credentials, files, seccomp

TYPE_CHECKING = False
if TYPE_CHECKING:
    from corral.runtime.process import Launch

_TITLE = b"/sbin/docker-init\0--\0"
_CAP_KILL = 1 << 5
# Not forwarded: what the kernel sends for our own faults, what cannot be caught, and what belongs to the C library.
_OURS = frozenset(
    (signal.SIGFPE, signal.SIGILL, signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGTRAP, signal.SIGSYS,
     signal.SIGTTIN, signal.SIGTTOU, signal.SIGKILL, signal.SIGSTOP, 32, 33)
)  # fmt: skip
_FORWARDED = [number for number in range(1, 65) if number not in _OURS]


def argument_area() -> tuple[int, int]:
    """Where the command line of this process is in its memory: address and length (proc(5), arg_start and arg_end)."""
    with open("/proc/self/stat", "rb") as file:
        fields = file.read().rpartition(b")")[2].split()
    start, end = int(fields[45]), int(fields[46])
    return start, end - start


def stay(launch: Launch, area: tuple[int, int]) -> None:
    """Fork: returns in the child, which is to become the program; the parent serves it until it ends."""
    _signal.pthread_sigmask(_signal.SIG_BLOCK, _signal.valid_signals())
    pid = os.fork()
    if pid == 0:
        os.setpgid(0, 0)
        _take_terminal()
        _signal.pthread_sigmask(_signal.SIG_SETMASK, ())
        return
    try:
        _serve(launch, pid, area)
    finally:
        os._exit(1)


def _take_terminal() -> None:
    try:
        os.tcsetpgrp(0, os.getpid())
    except OSError:
        pass  # standard input is no terminal, or not ours


def _serve(launch: Launch, pid: int, area: tuple[int, int]) -> None:
    files.close_range(3)
    _name_ourselves(launch, area)
    _restrict(launch)
    while True:
        number = _signal.sigwaitinfo(_FORWARDED).si_signo
        if number == signal.SIGCHLD:
            _reap(pid)
            continue
        try:
            os.kill(pid, number)
        except OSError:
            continue  # it has just ended, or is another user's by now


def _reap(main: int) -> None:
    """Take in all who have ended; the end of the program is our own."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if not pid:
            return
        if pid == main:
            os._exit(os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status))


def _restrict(launch: Launch) -> None:
    _, permitted, _ = credentials.capget()
    credentials.capset(permitted & _CAP_KILL, permitted & _CAP_KILL, 0)
    credentials.prctl(credentials.PR_SET_NO_NEW_PRIVS, 1)  # a filter can be loaded without CAP_SYS_ADMIN then
    if launch.program:
        seccomp.load(launch.program, launch.filter_flags & ~seccomp.SECCOMP_FILTER_FLAG_NEW_LISTENER)


def _name_ourselves(launch: Launch, area: tuple[int, int]) -> None:
    """What `ps` shows of us: an init and its arguments, not the caller's command line."""
    name = ctypes.create_string_buffer(b"docker-init")
    credentials.prctl(credentials.PR_SET_NAME, ctypes.addressof(name))
    address, length = area
    text = _TITLE + b"\0".join(os.fsencode(argument) for argument in launch.argv)
    ctypes.memmove(address, text[: length - 1].ljust(length, b"\0"), length)
