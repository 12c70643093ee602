"""What to do about an error, in a line after it.  Loaded when something has failed, never before.

The daemon's texts are all that a client has, so they are what is looked at.  Whatever goes wrong here is not told: the
error itself has been.
"""

from __future__ import annotations

import os
import re

from corral.cli.problems import CliError
from corral.cli.suggest import nearest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from corral.cli.command import Session

_DOCKER_SOCKET = "/var/run/docker.sock"
_CORRAL_SOCKET = "/var/run/corral.sock"


def hint(session: Session, text: str) -> str:
    """The line, without its end; empty if there is nothing to say."""
    for pattern, advise in _ADVICE:
        found = re.search(pattern, text)
        if found:
            try:
                return advise(session, found)
            except (CliError, OSError, KeyError, TypeError):
                return ""
    return ""


# --- the daemon --------------------------------------------------------------------------------------------------


def _not_allowed(session: Session, found: re.Match[str]) -> str:
    import grp

    path = found[1]
    try:
        group = grp.getgrgid(os.stat(path).st_gid).gr_name
    except (OSError, KeyError):
        group = "root"
    if group == "root":
        return "only root may use this socket: use sudo, or give the daemon a group (corrald --group NAME)"
    return f"members of the group {group} may: sudo usermod -aG {group} $USER, then log in again (or: newgrp {group})"


def _down(session: Session, found: re.Match[str]) -> str:
    path = found[1].removeprefix("unix://")
    if not found[1].startswith("unix://"):
        return ""
    others = [other for other in (_CORRAL_SOCKET, _DOCKER_SOCKET) if other != path and _answers(other)]
    if others:
        return f"a daemon answers at unix://{others[0]}: corral -H unix://{others[0]} ... (or set CORRAL_HOST)"
    if path == _DOCKER_SOCKET:
        return ""
    return (
        "start one with `corrald`, or try `corral quickstart`"
        if path == _CORRAL_SOCKET
        else f"start one there: corrald -H {found[1]}"
    )


def _answers(path: str) -> bool:
    import _socket

    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        sock.connect(path)
    except OSError:
        return False
    finally:
        sock.close()
    return True


# --- names -------------------------------------------------------------------------------------------------------


def _near(wanted: str, known: Iterable[str], otherwise: str) -> str:
    best = nearest(wanted, known)
    return f"did you mean {best}?" if best else otherwise


def _container(session: Session, found: re.Match[str]) -> str:
    listed = session.client.get("/containers/json", {"all": True})
    return _near(found[1], [name.strip("/") for one in listed for name in one["Names"]], "see `corral ps -a`")


def _images(session: Session) -> list[str]:
    return [name for one in session.client.get("/images/json") for name in one.get("RepoTags") or ()]


def _image(session: Session, found: re.Match[str]) -> str:
    return _near(found[1], _images(session), f"corral pull {found[1]}")


def _image_to_push(session: Session, found: re.Match[str]) -> str:
    return _near(found[1], _images(session), f"give an image that name first: corral tag IMAGE {found[1]}")


def _network(session: Session, found: re.Match[str]) -> str:
    known = [one["Name"] for one in session.client.get("/networks")]
    return _near(found[1], known, f"corral network create {found[1]}")


def _volume(session: Session, found: re.Match[str]) -> str:
    known = [one["Name"] for one in session.client.get("/volumes")["Volumes"] or ()]
    return _near(found[1], known, "see `corral volume ls`")


def _object(session: Session, found: re.Match[str]) -> str:
    listed = session.client.get("/containers/json", {"all": True})
    known = [name.strip("/") for one in listed for name in one["Names"]]
    known += _images(session) + [one["Name"] for one in session.client.get("/networks")]
    return _near(found[1], known, "")


# --- ports -------------------------------------------------------------------------------------------------------


def _port(session: Session, found: re.Match[str]) -> str:
    port = int(found[1])
    for one in session.client.get("/containers/json"):
        if any(each.get("PublicPort") == port for each in one.get("Ports") or ()):
            return f"port {port} belongs to the container {one['Names'][0].strip('/')}"
    owner = listener(port) if session.globals.endpoint().host.startswith("unix://") else ""
    return (
        f"port {port} belongs to {owner}" if owner else f"port {port} is taken: ss -lptn 'sport = :{port}' says by whom"
    )


def listener(port: int) -> str:
    """The program of this machine that listens there, as `NAME (pid N)`; empty if that cannot be seen."""
    sockets = set()
    for name in ("tcp", "tcp6"):
        with open(f"/proc/net/{name}") as file:
            for line in file.readlines()[1:]:
                fields = line.split()
                if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:
                    sockets.add(f"socket:[{fields[9]}]")
    for pid in filter(str.isdigit, os.listdir("/proc") if sockets else ()):
        folder = f"/proc/{pid}/fd"
        try:
            if any(os.readlink(f"{folder}/{fd}") in sockets for fd in os.listdir(folder)):
                with open(f"/proc/{pid}/comm") as file:
                    return f"{file.read().strip()} (pid {pid})"
        except OSError:
            continue  # it has ended, or is somebody else's
    return ""


# --- the rest ----------------------------------------------------------------------------------------------------


def _running(session: Session, found: re.Match[str]) -> str:
    return f"corral stop {found[1]}, or remove it with -f"


def _name_taken(session: Session, found: re.Match[str]) -> str:
    return f"corral rm {found[1]}, or choose another --name"


_ADVICE: tuple[tuple[str, Callable[[Session, re.Match[str]], str]], ...] = (
    (r"permission denied while trying to connect .* dial unix ([^:]+):", _not_allowed),
    (r"Cannot connect to the Docker daemon at (\S+?)\. Is the docker daemon running\?", _down),
    (r"No such container: (\S+)", _container),
    (r"No such image: (\S+)", _image),
    (r"does not exist locally with the tag: (\S+)", _image_to_push),
    (r"network (\S+) not found", _network),
    (r"get (\S+): no such volume", _volume),
    (r"No such object: (\S+)", _object),
    (r":(\d+) failed: port is already allocated", _port),
    (r":(\d+): (?:bind: )?address already in use", _port),
    (r'cannot remove container "/(\S+)": container is running', _running),
    (r'The container name "/(\S+)" is already in use', _name_taken),
)
