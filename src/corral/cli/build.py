"""`build`: an image of a Dockerfile and a folder, through the engine's own door."""

from __future__ import annotations

import base64
import os
import sys

from corral import jsontext
from corral.cli import buildoutput
from corral.cli.command import Command, Session
from corral.cli.flags import Flag, Flags
from corral.cli.problems import CliError, Exit, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from corral.cli.buildprogress import Plain
    from corral.cli.transport import Client, Response

_HOST_NETWORK, _INSECURE = "network.host", "security.insecure"


def _build(session: Session) -> int:
    flags = session.flags
    outputs = flags.each("output", buildoutput.read)
    if len(outputs) > 1:
        raise CliError("only one --output is supported")
    output = outputs[0] if outputs else buildoutput.Output("image", "", {})
    source = _Source(flags, session.arguments[0])
    body = _request(session, source)
    body["output"] = output.wire
    if output.attributes.get("name"):
        body["names"] = [*body["names"], *output.attributes["name"].split(",")]
    client = session.client
    from corral.cli import buildprogress

    if _has_our_door(client):
        display = buildprogress.display("quiet" if flags["quiet"] else flags["progress"])
        image = _run(client, body | source.send(client), output, display)
    else:
        image = _classic(client, body, source, flags)
    if flags["check"]:
        return 0
    _afterwards(session, body["names"], output, image)
    if flags["quiet"]:
        print(image)
    return 0


def _has_our_door(client: Client) -> bool:
    """Whether the daemon is Corral's; Docker's has the classic API."""
    _ = client.version
    return client.server_headers.get("server", "").startswith("Corral") or not client.server_headers


def _classic(client: Client, body: dict[str, Any], source: _Source, flags: Flags) -> str:
    from corral.cli import classicbuild

    if flags["build-context"]:
        raise CliError("this daemon cannot build with named contexts: it has the classic API only")
    known: dict[str, Any] = {"dockerfile": source.text or "", "name": source.name, "remote": source.remote}
    known |= {name: flags[flag] for name, flag in (("rm", "rm"), ("forcerm", "force-rm"), ("compress", "compress"))}
    return classicbuild.build(client, body | known, source.folder, source.path, quiet=flags["quiet"])


class _Source:
    """The context and the Dockerfile, wherever they are."""

    def __init__(self, flags: Flags, place: str) -> None:
        self._flags = flags
        self.folder = ""
        self.remote = ""
        self.path = ""
        self.text: str | None = None
        self.name = flags["file"] or "Dockerfile"
        if place == "-":
            self.text = sys.stdin.buffer.read().decode("utf-8", "surrogateescape")
            self.name = "Dockerfile"
        elif _is_remote(place):
            self.remote = place
        else:
            self._local(place)

    def _local(self, place: str) -> None:
        if not os.path.isdir(place):
            raise CliError(f'unable to prepare context: path "{place}" not found')
        self.folder = os.path.realpath(place)
        if self._flags["file"] == "-":
            self.text = sys.stdin.buffer.read().decode("utf-8", "surrogateescape")
            self.name = "Dockerfile"
            return
        path = self._flags["file"] or os.path.join(self.folder, "Dockerfile")
        try:
            with open(path, encoding="utf-8", errors="surrogateescape") as file:
                self.text = file.read()
        except OSError as error:
            raise CliError(f"failed to read dockerfile: open {path}: {(error.strerror or '').lower()}") from None
        self.path = path
        self.name = os.path.basename(path)

    def send(self, client: Client) -> dict[str, Any]:
        """Have the daemon know the files; what the request says of them."""
        found: dict[str, Any] = {"dockerfile": self.text or "", "name": self.name, "remote": self.remote}
        if self.folder:
            found["context"] = _send(client, self.folder, self.path, self._flags["quiet"])
        contexts = {}
        for item in self._flags["build-context"]:
            name, equals, value = item.partition("=")
            if not equals or not name:
                raise UsageError(f"invalid build context {item}, expected NAME=VALUE")
            if value.startswith("docker-image://") or _is_remote(value):
                contexts[name] = value
            elif os.path.isdir(value):
                contexts[name] = _send(client, os.path.realpath(value), "", self._flags["quiet"])
            else:
                raise CliError(f"failed to get build context {name}: stat {value}: no such file or directory")
        return {**found, "contexts": contexts}


