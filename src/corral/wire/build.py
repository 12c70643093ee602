"""Builds in the API's JSON: what travels in the query of `POST /build`, and the rows of the build cache."""

from __future__ import annotations

from typing import Any

from msgspec import field

from corral.wire.common import Wire
from corral.wire.containers import Ulimit


class CacheRow(Wire):
    """One entry of `BuildCache` in `GET /system/df`.  Sizes in bytes, times in RFC 3339."""

    id: str = field(name="ID")
    parents: list[str] | None = None
    type: str = ""
    description: str = ""
    in_use: bool = False
    shared: bool = False
    size: int = 0
    created_at: str = ""
    last_used_at: str | None = None
    usage_count: int = 0


class ContextRequest(Wire, rename=None):
    """The body of `POST /corral/build/context`: path -> [kind (f, d, l), mode, size, time in ns, link target]."""

    key: str = ""
    entries: dict[str, list[Any]] = field(default_factory=dict)


class NativeBuild(Wire, rename=None):
    """The body of `POST /corral/build`.  Secrets are base64; `output` is "", tar, oci or docker."""

    context: str = ""
    contexts: dict[str, str] = field(default_factory=dict)
    remote: str = ""
    dockerfile: str = ""
    name: str = "Dockerfile"
    names: list[str] = field(default_factory=list)
    target: str = ""
    arguments: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    annotations: dict[str, str] = field(default_factory=dict)
    no_cache: bool = False
    no_cache_stages: list[str] = field(default_factory=list)
    pull: bool = False
    squash: bool = False
    platform: str = ""
    network: str = ""
    hosts: list[str] = field(default_factory=list)
    memory: int = 0
    memory_swap: int = 0
    cpu_period: int = 0
    cpu_quota: int = 0
    cpu_shares: int = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    cgroup_parent: str = ""
    security_opt: list[str] = field(default_factory=list)
    shm_size: int = 0
    ulimits: list[Ulimit] = field(default_factory=list)
    allowed: list[str] = field(default_factory=list)
    secrets: dict[str, str] = field(default_factory=dict)
    ssh: dict[str, str] = field(default_factory=dict)
    logins: dict[str, dict[str, str]] = field(default_factory=dict)
    output: str = ""
    cache_from: list[str] = field(default_factory=list)
    inline_cache: bool = False
    provenance: bool = False
    sbom: bool = False
    check: bool = False
