"""What is said about an image beside it: where it came from (SLSA provenance) and what is in it (an SPDX list).

Pure: predicates as JSON.  `corral.image.make` puts them into statements about the manifest and into an index, as the
image specification's artifacts and Docker's tools have it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from corral.build.request import Request

PROVENANCE = "https://slsa.dev/provenance/v0.2"
SPDX = "https://spdx.dev/Document"

Predicate = tuple[str, bytes]


def provenance(request: Request, created: str) -> Predicate:
    """How the image was built.  Build arguments may be secret, so only their names are told."""
    files = request.plan.source
    text = "\n".join(files.lines).encode("utf-8", "surrogateescape")
    predicate = {
        "builder": {"id": "https://corral.dev/builder"},
        "buildType": "https://corral.dev/dockerfile@v1",
        "materials": [
            {"uri": f"pkg:docker/{stage.base}"} for stage in request.plan.stages if not stage.base.startswith("$")
        ],
        "invocation": {
            "configSource": {"entryPoint": files.name, "digest": {"sha256": hashlib.sha256(text).hexdigest()}},
            "parameters": {"target": request.target, "args": sorted(request.arguments)},
            "environment": {"platform": str(request.platform or "")},
        },
        "metadata": {
            "buildFinishedOn": created,
            "completeness": {"parameters": False, "environment": True, "materials": False},
            "reproducible": request.epoch is not None,
        },
    }
    return PROVENANCE, msgspec.json.encode(predicate)


def sbom(packages: Sequence[Mapping[str, str]], name: str, created: str) -> Predicate:
    """The packages of an image as an SPDX 2.3 document; each has name, version, kind (deb, apk) and licence."""
    listed: list[dict[str, Any]] = []
    for package in packages:
        found = f"{package['kind']}-{package['name']}-{package['version']}"
        listed.append(
            {
                "SPDXID": "SPDXRef-Package-" + re.sub(r"[^A-Za-z0-9.-]", "-", found),
                "name": package["name"],
                "versionInfo": package["version"],
                "downloadLocation": "NOASSERTION",
                "licenseConcluded": "NOASSERTION",
                "licenseDeclared": "NOASSERTION",
                "externalRefs": [
                    {
                        "referenceCategory": "PACKAGE-MANAGER",
                        "referenceType": "purl",
                        "referenceLocator": f"pkg:{package['kind']}/{package['name']}@{package['version']}",
                    }
                ],
            }
        )
    document = {
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": name,
        "documentNamespace": "https://corral.dev/spdx/" + hashlib.sha256(msgspec.json.encode(listed)).hexdigest(),
        "creationInfo": {"created": created, "creators": ["Tool: corral"]},
        "packages": listed,
    }
    return SPDX, msgspec.json.encode(document)


def debian(status: str) -> list[dict[str, str]]:
    """The installed packages of a dpkg status file."""
    found = []
    for paragraph in status.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in paragraph.split("\n") if ": " in line and line[:1] != " ")
        if fields.get("Package") and "not-installed" not in fields.get("Status", ""):
            found.append({"kind": "deb", "name": fields["Package"], "version": fields.get("Version", "")})
    return found


def alpine(installed: str) -> list[dict[str, str]]:
    """The installed packages of an apk database."""
    found = []
    for paragraph in installed.split("\n\n"):
        fields = dict(line.split(":", 1) for line in paragraph.split("\n") if line[1:2] == ":")
        if fields.get("P"):
            found.append({"kind": "apk", "name": fields["P"], "version": fields.get("V", "")})
    return found
