"""The files that a build may use: an archive from the client, from a URL, or a git repository.

A context is unpacked once, in a worker, while it arrives; its index is made in the same pass.  What the ignore file
excludes is dropped then: clients leave it out themselves, other origins do not.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import posixpath
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from corral.build import dockerfile as dockerfiles
from corral.build import dockerignore, sources
from corral.build.executor import Tools
from corral.build.problems import DockerfileError
from corral.build.request import Files
from corral.build.workers import Workers
from corral.errors import InvalidParameter
from corral.image.bridge import with_stream
from corral.linux import files

BYTES_MAX = 256 << 30
FILES_MAX = 4_000_000
_PIPE_BYTES = 1 << 20
_IGNORE_FILE_MAX_BYTES = 4 << 20
_DOCKERFILE_MAX_BYTES = dockerfiles.SIZE_MAX_BYTES


class NoDockerfile(InvalidParameter):
    """The context has no such Dockerfile."""

    def __init__(self, name: str) -> None:
        super().__init__(f"Cannot locate specified Dockerfile: {name}")


class OutsideContext(InvalidParameter):
    """A path that leads out of the context."""

    def __init__(self, path: str) -> None:
        super().__init__(f"forbidden path outside the build context: {path} ()")


class BadRemote(InvalidParameter):
    """A `remote` that is no context."""


def _folder(tools: Tools) -> Files:
    directory = os.path.join(tools.scratch, "context")
    os.makedirs(directory, mode=0o755)
    return Files(directory, os.path.join(tools.scratch, "context.json"))


async def receive(tools: Tools, stream: AsyncIterator[bytes], *, bytes_max: int = BYTES_MAX) -> Files:
    """Unpack the archive that a client sends (plain or compressed)."""
    made = _folder(tools)
    await through_pipe(
        tools.workers, os.path.join(tools.scratch, "context.pipe"), stream, "context", directory=made.directory,
        index=made.index, bytes_max=bytes_max, files_max=FILES_MAX,
    )  # fmt: skip
    return made


async def through_pipe(
    workers: Workers, pipe: str, stream: AsyncIterator[bytes], op: str, **fields: Any
) -> dict[str, Any]:
    """Call a worker that reads what `stream` delivers from the pipe at the path `pipe`, which is made for it."""
    if os.path.lexists(pipe):
        os.unlink(pipe)
    os.mkfifo(pipe, 0o600)
    # Our own reader lets the writer open at once; it is closed when the worker ends, so that the writer ends too.
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    writer = os.open(pipe, os.O_WRONLY | os.O_CLOEXEC)
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    job = asyncio.ensure_future(workers.call(op, pipe=pipe, **fields))
    job.add_done_callback(lambda _: os.close(reader))
    try:
        await with_stream(stream, lambda source: _write(writer, source))
        return await job
    except BaseException:
        job.cancel()
        await asyncio.wait((job,))
        raise


def _write(writer: int, source: Callable[[], bytes]) -> None:
    """Write everything into the pipe, and close it; an end of the reader is told by the reader."""
    try:
        while data := source():
            view = memoryview(data)
            while view:
                view = view[os.write(writer, view) :]
    except BrokenPipeError:
        return
    finally:
        os.close(writer)


async def exported(tools: Tools, lower: Sequence[str]) -> AsyncIterator[bytes]:
    """The tar of a whole file system, packed by a worker."""
    pipe = os.path.join(tools.scratch, "export.pipe")
    os.mkfifo(pipe, 0o600)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    os.set_blocking(reader, True)
    keeper = os.open(pipe, os.O_WRONLY | os.O_CLOEXEC)  # without a writer a read would end before the worker begins
    root = {"lower": list(lower), "upper": "", "work": ""}
    job = asyncio.ensure_future(tools.workers.call("export", scratch=tools.scratch, root=root, pipe=pipe))
    job.add_done_callback(lambda _: os.close(keeper))
    try:
        while data := await asyncio.to_thread(os.read, reader, _PIPE_BYTES):
            yield data
        await job
    finally:
        job.cancel()
        await asyncio.wait((job,))
        os.close(reader)


async def from_remote(tools: Tools, remote: str) -> tuple[Files, str]:
    """The context that a URL or repository stands for; the second is a Dockerfile's text, if the URL is one."""
    if sources.is_git(remote):
        place = os.path.join(tools.scratch, "repository")
        directory, _ = await sources.clone(remote, place)
        made = Files(directory, os.path.join(tools.scratch, "context.json"))
        await tools.workers.call("index", directory=directory, index=made.index)
        return made, ""
    if not remote.startswith(("http://", "https://")):
        raise BadRemote(f"remoteURL ({remote}) could not be recognized as URL")
    place = os.path.join(tools.scratch, "remote")
    await tools.workers.call("download", url=remote, place=place)
    found = await tools.workers.call("is_archive", place=place)
    with open(place, "rb") as file:
        if found["archive"]:
            return await receive(tools, _pieces(file.fileno())), ""
        text = file.read(_DOCKERFILE_MAX_BYTES).decode("utf-8", "replace")
    made = _folder(tools)
    await tools.workers.call("index", directory=made.directory, index=made.index)
    return made, text


async def _pieces(fd: int) -> AsyncIterator[bytes]:
    while data := await asyncio.to_thread(os.read, fd, _PIPE_BYTES):
        yield data


def read_file(context: Files, path: str, limit: int) -> bytes | None:
    """A file of the context, links followed inside it; None where there is none."""
    root_fd = os.open(context.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with open(files.openat2(root_fd, path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
            return file.read(limit + 1)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None
    finally:
        os.close(root_fd)


def dockerfile(context: Files, name: str) -> bytes:
    """The Dockerfile's bytes; raises NoDockerfile, or OutsideContext for a path that leads out."""
    clean = posixpath.normpath(posixpath.join("/", name)).lstrip("/")
    if posixpath.normpath(name).startswith(".."):
        raise OutsideContext(name)
    data = read_file(context, clean, _DOCKERFILE_MAX_BYTES)
    if data is None and name == "Dockerfile":
        data = read_file(context, "dockerfile", _DOCKERFILE_MAX_BYTES)
    if data is None:
        raise NoDockerfile(name)
    return data


async def apply_ignore(tools: Tools, context: Files, name: str) -> None:
    """Drop what `NAME.dockerignore`, or else `.dockerignore`, excludes."""
    for path in (f"{name}.dockerignore", ".dockerignore"):
        data = read_file(context, path, _IGNORE_FILE_MAX_BYTES)
        if data is not None:
            break
    else:
        return
    patterns = dockerignore.read(data.decode("utf-8", "replace"))
    try:
        ignore = dockerignore.Ignore(patterns)
    except DockerfileError as error:
        raise DockerfileError(f"error checking context: {error.reason}") from None
    if ignore:
        await tools.workers.call(
            "prune_context", source=context.source(), directory=context.directory, index=context.index,
            patterns=patterns,
        )  # fmt: skip
