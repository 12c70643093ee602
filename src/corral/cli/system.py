"""`corral version` and `corral info`."""

from __future__ import annotations

import sys

from corral import jsontext
from corral.cli.command import Command, Session, error_line
from corral.cli.flags import Flag
from corral.cli.problems import CliError, NotConnected
from corral.cli.units import binary_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

VERSION_TEXT = "0.1.0"
_FORMAT = Flag("format", "f", "string", "Go template, or `json`")


def _version(session: Session) -> int:
    server: dict[str, Any] | None = None
    problem: CliError | None = None
    try:
        server = session.client.get("/version")
    except NotConnected as error:
        problem = error
    shown = {"Client": _client(session, server is not None), "Server": server}
    format_ = session.flags["format"]
    if format_ == "json":
        print(jsontext.dumps(shown))
    elif format_:
        from corral.cli.template import Template

        print(Template(format_.replace("\\t", "\t").replace("\\n", "\n")).render(_named_as_in_go(shown)))
    else:
        sys.stdout.write(_version_text(shown["Client"] or {}, server))
    if problem:
        raise problem
    return 0


def _named_as_in_go(shown: dict[str, Any]) -> dict[str, Any]:
    """With the names that docker's templates know: they are those of its structures, not of the JSON."""
    return {side: fields and {**fields, "APIVersion": fields.get("ApiVersion")} for side, fields in shown.items()}


def _client(session: Session, connected: bool) -> dict[str, Any]:
    import os

    newest = "1.51"
    machine = os.uname()
    return {
        "Version": VERSION_TEXT,
        "ApiVersion": session.client.version if connected else newest,
        "DefaultAPIVersion": newest,
        "GitCommit": "",
        "GoVersion": "Python {}.{}.{}".format(*sys.version_info[:3]),
        "Os": machine.sysname.lower(),
        "Arch": {"x86_64": "amd64", "aarch64": "arm64"}.get(machine.machine, machine.machine),
        "BuildTime": "",
        "Context": session.globals.endpoint().context,
    }


def _version_text(client: Mapping[str, Any], server: Mapping[str, Any] | None) -> str:
    api = client["ApiVersion"]
    if api != client["DefaultAPIVersion"]:
        api = f"{api} (downgraded from {client['DefaultAPIVersion']})"
    lines = [
        "Client: Corral",
        f" Version:           {client['Version']}",
        f" API version:       {api}",
        f" Python version:    {client['GoVersion'].removeprefix('Python ')}",
        f" OS/Arch:           {client['Os']}/{client['Arch']}",
        f" Context:           {client['Context']}",
    ]
    if server is None:
        return "\n".join(lines) + "\n"
    lines += ["", f"Server: {(server.get('Platform') or {}).get('Name', '')}".rstrip()]
    for component in server.get("Components") or ():
        lines += _component(component)
    return "\n".join(lines) + "\n"


def _component(component: Mapping[str, Any]) -> list[str]:
    lines = [f" {component['Name']}:", f"  Version:          {component['Version']}"]
    details = component.get("Details") or {}
    if component["Name"] != "Engine":
        return [*lines, *(f"  {name + ':':<17} {value}" for name, value in sorted(details.items()))]
    return [
        *lines,
        f"  API version:      {details.get('ApiVersion')} (minimum version {details.get('MinAPIVersion')})",
        f"  Go version:       {details.get('GoVersion')}",
        f"  Git commit:       {details.get('GitCommit')}",
        f"  Built:            {details.get('BuildTime')}",
        f"  OS/Arch:          {details.get('Os')}/{details.get('Arch')}",
        f"  Experimental:     {details.get('Experimental')}",
    ]


def _info(session: Session) -> int:
    server: dict[str, Any] | None = None
    problem: CliError | None = None
    try:
        server = session.client.get("/info")
    except NotConnected as error:
        problem = error
    format_ = session.flags["format"]
    client = {**_client(session, server is not None), "Debug": session.globals.debug, "Plugins": [], "Warnings": None}
    shown: dict[str, Any] = {**(server or {}), "ClientInfo": client}
    if problem:
        shown["ServerErrors"] = [str(problem)]
    if format_ == "json":
        print(jsontext.dumps(shown))
    elif format_:
        from corral.cli.template import Template

        print(Template(format_.replace("\\t", "\t").replace("\\n", "\n")).render(shown))
    else:
        sys.stdout.write(_info_text(client, server))
        for warning in (server or {}).get("Warnings") or ():
            error_line(str(warning))
    if problem:
        raise problem
    return 0


def _info_text(client: Mapping[str, Any], server: Mapping[str, Any] | None) -> str:
    lines = [
        "Client:",
        f" Version:    {client['Version']}",
        f" Context:    {client['Context']}",
        f" Debug Mode: {_bool(client['Debug'])}",
        "",
        "Server:",
    ]
    if server is not None:
        lines += [*_counts(server), *_engine(server), *_machine(server), *_settings(server), ""]
    return "\n".join(lines) + "\n"


