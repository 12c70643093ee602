"""Corral from a wheel, in a fresh environment without a network: all its programs, and nothing of the checkout."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import wheels
from tests.support.daemon import IMAGE, Daemon

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="an environment without a network needs root"),
    pytest.mark.timeout(300),
]


@pytest.fixture(scope="module")
def programs(wheelhouse: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an environment's programs."""
    return wheels.environment(tmp_path_factory.mktemp("installed"), wheelhouse) / "bin"


@pytest.fixture(scope="module")
def daemon(programs: Path) -> Iterator[Daemon]:
    class Installed(Daemon):
        program = ("env", "-u", "PYTHONPATH", str(programs / "corrald"))

    found = Installed()
    try:
        found.launch()
        found.load_image()
        yield found
    finally:
        found.close()


def said(*words: str, **variables: str) -> str:
    """What a command prints, in an environment that has nothing of ours."""
    done = subprocess.run(
        words, cwd="/", env={"PATH": "/usr/bin:/bin", **variables},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_versions(programs: Path, tmp_path: Path) -> None:
    assert said(str(programs / "corral"), "--version") == "Corral version 0.1.0"
    assert said(str(programs / "corrald"), "--version") == "Corral version 0.1.0"
    assert said(str(programs / "corral-runtime"), "--version").startswith("corral-runtime version 0.1.0")
    for name, real in (("docker", "corral"), ("oci", "corral-runtime")):
        (tmp_path / name).symlink_to(programs / real)
    assert said(str(tmp_path / "docker"), "--version") == "Corral version 0.1.0"
    assert said(str(tmp_path / "oci"), "--version").startswith("corral-runtime")
    assert (
        said("corral", "--version", PATH=f"{programs}:/usr/bin:/bin", PYTHONHOME="/nowhere") == "Corral version 0.1.0"
    )


def test_the_client_does_without_site(programs: Path) -> None:
    """It is what takes longest in a script as pip makes it."""
    assert "-IS" in (programs / "corral").read_text()


def test_types_are_told(programs: Path) -> None:
    code = "import corral, os; print(os.path.exists(os.path.dirname(corral.__file__) + '/py.typed'))"
    assert said(str(programs / "python"), "-c", code) == "True"


def test_containers_run(programs: Path, daemon: Daemon) -> None:
    corral = (str(programs / "corral"), "-H", daemon.host)
    assert said(*corral, "run", "--rm", IMAGE, "echo", "hello") == "hello"
    assert said(*corral, "run", "-d", "--name", "kept", IMAGE, "sleep", "1000")
    assert said(*corral, "exec", "kept", "hostname") == said(*corral, "inspect", "-f", "{{.Config.Hostname}}", "kept")
    said(*corral, "rm", "-f", "kept")


def test_images_are_built(programs: Path, daemon: Daemon, tmp_path: Path) -> None:
    """With worker processes, which are started from the environment, too."""
    (tmp_path / "Dockerfile").write_text(f"FROM {IMAGE}\nRUN echo made > /made\n")
    corral = (str(programs / "corral"), "-H", daemon.host)
    said(*corral, "build", "-q", "-t", "made", str(tmp_path))
    assert said(*corral, "run", "--rm", "made", "cat", "/made") == "made"


def test_quickstart_finds_the_daemon_beside_the_client(programs: Path, tmp_path: Path) -> None:
    """It is started, and says what is wrong with the option that it got."""
    done = subprocess.run(
        [str(programs / "corral"), "-H", f"unix://{tmp_path}/sock", "quickstart", "--daemon-log", str(tmp_path / "log"),
         "--daemon-option", "no-such-option=1"],
        cwd="/", env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "corrald ended with status 1" in done.stderr
    assert "no-such-option" in done.stderr


def test_the_host_is_looked_at(programs: Path) -> None:
    assert "overlayfs        works" in said(str(programs / "corral"), "setup", "--check")


def test_the_registry_is_there(programs: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [str(programs / "corral"), "registry", "gc", "--root", str(tmp_path / "registry")],
        cwd="/", env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert "there is no registry" in done.stderr, done.stderr
