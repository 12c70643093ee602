"""Images made here: a busybox root in a docker-archive or an OCI layout, in memory."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import tarfile
from collections.abc import Iterable

BUSYBOX = "/bin/busybox"
APPLETS = ("sh", "true", "false", "sleep", "echo", "cat", "ls", "dd", "seq", "id", "ps", "kill", "mount", "env", "stat")


def digest(data: bytes) -> str:
    """`sha256:...` of data."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def tar_of(members: Iterable[tuple[tarfile.TarInfo, bytes]]) -> bytes:
    """A tar archive of these members."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for info, data in members:
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def member(name: str, data: bytes = b"", *, kind: bytes = tarfile.REGTYPE, mode: int = 0o644, link: str = "",
           uid: int = 0, gid: int = 0, mtime: float = 1_700_000_000) -> tuple[tarfile.TarInfo, bytes]:  # fmt: skip
    """One member for `tar_of`."""
    info = tarfile.TarInfo(name)
    info.type, info.mode, info.linkname, info.uid, info.gid, info.mtime = kind, mode, link, uid, gid, mtime
    return info, data


def directory(name: str, mode: int = 0o755) -> tuple[tarfile.TarInfo, bytes]:
    """A directory for `tar_of`."""
    return member(name, kind=tarfile.DIRTYPE, mode=mode)


def busybox_layer() -> bytes:
    """A layer with static busybox and links for its common applets."""
    with open(BUSYBOX, "rb") as file:
        program = file.read()
    members = [directory(name) for name in ("bin", "etc", "proc", "sys", "dev", "root")]
    members.append(directory("tmp", 0o1777))
    members.append(member("bin/busybox", program, mode=0o755))
    members += [member(f"bin/{name}", kind=tarfile.LNKTYPE, link="bin/busybox", mode=0o755) for name in APPLETS]
    members.append(member("etc/passwd", b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n"))
    members.append(member("etc/group", b"root:x:0:\nnogroup:x:65534:\n"))
    return tar_of(members)


ARCHITECTURE = "amd64" if os.uname().machine == "x86_64" else "arm64"


def config_of(layers: list[bytes], architecture: str = ARCHITECTURE, **run: object) -> bytes:
    """An image configuration for uncompressed layers."""
    return json.dumps(
        {
            "architecture": architecture,
            "os": "linux",
            "created": "2024-01-02T03:04:05Z",
            "config": {"Cmd": ["sh"], "Env": ["PATH=/bin"], **run},
            "rootfs": {"type": "layers", "diff_ids": [digest(layer) for layer in layers]},
            "history": [{"created": "2024-01-02T03:04:05Z", "created_by": f"layer {n}"} for n in range(len(layers))],
        }
    ).encode()


def docker_archive(layers: list[bytes], tags: list[str], **run: object) -> bytes:
    """What `docker save` writes."""
    config = config_of(layers, **run)
    names = [f"{n}/layer.tar" for n in range(len(layers))]
    manifest = [{"Config": f"{digest(config)[7:]}.json", "RepoTags": tags, "Layers": names}]
    members = [member(name, layer) for name, layer in zip(names, layers, strict=True)]
    members.append(member(f"{digest(config)[7:]}.json", config))
    members.append(member("manifest.json", json.dumps(manifest).encode()))
    return tar_of(members)


def oci_blobs(
    layers: list[bytes], *, compress: bool = True, architecture: str = ARCHITECTURE
) -> tuple[dict[str, object], dict[str, bytes]]:
    """The manifest's descriptor and all blobs by digest."""
    blobs = {}
    descriptors = []
    for layer in layers:
        data = gzip.compress(layer, 1, mtime=0) if compress else layer
        blobs[digest(data)] = data
        kind = "application/vnd.oci.image.layer.v1.tar" + ("+gzip" if compress else "")
        descriptors.append({"mediaType": kind, "digest": digest(data), "size": len(data)})
    config = config_of(layers, architecture)
    blobs[digest(config)] = config
    kind = "application/vnd.oci.image.config.v1+json"
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {"mediaType": kind, "digest": digest(config), "size": len(config)},
            "layers": descriptors,
        }
    ).encode()
    blobs[digest(manifest)] = manifest
    kind = "application/vnd.oci.image.manifest.v1+json"
    return {"mediaType": kind, "digest": digest(manifest), "size": len(manifest)}, blobs


def oci_archive(layers: list[bytes], name: str, *, compress: bool = True) -> bytes:
    """An OCI layout in a tar."""
    descriptor, blobs = oci_blobs(layers, compress=compress)
    return _layout(descriptor, blobs, name)


def multi_archive(parts: dict[str, list[bytes]], name: str, statement: bytes = b"") -> bytes:
    """An OCI layout in a tar: one image with a manifest for each architecture, with an attestation of the first."""
    blobs: dict[str, bytes] = {}
    manifests: list[dict[str, object]] = []
    for architecture, layers in parts.items():
        descriptor, more = oci_blobs(layers, architecture=architecture)
        blobs |= more
        manifests.append({**descriptor, "platform": {"os": "linux", "architecture": architecture}})
    if statement:
        manifests.append(_attestation(statement, str(manifests[0]["digest"]), blobs))
    kind = "application/vnd.oci.image.index.v1+json"
    index = json.dumps({"schemaVersion": 2, "mediaType": kind, "manifests": manifests}).encode()
    blobs[digest(index)] = index
    return _layout({"mediaType": kind, "digest": digest(index), "size": len(index)}, blobs, name)


def _attestation(statement: bytes, subject: str, blobs: dict[str, bytes]) -> dict[str, object]:
    """The descriptor of an attestation manifest; its content is added to `blobs`."""
    config = b'{"architecture":"unknown","os":"unknown","config":{},"rootfs":{"type":"layers","diff_ids":[]}}'
    layer = {
        "mediaType": "application/vnd.in-toto+json", "digest": digest(statement), "size": len(statement),
        "annotations": {"in-toto.io/predicate-type": json.loads(statement)["predicateType"]},
    }  # fmt: skip
    kind = "application/vnd.oci.image.manifest.v1+json"
    described = {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest(config), "size": len(config)}
    manifest = json.dumps({"schemaVersion": 2, "mediaType": kind, "config": described, "layers": [layer]}).encode()
    blobs |= {digest(found): found for found in (statement, config, manifest)}
    return {
        "mediaType": kind, "digest": digest(manifest), "size": len(manifest),
        "platform": {"os": "unknown", "architecture": "unknown"},
        "annotations": {
            "vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": subject,
        },
    }  # fmt: skip


def _layout(descriptor: dict[str, object], blobs: dict[str, bytes], name: str) -> bytes:
    descriptor["annotations"] = {"org.opencontainers.image.ref.name": name}
    members = [member("oci-layout", b'{"imageLayoutVersion": "1.0.0"}')]
    members += [member(f"blobs/sha256/{name[7:]}", data) for name, data in blobs.items()]
    members.append(member("index.json", json.dumps({"schemaVersion": 2, "manifests": [descriptor]}).encode()))
    return tar_of(members)
