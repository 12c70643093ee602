"""`--metrics-addr`: what the engine does, for Prometheus, under dockerd's names, and the API's own times.

Served in the clear at /metrics of an address of its own; the library is loaded only where somebody asks for it.
"""

from __future__ import annotations

from collections.abc import Iterator

from corral.api.http import Answer, Request, Response
from corral.api.services import Services
from corral.engine.system import VERSION
from corral.net.model import Passed, Traffic

TYPE_CHECKING = False
if TYPE_CHECKING:
    from prometheus_client.core import CounterMetricFamily, Metric

_ACTIONS = {
    ("GET", "/containers/{name}/changes"): "changes",
    ("POST", "/commit"): "commit",
    ("POST", "/containers/create"): "create",
    ("DELETE", "/containers/{name}"): "delete",
    ("POST", "/containers/{name}/start"): "start",
}
_STATES = {"running": "running", "restarting": "running", "paused": "paused"}
_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Metrics:
    """All series of one daemon."""

    def __init__(self, services: Services) -> None:
        from prometheus_client import CollectorRegistry, GCCollector, Histogram, PlatformCollector, ProcessCollector

        self._services = services
        self._traffic: dict[str, Traffic] = {}
        self._registry = CollectorRegistry()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self._registry)
        self._registry.register(self)
        self._actions = Histogram(
            "engine_daemon_container_actions_seconds",
            "The number of seconds it takes to process each container action",
            ("action",),
            registry=self._registry,
            buckets=_BUCKETS_S,
        )
        for action in _ACTIONS.values():
            self._actions.labels(action)
        self._requests = Histogram(
            "corral_api_request_seconds",
            "Seconds from a request's head to its answer, or to the beginning of a stream",
            ("method", "route", "status"),
            registry=self._registry,
            buckets=_BUCKETS_S,
        )

    def observe(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count a request of the API."""
        self._requests.labels(method, route, status).observe(seconds)
        action = _ACTIONS.get((method, route))
        if action is not None and status < 400:
            self._actions.labels(action).observe(seconds)

    def collect(self) -> Iterator[Metric]:
        """What is counted elsewhere, read when somebody asks."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        engine = self._services.engine
        states = GaugeMetricFamily(
            "engine_daemon_container_states_containers", "The count of containers in various states", labels=("state",)
        )
        found = [_STATES.get(live.record.state.status, "stopped") for live in engine.index]
        for state in ("paused", "running", "stopped"):
            states.add_metric((state,), found.count(state))
        yield states
        yield CounterMetricFamily("engine_daemon_events", "The number of events logged", engine.events.published)
        for name, what, value in (
            ("engine_daemon_health_checks", "The total number of health checks", engine.checks.made),
            ("engine_daemon_health_checks_failed", "The total number of failed health checks", engine.checks.failed),
        ):
            yield CounterMetricFamily(name, what, value)
        facts = engine.facts
        for name, what, number in (
            ("engine_daemon_engine_cpus_cpus", "The number of cpus of the host", facts.cpus),
            ("engine_daemon_engine_memory_bytes", "The number of bytes of memory of the host", facts.memory_bytes),
            ("engine_daemon_events_subscribers", "The number of subscribers to events", engine.events.listeners),
        ):
            yield GaugeMetricFamily(name, what, number)
        yield self._info()
        yield from self._passed()

    def _passed(self) -> Iterator[Metric]:
        """Counters of networks and published ports, of the moment in which the request came."""
        from prometheus_client.core import CounterMetricFamily

        def families(of: str, text: str, *labels: str) -> list[CounterMetricFamily]:
            every = ("id", "name", *labels, "direction")
            pairs = ((f"corral_{of}_{what}", f"The {what} that {text}") for what in ("bytes", "packets"))
            return [CounterMetricFamily(name, told, labels=every) for name, told in pairs]

        networks = families("network", "a container received and sent", "network")
        ports = families("port", "went through a published port", "protocol", "host_port")
        for container_id, found in self._traffic.items():
            live = self._services.engine.index.find(container_id)
            who = (container_id, live.record.name if live is not None else "")
            for network, one in found.networks.items():
                _add(networks, (*who, network), one)
            for (protocol, port), one in found.ports.items():
                _add(ports, (*who, protocol, str(port)), one)
        yield from (*networks, *ports)

    def _info(self) -> Metric:
        from prometheus_client.core import GaugeMetricFamily

        facts = self._services.engine.facts
        labels = {
            "version": VERSION, "architecture": facts.machine, "graphdriver": "overlayfs", "kernel": facts.kernel,
            "os": facts.operating_system, "os_type": "linux", "os_version": facts.os_version,
        }  # fmt: skip
        what = "The information related to the engine and the OS it is running on"
        found = GaugeMetricFamily("engine_daemon_engine_info", what, labels=tuple(labels))
        found.add_metric(tuple(labels.values()), 1)
        return found

    async def dispatch(self, request: Request) -> Answer:
        """Answer a request at the metrics' address."""
        from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

        if request.path != "/metrics":
            return Response(404, b"404 page not found\n", "text/plain; charset=utf-8")
        if request.method not in ("GET", "HEAD"):
            return Response(405, b"", "text/plain; charset=utf-8")
        self._traffic = await self._services.engine.networks.all_traffic()
        return Response(200, generate_latest(self._registry), CONTENT_TYPE_LATEST)


def _add(families: list[CounterMetricFamily], labels: tuple[str, ...], one: Passed) -> None:
    sizes, packets = families
    for direction, size, count in (("in", one.bytes_in, one.packets_in), ("out", one.bytes_out, one.packets_out)):
        sizes.add_metric((*labels, direction), size)
        packets.add_metric((*labels, direction), count)
