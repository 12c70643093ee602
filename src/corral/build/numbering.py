"""How the steps of a build are numbered: in the file's order, those of stages that are not needed left out."""

from __future__ import annotations

from collections.abc import Sequence

from corral.build.instructions import Instruction
from corral.build.request import Vertex
from corral.build.stages import Plan


class Numbering:
    """Finds an instruction's Vertex."""

    def __init__(self, plan: Plan, needed: Sequence[int]) -> None:
        ordered = list(plan.meta)
        for index in needed:
            ordered += [plan.stages[index].opening, *plan.stages[index].instructions]
        self._numbers = {id(instruction): number for number, instruction in enumerate(ordered, 1)}
        self.total = len(ordered)

    def vertex(self, instruction: Instruction, stage: str) -> Vertex:
        """A numbered step."""
        return Vertex(self._numbers[id(instruction)], self.total, instruction.shown, stage, instruction.place)

    def silent(self, instruction: Instruction, stage: str) -> Vertex:
        """A step that is not numbered: a trigger of the base."""
        return Vertex(0, self.total, instruction.shown, stage, instruction.place)
