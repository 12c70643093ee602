"""Flags as Docker's command line has them: `--name value`, `--name=value`, `-n value`, `-nvalue`, clusters like `-it`.

Written by hand because importing `argparse` costs 25 ms, as much as a whole docker command.
"""

from __future__ import annotations

from corral.cli import values
from corral.cli.problems import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any


class Flag:
    """One flag.  `kind` says how its value is read, and is what help shows for the value.

    bool; string; list (repeatable); strings (repeatable, and each a comma-separated list); map (repeatable K=V, as
    a list of texts); int, uint, uint16; bytes, swap (sizes); decimal (CPUs); duration (nanoseconds).
    """

    __slots__ = ("default", "help", "hidden", "kind", "name", "short", "shown")

    def __init__(
        self,
        name: str,
        short: str,
        kind: str,
        help: str = "",
        default: Any = None,
        shown: str = "",
        hidden: bool = False,
    ) -> None:
        self.name = name
        self.short = short
        self.kind = kind
        self.help = help
        self.default = _ZERO[kind] if default is None else default
        self.shown = shown or ("" if kind == "bool" else _SHOWN.get(kind, kind))
        self.hidden = hidden

    @property
    def title(self) -> str:
        """How errors name the flag."""
        return f"-{self.short}, --{self.name}" if self.short else f"--{self.name}"


_ZERO: dict[str, Any] = {
    "bool": False, "string": "", "list": (), "strings": (), "map": (), "int": 0, "uint": 0, "uint16": 0,
    "bytes": 0, "swap": 0, "decimal": 0, "duration": 0,
}  # fmt: skip
_SHOWN = {"swap": "bytes"}
_REPEATABLE = ("list", "strings", "map")

_READERS: dict[str, Callable[[str], Any]] = {
    "bool": values.boolean,
    "string": str,
    "list": str,
    "strings": values.csv_fields,
    "map": str,
    "int": values.whole,
    "uint": lambda text: values.whole(text, 0, 2**64 - 1, "ParseUint"),
    "uint16": values.uint16,
    "bytes": values.size_bytes,
    "swap": values.swap_bytes,
    "decimal": values.nano_cpus,
    "duration": values.duration_ns,
}


class Flags:
    """The values of a command's flags: `flags["name"]`; defaults where nothing was given."""

    __slots__ = ("_given", "_table")

    def __init__(self, table: Sequence[Flag]) -> None:
        self._table = {flag.name: flag for flag in table}
        self._given: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        found = self._given.get(name)
        if found is None:
            flag = self._table[name]
            return [] if flag.kind in _REPEATABLE and flag.default == () else flag.default
        return found

    def changed(self, name: str) -> bool:
        """Whether the flag was given at all."""
        return name in self._given

    def names(self) -> list[str]:
        """Every flag there is."""
        return list(self._table)

    def each(self, name: str, read: Callable[[str], Any]) -> list[Any]:
        """Every occurrence of a repeatable flag, read; raises UsageError as for any value that cannot be read."""
        found = []
        for item in self[name]:
            try:
                found.append(read(item))
            except ValueError as error:
                title = self._table[name].title
                raise UsageError(f'invalid argument "{item}" for "{title}" flag: {error}') from None
        return found

    def any_changed(self) -> bool:
        """Whether any flag was given."""
        return bool(self._given)

    def set(self, flag: Flag, text: str) -> None:
        """Take one occurrence; raises UsageError."""
        try:
            value = _READERS[flag.kind](text)
        except ValueError as error:
            raise UsageError(f'invalid argument "{text}" for "{flag.title}" flag: {error}') from None
        if flag.kind in _REPEATABLE:
            self._given.setdefault(flag.name, []).extend(value if flag.kind == "strings" else [value])
        else:
            self._given[flag.name] = value


HELP = Flag("help", "", "bool", "Print usage", hidden=True)


def parse(table: Sequence[Flag], words: Sequence[str], interspersed: bool = True) -> tuple[Flags, list[str]]:
    """Read flags and arguments; without `interspersed` everything after the first argument is an argument.

    Raises UsageError with the text of Docker's client.
    """
    names = {flag.name: flag for flag in table}
    shorts = {flag.short: flag for flag in table if flag.short}
    names.setdefault("help", HELP)
    flags = Flags([*table, HELP])
    arguments: list[str] = []
    rest = list(reversed(words))
    while rest:
        word = rest.pop()
        if word == "--":
            arguments += reversed(rest)
            break
        if len(word) < 2 or word[0] != "-":
            arguments.append(word)
            if not interspersed:
                arguments += reversed(rest)
                break
        elif word[1] == "-":
            _long(flags, names, word, rest)
        else:
            _cluster(flags, names, shorts, word[1:], rest)
    return flags, arguments


def _long(flags: Flags, names: dict[str, Flag], word: str, rest: list[str]) -> None:
    name, equals, value = word[2:].partition("=")
    if not name or name[0] == "-":
        raise UsageError(f"bad flag syntax: {word}")
    flag = names.get(name)
    if flag is None:
        raise UsageError(f"unknown flag: --{name}{_suggestion(name, names)}")
    if equals:
        flags.set(flag, value)
    elif flag.kind == "bool":
        flags.set(flag, "true")
    elif rest:
        flags.set(flag, rest.pop())
    else:
        raise UsageError(f"flag needs an argument: --{name}")


def _cluster(flags: Flags, names: dict[str, Flag], shorts: dict[str, Flag], letters: str, rest: list[str]) -> None:
    """`-it`, `-p80:80`, `-e=K=V`."""
    whole = letters
    while letters:
        flag = shorts.get(letters[0])
        if flag is None and letters[0] == "h":
            flag = names["help"]
        if flag is None:
            raise UsageError(f"unknown shorthand flag: '{letters[0]}' in -{letters}")
        following = letters[1:]
        if following.startswith("="):
            flags.set(flag, following[1:])
            return
        if flag.kind == "bool":
            flags.set(flag, "true")
            letters = following
            continue
        if following:
            flags.set(flag, following)
        elif rest:
            flags.set(flag, rest.pop())
        else:
            raise UsageError(f"flag needs an argument: '{flag.short}' in -{whole}")
        return


def _suggestion(name: str, names: dict[str, Flag]) -> str:
    from corral.cli.suggest import nearest

    found = nearest(name, [known for known, flag in names.items() if not flag.hidden])
    return f" (did you mean --{found}?)" if found else ""
