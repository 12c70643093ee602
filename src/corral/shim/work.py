"""Heavy work in a child of the shim, so that the memory it touches goes with it.

A shim is a fork of the launcher and shares nearly all of its memory, until it writes to it; and running Python
code writes to whatever it looks at (reference counts).  Creating a container looks at everything.  Done in a child
that ends, it costs a millisecond and leaves the shim, which may live for months, almost untouched.  What the child
started becomes a child of the shim, which is the subreaper.
"""

from __future__ import annotations

import gc
import os
import socket
import sys

from corral.runtime.failure import Failure
from corral.shim import frames, protocol

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    Step = tuple[dict[str, Any], int]


class Worker:
    """A child that runs a generator: each step is asked for with `next`, and answers with values and a descriptor."""

    def __init__(self, steps: Callable[[], Iterator[Step]]) -> None:
        ours, theirs = socket.socketpair()
        pid = os.fork()
        if pid == 0:
            ours.close()
            _serve(steps, theirs)
        theirs.close()
        self._socket = ours
        self._decoder = protocol.Decoder()
        self.pid = pid

    def next(self) -> tuple[dict[str, Any], int]:
        """The values and the descriptor (-1: none) of the next step; raises the Failure that it met."""
        self._socket.send(b".", socket.MSG_NOSIGNAL)
        while (received := frames.receive(self._socket)) is not None:
            for message, descriptors in self._decoder.feed(*received):
                if "failure" in message:
                    raise Failure(*message["failure"])
                return message["values"], descriptors[0] if descriptors else -1
        raise Failure("worker", 0, "", "the worker died")

    def close(self) -> None:
        """Let the child end."""
        self._socket.close()


def run(steps: Callable[[], Iterator[Step]]) -> tuple[dict[str, Any], int]:
    """The first step of a worker that is needed for no more."""
    worker = Worker(steps)
    try:
        return worker.next()
    finally:
        worker.close()


def _serve(steps: Callable[[], Iterator[Step]], asked: socket.socket) -> None:
    status = 1
    gc.disable()  # a collection would write to, and so copy, every page shared with the shim
    try:
        generator = steps()
        while asked.recv(1):
            try:
                values, descriptor = next(generator)
            except Failure as failure:
                wire = [failure.stage, failure.errno, failure.path, failure.detail]
                frames.send(asked, {"failure": wire})
                break
            except OSError as error:
                frames.send(asked, {"failure": ["worker", error.errno or 0, error.filename or "", ""]})
                break
            frames.send(asked, {"values": values}, [descriptor] if descriptor >= 0 else [])
        status = 0
    except BaseException:  # noqa: BLE001  nothing of the shim may run in the child
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(status)
