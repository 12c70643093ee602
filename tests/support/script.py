"""A server that says what a test wrote down, whatever it is asked."""

from __future__ import annotations

import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager

PING = b"HTTP/1.1 200 OK\r\nApi-Version: 1.44\r\nContent-Length: 2\r\n\r\n"


class Script:
    """A server that answers the requests of each connection with given bytes, and remembers the requests."""

    def __init__(self, listener: socket.socket, connections: list[list[bytes]]) -> None:
        self.requests: list[bytes] = []
        self._listener = listener
        self._connections = connections
        self.thread = threading.Thread(target=self._serve)
        self.thread.start()

    def _serve(self) -> None:
        for answers in self._connections:
            connection, _ = self._listener.accept()
            with connection:
                for answer in answers:
                    self.requests.append(self._request(connection))
                    connection.sendall(answer)

    def _request(self, connection: socket.socket) -> bytes:
        data = b""
        while b"\r\n\r\n" not in data:
            data += connection.recv(65536)
        head, _, body = data.partition(b"\r\n\r\n")
        if b"chunked" in head:
            while not body.endswith(b"0\r\n\r\n"):
                body += connection.recv(65536)
        for line in head.split(b"\r\n"):
            if line.lower().startswith(b"content-length:"):
                while len(body) < int(line.split(b":")[1]):
                    body += connection.recv(65536)
        return head + b"\r\n\r\n" + body


@contextmanager
def scripted(*connections: list[bytes], tcp: bool = False) -> Iterator[tuple[str, Script]]:
    """The address of a server that gives these answers on these connections, one after another."""
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_INET if tcp else socket.AF_UNIX) as listener:
        listener.bind(("127.0.0.1", 0) if tcp else f"{folder}/s")
        listener.listen()
        script = Script(listener, list(connections))
        try:
            yield f"tcp://127.0.0.1:{listener.getsockname()[1]}" if tcp else f"unix://{folder}/s", script
        finally:
            script.thread.join(5)


def answer(body: bytes, status: str = "200 OK", *headers: str) -> bytes:
    """An HTTP answer."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body