def _is_remote(place: str) -> bool:
    return place.startswith(("http://", "https://", "git://", "git@", "ssh://", "github.com/"))


def _send(client: Client, folder: str, dockerfile: str, quiet: bool) -> str:
    """Bring the daemon's copy of a folder up to date: only what is new is sent."""
    from corral.cli import buildfiles

    entries = buildfiles.entries(folder, buildfiles.ignore_of(folder, dockerfile or os.path.join(folder, "Dockerfile")))
    key = f"{os.uname().nodename}:{os.geteuid()}:{folder}:{dockerfile}"
    answer = client.post("/corral/build/context", body={"key": key, "entries": entries})
    from corral.cli import progress

    # [kind, mode, size, time, target]; a header for each, and the data in blocks
    size = sum(1024 + entries[path][2] for path in answer["missing"] if path in entries)
    parts = progress.metered(buildfiles.archive(folder, answer["missing"]), "Sending the context", size, quiet)
    client.request("PUT", f"/corral/build/context/{answer['id']}", stream=parts).read()
    return str(answer["id"])


# --- the request -----------------------------------------------------------------------------------------------


def _request(session: Session, source: _Source) -> dict[str, Any]:
    flags = session.flags
    cache_from, inline = _caches(session)
    return {
        "names": list(flags["tag"]),
        "target": flags["target"],
        "arguments": _arguments(flags["build-arg"]),
        "labels": _pairs(flags["label"]),
        "annotations": _annotations(flags["annotation"]),
        "no_cache": flags["no-cache"],
        "no_cache_stages": list(flags["no-cache-filter"]),
        "pull": flags["pull"],
        "squash": flags["squash"],
        "platform": flags["platform"],
        "network": flags["network"],
        "hosts": list(flags["add-host"]),
        "memory": flags["memory"],
        "memory_swap": flags["memory-swap"],
        "cpu_period": flags["cpu-period"],
        "cpu_quota": flags["cpu-quota"],
        "cpu_shares": flags["cpu-shares"],
        "cpuset_cpus": flags["cpuset-cpus"],
        "cpuset_mems": flags["cpuset-mems"],
        "cgroup_parent": flags["cgroup-parent"],
        "security_opt": list(flags["security-opt"]),
        "shm_size": flags["shm-size"],
        "ulimits": [_ulimit(text) for text in flags["ulimit"]],
        "allowed": _allowed(flags),
        "secrets": dict(_secret(text) for text in flags["secret"]),
        "ssh": dict(_agent(session, text) for text in flags["ssh"]),
        "logins": _logins(session),
        "cache_from": cache_from,
        "inline_cache": inline,
        "provenance": _wanted(flags, "provenance"),
        "sbom": _wanted(flags, "sbom"),
        "check": flags["check"],
    }


def _pairs(texts: list[str]) -> dict[str, str]:
    return dict(text.partition("=")[::2] for text in texts)


def _arguments(texts: list[str]) -> dict[str, str]:
    """NAME=VALUE, or NAME for what the environment says."""
    found = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if equals:
            found[name] = value
        elif name in os.environ:
            found[name] = os.environ[name]
    if "SOURCE_DATE_EPOCH" in os.environ:
        found.setdefault("SOURCE_DATE_EPOCH", os.environ["SOURCE_DATE_EPOCH"])
    return found


def _annotations(texts: list[str]) -> dict[str, str]:
    found = {}
    for text in texts:
        kind, colon, rest = text.partition(":")
        if colon and kind in ("index", "manifest-descriptor", "index-descriptor"):
            raise CliError(f"annotations of an image's {kind} are not supported: use manifest:")
        name, equals, value = (rest if colon and kind == "manifest" else text).partition("=")
        if not equals:
            raise UsageError(f'invalid annotation "{text}", expected key=value')
        found[name] = value
    return found


def _ulimit(text: str) -> dict[str, Any]:
    name, _, limits = text.partition("=")
    soft, _, hard = limits.partition(":")
    try:
        return {"Name": name, "Soft": int(soft), "Hard": int(hard or soft)}
    except ValueError:
        raise UsageError(f"invalid ulimit argument: {text}") from None


