"""The shim: one small process per container that holds what must outlive the daemon.

It is the parent (or subreaper) of the container's processes, owns their standard streams and log, and puts the
exit status on disk before it tells anyone.  The daemon that started it talks over an inherited socket; a later
daemon connects to `shim.sock`.  Life: create -> start -> exit -> gone.

Files, in the directory the launcher was given (the container's place below the exec root):

    config.json   the OCI spec, written by the engine
    shim.sock     where a new daemon connects
    state/        the runtime's own state
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import stat
import struct
import termios
import time

from corral.linux import files, processes
from corral.runtime import bpf, idmaps, livedevices, livemounts, rootmount
from corral.runtime import container as library
from corral.runtime.failure import Failure
from corral.shim import control, foreign, frames, logs, protocol, work
from corral.shim.loop import READ, Loop
from corral.shim.stdio import Streams

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from corral.shim.loop import Deadline

_OUTPUT_AFTER_EXIT_S = 2.0  # how long output is awaited after its process has exited, as Docker waits


def warm_up(seccomp: dict[str, Any], mappings: idmaps.Mappings | None) -> None:
    """Do what every container needs once, so that every fork of the caller shares it.

    `seccomp` is the usual filter, `mappings` those of a daemon that remaps users.
    """
    bpf.compile_cached(seccomp, os.uname().machine)
    if mappings:
        idmaps.keep((mappings[0], mappings[1]))


class _Process:
    """A process of the container and its streams."""

    __slots__ = ("deadline", "oom_kills", "pid", "status", "streams", "timed_out")

    def __init__(self, streams: Streams) -> None:
        self.streams = streams
        self.pid = -1
        self.status: int | None = None
        self.deadline: Deadline | None = None
        self.timed_out = False
        self.oom_kills = 0  # in the whole container, when this process began


class Shim:
    """The verbs of the protocol: each public method takes the message and its descriptors and returns the answer."""

    def __init__(self, connection: socket.socket) -> None:
        self._loop = Loop(self._reap)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        if os.path.exists("shim.sock"):
            os.unlink("shim.sock")  # of a shim that died
        self._listener.bind("shim.sock")
        self._listener.listen(4)
        self._loop.watch(self._listener.fileno(), READ, self._accept)
        self._daemon: socket.socket | None = None
        self._decoder = protocol.Decoder()
        self._container: control.Control | None = None
        self._creator: work.Worker | None = None
        self._settings: dict[str, Any] = {}
        self._main: _Process | None = None
        self._execs: dict[str, _Process] = {}
        self._exit: dict[str, Any] | None = None
        self._started = False
        self._paused = False
        self._gone = False
        self._log_watched = False
        self._take_connection(connection)

    def run(self) -> None:
        """Serve until the container and its clients have gone."""
        self._loop.run()

    # -- verbs -------------------------------------------------------------------------------------

    def hello(self, message: dict[str, Any], descriptors: list[int]) -> dict[str, Any]:
        """Who is here: asked by a daemon that found this shim."""
        return {
            "pid": self._main.pid if self._main else -1,
            "started": self._started,
            "paused": self._paused,
            "exit": self._exit,
            "execs": {name: process.pid for name, process in self._execs.items()},
        }

    def create(self, message: dict[str, Any], descriptors: list[int]) -> dict[str, Any]:
        """Set the container up to the point where its process waits; descriptors are early clients."""
        self._settings = message
        streams = self._new_streams(message, logs.open_log(message["log"]), on_log=self._log_grew)
        process = _Process(streams)
        ours, theirs = _open_stdio(message["terminal"], stdin=message["stdin"], outputs=["stdout", "stderr"])
        _give_away(theirs, message["rootfs"]["mappings"])
        worker = work.Worker(lambda: _creation(message, theirs))
        try:
            values, console = worker.next()
        except BaseException:
            worker.close()
            _close_all([*ours, *descriptors])
            raise
        finally:
            _close_all(theirs)
        self._creator = worker
        self._container = control.Control(message, values)
        process.pid = values["pid"]
        self._main = process
        self._give_streams(process, message, ours, console)
        for client, fd in zip(message["clients"], descriptors, strict=True):
            self._attach_client(streams, client, fd)
        return {"pid": process.pid}

    def start(self, message: dict[str, Any], descriptors: list[int]) -> dict[str, Any]:
        """Let the process run."""
        assert self._creator is not None
        try:
            self._creator.next()
        finally:
            self._creator.close()
            self._creator = None
        self._started = True
        return {}

    def attach(self, message: dict[str, Any], descriptors: list[int]) -> dict[str, Any]:
        """Give the streams of the container to one more client."""
        if self._main is None or self._exit is not None:
            _close_all(descriptors)
            raise Failure("attach", 3, self._settings.get("id", ""))  # ESRCH
        self._attach_client(self._main.streams, message["client"], descriptors[0])
        return {}

    def exec(self, message: dict[str, Any], descriptors: list[int]) -> dict[str, Any]:
        """Run one more process in the container; a descriptor is its client."""
        assert self._container is not None
        name = message["exec"]
        process = _Process(self._new_streams(message, logs.NoLog(), exec_name=name))
        client = message["client"]
        outputs = client["outputs"] if client else []
        ours, theirs = _open_stdio(message["terminal"], stdin=message["stdin"], outputs=outputs)
        _give_away(theirs, self._settings["rootfs"]["mappings"])
        container = self._container
        process.oom_kills = container.oom_kills()
        try:
            values, console = work.run(lambda: _joining(container, message, theirs))
        except BaseException:
            _close_all([*ours, *descriptors])
            raise
        finally:
            _close_all(theirs)
        process.pid = values["pid"]
        self._execs[name] = process
        self._give_streams(process, message, ours, console)
        if client:
            self._attach_client(process.streams, client, descriptors[0])
        if message.get("timeout_s"):
            process.deadline = self._loop.at(message["timeout_s"], lambda: _overdue(process))
        return {"pid": process.pid}

    def resize(self, message: dict[str, Any], descriptors: list[int]) -> dict[str, Any]:
        """Tell a terminal its new size."""
        process = self._execs.get(message["exec"]) if message["exec"] else self._main
        if process is not None and process.streams.console >= 0:
            _resize(process.streams.console, message["rows"], message["columns"])
        return {}

    def kill(self, message: dict[str, Any], descriptors: list[int]) -> dict[str, Any]:
        """Send a signal to the container's process."""
        assert self._container is not None
        if self._exit is None:
            self._container.kill(message["signal"])
        return {}

    def pause(self, message: dict[str, Any], descriptors: list[int]) -> dict[str, Any]:
        """Freeze every process."""
        assert self._container is not None
        self._container.pause()
        self._paused = True
        return {}

    def resume(self, message: dict[str, Any], descriptors: list[int]) -> dict[str, Any]:
        """Thaw every process."""
        assert self._container is not None
        self._container.resume()
        self._paused = False
        return {}

    def update(self, message: dict[str, Any], descriptors: list[int]) -> dict[str, Any]:
        """Change the cgroup limits; takes the OCI `linux.resources`."""
        assert self._container is not None
        self._container.update(message["resources"])
        return {}

    def mount(self, message: dict[str, Any], descriptors: list[int]) -> dict[str, Any]:
        """Do a mount of a spec in the running container."""
        pid = self._main.pid if self._main is not None else -1
        work.run(lambda: _mounting(pid, message["mount"], self._settings["rootfs"]["mappings"]))
        return {}

    def unmount(self, message: dict[str, Any], descriptors: list[int]) -> dict[str, Any]:
        """Undo one."""
        pid = self._main.pid if self._main is not None else -1
        work.run(lambda: _unmounting(pid, message["target"]))
        return {}

    def add_device(self, message: dict[str, Any], descriptors: list[int]) -> dict[str, Any]:
        """Give the running container an OCI device: its node, and the right to use it (`access`)."""
        assert self._container is not None
        pid, device = self._main.pid if self._main is not None else -1, message["device"]
        self._container.allow_device(_rule(device))
        try:
            work.run(lambda: _making(pid, device, self._settings["rootfs"]["mappings"]))
        except Failure:
            self._container.disallow_device(_rule(device))
            raise
        return {}

    def remove_device(self, message: dict[str, Any], descriptors: list[int]) -> dict[str, Any]:
        """Take it away."""
        assert self._container is not None
        pid, device = self._main.pid if self._main is not None else -1, message["device"]
        self._container.disallow_device(_rule(device))
        work.run(lambda: _unmaking(pid, device))
        return {}

    def stats(self, message: dict[str, Any], descriptors: list[int]) -> dict[str, Any]:
        """Raw numbers of the container's cgroup."""
        assert self._container is not None
        return self._container.stats()

    def pids(self, message: dict[str, Any], descriptors: list[int]) -> dict[str, Any]:
        """The container's processes, as this pid namespace numbers them."""
        assert self._container is not None
        return {"pids": self._container.pids()}

    def sync(self, message: dict[str, Any], descriptors: list[int]) -> dict[str, Any]:
        """Nothing: the answer says that every earlier event has been sent."""
        self._reap()
        return {}

    def watch_log(self, message: dict[str, Any], descriptors: list[int]) -> dict[str, Any]:
        """Send one `log` event when the log next grows."""
        self._log_watched = True
        return {}

    def abandon(self, message: dict[str, Any], descriptors: list[int]) -> dict[str, Any]:
        """Undo a create that is not to be started."""
        self._discard()
        return {}

    def hold(self, message: dict[str, Any], descriptors: list[int]) -> dict[str, Any]:
        """Mount the file system of a container that does not run, for as long as this connection lasts."""
        rootmount.leave_host()
        rootfs = _rootfs(message["rootfs"])
        rootmount.mount_root(rootfs, "rootfs")
        if rootfs.mappings:
            with idmaps.owner(rootfs.mappings):
                _mount_below(message["mounts"])
        else:
            _mount_below(message["mounts"])
        return {"pid": os.getpid()}

    def clean_up(self, message: dict[str, Any], descriptors: list[int]) -> dict[str, Any]:
        """End the container of an earlier shim that died in this directory."""
        if os.path.exists("state/state.json"):
            library.load(os.path.abspath("state")).delete(force=True)
        return {}

    # -- exits -------------------------------------------------------------------------------------

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            code = os.waitstatus_to_exitcode(status)
            code = code if code >= 0 else 128 - code
            if self._main is not None and pid == self._main.pid:
                self._main_exited(code)
                continue
            for name, process in list(self._execs.items()):
                if process.pid == pid:
                    self._exec_exited(name, process, code)

    def _main_exited(self, status: int) -> None:
        if self._main is None or self._main.status is not None or not self._started:
            return
        self._main.status = status
        streams = self._main.streams
        streams.drain()
        if streams.open_outputs:
            # A process outside the container's pid namespace holds the pipes.
            assert self._container is not None
            self._container.kill_all()
            self._loop.at(_OUTPUT_AFTER_EXIT_S, self._output_ended)
        else:
            self._output_ended()

    def _output_ended(self) -> None:
        """The container is over: record, tell, release, in this order."""
        if self._exit is not None or self._main is None or self._main.status is None:
            return
        assert self._container is not None
        self._exit = {
            "status": self._main.status,
            "oom_killed": self._container.oom_killed(),
            "at_ns": time.time_ns(),
        }
        self._main.streams.close_outputs()
        self._write_exit()
        for name, process in list(self._execs.items()):
            self._exec_over(name, process, 137)
        self._tell({"event": "exit", **self._exit})
        self._main.streams.finish()
        self._release()

    def _write_exit(self) -> None:
        data = json.dumps(self._exit).encode()
        path = self._settings["exit_path"]
        if self._daemon is None:
            files.write_atomic(path, data)
            return
        # The daemon that is about to be told makes it durable itself; this copy is for when it dies just now.
        with open(path + ".new", "wb") as file:
            file.write(data)
        os.rename(path + ".new", path)

    def _exec_exited(self, name: str, process: _Process, status: int) -> None:
        process.status = status
        process.streams.drain()
        if process.streams.open_outputs:
            self._loop.at(_OUTPUT_AFTER_EXIT_S, lambda: self._exec_over(name, process, status))
        else:
            self._exec_over(name, process, status)

    def _exec_over(self, name: str, process: _Process, status: int) -> None:
        if self._execs.pop(name, None) is None:
            return
        if process.deadline is not None:
            self._loop.cancel(process.deadline)
        assert self._container is not None
        why = {"timed_out": process.timed_out, "oom_killed": self._container.oom_kills() > process.oom_kills}
        # Told before the client sees the end of the stream: it will ask for the exit code next.
        self._tell({"event": "exec-exit", "exec": name, "status": status, "pid": process.pid, **why})
        process.streams.finish()

    def _release(self) -> None:
        assert self._container is not None
        self._container.delete()
        self._gone = True
        os.unlink("shim.sock")  # before the daemon hears of it and clears the folder
        self._tell({"event": "gone"})
        self._stop_when_drained()

    def _discard(self) -> None:
        if self._container is not None:
            self._container.delete()
        if self._main is not None:
            self._main.streams.finish()
        self._gone = True
        os.unlink("shim.sock")
        self._stop_when_drained()

    def _stop_when_drained(self) -> None:
        if self._gone and not (self._main is not None and self._main.streams.has_clients):
            self._loop.stop()

    # -- streams -----------------------------------------------------------------------------------

    def _new_streams(
        self, message: dict[str, Any], log: logs.NoLog | logs.JsonFile, *, on_log: Any = None, exec_name: str = ""
    ) -> Streams:
        return Streams(
            self._loop,
            log,
            terminal=message["terminal"],
            stdin_once=message["stdin_once"],
            on_log=on_log or _nothing,
            on_detach=lambda: self._tell({"event": "detach", "exec": exec_name}),
            on_end=lambda: self._streams_ended(exec_name),
            on_idle=self._stop_when_drained,
        )

    def _streams_ended(self, exec_name: str) -> None:
        if not exec_name:
            self._output_ended()
        elif (process := self._execs.get(exec_name)) is not None and process.status is not None:
            self._exec_over(exec_name, process, process.status)

    def _give_streams(self, process: _Process, message: dict[str, Any], ours: list[int], console: int) -> None:
        if message["terminal"]:
            if message["console_size"]:
                _resize(console, *message["console_size"])
            process.streams.take_console(console)
        else:
            process.streams.take_pipes(*ours)

    def _attach_client(self, streams: Streams, client: dict[str, Any], fd: int) -> None:
        streams.attach(
            fd,
            stdin=client["stdin"],
            outputs=client["outputs"],
            detach_keys=bytes.fromhex(client["detach_keys"]),
            initial=bytes.fromhex(client["initial"]),
        )

    def _log_grew(self) -> None:
        if self._log_watched:
            self._log_watched = False
            self._tell({"event": "log"})

    # -- the daemon --------------------------------------------------------------------------------

    def _accept(self, events: int) -> None:
        connection, _ = self._listener.accept()
        self._drop_daemon()
        self._take_connection(connection)

    def _take_connection(self, connection: socket.socket) -> None:
        self._daemon = connection
        self._decoder = protocol.Decoder()
        self._loop.watch(connection.fileno(), READ, self._daemon_ready)

    def _drop_daemon(self) -> None:
        if self._daemon is not None:
            self._loop.forget(self._daemon.fileno())
            self._daemon.close()
            self._daemon = None
        if self._container is None:
            self._loop.stop()  # nobody will ever create anything here

    def _daemon_ready(self, events: int) -> None:
        assert self._daemon is not None
        try:
            received = frames.receive(self._daemon)
        except OSError:
            received = None
        if received is None:
            self._drop_daemon()
            return
        for message, descriptors in self._decoder.feed(*received):
            self._answer(message, descriptors)

    def _answer(self, message: dict[str, Any], descriptors: list[int]) -> None:
        verb = message["verb"]
        try:
            answer = {"n": message["n"], "ok": _VERBS[verb](self, message, descriptors)}
        except Failure as failure:
            answer = {"n": message["n"], "failure": [failure.stage, failure.errno, failure.path, failure.detail]}
        except OSError as error:
            answer = {"n": message["n"], "failure": [verb, error.errno or 0, error.filename or "", ""]}
        if "failure" in answer and verb in ("create", "start"):
            self._discard()  # before the engine hears of it and clears the folder
        self._tell(answer)
        if verb == "start":
            self._reap()  # it may have exited before it counted as started

    def _tell(self, message: dict[str, Any]) -> None:
        if self._daemon is not None:
            try:
                frames.send(self._daemon, message)
            except OSError:
                self._drop_daemon()


