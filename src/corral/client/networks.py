"""Networks: one of them (`Network`), and all of them (`client.networks`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Generic, TypeVar

from corral.client.errors import NotFound
from corral.client.flavours import Awaiting, Blocking, verb
from corral.client.session import Session, segment
from corral.wire.shown.base import Shown
from corral.wire.shown.resources import NetworkInfo, Pruned

N = TypeVar("N")


class _Made(Shown, frozen=True):
    id: str = ""


class NetworkVerbs:
    """What can be done with a network."""

    def __init__(self, session: Session, identity: str) -> None:
        self._session = session
        self.id = identity
        self._path = f"/networks/{segment(identity)}"

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id[:12]}>"

    @verb
    async def inspect(self) -> NetworkInfo:
        """Everything about it, with the containers that are in it."""
        return await self._session.get(self._path, NetworkInfo)

    @verb
    async def connect(
        self, container: str, *, aliases: Sequence[str] = (), address: str = "", api: Mapping[str, Any] | None = None
    ) -> None:
        """Put a container into it."""
        endpoint: dict[str, Any] = {"Aliases": list(aliases), **(api or {})}
        if address:
            endpoint["IPAMConfig"] = {"IPv6Address" if ":" in address else "IPv4Address": address}
        await self._session.do(
            "POST", f"{self._path}/connect", body={"Container": container, "EndpointConfig": endpoint}
        )

    @verb
    async def disconnect(self, container: str, *, force: bool = False) -> None:
        """Take a container out of it."""
        await self._session.do("POST", f"{self._path}/disconnect", body={"Container": container, "Force": force})

    @verb
    async def remove(self) -> None:
        """Remove it; no container may be in it."""
        await self._session.do("DELETE", self._path)

    async def _finish(self) -> None:
        try:
            await self._session.do("DELETE", self._path)
        except NotFound:
            pass


class Network(NetworkVerbs, Blocking):
    """A network.  Its `with` block removes it."""


class AsyncNetwork(NetworkVerbs, Awaiting):
    """A network.  Its `async with` block removes it."""


class NetworksVerbs(Generic[N]):
    """`client.networks`."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def _network(self, identity: str) -> N:
        """In this one's flavour."""
        raise NotImplementedError

    @verb
    async def create(
        self,
        name: str,
        *,
        driver: str = "bridge",
        internal: bool = False,
        ipv6: bool = False,
        subnet: str = "",
        gateway: str = "",
        options: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
        api: Mapping[str, Any] | None = None,
    ) -> N:
        """Make a network; `internal` ones lead nowhere."""
        body: dict[str, Any] = {
            "Name": name, "Driver": driver, "Internal": internal, "EnableIPv6": ipv6,
            "Options": dict(options or {}), "Labels": dict(labels or {}), **(api or {}),
        }  # fmt: skip
        if subnet:
            body["IPAM"] = {"Config": [{"Subnet": subnet, **({"Gateway": gateway} if gateway else {})}]}
        return self._network((await self._session.post("/networks/create", _Made, body=body)).id)

    @verb
    async def get(self, name: str) -> N:
        """The network with this name or id; raises NotFound."""
        return self._network((await self._session.get(f"/networks/{segment(name)}", NetworkInfo)).id)

    @verb
    async def list(self, *, filters: Mapping[str, Sequence[str]] | None = None) -> tuple[NetworkInfo, ...]:
        """What there is."""
        return await self._session.get("/networks", tuple[NetworkInfo, ...], {"filters": filters})

    @verb
    async def prune(self, *, filters: Mapping[str, Sequence[str]] | None = None) -> Pruned:
        """Remove every network that no container is in."""
        return await self._session.post("/networks/prune", Pruned, {"filters": filters}, patient=True)


class Networks(NetworksVerbs[Network], Blocking):
    """`Client.networks`."""

    def _network(self, identity: str) -> Network:
        return Network(self._session, identity)


class AsyncNetworks(NetworksVerbs[AsyncNetwork], Awaiting):
    """`AsyncClient.networks`."""

    def _network(self, identity: str) -> AsyncNetwork:
        return AsyncNetwork(self._session, identity)
