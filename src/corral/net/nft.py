"""nftables: run commands in this process through libnftables, one transaction per call.

Adding or deleting an element takes about 0.1 ms this way; starting `nft` takes 5 ms (docs/decisions/0003-netlink.md).
"""

from __future__ import annotations

import ctypes
import os

from corral import errors

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
        for name in ("output", "error"):
            getattr(library, f"nft_ctx_buffer_{name}").argtypes = (ctypes.c_void_p,)
            getter = getattr(library, f"nft_ctx_get_{name}_buffer")
            getter.argtypes = (ctypes.c_void_p,)
            getter.restype = ctypes.c_char_p
        before = set(os.listdir("/proc/thread-self/fd"))
        self._context = library.nft_ctx_new(0)
        if not self._context:
            raise NftMissing("it gave no context")
        opened = [int(name) for name in set(os.listdir("/proc/thread-self/fd")) - before]
        if opened and min(opened) >= _FD_SETSIZE:
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

    def close(self) -> None:
        """Free the context."""
        self._library.nft_ctx_free(self._context)
        self._context = None
