"""Images: list, remove, tag, history, commit."""

from __future__ import annotations

import sys
import time

from corral.cli import table
from corral.cli.command import Command, Session
from corral.cli.flags import Flag
from corral.cli.images_api import check_reference, full_repository, split_reference
from corral.cli.listing import CONTEXT, FILTER, FORMAT, SHORT_ID, columns, configured_format, filters
from corral.cli.problems import CliError
from corral.cli.transport import quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

_TITLES = {
    "Repository": "REPOSITORY", "Tag": "TAG", "Digest": "DIGEST", "ID": "IMAGE ID", "CreatedSince": "CREATED",
    "CreatedAt": "CREATED AT", "Size": "SIZE", "Containers": "CONTAINERS", "SharedSize": "SHARED SIZE",
    "UniqueSize": "UNIQUE SIZE", "VirtualSize": "SIZE", "Context": "CONTEXT",
}  # fmt: skip


def _list(session: Session) -> int:
    flags = session.flags
    given = list(flags["filter"])
    if session.arguments:
        given.append(f"reference={session.arguments[0]}")
    query = {"all": flags["all"] or None, "filters": filters(given)}
    if flags["tree"]:
        return _tree(session, query)
    answers, status = session.everywhere(lambda client: client.get("/images/json", query))
    format_ = configured_format(session, "imagesFormat")
    show_digest = flags["digests"] or ".Digest" in format_
    dangling = "dangling=true" in flags["filter"]
    rows = [
        {**where, **row}
        for where, found in answers
        for one in sorted(found, key=lambda one: -one["Created"])
        for row in rows_of(one, flags["no-trunc"], show_digest, dangling)
    ]
    if flags["quiet"] and not flags["format"]:
        sys.stdout.write("".join(f"{row['ID']}\n" for row in rows))
        return status
    shown = ["Repository", "Tag", *(["Digest"] if flags["digests"] else []), "ID", "CreatedSince", "Size"]
    table.show(rows, columns(session, shown), _TITLES, format_)
    return status


def _tree(session: Session, query: dict[str, Any]) -> int:
    from corral.cli import imagetree

    for flag, title in (("quiet", "quiet"), ("no-trunc", "no-trunc"), ("digests", "show-digest"), ("format", "format")):
        if session.flags[flag]:
            raise CliError(f"--{title} is not yet supported with --tree")
    if not session.client.at_least(1, 47):
        raise CliError('"--tree" requires API version 1.47 or later')
    found = session.client.get("/images/json", {**query, "manifests": True})
    shown = [one for one in found if one.get("RepoTags") or session.flags["all"]]
    imagetree.show(sorted(shown, key=lambda one: -one["Created"]))
    return 0


def rows_of(one: Mapping[str, Any], full: bool, show_digest: bool, dangling: bool = False) -> Iterator[dict[str, Any]]:
    """A row for every name of an image, or for every name and digest."""
    tags = [split_reference(name) for name in one.get("RepoTags") or () if name != "<none>:<none>"]
    digests = [name.partition("@")[::2] for name in one.get("RepoDigests") or () if name != "<none>@<none>"]
    names: list[tuple[str, str, str]] = []
    for repository in dict.fromkeys(name for name, *_ in [*tags, *digests]):
        own_tags = [tag for name, tag in tags if name == repository]
        own_digests = [digest for name, digest in digests if name == repository] if show_digest or not own_tags else []
        if not show_digest:
            names += [(repository, tag, "<none>") for tag in own_tags]
            if not own_tags:
                names.append((repository, "<none>", own_digests[0]))
            continue
        for tag in own_tags or ["<none>"]:
            names += [(repository, tag, digest) for digest in own_digests or ["<none>"]]
    for repository, tag, digest in names or [("<none>", "<none>", "<none>")]:
        yield _row(one, repository, "<none>" if dangling else tag, digest, full)


def _row(one: Mapping[str, Any], repository: str, tag: str, digest: str, full: bool) -> dict[str, Any]:
    size = table.human_size(float(one["Size"]), 3)
    shared, containers = one.get("SharedSize", -1), one.get("Containers", -1)
    return {
        "Repository": repository,
        "Tag": tag,
        "Digest": digest,
        "ID": one["Id"] if full else one["Id"].removeprefix("sha256:")[:SHORT_ID],
        "CreatedSince": table.ago(time.time() - one["Created"]) if one["Created"] > 0 else "N/A",
        "CreatedAt": table.local_time(one["Created"]),
        "Size": size,
        "VirtualSize": table.human_size(float(one["Size"]), 4),
        "Containers": "N/A" if containers == -1 else str(containers),
        "SharedSize": "N/A" if shared == -1 else table.human_size(float(shared), 4),
        "UniqueSize": "N/A" if shared == -1 else table.human_size(float(one["Size"] - shared), 4),
    }


def _remove(session: Session) -> int:
    flags = session.flags
    from corral.cli.archives import platform_json

    query = {
        "force": flags["force"] or None,
        "noprune": flags["no-prune"] or None,
        "platforms": [platform_json(text) for text in flags["platform"]],
    }

    def remove(name: str) -> None:
        for one in session.client.delete(f"/images/{quote(name, '/:@')}", query) or ():
            print(f"Deleted: {one['Deleted']}" if one.get("Deleted") else f"Untagged: {one['Untagged']}")

    return session.each(session.arguments, remove, echo=False, forgiven=404 if flags["force"] else 0)


