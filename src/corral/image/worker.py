"""The worker process: digests, decompression, unpacking and transfers, away from the daemon's event loop.

Started by `corral.image.crew` as `python -S -m corral.image.worker` for one operation (a load, a pull), so an idle
daemon has none.  It speaks lines of JSON: a request {"op": ..., fields} on standard input, then any number of
{"progress": ...} and one {"result": ...} or {"error": {"kind", "message"}} on standard output.

A request with `follow` unpacks a file that is still being written; after it come single bytes on standard input:
`+` it has grown, `.` it is complete, `!` give up.  So the bytes themselves travel through the page cache.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import Any

from corral import errors
from corral.image import layers

_PIECE = 256 << 10
_GROWN, _COMPLETE = b"+", b"."
_KINDS = (
    errors.NotFound, errors.InvalidParameter, errors.Conflict, errors.Unauthorized, errors.Forbidden,
    errors.Unsupported, errors.Unavailable, errors.System, errors.DataLoss, errors.Timeout, errors.Cancelled,
)  # fmt: skip


class _GivenUp(errors.Cancelled):
    def __init__(self) -> None:
        super().__init__("the daemon gave up on it")


class Control:
    """Standard input: request lines, and the bytes that say how a followed file grows."""

    def __init__(self) -> None:
        self._held = b""

    def request(self) -> dict[str, Any] | None:
        """The next request; None when the daemon is gone or done."""
        while b"\n" not in self._held:
            data = os.read(0, 65536)
            if not data:
                return None
            self._held += data
        line, _, self._held = self._held.partition(b"\n")
        fields: dict[str, Any] = json.loads(line)
        return fields

    def wait_growth(self) -> bool:
        """Wait until the followed file has grown; False when it is complete.  Raises _GivenUp."""
        held, self._held = self._held, b""
        held = held or os.read(0, 65536)
        if not held or b"!" in held:
            raise _GivenUp()
        return _COMPLETE not in held


def unpack(request: dict[str, Any], control: Control) -> dict[str, Any]:
    """Digest the file `blob`, and unpack it into `layer` unless that is empty; bring the file to disk."""
    fd = os.open(request["blob"], os.O_RDONLY | os.O_CLOEXEC)
    growing = bool(request.get("follow"))

    def read() -> bytes:
        nonlocal growing
        while True:
            data = os.read(fd, _PIECE)
            if data or not growing:
                return data
            growing = control.wait_growth()

    try:
        result = layers.apply(read, request["layer"]) if request["layer"] else layers.measure(read)
        if request.get("sync", True):
            os.fsync(fd)
    except (OSError, errors.CorralError):
        while growing:  # the daemon goes on writing until it is told; its remaining bytes must not look like a request
            growing = control.wait_growth()
        raise
    finally:
        os.close(fd)
    return result.fields()


def say(message: dict[str, Any]) -> None:
    """One line to the daemon."""
    data = memoryview(json.dumps(message).encode() + b"\n")
    while data:
        data = data[os.write(1, data) :]


def kind_of(error: errors.CorralError) -> str:
    """The name of an error's kind."""
    return next((kind.__name__ for kind in _KINDS if isinstance(error, kind)), "System")


def _operation(name: str) -> Callable[[dict[str, Any], Control], dict[str, Any]]:
    if name == "unpack":
        return unpack
    raise errors.Unsupported(f"worker operation {name!r}")


def main() -> int:
    """Serve requests until standard input ends."""
    control = Control()
    while (request := control.request()) is not None:
        try:
            say({"result": _operation(request["op"])(request, control)})
        except _GivenUp:
            return 0
        except errors.CorralError as error:
            say({"error": {"kind": kind_of(error), "message": str(error)}})
        except OSError as error:
            text = f"{error.strerror}: {error.filename}" if error.filename else str(error.strerror or error)
            say({"error": {"kind": "System", "message": f"cannot {request['op']} layer: {text}"}})
    return 0


if __name__ == "__main__":
    sys.exit(main())
