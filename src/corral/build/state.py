"""A stage while it is read from top to bottom: configuration, variables and history.

Pure.  An instruction that only changes the configuration is applied here whole; the others (RUN, COPY, ADD, the
folder of WORKDIR) find here what they need.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

from corral.build import expand
from corral.build import instructions as ins
from corral.build.problems import DockerfileError
from corral.build.stages import PREDEFINED
from corral.engine import signals
from corral.oci.image import HealthConfig, History, ImageConfig, RunConfig

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_PORT = re.compile(r"(?:(?:[\d.]*|\[[0-9a-fA-F:]*\]):)?(?:\d*:)?(\d{1,5})(?:-(\d{1,5}))?(?:/(\w+))?")
_PROTOCOLS = ("tcp", "udp", "sctp")


@dataclass
class State:
    """What a stage has come to.  `arguments` are the ARGs in effect, without a value where none was given."""

    escape: str = "\\"
    environment: dict[str, str] = field(default_factory=dict)
    arguments: dict[str, str | None] = field(default_factory=dict)
    run: RunConfig = field(default_factory=RunConfig)
    shell: tuple[str, ...] = ("/bin/sh", "-c")
    author: str = ""
    history: list[History] = field(default_factory=list)
    cmd_set: bool = False

    @classmethod
    def of(cls, config: ImageConfig | None, escape: str) -> tuple[State, list[str]]:
        """The start of a stage on an image (None: scratch), and the image's triggers."""
        run = config.run if config else RunConfig()
        environment = dict(entry.partition("=")[::2] for entry in run.env or [])
        environment.setdefault("PATH", DEFAULT_PATH)
        triggers = list(run.on_build or [])
        state = cls(escape=escape, environment=environment)
        state.run = msgspec.structs.replace(run, on_build=None, env=None, args_escaped=False)
        state.shell = tuple(run.shell or ("/bin/sh", "-c"))
        state.author = config.author if config else ""
        state.history = list(config.history or []) if config else []
        return state, triggers

    def on_top(self) -> tuple[State, list[str]]:
        """The start of a stage on this one, and the triggers that it leaves."""
        state = State(self.escape, dict(self.environment), {}, self.run, self.shell, self.author, list(self.history))
        triggers = list(self.run.on_build or [])
        state.run = msgspec.structs.replace(self.run, on_build=None)
        return state, triggers

    # --- variables -------------------------------------------------------------------------------------------

    def variables(self) -> dict[str, str]:
        """What `$name` stands for: ARGs, and over them ENV."""
        given = {name: value for name, value in self.arguments.items() if value is not None}
        return {**given, **self.environment}

    def word(self, text: str) -> str:
        """Expand a word; raises DockerfileError."""
        try:
            return expand.word(text, self.variables(), self.escape)
        except DockerfileError as error:
            raise _unexpanded(text, error) from None

    def words(self, text: str) -> list[str]:
        """Expand and split."""
        try:
            return expand.words(text, self.variables(), self.escape)
        except DockerfileError as error:
            raise _unexpanded(text, error) from None

    def document(self, text: str) -> str:
        """Expand a here-document, whose quotes stay."""
        return expand.raw_word(text, self.variables(), self.escape)

    def build_arguments(self) -> dict[str, str]:
        """The ARGs that a command sees in its environment: those with a value that no ENV covers."""
        return {
            name: value
            for name, value in self.arguments.items()
            if value is not None and name not in self.environment
        }  # fmt: skip

    def process_environment(self) -> list[str]:
        """The environment of a RUN."""
        return [f"{name}={value}" for name, value in {**self.build_arguments(), **self.environment}.items()]

    def declare(self, pairs: tuple[tuple[str, str | None], ...], scope: Scope) -> None:
        """ARG: the value given for the build, else the default, else that of the global scope."""
        for raw, default in pairs:
            name = self.word(raw)
            if name in scope.given:
                self.arguments[name] = scope.given[name]
            elif default is not None:
                self.arguments[name] = self.word(default)
            else:
                self.arguments[name] = scope.values.get(name)

    # --- documents -------------------------------------------------------------------------------------------

    def run_config(self) -> RunConfig:
        """The image's `config`."""
        env = [f"{name}={value}" for name, value in self.environment.items()]
        return msgspec.structs.replace(self.run, env=env)

    def note(self, created_by: str, *, created: str = "", empty: bool = True) -> None:
        """Add a line of history."""
        self.history.append(
            History(created=created or None, created_by=created_by, empty_layer=empty, author=self.author)
        )

    @property
    def directory(self) -> str:
        """The working directory, absolute."""
        return self.run.working_dir or "/"

    def absolute(self, path: str) -> str:
        """A path of the image, relative ones from the working directory; a slash at the end stays."""
        joined = posixpath.normpath(posixpath.join("/", self.directory, path)).replace("//", "/")
        if path.endswith(("/", "/.")) or path in (".", ""):
            joined = joined.rstrip("/") + "/"
        return joined

    def command(self, command: ins.Command) -> list[str]:
        """The words to execute."""
        return list(command.words) if command.exec_form else [*self.shell, command.line]


