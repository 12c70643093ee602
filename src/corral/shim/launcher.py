"""The launcher: a small process that forks shims.

The daemon is large and has threads, so it never forks; it asks this process, which has everything a shim needs
already imported.  A fork takes about a millisecond and shares nearly all of its memory.

Control socket: frames of `corral.shim.protocol`; `{"seccomp": FILTER, "mappings": MAPPINGS}` says which filter and
which mappings of users most containers will have, `{"directory": PATH}`, with the shim's end of a socket pair, asks
for a shim.  The launcher ends when the control socket closes; shims go on.
"""

from __future__ import annotations

import gc
import os
import signal
import socket
import sys

from corral.shim import frames, protocol
from corral.shim import main as shim

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn


def main() -> None:
    """`python -m corral.shim.launcher FD`: serve the control socket that is open as FD."""
    control = socket.socket(fileno=int(sys.argv[1]))
    os.set_inheritable(control.fileno(), False)
    os.setsid()
    _name("corral-launcher")
    # Children are never waited for here: a shim reports to the daemon, not to its parent.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    decoder = protocol.Decoder()
    while True:
        received = frames.receive(control)
        if received is None:
            return
        for message, descriptors in decoder.feed(*received):
            if "seccomp" in message:
                shim.warm_up(message["seccomp"], message["mappings"])
                gc.collect()
                gc.freeze()  # what exists now is never looked at by the collector, so its pages stay shared
                continue
            if os.fork() == 0:
                control.close()
                _become_shim(message["directory"], descriptors[0])
            os.close(descriptors[0])


def _become_shim(directory: str, connection: int) -> NoReturn:
    status = 1
    try:
        os.setsid()
        _name("corral-shim")
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        if os.path.isdir(directory):  # else the engine gave the start up before we came
            os.chdir(directory)
            shim.serve(socket.socket(fileno=connection))
        status = 0
    except BaseException:  # noqa: BLE001  nothing of the launcher may run in the child
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(status)


def _name(name: str) -> None:
    """The name that `ps` and `top` show."""
    with open("/proc/self/comm", "w") as file:
        file.write(name)


if __name__ == "__main__":
    main()
