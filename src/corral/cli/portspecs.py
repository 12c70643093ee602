"""`--publish` and `--expose`: ports, ranges and addresses.  Pure; raises ValueError with Docker's texts."""

from __future__ import annotations

_PROTOCOLS = ("tcp", "udp", "sctp")


def port_range(text: str) -> tuple[int, int]:
    """`80` or `80-90` as its first and last port."""
    if not text:
        raise ValueError("empty string specified for ports")
    first, dash, last = text.partition("-")
    start = _port(first)
    end = _port(last) if dash else start
    if end < start:
        raise ValueError(f"invalid range specified for port: {text}")
    return start, end


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise ValueError(f'strconv.ParseUint: parsing "{text}": invalid syntax')
    if int(text) > 65535:
        raise ValueError(f'strconv.ParseUint: parsing "{text}": value out of range')
    return int(text)


def exposed(text: str) -> list[str]:
    """The ports of an `--expose`, as `80/tcp`."""
    ports, slash, protocol = text.partition("/")
    protocol = protocol if slash else "tcp"
    if ":" in text:
        raise ValueError(f"invalid port format for --expose: {text}")
    try:
        first, last = port_range(ports)
    except ValueError as error:
        raise ValueError(f"invalid range format for --expose: {text}, error: {error}") from None
    if protocol.lower() not in _PROTOCOLS:
        raise ValueError(f"invalid port format for --expose: {text}")
    return [f"{port}/{protocol.lower()}" for port in range(first, last + 1)]


def published(text: str) -> list[tuple[str, dict[str, str]]]:
    """What a `--publish` maps: pairs of a container's port (`80/tcp`) and the host's address and port."""
    if "=" in text:
        return _long_form(text)
    address, host, container = _split(text)
    container, slash, protocol = container.partition("/")
    protocol = (protocol if slash and protocol else "tcp").lower()
    if not container:
        raise ValueError(f"no port specified: {text}<empty>")
    if protocol not in _PROTOCOLS:
        raise ValueError(f"invalid proto: {protocol}")
    if address and not _is_address(address):
        raise ValueError(f"invalid IP address: {address}")
    try:
        first, last = port_range(container)
    except ValueError:
        raise ValueError(f"invalid containerPort: {container}") from None
    try:
        host_first, host_last = port_range(host) if host else (0, 0)
    except ValueError:
        raise ValueError(f"invalid hostPort: {host}") from None
    if host and last - first != host_last - host_first and first != last:
        raise ValueError(f"invalid ranges specified for container and host Ports: {container} and {host}")
    if host and first == last and host_first != host_last:
        return [(f"{first}/{protocol}", {"HostIp": address, "HostPort": f"{host_first}-{host_last}"})]
    return [
        (
            f"{port}/{protocol}",
            {"HostIp": address, "HostPort": str(host_first + offset) if host else ""},
        )
        for offset, port in enumerate(range(first, last + 1))
    ]


def _long_form(text: str) -> list[tuple[str, dict[str, str]]]:
    """`target=80,published=8080,protocol=udp,mode=host`."""
    target, published_port, protocol = "", "", "tcp"
    for field in text.split(","):
        key, equals, value = field.partition("=")
        if not equals or not value:
            raise ValueError(f"invalid field: {field}")
        match key:
            case "target":
                target = value
            case "published":
                published_port = value
            case "protocol":
                if value not in _PROTOCOLS:
                    raise ValueError(f"invalid protocol value '{value}'")
                protocol = value
            case "mode":
                if value not in ("host", "ingress"):
                    raise ValueError(f"invalid publish mode value ({value}): must be either 'ingress' or 'host'")
            case _:
                raise ValueError(f"invalid field key: {key}")
    if not target:
        raise ValueError("missing mandatory field 'target'")
    return published(f"{published_port}:{target}/{protocol}" if published_port else f"{target}/{protocol}")


def _split(text: str) -> tuple[str, str, str]:
    """Address, host port and container port; the address may be IPv6 in brackets."""
    address, rest = "", text
    if text.startswith("["):
        address, bracket, rest = text[1:].partition("]")
        if not bracket:
            raise ValueError(f"invalid IP address: {text}")
        rest = rest.removeprefix(":")
        host, _, container = rest.rpartition(":")
        return address, host, container
    parts = rest.split(":")
    if len(parts) == 1:
        return "", "", parts[0]
    if len(parts) == 2:
        return "", parts[0], parts[1]
    return ":".join(parts[:-2]), parts[-2], parts[-1]


def _is_address(text: str) -> bool:
    import _socket

    for family in (_socket.AF_INET, _socket.AF_INET6):
        try:
            _socket.inet_pton(family, text.partition("%")[0])
        except OSError:
            continue
        return True
    return False
