"""`RUN --mount`: what the options say, and what a container is given for them.

bind     files of the context, of a stage or of an image; with `rw` writes go to a directory that is thrown away
cache    a folder that outlives the build: DATA_ROOT/build/mounts/<digest of the id>
tmpfs    memory
secret   a file, or with `env` a variable, that only this command sees
ssh      the socket of an agent
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from corral.build import instructions as ins
from corral.build.dockerfile import heredoc_words
from corral.build.problems import DockerfileError, closest
from corral.build.request import Files
from corral.engine.record import MountPoint
from corral.errors import InvalidParameter
from corral.image.diff import layers_with

if TYPE_CHECKING:
    from corral.build.steps import Steps

SECRETS = "build-secrets"
KINDS = ("bind", "cache", "tmpfs", "secret", "ssh")
_SIZE = re.compile(r"(\d+(?:\.\d+)?)([kmgt]?)i?b?", re.IGNORECASE)
_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_ALIASES = {"src": "source", "dst": "target", "destination": "target", "ro": "readonly", "rw": "readwrite"}
_KNOWN = ("type", "from", "source", "target", "readonly", "readwrite", "id", "sharing", "required", "size", "mode",
          "uid", "gid", "env")  # fmt: skip


class SecretMissing(InvalidParameter):
    """A secret that the command requires was not given to the build."""

    def __init__(self, name: str) -> None:
        super().__init__(f"secret {name}: not found")


class AgentMissing(InvalidParameter):
    """An SSH agent that the command requires was not given to the build."""

    def __init__(self, name: str) -> None:
        super().__init__(f"no SSH key {name!r} forwarded from the client")


class BindMissing(InvalidParameter):
    """The source of a bind is not there."""

    def __init__(self, path: str) -> None:
        super().__init__(f'failed to calculate checksum: "{path}": not found')


@dataclass(frozen=True)
class Mount:
    """One --mount, read.  `size` in bytes; `mode` is None where none was given."""

    kind: str = "bind"
    source_stage: str = ""
    source: str = ""
    target: str = ""
    writable: bool | None = None
    id: str = ""
    sharing: str = "shared"
    required: bool = False
    size: int = 0
    mode: int | None = None
    uid: int = 0
    gid: int = 0
    env: str | None = None

    def key(self) -> list[Any]:
        """What of it decides about a step's result."""
        return [self.kind, self.source, self.target, bool(self.writable), self.id, self.size, self.mode, self.env]


def parse(text: str) -> Mount:
    """Read the options; raises DockerfileError."""
    found: dict[str, str] = {}
    for part in text.split(","):
        name, equals, value = part.strip().partition("=")
        name = _ALIASES.get(name.lower(), name.lower())
        if name not in _KNOWN:
            raise DockerfileError(f"unexpected key '{name}' in '{part}'{closest(name, _KNOWN)}")
        if not equals and name not in ("readonly", "readwrite", "required", "env"):
            raise DockerfileError(f"invalid field '{part}' must be a key=value pair")
        found[name] = value if equals else "true"
    kind = found.get("type", "bind")
    if kind not in KINDS:
        raise DockerfileError(f'unsupported mount type "{kind}"{closest(kind, KINDS)}')
    mount = Mount(
        kind=kind,
        source_stage=found.get("from", ""),
        source=found.get("source", ""),
        target=found.get("target", ""),
        writable=_writable(found, kind),
        id=found.get("id", ""),
        sharing=found.get("sharing", "shared"),
        required=_flag(found.get("required", "false"), "required"),
        size=_size(found["size"]) if "size" in found else 0,
        mode=_octal(found["mode"]) if "mode" in found else None,
        uid=_number(found.get("uid", "0"), "uid"),
        gid=_number(found.get("gid", "0"), "gid"),
        env=found.get("env"),
    )
    _check(mount)
    return mount


def _check(mount: Mount) -> None:
    if mount.kind in ("bind", "cache", "tmpfs") and not mount.target:
        raise DockerfileError(f"{mount.kind} mount: target is required")
    if mount.kind == "secret" and not (mount.id or mount.target):
        raise DockerfileError("secret mount: id or target is required")
    if mount.sharing not in ("shared", "private", "locked"):
        raise DockerfileError(f'unsupported sharing value "{mount.sharing}"')


