"""How a build is shown: line by line (plain), as a list that is drawn again (tty), or not at all (quiet)."""

from __future__ import annotations

import base64
import os
import sys
import threading
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_TAIL = 6  # lines of output shown below a step that runs
_TICK_S = 0.2
_KEPT = 20  # lines of output told again when a step fails


class Step:
    """What is known of one step."""

    __slots__ = ("began", "cached", "ended", "lines", "name", "of", "rest", "stage")

    def __init__(self, name: str, stage: str, of: int) -> None:
        self.name = name
        self.stage = stage
        self.of = of
        self.began = time.monotonic()
        self.ended = 0.0
        self.cached = False
        self.lines: list[str] = []
        self.rest = ""

    @property
    def seconds(self) -> float:
        return (self.ended or time.monotonic()) - self.began

    def output(self, text: str) -> list[str]:
        """Take output; the lines that are now whole."""
        *lines, self.rest = (self.rest + text.replace("\r\n", "\n")).split("\n")
        self.lines = (self.lines + lines)[-_KEPT:]
        return lines


class Plain:
    """Every line with its step's number."""

    def __init__(self) -> None:
        self.steps: dict[int, Step] = {}

    def take(self, record: dict[str, Any]) -> None:
        """One record of the daemon's stream."""
        kind, number = record.get("event"), record.get("step", 0)
        if kind == "started":
            step = self.steps[number] = Step(record["name"], record["stage"], record["of"])
            where = f"{step.stage} " if step.stage else ""
            self.line(number, f"[{where}{number}/{step.of}] {step.name}")
        elif kind == "note":
            self.line(0, record["text"])
        elif kind == "warning":
            self.warn(record)
        elif number in self.steps:
            self.change(number, self.steps[number], record)

    def warn(self, record: dict[str, Any]) -> None:
        """Something about the Dockerfile is unwise."""
        sys.stderr.write(f"WARN: {record['rule']}: {record['message']}\n")
        if record.get("excerpt"):
            sys.stderr.write(record["excerpt"] + "\n")

    def change(self, number: int, step: Step, record: dict[str, Any]) -> None:
        """Something happened to a step that has begun."""
        kind = record["event"]
        if kind == "cached":
            step.cached = True
        elif kind == "wrote":
            for line in step.output(base64.b64decode(record["data"]).decode("utf-8", "replace")):
                self.line(number, f"{step.seconds:.3f} {line}")
        elif kind == "finished":
            if step.rest:
                self.line(number, f"{step.seconds:.3f} {step.rest}")
            step.ended = time.monotonic()
            self.line(number, "CACHED" if step.cached else f"DONE {step.seconds:.1f}s")

    def line(self, number: int, text: str) -> None:
        """One line to standard error, where BuildKit's display goes too."""
        sys.stderr.write(f"#{number} {text}\n")
        sys.stderr.flush()

    def close(self) -> None:
        """Nothing comes any more."""

    def failed(self) -> tuple[str, list[str]]:
        """The step that was last at work, and the end of its output."""
        open_steps = [step for step in self.steps.values() if not step.ended and (step.lines or step.rest)]
        if not open_steps:
            return "", []
        step = open_steps[-1]
        return step.name, [*step.lines, *([step.rest] if step.rest else [])]


class Live(Plain):
    """The steps as a list, drawn again in place when something happens."""

    def __init__(self) -> None:
        super().__init__()
        self._began = time.monotonic()
        self._drawn = 0
        self._last = 0.0
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._clock = threading.Thread(target=self._tick, daemon=True)
        self._clock.start()

    def _tick(self) -> None:
        """The seconds go on while nothing is heard."""
        while not self._over.wait(_TICK_S):
            with self._lock:
                self._draw()

    def line(self, number: int, text: str) -> None:
        if number == 0:
            self._erase()
            sys.stderr.write(f"{text}\n")

    def take(self, record: dict[str, Any]) -> None:
        with self._lock:
            super().take(record)
            now = time.monotonic()
            if record.get("event") != "wrote" or now - self._last > _TICK_S:
                self._last = now
                self._draw()

    def close(self) -> None:
        self._over.set()
        self._clock.join()
        self._draw()
        self._drawn = 0

    def _erase(self) -> None:
        if self._drawn:
            sys.stderr.write(f"\x1b[{self._drawn}A\x1b[J")
            self._drawn = 0

    def _draw(self) -> None:
        columns, rows = os.get_terminal_size(2)
        done = sum(1 for step in self.steps.values() if step.ended)
        total = max((step.of for step in self.steps.values()), default=0)
        lines = [f"[+] Building {time.monotonic() - self._began:.1f}s ({done}/{total})"]
        body: list[str] = []
        for number, step in sorted(self.steps.items()):
            mark = "CACHED" if step.cached else f"{step.seconds:.1f}s"
            where = f"{step.stage} " if step.stage else ""
            text = f" => [{where}{number}/{step.of}] {step.name}"
            room = columns - len(mark) - 2
            body.append(f"{text[:room]:{room}} {mark}")
            if not step.ended:
                body += [f" => => {line}"[: columns - 1] for line in step.lines[-_TAIL:]]
        self._erase()
        lines += body[-max(1, rows - 2) :]
        sys.stderr.write("".join(f"{line}\n" for line in lines))
        sys.stderr.flush()
        self._drawn = len(lines)


class Quiet(Plain):
    """Nothing but what a failure says."""

    def warn(self, record: dict[str, Any]) -> None:
        return

    def line(self, number: int, text: str) -> None:
        return


def display(kind: str) -> Plain:
    """The display that `--progress` asks for; `auto` is a list on a terminal and lines elsewhere."""
    if kind == "quiet":
        return Quiet()
    if kind == "tty" or (kind == "auto" and os.isatty(2)):
        return Live()
    return Plain()
