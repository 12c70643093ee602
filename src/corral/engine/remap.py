"""`--userns-remap`: whose ids containers have, and what such containers may not do.

The user's ranges come from /etc/subuid and /etc/subgid.  A daemon that remaps keeps everything in a folder of its data
root named after the ids (`DATA_ROOT/UID.GID`), as Docker does.
"""

from __future__ import annotations

import grp
import logging
import os
import pwd
import shutil
import subprocess
from collections.abc import Callable, Sequence

from corral.config import ConfigError
from corral.engine.record import Container
from corral.errors import InvalidParameter
from corral.oci.idmap import IdMap, consecutive
from corral.runtime import idmaps
from corral.runtime.failure import Failure
from corral.wire.containers import HostConfig

_log = logging.getLogger(__name__)

_DEFAULT_USER = "dockremap"
_FIRST_ID = 100_000
_COUNT = 65_536
_SUBUID, _SUBGID = "/etc/subuid", "/etc/subgid"


class HostNamespaceRefused(InvalidParameter):
    """Something that takes the host's own user namespace."""


class OtherUserNamespace(InvalidParameter):
    """A container to be joined that has the host's user namespace."""

    def __init__(self, container_id: str) -> None:
        super().__init__(f"cannot join a namespace of container {container_id}: it is not in a user namespace")


def resolve(wanted: str) -> IdMap | None:
    """The ids for a value of `userns-remap`; None for root, whom nothing can be remapped to.  Raises ConfigError."""
    name, colon, group = wanted.partition(":")
    if ":" in group:
        raise ConfigError(f'Invalid user/group specification in --userns-remap: "{wanted}"')
    user = _user(name)
    if colon:
        _group(group)
    else:
        _group_of(name, user)
    if user.pw_uid == 0:
        _log.warning("User namespaces: root cannot be remapped with itself; user namespaces are OFF")
        return None
    uids = _ranges(_SUBUID, user, "subuid")
    gids = _ranges(_SUBGID, user, "subgid")
    _log.info("User namespaces: ID ranges will be mapped to subuid/subgid ranges of: %s", user.pw_name)
    return IdMap(consecutive(uids), consecutive(gids))


def own_root(data_root: str, ids: IdMap | None) -> str:
    """The folder of a data root that belongs to these ids."""
    uid, gid = ids.root if ids else (0, 0)
    return os.path.join(data_root, f"{uid}.{gid}")


def make_root(data_root: str, ids: IdMap | None) -> str:
    """Make that folder, closed to everybody but root.

    A file that is set-uid root in a container is so on disk: who has broken out of one must not get at it.
    """
    found = own_root(data_root, ids)
    os.makedirs(found, exist_ok=True)
    os.chmod(found, 0o700)
    return found


def check_disk(folder: str, ids: IdMap) -> None:
    """Raise ConfigError unless layers below `folder` can be mounted with mapped ids."""
    try:
        user_ns = idmaps.user_namespace(ids.described())
        try:
            os.close(idmaps.mapped(folder, user_ns))
        finally:
            os.close(user_ns)
    except Failure as failure:
        reason = failure.detail or os.strerror(failure.errno).lower()
        raise ConfigError(f"Can't create ID mappings: cannot use {folder}: {reason}") from failure


def of(ids: IdMap | None, host: HostConfig) -> IdMap | None:
    """The ids of one container: None if it has the host's."""
    return None if host.userns_mode == "host" else ids


def check(ids: IdMap | None, host: HostConfig) -> None:
    """Raise HostNamespaceRefused, with Docker's texts, for what a container with ids of its own cannot have."""
    if of(ids, host) is None:
        return
    if host.privileged:
        raise HostNamespaceRefused(
            "privileged mode is incompatible with user namespaces.  "
            "You must run the container in the host namespace when running privileged mode"
        )
    if host.network_mode == "host":
        raise HostNamespaceRefused("cannot share the host's network namespace when user namespaces are enabled")
    if host.pid_mode == "host":
        raise HostNamespaceRefused("cannot share the host PID namespace when user namespaces are enabled")
    if host.ipc_mode == "host":
        raise HostNamespaceRefused("cannot share the host IPC namespace when user namespaces are enabled")


def joined(ids: IdMap | None, record: Container, other: Container) -> str:
    """The user namespace that `record` must share to share another namespace of `other`; "" for the host's."""
    if of(ids, record.host) is None:
        return ""
    if of(ids, other.host) is None:
        raise OtherUserNamespace(other.id)
    return f"/proc/{other.state.pid}/ns/user"


