"""Registries that misbehave, on loopback: each request is answered by a function of the test."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


class Hostile(http.server.BaseHTTPRequestHandler):
    """A registry that misbehaves as its server's `plan` says."""

    protocol_version = "HTTP/1.1"

    body = b""

    def do_GET(self) -> None:
        plan: Any = self.server
        self.body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        plan.requests.append((self.path, dict(self.headers)))
        try:
            status, headers, body, sent = plan.answer(self)
        except ConnectionAbortedError:
            self.close_connection = True
            return
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[:sent])
        if sent < len(body):
            self.close_connection = True

    do_HEAD = do_POST = do_PUT = do_PATCH = do_GET

    def log_message(self, *_: object) -> None:
        return


Answer = tuple[int, dict[str, str], bytes, int]


@contextmanager
def hostile(answer: Callable[[Hostile], Answer]) -> Iterator[Any]:
    server: Any = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hostile)
    server.answer, server.requests = answer, []
    server.address = f"127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def serve(blobs: dict[str, bytes], manifest: str) -> Callable[[Hostile], Answer]:
    """A registry of one image that behaves."""

    def answer(request: Hostile) -> Answer:
        name = request.path.rpartition("/")[2]
        if "/manifests/" in request.path:
            data = blobs.get(name, blobs[manifest])
            return 200, {"Content-Type": "application/vnd.oci.image.manifest.v1+json"}, data, len(data)
        if "/blobs/" in request.path:
            return 200, {}, blobs[name], len(blobs[name])
        return 200, {}, b"{}", 2

    return answer


def whole(blobs: dict[str, bytes], request: Hostile) -> Answer:
    """A blob as an orderly server gives it, ranges too."""
    data = blobs[request.path.rpartition("/")[2]]
    wanted = request.headers.get("Range")
    if not wanted:
        return 200, {}, data, len(data)
    start = int(wanted[6:].partition("-")[0])
    return 206, {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"}, data[start:], len(data)


class Gate:
    """A registry whose big blob comes in half until it is opened; counts who asked for it."""

    def __init__(self, blobs: dict[str, bytes], digest: str) -> None:
        self._good = serve(blobs, digest)
        self._blobs = blobs
        self.big = next(name for name, data in blobs.items() if len(data) > 2_000_000)
        self.asked: list[str] = []
        self.reached = threading.Event()
        self.opened = threading.Event()

    def __call__(self, request: Hostile) -> Answer:
        if not request.path.endswith(self.big):
            return self._good(request)
        self.asked.append(request.headers.get("Range", ""))
        code, headers, body, _ = whole(self._blobs, request)
        if not self.opened.is_set():
            request.send_response(code)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                request.send_header(name, value)
            request.end_headers()
            request.wfile.write(body[: len(body) // 2])
            request.wfile.flush()
            self.reached.set()
            self.opened.wait(60)
            request.wfile.write(body[len(body) // 2 :])
            request.close_connection = True
            raise ConnectionAbortedError  # answered already
        return code, headers, body, len(body)