_VERBS = {
    verb: getattr(Shim, verb)
    for verb in (
        "hello create start attach exec resize kill pause resume update mount unmount add_device remove_device "
        "stats pids sync watch_log abandon hold clean_up"
    ).split()
}


def serve(connection: socket.socket) -> None:
    """Be the shim whose files are in the working directory, until its container has gone."""
    processes.set_child_subreaper()
    Shim(connection).run()


def _rootfs(fields: dict[str, Any]) -> library.Rootfs:
    return library.Rootfs(fields["lower"], fields["upper"], fields["work"], fields["options"], fields["mappings"])


def _mount_below(mounts: list[dict[str, Any]]) -> None:
    for described in mounts:
        rootmount.mount_below("rootfs", described)


def _creation(message: dict[str, Any], stdio: list[int]) -> Iterator[work.Step]:
    """In a worker: create the container, then start it."""
    with open("config.json", "rb") as file:
        spec = json.load(file)
    create = foreign.create if message["runtime"] else library.create
    container, console = create(
        message["id"],
        bundle=os.getcwd(),
        spec=spec,
        state_dir=os.path.abspath("state"),
        stdio=library.Stdio(*stdio) if stdio else library.Stdio(),
        rootfs=_rootfs(message["rootfs"]),
        user=message["user"],
        groups=tuple(message["groups"]),
        **({"command": message["runtime"]} if message["runtime"] else {}),
    )
    yield {"pid": container.pid, "version": container.cgroup.version, "paths": container.cgroup.paths}, console
    container.start()
    yield {}, -1


