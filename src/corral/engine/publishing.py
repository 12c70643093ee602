"""`PortAdd` and `PortRemove` of an update: published ports of a container that exists, running or not.

What a container publishes is its `HostConfig.PortBindings`, which the next start reads; of a running one the network
side changes its sockets and its elements in the packet filter in one transaction.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

from corral.engine import devices
from corral.engine.context import Engine
from corral.engine.live import Live
from corral.engine.record import Container
from corral.errors import Conflict, InvalidParameter, NotFound
from corral.net import ports
from corral.net.model import PortBinding
from corral.wire.containers import PortBinding as HostSide
from corral.wire.containers import UpdateRequest

Bindings = dict[str, list[HostSide]]  # by the container's port, `80/tcp`


class NotPublished(NotFound):
    """No published port is meant by what was said."""

    def __init__(self, text: str, container: str) -> None:
        super().__init__(f"No public port '{text}' published for {container}")


class AlreadyPublished(Conflict):
    """The very same binding is there."""

    def __init__(self, binding: PortBinding, container: str) -> None:
        super().__init__(f"port {describe(binding)} is already published for {container}")


class NoPortsOfItsOwn(Conflict):
    """The container uses the network of the host or of another container."""


class BadPortReference(InvalidParameter):
    """What `PortRemove` says is no host port."""

    def __init__(self, text: str) -> None:
        super().__init__(f"invalid port specification: '{text}': it must be [ADDRESS:]PORT[-PORT][/PROTOCOL]")


@dataclass(frozen=True, slots=True)
class Reference:
    """Host ports of a protocol, at one address or ("") at any."""

    host_ip: str
    first: int
    last: int
    proto: str

    def fits(self, binding: PortBinding) -> bool:
        """Whether a binding's host side is meant."""
        address = binding.host_ip
        return (
            self.proto == binding.proto
            and self.first <= binding.host_port <= self.last
            and (not self.host_ip or self.host_ip == address or (self.host_ip == "0.0.0.0" and not address))
        )


def parse_reference(text: str) -> Reference:
    """`8080`, `8000-8010/udp`, `127.0.0.1:8080`, `[::1]:8080`; raises BadPortReference."""
    address, _, rest = text.rpartition(":")
    numbers, slash, proto = rest.partition("/")
    first, dash, last = numbers.partition("-")
    if (
        not text.isascii()
        or not (first.isdecimal() and (last.isdecimal() or not dash))
        or (slash and proto not in ports.PROTOCOLS)
    ):
        raise BadPortReference(text)
    low, high = int(first), int(last or first)
    try:
        checked = ports.check(PortBinding(proto or "tcp", 1, address.strip("[]"), low, high))
    except ports.InvalidPort as error:
        raise BadPortReference(text) from error
    if not low:
        raise BadPortReference(text)
    return Reference(checked.host_ip, low, high, checked.proto)


def describe(binding: PortBinding) -> str:
    """`8080:80/tcp`, with the address and the range where there is one."""
    host = str(binding.host_port or "")
    if binding.host_port_end > binding.host_port:
        host += f"-{binding.host_port_end}"
    address = f"[{binding.host_ip}]" if ":" in binding.host_ip else binding.host_ip
    return f"{address}:{host}:{binding.container_port}/{binding.proto}".removeprefix(":").removeprefix(":")


def removal(record: Container, references: list[str]) -> tuple[Bindings, list[PortBinding]]:
    """The bindings without what is meant, and which held ports (as `record.ports` has them) go; NotPublished.

    A port that the machine chose is found by the number it has now, and the request it came from goes with it.
    """
    bindings = _canonical(record)
    held = dict.fromkeys(ports.collapse(record.ports) if record.ports else _as_asked(bindings))
    gone: list[PortBinding] = []
    for text in references:
        reference = parse_reference(text)
        fitting = [binding for binding in held if reference.fits(binding)]
        if not fitting:
            raise NotPublished(text, record.name)
        for binding in fitting:
            del held[binding]
            _drop_request(bindings.get(f"{binding.container_port}/{binding.proto}", []), binding)
        gone += fitting
    return {key: hosts for key, hosts in bindings.items() if hosts}, gone


