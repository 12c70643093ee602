"""Signal names and numbers, as `kill` and `--stop-signal` spell them."""

from __future__ import annotations

import signal

from corral.errors import InvalidParameter

_REALTIME_MIN, _REALTIME_MAX = 34, 64


class InvalidSignal(InvalidParameter):
    """No signal has this name."""

    def __init__(self, text: str) -> None:
        super().__init__(f"invalid signal: {text}")


def parse(text: str) -> int:
    """`9`, `KILL`, `SIGKILL` and `RTMIN+3` as a number; raises InvalidSignal."""
    if text.lstrip("-").isdecimal():
        number = int(text)
        if not 0 < number <= _REALTIME_MAX:
            raise InvalidSignal(text)
        return number
    name = text.upper().removeprefix("SIG")
    for base, start, sign in (("RTMIN", _REALTIME_MIN, 1), ("RTMAX", _REALTIME_MAX, -1)):
        rest = name.removeprefix(base)
        if rest != name:
            offset = rest.lstrip("+-")
            if rest and not offset.isdecimal():
                raise InvalidSignal(text)
            number = start + sign * int(offset or 0)
            if not _REALTIME_MIN <= number <= _REALTIME_MAX:
                raise InvalidSignal(text)
            return number
    try:
        return int(signal.Signals[f"SIG{name}"])
    except KeyError:
        raise InvalidSignal(text) from None
