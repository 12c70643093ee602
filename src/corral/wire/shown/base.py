"""What the API answers, as frozen values; what a client has no use for is left out, and unknown fields are ignored."""

from __future__ import annotations

import msgspec

from corral.wire.common import wire_name


class Shown(msgspec.Struct, rename=wire_name, kw_only=True, frozen=True):
    """Base of what is shown.  Times are RFC 3339 texts, sizes bytes; null and absent are the field's default."""
