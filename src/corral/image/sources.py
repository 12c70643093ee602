"""Where blobs have been seen: the repositories of each registry that a blob was pulled from or pushed to.

A registry that has a blob in another repository can take it from there instead of being sent it again.  This is a
hint, so it lives in memory and forgets the oldest; a registry that cannot follow it asks for the bytes.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable

_BLOBS_MAX = 20_000
_REPOSITORIES_MAX = 8


class Whereabouts:
    """Safe from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: OrderedDict[tuple[str, str], list[str]] = OrderedDict()

    def note(self, domain: str, path: str, digests: Iterable[str]) -> None:
        """The registry `domain` has these blobs in the repository `path`."""
        with self._lock:
            for digest in digests:
                paths = self._known.setdefault((domain, digest), [])
                if path in paths:
                    paths.remove(path)
                paths.append(path)
                del paths[:-_REPOSITORIES_MAX]
                self._known.move_to_end((domain, digest))
            while len(self._known) > _BLOBS_MAX:
                self._known.popitem(last=False)

    def find(self, domain: str, digest: str, besides: str) -> str:
        """The repository, other than `besides`, where a blob was seen last; "" for none."""
        with self._lock:
            paths = self._known.get((domain, digest), ())
            return next((path for path in reversed(paths) if path != besides), "")
