"""The options of a mount: what fstab and the OCI specification write as words, as flags of the kernel."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# The flags of mount(2) (linux/mount.h); this module is pure and therefore knows them itself.
MS_RDONLY = 0x1
_REC = 0x4000
_UNBINDABLE, _PRIVATE, _SLAVE, _SHARED = 0x20000, 0x40000, 0x80000, 0x100000
_STRICTATIME = 0x1000000

# word: (flag, whether the word sets it)
_FLAGS: dict[str, tuple[int, bool]] = {
    "ro": (0x1, True),
    "rw": (0x1, False),
    "nosuid": (0x2, True),
    "suid": (0x2, False),
    "nodev": (0x4, True),
    "dev": (0x4, False),
    "noexec": (0x8, True),
    "exec": (0x8, False),
    "sync": (0x10, True),
    "async": (0x10, False),
    "mand": (0x40, True),
    "nomand": (0x40, False),
    "dirsync": (0x80, True),
    "nosymfollow": (0x100, True),
    "symfollow": (0x100, False),
    "noatime": (0x400, True),
    "atime": (0x400, False),
    "nodiratime": (0x800, True),
    "diratime": (0x800, False),
    "silent": (0x8000, True),
    "loud": (0x8000, False),
    "relatime": (0x200000, True),
    "norelatime": (0x200000, False),
    "iversion": (0x800000, True),
    "noiversion": (0x800000, False),
    "strictatime": (_STRICTATIME, True),
    "nostrictatime": (_STRICTATIME, False),
    "lazytime": (0x2000000, True),
    "nolazytime": (0x2000000, False),
}
_PROPAGATION = {
    "private": _PRIVATE,
    "rprivate": _PRIVATE | _REC,
    "slave": _SLAVE,
    "rslave": _SLAVE | _REC,
    "shared": _SHARED,
    "rshared": _SHARED | _REC,
    "unbindable": _UNBINDABLE,
    "runbindable": _UNBINDABLE | _REC,
}
# word: (attributes to set, to clear) of mount_setattr(2), for the mount and everything below it
_RECURSIVE: dict[str, tuple[int, int]] = {
    "rro": (0x1, 0),
    "rrw": (0, 0x1),
    "rnosuid": (0x2, 0),
    "rsuid": (0, 0x2),
    "rnodev": (0x4, 0),
    "rdev": (0, 0x4),
    "rnoexec": (0x8, 0),
    "rexec": (0, 0x8),
    "rnodiratime": (0x80, 0),
    "rdiratime": (0, 0x80),
    "rrelatime": (0, 0x70),
    "rnorelatime": (0x20, 0x70),
    "rnoatime": (0x10, 0x70),
    "ratime": (0, 0x70),
    "rstrictatime": (0x20, 0x70),
    "rnostrictatime": (0, 0x70),
    "rnosymfollow": (0x200000, 0),
    "rsymfollow": (0, 0x200000),
}
# flag of mount(2): attribute of mount_setattr(2)
_ATTRIBUTES = ((0x1, 0x1), (0x2, 0x2), (0x4, 0x4), (0x8, 0x8), (0x800, 0x80), (0x100, 0x200000))
_ATIME_MASK = 0x70


class MountOptions:
    """Parsed options: `flags` set, `cleared` flags, `propagation` flag, `data` for the file system."""

    __slots__ = (
        "bind", "cleared", "copy_up", "data", "flags", "idmap", "idmap_container", "propagation",
        "recursive", "recursive_clear", "recursive_set", "remount",
    )  # fmt: skip

    def __init__(self) -> None:
        self.flags = 0
        self.cleared = 0
        self.propagation = 0
        self.data = ""
        self.bind = False
        self.recursive = False
        self.remount = False
        self.copy_up = False
        self.recursive_set = 0
        self.recursive_clear = 0
        self.idmap: tuple[list[dict[str, Any]], list[dict[str, Any]]] | None = None
        self.idmap_container = False
        """`idmap`/`ridmap` without mappings of its own: those of the container's user namespace."""

    @classmethod
    def copy_of(cls, other: MountOptions) -> MountOptions:
        new = cls()
        for name in cls.__slots__:
            setattr(new, name, getattr(other, name))
        return new

    @property
    def read_only(self) -> bool:
        return bool(self.flags & MS_RDONLY)

    def set_read_only(self, value: bool) -> None:
        self.flags = self.flags | MS_RDONLY if value else self.flags & ~MS_RDONLY

    def attributes(self) -> tuple[int, int]:
        """(attributes to set, to clear) for the mount itself, as mount_setattr(2) takes them."""
        attr_set = attr_clr = 0
        for flag, attribute in _ATTRIBUTES:
            if self.flags & flag:
                attr_set |= attribute
            elif self.cleared & flag:
                attr_clr |= attribute
        if self.flags & 0x400:
            attr_set |= 0x10
            attr_clr |= _ATIME_MASK
        elif self.flags & _STRICTATIME:
            attr_set |= 0x20
            attr_clr |= _ATIME_MASK
        elif self.flags & 0x200000:
            attr_clr |= _ATIME_MASK
        return attr_set, attr_clr

    def describe(self) -> str:
        parts = [f"flags={self.flags:#x}"]
        for name in ("cleared", "propagation", "recursive_set", "recursive_clear"):
            if getattr(self, name):
                parts.append(f"{name}={getattr(self, name):#x}")
        for name in ("bind", "recursive", "remount", "copy_up", "idmap_container"):
            if getattr(self, name):
                parts.append(name)
        if self.idmap:
            parts.append("idmap")
        if self.data:
            parts.append(f"data={self.data}")
        return " ".join(parts)


def parse_options(words: list[str]) -> MountOptions:
    """Words in order, the later winning; what is no word of ours is data for the file system."""
    options = MountOptions()
    data: list[str] = []
    for word in words:
        if word in _FLAGS:
            flag, on = _FLAGS[word]
            options.flags = options.flags | flag if on else options.flags & ~flag
            options.cleared = options.cleared & ~flag if on else options.cleared | flag
        elif word in _PROPAGATION:
            options.propagation = _PROPAGATION[word]
        elif word in _RECURSIVE:
            attr_set, attr_clr = _RECURSIVE[word]
            options.recursive_set = options.recursive_set & ~attr_clr | attr_set
            options.recursive_clear = options.recursive_clear & ~attr_set | attr_clr
        elif word in ("bind", "rbind"):
            options.bind = True
            options.recursive = word == "rbind"
        elif word == "remount":
            options.remount = True
        elif word == "tmpcopyup":
            options.copy_up = True
        elif word in ("idmap", "ridmap"):
            options.idmap_container = True
        elif word and word != "defaults":
            data.append(word)
    options.data = ",".join(data)
    return options


def known_words() -> list[str]:
    """Every option that is a word of ours, sorted."""
    others = ("bind", "rbind", "remount", "tmpcopyup", "idmap", "ridmap", "defaults")
    return sorted([*_FLAGS, *_PROPAGATION, *_RECURSIVE, *others])
