"""What `corral setup` wants to know of a machine; `machine.py` finds it out, `findings.py` judges it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Facts:
    """A machine, as far as it matters to containers.  `failures` has what was tried, with the reason if it failed."""

    kernel: str
    is_root: bool
    failures: dict[str, str]
    cgroup_version: int
    controllers: frozenset[str]
    seccomp_filters: bool
    mapped_user: str
    data_root: str
    free_bytes: int
    total_bytes: int
    project_quotas: bool
    nftables: str
    """Why the library of nftables cannot be used; empty if it can."""
    missing_programs: tuple[str, ...]
    systemd: bool

    @property
    def kernel_version(self) -> tuple[int, int]:
        major, _, rest = self.kernel.partition(".")
        minor = rest.partition(".")[0]
        digits = "".join(letter for letter in minor if letter.isdecimal())
        return int(major), int(digits or 0)
