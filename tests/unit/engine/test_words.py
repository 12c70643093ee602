"""The small languages of the API: signals, detach keys, filters, times, sizes, CPU lists."""

from __future__ import annotations

import datetime
import signal
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.engine import filters, names
from corral.engine.defaults import InvalidConfig, cpu_list, size_bytes
from corral.engine.detach import BadDetachKeys, detach_keys
from corral.engine.listing import time_ns
from corral.engine.record import timestamp
from corral.engine.signals import InvalidSignal, parse
from corral.errors import InvalidParameter

# -- signals ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("KILL", 9), ("SIGKILL", 9), ("sigterm", 15), ("9", 9), ("64", 64), ("RTMIN", 34), ("SIGRTMIN+3", 37),
        ("RTMAX", 64), ("RTMAX-4", 60), ("WINCH", 28),
    ],
)  # fmt: skip
def test_signals(text: str, number: int) -> None:
    assert parse(text) == number


@pytest.mark.parametrize("text", ["", "0", "65", "-1", "NOPE", "SIG", "RTMIN+31", "RTMAX-31", "RTMINx", "9 ", "²"])
def test_no_such_signal(text: str) -> None:
    with pytest.raises(InvalidSignal, match="invalid signal: "):
        parse(text)


@given(st.sampled_from(list(signal.Signals)))
def test_every_name_and_number(number: signal.Signals) -> None:
    assert parse(number.name) == parse(number.name.removeprefix("SIG").lower()) == parse(str(int(number))) == number


@given(st.text())
def test_any_text_is_a_signal_or_not(text: str) -> None:
    try:
        assert 0 < parse(text) <= 64
    except InvalidSignal:
        return


# -- detach keys ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("", b"\x10\x11"),
        ("ctrl-p,ctrl-q", b"\x10\x11"),
        ("a", b"a"),
        ("ctrl-@,ctrl-[,b", b"\x00\x1bb"),
        ("ctrl-_", b"\x1f"),
    ],
)
def test_detach_keys(text: str, keys: bytes) -> None:
    assert detach_keys(text) == keys


@pytest.mark.parametrize("text", ["ctrl-", "ctrl-ab", "ab", "a,,b", "ctrl-1", "é", "ctrl-é", ","])
def test_keys_that_cannot_be_typed(text: str) -> None:
    with pytest.raises(BadDetachKeys, match="Invalid detach keys"):
        detach_keys(text)


@given(st.text(max_size=20))
def test_any_keys_are_read_or_refused(text: str) -> None:
    try:
        assert detach_keys(text)
    except BadDetachKeys:
        return


# -- filters ----------------------------------------------------------------------------------------------------


def test_labels() -> None:
    labels = {"a": "1", "b": ""}
    assert filters.match_labels([], labels)
    assert filters.match_labels(["a", "a=1", "b="], labels)
    assert not filters.match_labels(["a=2"], labels)
    assert not filters.match_labels(["c"], labels)


def test_patterns_and_prefixes() -> None:
    assert filters.match_pattern(["^we"], ["web"])
    assert not filters.match_pattern(["^eb"], ["web"])
    with pytest.raises(filters.InvalidFilter):
        filters.match_pattern(["("], ["web"])
    assert filters.match_fuzzy(["ab"], "abc")
    assert not filters.match_fuzzy(["b"], "abc")


def test_booleans() -> None:
    assert filters.boolean({"dangling": ["true"]}, "dangling") is True
    assert filters.boolean({"dangling": ["0"]}, "dangling") is False
    assert filters.boolean({}, "dangling") is None
    for values in (["maybe"], ["true", "false"]):
        with pytest.raises(filters.InvalidFilter, match="invalid filter 'dangling="):
            filters.boolean({"dangling": values}, "dangling")


def test_unknown_filters() -> None:
    filters.check_names({"name": []}, ["name"])
    with pytest.raises(filters.InvalidFilter, match=r"^invalid filter 'nope'$"):
        filters.check_names({"nope": []}, ["name"])


# -- times ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("0", 0),
        ("1700000000", 1_700_000_000 * 10**9),
        ("1700000000.5", 1_700_000_000_500_000_000),
        ("1700000000.000000001", 1_700_000_000_000_000_001),
        ("1700000000.1234567891", 1_700_000_000_123_456_789),
        ("2023-11-14T22:13:20Z", 1_700_000_000 * 10**9),
        ("2023-11-14T22:13:20.000000007Z", 1_700_000_000 * 10**9 + 7),
        ("2023-11-14T23:13:20.5+01:00", 1_700_000_000_500_000_000),
    ],
)
def test_points_in_time(text: str, ns: int) -> None:
    assert time_ns(text) == ns


@pytest.mark.parametrize(
    ("text", "seconds"), [("10m", 600), ("1h30m", 5400), ("90s", 90), ("1.5h", 5400), ("500ms", 0.5)]
)
def test_durations_before_now(text: str, seconds: float) -> None:
    before = time.time_ns()
    found = time_ns(text)
    assert before - seconds * 10**9 <= found <= time.time_ns() - seconds * 10**9 + 1


@pytest.mark.parametrize("text", ["", "yesterday", "10x", "1.2.3", "--", "2023-13-01T00:00:00Z", "m", "1h 30m", "²"])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(InvalidParameter):
        time_ns(text)


@given(st.text(max_size=30))
def test_any_text_is_a_time_or_not(text: str) -> None:
    try:
        time_ns(text)
    except InvalidParameter:
        return


@given(st.integers(0, 4_000_000_000 * 10**9))
def test_timestamps_keep_every_nanosecond_and_sort(ns: int) -> None:
    text = timestamp(ns)
    assert len(text) == len("1970-01-01T00:00:00.000000000Z")
    assert time_ns(text) == ns
    assert timestamp(ns + 1) > text
    datetime.datetime.fromisoformat(text[:26] + "+00:00")


# -- sizes and CPU lists ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "size"),
    [("5", 5), ("64M", 64 << 20), ("20m", 20 << 20), ("1gb", 1 << 30), ("1.5k", 1536), ("1GiB", 1 << 30), ("-1", -1)],
)
def test_sizes(text: str, size: int) -> None:
    assert size_bytes(text) == size


@pytest.mark.parametrize("text", ["", "m", "5x", "-2", "5 5", "1e3", "0x10"])
def test_wrong_sizes(text: str) -> None:
    with pytest.raises(InvalidConfig):
        size_bytes(text)


@pytest.mark.parametrize(("text", "found"), [("0", {0}), ("0-2,4", {0, 1, 2, 4}), ("3,1", {1, 3}), ("1-1", {1})])
def test_cpu_lists(text: str, found: set[int]) -> None:
    assert cpu_list(text) == found


@pytest.mark.parametrize("text", ["", "a", "1-", "-1", "2-1", "0,,1", "0-99999999999"])
def test_wrong_cpu_lists(text: str) -> None:
    with pytest.raises(InvalidConfig):
        cpu_list(text)


# -- names ------------------------------------------------------------------------------------------------------


def test_a_fresh_name_is_always_found() -> None:
    assert names.unused(lambda name: False).count("_") == 1
    assert names.unused(lambda name: True).count("_") == 2
