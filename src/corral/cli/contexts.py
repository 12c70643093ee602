"""`corral context ...`: addresses of daemons under names, in the files that Docker's client uses too."""

from __future__ import annotations

import os
import sys

from corral import jsontext
from corral.cli import table
from corral.cli.command import Command, Session, error_line
from corral.cli.endpoint import DEFAULT_HOST, config_folder, context_key, context_name, read_config
from corral.cli.flags import Flag
from corral.cli.listing import FORMAT
from corral.cli.problems import CliError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import tarfile
    from typing import Any

_TLS_FILES = ("ca", "cert", "key")


def _folder(session: Session) -> str:
    return config_folder(session.globals.config)


def _meta_path(folder: str, name: str) -> str:
    return os.path.join(folder, "contexts", "meta", context_key(name), "meta.json")


def _tls_folder(folder: str, name: str) -> str:
    return os.path.join(folder, "contexts", "tls", context_key(name))


def _current(session: Session) -> str:
    return context_name(_folder(session), session.globals.context, session.globals.hosts)


def read(folder: str, name: str) -> dict[str, Any]:
    """A stored context; raises CliError."""
    path = _meta_path(folder, name)
    try:
        with open(path, "rb") as file:
            found: dict[str, Any] = jsontext.loads(file.read())
    except FileNotFoundError:
        raise CliError(f'context "{name}": context not found: open {path}: no such file or directory') from None
    except (OSError, ValueError) as error:
        raise CliError(f'cannot read context "{name}": {error}') from error
    return found


def stored(folder: str) -> list[dict[str, Any]]:
    """Every stored context, by name."""
    root = os.path.join(folder, "contexts", "meta")
    found = []
    for key in os.listdir(root) if os.path.isdir(root) else ():
        path = os.path.join(root, key, "meta.json")
        if os.path.isfile(path):
            with open(path, "rb") as file:
                found.append(jsontext.loads(file.read()))
    return sorted(found, key=lambda one: str(one["Name"]))


def _check_name(name: str) -> None:
    if name == "default":
        raise CliError('"default" is a reserved context name')
    allowed = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
    if len(name) < 2 or name[0] not in allowed or any(char not in allowed + "_.+-" for char in name):
        raise CliError(
            f'context name "{name}" is invalid, names are validated against regexp "^[a-zA-Z0-9][a-zA-Z0-9_.+-]+$"'
        )


def write(folder: str, meta: dict[str, Any], files: dict[str, bytes] | None = None) -> None:
    """Store a context; with `files` (ca, cert, key) in place of what it had of those."""
    path = _meta_path(folder, meta["Name"])
    if files is not None:
        _remove_tree(_tls_folder(folder, meta["Name"]))
        target = os.path.join(_tls_folder(folder, meta["Name"]), "docker")
        for name, content in files.items():
            os.makedirs(target, mode=0o700, exist_ok=True)
            _write_file(os.path.join(target, f"{name}.pem"), content, 0o600)
    os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
    _write_file(path, jsontext.dumps(meta).encode(), 0o644)


def _write_file(path: str, content: bytes, mode: int) -> None:
    temporary = f"{path}.{os.getpid()}.new"
    with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as file:
        file.write(content)
    os.replace(temporary, path)


def _remove_tree(path: str) -> None:
    import shutil

    if os.path.isdir(path):
        shutil.rmtree(path)


def _endpoint_of(session: Session, items: list[str]) -> tuple[dict[str, Any], dict[str, bytes]]:
    """`--docker host=...,ca=...` as the stored endpoint and its files; raises CliError."""
    fields = dict(item.partition("=")[::2] for item in items)
    unknown = set(fields) - {"from", "host", "ca", "cert", "key", "skip-tls-verify"}
    if unknown:
        raise CliError(f"unable to create docker endpoint config: unrecognized config key: {min(unknown)}")
    files: dict[str, bytes] = {}
    endpoint: dict[str, Any] = {"Host": fields.get("host", DEFAULT_HOST), "SkipTLSVerify": False}
    if fields.get("from"):
        source = _folder(session)
        endpoint = dict(read(source, fields["from"])["Endpoints"]["docker"])
        files = _tls_files(source, fields["from"])
    for name in _TLS_FILES:
        if fields.get(name):
            try:
                with open(os.path.expanduser(fields[name]), "rb") as file:
                    files[name] = file.read()
            except OSError as error:
                raise CliError(
                    f"unable to create docker endpoint config: open {fields[name]}: {error.strerror}"
                ) from None
    if "skip-tls-verify" in fields:
        endpoint["SkipTLSVerify"] = fields["skip-tls-verify"] in ("true", "1", "")
    return endpoint, files