def _unexpanded(text: str, error: DockerfileError) -> DockerfileError:
    return DockerfileError(f"failed to process {json.dumps(text[:200], ensure_ascii=False)}: {error.reason}")


@dataclass(frozen=True)
class Scope:
    """Where ARGs get values from: the build's own, the global scope's, and which of these are the platform's."""

    given: Mapping[str, str]
    values: Mapping[str, str]
    platforms: Mapping[str, str]


def apply(state: State, body: ins.Body, scope: Scope) -> None:
    """Carry out an instruction that only changes the configuration; raises DockerfileError."""
    if isinstance(body, ins.Arg):
        state.declare(body.pairs, scope)
    elif isinstance(body, ins.Env):
        # All values of one line see the variables as they were before it.
        found = {state.word(name): state.word(value) for name, value in body.pairs}
        if "" in found:
            raise DockerfileError("ENV names can not be blank")
        state.environment.update(found)
    elif isinstance(body, ins.Label):
        labels = {state.word(name): state.word(value) for name, value in body.pairs}
        state.run = msgspec.structs.replace(state.run, labels={**(state.run.labels or {}), **labels})
    elif isinstance(body, ins.Workdir):
        _workdir(state, body)
    elif isinstance(body, ins.User):
        state.run = msgspec.structs.replace(state.run, user=state.word(body.user))
    elif isinstance(body, ins.Maintainer):
        state.author = body.name
    else:
        state.run = msgspec.structs.replace(state.run, **_fields(state, body))


def _workdir(state: State, body: ins.Workdir) -> None:
    path = state.word(body.path)
    if not path:
        raise DockerfileError("cannot normalize nothing")
    state.run = msgspec.structs.replace(state.run, working_dir=state.absolute(path).rstrip("/") or "/")


def _fields(state: State, body: ins.Body) -> dict[str, object]:
    run = state.run
    if isinstance(body, ins.Cmd):
        state.cmd_set = True
        return {"cmd": state.command(body.command)}
    if isinstance(body, ins.Entrypoint):
        command = body.command
        empty = not command.words and not command.line
        changed: dict[str, object] = {"entrypoint": None if empty else state.command(command)}
        return changed if state.cmd_set else {**changed, "cmd": None}
    if isinstance(body, ins.Shell):
        state.shell = body.words
        return {"shell": list(body.words)}
    if isinstance(body, ins.Expose):
        ports: dict[str, object] = {port: {} for word in state.words(body.text) for port in _ports(word)}
        return {"exposed_ports": {**(run.exposed_ports or {}), **ports}}
    if isinstance(body, ins.Volume):
        paths: dict[str, object] = {state.word(path): {} for path in body.paths}
        if "" in paths:
            raise DockerfileError("VOLUME specified can not be an empty string")
        return {"volumes": {**(run.volumes or {}), **paths}}
    if isinstance(body, ins.StopSignal):
        signal = state.word(body.signal)
        signals.parse(signal)
        return {"stop_signal": signal}
    if isinstance(body, ins.Onbuild):
        return {"on_build": [*(run.on_build or []), body.text]}
    assert isinstance(body, ins.Healthcheck)
    check = HealthConfig(
        test=list(body.test),
        interval=body.interval,
        timeout=body.timeout,
        start_period=body.start_period,
        start_interval=body.start_interval,
        retries=body.retries,
    )
    return {"healthcheck": check}


def _ports(word: str) -> list[str]:
    match = _PORT.fullmatch(word)
    protocol = (match[3] or "tcp").lower() if match else ""
    if match is None or int(match[1]) > 65535 or int(match[2] or 0) > 65535:
        raise DockerfileError(f"invalid containerPort: {word}")
    if protocol not in _PROTOCOLS:
        raise DockerfileError(f"invalid proto: {match[3]}")
    first, last = int(match[1]), int(match[2] or match[1])
    if last < first:
        raise DockerfileError(f"invalid range specified for port: {word}")
    return [f"{port}/{protocol}" for port in range(first, last + 1)]


def shown_run(state: State, argv: list[str]) -> str:
    """A RUN in an image's history: the ARGs that it saw come first."""
    arguments = [f"{k}={v}" for k, v in sorted(state.build_arguments().items()) if k not in PREDEFINED]
    given = f"|{len(arguments)} {' '.join(arguments)} " if arguments else ""
    return f"RUN {given}{' '.join(argv)}"


def shown_command(name: str, words: list[str]) -> str:
    """CMD and ENTRYPOINT in an image's history."""
    return f"{name} {json.dumps(words)}"
