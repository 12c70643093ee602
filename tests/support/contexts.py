"""Builds through the API: a context from a few files, and what the stream said."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tests.support.daemon import Engine
from tests.support.images import member, tar_of


def context(dockerfile: str, files: Mapping[str, bytes | str] | None = None) -> bytes:
    """The archive that a client sends."""
    every = {"Dockerfile": dockerfile, **(files or {})}
    return tar_of([member(name, data.encode() if isinstance(data, str) else data) for name, data in every.items()])


@dataclass(frozen=True)
class Built:
    """A build's stream."""

    records: list[dict[str, Any]]

    @property
    def text(self) -> str:
        return "".join(record.get("stream", "") for record in self.records)

    @property
    def error(self) -> str:
        return next((record["error"] for record in self.records if "error" in record), "")

    @property
    def id(self) -> str:
        assert not self.error, self.error
        return str(next(record["aux"]["ID"] for record in self.records if "aux" in record))

    @property
    def cached(self) -> int:
        return self.text.count("Using cache")


def build(engine: Engine, body: bytes | str, files: Mapping[str, bytes | str] | None = None, **query: Any) -> Built:
    """Build with the classic API; the request itself must succeed."""
    data = body if isinstance(body, bytes) else context(body, files)
    reply = engine.request("POST", "/build", data, {"Content-Type": "application/x-tar"}, **query)
    assert reply.status == 200, reply.body
    return Built([json.loads(line) for line in reply.body.splitlines() if line.strip()])


def refused(engine: Engine, text: str, files: Mapping[str, bytes | str] | None = None, /, **query: Any) -> str:
    """The message of a build that is refused, before or while it runs."""
    body = context(text, files)
    reply = engine.request("POST", "/build", body, {"Content-Type": "application/x-tar"}, **query)
    if reply.status != 200:
        return reply.message
    return Built([json.loads(line) for line in reply.body.splitlines() if line.strip()]).error


def run(engine: Engine, image: str, *command: str) -> str:
    """What a command prints in a container of the image."""
    body = {"Image": image, **({"Cmd": list(command)} if command else {})}
    reply = engine.post("/containers/create", body)
    assert reply.status == 201, reply.body
    container = reply.json()["Id"]
    engine.post(f"/containers/{container}/start")
    engine.wait(container)
    frames = engine.get(f"/containers/{container}/logs", stdout="1", stderr="1").body
    engine.delete(f"/containers/{container}", force="1")
    out = b""
    while frames:
        size = int.from_bytes(frames[4:8], "big")
        out += frames[8 : 8 + size]
        frames = frames[8 + size :]
    return out.decode()