def _bool(value: object) -> str:
    return "true" if value else "false"


def _counts(server: Mapping[str, Any]) -> list[str]:
    return [
        f" Containers: {server['Containers']}",
        f"  Running: {server['ContainersRunning']}",
        f"  Paused: {server['ContainersPaused']}",
        f"  Stopped: {server['ContainersStopped']}",
        f" Images: {server['Images']}",
        f" Server Version: {server['ServerVersion']}",
        f" Storage Driver: {server['Driver']}",
        *(f"  {name}: {value}" for name, value in server.get("DriverStatus") or ()),
    ]


def _engine(server: Mapping[str, Any]) -> list[str]:
    plugins = server.get("Plugins") or {}
    lines = [
        f" Logging Driver: {server.get('LoggingDriver')}",
        f" Cgroup Driver: {server.get('CgroupDriver')}",
        f" Cgroup Version: {server.get('CgroupVersion')}",
        " Plugins:",
        f"  Volume: {' '.join(plugins.get('Volume') or ())}",
        f"  Network: {' '.join(plugins.get('Network') or ())}",
    ]
    if plugins.get("Authorization"):
        lines.append(f"  Authorization: {' '.join(plugins['Authorization'])}")
    lines += [
        f"  Log: {' '.join(plugins.get('Log') or ())}",
        f" Swarm: {(server.get('Swarm') or {}).get('LocalNodeState') or 'inactive'}",
        f" Runtimes: {' '.join(server.get('Runtimes') or ())}",
        f" Default Runtime: {server.get('DefaultRuntime')}",
        f" Init Binary: {server.get('InitBinary')}",
    ]
    for title, key in (("containerd", "ContainerdCommit"), ("runc", "RuncCommit"), ("init", "InitCommit")):
        lines.append(f" {title} version: {(server.get(key) or {}).get('ID', '')}")
    options = server.get("SecurityOptions") or ()
    if options:
        lines.append(" Security Options:")
    for option in options:
        fields = dict(field.partition("=")[::2] for field in option.split(","))
        lines.append(f"  {fields.pop('name', option)}")
        lines += [f"   {name.title()}: {value}" for name, value in fields.items()]
    return lines


def _machine(server: Mapping[str, Any]) -> list[str]:
    return [
        f" Kernel Version: {server.get('KernelVersion')}",
        f" Operating System: {server.get('OperatingSystem')}",
        f" OSType: {server.get('OSType')}",
        f" Architecture: {server.get('Architecture')}",
        f" CPUs: {server.get('NCPU')}",
        f" Total Memory: {binary_size(float(server.get('MemTotal') or 0))}",
        f" Name: {server.get('Name')}",
        f" ID: {server.get('ID')}",
        f" Docker Root Dir: {server.get('DockerRootDir')}",
        f" Debug Mode: {_bool(server.get('Debug'))}",
    ]


def _settings(server: Mapping[str, Any]) -> list[str]:
    lines = [f" {title}: {server[key]}" for title, key in _PROXIES if server.get(key)]
    if server.get("Labels"):
        lines += [" Labels:", *(f"  {label}" for label in server["Labels"])]
    lines.append(f" Experimental: {_bool(server.get('ExperimentalBuild'))}")
    registries = server.get("RegistryConfig") or {}
    insecure = [name for name, one in (registries.get("IndexConfigs") or {}).items() if one.get("Secure") is False]
    networks = registries.get("InsecureRegistryCIDRs") or ()
    if insecure or networks:
        lines += [" Insecure Registries:", *(f"  {name}" for name in [*insecure, *networks])]
    if registries.get("Mirrors"):
        lines += [" Registry Mirrors:", *(f"  {mirror}" for mirror in registries["Mirrors"])]
    lines.append(f" Live Restore Enabled: {_bool(server.get('LiveRestoreEnabled'))}")
    if server.get("ProductLicense"):
        lines.append(f" Product License: {server['ProductLicense']}")
    if server.get("DefaultAddressPools"):
        lines.append(" Default Address Pools:")
        lines += [f"   Base: {pool['Base']}, Size: {pool['Size']}" for pool in server["DefaultAddressPools"]]
    return lines


_PROXIES = (("HTTP Proxy", "HttpProxy"), ("HTTPS Proxy", "HttpsProxy"), ("No Proxy", "NoProxy"))
VERSION = Command(_version, "Show the versions of client and daemon", "[OPTIONS]", (_FORMAT,))
INFO = Command(_info, "Show what the daemon and its machine are", "[OPTIONS]", (_FORMAT,), aliases="system info, info")
