"""From a create request to a record: checks, Docker's defaults, and what is refused."""

from __future__ import annotations

import dataclasses
from typing import Any

import msgspec
import pytest

from corral.engine import defaults, logdrivers, unsupported
from corral.engine.defaults import InvalidConfig
from corral.engine.unsupported import NotSupported
from corral.oci.image import RunConfig
from corral.wire.containers import (
    ContainerConfig,
    Healthcheck,
    HostConfig,
    LogConfig,
    RestartPolicy,
    Ulimit,
)
from tests.unit.engine.test_spec import FACTS


def image(**fields: Any) -> RunConfig:
    return msgspec.convert(fields, RunConfig)


@pytest.mark.parametrize(
    ("entrypoint", "cmd", "argv"),
    [
        (None, None, ["/entry", "from-image"]),
        (None, ["mine"], ["/entry", "mine"]),
        (["/own"], None, ["/own"]),
        (["/own"], ["mine"], ["/own", "mine"]),
        ([""], ["mine"], ["mine"]),
        ("/text", None, ["/text"]),
        (None, "word", ["/entry", "word"]),
        (None, [], ["/entry", "from-image"]),
    ],
)
def test_the_command_line(entrypoint: Any, cmd: Any, argv: list[str]) -> None:
    config = ContainerConfig(entrypoint=entrypoint, cmd=cmd)
    defaults.apply_image(config, image(Entrypoint=["/entry"], Cmd=["from-image"]))
    assert [*(config.entrypoint or []), *(config.cmd or [])] == argv


def test_no_command_at_all() -> None:
    with pytest.raises(InvalidConfig, match="no command specified"):
        defaults.apply_image(ContainerConfig(), image())


def test_what_the_image_says_fills_what_the_request_leaves_open() -> None:
    config = ContainerConfig(cmd=["x"], env=["A=mine"], labels={"l": "mine"}, user="", stop_timeout=0)
    defaults.apply_image(
        config,
        image(
            Env=["A=image", "B=image"], Labels={"l": "image", "m": "image"}, User="nobody", WorkingDir="/w",
            StopSignal="SIGINT", StopTimeout=9, ExposedPorts={"80/tcp": {}}, Volumes={"/v": {}},
        ),
    )  # fmt: skip
    assert config.env == ["A=mine", "B=image"]
    assert config.labels == {"l": "mine", "m": "image"}
    assert (config.user, config.working_dir, config.stop_signal, config.stop_timeout) == ("nobody", "/w", "SIGINT", 0)
    assert (config.exposed_ports, config.volumes) == ({"80/tcp": {}}, {"/v": {}})


@pytest.mark.parametrize("name", ["web", "/web", "a1", "a_b.c-d"])
def test_names(name: str) -> None:
    assert defaults.check_name(name) == name.removeprefix("/")


@pytest.mark.parametrize("name", ["", "a", "-a", "a b", "a/b", "ä1", "web\n", "//web"])
def test_wrong_names(name: str) -> None:
    with pytest.raises(InvalidConfig, match="Invalid container name"):
        defaults.check_name(name)


@pytest.mark.parametrize(
    "config",
    [
        {"working_dir": "relative"},
        {"env": [""]},
        {"env": ["=x"]},
        {"env": ["A=\0"]},
        {"stop_signal": "NOPE"},
        {"healthcheck": Healthcheck(interval=1)},
        {"healthcheck": Healthcheck(retries=-1)},
    ],
)
def test_what_a_container_cannot_be(config: dict[str, Any]) -> None:
    with pytest.raises(defaults.InvalidParameter):
        defaults.check_config(ContainerConfig(**config))


