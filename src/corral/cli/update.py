"""`corral update`."""

from __future__ import annotations

from corral.cli.command import Command, Session
from corral.cli.flags import Flag
from corral.cli.problems import CliError
from corral.cli.runbody import restart_options, restart_policy
from corral.cli.runflags import CREATE_FLAGS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

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
            if options := restart_options(flags["restart"]):
                body["RestartOptions"] = options
        except ValueError as error:
            raise CliError(str(error)) from None
    body |= _edits(session)
    if flags["egress"]:
        body["Egress"] = flags["egress"]
    from corral.cli.command import error_line

    def update(name: str) -> None:
        answer = session.client.post(f"/containers/{name}/update", body=body)
        for warning in (answer or {}).get("Warnings") or ():
            error_line(warning)

    return session.each(session.arguments, update)


def _edits(session: Session) -> dict[str, Any]:
    """Changes of environment and labels."""
    flags = session.flags
    found: dict[str, Any] = {}
    for name, key in (("env-add", "EnvAdd"), ("env-rm", "EnvRemove"), ("label-rm", "LabelRemove")):
        if flags[name]:
            found[key] = flags[name]
    if flags["label-add"]:
        found["LabelAdd"] = {name: value for name, _, value in (item.partition("=") for item in flags["label-add"])}
    return found


UPDATE = Command(
    _update,
    "Change limits, restart policy, environment and labels of containers, running or not",
    "[OPTIONS] CONTAINER [CONTAINER...]",
    (
        *(flag for flag in CREATE_FLAGS if flag.name in _LIMITS),
        Flag("restart", "", "string", "When to start it again: no, on-failure[:N], always or unless-stopped"),
        Flag("egress", "", "list", "Limit where it may send to from now on, as for run; any lifts the list"),
        Flag("env-add", "", "list", "Set a variable (NAME=VALUE), from the next start on"),
        Flag("env-rm", "", "list", "Remove a variable, from the next start on"),
        Flag("label-add", "", "list", "Set a label (NAME=VALUE)"),
        Flag("label-rm", "", "list", "Remove a label"),
    ),
    least=1,
    most=None,
    aliases="container update, update",
    examples=("update -m 1g --cpus 2 web",),
)