def _writable(found: dict[str, str], kind: str) -> bool | None:
    if "readwrite" in found:
        return _flag(found["readwrite"], "rw")
    if "readonly" in found:
        return not _flag(found["readonly"], "ro")
    return kind != "bind"


def _flag(text: str, name: str) -> bool:
    if text.lower() in ("true", "1", "t"):
        return True
    if text.lower() in ("false", "0", "f"):
        return False
    raise DockerfileError(f"invalid value for {name}: {text}")


def _number(text: str, name: str) -> int:
    if not text.isdecimal() or len(text) > 10:
        raise DockerfileError(f"invalid value {text} for {name}")
    return int(text)


def _octal(text: str) -> int:
    if not re.fullmatch(r"[0-7]{1,5}", text):
        raise DockerfileError(f"invalid value {text} for mode")
    return int(text, 8)


def _size(text: str) -> int:
    match = _SIZE.fullmatch(text)
    if match is None:
        raise DockerfileError(f"invalid size: '{text}'")
    return int(float(match[1]) * _UNITS[match[2].lower()])


def is_only_heredoc(line: str) -> bool:
    """Whether a command is nothing but `<<WORD`."""
    return len(line.split()) == 1 and len(heredoc_words(line)) == 1


# --- effects ---------------------------------------------------------------------------------------------------


@dataclass
class Held:
    """What a container gets.  `argv` replaces the command if it is not empty."""

    points: list[MountPoint] = field(default_factory=list)
    environment: list[str] = field(default_factory=list)
    argv: list[str] = field(default_factory=list)


_locks: dict[str, asyncio.Lock] = {}


@contextlib.asynccontextmanager
async def prepared(steps: Steps, wanted: Sequence[Mount], body: ins.Run, container: str) -> AsyncIterator[Held]:
    """Have everything ready that the mounts need, for the time of the block."""
    held = Held()
    async with contextlib.AsyncExitStack() as stack:
        folder = os.path.join(steps.tools.scratch, container[:12])
        os.makedirs(folder, mode=0o711, exist_ok=True)
        for number, mount in enumerate(wanted):
            await _PREPARE[mount.kind](steps, mount, held, stack, os.path.join(folder, str(number)))
        _script(steps, body, held, folder)
        yield held


def _script(steps: Steps, body: ins.Run, held: Held, folder: str) -> None:
    """A here-document that begins with `#!` is a program of its own."""
    if len(body.heredocs) != 1 or not body.heredocs[0].content.startswith("#!"):
        return
    if body.command.exec_form or not is_only_heredoc(body.command.line):
        return
    document = body.heredocs[0]
    path = os.path.join(folder, "script")
    with open(path, "w", encoding="utf-8", errors="surrogateescape") as file:
        file.write(document.content)
    os.chmod(path, 0o755)
    target = f"/dev/pipes/{document.name}"
    held.points.append(MountPoint("bind", path, target, rw=False))
    held.argv = [target]


def _target(steps: Steps, mount: Mount) -> str:
    from corral.build.steps import joined

    return joined(steps.standing.state.directory, mount.target)


async def _bind(steps: Steps, mount: Mount, held: Held, stack: contextlib.AsyncExitStack, folder: str) -> None:
    found = await steps.files_of(mount.source_stage)
    roots = [found.directory] if isinstance(found, Files) else list(found)
    target = _target(steps, mount)
    source = await steps.resolved(mount.source_stage, mount.source) if mount.source.strip("/.") else ""
    paths = _below(roots, source)
    if not paths:
        raise BindMissing(mount.source or "/")
    if not mount.writable and (len(paths) == 1 or not os.path.isdir(paths[0])):
        held.points.append(MountPoint("bind", paths[0], target, rw=False))
        return
    options = ["lowerdir=" + ":".join(paths)]
    if mount.writable:
        if not os.path.isdir(paths[0]):
            raise DockerfileError("bind mount: a single file cannot be mounted writable")
        for name in ("upper", "work"):
            os.makedirs(os.path.join(folder, name))
        options += [f"upperdir={folder}/upper", f"workdir={folder}/work"]
    held.points.append(MountPoint("overlay", "overlay", target, options=tuple(options)))


