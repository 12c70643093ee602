"""What a Dockerfile's instructions say: each Node becomes one small value, checked as far as the text alone allows.

Variables are not expanded here; the texts of errors are those that Docker's users know.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from corral.build.dockerfile import Heredoc, Node, heredoc_words, split_flags
from corral.build.problems import DockerfileError, Place

STAGE_NAME = re.compile(r"[a-z][a-z0-9_.-]*")
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)")
_UNIT_NS = {"ns": 1, "us": 1_000, "µs": 1_000, "ms": 1_000_000, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}

Pairs: TypeAlias = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class From:
    """`FROM [--platform=P] base [AS name]`"""

    base: str
    name: str = ""
    platform: str = ""


@dataclass(frozen=True, slots=True)
class Arg:
    """`ARG name[=default] ...`; the value is None without a default."""

    pairs: tuple[tuple[str, str | None], ...]


@dataclass(frozen=True, slots=True)
class Env:
    pairs: Pairs


@dataclass(frozen=True, slots=True)
class Label:
    pairs: Pairs


@dataclass(frozen=True, slots=True)
class Command:
    """A command: words in the exec form, a line for the shell otherwise."""

    words: tuple[str, ...] = ()
    line: str = ""
    exec_form: bool = False


@dataclass(frozen=True, slots=True)
class Run:
    """`RUN [--mount=...]... [--network=N] [--security=S] [--device=D] command`; `mounts` are unexpanded options."""

    command: Command
    mounts: tuple[str, ...] = ()
    network: str = ""
    security: str = ""
    devices: tuple[str, ...] = ()
    heredocs: tuple[Heredoc, ...] = ()


@dataclass(frozen=True, slots=True)
class Copy:
    """COPY, and ADD with `add`.  `inline` are sources written in the Dockerfile itself."""

    sources: tuple[str, ...]
    destination: str
    add: bool = False
    source_stage: str = ""
    chown: str = ""
    chmod: str = ""
    link: bool = False
    parents: bool = False
    exclude: tuple[str, ...] = ()
    checksum: str = ""
    keep_git_dir: bool = False
    unpack: bool | None = None
    inline: tuple[Heredoc, ...] = ()


@dataclass(frozen=True, slots=True)
class Workdir:
    path: str


@dataclass(frozen=True, slots=True)
class User:
    user: str


@dataclass(frozen=True, slots=True)
class Cmd:
    command: Command


@dataclass(frozen=True, slots=True)
class Entrypoint:
    command: Command


@dataclass(frozen=True, slots=True)
class Shell:
    words: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Expose:
    text: str


@dataclass(frozen=True, slots=True)
class Volume:
    paths: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class StopSignal:
    signal: str


@dataclass(frozen=True, slots=True)
class Onbuild:
    """The trigger as text: it is parsed in the image that builds on this one."""

    text: str


@dataclass(frozen=True, slots=True)
class Maintainer:
    name: str


@dataclass(frozen=True, slots=True)
class Healthcheck:
    """`test` as image configurations have it (`["NONE"]` switches off); durations in nanoseconds."""

    test: tuple[str, ...]
    interval: int = 0
    timeout: int = 0
    start_period: int = 0
    start_interval: int = 0
    retries: int = 0


Body: TypeAlias = (
    From | Arg | Env | Label | Run | Copy | Workdir | User | Cmd | Entrypoint | Shell | Expose | Volume | StopSignal
    | Onbuild | Maintainer | Healthcheck
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Instruction:
    """A Node understood.  `place` is None for what did not stand in this Dockerfile (ONBUILD of a base)."""

    name: str
    body: Body
    shown: str
    place: Place | None


def understand(node: Node, escape: str = "\\") -> Instruction:
    """Raises DockerfileError without a place, which the caller knows."""
    read = _READERS[node.name]
    flags = _Flags(node)
    body = read(node, flags, escape)
    flags.finish()
    return Instruction(node.name, body, _shown(node), node.place)


def _shown(node: Node) -> str:
    """The instruction on one line, as progress displays have it."""
    flags = "".join(f" --{name}" + (f"={value}" if value is not None else "") for name, value in node.flags)
    return f"{node.name}{flags} {node.text}".rstrip()


class _Flags:
    def __init__(self, node: Node) -> None:
        self._name = node.name
        self._left = list(node.flags)

    def text(self, name: str) -> str:
        """The value of a flag that may be given once; "" if absent."""
        found = self.every(name)
        if len(found) > 1:
            raise DockerfileError(f"duplicate flag specified: {name}")
        return found[0] if found else ""

    def every(self, name: str) -> tuple[str, ...]:
        found = [value for flag, value in self._left if flag == name]
        if None in found:
            raise DockerfileError(f"missing a value on flag: {name}")
        self._left = [held for held in self._left if held[0] != name]
        return tuple(value for value in found if value is not None)

    def boolean(self, name: str) -> bool | None:
        found = [value for flag, value in self._left if flag == name]
        if len(found) > 1:
            raise DockerfileError(f"duplicate flag specified: {name}")
        self._left = [held for held in self._left if held[0] != name]
        if not found:
            return None
        if found[0] is None or found[0].lower() == "true":
            return True
        if found[0].lower() == "false":
            return False
        raise DockerfileError(f"expecting boolean value for flag {name}, not: {found[0]}")

    def finish(self) -> None:
        if self._left:
            raise DockerfileError(f"unknown flag: --{self._left[0][0]}")


# --- texts -----------------------------------------------------------------------------------------------------


def json_words(text: str) -> tuple[str, ...] | None:
    """The exec form: a JSON array of strings, else None."""
    if not text.startswith("["):
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if isinstance(found, list) and all(isinstance(item, str) for item in found):
        return tuple(found)
    return None


def _command(text: str) -> Command:
    found = json_words(text)
    return Command(line=text) if found is None else Command(words=found, exec_form=True)


def _need(node: Node) -> str:
    if not node.text:
        raise DockerfileError(f"{node.name} requires at least one argument")
    return node.text


def _one(node: Node) -> str:
    if len(node.text.split()) == 0:
        raise DockerfileError(f"{node.name} requires exactly one argument")
    return node.text


def split_words(text: str, escape: str = "\\") -> list[str]:
    """Words as written, quotes and escapes kept, split at white space outside of them."""
    found: list[str] = []
    current = ""
    quote = ""
    index = 0
    while index < len(text):
        letter = text[index]
        if letter == escape and quote != "'" and index + 1 < len(text):
            current += text[index : index + 2]
            index += 2
            continue
        if quote:
            quote = "" if letter == quote else quote
            current += letter
        elif letter in "\"'":
            quote = letter
            current += letter
        elif letter.isspace():
            if current:
                found.append(current)
            current = ""
        else:
            current += letter
        index += 1
    if current:
        found.append(current)
    return found


def _pairs(node: Node, escape: str) -> Pairs:
    """`name=value ...`, or the old `name value` of ENV and LABEL."""
    words = split_words(_need(node), escape)
    if "=" not in words[0]:
        name, _, value = node.text.partition(" ")
        if "\t" in name:
            name, _, value = node.text.partition("\t")
        if not value.strip():
            raise DockerfileError(f"{node.name} must have two arguments")
        return ((name, value.strip()),)
    pairs = []
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            raise DockerfileError(f"Syntax error - can't find = in {_quoted(word)}. Must be of the form: name=value")
        if not name.strip("\"'"):
            raise DockerfileError(f"{node.name} names can not be blank")
        pairs.append((name, value))
    return tuple(pairs)


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


# --- instructions ----------------------------------------------------------------------------------------------


def _from(node: Node, flags: _Flags, escape: str) -> From:
    words = node.text.split()
    if len(words) not in (1, 3) or (len(words) == 3 and words[1].upper() != "AS"):
        raise DockerfileError("FROM requires either one or three arguments")
    name = words[2] if len(words) == 3 else ""
    if name and not STAGE_NAME.fullmatch(name.lower()):
        raise DockerfileError(
            f"invalid name for build stage: {_quoted(name)}, name can't start with a number or contain symbols"
        )
    return From(words[0], name, flags.text("platform"))


def _arg(node: Node, flags: _Flags, escape: str) -> Arg:
    pairs: list[tuple[str, str | None]] = []
    for word in split_words(_need(node), escape):
        name, equals, value = word.partition("=")
        if not name:
            raise DockerfileError("ARG names can not be blank")
        pairs.append((name, value if equals else None))
    return Arg(tuple(pairs))


def _run(node: Node, flags: _Flags, escape: str) -> Run:
    if not node.text and not node.heredocs:
        raise DockerfileError("RUN requires at least one argument")
    network = flags.text("network")
    if network not in ("", "default", "none", "host"):
        raise DockerfileError(f"invalid network mode: {network}")
    security = flags.text("security")
    if security not in ("", "sandbox", "insecure"):
        raise DockerfileError(f"security {_quoted(security)} is not valid")
    return Run(
        _command(node.text), flags.every("mount"), network, security, flags.every("device"), node.heredocs
    )  # fmt: skip


def _copy(node: Node, flags: _Flags, escape: str) -> Copy:
    listed = json_words(node.text)
    words = list(listed) if listed is not None else split_words(node.text, escape)
    if len(words) < 2:
        count = "one" if words else "none"
        raise DockerfileError(
            f"{node.name} requires at least two arguments, but only {count} was provided. "
            "Destination could not be determined"
        )
    *sources, destination = words
    waiting = list(node.heredocs)
    inline, plain = [], []
    for source in sources:
        if waiting and heredoc_words(source):
            inline.append(waiting.pop(0))
        else:
            plain.append(source)
    if len(sources) > 1 and not destination.rstrip("\"'").endswith(("/", "/.")) and destination not in (".", ".."):
        raise DockerfileError(
            f"When using {node.name} with more than one source file, the destination must be a directory and end "
            "with a /"
        )
    add = node.name == "ADD"
    return Copy(
        sources=tuple(plain),
        destination=destination,
        add=add,
        source_stage="" if add else flags.text("from"),
        chown=flags.text("chown"),
        chmod=flags.text("chmod"),
        link=bool(flags.boolean("link")),
        parents=bool(flags.boolean("parents")) if not add else False,
        exclude=flags.every("exclude"),
        checksum=flags.text("checksum") if add else "",
        keep_git_dir=bool(flags.boolean("keep-git-dir")) if add else False,
        unpack=flags.boolean("unpack") if add else None,
        inline=tuple(inline),
    )


def _shell(node: Node, flags: _Flags, escape: str) -> Shell:
    found = json_words(_need(node))
    if found is None:
        raise DockerfileError("SHELL requires the arguments to be in JSON form")
    if not found:
        raise DockerfileError("SHELL requires at least one argument")
    return Shell(found)


def _volume(node: Node, flags: _Flags, escape: str) -> Volume:
    paths = json_words(_need(node))
    if paths is None:
        paths = tuple(split_words(node.text, escape))
    if any(not path.strip() for path in paths) or not paths:
        raise DockerfileError("VOLUME specified can not be an empty string")
    return Volume(paths)


def _onbuild(node: Node, flags: _Flags, escape: str) -> Onbuild:
    trigger = _need(node).split(maxsplit=1)[0].upper()
    if trigger == "ONBUILD":
        raise DockerfileError("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")
    if trigger in ("FROM", "MAINTAINER"):
        raise DockerfileError(f"{trigger} isn't allowed as an ONBUILD trigger")
    documents = "".join(f"\n{doc.content}{doc.name}" for doc in node.heredocs)
    return Onbuild(node.text + documents)


def _healthcheck(node: Node, flags: _Flags, escape: str) -> Healthcheck:
    kind, _, rest = _need(node).partition(" ")
    durations = {name: _duration(name, flags.text(name)) for name in
                 ("interval", "timeout", "start-period", "start-interval")}  # fmt: skip
    retries = flags.text("retries")
    if retries and not retries.lstrip("+-").isdigit():
        raise DockerfileError(f'strconv.ParseInt: parsing "{retries}": invalid syntax')
    if retries and int(retries) < 0:
        raise DockerfileError(f"--retries cannot be negative ({retries})")
    if kind.upper() == "NONE":
        if rest.strip():
            raise DockerfileError("HEALTHCHECK NONE takes no arguments")
        return Healthcheck(("NONE",))
    if kind.upper() != "CMD":
        raise DockerfileError(f"Unknown type {_quoted(kind.upper())} in HEALTHCHECK (try CMD)")
    command = _command(rest.strip())
    if not command.words and not command.line:
        raise DockerfileError("Missing command after HEALTHCHECK CMD")
    test = ("CMD", *command.words) if command.exec_form else ("CMD-SHELL", command.line)
    return Healthcheck(
        test,
        durations["interval"],
        durations["timeout"],
        durations["start-period"],
        durations["start-interval"],
        int(retries or 0),
    )


def _duration(name: str, text: str) -> int:
    if not text:
        return 0
    matches = list(_DURATION.finditer(text))
    if not matches or "".join(match.group() for match in matches) != text:
        raise DockerfileError(f'time: invalid duration "{text}"')
    found = sum(int(float(match.group(1)) * _UNIT_NS[match.group(2)]) for match in matches)
    if 0 < found < 1_000_000:
        raise DockerfileError(f"Interval {_quoted(name)} cannot be less than 1ms")
    return found


def _entrypoint(node: Node, flags: _Flags, escape: str) -> Entrypoint:
    return Entrypoint(_command(node.text))


_READERS: dict[str, Callable[[Node, _Flags, str], Body]] = {
    "ADD": _copy,
    "ARG": _arg,
    "CMD": lambda node, flags, escape: Cmd(_command(node.text)),
    "COPY": _copy,
    "ENTRYPOINT": _entrypoint,
    "ENV": lambda node, flags, escape: Env(_pairs(node, escape)),
    "EXPOSE": lambda node, flags, escape: Expose(_need(node)),
    "FROM": _from,
    "HEALTHCHECK": _healthcheck,
    "LABEL": lambda node, flags, escape: Label(_pairs(node, escape)),
    "MAINTAINER": lambda node, flags, escape: Maintainer(_one(node)),
    "ONBUILD": _onbuild,
    "RUN": _run,
    "SHELL": _shell,
    "STOPSIGNAL": lambda node, flags, escape: StopSignal(_one(node)),
    "USER": lambda node, flags, escape: User(_one(node)),
    "VOLUME": _volume,
    "WORKDIR": lambda node, flags, escape: Workdir(_one(node)),
}


def join(words: Sequence[str]) -> str:
    """Words as a line that a shell would split into them again."""
    return shlex.join(words)


def reflag(node: Node, escape: str) -> Node:
    """A Node whose text still has its flags (a trigger's) with the flags taken off."""
    flags, text = split_flags(node.text, escape)
    return replace(node, flags=flags, text=text)
