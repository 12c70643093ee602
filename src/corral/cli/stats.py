"""`corral stats`: what containers use, drawn anew every second."""

from __future__ import annotations

import sys
import threading

from corral.cli import table
from corral.cli.command import Command, Session, error_line
from corral.cli.flags import Flag
from corral.cli.listing import CONTEXT, FORMAT, SHORT_ID, columns, configured_format
from corral.cli.problems import CliError, DaemonError
from corral.cli.units import binary_size, human_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from corral.cli.endpoint import Endpoint
    from corral.cli.transport import Response

_COLUMNS = ("ID", "Name", "CPUPerc", "MemUsage", "MemPerc", "NetIO", "BlockIO", "PIDs")
_TITLES = {
    "Container": "CONTAINER", "ID": "CONTAINER ID", "Name": "NAME", "CPUPerc": "CPU %",
    "MemUsage": "MEM USAGE / LIMIT", "MemPerc": "MEM %", "NetIO": "NET I/O", "BlockIO": "BLOCK I/O", "PIDs": "PIDS",
    "Context": "CONTEXT",
}  # fmt: skip
_CLEAR = "\x1b[H\x1b[J"
_INTERVAL_S = 0.5


class Target:
    """A container to watch: its daemon, the field that says which daemon that is, and its name or id there."""

    __slots__ = ("endpoint", "name", "where")

    def __init__(self, endpoint: Endpoint, name: str, where: Mapping[str, str]) -> None:
        self.endpoint = endpoint
        self.name = name
        self.where = where

    def request(self, stream: bool) -> Response:
        """Ask, on a connection of its own."""
        from corral.cli.transport import Client

        return Client(self.endpoint).request("GET", f"/containers/{self.name}/stats", {"stream": stream})

    def row(self, record: Mapping[str, Any], full: bool) -> dict[str, Any]:
        """What the table shows of a record."""
        return {**self.where, **row(self.name, record, full)}


def _stats(session: Session) -> int:
    flags = session.flags
    if session.arguments and not session.is_everywhere:
        endpoint, status = session.globals.endpoint(), 0
        targets = [Target(endpoint, name, {}) for name in session.arguments]
    else:
        targets, status = _found(session)
    format_ = configured_format(session, "statsFormat")
    show = _once if flags["no-stream"] else _live
    return show(session, targets, format_) or status


def _found(session: Session) -> tuple[list[Target], int]:
    """The running containers of every daemon in question; of those only the ones that are named, if any are."""
    names = session.arguments
    query = {"all": session.flags["all"] or bool(names) or None}
    answers, status = session.everywhere(lambda client: (client.endpoint, client.get("/containers/json", query)))
    targets, missing = [], set(names)
    for where, (endpoint, found) in answers:
        for one in found:
            known = [name for name in names if f"/{name}" in one["Names"] or one["Id"].startswith(name)]
            missing -= set(known)
            if known or not names:
                targets.append(Target(endpoint, str(one["Id"])[:SHORT_ID], where))
    for name in sorted(missing):
        error_line(f"Error: No such container: {name}")
    return targets, 1 if missing else status


def _once(session: Session, targets: list[Target], format_: str) -> int:
    """Every container at the same time: the daemon takes a second for each, as the CPU is a difference."""
    found: dict[Target, Mapping[str, Any]] = {}
    problems: list[str] = []

    def fetch(target: Target) -> None:
        try:
            found[target] = target.request(stream=False).json()
        except CliError as error:
            problems.append(str(error))

    threads = [threading.Thread(target=fetch, args=(target,)) for target in targets]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rows = [target.row(found[target], session.flags["no-trunc"]) for target in targets if target in found]
    if rows or not problems:
        table.show(rows, columns(session, _COLUMNS), _TITLES, format_)
    for problem in problems:
        error_line(problem)
    return 1 if problems else 0


