"""What a program that uses the client may have to catch.

`CorralError` is the base of all.  What the daemon refuses is a `Refusal` with its text and HTTP status, and of a kind:
`except corral.client.NotFound`.  The kinds are those of `corral.errors`.
"""

from __future__ import annotations

from corral import errors


class Refusal(Exception):
    """Mixed into each kind: `str(error)` is the daemon's own text, `status` the HTTP status (0 within a stream)."""

    status = 0

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class NotFound(Refusal, errors.NotFound):
    """404: there is no such object."""


class InvalidParameter(Refusal, errors.InvalidParameter):
    """400: the request is wrong, and will be wrong again."""


class Conflict(Refusal, errors.Conflict):
    """409: the object's state, or its name, is in the way."""


class Unauthorized(Refusal, errors.Unauthorized):
    """401: credentials are missing or wrong."""


class Forbidden(Refusal, errors.Forbidden):
    """403: not allowed."""


class Unsupported(Refusal, errors.Unsupported):
    """501: this daemon, or its machine, cannot do this."""


class Unavailable(Refusal, errors.Unavailable):
    """503: something that is needed is not there now."""


class Failed(Refusal, errors.System):
    """500, or an error in the middle of a stream: the daemon tried, and could not."""


class NotConnected(errors.Unavailable):
    """No daemon answers at the address."""


class Interrupted(errors.Unavailable):
    """The connection ended in the middle: what was asked for may have been done, or not."""


class TimedOut(errors.Timeout):
    """No answer came within the time that the caller gave."""


class UnreadableAnswer(errors.DataLoss):
    """What came is not what the API says: perhaps no daemon at all."""


class BadArgument(errors.InvalidParameter):
    """An argument that cannot be sent."""


class Ended(errors.Conflict):
    """The client, process or sandbox has been closed."""


_KINDS: dict[int, type[Refusal]] = {
    400: InvalidParameter,
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    501: Unsupported,
    503: Unavailable,
}


def refusal(status: int, message: str) -> Refusal:
    """The error for a status and the daemon's text."""
    return _KINDS.get(status, Failed if status >= 500 else InvalidParameter)(message, status)
