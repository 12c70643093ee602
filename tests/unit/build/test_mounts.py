"""`RUN --mount`, --chmod, and the git forms of a source."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.build import copying, mounts, sources
from corral.build.problems import DockerfileError


def test_reading() -> None:
    found = mounts.parse("type=cache,id=x,dst=/c,sharing=locked,mode=0700,uid=1,ro")
    assert (found.kind, found.id, found.target, found.sharing, found.mode, found.uid, found.writable) == (
        "cache", "x", "/c", "locked", 0o700, 1, False
    )  # fmt: skip
    assert mounts.parse("from=b,src=/a,target=/t") == mounts.Mount("bind", "b", "/a", "/t", writable=False)
    assert mounts.parse("target=/t,rw").writable is True
    assert mounts.parse("type=tmpfs,target=/t,size=10m").size == 10 << 20
    assert mounts.parse("type=secret,id=a,env=B,required").required is True


@pytest.mark.parametrize(
    "text",
    ["type=x,target=/a", "target", "tarket=/a", "type=cache", "type=secret", "type=cache,target=/a,sharing=x",
     "target=/a,rw=maybe", "type=tmpfs,target=/a,size=x", "type=cache,target=/a,mode=9", "type=cache,target=/a,uid=-1"],
)  # fmt: skip
def test_refusals(text: str) -> None:
    with pytest.raises(DockerfileError):
        mounts.parse(text)


@given(st.text(st.sampled_from("type=cache,bind,target=/a,ro rw size=1"), max_size=40))
def test_any_mount_is_either_read_or_refused(text: str) -> None:
    try:
        mounts.parse(text)
    except DockerfileError:
        pass


@pytest.mark.parametrize(
    ("text", "mode", "directory", "result"),
    [
        ("755", 0o600, False, 0o755), ("u+x", 0o644, False, 0o744), ("go-w", 0o666, False, 0o644),
        ("a=r", 0o777, False, 0o444), ("u=rwX,go=rX", 0o600, True, 0o755), ("u=rwX,go=rX", 0o600, False, 0o644),
        ("+x", 0o644, False, 0o755), ("u+s", 0o755, False, 0o4755), ("g=u", 0o700, False, None),
    ],
)  # fmt: skip
def test_modes(text: str, mode: int, directory: bool, result: int | None) -> None:
    if result is None:
        with pytest.raises(copying.BadMode):
            copying.mode_change(text)
        return
    assert copying.mode_change(text)(mode, directory) == result


def test_what_is_a_repository() -> None:
    yes = [
        "git@github.com:a/b",
        "git://h/r",
        "https://h/r.git",
        "https://h/r.git#ref:dir",
        "ssh://h/r",
        "github.com/a/b",
    ]
    no = ["https://h/file.tar", "https://h/r.gitx", "file.git", "a:b"]
    assert [url for url in yes if not sources.is_git(url)] == []
    assert [url for url in no if sources.is_git(url)] == []
