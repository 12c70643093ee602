"""`--change`: Dockerfile instructions applied to a configuration, for `docker import` and `docker commit`.

The instructions that Docker allows here; each line is one instruction, with the Dockerfile's own quoting.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from corral.errors import InvalidParameter
from corral.oci.image import HealthConfig, RunConfig
from corral.quantities import duration_ns

_PAIR = re.compile(
    r"""((?:[^\s"'=\\]|\\.|"(?:[^"\\]|\\.)*"|'[^']*')+)(?:=((?:[^\s"'\\]|\\.|"(?:[^"\\]|\\.)*"|'[^']*')*))?"""
)
_PORT = re.compile(r"\d{1,5}(-\d{1,5})?(/(tcp|udp|sctp))?", re.IGNORECASE)


class InvalidChange(InvalidParameter):
    """A change that is no instruction, or not one of those allowed."""


def apply_changes(config: RunConfig, changes: Iterable[str]) -> RunConfig:
    """`config` with every instruction applied in order; raises InvalidChange."""
    for line in changes:
        for text in filter(None, (part.strip() for part in line.replace("\\\n", " ").split("\n"))):
            word, _, rest = text.partition(" ")
            handler = _HANDLERS.get(word.upper())
            if handler is None:
                raise InvalidChange(f"{word.upper()} is not a valid change command")
            if not rest.strip():
                raise InvalidChange(f"{word.upper()} requires at least one argument")
            config = msgspec.structs.replace(config, **handler(config, rest.strip()))
    return config


def _command(text: str) -> list[str]:
    """The JSON form, or a line for the shell."""
    try:
        words = json.loads(text)
    except ValueError:
        words = None
    if isinstance(words, list) and all(isinstance(word, str) for word in words):
        return words
    return ["/bin/sh", "-c", text]


def _words(text: str) -> list[str]:
    try:
        words = json.loads(text)
    except ValueError:
        words = None
    if isinstance(words, list) and all(isinstance(word, str) for word in words):
        return words
    return text.split()


def _unquote(text: str) -> str:
    pieces = re.findall(r'"(?:[^"\\]|\\.)*"|\'[^\']*\'|\\.|[^"\'\\]+', text)
    plain = []
    for piece in pieces:
        if piece[0] == "'":
            plain.append(piece[1:-1])
        elif piece[0] == '"':
            plain.append(re.sub(r'\\(["\\$])', r"\1", piece[1:-1]))
        else:
            plain.append(piece[1:] if piece[0] == "\\" else piece)
    return "".join(plain)


def _pairs(name: str, text: str) -> dict[str, str]:
    """`KEY=VALUE ...`, or the old `KEY VALUE`."""
    first = text.split(maxsplit=1)
    if "=" not in first[0]:
        if len(first) < 2:
            raise InvalidChange(f"{name} must have two arguments")
        return {first[0]: first[1]}
    found = {}
    for match in _PAIR.finditer(text):
        if match.group(2) is None:
            raise InvalidChange(f"Syntax error - can't find = in {match.group(1)!r}. Must be of the form: name=value")
        key = _unquote(match.group(1))
        if not key:
            raise InvalidChange(f"{name} names can not be blank")
        found[key] = _unquote(match.group(2))
    return found


def _env(config: RunConfig, text: str) -> dict[str, Any]:
    held = dict(entry.partition("=")[::2] for entry in config.env or [])
    return {"env": [f"{key}={value}" for key, value in {**held, **_pairs("ENV", text)}.items()]}


def _expose(config: RunConfig, text: str) -> dict[str, Any]:
    ports = dict(config.exposed_ports or {})
    for word in text.split():
        if not _PORT.fullmatch(word):
            raise InvalidChange(f"invalid containerPort: {word}")
        ports[(word if "/" in word else f"{word}/tcp").lower()] = {}
    return {"exposed_ports": ports}


def _workdir(config: RunConfig, text: str) -> dict[str, Any]:
    path = _unquote(text)
    return {"working_dir": path if path.startswith("/") else f"{(config.working_dir or '').rstrip('/')}/{path}"}


def _entrypoint(config: RunConfig, text: str) -> dict[str, Any]:
    return {"entrypoint": _command(text)}


def _healthcheck(config: RunConfig, text: str) -> dict[str, Any]:
    if text.upper() == "NONE":
        return {"healthcheck": HealthConfig(test=["NONE"])}
    options: dict[str, int] = {}
    while text.startswith("--"):
        option, _, text = text.partition(" ")
        name, _, value = option[2:].partition("=")
        field = name.replace("-", "_")
        if field == "retries" and value.isdigit():
            options[field] = int(value)
        elif field in ("interval", "timeout", "start_period", "start_interval"):
            options[field] = _duration_ns(value)
        else:
            raise InvalidChange(f"Unknown flag: {name}")
        text = text.lstrip()
    word, _, rest = text.partition(" ")
    if word.upper() != "CMD" or not rest.strip():
        raise InvalidChange(f"Unknown type {word!r} in HEALTHCHECK (try CMD)")
    command = _command(rest.strip())
    test = ["CMD-SHELL", rest.strip()] if command[:2] == ["/bin/sh", "-c"] else ["CMD", *command]
    return {"healthcheck": HealthConfig(test=test, **options)}


def _duration_ns(text: str) -> int:
    try:
        return duration_ns(text)
    except ValueError as error:
        raise InvalidChange(str(error)) from error


_HANDLERS: dict[str, Callable[[RunConfig, str], dict[str, Any]]] = {
    "CMD": lambda config, text: {"cmd": _command(text)},
    "ENTRYPOINT": _entrypoint,
    "ENV": _env,
    "EXPOSE": _expose,
    "HEALTHCHECK": _healthcheck,
    "LABEL": lambda config, text: {"labels": {**(config.labels or {}), **_pairs("LABEL", text)}},
    "ONBUILD": lambda config, text: {"on_build": [*(config.on_build or []), text]},
    "STOPSIGNAL": lambda config, text: {"stop_signal": text},
    "USER": lambda config, text: {"user": text},
    "VOLUME": lambda config, text: {"volumes": {**(config.volumes or {}), **{word: {} for word in _words(text)}}},
    "WORKDIR": _workdir,
}
