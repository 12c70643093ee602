"""The verbs of the command, one function each: flags in, exit status out. Errors rise as Failure or UsageError."""

from __future__ import annotations

import errno
import json
import os
import signal
import sys

from corral.runtime import container as containers
from corral.runtime import process, state
from corral.runtime.arguments import Flags, UsageError
from corral.runtime.container import Container, Stdio
from corral.runtime.failure import Failure
from corral.runtime.report import Log

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_ID_CHARACTERS = set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_+-.")


class Context:
    """What the global flags say."""

    __slots__ = ("log", "root")

    def __init__(self, root: str, log: Log) -> None:
        self.root = root
        self.log = log

    def state_dir(self, container_id: str) -> str:
        """Where a container's state is; Failure for an id that is no file name."""
        if not container_id or set(container_id) - _ID_CHARACTERS or container_id in (".", ".."):
            raise Failure("spec", errno.EINVAL, container_id, "invalid container ID format")
        return os.path.join(self.root, container_id)

    def load(self, flags: Flags) -> Container:
        """The container named by the first argument."""
        return containers.load(self.state_dir(one_id(flags)))


def one_id(flags: Flags) -> str:
    """The container id among the arguments."""
    if not flags.positional:
        raise UsageError("a container ID is needed")
    return flags.positional[0]


def _only_id(flags: Flags) -> str:
    if len(flags.positional) != 1:
        raise UsageError("exactly 1 argument is needed: the container ID")
    return flags.positional[0]


def _read_spec(bundle: str) -> dict[str, Any]:
    path = os.path.join(bundle, "config.json")
    return _read_json(path)


def _read_json(path: str) -> dict[str, Any]:
    try:
        if path == "-":
            value = json.loads(sys.stdin.buffer.read())
        else:
            with open(path, "rb") as file:
                value = json.loads(file.read())
    except OSError as error:
        raise Failure("spec", error.errno or 0, path) from error
    except ValueError as error:
        raise Failure("spec", errno.EINVAL, path, f"not JSON: {error}") from error
    if not isinstance(value, dict):
        raise Failure("spec", errno.EINVAL, path, "not a JSON object")
    return value


def _warn_of_capabilities(context: Context, spec: dict[str, Any]) -> None:
    capabilities = (spec.get("process") or {}).get("capabilities")
    if not isinstance(capabilities, dict):
        return
    unknown = {name for names in capabilities.values() for name in names or []} - process.known_capabilities()
    if unknown:
        context.log.warning(f"ignoring unknown or unavailable capabilities: {sorted(unknown)}")


def _make(context: Context, flags: Flags, foreground: bool = False) -> tuple[Container, int]:
    container_id = _only_id(flags)
    bundle = os.path.abspath(flags.get("bundle", "."))
    spec = _read_spec(bundle)
    _warn_of_capabilities(context, spec)
    terminal = bool((spec.get("process") or {}).get("terminal"))
    socket_path = flags.get("console-socket")
    if not foreground and terminal != bool(socket_path):
        detail = "cannot allocate tty if runc will detach without setting console socket"
        if socket_path:
            detail = "cannot use console socket if runc will not detach or allocate tty"
        raise Failure("spec", errno.EINVAL, "process.terminal", detail)
    made, console = containers.create(
        container_id,
        bundle=bundle,
        spec=spec,
        state_dir=context.state_dir(container_id),
        stdio=Stdio(),
        preserve_fds=_preserved(flags),
        no_pivot=flags.on("no-pivot"),
        new_keyring=not flags.on("no-new-keyring"),
    )
    try:
        if socket_path:
            send_console(socket_path, console)
            console = -1
        if flags.has("pid-file"):
            write_pid(flags.get("pid-file"), made.pid)
    except BaseException:
        made.delete(force=True)
        raise
    return made, console


