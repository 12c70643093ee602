"""Image garbage collection: reading the policy, and what it chooses."""

from __future__ import annotations

import pytest

from corral.image.policy import Candidate, Disk, InvalidPolicy, choose, excess, parse_policy

HOUR = 3600 * 10**9


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({}, "high-water is missing"),
        ({"high-water": "0%"}, "high-water: '0%' is neither"),
        ({"high-water": "120%"}, "high-water: '120%' is neither"),
        ({"high-water": 5}, "high-water: 5 is neither"),
        ({"high-water": "85%", "low-water": "20GB"}, "must both be"),
        ({"high-water": "70%", "low-water": "85%"}, "low-water is above"),
        ({"high-water": "85%", "keep-last-used": "soon"}, "keep-last-used: 'soon' is not a duration"),
        ({"high-water": "85%", "keep-last-used": "-1h"}, "keep-last-used: '-1h' is not a duration"),
        ({"high-water": "85%", "keep": "debian"}, "keep must be a list"),
        ({"high-water": "85%", "hihg": "1"}, "there is no key hihg"),
    ],
)
def test_a_policy_that_cannot_be_used(settings: dict[str, object], why: str) -> None:
    with pytest.raises(InvalidPolicy, match=why):
        parse_policy(settings)


def test_nothing_is_wanted_below_the_high_mark_and_the_low_mark_is_the_goal() -> None:
    shares = parse_policy({"high-water": "85%", "low-water": "70%"})
    assert excess(shares, Disk(1000, 850, 400)) == 0
    assert excess(shares, Disk(1000, 900, 400)) == 200
    sizes = parse_policy({"high-water": "4k", "low-water": "3k"})
    assert excess(sizes, Disk(10**9, 10**9, 4096)) == 0
    assert excess(sizes, Disk(10**9, 0, 5000)) == 5000 - 3072


def candidate(digest: str, hours: int, *names: str, in_use: bool = False) -> Candidate:
    return Candidate(digest, names, 1000 * HOUR - hours * HOUR, in_use)


def test_the_longest_unused_go_first_and_no_more_than_needed() -> None:
    found = [
        candidate("new", 1, "new:1"),
        candidate("old", 90, "old:1"),
        candidate("older", 99, "older:1"),
        candidate("used", 200, "used:1", in_use=True),
        candidate("kept", 300, "debian:12"),
        candidate("nameless", 50),
    ]
    reaches = {one.digest: frozenset((one.digest, "base")) for one in found}
    sizes = {**{one.digest: 100 for one in found}, "base": 1000}
    policy = parse_policy({"high-water": "85%", "keep-last-used": "24h", "keep": ["debian:*"]})

    def chosen(wanted: int) -> list[str]:
        choices = choose(policy, found, wanted, 1000 * HOUR, reaches, sizes, frozenset())
        assert all(choice.bytes == 100 for choice in choices)  # the base stays with the others
        return [choice.digest for choice in choices]

    assert chosen(1) == ["nameless"]
    assert chosen(150) == ["nameless", "older"]
    assert chosen(10**9) == ["nameless", "older", "old"]
