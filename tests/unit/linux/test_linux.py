"""The parts of the kernel door that need no rights."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.linux import cgroupfs, credentials, files, mount, namespaces, tty


def test_a_mountinfo_line() -> None:
    line = r"36 35 98:0 /a\040b /mnt\134x rw,noatime master:1 shared:2 - ext3 /dev/root rw,errors=continue"
    entry = mount.MountEntry(line)
    assert (entry.root, entry.target, entry.fstype, entry.source) == ("/a b", "/mnt\\x", "ext3", "/dev/root")
    assert entry.options == ["rw", "noatime"]
    assert entry.optional == ["master:1", "shared:2"]
    assert entry.super_options == ["rw", "errors=continue"]


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=40))
def test_any_name_survives_mountinfo(name: str) -> None:
    escaped = name.replace("\\", "\\134")
    for char, code in ((" ", "\\040"), ("\t", "\\011"), ("\n", "\\012")):
        escaped = escaped.replace(char, code)
    assert mount.MountEntry(f"1 0 0:1 / /{escaped} rw - tmpfs none rw").target == "/" + name


def test_own_mounts_can_be_read() -> None:
    assert any(entry.target == "/" for entry in mount.mountinfo())


def test_openat2_stays_below_the_root(tmp_path: Path) -> None:
    (tmp_path / "inside").write_text("inside")
    (tmp_path / "link").symlink_to("/inside")
    (tmp_path / "up").symlink_to("../../../../inside")
    root = os.open(tmp_path, os.O_PATH)
    try:
        for name in ("link", "up", "../inside"):
            fd = files.openat2(root, name, os.O_RDONLY)
            assert os.read(fd, 10) == b"inside"
            os.close(fd)
        with pytest.raises(OSError, match="Too many levels") as caught:
            files.openat2(root, "link", os.O_RDONLY, resolve=files.RESOLVE_IN_ROOT | files.RESOLVE_NO_SYMLINKS)
        assert caught.value.filename == "link"
    finally:
        os.close(root)


def test_close_range_marks_descriptors() -> None:
    fd = os.dup(0)
    os.set_inheritable(fd, True)
    files.close_range(fd, fd, files.CLOSE_RANGE_CLOEXEC)
    assert not os.get_inheritable(fd)
    files.close_range(fd, fd)
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(fd)


def test_capabilities_of_this_process() -> None:
    status = Path("/proc/self/status").read_text()
    fields = dict(line.split(":\t") for line in status.splitlines() if line.startswith("Cap"))
    effective, permitted, inheritable = credentials.capget()
    assert (effective, permitted, inheritable) == tuple(
        int(fields[name], 16) for name in ("CapEff", "CapPrm", "CapInh")
    )
    assert len(credentials.CAPABILITIES) == 41
    assert credentials.CAPABILITIES[credentials.CAP_SYS_ADMIN] == "CAP_SYS_ADMIN"


def test_namespace_types() -> None:
    for name, file in (("pid", "pid"), ("mount", "mnt"), ("network", "net"), ("user", "user")):
        fd = os.open(f"/proc/self/ns/{file}", os.O_RDONLY)
        assert namespaces.namespace_type(fd) == namespaces.NS_FILES[name]
        os.close(fd)
    with open("/dev/null", "rb") as null, pytest.raises(OSError, match="ioctl"):
        namespaces.namespace_type(null.fileno())


def test_a_terminal_and_its_size() -> None:
    master, slave, number = tty.new_pair("/dev/ptmx")
    tty.set_size(master, 12, 34)
    assert os.get_terminal_size(slave) == (34, 12)
    assert os.ttyname(slave) == f"/dev/pts/{number}"
    os.close(master)
    os.close(slave)


def test_cgroup_files_are_plain_files(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old\n")
    cgroupfs.write(str(tmp_path), "file", "new")
    assert cgroupfs.read(str(tmp_path), "file").startswith("new")
    (tmp_path / "child").mkdir()
    assert cgroupfs.children(str(tmp_path)) == ["child"]
    with pytest.raises(FileNotFoundError):
        cgroupfs.write(str(tmp_path), "nothing", "x")
