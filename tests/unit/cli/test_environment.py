"""`bin/environment.sh`: a start that finds everything ready does no work; what is stale is noticed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

_ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with an environment that looks ready."""
    shutil.copytree(_ROOT / "bin", tmp_path / "bin")
    shutil.copy(_ROOT / "pyproject.toml", tmp_path)
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "python").symlink_to(sys.executable)
    (tmp_path / ".venv" / "ready-run").touch()
    return tmp_path


def _source(checkout: Path, program: str) -> subprocess.CompletedProcess[str]:
    """Run a line after sourcing, without a single program on PATH."""
    fake = 'make_environment() { echo "would make $1"; }'
    script = f'root={checkout}; . "$root/bin/environment.sh"; {fake}; {program}; echo "$python"'
    return subprocess.run(
        ["/bin/sh", "-c", script], env={"PATH": "/nonexistent"}, capture_output=True, text=True, check=False
    )


def test_a_ready_environment_costs_no_process(checkout: Path) -> None:
    done = _source(checkout, "need_environment run")
    assert (done.stdout, done.stderr) == (f"{checkout}/.venv/bin/python\n", "")


@pytest.mark.parametrize("changed", ["pyproject.toml", "bin/packages-run.apt"])
def test_a_changed_list_is_noticed(checkout: Path, changed: str) -> None:
    stamp = (checkout / ".venv" / "ready-run").stat().st_mtime
    os.utime(checkout / changed, (stamp + 5, stamp + 5))
    assert _source(checkout, "need_environment run").stdout.startswith("would make run\n")


def test_a_lost_interpreter_is_noticed(checkout: Path) -> None:
    (checkout / ".venv" / "bin" / "python").unlink()
    (checkout / ".venv" / "bin" / "python").symlink_to("/nonexistent/python3.11")
    assert _source(checkout, "need_environment run").stdout.startswith("would make run\n")


def test_tests_need_more_than_running(checkout: Path) -> None:
    assert _source(checkout, "need_environment test").stdout.startswith("would make test\n")


def test_the_client_needs_only_a_python(checkout: Path) -> None:
    assert _source(checkout, "find_python").stdout == f"{checkout}/.venv/bin/python\n"


@pytest.mark.parametrize("program", ["corral", "corrald", "test"])
def test_programs_are_plain_shell(program: str) -> None:
    assert subprocess.run(["/bin/sh", "-n", str(_ROOT / "bin" / program)], check=False).returncode == 0
