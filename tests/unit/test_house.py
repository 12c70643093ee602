"""Rules of the house that no linter knows."""

from __future__ import annotations

import ast
import importlib
import os
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import corral
from corral import errors
from corral.api import statuses

SOURCE = Path(corral.__file__).parent
KINDS = set(errors.CorralError.__subclasses__())


def modules() -> list[str]:
    """Every module of the package; a `__main__` runs when it is imported and has no errors of its own."""
    found = [info.name for info in pkgutil.walk_packages([str(SOURCE)], "corral.")]
    return [name for name in found if not name.endswith("__main__")]


def concrete_errors() -> list[type[errors.CorralError]]:
    for name in modules():
        importlib.import_module(name)
    pending, found = list(KINDS), []
    while pending:
        for kind in pending.pop().__subclasses__():
            if kind.__module__.startswith("corral."):
                found.append(kind)
            pending.append(kind)
    return found


def test_packages_have_empty_init_files() -> None:
    assert [str(path) for path in SOURCE.rglob("__init__.py") if path.read_text()] == []
    folders = {path.parent for path in SOURCE.rglob("*.py")}
    assert [str(folder) for folder in folders if not (folder / "__init__.py").exists()] == []


def test_an_error_is_of_one_kind_and_says_what_it_is() -> None:
    found = concrete_errors()
    assert len(found) > 30
    for error in found:
        assert len(KINDS & set(error.__mro__)) == 1, error
        assert error.__doc__ or error.__name__.startswith("_"), error
        assert statuses.of(error.__new__(error)) is not None, error


def test_errors_live_beside_the_code_that_raises_them() -> None:
    assert {kind.__module__ for kind in KINDS} == {"corral.errors"}


def test_every_module_says_why_it_exists() -> None:
    silent = []
    for path in SOURCE.rglob("*.py"):
        if path.name != "__init__.py" and not ast.get_docstring(ast.parse(path.read_text())):
            silent.append(str(path.relative_to(SOURCE)))
    assert silent == []


HEAVY = ("asyncio", "dataclasses", "logging", "subprocess", "typing", "msgspec", "inspect", "pathlib")


@pytest.mark.parametrize("module", ["corral.shim.launcher", "corral.runtime.__main__"])
def test_the_small_half_stays_small(module: str) -> None:
    program = f"import sys, {module}; print(*sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(SOURCE.parent)}
    run = subprocess.run(
        [sys.executable, "-S", "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    assert sorted(set(HEAVY) & set(run.stdout.split())) == []


def test_the_daemon_has_no_heavy_imports_that_it_does_not_need() -> None:
    program = "import sys, corral.daemon; print(*sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(SOURCE.parent)}
    run = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert sorted({"http.client", "requests", "unittest", "doctest", "xml", "yaml"} & set(run.stdout.split())) == []
