"""The route table, and the one place where errors become answers."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from corral.api import http, statuses, versions
from corral.api.http import Answer, Handler, Request, Response
from corral.api.server import ClientGone

_log = logging.getLogger(__name__)


Observer = Callable[[str, str, int, float], None]


@dataclass(frozen=True)
class Route:
    """One operation: `{name}` in the pattern matches a path segment, `{name*}` anything."""

    method: str
    pattern: str
    handler: Handler
    since: versions.Version = versions.OLDEST

    def compiled(self) -> re.Pattern[str]:
        """The pattern as a regular expression."""
        text = re.sub(r"\{(\w+)\*\}", r"(?P<\1>.+)", self.pattern)
        text = re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", text)
        return re.compile(text + r"/?")


class Router:
    """Finds the handler of a request and answers for its errors."""

    def __init__(self, services: Any, routes: Iterable[Route], observe: Observer | None = None) -> None:
        """`observe` is told of every answer: method, route, status, seconds."""
        self._services = services
        self._observe = observe
        self._by_head: dict[tuple[str, str], list[tuple[re.Pattern[str], Route]]] = {}
        for route in routes:
            head = route.pattern.split("/")[1]
            self._by_head.setdefault((route.method, head), []).append((route.compiled(), route))

    async def dispatch(self, request: Request) -> Answer:
        """The answer to one request; raises only what concerns the connection itself."""
        started = time.perf_counter()
        try:
            request.version, request.path = versions.split(request.path)
            answer = await self._answer(request)
        except (ClientGone, asyncio.CancelledError):
            raise
        except Exception as error:  # noqa: BLE001  whatever a handler raises is answered here, once
            answer = _failure(request, error)
        if self._observe is not None:
            elapsed_s = time.perf_counter() - started
            self._observe(request.method, request.route, getattr(answer, "status", 101), elapsed_s)
        if _log.isEnabledFor(logging.DEBUG):
            elapsed_ms = (time.perf_counter() - started) * 1e3
            _log.debug("%s %s %s %.1f ms", request.method, request.path, getattr(answer, "status", 101), elapsed_ms)
        return answer

    async def _answer(self, request: Request) -> Answer:
        head = request.path.split("/")[1] if "/" in request.path else ""
        for pattern, route in self._by_head.get((request.method, head), ()):
            match = pattern.fullmatch(request.path)
            if match is not None and request.version >= route.since:
                request.params = match.groupdict()
                request.route = route.pattern
                return await route.handler(self._services, request)
        return http.json({"message": "page not found"}, 404)


def _failure(request: Request, error: Exception) -> Response:
    told = statuses.first(error)
    status = statuses.of(told)
    if status is None:
        _log.error("cannot answer %s %s", request.method, request.path, exc_info=error)
        status = 500
    elif status >= 500 and status != 501:
        _log.error("%s %s: %s", request.method, request.path, told)
    if status == 304:
        return http.empty(304)
    return http.json({"message": str(told) or type(told).__name__}, status)
