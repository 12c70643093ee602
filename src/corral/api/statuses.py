"""The one table from kinds of error to HTTP statuses."""

from __future__ import annotations

from corral import errors

_STATUS: dict[type[errors.CorralError], int] = {
    errors.NotFound: 404,
    errors.InvalidParameter: 400,
    errors.Conflict: 409,
    errors.NotModified: 304,
    errors.Unauthorized: 401,
    errors.Forbidden: 403,
    errors.Unsupported: 501,
    errors.Unavailable: 503,
    errors.System: 500,
    errors.DataLoss: 500,
    errors.Timeout: 500,
    errors.Cancelled: 500,
}


def of(error: BaseException) -> int | None:
    """The status of an error, or None when it is not one that Corral raises on purpose."""
    for kind in type(error).__mro__:
        if kind in _STATUS:
            return _STATUS[kind]
    return None


def first(error: BaseException) -> BaseException:
    """The error to tell the client: of a group, its first member."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
