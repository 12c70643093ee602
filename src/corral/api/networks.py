"""`/networks/...`."""

from __future__ import annotations

from typing import Any

from corral.api import http
from corral.api.http import Answer, Request
from corral.api.services import Services
from corral.engine import connections, reach
from corral.engine import filters as matching
from corral.engine.listing import time_ns
from corral.engine.live import NoSuchContainer
from corral.errors import NotFound, Unsupported
from corral.net.model import NetworkRecord, NetworkSpec, NetworkView, NoSuchNetwork, PoolRecord
from corral.wire.common import Wire
from corral.wire.containers import EndpointSettings

_PREDEFINED = ("bridge", "host", "none")


class IPAMPool(Wire):
    """One subnet asked for."""

    subnet: str = ""
    ip_range: str = ""
    gateway: str = ""
    auxiliary_addresses: dict[str, str] | None = None


class IPAM(Wire):
    """Address management asked for."""

    driver: str = ""
    config: list[IPAMPool] | None = None
    options: dict[str, str] | None = None


class ConfigFrom(Wire):
    """The network whose options are taken over."""

    network: str = ""


class NetworkNotSupported(Unsupported):
    """A kind of network that this engine does not have."""


class NoSuchEndpoint(NotFound):
    """Nobody of that name is on the network, container or not."""

    def __init__(self, name: str) -> None:
        super().__init__(f"endpoint {name} not found")


class CreateNetwork(Wire):
    """The body of `POST /networks/create`."""

    name: str = ""
    driver: str = ""
    internal: bool = False
    attachable: bool = False
    ingress: bool = False
    config_only: bool = False
    config_from: ConfigFrom | None = None
    scope: str = ""
    enable_ipv4: bool | None = None
    enable_ipv6: bool | None = None
    ipam: IPAM | None = None
    options: dict[str, str] | None = None
    labels: dict[str, str] | None = None


class Connect(Wire):
    """The body of connect and disconnect."""

    container: str = ""
    endpoint_config: EndpointSettings | None = None
    force: bool = False


def _shown(services: Services, view: NetworkView, *, containers: bool) -> dict[str, Any]:
    record = view.record
    shown: dict[str, Any] = {
        "Name": record.name,
        "Id": record.id,
        "Created": record.created,
        "Scope": record.scope,
        "Driver": record.driver,
        "EnableIPv4": record.ipv4,
        "EnableIPv6": record.ipv6,
        "IPAM": {
            "Driver": record.ipam_driver,
            "Options": record.ipam_options,
            "Config": [_pool(pool) for pool in record.pools] or None,
        },
        "Internal": record.internal,
        "Attachable": record.attachable,
        "Ingress": False,
        "ConfigFrom": {"Network": record.config_from},
        "ConfigOnly": record.config_only,
        "Options": record.options,
        "Labels": record.labels,
    }
    shown["Containers"] = _members(services, view) if containers else {}
    return shown


def _pool(pool: PoolRecord) -> dict[str, Any]:
    shown: dict[str, Any] = {"Subnet": pool.subnet}
    if pool.range:
        shown["IPRange"] = pool.range
    if pool.gateway:
        shown["Gateway"] = pool.gateway
    if pool.auxiliary:
        shown["AuxiliaryAddresses"] = pool.auxiliary
    return shown


def _members(services: Services, view: NetworkView) -> dict[str, Any]:
    found = {}
    for container_id, endpoint in view.endpoints.items():
        live = services.engine.index.find(container_id)
        found[container_id] = {
            "Name": live.record.name if live else "",
            "EndpointID": endpoint.endpoint_id,
            "MacAddress": endpoint.mac,
            "IPv4Address": f"{endpoint.ipv4}/{endpoint.prefix_len}" if endpoint.ipv4 else "",
            "IPv6Address": f"{endpoint.ipv6}/{endpoint.prefix6}" if endpoint.ipv6 else "",
        }
    return found


async def list_(services: Services, request: Request) -> Answer:
    """GET /networks"""
    filters = request.query.filters()
    matching.check_names(filters, ("dangling", "driver", "id", "label", "name", "scope", "type"))
    if unknown := set(filters.get("type", ())) - {"custom", "builtin"}:
        raise matching.InvalidFilter(f"invalid filter: 'type'='{min(unknown)}'")
    views = await services.engine.networks.list()
    return http.json([_shown(services, view, containers=False) for view in views if _keep(view, filters)])


