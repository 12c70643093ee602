"""`--mount`, `--volume` and `--tmpfs`.  Pure but for `~`-less paths made absolute; raises ValueError."""

from __future__ import annotations

import os

from corral.cli import values

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_TYPES = ("bind", "volume", "tmpfs", "npipe", "cluster", "image")
_SECTIONS = {
    "bind": ("BindOptions", ("bind-propagation", "bind-nonrecursive", "bind-recursive", "bind-create-src")),
    "volume": ("VolumeOptions", ("volume-driver", "volume-opt", "volume-label", "volume-nocopy", "volume-subpath")),
    "tmpfs": ("TmpfsOptions", ("tmpfs-size", "tmpfs-mode")),
    "image": ("ImageOptions", ("image-subpath",)),
}


def mount(text: str) -> dict[str, Any]:
    """A `--mount` as the API's Mount."""
    found: dict[str, Any] = {"Type": "volume"}
    options: list[tuple[str, str]] = []
    for field in values.csv_fields(text):
        key, equals, value = field.partition("=")
        key = key.lower()
        if not equals and key not in ("readonly", "ro", "volume-nocopy", "bind-nonrecursive"):
            raise ValueError(f"invalid field '{field}' must be a key=value pair")
        _field(found, options, key, value if equals else "true", field)
    if "Target" not in found:
        raise ValueError("target is required")
    for key, value in options:
        _option(found, key, value)
    _consistent(found)
    return found


def _field(found: dict[str, Any], options: list[tuple[str, str]], key: str, value: str, field: str) -> None:
    match key:
        case "type":
            found["Type"] = value.lower()
        case "source" | "src":
            found["Source"] = os.path.abspath(value) if value == "." or value.startswith(("./", "../")) else value
        case "target" | "dst" | "destination":
            found["Target"] = value
        case "readonly" | "ro":
            try:
                found["ReadOnly"] = values.boolean(value)
            except ValueError:
                raise ValueError(f"invalid value for {key}: {value}") from None
        case "consistency":
            found["Consistency"] = value.lower()
        case _ if any(key in known for _, known in _SECTIONS.values()):
            options.append((key, value))
        case _:
            raise ValueError(f"unexpected key '{key}' in '{field}'")


def _option(found: dict[str, Any], key: str, value: str) -> None:
    kind = next(kind for kind, (_, known) in _SECTIONS.items() if key in known)
    if found["Type"] != kind and not (kind == "volume" and found["Type"] == "cluster"):
        raise ValueError(f"cannot mix '{kind}-*' options with mount type '{found['Type']}'")
    section: dict[str, Any] = found.setdefault(_SECTIONS[kind][0], {})
    match key:
        case "bind-propagation":
            section["Propagation"] = value.lower()
        case "bind-nonrecursive":
            section["NonRecursive"] = _boolean(key, value)
        case "bind-create-src":
            section["CreateMountpoint"] = _boolean(key, value)
        case "bind-recursive":
            _recursive(section, value)
        case "volume-driver":
            section.setdefault("DriverConfig", {})["Name"] = value
        case "volume-opt":
            name, _, setting = value.partition("=")
            section.setdefault("DriverConfig", {}).setdefault("Options", {})[name] = setting
        case "volume-label":
            name, _, setting = value.partition("=")
            section.setdefault("Labels", {})[name] = setting
        case "volume-nocopy":
            section["NoCopy"] = _boolean(key, value)
        case "volume-subpath" | "image-subpath":
            section["Subpath"] = value
        case "tmpfs-size":
            section["SizeBytes"] = _size(key, value)
        case "tmpfs-mode":
            section["Mode"] = _mode(key, value)


def _recursive(section: dict[str, Any], value: str) -> None:
    match value:
        case "enabled":
            pass
        case "disabled":
            section["NonRecursive"] = True
        case "writable":
            section["ReadOnlyNonRecursive"] = True
        case "readonly":
            section["ReadOnlyForceRecursive"] = True
        case _:
            raise ValueError(
                f'invalid value for bind-recursive: {value} (must be "enabled", "disabled", "writable", or "readonly")'
            )


def _boolean(key: str, value: str) -> bool:
    try:
        return values.boolean(value)
    except ValueError:
        raise ValueError(f"invalid value for {key}: {value}") from None


def _size(key: str, value: str) -> int:
    try:
        return values.size_bytes(value)
    except ValueError:
        raise ValueError(f"invalid value for {key}: {value}") from None


def _mode(key: str, value: str) -> int:
    try:
        return int(value, 8)
    except ValueError:
        raise ValueError(f"invalid value for {key}: {value}") from None


def _consistent(found: dict[str, Any]) -> None:
    kind = found["Type"]
    if not kind:
        raise ValueError("type is required")
    if kind not in _TYPES:
        return  # the daemon says what it thinks of it
    bind = found.get("BindOptions", {})
    if bind.get("ReadOnlyForceRecursive") and (not found.get("ReadOnly") or bind.get("Propagation") != "rprivate"):
        missing = "readonly" if not found.get("ReadOnly") else "bind-propagation=rprivate"
        raise ValueError(f"option 'bind-recursive=readonly' requires '{missing}' to be specified in conjunction")
    if bind.get("ReadOnlyNonRecursive") and not found.get("ReadOnly"):
        raise ValueError("option 'bind-recursive=writable' requires 'readonly' to be specified in conjunction")


def bind(text: str) -> str:
    """A `--volume` with a source, its `./` made absolute."""
    source, _, rest = text.partition(":")
    if source in (".", "..") or source.startswith(("./", "../")):
        source = os.path.abspath(source)
    return f"{source}:{rest}"


def volumes(items: list[str]) -> tuple[list[str], list[str]]:
    """Binds (with a source) and anonymous volumes (a path in the container alone)."""
    binds, anonymous = [], []
    for item in items:
        if not item:
            raise ValueError("invalid spec: empty volume")
        if ":" in item:
            binds.append(bind(item))
        else:
            anonymous.append(item)
    return binds, anonymous


def tmpfs(items: list[str]) -> dict[str, str]:
    """`--tmpfs PATH[:OPTIONS]` as the API's map."""
    return {path: options for path, _, options in (item.partition(":") for item in items)}
