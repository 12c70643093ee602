"""Every command of the documentation does what it says: it is run, and must succeed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import examples
from tests.support import pages
from tests.support.daemon import Daemon, busybox_image, docker_cli, running_daemon

_BLOCKS = [
    block for page in pages.pages() if page.name != "ARCHITECTURE.md" for block in pages.blocks(page) if block.commands
]
_PAGES = sorted({block.page for block in _BLOCKS})
_TIMEOUT_S = 60
_SOURCE = str(pages.ROOT / "src")


class World:
    """A daemon, a folder to work in, and both clients on the PATH."""

    def __init__(self, daemon: Daemon, folder: Path) -> None:
        self.daemon = daemon
        self.folder = folder
        self.images = set(daemon.output("images", "--format", "{{.Repository}}:{{.Tag}}").split())
        programs = folder / "bin"
        programs.mkdir()
        client = f'#!/bin/sh\nexec {sys.executable} -IS {_SOURCE}/corral/cli/__main__.py "$@"\n'
        (programs / "corral").write_text(client)
        (programs / "corral").chmod(0o755)
        self.environment = {
            **daemon.environment(),
            "PATH": f"{programs}:{os.path.dirname(docker_cli())}:{os.environ['PATH']}",
            "HOME": str(folder),
        }

    def clear(self) -> None:
        """Only the images are left that were there in the beginning."""
        shutil.rmtree(self.folder / ".docker", ignore_errors=True)
        self.daemon.remove_all()
        self.daemon.output("network", "prune", "-f")
        self.daemon.output("volume", "prune", "-af")
        for one in self.daemon.get("/vault").json():
            self.daemon.delete(f"/vault/{one['ID']}")
        for name in set(self.daemon.output("images", "--format", "{{.Repository}}:{{.Tag}}").split()) - self.images:
            self.daemon.output("rmi", "-f", name)

    def run(self, command: str) -> str:
        """Empty, or what is wrong with the command."""
        command = examples.completed(command).replace("unix:///var/run/corral.sock", self.daemon.host)
        done = subprocess.run(
            ["nsenter", f"--net=/proc/{self.daemon.space.pid}/ns/net", "sh", "-ec", command],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
        return "" if done.returncode == 0 else f"{command}\n  {done.returncode}: {done.stderr.strip()[-400:]}"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    if os.geteuid() != 0:
        pytest.skip("corrald needs root")
    with running_daemon() as daemon:
        for name in examples.IMAGES:
            image = busybox_image(name, Cmd=["sleep", "1000"], StopSignal="KILL")
            reply = daemon.request("POST", "/images/load", image, {"Content-Type": "application/x-tar"})
            assert reply.status == 200, reply.body
        for name in ("eth0", "eth1"):
            daemon.space.sh(f"ip link add {name} type veth peer name {name}-far")
            daemon.space.sh(f"ip link set {name} up")
        world = World(daemon, tmp_path_factory.mktemp("examples"))
        yield world
        world.clear()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("page", _PAGES)
def test_commands(world: World, page: str) -> None:
    problems = []
    for block in _BLOCKS:
        if block.page != page or all(map(examples.reason_not_to_run, block.commands)):
            continue
        world.clear()
        setup = examples.setup_of(page, block.lines[0])
        wanted = [command for command in block.commands if not examples.reason_not_to_run(command)]
        problems += [f"{page}:{block.line}: {problem}" for problem in map(world.run, [*setup, *wanted]) if problem]
    assert problems == [], "\n".join(problems)


def test_the_table_is_of_use() -> None:
    """Nothing is excused or prepared that no page has."""
    commands = [command for block in _BLOCKS for command in block.commands]
    unused = [part for part in examples.NOT_RUN if not any(part in command for command in commands)]
    unused += [
        f"{page}: {start}"
        for page, start, _ in examples.SETUP
        if not any(block.page == page and block.lines[0].startswith(start) for block in _BLOCKS)
    ]
    assert unused == []
