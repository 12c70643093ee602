"""What containers can be told beyond Docker's API."""

from __future__ import annotations

import pytest

from corral.engine import edits, extensions, restart
from corral.engine.extensions import Dependency
from corral.errors import InvalidParameter
from corral.wire.containers import ContainerConfig, HostConfig, RestartOptions, RestartPolicy, UpdateRequest

SECOND = 10**9


def test_restart_options_come_from_a_label_unless_the_field_is_there() -> None:
    host = HostConfig()
    extensions.apply_labels(host, {"corral.restart": "delay=1s,max-delay=1m,factor=3,reset-after=30s,on-unhealthy"})
    wanted = RestartOptions(delay=SECOND, max_delay=60 * SECOND, factor=3, reset_after=30 * SECOND, on_unhealthy=True)
    assert host.restart_options == wanted
    host = HostConfig(restart_options=RestartOptions(delay=5))
    extensions.apply_labels(host, {"corral.restart": "nonsense"})
    assert host.restart_options == RestartOptions(delay=5)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("delay=soon", 'time: invalid duration "soon"'),
        ("speed=1", "there is no option speed=1"),
        ("factor=x", "could not convert"),
        ("factor=0.5", "the factor must be between 1 and 1000"),
        ("delay=-1s", "cannot be negative"),
        ("delay=2m,max-delay=1m", "longer than the longest delay"),
        ("on-unhealthy=maybe", "there is no option"),
    ],
)
def test_restart_options_that_make_no_sense(text: str, why: str) -> None:
    with pytest.raises(InvalidParameter, match=why):
        extensions.apply_labels(HostConfig(), {"corral.restart": text})


def delays(options: RestartOptions | None, count: int) -> list[float]:
    found: list[float] = []
    for number in range(count):
        decision = restart.decide(
            RestartPolicy(name="always"), exit_code=1, restarts=number, ran_s=1.0,
            last_delay_s=found[-1] if found else 0.0, stopped_by_user=False, options=options,
        )  # fmt: skip
        assert decision.again
        found.append(decision.delay_s)
    return found


def test_the_delay_grows_as_asked() -> None:
    assert delays(None, 4) == [0.1, 0.2, 0.4, 0.8]
    options = RestartOptions(delay=SECOND, factor=3, max_delay=10 * SECOND)
    assert delays(options, 5) == [1, 3, 9, 10, 10]
    assert delays(RestartOptions(delay=2 * SECOND, factor=1), 3) == [2, 2, 2]
    long = restart.decide(
        RestartPolicy(name="always"), exit_code=1, restarts=3, ran_s=5.0, last_delay_s=9.0, stopped_by_user=False,
        options=RestartOptions(reset_after=4 * SECOND, delay=SECOND),
    )  # fmt: skip
    assert long.delay_s == 1


def test_dependencies() -> None:
    host = HostConfig()
    extensions.apply_labels(host, {"corral.depends-on": "db:healthy, cache ,job:completed"})
    assert extensions.dependencies(host, {}) == [
        Dependency("healthy", name="db"), Dependency("started", name="cache"), Dependency("completed", name="job"),
    ]  # fmt: skip
    labels = {
        "com.docker.compose.project": "p",
        "com.docker.compose.depends_on": "db:service_healthy:false,job:service_completed_successfully:true,x:unknown:",
    }
    assert extensions.dependencies(HostConfig(), labels) == [
        Dependency("healthy", project="p", service="db"), Dependency("completed", project="p", service="job"),
    ]  # fmt: skip
    assert extensions.dependencies(HostConfig(), {}) == []
    for text in ("", ":healthy", "db:ready"):
        with pytest.raises(InvalidParameter, match="invalid dependency"):
            extensions.parse_dependency(text)


def test_edits() -> None:
    config = ContainerConfig(env=["A=1", "B=2", "C"], labels={"x": "1", "y": "2"})
    wanted = UpdateRequest(env_add=["B=9", "D=4"], env_remove=["A", "nosuch"], label_add={"z": "3"}, label_remove=["x"])
    before = edits.apply(config, wanted)
    assert config.env == ["C", "B=9", "D=4"] and config.labels == {"y": "2", "z": "3"}
    assert before == edits.Before(["A=1", "B=2", "C"], {"x": "1", "y": "2"})
    for entry in ("A", "=1", ""):
        with pytest.raises(InvalidParameter, match="must be NAME=VALUE"):
            edits.apply(config, UpdateRequest(env_add=[entry]))


def test_rates() -> None:
    assert extensions.parse_rate("out=10mbit,in=50Mbit") == (50_000_000 // 8, 10_000_000 // 8)
    assert extensions.parse_rate("out=1gbit") == (0, 125_000_000)
    assert extensions.parse_rate("in=64000bit") == (8000, 0)
    assert extensions.parse_rate("") == (0, 0)


@pytest.mark.parametrize(
    "text", ["10mbit", "out=10", "out=mbit", "up=1mbit", "out=-1mbit", "out=1.5mbit", "out=1bit", "in=9999gbit", "in="]
)
def test_rates_that_cannot_be(text: str) -> None:
    with pytest.raises(extensions.BadExtension, match="invalid network rate"):
        extensions.parse_rate(text)


def test_a_rate_needs_a_network_of_its_own() -> None:
    with pytest.raises(extensions.BadExtension, match="uses the network of another"):
        extensions.apply_labels(HostConfig(network_mode="host"), {"corral.net-rate": "out=1mbit"})
