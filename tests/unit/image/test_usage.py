"""Disk use of images, counted from what they reach."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from corral.image.usage import Removal, layer_part, measure

PARTS = [f"p{number}" for number in range(8)]
REACHES = st.dictionaries(st.sampled_from("abcdef"), st.frozensets(st.sampled_from(PARTS)), max_size=6)
SIZES = st.fixed_dictionaries({}, optional={part: st.integers(0, 1000) for part in PARTS})


def test_shared_and_unique() -> None:
    reaches = {"a": frozenset(("base", "x")), "b": frozenset(("base", "y", "gone"))}
    usage = measure(reaches, {"base": 100, "x": 1, "y": 2, "nobody": 50}, ["a"], frozenset())
    assert (usage.images["a"].size, usage.images["a"].shared, usage.images["a"].unique) == (101, 100, 1)
    assert (usage.images["b"].size, usage.images["b"].shared) == (102, 100)
    assert (usage.total, usage.reclaimable) == (103, 2)


def test_what_a_container_stands_on_is_not_reclaimable() -> None:
    reaches = {"a": frozenset((layer_part("c"), "blob", "config"))}
    usage = measure(reaches, {layer_part("c"): 10, "blob": 5, "config": 1}, (), frozenset((layer_part("c"), "blob")))
    assert (usage.total, usage.reclaimable) == (16, 1)


@given(REACHES, SIZES, st.frozensets(st.sampled_from(PARTS)))
def test_removing_all_frees_what_is_reclaimable(
    reaches: dict[str, frozenset[str]], sizes: dict[str, int], kept: frozenset[str]
) -> None:
    usage = measure(reaches, sizes, (), kept)
    removal = Removal(reaches, sizes, kept)
    assert sum(removal.take(digest) for digest in reaches) == usage.reclaimable <= usage.total
    assert all(0 <= found.unique <= found.size for found in usage.images.values())
    assert usage.total >= max((found.size for found in usage.images.values()), default=0)
