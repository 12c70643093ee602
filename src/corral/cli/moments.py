"""`--since` and `--until`: moments as people write them, as the API wants them."""

from __future__ import annotations

from corral.cli import values
from corral.cli.problems import CliError


def api_moment(text: str, flag: str = "since") -> str | None:
    """Seconds since 1970 with nanoseconds, of a duration ago (`10m`), a date and time, or seconds; raises CliError."""
    if not text:
        return None
    import time

    try:
        return str((time.time_ns() - values.duration_ns(text)) // 10**9)  # whole seconds, as docker counts back
    except ValueError:
        pass
    seconds, _, fraction = text.partition(".")
    if seconds.isdigit() and (not fraction or fraction.isdigit()):
        return text
    found = _date(text)
    if found is None:
        raise CliError(f'invalid value for "{flag}": failed to parse value as time or duration: "{text}"')
    return _joined(found)


def _joined(moment_ns: int) -> str:
    return f"{moment_ns // 10**9}.{moment_ns % 10**9:09d}"


def _date(text: str) -> int | None:
    """RFC 3339 in any of its shorter forms; without a zone it is local time.  Nanoseconds since 1970."""
    import datetime

    head, dot, fraction = text.partition(".")
    digits, zone = "", ""
    if dot:
        digits = fraction[: len(fraction) - len(fraction.lstrip("0123456789"))]
        zone = fraction[len(digits) :]
    try:
        found = datetime.datetime.fromisoformat(head + zone)
    except ValueError:
        return None
    if found.tzinfo is None:
        found = found.astimezone()
    epoch = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
    whole = (found - epoch) // datetime.timedelta(seconds=1)
    return whole * 10**9 + int(digits[:9].ljust(9, "0") or 0)