def _allowed(flags: Flags) -> list[str]:
    for text in flags["allow"]:
        if text not in (_HOST_NETWORK, _INSECURE):
            raise UsageError(f"unknown entitlement {text}: {_HOST_NETWORK} or {_INSECURE}")
    return list(flags["allow"])


def _secret(text: str) -> tuple[str, str]:
    """`id=NAME[,src=FILE|,env=VARIABLE]`"""
    try:
        found = buildoutput.attributes(text)
    except ValueError as error:
        raise UsageError(f"failed to parse secret {text}: {error}") from None
    name = found.get("id", "")
    if not name:
        raise UsageError(f"failed to parse secret {text}: id is missing")
    path = found.get("src", found.get("source", ""))
    if path and found.get("type") != "env":
        try:
            with open(path, "rb") as file:
                data = file.read()
        except OSError as error:
            raise CliError(f"failed to read secret {name}: {path}: {(error.strerror or '').lower()}") from None
    else:
        variable = found.get("env") or path or name
        if variable not in os.environ:
            raise CliError(f"failed to read secret {name}: {variable} is not set")
        data = os.environ[variable].encode("utf-8", "surrogateescape")
    return name, base64.b64encode(data).decode()


def _agent(session: Session, text: str) -> tuple[str, str]:
    """`default` or `NAME[=SOCKET]`; the daemon must be on this machine, where the socket is."""
    name, _, path = text.partition("=")
    path = path or os.environ.get("SSH_AUTH_SOCK", "")
    if not session.globals.endpoint().host.startswith("unix://"):
        raise CliError("--ssh needs a daemon on this machine: the agent's socket is handed to it by its path")
    if not path or not os.path.exists(path):
        raise CliError(f"invalid empty ssh agent socket for {name}: make sure SSH_AUTH_SOCK is set")
    return name, os.path.realpath(path)


def _wanted(flags: Flags, name: str) -> bool:
    """--provenance and --sbom, or --attest type=NAME."""
    value = flags[name]
    if value and value.lower() not in ("false", "0"):
        return True
    return any(buildoutput.attributes(text).get("type") == name for text in flags["attest"] if "=" in text)


def _logins(session: Session) -> dict[str, dict[str, str]]:
    """The credentials that are stored here, by registry."""
    from corral.cli import credentials, endpoint

    config = endpoint.read_config(session.globals.config)
    found = {}
    for registry in {*(config.get("auths") or {}), *(config.get("credHelpers") or {})}:
        login = credentials.find(config, registry)
        if login:
            domain = "docker.io" if registry == credentials.HUB else registry.split("://")[-1].partition("/")[0]
            found[domain] = login
    return found


def _caches(session: Session) -> tuple[list[str], bool]:
    """The images to take cache from (archives are loaded first), and whether the result is to carry its own."""
    refs = []
    for text in session.flags["cache-from"]:
        found = _attributes(text)
        kind = found.get("type", "registry")
        if "" in found:
            refs.append(found[""])
        elif kind == "registry" and found.get("ref"):
            refs.append(found["ref"])
        elif kind == "local" and found.get("src"):
            refs += _load_cache(session, found["src"])
        else:
            raise UsageError(f"unsupported cache source: {text}")
    for text in session.flags["cache-to"]:
        found = _attributes(text)
        kind = found.get("type", "inline" if found.get("") == "inline" else "registry")
        needed = {"inline": "", "registry": "ref", "local": "dest"}
        if kind not in needed or (needed[kind] and not found.get(needed[kind]) and "" not in found):
            raise UsageError(f"unsupported cache destination: {text}")
        if found.get("mode", "min") != "min":
            raise CliError("--cache-to mode=max is not supported: the cache travels with the image's own layers")
    return refs, bool(session.flags["cache-to"])


def _attributes(text: str) -> dict[str, str]:
    try:
        return buildoutput.attributes(text)
    except ValueError as error:
        raise UsageError(f"invalid cache {text}: {error}") from None


