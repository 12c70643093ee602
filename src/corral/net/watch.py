"""Notice that somebody else changed our part of the packet filter.

The kernel reports every nftables transaction to group NFNLGRP_NFTABLES: one message per object, then NEWGEN with
the thread that did it.  Our own thread's transactions are told apart by that number.
"""

from __future__ import annotations

import socket

from corral.net import nfnetlink

_NFNLGRP_NFTABLES = 7
_SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP = 270, 1
_SUBSYSTEM = 10 << 8  # NFNL_SUBSYS_NFTABLES
_NEWGEN = 15
_DELETIONS = frozenset((2, 5, 8, 11, 14))  # NFT_MSG_DELTABLE, DELCHAIN, DELRULE, DELSET, DELSETELEM
_NEWCHAIN, _NEWRULE = 3, 6  # NEWCHAIN is also a changed policy
_DELCHAIN, _DELRULE = 5, 8
_NFTA_TABLE = 1  # the table's name is attribute 1 in every message
_NFTA_GEN_PROC_PID = 2


class Watch:
    """A socket that becomes readable on changes; `changed` says which of them concern us."""

    def __init__(self, *tables: str) -> None:
        """In the network namespace of the calling thread; `tables` are the names of our tables."""
        self._tables = {table.encode() for table in tables}
        self._own: set[int] = set()
        self._ours = self._shared = False
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        self._socket = socket.socket(socket.AF_NETLINK, kind, nfnetlink.NETLINK_NETFILTER)
        self._socket.bind((0, 0))
        self._socket.setsockopt(_SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP, _NFNLGRP_NFTABLES)

    def fileno(self) -> int:
        """For `add_reader`."""
        return self._socket.fileno()

    def close(self) -> None:
        """Stop watching."""
        self._socket.close()

    def learn(self) -> None:
        """Take who has changed our tables up to now for ourselves: call right after our first transaction.

        The kernel names threads by their number outside all pid namespaces, which we cannot ask for.
        """
        for thread, ours, _ in self._read():
            if ours:
                self._own.add(thread)

    def changed(self) -> tuple[bool, bool]:
        """Read what is there: whether another than us touched our tables, and whether chains of others changed."""
        foreign = [(ours, shared) for thread, ours, shared in self._read() if thread not in self._own]
        return any(ours for ours, _ in foreign), any(shared for _, shared in foreign)

    def _read(self) -> list[tuple[int, bool, bool]]:
        """(thread, whether it touched our tables, whether it touched a chain of another) of each transaction."""
        found: list[tuple[int, bool, bool]] = []
        while True:
            try:
                data = self._socket.recv(1 << 17)
            except (BlockingIOError, InterruptedError):
                return found
            except OSError:
                found.append((-1, True, True))  # ENOBUFS: messages were lost, so anything may have happened
                continue
            for number, _, body in nfnetlink.messages(data):
                kind = number & 0xFF
                if number & 0xFF00 != _SUBSYSTEM:
                    continue
                if kind == _NEWGEN:
                    found.append((_thread(body), self._ours, self._shared))
                    self._ours = self._shared = False
                else:
                    self._see(kind, body)

    def _see(self, kind: int, body: bytes) -> None:
        mine = nfnetlink.attributes(body).get(_NFTA_TABLE, b"").rstrip(b"\0") in self._tables
        if mine and (kind in _DELETIONS or kind in (_NEWCHAIN, _NEWRULE)):
            self._ours = True
        elif not mine and kind in (_NEWCHAIN, _DELCHAIN, _DELRULE):
            self._shared = True


def _thread(body: bytes) -> int:
    value = nfnetlink.attributes(body).get(_NFTA_GEN_PROC_PID, b"\0\0\0\0")
    return int.from_bytes(value, "big")
