"""A Dockerfile's stages as a graph: what each is built on, which ones a target needs, and what names stand for.

Pure.  The executor walks this graph; which stage is an image of its own and which a stage of the file is decided here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from corral.build import expand
from corral.build.dockerfile import Dockerfile
from corral.build.instructions import Arg, Copy, From, Instruction, Run, understand
from corral.build.problems import DockerfileError, ParseError, Place, Source, Warned
from corral.oci.platform import Platform

SCRATCH = "scratch"
# Build arguments that need no ARG: they reach RUN, and neither the cache nor the history knows them.
PREDEFINED = frozenset(
    name for upper in ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY")
    for name in (upper, upper.lower())
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Stage:
    """One `FROM` and what follows it."""

    index: int
    name: str
    base: str
    platform: str
    instructions: tuple[Instruction, ...]
    opening: Instruction

    @property
    def shown(self) -> str:
        """What progress displays call it."""
        return self.name or f"stage-{self.index}"


@dataclass(frozen=True, slots=True)
class Plan:
    """A Dockerfile understood: global ARGs and stages."""

    source: Source
    meta: tuple[Instruction, ...]
    stages: tuple[Stage, ...]
    escape: str
    warnings: tuple[Warned, ...]
    directives: Mapping[str, str]

    def problem(self, reason: str, place: Place | None) -> DockerfileError:
        """An error with its place."""
        return DockerfileError(reason, self.source, place)

    def find(self, ref: str, below: int | None = None) -> int | None:
        """The stage that a name or number stands for, or None for something else; numbers reach back only."""
        lowered = ref.lower()
        names = [stage.index for stage in self.stages if stage.name == lowered]
        if below is not None:
            names = [index for index in names if index < below]
        if names:
            return names[-1]
        if ref.isdecimal() and len(ref) < 6 and int(ref) < (len(self.stages) if below is None else below):
            return int(ref)
        return None


def read(dockerfile: Dockerfile) -> Plan:
    """Understand every instruction; raises DockerfileError with the place."""
    meta: list[Instruction] = []
    stages: list[Stage] = []
    current: list[Instruction] = []
    opening: Instruction | None = None

    def close() -> None:
        if opening is not None:
            body = opening.body
            assert isinstance(body, From)
            stages.append(
                Stage(len(stages), body.name.lower(), body.base, body.platform, tuple(current), opening)
            )  # fmt: skip
            current.clear()

    for node in dockerfile.nodes:
        try:
            instruction = understand(node, dockerfile.escape)
            if isinstance(instruction.body, From):
                close()
                opening = instruction
            elif opening is not None:
                current.append(instruction)
            elif isinstance(instruction.body, Arg):
                meta.append(instruction)
            else:
                raise DockerfileError("no build stage in current context")
        except DockerfileError as error:
            raise ParseError(error.reason, dockerfile.source, node.place) from None
    close()
    if not stages:
        raise DockerfileError("dockerfile contains no stages to build")
    return Plan(
        dockerfile.source, tuple(meta), tuple(stages), dockerfile.escape, dockerfile.warnings, dockerfile.directives
    )  # fmt: skip


def platform_variables(build: Platform, target: Platform) -> dict[str, str]:
    """The platform ARGs: in global scope as they are, in a stage once it declares them."""
    found = {}
    for prefix, platform in (("BUILD", build), ("TARGET", target)):
        found[f"{prefix}PLATFORM"] = str(platform)
        found[f"{prefix}OS"] = platform.os
        found[f"{prefix}ARCH"] = platform.architecture
        found[f"{prefix}VARIANT"] = platform.variant
    return found


def global_arguments(plan: Plan, given: Mapping[str, str], platforms: Mapping[str, str]) -> dict[str, str]:
    """The values of the ARGs before the first FROM; raises DockerfileError with the place."""
    values: dict[str, str] = dict(platforms)
    for instruction in plan.meta:
        body = instruction.body
        assert isinstance(body, Arg)
        for name, default in body.pairs:
            try:
                if name in given:
                    values[name] = given[name]
                elif default is not None:
                    values[name] = expand.word(default, values, plan.escape)
                elif name in platforms:
                    values[name] = platforms[name]
                else:
                    values.pop(name, None)
            except DockerfileError as error:
                raise plan.problem(error.reason, instruction.place) from None
    return values


@dataclass(frozen=True, slots=True)
class Base:
    """What a stage stands on: a stage, or an image (`scratch` is none); `platform` "" is the target's."""

    stage: int | None
    image: str
    platform: str


def base_of(plan: Plan, stage: Stage, values: Mapping[str, str]) -> Base:
    """Expand a FROM; raises DockerfileError with the place."""
    try:
        name = expand.word(stage.base, values, plan.escape)
        platform = expand.word(stage.platform, values, plan.escape)
    except DockerfileError as error:
        raise plan.problem(error.reason, stage.opening.place) from None
    if not name:
        raise plan.problem(f"base name ({stage.base}) should not be blank", stage.opening.place)
    if stage.platform and not platform:
        raise plan.problem(f"empty platform value from expression {stage.platform}", stage.opening.place)
    earlier = [held.index for held in plan.stages[: stage.index] if held.name and held.name == name.lower()]
    return Base(earlier[-1] if earlier else None, name, platform)


def target_of(plan: Plan, target: str) -> int:
    """The index of the stage to build: the last one, or that of the given name or number."""
    if not target:
        return len(plan.stages) - 1
    found = plan.find(target)
    if found is None:
        raise DockerfileError(f'target stage "{target}" could not be found')
    return found


def references(instruction: Instruction) -> Iterator[str]:
    """Every `--from` of an instruction, as written."""
    body = instruction.body
    if isinstance(body, Copy) and body.source_stage:
        yield body.source_stage
    elif isinstance(body, Run):
        for mount in body.mounts:
            for part in mount.split(","):
                key, _, value = part.partition("=")
                if key.strip().lower() == "from" and value:
                    yield value.strip()


def dependencies(plan: Plan, stage: Stage, values: Mapping[str, str]) -> dict[int, Place | None]:
    """The stages that a stage needs, each with the line that asks for it."""
    found: dict[int, Place | None] = {}
    base = base_of(plan, stage, values)
    if base.stage is not None:
        found[base.stage] = stage.opening.place
    for instruction in stage.instructions:
        for ref in references(instruction):
            index = plan.find(ref)
            if index is not None:
                found.setdefault(index, instruction.place)
    return found


def needed(plan: Plan, target: int, values: Mapping[str, str]) -> list[int]:
    """The stages to build for `target`, in the file's order; raises DockerfileError for a circle."""
    done: set[int] = set()
    open_now: set[int] = set()
    # A stack of our own: a file may have thousands of stages one on another.
    work: list[tuple[int, Iterator[tuple[int, Place | None]]]] = []

    def begin(index: int) -> None:
        open_now.add(index)
        work.append((index, iter(dependencies(plan, plan.stages[index], values).items())))

    begin(target)
    while work:
        index, left = work[-1]
        for needs, place in left:
            if needs in open_now:
                raise plan.problem(f"circular dependency detected on stage: {plan.stages[needs].shown}", place)
            if needs not in done:
                begin(needs)
                break
        else:
            work.pop()
            open_now.discard(index)
            done.add(index)
    return sorted(done)
