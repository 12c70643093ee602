"""The one error of the runtime, small enough to cross a pipe.

Between processes travel a stage, an errno and a path, never prose: callers decide by these what to tell their user.

Stages: `spec` (the bundle is wrong; `detail` says how), `state`, `cgroup`, `namespace`, `fork`, `root`, `mount`,
`device`, `sysctl`, `mask`, `pivot`, `console`, `hook`, `user`, `group`, `rlimit`, `capabilities`, `chdir`, `exec`,
`seccomp`, `init` (the first process died without a word), `signal`.
"""

from __future__ import annotations

import errno as errno_names

from corral.errors import System


class Failure(System):
    """A step failed: `stage`, `errno` (0 if there is none), the `path` or name concerned, perhaps a `detail`."""

    def __init__(self, stage: str, errno: int = 0, path: str = "", detail: str = "") -> None:
        super().__init__(stage, errno, path, detail)
        self.stage = stage
        self.errno = errno
        self.path = path
        self.detail = detail

    def __str__(self) -> str:
        code = errno_names.errorcode.get(self.errno, str(self.errno)) if self.errno else ""
        parts = [self.stage, self.path, self.detail or code]
        return ": ".join(part for part in parts if part)

    def to_bytes(self) -> bytes:
        """`errno NUL stage NUL path NUL detail`, each without NUL, at most 4000 bytes (atomic in a pipe)."""
        fields = [str(self.errno), self.stage, self.path[:1500], self.detail[:400]]
        return "\0".join(field.replace("\0", "?") for field in fields).encode("utf-8", "surrogateescape")

    @classmethod
    def from_bytes(cls, data: bytes) -> Failure:
        """The inverse; damaged bytes become a Failure of stage `init`."""
        fields = data.decode("utf-8", "surrogateescape").split("\0")
        if len(fields) != 4 or not fields[0].isascii() or not fields[0].isdigit():
            return cls("init", 0, "", "unreadable failure report")
        return cls(fields[1], int(fields[0]), fields[2], fields[3])

    @classmethod
    def from_os_error(cls, stage: str, error: OSError, path: str = "") -> Failure:
        """Wrap a failed system call; `path` wins over the one in the error."""
        name = path or (error.filename if isinstance(error.filename, str) else "")
        return cls(stage, error.errno or 0, name)
