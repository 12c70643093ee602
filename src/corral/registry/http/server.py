"""Connections served by threads: one for each, blocking.

What a registry does to a request is disk, hashing and copying between sockets and files; all of that releases the
interpreter's lock, so threads run it in parallel, and nothing has to be handed from an event loop to a thread and
back.  Several processes accept from one listening socket (supervisor.py).
"""

from __future__ import annotations

import email.utils
import errno
import logging
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable

from corral.registry.http.head import BadRequest, Head, parse
from corral.registry.http.messages import Answer, FilePart, Flow, Request, encode_head, refusal
from corral.registry.http.wire import Body, ClientGone, ClientSilent, Wire

_log = logging.getLogger(__name__)

_SKIP_BYTES = 8 << 20
_SMALL_FILE_BYTES = 64 << 10
_STACK_BYTES = 512 << 10
CLIENT_GONE = 499  # in log and metrics only, as nginx writes it

Handle = Callable[[Request], Answer]
Record = Callable[[Request, int, int, int, float], None]  # request, status, bytes in, bytes out, seconds


class Server:
    """The connections of one process."""

    def __init__(self, handle: Handle, record: Record, connections_max: int) -> None:
        self._handle = handle
        self._record = record
        self._max = connections_max
        self._wires: set[Wire] = set()
        self._count = 0  # of connections, from their acceptance
        self._changed = threading.Condition()
        self._closing = False
        self._date = (0, "")

    def run(self, listener: socket.socket, tls: ssl.SSLContext | None) -> None:
        """Accept and serve, until `close` is called from a signal's handler or another thread."""
        threading.stack_size(_STACK_BYTES)
        while not self._closing:
            try:
                sock, address = listener.accept()
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    self._shed()
                    continue
                if error.errno in (errno.ECONNABORTED, errno.EINTR):
                    continue
                if self._is_closing():
                    return
                raise
            self._make_room()
            threading.Thread(
                target=self._serve, args=(sock, str(address[0]).removeprefix("::ffff:"), tls), daemon=True
            ).start()

    def _make_room(self) -> None:
        """At the limit of connections: close the one that has been without a request longest, or wait."""
        with self._changed:
            while self._count >= self._max and not self._closing:
                self._close_idlest()
                self._changed.wait(0.2)
            self._count += 1

    def _shed(self) -> None:
        with self._changed:
            self._close_idlest()
            self._changed.wait(0.1)

    def _close_idlest(self) -> None:
        idle = [(wire.idle_since, id(wire), wire) for wire in self._wires if wire.idle_since is not None]
        if idle:
            min(idle, key=lambda entry: entry[:2])[2].interrupt()

    def stop(self, listener: socket.socket) -> None:
        """Take no more connections; safe in a signal's handler."""
        self._closing = True
        try:
            listener.close()
        except OSError:
            pass

    def _is_closing(self) -> bool:
        return self._closing

    def finish(self, grace_s: float) -> None:
        """Close connections without a request, and wait for those with one."""
        deadline = time.monotonic() + grace_s
        with self._changed:
            while self._count and time.monotonic() < deadline:
                for wire in self._wires:
                    if wire.idle_since is not None:
                        wire.interrupt()
                self._changed.wait(0.2)

    # -- one connection ----------------------------------------------------------------------------

    def _serve(self, sock: socket.socket, peer: str, tls: ssl.SSLContext | None) -> None:
        try:
            self._serve_all(sock, peer, tls)
        finally:
            with self._changed:
                self._count -= 1
                self._changed.notify_all()

    def _serve_all(self, sock: socket.socket, peer: str, tls: ssl.SSLContext | None) -> None:
        try:
            sock.setblocking(True)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if tls is not None:
                sock = tls.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
            wire = Wire(sock, peer)
        except OSError:
            sock.close()
            return
        with self._changed:
            self._wires.add(wire)
        try:
            wire.handshake()
            while not self._closing and self._serve_one(wire):
                pass
        except (ClientGone, ClientSilent):
            pass
        except Exception:  # noqa: BLE001  one connection must not end the others
            _log.exception("cannot serve a connection")
        finally:
            with self._changed:
                self._wires.discard(wire)
            sock.close()

    def _serve_one(self, wire: Wire) -> bool:
        """Serve the next request; whether the connection can take another."""
        try:
            data = wire.read_head()
            if data is None:
                return False
            head = parse(data)
        except BadRequest as error:
            self._refuse(wire, error)
            return False
        body = Body(wire, head)
        request = Request(head, body, wire.peer, wire.secure)
        began = time.monotonic()
        status, sent = CLIENT_GONE, 0
        keep_alive = head.keep_alive and not self._closing
        broken = False
        try:
            try:
                answer = self._handle(request)
            except BadRequest as error:
                answer, broken = refusal(error.status, "UNSUPPORTED", str(error)), True
            except ClientSilent:
                answer, broken = refusal(408, "UNSUPPORTED", "the request's body arrives too slowly"), True
            sent = self._send(wire, head, answer, keep_alive and not broken)
            status = answer.status
        finally:
            self._record(request, status, body.received, sent, time.monotonic() - began)
        try:
            skipped = not broken and body.skip(_SKIP_BYTES)
        except BadRequest:
            skipped = False
        if not skipped:
            wire.linger()
        return keep_alive and skipped

    def _refuse(self, wire: Wire, error: BadRequest) -> None:
        answer = refusal(error.status, "UNSUPPORTED", str(error))
        assert isinstance(answer.body, bytes)
        wire.send(encode_head(answer, False, self._now()) + answer.body)
        self._record(
            Request(Head("-", "-", "-", {}, {}), Body(wire, Head("-", "-", "-", {}, {})), wire.peer),
            error.status,
            0,
            answer.length,
            0.0,
        )
        wire.linger()

    def _send(self, wire: Wire, head: Head, answer: Answer, keep_alive: bool) -> int:
        """Send the answer; the bytes of its body that were sent."""
        data = encode_head(answer, keep_alive, self._now())
        body = answer.body
        if head.method == "HEAD" or answer.status in (204, 304):
            _discard(body)
            wire.send(data)
            return 0
        if isinstance(body, bytes):
            wire.send(data + body)
        elif isinstance(body, FilePart):
            try:
                if body.count <= _SMALL_FILE_BYTES:
                    content = os.pread(body.fd, body.count, body.offset)
                    if len(content) < body.count:
                        raise ClientGone  # shorter than it was: nothing but the connection's end can tell the client
                    wire.send(data + content)
                else:
                    wire.send(data, more=True)
                    wire.send_file(body.fd, body.offset, body.count)
            finally:
                os.close(body.fd)
        else:
            wire.send(data)
            for part in body.parts:
                wire.send(part)
        return answer.length

    def _now(self) -> str:
        """The Date header, made once a second."""
        now = int(time.time())
        if self._date[0] != now:
            self._date = (now, email.utils.formatdate(now, usegmt=True))
        return self._date[1]


def _discard(body: bytes | FilePart | Flow) -> None:
    if isinstance(body, FilePart):
        os.close(body.fd)
    elif isinstance(body, Flow):
        close = getattr(body.parts, "close", None)
        if close is not None:
            close()
