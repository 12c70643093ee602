"""Driver options of an endpoint."""

from __future__ import annotations

import pytest

from corral.net import driveropts
from corral.net.model import InvalidNetwork


def test_sysctls() -> None:
    text = "net.ipv4.conf.IFNAME.log_martians=1,net.ipv6.conf.IFNAME.accept_ra=2"
    assert driveropts.sysctls({driveropts.SYSCTLS: text}, "eth3") == (
        ("net/ipv4/conf/eth3/log_martians", "1"),
        ("net/ipv6/conf/eth3/accept_ra", "2"),
    )
    assert driveropts.sysctls({}, "eth3") == ()


@pytest.mark.parametrize(
    "text",
    [
        "net.ipv4.conf.IFNAME.log_martians", "net.ipv4.conf.eth0.log_martians=1", "net.ipv4.ip_forward=1",
        "kernel.core.IFNAME.x.y=1", "net.ipv4.conf.IFNAME.../../x=1", "net.ipv4.conf.IFNAME.a/b=1", "x",
    ],
)  # fmt: skip
def test_other_sysctls(text: str) -> None:
    with pytest.raises(InvalidNetwork, match="to have format"):
        driveropts.sysctls({driveropts.SYSCTLS: text}, "eth0")


def test_names() -> None:
    assert driveropts.interface({}, {"eth0", "eth2"}) == "eth1"
    assert driveropts.interface({driveropts.IFNAME: "front"}, {"eth0"}) == "front"
    for bad in ("lo", "..", "a/b", "sixteen-letters-", "a b", "a:1", "eth%d", "\u00fc"):
        with pytest.raises(InvalidNetwork, match="invalid interface name"):
            driveropts.interface({driveropts.IFNAME: bad}, ())
    with pytest.raises(InvalidNetwork, match="is taken by another network"):
        driveropts.interface({driveropts.IFNAME: "eth0"}, {"eth0"})
