"""Machines to spoil: this one's files below an overlay, or a minimal Debian; with mounts and processes of their own."""

from __future__ import annotations

import subprocess
from pathlib import Path

from corral.cli import bootstrap

_TIMEOUT_S = 110
# Nothing that happens inside is seen outside: not even a mount.
_SCRIPT = """
set -e
mount --make-rprivate /
mount -t tmpfs tmpfs "$0"
mkdir "$0/upper" "$0/work" "$0/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$0/upper,workdir=$0/work" "$0/root"
for name in proc sys dev; do mount --rbind "/$name" "$0/root/$name"; done
for name in run tmp; do mount -t tmpfs tmpfs "$0/root/$name"; done
for path in %s; do mkdir -p "$0/root$path"; mount --bind "$path" "$0/root$path"; done
exec chroot "$0/root" /bin/sh -ec "$1"
"""


class Machine:
    """Scripts run one after the other on fresh copies; `shared` are folders of the real one that are seen inside."""

    def __init__(self, folder: Path, *shared: str) -> None:
        self._folder = folder
        self._script = _SCRIPT % " ".join(shared)

    def run(self, script: str) -> subprocess.CompletedProcess[str]:
        """Run a script of the shell as root on a fresh copy."""
        namespaces = ("unshare", "-m", "-n", "-p", "--fork", "--kill-child")
        return subprocess.run(
            [*namespaces, "sh", "-ec", self._script, str(self._folder), script],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False,
        )  # fmt: skip


# Enters the root of a minimal Debian, `$0`; what follows ends with a chroot.
ENTER_DEBIAN = """
mount --make-rprivate /
mount --bind "$0" "$0"
cd "$0"
mount -t proc proc proc
for name in sys dev; do mount --rbind "/$name" "$name"; done
for name in run tmp; do mount -t tmpfs tmpfs "$name"; done
"""


def make_debian(folder: Path, *options: str) -> None:
    """A minimal Debian with the machine's own sources and settings of apt, and no more; `options` are mmdebstrap's."""
    program, *words = bootstrap.arguments("bookworm", bootstrap.host_sources("bookworm"))
    words = [word for word in words if "--format" not in word]
    words[words.index("-")] = str(folder)
    done = subprocess.run(
        [program, *options, *words],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, start_new_session=True, check=False, timeout=400,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
