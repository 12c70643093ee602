"""Corral as a wheel: built from a copy of the checkout, with the wheels of what it needs; and environments of these."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
_PYTHON = os.path.realpath(sys.executable)
_TIMEOUT_S = 100


def copied_checkout(folder: Path) -> Path:
    """A copy of what packages are made from."""
    made = folder / "checkout"
    for name in ("src", "packaging"):
        left = shutil.ignore_patterns("__pycache__", "*.egg-info")
        shutil.copytree(ROOT / name, made / name, ignore=left, symlinks=True)
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, made)
    return made


def house(folder: Path) -> Path:
    """Corral's wheel and those of its dependencies, as docs/install.md says."""
    wheels, checkout = folder / "wheels", copied_checkout(folder)
    words = ["wheel", "-q", "--disable-pip-version-check", "-w", str(wheels), str(checkout)]
    done = subprocess.run(
        [sys.executable, "-m", "pip", *words], cwd="/", capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
    )
    if "No matching distribution found for setuptools" in done.stderr:
        pytest.skip("no package index can be reached")
    assert done.returncode == 0, done.stderr
    shutil.rmtree(checkout)
    return wheels


def environment(folder: Path, wheels: Path) -> Path:
    """A fresh environment with Corral in it, made without a network."""
    made = folder / "environment"
    subprocess.run([_PYTHON, "-m", "venv", str(made)], check=True, timeout=_TIMEOUT_S)
    words = ["install", "-q", "--disable-pip-version-check", "--no-index", "--find-links", str(wheels), "corral"]
    subprocess.run(
        ["unshare", "-n", str(made / "bin" / "pip"), *words],
        env={"PATH": os.environ["PATH"], "PIP_CONFIG_FILE": "/dev/null"}, cwd="/", check=True, timeout=_TIMEOUT_S,
    )  # fmt: skip
    return made
