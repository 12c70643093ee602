"""The lists of containers in the packet filter: the text of `listed`, kept in step with what there is.

The tables exist only while some container has a list.  Where the kernel lets us own them nobody else can flush them;
elsewhere `watch` tells when somebody did, and `install` puts all of it back.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping

from corral.net import listed
from corral.net.listed import Listed, Resolved
from corral.net.nft import Nft, NftError

_log = logging.getLogger(__name__)

Everything = Callable[[], list[tuple[Listed, Mapping[Resolved, int]]]]  # with seconds that are left


class EgressFilter:
    """Applies lists; used by one thread."""

    def __init__(self, table: str, nft: Nft | None, everything: Everything) -> None:
        """`everything` tells which lists there should be altogether."""
        self._table = listed.table_of(table)
        self._nft = nft
        self._everything = everything
        self._there = False
        self._warned = False
        self.group: int | None = None  # of the log; told by who reads it, if somebody does

    @property
    def table(self) -> str:
        """The name of our tables."""
        return self._table

    @property
    def possible(self) -> bool:
        """Whether there is a packet filter to use."""
        return self._nft is not None

    def install(self) -> None:
        """Put all lists in force in one transaction, whatever is there; no tables when there are none."""
        lists = self._everything()
        if self._nft is None:
            return
        if not lists:
            self.withdraw()
            return
        self._install(lists)

    def _install(self, lists: Iterable[tuple[Listed, Mapping[Resolved, int]]]) -> None:
        assert self._nft is not None
        text = ""
        for family in listed.FAMILIES:
            if not self._nft.own(family, self._table):
                text += f"add table {family} {self._table}\n"
                if not self._warned:
                    self._warned = True
                    _log.warning("this kernel lets others flush the rules of egress lists (6.9 and newer do not)")
            text += listed.clearing(self._table, family, self._listing(family))
        text += listed.skeleton(self._table)
        text += "".join(listed.added(self._table, one, resolved, self.group) for one, resolved in lists)
        self._nft.run(text)
        self._there = True

    def _listing(self, family: str) -> str:
        assert self._nft is not None
        try:
            return self._nft.run(f"list table {family} {self._table}")
        except NftError:
            return ""  # it is not there yet

    def add(self, one: Listed, resolved: Mapping[Resolved, int]) -> None:
        """Put a container's list in force; NftError."""
        self._enforce(listed.added(self._table, one, resolved, self.group) if self._there else "", one, resolved)

    def remove(self, one: Listed) -> None:
        """Take a container's list away; `everything` does not tell of it any more."""
        if not self._everything():
            self.withdraw()
            return
        try:
            self._run(listed.removed(self._table, one))
        except NftError as error:
            _log.error("cannot take an egress list away: %s", error)
            self.install()

    def replace(self, before: Listed, after: Listed, resolved: Mapping[Resolved, int]) -> None:
        """Go from one list, or set of places, to another, with no moment without any; NftError."""
        text = listed.removed(self._table, before)
        self._enforce(text + listed.added(self._table, after, resolved, self.group), after, resolved)

    def _enforce(self, commands: str, one: Listed, resolved: Mapping[Resolved, int]) -> None:
        """Run commands that put a list in force; where the tables are not as we left them, make them anew with it."""
        try:
            if commands:
                self._run(commands)
                return
        except NftError as error:
            _log.warning("somebody changed the rules of egress lists: %s", error)
        self._install([*(pair for pair in self._everything() if pair[0].key != one.key), (one, resolved)])

    def know(self, one: Listed, resolved: Mapping[Resolved, int]) -> None:
        """Let addresses be reached for some seconds; NftError."""
        self._run(listed.known(self._table, one, resolved))

    def forget(self, one: Listed, gone: Iterable[Resolved]) -> None:
        """Let addresses be reached no more."""
        self._run(listed.forgotten(self._table, one, gone))

    def withdraw(self) -> None:
        """Take our tables away."""
        if self._nft is None:
            return
        for family in listed.FAMILIES:
            if self._there or self._listing(family):
                owned = self._nft.own(family, self._table)
                text = "" if owned else f"add table {family} {self._table}\n"  # somebody may have deleted it
                self._nft.run(text + f"delete table {family} {self._table}\n")
        self._there = False

    def _run(self, commands: str) -> None:
        if self._nft is not None and commands:
            self._nft.run(commands)
