"""`docker commit`: a container's own layer and configuration become an image."""

from __future__ import annotations

import contextlib

from corral.engine.containers import Containers
from corral.engine.context import Engine
from corral.engine.defaults import run_config
from corral.engine.live import Live
from corral.errors import NotFound
from corral.image.changes import apply_changes
from corral.image.make import CommitRequest
from corral.image.model import Image
from corral.wire.containers import ContainerConfig


async def commit(
    engine: Engine,
    containers: Containers,
    live: Live,
    body: ContainerConfig | None,
    *,
    repo: str,
    tag: str,
    author: str,
    comment: str,
    changes: list[str],
    pause: bool,
) -> Image:
    """Make an image; a running container is paused meanwhile, unless told not to."""
    record = live.record
    config = body if body is not None and body != ContainerConfig() else record.config
    run = apply_changes(run_config(config), changes)
    try:
        parent: Image | None = engine.images.get(record.image_id)
    except NotFound:  # removed by force, under the container
        parent = None
    request = CommitRequest(run=run, parent=parent, author=author, comment=comment, created_by=" ".join(record.argv))
    async with live.lock, contextlib.AsyncExitStack() as still:
        if pause:
            await still.enter_async_context(containers.held_still(live))
        image = await engine.images.commit(live.id, request, repo, tag)
    engine.publish(
        live, "commit", comment=comment, imageID=image.id, imageRef=image.repo_tags[0] if image.repo_tags else ""
    )
    return image
