"""The runtime as the shim uses it: in process, many times, leaving nothing behind."""

from __future__ import annotations

import errno
import json
import os
import signal
import statistics
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from corral.linux import credentials, mount
from corral.runtime import container, template
from corral.runtime.container import Container, Rootfs, Stdio
from corral.runtime.failure import Failure
from tests.integration.runtime_fixtures import busybox_root, needs_root

__all__ = ["busybox_root"]
pytestmark = needs_root


class Library:
    """Creates containers over one overlay, and knows what there was before."""

    def __init__(self, folder: Path, root: Path) -> None:
        self.folder = folder
        self.root = root
        self.id = f"lib{uuid.uuid4().hex[:10]}"
        self.spec: dict[str, Any] = template.default_spec()
        self.spec["process"]["terminal"] = False
        self.spec["root"] = {"path": "rootfs"}
        self.spec["linux"]["cgroupsPath"] = f"/corral-test/{self.id}"
        for name in ("upper", "work"):
            (folder / name).mkdir()
        self.null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)

    def create(self, *args: str, stdout: int | None = None, **more: Any) -> tuple[Container, int]:
        self.spec["process"]["args"] = list(args)
        out = self.null if stdout is None else stdout
        more.setdefault("rootfs", Rootfs([str(self.root)], str(self.folder / "upper"), str(self.folder / "work")))
        return container.create(
            self.id,
            bundle=str(self.folder),
            spec=self.spec,
            state_dir=str(self.folder / "state"),
            stdio=Stdio(self.null, out, out),
            **more,
        )

    def output(self, *args: str, **more: Any) -> str:
        read_end, write_end = os.pipe()
        made, _ = self.create(*args, stdout=write_end, **more)
        made.start()
        os.close(write_end)
        with open(read_end, "rb") as file:
            text = file.read().decode()
        os.waitpid(made.pid, 0)
        made.delete()
        return text

    def world(self) -> tuple[list[str], list[str], list[str]]:
        """Descriptors, cgroups and mounts: what could leak."""
        base = "/sys/fs/cgroup"
        groups = [name for name in os.listdir(base) if os.path.isdir(f"{base}/{name}/corral-test/{self.id}")]
        mounts = Path("/proc/self/mountinfo").read_text().splitlines()
        own = [line for line in mounts if str(self.folder) in line or str(self.root) in line]
        return sorted(os.listdir("/proc/self/fd")), groups, own


def zombies() -> set[int]:
    """Children of this process that have ended and that nobody has waited for; other tests may have some."""
    found = set()
    for name in filter(str.isdecimal, os.listdir("/proc")):
        try:
            state, parent = Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if state == "Z" and int(parent) == os.getpid():
            found.add(int(name))
    return found


@pytest.fixture
def library(tmp_path: Path, busybox_root: Path) -> Iterator[Library]:
    made = Library(tmp_path, busybox_root)
    before, others = made.world(), zombies()
    yield made
    assert made.world() == before
    assert not (tmp_path / "state").exists()
    os.close(made.null)
    assert zombies() <= others


def test_overlay_life(library: Library) -> None:
    assert library.output("sh", "-c", "echo new > /file; cat /file") == "new\n"
    assert (library.folder / "upper/file").read_text() == "new\n"
    assert not (library.root / "file").exists()


def test_layers_in_order_and_read_only_views(library: Library) -> None:
    for name in ("one", "two"):
        (library.folder / name).mkdir()
        (library.folder / name / "who").write_text(f"{name}\n")
    lower = [str(library.folder / "two"), str(library.folder / "one"), str(library.root)]
    assert library.output("cat", "/who", rootfs=Rootfs(lower)) == "two\n"
    assert "Read-only" in library.output("sh", "-c", "touch /x 2>&1", rootfs=Rootfs(lower))
    assert "Read-only" in library.output("sh", "-c", "touch /x 2>&1; :", rootfs=Rootfs([str(library.root)]))


