"""Transfers: layers on their way in, for all pulls of the daemon together.

A transfer belongs to nobody.  Pulls join it and leave it; it is begun for the first, shared by all that want the same
layer on the same stack, and stopped when the last one has left before it is done.  What had come of its blob by then
stays in `partial/` for the next try:

    partial/<hex>          what has arrived of the blob, written by one worker at a time
    partial/<hex>.whole    all of it, verified and on disk; never written to, waiting for its image to be complete

At most `downloads` transfers are at work, each in a thread of its own that drives one worker process; the others wait
in order.  Workers are kept, with their connections, until nothing is under way; then one is kept for a minute more,
because starting it takes longer than pulling a small image.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from corral import errors
from corral.image import layers
from corral.image.bridge import Stop
from corral.image.crew import Crew, Stopped
from corral.image.install import Arrived
from corral.oci import image as oci
from corral.oci.digest import DigestMismatch, hex_of
from corral.store.content import Content
from corral.store.snapshots import Snapshots

Say = Callable[[str, dict[str, int] | None], None]

_LINGER_S = 60.0
_WORKER_START_S = 0.08  # what a new worker costs: one that is busy with little is worth waiting for that long


@dataclass(frozen=True, slots=True)
class Order:
    """What to bring: a layer's blob from one of `registries` (fields for a worker, in order), for the stack `chain`."""

    chain: str
    layer: oci.Descriptor
    registries: Sequence[Mapping[str, Any]]


class _Transfer:
    def __init__(self, order: Order) -> None:
        self.order = order
        self.watchers: list[Watch] = []
        self.crew: Crew | None = None
        self.dropped = False
        self.done = False
        self.arrived = Arrived(layers.Unpacked())
        self.error: errors.CorralError | None = None
        self.last: tuple[str, dict[str, int] | None] | None = None

    def say(self, status: str, detail: dict[str, int] | None = None) -> None:
        self.last = (status, detail)
        for watch in list(self.watchers):
            watch.say(status, detail)

    def drop(self) -> None:
        self.dropped = True
        if self.crew is not None:
            self.crew.stop()


class Watch:
    """One pull's interest in one transfer; `first` says that the transfer was begun for it."""

    def __init__(self, transfer: _Transfer, say: Say, first: bool) -> None:
        self.transfer = transfer
        self.say = say
        self.first = first


