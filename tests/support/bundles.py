"""Bundles around a static busybox, and the runtime's command to run them with."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import uuid
from pathlib import Path
from typing import Any

from corral.runtime import template

RUNTIME = os.environ.get("CORRAL_TEST_RUNTIME") or str(Path(__file__).resolve().parents[2] / "bin" / "corral-runtime")
_APPLETS = (
    "sh", "cat", "chmod", "chown", "cp", "cut", "dd", "df", "echo", "env", "false", "find", "grep", "head",
    "hostname", "id", "kill", "ln", "ls", "mkdir", "mkfifo", "mknod", "mount", "mv", "od", "pidof", "ps", "pwd",
    "readlink", "rm", "seq", "sleep", "sort", "stat", "sync", "tail", "test", "touch", "tr", "true", "tty",
    "umount", "uname", "wc",
)  # fmt: skip


def make_root(root: Path) -> None:
    """A root file system of a static busybox and an account `bob` (1000) who is also in `wheel` (10)."""
    for folder in ("bin", "etc", "proc", "sys", "dev", "tmp", "home"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    shutil.copy("/bin/busybox", root / "bin" / "busybox")
    for applet in _APPLETS:
        (root / "bin" / applet).symlink_to("busybox")
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\nbob:x:1000:1000::/home/bob:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\nwheel:x:10:root,bob\nbob:x:1000:\n")


class Bundle:
    """A bundle on disk and the runtime's state folder beside it."""

    def __init__(self, folder: Path, root: Path, runtime: str = RUNTIME) -> None:
        self.folder = folder
        self.state = folder / "state"
        self.id = f"t{uuid.uuid4().hex[:12]}"
        self.runtime = runtime
        self.spec: dict[str, Any] = template.default_spec(cgroup_namespace=False)
        self.spec["process"]["terminal"] = False
        self.spec["root"] = {"path": str(root), "readonly": True}
        self.spec["linux"]["cgroupsPath"] = f"/corral-test/{self.id}"

    @property
    def process(self) -> dict[str, Any]:
        found: dict[str, Any] = self.spec["process"]
        return found

    @property
    def linux(self) -> dict[str, Any]:
        found: dict[str, Any] = self.spec["linux"]
        return found

    def shell(self, script: str) -> None:
        """Let the process be this script."""
        self.process["args"] = ["sh", "-c", script]

    def write(self) -> None:
        (self.folder / "config.json").write_text(json.dumps(self.spec))

    def command(self, *words: str, check: bool = False, **more: Any) -> subprocess.CompletedProcess[str]:
        """`corral-runtime --root STATE words...`"""
        more.setdefault("stdin", subprocess.DEVNULL)
        done = subprocess.run(
            [self.runtime, "--root", str(self.state), *words],
            capture_output=True,
            text=True,
            cwd=self.folder,
            timeout=60,
            check=False,
            **more,
        )
        if check:
            assert done.returncode == 0, done.stderr
        return done

    def run(self, script: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run to the end in the foreground."""
        if script is not None:
            self.shell(script)
        self.write()
        return self.command("run", self.id)

    def output(self, script: str) -> str:
        """What the script prints; it must succeed."""
        done = self.run(script)
        assert done.returncode == 0, done.stderr + done.stdout
        return done.stdout

    def create(self, *flags: str) -> subprocess.CompletedProcess[str]:
        """Create with stdio in `output.txt` (a pipe would hold this process until the container ends)."""
        self.write()
        with open(self.folder / "output.txt", "ab") as out:
            done = subprocess.run(
                [self.runtime, "--root", str(self.state), "create", *flags, self.id],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                cwd=self.folder,
                timeout=60,
                check=False,
            )
        return subprocess.CompletedProcess(done.args, done.returncode, "", self.written())

    def written(self) -> str:
        return (self.folder / "output.txt").read_text()

    def oci_state(self) -> dict[str, Any]:
        done = self.command("state", self.id, check=True)
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def status(self) -> str:
        return str(self.oci_state()["status"])

    def cgroup_directories(self) -> list[str]:
        """Those of this container that exist."""
        base = "/sys/fs/cgroup"
        found = [f"{base}/{name}/corral-test/{self.id}" for name in os.listdir(base)]
        return [path for path in [*found, f"{base}/corral-test/{self.id}"] if os.path.isdir(path)]

    def close(self) -> None:
        self.command("delete", "--force", self.id)
        assert self.cgroup_directories() == []
        assert not (self.state / self.id).exists()


def remove_test_cgroups() -> None:
    """The empty parents that the tests, and podman in them, have left."""
    base = "/sys/fs/cgroup"
    for name in ["", *os.listdir(base)]:
        for parent in ("corral-test", "libpod_parent/conmon", "libpod_parent"):
            try:
                os.rmdir(os.path.join(base, name, parent))
            except OSError:
                continue  # not there, or in use by somebody else
