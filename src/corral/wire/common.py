"""What every module of the API's JSON shares: the base Struct, and reading a body as Go's decoder reads it."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from corral.errors import InvalidParameter


class InvalidBody(InvalidParameter):
    """A request body that is not what the operation takes."""


_SPECIAL = {
    "uts_mode": "UTSMode",
    "ip_address": "IPAddress",
    "ipam_config": "IPAMConfig",
    "ipv4_address": "IPv4Address",
    "ipv6_address": "IPv6Address",
    "link_local_ips": "LinkLocalIPs",
    "network_id": "NetworkID",
    "endpoint_id": "EndpointID",
    "ip_prefix_len": "IPPrefixLen",
    "ipv6_gateway": "IPv6Gateway",
    "global_ipv6_address": "GlobalIPv6Address",
    "global_ipv6_prefix_len": "GlobalIPv6PrefixLen",
    "dns_names": "DNSNames",
    "container_id_file": "ContainerIDFile",
    "device_ids": "DeviceIDs",
    "blkio_device_read_iops": "BlkioDeviceReadIOps",
    "blkio_device_write_iops": "BlkioDeviceWriteIOps",
    "io_maximum_iops": "IOMaximumIOps",
    "io_maximum_bandwidth": "IOMaximumBandwidth",
    "ipam": "IPAM",
    "enable_ipv4": "EnableIPv4",
    "enable_ipv6": "EnableIPv6",
    "ip_range": "IPRange",
    "host_ip": "HostIp",
    "uid": "UID",
    "gid": "GID",
    "id_mapping": "IDMapping",
    "uid_mappings": "UIDMappings",
    "gid_mappings": "GIDMappings",
    "container_id": "ContainerID",
    "host_id": "HostID",
}


def wire_name(name: str) -> str:
    """The API's spelling of a field: PascalCase, but for the names that Go's initialisms made irregular."""
    return _SPECIAL.get(name) or "".join(part.capitalize() for part in name.split("_"))


class Wire(msgspec.Struct, rename=wire_name, kw_only=True):
    """Base of the API's objects.  A field that is None was absent or null."""


T = TypeVar("T")


def read(body: bytes, kind: type[T]) -> T:
    """Read a JSON body.  As in Go: unknown fields are ignored and null is the same as absent."""
    try:
        raw = msgspec.json.decode(body)
    except msgspec.DecodeError as error:
        raise InvalidBody(f"invalid JSON: {error}") from error
    except RecursionError as error:
        raise InvalidBody("invalid JSON: exceeded max depth") from error
    except UnicodeDecodeError as error:
        raise InvalidBody("invalid JSON: not UTF-8") from error
    return convert(raw, kind)


def convert(raw: Any, kind: type[T]) -> T:
    """Decoded JSON as `kind`; raises InvalidBody that names the path of what is wrong."""
    try:
        return msgspec.convert(without_nulls(raw), kind)
    except RecursionError as error:
        raise InvalidBody("invalid JSON: exceeded max depth") from error
    except msgspec.ValidationError as error:
        raise InvalidBody(f"invalid JSON: {error}") from error


# Members that are maps, and the zero value of their entries.
_ZERO: dict[str, Any] = {
    "ExposedPorts": {},
    "Volumes": {},
    "EndpointsConfig": {},
    "PortBindings": [],
    "Labels": "",
    "Sysctls": "",
    "Tmpfs": "",
    "Options": "",
    "DriverOpts": "",
    "Annotations": "",
}


def _filled(name: str, value: Any) -> Any:
    if name in _ZERO and isinstance(value, dict):
        return {key: _ZERO[name] if entry is None else entry for key, entry in value.items()}
    return value


def without_nulls(raw: Any) -> Any:
    """`raw` without the members whose value is null, at every depth; the entries of a map stay, with a zero value."""
    if isinstance(raw, dict):
        return {key: without_nulls(_filled(key, value)) for key, value in raw.items() if value is not None}
    if isinstance(raw, list):
        return [without_nulls(value) for value in raw]
    return raw