class Transfers:
    """All of them."""

    def __init__(self, content: Content, snapshots: Snapshots, downloads: int, limits: dict[str, int]) -> None:
        self._content = content
        self._snapshots = snapshots
        self._limits = limits
        self._changed = threading.Condition()
        self._live: dict[str, _Transfer] = {}  # by chain
        self._busy: set[str] = set()  # digests of blobs that a worker writes
        self._at_work = 0
        self._downloads = downloads
        self._threads = ThreadPoolExecutor(downloads, thread_name_prefix="layer")
        self._idle: list[Crew] = []
        self._visitors = 0
        self._seats = 0
        self._linger: threading.Timer | None = None
        self.installing = threading.Lock()  # arrived layers are shared: one pull at a time makes them the store's

    def configure(self, downloads: int) -> None:
        """Allow another number of downloads at a time."""
        with self._changed:
            before, self._downloads = self._downloads, downloads
            if downloads != before:
                self._threads.shutdown(wait=False)
                self._threads = ThreadPoolExecutor(downloads, thread_name_prefix="layer")
            self._changed.notify_all()

    # --- a pull's side ---------------------------------------------------------------------------------------

    @contextmanager
    def visit(self) -> Iterator[None]:
        """Keep idle workers for the time of a pull or push."""
        with self._changed:
            self._visitors += 1
            self._cancel_linger()
        try:
            yield
        finally:
            with self._changed:
                self._visitors -= 1
                ended = []
                if not self._visitors:
                    ended, self._idle = self._idle[1:], self._idle[:1]
                    for crew in self._idle:
                        crew.submit("forget")  # certificates and credentials may be others next time
                    self._linger = threading.Timer(_LINGER_S, self._end_idle)
                    self._linger.daemon = True
                    self._linger.start()
            for crew in ended:
                crew.close()

    def _cancel_linger(self) -> None:
        if self._linger is not None:
            self._linger.cancel()
            self._linger = None

    def _end_idle(self) -> None:
        with self._changed:
            ended: list[Crew] = []
            if not self._visitors:
                ended, self._idle = self._idle, []
        for crew in ended:
            crew.close()

    @contextmanager
    def worker(self, stop: Stop | None = None) -> Iterator[Crew]:
        """A crew of one (whose limit may be raised), as long as the block runs."""
        with self._changed:
            if not self._idle and self._seats:
                self._changed.wait_for(lambda: self._idle, _WORKER_START_S)
            crew = self._idle.pop() if self._idle else Crew(1, self._limits)
            self._seats += 1
        try:
            if stop is None:
                yield crew
            else:
                with stop.on(crew.stop):
                    yield crew
        finally:
            keep = not crew.is_stopped
            if keep:
                crew.shrink()
            with self._changed:
                self._seats -= 1
                keep = keep and self._visitors > 0 and not crew.is_empty
                if keep:
                    self._idle.append(crew)
                    self._changed.notify_all()
            if not keep:
                crew.close()

    def join(self, order: Order, say: Say) -> Watch:
        """Have a layer brought in; call `leave` in the end."""
        with self._changed:
            transfer = self._live.get(order.chain)
            first = transfer is None
            if transfer is None:
                transfer = self._live[order.chain] = _Transfer(order)
            watch = Watch(transfer, say, first)
            transfer.watchers.append(watch)
            if first:
                self._threads.submit(self._run, transfer)
                waits = self._at_work >= self._downloads
                self._at_work += 1
                transfer.last = ("Waiting", None) if waits else None
            if transfer.last is not None:
                say(*transfer.last)
        return watch

    def wait(self, watch: Watch, stop: Stop) -> Arrived:
        """The layer, verified and unpacked, shared with other pulls: install it while holding `installing`.

        Raises what stopped the transfer, or Stopped.
        """
        transfer = watch.transfer
        with stop.on(self._wake), self._changed:
            self._changed.wait_for(lambda: transfer.done or stop.is_set)
        if stop.is_set:
            raise Stopped
        if transfer.error is not None:
            raise transfer.error
        return transfer.arrived

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def leave(self, watch: Watch) -> None:
        """No more interest.  The last one to leave stops what is not done, and drops what nobody has installed."""
        transfer = watch.transfer
        with self._changed:
            transfer.watchers.remove(watch)
            if transfer.watchers:
                return
            if self._live.get(transfer.order.chain) is transfer:
                del self._live[transfer.order.chain]
            if not transfer.done:
                transfer.drop()
                self._changed.notify_all()
                if transfer.crew is not None:
                    self._changed.wait_for(lambda: transfer.done)  # it has been killed; what it made is gone then
                return
        with self.installing:
            self._abandon(transfer)

    def close(self) -> None:
        """Stop everything."""
        with self._changed:
            for transfer in self._live.values():
                transfer.drop()
            self._changed.notify_all()
            self._cancel_linger()
        self._threads.shutdown()
        self._end_idle()

    # --- a transfer's side -----------------------------------------------------------------------------------

    def _run(self, transfer: _Transfer) -> None:
        digest = transfer.order.layer.digest
        error: errors.CorralError | None = Stopped()
        try:
            # Another stack may wait for the same blob: one at a time.
            with self._changed:
                self._changed.wait_for(lambda: transfer.dropped or digest not in self._busy)
                if transfer.dropped:
                    return
                self._busy.add(digest)
            try:
                with self.worker() as crew:
                    self._bring(transfer, crew)
                error = None
            except errors.CorralError as caught:
                error = caught
            except OSError as caught:
                error = NoRoom(caught)
            finally:
                with self._changed:
                    self._busy.discard(digest)
        finally:
            if error is not None:
                with self.installing:
                    self._abandon(transfer)
            with self._changed:
                self._at_work -= 1
                transfer.error = error
                transfer.done = True
                transfer.crew = None
                if error is not None and self._live.get(transfer.order.chain) is transfer:
                    del self._live[transfer.order.chain]  # who comes now tries anew
                left = not transfer.watchers
                self._changed.notify_all()
            if left:
                with self.installing:
                    self._abandon(transfer)

    def _bring(self, transfer: _Transfer, crew: Crew) -> None:
        with self._changed:
            if transfer.dropped:
                raise Stopped
            transfer.crew = crew
        layer = transfer.order.layer
        whole = self._path(layer.digest) + ".whole"
        while path := self._stored(layer.digest, whole):
            try:
                self._unpack(transfer, crew, path)
                transfer.arrived.path = whole if path == whole else ""
                return
            except (errors.DataLoss, errors.InvalidParameter):
                if path != whole:
                    raise
                with suppress(FileNotFoundError):
                    os.unlink(whole)
            except errors.System:
                if os.path.exists(path):
                    raise
                # Another pull has installed it meanwhile: it is in the store now.
            self._abandon(transfer)
        self._fetch(transfer, crew, whole)

    def _stored(self, digest: str, whole: str) -> str:
        """Where all of a blob is, "" for nowhere."""
        if self._content.has(digest):
            return self._content.path(digest)
        return whole if os.path.exists(whole) else ""

    def _path(self, digest: str) -> str:
        return os.path.join(self._content.partial, hex_of(digest))

    def _unpack(self, transfer: _Transfer, crew: Crew, path: str) -> None:
        """A blob that is here: verified like any other, because a disk is no better than a network."""
        layer = transfer.order.layer
        transfer.arrived.directory = self._snapshots.begin_layer()
        transfer.say("Extracting", {"current": 0, "total": layer.size})
        answer = crew.ask("unpack", blob=path, layer=transfer.arrived.directory, sync=False)
        unpacked = layers.Unpacked.of(answer)
        if unpacked.digest != layer.digest:
            raise DigestMismatch(layer.digest, unpacked.digest, "layer")
        transfer.arrived.unpacked = unpacked
        transfer.say("Extracting", {"current": layer.size, "total": layer.size})

    def _fetch(self, transfer: _Transfer, crew: Crew, whole: str) -> None:
        layer, path = transfer.order.layer, self._path(transfer.order.layer.digest)
        resumed = os.path.exists(path)
        try:
            self._fetch_once(transfer, crew, path, whole)
        except (errors.DataLoss, errors.InvalidParameter):
            # What an earlier try left may have been torn by a power cut; the worker has removed it.
            if not resumed:
                raise
            self._abandon(transfer)
            self._fetch_once(transfer, crew, path, whole)
        transfer.arrived.path = whole
        transfer.say("Extracting", {"current": layer.size, "total": layer.size})

    def _fetch_once(self, transfer: _Transfer, crew: Crew, path: str, whole: str) -> None:
        layer = transfer.order.layer
        transfer.arrived.directory = self._snapshots.begin_layer()

        def told(record: dict[str, int]) -> None:
            if "retry" in record:
                seconds = record["retry"]
                transfer.say(f"Retrying in {seconds} second{'' if seconds == 1 else 's'}")
                return
            transfer.say("Downloading", {"current": record["received"], "total": layer.size})
            if record["received"] >= layer.size:
                transfer.say("Verifying Checksum")
                transfer.say("Download complete")

        job = crew.submit(
            "fetch", registries=list(transfer.order.registries), digest=layer.digest, size=layer.size, blob=path,
            whole=whole, urls=layer.urls or [], layer=transfer.arrived.directory, progress=told,
        )  # fmt: skip
        transfer.arrived.unpacked = layers.Unpacked.of(crew.wait(job))

    def _abandon(self, transfer: _Transfer) -> None:
        directory, transfer.arrived.directory = transfer.arrived.directory, ""
        if directory:
            self._snapshots.abandon_layer(directory)


class NoRoom(errors.System):
    """The machine failed while a layer came in."""

    def __init__(self, error: OSError) -> None:
        super().__init__(f"cannot store layer: {error.strerror}: {error.filename}")