def _preserved(flags: Flags) -> int:
    """Descriptors above stdio to pass on; socket activation (LISTEN_FDS) counts among them."""
    count = flags.number("preserve-fds")
    listening = os.environ.get("LISTEN_FDS", "")
    return count + (int(listening) if listening.isdigit() else 0)


def write_pid(path: str, pid: int) -> None:
    """The pid file appears whole."""
    temporary = os.path.join(os.path.dirname(path), f".{os.path.basename(path)}")
    try:
        with open(temporary, "w", encoding="utf-8") as file:
            file.write(str(pid))
        os.rename(temporary, path)
    except OSError as error:
        raise Failure.from_os_error("state", error, path) from error


def send_console(path: str, console: int) -> None:
    """Give the terminal's master to whoever listens on the socket at `path`, and close it here."""
    import array
    import socket

    line = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        line.connect(path)
        line.sendmsg([b"terminal"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [console]))])
    except OSError as error:
        raise Failure.from_os_error("console", error, path) from error
    finally:
        line.close()
        os.close(console)


def create(context: Context, flags: Flags) -> int:
    """create [--bundle DIR] [--console-socket S] [--pid-file F] [--plan] ID"""
    if flags.on("plan"):
        bundle = os.path.abspath(flags.get("bundle", "."))
        spec = _read_spec(bundle)
        for line in containers.describe_plan(_only_id(flags), bundle, spec, context.state_dir(_only_id(flags))):
            print(line)
        return 0
    _make(context, flags)
    return 0


def start(context: Context, flags: Flags) -> int:
    """start ID"""
    _only_id(flags)
    loaded = context.load(flags)
    if not loaded.spec.get("process"):
        raise Failure("state", errno.EINVAL, loaded.id, "cannot start a container without a process")
    loaded.start()
    return 0


def run(context: Context, flags: Flags) -> int:
    """run [--detach] ... ID: create, start, and unless detached wait and delete."""
    from corral.runtime import foreground

    detach = flags.on("detach")
    if not detach:
        foreground.adopt_orphans()
    made, console = _make(context, flags, foreground=not detach)
    try:
        if detach:
            made.start()
            return 0
        pidfd = foreground.pass_signals_on(made.pid)
        made.start()
        return foreground.wait(made.pid, pidfd, console)
    except BaseException:
        made.delete(force=True)
        raise
    finally:
        if not detach and not flags.on("keep"):
            made.delete(force=True)


def show_state(context: Context, flags: Flags) -> int:
    """state ID"""
    _only_id(flags)
    print(json.dumps(_full_state(context.load(flags)), indent=2))
    return 0


def _full_state(loaded: Container) -> dict[str, Any]:
    record = loaded.oci_state()
    record.setdefault("pid", 0)
    record["rootfs"] = loaded.root_path
    record["created"] = loaded.created
    record["owner"] = ""
    return record


def kill(context: Context, flags: Flags) -> int:
    """kill [--all] ID [SIGNAL]"""
    if len(flags.positional) > 2:
        raise UsageError("at most 2 arguments: the container ID and a signal")
    loaded = context.load(flags)
    text = flags.positional[1] if len(flags.positional) == 2 else "SIGTERM"
    loaded.kill(parse_signal(text), all=flags.on("all"))
    return 0


def parse_signal(text: str) -> int:
    """A number, or a name with or without SIG."""
    if text.isascii() and text.isdigit() and 0 < int(text) <= 64:
        return int(text)
    name = text.upper()
    name = name if name.startswith("SIG") else f"SIG{name}"
    found = getattr(signal, name, None)
    if not isinstance(found, int) or name.startswith("SIG_"):
        raise UsageError(f"unknown signal {text!r}")
    return int(found)


