"""Help: of the program, of a group and of a command, wrapped to the terminal."""

from __future__ import annotations

import os

from corral.cli import commands
from corral.cli.command import PROGRAM

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from corral.cli.command import Command
    from corral.cli.flags import Flag


def overview(flags: Sequence[Flag]) -> str:
    """`corral --help`."""
    groups = {name: ("", "", summary) for name, (summary, _) in commands.GROUPS.items()}
    parts = [
        f"Usage:  {PROGRAM} [OPTIONS] COMMAND\n\nContainers, for any daemon that speaks Docker's API\n",
        _table("Common Commands", commands.COMMON, ordered=False),
        _table("Management Commands", groups),
        _table("Commands", commands.OTHERS),
        "Global Options:\n" + flag_lines(flags),
        f"Run '{PROGRAM} COMMAND --help' for more information on a command.\n",
    ]
    return "\n".join(parts)


def group(path: str, summary: str, members: dict[str, tuple[str, str, str]]) -> str:
    """`corral container --help`."""
    return (
        f"Usage:  {path} COMMAND\n\n{summary}\n\n{_table('Commands', members)}\n"
        f"Run '{path} COMMAND --help' for more information on a command.\n"
    )


def command(path: str, wanted: Command) -> str:
    """`corral run --help`."""
    usage = wanted.usage.replace("\n", f"\n        {path} ")
    text = f"Usage:  {path} {usage}\n\n{wanted.summary}\n"
    if wanted.details:
        text += f"\n{wanted.details}\n"
    if wanted.aliases:
        names = ", ".join(f"{PROGRAM} {alias}" for alias in wanted.aliases.split(", "))
        text += f"\nAliases:\n  {names}\n"
    if wanted.flags:
        text += "\nOptions:\n" + flag_lines(wanted.flags)
    if wanted.examples:
        text += "\nExamples:\n" + "".join(f"  {PROGRAM} {example}\n" for example in wanted.examples)
    return text


def _table(title: str, members: dict[str, tuple[str, str, str]], ordered: bool = True) -> str:
    names = sorted(members) if ordered else list(members)
    return f"{title}:\n" + "".join(f"  {name:<11} {members[name][2]}\n" for name in names)


def flag_lines(flags: Sequence[Flag]) -> str:
    """A line or more for each flag, sorted by name."""
    shown = sorted((flag for flag in flags if not flag.hidden), key=lambda flag: flag.name)
    heads = [
        (f"  -{flag.short}, " if flag.short else "      ") + f"--{flag.name}" + (f" {flag.shown}" if flag.shown else "")
        for flag in shown
    ]
    width = max((len(head) for head in heads), default=0) + 3
    lines = []
    for flag, head in zip(shown, heads, strict=True):
        texts = wrap(explained(flag), max(24, columns() - width))
        lines.append(head.ljust(width) + texts[0])
        lines += [" " * width + text for text in texts[1:]]
    return "".join(line.rstrip() + "\n" for line in lines)


def explained(flag: Flag) -> str:
    """What a flag does, and what it is if it is not given."""
    return flag.help + _default(flag)


def _default(flag: Flag) -> str:
    if flag.default in (False, "", (), 0):
        return ""
    if isinstance(flag.default, str):
        return f' (default "{flag.default}")'
    return f" (default {str(flag.default).lower()})"


def columns() -> int:
    """The terminal's width, 80 if there is none."""
    try:
        return os.get_terminal_size(1).columns or 80
    except OSError:
        return 80


def wrap(text: str, width: int) -> list[str]:
    """Lines of at most `width` characters, broken between words; line ends in the text stay."""
    lines = []
    for paragraph in text.split("\n"):
        line = ""
        for word in paragraph.split(" "):
            if line and len(line) + 1 + len(word) > width:
                lines.append(line)
                line = word
            else:
                line = f"{line} {word}" if line else word
        lines.append(line)
    return lines
