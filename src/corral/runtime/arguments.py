"""Command lines in the manner of runc: `--flag value`, `--flag=value`, `-f value`, global flags before the verb.

Pure. `argparse` would cost as much time as making a container does.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping


class UsageError(Exception):
    """The command line is wrong."""


class Flags:
    """Parsed flags: the last value wins in `get`, all are in `all`; a switch has the value "true" or "false"."""

    __slots__ = ("_values", "positional")

    def __init__(self) -> None:
        self._values: dict[str, list[str]] = {}
        self.positional: list[str] = []

    def add(self, name: str, value: str) -> None:
        self._values.setdefault(name, []).append(value)

    def get(self, name: str, default: str = "") -> str:
        return self._values.get(name, [default])[-1]

    def all(self, name: str) -> list[str]:
        return self._values.get(name, [])

    def has(self, name: str) -> bool:
        return name in self._values

    def on(self, name: str) -> bool:
        """Whether a switch is on."""
        return self.get(name, "false") == "true"

    def number(self, name: str, default: int = 0) -> int:
        text = self.get(name, str(default))
        try:
            return int(text)
        except ValueError:
            raise UsageError(f'invalid value "{text}" for flag --{name}') from None


def parse(words: list[str], known: Mapping[str, bool], short: Mapping[str, str], interleaved: bool = True) -> Flags:
    """Split `words` into flags and the rest.

    `known`: flag -> whether it takes a value; `short`: letter -> flag. Flags end at `--`, and at the first word that
    is none unless `interleaved`.
    """
    flags = Flags()
    index = 0
    while index < len(words):
        word = words[index]
        index += 1
        if word == "--":
            flags.positional += words[index:]
            break
        if not word.startswith("-") or word == "-":
            flags.positional.append(word)
            if interleaved:
                continue
            flags.positional += words[index:]
            break
        name, equals, value = word.lstrip("-").partition("=")
        name = short.get(name, name)
        if name not in known:
            raise UsageError(f"flag provided but not defined: {word}")
        if not known[name]:
            if equals and value not in ("true", "false"):
                raise UsageError(f'invalid boolean value "{value}" for --{name}')
            value = value or "true"
        elif not equals:
            if index >= len(words):
                raise UsageError(f"flag needs an argument: {word}")
            value = words[index]
            index += 1
        flags.add(name, value)
    return flags
