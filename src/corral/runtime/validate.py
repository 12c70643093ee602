"""Is this spec one that can be run? A list of small checks, each of one thing.

Pure: what the host can do shows later. A check raises Failure("spec", EINVAL, place, why).
"""

from __future__ import annotations

from corral.runtime.failure import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_EINVAL = 22
NAMESPACES = ("user", "pid", "network", "ipc", "uts", "cgroup", "time", "mount")


def _wrong(place: str, why: str) -> Failure:
    return Failure("spec", _EINVAL, place, why)


def check(spec: dict[str, Any]) -> None:
    """All checks, in order."""
    for one in _CHECKS:
        one(spec)


def check_process(process: dict[str, Any]) -> None:
    """What `exec` needs of its process."""
    args = process.get("args")
    if not args or not isinstance(args, list) or not all(isinstance(item, str) for item in args):
        raise _wrong("process.args", "args must not be empty")
    cwd = process.get("cwd")
    if not cwd or not str(cwd).startswith("/"):
        raise _wrong("process.cwd", "Cwd must be an absolute path")


def _process(spec: dict[str, Any]) -> None:
    if spec.get("process") is not None:
        check_process(spec["process"])


def _namespaces(spec: dict[str, Any]) -> None:
    seen = set()
    for entry in (spec.get("linux") or {}).get("namespaces") or []:
        kind = entry.get("type")
        if kind not in NAMESPACES:
            raise _wrong("linux.namespaces", f"unknown namespace {kind!r}")
        if kind in seen:
            raise _wrong("linux.namespaces", f"malformed spec file: duplicated ns {kind!r}")
        seen.add(kind)
    if "mount" not in seen:
        raise _wrong("linux.namespaces", "a container needs a mount namespace")


_CHECKS = (_process, _namespaces)
