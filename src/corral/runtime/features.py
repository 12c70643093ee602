"""The answer of `features`: what this runtime understands (features.md of the specification)."""

from __future__ import annotations

import os

from corral.linux import credentials
from corral.runtime import bpf, options, validate

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def report() -> dict[str, Any]:
    """The features structure."""
    return {
        "ociVersionMin": "1.0.0",
        "ociVersionMax": "1.2.1",
        "hooks": ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"],
        "mountOptions": options.known_words(),
        "linux": {
            "namespaces": sorted(validate.NAMESPACES),
            "capabilities": list(credentials.CAPABILITIES),
            "cgroup": {"v1": True, "v2": True, "systemd": False, "systemdUser": False, "rdma": True},
            "seccomp": {
                "enabled": True,
                "actions": sorted(bpf.actions()),
                "operators": sorted(bpf.OPERATORS),
                "archs": sorted(bpf.architectures()),
                "knownFlags": sorted(bpf.flags()),
                "supportedFlags": sorted(bpf.flags()),
            },
            "apparmor": {"enabled": False},
            "selinux": {"enabled": False},
            "intelRdt": {"enabled": False},
            "mountExtensions": {"idmap": {"enabled": True}},
            "netDevices": {"enabled": False},
        },
        "annotations": {"org.corral.machine": os.uname().machine},
        "potentiallyUnsafeConfigAnnotations": [],
    }
