"""A registry in this process without sockets: requests in, answers out."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from corral.registry import settings as configuration
from corral.registry.http.head import parse
from corral.registry.http.messages import Answer, FilePart, Flow, Request
from corral.registry.layout import Layout
from corral.registry.metrics import Metrics
from corral.registry.service import Service
from corral.registry.settings import Settings


class FakeBody:
    """A body that is there already."""

    def __init__(self, parts: list[bytes], length: int | None) -> None:
        self._parts = parts
        self.length = length

    def pieces(self) -> Iterator[memoryview]:
        return (memoryview(part) for part in self._parts)


@dataclass(frozen=True)
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def fields(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        return str(self.fields["errors"][0]["code"])


class Desk:
    """A service with its root in `folder`."""

    def __init__(self, folder: Path, **keys: Any) -> None:
        self.settings: Settings = configuration.read(None, {"root": str(folder / "root"), **keys})
        self.layout = Layout(self.settings.root)
        self.metrics = Metrics(1)
        self.service = Service(self.settings, self.layout, self.metrics)

    def request(self, method: str, target: str, body: bytes | None = None, **headers: str) -> Reply:
        """Send; `content_type="..."` is the header Content-Type."""
        lines = [f"{method} {target} HTTP/1.1", "Host: desk"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        if body is not None:
            lines.append(f"Content-Length: {len(body)}")
        head = parse("\r\n".join(lines).encode("latin-1"))
        parts = [body] if body else []
        answer = self.service.surface.handle(Request(head, FakeBody(parts, head.length), "test"))
        names = {name.lower(): value for name, value in answer.headers}
        if answer.content_type:
            names["content-type"] = answer.content_type
        names["content-length"] = str(answer.length)
        return Reply(answer.status, names, _bytes(answer))

    def push_blob(self, name: str, data: bytes, algorithm: str = "sha256") -> str:
        """Upload in one request; the digest."""
        digest = f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"
        reply = self.request("POST", f"/v2/{name}/blobs/uploads/?digest={digest}", data)
        assert reply.status == 201, reply
        return digest

    def push_manifest(self, name: str, reference: str, fields: dict[str, Any]) -> str:
        data = json.dumps(fields).encode()
        reply = self.request("PUT", f"/v2/{name}/manifests/{reference}", data, content_type=fields["mediaType"])
        assert reply.status == 201, reply
        return reply.headers["docker-content-digest"]

    def push_image(self, name: str, tag: str, content: bytes = b"layer", **more: Any) -> str:
        """An image of one layer; the manifest's digest."""
        self.push_blob(name, b"{}")
        self.push_blob(name, content)
        return self.push_manifest(name, tag, image(content, **more))


def image(content: bytes = b"layer", **more: Any) -> dict[str, Any]:
    """A manifest of one layer."""
    config = {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": sha256(b"{}"), "size": 2}
    layer = {"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": sha256(content), "size": len(content)}
    kind = "application/vnd.oci.image.manifest.v1+json"
    return {"schemaVersion": 2, "mediaType": kind, "config": config, "layers": [layer], **more}


def sha256(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def _bytes(answer: Answer) -> bytes:
    if isinstance(answer.body, FilePart):
        try:
            return os.pread(answer.body.fd, answer.body.count, answer.body.offset)
        finally:
            os.close(answer.body.fd)
    if isinstance(answer.body, Flow):
        return b"".join(answer.body.parts)
    return answer.body
