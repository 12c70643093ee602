"""Devices by name: made-up CDI files in folders of the test, used with the docker CLI."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.daemon import IMAGE, Daemon, running_daemon

_TOYS = """
cdiVersion: "0.6.0"
kind: example.com/toy
containerEdits:
  env: [TOYS=yes]
  additionalGids: [4242]
  mounts:
    - {hostPath: %(folder)s/library, containerPath: /opt/toys, options: [ro, nosuid]}
devices:
  - name: zero
    containerEdits:
      env: [TOY=zero]
      deviceNodes:
        - {path: /dev/toy0, hostPath: /dev/zero, permissions: rw}
  - name: one
    containerEdits:
      env: [TOY=one]
      deviceNodes:
        - {path: /dev/toy1, type: c, major: 1, minor: 5, fileMode: 0o600}
      hooks:
        - hookName: createRuntime
          path: /bin/sh
          args: [sh, -c, "cat > %(folder)s/state"]
  - name: gone
    containerEdits:
      deviceNodes: [{path: /dev/no-such-device}]
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("cdi")
    for name in ("early", "late", "library"):
        (made / name).mkdir()
    (made / "library" / "driver").write_text("1.2.3\n")
    (made / "early" / "toys.yaml").write_text(_TOYS.replace("0o600", "384") % {"folder": made})
    (made / "early" / "broken.json").write_text("{")
    for name in ("first", "second"):
        content = {"cdiVersion": "0.6.0", "kind": "example.com/twin", "devices": [{"name": "a"}]}
        (made / "early" / f"{name}.json").write_text(json.dumps(content))
    gpus = {
        "cdiVersion": "0.6.0",
        "kind": "nvidia.com/gpu",
        "devices": [{"name": name, "containerEdits": {"env": [f"GPU_{name}=1"]}} for name in ("0", "1", "all")],
    }
    (made / "early" / "gpus.json").write_text(json.dumps(gpus))
    gpus["devices"] = [{"name": "1", "containerEdits": {"env": ["GPU_1=late"]}}]
    (made / "late" / "gpus.json").write_text(json.dumps(gpus))
    return made


@pytest.fixture(scope="module")
def cdi(folder: Path) -> Iterator[Daemon]:
    with running_daemon("--cdi-spec-dir", str(folder / "early"), "--cdi-spec-dir", str(folder / "late")) as started:
        yield started


def _run(cdi: Daemon, *words: str) -> str:
    return cdi.output("run", "--rm", *words)


def test_everything_a_file_asks_for_is_done(cdi: Daemon, folder: Path) -> None:
    script = "echo $TOYS $TOY; id -G; cat /opt/toys/driver; touch /opt/toys/x 2>&1; head -c 3 /dev/toy0 | wc -c"
    told = _run(cdi, "--device", "example.com/toy=zero", IMAGE, "sh", "-c", script).splitlines()
    assert told[0] == "yes zero"
    assert "4242" in told[1].split()
    assert told[2] == "1.2.3"
    assert "Read-only file system" in told[3]
    assert told[4] == "3"
    assert not (folder / "state").exists()


def test_hooks_run_and_nodes_have_their_modes(cdi: Daemon, folder: Path) -> None:
    told = _run(cdi, "--device", "example.com/toy=one", IMAGE, "stat", "-c", "%a %t %T", "/dev/toy1")
    assert told == "600 1 5"
    assert json.loads((folder / "state").read_text())["status"] == "creating"


def test_a_device_may_only_be_used_as_permitted(cdi: Daemon) -> None:
    script = "mknod /tmp/zero c 1 5; rm /tmp/zero; mknod /tmp/kmsg c 1 11 && cat /tmp/kmsg"
    refused = cdi.docker("run", "--rm", "--device", "example.com/toy=zero", IMAGE, "sh", "-c", script)
    assert "not permitted" in refused.stderr


@pytest.mark.parametrize("flags", [["--privileged"], ["--user", "bob"], ["--runtime", "runc"]])
def test_with_other_settings(cdi: Daemon, flags: list[str]) -> None:
    script = "head -c 3 /dev/toy0 | wc -c; id -G"
    count, groups = _run(cdi, *flags, "--device", "example.com/toy=zero", IMAGE, "sh", "-c", script).splitlines()
    assert count == "3"
    assert "4242" in groups.split()


@pytest.mark.parametrize(
    ("gpus", "expected"),
    [("all", "GPU_all=1"), ("1", "GPU_0=1"), ("2", "GPU_0=1 GPU_1=late"), ("device=1", "GPU_1=late")],
)
def test_gpus(cdi: Daemon, gpus: str, expected: str) -> None:
    assert " ".join(sorted(_run(cdi, "--gpus", gpus, IMAGE, "sh", "-c", "env | grep ^GPU").split())) == expected


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--device", "example.com/toy=none"], "failed: unresolvable CDI devices example.com/toy=none"),
        (["--device", "example.com/twin=a"], "unresolvable CDI devices example.com/twin=a"),
        (["--device", "example.com/toy=gone"], "CDI device injection failed: failed to stat CDI host device"),
        (["--gpus", "device=7"], "unresolvable CDI devices nvidia.com/gpu=7"),
        (["--gpus", "driver=other"], 'could not select device driver "other" with capabilities: [[gpu]]'),
    ],
)  # fmt: skip
def test_what_cannot_be_had(cdi: Daemon, flags: list[str], message: str) -> None:
    refused = cdi.docker("run", "--name", "wanting", *flags, IMAGE, "true")
    assert message in refused.stderr
    assert refused.returncode in (125, 127)  # the CLI goes by "no such file or directory" in the text
    assert cdi.state("wanting")["Status"] == "created"
    cdi.output("rm", "wanting")


def test_requests_that_the_cli_does_not_make(cdi: Daemon) -> None:
    for extra, message in (
        ({"Count": 1}, "unexpected count in CDI device request"),
        ({"Options": {"a": "b"}}, "unexpected options in CDI device request"),
    ):
        request = {"Driver": "cdi", "DeviceIDs": ["example.com/toy=zero"], **extra}
        container = cdi.create("true", HostConfig={"DeviceRequests": [request]})
        refused = cdi.post(f"/containers/{container}/start")
        assert (refused.status, refused.message) == (500, message)


def test_info(cdi: Daemon, folder: Path) -> None:
    info = cdi.get("/info").json()
    assert info["CDISpecDirs"] == [str(folder / "early"), str(folder / "late")]
    known = [entry["ID"] for entry in info["DiscoveredDevices"] if entry["Source"] == "cdi"]
    assert known == sorted(
        [f"example.com/toy={name}" for name in ("gone", "one", "zero")]
        + [f"nvidia.com/gpu={name}" for name in ("0", "1", "all")]
    )
    assert "cannot use the CDI file" in cdi.log()


def test_the_key_of_daemon_json(new_daemon: Callable[..., Daemon]) -> None:
    started = new_daemon()
    assert started.get("/info").json()["CDISpecDirs"] == ["/etc/cdi", "/var/run/cdi"]
    Path(started.folder, "daemon.json").write_text('{"cdi-spec-dirs": ["/no/such/folder"]}')
    started.restart()
    assert started.get("/info").json()["CDISpecDirs"] == ["/no/such/folder"]
    assert started.get("/info").json()["DiscoveredDevices"] == []
