"""What a build is asked for, and what it reports: values that every front door shares."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from corral.build.problems import Place, Warned
from corral.build.stages import Plan
from corral.engine.steps import Limits
from corral.oci.platform import Platform


@dataclass(frozen=True)
class Files:
    """A folder of files with the index of its content."""

    directory: str
    index: str

    def source(self) -> dict[str, Any]:
        """As workers are told it."""
        return {"directory": self.directory, "index": self.index}


@dataclass(frozen=True)
class Request:
    """A build.  `context` is None where there are no files; `epoch` is SOURCE_DATE_EPOCH in seconds.

    `auth` finds a registry's credentials by its name; `no_cache_stages` holds names in lower case; `allowed` are
    entitlements (`network.host`, `security.insecure`).  With `keep_containers` the RUNs stay as containers.
    """

    plan: Plan
    target: str = ""
    context: Files | None = None
    contexts: Mapping[str, Files | str] = field(default_factory=dict)
    arguments: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    no_cache: bool = False
    no_cache_stages: frozenset[str] = frozenset()
    pull: bool = False
    squash: bool = False
    platform: Platform | None = None
    network: str = "default"
    limits: Limits = field(default_factory=Limits)
    auth: Callable[[str], dict[str, str] | None] = lambda _: None
    epoch: int | None = None
    allowed: frozenset[str] = frozenset()
    secrets: Mapping[str, bytes] = field(default_factory=dict)
    ssh: Mapping[str, str] = field(default_factory=dict)
    keep_containers: bool = False
    inline_cache: bool = False
    provenance: bool = False
    sbom: bool = False


@dataclass(frozen=True)
class Vertex:
    """One step as it is shown: `number` of `total` in the order of the file; `stage` is its stage's name."""

    number: int
    total: int
    name: str
    stage: str
    place: Place | None


@dataclass(frozen=True)
class Started:
    vertex: Vertex


@dataclass(frozen=True)
class Cached:
    vertex: Vertex


@dataclass(frozen=True)
class Running:
    """A container is about to run the step."""

    vertex: Vertex
    container: str


@dataclass(frozen=True)
class Ran:
    """The step's container ended well and is gone."""

    vertex: Vertex
    container: str


@dataclass(frozen=True)
class Wrote:
    """Output of the step's command: `stream` 1 or 2; or 0, a line of the builder's own."""

    vertex: Vertex
    stream: int
    data: bytes


@dataclass(frozen=True)
class Pulling:
    """A progress record of a pull."""

    vertex: Vertex
    record: Mapping[str, Any]


@dataclass(frozen=True)
class Finished:
    """The step is done; `result` names what it made."""

    vertex: Vertex
    result: str


@dataclass(frozen=True)
class Warn:
    warned: Warned


Event: TypeAlias = Started | Cached | Running | Ran | Wrote | Pulling | Finished | Warn
Report: TypeAlias = Callable[[Event], None]
