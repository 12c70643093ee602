"""`corral system check`: is everything that the store promises there and unharmed, and what can be repaired.

Looks at every blob (by its digest), every unpacked layer (against its blob), every record and every directory.
What operations are working on is left alone: their content is under a lease or not yet named.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from corral.engine.context import Engine
from corral.errors import CorralError
from corral.image.crew import Crew, Job
from corral.oci.digest import ChainID, chain_ids
from corral.volume.volumes import LOCAL


@dataclass(slots=True)
class Problem:
    """Something that is not as it should be; `repair` says what would be done, "" if nothing can be."""

    kind: str
    subject: str
    detail: str
    repair: str = ""
    repaired: bool = False
    act: Callable[[], object] | None = None


@dataclass(slots=True)
class Report:
    """How many of each thing were looked at, and what was wrong."""

    checked: dict[str, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)


async def check(engine: Engine, *, repair: bool = False) -> Report:
    """Look at everything; with `repair`, put right what can be."""
    report = await asyncio.to_thread(_look, engine)
    if repair:
        for problem in report.problems:
            if problem.act is not None:
                await asyncio.to_thread(problem.act)
                problem.repaired = True
    return report


def _look(engine: Engine) -> Report:
    report = Report()
    for part in (_content, _names, _layers, _strays, _snapshots, _containers, _volumes):
        report.problems += part(engine, report.checked)
    return report


def _content(engine: Engine, checked: dict[str, int]) -> Iterator[Problem]:
    """Blobs by their digests; layers, with the blob that each was unpacked from, by their files."""
    images = engine.images
    layers = images.snapshots.layers()
    of_blob: dict[str, list[str]] = {}
    for chain, layer in layers.items():
        of_blob.setdefault(layer.blob, []).append(chain)
    blobs = sorted(images.content.sizes())
    checked["blobs"], checked["layers"] = len(blobs), len(layers)
    with Crew() as crew:
        jobs: list[tuple[str, str, Job]] = []
        for blob in blobs:
            for chain in of_blob.get(blob, [""]):
                try:
                    folder = images.snapshots.layer_paths(ChainID(chain))[0] if chain else ""
                except CorralError:  # a layer below is missing: told by `_layers`
                    folder = ""
                folder = folder if os.path.isdir(folder) else ""
                path = images.content.path(blob)
                jobs.append((blob, chain, crew.submit("verify", blob=path, digest=blob, layer=folder)))
        told: set[str] = set()
        for blob, chain, job in jobs:
            for problem in _verdict(engine, blob, chain, crew, job):
                if problem.subject not in told:
                    told.add(problem.subject)
                    yield problem


def _verdict(engine: Engine, blob: str, chain: str, crew: Crew, job: Job) -> Iterator[Problem]:
    images = engine.images
    try:
        found = crew.wait(job)
    except CorralError as error:
        yield Problem("blob", blob, str(error))
        return
    if not found["same"]:
        again = "remove it, so that the next pull or load brings it again"
        yield Problem(
            "blob", blob, "the stored bytes do not match the digest", again, act=lambda: images.drop_blob(blob)
        )
    elif found["differences"]:
        detail = "its files differ from its blob: " + "; ".join(found["differences"])
        repair = "unpack it again from its blob"
        yield Problem("layer", chain, detail, repair, act=lambda: images.unpack_again([ChainID(chain)]))


def _names(engine: Engine, checked: dict[str, int]) -> Iterator[Problem]:
    """Image names: the target, and at least one platform of it, is here."""
    images = engine.images
    targets = images.catalog.targets()
    checked["images"] = len(targets)
    for digest in sorted(targets):
        names = images.catalog.names_of(digest)
        shown = names[0].lstrip("@")
        try:
            image = images.catalog.image(digest)
        except CorralError as error:
            detail = f"its documents cannot be read: {error}"
            yield Problem("image", shown, detail, "forget the name", act=_forget(engine, names))
            continue
        wanted = [image.manifest_digest, image.config_digest, *(layer.digest for layer in image.manifest.layers)]
        missing = [blob for blob in wanted if not images.content.has(blob)]
        if missing:
            yield Problem("image", shown, f"content is missing ({missing[0]}): pull or load it again")
        for chain in chain_ids(image.diff_ids):
            if not images.snapshots.has_layer(chain):
                yield Problem("image", shown, f"layer {chain} is not unpacked: pull or load it again")
                break


def _forget(engine: Engine, names: list[str]) -> Callable[[], object]:
    return lambda: engine.images.catalog.drop(names)


def _layers(engine: Engine, checked: dict[str, int]) -> Iterator[Problem]:
    """Layer records: the parent is there, the chain id is what it should be, the directory and the blob are there."""
    images = engine.images
    layers = images.snapshots.layers()
    for chain, layer in layers.items():
        below = [] if not layer.parent else [layer.parent]
        if layer.parent and layer.parent not in layers:
            yield Problem("layer", chain, f"the layer below it, {layer.parent}, is missing")
        elif images.snapshots.chain_of(layer) != chain:
            yield Problem("layer", chain, f"its record contradicts its name (diff id {layer.diff_id}, below {below})")
        elif not os.path.isdir(images.snapshots.layer_directory(chain)):
            act = _unpacker(engine, chain) if images.content.has(layer.blob) else None
            yield Problem("layer", chain, "its directory is missing", "unpack it again" if act else "", act=act)
        if not images.content.has(layer.blob):
            yield Problem("layer", chain, f"its blob {layer.blob} is missing: pull or load the image again")


def _unpacker(engine: Engine, chain: str) -> Callable[[], object]:
    return lambda: engine.images.unpack_again([ChainID(chain)])


def _strays(engine: Engine, checked: dict[str, int]) -> Iterator[Problem]:
    """Content and directories that nothing names."""
    images = engine.images
    blobs, chains = images.stray()
    for blob in blobs:
        yield Problem("blob", blob, "no image reaches it", "remove it", act=images.collect_now)
    for chain in chains:
        yield Problem("layer", chain, "no image or container stands on it", "remove it", act=images.collect_now)
    for folder in images.snapshots.stray_directories():
        act = _thrower(engine, folder)
        yield Problem("directory", folder, "no layer or snapshot has it", "remove it", act=act)


def _thrower(engine: Engine, folder: str) -> Callable[[], object]:
    return lambda: engine.snapshots.drop_stray(folder)


def _snapshots(engine: Engine, checked: dict[str, int]) -> Iterator[Problem]:
    """Snapshots: the layers below and the directories are there, and a container has it."""
    keys = engine.snapshots.keys()
    checked["snapshots"] = len(keys)
    known = {live.id for live in engine.index}
    for key, frozen in engine.snapshots.committed().items():
        missing = [path for path in engine.snapshots.own(key) if not os.path.isdir(path)]
        if missing:
            yield Problem("snapshot", key, f"{missing[0]} is missing")
        elif frozen.named and key.partition("@")[0] not in {live.id for live in engine.index}:
            yield Problem("snapshot", key, "no container has it", "remove it", act=_forgetter(engine, key))
    for key in keys:
        try:
            mount = engine.snapshots.mounts(key)
        except CorralError as error:
            yield Problem("snapshot", key, str(error))
            continue
        missing = [path for path in (mount.upper, mount.work) if not os.path.isdir(path)]
        if missing:
            yield Problem("snapshot", key, f"{missing[0]} is missing")
        if len(key) >= 64 and key.partition(":")[0] not in known:
            yield Problem("snapshot", key, "no container has it", "remove it", act=_remover(engine, key))


def _forgetter(engine: Engine, key: str) -> Callable[[], object]:
    def act() -> None:
        change = engine.snapshots.forget([key])
        engine.db.submit(*change.statements).result()
        change.done()

    return act


def _remover(engine: Engine, key: str) -> Callable[[], object]:
    return lambda: engine.snapshots.remove(key)


def _containers(engine: Engine, checked: dict[str, int]) -> Iterator[Problem]:
    checked["containers"] = len(list(engine.index))
    keys = set(engine.snapshots.keys())
    for live in engine.index:
        if live.id not in keys:
            yield Problem("container", live.record.name, "its snapshot is missing: remove it")
        if not os.path.isdir(engine.paths.container(live.id)):
            yield Problem("container", live.record.name, "its directory is missing: remove it")


def _volumes(engine: Engine, checked: dict[str, int]) -> Iterator[Problem]:
    found = engine.volumes.all()
    checked["volumes"] = len(found)
    for volume in found:
        if volume.driver == LOCAL and not os.path.isdir(engine.volumes.folder(volume.name)):
            yield Problem("volume", volume.name, "its directory is missing: remove it")
