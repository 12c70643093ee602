"""`--metrics-addr`: Prometheus reads it with its own parser."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client.parser import text_string_to_metric_families

from tests.support.daemon import IMAGE, Daemon
from tests.support.netns import fetch
from tests.support.wait import until

ADDRESS = "127.0.0.1:9323"


def series(daemon: Daemon) -> dict[tuple[str, str], float]:
    """Value by name and the first label's value."""
    text = fetch(daemon.space, "127.0.0.1", 9323, "/metrics").partition("\r\n\r\n")[2]
    return {
        (sample.name, next(iter(sample.labels.values()), "")): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_what_the_daemon_does_is_counted(new_daemon: Callable[..., Daemon]) -> None:
    daemon = new_daemon("--metrics-addr", ADDRESS)
    before = series(daemon)
    assert before["engine_daemon_container_states_containers", "running"] == 0
    daemon.output(
        "run", "-d", "--name", "one", "--health-cmd", "false", "--health-interval", "50ms", IMAGE, "sleep", "99"
    )
    daemon.output("run", "-d", "--name", "two", IMAGE, "sleep", "99")
    daemon.output("pause", "two")
    daemon.docker("inspect", "nosuch")
    until(lambda: series(daemon)["engine_daemon_health_checks_failed_total", ""] > 0)
    now = series(daemon)
    assert now["engine_daemon_container_states_containers", "running"] == 1
    assert now["engine_daemon_container_states_containers", "paused"] == 1
    assert now["engine_daemon_container_actions_seconds_count", "start"] == 2
    assert now["engine_daemon_container_actions_seconds_count", "delete"] == 0
    assert now["engine_daemon_events_total", ""] >= before["engine_daemon_events_total", ""] + 5
    assert now["engine_daemon_engine_info", next(iter(k[1] for k in now if k[0] == "engine_daemon_engine_info"))] == 1
    assert now["process_resident_memory_bytes", ""] > 10_000_000
    daemon.remove_all()


def test_what_goes_through_ports_and_networks_is_counted(new_daemon: Callable[..., Daemon]) -> None:
    daemon = new_daemon("--metrics-addr", ADDRESS)
    daemon.output("run", "-d", "--name", "web", "-p", "127.0.0.1:8080:80", IMAGE, "httpd", "-f", "-h", "/etc")
    until(lambda: "root:" in fetch(daemon.space, "127.0.0.1", 8080, "/passwd"))
    text = fetch(daemon.space, "127.0.0.1", 9323, "/metrics")
    found = {
        (
            sample.name,
            sample.labels.get("network", sample.labels.get("host_port")),
            sample.labels.get("direction"),
        ): sample
        for family in text_string_to_metric_families(text.partition("\r\n\r\n")[2])
        for sample in family.samples
    }
    for direction in ("in", "out"):
        through = found["corral_port_bytes_total", "8080", direction]
        assert (through.labels["name"], through.labels["protocol"]) == ("web", "tcp")
        assert found["corral_network_bytes_total", "bridge", direction].value >= through.value > 200
        assert found["corral_port_packets_total", "8080", direction].value >= 4
    daemon.remove_all()


def test_it_is_not_there_unless_asked_for(daemon: Daemon) -> None:
    assert daemon.get("/metrics").status == 404
