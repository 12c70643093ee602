"""Log drivers: which there are, the options of each, and what the shim and the forwarder are told.

`json-file` and `local` write files here; the others are served by a forwarder process (`corral.forward`) and keep,
unless `cache-disabled`, a bounded file besides, so that `docker logs` works with every driver.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from corral.engine.record import Container, timestamp
from corral.errors import InvalidParameter
from corral.forward import details, fluentd, gelf, syslog
from corral.forward.details import Described
from corral.quantities import parse_size
from corral.wire.containers import LogConfig

FILES = ("json-file", "local")
REMOTE = ("fluentd", "gelf", "journald", "syslog")
DRIVERS = (*FILES, "none", *REMOTE)

_SIZE = "20m"
_FILES_KEPT = "5"
_BUFFER = "1m"
_COMMON = ("mode", "max-buffer-size")
_DETAILS = ("labels", "labels-regex", "env", "env-regex", "tag")
_CACHE = ("cache-disabled", "cache-max-size", "cache-max-file", "cache-compress")
_OPTIONS: Mapping[str, tuple[str, ...]] = {
    "json-file": ("max-size", "max-file", "compress", *_DETAILS),
    "local": ("max-size", "max-file", "compress", *_DETAILS),
    "journald": _DETAILS,
    "syslog": (
        "syslog-address", "syslog-facility", "syslog-format", "syslog-tls-ca-cert", "syslog-tls-cert", "syslog-tls-key",
        "syslog-tls-skip-verify", *_DETAILS,
    ),
    "gelf": (
        "gelf-address", "gelf-compression-type", "gelf-compression-level", "gelf-tcp-max-reconnect",
        "gelf-tcp-reconnect-delay", *_DETAILS,
    ),
    "fluentd": (
        "fluentd-address", "fluentd-async", "fluentd-buffer-limit", "fluentd-sub-second-precision", *_DETAILS,
    ),
}  # fmt: skip
_DRIVER_CHECKS: Mapping[str, Callable[[Mapping[str, str]], object]] = {
    "syslog": syslog.check,
    "gelf": gelf.check,
    "fluentd": fluentd.check,
}


class BadLogOption(InvalidParameter):
    """A log driver, or an option of one, that does not exist or has a wrong value."""


def check(log: LogConfig) -> None:
    """Raise BadLogOption, or what the driver's own checks raise, unless the configuration can work."""
    if log.type not in DRIVERS:
        raise BadLogOption(f"logger: no log driver named '{log.type}' is registered")
    options = log.config or {}
    if log.type == "none":
        return
    known = _OPTIONS[log.type] + _COMMON + (_CACHE if log.type in REMOTE else ())
    for name in options:
        if name not in known:
            raise BadLogOption(f"unknown log opt '{name}' for {log.type} log driver")
    for prefix in ("", "cache-"):
        _check_files(options, prefix)
    mode = options.get("mode", "blocking")
    if mode not in ("blocking", "non-blocking"):
        raise BadLogOption(f"logger: logging mode not supported: {mode}")
    if "max-buffer-size" in options:
        if mode != "non-blocking":
            raise BadLogOption("logger: max-buffer-size option is only supported with 'mode=non-blocking'")
        _size(options["max-buffer-size"])
    nobody = Described("", "", "", "", "", "")
    details.expand_tag(options.get("tag", ""), nobody)
    details.extras(options, nobody)
    if log.type in _DRIVER_CHECKS:
        _DRIVER_CHECKS[log.type](options)


def _check_files(options: Mapping[str, str], prefix: str) -> None:
    count = options.get(f"{prefix}max-file", "1")
    if not (count.isdecimal() and int(count) >= 1):
        raise BadLogOption("max-file cannot be less than 1")
    _size(options.get(f"{prefix}max-size", "1"))
    for name in (f"{prefix}compress", f"{prefix}disabled"):
        if options.get(name, "true") not in ("true", "false", "1", "0"):
            raise BadLogOption(f"log opt '{name}': {options[name]!r} is neither true nor false")


def _size(text: str) -> int:
    try:
        return parse_size(text)
    except ValueError as error:
        raise BadLogOption(str(error)) from error


def _true(options: Mapping[str, str], name: str, default: str) -> bool:
    return options.get(name, default) in ("true", "1")


def is_readable(log: LogConfig) -> bool:
    """Whether `docker logs` finds something: a file of the driver, or the cache beside it."""
    return log.type != "none" and not _true(log.config or {}, "cache-disabled", "false")


def file_settings(record: Container, path: str) -> dict[str, Any] | None:
    """What the shim is told about the file at `path`; None when none is kept."""
    log = record.host.log_config
    if not is_readable(log):
        return None
    options = log.config or {}
    prefix = "cache-" if log.type in REMOTE else ""
    said = described(record) if log.type in FILES else None
    attributes = _attributes(options, said) if said else {}
    return {
        "path": path,
        "max_size": _size(options.get(f"{prefix}max-size", _SIZE)),
        "max_files": int(options.get(f"{prefix}max-file", _FILES_KEPT)),
        "compress": _true(options, f"{prefix}compress", "false" if log.type == "json-file" else "true"),
        "attributes": msgspec.json.encode(attributes).decode() if attributes else "",
    }


def _attributes(options: Mapping[str, str], container: Described) -> dict[str, str]:
    found = details.extras(options, container)
    if options.get("tag"):
        found["tag"] = details.expand_tag(options["tag"], container)
    return found


def described(record: Container) -> Described:
    """A container as log drivers describe it."""
    return Described(
        id=record.id,
        name=record.name,
        image_id=record.image_id,
        image=record.image_ref,
        command=" ".join(record.argv),
        created=timestamp(record.created_ns),
        labels=record.config.labels or {},
        env=tuple(record.config.env or ()),
    )


def forwarder_settings(record: Container, daemon_pid: int) -> dict[str, Any] | None:
    """What the forwarder of a remote driver is told; None for drivers that have none."""
    log = record.host.log_config
    if log.type not in REMOTE:
        return None
    options = log.config or {}
    container = described(record)
    buffered = options.get("mode") == "non-blocking"
    return {
        "driver": log.type,
        "options": options,
        "container": msgspec.to_builtins(container),
        "tag": details.expand_tag(options.get("tag") or "{{.ID}}", container),
        "extras": details.extras(options, container),
        "terminal": record.config.tty,
        "buffer_bytes": _size(options.get("max-buffer-size", _BUFFER)) if buffered else 0,
        "daemon_pid": daemon_pid,
    }