def _live(session: Session, targets: list[Target], format_: str) -> int:
    latest: dict[Target, Mapping[str, Any]] = {}
    problems: list[str] = []
    changed = threading.Event()

    def follow(target: Target) -> None:
        try:
            for record in target.request(stream=True).records():
                latest[target] = record
                changed.set()
        except CliError as error:
            if isinstance(error, DaemonError):
                problems.append(str(error))
        latest.pop(target, None)
        changed.set()

    threads = [threading.Thread(target=follow, args=(target,), daemon=True) for target in targets]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        changed.wait()
        changed.clear()
        now = dict(latest)
        rows = [target.row(now[target], session.flags["no-trunc"]) for target in targets if target in now]
        if sys.stdout.isatty():
            sys.stdout.write(_CLEAR)
        table.show(rows, columns(session, _COLUMNS), _TITLES, format_)
        sys.stdout.flush()
        _pause(threads)
    if problems:
        raise CliError("\n".join(problems))
    return 0


def _pause(threads: list[threading.Thread]) -> None:
    """Half a second, less if everything has ended: many containers report at about the same moment."""
    for thread in threads:
        if thread.is_alive():
            thread.join(_INTERVAL_S)
            return


def row(name: str, one: Mapping[str, Any], full: bool) -> dict[str, Any]:
    """The fields of a container's record."""
    memory = one.get("memory_stats") or {}
    used, limit = memory_bytes(memory), float(memory.get("limit") or 0)
    received, sent = network_bytes(one)
    read, written = block_bytes(one)
    identity = str(one.get("id") or "")
    return {
        "Container": name,
        "ID": identity if full else identity[:SHORT_ID],
        "Name": str(one.get("name") or "").removeprefix("/"),
        "CPUPerc": f"{cpu_percent(one):.2f}%",
        "MemUsage": f"{binary_size(used)} / {binary_size(limit)}",
        "MemPerc": f"{used / limit * 100 if limit else 0:.2f}%",
        "NetIO": f"{human_size(received, 3)} / {human_size(sent, 3)}",
        "BlockIO": f"{human_size(read, 3)} / {human_size(written, 3)}",
        "PIDs": str((one.get("pids_stats") or {}).get("current") or 0),
    }


def memory_bytes(memory: Mapping[str, Any]) -> float:
    """Usage without the page cache that can be dropped: cgroup v1 and v2 name it differently."""
    used, detail = float(memory.get("usage") or 0), memory.get("stats") or {}
    for name in ("total_inactive_file", "inactive_file"):
        cache = detail.get(name)
        if cache is not None and cache < used:
            return used - float(cache)
    return used


def cpu_percent(one: Mapping[str, Any]) -> float:
    """CPU time in percent of one CPU, between this record and the one before."""
    now, before = one.get("cpu_stats") or {}, one.get("precpu_stats") or {}
    used = _at(now, "cpu_usage", "total_usage") - _at(before, "cpu_usage", "total_usage")
    passed = float(now.get("system_cpu_usage") or 0) - float(before.get("system_cpu_usage") or 0)
    cpus = float(now.get("online_cpus") or len((now.get("cpu_usage") or {}).get("percpu_usage") or ()))
    return used / passed * cpus * 100 if used > 0 and passed > 0 else 0.0


def _at(record: Mapping[str, Any], first: str, second: str) -> float:
    return float((record.get(first) or {}).get(second) or 0)


def network_bytes(one: Mapping[str, Any]) -> tuple[float, float]:
    """Received and sent, since the container began."""
    links = (one.get("networks") or {}).values()
    return sum(float(each["rx_bytes"]) for each in links), sum(float(each["tx_bytes"]) for each in links)


def block_bytes(one: Mapping[str, Any]) -> tuple[float, float]:
    """Read and written, since the container began."""
    read = written = 0.0
    for entry in (one.get("blkio_stats") or {}).get("io_service_bytes_recursive") or ():
        if entry["op"][:1].lower() == "r":
            read += entry["value"]
        elif entry["op"][:1].lower() == "w":
            written += entry["value"]
    return read, written


STATS = Command(
    _stats,
    "Show what containers use, live",
    "[OPTIONS] [CONTAINER...]",
    (
        Flag("all", "a", "bool", "Show those that do not run, too"),
        CONTEXT,
        FORMAT,
        Flag("no-stream", "", "bool", "Show it once and end"),
        Flag("no-trunc", "", "bool", "Show ids in full"),
    ),
    most=None,
    aliases="container stats, stats",
)
