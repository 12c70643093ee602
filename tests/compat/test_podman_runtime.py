"""podman with this runtime in place of its own."""

from __future__ import annotations

import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.runtime_fixtures import needs_root
from tests.support.bundles import RUNTIME, make_root, remove_test_cgroups

pytestmark = needs_root


class Podman:
    """podman with a storage of its own."""

    def __init__(self, folder: Path) -> None:
        self.words = [
            "podman", "--root", f"{folder}/root", "--runroot", f"{folder}/run", "--tmpdir", f"{folder}/tmp",
            "--cgroup-manager", "cgroupfs", "--storage-driver", "vfs", "--events-backend", "none",
            "--runtime", RUNTIME,
        ]  # fmt: skip

    def __call__(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self.words, *words], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False
        )

    def ok(self, *words: str) -> str:
        done = self(*words)
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def podman(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Podman]:
    if not shutil.which("podman"):
        pytest.skip("podman is not installed")
    folder = tmp_path_factory.mktemp("podman")
    make_root(folder / "busybox")
    with tarfile.open(folder / "busybox.tar", "w") as archive:
        archive.add(folder / "busybox", ".")
    command = Podman(folder)
    command.ok("import", str(folder / "busybox.tar"), "localhost/busybox")
    yield command
    command("rm", "--all", "--force", "--time", "0")
    command("rmi", "--all", "--force")
    remove_test_cgroups()


def _run(podman: Podman, *words: str) -> subprocess.CompletedProcess[str]:
    return podman("run", "--rm", "--network", "none", *words)


def test_run_and_its_status(podman: Podman) -> None:
    done = _run(podman, "localhost/busybox", "echo", "hello")
    assert done.stdout == "hello\n", done.stderr
    assert _run(podman, "localhost/busybox", "sh", "-c", "exit 3").returncode == 3
    assert _run(podman, "localhost/busybox", "no-such-program").returncode == 127
    assert _run(podman, "localhost/busybox", "/etc/passwd").returncode == 126


def test_users_limits_and_terminal(podman: Podman) -> None:
    assert _run(podman, "-u", "bob", "localhost/busybox", "id", "-un").stdout == "bob\n"
    assert "/dev/pts/0" in _run(podman, "-t", "localhost/busybox", "tty").stdout
    out = _run(podman, "--pids-limit", "44", "localhost/busybox", "sh", "-c", "cat /sys/fs/cgroup/pids/pids.max || :")
    assert out.stdout == "44\n", out.stderr
    assert _run(podman, "--read-only", "localhost/busybox", "touch", "/x").returncode == 1
    out = _run(podman, "--uidmap", "0:100000:65536", "localhost/busybox", "cat", "/proc/self/uid_map")
    assert out.stdout.split() == ["0", "100000", "65536"], out.stderr


def test_life_of_a_container(podman: Podman) -> None:
    podman.ok("run", "-d", "--name", "one", "--network", "none", "localhost/busybox", "sleep", "100")
    assert "sleep 100" in podman.ok("exec", "one", "ps")
    assert "/dev/pts/0" in podman.ok("exec", "-t", "one", "tty")
    assert podman("exec", "one", "sh", "-c", "exit 9").returncode == 9
    podman.ok("pause", "one")
    assert podman.ok("inspect", "-f", "{{.State.Status}}", "one") == "paused\n"
    podman.ok("unpause", "one")
    assert "sleep 100" in podman.ok("top", "one")
    podman.ok("kill", "one")
    assert podman.ok("wait", "one") == "137\n"
    podman.ok("start", "one")
    podman.ok("stop", "--time", "0", "one")
    podman.ok("rm", "--force", "one")
