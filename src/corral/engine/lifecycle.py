"""The table of container states: who may do what, from where, and what Docker says otherwise."""

from __future__ import annotations

from typing import Literal

from corral.errors import Conflict, CorralError, NotModified

Status = Literal["created", "running", "paused", "restarting", "removing", "exited", "dead"]
Verb = Literal["start", "stop", "kill", "pause", "unpause", "exec", "remove", "rename", "resize", "attach", "restart"]

ALIVE: frozenset[str] = frozenset(("running", "paused", "restarting"))


class AlreadyStarted(NotModified):
    """A start of what runs."""


class AlreadyStopped(NotModified):
    """A stop of what does not run."""


class WrongState(Conflict):
    """The container's state does not allow the request."""


def check(verb: Verb, status: Status, container: str, ref: str = "") -> None:
    """Raise unless `verb` is allowed in `status`; Docker's message tells the id, or `ref`, what the client said."""
    refusal = _REFUSALS.get((verb, status))
    if refusal is not None:
        kind, text = refusal
        raise kind(text.format(id=container, ref=ref or container))


_Refusal = tuple[type[CorralError], str]

_PAUSED_START = "cannot start a paused container, try unpause instead"
_NOT_RUNNING = "Container {id} is not running"
_PAUSED = "Container {id} is paused"
_GONE = "container is marked for removal and cannot be started"

_REFUSALS: dict[tuple[str, str], _Refusal] = {
    ("start", "running"): (AlreadyStarted, "container already started"),
    ("start", "restarting"): (AlreadyStarted, "container already started"),
    ("start", "paused"): (WrongState, _PAUSED_START),
    ("start", "removing"): (WrongState, _GONE),
    ("start", "dead"): (WrongState, "container is dead and cannot be started"),
    ("stop", "created"): (AlreadyStopped, "container is already stopped"),
    ("stop", "exited"): (AlreadyStopped, "container is already stopped"),
    ("stop", "dead"): (AlreadyStopped, "container is already stopped"),
    ("stop", "removing"): (AlreadyStopped, "container is already stopped"),
    ("kill", "created"): (WrongState, "cannot kill container: {ref}: container {id} is not running"),
    ("kill", "exited"): (WrongState, "cannot kill container: {ref}: container {id} is not running"),
    ("kill", "dead"): (WrongState, "cannot kill container: {ref}: container {id} is not running"),
    ("kill", "removing"): (WrongState, "cannot kill container: {ref}: container {id} is not running"),
    ("pause", "created"): (WrongState, "container {id} is not running"),
    ("pause", "exited"): (WrongState, "container {id} is not running"),
    ("pause", "dead"): (WrongState, "container {id} is not running"),
    ("pause", "removing"): (WrongState, "container {id} is not running"),
    ("pause", "paused"): (WrongState, "container {id} is already paused"),
    ("pause", "restarting"): (WrongState, "Container {id} is restarting, wait until the container is running"),
    ("unpause", "created"): (WrongState, "Container {id} is not paused"),
    ("unpause", "running"): (WrongState, "Container {id} is not paused"),
    ("unpause", "restarting"): (WrongState, "Container {id} is not paused"),
    ("unpause", "exited"): (WrongState, "Container {id} is not paused"),
    ("unpause", "dead"): (WrongState, "Container {id} is not paused"),
    ("unpause", "removing"): (WrongState, "Container {id} is not paused"),
    ("exec", "created"): (WrongState, "container {id} is not running"),
    ("exec", "exited"): (WrongState, "container {id} is not running"),
    ("exec", "dead"): (WrongState, "container {id} is not running"),
    ("exec", "removing"): (WrongState, "container {id} is not running"),
    ("exec", "paused"): (WrongState, "container {id} is paused, unpause the container before exec"),
    ("exec", "restarting"): (WrongState, "Container {id} is restarting, wait until the container is running"),
    ("attach", "paused"): (WrongState, "container {id} is paused, unpause the container before attach"),
    ("attach", "restarting"): (WrongState, "container {id} is restarting, wait until the container is running"),
    ("resize", "created"): (WrongState, "container {id} is not running"),
    ("resize", "exited"): (WrongState, "container {id} is not running"),
    ("resize", "dead"): (WrongState, "container {id} is not running"),
    ("resize", "removing"): (WrongState, "container {id} is not running"),
    ("remove", "removing"): (WrongState, "removal of container {id} is already in progress"),
    ("rename", "removing"): (WrongState, "container {id} is being removed"),
    ("rename", "dead"): (WrongState, "container {id} is dead"),
}