def subordinate(text: str, user: str, uid: int) -> list[tuple[int, int]]:
    """The ranges (first id, count) of a user in the text of /etc/subuid: by name, else by number."""
    rows = [line.split(":") for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    for owner in (user, str(uid)):
        found = [(int(row[1]), int(row[2])) for row in rows if len(row) == 3 and row[0] == owner]
        if found:
            return found
    return []


def free_start(texts: Sequence[str]) -> int:
    """The first id from 100000 on after all ranges that anybody has."""
    start = _FIRST_ID
    for text in texts:
        for line in text.splitlines():
            row = line.split(":")
            if len(row) == 3 and row[1].isdecimal() and row[2].isdecimal():
                start = max(start, int(row[1]) + int(row[2]))
    return start


def _user(name: str) -> pwd.struct_passwd:
    number = _number(name)
    if number is not None:
        try:
            return pwd.getpwuid(number)
        except (KeyError, OverflowError):
            raise ConfigError(f"Uid {name} has no entry in /etc/passwd: {_missing(name, 'passwd')}") from None
    if name == "default":
        name = _DEFAULT_USER
        _make_default_user()
    try:
        return pwd.getpwnam(name)
    except KeyError:
        raise ConfigError(f'Error during uid lookup for "{name}": {_missing(name, "passwd")}') from None


def _group(name: str) -> None:
    _find_group(name, f'Error during groupname lookup for "{name}"')


def _group_of(name: str, user: pwd.struct_passwd) -> None:
    """Without a group, there must be one of the user's own name or number."""
    name = _DEFAULT_USER if name == "default" else name
    _find_group(name, f'Error during gid lookup for "{name}"')


def _find_group(name: str, told: str) -> None:
    number = _number(name)
    find: Callable[[], object] = (lambda: grp.getgrnam(name)) if number is None else (lambda: grp.getgrgid(number))
    try:
        find()
    except (KeyError, OverflowError):
        told = told if number is None else f"Gid {name} has no entry in /etc/group"
        raise ConfigError(f"{told}: {_missing(name, 'group')}") from None


def _number(name: str) -> int | None:
    digits = name.removeprefix("-")
    return int(name) if digits.isdecimal() and int(digits) < 1 << 31 else None


def _missing(name: str, database: str) -> str:
    return f'getent unable to find entry "{name}" in {database} database'


def _ranges(path: str, user: pwd.struct_passwd, kind: str) -> list[tuple[int, int]]:
    try:
        found = subordinate(_text(path), user.pw_name, user.pw_uid)
    except ValueError as error:
        raise ConfigError(f"Can't create ID mappings: cannot read {path}: {error}") from error
    if not found:
        raise ConfigError(f'Can\'t create ID mappings: no {kind} ranges found for user "{user.pw_name}"')
    return found


def _text(path: str) -> str:
    try:
        with open(path) as file:
            return file.read()
    except FileNotFoundError:
        return ""


def _make_default_user() -> None:
    """Make dockremap, its group and its ranges where they are missing; raises ConfigError with dockerd's texts."""
    try:
        pwd.getpwnam(_DEFAULT_USER)
    except KeyError:
        if shutil.which("useradd") is None:
            raise ConfigError("cannot add user; no useradd/adduser binary found") from None
        words = ["--system", "--user-group", "--no-create-home", "--home-dir", "/nonexistent", "--shell", "/bin/false"]
        _run(f'Error adding user "{_DEFAULT_USER}"', "useradd", *words, _DEFAULT_USER)
    start = free_start([_text(_SUBUID), _text(_SUBGID)])
    given = f"{start}-{start + _COUNT - 1}"
    uid = pwd.getpwnam(_DEFAULT_USER).pw_uid
    for path, flag, kind in ((_SUBUID, "--add-subuids", "subuid"), (_SUBGID, "--add-subgids", "subgid")):
        if not subordinate(_text(path), _DEFAULT_USER, uid):
            told = f'Couldn\'t create subordinate ID ranges: Unable to add {kind} range to user: "{_DEFAULT_USER}"'
            _run(told, "usermod", flag, given, _DEFAULT_USER)


def _run(told: str, *words: str) -> None:
    try:
        subprocess.run(words, check=True, capture_output=True, text=True)
    except FileNotFoundError:
        raise ConfigError(f"{told}: {words[0]} is not installed") from None
    except subprocess.CalledProcessError as error:
        raise ConfigError(f"{told}: {error.stderr.strip()}") from error
