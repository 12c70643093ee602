"""Build checks, what is attested, what an image tells of its steps, and contexts that stay."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from corral.build import attest, checks, kept, stages
from corral.build.dockerfile import parse
from corral.build.request import Request


def rules(text: str) -> list[str]:
    return [warned.rule for warned in checks.look(stages.read(parse(text)), {})]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("FROM a AS Big", ["StageNameCasing"]),
        ("FROM a AS x\nFROM b AS x", ["DuplicateStageName"]),
        ("FROM a AS scratch", ["ReservedStageName"]),
        ("FROM --platform=linux/amd64 a", ["FromPlatformFlagConstDisallowed"]),
        ("FROM --platform=$TARGETPLATFORM a", ["RedundantTargetPlatform"]),
        ("FROM --platform=$BUILDPLATFORM a", []),
        ("FROM a:${V}", ["UndefinedArgInFrom"]),
        ("ARG V=1\nFROM a:${V}", []),
        ("FROM a\nMAINTAINER x", ["MaintainerDeprecated"]),
        ("FROM a\nCMD [\"x\"]\nCMD [\"y\"]", ["MultipleInstructionsDisallowed"]),
        ("FROM a\nCMD x", ["JSONArgsRecommended"]),
        ("FROM a\nWORKDIR x", ["WorkdirRelativePath"]),
        ("FROM a\nWORKDIR /x\nWORKDIR y", []),
        ("FROM a\nENV API_KEY=1\nARG password\nENV PUBLIC_KEY=2", ["SecretsUsedInArgOrEnv"] * 2),
        ("FROM scratch\nCOPY $x /", ["UndefinedVar"]),
        ("# check=skip=all\nFROM a AS Big\nMAINTAINER x", []),
        ("# check=skip=StageNameCasing;error=true\nFROM a AS Big\nMAINTAINER x", ["MaintainerDeprecated"]),
    ],
)  # fmt: skip
def test_rules(text: str, found: list[str]) -> None:
    assert rules(text) == found


def test_provenance_tells_no_values_of_arguments() -> None:
    request = Request(stages.read(parse("FROM a\nARG TOKEN")), arguments={"TOKEN": "hush"})
    kind, predicate = attest.provenance(request, "2020-01-01T00:00:00Z")
    assert kind == "https://slsa.dev/provenance/v0.2" and b"hush" not in predicate
    assert json.loads(predicate)["invocation"]["parameters"]["args"] == ["TOKEN"]


def test_packages() -> None:
    status = "Package: a\nVersion: 1\nStatus: install ok installed\nDescription: x\n  more: y\n\nPackage: b\n" \
             "Status: deinstall ok not-installed\n\n"  # fmt: skip
    assert attest.debian(status) == [{"kind": "deb", "name": "a", "version": "1"}]
    assert attest.alpine("P:musl\nV:1.2\nF:lib\n\n") == [{"kind": "apk", "name": "musl", "version": "1.2"}]
    _, document = attest.sbom(attest.debian(status), "image", "now")
    assert json.loads(document)["packages"][0]["externalRefs"][0]["referenceLocator"] == "pkg:deb/a@1"


def test_contexts_that_stay(tmp_path: Path) -> None:
    class Workers:
        async def call(self, op: str, **fields: Any) -> dict[str, Any]:
            with open(fields["pipe"], "rb") as file:
                await asyncio.to_thread(file.read)
            return {}

    async def stream() -> Any:
        yield b""

    entries = {"a": ["f", 0o644, 1, 5, ""], "b": ["f", 0o644, 1, 5, ""]}

    async def check() -> None:
        found = kept.Contexts(str(tmp_path / "c"), Workers())  # type: ignore[arg-type]
        first, missing = await found.open("key", entries)
        assert missing == ["a", "b"]
        second, missing = await found.open("key", entries)  # the first is in use: a folder of its own
        assert missing == ["a", "b"] and found.get(second).folder != found.get(first).folder
        await found.fill(first, stream())
        found.close(first)
        found.close(second)
        again, missing = await found.open("key", {**entries, "b": ["f", 0o644, 1, 6, ""]})
        assert missing == ["b"]
        found.close(again)
        with pytest.raises(kept.NoSuchContext):
            found.get(again)
        for bad in ("", "/a", "a/../../b"):
            with pytest.raises(kept.BadManifest):
                await found.open("key", {bad: ["f", 0, 0, 0, ""]})
        for number in range(20):
            opened, _ = await found.open(f"key{number}", entries)
            found.close(opened)
        assert len([path for path in (tmp_path / "c").iterdir() if not path.name.startswith("gone-")]) == 8
        found.forget()
        await asyncio.get_running_loop().shutdown_default_executor()
        assert list((tmp_path / "c").iterdir()) == []

    asyncio.run(check())
