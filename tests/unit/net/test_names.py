"""The texts of hosts and resolv.conf."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.net import names

HOST = """# made by hand
search example.com corp.example.com
nameserver 127.0.0.53
nameserver 10.0.0.53 # the office
nameserver fd00::53
nameserver not-an-address
options timeout:1 rotate
"""


def test_the_hosts_file_without_what_is_out_of_reach() -> None:
    found = names.resolver(HOST, ipv6=False)
    assert found == names.Resolver(("10.0.0.53",), ("example.com", "corp.example.com"), ("timeout:1", "rotate"))
    assert names.resolver(HOST, ipv6=True).servers == ("10.0.0.53", "fd00::53")
    assert names.resolver("nameserver 127.0.0.1\n", ipv6=False).servers == ("8.8.8.8", "8.8.4.4")


def test_flags_override() -> None:
    found = names.resolver(HOST, servers=["1.1.1.1"], searches=["."], options=["ndots:2"], ipv6=False)
    assert found == names.Resolver(("1.1.1.1",), (), ("ndots:2",))
    with pytest.raises(names.InvalidHost):
        names.resolver(HOST, servers=["one"], ipv6=False)


def test_resolv_conf() -> None:
    found = names.Resolver(("10.0.0.53",), ("a", "b"), ("rotate",))
    plain = names.resolv_conf(found, embedded=False)
    assert names.parse_resolv_conf(plain) == found
    embedded = names.parse_resolv_conf(names.resolv_conf(found, embedded=True))
    assert embedded == names.Resolver(("127.0.0.11",), ("a", "b"), ("rotate", "ndots:0"))


def test_only_local() -> None:
    assert names.only_local("nameserver 127.0.0.53\n")
    assert not names.only_local(HOST)
    assert not names.only_local("")


def test_hosts() -> None:
    text = names.hosts("web", "example.com", ["172.17.0.2"], extra=[("db", "10.0.0.9")])
    assert text.startswith("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n")
    assert text.endswith("10.0.0.9\tdb\n172.17.0.2\tweb.example.com web\n")
    assert "::1" not in names.hosts("web", "", [], ipv6=False)
    assert names.hosts_of_host("127.0.0.1 x", [("a", "1.2.3.4")]) == "127.0.0.1 x\n1.2.3.4\ta\n"


def test_extra_hosts() -> None:
    values = ["db:10.0.0.9", "six=[fd00::1]", "seven:fd00::7", "host.docker.internal:host-gateway"]
    assert names.extra_hosts(values, ["172.17.0.1"]) == (
        ("db", "10.0.0.9"),
        ("six", "fd00::1"),
        ("seven", "fd00::7"),
        ("host.docker.internal", "172.17.0.1"),
    )
    for bad in ("db", ":10.0.0.1", "db:ten", "a b:10.0.0.1", "db:"):
        with pytest.raises(names.InvalidHost):
            names.extra_hosts([bad], [])


@given(st.text())
def test_any_text_can_be_the_hosts_file(text: str) -> None:
    for server in names.resolver(text, ipv6=True).servers:
        assert names.check_servers([server])
