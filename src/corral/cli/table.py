"""Lists as tables, by template or as JSON, in Docker's layout; and the units that they show."""

from __future__ import annotations

import sys

from corral import jsontext
from corral.cli.units import human_size
from corral.wire.durations import human_duration

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any

__all__ = ["ago", "ellipsis", "human_duration", "human_size", "local_time", "quoted", "show", "text_table"]

_MINIMUM_WIDTH = 10
_PADDING = 3


class Row(dict[str, object]):
    """The fields of a line, and the labels that `{{.Label "NAME"}}` looks up."""

    __slots__ = ("methods",)

    def __init__(self, fields: Mapping[str, Any], labels: Mapping[str, str] | None) -> None:
        super().__init__(fields)
        found = labels or {}
        self.methods = {"Label": lambda name: found.get(name, "")}


class _Titles(dict[str, object]):
    """The headings; of a label it is the last part of its name, in words."""

    methods = {"Label": lambda name: name.rpartition(".")[2].replace("-", " ").replace("_", " ")}  # noqa: RUF012


def text_table(rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as their widest cell and three blanks, at least ten; the last one is not padded."""
    widths = [
        max(_MINIMUM_WIDTH, _PADDING + max(len(row[index]) for row in rows if index < len(row)))
        for index in range(max((len(row) for row in rows), default=0))
    ]
    lines = []
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row[:-1], widths, strict=False)]
        lines.append("".join(cells) + (row[-1] if row else "") + "\n")
    return "".join(lines)


def show(
    rows: Sequence[Mapping[str, Any]],
    columns: Sequence[str],
    titles: Mapping[str, str],
    format_: str = "",
) -> None:
    """Print rows: `columns` as a table without a format, or by the user's; `titles` are the headings of every field."""
    if format_ in ("", "table"):
        table = [[titles[name] for name in columns], *([_cell(row[name]) for name in columns] for row in rows)]
        sys.stdout.write(text_table(table))
        return
    if format_ == "json":
        for row in rows:
            sys.stdout.write(_html_safe(jsontext.dumps(dict(sorted(row.items())))) + "\n")
        return
    lines = _rendered(format_, rows)
    if format_.startswith("table"):
        lines = [*_rendered(format_, [_Titles(titles)]), *lines]
        cells = [line.split("\t") for whole in lines for line in whole.split("\n")]
        sys.stdout.write(text_table(cells))
    else:
        sys.stdout.write("".join(f"{line}\n" for line in lines))


def check(format_: str, titles: Mapping[str, str]) -> None:
    """Refuse a template with a field that there is not, as Docker does before it asks for anything; raises CliError."""
    if format_ not in ("", "table", "json"):
        _rendered(format_, [_Titles(titles)])


def _rendered(format_: str, rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """What a template makes of each row; raises CliError."""
    from corral.cli.problems import CliError
    from corral.cli.template import Template, TemplateError

    text = format_[len("table") :].strip() if format_.startswith("table") else format_
    try:
        template = Template(text.replace("\\t", "\t").replace("\\n", "\n"))
    except TemplateError as error:
        raise CliError(f"failed to parse template: {error.detail}") from None
    try:
        return [template.render(row) for row in map(_sorted, rows)]
    except TemplateError as error:
        raise CliError(f"failed to execute template: {error.detail}") from None


def _sorted(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """With the fields in the order that `{{json .}}` prints them in."""
    if isinstance(row, _Titles):
        return row
    fields = dict(sorted(row.items()))
    if not isinstance(row, Row):
        return fields
    found = Row(fields, None)
    found.methods = row.methods
    return found


def _html_safe(text: str) -> str:
    """The characters that Go's encoder escapes in whole records."""
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _cell(value: Any) -> str:
    return ("true" if value else "false") if isinstance(value, bool) else str(value)


def ellipsis(text: str, width: int) -> str:
    """At most `width` characters, the last one an ellipsis if something was cut."""
    return text if len(text) <= width else text[: max(width - 1, 0)] + "…"


def quoted(text: str) -> str:
    """In double quotes, as Go quotes."""
    return jsontext.dumps(text).replace("\\u007f", "\\x7f")


def ago(seconds: float) -> str:
    """`5 minutes ago`."""
    return human_duration(seconds) + " ago"


def local_time(seconds: int) -> str:
    """`2026-11-23 21:27:26 +0000 UTC`."""
    import time

    return time.strftime("%Y-%m-%d %H:%M:%S %z %Z", time.localtime(seconds))