def check_host(**fields: Any) -> None:
    host = HostConfig(**fields)
    defaults.fill_host(host, shm_size=1, log=LogConfig(type="json-file"), runtime="corral", init=False)
    defaults.check_host(host, cpus=2)
    logdrivers.check(host.log_config)


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"memory": 1 << 20}, "Minimum memory limit allowed is 6MB"),
        ({"memory": 1 << 24, "memory_swap": 1 << 23}, "Minimum memoryswap limit should be larger than memory limit"),
        ({"memory_swap": 1 << 24}, "You should always set the Memory limit"),
        ({"memory_swappiness": 101}, "valid memory swappiness range is 0-100"),
        ({"memory": 1 << 24, "memory_reservation": 1 << 25}, "can not be less than memory reservation"),
        ({"nano_cpus": 3_000_000_000}, "range of CPUs is from 0.01 to 2.00, as there are only 2 CPUs available"),
        ({"nano_cpus": 1, "cpu_quota": 5000}, "Nano CPUs and CPU Quota cannot both be set"),
        ({"cpu_period": 10}, "CPU cfs period can not be less than 1ms"),
        ({"cpu_quota": 10}, "CPU cfs quota can not be less than 1ms"),
        ({"cpuset_cpus": "2"}, "Requested CPUs are not available - requested 2, available: 0-1"),
        ({"cpuset_cpus": "x"}, "Invalid value x for cpuset cpus"),
        ({"cpuset_cpus": "0-99999999999"}, "for cpuset cpus"),
        ({"blkio_weight": 5}, "Range of blkio weight is from 10 to 1000"),
        ({"ulimits": [Ulimit(name="nofile", soft=2, hard=1)]}, "ulimit soft limit must be less than or equal"),
        ({"restart_policy": RestartPolicy(name="sometimes")}, "unknown policy 'sometimes'"),
        ({"restart_policy": RestartPolicy(name="always", maximum_retry_count=1)}, "maximum retry count can only be"),
        ({"restart_policy": RestartPolicy(name="always"), "auto_remove": True}, "can't create 'AutoRemove' container"),
        ({"log_config": LogConfig(type="splunk")}, "no log driver named 'splunk' is registered"),
        ({"log_config": LogConfig(type="json-file", config={"nope": "1"})}, "unknown log opt 'nope'"),
        ({"log_config": LogConfig(type="json-file", config={"max-file": "0"})}, "max-file cannot be less than 1"),
        ({"log_config": LogConfig(type="json-file", config={"max-size": "big"})}, "invalid size: 'big'"),
        ({"shm_size": -1}, "SHM size can not be less than 0"),
        ({"oom_score_adj": 2000}, "range for oom score adj is"),
        ({"ipc_mode": "odd"}, "invalid IPC mode: odd"),
        ({"pid_mode": "odd"}, "invalid PID mode: odd"),
        ({"uts_mode": "odd"}, "invalid UTS mode: odd"),
        ({"cgroupns_mode": "odd"}, "invalid cgroup namespace mode: odd"),
        ({"userns_mode": "odd"}, "invalid user namespace mode: odd"),
        ({"network_mode": "host", "sysctls": {"net.core.x": "1"}}, "not allowed in host network namespace"),
        ({"network_mode": "container:x", "publish_all_ports": True}, "port publishing and the container type network"),
        ({"security_opt": ["odd"]}, "invalid --security-opt"),
        ({"isolation": "hyperv"}, "hyperv"),
    ],
)
def test_what_a_host_config_cannot_be(fields: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidConfig.__mro__[1]) as told:
        check_host(**fields)
    assert text in str(told.value)


def test_the_least_a_container_can_have() -> None:
    check_host(memory=6 << 20, nano_cpus=10_000_000, cpu_shares=2, pids_limit=1, blkio_weight=10)


def test_defaults_are_docker_s() -> None:
    host = HostConfig()
    defaults.fill_host(
        host, shm_size=64 << 20, log=LogConfig(type="json-file", config={"max-file": "2"}), runtime="corral", init=True
    )
    assert (host.network_mode, host.ipc_mode, host.cgroupns_mode, host.shm_size) == (
        "bridge", "private", "private", 64 << 20,
    )  # fmt: skip
    assert (host.log_config.type, host.log_config.config) == ("json-file", {"max-file": "2"})
    assert (host.restart_policy.name, host.runtime, host.init) == ("no", "corral", True)


def test_stop_timeouts() -> None:
    assert defaults.stop_timeout_s(ContainerConfig(), None) == 10
    assert defaults.stop_timeout_s(ContainerConfig(stop_timeout=3), None) == 3
    assert defaults.stop_timeout_s(ContainerConfig(stop_timeout=3), 0) == 0


# -- what this engine does not do -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fields",
    [
        {"storage_opt": {"size": "1G"}},
        {"cgroup": "container:x"},
    ],
)
def test_nothing_is_ignored_silently(fields: dict[str, Any]) -> None:
    with pytest.raises(NotSupported):
        unsupported.check(HostConfig(**fields), confining=frozenset(), quotas=False)


def test_options_that_ask_for_nothing_special_pass() -> None:
    unsupported.check(HostConfig(), confining=frozenset(), quotas=False)


def test_what_the_kernel_cannot_limit_is_dropped_with_a_warning() -> None:
    host = HostConfig(memory=1 << 28, memory_swappiness=5, oom_kill_disable=True, pids_limit=0, cpuset_cpus="0")
    facts = dataclasses.replace(FACTS, cgroup_version=2, swap_accounting=False, controllers=frozenset({"memory"}))
    told = unsupported.discard(host, facts)
    assert [warning.rpartition(". ")[2] for warning in told] == [
        "Memory limited without swap.", "Memory swappiness discarded.", "OomKillDisable discarded.",
        "Cpuset discarded.",
    ]  # fmt: skip
    assert (host.memory, host.memory_swap) == (1 << 28, -1)
    assert (host.memory_swappiness, host.oom_kill_disable, host.pids_limit, host.cpuset_cpus) == (None, None, None, "")
    assert unsupported.discard(host, dataclasses.replace(FACTS, swap_accounting=True)) == []
    nothing = dataclasses.replace(FACTS, controllers=frozenset())
    limited = HostConfig(memory=1 << 28, pids_limit=5)
    assert len(unsupported.discard(limited, nothing)) == 2
    assert (limited.memory, limited.pids_limit) == (0, None)


def test_profiles_are_refused_where_the_kernel_would_enforce_them() -> None:
    for options, module in ((["apparmor=mine"], "apparmor"), (["label:type:x_t"], "selinux")):
        host = HostConfig(security_opt=options)
        unsupported.check(host, confining=frozenset(), quotas=False)
        with pytest.raises(NotSupported):
            unsupported.check(host, confining=frozenset({module}), quotas=False)
    harmless = HostConfig(security_opt=["apparmor=unconfined", "label=disable", "seccomp=unconfined"])
    unsupported.check(harmless, confining=frozenset({"apparmor", "selinux"}), quotas=False)
