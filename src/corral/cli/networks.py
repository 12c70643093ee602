"""`corral network ...`."""

from __future__ import annotations

import sys

from corral.cli import table, values
from corral.cli.command import Command, Session
from corral.cli.flags import Flag
from corral.cli.listing import CONTEXT, FILTER, FORMAT, SHORT_ID, columns, configured_format, filters
from corral.cli.networkspec import endpoint
from corral.cli.problems import CliError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from corral.cli.flags import Flags

_TITLES = {
    "ID": "NETWORK ID", "Name": "NAME", "Driver": "DRIVER", "Scope": "SCOPE", "IPv4": "IPV4", "IPv6": "IPV6",
    "Internal": "INTERNAL", "Labels": "LABELS", "CreatedAt": "CREATED AT", "Context": "CONTEXT",
}  # fmt: skip


def _list(session: Session) -> int:
    flags = session.flags
    query = {"filters": filters(flags["filter"])}
    answers, status = session.everywhere(lambda client: client.get("/networks", query))
    rows = [
        table.Row({**where, **_row(one, flags["no-trunc"])}, one.get("Labels"))
        for where, found in answers
        for one in sorted(found, key=lambda one: natural(one["Name"]))
    ]
    if flags["quiet"] and not flags["format"]:
        sys.stdout.write("".join(f"{row['ID']}\n" for row in rows))
        return status
    shown = columns(session, ("ID", "Name", "Driver", "Scope"))
    table.show(rows, shown, _TITLES, configured_format(session, "networksFormat"))
    return status


def natural(text: str) -> list[tuple[int, int, str]]:
    """A key that sorts `net2` before `net10`."""
    parts: list[tuple[int, int, str]] = []
    position = 0
    while position < len(text):
        end = position
        is_number = text[position].isdigit()
        while end < len(text) and text[end].isdigit() == is_number:
            end += 1
        part = text[position:end]
        parts.append((0, int(part), part) if is_number and part.isascii() else (1, 0, part))
        position = end
    return parts


def _row(one: Mapping[str, Any], full: bool) -> dict[str, Any]:
    return {
        "ID": one["Id"] if full else one["Id"][:SHORT_ID],
        "Name": one["Name"],
        "Driver": one["Driver"],
        "Scope": one["Scope"],
        "IPv4": "true" if one.get("EnableIPv4", True) else "false",
        "IPv6": "true" if one.get("EnableIPv6") else "false",
        "Internal": "true" if one.get("Internal") else "false",
        "Labels": ",".join(f"{key}={value}" for key, value in sorted((one.get("Labels") or {}).items())),
        "CreatedAt": _go_time(one.get("Created") or ""),
    }


def _go_time(text: str) -> str:
    """`2026-11-23T21:27:26.123Z` as `2026-11-23 21:27:26.123 +0000 UTC`."""
    if text.endswith("Z"):
        date, dot, fraction = text[:-1].replace("T", " ").partition(".")
        fraction = fraction.rstrip("0")
        return f"{date}{dot if fraction else ''}{fraction} +0000 UTC"
    return text.replace("T", " ")


def _create(session: Session) -> int:
    flags = session.flags
    try:
        body = create_body(flags, session.arguments[0])
    except ValueError as error:
        raise CliError(str(error)) from None
    answer = session.client.post("/networks/create", body=body)
    print(answer["Id"])
    return 0


def create_body(flags: Flags, name: str) -> dict[str, Any]:
    """The body of `POST /networks/create`; raises ValueError."""
    body: dict[str, Any] = {
        "Name": name,
        "Driver": flags["driver"],
        "Scope": flags["scope"],
        "Internal": flags["internal"],
        "Attachable": flags["attachable"],
        "Ingress": flags["ingress"],
        "ConfigOnly": flags["config-only"],
        "Options": values.key_values(flags["opt"]),
        "Labels": values.key_values(flags["label"]),
        "IPAM": {
            "Driver": flags["ipam-driver"],
            "Options": values.key_values(flags["ipam-opt"]),
            "Config": pools(
                flags["subnet"], flags["ip-range"], flags["gateway"], values.key_values(flags["aux-address"])
            ),
        },
    }
    if flags.changed("ipv4"):
        body["EnableIPv4"] = flags["ipv4"]
    if flags.changed("ipv6"):
        body["EnableIPv6"] = flags["ipv6"]
    if flags["config-from"]:
        body["ConfigFrom"] = {"Network": flags["config-from"]}
    return body


