"""From nothing to the first container: how long it takes on a minimal Debian, and what takes it.

    python3 tests/bench/fresh_machine.py checkout          bin/corral quickstart true
    python3 tests/bench/fresh_machine.py FILE.deb          apt-get install, then corral quickstart true

Needs root, mmdebstrap and slirp4netns (a network for the machine that does not touch the host's).  Each line that the
machine says is shown with the time since the start.  Everything is done twice, on two machines: what apt and pip have
fetched the first time is there the second time, so that its times are without these downloads.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "src"), str(ROOT)]

from tests.support.machines import ENTER_DEBIAN, make_debian  # noqa: E402  the path comes first

_CACHES = ("var/cache/apt/archives", "var/lib/apt/lists", "root/.cache/pip")
_ENTER = (
    ENTER_DEBIAN
    + """
echo $$ > /proc/self/fd/3; read connected
exec chroot . /bin/sh -ec "$1"
"""
)
_COMMANDS = {
    "checkout": "cd /root/corral && bin/corral quickstart true",
    "package": (
        "apt-get update -qq; apt-get install -qq -y /root/corral.deb; echo '==> installed'; corral quickstart true"
    ),
}


def bare(folder: Path) -> None:
    """A minimal Debian that can reach what this machine can."""
    make_debian(folder)
    for path in ("etc/resolv.conf", "etc/ssl/certs/ca-certificates.crt", "etc/pip.conf"):
        if Path("/", path).exists():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(Path("/", path), folder / path)
    for path in Path("/etc/apt/apt.conf.d").glob("99*"):
        shutil.copy(path, folder / "etc/apt/apt.conf.d")


def measure(root: Path, command: str) -> None:
    """Run it there and show when it says what."""
    words = ["unshare", "-m", "-n", "-p", "--fork", "--kill-child", "sh", "-ec", _ENTER, str(root), command]
    with tempfile.TemporaryFile("w+") as answer:
        machine = subprocess.Popen(
            ["sh", "-c", 'exec 3>&1; exec "$@" 2>&1', "sh", *words],
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "DEBIAN_FRONTEND": "noninteractive"},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert machine.stdin and machine.stdout
        machine.stdout.readline()
        child = Path(f"/proc/{machine.pid}/task/{machine.pid}/children").read_text().split()[0]
        network = subprocess.Popen(
            ["slirp4netns", "--configure", "--mtu=65520", "-r", "1", child, "tap0"],
            stdout=subprocess.PIPE, stderr=answer, text=True,
        )  # fmt: skip
        assert network.stdout
        network.stdout.read(1)
        began = time.monotonic()
        machine.stdin.write("connected\n")
        machine.stdin.close()
        for line in machine.stdout:
            if line.startswith(("==>", "corral:", "    ")):
                print(f"{time.monotonic() - began:7.1f} s  {line.rstrip()[:100]}", flush=True)
        status = machine.wait()
        print(f"{time.monotonic() - began:7.1f} s  ended with status {status}", flush=True)
        network.terminate()
        network.wait()


def main() -> None:
    """Two machines, one after the other."""
    given = sys.argv[1]
    with tempfile.TemporaryDirectory(prefix="corral-fresh-", dir="/var/tmp") as work:
        template = Path(work, "template")
        bare(template)
        caches: Path | None = None
        for turn in ("first", "again"):
            root = Path(work, turn)
            subprocess.run(["cp", "-a", template, root], check=True)
            for path in [path for path in _CACHES if caches and (caches / path).exists()]:
                (root / path).mkdir(parents=True, exist_ok=True)
                subprocess.run(["cp", "-aT", caches / path, root / path], check=True)
            if given == "checkout":
                files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
                for name in files.splitlines():
                    target = root / "root/corral" / name
                    target.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy(ROOT / name, target, follow_symlinks=False)
            else:
                shutil.copy(given, root / "root/corral.deb")
            print(f"-- {turn}", flush=True)
            measure(root, _COMMANDS["checkout" if given == "checkout" else "package"])
            caches = root


if __name__ == "__main__":
    main()
