"""Cache that travels with an image: an annotation of its manifest tells which steps made which layers.

    io.corral.build.cache: [[keys, layers after the step (-1: it has no files), created, description, kind], ...]

So `--cache-to` is to push or save an image, and `--cache-from` to have one: its layers arrive as any image's do.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from corral.build.cache import Cache
from corral.build.layers import FileSystem
from corral.image.images import Images
from corral.image.model import Image
from corral.oci.digest import chain_ids

ANNOTATION = "io.corral.build.cache"
_STEPS_MAX = 5000


@dataclass(frozen=True)
class Trail:
    """One step on the way to where a stage stands; `files` is None for one that has none."""

    keys: tuple[str, ...]
    files: FileSystem | None
    created: str
    description: str
    kind: str


class _Step(msgspec.Struct, array_like=True, frozen=True):
    keys: list[str]
    layers: int
    created: str
    description: str
    kind: str


async def describe(trail: list[Trail], images: Images) -> str:
    """The annotation's text."""
    steps = []
    for step in trail:
        layers = -1 if step.files is None else len(await step.files.parts(images))
        steps.append(_Step(list(step.keys), layers, step.created, step.description, step.kind))
    return msgspec.json.encode(steps).decode()


def take(image: Image, cache: Cache, images: Images) -> int:
    """Make the steps of an image known to the cache; how many were new.  What cannot be read is nothing."""
    text = (image.manifest.annotations or {}).get(ANNOTATION, "")
    if not text:
        return 0
    try:
        steps = msgspec.json.decode(text, type=list[_Step])
    except (msgspec.DecodeError, RecursionError):
        return 0
    chains = chain_ids(image.diff_ids)
    taken = before = 0
    for step in steps[:_STEPS_MAX]:
        if not step.keys or step.layers > len(chains) or cache.find(*step.keys) is not None:
            before = max(before, step.layers)
            continue
        chain = chains[step.layers - 1] if step.layers > 0 else ""
        empty = step.layers <= before
        if chain and not images.snapshots.has_layer(chain):
            continue
        cache.put(
            cache.new(
                step.keys, parent="", chain=chain, empty=empty, description=step.description[:400], kind=step.kind,
                created=step.created,
            )
        )  # fmt: skip
        before = max(before, step.layers)
        taken += 1
    return taken