def test_hundreds_of_layers(library: Library) -> None:
    lower = []
    for number in range(200):
        folder = library.folder / "many" / f"{'layer' * 20}{number}"
        folder.mkdir(parents=True)
        (folder / f"f{number}").write_text("x")
        lower.append(str(folder))
    assert library.output("sh", "-c", "ls /f* | wc -l", rootfs=Rootfs([*lower, str(library.root)])) == "200\n"


@pytest.mark.parametrize(
    ("user", "line"),
    [
        ("", "uid=0(root) gid=0(root) groups=0(root),10(wheel)"),
        ("bob", "uid=1000(bob) gid=1000(bob) groups=10(wheel),1000(bob)"),
        ("1000:wheel", "uid=1000(bob) gid=10(wheel) groups=10(wheel)"),
        ("555", "uid=555 gid=0(root) groups=0(root)"),
    ],
)
def test_users(library: Library, user: str, line: str) -> None:
    assert sorted(library.output("id", user=user).split()) == sorted(line.split())


def test_extra_groups(library: Library) -> None:
    assert library.output("id", "-G", user="bob", groups=("77",)) == "1000 10 77\n"


@pytest.mark.parametrize(
    ("more", "args", "stage", "number", "path"),
    [
        ({"user": "alice"}, ("true",), "user", 2, "alice"),
        ({"user": "0:staff"}, ("true",), "group", 2, "staff"),
        ({"groups": ("staff",), "user": ""}, ("true",), "group", 2, "staff"),
        ({}, ("nothing-here",), "exec", 2, "nothing-here"),
        ({}, ("/etc/passwd",), "exec", 13, "/etc/passwd"),
        ({}, ("/etc",), "exec", 13, "/etc"),
        ({"rootfs": Rootfs(["/no/such/layer"])}, ("true",), "root", 2, "/no/such/layer"),
        ({"rootfs": Rootfs(["/no/such/layer", "/tmp"])}, ("true",), "root", 2, "/no/such/layer"),
    ],
)
def test_failures_say_where_and_leave_nothing(
    library: Library, more: dict[str, Any], args: tuple[str, ...], stage: str, number: int, path: str
) -> None:
    with pytest.raises(Failure) as caught:
        library.create(*args, **more)
    assert (caught.value.stage, caught.value.errno, caught.value.path) == (stage, number, path)


def test_failed_execve_is_told_by_start(library: Library) -> None:
    script = library.folder / "upper" / "script"
    script.write_text("#!/no/such/interpreter\n")
    script.chmod(0o755)
    made, _ = library.create("/script")
    with pytest.raises(Failure) as caught:
        made.start()
    assert (caught.value.stage, caught.value.errno) == ("exec", 2)
    os.waitpid(made.pid, 0)
    made.delete()


