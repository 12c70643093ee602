"""Networks, volumes and the vault's items, as list and inspect show them."""

from __future__ import annotations

from msgspec import field

from corral.wire.shown.base import Shown


class Pool(Shown, frozen=True):
    """One subnet of a network."""

    subnet: str = ""
    ip_range: str = ""
    gateway: str = ""


class AddressManagement(Shown, frozen=True):
    """Who gives the addresses, and which there are."""

    driver: str = ""
    config: tuple[Pool, ...] = ()


class Member(Shown, frozen=True):
    """A container in a network."""

    name: str = ""
    endpoint_id: str = ""
    mac_address: str = ""
    ipv4_address: str = ""
    ipv6_address: str = ""


class NetworkInfo(Shown, frozen=True):
    """One network; `containers` by id, only when it is looked at alone."""

    name: str = ""
    id: str = ""
    created: str = ""
    scope: str = ""
    driver: str = ""
    enable_ipv6: bool = False
    ipam: AddressManagement = field(default_factory=AddressManagement)
    internal: bool = False
    attachable: bool = False
    options: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    containers: dict[str, Member] = field(default_factory=dict)


class VolumeInfo(Shown, frozen=True):
    """One volume."""

    name: str = ""
    driver: str = ""
    mountpoint: str = ""
    scope: str = ""
    created_at: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    options: dict[str, str] = field(default_factory=dict)


class VolumeList(Shown, frozen=True):
    """What a list of volumes answers."""

    volumes: tuple[VolumeInfo, ...] = ()
    warnings: tuple[str, ...] = ()


class VaultItem(Shown, frozen=True):
    """A secret or config, without its content; `containers` were told of an update."""

    id: str = field(default="", name="ID")
    name: str = ""
    kind: str = "secret"
    labels: dict[str, str] = field(default_factory=dict)
    created_at: str = ""
    updated_at: str = ""


class Pruned(Shown, frozen=True):
    """What a prune has freed, by kind of object."""

    containers_deleted: tuple[str, ...] = ()
    networks_deleted: tuple[str, ...] = ()
    volumes_deleted: tuple[str, ...] = ()
    space_reclaimed: int = 0
