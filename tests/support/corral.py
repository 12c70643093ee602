"""The `corral` client as its users run it: bin/corral, as a process."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.support.daemon import Daemon

BIN = Path(__file__).resolve().parents[2] / "bin"
CORRAL = str(BIN / "corral")
_TIMEOUT_S = 60


def environment(daemon: Daemon, **more: str) -> dict[str, str]:
    """For a client of a daemon, with nothing of the user's configuration."""
    return {**daemon.environment(), "CORRAL_HOST": daemon.host, **more}


def corral(daemon: Daemon, *words: str, input: str = "", **more: str) -> subprocess.CompletedProcess[str]:
    """Run it to its end; `more` are variables of its environment."""
    return subprocess.run(
        [CORRAL, *words],
        env=environment(daemon, **more), input=input, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False,
    )  # fmt: skip
