"""The texts of /etc/hosts, /etc/hostname and /etc/resolv.conf in a container.  Pure; the engine writes the files.

Layouts are those that Docker writes, since people parse them: see hosts(5) and resolv.conf(5).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address

from corral import errors

EMBEDDED = "127.0.0.11"
_FALLBACK = ("8.8.8.8", "8.8.4.4")
_FALLBACK6 = ("2001:4860:4860::8888", "2001:4860:4860::8844")

_LOCAL = "127.0.0.1\tlocalhost\n"
_LOCAL6 = """::1\tlocalhost ip6-localhost ip6-loopback
fe00::\tip6-localnet
ff00::\tip6-mcastprefix
ff02::1\tip6-allnodes
ff02::2\tip6-allrouters
"""


class InvalidHost(errors.InvalidParameter):
    """An `--add-host`, `--dns` or similar value that makes no sense."""


@dataclass(frozen=True, slots=True)
class Resolver:
    """What a resolv.conf says."""

    servers: tuple[str, ...] = ()
    searches: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


def parse_resolv_conf(text: str) -> Resolver:
    """The last `search` line and all servers and options count; unknown lines and bad addresses are passed over."""
    servers: list[str] = []
    searches: tuple[str, ...] = ()
    options: list[str] = []
    for line in text.splitlines():
        words = line.split("#", 1)[0].split(";", 1)[0].split()
        if len(words) < 2:
            continue
        if words[0] == "nameserver" and _is_address(words[1]):
            servers.append(words[1])
        elif words[0] in ("search", "domain"):
            searches = tuple(words[1:])
        elif words[0] == "options":
            options += words[1:]
    return Resolver(tuple(servers), searches, tuple(options))


def only_local(text: str) -> bool:
    """Whether a resolv.conf names local resolvers only (systemd-resolved's stub: its own file has the real ones)."""
    servers = parse_resolv_conf(text).servers
    return bool(servers) and all(_is_loopback(server) for server in servers)


def check_servers(servers: Iterable[str]) -> tuple[str, ...]:
    """`--dns` values; InvalidHost in Docker's words."""
    checked = tuple(servers)
    for server in checked:
        if not _is_address(server):
            raise InvalidHost(f"bad nameserver address {server}")
    return checked


def resolver(
    host: str, *, servers: Sequence[str] = (), searches: Sequence[str] = (), options: Sequence[str] = (), ipv6: bool
) -> Resolver:
    """What a container resolves with: the host's file `host` without what is out of reach, overridden by flags.

    A search of `.` means none.  Where nothing is left, public resolvers, as Docker.
    """
    base = parse_resolv_conf(host)
    usable = tuple(server for server in base.servers if not _is_loopback(server) and (ipv6 or ":" not in server))
    chosen = check_servers(servers) or usable or (_FALLBACK + (_FALLBACK6 if ipv6 else ()))
    wanted = tuple(searches) if searches else base.searches
    return Resolver(chosen, () if "." in wanted else wanted, tuple(options) or base.options)


def resolv_conf(found: Resolver, *, embedded: bool) -> str:
    """The file; `embedded` puts our own server in front of the others, which it asks itself."""
    lines = ["# Made by the container engine; edit it if you like, it is written once."]
    lines += [f"nameserver {server}" for server in ((EMBEDDED,) if embedded else found.servers)]
    if found.searches:
        lines.append("search " + " ".join(found.searches))
    options = found.options
    if embedded and not any(option.startswith("ndots:") for option in options):
        options = (*options, "ndots:0")  # names on our networks have no dots and must reach the server as they are
    if options:
        lines.append("options " + " ".join(options))
    if embedded:
        lines.append(f"# asked in turn: {' '.join(found.servers)}")
    return "\n".join(lines) + "\n"


def extra_hosts(values: Iterable[str], gateways: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """`--add-host` values (`name:address` or `name=address`) as (name, address).

    The address `host-gateway` stands for `gateways`, the host's addresses on the default bridge.  InvalidHost.
    """
    found: list[tuple[str, str]] = []
    for value in values:
        at = min((index for index in (value.find(":"), value.find("=")) if index >= 0), default=-1)
        name, address = value[:at].strip(), value[at + 1 :].strip().removeprefix("[").removesuffix("]")
        if at < 1 or not name or any(character.isspace() for character in name):
            raise InvalidHost(f'bad format for add-host: "{value}"')
        if address == "host-gateway":
            if not gateways:
                raise InvalidHost("unable to derive the IP value for host-gateway")
            found += [(name, gateway) for gateway in gateways]
        elif _is_address(address):
            found.append((name, address))
        else:
            raise InvalidHost(f'invalid IP address in add-host: "{address}"')
    return tuple(found)


def hosts(
    hostname: str,
    domainname: str,
    addresses: Sequence[str],
    *,
    extra: Iterable[tuple[str, str]] = (),
    links: Iterable[tuple[str, str]] = (),
    ipv6: bool = True,
) -> str:
    """/etc/hosts: the local names, `extra` (name, address), `links` (names, address), then the container itself.

    `ipv6`: the container has ::1.
    """
    text = _LOCAL + (_LOCAL6 if ipv6 else "")
    text += "".join(f"{address}\t{name}\n" for name, address in (*extra, *links))
    own = f"{hostname}.{domainname} {hostname}" if domainname else hostname
    return text + "".join(f"{address}\t{own}\n" for address in addresses if address and hostname)


def hosts_of_host(text: str, extra: Iterable[tuple[str, str]]) -> str:
    """/etc/hosts on the host's network: the host's own file and `extra`."""
    ended = text if not text or text.endswith("\n") else text + "\n"
    return ended + "".join(f"{address}\t{name}\n" for name, address in extra)


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _is_loopback(text: str) -> bool:
    address = ip_address(text)
    return address.is_loopback or address.is_unspecified