def _load_cache(session: Session, folder: str) -> list[str]:
    """Load an OCI layout that an earlier `--cache-to type=local` has left; the id of its image."""
    if not os.path.exists(os.path.join(folder, "index.json")):
        return []
    from corral.cli import buildfiles
    from corral.cli.archives import platform_json

    paths = [
        os.path.relpath(os.path.join(top, name), folder)
        for top, folders, names in os.walk(folder)
        for name in (*names, *folders)
    ]
    stream = buildfiles.archive(folder, paths)
    answer = session.client.request("POST", "/images/load", {"platform": platform_json("")}, stream=stream)
    names = []
    for record in answer.records():
        text = record.get("stream", "")
        for lead in ("Loaded image ID: ", "Loaded image: "):
            if text.startswith(lead):
                names.append(text.removeprefix(lead).strip())
    return names


# --- the build -------------------------------------------------------------------------------------------------


def _run(client: Client, body: dict[str, Any], output: buildoutput.Output, display: Plain) -> str:
    """Have it built and shown; the image's id.  Raises Exit with the status of a failed command."""
    response = client.request("POST", "/corral/build", body=body)
    pieces = response.chunks()
    image = ""
    rest = b""
    while True:
        line, found, rest = _line(pieces, rest)
        if not found:
            break
        record = jsontext.loads(line)
        if "error" in record:
            display.close()
            raise Exit(_failed(display, record))
        if "output" in record:
            display.close()
            buildoutput.receive(output, _with(rest, pieces))
            return image
        if record.get("event") == "result":
            image = record["image"]
        display.take(record)
    display.close()
    if not image and not body["check"]:
        raise CliError("the daemon ended the build without a result")
    return image


def _line(pieces: Iterator[bytes], rest: bytes) -> tuple[bytes, bool, bytes]:
    while b"\n" not in rest:
        piece = next(pieces, None)
        if piece is None:
            return rest, False, b""
        rest += piece
    line, _, rest = rest.partition(b"\n")
    return line, True, rest


def _with(first: bytes, pieces: Iterator[bytes]) -> Iterator[bytes]:
    if first:
        yield first
    yield from pieces


def _failed(display: Plain, record: dict[str, Any]) -> int:
    name, lines = display.failed()
    if name and record.get("excerpt"):
        shown = "\n".join(["------", f" > {name}:", *lines, "------"])
        sys.stderr.write(f"{shown}\n")
    if record.get("excerpt"):
        sys.stderr.write(f"{record['excerpt']}\n")
    sys.stderr.write(f"ERROR: failed to build: {record['error']}\n")
    return int(record.get("code") or 1)


def _afterwards(session: Session, names: list[str], output: buildoutput.Output, image: str) -> None:
    """Push, write the files that were asked for, and keep the cache where it was wanted."""
    flags, client = session.flags, session.client
    if flags["iidfile"]:
        _write(flags["iidfile"], image)
    if flags["metadata-file"]:
        found = {"containerimage.digest": image, "image.name": ",".join(names)}
        _write(flags["metadata-file"], jsontext.indented(found, "  ") + "\n")
    if flags["push"] or output.kind == "registry" or output.attributes.get("push") in ("true", "1"):
        if not names:
            raise CliError("tag is needed when pushing to registry")
        for name in names:
            _push(session, name)
    for text in flags["cache-to"]:
        found = _attributes(text)
        if found.get("type") == "local":
            parts = client.request("GET", f"/images/{image}/get").chunks()
            buildoutput.unpack(parts, found["dest"])
        elif ref := (found.get("ref") or (found.get("") if found.get("") != "inline" else "")):
            repository, _, tag = ref.rpartition(":") if ":" in ref.rpartition("/")[2] else (ref, "", "latest")
            client.request("POST", f"/images/{image}/tag", {"repo": repository, "tag": tag}).read()
            _push(session, f"{repository}:{tag}")


def _write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)


def _push(session: Session, name: str) -> None:
    from corral.cli import credentials, endpoint, progress

    config = endpoint.read_config(session.globals.config)
    headers = credentials.header(config, credentials.registry_of(name)) or {"X-Registry-Auth": "e30="}
    repository, _, tag = name.rpartition(":") if ":" in name.rpartition("/")[2] else (name, "", "latest")
    response: Response = session.client.request("POST", f"/images/{repository}/push", {"tag": tag}, headers=headers)
    if session.flags["quiet"]:
        for record in response.records():
            if "error" in record:
                raise CliError(record["error"])
    else:
        progress.show(response.records())


