"""A stage's configuration and variables, instruction by instruction."""

from __future__ import annotations

import pytest

from corral.build import stages, state
from corral.build.dockerfile import parse
from corral.build.problems import DockerfileError
from corral.errors import CorralError
from corral.oci.image import ImageConfig, Rootfs, RunConfig


def after(text: str, base: ImageConfig | None = None, **given: str) -> state.State:
    plan = stages.read(parse("ARG GLOBAL=g\nFROM a\n" + text))
    found, _ = state.State.of(base, plan.escape)
    platforms = {"TARGETARCH": "amd64"}
    values = stages.global_arguments(plan, given, platforms)
    for instruction in plan.stages[0].instructions:
        state.apply(found, instruction.body, state.Scope(given, values, platforms))
    return found


def test_environment() -> None:
    found = after('ENV a=1 b="x y" c=$a\nENV d=$a-$b\nENV old style value\nENV a=2')
    assert found.environment == {
        "PATH": state.DEFAULT_PATH, "a": "2", "b": "x y", "c": "", "d": "1-x y", "old": "style value"
    }  # fmt: skip


def test_arguments() -> None:
    found = after("ARG a=1 b c=$a\nARG GLOBAL\nARG TARGETARCH\nARG OVER=d\nENV a=env", OVER="given", NOT="declared")
    assert found.build_arguments() == {"c": "1", "GLOBAL": "g", "TARGETARCH": "amd64", "OVER": "given"}
    assert found.variables()["a"] == "env"
    assert "NOT" not in found.variables()


def test_commands_and_shell() -> None:
    found = after('CMD ["a"]\nENTRYPOINT x y')
    assert (found.run.entrypoint, found.run.cmd) == (["/bin/sh", "-c", "x y"], ["a"])
    base = ImageConfig(rootfs=Rootfs(), config=RunConfig(cmd=["old"], shell=["/bin/ash", "-ec"]))
    found = after("ENTRYPOINT x", base)
    assert (found.run.entrypoint, found.run.cmd) == (["/bin/ash", "-ec", "x"], None)
    assert after('SHELL ["s"]\nCMD c').run.cmd == ["s", "c"]


def test_directories() -> None:
    found = after("WORKDIR /a\nWORKDIR b\nENV x=c\nWORKDIR $x/..//d")
    assert found.run.working_dir == "/a/b/d"
    assert found.absolute("e/") == "/a/b/d/e/"
    assert found.absolute(".") == "/a/b/d/"
    assert found.absolute("/") == "/"


def test_the_rest() -> None:
    found = after(
        "EXPOSE 80 443/udp 1000-1002 127.0.0.1:8080:90\nVOLUME /a /b\nVOLUME [\"/c d\"]\nUSER u:g\nSTOPSIGNAL SIGINT\n"
        "LABEL a=1 'b c'=2\nONBUILD RUN x\nMAINTAINER me\nHEALTHCHECK --interval=1m30s --retries=2 CMD [\"c\"]"
    )  # fmt: skip
    run = found.run
    assert set(run.exposed_ports or {}) == {"80/tcp", "443/udp", "1000/tcp", "1001/tcp", "1002/tcp", "90/tcp"}
    assert set(run.volumes or {}) == {"/a", "/b", "/c d"}
    assert (run.user, run.stop_signal, run.labels) == ("u:g", "SIGINT", {"a": "1", "b c": "2"})
    assert (run.on_build, found.author) == (["RUN x"], "me")
    assert run.healthcheck is not None
    assert (run.healthcheck.test, run.healthcheck.interval) == (["CMD", "c"], 90 * 10**9)


@pytest.mark.parametrize(
    "text", ["EXPOSE x", "EXPOSE 70000", "EXPOSE 1/x", "EXPOSE 9-1", "STOPSIGNAL NOPE", "ENV a=${b:?no}", "WORKDIR $x"]
)
def test_refusals(text: str) -> None:
    with pytest.raises((DockerfileError, CorralError)):
        after(text)


def test_triggers_are_taken_off() -> None:
    base = ImageConfig(rootfs=Rootfs(), config=RunConfig(on_build=["RUN x"]))
    found, triggers = state.State.of(base, "\\")
    assert (triggers, found.run.on_build) == (["RUN x"], None)
