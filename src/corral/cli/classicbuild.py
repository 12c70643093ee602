"""`build` for daemons without Corral's own door: the classic API, which every Docker daemon has."""

from __future__ import annotations

import os
import sys

from corral import jsontext
from corral.cli import buildfiles
from corral.cli.problems import CliError, Exit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from corral.cli.transport import Client

# What the classic API has no word for, by its name in the request, with the value that asks nothing.
_NEEDS_OURS: dict[str, Any] = {
    "annotations": {}, "no_cache_stages": [], "allowed": [], "secrets": {}, "ssh": {}, "output": "",
    "provenance": False, "sbom": False, "check": False, "contexts": {},
}  # fmt: skip
_DOCKERFILE = ".dockerfile.corral"


def build(client: Client, body: dict[str, Any], folder: str, path: str, *, quiet: bool) -> str:
    """Have it built and shown; the image's id.  Raises CliError, or Exit with the status of a failed command."""
    for name, nothing in _NEEDS_OURS.items():
        if body.get(name, nothing) != nothing:
            raise CliError(f"this daemon cannot build with {name.replace('_', '-')}: it has the classic API only")
    stream = None if body.get("remote") else _context(folder, path, body["dockerfile"])
    query = {
        "t": body["names"],
        "dockerfile": body["name"] if body.get("remote") else _DOCKERFILE,
        "remote": body.get("remote") or None,
        "target": body["target"] or None,
        "buildargs": jsontext.dumps(body["arguments"]),
        "labels": jsontext.dumps(body["labels"]),
        "nocache": body["no_cache"],
        "pull": body["pull"] or None,
        "squash": body["squash"] or None,
        "platform": body["platform"] or None,
        "networkmode": body["network"] or None,
        "extrahosts": body["hosts"],
        "memory": body["memory"] or None,
        "memswap": body["memory_swap"] or None,
        "cpuperiod": body["cpu_period"] or None,
        "cpuquota": body["cpu_quota"] or None,
        "cpushares": body["cpu_shares"] or None,
        "cpusetcpus": body["cpuset_cpus"] or None,
        "cpusetmems": body["cpuset_mems"] or None,
        "cgroupparent": body["cgroup_parent"] or None,
        "securityopt": jsontext.dumps(body["security_opt"]) if body["security_opt"] else None,
        "shmsize": body["shm_size"] or None,
        "ulimits": jsontext.dumps(body["ulimits"]) if body["ulimits"] else None,
        "cachefrom": jsontext.dumps(body["cache_from"]) if body["cache_from"] else None,
        "rm": body["rm"],
        "forcerm": body["forcerm"] or None,
    }
    if stream is not None and body["compress"]:
        stream = _compressed(stream)
    image = ""
    for record in client.request("POST", "/build", query, stream=stream).records():
        if "error" in record:
            sys.stderr.write(f"ERROR: failed to build: {record['error']}\n")
            raise Exit(int((record.get("errorDetail") or {}).get("code") or 1))
        image = (record.get("aux") or {}).get("ID") or image
        if not quiet:
            sys.stderr.write(record.get("stream") or "")
    return image


def _context(folder: str, path: str, dockerfile: str) -> Iterator[bytes]:
    """Everything that is not ignored, and the Dockerfile under a name of its own."""
    entries = {}
    if folder:
        entries = buildfiles.entries(folder, buildfiles.ignore_of(folder, path or os.path.join(folder, "Dockerfile")))
    return buildfiles.archive(folder or "/", entries, {_DOCKERFILE: dockerfile.encode("utf-8", "surrogateescape")})


def _compressed(parts: Iterator[bytes]) -> Iterator[bytes]:
    """The same, as gzip."""
    import zlib

    squeezer = zlib.compressobj(wbits=31)
    for part in parts:
        yield squeezer.compress(part)
    yield squeezer.flush()
