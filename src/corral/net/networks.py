"""Networks: create, list and remove them; connect containers to them and publish their ports.

The asynchronous door to `core`: every operation runs on one thread of its own, which makes kernel calls without
holding up the event loop and is the only one that changes anything, so nothing needs a lock.  The event loop
itself serves the proxy and the watch on the packet filter.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address
from typing import TypeVar

from corral.errors import CorralError
from corral.net import reach, survey
from corral.net.admission import Admission
from corral.net.core import Core, Live
from corral.net.dns import Dns
from corral.net.drivers import PREDEFINED
from corral.net.listed import Resolved
from corral.net.model import (
    Attachment,
    Endpoint,
    EndpointRequest,
    NetworkRecord,
    NetworkSettings,
    NetworkSpec,
    NetworkView,
    PortBinding,
    Traffic,
)
from corral.net.nft import Nft
from corral.net.proxy import Proxy
from corral.net.publish import HeldPort
from corral.net.refusals import Refusal, Refusals
from corral.net.watch import Watch
from corral.store.db import Database

__all__ = [
    "Attachment",
    "Endpoint",
    "EndpointRequest",
    "NetworkRecord",
    "NetworkSettings",
    "NetworkSpec",
    "NetworkView",
    "Networks",
    "PortBinding",
]

_T = TypeVar("_T")

_SWEEP_AFTER_S = 1.0
_HEAL_AFTER_S = 0.1

_log = logging.getLogger(__name__)


class Networks:
    """All networks of one daemon.  `open` first; every method may raise the errors of `corral.net.model`."""

    def __init__(self, db: Database, settings: NetworkSettings) -> None:
        """Make it early, while few descriptors are open (see `Nft`); NftMissing."""
        self._db = db
        self._settings = settings
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="net")
        self._nft = Nft() if settings.packet_filter else None
        self._core: Core | None = None
        self._proxy: Proxy | None = None
        self._dns: Dns | None = None
        self._sweep: asyncio.TimerHandle | None = None
        self._sweeping: asyncio.Task[None] | None = None
        self._watch: Watch | None = None
        self._heal: asyncio.TimerHandle | None = None
        self._healing: asyncio.Task[None] | None = None
        self._damaged = False
        self._refusals: Refusals | None = None
        self._admission: Admission | None = None
        self.on_refusal: Callable[[str, Refusal], None] = lambda container_id, refusal: None

    @property
    def core(self) -> Core:
        """The opened core."""
        assert self._core is not None, "open() comes first"
        return self._core

    async def _do(self, operation: Callable[[], _T]) -> _T:
        """Run on the thread; a caller that is cancelled does not leave the thread's work half remembered."""
        future = asyncio.get_running_loop().run_in_executor(self._thread, operation)
        return await asyncio.shield(future)

    async def open(self, live: Live, egress_lists: Mapping[str, Sequence[str]] | None = None) -> None:
        """Make or repair bridges and rules; take back what `live` containers hold; remove what is of nobody.

        `live` maps container ids to (pid, endpoints, published ports as `Attachment.ports` had them), `egress_lists`
        those that have one to it.
        """
        self._core = await self._do(functools.partial(Core, self._db, self._settings, self._nft))
        if self._settings.packet_filter:
            self._watch = Watch(self._settings.table, self.core.lists.filter.table)
            self._listen()
            if self._settings.host_firewall:
                self._admit_packets()
        await self._do(functools.partial(self.core.open, live, egress_lists or {}))
        if self._watch is not None:
            self._watch.learn()
            asyncio.get_running_loop().add_reader(self._watch.fileno(), self._filter_changed)
        self._proxy, self._dns = Proxy(), Dns(self.core.directory)
        for container_id in self.core.attached:
            self._serve(container_id)

    def _listen(self) -> None:
        """Hear of what egress lists refuse."""
        try:
            self._refusals = Refusals()
        except OSError as error:
            _log.warning("there will be no log of refused egress: %s", error)
            return
        self.core.lists.filter.group = self._refusals.group
        asyncio.get_running_loop().add_reader(self._refusals.fileno(), self._refused)

    def _admit_packets(self) -> None:
        """Send on what the host's firewall has accepted."""
        try:
            self._admission = Admission()
        except OSError as error:
            _log.warning("connections to published ports will take a second to begin: %s", error)
            return
        self.core.filter.group = self._admission.group
        asyncio.get_running_loop().add_reader(self._admission.fileno(), self._admission.work)

    def _refused(self) -> None:
        assert self._refusals is not None
        for refusal in self._refusals.read():
            found = next((one for one in self.core.attached if one.startswith(refusal.key)), None)
            gate = self.core.attached[found].gate if found is not None else None
            if found is not None and gate is not None:
                name = gate.names.get(ip_address(refusal.address), "")
                self.on_refusal(found, dataclasses.replace(refusal, name=name))

    async def close(self, *, keep: bool) -> None:
        """Let go of everything; unless `keep`, also remove bridges, pairs and rules from the host."""
        if self._watch is not None:
            asyncio.get_running_loop().remove_reader(self._watch.fileno())
            self._watch.close()
        for listening in (self._refusals, self._admission):
            if listening is not None:
                asyncio.get_running_loop().remove_reader(listening.fileno())
                listening.close()
        for timer in (self._sweep, self._heal):
            if timer is not None:
                timer.cancel()
        for task in (self._sweeping, self._healing):
            if task is not None:
                await task
        if self._proxy is not None:
            self._proxy.close()
        if self._core is not None:
            for attached in self._core.attached.values():
                if attached.dns is not None and self._dns is not None:
                    self._dns.remove(attached.dns)
            await self._do(functools.partial(self._core.close, keep=keep))
        self._core = None
        self._thread.shutdown()
        if self._nft is not None:
            self._nft.close()
            self._nft = None

    async def attach(
        self,
        container_id: str,
        pid: int,
        requests: Sequence[EndpointRequest],
        ports: Sequence[PortBinding],
        *,
        hostname: str,
        name: str,
        upstream: tuple[str, ...] = (),
        egress_list: Sequence[str] = (),
    ) -> Attachment:
        """Connect the network namespace of `pid` and publish `ports`; on error nothing is left half made.

        `upstream` are the DNS servers (`--dns`) that the embedded server asks in turn; empty: those of the host.
        `egress_list` is in the words of `egress`.
        A caller that may be cancelled prepares its `detach` before, since the work here is finished regardless.
        """
        attachment = await self._do(
            lambda: self.core.attach(
                container_id,
                pid,
                requests,
                ports,
                hostname=hostname,
                name=name,
                upstream=upstream,
                egress_list=egress_list,
            )
        )
        self._serve(container_id)
        return attachment

    async def detach(self, container_id: str) -> None:
        """Give back all that a container has; fine when it has nothing or its namespace is gone."""
        attached = await self._do(functools.partial(self.core.detach, container_id))
        if attached is None:
            return
        self._drop(attached.held)
        if attached.dns is not None and self._dns is not None:
            self._dns.remove(attached.dns)
        if self._sweep is None:
            self._sweep = asyncio.get_running_loop().call_later(_SWEEP_AFTER_S, self._start_sweep)

    def _serve(self, container_id: str) -> None:
        """Serve a container's ports and names; it may have been detached meanwhile."""
        attached = self.core.attached.get(container_id)
        if attached is None or self._proxy is None or self._dns is None:
            return
        if attached.gate is not None:
            attached.gate.admit = functools.partial(self._admit, container_id)
            attached.gate.note = functools.partial(self._refused_name, container_id)
        if attached.dns is not None:
            self._dns.add(attached.dns)
        if self._settings.userland_proxy:
            for port in attached.held:
                self._proxy.add(port)

    async def _admit(self, container_id: str, wanted: Mapping[Resolved, tuple[str, int]]) -> None:
        await self._do(lambda: self.core.lists.know(container_id, wanted))

    def _refused_name(self, container_id: str, name: str) -> None:
        self.on_refusal(container_id, Refusal(container_id[:12], time.time_ns(), "dns", "", 0, name))

    def _start_sweep(self) -> None:
        self._sweep = None

        async def sweep() -> None:
            await self._do(self.core.sweep)

        self._sweeping = asyncio.get_running_loop().create_task(sweep())

    def _filter_changed(self) -> None:
        """Someone did something to the packet filter: put ours back soon; a firewall's reload is many steps."""
        assert self._watch is not None
        ours, shared = self._watch.changed()
        self._damaged = self._damaged or ours
        if (ours or shared) and self._heal is None:
            # What an egress list forbids is open as long as the rules are gone.
            delay = 0.0 if ours and self.core.lists else _HEAL_AFTER_S
            self._heal = asyncio.get_running_loop().call_later(delay, self._start_heal)

    def _start_heal(self) -> None:
        self._heal = None
        repair, self._damaged = self.core.install if self._damaged else self.core.look_around, False

        async def heal() -> None:
            try:
                await self._do(repair)
            except CorralError as error:
                _log.error("cannot restore the packet filter: %s", error)

        self._healing = asyncio.get_running_loop().create_task(heal())

    async def list(self) -> list[NetworkView]:
        """Every network with its users."""
        return await self._do(lambda: [self.core.view(record) for record in self.core.registry.all()])

    async def get(self, ref: str) -> NetworkView:
        """A network by id, name or prefix of the id; NoSuchNetwork."""
        return await self._do(lambda: self.core.view(self.core.registry.get(ref)))

    async def create(self, spec: NetworkSpec) -> NetworkRecord:
        """Create a network."""
        return await self._do(lambda: self.core.create(spec))

    async def remove(self, ref: str) -> NetworkRecord:
        """Remove a network that nobody uses."""
        return await self._do(lambda: self.core.remove(ref))

    async def prune(self, keep: Callable[[NetworkRecord], bool]) -> tuple[str, ...]:
        """Remove the networks that nobody uses and that `keep` (called on the network thread) does not protect."""

        def work() -> tuple[str, ...]:
            removed = []
            for record in self.core.registry.all():
                if record.name in PREDEFINED or record.config_only or keep(record) or self.core.view(record).endpoints:
                    continue
                removed.append(self.core.remove(record.id).name)
            return tuple(removed)

        return await self._do(work)

    async def check_request(self, request: EndpointRequest) -> None:
        """Refuse a connection that cannot be made, for a container that does not run: its next `attach` makes it."""
        await self._do(lambda: self.core.check_request(request))

    async def connect(
        self,
        container_id: str,
        pid: int,
        request: EndpointRequest,
        *,
        hostname: str,
        name: str,
        upstream: tuple[str, ...] = (),
        egress_list: Sequence[str] = (),
    ) -> Attachment:
        """Connect a running container to one more network; all that it has now."""
        attachment, dropped = await self._do(
            lambda: self.core.connect(
                container_id, pid, request, hostname=hostname, name=name, upstream=upstream, egress_list=egress_list
            )
        )
        self._drop(dropped)
        self._serve(container_id)
        return attachment

    async def disconnect(self, container_id: str, ref: str) -> Attachment:
        """Take a running container off a network; all that it has now."""
        attachment, dropped = await self._do(functools.partial(self.core.disconnect, container_id, ref))
        self._drop(dropped)
        self._serve(container_id)
        return attachment

    async def change_ports(
        self,
        container_id: str,
        added: Sequence[PortBinding],
        removed: Sequence[PortBinding],
        wanted: Sequence[PortBinding],
    ) -> tuple[PortBinding, ...]:
        """Publish and withdraw ports of a running container; all that it has now (as `Attachment.ports`).

        `removed` have the host ports they were given; `wanted` is what the container asks for from now on.
        """
        shown, dropped = await self._do(lambda: self.core.change_ports(container_id, added, removed, wanted))
        self._drop(dropped)
        self._serve(container_id)
        return shown

    async def change_egress(self, container_id: str, texts: Sequence[str]) -> Attachment | None:
        """Give a running container another egress list, or none; what it has now, None when it is on no network."""
        attachment = await self._do(lambda: self.core.change_egress(container_id, texts))
        self._serve(container_id)
        return attachment

    async def traffic(self, container_id: str) -> Traffic:
        """What a container received and sent."""
        return await self._do(lambda: self.core.traffic(container_id))

    async def all_traffic(self) -> dict[str, Traffic]:
        """The same of every container that is on a network, by id."""
        return await self._do(self.core.all_traffic)

    async def reach(
        self, proto: str, port: int, host: str, client: reach.Client
    ) -> Sequence[tuple[reach.Way, Sequence[reach.Reach]]]:
        """Who can reach a port of the host, for each container's that is published as it; none: it is not."""

        def work() -> Sequence[tuple[reach.Way, Sequence[reach.Reach]]]:
            found = survey.ways(self.core, proto, port, host)
            around = survey.situation(self.core, self._settings, self._nft) if found else None
            return [(way, reach.of(way, around, client)) for way in found] if around else []

        return await self._do(work)

    def resolved(self, container_id: str) -> tuple[tuple[str, str, str, int], ...]:
        """(name, address, service, seconds left) of what names stand for in a container's egress list."""
        attached = self.core.attached.get(container_id)
        if attached is None or attached.gate is None:
            return ()
        names = attached.gate.resolved
        left = attached.gate.left().items()
        return tuple(sorted((names[one][0], str(one.address), str(one.service), s) for one, s in left if one in names))

    async def rename(self, container_id: str, name: str) -> tuple[Endpoint, ...]:
        """Make a container known under another name; its endpoints now (empty when it is not attached)."""
        return await self._do(functools.partial(self.core.rename, container_id, name))

    def _drop(self, held: Sequence[HeldPort]) -> None:
        assert self._proxy is not None
        for port in held:
            self._proxy.remove(port)
