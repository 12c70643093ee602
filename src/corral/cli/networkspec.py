"""`--network` and the flags that go with it, as the API's NetworkMode and EndpointsConfig.  Raises ValueError."""

from __future__ import annotations

from corral.cli import values

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from corral.cli.flags import Flags

_BUILT_IN = ("default", "bridge", "host", "none")


def networks(flags: Flags) -> tuple[str, dict[str, Any]]:
    """The mode (the first network) and the settings of every network by name."""
    chosen = [*flags.each("network", parse), *flags.each("net", parse)] or [{"name": "default"}]
    _single(chosen[0], flags)
    endpoints: dict[str, Any] = {}
    has_conflict = len(chosen) > 1
    for index, one in enumerate(chosen):
        name = one["name"]
        if has_conflict and (name in ("host", "none") or name.startswith("container:")):
            raise ValueError("conflicting options: cannot attach both user-defined and non-user-defined network-modes")
        if name in endpoints:
            raise ValueError(f'network "{name}" is specified multiple times')
        if index and not name:
            raise ValueError("link to network has no name")
        if name.startswith("container:") or (name in ("host", "none") and len(one) == 1):
            continue
        endpoints[name] = endpoint(one)
    return chosen[0]["name"], endpoints


def _single(first: dict[str, Any], flags: Flags) -> None:
    """Flags without a network's name concern the first one."""
    given = {
        "alias": [*flags["network-alias"], *flags["net-alias"]],
        "links": flags["link"],
        "ip": flags["ip"],
        "ip6": flags["ip6"],
        "mac-address": flags["mac-address"],
        "link-local-ip": flags["link-local-ip"],
    }
    for key, value in given.items():
        if not value:
            continue
        if first.get(key) and key != "links":
            flag = "network-alias" if key == "alias" else key
            raise ValueError(f"conflicting options: cannot specify both --{flag} and per-network {key}")
        if key == "links" and first["name"] in _BUILT_IN:
            continue  # the default network's links are HostConfig.Links
        first[key] = value


def parse(text: str) -> dict[str, Any]:
    """`NAME`, or `name=NAME,ip=ADDRESS,alias=A,driver-opt=K=V,...`."""
    if "=" not in text:
        return {"name": text}
    found: dict[str, Any] = {"name": ""}
    for field in values.csv_fields(text):
        key, equals, value = field.partition("=")
        key = key.strip().lower()
        value = value.strip()
        if not equals:
            raise ValueError(f"invalid field {field}")
        match key:
            case "name" | "ip" | "ip6" | "mac-address":
                found[key] = value
            case "alias" | "link-local-ip":
                found.setdefault(key, []).append(value)
            case "driver-opt":
                option, separator, setting = value.partition("=")
                if not separator:
                    raise ValueError(f"invalid key value pair format in driver options: {value}")
                found.setdefault(key, {})[option.lower().strip()] = setting.strip()
            case "gw-priority":
                found[key] = values.whole(value)
            case _:
                raise ValueError(f"invalid field key {key}")
    if not found["name"]:
        raise ValueError("network name is required")
    return found


def endpoint(one: dict[str, Any]) -> dict[str, Any]:
    """The API's EndpointSettings; only what was asked for is set."""
    found: dict[str, Any] = {}
    ipam = {
        key: one[name]
        for key, name in (("IPv4Address", "ip"), ("IPv6Address", "ip6"), ("LinkLocalIPs", "link-local-ip"))
        if one.get(name)
    }
    if ipam:
        found["IPAMConfig"] = ipam
    for key, name in (
        ("Links", "links"),
        ("Aliases", "alias"),
        ("DriverOpts", "driver-opt"),
        ("MacAddress", "mac-address"),
        ("GwPriority", "gw-priority"),
    ):
        if one.get(name):
            found[key] = one[name]
    return found
