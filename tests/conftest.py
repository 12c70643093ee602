"""Fixtures that every kind of test may ask for."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytest.register_assert_rewrite("tests.support.daemon")

from tests.support import wheels  # noqa: E402
from tests.support.daemon import Daemon, Engine, checked_daemon, running_daemon  # noqa: E402  after the line above


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--engine", help="socket of another engine (dockerd) to run the compatibility tests against")


@pytest.fixture(scope="session")
def shared_daemon() -> Iterator[Daemon]:
    """One corrald for the whole run; it must hold nothing at the end that it did not hold at the start."""
    if os.geteuid() != 0:
        pytest.skip("corrald needs root")
    with checked_daemon() as started:
        yield started


@pytest.fixture(scope="session")
def shared_engine(request: pytest.FixtureRequest) -> Engine:
    """The engine under test: the session's corrald, or the one given with --engine."""
    given = request.config.getoption("--engine")
    if not given:
        ours: Daemon = request.getfixturevalue("shared_daemon")
        return ours
    other = Engine(given)
    other.load_image()
    return other


@pytest.fixture
def engine(shared_engine: Engine) -> Iterator[Engine]:
    """The engine under test; containers that a test leaves behind are removed after it."""
    before = shared_engine.containers()
    yield shared_engine
    shared_engine.remove_all(but=before)


@pytest.fixture
def daemon(shared_daemon: Daemon) -> Iterator[Daemon]:
    """The session's corrald, whatever --engine says; containers that a test leaves behind are removed after it."""
    yield shared_daemon
    shared_daemon.remove_all()


@pytest.fixture
def new_daemon() -> Iterator[Callable[..., Daemon]]:
    """Makes daemons for tests that kill or configure them: `new_daemon(*flags)`."""
    if os.geteuid() != 0:
        pytest.skip("corrald needs root")
    with contextlib.ExitStack() as stack:
        yield lambda *flags, **more: stack.enter_context(running_daemon(*flags, **more))


@pytest.fixture
def own_daemon(new_daemon: Callable[..., Daemon]) -> Daemon:
    """A daemon that a test may kill."""
    return new_daemon()


@pytest.fixture(scope="session")
def wheelhouse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Corral's wheel and those of what it needs; the copy of the checkout that it was made from is gone."""
    return wheels.house(tmp_path_factory.mktemp("wheels"))
