"""What handlers work with."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from corral.build.builder import Builder
from corral.engine.containers import Containers
from corral.engine.context import Engine
from corral.engine.execs import Execs
from corral.engine.imagekeeper import ImageKeeper


@dataclass(frozen=True)
class Services:
    """The engine and its use cases."""

    engine: Engine
    containers: Containers
    execs: Execs
    image_keeper: ImageKeeper
    builder: Builder
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
