"""An engine that does nothing: it remembers what clients ask it to create, so that their requests can be compared."""

from __future__ import annotations

import json
import os
import socketserver
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from typing import Any

_API_VERSION = "1.50"


class Recorder(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """`host` for a client; `requests` holds (method, path, body) of everything but pings."""

    daemon_threads = True

    def __init__(self, path: str) -> None:
        super().__init__(path, _Handler)
        self.host = f"unix://{path}"
        self.requests: list[tuple[str, str, Any]] = []


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Recorder

    def log_message(self, format: str, *arguments: Any) -> None:
        """Nothing: the requests are the log."""

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Api-Version", _API_VERSION)
        self.send_header("Ostype", "linux")
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def address_string(self) -> str:
        """A unix socket's peer has no address."""
        return "client"

    def _serve(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        data = self.rfile.read(length)
        if self.path.endswith("/_ping"):
            self._answer(200, b"OK")
            return
        self.server.requests.append((self.command, self.path, json.loads(data) if data else None))
        self._answer(409, b'{"message":"recorded"}')

    do_GET = do_POST = do_HEAD = do_DELETE = do_PUT = _serve


@contextmanager
def recorder() -> Iterator[Recorder]:
    """A Recorder that listens for the time of the context."""
    with tempfile.TemporaryDirectory(prefix="recorder-") as folder:
        server = Recorder(os.path.join(folder, "socket"))
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
            server.server_close()


def essence(value: Any) -> Any:
    """A body without what is empty (it means absent to the API), and in order where docker has none."""
    if isinstance(value, dict):
        kept = {key: sorted(item) if key in ("Env", "Binds") and item else essence(item) for key, item in value.items()}
        return {key: item for key, item in kept.items() if item or item == -1}
    if isinstance(value, list):
        return [essence(item) for item in value]
    return value
