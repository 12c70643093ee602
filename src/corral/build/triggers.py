"""ONBUILD: what an image wants to happen in the stage that is built on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from corral.build.dockerfile import parse
from corral.build.instructions import From, Instruction, understand
from corral.build.problems import DockerfileError
from corral.build.stages import Plan


def triggered(triggers: Sequence[str], plan: Plan) -> list[Instruction]:
    """The triggers as instructions without a place; raises DockerfileError for one that cannot be read."""
    found = []
    for text in triggers:
        try:
            for node in parse(text, "ONBUILD").nodes:
                instruction = understand(node, plan.escape)
                if isinstance(instruction.body, From):
                    raise DockerfileError("FROM isn't allowed as an ONBUILD trigger")
                found.append(replace(instruction, place=None))
        except DockerfileError as error:
            raise DockerfileError(f"cannot carry out the trigger {text[:200]!r} of the base: {error.reason}") from None
    return found
