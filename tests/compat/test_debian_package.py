"""The Debian package on a machine as fresh as they get: to the first container, an upgrade, and nothing left behind."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.daemon import IMAGE, busybox_image
from tests.support.machines import ENTER_DEBIAN, make_debian

ROOT = Path(__file__).resolve().parents[2]

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="installing a package needs root"),
    pytest.mark.skipif(not shutil.which("mmdebstrap"), reason="mmdebstrap is not installed"),
    pytest.mark.timeout(600),
]

# The fresh machine in namespaces of its own; nothing that is mounted or started there is seen outside.
_ENTER = (
    ENTER_DEBIAN
    + """
mkdir -p tmp/given && mount --bind "$1" tmp/given
ip link set lo up
chroot . /bin/sh -ec "$2"
"""
)
# What apt, dpkg and the tools for accounts keep for themselves.
_THEIRS = ("/var/cache/apt/", "/var/lib/apt/", "/var/log/apt/", "/var/log/dpkg.log", "/etc/gshadow-", "/etc/group-")


@pytest.fixture(scope="module")
def package(wheelhouse: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("package")
    done = subprocess.run(
        [ROOT / "packaging" / "build-deb", "-w", wheelhouse, folder],
        env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.strip())


def field(package: Path, name: str) -> str:
    return subprocess.run(
        ["dpkg-deb", "-f", package, name], capture_output=True, text=True, check=True, timeout=60
    ).stdout.strip()


@pytest.fixture(scope="module")
def fresh(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root of a minimal Debian with what the package depends on, and no more."""
    folder = tmp_path_factory.mktemp("fresh") / "root"
    needed = ",".join(word.split()[0] for word in field(package, "Depends").split(", "))
    excluded = [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("man", "doc", "locale")]
    make_debian(folder, f"--include={needed}", *excluded)
    return folder


@pytest.fixture
def cgroup_parent() -> Iterator[str]:
    name = f"/corral-test-{uuid.uuid4().hex[:8]}"
    yield name
    for base in Path("/sys/fs/cgroup").glob(f"*{name}"):
        base.rmdir()
    with contextlib.suppress(FileNotFoundError):
        Path(f"/sys/fs/cgroup{name}").rmdir()


def inside(root: Path, given: Path, script: str) -> subprocess.CompletedProcess[str]:
    """Run a script as root on the fresh machine; `given` is /tmp/given there."""
    return subprocess.run(
        ["unshare", "-m", "-n", "-p", "--fork", "--kill-child", "sh", "-ec", _ENTER, root, given, script],
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND": "noninteractive"},
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip


def test_what_is_in_it(package: Path) -> None:
    listing = subprocess.run(["dpkg-deb", "-c", package], capture_output=True, text=True, check=True).stdout
    paths = [line.split()[5] for line in listing.splitlines()]
    for path in ("usr/bin/corrald", "usr/lib/systemd/system/corral.socket", "usr/share/man/man1/corral-run.1.gz"):
        assert f"./{path}" in paths
    assert not [path for path in paths if "__pycache__" in path or not path.startswith(("./usr/", "./"))]
    assert {line.split()[1] for line in listing.splitlines()} == {"root/root"}
    assert field(package, "Package") == "corral"


def test_from_nothing_to_a_container_and_back_to_nothing(
    package: Path, fresh: Path, tmp_path: Path, cgroup_parent: str
) -> None:
    (tmp_path / "image.tar").write_bytes(busybox_image())
    shutil.copy(package, tmp_path / "corral.deb")
    done = inside(fresh, tmp_path, f"""
        find / -xdev -not -path '/tmp/*' | sort > /tmp/before
        getent group > /tmp/groups
        apt() {{ apt-get -qq -y --no-install-recommends "$@" > /tmp/log 2>&1 || {{ cat /tmp/log; exit 1; }}; }}
        apt install /tmp/given/corral.deb
        test ! -e /run/corral.pid
        corral setup --check > /tmp/found || cat /tmp/found
        corral setup 2>&1 | tail -1
        corrald --cgroup-parent {cgroup_parent} 2> /tmp/daemon.log &
        timeout 60 sh -c 'until corral version > /dev/null 2>&1; do sleep 0.05; done' || cat /tmp/daemon.log
        corral load -q -i /tmp/given/image.tar
        corral run --rm {IMAGE} echo first
        corral run -d --name kept {IMAGE} sleep 1000 > /dev/null
        dpkg -i /tmp/given/corral.deb > /dev/null       # an upgrade
        corral ps --format '{{{{.Names}}}} {{{{.State}}}}'
        corral registry gc --root /tmp/registry 2>&1 | grep -o 'there is no registry'
        echo '{{"debug": true}}' > /tmp/daemon.json && corrald --validate --config-file /tmp/daemon.json
        find /usr/lib/corral -newer /tmp/groups -name '*.pyc' | head -1 | wc -l
        apt purge corral
        tail -n +3 /proc/net/dev | cut -d: -f1
        getent group | diff /tmp/groups -
        ls -A /run
        find / -xdev -not -path '/tmp/*' | sort > /tmp/after
        diff /tmp/before /tmp/after | grep '^[<>]' || true
    """)  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert lines[:7] == [
        "corral setup: a package has installed all of this; --check looks at the host",
        f"Loaded image: {IMAGE}",
        "first",
        "kept running",
        "there is no registry",
        "configuration OK",
        "1",
    ], done.stdout + done.stderr
    assert lines[7].strip() == "lo"
    left = [line for line in lines[8:] if not line.removeprefix("> ").startswith(_THEIRS)]
    assert left == [], left
