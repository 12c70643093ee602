"""Garbage collection while the registry serves, in any number of processes.

What is collected, in this order: tags that retention retires; untagged manifests, where a rule says so; a repository's
links to blobs that none of its manifests names; blobs that no repository links to; uploads and other beginnings that
nobody has gone on with.

Whatever is *young* (grace) stays: a client pushes blobs first and names them in a manifest later.  To look through
everything takes long, and is done without the lock.  To remove is quick, and is done with the lock held alone, in
batches, after looking again at what may have changed since: new manifests in the repository, and the age of the very
file, because everybody who links a blob or tells a client that it is there makes the file young.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from corral.oci.digest import hex_of
from corral.registry.blobs import Blobs
from corral.registry.documents import Document
from corral.registry.layout import Layout, list_directory, read_link
from corral.registry.manifests import Manifests
from corral.registry.metrics import Metrics
from corral.registry.refusals import ManifestInvalid, ManifestUnknown
from corral.registry.retention import RetentionRule, reachable, retired_tags, untagged_limit_s
from corral.registry.settings import Retention, Settings, duration_s

_BATCH = 256


@dataclass
class Report:
    """What was removed, or would be."""

    tags: list[str] = field(default_factory=list)  # repository:tag
    manifests: list[str] = field(default_factory=list)  # repository@digest
    links: int = 0
    uploads: int = 0
    blobs: list[str] = field(default_factory=list)
    freed_bytes: int = 0
    stored_blobs: int = 0
    stored_bytes: int = 0

    def count(self, metrics: Metrics) -> None:
        """Into the metrics."""
        metrics.add("corral_registry_collections_total")
        metrics.add("corral_registry_collected_blobs_total", len(self.blobs))
        metrics.add("corral_registry_collected_bytes_total", self.freed_bytes)
        metrics.add("corral_registry_retired_tags_total", len(self.tags))
        metrics.set("corral_registry_stored_blobs", self.stored_blobs)
        metrics.set("corral_registry_stored_bytes", self.stored_bytes)


class Collector:
    """Collects; `dry` only reports."""

    def __init__(self, settings: Settings, layout: Layout, dry: bool = False) -> None:
        self._layout = layout
        self._blobs = Blobs(layout)
        self._manifests = Manifests(layout, self._blobs)
        self._grace_s = duration_s(settings.collection.grace)
        self._uploads_s = duration_s(settings.collection.uploads)
        self._rules = tuple(_rule(entry) for entry in settings.retention)
        self._dry = dry

    def run(self, stopped: Callable[[], bool] = lambda: False) -> Report:
        """One collection; ends early, at any safe point, when `stopped` says so."""
        report = Report()
        began = time.time()
        linked: set[str] = set()
        for name in self._layout.names():
            if stopped():
                return report
            self._repository(name, report, linked)
        self._sweep_blobs(began, linked, report)
        self._sweep_beginnings(report)
        return report

    # -- a repository ------------------------------------------------------------------------------

    def _repository(self, name: str, report: Report, linked: set[str]) -> None:
        retired = self._retire(name)
        report.tags += [f"{name}:{tag}" for tag in retired]
        known: dict[str, Document | None] = {
            digest: self._document(name, digest) for digest in self._manifests.digests(name)
        }
        gone = self._remove_untagged(name, known, set(retired))
        report.manifests += [f"{name}@{digest}" for digest in gone]
        for digest in gone:
            del known[digest]
        self._sweep_links(name, known, report, linked)
        linked.update(known)
        self._sweep_uploads(name, report)
        if not self._dry:
            self._remove_empty(name)

    def _document(self, name: str, digest: str) -> Document | None:
        try:
            return self._manifests.document(name, digest)
        except ManifestInvalid:
            return None

    def _retire(self, name: str) -> list[str]:
        """Remove the tags that the rules retire; only if they still are what was looked at."""
        if not any(rule.fits(name) for rule in self._rules):
            return []
        folder = self._layout.tags(name)
        ages = {tag: self._manifests.tag_age_s(name, tag) for tag in list_directory(folder)}
        retired = retired_tags(self._rules, name, ages)
        if self._dry or not retired:
            return retired
        looked = time.time()
        done = []
        with self._layout.alone():
            for tag in retired:
                put = looked - ages[tag]
                if abs(time.time() - self._manifests.tag_age_s(name, tag) - put) < 2.0:
                    try:
                        self._manifests.delete_tag(name, tag)
                    except ManifestUnknown:
                        continue
                    done.append(tag)
        return done

    def _remove_untagged(self, name: str, known: dict[str, Document | None], retired: set[str]) -> list[str]:
        limit_s = untagged_limit_s(self._rules, name)
        if limit_s is None:
            return []
        limit_s = max(limit_s, self._grace_s)
        gone = []
        with self._layout.alone():
            for digest in self._manifests.digests(name):
                if digest not in known:
                    known[digest] = self._document(name, digest)
            kept = reachable(
                self._tagged(name, retired if self._dry else set()),
                {digest: document.manifests for digest, document in known.items() if document is not None},
                {digest: document.subject for digest, document in known.items() if document is not None},
            )
            for candidate in sorted(known):
                if candidate not in kept and self._manifests.manifest_age_s(name, candidate) > limit_s:
                    gone.append(candidate)
                    if not self._dry:
                        self._delete_manifest(name, candidate, known[candidate])
        return gone

    def _delete_manifest(self, name: str, digest: str, document: Document | None) -> None:
        self._layout.remove(self._layout.manifest_link(name, digest))
        if document is not None and document.subject is not None:
            self._layout.remove(f"{self._layout.referrers(name, document.subject)}/{digest}")

    def _tagged(self, name: str, without: set[str]) -> set[str]:
        folder = self._layout.tags(name)
        links = (read_link(f"{folder}/{tag}") for tag in list_directory(folder) if tag not in without)
        return {digest for digest in links if digest is not None}

    def _sweep_links(self, name: str, known: dict[str, Document | None], report: Report, linked: set[str]) -> None:
        needed = {digest for document in known.values() if document for digest in document.blobs + document.foreign}
        candidates = []
        for digest, path in _digests_below(f"{self._layout.repository(name)}/_blobs"):
            if digest not in needed and _age_s(path) > self._grace_s:
                candidates.append((digest, path))
            else:
                linked.add(digest)
        for batch in _batches(candidates):
            with self._layout.alone():
                for digest in self._manifests.digests(name):
                    if digest not in known:
                        known[digest] = document = self._document(name, digest)
                        needed.update(document.blobs + document.foreign if document else ())
                for blob, path in batch:
                    if blob in needed or _age_s(path) <= self._grace_s:
                        linked.add(blob)
                        continue
                    report.links += 1
                    if not self._dry:
                        self._layout.remove(path)

    def _sweep_uploads(self, name: str, report: Report) -> None:
        folder = self._layout.uploads(name)
        for upload in list_directory(folder):
            if _age_s(f"{folder}/{upload}") > self._uploads_s:
                report.uploads += 1
                if not self._dry:
                    _unlink(f"{folder}/{upload}")

    def _remove_empty(self, name: str) -> None:
        """A repository without anything in it is none; who adds makes folders with the lock shared."""
        folder = self._layout.repository(name)
        parts = list_directory(folder)
        if any(_has_files(f"{folder}/{part}") for part in parts if part.startswith("_")):
            return
        with self._layout.alone():
            if any(_has_files(f"{folder}/{part}") for part in parts if part.startswith("_")):
                return
            try:
                for part in parts:
                    if part.startswith("_"):
                        _remove_folders(f"{folder}/{part}")
                while folder != self._layout.repositories and not os.listdir(folder):
                    os.rmdir(folder)
                    folder = os.path.dirname(folder)
            except OSError:
                return  # an upload has begun, which takes no lock: the repository is not empty

    # -- everything --------------------------------------------------------------------------------

    def _sweep_blobs(self, began: float, linked: set[str], report: Report) -> None:
        candidates = []
        for digest, path in _digests_below(f"{self._layout.root}/blobs"):
            size = _size(path)
            if digest not in linked and _age_s(path) > self._grace_s:
                candidates.append((digest, path))
            report.stored_blobs += 1
            report.stored_bytes += size
        for batch in _batches(candidates):
            with self._layout.alone():
                for digest, path in batch:
                    status = os.stat(path)
                    if status.st_mtime >= began or time.time() - status.st_mtime <= self._grace_s:
                        continue
                    report.blobs.append(digest)
                    report.freed_bytes += status.st_size
                    if not self._dry:
                        os.unlink(path)
                        report.stored_blobs -= 1
                        report.stored_bytes -= status.st_size

    def _sweep_beginnings(self, report: Report) -> None:
        for folder in (self._layout.incoming, self._layout.fetches):
            for name in list_directory(folder):
                if _age_s(f"{folder}/{name}") > max(self._uploads_s, self._grace_s):
                    report.uploads += 1
                    if not self._dry:
                        _unlink(f"{folder}/{name}")


def _rule(entry: Retention) -> RetentionRule:
    return RetentionRule(
        tuple(entry.repositories),
        tuple(entry.tags),
        entry.keep_last,
        duration_s(entry.keep_younger) if entry.keep_younger else None,
        duration_s(entry.remove_untagged) if entry.remove_untagged else None,
    )


def _digests_below(folder: str) -> Iterator[tuple[str, str]]:
    for algorithm in list_directory(folder):
        for value in list_directory(f"{folder}/{algorithm}"):
            yield f"{algorithm}:{hex_of(value) or value}", f"{folder}/{algorithm}/{value}"


def _batches(found: list[tuple[str, str]]) -> Iterator[list[tuple[str, str]]]:
    for start in range(0, len(found), _BATCH):
        yield found[start : start + _BATCH]


def _age_s(path: str) -> float:
    """Seconds since a file was made or made young; 0 when it has just gone."""
    try:
        return time.time() - os.lstat(path).st_mtime
    except FileNotFoundError:
        return 0.0


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass


def _has_files(folder: str) -> bool:
    return any(files for _, _, files in os.walk(folder))


def _remove_folders(folder: str) -> None:
    for path, _, _ in os.walk(folder, topdown=False):
        os.rmdir(path)
