"""Volumes, and pruning of what nobody uses, through the stock CLI."""

from __future__ import annotations

from pathlib import Path

from tests.support.daemon import IMAGE, Daemon, Engine


def test_a_volume_keeps_its_files(engine: Engine) -> None:
    assert engine.output("volume", "create", "--label", "a=b", "kept") == "kept"
    engine.output("run", "--rm", "-v", "kept:/data", IMAGE, "sh", "-c", "echo here > /data/file")
    assert engine.output("run", "--rm", "-v", "kept:/data:ro", IMAGE, "cat", "/data/file") == "here"
    place = engine.output("volume", "inspect", "-f", "{{.Mountpoint}}", "kept")
    assert Path(place, "file").read_text() == "here\n"
    assert engine.output("volume", "ls", "-q", "--filter", "label=a=b") == "kept"
    container = engine.output("create", "-v", "kept:/data", IMAGE, "true")
    refused = engine.docker("volume", "rm", "kept")
    assert (refused.returncode, "volume is in use" in refused.stderr) == (1, True)
    engine.output("rm", container)
    engine.output("volume", "rm", "kept")
    assert not Path(place).exists()


def test_volume_prune_takes_anonymous_ones_and_with_all_the_others(engine: Engine) -> None:
    engine.output("volume", "create", "named")
    engine.output("run", "--name", "user", "-v", "/anonymous", IMAGE, "true")
    (mount,) = engine.inspect("user")["Mounts"]
    Path(mount["Source"], "file").write_bytes(b"x" * 100_000)
    assert mount["Name"] not in engine.output("volume", "prune", "-f")
    engine.output("rm", "user")
    pruned = engine.output("volume", "prune", "-f")
    assert mount["Name"] in pruned
    assert "named" not in pruned
    assert "Total reclaimed space: 1" in pruned
    assert "named" in engine.output("volume", "prune", "-f", "-a")


def test_rm_v_takes_anonymous_volumes_along(engine: Engine) -> None:
    engine.output("run", "--name", "user", "-v", "/anonymous", "-v", "stays:/b", IMAGE, "true")
    engine.output("rm", "-v", "user")
    assert engine.output("volume", "ls", "-q") == "stays"
    engine.output("volume", "rm", "stays")


def test_network_prune_leaves_what_is_wanted(engine: Engine) -> None:
    for name in ("wanted", "unused"):
        engine.output("network", "create", name)
    engine.output("create", "--network", "wanted", "--name", "waiting", IMAGE, "true")
    assert engine.output("network", "prune", "-f").split() == ["Deleted", "Networks:", "unused"]
    engine.output("rm", "waiting")
    engine.output("network", "rm", "wanted")


def test_container_prune(engine: Engine) -> None:
    done = engine.output("create", "--label", "batch=1", IMAGE, "true")
    other = engine.output("create", IMAGE, "true")
    running = engine.start("sleep", "1000")
    pruned = engine.output("container", "prune", "-f", "--filter", "label=batch")
    assert done in pruned
    assert other not in pruned
    left = engine.containers()
    assert {other, running} <= left
    assert done not in left


def test_what_the_engine_cannot_do_is_refused(daemon: Daemon) -> None:
    for words in (
        ("create", "--storage-opt", "size=1G", IMAGE),
        ("create", "--log-driver", "splunk", IMAGE),
        ("run", "--gpus", "all", IMAGE),
        ("network", "create", "-d", "overlay", "x"),
        ("volume", "create", "-d", "nfs", "x"),
        ("swarm", "init"),
        ("service", "ls"),
    ):
        refused = daemon.docker(*words)
        assert refused.returncode != 0, words
        assert "rror response from daemon" in refused.stderr, words
