"""The functions of templates."""

from __future__ import annotations

from corral import jsontext

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


def _index(value: Any, *keys: Any) -> Any:
    for key in keys:
        if value is None:
            raise LookupError("index of untyped nil")
        if isinstance(value, dict):
            value = value.get(key)
        elif isinstance(key, int) and 0 <= key < len(value):
            value = value[key]
        else:
            raise LookupError(f"reflect: slice index out of range: {key}")
    return "" if value is None else value


def _slice(value: Any, *bounds: int) -> Any:
    return value[slice(*bounds)] if bounds else value


def _truncate(text: str, length: int) -> str:
    return text if len(text) < length else text[:length]


def _pad(text: str, before: int, after: int) -> str:
    return " " * before + text + " " * after if text else text


def _join(items: Any, separator: str) -> str:
    return separator.join(str(item) for item in items or ())


def _equal(first: Any, *others: Any) -> bool:
    return any(first == other for other in others)


def _printf(format_: str, *values: Any) -> str:
    from corral.cli.template import nested

    out, rest, position = "", list(values), 0
    while position < len(format_):
        char = format_[position]
        if char != "%":
            out += char
            position += 1
            continue
        end = position + 1
        while end < len(format_) and format_[end] in "+-# 0123456789.":
            end += 1
        flags, verb = format_[position + 1 : end], format_[end : end + 1]
        position = end + 1
        if verb == "%":
            out += "%"
        elif not rest:
            out += f"%!{verb}(MISSING)"
        else:
            out += _verb(flags, verb, rest.pop(0), nested)
    return out


def _verb(flags: str, verb: str, value: Any, show: Callable[[Any], str]) -> str:
    if verb in "dxXofeg" and isinstance(value, int | float):
        return ("%" + flags + verb) % value
    text = jsontext.dumps(str(value)) if verb == "q" else value if isinstance(value, str) else show(value)
    return ("%" + flags.replace("+", "").replace("#", "") + "s") % text


def _print(*values: Any) -> str:
    from corral.cli.template import nested

    return "".join(value if isinstance(value, str) else nested(value) for value in values)


def _println(*values: Any) -> str:
    from corral.cli.template import nested

    return " ".join(value if isinstance(value, str) else nested(value) for value in values) + "\n"


def _and(operands: list[Callable[[], Any]]) -> Any:
    value: Any = None
    for operand in operands:
        value = operand()
        if not value:
            break
    return value


def _or(operands: list[Callable[[], Any]]) -> Any:
    value: Any = None
    for operand in operands:
        value = operand()
        if value:
            break
    return value


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "json": lambda value: jsontext.dumps(value),
    "join": _join,
    "split": lambda text, separator: text.split(separator) if separator else list(text),
    "title": lambda text: " ".join(word[:1].upper() + word[1:] for word in text.split(" ")),
    "upper": lambda text: text.upper(),
    "lower": lambda text: text.lower(),
    "pad": _pad,
    "truncate": _truncate,
    "println": _println,
    "print": _print,
    "printf": _printf,
    "index": _index,
    "slice": _slice,
    "len": lambda value: len(value),
    "html": lambda value: str(value).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;"),
    "not": lambda value: not value,
    "eq": _equal,
    "ne": lambda one, other: one != other,
    "lt": lambda one, other: one < other,
    "le": lambda one, other: one <= other,
    "gt": lambda one, other: one > other,
    "ge": lambda one, other: one >= other,
    "and": _and,
    "or": _or,
}
LAZY: dict[str, Callable[[list[Callable[[], Any]]], Any]] = {"and": _and, "or": _or}
