"""`/exec/...` and `/containers/{name}/exec`."""

from __future__ import annotations

import contextlib
import os

from corral.api import http
from corral.api.containers import size_of, stream_type
from corral.api.http import Answer, Request, Taken
from corral.api.services import Services
from corral.api.streams import STDOUT, frame
from corral.engine import inspect
from corral.engine.live import Client
from corral.errors import CorralError
from corral.wire.containers import ExecRequest, ExecStartRequest


async def create(services: Services, request: Request) -> Answer:
    """POST /containers/{name}/exec"""
    body = await request.json(ExecRequest)
    return http.json({"Id": services.execs.create(request.params["name"], body).id}, 201)


async def start(services: Services, request: Request) -> Answer:
    """POST /exec/{id}/start: detached, or with the connection as the process's streams."""
    body = await request.json(ExecStartRequest, default=ExecStartRequest)
    found = services.execs.check_start(request.params["id"])
    if body.console_size and any(body.console_size):
        found.console_size = (body.console_size[0], body.console_size[1])
    if body.detach:
        await services.execs.start(found, None)
        return http.empty(200)
    wanted = found.request
    taken = await request.hijack(stream_type(request, wanted.tty))
    outputs = [name for name, on in (("stdout", wanted.attach_stdout), ("stderr", wanted.attach_stderr)) if on]
    client = Client(taken.fd, wanted.attach_stdin, outputs, found.detach_keys if wanted.tty else b"", taken.initial)
    try:
        await services.execs.start(found, client)
    except CorralError as error:
        # The connection has left HTTP: the text goes where the output would have gone, as in Docker.
        text = f"{error}\r\n".encode()
        with contextlib.suppress(OSError):  # it has gone away
            os.write(client.fd, text if wanted.tty else frame(STDOUT, text))
    finally:
        client.close()
    return Taken()


async def resize(services: Services, request: Request) -> Answer:
    """POST /exec/{id}/resize"""
    rows, columns = size_of(request.query)
    await services.execs.resize(request.params["id"], rows, columns)
    return http.empty(200)


async def inspect_(services: Services, request: Request) -> Answer:
    """GET /exec/{id}/json"""
    found = services.execs.get(request.params["id"])
    await services.execs.settle(found)
    return http.json(inspect.exec_instance(found))
