"""The networks there are, in memory and in table `network`, with the addresses that are taken in each.

Used by one thread.
"""

from __future__ import annotations

import os
import sqlite3
import time
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import msgspec

from corral.net import addresses, drivers, ipam, parents, templates
from corral.net.model import (
    AmbiguousNetwork,
    EndpointRequest,
    InvalidNetwork,
    NetworkNameTaken,
    NetworkRecord,
    NetworkSettings,
    NetworkSpec,
    NoSuchNetwork,
    PoolRecord,
)
from corral.store.db import Database


def new_id() -> str:
    """64 random hexadecimal digits."""
    return os.urandom(32).hex()


def now() -> str:
    """This moment as RFC 3339 with nanoseconds, UTC."""
    seconds, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{nanoseconds:09d}Z"


class Registry:
    """Networks by id and by name, and their pools."""

    def __init__(self, db: Database, settings: NetworkSettings) -> None:
        self._db = db
        self._settings = settings
        self._records: dict[str, NetworkRecord] = {}
        self._by_name: dict[str, str] = {}
        self._pools: dict[str, list[ipam.Pool]] = {}

    def load(self, foreign: list[drivers.Network], present: str) -> None:
        """Read the table and make sure that the predefined networks exist.

        `present` is the address that the default bridge's interface already has, "" when there is none.
        """
        for (blob,) in self._db.read("SELECT record FROM network"):
            self._keep(msgspec.json.decode(blob, type=NetworkRecord))
        for name, driver in (("host", "host"), ("none", "null")):
            if name not in self._by_name:
                self._save(NetworkRecord(new_id(), name, driver, now(), ipam_driver="default"))
        self._ensure_default(foreign, present)

    def _ensure_default(self, foreign: list[drivers.Network], present: str) -> None:
        """The network `bridge` as the settings want it now; its id stays."""
        settings = self._settings
        old = self._records.get(self._by_name.get("bridge", ""))
        if settings.bridge == "none":
            if old is not None:
                self.forget(old)
            return
        known = old is not None and old.bridge == settings.bridge
        adopted = bool(present) and (old.foreign_bridge if known and old is not None else True)
        if adopted and not settings.bip:
            settings = replace(settings, bip=present)  # an administrator's bridge is used as it is
        spec = NetworkSpec(
            "bridge",
            ipv6=settings.ipv6,
            pools=_default_pools(settings),
            options={
                "com.docker.network.bridge.default_bridge": "true",
                "com.docker.network.bridge.enable_icc": str(settings.icc).lower(),
                "com.docker.network.bridge.enable_ip_masquerade": str(settings.ip_masq).lower(),
                "com.docker.network.bridge.host_binding_ipv4": settings.default_host_ip or "0.0.0.0",
                "com.docker.network.bridge.name": settings.bridge,
                "com.docker.network.driver.mtu": str(settings.mtu),
            },
        )
        if old is not None and not settings.bip and old.bridge == settings.bridge and old.ipv6 == settings.ipv6:
            pools = old.pools  # the subnet that was chosen once, so that running containers keep their addresses
        else:
            others = [ip_network(p.subnet) for r in self._records.values() if r is not old for p in r.pools]
            pools = drivers.choose_pools(spec, settings.pools, others, foreign, os.urandom(8))
        record = NetworkRecord(
            old.id if old else new_id(),
            "bridge",
            "bridge",
            old.created if old else now(),
            ipv6=settings.ipv6,
            pools=pools,
            options=spec.options,
            bridge=settings.bridge,
            default=True,
            foreign_bridge=adopted,
        )
        if record != old:
            if old is not None:
                self.forget(old)
            self._save(record)

    def all(self) -> list[NetworkRecord]:
        """Every network."""
        return list(self._records.values())

    def find(self, network_id: str) -> NetworkRecord | None:
        """By full id only."""
        return self._records.get(network_id)

    def get(self, ref: str) -> NetworkRecord:
        """By full id, then name, then a prefix of the id that fits one only; NoSuchNetwork, AmbiguousNetwork."""
        ref = "bridge" if ref == "default" else ref
        found = self._records.get(ref) or self._records.get(self._by_name.get(ref, ""))
        if found is not None:
            return found
        fitting = [record for record in self._records.values() if ref and record.id.startswith(ref)]
        if not fitting:
            raise NoSuchNetwork(ref)
        if len(fitting) > 1:
            raise AmbiguousNetwork(ref, len(fitting))
        return fitting[0]

    def plan(self, spec: NetworkSpec, foreign: list[drivers.Network]) -> NetworkRecord:
        """The record that `spec` would become; nothing is kept yet."""
        drivers.check_spec(spec)
        if spec.name in self._by_name:
            raise NetworkNameTaken(spec.name)
        if spec.config_only:
            return msgspec.structs.replace(_record(spec, spec.pools), driver="null", config_only=True)
        if spec.config_from:
            spec = templates.filled(spec, self._template(spec.config_from))
            drivers.check_spec(spec)
        live = [record for record in self._records.values() if not record.config_only]
        used = [ip_network(pool.subnet) for record in live for pool in record.pools]
        pools = drivers.choose_pools(spec, self._settings.pools, used, foreign, os.urandom(8))
        planned = _record(spec, pools)
        bridge = parent = ""
        if spec.driver == "bridge":
            bridge = spec.options.get(drivers.BRIDGE_NAME) or f"br-{planned.id[:12]}"
            if any(record.bridge == bridge for record in self._records.values()):
                raise InvalidNetwork(f"networks have same bridge name: {bridge}")
        else:
            parent = spec.options.get(parents.PARENT) or f"dm-{planned.id[:12]}"
            for other in self._records.values():
                if other.parent == parent:
                    raise parents.ParentInUse(other)
        internal = spec.internal or (bool(parent) and not spec.options.get(parents.PARENT))
        return msgspec.structs.replace(planned, internal=internal, bridge=bridge, parent=parent)

    def _template(self, name: str) -> NetworkRecord:
        found = self._records.get(self._by_name.get(name, ""))
        if found is None or not found.config_only:
            raise templates.TemplateMissing(name)
        return found

    def add(self, record: NetworkRecord) -> None:
        """Keep a planned network."""
        try:
            self._save(record)
        except sqlite3.IntegrityError as error:
            raise NetworkNameTaken(record.name) from error

    def forget(self, record: NetworkRecord) -> None:
        """Remove a network."""
        self._db.submit(("DELETE FROM network WHERE id = ?", (record.id,))).result()
        del self._records[record.id], self._by_name[record.name], self._pools[record.id]

    def _save(self, record: NetworkRecord) -> None:
        row = (record.id, record.name, msgspec.json.encode(record))
        self._db.submit(("INSERT INTO network (id, name, record) VALUES (?, ?, ?)", row)).result()
        self._keep(record)

    def _keep(self, record: NetworkRecord) -> None:
        self._records[record.id] = record
        self._by_name[record.name] = record.id
        self._pools[record.id] = [ipam.Pool(pool) for pool in record.pools]

    def allocate(self, record: NetworkRecord, request: EndpointRequest) -> tuple[str, str]:
        """Take the addresses (IPv4, IPv6; "" where the network has no such family) that a request asks for or any."""
        taken: list[str] = []
        try:
            for family, wanted in ((4, request.ipv4), (6, request.ipv6)):
                taken.append(self._allocate_one(record, family, wanted))
        except BaseException:
            self.release(record.id, *taken)
            raise
        return taken[0], taken[1]

    def _allocate_one(self, record: NetworkRecord, family: int, wanted: str | None) -> str:
        pools = [pool for pool in self._pools[record.id] if pool.subnet.version == family]
        if wanted:
            address = parse_address(wanted, family)
            for pool in pools:
                if address in pool:
                    pool.take(address)
                    return str(address)
            raise ipam.AddressOutsidePool(wanted)
        for pool in pools:
            found = pool.take_next()
            if found is not None:
                return str(found)
        if pools:
            raise ipam.NoAddressLeft(family, record.name, record.id)
        return ""

    def retake(self, network_id: str, *addresses: str) -> None:
        """Take addresses that a live container has; already taken ones are its own."""
        for text in filter(None, addresses):
            address = ip_address(text)
            for pool in self._pools.get(network_id, ()):
                if address in pool:
                    try:
                        pool.take(address)
                    except ipam.AddressInUse:
                        continue

    def release(self, network_id: str, *addresses: str) -> None:
        """Give addresses back."""
        for text in filter(None, addresses):
            address = ip_address(text)
            for pool in self._pools.get(network_id, ()):
                if address in pool:
                    pool.release(address)

    def usage(self, record: NetworkRecord) -> dict[str, tuple[int, int]]:
        """By subnet: addresses in use or reserved, and addresses that can be given out."""
        return {str(pool.subnet): pool.usage() for pool in self._pools[record.id]}

    @staticmethod
    def pool_of(record: NetworkRecord, address: str) -> PoolRecord:
        """The pool that contains one of the network's addresses."""
        return next(pool for pool in record.pools if ip_address(address) in ip_network(pool.subnet))


