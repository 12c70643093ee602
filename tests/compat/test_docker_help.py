"""Every command and flag that the docker CLI's help shows is in `corral`, or stands here with the reason why not."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

from corral.cli import commands
from corral.cli.main import GLOBAL_FLAGS

_DOCKER = shutil.which("docker")
_TIMEOUT_S = 20

pytestmark = pytest.mark.skipif(_DOCKER is None, reason="compares with the docker CLI, which is not installed")

_SWARM = "Corral has no swarm"
_WINDOWS = "Windows containers only"
_CLUSTER = "cluster volumes need a swarm"
_CRIU = "needs CRIU; the daemon has no checkpoints"

# "GROUP", "GROUP COMMAND" or "COMMAND --flag" -> why it is not there
_NOT_THERE = {
    "checkpoint": _CRIU,
    "start --checkpoint": _CRIU,
    "start --checkpoint-dir": _CRIU,
    "trust": "Notary, which keeps these signatures, is no longer run by anybody",
    "manifest": "experimental; the registry keeps indices, and `push` sends every platform of an image",
    "plugin create": "plugins are programs with a socket, not images that the daemon runs",
    "plugin disable": "plugins are programs with a socket, not images that the daemon runs",
    "plugin enable": "plugins are programs with a socket, not images that the daemon runs",
    "plugin inspect": "plugins are programs with a socket, not images that the daemon runs",
    "plugin install": "plugins are programs with a socket, not images that the daemon runs",
    "plugin push": "plugins are programs with a socket, not images that the daemon runs",
    "plugin rm": "plugins are programs with a socket, not images that the daemon runs",
    "plugin set": "plugins are programs with a socket, not images that the daemon runs",
    "plugin upgrade": "plugins are programs with a socket, not images that the daemon runs",
    "node": _SWARM,
    "service": _SWARM,
    "stack": _SWARM,
    "swarm": _SWARM,
    "config create --template-driver": "templates take their values from a swarm's services",
    "secret create --template-driver": "templates take their values from a swarm's services",
    "secret create --driver": "secret drivers are managed plugins",
    "volume update": _CLUSTER,
    "volume ls --cluster": _CLUSTER,
    **{
        f"volume create --{name}": _CLUSTER
        for name in (
            "availability", "group", "limit-bytes", "required-bytes", "scope", "secret", "sharing",
            "topology-preferred", "topology-required", "type",
        )
    },
    **{
        f"{command} --{name}": _WINDOWS
        for command in ("run", "create")
        for name in ("cpu-count", "cpu-percent", "io-maxbandwidth", "io-maxiops")
    },
    "build --isolation": _WINDOWS,
}  # fmt: skip


def _help(*words: str) -> str:
    done = subprocess.run(
        [str(_DOCKER), *words, "--help"], capture_output=True, text=True, timeout=_TIMEOUT_S, check=True
    )
    return done.stdout


def _members(text: str) -> list[str]:
    """The commands that a help text lists."""
    found: list[str] = []
    listing = False
    for line in text.splitlines():
        if line.endswith("Commands:") and not line.startswith(" "):
            listing = True
        elif line and not line.startswith(" "):
            listing = False
        elif listing and (member := re.match(r"  ([\w-]+)\*? ", line)):
            found.append(member[1])
    return found


def _flags(text: str) -> dict[str, str]:
    """The flags that a help text lists, with their letters."""
    pattern = re.compile(r"^  (?:-(\w), |    )--([\w-]+)", re.MULTILINE)
    return {name: short for short, name in pattern.findall(text)}


def _place(words: tuple[str, ...]) -> tuple[str, str, str] | None:
    if len(words) == 1:
        return commands.top_level(words[0])
    return commands.in_group(*words) if words[0] in commands.GROUPS else None


# One name for each command: docker shows most of them twice.
_SHORT = {"container create": "create", "container run": "run", "container start": "start", "image build": "build",
          "builder build": "build", "image ls": "images", "image rm": "rmi"}  # fmt: skip


def _lacks() -> list[str]:
    """Everything that docker shows and corral has not got, by the names of the table."""
    lacking = []
    for top in _members(_help()):
        text = _help(top)
        members = _members(text)
        if members and top not in commands.GROUPS:
            lacking.append(top)
            continue
        for words in [(top, member) for member in members] if members else [(top,)]:
            name = " ".join(words)
            place = _place(words)
            if place is None:
                lacking.append(name)
                continue
            ours = {flag.name: flag.short for flag in commands.load(place).flags}
            for flag, short in _flags(_help(*words)).items():
                if ours.get(flag) != short and flag != "help":
                    lacking.append(f"{_SHORT.get(name, name)} --{flag}")
    return lacking


def test_every_command_and_flag_of_docker_is_there_or_has_a_reason() -> None:
    lacking = set(_lacks())
    assert lacking - set(_NOT_THERE) == set(), "neither there nor explained"
    assert set(_NOT_THERE) - lacking == set(), "explained, and there all the same"


def test_every_global_flag_of_docker_is_there() -> None:
    ours = {flag.name: flag.short for flag in GLOBAL_FLAGS}
    theirs = _flags(_help())
    assert len(theirs) > 8
    assert {name: ours.get(name) for name in theirs} == theirs


def test_hidden_commands_of_docker_that_programs_run_are_there() -> None:
    assert "dial-stdio" in _help("system", "dial-stdio")
    assert commands.in_group("system", "dial-stdio") is not None