def _tls_files(folder: str, name: str) -> dict[str, bytes]:
    found = {}
    for kind in _TLS_FILES:
        path = os.path.join(_tls_folder(folder, name), "docker", f"{kind}.pem")
        if os.path.isfile(path):
            with open(path, "rb") as file:
                found[kind] = file.read()
    return found


def _create(session: Session) -> int:
    flags, name, folder = session.flags, session.arguments[0], _folder(session)
    _check_name(name)
    if os.path.exists(_meta_path(folder, name)):
        raise CliError(f'context "{name}" already exists')
    items = [f"from={flags['from']}"] if flags["from"] else flags["docker"]
    if not items:
        raise CliError("docker endpoint configuration is required")
    endpoint, files = _endpoint_of(session, items)
    metadata = {"Description": flags["description"]} if flags["description"] else {}
    write(folder, {"Name": name, "Metadata": metadata, "Endpoints": {"docker": endpoint}}, files)
    print(name)
    error_line(f'Successfully created context "{name}"')
    return 0


def _update(session: Session) -> int:
    flags, name, folder = session.flags, session.arguments[0], _folder(session)
    _check_name(name)
    meta = read(folder, name)
    if flags.changed("description"):
        meta["Metadata"]["Description"] = flags["description"]
    files = None
    if flags["docker"]:
        meta["Endpoints"]["docker"], files = _endpoint_of(session, flags["docker"])
    write(folder, meta, files)
    print(name)
    error_line(f'Successfully updated context "{name}"')
    return 0


_TITLES = {
    "Name": "NAME", "Description": "DESCRIPTION", "DockerEndpoint": "DOCKER ENDPOINT", "Current": "CURRENT",
    "Error": "ERROR",
}  # fmt: skip


def _list(session: Session) -> int:
    folder, current = _folder(session), _current(session)
    host = session.globals.endpoint().host if current == "default" else DEFAULT_HOST
    rows = [
        {
            "Name": "default",
            "Description": "Current DOCKER_HOST based configuration",
            "DockerEndpoint": host,
            "Current": current == "default",
            "Error": "",
        }
    ]
    for one in stored(folder):
        rows.append(
            {
                "Name": one["Name"],
                "Description": one.get("Metadata", {}).get("Description", ""),
                "DockerEndpoint": one.get("Endpoints", {}).get("docker", {}).get("Host", ""),
                "Current": one["Name"] == current,
                "Error": "",
            }
        )
    rows.sort(key=lambda row: str(row["Name"]))
    if session.flags["quiet"]:
        sys.stdout.write("".join(f"{row['Name']}\n" for row in rows))
        return 0
    if not session.flags["format"]:
        for row in rows:
            row["Name"] = f"{row['Name']} *" if row["Current"] else row["Name"]
    table.show(rows, ("Name", "Description", "DockerEndpoint", "Error"), _TITLES, session.flags["format"])
    overriding = _overriding()
    if overriding:
        error_line(
            f"Warning: {overriding} environment variable overrides the active context. To use a context, either set "
            f"the global --context flag, or unset {overriding} environment variable."
        )
    return 0


def _overriding() -> str:
    return next((variable for variable in ("CORRAL_HOST", "DOCKER_HOST") if os.environ.get(variable)), "")


def _use(session: Session) -> int:
    name, folder = session.arguments[0], _folder(session)
    if name != "default":
        read(folder, name)
    config = read_config(folder)
    config.pop("currentContext", None)
    if name != "default":
        config["currentContext"] = name
    os.makedirs(folder, mode=0o700, exist_ok=True)
    _write_file(os.path.join(folder, "config.json"), (jsontext.indented(config, "\t")).encode(), 0o600)
    print(name)
    overriding = _overriding()
    if overriding:
        error_line(
            f"Warning: {overriding} environment variable overrides the active context. "
            f'To use "{name}", either set the global --context flag, or unset {overriding} environment variable.'
        )
    error_line(f'Current context is now "{name}"')
    return 0


def _show(session: Session) -> int:
    print(_current(session))
    return 0


def _inspect(session: Session) -> int:
    from corral.cli.inspecting import show

    folder = _folder(session)

    def get(name: str) -> Any:
        storage = {"MetadataPath": "<IN MEMORY>", "TLSPath": "<IN MEMORY>"}
        if name == "default":
            endpoint = {"Host": session.globals.endpoint().host, "SkipTLSVerify": False}
            return {
                "Name": name, "Metadata": {}, "Endpoints": {"docker": endpoint}, "TLSMaterial": {}, "Storage": storage,
            }  # fmt: skip
        meta = read(folder, name)
        files = [f"{kind}.pem" for kind in _TLS_FILES if kind in _tls_files(folder, name)]
        storage = {"MetadataPath": os.path.dirname(_meta_path(folder, name)), "TLSPath": _tls_folder(folder, name)}
        return {**meta, "TLSMaterial": {"docker": files} if files else {}, "Storage": storage}

    return show(session, session.arguments or [_current(session)], get, session.flags["format"])


