"""`inspect` of everything: JSON, or a template for each object."""

from __future__ import annotations

import sys

from corral import jsontext
from corral.cli.command import Command, Session, tell
from corral.cli.flags import Flag
from corral.cli.problems import CliError, DaemonError
from corral.cli.transport import quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Getter = Callable[[str], Any]


def show(session: Session, names: list[str], get: Getter, format_: str) -> int:
    """Print every object that is found, and after that what was not."""
    found: list[Any] = []
    problems: list[str] = []
    for name in names:
        try:
            found.append(get(name))
        except DaemonError as error:
            problems.append(str(error))
        except NoSuchObject as error:
            problems.append(str(error))
    if not format_ and (shown := _for_people(found)):
        sys.stdout.write(shown)
    elif format_ in ("", "json"):
        sys.stdout.write((jsontext.indented(found) if not format_ else jsontext.dumps(found)) + "\n")
    elif found:
        from corral.cli.template import Template

        template = Template(format_.replace("\\t", "\t").replace("\\n", "\n"))
        for one in found:
            try:
                text = template.render(one if _untyped(format_) else _typed(one))
            except CliError:
                sys.stdout.write("\n")
                raise
            sys.stdout.write(text + "\n")
    elif problems:
        sys.stdout.write("\n")
    if problems:
        tell(session, "\n".join(problems))
        return 1
    return 0


def _for_people(found: list[Any]) -> str:
    """A summary of each object, if a person looks at it; empty if not."""
    from corral.cli.terminal import is_terminal

    if not is_terminal(1):
        return ""
    import time

    from corral.cli import colours, summary

    coloured = colours.wanted()
    texts = [summary.text(one, time.time(), coloured) for one in found]
    if not texts or not all(texts):
        return ""
    hint = "everything: --format json"
    return "\n".join(texts) + f"\n{colours.paint(hint, colours.FAINT) if coloured else hint}\n"


_LISTS = frozenset(
    """Binds CapAdd CapDrop Cmd DNSNames DeviceCgroupRules DeviceRequests Devices Dns DnsOptions DnsSearch Entrypoint
    Env ExecIDs ExtraHosts GroupAdd IPAMConfigs Layers Links Aliases MaskedPaths Mounts OnBuild ReadonlyPaths
    RepoDigests RepoTags SecurityOpt Shell Ulimits VolumesFrom Config BlkioWeightDevice BlkioDeviceReadBps
    BlkioDeviceWriteBps BlkioDeviceReadIOps BlkioDeviceWriteIOps""".split()
)
_MAPS = frozenset(
    """Annotations Containers Data DriverOpts ExposedPorts Labels Networks Options Ports PortBindings Status StorageOpt
    Sysctls Tmpfs Volumes""".split()
)


# Fields that docker's own structures spell otherwise: a template with one of them is run on the plain JSON.
_SPELT_OTHERWISE = (".Id", ".Dns", ".DnsOptions", ".DnsSearch", ".HostIp")


def _untyped(format_: str) -> bool:
    for name in _SPELT_OTHERWISE:
        position = format_.find(name)
        if position >= 0 and not format_[position + len(name) : position + len(name) + 1].isalnum():
            return True
    return False


def _typed(value: Any, name: str = "") -> Any:
    """The value with nulls that print as docker's, which knows of every field whether it is a list or a map."""
    if isinstance(value, dict):
        return {key: _typed(item, key) for key, item in value.items()}
    if isinstance(value, list):
        return [_typed(item) for item in value]
    if value is not None:
        return value
    return jsontext.NilList() if name in _LISTS else jsontext.NilMap() if name in _MAPS else jsontext.Nil()


class NoSuchObject(CliError):
    """No kind of object has this name."""

    def __init__(self, name: str, kind: str = "object") -> None:
        super().__init__(f"Error: No such {kind}: {name}")


def _containers(session: Session) -> Getter:
    query = {"size": True} if session.flags["size"] else None
    return lambda name: session.client.get(f"/containers/{name}/json", query)


