"""The table of `corral top`: rows, their order, and the lines that fit on a screen.  Pure."""

from __future__ import annotations

from corral.cli.units import binary_size, human_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_MINIMUM_NAME = 12


class Row:
    """A running container, as of its last record; rates in bytes a second."""

    __slots__ = (
        "cpu_percent", "id", "image", "memory_bytes", "memory_limit_bytes", "name", "pids", "read_rate",
        "received_rate", "sent_rate", "status", "written_rate",
    )  # fmt: skip

    def __init__(self, id_: str, name: str, image: str, status: str) -> None:
        self.id = id_
        self.name = name
        self.image = image
        self.status = status
        self.cpu_percent = 0.0
        self.memory_bytes = self.memory_limit_bytes = 0.0
        self.received_rate = self.sent_rate = self.read_rate = self.written_rate = 0.0
        self.pids = 0


class Column:
    """A column: its title, width (0: what is left), the key that sorts by it, and what it shows."""

    __slots__ = ("key", "order", "show", "title", "width")

    def __init__(
        self, title: str, width: int, key: str, order: Callable[[Row], object] | None, show: Callable[[Row], str]
    ) -> None:
        self.title = title
        self.width = width
        self.key = key
        self.order = order
        self.show = show


def _rates(one: float, other: float) -> str:
    return f"{human_size(one, 3)}/{human_size(other, 3)}"


COLUMNS = (
    Column("NAME", 0, "a", lambda row: row.name, lambda row: row.name),
    Column("IMAGE", 24, "", None, lambda row: row.image),
    Column("STATUS", 18, "", None, lambda row: row.status),
    Column("CPU %", 8, "c", lambda row: -row.cpu_percent, lambda row: f"{row.cpu_percent:.1f}"),
    Column("MEMORY", 10, "m", lambda row: -row.memory_bytes, lambda row: binary_size(row.memory_bytes, 3)),
    Column("MEM %", 7, "", None, lambda row: _share(row)),
    Column(
        "NET IN/OUT a s", 16, "n", lambda row: -row.received_rate - row.sent_rate,
        lambda row: _rates(row.received_rate, row.sent_rate),
    ),
    Column(
        "DISK R/W a s", 16, "i", lambda row: -row.read_rate - row.written_rate,
        lambda row: _rates(row.read_rate, row.written_rate),
    ),
    Column("PIDS", 6, "p", lambda row: -row.pids, lambda row: str(row.pids)),
)  # fmt: skip
SORT_KEYS = {column.key: column for column in COLUMNS if column.key}
# What goes first when there is no room.
_EXPENDABLE = ("IMAGE", "STATUS", "MEM %", "PIDS", "DISK R/W a s", "NET IN/OUT a s")


def _share(row: Row) -> str:
    return f"{row.memory_bytes / row.memory_limit_bytes * 100:.1f}" if row.memory_limit_bytes else ""


def ordered(rows: Sequence[Row], key: str, backwards: bool) -> list[Row]:
    """By the column of the key, those that are alike by name."""
    column = SORT_KEYS[key]
    assert column.order is not None
    by_name = sorted(rows, key=lambda row: row.name)
    return sorted(by_name, key=column.order, reverse=backwards)  # type: ignore[arg-type]


def shown_columns(width: int) -> list[Column]:
    """The columns that fit beside a name."""
    columns = list(COLUMNS)
    for title in _EXPENDABLE:
        if sum(column.width for column in columns) + _MINIMUM_NAME <= width:
            break
        columns = [column for column in columns if column.title != title]
    return columns


def heading(width: int, key: str) -> str:
    """The titles; the column that sorts is marked."""
    columns = shown_columns(width)
    marked = [f"{column.title}{'*' if column.key == key else ''}" for column in columns]
    return _line(columns, marked, width)


def line(row: Row, width: int) -> str:
    """A container's line, exactly as wide as the screen."""
    columns = shown_columns(width)
    return _line(columns, [column.show(row) for column in columns], width)


def _line(columns: Sequence[Column], cells: Sequence[str], width: int) -> str:
    name_width = max(1, width - sum(column.width for column in columns))
    fitted = [
        (cell if len(cell) < size else f"{cell[: size - 2]}…").ljust(size)
        for cell, size in zip(cells, [column.width or name_width for column in columns], strict=True)
    ]
    return "".join(fitted)[:width].ljust(width)


def window(count: int, selected: int, height: int) -> range:
    """Which rows are on a screen with room for `height`, so that the selected one is among them."""
    first = max(0, min(selected - height // 2, count - height))
    return range(first, min(count, first + max(0, height)))


def totals(rows: Sequence[Row]) -> str:
    """All containers together."""
    cpu, memory = sum(row.cpu_percent for row in rows), sum(row.memory_bytes for row in rows)
    return f"{len(rows)} running, CPU {cpu:.1f} %, memory {binary_size(memory, 3)}"
