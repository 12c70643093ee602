"""Twenty stages that do not need each other, against the same twenty one on another.

    PYTHONPATH=src python -m tests.bench.stages /run/corral.sock [ROUNDS]

Each stage's command keeps a processor busy for about half a second.  What is printed is the median of the seconds that
each form takes, in turn, without cache, and how many times faster the first one is.
"""

from __future__ import annotations

import statistics
import sys
import time

from tests.support.contexts import build
from tests.support.daemon import Engine

_STAGES = 20
_WORK = "i=0; while [ $i -lt 400000 ]; do i=$((i+1)); done; echo {} > /out-{}"


def dockerfile(image: str, independent: bool, salt: float) -> str:
    """The stages, and one that takes something from each."""
    lines, below = [], image
    for number in range(_STAGES):
        work = _WORK.format(number, number)
        lines += [f"FROM {below} AS s{number}", f"RUN : {salt}; {work}"]
        below = image if independent else f"s{number}"
    lines.append(f"FROM {image}")
    mounts = " ".join(f"--mount=from=s{number},target=/s{number}" for number in range(_STAGES))
    lines.append(f"RUN {mounts} cat {' '.join(f'/s{n}/out-{n}' for n in range(_STAGES))}")
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    engine = Engine(sys.argv[1])
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 3
    seconds: dict[bool, list[float]] = {True: [], False: []}
    for _ in range(rounds):
        for independent, found in seconds.items():
            begin = time.perf_counter()
            built = build(engine, dockerfile("busybox", independent, begin), nocache="1")
            assert built.id
            found.append(time.perf_counter() - begin)
    side_by_side, chained = (statistics.median(seconds[independent]) for independent in (True, False))
    print(f"side by side {side_by_side:.2f} s, one on another {chained:.2f} s: {chained / side_by_side:.2f} times")


if __name__ == "__main__":
    main()
