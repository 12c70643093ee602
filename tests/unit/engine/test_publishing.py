"""References to published ports, and which requests they take away."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.engine.publishing import BadPortReference, Reference, describe, parse_reference
from corral.net.model import PortBinding


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("8080", Reference("", 8080, 8080, "tcp")),
        ("8000-8010/udp", Reference("", 8000, 8010, "udp")),
        ("127.0.0.1:80", Reference("127.0.0.1", 80, 80, "tcp")),
        ("[::1]:80/sctp", Reference("::1", 80, 80, "sctp")),
        ("[0:0::1]:80", Reference("::1", 80, 80, "tcp")),
        ("0.0.0.0:80", Reference("0.0.0.0", 80, 80, "tcp")),
    ],
)
def test_references(text: str, expected: Reference) -> None:
    assert parse_reference(text) == expected


@pytest.mark.parametrize(
    "text", ["", "0", "x", "80/", "80/icmp", "9-", "-9", "9-8", "65536", "1.2.3:80", "80:80:80", "٣"]
)
def test_bad_references(text: str) -> None:
    with pytest.raises(BadPortReference):
        parse_reference(text)


@given(st.text(max_size=30))
def test_any_text_is_a_reference_or_refused(text: str) -> None:
    try:
        found = parse_reference(text)
    except BadPortReference:
        return
    assert 1 <= found.first <= found.last <= 65535


def test_what_a_reference_means() -> None:
    everywhere, here = PortBinding("tcp", 80, "", 8080), PortBinding("tcp", 80, "127.0.0.1", 8080)
    assert Reference("", 8080, 8080, "tcp").fits(everywhere) and Reference("", 8000, 9000, "tcp").fits(here)
    assert Reference("0.0.0.0", 8080, 8080, "tcp").fits(everywhere)
    assert not Reference("127.0.0.1", 8080, 8080, "tcp").fits(everywhere)
    assert not Reference("", 8080, 8080, "udp").fits(here)


def test_descriptions() -> None:
    assert describe(PortBinding("tcp", 80)) == "80/tcp"
    assert describe(PortBinding("udp", 53, "::1", 53)) == "[::1]:53:53/udp"
    assert describe(PortBinding("tcp", 80, "", 8000, 8010)) == "8000-8010:80/tcp"
    assert describe(PortBinding("tcp", 80, "127.0.0.1")) == "127.0.0.1::80/tcp"
