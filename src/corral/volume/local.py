"""The local driver's options `type`, `o`, `device` and `size`: checked, and turned into mount(2) calls.  Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from corral.errors import InvalidParameter
from corral.quantities import parse_size
from corral.runtime.options import parse_options

_NEEDS = {"device": ("type",), "type": ("device",), "o": ("device", "type")}
_MS_REMOUNT, _MS_BIND, _MS_REC, _MS_RDONLY = 0x20, 0x1000, 0x4000, 0x1
_NETWORK_TYPES = ("nfs", "nfs4", "cifs")


class InvalidOption(InvalidParameter):
    """An option of the local driver that cannot be used."""


@dataclass(frozen=True, slots=True)
class MountCall:
    """One mount(2)."""

    source: str
    fstype: str
    flags: int
    data: str = ""


def check_options(options: Mapping[str, str]) -> int:
    """Raise InvalidOption unless the options can be used together; returns the `size` in bytes, 0 for none."""
    for name in options:
        if name not in (*_NEEDS, "size"):
            raise InvalidOption(f'invalid option: "{name}"')
    for name, needed in _NEEDS.items():
        for other in needed:
            if options.get(name) and not options.get(other):
                raise InvalidOption(f'missing required option: "{other}"')
    try:
        size = parse_size(options["size"]) if options.get("size") else 0
    except ValueError as error:
        raise InvalidOption(str(error)) from error
    if size < 0:
        raise InvalidOption(f"invalid size: '{options['size']}'")
    return size


def needs_mount(options: Mapping[str, str]) -> bool:
    """Whether something is mounted in the volume's folder while a container has it."""
    return bool(options.get("type"))


def mount_calls(options: Mapping[str, str], resolve: Callable[[str], str]) -> list[MountCall]:
    """What mounts the volume; `resolve` finds the address of a host, which the kernel's NFS and CIFS cannot."""
    fstype, device = options.get("type", ""), options.get("device", "")
    words = _with_addresses(fstype, device, [word for word in options.get("o", "").split(",") if word], resolve)
    parsed = parse_options(words)
    if not (parsed.bind or fstype in ("bind", "rbind")):
        calls = [MountCall(device, fstype, parsed.flags, parsed.data)]
    else:
        deep = parsed.recursive or fstype == "rbind"
        calls = [MountCall(device, "", _MS_BIND | (_MS_REC if deep else 0))]
        if parsed.flags:  # a bind takes its flags only when it is mounted again
            calls.append(MountCall("", "", _MS_REMOUNT | _MS_BIND | parsed.flags))
    if parsed.propagation:
        calls.append(MountCall("", "", parsed.propagation))
    return calls


def _with_addresses(fstype: str, device: str, words: list[str], resolve: Callable[[str], str]) -> list[str]:
    if fstype not in _NETWORK_TYPES:
        return words
    found = [
        f"addr={_address(word.removeprefix('addr='), resolve)}" if word.startswith("addr=") else word for word in words
    ]
    if fstype == "cifs" and not any(word.startswith("addr=") for word in found):
        host = device.replace("\\", "/").lstrip("/").partition("/")[0]
        if host:
            found.append(f"addr={_address(host, resolve)}")
    return found


def _address(host: str, resolve: Callable[[str], str]) -> str:
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return resolve(host)