def _images(session: Session) -> Getter:
    from corral.cli.archives import platform_json

    query = {"platform": platform_json(session.flags["platform"])} if "platform" in session.flags.names() else None
    return lambda name: session.client.get(f"/images/{quote(name, '/:@')}/json", query)


def _networks(session: Session) -> Getter:
    verbose = "verbose" in session.flags.names() and session.flags["verbose"]
    return lambda name: session.client.get(f"/networks/{name}", {"verbose": verbose or None, "scope": None})


def _volumes(session: Session) -> Getter:
    return lambda name: session.client.get(f"/volumes/{name}")


_KINDS: dict[str, Callable[[Session], Getter]] = {
    "container": _containers,
    "image": _images,
    "network": _networks,
    "volume": _volumes,
}


def _again(session: Session, names: list[str]) -> int:
    """`--as`: how to make containers again."""
    from corral.cli.recreate import as_compose, as_run

    writers = {"run": as_run, "compose": as_compose}
    writer = writers.get(session.flags["as"])
    if writer is None:
        raise CliError(f'invalid value "{session.flags["as"]}" for "--as": must be run or compose', 125)
    for name in names:
        container = session.client.get(f"/containers/{name}/json")
        try:
            image = session.client.get(f"/images/{container['Image']}/json")
        except DaemonError:  # removed since: then everything is said
            image = {}
        sys.stdout.write(writer(container, image))
    return 0


def _anything(session: Session) -> int:
    if session.flags["as"]:
        return _again(session, session.arguments)
    kind = session.flags["type"]
    if session.flags.changed("type") and not kind:
        raise CliError('type is empty: must be one of "container", "image", "network", "volume"')
    if kind and kind not in _KINDS:
        raise CliError(f'unknown type: "{kind}": must be one of "container", "image", "network", "volume"')
    getters = [_KINDS[kind](session)] if kind else [make(session) for make in _KINDS.values()]

    def get(name: str) -> Any:
        for getter in getters:
            try:
                return getter(name)
            except DaemonError as error:
                if kind or error.code not in (404, 400, 501):
                    raise
        raise NoSuchObject(name)

    return show(session, session.arguments, get, session.flags["format"])


def _of(kind: str) -> Callable[[Session], int]:
    return lambda session: show(session, session.arguments, _KINDS[kind](session), session.flags["format"])


def _container(session: Session) -> int:
    if session.flags["as"]:
        return _again(session, session.arguments)
    return show(session, session.arguments, _containers(session), session.flags["format"])


_FORMAT = Flag("format", "f", "string", "Go template for each object, or `json` for one line of JSON")
_SIZE = Flag("size", "s", "bool", "Show the size of files, too")
_AS = Flag("as", "", "string", "Print what would make the container again: run or compose")
INSPECT = Command(
    _anything,
    "Show everything about containers, images, networks or volumes",
    "[OPTIONS] NAME|ID [NAME|ID...]",
    (_AS, _FORMAT, _SIZE, Flag("type", "", "string", "Look only at this type of object")),
    least=1,
    most=None,
    examples=("inspect -f '{{.State.Status}}' web", "inspect -f '{{json .Config.Env}}' web"),
)
CONTAINER_INSPECT = Command(
    _container,
    "Show everything about containers",
    "[OPTIONS] CONTAINER [CONTAINER...]",
    (_AS, _FORMAT, _SIZE),
    1,
    None,
)
IMAGE_INSPECT = Command(
    _of("image"),
    "Show everything about images",
    "[OPTIONS] IMAGE [IMAGE...]",
    (_FORMAT, Flag("platform", "", "string", "Of this platform (os[/arch[/variant]])")),
    1,
    None,
)
NETWORK_INSPECT = Command(
    _of("network"),
    "Show everything about networks",
    "[OPTIONS] NETWORK [NETWORK...]",
    (_FORMAT, Flag("verbose", "v", "bool", "Show what helps to find faults")),
    1,
    None,
)
VOLUME_INSPECT = Command(
    _of("volume"), "Show everything about volumes", "[OPTIONS] VOLUME [VOLUME...]", (_FORMAT,), 1, None
)