def _record(spec: NetworkSpec, pools: tuple[PoolRecord, ...]) -> NetworkRecord:
    return NetworkRecord(
        new_id(),
        spec.name,
        spec.driver,
        now(),
        internal=spec.internal,
        attachable=spec.attachable,
        ipv4=spec.ipv4,
        ipv6=spec.ipv6,
        pools=pools,
        ipam_driver=spec.ipam_driver,
        ipam_options=spec.ipam_options,
        options=spec.options,
        labels=spec.labels,
        config_from=spec.config_from,
    )


def parse_address(text: str, family: int) -> IPv4Address | IPv6Address:
    """An address of this family; InvalidNetwork."""
    try:
        address = addresses.address(text)
    except ValueError:
        address = None
    if address is None or address.version != family:
        raise InvalidNetwork(f"invalid IPv{family} address: {text}")
    return address


def _default_pools(settings: NetworkSettings) -> tuple[PoolRecord, ...]:
    pools: list[PoolRecord] = []
    # The bridge has its own address; containers may be sent elsewhere, which Docker writes as an auxiliary address.
    auxiliary = {"DefaultGatewayIPv4": settings.default_gateway} if settings.default_gateway else {}
    if settings.bip:
        address, _, length = settings.bip.partition("/")
        try:
            subnet = ip_network(f"{address}/{length or 32}", strict=False)
        except ValueError as error:
            raise InvalidNetwork(f"invalid --bip {settings.bip}: {error}") from error
        pools.append(PoolRecord(str(subnet), settings.fixed_cidr, address, auxiliary))
    elif settings.fixed_cidr:
        pools.append(PoolRecord(settings.fixed_cidr, "", "", auxiliary))
    if settings.ipv6 and settings.fixed_cidr_v6:
        pools.append(PoolRecord(settings.fixed_cidr_v6))
    return tuple(pools)
