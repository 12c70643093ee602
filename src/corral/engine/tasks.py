"""Tasks: the running side of containers, as the daemon sees it through their shims.

    daemon --control socket--> launcher --fork--> shim --fork--> container
       \\----------------- one socket per shim -----/

A Task is one shim's connection.  Requests are answered in order; events (`exit`, `exec-exit`, `detach`, `log`,
`gone`) come in between and go to the task's listener.  A shim outlives the daemon; `reconnect` finds it again.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import resource
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from corral.errors import System
from corral.oci.idmap import IdMap
from corral.runtime.failure import Failure
from corral.shim import frames, protocol

Listener = Callable[[dict[str, Any]], None]


class ShimGone(System):
    """The shim ended while it was asked something."""


class LauncherGone(System):
    """The launcher could not be started."""


class Task:
    """A connection to one shim."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self._socket = connection
        self._decoder = protocol.Decoder()
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._unsent: deque[memoryview] = deque()
        self._loop = asyncio.get_running_loop()
        self._listener: Listener | None = None
        self._early: list[dict[str, Any]] = []
        self.pid = -1
        self.frozen = False
        self.gone = asyncio.Event()
        self._loop.add_reader(connection.fileno(), self._readable)

    def listen(self, listener: Listener) -> None:
        """Give every event, past and future, to `listener`."""
        self._listener = listener
        early, self._early = self._early, []
        for event in early:
            listener(event)

    async def request(self, verb: str, descriptors: Sequence[int] = (), **fields: Any) -> dict[str, Any]:
        """Ask the shim and await its answer; raises Failure as the shim met it, or ShimGone."""
        if self.gone.is_set() and self._socket.fileno() < 0:
            raise ShimGone("cannot reach the shim: it has ended")
        number = next(self._numbers)
        answer: asyncio.Future[dict[str, Any]] = self._loop.create_future()
        answer.add_done_callback(_seen)  # whoever asked may be gone by the time it is answered
        self._waiting[number] = answer
        self._send({"n": number, "verb": verb, **fields}, descriptors)
        return await answer

    def close(self) -> None:
        """Drop the connection; the shim goes on."""
        if self._socket.fileno() >= 0:
            self._loop.remove_reader(self._socket.fileno())
            self._loop.remove_writer(self._socket.fileno())
            self._socket.close()
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(ShimGone("cannot reach the shim: it has ended"))
        self._waiting.clear()

    def _send(self, message: dict[str, Any], descriptors: Sequence[int]) -> None:
        frame = memoryview(protocol.encode(message, len(descriptors)))
        if self._unsent:
            if descriptors:
                raise ShimGone("cannot reach the shim: it does not take messages")
            self._unsent.append(frame)
            return
        try:
            sent = frames.send_some(self._socket, frame, descriptors)
        except BlockingIOError:
            sent = 0
            if descriptors:
                raise ShimGone("cannot reach the shim: it does not take messages") from None
        except OSError as error:
            raise ShimGone(f"cannot reach the shim: {error.strerror}") from error
        if sent < len(frame):
            self._unsent.append(frame[sent:])
            self._loop.add_writer(self._socket.fileno(), self._writable)

    def _writable(self) -> None:
        try:
            while self._unsent:
                sent = self._socket.send(self._unsent[0], socket.MSG_NOSIGNAL)
                rest = self._unsent.popleft()[sent:]
                if rest:
                    self._unsent.appendleft(rest)
        except BlockingIOError:
            return
        except OSError:
            self._ended()
            return
        self._loop.remove_writer(self._socket.fileno())

    def _readable(self) -> None:
        try:
            received = frames.receive(self._socket)
        except BlockingIOError:
            return
        except OSError:
            received = None
        if received is None:
            self._ended()
            return
        for message, _ in self._decoder.feed(*received):
            self._take(message)

    def _take(self, message: dict[str, Any]) -> None:
        if "event" in message:
            if message["event"] == "gone":
                self.gone.set()
            if self._listener is None:
                self._early.append(message)
            else:
                self._listener(message)
            return
        answer = self._waiting.pop(message["n"], None)
        if answer is None or answer.done():
            return
        if "failure" in message:
            answer.set_exception(Failure(*message["failure"]))
        else:
            answer.set_result(message["ok"])

    def _ended(self) -> None:
        told = self.gone.is_set()
        self.close()
        self.gone.set()
        if not told:
            self._take({"event": "lost"})


def _seen(answer: asyncio.Future[dict[str, Any]]) -> None:
    if not answer.cancelled():
        answer.exception()


class Launcher:
    """The process that forks shims; started again should it ever end."""

    def __init__(self, seccomp: dict[str, Any], ids: IdMap | None = None) -> None:
        """`seccomp` is the filter that most containers will have, `ids` are their ids: both are made once, there."""
        self._usual = {"seccomp": seccomp, "mappings": ids.described() if ids else None}
        self._descriptor_limit = resource.getrlimit(resource.RLIMIT_NOFILE)  # containers inherit it, not the daemon's
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None

    def start(self) -> None:
        """Start the process; it needs only the standard library, so `site` is left out."""
        ours, theirs = socket.socketpair()
        source = str(Path(__file__).parents[2])
        command = [sys.executable, "-S", "-P", "-m", "corral.shim.launcher", str(theirs.fileno())]
        environment = {"PYTHONPATH": source, "PATH": os.environ.get("PATH", os.defpath), "LANG": "C.UTF-8"}
        with theirs:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, pass_fds=(theirs.fileno(),), env=environment, cwd="/"
            )
        resource.prlimit(self._process.pid, resource.RLIMIT_NOFILE, self._descriptor_limit)
        self._control = ours
        frames.send(ours, self._usual)

    def launch(self, directory: str) -> Task:
        """A new shim whose files are in `directory`; raises LauncherGone."""
        ours, theirs = socket.socketpair()
        with theirs:
            for attempt in (1, 2):
                if self._control is None or (self._process is not None and self._process.poll() is not None):
                    self.start()
                assert self._control is not None
                try:
                    frames.send(self._control, {"directory": directory}, [theirs.fileno()])
                    break
                except OSError as error:
                    self._control.close()
                    self._control = None
                    if attempt == 2:
                        raise LauncherGone(f"cannot start a shim: {error.strerror}") from error
        return Task(ours)

    async def clean_up(self, directory: str) -> None:
        """End what a shim that died has left: its container, cgroups and state."""
        task = self.launch(directory)
        try:
            await task.request("clean_up")
        finally:
            task.close()

    @property
    def pid(self) -> int:
        """The launcher's process id, or -1."""
        return self._process.pid if self._process is not None else -1

    def stop(self) -> None:
        """End the launcher; shims go on."""
        if self._control is not None:
            self._control.close()
            self._control = None
        if self._process is not None:
            self._process.wait()
            self._process = None


def reconnect(directory: str) -> Task | None:
    """The task of a shim that an earlier daemon started, or None when there is none."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    holder = -1
    try:
        # A path below a descriptor: the real one may be longer than a socket address can be.
        holder = os.open(directory, os.O_PATH | os.O_DIRECTORY)
        connection.connect(f"/proc/self/fd/{holder}/shim.sock")
    except OSError:
        connection.close()
        return None
    finally:
        if holder >= 0:
            os.close(holder)
    return Task(connection)
