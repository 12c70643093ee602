"""The log of one container, written where the output arrives.

`json-file` has Docker's format on disk: one JSON object a line, `{"log": TEXT, "stream": NAME, "time": RFC3339}`.
A line of output longer than 16 KiB is cut into pieces whose text has no newline at its end; readers join them.

    ID-json.log      the newest
    ID-json.log.1    the one before, ... up to max_files - 1; with `compress` soon ID-json.log.1.gz

A compressed file carries the inode and the last change that it had as a plain one in its header's comment, so that a
reader which was in the middle of it knows where to go on.
"""

from __future__ import annotations

import os
import time

try:
    from _json import encode_basestring as _quote  # what json.dumps uses; the plain module costs an import
except ImportError:  # an interpreter without the C accelerator
    from json.encoder import encode_basestring as _quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

LINE_LIMIT_BYTES = 16 << 10
PACKED = ".gz"
_GZIP_HEADER_LENGTH = 10


class NoLog:
    """The `none` driver: nothing is kept."""

    __slots__ = ()

    def write(self, stream: str, data: bytes) -> bool:
        """Accept output; returns whether a log grew."""
        return False

    def finish(self) -> None:
        """The output has ended."""


class JsonFile:
    """The `json-file` driver."""

    __slots__ = ("_attributes", "_compress", "_fd", "_max_files", "_max_size", "_packing", "_path", "_rest", "_size")

    def __init__(
        self, path: str, max_size_bytes: int, max_files: int, *, compress: bool = False, attributes: str = ""
    ) -> None:
        """`attributes` is the JSON object that every line carries, or empty."""
        self._path = path
        self._compress = compress
        self._attributes = f'"attrs":{attributes},' if attributes else ""
        self._packing = -1
        self._max_size = max_size_bytes
        self._max_files = max_files
        self._rest = {"stdout": b"", "stderr": b""}
        self._open()

    def _open(self) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        self._fd = os.open(self._path, flags, 0o640)
        self._size = os.fstat(self._fd).st_size

    def write(self, stream: str, data: bytes) -> bool:
        """Append whole lines; what follows the last newline waits for its end."""
        data = self._rest[stream] + data
        end = data.rfind(b"\n") + 1
        rest = data[end:]
        lines = data[:end].decode("utf-8", "replace").split("\n")[:-1] if end else []
        texts = []
        for line in lines:
            if len(line) <= LINE_LIMIT_BYTES:
                texts.append(line + "\n")
            else:
                texts += _pieces(line + "\n")
        while len(rest) >= LINE_LIMIT_BYTES:
            cut = _character_boundary(rest, LINE_LIMIT_BYTES)
            texts.append(rest[:cut].decode("utf-8", "replace"))
            rest = rest[cut:]
        self._rest[stream] = rest
        if texts:
            self._append(stream, texts)
        return bool(texts)

    def finish(self) -> None:
        """Write what never got its newline, and close."""
        for stream, rest in self._rest.items():
            if rest:
                self._append(stream, [rest.decode("utf-8", "replace")])
        os.close(self._fd)

    def _append(self, stream: str, texts: list[str]) -> None:
        tail = f',"stream":"{stream}",{self._attributes}"time":"{_now()}"}}\n'
        block = "".join([f'{{"log":{_quote(text)}{tail}' for text in texts]).encode("utf-8", "replace")
        while self._max_size > 0 and self._size + len(block) > self._max_size:
            cut = block.rfind(b"\n", 0, max(0, self._max_size - self._size)) + 1
            if not cut and not self._size:
                cut = block.find(b"\n") + 1  # one line that is larger than a file may be
            self._write(block[:cut])
            block = block[cut:]
            if not block:
                return
            self._rotate()
        self._write(block)

    def _write(self, block: bytes) -> None:
        try:
            _write_all(self._fd, block)
        except OSError:
            # A full disk costs log lines, never the container.  What was half written is taken back.
            os.truncate(self._fd, self._size)
            return
        self._size += len(block)

    def _rotate(self) -> None:
        os.close(self._fd)
        if self._packing >= 0:  # names must not change under it
            os.read(self._packing, 1)
            os.close(self._packing)
            self._packing = -1
        if self._max_files <= 1:
            os.unlink(self._path)
        else:
            for number in range(self._max_files - 1, 0, -1):
                older = f"{self._path}.{number}"
                newer = f"{self._path}.{number - 1}" if number > 1 else self._path
                _shift(newer, older)
        self._open()
        if self._compress and self._max_files > 1:
            self._packing = _pack_in_background(f"{self._path}.1")


def open_log(settings: dict[str, Any] | None) -> NoLog | JsonFile:
    """The log that `settings` ask for: None, or {"path", "max_size", "max_files"}."""
    if settings is None:
        return NoLog()
    return JsonFile(
        settings["path"],
        settings["max_size"],
        settings["max_files"],
        compress=settings["compress"],
        attributes=settings["attributes"],
    )


def file_key(status: os.stat_result) -> bytes:
    """What a log file that is complete is known by; an inode alone may have been another file's."""
    return b"%d %d" % (status.st_ino, status.st_mtime_ns)


def packed_key(head: bytes) -> bytes:
    """The key that the log file whose compressed form begins like this had; empty when it is not one of ours."""
    return head[_GZIP_HEADER_LENGTH:].partition(b"\0")[0] if head[3:4] == b"\x10" else b""


def _shift(newer: str, older: str) -> None:
    """Let a file, compressed or not, take the place of the next older one."""
    for suffix in ("", PACKED):
        if os.path.exists(newer + suffix):
            os.rename(newer + suffix, older + suffix)
            other = older + ("" if suffix else PACKED)
            if os.path.exists(other):
                os.unlink(other)


def _pack_in_background(path: str) -> int:
    """Compress a file in a child process; returns a descriptor that is at its end when the child is."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.nice(10)
            _pack(path)
            status = 0
        finally:
            os._exit(status)
    os.close(writing)
    return reading


def _pack(path: str) -> None:
    import zlib  # in the child alone

    with open(path, "rb") as plain, open(f"{path}.tmp", "wb") as packed:
        status = os.fstat(plain.fileno())
        packed.write(b"\x1f\x8b\x08\x10" + int(status.st_mtime).to_bytes(4, "little") + b"\0\x03")
        packed.write(file_key(status) + b"\0")
        deflater = zlib.compressobj(6, zlib.DEFLATED, -15)
        checksum = size = 0
        while data := plain.read(1 << 20):
            checksum = zlib.crc32(data, checksum)
            size += len(data)
            packed.write(deflater.compress(data))
        packed.write(deflater.flush() + checksum.to_bytes(4, "little") + (size & 0xFFFFFFFF).to_bytes(4, "little"))
    os.chmod(f"{path}.tmp", status.st_mode & 0o777)
    os.rename(f"{path}.tmp", path + PACKED)
    os.unlink(path)


def _now() -> str:
    seconds, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{nanoseconds:09d}Z"


def _pieces(line: str) -> list[str]:
    return [line[start : start + LINE_LIMIT_BYTES] for start in range(0, len(line), LINE_LIMIT_BYTES)]


def _character_boundary(data: bytes, position: int) -> int:
    """The nearest position at or before `position` that does not cut a UTF-8 sequence."""
    cut = position
    while cut > position - 4 and cut < len(data) and data[cut] & 0xC0 == 0x80:
        cut -= 1
    return cut if cut > position - 4 else position


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
