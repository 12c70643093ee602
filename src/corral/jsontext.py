"""JSON in and out without the standard `json` package, whose import alone costs 10 ms (it loads `re` and `enum`).

The scanner and the string encoder are the ones in C that `json` itself uses; an interpreter without them gets `json`.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

try:
    from _json import encode_basestring, make_scanner  # type: ignore[import-not-found, unused-ignore]
except ImportError:  # another Python than CPython
    from json.decoder import JSONDecoder
    from json.encoder import encode_basestring

    _scan: Callable[[str, int], tuple[Any, int]] = JSONDecoder().raw_decode
else:

    class _Settings:
        strict = False
        object_hook = None
        object_pairs_hook = None
        parse_float = float
        parse_int = int
        parse_constant = float
        memo: dict[str, str] = {}  # noqa: RUF012  the scanner asks for it

    _scan = make_scanner(_Settings())  # type: ignore[arg-type]

_quote: Callable[[str], str] = encode_basestring


class Nil(tuple[()]):
    """A null whose Go type is known: it prints as that type's zero value, is empty, and is null in JSON."""

    __slots__ = ()
    text = "<nil>"


class NilList(Nil):
    """A null list."""

    __slots__ = ()
    text = "[]"


class NilMap(Nil):
    """A null map."""

    __slots__ = ()
    text = "map[]"


def loads(data: bytes | str) -> Any:
    """The value of a JSON text; raises ValueError."""
    text = data if isinstance(data, str) else data.decode("utf-8", "replace")
    try:
        return _scan(text, len(text) - len(text.lstrip()))[0]
    except StopIteration:
        raise ValueError(f"not JSON: {text[:80]!r}") from None


def dumps(value: Any) -> str:
    """Compact JSON, in the order of the dicts, as Go's encoder writes it."""
    if isinstance(value, str):
        return _quote(value)
    if isinstance(value, dict):
        return "{" + ",".join([f"{_quote(str(key))}:{dumps(item)}" for key, item in value.items()]) + "}"
    if isinstance(value, Nil):
        return "null"
    if isinstance(value, list | tuple):
        return "[" + ",".join([dumps(item) for item in value]) + "]"
    return _scalar(value)


def indented(value: Any, indent: str = "    ", prefix: str = "") -> str:
    """JSON with one value a line, as `docker inspect` prints it."""
    deeper = prefix + indent
    if isinstance(value, dict) and value:
        parts = [f"{deeper}{_quote(str(key))}: {indented(item, indent, deeper)}" for key, item in value.items()]
        return "{\n" + ",\n".join(parts) + f"\n{prefix}}}"
    if isinstance(value, list | tuple) and value:
        parts = [f"{deeper}{indented(item, indent, deeper)}" for item in value]
        return "[\n" + ",\n".join(parts) + f"\n{prefix}]"
    return dumps(value)


def _scalar(value: Any) -> str:
    if value is None:
        return "null"
    if value is True:
        return "true"
    if value is False:
        return "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 1e21 else repr(value)
    raise TypeError(f"cannot write {type(value).__name__} as JSON")
