"""Rules of the house that no linter knows."""

from __future__ import annotations

import ast
import importlib
import os
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

import corral
from corral import errors
from corral.api import statuses
from corral.api.routes import ROUTES

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
    public = SOURCE / "client" / "__init__.py"  # the names that programs of other people import
    assert [str(path) for path in SOURCE.rglob("__init__.py") if path.read_text() and path != public] == []
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


# How each operation is exercised: a pattern that must be found in the tests that talk to a real daemon.
EXERCISED = {
    "GET /_ping": '"/_ping"',
    "HEAD /_ping": '"HEAD", "/_ping"',
    "GET /version": "/version",
    "GET /info": '"info"|/info',
    "GET /plugins": "plugin ls",
    "GET /events": '"events"|/events',
    "GET /system/df": "/system/df",
    "GET /containers/json": '"ps"|/containers/json',
    "POST /containers/create": '"create"',
    "POST /containers/prune": '"prune"|containers.prune',
    "GET /containers/{name}/json": '"inspect"|engine.inspect',
    "GET /containers/{name}/top": '"top"',
    "GET /containers/{name}/logs": '"logs"',
    "GET /containers/{name}/changes": '"diff"',
    "GET /containers/{name}/export": '"export"',
    "GET /containers/{name}/stats": "/stats",
    "GET /containers/{name}/archive": '"cp"',
    "HEAD /containers/{name}/archive": '"cp"',
    "PUT /containers/{name}/archive": '"PUT", f"/containers/',
    "POST /containers/{name}/start": '"start"',
    "POST /containers/{name}/stop": '"stop"',
    "POST /containers/{name}/restart": '"restart"',
    "POST /containers/{name}/kill": '"kill"',
    "POST /containers/{name}/pause": '"pause"',
    "POST /containers/{name}/unpause": '"unpause"',
    "POST /containers/{name}/rename": '"rename"',
    "POST /containers/{name}/update": '"update"',
    "POST /containers/{name}/wait": '"wait"',
    "POST /containers/{name}/resize": "TIOCSWINSZ|resize",
    "POST /system/check": '"system", "check"',
    "GET /containers/{name}/attach/ws": "/attach/ws",
    "POST /containers/{name}/attach": '"attach"',
    "DELETE /containers/{name}": '"rm"',
    "POST /containers/{name}/exec": '"exec"',
    "POST /exec/{id}/start": '"exec"',
    "POST /exec/{id}/resize": "TIOCSWINSZ|resize",
    "GET /exec/{id}/json": "/exec/.*/json",
    "GET /images/json": "/images/json",
    "POST /images/load": '"load"',
    "POST /images/create": '"pull"',
    "GET /images/search": '"search"',
    "GET /distribution/{name*}/json": "get_registry_data",
    "POST /auth": '"/auth"',
    "POST /images/prune": '"image", "prune"',
    "GET /images/missing": "/images/missing",
    "POST /images/gc": '"image", "gc"|/images/gc',
    "GET /images/get": '"save"',
    "GET /images/{name*}/get": '"save"',
    "GET /images/{name*}/json": '"image", "inspect"',
    "GET /images/{name*}/attestations": "/attestations",
    "GET /images/{name*}/history": '"history"',
    "POST /images/{name*}/push": '"push"',
    "POST /images/{name*}/tag": '"tag"',
    "DELETE /images/{name*}": '"rmi"',
    "POST /commit": '"commit"',
    "POST /volumes/import": '"volume", "import"',
    "POST /volumes/{name}/rename": '"volume", "rename"',
    "POST /volumes/{name}/clone": '"volume", "clone"',
    "GET /volumes/{name}/export": '"volume", "export"',
    "POST /containers/{name}/mounts": '"mount", "add"',
    "GET /containers/{name}/traffic": '"traffic", ',
    "GET /containers/{name}/egress": '"egress", "ls"',
    "GET /containers/{name}/egress/log": "/egress/log",
    "DELETE /containers/{name}/mounts": '"mount", "rm"',
    "POST /containers/{name}/devices": '"device", "add"',
    "DELETE /containers/{name}/devices": '"device", "rm"',
    "GET /volumes/{name}/snapshots": '"volume", "snapshots"',
    "POST /volumes/{name}/snapshots": '"volume", "snapshot"',
    "DELETE /volumes/{name}/snapshots/{snapshot}": '"volume", "forget"',
    "POST /volumes/{name}/restore": '"volume", "restore"',
    "GET /containers/{name}/snapshots": '/snapshots"\\)',
    "POST /containers/{name}/snapshots": '"container", "snapshot"',
    "DELETE /containers/{name}/snapshots/{snapshot}": '"container", "forget"',
    "POST /containers/{name}/rewind": '"container", "rewind"',
    "GET /vault": '"secret", "ls"|/vault',
    "POST /vault/create": '"secret", "create"',
    "GET /vault/{name}": '"secret", "inspect"',
    "POST /vault/{name}/update": '"secret", "update"',
    "DELETE /vault/{name}": '"secret", "rm"',
    "POST /build": '"/build"',
    "POST /build/prune": "/build/prune",
    "POST /corral/build/context": '"/corral/build/context"',
    "PUT /corral/build/context/{id}": '"PUT", f"/corral/build/context/',
    "POST /corral/build": '"/corral/build"',
    "GET /networks": '"network", "ls"|/networks',
    "POST /networks/create": '"network", "create"',
    "POST /networks/prune": '"network", "prune"',
    "GET /networks/{name}": "/networks/",
    "POST /networks/{name}/connect": '"network", "connect"',
    "POST /networks/{name}/disconnect": '"network", "disconnect"',
    "DELETE /networks/{name}": '"network", "rm"',
    "GET /ports/check": "/ports/check",
    "GET /volumes": '"volume", "ls"|/volumes',
    "POST /volumes/create": '"volume", "create"',
    "POST /volumes/prune": '"volume", "prune"',
    "GET /volumes/{name}": '"volume", "inspect"|/volumes/',
    "DELETE /volumes/{name}": '"volume", "rm"',
}
SWARM = ("swarm", "nodes", "services", "tasks", "secrets", "configs")  # all answered by one function


def test_every_operation_is_exercised_against_a_real_daemon() -> None:
    folder = Path(__file__).parents[1]
    text = "".join(path.read_text() for kind in ("compat", "integration") for path in (folder / kind).glob("*.py"))
    offered = {f"{route.method} {route.pattern}" for route in ROUTES if route.pattern.split("/")[1] not in SWARM}
    assert offered - EXERCISED.keys() == set(), "name a test of it"
    assert EXERCISED.keys() - offered == set()
    assert [operation for operation, pattern in EXERCISED.items() if not re.search(pattern, text)] == []
