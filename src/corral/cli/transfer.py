"""`corral pull` and `corral push`."""

from __future__ import annotations

import sys

from corral.cli import images_api, progress
from corral.cli.command import Command, Session
from corral.cli.flags import Flag
from corral.cli.problems import CliError
from corral.cli.transport import quote

_TRUST = Flag("disable-content-trust", "", "bool", "Skip image verification", True)


def full_name(image: str) -> str:
    """The name with its registry, as pull and push end with: `docker.io/library/debian:latest`."""
    name, tag = images_api.split_reference(image)
    name = images_api.full_repository(name)
    separator = "@" if tag.startswith("sha256:") else ":"
    return f"{name}{separator}{tag or 'latest'}"


def _pull(session: Session) -> int:
    flags, image = session.flags, session.arguments[0]
    tag = images_api.split_reference(image)[1]
    if flags["all-tags"] and tag:
        raise CliError("tag can't be used with --all-tags/-a")
    images_api.check_reference(image)
    if not tag and not flags["all-tags"] and not flags["quiet"]:
        print("Using default tag: latest", flush=True)
    records = images_api.pull(session, image, flags["platform"], flags["all-tags"])
    if flags["quiet"]:
        progress.silently(records)
    else:
        progress.show(records)
    print(full_name(image))
    return 0


def _push(session: Session) -> int:
    flags, image = session.flags, session.arguments[0]
    name, tag = images_api.split_reference(image)
    if flags["all-tags"] and tag:
        raise CliError("tag can't be used with --all-tags/-a")
    if len(session.arguments) > 1:
        return _send(session, image, session.arguments[1])
    if not tag and not flags["all-tags"]:
        tag = "latest"
        if not flags["quiet"]:
            print("Using default tag: latest", flush=True)
    # the API wants the header even when there is nothing to say
    headers = images_api.auth_header(session, image) or {"X-Registry-Auth": "e30="}
    from corral.cli.archives import platform_json

    query = {"tag": tag or None, "platform": platform_json(flags["platform"])}
    records = session.client.request("POST", f"/images/{quote(name, '/')}/push", query, headers=headers).records()
    if flags["quiet"]:
        progress.silently(records)
        print(full_name(f"{name}:{tag}"))
        return 0
    progress.show(records, sys.stdout)
    return 0


def _send(session: Session, image: str, place: str) -> int:
    """To another daemon."""
    from corral.cli import sendimage
    from corral.cli.archives import platform_json

    if session.flags["all-tags"]:
        raise CliError("--all-tags is for registries: a daemon gets one image at a time")
    return sendimage.send(session, image, place, platform_json(session.flags["platform"]))


PULL = Command(
    _pull,
    "Fetch an image from a registry",
    "[OPTIONS] NAME[:TAG|@DIGEST]",
    (
        Flag("all-tags", "a", "bool", "Fetch every tag of the repository"),
        _TRUST,
        Flag("platform", "", "string", "Fetch for this platform (os[/arch[/variant]])"),
        Flag("quiet", "q", "bool", "Do not show progress"),
    ),
    least=1,
    most=1,
    aliases="image pull, pull",
)
PUSH = Command(
    _push,
    "Send an image to a registry, or to another daemon (an address or a context)",
    "[OPTIONS] NAME[:TAG] [DAEMON]",
    (
        Flag("all-tags", "a", "bool", "Send every tag of the repository"),
        _TRUST,
        Flag("platform", "", "string", "Send only this platform (os[/arch[/variant]])"),
        Flag("quiet", "q", "bool", "Do not show progress"),
    ),
    least=1,
    most=2,
    aliases="image push, push",
    details="Of an image for another daemon only the layers are sent that it has not got.",
    examples=("push registry.example/app:1", "push app:1 ssh://far", "push app:1 my-context"),
)
