"""Our part of the packet filter in the kernel: the rule set of `rules`, kept in step with what there is."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterable

from corral.net import rules, screen
from corral.net.coexist import Coexistence
from corral.net.model import Element, NetworkSettings
from corral.net.nft import Nft, NftError


class Filter:
    """Applies elements; does nothing without a library context.  Used by one thread."""

    def __init__(self, settings: NetworkSettings, nft: Nft | None, everything: Callable[[], Iterable[Element]]) -> None:
        """`nft` is None to do nothing; `everything` tells which elements there should be altogether."""
        self._settings = settings
        self._everything = everything
        self._nft = nft
        self._coexistence = Coexistence(settings.table)
        self._mark = False
        self.group: int | None = None  # where `admission` listens; told by who has one

    def install(self) -> None:
        """Put the whole rule set in place, whatever is there."""
        if self._nft is None:
            return
        self._mark = mark = self._coexistence.apply(self._nft)
        proxied, counts, table = self._settings.userland_proxy, self.counts(), self._settings.table
        screening = screen.skeleton(table, self.group) if self._settings.host_firewall else None
        elements = self._screened(self._everything())
        self._nft.run(rules.install(table, elements, mark=mark, proxied=proxied, screening=screening, counts=counts))

    def _screened(self, elements: Iterable[Element]) -> list[Element]:
        """Elements with what else they are where the host's firewall decides."""
        every = list(elements)
        return [*every, *screen.of(every)] if self._settings.host_firewall else every

    def counts(self, elements: Collection[Element] | None = None) -> rules.Counts:
        """What went through published ports, those that `elements` stand for or all."""
        found: dict[tuple[str, str], tuple[int, int]] = {}
        if self._nft is None:
            return found
        for name in rules.COUNTING:
            command = f"list set inet {self._settings.table} {name}"
            if elements is not None:
                wanted = [element.key for element in elements if element.set == name]
                if not wanted:
                    continue
                command = f"get element inet {self._settings.table} {name} {{ {', '.join(wanted)} }}"
            with contextlib.suppress(NftError):  # there is none yet, or somebody flushed it
                found |= rules.counted(name, self._nft.run(command))
        return found

    def look_around(self) -> None:
        """Others changed their chains: see whether they drop now what they let through before, or the reverse."""
        if self._nft is not None and self._coexistence.apply(self._nft) != self._mark:
            self.install()

    def add(self, elements: Iterable[Element]) -> None:
        """Add elements; NftError."""
        self._run(rules.change("add", self._settings.table, self._screened(elements)))

    def delete(self, elements: Iterable[Element]) -> None:
        """Delete elements."""
        self._run(rules.change("delete", self._settings.table, self._screened(elements)))

    def replace(self, before: Iterable[Element], after: Iterable[Element]) -> None:
        """Go from one set of elements to another in one transaction: no moment in which a port leads nowhere."""
        old, new = dict.fromkeys(self._screened(before)), dict.fromkeys(self._screened(after))
        text = rules.change("delete", self._settings.table, [element for element in old if element not in new])
        self._run(text + rules.change("add", self._settings.table, [element for element in new if element not in old]))

    def withdraw(self) -> None:
        """Take our tables, and what we put elsewhere, away."""
        if self._nft is not None:
            self._coexistence.withdraw()
            self._nft.run(rules.remove(self._settings.table))

    def _run(self, commands: str) -> None:
        if self._nft is None or not commands:
            return
        try:
            self._nft.run(commands)
        except NftError:
            # Somebody flushed the packet filter a moment ago and `watch` has not told yet: put everything back, and
            # if what we wanted still does not fit, that is the caller's error.  Deleted is deleted either way.
            self.install()
            additions = "".join(line + "\n" for line in commands.splitlines() if line.startswith("add "))
            if additions:
                self._nft.run(additions)