def _canonical(record: Container) -> Bindings:
    """The bindings under keys that always name the protocol, with those that `-P` stands for written out."""
    bindings: Bindings = {}
    for key, hosts in (record.host.port_bindings or {}).items():
        number, proto = devices.parse_port(key)
        bindings.setdefault(f"{number}/{proto}", []).extend(hosts or ())
    if record.host.publish_all_ports:
        for key in record.config.exposed_ports or {}:
            number, proto = devices.parse_port(key)
            if not bindings.get(f"{number}/{proto}"):
                bindings[f"{number}/{proto}"] = [HostSide()]
    return bindings


def _as_asked(bindings: Bindings) -> list[PortBinding]:
    return [binding for key, hosts in bindings.items() for binding in devices.ports_of(key, hosts)]


def _drop_request(hosts: list[HostSide], gone: PortBinding) -> None:
    """Take away the request that a port came from: the exact one, else a range around it, else any port at all."""
    ranked = sorted((_distance(devices.ports_of("1", [host])[0], gone), place) for place, host in enumerate(hosts))
    if ranked and ranked[0][0] < _FAR:
        del hosts[ranked[0][1]]


_FAR = 9


def _distance(asked: PortBinding, gone: PortBinding) -> int:
    if asked.host_ip not in ("", "0.0.0.0", gone.host_ip):
        return _FAR
    if asked.host_port == gone.host_port and asked.host_port_end in (0, gone.host_port, gone.host_port_end):
        return 0 if asked.host_ip == gone.host_ip else 1
    if asked.host_port <= gone.host_port <= asked.host_port_end:
        return 2
    return _FAR if asked.host_port else 3


def addition(
    record: Container, bindings: Bindings, wanted: dict[str, list[HostSide] | None]
) -> tuple[Bindings, list[PortBinding]]:
    """`bindings` with the `wanted` ones, and these in the network side's terms; AlreadyPublished."""
    result: Bindings = {key: list(hosts) for key, hosts in bindings.items()}
    there = set(_as_asked(result))
    new: list[PortBinding] = []
    for key, hosts in wanted.items():
        number, proto = devices.parse_port(key)
        for host in hosts or [HostSide()]:
            binding = ports.check(devices.ports_of(key, [host])[0])
            if binding.host_port and binding in there:
                raise AlreadyPublished(binding, record.name)
            there.add(binding)
            new.append(binding)
            result.setdefault(f"{number}/{proto}", []).append(host)
    return result, new


async def change(engine: Engine, live: Live, wanted: UpdateRequest, undo: contextlib.AsyncExitStack) -> None:
    """Carry out a request's changes of ports, under the container's lock; the caller saves the record and publishes."""
    if not wanted.port_add and not wanted.port_remove:
        return
    record, host = live.record, live.record.host
    mode = host.network_mode
    if mode == "host" or mode.startswith("container:"):
        raise NoPortsOfItsOwn(f"cannot change ports of container {record.name}: it uses the network of another")
    bindings, gone = removal(record, wanted.port_remove or [])
    bindings, new = addition(record, bindings, wanted.port_add or {})
    before = (host.port_bindings, host.publish_all_ports, record.ports)
    wanted_before = devices.wanted_ports(record)
    host.port_bindings, host.publish_all_ports = bindings, False

    def restore() -> None:
        host.port_bindings, host.publish_all_ports, record.ports = before

    undo.callback(restore)
    if live.has_process:
        wanted_now = devices.wanted_ports(record)
        record.ports = list(await engine.networks.change_ports(record.id, new, gone, wanted_now))
        held = set(ports.collapse(before[2]))
        came = [binding for binding in ports.collapse(record.ports) if binding not in held]
        undo.push_async_callback(engine.networks.change_ports, record.id, gone, came, wanted_before)


def publish_events(engine: Engine, live: Live, wanted: UpdateRequest) -> None:
    """Tell which ports came and went."""
    if wanted.port_remove:
        engine.publish(live, "port_rm", ports=",".join(wanted.port_remove))
    if wanted.port_add:
        asked = _as_asked({port: hosts or [HostSide()] for port, hosts in wanted.port_add.items()})
        engine.publish(live, "port_add", ports=",".join(map(describe, asked)))
