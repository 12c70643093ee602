"""References: `[domain/]path[:tag][@digest]`, and how Docker shortens and completes them.

The grammar is distribution's (github.com/distribution/reference).  A reference as people type it is *familiar*
(`busybox`); completed it is *canonical* (`docker.io/library/busybox:latest`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from corral.errors import InvalidParameter
from corral.oci.digest import Digest, InvalidDigest, is_hex, parse_digest

DEFAULT_DOMAIN = "docker.io"
DEFAULT_TAG = "latest"
_LEGACY_DOMAIN = "index.docker.io"
_OFFICIAL = "library/"
_NAME_MAX = 255

_LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_DOMAIN = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?")
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_PATH = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}", re.ASCII)


class InvalidReference(InvalidParameter):
    """A name that cannot be an image's."""

    def __init__(self, detail: str = "") -> None:
        super().__init__("invalid reference format" + (f": {detail}" if detail else ""))


@dataclass(frozen=True, slots=True)
class Reference:
    """A completed reference; `tag` and `digest` are absent where the text had none."""

    domain: str
    path: str
    tag: str | None = None
    digest: Digest | None = None

    @property
    def name(self) -> str:
        """Canonical repository name: `docker.io/library/busybox`."""
        return f"{self.domain}/{self.path}"

    @property
    def familiar_name(self) -> str:
        """Repository name as shown to people: `busybox`."""
        if self.domain != DEFAULT_DOMAIN:
            return self.name
        short = self.path.removeprefix(_OFFICIAL)
        return short if "/" not in short else self.path

    @property
    def canonical(self) -> str:
        """The whole reference with the canonical name."""
        return self.name + self._suffix()

    @property
    def familiar(self) -> str:
        """The whole reference as shown to people."""
        return self.familiar_name + self._suffix()

    def tagged(self) -> Reference:
        """This reference, with `latest` where there is neither a tag nor a digest."""
        return self if self.tag or self.digest else replace(self, tag=DEFAULT_TAG)

    def with_tag(self, tag: str) -> Reference:
        """The same repository under `tag`; raises InvalidReference for a malformed tag."""
        if not _TAG.fullmatch(tag):
            raise InvalidReference()
        return replace(self, tag=tag, digest=None)

    def with_digest(self, digest: Digest) -> Reference:
        """The same repository by digest, without the tag."""
        return replace(self, tag=None, digest=digest)

    def _suffix(self) -> str:
        return (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")


def parse(text: str) -> Reference:
    """Parse and complete a familiar or canonical reference; raises InvalidReference with Docker's words."""
    if len(text) == 64 and is_hex(text):
        raise InvalidReference(f"cannot specify 64-byte hexadecimal strings: {text}")
    rest, digest = _cut_digest(text)
    rest, tag = _cut_tag(rest)
    domain, path = _split_domain(rest)
    if path != path.lower():
        raise InvalidReference(f"repository name ({path}) must be lowercase")
    if not _DOMAIN.fullmatch(domain) or not _PATH.fullmatch(path):
        raise InvalidReference()
    if len(path) > _NAME_MAX:
        raise InvalidReference(f"repository name must not be more than {_NAME_MAX} characters")
    return Reference(domain, path, tag, digest)


def parse_repository(text: str) -> Reference:
    """Parse a bare repository name: a tag or a digest in it is refused."""
    reference = parse(text)
    if reference.tag or reference.digest:
        raise InvalidReference("refusing to create a reference with a tag or digest in the repository name")
    return reference


def _cut_digest(text: str) -> tuple[str, Digest | None]:
    rest, at, digest = text.partition("@")
    if not at:
        return text, None
    try:
        return rest, parse_digest(digest)
    except InvalidDigest as error:
        raise InvalidReference() from error


def _cut_tag(text: str) -> tuple[str, str | None]:
    head, slash, last = text.rpartition("/")
    name, colon, tag = last.partition(":")
    if not colon:
        return text, None
    if not _TAG.fullmatch(tag):
        raise InvalidReference()
    return head + slash + name, tag


def _split_domain(text: str) -> tuple[str, str]:
    """The first component is a domain when it has a dot, a port, an upper-case letter or is `localhost`."""
    first, slash, rest = text.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost" or first != first.lower()):
        domain, path = (DEFAULT_DOMAIN if first == _LEGACY_DOMAIN else first), rest
    else:
        domain, path = DEFAULT_DOMAIN, text
    if domain == DEFAULT_DOMAIN and "/" not in path:
        path = _OFFICIAL + path
    return domain, path
