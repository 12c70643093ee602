"""What a container leaves on disk for whoever asks later.

    STATE_DIR/
      state.json    everything `load` needs; empty while the container is being created
      exec.fifo     there from `create` until `start`: opening it for reading releases init
      ack.fifo      only with a seccomp listener: lets init go on once the listener is handed over

Lives in memory-backed /run: nothing here is worth an fsync, a reboot ends all of it.
"""

from __future__ import annotations

import errno
import json
import os

from corral.runtime.failure import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

FILE = "state.json"
START_FIFO = "exec.fifo"
ACK_FIFO = "ack.fifo"


def save(state_dir: str, record: dict[str, Any]) -> None:
    """Replace state.json."""
    temporary = f"{state_dir}/{FILE}.{os.getpid()}"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with open(fd, "wb") as file:
        file.write(json.dumps(record).encode())
    os.rename(temporary, f"{state_dir}/{FILE}")


def claim(state_dir: str) -> bool:
    """Make an empty state.json, which means "being created"; False if one is there already."""
    try:
        os.close(os.open(f"{state_dir}/{FILE}", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        return False
    return True


def load(state_dir: str) -> dict[str, Any]:
    """The record; Failure("state", ENOENT) if there is none."""
    try:
        with open(f"{state_dir}/{FILE}", "rb") as file:
            data = file.read()
        if not data:
            raise Failure("state", errno.ENOENT, state_dir)
        record: dict[str, Any] = json.loads(data)
    except OSError as error:
        raise Failure.from_os_error("state", error, state_dir) from error
    except ValueError as error:
        raise Failure("state", 22, state_dir, "state.json is damaged") from error
    return record


def clear(state_dir: str, directory_too: bool = True) -> None:
    """Remove our files, and the directory if it is ours to remove and nothing else is in it."""
    for name in (START_FIFO, ACK_FIFO, FILE):
        try:
            os.unlink(f"{state_dir}/{name}")
        except FileNotFoundError:
            pass
    if directory_too:
        try:
            os.rmdir(state_dir)
        except OSError:
            return  # the owner keeps files of its own here, or has removed it


def process_start(pid: int) -> tuple[str, int]:
    """(state letter, start time in ticks) of a process; ("", 0) if it is gone. Tells a reused pid from the old one."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return "", 0
    return fields[0].decode(), int(fields[19])