def _below(roots: list[str], path: str) -> list[str]:
    """The directories that together make the folder `path` of a stack, or the one file that it is.

    No link is on the way: the path has been resolved.
    """
    current = roots
    for part in [part for part in path.split("/") if part not in ("", ".")]:
        if part == "..":
            raise BindMissing(path)
        current = layers_with(current, part)
    return current


async def _cache(steps: Steps, mount: Mount, held: Held, stack: contextlib.AsyncExitStack, folder: str) -> None:
    target = _target(steps, mount)
    shown = mount.id or target
    name = hashlib.sha256(f"{shown}\0{mount.source_stage}\0{mount.source}".encode()).hexdigest()
    if mount.sharing == "locked":
        await stack.enter_async_context(_locks.setdefault(name, asyncio.Lock()))
    elif mount.sharing == "private":
        name = await _private(name, stack)
    mounts = steps.tools.cache_mounts
    mounts.take(name, shown)
    stack.push_async_callback(asyncio.to_thread, mounts.give_back, name)
    place = mounts.path(name)
    if not os.path.isdir(place):
        await _new_cache(steps, mount, place)
    held.points.append(MountPoint("bind", place, target, rw=mount.writable is not False))


async def _private(name: str, stack: contextlib.AsyncExitStack) -> str:
    """A folder that nobody else uses now."""
    number = 0
    while _locks.setdefault(f"{name}.{number}", asyncio.Lock()).locked():
        number += 1
    await stack.enter_async_context(_locks[f"{name}.{number}"])
    return f"{name}.{number}" if number else name


async def _new_cache(steps: Steps, mount: Mount, place: str) -> None:
    made = f"{place}.new"
    os.makedirs(made, mode=0o755, exist_ok=True)
    os.chown(made, mount.uid, mount.gid)
    os.chmod(made, mount.mode if mount.mode is not None else 0o755)
    if mount.source_stage:
        await steps.fill(made, mount.source_stage, mount.source or "/")
    os.rename(made, place)


async def _tmpfs(steps: Steps, mount: Mount, held: Held, stack: contextlib.AsyncExitStack, folder: str) -> None:
    options = ["nosuid", "nodev", *([f"size={mount.size}"] if mount.size else [])]
    held.points.append(MountPoint("tmpfs", "", _target(steps, mount), options=tuple(options)))


async def _secret(steps: Steps, mount: Mount, held: Held, stack: contextlib.AsyncExitStack, folder: str) -> None:
    name = mount.id or os.path.basename(mount.target)
    data = steps.request.secrets.get(name)
    if data is None:
        if mount.required:
            raise SecretMissing(name)
        return
    if mount.env is not None:
        variable = name if mount.env == "true" else mount.env
        held.environment.append(f"{variable}={data.decode('utf-8', 'surrogateescape')}")
        if not mount.target:
            return
    # In memory on most machines, unlike the scratch folder; cleared when a daemon starts.
    private = os.path.join(steps.tools.engine.paths.exec_root, SECRETS)
    os.makedirs(private, mode=0o711, exist_ok=True)
    path = os.path.join(private, os.urandom(8).hex())
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
        file.write(data)
    stack.callback(os.unlink, path)
    os.chown(path, mount.uid, mount.gid)
    os.chmod(path, mount.mode if mount.mode is not None else 0o400)
    target = _target(steps, mount) if mount.target else f"/run/secrets/{name}"
    held.points.append(MountPoint("bind", path, target, rw=False))


async def _ssh(steps: Steps, mount: Mount, held: Held, stack: contextlib.AsyncExitStack, folder: str) -> None:
    name = mount.id or "default"
    path = steps.request.ssh.get(name)
    if path is None:
        if mount.required:
            raise AgentMissing(name)
        return
    number = sum(point.destination.startswith("/run/buildkit/ssh_agent.") for point in held.points)
    target = _target(steps, mount) if mount.target else f"/run/buildkit/ssh_agent.{number}"
    held.points.append(MountPoint("bind", path, target))
    held.environment.append(f"SSH_AUTH_SOCK={target}")


_PREPARE = {"bind": _bind, "cache": _cache, "tmpfs": _tmpfs, "secret": _secret, "ssh": _ssh}
