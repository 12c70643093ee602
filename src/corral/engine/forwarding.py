"""Starts the forwarder of a container whose log goes elsewhere (see `corral.forward`)."""

from __future__ import annotations

import asyncio
import os
import socket
import sys

import msgspec

from corral.engine import logdrivers
from corral.engine.context import Engine
from corral.engine.live import Client
from corral.engine.record import Container
from corral.errors import System

_OPENING_S = 30.0


class DriverFailed(System):
    """The log driver could not be opened."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"failed to initialize logging driver: {reason}")


async def open_forwarder(engine: Engine, record: Container) -> Client | None:
    """A client for the shim that sends the output on; None for drivers that need none.  Raises DriverFailed."""
    settings = logdrivers.forwarder_settings(record, os.getpid())
    if settings is None:
        return None
    ours, theirs = socket.socketpair()
    try:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "corral.forward", msgspec.json.encode(settings).decode(),
            stdin=theirs.fileno(), stdout=asyncio.subprocess.PIPE, start_new_session=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        )  # fmt: skip
    except OSError as error:
        ours.close()
        raise DriverFailed(str(error)) from error
    finally:
        theirs.close()
    reaper = asyncio.create_task(_reap(process), name=f"log forwarder {record.id[:12]}")
    engine.background.add(reaper)
    reaper.add_done_callback(engine.background.discard)
    assert process.stdout is not None
    try:
        async with asyncio.timeout(_OPENING_S):
            said = (await process.stdout.readline()).decode(errors="replace").strip()
    except TimeoutError:
        process.kill()
        said = "the receiver does not answer"
    if said != "ok":
        ours.close()
        raise DriverFailed(said or "the forwarder ended")
    return Client(ours.detach(), False, ["stdout", "stderr"], b"", b"")


async def _reap(process: asyncio.subprocess.Process) -> None:
    await process.wait()
