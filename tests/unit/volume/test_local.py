from __future__ import annotations

import pytest

from corral.volume.local import InvalidOption, MountCall, check_options, mount_calls

MS_RDONLY, MS_REMOUNT, MS_BIND, MS_REC, MS_NOATIME = 1, 0x20, 0x1000, 0x4000, 0x400


def resolve(host: str) -> str:
    return {"nas": "192.0.2.7", "six": "2001:db8::7"}[host]


@pytest.mark.parametrize(
    ("fstype", "device", "words", "expected"),
    [
        ("tmpfs", "tmpfs", "size=1m,uid=5", [MountCall("tmpfs", "tmpfs", 0, "size=1m,uid=5")]),
        (
            "nfs", ":/export", "addr=nas,rw,noatime,nfsvers=4",
            [MountCall(":/export", "nfs", MS_NOATIME, "addr=192.0.2.7,nfsvers=4")],
        ),
        ("nfs4", ":/export", "addr=192.0.2.9,ro", [MountCall(":/export", "nfs4", MS_RDONLY, "addr=192.0.2.9")]),
        (
            "cifs", "//nas/share", "username=u,password=p",
            [MountCall("//nas/share", "cifs", 0, "username=u,password=p,addr=192.0.2.7")],
        ),
        ("cifs", "//x/share", "addr=six", [MountCall("//x/share", "cifs", 0, "addr=2001:db8::7")]),
        ("none", "/src", "bind", [MountCall("/src", "", MS_BIND)]),
        ("none", "/src", "rbind", [MountCall("/src", "", MS_BIND | MS_REC)]),
        (
            "none", "/src", "bind,ro",
            [MountCall("/src", "", MS_BIND), MountCall("", "", MS_REMOUNT | MS_BIND | MS_RDONLY)],
        ),
    ],
)  # fmt: skip
def test_mount_calls(fstype: str, device: str, words: str, expected: list[MountCall]) -> None:
    assert mount_calls({"type": fstype, "device": device, "o": words}, resolve) == expected


def test_no_mount_before_the_host_is_known() -> None:
    with pytest.raises(KeyError):
        mount_calls({"type": "nfs", "device": ":/x", "o": "addr=unknown"}, resolve)


@pytest.mark.parametrize(
    "options",
    [{"type": "tmpfs"}, {"device": "/x"}, {"o": "ro"}, {"o": "ro", "device": "/x"}, {"size": "-1"}, {"x": "y"}],
)
def test_options_that_cannot_be_used_together(options: dict[str, str]) -> None:
    with pytest.raises(InvalidOption):
        check_options(options)


def test_size_in_bytes() -> None:
    assert check_options({}) == 0
    assert check_options({"size": "2m"}) == 2 << 20
