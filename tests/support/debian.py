"""Debian packages that the machine does not have: firewalls and tools, for tests and benches.

The copy is an overlay that is mounted for each command in a mount namespace of its own, so the machine has neither
the packages nor their settings.  What apt downloads stays in `FOLDER` for the next run.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

FOLDER = Path("/var/cache/corral-tests")
_INSTALL_S = 300


class Machine:
    """Debian packages on a copy of this machine's files, in the network namespace of a process."""

    def __init__(self, folder: Path, pid: int, files: Path) -> None:
        """`files` are those of `installed`."""
        self.folder = folder
        self.pid = pid
        self.entered = 0  # a process whose mounts later commands share
        for name in ("work", "merged"):
            (folder / name).mkdir(parents=True)
        # Copied, since an overlay refuses layers of which one is within another.
        subprocess.run(["cp", "-a", str(files), str(folder / "upper")], check=True)

    def command(self, script: str) -> list[str]:
        """How a script is run there."""
        if self.entered:
            root = f"--root=/proc/{self.entered}/root"
            return ["nsenter", "-t", str(self.entered), "-m", "-n", root, "sh", "-ec", script]
        return [
            "nsenter", f"--net=/proc/{self.pid}/ns/net", "unshare", "-m", "sh", "-ec",
            _mounting(self.folder) + f"exec chroot {self.folder}/merged sh -ec {shlex.quote(script)}",
        ]  # fmt: skip

    def sh(self, script: str) -> str:
        """Run a script; what it prints."""
        done = subprocess.run(self.command(script), capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, f"{script}: {done.stderr}{done.stdout}"
        return done.stdout

    def succeeds(self, script: str) -> bool:
        """Whether a script can be run."""
        return subprocess.run(self.command(script), capture_output=True, timeout=60, check=False).returncode == 0


def _mounting(folder: Path) -> str:
    layers = f"lowerdir=/,upperdir={folder}/upper,workdir={folder}/work"
    return (
        f"mount -t overlay none -o {layers} {folder}/merged; mount -t proc none {folder}/merged/proc;"
        f"mount --rbind /dev {folder}/merged/dev; mount -t sysfs none {folder}/merged/sys;"
    )


def installed(*packages: str) -> Path:
    """The files that packages add to the machine's; skips the test where they cannot be had."""
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        pytest.skip("firewalls need root and a Debian machine")
    folder = FOLDER / "-".join(packages)
    done = folder / "done"
    if not done.exists():
        shutil.rmtree(folder, ignore_errors=True)
        for name in ("upper/usr/sbin", "work", "merged"):
            (folder / name).mkdir(parents=True)
        policy = folder / "upper/usr/sbin/policy-rc.d"  # no service is started
        policy.write_text("#!/bin/sh\nexit 101\n")
        policy.chmod(0o755)
        install = f"chroot {folder}/merged apt-get install -qy --no-install-recommends {' '.join(packages)}"
        result = subprocess.run(
            ["unshare", "-m", "sh", "-ec", _mounting(folder) + install],
            capture_output=True,
            text=True,
            timeout=_INSTALL_S,
            check=False,
            env={**os.environ, "DEBIAN_FRONTEND": "noninteractive", "NEEDRESTART_SUSPEND": "1"},
        )
        if result.returncode != 0:
            pytest.skip(f"cannot install {' '.join(packages)}: {result.stderr[-300:]}")
        done.touch()
    return folder / "upper"