def pools(subnets: list[str], ranges: list[str], gateways: list[str], extra: dict[str, str]) -> list[dict[str, Any]]:
    """Ranges, gateways and reserved addresses put with the subnet that contains each; raises ValueError."""
    if not subnets and not ranges and not gateways and not extra:
        return []
    import ipaddress

    if len(subnets) < len(ranges) or len(subnets) < len(gateways):
        raise ValueError("every ip-range or gateway must have a corresponding subnet")
    found: dict[str, dict[str, Any]] = {}
    networks: dict[str, Any] = {}
    for text in subnets:
        network = _network(text)
        if any(network.version == other.version and network.overlaps(other) for other in networks.values()):
            raise ValueError("multiple overlapping subnet configuration is not supported")
        networks[text] = network
        found[text] = {"Subnet": text}

    def home(address: Any) -> str:
        for text, network in networks.items():
            if address.version == network.version and address in network:
                return text
        raise ValueError(f"no matching subnet for {{}} {address}")

    for key, items in (("IPRange", ranges), ("Gateway", gateways)):
        for item in items:
            address = _network(item).network_address if key == "IPRange" else ipaddress.ip_address(item)
            try:
                subnet = home(address)
            except ValueError:
                raise ValueError(
                    f"no matching subnet for {'range' if key == 'IPRange' else 'gateway'} {item}"
                ) from None
            if key in found[subnet]:
                what = "ranges" if key == "IPRange" else "gateways"
                raise ValueError(
                    f"cannot configure multiple {what} ({item}, {found[subnet][key]}) on the same subnet ({subnet})"
                )
            found[subnet][key] = item
    for name, item in extra.items():
        try:
            subnet = home(ipaddress.ip_address(item))
        except ValueError:
            raise ValueError(f"no matching subnet for aux-address {item}") from None
        found[subnet].setdefault("AuxiliaryAddresses", {})[name] = item
    return list(found.values())


def _network(text: str) -> Any:
    import ipaddress

    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise ValueError(f"invalid CIDR address: {text}") from None


def _remove(session: Session) -> int:
    def remove(name: str) -> None:
        try:
            session.client.delete(f"/networks/{name}")
        except CliError as error:
            if session.flags["force"] and getattr(error, "code", 0) == 404:
                return
            raise

    status = session.each(session.arguments, remove)
    if status:
        raise CliError("exit status 1")
    return 0


def _connect(session: Session) -> int:
    flags = session.flags
    wanted = {
        "ip": flags["ip"],
        "ip6": flags["ip6"],
        "link-local-ip": flags["link-local-ip"],
        "links": flags["link"],
        "alias": flags["alias"],
        "driver-opt": values.key_values(flags["driver-opt"]),
        "gw-priority": flags["gw-priority"],
    }
    network, container = session.arguments
    session.client.post(
        f"/networks/{network}/connect", body={"Container": container, "EndpointConfig": endpoint(wanted)}
    )
    return 0


def _disconnect(session: Session) -> int:
    network, container = session.arguments
    session.client.post(
        f"/networks/{network}/disconnect", body={"Container": container, "Force": session.flags["force"]}
    )
    return 0


LIST = Command(
    _list,
    "List networks",
    "[OPTIONS]",
    (
        CONTEXT,
        FILTER,
        FORMAT,
        Flag("no-trunc", "", "bool", "Show ids in full"),
        Flag("quiet", "q", "bool", "Print ids alone"),
    ),
    aliases="network ls, network list",
)
CREATE = Command(
    _create,
    "Create a network",
    "[OPTIONS] NETWORK",
    (
        Flag("attachable", "", "bool", "Let containers be attached by hand"),
        Flag("aux-address", "", "map", "Address that is not given out (NAME=ADDRESS)"),
        Flag("config-from", "", "string", "Network to copy the configuration from"),
        Flag("config-only", "", "bool", "Keep the configuration only"),
        Flag("driver", "d", "string", "Driver of the network", "bridge"),
        Flag("gateway", "", "strings", "Gateway of a subnet"),
        Flag("ingress", "", "bool", "Make the swarm's routing mesh"),
        Flag("internal", "", "bool", "No way out of the network"),
        Flag("ip-range", "", "strings", "Give out addresses of this range of a subnet"),
        Flag("ipam-driver", "", "string", "Driver of address management", "default"),
        Flag("ipam-opt", "", "map", "Option of that driver"),
        Flag("ipv4", "", "bool", "Give out IPv4 addresses", True),
        Flag("ipv6", "", "bool", "Give out IPv6 addresses"),
        Flag("label", "", "list", "Label of the network (NAME=VALUE)"),
        Flag("opt", "o", "map", "Option of the driver (NAME=VALUE)"),
        Flag("scope", "", "string", "Scope of the network"),
        Flag("subnet", "", "strings", "Subnet (10.1.0.0/16)"),
    ),
    least=1,
    most=1,
    examples=("network create --subnet 10.7.0.0/24 back",),
)
RM = Command(
    _remove,
    "Remove networks",
    "NETWORK [NETWORK...]",
    (Flag("force", "f", "bool", "Do not mind if it does not exist"),),
    least=1,
    most=None,
    aliases="network rm, network remove",
)
CONNECT = Command(
    _connect,
    "Connect a container to a network",
    "[OPTIONS] NETWORK CONTAINER",
    (
        Flag("alias", "", "strings", "Further name of the container in the network"),
        Flag("driver-opt", "", "strings", "Option of the network's driver (NAME=VALUE)"),
        Flag("gw-priority", "", "int", "The network with the highest number is the way out"),
        Flag("ip", "", "string", "IPv4 address (172.30.100.104)"),
        Flag("ip6", "", "string", "IPv6 address (2001:db8::33)"),
        Flag("link", "", "list", "Link to another container"),
        Flag("link-local-ip", "", "strings", "Link-local address of the container"),
    ),
    least=2,
    most=2,
)
DISCONNECT = Command(
    _disconnect,
    "Disconnect a container from a network",
    "[OPTIONS] NETWORK CONTAINER",
    (Flag("force", "f", "bool", "Disconnect even what does not run"),),
    least=2,
    most=2,
)
