"""Puts together what the site of the documentation is built from: the pages, and references made from the code.

    PYTHONPATH=src python docs/site/assemble.py FOLDER     makes FOLDER/mkdocs.yml and FOLDER/pages

`bin/docs` does this and builds the site.  The pages are those that one reads in the repository; only links that lead
out of `docs` are turned to where the site has it, or to plain text.
"""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from corral.api.routes import ROUTES
from corral.cli import commands, helptext
from corral.cli.command import PROGRAM
from corral.cli.main import GLOBAL_FLAGS

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
_LINK = re.compile(r"(?<!!)\[([^\]]*)\]\(([^)#\s]*)(#[^)\s]*)?\)")

# Pages that are not in `docs`, and where the site has them.
_TOPS = {"README.md": "index.md", "ARCHITECTURE.md": "architecture.md", "CONTRIBUTING.md": "contributing.md"}


def assemble(folder: Path) -> None:
    """Everything that mkdocs needs, in a folder that is made anew."""
    shutil.rmtree(folder, ignore_errors=True)
    pages = folder / "pages"
    pages.mkdir(parents=True)
    shutil.copy(HERE / "mkdocs.yml", folder)
    for page in (ROOT / "docs").glob("**/*.md"):
        target = pages / page.relative_to(ROOT / "docs")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(_turned(page))
    for name, target_name in _TOPS.items():
        (pages / target_name).write_text(_turned(ROOT / name))
    (pages / "decisions" / "index.md").write_text(_decisions())
    (pages / "commands.md").write_text("".join(_commands()))
    (pages / "operations.md").write_text("".join(_operations()))


def _turned(page: Path) -> str:
    """A page whose links are right on the site."""

    def turn(match: re.Match[str]) -> str:
        text, path, anchor = match.group(1), match.group(2), match.group(3) or ""
        if "://" in path or not path:
            return match.group(0)
        place = _place(page.parent / path)
        if place is None:
            return text
        start = _place(page)
        assert start is not None
        ups = "../" * start.count("/")
        return f"[{text}]({ups}{place}{anchor})"

    return _LINK.sub(turn, page.read_text())


def _place(path: Path) -> str | None:
    """Where the site has a file of the repository, below its top; None if it has not."""
    path = path.resolve()
    if path == ROOT / "docs" / "decisions":
        return "decisions/index.md"
    if path.parent == ROOT:
        return _TOPS.get(path.name)
    inside = path.is_relative_to(ROOT / "docs") and path.suffix == ".md"
    return str(path.relative_to(ROOT / "docs")) if inside else None


def _decisions() -> str:
    lines = ["# Decisions\n", "Choices that a newcomer would question, a page each.\n"]
    for page in sorted((ROOT / "docs" / "decisions").glob("*.md")):
        title = page.read_text().splitlines()[0].lstrip("# ")
        lines.append(f"- [{title}]({page.name})")
    return "\n".join(lines) + "\n"


def _commands() -> Iterator[str]:
    """The help of every command."""
    yield f"# Commands\n\n```text\n{helptext.overview(GLOBAL_FLAGS)}```\n"
    for table in (commands.COMMON, commands.OTHERS):
        for name, place in sorted(table.items()):
            yield _command(f"{PROGRAM} {name}", place)
    for group, (_, members) in sorted(commands.GROUPS.items()):
        for name, place in sorted(members.items()):
            if name not in commands.COMMON and name not in commands.OTHERS:
                yield _command(f"{PROGRAM} {group} {name}", place)


def _command(path: str, place: tuple[str, str, str]) -> str:
    return f"\n## {path}\n\n```text\n{helptext.command(path, commands.load(place))}```\n"


def _operations() -> Iterator[str]:
    """Every operation of the API, from the table of routes."""
    yield (
        "# Operations of the API\n\n"
        "What Docker's document of its Engine API describes is done as it says; [Compatibility](compatibility.md) has "
        "the exceptions. What it does not know is described in [Beyond Docker](beyond-docker.md).\n\n"
        "| operation | since version |\n|---|---|\n"
    )
    for route in sorted(ROUTES, key=lambda route: (route.pattern, route.method)):
        yield f"| `{route.method} {route.pattern}` | {route.since[0]}.{route.since[1]} |\n"


if __name__ == "__main__":
    assemble(Path(sys.argv[1]))
