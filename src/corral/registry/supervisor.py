"""The processes of a registry: this one opens the socket and watches, workers serve, one more collects garbage.

All workers accept from one socket, so whichever is free takes the next connection.  A worker that dies is replaced;
workers end when this process does, because a pipe that only it holds open comes to its end.
"""

from __future__ import annotations

import contextlib
import logging
import os
import resource
import signal
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

from corral.errors import System
from corral.registry.accesslog import AccessLog
from corral.registry.collect import Collector
from corral.registry.http.messages import Request
from corral.registry.http.server import Server
from corral.registry.layout import Layout
from corral.registry.metrics import Metrics
from corral.registry.service import Service
from corral.registry.settings import BadSettings, Settings, address, duration_s
from corral.registry.surface import route

_log = logging.getLogger(__name__)

_BACKLOG = 1024
_GRACE_S = 30.0
_SHORT_LIFE_S = 1.0
_SHORT_LIVES_MAX = 5
_LOGGED_AS = {"upload": "uploads", "health": "system", "metrics": "system"}


class CannotListen(System):
    """The address is in use, not ours, or not allowed."""


def open_listener(text: str) -> socket.socket:
    """A listening socket at HOST:PORT; raises CannotListen."""
    host, port = address(text)
    family = socket.AF_INET6 if ":" in host or not host else socket.AF_INET
    try:
        if family is socket.AF_INET6 and not socket.has_dualstack_ipv6():
            family, host = socket.AF_INET, host
        return socket.create_server(
            (host, port), family=family, backlog=_BACKLOG, dualstack_ipv6=family is socket.AF_INET6 and not host
        )
    except OSError as error:
        raise CannotListen(f"cannot listen at {text}: {error.strerror or error}") from error


def tls_context(settings: Settings) -> ssl.SSLContext | None:
    """TLS as configured; raises BadSettings."""
    tls = settings.tls
    if tls is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(tls.certificate, tls.key)
        if tls.client_ca:
            context.load_verify_locations(tls.client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
    except OSError as error:  # ssl.SSLError too
        raise BadSettings(f"cannot use the TLS certificate, key or client authority: {error}") from error
    return context


def serve(settings: Settings) -> int:
    """Run a registry until SIGTERM or SIGINT; the exit status.  Raises for what cannot be used."""
    _raise_descriptor_limit()
    layout = Layout(settings.root)
    tls = tls_context(settings)
    metrics = Metrics(settings.processes + 1)
    Service(settings, layout, metrics)  # tells what is wrong with the configuration before anything is forked
    AccessLog(settings.access_log)
    listener = open_listener(settings.listen)
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    scheme = "https" if tls is not None else "http"
    print(f"corral registry: serving {layout.root} at {scheme}://{shown}", file=sys.stderr, flush=True)
    return _Supervisor(settings, layout, metrics, listener, tls).run()


def _raise_descriptor_limit() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class _Supervisor:
    """The watching process."""

    def __init__(
        self,
        settings: Settings,
        layout: Layout,
        metrics: Metrics,
        listener: socket.socket,
        tls: ssl.SSLContext | None,
    ) -> None:
        self._settings = settings
        self._layout = layout
        self._metrics = metrics
        self._listener = listener
        self._tls = tls
        self._lifeline = os.pipe()
        self._children: dict[int, tuple[int, float]] = {}
        self._short_lives = 0
        self._ending = False

    def run(self) -> int:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._end)
        signal.signal(signal.SIGHUP, self._pass_on)
        for place in range(self._settings.processes + (1 if self._collects else 0)):
            self._start(place)
        return self._watch()

    @property
    def _collects(self) -> bool:
        return duration_s(self._settings.collection.interval) > 0

    def _start(self, place: int) -> None:
        """Fork the worker with this row of the metrics; the last one collects."""
        signals = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
        signal.pthread_sigmask(signal.SIG_BLOCK, signals)  # not into a child that has our handlers still
        pid = os.fork()
        if pid == 0:
            os.close(self._lifeline[1])
            self._metrics.be(place)
            work = self._serve if place < self._settings.processes else self._collect
            _run_child(work, signals)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
        self._children[pid] = (place, time.monotonic())

    def _watch(self) -> int:
        while self._children:
            try:
                pid, status = os.wait()
            except ChildProcessError:
                break
            place, since = self._children.pop(pid)
            if self._ending:
                continue
            _log.error("a worker ended with status %s", os.waitstatus_to_exitcode(status))
            self._short_lives = self._short_lives + 1 if time.monotonic() - since < _SHORT_LIFE_S else 0
            if self._short_lives >= _SHORT_LIVES_MAX:
                _log.error("workers end as soon as they begin: giving up")
                self._end(signal.SIGTERM, None)
                continue
            self._start(place)
        return 1 if self._short_lives >= _SHORT_LIVES_MAX else 0

    def _end(self, number: int, frame: FrameType | None) -> None:
        self._ending = True
        self._signal_all(signal.SIGTERM)

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        self._signal_all(number)

    def _signal_all(self, number: int) -> None:
        for pid in list(self._children):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    # -- in the children ---------------------------------------------------------------------------

    def _serve(self, unblock: Callable[[], None]) -> None:
        service = Service(self._settings, self._layout, self._metrics)
        log = AccessLog(self._settings.access_log)

        def record(request: Request, status: int, received: int, sent: int, seconds: float) -> None:
            name = route(request)[0]
            self._metrics.request(_LOGGED_AS.get(name, name), request.head.method, status, received, sent, seconds)
            log.write(request, status, received, sent, seconds)

        server = Server(service.surface.handle, record, self._settings.connections_max)
        signal.signal(signal.SIGTERM, lambda number, frame: server.stop(self._listener))
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal: this process's parent passes it on
        signal.signal(signal.SIGHUP, lambda number, frame: log.reopen())
        self._end_with_parent()
        unblock()
        server.run(self._listener, self._tls)
        server.finish(_GRACE_S)

    def _collect(self, unblock: Callable[[], None]) -> None:
        self._listener.close()
        stop = threading.Event()
        signal.signal(signal.SIGTERM, lambda number, frame: stop.set())
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        self._end_with_parent()
        unblock()
        interval_s = duration_s(self._settings.collection.interval)
        collector = Collector(self._settings, self._layout)
        while not stop.is_set():
            try:
                report = collector.run(stop.is_set)
                report.count(self._metrics)
            except OSError as error:
                _log.error("cannot collect garbage: %s", error)
            stop.wait(interval_s)

    def _end_with_parent(self) -> None:
        def wait() -> None:
            os.read(self._lifeline[0], 1)
            os.kill(os.getpid(), signal.SIGTERM)

        threading.Thread(target=wait, daemon=True).start()


def _run_child(work: Callable[[Callable[[], None]], None], signals: tuple[signal.Signals, ...]) -> NoReturn:
    status = 1
    try:
        work(lambda: _unblock(signals))
        status = 0
    except Exception:  # noqa: BLE001  the end of a process: the supervisor begins another
        _log.exception("a worker failed")
    finally:
        sys.stderr.flush()
        os._exit(status)


def _unblock(signals: tuple[signal.Signals, ...]) -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
