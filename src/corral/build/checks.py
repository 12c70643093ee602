"""Build checks: what is allowed in a Dockerfile and probably not meant, under BuildKit's names for it.

Pure.  `# check=skip=RULE,...` (or `skip=all`) switches rules off.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from corral.build import expand
from corral.build import instructions as ins
from corral.build.problems import Place, Warned
from corral.build.stages import PREDEFINED, Plan, Stage

_SECRET = re.compile(r"(?i)(apikey|auth|credential|password|passwd|secret|token|key)s?$|^(?:.*[_-])?pword$")
_NOT_SECRET = re.compile(r"(?i)public")
_RESERVED = ("scratch", "context")
_AUTOMATIC = frozenset(
    f"{prefix}{what}" for prefix in ("BUILD", "TARGET") for what in ("PLATFORM", "OS", "ARCH", "VARIANT")
) | {"TARGETSTAGE", "SOURCE_DATE_EPOCH", "BUILDKIT_INLINE_CACHE"}  # fmt: skip


def look(plan: Plan, arguments: Mapping[str, str]) -> list[Warned]:
    """Everything that is worth a warning, in the file's order."""
    skipped = _skipped(plan.directives.get("check", ""))
    if "all" in skipped:
        return []
    found = [warned for check in (_stages, _instructions, _variables) for warned in check(plan, arguments)]
    found.sort(key=lambda warned: warned.place.first if warned.place else 0)
    return [warned for warned in found if warned.rule.lower() not in skipped]


def _skipped(text: str) -> set[str]:
    for part in text.split(";"):
        name, _, value = part.partition("=")
        if name.strip().lower() == "skip":
            return {rule.strip().lower() for rule in value.split(",")}
    return set()


def _stages(plan: Plan, arguments: Mapping[str, str]) -> Iterator[Warned]:
    names: set[str] = set()
    for stage in plan.stages:
        place = stage.opening.place
        body = stage.opening.body
        assert isinstance(body, ins.From)
        if body.name != body.name.lower():
            yield Warned("StageNameCasing", f"Stage name '{body.name}' should be lowercase", place)
        if stage.name in _RESERVED:
            yield Warned("ReservedStageName", f"Stage name should not use the same name as reserved stage "
                         f'"{stage.name}"', place)  # fmt: skip
        if stage.name and stage.name in names:
            yield Warned(
                "DuplicateStageName", f'Duplicate stage name "{body.name}", stage names should be unique', place
            )
        names.add(stage.name)
        if body.platform in ("$TARGETPLATFORM", "${TARGETPLATFORM}"):
            yield Warned("RedundantTargetPlatform", f"Setting platform to predefined {body.platform} in FROM is "
                         "redundant as this is the default behavior", place)  # fmt: skip
        elif body.platform and "$" not in body.platform:
            yield Warned("FromPlatformFlagConstDisallowed", f'FROM --platform flag should not use constant value '
                         f'"{body.platform}"', place)  # fmt: skip


def _instructions(plan: Plan, arguments: Mapping[str, str]) -> Iterator[Warned]:
    for stage in plan.stages:
        seen: set[str] = set()
        directory = False
        for instruction in stage.instructions:
            body, place = instruction.body, instruction.place
            if isinstance(body, ins.Maintainer):
                yield Warned(
                    "MaintainerDeprecated", "Maintainer instruction is deprecated in favor of using label", place
                )
            elif isinstance(body, ins.Cmd | ins.Entrypoint | ins.Healthcheck):
                if instruction.name in seen:
                    text = f"Multiple {instruction.name} instructions should not be used in the same stage because "
                    yield Warned("MultipleInstructionsDisallowed", f"{text}only the last one will be used", place)
                seen.add(instruction.name)
                if isinstance(body, ins.Cmd | ins.Entrypoint) and body.command.line:
                    yield Warned("JSONArgsRecommended", f"JSON arguments recommended for {instruction.name} to prevent "
                                 "unintended behavior related to OS signals", place)  # fmt: skip
            elif isinstance(body, ins.Workdir):
                if not body.path.startswith(("/", "$", '"/', "'/")) and not directory:
                    text = f'Relative workdir "{body.path}" can have unexpected results if the base image changes'
                    yield Warned("WorkdirRelativePath", text, place)
                directory = True
            elif isinstance(body, ins.Env | ins.Arg):
                yield from _pairs(instruction.name, body, place)


def _pairs(name: str, body: ins.Env | ins.Arg, place: Place | None) -> Iterator[Warned]:
    for key, _ in body.pairs:
        if _SECRET.search(key) and not _NOT_SECRET.search(key):
            text = f'Do not use ARG or ENV instructions for sensitive data ({name} "{key}")'
            yield Warned("SecretsUsedInArgOrEnv", text, place)


def _variables(plan: Plan, arguments: Mapping[str, str]) -> Iterator[Warned]:
    declared = {name for meta in plan.meta if isinstance(meta.body, ins.Arg) for name, _ in meta.body.pairs}
    for stage in plan.stages:
        missing = expand.names(stage.base, plan.escape) - declared - _AUTOMATIC
        for name in sorted(missing):
            yield Warned("UndefinedArgInFrom", f"FROM argument '{name}' is not declared", stage.opening.place)
    for stage in plan.stages:
        if plan.find(stage.base, stage.index) is None:
            yield from _undefined(plan, stage)


def _undefined(plan: Plan, stage: Stage) -> Iterator[Warned]:
    """Uses of variables that nothing sets; what the base image sets is not known here, so only copies are looked at."""
    known = set(PREDEFINED) | {"PATH", "HOME", "HOSTNAME", "USER"}
    for instruction in stage.instructions:
        body = instruction.body
        if isinstance(body, ins.Arg | ins.Env):
            known.update(name for name, _ in body.pairs)
        elif isinstance(body, ins.Copy) and stage.base == "scratch":
            for text in (*body.sources, body.destination):
                for name in sorted(expand.names(text, plan.escape) - known):
                    yield Warned("UndefinedVar", f"Usage of undefined variable '${name}'", instruction.place)
