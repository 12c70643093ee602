"""The pages of the documentation: what they link to, and the commands that they show."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"#+ +(.*)")
_PROGRAMS = re.compile(
    r"(?:[A-Z_]+=\S+ )*(?:docker|corral|corrald|podman|skopeo|umoci|python3?|export|kill|bin/\w+|\w+ install)\b"
)


@dataclass(frozen=True)
class Block:
    """Lines of code that stand together; `commands` are those that are for a shell."""

    page: str
    line: int
    lines: tuple[str, ...]

    @property
    def commands(self) -> list[str]:
        return [line for line in self.lines if _PROGRAMS.match(line)]


def pages() -> list[Path]:
    """Every page that users or contributors read."""
    tops = (ROOT / name for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"))
    return [*tops, *sorted((ROOT / "docs").glob("**/*.md"))]


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def links(page: Path) -> list[str]:
    """The targets of a page's links."""
    return _LINK.findall(_without_code(page.read_text()))


def anchors(page: Path) -> set[str]:
    """What can follow a `#` in a link to the page."""
    found = _HEADING.findall(_without_code(page.read_text()))
    return {re.sub(r"[^\w -]", "", text.replace("`", "")).strip().lower().replace(" ", "-") for text in found}


def blocks(page: Path) -> list[Block]:
    """The blocks of code: fenced, or indented by four blanks outside of lists."""
    found: list[Block] = []
    lines: list[str] = []
    start, fenced = 0, False
    for number, line in enumerate([*page.read_text().splitlines(), ""], 1):
        fence = line.startswith("```")
        if fence or not (fenced or line.startswith("    ")):
            if lines:
                found.append(Block(name_of(page), start, tuple(lines)))
            lines = []
            fenced ^= fence
        elif line.strip():
            start = start if lines else number
            lines.append(line.strip())
    return found


def _without_code(text: str) -> str:
    kept, fenced = [], False
    for line in text.splitlines():
        if line.startswith("```"):
            fenced = not fenced
        elif not fenced and not line.startswith("    "):
            kept.append(line)
    return "\n".join(kept)
