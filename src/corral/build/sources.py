"""Files from elsewhere: ADD of a URL or a git repository, and contexts that are one.

Workers and git read the network; what arrives lies in the build's scratch folder until its end.
"""

from __future__ import annotations

import asyncio
import os
import posixpath
import re
import secrets
import shutil
import urllib.parse
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from corral.build.problems import DockerfileError
from corral.errors import InvalidParameter

if TYPE_CHECKING:
    from corral.build.executor import Tools

_GIT_HOST = re.compile(r"(?:[\w.-]+@)[\w.-]+:.+")
_NOTHING_ASKED = {"GIT_TERMINAL_PROMPT": "0", "GIT_CONFIG_NOSYSTEM": "1", "GIT_ASKPASS": "/bin/true"}


class WrongChecksum(InvalidParameter):
    """A file that is not the one that --checksum names."""

    def __init__(self, wanted: str, found: str) -> None:
        super().__init__(f"digest mismatch {found}: {wanted}")


class CannotClone(InvalidParameter):
    """A repository that git does not bring."""


@dataclass(frozen=True)
class Fetched:
    """What was fetched: a file (`path`, to be called `name`), or the folder of a repository; `digest` identifies it."""

    digest: str
    path: str = ""
    name: str = ""
    mtime_ns: int = 0
    directory: str = ""

    def file(self) -> dict[str, Any]:
        """As workers are told it."""
        return {"path": self.path, "name": self.name, "mtime_ns": self.mtime_ns}


def is_url(source: str) -> bool:
    """Whether ADD means something from elsewhere."""
    return source.startswith(("http://", "https://")) or is_git(source)


def is_git(source: str) -> bool:
    """Whether this is a repository rather than a file."""
    address = source.partition("#")[0]
    if source.startswith(("git://", "ssh://", "git@")) or _GIT_HOST.fullmatch(address):
        return True
    if source.startswith(("http://", "https://")):
        return urllib.parse.urlsplit(address).path.endswith(".git")
    return source.startswith("github.com/")


async def fetch(tools: Tools, url: str, checksum: str, keep_git_dir: bool) -> Fetched:
    """Bring what an ADD asks for; raises what a download does, WrongChecksum or CannotClone."""
    place = os.path.join(tools.scratch, f"fetched-{secrets.token_hex(4)}")
    if is_git(url):
        directory, commit = await clone(url, place, keep_git_dir=keep_git_dir)
        if checksum and not commit.startswith(checksum):
            raise WrongChecksum(checksum, commit)
        return Fetched(f"git:{commit}:{keep_git_dir}", directory=directory)
    if checksum and not re.fullmatch(r"sha256:[0-9a-f]{64}", checksum):
        raise DockerfileError(f"invalid checksum {checksum!r}: only sha256 is supported")
    found = await tools.workers.call("download", url=url, place=place)
    digest, mtime_ns = found["digest"], found["mtime_ns"]
    if checksum and digest != checksum:
        raise WrongChecksum(checksum, digest)
    name = posixpath.basename(urllib.parse.unquote(urllib.parse.urlsplit(url).path))
    if not name or name in (".", ".."):
        name = "download"
    return Fetched(digest, path=place, name=name.replace("/", "_"), mtime_ns=mtime_ns)


async def clone(url: str, place: str, *, keep_git_dir: bool = False) -> tuple[str, str]:
    """Bring a repository, `URL[#REF[:FOLDER]]`, into `place`; the folder that was meant and the commit."""
    address, _, fragment = url.partition("#")
    ref, _, folder = fragment.partition(":")
    if address.startswith("github.com/"):
        address = f"https://{address}"
    if ref.startswith("-") or address.startswith("-"):
        raise CannotClone(f"cannot clone {url}: invalid reference")
    await _git("init", "-q", place)
    try:
        await _git("-C", place, "remote", "add", "origin", address)
        await _fetch(place, ref or "HEAD")
        await _git("-C", place, "checkout", "-q", "FETCH_HEAD")
        await _git("-C", place, "submodule", "update", "-q", "--init", "--recursive", "--depth", "1")
        commit = (await _git("-C", place, "rev-parse", "HEAD")).strip()
    except CannotClone:
        shutil.rmtree(place, ignore_errors=True)
        raise
    if not keep_git_dir:
        shutil.rmtree(os.path.join(place, ".git"), ignore_errors=True)
    inside = os.path.realpath(os.path.join(place, folder.strip("/")))
    if inside != os.path.realpath(place) and not inside.startswith(os.path.realpath(place) + "/"):
        raise CannotClone(f"cannot use {folder} of {address}: it is outside of the repository")
    if not os.path.isdir(inside):
        raise CannotClone(f"cannot use {folder} of {address}: no such directory")
    return inside, commit


async def _fetch(place: str, ref: str) -> None:
    """As little history as the server can give: one commit, of a branch, a tag or (from most servers) an id."""
    try:
        await _git("-C", place, "fetch", "-q", "--depth", "1", "origin", ref)
    except CannotClone:  # servers that only hand out files, and ids that are not at the top of anything
        await _git("-C", place, "fetch", "-q", "--tags", "origin", "+refs/heads/*:refs/remotes/origin/*")
        for candidate in (f"refs/remotes/origin/{ref}", ref, "refs/remotes/origin/main", "refs/remotes/origin/master"):
            if ref != "HEAD" and candidate.endswith(("/main", "/master")) and not candidate.endswith(f"/{ref}"):
                continue
            try:
                commit = (await _git("-C", place, "rev-parse", "--verify", "-q", f"{candidate}^{{commit}}")).strip()
            except CannotClone:
                continue
            await _git("-C", place, "update-ref", "--no-deref", "FETCH_HEAD", commit)
            return
        raise


async def _git(*words: str) -> str:
    environment = {**os.environ, **_NOTHING_ASKED, "LC_ALL": "C"}
    try:
        process = await asyncio.create_subprocess_exec(
            "git", "-c", "protocol.file.allow=never", *words, env=environment, stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
    except FileNotFoundError:
        raise CannotClone("cannot clone a repository: git is not installed on the daemon's machine") from None
    try:
        output, told = await process.communicate()
    except BaseException:
        process.kill()
        await process.wait()
        raise
    if process.returncode:
        reason = told.decode(errors="replace").strip()
        raise CannotClone(f"failed to fetch repository: git {words[-1]}: {reason[-500:]}")
    return output.decode(errors="replace")
