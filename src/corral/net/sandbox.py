"""Execute link plans: pairs, addresses and routes inside containers' network namespaces, bridges outside.

Everything here runs on one thread, which the caller owns: `within` moves that thread into another namespace and
back, and a thread that could not come back is of no more use (it raises `LostThread`, which nobody may catch).
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterator, Sequence
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface

from corral.linux import namespaces
from corral.net import netlink
from corral.net.plan import LinkPlan


class LostThread(BaseException):
    """The thread is stuck in a container's namespace."""


def write_sysctl(key: str, value: str) -> None:
    """Set a sysctl of the thread's network namespace; OSError when it cannot be had."""
    path = "/proc/sys/" + key
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.EROFS, errno.EACCES) and _sysctl(path) == value:
            return  # /proc/sys is read-only, but right
        raise
    try:
        os.write(fd, value.encode())
    finally:
        os.close(fd)


def _sysctl(path: str) -> str:
    with open(path, encoding="ascii") as file:
        return file.read().strip()


def enable_ipv6_forwarding() -> None:
    """Let the host route IPv6.

    A router ignores router advertisements, so a host that has its own IPv6 route from one would lose it within
    minutes: interfaces that listened (accept_ra 1) are told to go on listening (2).
    """
    base = "/proc/sys/net/ipv6/conf"
    for interface in os.listdir(base):
        with contextlib.suppress(FileNotFoundError), open(f"{base}/{interface}/accept_ra", encoding="ascii") as file:
            if interface != "all" and file.read().strip() == "1":
                write_sysctl(f"net/ipv6/conf/{interface}/accept_ra", "2")
    write_sysctl("net/ipv6/conf/all/forwarding", "1")


