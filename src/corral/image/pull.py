"""Pull: resolve a reference at its registry, bring what is missing, and name it.

The registry is asked from worker processes; each layer goes download -> digest -> decompress -> unpack in one pass
in one of them, several layers at a time.  A blob is written to `partial/`, where a try that failed is found again.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from corral.errors import DataLoss, InvalidParameter
from corral.image import layers
from corral.image.crew import Crew, Job
from corral.image.install import Arrived, Installer
from corral.image.model import InvalidArchive, NoSuchPlatform
from corral.oci import image as oci
from corral.oci.digest import Digest, chain_ids, hex_of, verify
from corral.oci.platform import Platform, best
from corral.oci.reference import Reference
from corral.store.content import Content
from corral.store.gc import Lease
from corral.store.snapshots import Snapshots

Progress = Callable[[dict[str, Any]], None]

CONCURRENT = 3
_INDEX_DEPTH_MAX = 4


@dataclass(frozen=True, slots=True)
class Registries:
    """What the daemon's configuration says about registries: hosts (with port) that may be insecure, and certs.d."""

    insecure: frozenset[str] = frozenset()
    certs: str = "/etc/docker/certs.d"


@dataclass(slots=True)
class Flights:
    """Blobs on their way in, of all pulls: a second pull waits for the first one's blob instead of fetching it."""

    _digests: set[str] = field(default_factory=set)
    _changed: threading.Condition = field(default_factory=threading.Condition)

    def begin(self, digest: str) -> bool:
        """Whether this blob is now ours to fetch; call `end` when it is here or will not come."""
        with self._changed:
            if digest in self._digests:
                return False
            self._digests.add(digest)
            return True

    def end(self, digest: str) -> None:
        """The blob is here, or will not come."""
        with self._changed:
            self._digests.discard(digest)
            self._changed.notify_all()

    def wait(self, digest: str) -> None:
        """Until nobody fetches this blob."""
        with self._changed:
            self._changed.wait_for(lambda: digest not in self._digests)


@dataclass(frozen=True, slots=True)
class _Begun:
    """A layer that a worker is busy with; `path` is the partial blob's, "" when the blob is in the store already."""

    layer: oci.Descriptor
    job: Job
    arrived: Arrived
    path: str
    resumed: bool


