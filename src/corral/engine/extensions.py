"""What containers can be told beyond Docker's API: restart timing, and what has to be there before they start.  Pure.

Each can be said in the create body (fields that Docker does not have), or by a label, so that any Docker client can.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from corral.errors import InvalidParameter
from corral.quantities import duration_ns
from corral.wire.containers import HostConfig, RestartOptions

RESTART_LABEL = "corral.restart"
RATE_LABEL = "corral.net-rate"
EGRESS_LABEL = "corral.egress"
_RATE_UNITS = {"k": 10**3, "m": 10**6, "g": 10**9}
DEPENDS_LABEL = "corral.depends-on"
_COMPOSE_DEPENDS = "com.docker.compose.depends_on"
_COMPOSE_PROJECT = "com.docker.compose.project"
_COMPOSE_SERVICE = "com.docker.compose.service"
_CONDITIONS = ("started", "healthy", "completed")
_COMPOSE_CONDITIONS = {
    "service_started": "started",
    "service_healthy": "healthy",
    "service_completed_successfully": "completed",
}


class BadExtension(InvalidParameter):
    """A label or field of ours that cannot be read."""


@dataclass(frozen=True, slots=True)
class Dependency:
    """A container that comes first: by `name`, or a Compose `service` of the same project."""

    condition: str
    name: str = ""
    project: str = ""
    service: str = ""


def apply_labels(host: HostConfig, labels: Mapping[str, str]) -> None:
    """Turn our labels into fields, unless the fields are there; check both.  Raises BadExtension."""
    if host.restart_options is None and labels.get(RESTART_LABEL):
        host.restart_options = parse_restart(labels[RESTART_LABEL])
    if host.depends_on is None and labels.get(DEPENDS_LABEL):
        host.depends_on = [item.strip() for item in labels[DEPENDS_LABEL].split(",") if item.strip()]
    if not host.net_rate:
        host.net_rate = labels.get(RATE_LABEL, "")
    if host.egress is None and labels.get(EGRESS_LABEL):
        host.egress = [labels[EGRESS_LABEL]]
    check_rate(host)
    check_restart(host.restart_options)
    for item in host.depends_on or ():
        parse_dependency(item)


def parse_restart(text: str) -> RestartOptions:
    """`delay=1s,max-delay=60s,factor=2,reset-after=30s,on-unhealthy`; raises BadExtension."""
    found = RestartOptions()
    for item in filter(None, (part.strip() for part in text.split(","))):
        name, _, value = item.partition("=")
        try:
            if name in ("delay", "max-delay", "reset-after"):
                setattr(found, name.replace("-", "_"), duration_ns(value))
            elif name == "factor":
                found.factor = float(value)
            elif name == "on-unhealthy" and value in ("", "true", "false"):
                found.on_unhealthy = value != "false"
            else:
                raise ValueError(f"there is no option {item}")
        except ValueError as error:
            raise BadExtension(f"invalid restart options: {error}") from error
    return found


def parse_rate(text: str) -> tuple[int, int]:
    """`out=10mbit,in=50mbit` as bytes a second (in, out), 0 for any; raises BadExtension."""
    found = {"in": 0, "out": 0}
    for item in filter(None, (part.strip() for part in text.split(","))):
        name, _, value = item.partition("=")
        number = value.lower().removesuffix("bit")
        unit = _RATE_UNITS.get(number[-1:], 1)
        number = number if unit == 1 else number[:-1]
        if name not in found or value.lower() == number or not (number.isascii() and number.isdecimal()):
            raise BadExtension(f"invalid network rate {item!r}: it must be in=RATE or out=RATE, as in out=10mbit")
        if not 8_000 <= int(number) * unit <= 10**12:
            raise BadExtension(f"invalid network rate {item!r}: it must be between 8kbit and 1000gbit")
        found[name] = int(number) * unit // 8
    return found["in"], found["out"]


def check_rate(host: HostConfig) -> None:
    """Raise BadExtension unless the container's network can have such a rate."""
    if host.net_rate:
        parse_rate(host.net_rate)
        if host.network_mode == "host" or host.network_mode.startswith("container:"):
            raise BadExtension("invalid network rate: the container uses the network of another")


def check_restart(options: RestartOptions | None) -> None:
    """Raise BadExtension unless the options make sense."""
    if options is None:
        return
    if min(options.delay, options.max_delay, options.reset_after) < 0:
        raise BadExtension("invalid restart options: a time cannot be negative")
    if options.factor and not 1 <= options.factor <= 1000:
        raise BadExtension("invalid restart options: the factor must be between 1 and 1000")
    if options.max_delay and options.delay > options.max_delay:
        raise BadExtension("invalid restart options: the delay is longer than the longest delay")


def parse_dependency(text: str) -> Dependency:
    """`db`, `db:healthy`, `job:completed`; raises BadExtension."""
    name, _, condition = text.partition(":")
    if not name or (condition or "started") not in _CONDITIONS:
        raise BadExtension(f"invalid dependency {text!r}: a name and one of {', '.join(_CONDITIONS)}, as in db:healthy")
    return Dependency(condition or "started", name=name)


def dependencies(host: HostConfig, labels: Mapping[str, str]) -> list[Dependency]:
    """What comes before this container: its own list, or Compose's."""
    if host.depends_on is not None:
        return [parse_dependency(item) for item in host.depends_on]
    project, found = labels.get(_COMPOSE_PROJECT, ""), []
    for item in filter(None, labels.get(_COMPOSE_DEPENDS, "").split(",")):
        service, *rest = item.split(":")
        condition = _COMPOSE_CONDITIONS.get(rest[0] if rest else "service_started")
        if project and service and condition:
            found.append(Dependency(condition, project=project, service=service))
    return found


def is_service(labels: Mapping[str, str], wanted: Dependency) -> bool:
    """Whether labels are those of a dependency's Compose service."""
    return labels.get(_COMPOSE_PROJECT) == wanted.project and labels.get(_COMPOSE_SERVICE) == wanted.service
