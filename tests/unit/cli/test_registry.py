"""`corral registry` becomes the server with the flags that were given."""

from __future__ import annotations

import os

import pytest

from corral.cli import registry
from corral.cli.main import main


class _Became(Exception):
    pass


@pytest.mark.parametrize(
    ("words", "handed_over"),
    [
        (["serve", "--root", "/r"], ["serve", "--root", "/r"]),
        (
            ["serve", "--root=/r", "--listen", ":5000", "--read-only", "--workers", "3"],
            ["serve", "--root", "/r", "--listen", ":5000", "--read-only", "--workers", "3"],
        ),
        (["gc", "--config", "/c", "--dry-run", "--grace=0s"], ["gc", "--config", "/c", "--dry-run", "--grace", "0s"]),
    ],
)
def test_hands_over(monkeypatch: pytest.MonkeyPatch, words: list[str], handed_over: list[str]) -> None:
    seen: list[str] = []

    def become(path: str, arguments: list[str]) -> None:
        seen.extend(arguments)
        raise _Became

    monkeypatch.setattr(os, "execv", become)
    monkeypatch.setattr(registry, "_interpreter", lambda: "/python")
    with pytest.raises(_Became):
        main(["registry", *words])
    assert seen[:4] == ["/python", "-m", "corral.registry", words[0]]
    pairs = " ".join(seen[4:])
    for word in handed_over[1:]:
        assert word in pairs
    assert len(seen) == 3 + len(handed_over)
