"""Pull: resolve a reference at its registry or a mirror, bring what is missing, and name it.

The registry is asked from worker processes; each layer goes download -> digest -> decompress -> unpack in one pass
in one of them, several layers at a time (`corral.image.transfers`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from corral.errors import Cancelled, CorralError
from corral.image import layers
from corral.image.bridge import Stop
from corral.image.crew import Crew
from corral.image.install import Arrived, Installer, LayerCountMismatch
from corral.image.model import NoSuchPlatform
from corral.image.refusals import ConfigurationSize, NotAnImage, Schema1, UnsupportedDigest
from corral.image.transfers import Order, Transfers, Watch
from corral.oci import image as oci
from corral.oci.digest import ChainID, Digest, algorithm_of, chain_ids, digest_of, hex_of, verify
from corral.oci.platform import Platform, best
from corral.oci.reference import Reference
from corral.store.content import Content
from corral.store.snapshots import Snapshots

Progress = Callable[[dict[str, Any]], None]
Fields = dict[str, Any]

_INDEX_DEPTH_MAX = 4


class Sources:
    """The places that have a repository, as fields for workers; what one worker has learnt is kept for the others."""

    def __init__(self, places: Sequence[Fields]) -> None:
        self._places = list(places)

    @property
    def places(self) -> Sequence[Fields]:
        """Those that have not failed, in order; the registry itself is the last."""
        return tuple(self._places)

    def ask(self, crew: Crew, op: str, **request: Any) -> Fields:
        """The answer of the first that has one; a mirror that fails is asked no more.  Raises the last one's error."""
        while True:
            try:
                answer = crew.ask(op, registry=self._places[0], **request)
            except Cancelled:
                raise
            except CorralError:
                if len(self._places) == 1:
                    raise
                del self._places[0]
                continue
            self._places[0] = {**self._places[0], "session": answer["session"]}
            return answer


class Puller:
    """One pull, in one thread."""

    def __init__(
        self, content: Content, snapshots: Snapshots, transfers: Transfers, installer: Installer, sources: Sources,
        stop: Stop, progress: Progress,
    ) -> None:  # fmt: skip
        self._content = content
        self._snapshots = snapshots
        self._transfers = transfers
        self._installer = installer
        self._sources = sources
        self._stop = stop
        self._progress = progress

    def pull(self, reference: Reference, platform: Platform, explicit: bool) -> tuple[oci.Descriptor, bool]:
        """The target's descriptor, all its content committed; and whether anything was new.

        `explicit` says that the user asked for the platform.
        """
        wanted = str(reference.digest or reference.tag or "latest")
        with self._transfers.worker(self._stop) as crew:
            target = self._manifest(crew, wanted, reference.digest)
            media_type = _type_of(target, reference)
            # Not before: a client tells a refusal from a failure by whether anything came before it.
            self._progress({"status": f"Pulling from {reference.path}", "id": wanted})
            digest = self._installer.document(target)
            data = self._one_manifest(crew, target, platform, reference, explicit)
            manifest = oci.parse_manifest(data)
            for content in (manifest.config, *manifest.layers):
                if algorithm_of(content.digest) != "sha256":
                    raise UnsupportedDigest(content.digest)
            raw = self._config(crew, manifest.config)
        config = oci.parse_config(raw)
        if explicit and best(platform, [config.platform], lambda found: found) is None:
            raise NoSuchPlatform(reference.familiar, str(platform), str(config.platform))
        new = self._image(manifest, config, raw)
        self._content.sync()
        return oci.describe(media_type, target, digest), new

    # --- documents -------------------------------------------------------------------------------------------

    def _one_manifest(self, crew: Crew, data: bytes, platform: Platform, reference: Reference, explicit: bool) -> bytes:
        """The manifest for the platform, of an index through as many indexes as there are."""
        for _ in range(_INDEX_DEPTH_MAX):
            media_type = _type_of(data, reference)
            if media_type in oci.MANIFEST_TYPES:
                return data
            if media_type not in oci.INDEX_TYPES:
                raise NotAnImage(media_type)
            chosen = _choose(data, platform, reference)
            data = self._manifest(crew, chosen.digest, Digest(chosen.digest))
            self._installer.document(data)
        raise NotAnImage(media_type)

    def _manifest(self, crew: Crew, reference: str, digest: Digest | None) -> bytes:
        """A manifest by tag or digest; from the store when its digest is known and it is there."""
        if digest is not None:
            self._installer.lease.add(digest)
            if self._content.has(digest):
                return self._content.read(digest)
        return _bytes_of(self._sources.ask(crew, "document", reference=reference, digest=digest or ""))

    def _config(self, crew: Crew, descriptor: oci.Descriptor) -> bytes:
        if descriptor.media_type not in oci.CONFIG_TYPES:
            raise NotAnImage(descriptor.media_type)
        if descriptor.size > oci.DOCUMENT_MAX_BYTES:
            raise ConfigurationSize(descriptor.size)
        self._installer.lease.add(descriptor.digest)
        if self._content.has(descriptor.digest):
            return self._content.read(descriptor.digest)
        data = _bytes_of(self._sources.ask(crew, "document", digest=descriptor.digest))
        verify(data, descriptor.digest, "configuration")
        return data

    # --- layers ----------------------------------------------------------------------------------------------

    def _image(self, manifest: oci.Manifest, config: oci.ImageConfig, raw: bytes) -> bool:
        """Bring layers in and commit everything; whether any of it was missing."""
        diff_ids = config.rootfs.diff_ids
        if len(diff_ids) != len(manifest.layers):
            raise LayerCountMismatch(len(diff_ids), len(manifest.layers))
        new = not self._content.has(manifest.config.digest)
        chains = chain_ids(diff_ids)
        self._installer.lease.add(*chains, *(layer.digest for layer in manifest.layers))
        missing = self._missing(chains, manifest.layers)
        watches: list[Watch] = []
        try:
            watches += [self._join(order) for order in missing.values()]
            found = dict(zip(missing, list(watches), strict=True))
            arrived = []
            for chain, layer in zip(chains, manifest.layers, strict=True):
                if chain in missing:
                    arrived.append(self._end(missing[chain], found[chain], watches))
                else:
                    arrived.append(self._known(layer.digest, chain))
            with self._transfers.installing:
                self._installer.install(config, arrived)
            self._installer.document(raw)
        finally:
            for watch in watches:
                self._transfers.leave(watch)
        for order in missing.values():
            self._say(order.layer, "Pull complete")
        return new or bool(missing)

    def _missing(self, chains: Sequence[ChainID], found: Sequence[oci.Descriptor]) -> dict[str, Order]:
        """By chain id, the layers that are not here."""
        missing = {}
        for chain, layer in zip(chains, found, strict=True):
            if self._content.has(layer.digest) and self._snapshots.has_layer(chain):
                self._say(layer, "Already exists")
            else:
                self._say(layer, "Pulling fs layer")
                missing[str(chain)] = Order(chain, layer, self._sources.places)
        return missing

    def _join(self, order: Order) -> Watch:
        return self._transfers.join(order, lambda status, detail: self._say(order.layer, status, detail))

    def _end(self, order: Order, watch: Watch, watches: list[Watch]) -> Arrived:
        """The layer; `watches` gets another one if `watch` is of somebody else's transfer and that failed."""
        try:
            return self._transfers.wait(watch, self._stop)
        except CorralError:
            if watch.first or self._stop.is_set:
                raise
        # It came from another place perhaps, or as another manifest describes it.
        again = self._join(order)
        watches.append(again)
        return self._transfers.wait(again, self._stop)

    def _known(self, digest: str, chain: ChainID) -> Arrived:
        unpacked = layers.Unpacked()
        unpacked.digest, unpacked.diff_id = digest, self._snapshots.layer(chain).diff_id
        return Arrived(unpacked)

    def _say(self, layer: oci.Descriptor, status: str, detail: dict[str, int] | None = None) -> None:
        self._progress({"status": status, "progressDetail": detail or {}, "id": hex_of(layer.digest)[:12]})