def delete(context: Context, flags: Flags) -> int:
    """delete [--force] ID"""
    container_id = _only_id(flags)
    force = flags.on("force")
    try:
        loaded = containers.load(context.state_dir(container_id))
    except Failure as failure:
        if force and failure.errno == errno.ENOENT:
            state.clear(context.state_dir(container_id))  # what a `create` that was killed has left
            return 0
        raise
    loaded.delete(force=force or loaded.status() == "created")
    for hook_failure in loaded.hook_failures:
        context.log.warning(str(hook_failure))
    return 0


def pause(context: Context, flags: Flags) -> int:
    """pause ID"""
    context.load(flags).pause()
    return 0


def resume(context: Context, flags: Flags) -> int:
    """resume ID"""
    context.load(flags).resume()
    return 0


def execute(context: Context, flags: Flags) -> int:
    """exec [flags] ID COMMAND [ARG...], or exec --process FILE ID"""
    from corral.runtime import foreground

    loaded = context.load(flags)
    spec = _exec_process(loaded, flags)
    detach = flags.on("detach")
    socket_path = flags.get("console-socket")
    if detach and bool(spec.get("terminal")) != bool(socket_path):
        raise Failure("spec", errno.EINVAL, "process.terminal", "detached exec needs a console socket for its tty")
    pid, console = loaded.exec(
        spec, Stdio(), preserve_fds=_preserved(flags), cgroup_path=flags.get("cgroup").rpartition(":")[2]
    )
    if socket_path and console >= 0:
        send_console(socket_path, console)
        console = -1
    if flags.has("pid-file"):
        write_pid(flags.get("pid-file"), pid)
    if detach:
        return 0
    return foreground.wait(pid, foreground.pass_signals_on(pid), console)


def _exec_process(loaded: Container, flags: Flags) -> dict[str, Any]:
    if flags.has("process"):
        return _read_json(flags.get("process"))
    spec = dict(loaded.spec.get("process") or {})
    spec["args"] = flags.positional[1:]
    spec["terminal"] = flags.on("tty")
    spec.pop("consoleSize", None)
    if flags.has("cwd"):
        spec["cwd"] = flags.get("cwd")
    spec["env"] = [*(spec.get("env") or []), *flags.all("env")]
    if flags.has("no-new-privs"):
        spec["noNewPrivileges"] = flags.on("no-new-privs")
    if flags.has("user"):
        uid, _, gid = flags.get("user").partition(":")
        if not uid.isdigit() or (gid and not gid.isdigit()):
            raise UsageError("--user takes UID[:GID] in numbers")
        spec["user"] = {"uid": int(uid), "gid": int(gid or 0)}
    groups = [int(item) for item in flags.all("additional-gids")]
    if groups:
        spec["user"] = dict(spec.get("user") or {}, additionalGids=groups)
    if flags.all("cap"):
        sets = {name: list(names or []) for name, names in (spec.get("capabilities") or {}).items()}
        for name in ("bounding", "effective", "permitted"):
            sets[name] = list(dict.fromkeys(sets.get(name, []) + flags.all("cap")))
        spec["capabilities"] = sets
    return spec


def list_all(context: Context, flags: Flags) -> int:
    """list [--format table|json] [--quiet]"""
    form = flags.get("format", "table")
    if form not in ("table", "json"):
        raise UsageError(f"invalid format option: {form}")
    found = []
    try:
        names = sorted(os.listdir(context.root))
    except FileNotFoundError:
        names = []
    for name in names:
        try:
            found.append(_full_state(containers.load(os.path.join(context.root, name))))
        except Failure as failure:
            if failure.errno not in (errno.ENOENT, errno.ENOTDIR):  # being made, just deleted, or not ours
                raise
    if flags.on("quiet"):
        for record in found:
            print(record["id"])
    elif form == "json":
        print(json.dumps(found))
    else:
        rows = [[r["id"], str(r["pid"]), r["status"], r["bundle"], r["created"], "root"] for r in found]
        print_table([["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"], *rows])
    return 0


def print_table(rows: list[list[str]]) -> None:
    """Columns as wide as their widest cell."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
