"""Places files and takes them away again, with a record of what was there before.

    ROOT/var/lib/corral-setup/record.json    what was placed, which folders and group were made
                              saved/N        files that were in the way, put back at the end

The record is written before anything is changed, so whatever interrupts a setup, a removal undoes what was done.
"""

from __future__ import annotations

import json
import os
import shutil
from typing import Any

from corral.installation.pieces import Piece

FOLDER = "/var/lib/corral-setup"
_FILE_MODE, _FOLDER_MODE = 0o644, 0o755


class Record:
    """What was done to the file system below `root`."""

    def __init__(self, root: str = "") -> None:
        self._root = root.rstrip("/")
        self._folder = self._root + FOLDER
        self.path = os.path.join(self._folder, "record.json")
        self._state: dict[str, Any] = {"placed": {}, "folders": [], "group": ""}
        try:
            with open(self.path) as file:
                self._state = json.load(file)
            self.exists = True
        except FileNotFoundError:
            self.exists = False

    @property
    def group(self) -> str:
        """The group that was made, if one was."""
        return str(self._state["group"])

    @property
    def placed(self) -> dict[str, str]:
        """Paths of files, and where what was there before is kept: empty if nothing was."""
        placed: dict[str, str] = self._state["placed"]
        return placed

    def note_group(self, name: str) -> None:
        """Remember a group that is about to be made."""
        self._state["group"] = name
        self._write()

    def place(self, pieces: list[Piece]) -> None:
        """Have exactly these files; those of an earlier setup that are not among them go."""
        for path in [path for path in self.placed if path not in {piece.path for piece in pieces}]:
            self._take_away(path)
        for piece in pieces:
            if piece.path not in self.placed:
                self._make_room(piece.path)
            place(self._root + piece.path, piece)

    def remove(self) -> list[str]:
        """Undo everything, and forget it; the paths of files that are gone or are again what they were."""
        paths = list(self.placed)
        for path in paths:
            self._take_away(path)
        for folder in reversed(self._state["folders"]):
            _remove_empty(self._root + folder)
        shutil.rmtree(self._folder, ignore_errors=True)
        return paths

    def _make_room(self, path: str) -> None:
        """Keep what is at a path, and note what will be there, and which folders have to be made for it."""
        saved = ""
        if os.path.lexists(self._root + path):
            saved = f"saved/{len(self.placed)}"
            os.makedirs(os.path.join(self._folder, "saved"), exist_ok=True)
            shutil.copy2(self._root + path, os.path.join(self._folder, saved), follow_symlinks=False)
        missing, folder = [], os.path.dirname(path)
        while not os.path.isdir(self._root + folder):
            missing.append(folder)
            folder = os.path.dirname(folder)
        self._state["folders"] += reversed(missing)
        self._state["placed"][path] = saved
        self._write()

    def _take_away(self, path: str) -> None:
        saved = self.placed[path]
        if saved:
            # As a whole or not at all: this may be interrupted, and done again.
            shutil.copy2(os.path.join(self._folder, saved), f"{self._root}{path}.corral", follow_symlinks=False)
            os.replace(f"{self._root}{path}.corral", self._root + path)
        elif os.path.lexists(self._root + path):
            os.unlink(self._root + path)
        if os.path.lexists(f"{self._root}{path}.corral"):
            os.unlink(f"{self._root}{path}.corral")  # a setup was interrupted that had not finished it
        del self._state["placed"][path]
        self._write()

    def _write(self) -> None:
        os.makedirs(self._folder, mode=0o700, exist_ok=True)
        with open(f"{self.path}.new", "w") as file:
            json.dump(self._state, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(f"{self.path}.new", self.path)


def place(path: str, piece: Piece) -> None:
    """Make a file or link, with its folder; a reader sees the old or the new one."""
    os.makedirs(os.path.dirname(path), mode=_FOLDER_MODE, exist_ok=True)
    new = f"{path}.corral"
    if os.path.lexists(new):
        os.unlink(new)
    if piece.target:
        os.symlink(piece.target, new)
    else:
        with open(new, "w") as file:
            file.write(piece.text)
        os.chmod(new, _FILE_MODE)
    os.replace(new, path)


def _remove_empty(folder: str) -> None:
    try:
        os.rmdir(folder)
    except OSError:  # others have put something into it, or it is gone already
        return
