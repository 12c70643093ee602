"""The parts of `image` that decide without touching anything: removal, changes, challenges, whiteouts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.image import auth, removal, whiteouts
from corral.image.changes import InvalidChange, apply_changes
from corral.image.model import RemoveConflict, User
from corral.oci.digest import Digest
from corral.oci.image import RunConfig

ID = Digest("sha256:" + "0123456789ab" + "c" * 52)
ONE, TWO, ELSEWHERE = "docker.io/library/x:1", "docker.io/library/x:2", "docker.io/other/y:1"
STOPPED, RUNNING = User("f" * 64, False), User("e" * 64, True)


def test_one_of_two_names_goes_even_in_use() -> None:
    assert removal.plan("x:1", ID, ONE, [ONE, TWO], [RUNNING], False) == removal.Plan((ONE,), False)


def test_the_last_name_takes_the_image_along() -> None:
    assert removal.plan("x:1", ID, ONE, [ONE], [], False) == removal.Plan((ONE,), True)


def test_the_last_tag_takes_its_digest_reference_along() -> None:
    digest_name = f"docker.io/library/x@{ID}"
    assert removal.plan("x:1", ID, ONE, [ONE, digest_name], [], False) == removal.Plan((ONE, digest_name), True)
    assert removal.plan("x:1", ID, ONE, [ONE, TWO, digest_name], [], False).names == (ONE,)


def test_the_last_name_of_a_used_image_needs_force() -> None:
    with pytest.raises(RemoveConflict) as caught:
        removal.plan("x:1", ID, ONE, [ONE], [STOPPED], False)
    assert str(caught.value) == (
        'conflict: unable to remove repository reference "x:1" (must force) - '
        "container ffffffffffff is using its referenced image 0123456789ab"
    )
    assert removal.plan("x:1", ID, ONE, [ONE], [STOPPED], True).delete


def test_an_id_of_several_repositories_needs_force() -> None:
    with pytest.raises(RemoveConflict) as caught:
        removal.plan("0123", ID, None, [ONE, ELSEWHERE], [], False)
    assert str(caught.value) == (
        "conflict: unable to delete 0123456789ab (must be forced) - image is referenced in multiple repositories"
    )
    assert removal.plan("0123", ID, None, [ONE, ELSEWHERE], [], True).names == (ONE, ELSEWHERE)
    assert removal.plan("0123", ID, None, [ONE, TWO], [], False).names == (ONE, TWO)


def test_an_id_in_use() -> None:
    with pytest.raises(RemoveConflict, match=r"\(must be forced\) - image is being used by stopped container f"):
        removal.plan("0123", ID, None, [ONE], [STOPPED], False)
    with pytest.raises(RemoveConflict, match=r"\(cannot be forced\) - image is being used by running container e"):
        removal.plan("0123", ID, None, [ONE], [STOPPED, RUNNING], True)


def test_changes() -> None:
    config = apply_changes(
        RunConfig(env=["A=1", "B=2"]),
        [
            'CMD ["a", "b c"]\nENTRYPOINT run it',
            'ENV A=3 C="x y" D=z\\ w\nENV OLD style value',
            "EXPOSE 80 53/UDP",
            "LABEL a=b 'c d'=e",
            'USER me\nVOLUME ["/v"]\nVOLUME /w /x',
            "WORKDIR /a\nWORKDIR b\nSTOPSIGNAL 9",
            "ONBUILD RUN x",
            "HEALTHCHECK --interval=1m30s --retries=2 CMD curl x",
        ],
    )
    assert config.cmd == ["a", "b c"] and config.entrypoint == ["/bin/sh", "-c", "run it"]
    assert config.env == ["A=3", "B=2", "C=x y", "D=z w", "OLD=style value"]
    assert config.exposed_ports == {"80/tcp": {}, "53/udp": {}}
    assert config.labels == {"a": "b", "c d": "e"} and config.volumes == {"/v": {}, "/w": {}, "/x": {}}
    assert (config.user, config.working_dir, config.stop_signal, config.on_build) == ("me", "/a/b", "9", ["RUN x"])
    assert config.healthcheck is not None
    assert (config.healthcheck.test, config.healthcheck.interval) == (["CMD-SHELL", "curl x"], 90 * 10**9)


@pytest.mark.parametrize(
    "line", ["RUN x", "FROM y", "CMD", "ENV A", "EXPOSE x", "HEALTHCHECK x", "ENV A=1 B", "COPY a b"]
)
def test_changes_that_are_refused(line: str) -> None:
    with pytest.raises(InvalidChange):
        apply_changes(RunConfig(), [line])


@given(st.sampled_from(["CMD", "ENV", "LABEL", "EXPOSE", "VOLUME", "HEALTHCHECK", "WORKDIR"]), st.text(max_size=40))
def test_any_change_is_applied_or_refused(word: str, rest: str) -> None:
    try:
        apply_changes(RunConfig(), [f"{word} {rest}"])
    except InvalidChange:
        pass


def test_challenges() -> None:
    found = auth.parse_challenge('Bearer realm="https://a/t?x=1",service="s, t", scope="repository:a:pull,push"')
    assert found.scheme == "bearer"
    assert found.parameters == {"realm": "https://a/t?x=1", "service": "s, t", "scope": "repository:a:pull,push"}
    assert auth.parse_challenge("").scheme == ""


@given(st.text(max_size=100))
def test_any_challenge_is_read(header: str) -> None:
    auth.parse_challenge(header)


def test_basic_credentials() -> None:
    assert auth.basic({"username": "u", "password": "p"}) == "Basic dTpw"
    assert auth.basic({"auth": "dTpw"}) == "Basic dTpw"
    assert auth.basic({}) is None and auth.basic({"auth": "***"}) is None


def test_whiteouts() -> None:
    assert whiteouts.hidden_name(".wh.a") == "a"
    assert whiteouts.hidden_name(".wh..wh..opq") is None and whiteouts.hidden_name("a") is None
    assert whiteouts.is_metadata(".wh..wh.plnk") and not whiteouts.is_metadata(".wh..wh..opq")
    assert whiteouts.whiteout_name("a/b") == "a/.wh.b" and whiteouts.whiteout_name("b") == ".wh.b"
