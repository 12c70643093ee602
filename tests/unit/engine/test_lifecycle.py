"""The table of states, and restart policies."""

from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.engine.lifecycle import ALIVE, AlreadyStarted, AlreadyStopped, Status, Verb, WrongState, check
from corral.engine.restart import FIRST_DELAY_S, LONGEST_DELAY_S, after_boot, decide
from corral.errors import Conflict, NotModified
from corral.wire.containers import RestartPolicy

STATUSES: tuple[Status, ...] = get_args(Status)
VERBS: tuple[Verb, ...] = get_args(Verb)


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("status", STATUSES)
def test_every_verb_is_answered_from_every_state(verb: Verb, status: Status) -> None:
    try:
        check(verb, status, "abc")
    except (Conflict, NotModified) as refusal:
        assert "{" not in str(refusal)


@pytest.mark.parametrize(
    ("verb", "allowed"),
    [
        ("start", {"created", "exited"}),
        ("stop", {"running", "paused", "restarting"}),
        ("kill", {"running", "paused", "restarting"}),
        ("pause", {"running"}),
        ("unpause", {"paused"}),
        ("exec", {"running"}),
        ("resize", {"running", "paused", "restarting"}),
        ("attach", {"created", "running", "exited", "removing", "dead"}),
        ("restart", set(STATUSES)),
    ],
)
def test_what_is_allowed(verb: Verb, allowed: set[Status]) -> None:
    found = set()
    for status in STATUSES:
        try:
            check(verb, status, "abc")
        except (Conflict, NotModified):
            continue
        found.add(status)
    assert found == allowed


def test_docker_s_words() -> None:
    for verb, status, kind, text in (
        ("start", "running", AlreadyStarted, "container already started"),
        ("start", "paused", WrongState, "cannot start a paused container, try unpause instead"),
        ("stop", "exited", AlreadyStopped, "container is already stopped"),
        ("kill", "exited", WrongState, "cannot kill container: abc: container abc is not running"),
        ("pause", "paused", WrongState, "container abc is already paused"),
        ("unpause", "running", WrongState, "Container abc is not paused"),
        ("exec", "paused", WrongState, "container abc is paused, unpause the container before exec"),
    ):
        with pytest.raises(kind) as told:
            check(verb, status, "abc")  # type: ignore[arg-type]
        assert str(told.value) == text


def test_alive_means_that_there_is_a_process_or_will_be_one() -> None:
    assert set(STATUSES) >= ALIVE == {"running", "paused", "restarting"}


# -- restart policies -------------------------------------------------------------------------------------------

POLICIES = st.builds(
    lambda name, count: RestartPolicy(name=name, maximum_retry_count=count if name == "on-failure" else 0),
    st.sampled_from(["", "no", "always", "on-failure", "unless-stopped"]),
    st.integers(0, 5),
)


@given(POLICIES, st.integers(0, 255), st.integers(0, 10), st.floats(0, 100), st.floats(0, 60), st.booleans())
def test_decisions(policy: RestartPolicy, code: int, restarts: int, ran: float, last: float, stopped: bool) -> None:
    found = decide(policy, exit_code=code, restarts=restarts, ran_s=ran, last_delay_s=last, stopped_by_user=stopped)
    if stopped or policy.name in ("", "no"):
        assert not found.again
    if policy.name == "on-failure" and code == 0:
        assert not found.again
    if policy.maximum_retry_count and restarts >= policy.maximum_retry_count:
        assert not found.again
    if policy.name in ("always", "unless-stopped") and not stopped:
        assert found.again
    if found.again:
        assert min(FIRST_DELAY_S, last * 2) <= found.delay_s <= LONGEST_DELAY_S


def test_the_delay_doubles_and_a_long_run_forgives() -> None:
    delay, delays = 0.0, []
    for restarts in range(12):
        found = decide(
            RestartPolicy(name="always"), exit_code=1, restarts=restarts, ran_s=0.1, last_delay_s=delay,
            stopped_by_user=False,
        )  # fmt: skip
        delay = found.delay_s
        delays.append(delay)
    assert delays[:4] == [0.1, 0.2, 0.4, 0.8]
    assert delays[-1] == LONGEST_DELAY_S
    again = decide(
        RestartPolicy(name="always"), exit_code=1, restarts=12, ran_s=10.0, last_delay_s=60.0, stopped_by_user=False
    )
    assert again.delay_s == FIRST_DELAY_S


@pytest.mark.parametrize(
    ("name", "alive", "code", "stopped", "starts"),
    [
        ("no", True, 137, False, False),
        ("always", True, 137, False, True),
        ("always", False, 0, True, True),
        ("unless-stopped", True, 137, False, True),
        ("unless-stopped", False, 137, True, False),
        ("on-failure", True, 0, False, True),
        ("on-failure", False, 1, False, True),
        ("on-failure", False, 0, False, False),
        ("on-failure", False, 1, True, False),
    ],
)
def test_what_starts_with_the_machine(name: str, alive: bool, code: int, stopped: bool, starts: bool) -> None:
    found = after_boot(RestartPolicy(name=name), was_alive=alive, exit_code=code, restarts=0, stopped_by_user=stopped)
    assert found is starts