def _keep(view: NetworkView, filters: matching.Filters) -> bool:
    record = view.record
    dangling = matching.boolean(filters, "dangling")
    custom = record.name not in _PREDEFINED
    return matching.every(
        (
            lambda: not filters.get("driver") or record.driver in filters["driver"],
            lambda: not filters.get("id") or matching.match_pattern(filters["id"], (record.id,)),
            lambda: not filters.get("name") or matching.match_pattern(filters["name"], (record.name,)),
            lambda: not filters.get("scope") or record.scope in filters["scope"],
            lambda: not filters.get("type") or ("custom" if custom else "builtin") in filters["type"],
            lambda: matching.match_labels(filters.get("label", ()), record.labels),
            lambda: dangling is None or dangling == (custom and not view.endpoints),
        )
    )


async def inspect(services: Services, request: Request) -> Answer:
    """GET /networks/{name}"""
    scope = request.query.text("scope")
    view = await services.engine.networks.get(request.params["name"])
    if scope and scope != view.record.scope:
        raise NoSuchNetwork(request.params["name"])
    shown = _shown(services, view, containers=True)
    if request.version >= (1, 52):
        subnets = {
            subnet: {"IPsInUse": used, "DynamicIPsAvailable": free} for subnet, (used, free) in view.usage.items()
        }
        shown["Status"] = {"IPAM": {"Subnets": subnets}}
    return http.json(shown)


async def create(services: Services, request: Request) -> Answer:
    """POST /networks/create"""
    body = await request.json(CreateNetwork)
    _check(body)
    ipam = body.ipam or IPAM()
    pools = tuple(
        PoolRecord(pool.subnet, pool.ip_range, pool.gateway, dict(pool.auxiliary_addresses or {}))
        for pool in ipam.config or []
    )
    spec = NetworkSpec(
        name=body.name,
        driver=body.driver or "bridge",
        internal=body.internal,
        attachable=body.attachable,
        ipv4=body.enable_ipv4 is not False,
        ipv6=bool(body.enable_ipv6),
        pools=pools,
        ipam_driver=ipam.driver or "default",
        ipam_options=ipam.options,
        options=dict(body.options or {}),
        labels=dict(body.labels or {}),
        config_only=body.config_only,
        config_from=body.config_from.network if body.config_from else "",
    )
    record = await services.engine.networks.create(spec)
    _event(services, record, "create")
    return http.json({"Id": record.id, "Warning": ""}, 201)


def _check(body: CreateNetwork) -> None:
    if body.ingress or body.scope not in ("", "local"):
        raise NetworkNotSupported("This node is not a swarm manager: only networks of this machine can be made")


def _event(services: Services, record: NetworkRecord, action: str) -> None:
    services.engine.events.publish("network", action, record.id, {"name": record.name, "type": record.driver})


async def remove(services: Services, request: Request) -> Answer:
    """DELETE /networks/{name}"""
    _event(services, await services.engine.networks.remove(request.params["name"]), "destroy")
    return http.empty()


async def connect(services: Services, request: Request) -> Answer:
    """POST /networks/{name}/connect"""
    body = await request.json(Connect)
    await connections.connect(
        services.engine, request.params["name"], body.container, body.endpoint_config or EndpointSettings()
    )
    return http.empty(200)


async def disconnect(services: Services, request: Request) -> Answer:
    """POST /networks/{name}/disconnect"""
    body = await request.json(Connect)
    try:
        await connections.disconnect(services.engine, request.params["name"], body.container)
    except NoSuchContainer:
        if body.force:
            raise NoSuchEndpoint(body.container) from None
        raise
    return http.empty(200)


async def prune(services: Services, request: Request) -> Answer:
    """POST /networks/prune"""
    filters = request.query.filters()
    matching.check_names(filters, ("until", "label", "label!"))
    until = time_ns(filters["until"][0]) if filters.get("until") else None
    wanted_by_stopped = {name for live in services.engine.index for name in live.record.networks}

    def keep(record: NetworkRecord) -> bool:
        import calendar
        import time

        created = calendar.timegm(time.strptime(record.created[:19], "%Y-%m-%dT%H:%M:%S")) * 10**9
        return (
            record.name in wanted_by_stopped
            or not matching.match_labels(filters.get("label", ()), record.labels)
            or bool(filters.get("label!") and matching.match_labels(filters["label!"], record.labels))
            or (until is not None and created >= until)
        )

    deleted = await services.engine.networks.prune(keep)
    return http.json({"NetworksDeleted": list(deleted) or None})


async def check_port(services: Services, request: Request) -> Answer:
    """GET /ports/check"""
    query = request.query
    found = await reach.shown(services.engine, query.text("port"), query.text("from"), query.text("interface"))
    return http.json(found)
