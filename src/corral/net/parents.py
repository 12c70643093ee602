"""macvlan and ipvlan networks: which options they understand and what their parent interface is.  Pure."""

from __future__ import annotations

from dataclasses import dataclass

from corral import errors
from corral.net.model import InvalidNetwork, NetworkRecord, NetworkRefused, NetworkSpec

DRIVERS = ("macvlan", "ipvlan")
PARENT = "parent"
MODES = {
    "macvlan": {"private": 1, "vepa": 2, "bridge": 4, "passthru": 8},
    "ipvlan": {"l2": 0, "l3": 1, "l3s": 2},
}
FLAGS = {"bridge": 0, "private": 1, "vepa": 2}  # of ipvlan
_DEFAULTS = {"macvlan": "bridge", "ipvlan": "l2"}


class DriverMissing(errors.Unsupported):
    """The kernel has no such links."""

    def __init__(self, driver: str) -> None:
        super().__init__(f"cannot create network: this kernel has no {driver} interfaces")


class ParentInUse(NetworkRefused):
    """An interface is the parent of one network."""

    def __init__(self, record: NetworkRecord) -> None:
        super().__init__(f"network dm-{record.id[:12]} is already using parent interface {record.parent}")


@dataclass(frozen=True, slots=True)
class Vlan:
    """A sub-interface to be made: `eth0.50` is VLAN 50 of eth0."""

    parent: str
    number: int


def mode(driver: str, options: dict[str, str]) -> str:
    """The mode that a network's options say; InvalidNetwork."""
    default = _DEFAULTS[driver]
    found = options.get(f"{driver}_mode") or default
    if found not in MODES[driver]:
        raise InvalidNetwork(
            f"requested {driver} mode '{found}' is not valid, '{default}' mode is the {driver} driver default"
        )
    return found


def check(spec: NetworkSpec) -> None:
    """Refuse options that can never work; InvalidNetwork."""
    mode(spec.driver, spec.options)
    flag = spec.options.get("ipvlan_flag", "")
    if spec.driver == "ipvlan" and flag and flag not in FLAGS:
        raise InvalidNetwork(f"requested ipvlan flag '{flag}' is not valid, 'bridge' is the ipvlan driver default")
    parent = spec.options.get(PARENT, "")
    if parent == "lo":
        raise InvalidNetwork(f"loopback interface is not a valid {spec.driver} parent link")
    if len(parent) > 15 or "/" in parent or not parent.isprintable() or " " in parent:
        raise InvalidNetwork(f"invalid parent interface name: {parent}")


def vlan(name: str) -> Vlan:
    """What the name of an interface that does not exist asks for; InvalidNetwork."""
    parts = name.split(".")
    if len(parts) == 1:
        raise InvalidNetwork(f"invalid subinterface vlan name {name}, example formatting is eth0.10")
    if len(parts) != 2 or not parts[0]:
        raise InvalidNetwork(
            f"required interface name format is: name.vlan_id, ex. eth0.10 for vlan 10, instead received {name}"
        )
    if not (parts[1].isascii() and parts[1].isdecimal()):
        raise InvalidNetwork(f"unable to parse a valid vlan id from: {parts[1]} (ex. eth0.10 for vlan 10)")
    number = int(parts[1])
    if not 1 <= number <= 4094:
        raise InvalidNetwork(f"vlan id must be between 1-4094, received: {number}")
    return Vlan(parts[0], number)


def is_own(record: NetworkRecord) -> bool:
    """Whether the parent was made for a network that named none."""
    return record.parent == f"dm-{record.id[:12]}"


def on_link(record: NetworkRecord) -> bool:
    """Whether containers send everything straight to the interface: the layer 3 modes know no gateway."""
    return record.driver == "ipvlan" and mode("ipvlan", record.options) != "l2"
