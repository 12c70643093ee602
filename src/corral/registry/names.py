"""Names of repositories, tags and digests: nothing else ever becomes part of a path."""

from __future__ import annotations

import re

from corral.oci.digest import Digest, InvalidDigest, parse_digest
from corral.registry.refusals import DigestRefused, NameInvalid, TagInvalid

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_NAME = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_NAME_MAX = 255


def repository(text: str) -> str:
    """`text` as the name of a repository; raises NameInvalid."""
    if len(text) > _NAME_MAX or not _NAME.fullmatch(text):
        raise NameInvalid(text)
    return text


def is_tag(text: str) -> bool:
    """Whether `text` is in the grammar of tags."""
    return _TAG.fullmatch(text) is not None


def tag(text: str) -> str:
    """`text` as a tag; raises TagInvalid."""
    if not is_tag(text):
        raise TagInvalid(text)
    return text


def digest(text: str) -> Digest:
    """`text` as a sha256 or sha512 digest; raises DigestRefused."""
    try:
        return parse_digest(text)
    except InvalidDigest as error:
        raise DigestRefused(text) from error
