"""What the command tells: errors in the words that engines look for, to stderr and to the log."""

from __future__ import annotations

import errno
import json
import os
import sys

from corral.runtime.failure import Failure
from corral.runtime.forks import timestamp

NAME = "corral-runtime"


class Log:
    """The file of `--log` (none: stderr only), as text or JSON, with `--debug` more of it."""

    __slots__ = ("debugging", "json_format", "path")

    def __init__(self, path: str = "", json_format: bool = False, debugging: bool = False) -> None:
        self.path = path
        self.json_format = json_format
        self.debugging = debugging

    def error(self, message: str) -> None:
        self._write("error", message)
        sys.stderr.write(f"{NAME}: {message}\n")

    def warning(self, message: str) -> None:
        self._write("warning", message)
        if not self.path:
            sys.stderr.write(f"{NAME}: warning: {message}\n")

    def debug(self, message: str) -> None:
        if self.debugging:
            self._write("debug", message)
            if not self.path:
                sys.stderr.write(f"{NAME}: debug: {message}\n")

    def _write(self, level: str, message: str) -> None:
        if not self.path:
            return
        if self.json_format:
            line = json.dumps({"level": level, "msg": message, "time": timestamp()})
        else:
            line = f"time={json.dumps(timestamp())} level={level} msg={json.dumps(message)}"
        fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        try:
            os.write(fd, line.encode() + b"\n")
        finally:
            os.close(fd)


def describe(failure: Failure) -> str:
    """One line; podman and its like tell a missing program from one that may not be run by these words."""
    reason = os.strerror(failure.errno).lower() if failure.errno else ""
    if failure.stage == "exec":
        return _exec_text(failure, reason)
    if failure.stage == "user":
        return f"unable to find user {failure.path}: no matching entries in passwd file"
    if failure.stage == "group":
        return f"unable to find group {failure.path}: no matching entries in group file"
    if failure.stage == "chdir":
        return f'chdir to cwd ("{failure.path}") set in config.json failed: {failure.detail or reason}'
    if failure.stage == "state" and failure.errno == errno.ENOENT:
        return "container does not exist"
    if failure.stage == "state" and failure.detail:
        return failure.detail
    parts = [_STAGES.get(failure.stage, failure.stage), failure.path, failure.detail, reason]
    return ": ".join(part for part in parts if part)


_STAGES = {
    "spec": "invalid config.json",
    "root": "cannot set up the root file system",
    "mount": "cannot mount",
    "device": "cannot make device",
    "sysctl": "cannot set sysctl",
    "mask": "cannot protect path",
    "pivot": "cannot switch root",
    "namespace": "cannot enter namespace",
    "cgroup": "cannot set up cgroup",
    "console": "cannot set up terminal",
    "hook": "error running hook",
    "rlimit": "cannot set rlimit",
    "seccomp": "cannot load seccomp filter",
    "capabilities": "cannot set credentials",
    "init": "container init failed",
}


def _exec_text(failure: Failure, reason: str) -> str:
    if failure.errno == errno.ENOENT and "/" not in failure.path:
        return f'exec: "{failure.path}": executable file not found in $PATH'
    if failure.errno == errno.ENOENT:
        return f'exec: "{failure.path}": stat {failure.path}: no such file or directory'
    return f'exec: "{failure.path}": {reason}'