def _joining(container: control.Control, message: dict[str, Any], stdio: list[int]) -> Iterator[work.Step]:
    """In a worker: run one more process in the container."""
    streams = library.Stdio(*stdio) if stdio else library.Stdio()
    pid, console = container.whole().exec(
        message["process"], streams, user=message["user"], groups=tuple(message["groups"])
    )
    yield {"pid": pid}, console


def _mounting(pid: int, described: dict[str, Any], mappings: idmaps.Mappings | None) -> Iterator[work.Step]:
    """In a worker: which leaves the host's mounts."""
    livemounts.add(pid, described, mappings)
    yield {}, -1


def _unmounting(pid: int, target: str) -> Iterator[work.Step]:
    """In a worker, likewise."""
    livemounts.remove(pid, target)
    yield {}, -1


def _making(pid: int, device: dict[str, Any], mappings: idmaps.Mappings | None) -> Iterator[work.Step]:
    """In a worker, likewise."""
    livedevices.add(pid, device, mappings)
    yield {}, -1


def _unmaking(pid: int, device: dict[str, Any]) -> Iterator[work.Step]:
    """In a worker, likewise."""
    livedevices.remove(pid, device)
    yield {}, -1


def _overdue(process: _Process) -> None:
    """The time of an exec is over: kill it, and what it started in its process group."""
    if process.status is not None:
        return
    process.timed_out = True
    try:
        if os.getpgid(process.pid) == process.pid:
            os.killpg(process.pid, signal.SIGKILL)
        else:
            os.kill(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass  # it is just ending


def _rule(device: dict[str, Any]) -> dict[str, Any]:
    """What the specification says of the right to use a device."""
    return {"allow": True, **{name: device[name] for name in ("type", "major", "minor", "access")}}


def _nothing() -> None:
    pass


def _open_stdio(terminal: bool, *, stdin: bool, outputs: list[str]) -> tuple[list[int], list[int]]:
    """The two ends of each standard stream: ours (-1 where there is none) and the process's."""
    if terminal:
        return [], []
    ours, theirs = [-1, -1, -1], [-1, -1, -1]
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if not (stdin if name == "stdin" else name in outputs):
            theirs[number] = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
            continue
        read, write = os.pipe2(os.O_CLOEXEC)
        ours[number], theirs[number] = (write, read) if name == "stdin" else (read, write)
        if name != "stdin":
            _enlarge(read)
    return ours, theirs


def _give_away(theirs: list[int], mappings: idmaps.Mappings | None) -> None:
    """Pipes belong to the container's root, or with a user namespace nobody inside could open /dev/stdout."""
    if not mappings:
        return
    owner = idmaps.to_host(0, mappings[0]), idmaps.to_host(0, mappings[1])
    for fd in theirs:
        if stat.S_ISFIFO(os.fstat(fd).st_mode):
            os.fchown(fd, *owner)


def _enlarge(pipe: int) -> None:
    """Fewer, larger reads for a process that prints a lot; the kernel may refuse past its per-user limit."""
    try:
        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, 256 << 10)
    except OSError:
        pass


def _resize(console: int, rows: int, columns: int) -> None:
    fcntl.ioctl(console, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def _close_all(descriptors: list[int]) -> None:
    for fd in descriptors:
        if fd >= 0:
            os.close(fd)
