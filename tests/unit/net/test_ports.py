"""Published ports: candidates, and the two ways to write a port of every address."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.net import ports
from corral.net.model import PortBinding

RANGE = (32768, 60999)


@given(st.integers(0, 70000))
def test_automatic_ports_try_the_whole_range_once(cursor: int) -> None:
    tried = list(ports.candidates(PortBinding("tcp", 80), RANGE, cursor))
    assert len(tried) == len(set(tried)) == RANGE[1] - RANGE[0] + 1
    assert min(tried) == RANGE[0]
    assert not RANGE[0] <= cursor <= RANGE[1] or tried[0] == cursor


def test_fixed_ports_and_ranges() -> None:
    assert list(ports.candidates(PortBinding("tcp", 80, "", 8080), RANGE, 0)) == [8080]
    assert list(ports.candidates(PortBinding("tcp", 80, "", 8080, 8082), RANGE, 0)) == [8080, 8081, 8082]


bindings = st.builds(
    PortBinding,
    st.sampled_from(ports.PROTOCOLS),
    st.integers(1, 4),
    st.sampled_from(["", "127.0.0.1", "::1"]),
    st.integers(1, 4),
)


@given(st.lists(bindings, unique=True, max_size=8))
def test_collapse_undoes_expand(given_bindings: list[PortBinding]) -> None:
    shown = ports.expand(given_bindings, ipv6=True)
    assert set(ports.collapse(shown)) == set(given_bindings)
    assert len(ports.collapse(shown)) == len(given_bindings)


def test_explicit_any_addresses_stay_what_they_are() -> None:
    four, six = PortBinding("tcp", 80, "0.0.0.0", 80), PortBinding("tcp", 80, "::", 81)
    assert ports.expand([four, six], ipv6=True) == (four, six)
    assert ports.collapse([four, six]) == (four, six)


@given(st.integers(), st.integers(), st.integers(), st.text(max_size=20), st.text(max_size=5))
def test_check_accepts_or_says_why(container: int, host: int, end: int, address: str, proto: str) -> None:
    for each in itertools.chain([proto], ports.PROTOCOLS):
        try:
            checked = ports.check(PortBinding(each, container, address, host, end))
        except ports.InvalidPort:
            continue
        assert 1 <= checked.container_port <= 65535
        assert 0 <= checked.host_port <= 65535


@pytest.mark.parametrize(
    ("binding", "text"),
    [
        (PortBinding("tcp", 80, "", 8080), "0.0.0.0:8080:172.17.0.2:80/tcp"),
        (PortBinding("udp", 53, "::1", 53), "[::1]:53:172.17.0.2:53/udp"),
    ],
)
def test_descriptions(binding: PortBinding, text: str) -> None:
    assert ports.describe(binding, ports.Target("172.17.0.2", "")) == text
