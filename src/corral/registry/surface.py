"""The HTTP surface: from a request to the handler of its operation, and from an error to its answer."""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable
from dataclasses import dataclass

from corral import errors
from corral.registry import names
from corral.registry.gate import Gate
from corral.registry.http.head import BadRequest
from corral.registry.http.messages import Answer, Request, TooLarge, refusal
from corral.registry.http.wire import ClientGone, ClientSilent
from corral.registry.metrics import Metrics
from corral.registry.refusals import Coded
from corral.registry.uploads import OutOfOrder

_log = logging.getLogger(__name__)

# The status of each kind of error; `TOOMANYREQUESTS` and the like have headers of their own.
_STATUS: dict[type[errors.CorralError], int] = {
    errors.NotFound: 404,
    errors.InvalidParameter: 400,
    errors.Conflict: 409,
    errors.Unauthorized: 401,
    errors.Forbidden: 403,
    errors.Unsupported: 405,
    errors.Unavailable: 503,
    errors.System: 500,
    errors.DataLoss: 500,
    errors.Timeout: 504,
}
_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True, slots=True)
class Call:
    """A request to one operation: the repository, and what else the path names."""

    request: Request
    repository: str = ""
    argument: str = ""


Handler = Callable[[Call], Answer]
Operation = dict[str, tuple[str, Handler]]  # method -> action, handler


class Surface:
    """All operations.  `operations` maps their names (metrics.OPERATIONS) to methods and handlers."""

    def __init__(self, gate: Gate, metrics: Metrics, operations: dict[str, Operation]) -> None:
        self._gate = gate
        self._metrics = metrics
        self._operations = operations

    def handle(self, request: Request) -> Answer:
        """The answer to any request; raises only what concerns the connection."""
        try:
            return self._dispatch(request)
        except (ClientGone, ClientSilent, BadRequest):
            raise
        except TooLarge:
            return refusal(413, "SIZE_INVALID", "the request's body is too large")
        except errors.CorralError as error:
            return answer_error(error)
        except OSError as error:
            if error.errno in _FULL:
                _log.error("cannot store: %s", error)
                return refusal(507, "UNKNOWN", "the registry's disk is full")
            if error.errno == errno.EROFS:
                return refusal(405, "UNSUPPORTED", "the registry's disk is read-only")
            if error.errno == errno.ENAMETOOLONG:
                return refusal(400, "NAME_INVALID", "the name is too long for the registry's disk")
            _log.exception("cannot answer %s %s", request.head.method, request.head.target[:300])
            return refusal(500, "UNKNOWN", "internal error")
        except Exception:  # noqa: BLE001  a defect must not look like a broken connection
            _log.exception("cannot answer %s %s", request.head.method, request.head.target[:300])
            return refusal(500, "UNKNOWN", "internal error")

    def _dispatch(self, request: Request) -> Answer:
        name, call = route(request)
        operation = self._operations.get(name)
        if operation is None:
            return refusal(404, "UNSUPPORTED", "there is no such operation")
        method = request.head.method
        if method not in operation:
            allowed = ", ".join(sorted(operation))
            return refusal(405, "UNSUPPORTED", "the operation is unsupported", headers=(("Allow", allowed),))
        action, handler = operation[method]
        if call.repository:
            names.repository(call.repository)
        if action:
            self._gate.check(request, call.repository or "*", action)
        return handler(call)


def route(request: Request) -> tuple[str, Call]:
    """The operation that a path names, "other" for none.  A name may contain words like `blobs`: the end decides."""
    path = request.head.path
    if not path.startswith("/v2"):
        simple = {"/healthz": "health", "/metrics": "metrics", "/token": "token"}
        return simple.get(path, "other"), Call(request)
    if path in ("/v2", "/v2/"):
        return "base", Call(request)
    parts = path[4:].split("/") if path.startswith("/v2/") else []
    if parts == ["_catalog"]:
        return "catalog", Call(request)
    if len(parts) >= 3:
        if parts[-2:] == ["tags", "list"]:
            return "tags", Call(request, "/".join(parts[:-2]))
        if parts[-3:-1] == ["blobs", "uploads"] and len(parts) >= 4:
            kind = "upload" if parts[-1] else "uploads"
            return kind, Call(request, "/".join(parts[:-3]), parts[-1])
        if parts[-2:] == ["blobs", "uploads"]:
            return "uploads", Call(request, "/".join(parts[:-2]))
        if parts[-2] in ("manifests", "blobs", "referrers"):
            return parts[-2], Call(request, "/".join(parts[:-2]), parts[-1])
    return "other", Call(request)


def answer_error(error: errors.CorralError) -> Answer:
    """What an error looks like to a client."""
    status = next((_STATUS[kind] for kind in type(error).__mro__ if kind in _STATUS), 500)
    code, detail = "UNKNOWN", None
    headers: tuple[tuple[str, str], ...] = ()
    if isinstance(error, Coded):
        code, detail, headers = error.code, error.detail, error.headers
    if isinstance(error, OutOfOrder):
        status = 416
    if status >= 500:
        _log.error("%s", error)
    return refusal(status, code, str(error), detail, headers)
