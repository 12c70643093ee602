"""Values of flags: what is read, what is refused and how."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.cli import values


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("512", 512),
        ("64m", 64 << 20),
        ("1.5GiB", 3 << 29),
        ("2kb", 2048),
        ("1T", 1 << 40),
        ("3b", 3),
        ("0.5g", 1 << 29),
    ],
)
def test_size(text: str, size: int) -> None:
    assert values.size_bytes(text) == size


@pytest.mark.parametrize("text", ["", "x", "64mm", "-1", "1.2.3", "m", "1ib", "٣m", "."])
def test_size_refused(text: str) -> None:
    with pytest.raises(ValueError, match="invalid size: '"):
        values.size_bytes(text)


@given(st.integers(0, 2**50), st.sampled_from(["", "b", "k", "KB", "Mib", "g"]))
def test_size_of_whole_numbers_is_exact(number: int, unit: str) -> None:
    power = {"": 0, "b": 0, "k": 1, "m": 2, "g": 3}[unit[:1].lower()]
    assert values.size_bytes(f"{number}{unit}") == number << 10 * power


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("0", 0),
        ("1s", 10**9),
        ("1m30s", 90 * 10**9),
        ("1.5h", 5400 * 10**9),
        ("-2ms", -2 * 10**6),
        ("3us", 3000),
        (".5s", 5 * 10**8),
    ],
)
def test_duration(text: str, nanoseconds: int) -> None:
    assert values.duration_ns(text) == nanoseconds


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "invalid duration"),
        ("1", "missing unit"),
        ("1x", 'unknown unit "x"'),
        ("s", "invalid"),
        ("1.2.3s", "invalid"),
        ("-", "invalid"),
    ],
)
def test_duration_refused(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        values.duration_ns(text)


@given(st.text())
def test_duration_is_read_or_refused(text: str) -> None:
    try:
        assert isinstance(values.duration_ns(text), int)
    except ValueError:
        pass


@pytest.mark.parametrize(
    ("text", "nano"), [("1.5", 1_500_000_000), ("2", 2 * 10**9), ("1/2", 5 * 10**8), (".25", 25 * 10**7)]
)
def test_cpus(text: str, nano: int) -> None:
    assert values.nano_cpus(text) == nano


@pytest.mark.parametrize("text", ["", "abc", "1/0", "-1", "1.0000000001"])
def test_cpus_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"failed to parse|too precise"):
        values.nano_cpus(text)


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1, max_size=5))
def test_csv_fields_come_back(fields: list[str]) -> None:
    line = ",".join('"' + field.replace('"', '""') + '"' for field in fields)
    assert values.csv_fields(line) == fields


@pytest.mark.parametrize("text", ['a"b', '"a', '"a"b'])
def test_csv_refused(text: str) -> None:
    with pytest.raises(ValueError, match="parse error"):
        values.csv_fields(text)


@pytest.mark.parametrize(("text", "value"), [("10", 10), ("-3", -3), ("0x1f", 31)])
def test_whole(text: str, value: int) -> None:
    assert values.whole(text) == value


@pytest.mark.parametrize("text", ["", "1.5", " 1", "x", "1_0_", str(2**63)])
def test_whole_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"strconv\.ParseInt"):
        values.whole(text)