def test_start_after_the_init_was_killed(library: Library) -> None:
    made, _ = library.create("true")
    os.kill(made.pid, signal.SIGKILL)
    os.waitid(os.P_PID, made.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and is still there to be seen
    with pytest.raises(Failure):
        made.start()
    os.waitpid(made.pid, 0)
    made.delete()
    made.delete()  # idempotent


def test_load_from_elsewhere(library: Library) -> None:
    made, _ = library.create("sleep", "100")
    again = container.load(str(library.folder / "state"))
    assert (again.pid, again.status(), again.spec) == (made.pid, "created", made.spec)
    again.start()
    assert made.status() == "running"
    assert made.pids() == [made.pid]
    again.kill(signal.SIGKILL)
    assert os.waitpid(made.pid, 0)[1] == signal.SIGKILL
    made.delete()
    with pytest.raises(Failure) as caught:
        container.load(str(library.folder / "state"))
    assert (caught.value.stage, caught.value.errno) == ("state", 2)


def test_exec_failures_and_terminal(library: Library) -> None:
    made, _ = library.create("sleep", "100")
    try:
        made.start()
        process = dict(made.spec["process"], args=["no-such"])
        stdio = Stdio(library.null, library.null, library.null)
        for args, number in ((["no-such"], 2), (["/etc"], 13)):
            with pytest.raises(Failure) as caught:
                made.exec(dict(process, args=args), stdio)
            assert (caught.value.stage, caught.value.errno) == ("exec", number)
        with pytest.raises(Failure) as caught:
            made.exec(dict(process, args=["true"]), stdio, user="alice")
        assert caught.value.stage == "user"
        size = {"height": 30, "width": 90}
        pid, console = made.exec(dict(process, args=["tty"], terminal=True, consoleSize=size), stdio)
        assert os.read(console, 100) == b"/dev/pts/0\r\n"
        os.close(console)
        os.waitpid(pid, 0)
    finally:
        made.delete(force=True)
        os.waitpid(made.pid, 0)


@pytest.fixture
def subreaper() -> Iterator[None]:
    """With a user namespace init is a grandchild, whose parent leaves."""
    credentials.prctl(credentials.PR_SET_CHILD_SUBREAPER, 1)
    yield
    credentials.prctl(credentials.PR_SET_CHILD_SUBREAPER, 0)


@pytest.mark.usefixtures("subreaper")
def test_user_namespace_is_reparented_to_the_subreaper(library: Library) -> None:
    library.spec["linux"]["namespaces"].append({"type": "user"})
    mapping = [{"containerID": 0, "hostID": 300000, "size": 65536}]
    library.spec["linux"].update(uidMappings=mapping, gidMappings=mapping)
    for name in ("upper", "work"):
        os.chown(library.folder / name, 300000, 300000)
    made, _ = library.create("sh", "-c", "id -u; sleep 100")
    made.start()
    process = dict(made.spec["process"], args=["sh", "-c", "exit $(id -u)"])
    pid, _ = made.exec(process, Stdio(library.null, library.null, library.null), user="bob:99")
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1000 % 256
    made.kill(signal.SIGKILL, all=True)
    assert os.waitpid(made.pid, 0)[1] == signal.SIGKILL
    made.delete()


def _mapped(library: Library, read_only: bool = False) -> tuple[str, list[str]]:
    """What a container sees of, and leaves in, directories that keep its own ids."""
    mapping = [{"containerID": 0, "hostID": 300000, "size": 65536}]
    library.spec["linux"]["namespaces"].append({"type": "user"})
    library.spec["linux"].update(uidMappings=mapping, gidMappings=mapping)
    names = ["CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER"]
    library.spec["process"]["capabilities"] = dict.fromkeys(("bounding", "effective", "permitted"), names)
    one = library.folder / "one"
    one.mkdir()
    for name, owner in (("bobs", 1000), ("beyond", 70000)):
        (one / name).write_text(name)
        os.chown(one / name, owner, owner)
    paths = [str(library.folder / name) for name in ("upper", "work")]
    rootfs = Rootfs([str(one), str(library.root)], *([] if read_only else paths), mappings=(mapping, mapping))
    script = (
        "stat -c %u:%g / /bin /bobs /beyond /dev/null; echo x > /dev/null; "
        "touch /new && chown 33:44 /new && rm /bobs && mkdir /etc/made; grep -c /proc/self/fd/ /proc/mounts"
    )
    out = library.output("sh", "-c", script, rootfs=rootfs)
    left = [
        f"{path.name} {path.lstat().st_uid}:{path.lstat().st_gid}" for path in (library.folder / "upper").rglob("*")
    ]
    return out, sorted(left)


_SEEN = ["0:0", "0:0", "1000:1000", "65534:65534", "0:0", "1"]
_LEFT = ["bobs 0:0", "etc 0:0", "made 0:0", "new 33:44"]


@pytest.mark.usefixtures("subreaper")
def test_a_root_with_mapped_ids(library: Library) -> None:
    out, left = _mapped(library)
    assert out.split() == _SEEN
    assert set(_LEFT) <= set(left) and all(one.endswith((" 0:0", " 33:44")) for one in left)
    assert os.stat(library.folder / "upper/bobs").st_rdev == 0


@pytest.mark.usefixtures("subreaper")
def test_a_root_with_mapped_ids_on_kernels_that_want_attached_layers(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    new_filesystem = mount.new_filesystem

    def refuse_overlays(fstype: str, options: list[tuple[str, str | None]], attributes: int = 0) -> int:
        if fstype == "overlay":
            raise OSError(errno.EINVAL, "as before 6.15")
        return new_filesystem(fstype, options, attributes)

    monkeypatch.setattr(mount, "new_filesystem", refuse_overlays)
    out, left = _mapped(library)
    assert out.split() == _SEEN
    assert set(_LEFT) <= set(left)


@pytest.mark.usefixtures("subreaper")
def test_a_view_with_mapped_ids(library: Library) -> None:
    out, left = _mapped(library, read_only=True)
    assert out.split()[:5] == _SEEN[:5]
    assert left == []


def test_ids_that_the_file_system_cannot_map(library: Library) -> None:
    mapping = [{"containerID": 0, "hostID": 300000, "size": 65536}]
    rootfs = Rootfs(["/proc"], str(library.folder / "upper"), str(library.folder / "work"), None, (mapping, mapping))
    with pytest.raises(Failure) as caught:
        library.create("true", rootfs=rootfs)
    assert (caught.value.stage, caught.value.path) == ("root", "/proc")
    assert caught.value.detail == "the file system cannot map ids"


def test_oom_and_stats(library: Library) -> None:
    library.spec["linux"]["resources"] = {"memory": {"limit": 16 << 20}, "pids": {"limit": 9}}
    made, _ = library.create("dd", "if=/dev/zero", "of=/dev/null", "bs=64M", "count=1")
    stats = made.stats()
    assert stats["memory"]["limit"] == 16 << 20
    assert stats["pids"] == {"current": 1, "limit": 9}
    assert not made.oom_killed()
    made.start()
    assert os.waitpid(made.pid, 0)[1] == signal.SIGKILL
    assert made.oom_killed()
    made.delete()


def test_images_bring_no_code_into_the_runtime(library: Library) -> None:
    """Modules that an image has at the interpreter's own paths are not loaded while the runtime sets it up."""
    for folder in [path for path in sys.path if path.startswith("/") and "python3" in path]:
        place = library.folder / "upper" / folder.lstrip("/") / "encodings"
        place.mkdir(parents=True, exist_ok=True)
        for name in ("__init__", "ascii", "idna", "latin_1"):
            (place / f"{name}.py").write_text("import os; os._exit(99)\n")
    assert library.output("echo", "fine") == "fine\n"


_IMPORTS = """
import sys
before = set(sys.modules)
import corral.runtime.container
heavy = {"asyncio", "dataclasses", "logging", "subprocess", "typing", "argparse", "pathlib", "inspect"}
print(",".join(sorted(heavy & (set(sys.modules) - before))))
"""


def test_imports_stay_light() -> None:
    source = str(Path(__file__).resolve().parents[2] / "src")
    done = subprocess.run(
        ["/usr/bin/python3", "-IS", "-c", f"import sys; sys.path.insert(0, {source!r})\n{_IMPORTS}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == ""


def test_speed(library: Library) -> None:
    """A loose bound, to notice an order of magnitude: the figures themselves belong to the benchmarks."""
    import time

    taken = []
    for _ in range(10):
        begin = time.perf_counter()
        made, _ = library.create("true")
        made.start()
        taken.append(time.perf_counter() - begin)
        os.waitpid(made.pid, 0)
        made.delete()
    assert statistics.median(taken) < 0.1


def test_spec_in_state_is_a_copy(library: Library) -> None:
    made, _ = library.create("true")
    record = json.loads((library.folder / "state/state.json").read_text())
    assert record["spec"] == made.spec
    made.delete(force=True)
    os.waitpid(made.pid, 0)
