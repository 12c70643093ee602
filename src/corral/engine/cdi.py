"""Devices by name: the Container Device Interface (CDI), and `--gpus` in its terms.

A vendor's tool writes files into the CDI folders; each describes devices of one kind (`vendor.com/class`) and what a
container needs to use them.  They are read again at each start: they change when drivers do, and are few.  In a later
folder a device replaces the one of the same name in an earlier one; named twice in one folder it is nobody's.

Source: the CDI specification (github.com/cncf-tags/container-device-interface), version 1.
"""

from __future__ import annotations

import json
import logging
import os
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from corral.errors import System
from corral.wire.containers import DeviceRequest

_log = logging.getLogger("corral")

Edits = dict[str, Any]  # a `containerEdits` object


class CdiFailed(System):
    """A device that is asked for by name cannot be given.  Docker calls this a fault of the machine, too."""


@dataclass(frozen=True)
class Device:
    """One device of a CDI file; `shared` are the edits that its file has for all of its devices."""

    file: str
    edits: Edits
    shared: Edits


class _BadFile(Exception):
    """A CDI file that cannot be used; says why."""


def devices(folders: Sequence[str]) -> dict[str, Device]:
    """Every device that can be had, by its full name.  A file that cannot be read is worth a line in the log."""
    found: dict[str, Device] = {}
    for folder in folders:
        here: dict[str, Device] = {}
        twice: set[str] = set()
        for path in _files(folder):
            try:
                entries = _read(path)
            except (_BadFile, OSError) as error:
                _log.warning("cannot use the CDI file %s: %s", path, error)
                continue
            twice |= entries.keys() & here.keys()
            here |= entries
        found |= here
        for name in twice:
            _log.warning("the CDI device %s is described more than once in %s", name, folder)
            del found[name]
    return found


def _files(folder: str) -> list[str]:
    try:
        names = sorted(os.listdir(folder))
    except FileNotFoundError:
        return []
    except OSError as error:
        _log.warning("cannot read the CDI folder %s: %s", folder, error.strerror)
        return []
    return [os.path.join(folder, name) for name in names if name.endswith((".json", ".yaml", ".yml"))]


def _read(path: str) -> dict[str, Device]:
    with open(path, "rb") as file:
        data = file.read()
    content = _parsed(data, json_text=path.endswith(".json"))
    kind = content.get("kind")
    if not isinstance(kind, str) or kind.count("/") != 1 or not isinstance(content.get("cdiVersion"), str):
        raise _BadFile("it needs cdiVersion and kind (vendor.com/class)")
    listed = content.get("devices") or []
    if not isinstance(listed, list) or not all(
        isinstance(item, dict) and isinstance(item.get("name"), str) for item in listed
    ):
        raise _BadFile("devices must be a list of objects with names")
    shared = _checked(content.get("containerEdits") or {})
    return {
        f"{kind}={item['name']}": Device(path, _checked(item.get("containerEdits") or {}), shared) for item in listed
    }


def _parsed(data: bytes, *, json_text: bool) -> dict[str, Any]:
    if json_text:
        try:
            content = json.loads(data)
        except ValueError as error:
            raise _BadFile(str(error)) from error
    else:
        import yaml  # only here: most machines have no CDI files

        try:
            content = yaml.safe_load(data)
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise _BadFile(str(error)) from error
    if not isinstance(content, dict):
        raise _BadFile("it must hold an object")
    return content


# What an edit's entries need: member and its type.
_NEEDED: dict[str, dict[str, type]] = {
    "deviceNodes": {"path": str},
    "mounts": {"hostPath": str, "containerPath": str},
    "hooks": {"hookName": str, "path": str},
}
_HOOKS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")


def _checked(edits: Any) -> Edits:
    if not isinstance(edits, dict):
        raise _BadFile("containerEdits must be an object")
    unknown = edits.keys() - {*_NEEDED, "env", "additionalGids"}
    if unknown:
        raise _BadFile(f"there is no way here to apply {', '.join(sorted(unknown))}")
    for name, needed in _NEEDED.items():
        entries = edits.get(name) or []
        if not isinstance(entries, list):
            raise _BadFile(f"{name} must be a list")
        for entry in entries:
            if not isinstance(entry, dict) or any(not isinstance(entry.get(key), kind) for key, kind in needed.items()):
                raise _BadFile(f"{name} need {' and '.join(needed)}")
    if any(hook["hookName"] not in _HOOKS for hook in edits.get("hooks") or []):
        raise _BadFile(f"hookName must be one of {', '.join(_HOOKS)}")
    if not all(isinstance(entry, str) and "=" in entry for entry in edits.get("env") or []):
        raise _BadFile("env must be a list of NAME=VALUE")
    if not all(type(gid) is int and gid >= 0 for gid in edits.get("additionalGids") or []):
        raise _BadFile("additionalGids must be a list of group ids")
    return edits


# -- requests ---------------------------------------------------------------------------------------------------


