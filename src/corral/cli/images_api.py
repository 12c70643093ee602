"""Requests about images that several commands make."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from corral.cli.command import Session


def split_reference(text: str) -> tuple[str, str]:
    """Name, and tag or digest; both empty parts stay empty."""
    name, at, digest = text.partition("@")
    if at:
        return name, digest
    head, slash, last = text.rpartition("/")
    bare, _, tag = last.partition(":")
    return f"{head}{slash}{bare}", tag


def full_repository(name: str) -> str:
    """The name with its registry: `docker.io/library/debian`."""
    first, slash, _ = name.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        return name
    return f"docker.io/{name}" if slash else f"docker.io/library/{name}"


def check_reference(text: str) -> None:
    """Refuse a malformed name before anything is asked of a daemon; raises CliError with Docker's text."""
    if text.islower() and text.isascii() and " " not in text:
        return  # the daemon will see; the full check costs the import of `re`
    from corral.errors import CorralError
    from corral.oci import reference

    try:
        reference.parse(text)
    except CorralError as error:
        from corral.cli.problems import CliError

        raise CliError(str(error)) from None


def auth_header(session: Session, image: str) -> dict[str, str]:
    """The credentials stored for the image's registry, if any."""
    from corral.cli import endpoint

    config = endpoint.read_config(session.globals.config)
    if not (config.get("auths") or config.get("credsStore") or config.get("credHelpers")):
        return {}
    from corral.cli import credentials

    return credentials.header(config, credentials.registry_of(image))


def pull(session: Session, image: str, platform: str = "", all_tags: bool = False) -> Iterator[dict[str, Any]]:
    """Begin a pull; its records."""
    name, tag = split_reference(image)
    query = {
        "fromImage": full_repository(name),
        "tag": None if all_tags else tag or "latest",
        "platform": platform or None,
    }
    headers = auth_header(session, image)
    return session.client.request("POST", "/images/create", query, headers=headers).records()
