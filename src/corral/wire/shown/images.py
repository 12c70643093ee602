"""Images, as list, inspect and history show them, and the records of a pull, push, load or build."""

from __future__ import annotations

from msgspec import field

from corral.wire.shown.base import Shown
from corral.wire.shown.containers import ConfigInfo


class ImageSummary(Shown, frozen=True):
    """One image in a list."""

    id: str = ""
    repo_tags: tuple[str, ...] = ()
    repo_digests: tuple[str, ...] = ()
    created: int = 0  # seconds since 1970
    size: int = 0
    labels: dict[str, str] = field(default_factory=dict)
    containers: int = 0


class RootFs(Shown, frozen=True):
    """The layers of an image, by the digests of what is in them."""

    type: str = ""
    layers: tuple[str, ...] = ()


class ImageInfo(Shown, frozen=True):
    """One image, in detail."""

    id: str = ""
    repo_tags: tuple[str, ...] = ()
    repo_digests: tuple[str, ...] = ()
    comment: str = ""
    created: str = ""
    author: str = ""
    config: ConfigInfo = field(default_factory=ConfigInfo)
    architecture: str = ""
    os: str = ""
    variant: str = ""
    size: int = 0
    root_fs: RootFs = field(default_factory=RootFs, name="RootFS")


class HistoryItem(Shown, frozen=True):
    """One step of how an image was made."""

    id: str = ""
    created: int = 0
    created_by: str = ""
    tags: tuple[str, ...] = ()
    size: int = 0
    comment: str = ""


class Removed(Shown, frozen=True):
    """What a removal has taken away: a name, or an image's data."""

    untagged: str = ""
    deleted: str = ""


class ProgressDetail(Shown, frozen=True, rename=None):
    """How much of how much, in bytes; 0 where it is not known."""

    current: int = 0
    total: int = 0


class ErrorDetail(Shown, frozen=True, rename=None):
    """What went wrong in the middle; `code` is the exit status of a build's command."""

    code: int = 0
    message: str = ""


class Aux(Shown, frozen=True):
    """What an operation ends with: of a build, the image's id; of a push, where the image is."""

    id: str = field(default="", name="ID")
    digest: str = ""
    size: int = 0


class Progress(Shown, frozen=True, rename=None):
    """One record: of a download `id`, `status` and `detail`, of a build `stream`, its output."""

    id: str = ""
    status: str = ""
    stream: str = ""
    detail: ProgressDetail = field(default_factory=ProgressDetail, name="progressDetail")
    error: str = ""
    error_detail: ErrorDetail = field(default_factory=ErrorDetail, name="errorDetail")
    aux: Aux | None = None


class CommitAnswer(Shown, frozen=True):
    """The image that a commit has made."""

    id: str = ""
