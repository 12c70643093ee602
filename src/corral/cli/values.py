"""Reading the values of flags: sizes, durations, numbers.  Every function raises ValueError with Docker's text."""

from __future__ import annotations

from corral.quantities import duration_ns as duration_ns

_SIZE_UNITS = {"": 0, "b": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}
_TRUE = ("1", "t", "T", "TRUE", "true", "True")
_FALSE = ("0", "f", "F", "FALSE", "false", "False")


def boolean(text: str) -> bool:
    """Go's booleans."""
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise ValueError(f'strconv.ParseBool: parsing "{text}": invalid syntax')


def whole(text: str, low: int = -(2**63), high: int = 2**63 - 1, function: str = "ParseInt") -> int:
    """A whole number between bounds, decimal or with a prefix (0x, 0o, 0b)."""
    try:
        value = int(text, 0 if text.lstrip("+-")[:2].lower() in ("0x", "0o", "0b") else 10)
        if text != text.strip() or not text.isascii():
            raise ValueError
    except ValueError:
        raise ValueError(f'strconv.{function}: parsing "{text}": invalid syntax') from None
    if not low <= value <= high:
        raise ValueError(f'strconv.{function}: parsing "{text}": value out of range')
    return value


def uint16(text: str) -> int:
    """A whole number from 0 to 65,535."""
    return whole(text, 0, 65535, "ParseUint")


def size_bytes(text: str) -> int:
    """A size such as `512`, `64m`, `1.5GiB`: units of 1,024, in bytes."""
    lower = text.strip().lower()
    digits = len(lower) - len(lower.lstrip("0123456789."))
    number, unit = lower[:digits], lower[digits:].strip()
    unit = unit.removesuffix("ib") if unit.endswith("ib") and len(unit) == 3 else unit
    unit = unit.removesuffix("b") if len(unit) == 2 else unit
    try:
        if unit not in _SIZE_UNITS or not text.isascii():
            raise ValueError
        exponent = _SIZE_UNITS[unit]
        return int(number) << 10 * exponent if number.isdigit() else int(float(number) * 1024**exponent)
    except (ValueError, OverflowError):
        raise ValueError(f"invalid size: '{text}'") from None


def swap_bytes(text: str) -> int:
    """A size, or -1 for unlimited."""
    return -1 if text == "-1" else size_bytes(text)


def nano_cpus(text: str) -> int:
    """`1.5` CPUs in units of 1e-9; `1/2` too."""
    top, slash, bottom = text.partition("/")
    try:
        whole_part, _, fraction = top.partition(".")
        if not (whole_part + fraction).isdigit() or not top.isascii():
            raise ValueError
        numerator = int(whole_part + fraction) * 10**9
        denominator: int = 10 ** len(fraction)
        if slash:
            denominator *= int(bottom)
        value, rest = numerator // denominator, numerator % denominator
    except (ValueError, ZeroDivisionError):
        raise ValueError(f"failed to parse {text} as a rational number") from None
    if rest:
        raise ValueError("value is too precise")
    return value


def csv_fields(text: str) -> list[str]:
    """The fields of one CSV record, quotes as in RFC 4180; raises ValueError."""
    if '"' not in text:
        return text.split(",")
    fields: list[str] = []
    rest = text
    while True:
        if rest.startswith('"'):
            field, rest = _quoted(rest)
        else:
            end = rest.find(",")
            field, rest = (rest, "") if end < 0 else (rest[:end], rest[end:])
            if '"' in field:
                raise ValueError('parse error on line 1, column 1: bare " in non-quoted-field')
        fields.append(field)
        if not rest:
            return fields
        rest = rest[1:]


def _quoted(text: str) -> tuple[str, str]:
    """The field that begins with a quote, and what follows it (empty or from a comma on)."""
    field, position = "", 1
    while True:
        end = text.find('"', position)
        if end < 0:
            raise ValueError('parse error on line 1, column 1: extraneous or missing " in quoted-field')
        field += text[position:end]
        if text[end + 1 : end + 2] != '"':
            break
        field += '"'
        position = end + 2
    rest = text[end + 1 :]
    if rest and rest[0] != ",":
        raise ValueError('parse error on line 1, column 1: extraneous or missing " in quoted-field')
    return field, rest


def key_values(items: list[str]) -> dict[str, str]:
    """`K=V` items as a dict; a key alone has an empty value."""
    return {key: value for key, _, value in (item.partition("=") for item in items)}