class Host:
    """The network namespace in which the daemon lives, and the way into others."""

    def __init__(self) -> None:
        self._home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        self.netlink = netlink.Socket()
        self._masters: dict[str, int] = {}

    def close(self) -> None:
        """Close descriptors."""
        self.netlink.close()
        os.close(self._home)

    @contextlib.contextmanager
    def within(self, namespace_fd: int) -> Iterator[None]:
        """Run the block in another network namespace."""
        namespaces.setns(namespace_fd, namespaces.CLONE_NEWNET)
        try:
            yield
        finally:
            try:
                namespaces.setns(self._home, namespaces.CLONE_NEWNET)
            except OSError as error:
                raise LostThread(str(error)) from error

    def ensure_bridge(self, name: str, addresses: Sequence[IPv4Interface | IPv6Interface], mac: str, mtu: int) -> None:
        """Make or repair a bridge: there, with these addresses, up, and with loopback packets routable through it."""
        found = self.netlink.find_link(name)
        if found is None:
            self.netlink.execute([netlink.bridge(name, mac=mac, mtu=mtu)])
            found = self.netlink.find_link(name)
        elif found.kind != "bridge":
            raise OSError(errno.EEXIST, "an interface that is not a bridge has this name", name)
        assert found is not None
        self._masters[name] = found.index
        # Host processes that talk to 127.0.0.1:port are sent through the bridge; `rules` guards the other direction.
        write_sysctl(f"net/ipv4/conf/{name}/route_localnet", "1")
        with contextlib.suppress(FileNotFoundError):  # a kernel without IPv6
            # A container must not become the host's router (CVE-2020-13401); `rules` drops its announcements, too.
            write_sysctl(f"net/ipv6/conf/{name}/accept_ra", "0")
        if any(address.version == 6 for address in addresses):
            _set_ipv6(name, True)
        present = {address for index, address in self.netlink.addresses() if index == found.index}
        wanted = [netlink.address_add(found.index, address) for address in addresses if address not in present]
        self.netlink.execute([*wanted, netlink.link_up(found.index)])

    def bridge_address(self, name: str) -> str:
        """The IPv4 address with its prefix of an interface that is there, or ""."""
        found = self.netlink.find_link(name)
        if found is None:
            return ""
        return next((str(a) for index, a in self.netlink.addresses() if index == found.index and a.version == 4), "")

    def delete_link(self, name: str) -> None:
        """Delete an interface; fine when it is gone."""
        self._masters.pop(name, None)
        with _ignoring(errno.ENODEV):
            self.netlink.execute([netlink.link_delete_named(name)])

    def add_endpoint(self, plan: LinkPlan, namespace_fd: int) -> None:
        """Make a pair into the namespace and configure its inner end; on failure nothing is left."""
        if plan.kind == "veth":
            self._add_pair(plan, namespace_fd)
        else:
            self._add_child(plan, namespace_fd)
        try:
            with self.within(namespace_fd):
                inner = netlink.Socket()
                _set_ipv6(plan.name, plan.ipv6)
                for path, value in plan.sysctls:
                    write_sysctl(path, value)
            with inner:
                found = inner.find_link(plan.name)
                assert found is not None
                messages = [netlink.link_up(1)]
                messages += [netlink.address_add(found.index, address) for address in plan.addresses]
                messages.append(netlink.link_up(found.index))
                messages += [netlink.default_route(found.index, gateway) for gateway in plan.gateways]
                messages += [netlink.default_device_route(found.index, family) for family in plan.device_routes]
                if plan.rate_out:
                    messages.append(netlink.shape(found.index, plan.rate_out))
                inner.execute(messages)
            if plan.rate_in:
                # What the bridge's port sends is what the container receives.
                outer = self.netlink.find_link(plan.host)
                assert outer is not None
                self.netlink.execute([netlink.shape(outer.index, plan.rate_in)])
        except OSError:
            if plan.kind == "veth":
                self.delete_link(plan.host)
            else:
                self.delete_inside(namespace_fd, plan.name)
            raise

    def _add_child(self, plan: LinkPlan, namespace_fd: int) -> None:
        message = netlink.child(
            plan.name,
            plan.kind,
            parent=self._master(plan.master),
            mode=plan.mode,
            flag=plan.flag,
            mtu=plan.mtu,
            mac=plan.mac,
            netns=namespace_fd,
        )
        self.netlink.execute([message])

    def delete_inside(self, namespace_fd: int, name: str) -> None:
        """Delete an interface of another namespace; fine when it is gone."""
        with self.within(namespace_fd):
            inner = netlink.Socket()
        with inner, _ignoring(errno.ENODEV):
            inner.execute([netlink.link_delete_named(name)])

    def knows(self, kind: str) -> bool:
        """Whether the kernel has interfaces of a kind: it complains about a missing parent, not about the kind."""
        try:
            self.netlink.execute([netlink.plain("corral-probe", kind)])
        except OSError as error:
            return error.errno != errno.EOPNOTSUPP
        self.delete_link("corral-probe")
        return True

    def ensure_up(self, name: str, make: Callable[[], netlink.Message]) -> bool:
        """Bring an interface up, after making it if it is not there; whether it was made."""
        found = self.netlink.find_link(name)
        made = found is None
        if found is None:
            self.netlink.execute([make()])
            found = self.netlink.find_link(name)
        assert found is not None
        if made or not found.flags & netlink.IFF_UP:
            self.netlink.execute([netlink.link_up(found.index)])
        return made

    def index_of(self, name: str) -> int | None:
        """The index of an interface."""
        found = self.netlink.find_link(name)
        return found.index if found else None

    def _add_pair(self, plan: LinkPlan, namespace_fd: int) -> None:
        messages = [
            netlink.veth(
                plan.host,
                master=self._master(plan.master),
                mtu=plan.mtu,
                peer=plan.name,
                peer_mac=plan.mac,
                peer_netns=namespace_fd,
            )
        ]
        messages.append(netlink.port_up(plan.host))
        if plan.hairpin:
            messages.append(netlink.hairpin(plan.host))
        try:
            self.netlink.execute(messages)
        except OSError:
            self.delete_link(plan.host)  # the kernel keeps the pair when only enslaving it failed
            raise

    def _master(self, name: str) -> int:
        """The bridge's index; looked up once per bridge."""
        index = self._masters.get(name)
        if index is None:
            found = self.netlink.find_link(name)
            if found is None:
                raise OSError(errno.ENODEV, os.strerror(errno.ENODEV), name)
            index = self._masters[name] = found.index
        return index

    def forget_master(self, name: str) -> None:
        """Look the bridge's index up again: someone deleted it behind our back."""
        self._masters.pop(name, None)

    def set_default_routes(
        self,
        namespace_fd: int,
        interface: str,
        gateways: Sequence[IPv4Address | IPv6Address],
        families: Sequence[int] = (),
    ) -> None:
        """Route by default over `gateways` of this interface, or IP versions `families` straight to it."""
        if not gateways and not families:
            return
        with self.within(namespace_fd):
            inner = netlink.Socket()
        with inner:
            found = inner.find_link(interface)
            if found is not None:
                messages = [netlink.default_route(found.index, gateway) for gateway in gateways]
                inner.execute([*messages, *(netlink.default_device_route(found.index, one) for one in families)])

    def loopback_up(self, namespace_fd: int) -> None:
        """Bring `lo` of a namespace up."""
        with self.within(namespace_fd):
            inner = netlink.Socket()
        with inner:
            inner.execute([netlink.link_up(1)])


def _set_ipv6(interface: str, wanted: bool) -> None:
    """No link-local address on a network without IPv6, as Docker; a kernel without IPv6 has no such file.

    With IPv6, no duplicate detection: until it is over, for two seconds, the link-local address cannot ask for
    neighbours, and nothing that is forwarded arrives.  Addresses here are derived from a MAC that IPAM made unique.
    """
    try:
        if wanted:
            write_sysctl(f"net/ipv6/conf/{interface}/accept_dad", "0")
        write_sysctl(f"net/ipv6/conf/{interface}/disable_ipv6", "0" if wanted else "1")
    except FileNotFoundError:
        if wanted:
            raise


@contextlib.contextmanager
def _ignoring(number: int) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno != number:
            raise
