"""What the rest of the engine sees of an image, and the errors about images."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from corral.errors import Conflict, InvalidParameter, NotFound
from corral.oci.digest import ChainID, Digest, hex_of
from corral.oci.image import Descriptor, ImageConfig, Manifest

SHORT_ID_LENGTH = 12


class ImageRecord(msgspec.Struct, frozen=True):
    """A row of the table `image`: what a name points to.  Times in nanoseconds since the epoch, 0 for never."""

    digest: str
    media_type: str
    size: int
    tagged_at: int
    used_at: int = 0


@dataclass(frozen=True, slots=True)
class Image:
    """An image: the target of its names, seen through the manifest for one platform.

    `size` is in bytes, the content as stored plus the unpacked layers, as Docker's containerd image store counts.
    """

    id: Digest
    descriptor: Descriptor
    manifest: Manifest
    manifest_digest: Digest
    config: ImageConfig
    config_raw: bytes = field(repr=False)
    config_digest: Digest
    repo_tags: tuple[str, ...]
    repo_digests: tuple[str, ...]
    size: int
    created: str
    architecture: str
    os: str
    variant: str
    diff_ids: tuple[str, ...]
    chain_id: ChainID | None
    tagged_at: int

    @property
    def dangling(self) -> bool:
        """Whether no name points to it."""
        return not self.repo_tags and not self.repo_digests


@dataclass(frozen=True, slots=True)
class User:
    """A container that uses an image."""

    container_id: str
    running: bool


@dataclass(frozen=True, slots=True)
class Untagged:
    """A name was removed."""

    name: str


@dataclass(frozen=True, slots=True)
class Deleted:
    """Content was removed."""

    digest: str


def short(digest: str) -> str:
    """The twelve characters that people see of a digest or a container id."""
    return (hex_of(digest) or digest)[:SHORT_ID_LENGTH]


class NoSuchImage(NotFound):
    """No image of that name or id."""

    def __init__(self, reference: str) -> None:
        super().__init__(f"No such image: {reference}")


class NoSuchLocalImage(NotFound):
    """Nothing of that name can be pushed."""

    def __init__(self, reference: str) -> None:
        super().__init__(f"An image does not exist locally with the tag: {reference}")


class NoSuchPlatform(NotFound):
    """The image exists, but not for that platform."""

    def __init__(self, reference: str, wanted: str, found: str) -> None:
        super().__init__(
            f"image with reference {reference} was found but its platform ({found}) "
            f"does not match the specified platform ({wanted})"
        )


class AmbiguousReference(InvalidParameter):
    """Several images have ids that begin like this."""

    def __init__(self, reference: str) -> None:
        super().__init__(f"multiple IDs found with provided prefix: {reference}")


class InvalidArchive(InvalidParameter):
    """An archive that cannot be loaded."""


class RemoveConflict(Conflict):
    """An image cannot be removed now."""

    @classmethod
    def name_in_use(cls, name: str, container: str, digest: str) -> RemoveConflict:
        return cls(
            f'conflict: unable to remove repository reference "{name}" (must force) - '
            f"container {short(container)} is using its referenced image {short(digest)}"
        )

    @classmethod
    def several_repositories(cls, digest: str) -> RemoveConflict:
        return cls(
            f"conflict: unable to delete {short(digest)} (must be forced) - "
            "image is referenced in multiple repositories"
        )

    @classmethod
    def used_by(cls, digest: str, user: User) -> RemoveConflict:
        force, state = ("cannot be forced", "running") if user.running else ("must be forced", "stopped")
        return cls(
            f"conflict: unable to delete {short(digest)} ({force}) - "
            f"image is being used by {state} container {short(user.container_id)}"
        )
