"""The directories of snapshots: found a name for, made, thrown away in the background.

    ROOT/<id>         one of ours; what is in it is the caller's
    ROOT/trash/<id>   renamed here first, then deleted

Ids have six characters: the mount options of an overlay name every layer, and classic mount(2) gives them one page.
A directory is *in the making* until its owner says that a row names it; then a crash leaves it to `strays`.
"""

from __future__ import annotations

import os
import secrets
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from corral.linux import filesystem, quota
from corral.store import tree

_ID_ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"
_ID_LENGTH = 6
_TRASH = "trash"


class Directories:
    """Safe from any thread."""

    def __init__(self, root: str) -> None:
        self.root = root
        self._trash = os.path.join(root, _TRASH)
        os.makedirs(self._trash, mode=0o700, exist_ok=True)
        filesystem.spread_directories(root)
        os.chmod(root, 0o711)  # a container's own root user (user namespaces) must be able to pass through
        self.has_quotas = quota.is_enforced(root)
        self._sweeper = ThreadPoolExecutor(1, thread_name_prefix="overlay-trash")
        self._lock = threading.Lock()
        self._making: set[str] = set()

    def path(self, folder: str, leaf: str) -> str:
        """A name in one of the directories."""
        return f"{self.root}/{folder}/{leaf}"

    def begin(self) -> str:
        """A new directory, in the making until it is `kept` or thrown away; its id."""
        while True:
            folder = "".join(secrets.choice(_ID_ALPHABET) for _ in range(_ID_LENGTH))
            with self._lock:
                self._making.add(folder)
            try:
                os.mkdir(f"{self.root}/{folder}", 0o711)
            except FileExistsError:
                with self._lock:
                    self._making.discard(folder)
                continue
            return folder

    def limit(self, folder: str, size_bytes: int) -> None:
        """Let no more than that be written into a new directory; needs `has_quotas`."""
        quota.limit(f"{self.root}/{folder}", size_bytes)

    def kept(self, folder: str) -> None:
        """A row names the directory now."""
        with self._lock:
            self._making.discard(folder)

    def throw_away(self, folder: str) -> None:
        """Delete a directory in the background; one that is gone is fine."""
        target = f"{folder}-{secrets.token_hex(4)}"
        self.kept(folder)
        try:
            os.rename(f"{self.root}/{folder}", f"{self._trash}/{target}")
        except FileNotFoundError:
            return
        self._sweeper.submit(self._delete, target)

    def names(self) -> set[str]:
        """Every directory that is there."""
        return set(os.listdir(self.root)) - {_TRASH}

    def in_the_making(self) -> set[str]:
        """Those that no row needs to name yet."""
        with self._lock:
            return set(self._making)

    def empty_trash(self) -> None:
        """Go on with what a crash has interrupted."""
        for name in os.listdir(self._trash):
            self._sweeper.submit(self._delete, name)

    def later(self, work: Callable[[], None]) -> None:
        """Do something in the background, after what is to be deleted by now."""
        self._sweeper.submit(work)

    def close(self) -> None:
        """Wait for background work."""
        self._sweeper.shutdown(wait=True)

    def _delete(self, name: str) -> None:
        fd = os.open(self._trash, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            if self.has_quotas:
                quota.lift(f"{self._trash}/{name}")
            tree.remove_tree(name, fd)
        finally:
            os.close(fd)
