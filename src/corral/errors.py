"""The kinds of error.

Concrete errors subclass exactly one kind, live beside the code that raises them and own their wording.
A kind knows nothing of HTTP (that is `corral.api.statuses`) and nothing of any resource.
"""

from __future__ import annotations


class CorralError(Exception):
    """Base of every error that Corral raises on purpose."""


class NotFound(CorralError):
    """The named object does not exist."""


class InvalidParameter(CorralError):
    """The request itself is wrong and will be wrong again."""


class Conflict(CorralError):
    """The object's present state does not allow the request."""


class NotModified(CorralError):
    """The object is already in the requested state."""


class Unauthorized(CorralError):
    """Credentials are missing or wrong."""


class Forbidden(CorralError):
    """The caller may not do this."""


class Unsupported(CorralError):
    """Corral, or this machine, cannot do this."""


class Unavailable(CorralError):
    """Something that is needed is not there now."""


class System(CorralError):
    """The machine failed us (a system call, a disk, a child process)."""


class DataLoss(CorralError):
    """Stored or received data is not what it should be."""


class Timeout(CorralError):
    """A deadline passed."""


class Cancelled(CorralError):
    """The caller withdrew."""
