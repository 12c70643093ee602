"""`corral update`."""

from __future__ import annotations

from corral.cli.command import Command, Session
from corral.cli.flags import Flag
from corral.cli.problems import CliError
from corral.cli.runbody import restart_policy
from corral.cli.runflags import CREATE_FLAGS

_LIMITS = {
    "blkio-weight": "BlkioWeight",
    "cpu-period": "CpuPeriod",
    "cpu-quota": "CpuQuota",
    "cpu-rt-period": "CpuRealtimePeriod",
    "cpu-rt-runtime": "CpuRealtimeRuntime",
    "cpu-shares": "CpuShares",
    "cpus": "NanoCpus",
    "cpuset-cpus": "CpusetCpus",
    "cpuset-mems": "CpusetMems",
    "memory": "Memory",
    "memory-reservation": "MemoryReservation",
    "memory-swap": "MemorySwap",
    "pids-limit": "PidsLimit",
}


def _update(session: Session) -> int:
    flags = session.flags
    if not flags.any_changed():
        raise CliError("you must provide one or more flags when using this command")
    body = {key: flags[name] for name, key in _LIMITS.items() if flags.changed(name)}
    if flags.changed("restart"):
        try:
            body["RestartPolicy"] = restart_policy(flags["restart"])
        except ValueError as error:
            raise CliError(str(error)) from None
    from corral.cli.command import error_line

    def update(name: str) -> None:
        answer = session.client.post(f"/containers/{name}/update", body=body)
        for warning in (answer or {}).get("Warnings") or ():
            error_line(warning)

    return session.each(session.arguments, update)


UPDATE = Command(
    _update,
    "Change limits and restart policy of containers, running or not",
    "[OPTIONS] CONTAINER [CONTAINER...]",
    (
        *(flag for flag in CREATE_FLAGS if flag.name in _LIMITS),
        Flag("restart", "", "string", "When to start it again: no, on-failure[:N], always or unless-stopped"),
    ),
    least=1,
    most=None,
    aliases="container update, update",
    examples=("update -m 1g --cpus 2 web",),
)
