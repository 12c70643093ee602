"""Control groups version 2: the runtime under a user-mode Linux kernel, and the device filter on this kernel."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from corral.linux import cgroupfs
from corral.runtime import cgroup, devicefilter, resources
from tests.integration.runtime_fixtures import busybox_root, needs_root

__all__ = ["busybox_root"]
pytestmark = needs_root

_HERE = Path(__file__).resolve().parent
_SOURCE = _HERE.parents[1] / "src"
_SCRIPT = """#!/bin/sh
export PATH=/usr/sbin:/usr/bin:/sbin:/bin PYTHONDONTWRITEBYTECODE=1
mount -t proc proc /proc && mount -t sysfs sys /sys && mount -t tmpfs tmpfs /run && mount -t tmpfs tmpfs /dev/shm
mount -t cgroup2 cgroup2 /sys/fs/cgroup
for module in overlayfs/overlay quota/quota_tree quota/quota_v2; do
    busybox insmod /usr/lib/uml/modules/*/kernel/fs/$module.ko
done
mknod /run/ubda b 98 0
mkdir -p /run/copy && cp -a {root} /run/copy/root && cp -a {source} /run/copy/src
cp -a {msgspec} /run/copy/src/ && cp {guest} /run/copy/
mount -t tmpfs tmpfs /tmp && cd /
{python} -I /run/copy/uml_guest.py /run/copy/src /run/copy/root
busybox poweroff -f
"""


def test_under_user_mode_linux(tmp_path: Path, busybox_root: Path) -> None:
    if not shutil.which("linux.uml"):
        pytest.skip("user-mode-linux is not installed")
    disk = tmp_path / "disk"
    disk.touch()
    os.truncate(disk, 64 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-O", "quota,project", str(disk)], check=True)
    subprocess.run(["tune2fs", "-Q", "prjquota", str(disk)], check=True, stdout=subprocess.DEVNULL)
    script = tmp_path / "init.sh"
    script.write_text(
        # The environment may be below /tmp, which the guest covers: what is needed of it is copied.
        _SCRIPT.format(
            python=os.path.realpath(sys.executable),
            msgspec=Path(msgspec.__file__).parent,
            root=busybox_root,
            source=_SOURCE,
            guest=_HERE / "uml_guest.py",
        )
    )
    script.chmod(0o755)
    command = ["linux.uml", "root=/dev/root", "rootfstype=hostfs", "rootflags=/", "rw", "mem=512M", f"init={script}"]
    done = subprocess.run(
        [*command, "con=null", "con0=null,fd:1", "quiet", f"uml_dir={tmp_path}", f"ubd0={disk}"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    results = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert results, done.stdout + done.stderr
    assert [(result["check"], result["problem"]) for result in results if result["problem"]] == []
    assert len(results) == 11, done.stdout


@pytest.fixture
def unified() -> Iterator[str]:
    """A version 2 cgroup of our own, wherever this host has them."""
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    places = [fields[1] for fields in mounts if fields[2] == "cgroup2"]
    if not places:
        pytest.skip("no version 2 hierarchy is mounted")
    folder = f"{places[0]}/corral-test-{uuid.uuid4().hex[:8]}"
    os.mkdir(folder)
    yield folder
    os.rmdir(folder)


def _try(folder: str, node: Path) -> str:
    script = f"echo $$ > {folder}/cgroup.procs && cat {node} >/dev/null 2>&1; r=$?; "
    script += f"mknod {node}2 c 1 9 2>/dev/null; echo $r $?"
    return subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True).stdout.strip()


def test_device_filter(unified: str, tmp_path: Path) -> None:
    node = tmp_path / "null"
    os.mknod(node, 0o20666, os.makedev(1, 3))
    group = cgroup.Cgroup(2, {"": unified})
    assert _try(unified, node) == "0 0"
    Path(f"{node}2").unlink()
    cgroup.apply(group, {"devices": [{"allow": False, "access": "rwm"}]})
    assert _try(unified, node) == "0 0"  # a default device, and making nodes is always allowed
    Path(f"{node}2").unlink()
    rules = resources.device_rules([{"allow": False}], defaults=False)
    assert rules is not None
    fd = os.open(unified, os.O_RDONLY)
    program = cgroupfs.load_device_filter(devicefilter.compile_rules(rules))
    old = cgroupfs.attached_device_filters(fd)
    assert len(old) == 1
    cgroupfs.attach_device_filter(fd, program, old[0])
    for descriptor in (fd, program, *old):
        os.close(descriptor)
    assert "0" not in _try(unified, node).split()
    cgroup.apply(group, {"devices": [{"allow": True}, {"allow": False, "type": "c", "major": 1, "minor": 11}]})
    assert _try(unified, node) == "0 0"