_FLAGS = (
    Flag("add-host", "", "list", "Add a line to /etc/hosts of every command (HOST:IP)"),
    Flag("allow", "", "strings", "Allow what steps ask for: network.host, security.insecure"),
    Flag("annotation", "", "list", "Annotate the image's manifest (KEY=VALUE)"),
    Flag("attest", "", "list", "Attest something about the image: type=provenance, type=sbom"),
    Flag("build-arg", "", "list", "Set an argument of the Dockerfile (NAME=VALUE, or NAME for the environment's)"),
    Flag("build-context", "", "list", "Give another context a name (NAME=FOLDER, NAME=docker-image://IMAGE)"),
    Flag("cache-from", "", "list", "Take cache from an image or folder: IMAGE, type=local,src=FOLDER"),
    Flag("cache-to", "", "list", "Keep cache: type=inline, type=registry,ref=IMAGE, type=local,dest=FOLDER"),
    Flag("cgroup-parent", "", "string", "Parent of the commands' cgroups"),
    Flag("check", "", "bool", "Only look for what is wrong or unwise"),
    Flag("compress", "", "bool", "Compress the context, for a daemon with the classic API only"),
    Flag("cpu-period", "", "int", "Length of the commands' CPU period, in microseconds"),
    Flag("cpu-quota", "", "int", "CPU time of the commands in each period, in microseconds"),
    Flag("cpu-shares", "c", "int", "CPU time of the commands relative to others"),
    Flag("cpuset-cpus", "", "string", "CPUs that the commands may use (0-3, 0,1)"),
    Flag("cpuset-mems", "", "string", "Memory nodes that the commands may use (0-3, 0,1)"),
    Flag("disable-content-trust", "", "bool", "Skip image verification", True, hidden=True),
    Flag("file", "f", "string", "The Dockerfile (- for standard input)"),
    Flag("force-rm", "", "bool", "Remove intermediate containers always (the classic API's; Corral has none)"),
    Flag("iidfile", "", "string", "Write the image's id to a file"),
    Flag("label", "", "list", "Label the image (KEY=VALUE)"),
    Flag("load", "", "bool", "Keep the image at the daemon, as every build does"),
    Flag("memory", "m", "bytes", "Memory that each command may use"),
    Flag("memory-swap", "", "swap", "Memory and swap together; -1 for unlimited swap"),
    Flag("metadata-file", "", "string", "Write what was built to a file, as JSON"),
    Flag("network", "", "string", "Network of the commands"),
    Flag("no-cache", "", "bool", "Do every step anew"),
    Flag("no-cache-filter", "", "strings", "Do every step of these stages anew"),
    Flag(
        "output", "o", "list", "Where the result goes: FOLDER, - or type=local|tar|oci|docker|image|registry,dest=PLACE"
    ),
    Flag("platform", "", "string", "Platform to build for"),
    Flag("progress", "", "string", "How to show what happens: auto, plain, tty or quiet", "auto"),
    Flag("provenance", "", "string", "Attest where the image comes from (true)"),
    Flag("pull", "", "bool", "Fetch bases even if they are here"),
    Flag("push", "", "bool", "Push the image"),
    Flag("quiet", "q", "bool", "Print the image's id only"),
    Flag("rm", "", "bool", "Remove intermediate containers (the classic API's; Corral has none)", True),
    Flag("sbom", "", "string", "Attest which packages are in the image (true)"),
    Flag("secret", "", "list", "Give commands a secret: id=NAME[,src=FILE][,env=VARIABLE]"),
    Flag("security-opt", "", "strings", "Security option of the commands"),
    Flag("shm-size", "", "bytes", "Size of /dev/shm"),
    Flag("squash", "", "bool", "Make one layer of all new ones"),
    Flag("ssh", "", "list", "Give commands an SSH agent: default, or NAME=SOCKET"),
    Flag("tag", "t", "list", "Name of the image"),
    Flag("target", "", "string", "Stage to build"),
    Flag("ulimit", "", "list", "Limit of the commands (NAME=SOFT[:HARD])"),
)
BUILD = Command(
    _build,
    "Build an image from a Dockerfile",
    "[OPTIONS] PATH | URL | -",
    _FLAGS,
    1,
    1,
    examples=("build -t app .", "build --secret id=npmrc,src=$HOME/.npmrc -t app .", "build -o out --target files ."),
)
