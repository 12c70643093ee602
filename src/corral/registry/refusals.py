"""What the registry refuses, each with its code from the distribution specification ("Error Codes")."""

from __future__ import annotations

from typing import Any

from corral import errors


class Coded:
    """Mixed into an error: the specification's code, and what else the client is told."""

    code = "UNSUPPORTED"
    detail: Any = None
    headers: tuple[tuple[str, str], ...] = ()


class NameInvalid(Coded, errors.InvalidParameter):
    """A repository name outside of the grammar."""

    code = "NAME_INVALID"

    def __init__(self, name: str) -> None:
        super().__init__("invalid repository name")
        self.detail = {"name": name[:300]}


class NameUnknown(Coded, errors.NotFound):
    """No such repository."""

    code = "NAME_UNKNOWN"

    def __init__(self, name: str) -> None:
        super().__init__("repository name not known to registry")
        self.detail = {"name": name}


class TagInvalid(Coded, errors.InvalidParameter):
    """A tag, or a reference to a manifest, outside of the grammar."""

    code = "TAG_INVALID"

    def __init__(self, tag: str) -> None:
        super().__init__("manifest tag did not match the grammar")
        self.detail = {"tag": tag[:300]}


class DigestRefused(Coded, errors.InvalidParameter):
    """A digest that is malformed, or not the content's."""

    code = "DIGEST_INVALID"

    def __init__(self, digest: str, why: str = "malformed digest") -> None:
        super().__init__(why)
        self.detail = {"digest": digest[:300]}


class BlobUnknown(Coded, errors.NotFound):
    """The repository has no such blob."""

    code = "BLOB_UNKNOWN"

    def __init__(self, digest: str) -> None:
        super().__init__("blob unknown to registry")
        self.detail = {"digest": digest}


class UploadUnknown(Coded, errors.NotFound):
    """No such upload: never begun, finished, cancelled, or too old."""

    code = "BLOB_UPLOAD_UNKNOWN"

    def __init__(self, upload: str) -> None:
        super().__init__("blob upload unknown to registry")
        self.detail = {"upload": upload[:64]}


class ManifestUnknown(Coded, errors.NotFound):
    """The repository has no such manifest."""

    code = "MANIFEST_UNKNOWN"

    def __init__(self, reference: str, why: str = "manifest unknown") -> None:
        super().__init__(why)
        self.detail = {"reference": reference}


class ManifestInvalid(Coded, errors.InvalidParameter):
    """A manifest that is not one."""

    code = "MANIFEST_INVALID"


class ManifestBlobUnknown(Coded, errors.NotFound):
    """A manifest names content that the repository does not have."""

    code = "MANIFEST_BLOB_UNKNOWN"

    def __init__(self, digest: str) -> None:
        super().__init__("manifest references a manifest or blob unknown to registry")
        self.detail = {"digest": digest}


class SizeInvalid(Coded, errors.InvalidParameter):
    """A length that does not match the content."""

    code = "SIZE_INVALID"


class QueryInvalid(Coded, errors.InvalidParameter):
    """A query parameter that cannot be read."""

    code = "PAGINATION_NUMBER_INVALID"


class ReadOnly(Coded, errors.Unsupported):
    """This registry does not take changes."""

    code = "UNSUPPORTED"
