"""The Python API: `Client` and `AsyncClient` for a daemon, `Sandbox` and `AsyncSandbox` for code that is not trusted.

This is the one package whose `__init__` has a content: the names that programs of other people use.
"""

from corral.client.client import AsyncClient, Client
from corral.client.containers import AsyncContainer, Container
from corral.client.errors import (
    BadArgument,
    Conflict,
    Ended,
    Failed,
    Forbidden,
    Interrupted,
    InvalidParameter,
    NotConnected,
    NotFound,
    Refusal,
    TimedOut,
    Unauthorized,
    Unavailable,
    UnreadableAnswer,
    Unsupported,
)
from corral.client.flavours import AsyncStream, Stream
from corral.client.images import Login
from corral.client.networks import AsyncNetwork, Network
from corral.client.options import Options
from corral.client.processes import AsyncProcess, Process, Result
from corral.client.sandbox import AsyncSandbox, Sandbox
from corral.client.streams import Output
from corral.client.volumes import AsyncVolume, Volume
from corral.endpoint import Tls
from corral.errors import CorralError

__all__ = [
    "AsyncClient",
    "AsyncContainer",
    "AsyncNetwork",
    "AsyncProcess",
    "AsyncSandbox",
    "AsyncStream",
    "AsyncVolume",
    "BadArgument",
    "Client",
    "Conflict",
    "Container",
    "CorralError",
    "Ended",
    "Failed",
    "Forbidden",
    "Interrupted",
    "InvalidParameter",
    "Login",
    "Network",
    "NotConnected",
    "NotFound",
    "Options",
    "Output",
    "Process",
    "Refusal",
    "Result",
    "Sandbox",
    "Stream",
    "TimedOut",
    "Tls",
    "Unauthorized",
    "Unavailable",
    "UnreadableAnswer",
    "Unsupported",
    "Volume",
]
