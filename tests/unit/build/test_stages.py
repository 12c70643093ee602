"""The graph of stages: what is needed, what names stand for, circles, ARGs of the global scope."""

from __future__ import annotations

import pytest

from corral.build import stages
from corral.build.dockerfile import parse
from corral.build.problems import DockerfileError
from corral.oci.platform import Platform

PLATFORMS = stages.platform_variables(
    Platform(os="linux", architecture="amd64"), Platform(os="linux", architecture="arm", variant="v7")
)


def plan(text: str) -> stages.Plan:
    return stages.read(parse(text))


def needed(text: str, target: str = "", **arguments: str) -> list[int]:
    found = plan(text)
    values = stages.global_arguments(found, arguments, PLATFORMS)
    return stages.needed(found, stages.target_of(found, target), values)


def test_only_what_is_needed() -> None:
    text = "FROM a AS x\nFROM b AS unused\nFROM x AS y\nFROM c\nCOPY --from=y / /\nRUN --mount=from=0,target=/m x\n"
    assert needed(text) == [0, 2, 3]
    assert needed(text, "unused") == [1]
    assert needed(text, "Y") == [0, 2]
    assert needed(text, "1") == [1]


def test_a_stage_may_use_a_later_one() -> None:
    assert needed("FROM a AS x\nCOPY --from=late / /\nFROM b AS late\nFROM x") == [0, 1, 2]


@pytest.mark.parametrize(
    "text",
    [
        "FROM a AS x\nCOPY --from=y / /\nFROM b AS y\nCOPY --from=x / /\nFROM x",
        "FROM a AS x\nCOPY --from=x / /",
        "FROM a AS x\nCOPY --from=y / /\nFROM x AS y\nFROM y",
    ],
)
def test_circles(text: str) -> None:
    with pytest.raises(DockerfileError, match="circular dependency detected on stage: "):
        needed(text)


def test_ten_thousand_stages() -> None:
    text = "FROM a AS s0\n" + "".join(f"FROM s{n} AS s{n + 1}\n" for n in range(3000))
    assert len(needed(text)) == 3001


def test_unknown_target() -> None:
    with pytest.raises(DockerfileError, match='target stage "nope" could not be found'):
        needed("FROM a", "nope")


def test_global_arguments_choose_bases() -> None:
    text = "ARG V=1\nARG IMAGE=a:$V\nFROM ${IMAGE} AS x\nFROM --platform=$BUILDPLATFORM x${V}\nFROM ${WHICH:-x}"
    found = plan(text)
    values = stages.global_arguments(found, {"V": "2"}, PLATFORMS)
    assert stages.base_of(found, found.stages[0], values) == stages.Base(None, "a:2", "")
    assert stages.base_of(found, found.stages[1], values) == stages.Base(None, "x2", "linux/amd64")
    assert stages.base_of(found, found.stages[2], values) == stages.Base(0, "x", "")
    assert values["TARGETVARIANT"] == "v7"


def test_a_blank_base() -> None:
    found = plan("FROM ${NOTHING}")
    with pytest.raises(DockerfileError, match=r"base name \(\$\{NOTHING\}\) should not be blank"):
        stages.base_of(found, found.stages[0], {})


def test_a_name_means_the_stage_before() -> None:
    found = plan("FROM a AS x\nFROM x AS x\nFROM x")
    assert stages.base_of(found, found.stages[1], {}).stage == 0
    assert stages.base_of(found, found.stages[2], {}).stage == 1
    assert stages.base_of(found, found.stages[0], {}).stage is None