def _remove(session: Session) -> int:
    folder, current = _folder(session), _current(session)

    def remove(name: str) -> None:
        if name == "default":
            raise CliError('context "default" cannot be removed')
        if not session.flags["force"]:
            read(folder, name)
        if name == current and not session.flags["force"]:
            raise CliError(f'context "{name}" is in use, set -f flag to force remove')
        _remove_tree(os.path.dirname(_meta_path(folder, name)))
        _remove_tree(_tls_folder(folder, name))

    return session.each(session.arguments, remove)


def _member(path: str, size: int) -> tarfile.TarInfo:
    import tarfile

    info = tarfile.TarInfo(path)
    info.size, info.mode = size, 0o600
    return info


def _export(session: Session) -> int:
    import io
    import tarfile

    name, folder = session.arguments[0], _folder(session)
    target = session.arguments[1] if len(session.arguments) > 1 else f"{name}.dockercontext"
    members = {"meta.json": jsontext.dumps(read(folder, name)).encode()}
    files = {f"tls/docker/{kind}.pem": content for kind, content in _tls_files(folder, name).items()}
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for path, content in members.items():
            tar.addfile(_member(path, len(content)), io.BytesIO(content))
        for path in ("tls", *(("tls/docker",) if files else ())):
            info = tarfile.TarInfo(path)
            info.type, info.mode = tarfile.DIRTYPE, 0o700
            tar.addfile(info)
        for path, content in files.items():
            tar.addfile(_member(path, len(content)), io.BytesIO(content))
    if target == "-":
        from corral.cli.relay import write_all

        write_all(1, archive.getvalue())
        return 0
    with open(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(archive.getvalue())
    error_line(f'Written file "{target}"')
    return 0


_IMPORT_LIMIT_BYTES = 10 << 20


def _import(session: Session) -> int:
    import io
    import tarfile

    name, source = session.arguments
    folder = _folder(session)
    _check_name(name)
    if os.path.exists(_meta_path(folder, name)):
        raise CliError(f'context "{name}" already exists')
    if source == "-":
        data = sys.stdin.buffer.read(_IMPORT_LIMIT_BYTES)
    else:
        with open(source, "rb") as file:
            data = file.read(_IMPORT_LIMIT_BYTES)
    members: dict[str, bytes] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            for info in tar:
                content = tar.extractfile(info) if info.isfile() else None
                if content is not None:
                    members[info.name] = content.read()
        meta = jsontext.loads(members["meta.json"])
    except (tarfile.TarError, KeyError, ValueError) as error:
        raise CliError(f"cannot read {source} as a context: {error}") from None
    files = {kind: members[path] for kind in _TLS_FILES if (path := f"tls/docker/{kind}.pem") in members}
    write(folder, {**meta, "Name": name}, files)
    print(name)
    error_line(f'Successfully imported context "{name}"')
    return 0


_DESCRIPTION = Flag("description", "", "string", "What the context is")
_DOCKER = Flag("docker", "", "strings", "Address (host=tcp://HOST:2376,ca=FILE,cert=FILE,key=FILE)", shown="map")
_EXAMPLE = "context create far --docker host=tcp://far:2376,ca=ca.pem,cert=cert.pem,key=key.pem"
CREATE = Command(
    _create,
    "Store the address of a daemon under a name",
    "[OPTIONS] CONTEXT",
    (_DESCRIPTION, _DOCKER, Flag("from", "", "string", "Copy this context")),
    least=1,
    most=1,
    examples=(_EXAMPLE,),
)
UPDATE = Command(_update, "Change a context", "[OPTIONS] CONTEXT", (_DESCRIPTION, _DOCKER), 1, 1)
LIST = Command(
    _list,
    "List contexts",
    "[OPTIONS]",
    (FORMAT, Flag("quiet", "q", "bool", "Print names alone")),
    aliases="context ls, context list",
)
USE = Command(_use, "Choose the context that commands use", "CONTEXT", (), 1, 1)
SHOW = Command(_show, "Print the name of the context in use", "")
INSPECT = Command(
    _inspect,
    "Show everything about contexts",
    "[OPTIONS] [CONTEXT] [CONTEXT...]",
    (Flag("format", "f", "string", "Go template for each context, or `json`"),),
    most=None,
)
RM = Command(
    _remove,
    "Remove contexts",
    "CONTEXT [CONTEXT...]",
    (Flag("force", "f", "bool", "Remove it though it is in use"),),
    least=1,
    most=None,
    aliases="context rm, context remove",
)
EXPORT = Command(_export, "Write a context to a tar archive", "[OPTIONS] CONTEXT [FILE|-]", (), 1, 2)
IMPORT = Command(_import, "Read a context from a tar archive", "CONTEXT FILE|-", (), 2, 2)
