"""Runs as the only program of a user-mode Linux kernel whose cgroups are version 2; one JSON line per check.

uml_guest.py SOURCE_FOLDER BUSYBOX_ROOT
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any

sys.path.insert(0, sys.argv[1])

from corral.linux import mount, quota
from corral.runtime import cgroup, container, template
from corral.runtime.container import Container, Rootfs, Stdio
from corral.runtime.failure import Failure
from corral.store.db import Database
from corral.store.snapshots import Snapshots
from corral.volume.volumes import Volumes

ROOT = sys.argv[2]
FOLDER = "/sys/fs/cgroup/test/box"


def _spec(args: list[str], resources: dict[str, Any] | None = None) -> dict[str, Any]:
    spec = template.default_spec()
    spec["process"].update(args=args, terminal=False, rlimits=[])
    spec["root"] = {"path": ROOT, "readonly": True}
    # This kernel has neither POSIX message queues nor a device filter.
    spec["mounts"] = [mount for mount in spec["mounts"] if mount["type"] != "mqueue"]
    spec["linux"]["cgroupsPath"] = "/test/box"
    spec["linux"]["resources"] = resources or {}
    return spec


def _create(spec: dict[str, Any], stdout: int = 1, rootfs: Rootfs | None = None) -> Container:
    null = os.open("/dev/null", os.O_RDWR)
    made, _ = container.create(
        "box", bundle="/tmp", spec=spec, state_dir="/run/box", stdio=Stdio(null, stdout, stdout), rootfs=rootfs
    )
    os.close(null)
    return made


def _finish(spec: dict[str, Any], rootfs: Rootfs | None = None) -> tuple[int, str, bool]:
    """Run to the end: (exit status, output, whether out of memory)."""
    read_end, write_end = os.pipe()
    made = _create(spec, write_end, rootfs)
    made.start()
    os.close(write_end)
    with open(read_end, "rb") as file:
        output = file.read().decode()
    _, status = os.waitpid(made.pid, 0)
    oom = made.oom_killed()
    made.delete()
    assert not os.path.exists(FOLDER)
    return os.waitstatus_to_exitcode(status), output, oom


def _read(name: str) -> str:
    with open(f"{FOLDER}/{name}", encoding="utf-8") as file:
        return file.read().strip()


def version_is_two() -> None:
    assert cgroup.hierarchies()[0] == 2


def limits_are_written() -> None:
    resources = {
        "memory": {"limit": 64 << 20, "reservation": 32 << 20},
        "cpu": {"shares": 512, "quota": 50000, "period": 100000},
        "pids": {"limit": 20},
        "unified": {"memory.high": str(48 << 20)},
    }
    made = _create(_spec(["sleep", "100"], resources))
    try:
        assert _read("memory.max") == str(64 << 20)
        assert _read("memory.low") == str(32 << 20)
        assert _read("memory.high") == str(48 << 20)
        assert _read("cpu.max") == "50000 100000"
        assert _read("cpu.weight") == "20"
        assert _read("pids.max") == "20"
        made.update({"memory": {"limit": 32 << 20}, "pids": {"limit": -1}})
        assert _read("memory.max") == str(32 << 20)
        assert _read("pids.max") == "max"
        stats = made.stats()
        assert stats["version"] == 2
        assert stats["memory"]["limit"] == 32 << 20
        assert stats["pids"] == {"current": 1, "limit": 0}
        assert stats["cpu"]["usage_ns"] > 0
    finally:
        made.delete(force=True)
        os.waitpid(made.pid, 0)


def memory_limit_kills() -> None:
    status, _, oom = _finish(
        _spec(["dd", "if=/dev/zero", "of=/dev/null", "bs=64M", "count=1"], {"memory": {"limit": 16 << 20}})
    )
    assert (status, oom) == (-9, True), (status, oom)


def process_limit_refuses() -> None:
    script = "for i in 1 2 3 4 5 6 7 8; do sleep 1 & done; wait"
    _, output, _ = _finish(_spec(["sh", "-c", script], {"pids": {"limit": 4}}))
    assert "fork" in output, output


def container_sees_its_own_root_of_cgroups() -> None:
    script = "cat /proc/self/cgroup; ls /sys/fs/cgroup; touch /sys/fs/cgroup/x"
    _, output, _ = _finish(_spec(["sh", "-c", script]))
    assert output.startswith("0::/\n"), output
    assert "pids.max" in output, output
    assert "Read-only" in output, output


def without_a_cgroup_namespace_it_is_a_bind() -> None:
    spec = _spec(["sh", "-c", "cat /proc/self/cgroup; cat /sys/fs/cgroup/pids.max"], {"pids": {"limit": 33}})
    spec["linux"]["namespaces"] = [entry for entry in spec["linux"]["namespaces"] if entry["type"] != "cgroup"]
    _, output, _ = _finish(spec)
    assert output == "0::/test/box\n33\n", output


def freezer() -> None:
    made = _create(_spec(["sleep", "100"]))
    try:
        made.start()
        made.pause()
        assert made.status() == "paused"
        assert "frozen 1" in _read("cgroup.events")
        made.resume()
        assert made.status() == "running"
        made.pause()
    finally:
        made.delete(force=True)
        os.waitpid(made.pid, 0)
    assert not os.path.exists(FOLDER)


def exec_joins_even_below() -> None:
    made = _create(_spec(["sleep", "100"]))
    try:
        made.start()
        process = dict(made.spec["process"], args=["true"])
        pid, _ = made.exec(process, Stdio())
        assert os.waitpid(pid, 0)[1] == 0
        # The container moves into a leaf and spreads controllers, as systemd does.
        os.mkdir(f"{FOLDER}/leaf")
        with open(f"{FOLDER}/leaf/cgroup.procs", "w", encoding="utf-8") as file:
            file.write(str(made.pid))
        with open(f"{FOLDER}/cgroup.subtree_control", "w", encoding="utf-8") as file:
            file.write("+pids")
        pid, _ = made.exec(process, Stdio())
        assert os.waitpid(pid, 0)[1] == 0
        assert made.pids() == [made.pid]
        made.kill(9, all=True)
        os.waitpid(made.pid, 0)
    finally:
        made.delete(force=True)
    assert not os.path.exists(FOLDER)


def overlay_by_the_classic_call() -> None:
    """This kernel is too old for lowerdir+."""
    for name in ("upper", "work", "top"):
        os.makedirs(f"/tmp/o/{name}")
    with open("/tmp/o/top/layer", "w", encoding="utf-8") as file:
        file.write("on top\n")
    spec = _spec(["sh", "-c", "cat /layer; echo new > /made; grep ' / ' /proc/mounts"])
    spec["root"]["readonly"] = False
    status, output, _ = _finish(spec, Rootfs(["/tmp/o/top", ROOT], "/tmp/o/upper", "/tmp/o/work"))
    assert (status, output.split("\n")[0]) == (0, "on top"), output
    assert "overlay" in output
    with open("/tmp/o/upper/made", encoding="utf-8") as file:
        assert file.read() == "new\n"


def what_version_two_cannot_is_refused() -> None:
    for resources in ({"cpu": {"realtimePeriod": 1000}}, {"network": {"classID": 1}}, {"unified": {"../x.y": "1"}}):
        try:
            _create(_spec(["true"], resources))
        except Failure as failure:
            assert failure.stage == "spec"
        else:
            raise AssertionError(resources)
        assert not os.path.exists(FOLDER)


def quotas_bound_containers_and_volumes() -> None:
    """ext4 with project quotas on a disk of this machine, where root has every capability."""
    assert not quota.is_enforced("/run")
    os.mkdir("/run/disk")
    mount.mount("/run/ubda", "/run/disk", "ext4", 0, "prjquota")
    try:
        assert quota.is_enforced("/run/disk")
        _container_within_its_limit()
        asyncio.run(_volume_within_its_limit())
    finally:
        mount.umount("/run/disk")


def _overfill(spec: dict[str, Any], path: str, rootfs: Rootfs | None) -> None:
    spec["process"]["args"] = ["sh", "-c", f"dd if=/dev/zero of={path} bs=64k count=200 2>&1"]
    _, output, _ = _finish(spec, rootfs)
    assert "quota exceeded" in output, output


def _container_within_its_limit() -> None:
    db = Database("/run/disk/db")
    store = Snapshots(db, "/run/disk/overlay")
    assert store.has_quotas
    (mounted, statement) = store.stage("box", None, 8 << 20)
    db.submit(statement).result()
    spec = _spec([])
    spec["root"]["readonly"] = False
    _overfill(spec, "/big", Rootfs([ROOT], mounted.upper, mounted.work))
    assert 7 << 20 < os.path.getsize(f"{mounted.upper}/big") <= 8 << 20
    change = store.freeze("box", "box@1", 8 << 20)
    db.submit(*change.statements).result()
    change.done()
    again = store.mounts("box")
    _overfill(spec, "/more", Rootfs([*again.lower, ROOT], again.upper, again.work))
    store.remove("box")
    store.close()
    db.close()


async def _volume_within_its_limit() -> None:
    db = Database("/run/disk/db")
    volumes = Volumes(db, "/run/disk")
    await volumes.create("small", "", {"size": "4m"}, {})
    folder = volumes.folder("small")
    spec = _spec([])
    options = {"destination": "/mnt", "type": "bind", "source": folder, "options": ["rbind", "rw"]}
    spec["mounts"].append(options)
    _overfill(spec, "/mnt/big", None)
    assert 3 << 20 < os.path.getsize(f"{folder}/big") <= 4 << 20
    await volumes.remove("small", [])
    db.close()


CHECKS: list[Callable[[], None]] = [
    version_is_two,
    limits_are_written,
    memory_limit_kills,
    process_limit_refuses,
    container_sees_its_own_root_of_cgroups,
    without_a_cgroup_namespace_it_is_a_bind,
    freezer,
    exec_joins_even_below,
    overlay_by_the_classic_call,
    what_version_two_cannot_is_refused,
    quotas_bound_containers_and_volumes,
]


def main() -> None:
    """Each check's name with null or its traceback."""
    for check in CHECKS:
        problem = None
        try:
            check()
        except BaseException:  # noqa: BLE001  whatever it is goes to the test as text
            problem = traceback.format_exc()
        print(json.dumps({"check": check.__name__, "problem": problem}), flush=True)


if __name__ == "__main__":
    main()
