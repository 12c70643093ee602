"""Removing what nothing uses: containers, images, networks, volumes, and all of them."""

from __future__ import annotations

import sys

from corral import jsontext
from corral.cli.command import Command, Session
from corral.cli.flags import Flag
from corral.cli.problems import CliError
from corral.cli.units import human_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


def _filters(session: Session, extra: dict[str, str] | None = None) -> str | None:
    found: dict[str, dict[str, bool]] = {name: {value: True} for name, value in (extra or {}).items()}
    for item in session.flags["filter"]:
        name, equals, value = item.partition("=")
        if not equals:
            raise CliError(
                f'invalid argument "{item}" for "--filter" flag: bad format of filter (expected name=value)', 125
            )
        if name.endswith("!"):
            name = f"{name[:-1]}!"
        found.setdefault(name, {})[value] = True
    return jsontext.dumps(found) if found else None


def _agreed(session: Session, warning: str) -> bool:
    if session.flags["force"]:
        return True
    from corral.cli.terminal import confirm

    return confirm(f"WARNING! {warning}\nAre you sure you want to continue?")


def _lines(title: str, items: list[str]) -> str:
    return "".join(f"{line}\n" for line in [f"{title}:", *items, ""]) if items else ""


def _containers_work(session: Session) -> tuple[str, int]:
    found = session.client.post("/containers/prune", {"filters": _filters(session)})
    return _lines("Deleted Containers", found["ContainersDeleted"] or []), found["SpaceReclaimed"]


def _networks_work(session: Session) -> tuple[str, int]:
    found = session.client.post("/networks/prune", {"filters": _filters(session)})
    return _lines("Deleted Networks", found["NetworksDeleted"] or []), 0


def _volumes_work(session: Session, everything: bool) -> tuple[str, int]:
    extra = {"all": "true"} if everything else None
    found = session.client.post("/volumes/prune", {"filters": _filters(session, extra)})
    return _lines("Deleted Volumes", found["VolumesDeleted"] or []), found["SpaceReclaimed"]


def _images_work(session: Session, everything: bool, dry_run: bool = False) -> tuple[str, int]:
    filters = _filters(session, {"dangling": "false" if everything else "true"})
    found = session.client.post("/images/prune", {"filters": filters, "dry-run": dry_run or None})
    items = [_image_line(one) for one in found["ImagesDeleted"] or ()]
    return _lines("Deleted Images", items), found["SpaceReclaimed"]


def _image_line(one: dict[str, Any]) -> str:
    return f"untagged: {one['Untagged']}" if one.get("Untagged") else f"deleted: {one['Deleted']}"


def _run(session: Session, warning: str, work: Callable[[], tuple[str, int]], show_space: bool = True) -> int:
    if not _agreed(session, warning):
        raise CliError(f"{session.path.rpartition(' ')[0].split()[-1]} prune has been cancelled")
    text, space = work()
    sys.stdout.write(text)
    if show_space:
        print(f"Total reclaimed space: {human_size(float(space))}")
    return 0


def _containers(session: Session) -> int:
    return _run(session, "This will remove all stopped containers.", lambda: _containers_work(session))


def _networks(session: Session) -> int:
    warning = "This will remove all custom networks not used by at least one container."
    return _run(session, warning, lambda: _networks_work(session), show_space=False)


def _volumes(session: Session) -> int:
    everything = session.flags["all"]
    which = "all" if everything else "anonymous"
    warning = f"This will remove {which} local volumes not used by at least one container."
    return _run(session, warning, lambda: _volumes_work(session, everything))


def _images(session: Session) -> int:
    everything = session.flags["all"]
    if session.flags["dry-run"]:
        text, space = _images_work(session, everything, dry_run=True)
        sys.stdout.write(text.replace("Deleted Images", "Would delete"))
        print(f"Would reclaim: {human_size(float(space))}")
        return 0
    warning = (
        "This will remove all images without at least one container associated to them."
        if everything
        else "This will remove all dangling images."
    )
    return _run(session, warning, lambda: _images_work(session, everything))


def _system(session: Session) -> int:
    flags = session.flags
    if flags["volumes"] and any(item.startswith("until=") for item in flags["filter"]):
        raise CliError('ERROR: The "until" filter is not supported with "--volumes"')
    removed = ["all stopped containers", "all networks not used by at least one container"]
    if flags["volumes"]:
        removed.append("all anonymous volumes not used by at least one container")
    removed.append(
        "all images without at least one container associated to them" if flags["all"] else "all dangling images"
    )
    removed.append("all build cache" if flags["all"] else "unused build cache")
    warning = "This will remove:\n" + "\n".join(f"  - {one}" for one in removed) + "\n"

    def work() -> tuple[str, int]:
        parts = [_containers_work(session), _networks_work(session)]
        if flags["volumes"]:
            parts.append(_volumes_work(session, False))
        parts.append(_images_work(session, flags["all"]))
        parts.append(_builds_work(session, flags["all"]))
        return "".join(text for text, _ in parts), sum(space for _, space in parts)

    return _run(session, warning, work)


def _builds_work(session: Session, everything: bool, keep_bytes: int = 0) -> tuple[str, int]:
    query = {"filters": _filters(session), "all": everything or None, "reserved-space": keep_bytes or None}
    found = session.client.post("/build/prune", query)
    return _lines("Deleted build cache objects", found["CachesDeleted"] or []), found["SpaceReclaimed"]


def _builds(session: Session) -> int:
    flags = session.flags
    which = "all" if flags["all"] else "all dangling"
    return _run(
        session,
        f"This will remove {which} build cache.",
        lambda: _builds_work(session, flags["all"], flags["keep-storage"]),
    )


_FILTER = Flag("filter", "", "list", "Remove only what fits (NAME=VALUE)", shown="filter")
_FORCE = Flag("force", "f", "bool", "Do not ask")
_ALL_IMAGES = Flag("all", "a", "bool", "Remove every image that no container uses, not only dangling ones")
CONTAINERS = Command(_containers, "Remove every container that is not running", "[OPTIONS]", (_FILTER, _FORCE))
NETWORKS = Command(_networks, "Remove every network that nothing uses", "[OPTIONS]", (_FILTER, _FORCE))
VOLUMES = Command(
    _volumes,
    "Remove volumes that nothing uses",
    "[OPTIONS]",
    (Flag("all", "a", "bool", "Remove named volumes, too, not only anonymous ones"), _FILTER, _FORCE),
)
_DRY_RUN = Flag("dry-run", "", "bool", "Only show what would be removed")
BUILDS = Command(
    _builds,
    "Remove the cache of builds",
    "[OPTIONS]",
    (
        Flag("all", "a", "bool", "Remove all of it"),
        _FILTER,
        _FORCE,
        Flag("keep-storage", "", "bytes", "Keep as much as this"),
    ),
)
IMAGES = Command(_images, "Remove images that nothing uses", "[OPTIONS]", (_ALL_IMAGES, _DRY_RUN, _FILTER, _FORCE))
SYSTEM = Command(
    _system,
    "Remove every container, network and image that nothing uses",
    "[OPTIONS]",
    (_ALL_IMAGES, _FILTER, _FORCE, Flag("volumes", "", "bool", "Remove anonymous volumes, too")),
)
