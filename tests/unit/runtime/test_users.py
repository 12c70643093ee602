"""Docker's user text against passwd and group files."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.runtime import users
from corral.runtime.failure import Failure

PASSWD = "root:x:0:0:root:/root:/bin/sh\nbroken\nbob:x:1000:1001::/home/bob:/bin/sh\n7:x:8:9::/seven:\n"
GROUP = "root:x:0:root\nwheel:x:10:root,bob\nalso broken:x\nbob:x:1001:\nvideo:x:44:bob\n"


@pytest.mark.parametrize(
    ("text", "extra", "uid", "gid", "groups", "home"),
    [
        ("", (), 0, 0, [0, 10], "/root"),
        ("root", (), 0, 0, [0, 10], "/root"),
        ("bob", (), 1000, 1001, [1001, 10, 44], "/home/bob"),
        ("1000", (), 1000, 1001, [1001, 10, 44], "/home/bob"),
        ("bob:wheel", (), 1000, 10, [10], "/home/bob"),
        ("bob:7777", (), 1000, 7777, [7777], "/home/bob"),
        ("4242", (), 4242, 0, [0], ""),
        ("4242:5", (), 4242, 5, [5], ""),
        (":wheel", (), 0, 10, [10], "/root"),
        ("7", (), 7, 0, [0], ""),
        ("bob", ("video", "99"), 1000, 1001, [1001, 10, 44, 99], "/home/bob"),
    ],
)
def test_resolution(text: str, extra: tuple[str, ...], uid: int, gid: int, groups: list[int], home: str) -> None:
    found = users.resolve(text, extra, PASSWD, GROUP)
    assert (found.uid, found.gid, found.groups, found.home) == (uid, gid, groups, home)


@pytest.mark.parametrize(
    ("text", "extra", "stage", "name"),
    [
        ("alice", (), "user", "alice"),
        ("bob:nogroup", (), "group", "nogroup"),
        ("bob", ("nogroup",), "group", "nogroup"),
        ("2147483648", (), "user", "2147483648"),
        ("0:99999999999", (), "group", "99999999999"),
    ],
)
def test_unknown_names(text: str, extra: tuple[str, ...], stage: str, name: str) -> None:
    with pytest.raises(Failure) as caught:
        users.resolve(text, extra, PASSWD, GROUP)
    assert (caught.value.stage, caught.value.path) == (stage, name)


@given(st.text(), st.text(max_size=200), st.text(max_size=200))
def test_any_text_is_answered_or_refused(user: str, passwd: str, group: str) -> None:
    try:
        found = users.resolve(user, (), passwd, group)
    except Failure as failure:
        assert failure.stage in ("user", "group")
    else:
        assert found.groups[0] == found.gid