def look(crew: Crew, sources: Sources, reference: Reference) -> tuple[oci.Descriptor, list[Platform]]:
    """The descriptor of what a reference names at its registry, and the platforms that it is for."""
    wanted = str(reference.digest or reference.tag)
    data = _bytes_of(sources.ask(crew, "document", reference=wanted, digest=reference.digest or ""))
    media_type = _type_of(data, reference)
    descriptor = oci.describe(media_type, data, digest_of(data))
    if media_type in oci.INDEX_TYPES:
        return descriptor, [found.platform for found in oci.parse_index(data).manifests if found.platform]
    if media_type not in oci.MANIFEST_TYPES:
        return descriptor, []
    config = oci.parse_manifest(data).config
    if config.media_type not in oci.CONFIG_TYPES or config.size > oci.DOCUMENT_MAX_BYTES:
        return descriptor, []
    raw = _bytes_of(sources.ask(crew, "document", digest=config.digest))
    return descriptor, [oci.parse_config(raw).platform]


def _bytes_of(answer: Fields) -> bytes:
    data: bytes = answer["data"].encode("latin-1")
    return data


def _type_of(data: bytes, reference: Reference) -> str:
    if oci.is_schema1(data):
        raise Schema1(reference.familiar)
    return oci.media_type_of(data)


def _choose(data: bytes, platform: Platform, reference: Reference) -> oci.Descriptor:
    offers = [found for found in oci.parse_index(data).manifests if not found.is_attestation]
    chosen = best(platform, offers, lambda found: found.platform)
    if chosen is None:
        raise NoMatchingManifest(reference.familiar, str(platform), ", ".join(str(found.platform) for found in offers))
    return chosen


class NoMatchingManifest(NoSuchPlatform):
    """An index has nothing for the platform: the words of Docker's pull."""

    def __init__(self, reference: str, wanted: str, found: str) -> None:
        super().__init__(reference, wanted, found)
        self.args = (f"no matching manifest for {wanted} in the manifest list entries",)
