"""Manual pages, made from the commands' own help (man-pages(7), groff_man(7))."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from corral.cli import commands, helptext
from corral.cli.command import PROGRAM, Command
from corral.cli.flags import Flag
from corral.cli.main import GLOBAL_FLAGS, VERSION


def pages() -> dict[str, str]:
    """The text of every page by name: `corral`, `corral-run`, `corral-image`, `corral-image-ls`, ..."""
    found = {PROGRAM: _program()}
    for table in (commands.COMMON, commands.OTHERS):
        for name, place in table.items():
            found[f"{PROGRAM}-{name}"] = _command(f"{PROGRAM} {name}", commands.load(place))
    for group, (summary, members) in commands.GROUPS.items():
        found[f"{PROGRAM}-{group}"] = _group(group, summary, members)
        for name, place in members.items():
            found[f"{PROGRAM}-{group}-{name}"] = _command(f"{PROGRAM} {group} {name}", commands.load(place))
    return found


def _program() -> str:
    groups = {name: ("", "", summary) for name, (summary, _) in commands.GROUPS.items()}
    return _page(
        PROGRAM,
        "containers, for any daemon that speaks Docker's API",
        [
            ("SYNOPSIS", [f".B {PROGRAM}", "[OPTIONS] COMMAND [ARG...]"]),
            ("COMMANDS", list(_members("", {**commands.COMMON, **commands.OTHERS}))),
            ("GROUPS OF COMMANDS", list(_members("", groups))),
            ("OPTIONS", list(_flags(GLOBAL_FLAGS))),
            ("FILES", [".TP", ".I /run/corral.sock", "where corrald listens", ".TP", ".I /etc/corral/daemon.json",
                       "its configuration", ".TP", ".I /var/lib/corral", "its data"]),
        ],
    )  # fmt: skip


def _group(name: str, summary: str, members: dict[str, tuple[str, str, str]]) -> str:
    return _page(
        f"{PROGRAM}-{name}",
        _phrase(summary),
        [
            ("SYNOPSIS", [f".B {PROGRAM} {name}", "COMMAND [ARG...]"]),
            ("COMMANDS", list(_members(f"{name}-", members))),
            ("SEE ALSO", [f".BR {PROGRAM} (1)"]),
        ],
    )


def _command(path: str, command: Command) -> str:
    sections = [("SYNOPSIS", [f".B {path}", _plain(command.usage.replace("\n", f"\n.br\n{path} "))])]
    if command.details:
        sections.append(("DESCRIPTION", [".nf", _plain(command.details), ".fi"]))
    if command.flags:
        sections.append(("OPTIONS", list(_flags(command.flags))))
    if command.examples:
        sections.append(("EXAMPLES", [".nf", *(_plain(f"{PROGRAM} {one}") for one in command.examples), ".fi"]))
    sections.append(("SEE ALSO", [f".BR {PROGRAM} (1)"]))
    return _page(path.replace(" ", "-"), _phrase(command.summary), sections)


def _page(name: str, phrase: str, sections: Sequence[tuple[str, list[str]]]) -> str:
    lines = [f'.TH {_quoted(name.upper())} 1 "" "Corral {VERSION}" "Corral"', ".SH NAME"]
    lines.append(f"{_plain(name)} \\- {_plain(phrase)}")
    for title, body in sections:
        lines += [f".SH {title}", *body]
    return "\n".join(lines) + "\n"


def _members(prefix: str, members: dict[str, tuple[str, str, str]]) -> Iterator[str]:
    for name, (_, _, summary) in sorted(members.items()):
        yield from (".TP", f".BR {_plain(f'{PROGRAM}-{prefix}{name}')} (1)", _plain(summary))


def _flags(flags: Sequence[Flag]) -> Iterator[str]:
    for flag in sorted((flag for flag in flags if not flag.hidden), key=lambda flag: flag.name):
        name = (f"-{flag.short}, " if flag.short else "") + f"--{flag.name}"
        shown = f" \\fI{_plain(flag.shown)}\\fR" if flag.shown else ""
        yield from (".TP", f"\\fB{_plain(name)}\\fR{shown}", _plain(helptext.explained(flag)))


def _phrase(summary: str) -> str:
    return summary[:1].lower() + summary[1:]


def _quoted(text: str) -> str:
    return '"' + _plain(text) + '"'


def _plain(text: str) -> str:
    """The text, none of which groff takes for a request or an escape; lines that are breaks stay."""
    lines = text.replace("\\", "\\e").replace("-", "\\-").split("\n")
    return "\n".join(line if line == ".br" else f"\\&{line}" if line[:1] in (".", "'") else line for line in lines)