def edits(requests: Sequence[DeviceRequest], folders: Sequence[str]) -> list[Edits]:
    """What a container needs for the devices it asks for, in the order to apply it; raises CdiFailed."""
    if not requests:
        return []
    known = devices(folders)
    names = [name for request in requests for name in _names(request, known)]
    missing = [name for name in names if name not in known]
    if missing:
        raise CdiFailed(f"CDI device injection failed: unresolvable CDI devices {', '.join(missing)}")
    chosen = [known[name] for name in dict.fromkeys(names)]
    found: list[Edits] = []
    files: set[str] = set()
    for device in chosen:
        if device.file not in files:
            files.add(device.file)
            found.append(device.shared)
        found.append(device.edits)
    return found


def _names(request: DeviceRequest, known: Iterable[str]) -> list[str]:
    if request.driver == "cdi":
        if request.count:
            raise CdiFailed("unexpected count in CDI device request")
        if request.options:
            raise CdiFailed("unexpected options in CDI device request")
        return list(request.device_ids or [])
    kind = _gpu_kind(request, known)
    if request.device_ids:
        return [f"{kind}={name}" for name in request.device_ids]
    return [f"{kind}=all"] if request.count < 0 else [f"{kind}={number}" for number in range(request.count)]


def _gpu_kind(request: DeviceRequest, known: Iterable[str]) -> str:
    """The CDI kind that `--gpus` means here: of the vendor named, else of the first that there is."""
    kinds = {name.partition("=")[0] for name in known}
    wanted = [kind for kind in ("nvidia.com/gpu", "amd.com/gpu") if request.driver in ("", kind.partition(".")[0])]
    if any("gpu" in alternative for alternative in request.capabilities or []):
        for kind in wanted:
            if kind in kinds:
                return kind
    shown = " ".join("[" + " ".join(alternative) + "]" for alternative in request.capabilities or [])
    raise CdiFailed(f'could not select device driver "{request.driver}" with capabilities: [{shown}]')


# -- injection --------------------------------------------------------------------------------------------------


def apply(spec: dict[str, Any], edits: Sequence[Edits]) -> list[str]:
    """Change an OCI spec in place; the groups to add, as numbers in text.  Raises CdiFailed."""
    groups: list[str] = []
    for edit in edits:
        environment = {entry.partition("=")[0]: entry for entry in spec["process"]["env"]}
        environment |= {entry.partition("=")[0]: entry for entry in edit.get("env") or []}
        spec["process"]["env"] = list(environment.values())
        for node in edit.get("deviceNodes") or []:
            _add_device(spec["linux"], _node(node))
        for mount in edit.get("mounts") or []:
            _add_mount(spec["mounts"], mount)
        for hook in edit.get("hooks") or []:
            kept = {key: hook[key] for key in ("path", "args", "env", "timeout") if hook.get(key)}
            spec.setdefault("hooks", {}).setdefault(hook["hookName"], []).append(kept)
        groups += [str(gid) for gid in edit.get("additionalGids") or [] if gid]
    return groups


def _node(node: dict[str, Any]) -> dict[str, Any]:
    """A device node with what the file leaves out taken from the host's device."""
    device = {
        "path": node["path"],
        "type": node.get("type", ""),
        "major": node.get("major"),
        "minor": node.get("minor"),
        "access": node.get("permissions") or "rwm",
        **{key: node[key] for key in ("fileMode", "uid", "gid") if node.get(key) is not None},
    }
    if device["type"] == "p" or (device["type"] and device["major"] is not None and device["minor"] is not None):
        return device
    path = node.get("hostPath") or node["path"]
    try:
        found = os.stat(path)
    except OSError as error:
        raise CdiFailed(
            f"CDI device injection failed: failed to stat CDI host device {path!r}: {str(error.strerror).lower()}"
        ) from error
    kind = "c" if stat.S_ISCHR(found.st_mode) else "b" if stat.S_ISBLK(found.st_mode) else ""
    if not kind or device["type"] not in ("", kind, "u" if kind == "c" else kind):
        raise CdiFailed(f"CDI device injection failed: CDI device ({path!r}, {path!r}): host type mismatch")
    device |= {"type": kind, "major": os.major(found.st_rdev), "minor": os.minor(found.st_rdev)}
    device.setdefault("fileMode", stat.S_IMODE(found.st_mode))
    return device


def _add_device(linux: dict[str, Any], device: dict[str, Any]) -> None:
    access = device.pop("access")
    linux["devices"] = [entry for entry in linux["devices"] if entry["path"] != device["path"]] + [device]
    if device["type"] in ("b", "c"):
        rule = {"allow": True, "access": access, **{key: device[key] for key in ("type", "major", "minor")}}
        linux["resources"]["devices"].append(rule)


def _add_mount(mounts: list[dict[str, Any]], mount: dict[str, Any]) -> None:
    """A mount at the same place is replaced; parents stay in front of what is below them."""
    target = mount["containerPath"]
    mounts[:] = [entry for entry in mounts if entry["destination"] != target]
    options = list(mount.get("options") or ())
    if not {"bind", "rbind"} & set(options) and (mount.get("type") or "bind") == "bind":
        options.append("bind")
    entry = {"destination": target, "source": mount["hostPath"], "options": options}
    mounts.append({**entry, "type": mount.get("type") or "bind"})


def discovered(folders: Sequence[str]) -> list[dict[str, str]]:
    """What `docker info` says: each device with the driver that knows it."""
    return [{"Source": "cdi", "ID": name} for name in sorted(devices(folders))]