class Puller:
    """One pull, in one thread."""

    def __init__(
        self, content: Content, snapshots: Snapshots, crew: Crew, installer: Installer, lease: Lease, flights: Flights,
        fields: dict[str, Any], progress: Progress,
    ) -> None:  # fmt: skip
        """`fields` is what `corral.image.registry.Registry` takes."""
        self._content = content
        self._snapshots = snapshots
        self._crew = crew
        self._installer = installer
        self._lease = lease
        self._flights = flights
        self._fields = fields
        self._progress = progress

    def pull(self, reference: Reference, platform: Platform, explicit: bool) -> tuple[oci.Descriptor, bool]:
        """The target's descriptor, all its content committed; and whether anything was new.

        `explicit` says that the user asked for the platform.
        """
        wanted = reference.digest or reference.tag or "latest"
        target = self._manifest(str(wanted), reference.digest)
        # Not before: a client tells a refusal from a failure by whether anything came before it.
        self._progress({"status": f"Pulling from {reference.path}", "id": str(wanted)})
        manifest_data, media_type = target, oci.media_type_of(target)
        digest = self._store(target)
        manifest_digest: str = digest
        for _ in range(_INDEX_DEPTH_MAX):
            if media_type not in oci.INDEX_TYPES:
                break
            chosen = self._choose(manifest_data, platform, reference, explicit)
            manifest_digest = chosen.digest
            manifest_data = self._manifest(chosen.digest, Digest(chosen.digest))
            self._store(manifest_data)
            media_type = oci.media_type_of(manifest_data)
        if media_type not in oci.MANIFEST_TYPES:
            raise InvalidArchive(f"cannot pull {reference.familiar}: media type {media_type} is not supported")
        new = self._image(oci.parse_manifest(manifest_data), reference, platform if explicit else None)
        self._lease.add(manifest_digest)
        self._content.sync()
        return oci.describe(oci.media_type_of(target), target, digest), new

    def _choose(self, data: bytes, platform: Platform, reference: Reference, explicit: bool) -> oci.Descriptor:
        offers = [found for found in oci.parse_index(data).manifests if not found.is_attestation]
        chosen = best(platform, offers, lambda found: found.platform)
        if chosen is None:
            others = ", ".join(str(found.platform) for found in offers)
            raise NoSuchPlatform(reference.familiar, str(platform), others)
        return chosen

    # --- documents -------------------------------------------------------------------------------------------

    def _manifest(self, reference: str, digest: Digest | None) -> bytes:
        """A manifest by tag or digest; from the store when its digest is known and it is there."""
        if digest is not None and self._content.has(digest):
            self._lease.add(digest)
            return self._content.read(digest)
        fields = {"reference": reference, "digest": digest or ""}
        return self._ask(fields)

    def _config(self, descriptor: oci.Descriptor) -> bytes:
        self._lease.add(descriptor.digest)
        if self._content.has(descriptor.digest):
            return self._content.read(descriptor.digest)
        data = self._ask({"digest": descriptor.digest})
        verify(data, descriptor.digest, "configuration")
        return data

    def _ask(self, fields: dict[str, Any]) -> bytes:
        answer = self._crew.wait(self._crew.submit("document", registry=self._fields, **fields))
        self._fields = {**self._fields, "session": answer["session"]}
        data: bytes = answer["data"].encode("latin-1")
        return data

    def _store(self, data: bytes) -> Digest:
        return self._installer.document(data)

    # --- layers ----------------------------------------------------------------------------------------------

    def _image(self, manifest: oci.Manifest, reference: Reference, wanted: Platform | None) -> bool:
        """Bring configuration and layers in; whether any of it was missing."""
        raw = self._config(manifest.config)
        config = oci.parse_config(raw)
        if wanted is not None and best(wanted, [config.platform], lambda found: found) is None:
            raise NoSuchPlatform(reference.familiar, str(wanted), str(config.platform))
        new = not self._content.has(manifest.config.digest)
        chains = chain_ids(config.rootfs.diff_ids)
        arrived: dict[str, Arrived] = {}
        missing: list[oci.Descriptor] = []
        for index, layer in enumerate(manifest.layers):
            if layer.digest in arrived or any(layer.digest == held.digest for held in missing):
                continue
            self._lease.add(layer.digest)
            chain = chains[index] if index < len(chains) else ""
            if self._content.has(layer.digest) and self._snapshots.has_layer(chain):
                known = self._snapshots.layer(chain)
                arrived[layer.digest] = self._known(layer.digest, known.diff_id)
                self._say(layer, "Already exists")
            else:
                missing.append(layer)
                self._say(layer, "Pulling fs layer")
        arrived.update(self._fetch_all(missing))
        self._installer.install(config, [arrived[layer.digest] for layer in manifest.layers])
        for layer in missing:
            self._say(layer, "Pull complete")
        self._installer.document(raw)
        return new or bool(missing)

    @staticmethod
    def _known(digest: str, diff_id: str) -> Arrived:
        unpacked = layers.Unpacked()
        unpacked.digest, unpacked.diff_id = digest, diff_id
        return Arrived(unpacked)

    def _fetch_all(self, missing: list[oci.Descriptor]) -> dict[str, Arrived]:
        """All missing layers; those that another pull is fetching come last, when ours are no longer on the way."""
        arrived: dict[str, Arrived] = {}
        with self._ours(missing) as ours:
            jobs = [self._begin(layer) for layer in ours]
            for begun in jobs:
                arrived[begun.layer.digest] = self._end(begun)
            # Others wait for these blobs: they are committed here, and installed with the rest.
            for layer in ours:
                self._installer.commit_blob(arrived[layer.digest])
        for layer in missing:
            if layer.digest not in arrived:
                self._flights.wait(layer.digest)
                arrived.update(self._fetch_all([layer]))
        return arrived

    @contextmanager
    def _ours(self, missing: list[oci.Descriptor]) -> Iterator[list[oci.Descriptor]]:
        ours = [layer for layer in missing if self._flights.begin(layer.digest)]
        try:
            yield ours
        finally:
            for layer in ours:
                self._flights.end(layer.digest)

    def _begin(self, layer: oci.Descriptor) -> _Begun:
        arrived = self._installer.arrived(Arrived(layers.Unpacked(), "", self._snapshots.begin_layer()))
        if self._content.has(layer.digest):
            path = self._content.path(layer.digest)
            job = self._crew.submit("unpack", blob=path, layer=arrived.directory, sync=False)
            return _Begun(layer, job, arrived, "", False)
        path = os.path.join(self._content.partial, hex_of(layer.digest))
        resumed = os.path.exists(path)
        job = self._crew.submit(
            "fetch", registry=self._fields, digest=layer.digest, size=layer.size, blob=path, layer=arrived.directory,
            progress=lambda record: self._received(layer, record["received"]),
        )  # fmt: skip
        return _Begun(layer, job, arrived, path, resumed)

    def _end(self, begun: _Begun) -> Arrived:
        try:
            begun.arrived.unpacked = layers.Unpacked.of(self._crew.wait(begun.job))
        except (DataLoss, InvalidParameter):
            # What an earlier try left may have been torn by a power cut; the worker has removed it.
            if begun.resumed:
                return self._end(self._begin(begun.layer))
            raise
        begun.arrived.path = begun.path
        self._say(begun.layer, "Extracting", {"current": begun.layer.size, "total": begun.layer.size})
        return begun.arrived

    def _received(self, layer: oci.Descriptor, count: int) -> None:
        self._say(layer, "Downloading", {"current": count, "total": layer.size})
        if count >= layer.size:
            self._say(layer, "Download complete")

    def _say(self, layer: oci.Descriptor, status: str, detail: dict[str, int] | None = None) -> None:
        self._progress({"status": status, "progressDetail": detail or {}, "id": hex_of(layer.digest)[:12]})
