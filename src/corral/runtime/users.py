"""Docker's user text ("", "name", "name:group", "1000", "1000:1000") against the image's own passwd and group files.

Pure: takes the files' text. Malformed lines are skipped, as every reader of these files does.
"""

from __future__ import annotations

from corral.runtime.failure import Failure

_ENOENT = 2
_ERANGE = 34
MAX_ID = 2**31 - 1


class Identity:
    """Who the process is: ids, supplementary groups (the own one first), home directory ("" if unknown)."""

    __slots__ = ("gid", "groups", "home", "uid")

    def __init__(self, uid: int, gid: int, groups: list[int], home: str) -> None:
        self.uid = uid
        self.gid = gid
        self.groups = groups
        self.home = home


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None


def _passwd(text: str) -> list[tuple[str, int, int, str]]:
    """(name, uid, gid, home) of each good line."""
    entries = []
    for line in text.split("\n"):
        fields = line.strip().split(":")
        if len(fields) < 4:
            continue
        uid, gid = _number(fields[2]), _number(fields[3])
        if uid is not None and gid is not None:
            entries.append((fields[0], uid, gid, fields[5] if len(fields) > 5 else ""))
    return entries


def _group(text: str) -> list[tuple[str, int, list[str]]]:
    """(name, gid, members) of each good line."""
    entries = []
    for line in text.split("\n"):
        fields = line.strip().split(":")
        gid = _number(fields[2]) if len(fields) > 2 else None
        if gid is not None:
            entries.append((fields[0], gid, fields[3].split(",") if len(fields) > 3 else []))
    return entries


def home_of(uid: int, passwd_text: str) -> str:
    """The home directory of `uid`, "" if the file does not know it."""
    for _, entry_uid, _, home in _passwd(passwd_text):
        if entry_uid == uid:
            return home
    return ""


def _check_range(number: int, stage: str, name: str) -> int:
    if number > MAX_ID:
        raise Failure(stage, _ERANGE, name)
    return number


def resolve(user: str, extra_groups: tuple[str, ...], passwd_text: str, group_text: str) -> Identity:
    """Failure("user"|"group", ENOENT, name) for unknown names, ERANGE for ids above 2^31-1."""
    user_part, _, group_part = user.partition(":")
    wanted = _number(user_part)
    uid, gid, home, name = 0, 0, "", ""
    for entry_name, entry_uid, entry_gid, entry_home in _passwd(passwd_text):
        # A number is always an id, even if somebody is named so.
        matches = entry_uid == (wanted or 0) if wanted is not None or not user_part else entry_name == user_part
        if matches:
            uid, gid, home, name = entry_uid, entry_gid, entry_home, entry_name
            break
    else:
        if user_part and wanted is None:
            raise Failure("user", _ENOENT, user_part)
        uid = _check_range(wanted or 0, "user", user_part)
    groups = _group(group_text)
    if group_part:
        gid = _find_group(group_part, groups)
        supplementary: list[int] = []
    else:
        supplementary = [entry_gid for _, entry_gid, members in groups if name and name in members]
    supplementary += [_find_group(str(extra), groups) for extra in extra_groups]
    ordered = list(dict.fromkeys([gid, *supplementary]))
    return Identity(uid, gid, ordered, home)


def _find_group(text: str, groups: list[tuple[str, int, list[str]]]) -> int:
    number = _number(text)
    if number is not None:
        return _check_range(number, "group", text)
    for name, gid, _ in groups:
        if name == text:
            return gid
    raise Failure("group", _ENOENT, text)
