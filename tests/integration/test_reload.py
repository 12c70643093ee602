"""SIGHUP: what dockerd reloads is reloaded, and a file that cannot be used changes nothing."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

from tests.support.daemon import Daemon
from tests.support.wait import until


def configure(daemon: Daemon, text: str) -> None:
    Path(daemon.folder, "daemon.json").write_text(text)
    os.kill(daemon.pid, signal.SIGHUP)


def test_settings_are_taken_over(own_daemon: Daemon) -> None:
    daemon = own_daemon
    settings = {
        "debug": True,
        "labels": ["rack=9"],
        "insecure-registries": ["reg.example:5000"],
        "registry-mirrors": ["https://mirror.example"],
        "runtimes": {"other": {"path": "/bin/true"}},
        "image-gc": {"high-water": "90%"},
        "max-concurrent-downloads": 1,
        "mtu": 1400,
    }
    assert daemon.post("/images/gc").status == 400
    configure(daemon, json.dumps(settings))
    until(lambda: daemon.get("/info").json()["Labels"] == ["rack=9"])
    info = daemon.get("/info").json()
    assert info["Debug"] and "other" in info["Runtimes"]
    assert "reg.example:5000" in info["RegistryConfig"]["IndexConfigs"]
    assert info["RegistryConfig"]["Mirrors"] == ["https://mirror.example/"]
    assert daemon.post("/images/gc", **{"dry-run": 1}).status == 200
    assert "these changes of the configuration need a restart: mtu" in daemon.log()
    text = daemon.get("/events", since="0", until="0s", filters='{"type": ["daemon"]}').body
    (event,) = [json.loads(line) for line in text.splitlines()]
    assert (event["Action"], event["Actor"]["ID"]) == ("reload", info["ID"])
    assert event["Actor"]["Attributes"]["debug"] == "true"
    assert event["Actor"]["Attributes"]["labels"] == '["rack=9"]'


def test_a_file_that_cannot_be_used(own_daemon: Daemon) -> None:
    daemon = own_daemon
    for text, why in (
        ('{"labels": [', "invalid JSON"),
        ('{"labls": []}', "don't match any configuration option: labls"),
        ('{"labels": ["a=1"], "image-gc": {"high-water": "much"}}', "image-gc: high-water"),
        ('{"labels": ["a=1"], "registry-mirrors": ["ftp://x"]}', "cannot reload the configuration"),
    ):
        configure(daemon, text)
        until(lambda why=why: why in daemon.log())
    assert daemon.get("/info").json()["Labels"] == []
    configure(daemon, '{"labels": ["a=1"]}')
    until(lambda: daemon.get("/info").json()["Labels"] == ["a=1"])
