"""nftables: run commands in this process through libnftables, one transaction per call.

Adding or deleting an element takes about 0.1 ms this way; starting `nft` takes 5 ms (docs/decisions/0003-netlink.md).
"""

from __future__ import annotations

import ctypes
import errno
import os
import select
import socket

from corral import errors
from corral.net import nfnetlink

_NEWTABLE = 10 << 8  # NFNL_SUBSYS_NFTABLES; NFT_MSG_NEWTABLE
_TABLE_NAME, _TABLE_FLAGS, _OWNED, _PERSISTENT = 1, 2, 0x2, 0x4
_NFTABLES = 10
_FAMILIES = {"inet": 1, "bridge": 7}
_ACK_S = 5.0
_OUTPUT_HANDLE, _OUTPUT_JSON = 1 << 3, 1 << 4
_FD_SETSIZE = 1024  # the library waits with select(2), and the C library aborts a process that passes this limit


class NftError(errors.System):
    """A transaction was refused; nothing of it was done."""

    def __init__(self, text: str) -> None:
        super().__init__(f"cannot change the packet filter: {text}")


class NftMissing(errors.Unavailable):
    """The library is not on this machine."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"cannot load libnftables (Debian package libnftables1): {reason}")


class Nft:
    """A libnftables context in the network namespace of the thread that makes it; used by one thread at a time.

    Make it early: its socket must be among the first 1,024 descriptors of the process.
    """

    def __init__(self) -> None:
        try:
            self._library = ctypes.CDLL("libnftables.so.1")
        except OSError as error:
            raise NftMissing(str(error)) from error
        library = self._library
        library.nft_ctx_new.argtypes = (ctypes.c_uint32,)
        library.nft_ctx_new.restype = ctypes.c_void_p
        library.nft_ctx_free.argtypes = (ctypes.c_void_p,)
        library.nft_run_cmd_from_buffer.argtypes = (ctypes.c_void_p, ctypes.c_char_p)
        library.nft_ctx_output_set_flags.argtypes = (ctypes.c_void_p, ctypes.c_uint)
        for name in ("output", "error"):
            getattr(library, f"nft_ctx_buffer_{name}").argtypes = (ctypes.c_void_p,)
            getter = getattr(library, f"nft_ctx_get_{name}_buffer")
            getter.argtypes = (ctypes.c_void_p,)
            getter.restype = ctypes.c_char_p
        before = _sockets()
        self._context = library.nft_ctx_new(0)
        if not self._context:
            raise NftMissing("it gave no context")
        self._fd = min((fd for fd, _ in _sockets() - before if _is_netfilter(fd)), default=-1)
        if self._fd >= _FD_SETSIZE:
            self.close()
            raise NftMissing(f"{_FD_SETSIZE} or more descriptors were open before it")
        library.nft_ctx_buffer_output(self._context)
        library.nft_ctx_buffer_error(self._context)

    def run(self, commands: str) -> str:
        """Do `commands` as one transaction; what they print."""
        failed = self._library.nft_run_cmd_from_buffer(self._context, commands.encode())
        printed: bytes = self._library.nft_ctx_get_output_buffer(self._context)
        complaint: bytes = self._library.nft_ctx_get_error_buffer(self._context)
        if failed:
            raise NftError(complaint.decode(errors="replace").strip())
        return printed.decode(errors="replace")

    def listing(self) -> tuple[str, str]:
        """The whole rule set of the machine: as JSON (empty if the library has none), and for people, with handles."""
        found = []
        for flags in (_OUTPUT_JSON, _OUTPUT_HANDLE):
            self._library.nft_ctx_output_set_flags(self._context, flags)
            try:
                found.append(self.run("list ruleset"))
            finally:
                self._library.nft_ctx_output_set_flags(self._context, 0)
        return found[0], found[1]

    def own(self, family: str, table: str) -> bool:
        """Make a table that nobody but us can change or flush, and that stays when we end, or take it over.

        False where the kernel (before 6.9) has no such tables, or has the table as an ordinary one.  The library
        cannot say that yet; what it opened is what has to own the table, so its own socket is used.
        """
        if not _is_netfilter(self._fd):
            return False  # the library has opened another one
        flags = nfnetlink.attribute(_TABLE_FLAGS, (_OWNED | _PERSISTENT).to_bytes(4, "big"))
        body = nfnetlink.attribute(_TABLE_NAME, table.encode() + b"\0") + flags
        kind = nfnetlink.ACK | nfnetlink.CREATE
        batch = nfnetlink.message(nfnetlink.BATCH_BEGIN, 0, 0, _NFTABLES, b"")
        batch += nfnetlink.message(_NEWTABLE, kind, _FAMILIES[family], 0, body)
        batch += nfnetlink.message(nfnetlink.BATCH_END, 0, 0, _NFTABLES, b"")
        with socket.socket(fileno=os.dup(self._fd)) as library:
            library.send(batch, socket.MSG_DONTWAIT)
            if not select.select([library], [], [], _ACK_S)[0]:
                raise NftError(f"no answer about table {table}")
            number = next(nfnetlink.messages(library.recv(1 << 16, socket.MSG_DONTWAIT)))[1]
        if number not in (0, errno.EOPNOTSUPP, errno.EINVAL, errno.EEXIST):
            raise NftError(f"table {table}: {os.strerror(number)}")
        return number == 0

    def close(self) -> None:
        """Free the context."""
        self._library.nft_ctx_free(self._context)
        self._context = None


def _sockets() -> set[tuple[int, str]]:
    """Descriptors of this process that are sockets, each with its identity."""
    found = set()
    for name in os.listdir("/proc/thread-self/fd"):
        try:
            target = os.readlink(f"/proc/thread-self/fd/{name}")
        except FileNotFoundError:
            continue  # that of the listing itself, or of another thread
        if target.startswith("socket:"):
            found.add((int(name), target))
    return found


def _is_netfilter(fd: int) -> bool:
    try:
        with socket.socket(fileno=os.dup(fd)) as found:
            return found.family == socket.AF_NETLINK and found.proto == nfnetlink.NETLINK_NETFILTER
    except OSError:
        return False