def _tag(session: Session) -> int:
    source, target = session.arguments
    name, tag = split_reference(target)
    try:
        check_reference(target)
        if not name or "@" in target:
            raise CliError("refusing to create a tag with a digest reference")
    except CliError as error:
        raise CliError(f'Error parsing reference: "{target}" is not a valid repository/tag: {error}') from None
    session.client.post(f"/images/{quote(source, '/:@')}/tag", {"repo": full_repository(name), "tag": tag or "latest"})
    return 0


_HISTORY_TITLES = {
    "ID": "IMAGE", "CreatedSince": "CREATED", "CreatedAt": "CREATED AT", "CreatedBy": "CREATED BY", "Size": "SIZE",
    "Comment": "COMMENT",
}  # fmt: skip


def _history(session: Session) -> int:
    from corral.cli.archives import platform_json

    flags = session.flags
    query = {"platform": platform_json(flags["platform"])}
    found = session.client.get(f"/images/{quote(session.arguments[0], '/:@')}/history", query)
    if flags["quiet"]:
        for one in found:
            print(_layer_id(one, flags["no-trunc"]))
        return 0
    rows = [_layer(one, flags["no-trunc"], flags["human"]) for one in found]
    table.show(rows, ("ID", "CreatedSince", "CreatedBy", "Size", "Comment"), _HISTORY_TITLES, flags["format"])
    return 0


def _layer_id(one: Mapping[str, Any], full: bool) -> str:
    return str(one["Id"]) if full or one["Id"] == "<missing>" else str(one["Id"]).removeprefix("sha256:")[:SHORT_ID]


def _layer(one: Mapping[str, Any], full: bool, human: bool) -> dict[str, Any]:
    by = str(one["CreatedBy"]).replace("\t", " ")
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(one["Created"])) + _zone()
    return {
        "ID": _layer_id(one, full),
        "CreatedSince": (table.ago(time.time() - one["Created"]) if one["Created"] > 0 else "N/A") if human else stamp,
        "CreatedAt": stamp if one["Created"] > 0 else "",
        "CreatedBy": by if full else table.ellipsis(by, 45),
        "Size": table.human_size(float(one["Size"]), 3) if human else str(one["Size"]),
        "Comment": one["Comment"],
    }


def _zone() -> str:
    zone = time.strftime("%z")
    return "Z" if zone == "+0000" else f"{zone[:3]}:{zone[3:]}"


def _commit(session: Session) -> int:
    flags = session.flags
    repository, tag = split_reference(session.arguments[1]) if len(session.arguments) > 1 else ("", "")
    query = {
        "container": session.arguments[0],
        "repo": full_repository(repository) if repository else None,
        "tag": tag or ("latest" if repository else None),
        "author": flags["author"] or None,
        "comment": flags["message"] or None,
        "changes": flags["change"],
        "pause": flags["pause"],
    }
    print(session.client.post("/commit", query)["Id"])
    return 0


LIST = Command(
    _list,
    "List images",
    "[OPTIONS] [REPOSITORY[:TAG]]",
    (
        Flag("all", "a", "bool", "Show intermediate images, too"),
        CONTEXT,
        Flag("digests", "", "bool", "Show digests"),
        FILTER,
        FORMAT,
        Flag("no-trunc", "", "bool", "Show ids in full"),
        Flag("quiet", "q", "bool", "Print ids alone"),
        Flag("tree", "", "bool", "Show the platforms of each image below it"),
    ),
    most=1,
    aliases="image ls, image list, images",
)
RM = Command(
    _remove,
    "Remove images, or names of images",
    "[OPTIONS] IMAGE [IMAGE...]",
    (
        Flag("force", "f", "bool", "Remove it though containers or other names use it"),
        Flag("no-prune", "", "bool", "Keep untagged parents"),
        Flag("platform", "", "strings", "Remove only these platforms of it (os[/arch[/variant]])"),
    ),
    least=1,
    most=None,
    aliases="image rm, image remove, rmi",
)
TAG = Command(_tag, "Give an image another name", "SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]", (), 2, 2, "image tag, tag")
HISTORY = Command(
    _history,
    "Show the steps that an image was made of",
    "[OPTIONS] IMAGE",
    (
        FORMAT,
        Flag("human", "H", "bool", "Sizes and times for people", True),
        Flag("no-trunc", "", "bool", "Show everything in full"),
        Flag("platform", "", "string", "Of this platform (os[/arch[/variant]])"),
        Flag("quiet", "q", "bool", "Print ids alone"),
    ),
    least=1,
    most=1,
    aliases="image history, history",
)
COMMIT = Command(
    _commit,
    "Make an image of a container's changes",
    "[OPTIONS] CONTAINER [REPOSITORY[:TAG]]",
    (
        Flag("author", "a", "string", "Author of the image"),
        Flag("change", "c", "list", "Dockerfile instruction to apply to the image"),
        Flag("message", "m", "string", "Message to keep with the image"),
        Flag("pause", "p", "bool", "Freeze the container in the meantime", True),
    ),
    least=1,
    most=2,
    aliases="container commit, commit",
)
