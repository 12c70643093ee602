"""Attach: give a client the streams of a container, now or as soon as it starts."""

from __future__ import annotations

from corral.engine import lifecycle
from corral.engine.context import Engine
from corral.engine.live import Client, Live
from corral.engine.tasks import ShimGone
from corral.runtime.failure import Failure


def check(live: Live) -> None:
    """Raise unless a client may attach."""
    lifecycle.check("attach", live.record.state.status, live.id)


async def attach(engine: Engine, live: Live, client: Client) -> None:
    """Hand `client` to the shim.  Before the start it waits with us, and its input waits in its socket."""
    engine.publish(live, "attach")
    if live.has_process and live.task is not None:
        try:
            await live.task.request("attach", [client.fd], client=client.described())
        except (Failure, ShimGone):
            pass  # it has just ended: the client sees the end of the stream
        finally:
            client.close()
        return
    if engine.index.find(live.id) is not live:  # removed while the connection changed protocol
        client.close()
        return
    live.early_clients.append(client)


def stdin_client(live: Live, wanted: bool) -> bool:
    """Whether a client that wants to write gets to."""
    return wanted and live.record.config.open_stdin
