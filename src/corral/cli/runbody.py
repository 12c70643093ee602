"""From the flags of `run` and `create` to the body of `POST /containers/create`.

Reads the files that flags name (--env-file, --label-file, a seccomp profile) and our environment; nothing else.
Raises CliError with Docker's texts.
"""

from __future__ import annotations

import os

from corral.cli import mounts, networkspec, portspecs, values
from corral.cli.limits import resources
from corral.cli.problems import CliError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from corral.cli.flags import Flags


def body(flags: Flags, arguments: list[str]) -> dict[str, Any]:
    """The whole body, from an image (or a snapshot) and a command; raises CliError."""
    image, command = ("", arguments) if flags["from-snapshot"] else (arguments[0], arguments[1:])
    try:
        return _body(flags, image, command)
    except ValueError as error:
        raise CliError(str(error), 125) from None


def _body(flags: Flags, image: str, command: list[str]) -> dict[str, Any]:
    ports, bindings = _ports(flags)
    binds, anonymous = mounts.volumes(flags["volume"])
    found: dict[str, Any] = {
        "Hostname": flags["hostname"],
        "Domainname": flags["domainname"],
        "User": flags["user"],
        **_streams(flags),
        "Env": environment(flags["env-file"], flags["env"]),
        "Cmd": command or None,
        "Image": image,
        "Volumes": {path: {} for path in anonymous},
        "WorkingDir": flags["workdir"],
        "Entrypoint": _entrypoint(flags),
        "Labels": _labels(flags),
    }
    if ports:
        found["ExposedPorts"] = ports
    if flags.changed("stop-signal"):
        found["StopSignal"] = flags["stop-signal"]
    if flags.changed("stop-timeout"):
        found["StopTimeout"] = flags["stop-timeout"]
    health = _health(flags)
    if health:
        found["Healthcheck"] = health
    mode, endpoints = networkspec.networks(flags)
    found["HostConfig"] = {
        **_host(flags, mode),
        "Binds": binds or None,
        "PortBindings": bindings,
        **resources(flags),
    }
    found["NetworkingConfig"] = {"EndpointsConfig": endpoints}
    return found


def _streams(flags: Flags) -> dict[str, bool]:
    chosen = flags.each("attach", _stream_name)
    everything = not chosen
    detached = "detach" in flags.names() and flags["detach"]
    stdin = not detached and (flags["interactive"] or "stdin" in chosen)
    return {
        "AttachStdin": stdin,
        "AttachStdout": not detached and (everything or "stdout" in chosen),
        "AttachStderr": not detached and (everything or "stderr" in chosen),
        "Tty": flags["tty"],
        "OpenStdin": flags["interactive"],
        "StdinOnce": flags["interactive"] and stdin,
    }


def _stream_name(text: str) -> str:
    if text.lower() not in ("stdin", "stdout", "stderr"):
        raise ValueError("valid streams are STDIN, STDOUT and STDERR")
    return text.lower()


def _entrypoint(flags: Flags) -> list[str] | None:
    if not flags.changed("entrypoint"):
        return None
    return [flags["entrypoint"]]  # an empty one clears the image's


def _labels(flags: Flags) -> dict[str, str]:
    lines = [line for path in flags["label-file"] for line in _lines(path, environ=False)]
    return values.key_values([*lines, *flags["label"]])


def environment(files: list[str], given: list[str]) -> list[str]:
    """Variables of files and flags in order; a bare NAME takes our value, or is left out if we have none."""
    found = [line for path in files for line in _lines(path)]
    for item in given:
        if item.startswith("=") or not item:
            raise ValueError(f"invalid environment variable: {item}")
        if "=" in item:
            found.append(item)
        elif item in os.environ:
            found.append(f"{item}={os.environ[item]}")
        else:
            found.append(item)  # tells the daemon to take the image's away
    return found


def _lines(path: str, environ: bool = True) -> list[str]:
    """Lines of a file of variables or labels: `#` comments and empty lines dropped, leading blanks cut."""
    try:
        with open(path, encoding="utf-8-sig") as file:
            text = file.read()
    except UnicodeDecodeError:
        raise ValueError(f"env file {path} contains invalid utf8 bytes") from None
    except OSError as error:
        raise ValueError(f"open {path}: {(error.strerror or '').lower()}") from None
    found = []
    for line in text.splitlines():
        line = line.lstrip()
        if not line or line.startswith("#"):
            continue
        name, equals, _ = line.partition("=")
        if not name:
            raise ValueError(f"no variable name on line '{line}'")
        if any(blank in name for blank in " \t"):
            raise ValueError(f"variable '{name}' contains whitespaces")
        if equals or not environ:
            found.append(line)
        elif name in os.environ:
            found.append(f"{name}={os.environ[name]}")
    return found


def _ports(flags: Flags) -> tuple[dict[str, dict[str, str]], dict[str, list[dict[str, str]]]]:
    """Exposed ports and bindings."""
    ports: dict[str, dict[str, str]] = {}
    bindings: dict[str, list[dict[str, str]]] = {}
    for item in flags["publish"]:
        for port, binding in portspecs.published(item):
            ports[port] = {}
            if binding not in bindings.setdefault(port, []):
                bindings[port].append(binding)
    for item in flags["expose"]:
        for port in portspecs.exposed(item):
            ports[port] = {}
    return ports, bindings


def _health(flags: Flags) -> dict[str, Any]:
    names = [
        "health-cmd",
        "health-interval",
        "health-timeout",
        "health-start-period",
        "health-start-interval",
        "health-retries",
    ]
    given = [name for name in names if flags.changed(name)]
    if flags["no-healthcheck"]:
        if given:
            raise ValueError("--no-healthcheck conflicts with --health-* options")
        return {"Test": ["NONE"]}
    if not given:
        return {}
    for name in names[1:5]:
        if flags[name] < 0:
            raise ValueError(f"--{name} cannot be negative")
    if flags["health-retries"] < 0:
        raise ValueError("--health-retries cannot be negative")
    found: dict[str, Any] = {}
    if flags["health-cmd"]:
        found["Test"] = ["CMD-SHELL", flags["health-cmd"]]
    keys = ("Interval", "Timeout", "StartPeriod", "StartInterval", "Retries")
    return {**found, **{key: flags[name] for key, name in zip(keys, names[1:], strict=True) if flags[name]}}


def _vault_files(items: list[str]) -> list[dict[str, Any]]:
    if not items:
        return []
    from corral.cli.vault import parse_file

    return [parse_file(item) for item in items]


def _only_if(name: str, value: Any) -> dict[str, Any]:
    """A field beyond Docker's API: sent only when it says something."""
    return {name: value} if value else {}


def _host(flags: Flags, network_mode: str) -> dict[str, Any]:
    if flags["rm"] and flags["restart"] not in ("", "no"):
        raise ValueError("conflicting options: cannot specify both --restart and --rm")
    found: dict[str, Any] = {
        "ContainerIDFile": flags["cidfile"],
        "LogConfig": {"Type": flags["log-driver"], "Config": _log_options(flags)},
        "NetworkMode": network_mode,
        "RestartPolicy": restart_policy(flags["restart"]),
        **_only_if("RestartOptions", restart_options(flags["restart"])),
        **_only_if("DependsOn", flags["depends-on"]),
        **_only_if("FromSnapshot", flags["from-snapshot"]),
        **_only_if("NetRate", flags["net-rate"]),
        **_only_if("Egress", flags["egress"]),
        **_only_if("Secrets", _vault_files(flags["secret"])),
        **_only_if("Configs", _vault_files(flags["config"])),
        "AutoRemove": flags["rm"],
        "VolumeDriver": flags["volume-driver"],
        "VolumesFrom": flags["volumes-from"] or None,
        "CapAdd": _capabilities(flags["cap-add"]) or None,
        "CapDrop": _capabilities(flags["cap-drop"]) or None,
        "CgroupnsMode": _namespace("cgroupns", "CGROUP", flags["cgroupns"], ("", "private", "host")),
        "Dns": flags["dns"],
        "DnsOptions": [*flags["dns-opt"], *flags["dns-option"]],
        "DnsSearch": flags["dns-search"],
        "ExtraHosts": flags.each("add-host", _extra_host) or None,
        "GroupAdd": flags["group-add"] or None,
        "IpcMode": flags["ipc"],
        "Links": flags["link"] or None,
        "OomScoreAdj": flags["oom-score-adj"],
        "PidMode": flags["pid"],
        "Privileged": flags["privileged"],
        "PublishAllPorts": flags["publish-all"],
        "ReadonlyRootfs": flags["read-only"],
        "UTSMode": _namespace("uts", "UTS", flags["uts"], ("", "host")),
        "UsernsMode": _namespace("userns", "USER", flags["userns"], ("", "host")),
        "ShmSize": flags["shm-size"],
        "Isolation": flags["isolation"],
    }
    options = security_options(flags["security-opt"])
    found["SecurityOpt"] = [item for item in options if item != "systempaths=unconfined"] or None
    if "systempaths=unconfined" in options:
        found["MaskedPaths"], found["ReadonlyPaths"] = [], []
    for flag, key in (("storage-opt", "StorageOpt"), ("sysctl", "Sysctls"), ("annotation", "Annotations")):
        if flags[flag]:
            found[key] = values.key_values(flags[flag])
    if flags["tmpfs"]:
        found["Tmpfs"] = mounts.tmpfs(flags["tmpfs"])
    if flags["mount"]:
        found["Mounts"] = flags.each("mount", mounts.mount)
    if flags.changed("init"):
        found["Init"] = flags["init"]
    if flags["runtime"]:
        found["Runtime"] = flags["runtime"]
    return found


def _capabilities(names: list[str]) -> list[str]:
    """Upper case, with the kernel's prefix, each once, in order of name."""
    found = {name.strip().upper() for name in names}
    return sorted(name if name == "ALL" or name.startswith("CAP_") else f"CAP_{name}" for name in found)


def _log_options(flags: Flags) -> dict[str, str]:
    if flags["log-driver"] == "none" and flags["log-opt"]:
        raise ValueError("invalid logging opts for driver none")
    return values.key_values(flags["log-opt"])


def _namespace(flag: str, title: str, mode: str, allowed: tuple[str, ...]) -> str:
    if mode not in allowed:
        raise ValueError(f"--{flag}: invalid {title} mode")
    return mode


def _extra_host(item: str) -> str:
    """`name:address` or `name=address`, as the API wants it; raises ValueError."""
    name, separator, address = item.partition("=") if "=" in item else item.partition(":")
    if not separator or not name:
        raise ValueError(f'bad format for add-host: "{item}"')
    return f"{name}:{address.strip('[]')}"


_RESTART_TIMES = {"delay": "Delay", "max-delay": "MaxDelay", "reset-after": "ResetAfter"}


def restart_options(text: str) -> dict[str, Any] | None:
    """What follows the policy in `on-failure:3,delay=1s,factor=2`; None when nothing does."""
    _, comma, rest = text.partition(",")
    if not comma:
        return None
    from corral.cli.values import duration_ns

    found: dict[str, Any] = {}
    for item in rest.split(","):
        name, equals, value = item.partition("=")
        if name in _RESTART_TIMES:
            found[_RESTART_TIMES[name]] = duration_ns(value)
        elif name == "factor":
            try:
                found["Factor"] = float(value)
            except ValueError:
                raise ValueError(f"invalid restart policy format: factor must be a number: {value}") from None
        elif name == "on-unhealthy" and not equals:
            found["OnUnhealthy"] = True
        else:
            raise ValueError(
                f"invalid restart policy format: unknown option {item}: use delay=, max-delay=, factor=, "
                "reset-after= or on-unhealthy"
            )
    return found


def restart_policy(text: str) -> dict[str, Any]:
    """`on-failure:3` as the API's RestartPolicy."""
    text = text.partition(",")[0]
    name, colon, count = text.partition(":")
    if colon and not name:
        raise ValueError("invalid restart policy format: no policy provided before colon")
    retries = 0
    if colon and count:
        if not count.isdigit():
            raise ValueError("invalid restart policy format: maximum retry count must be an integer")
        retries = int(count)
    return {"Name": name or "no", "MaximumRetryCount": retries}


def security_options(items: list[str]) -> list[str]:
    """`--security-opt`, with the text of a seccomp profile in place of its file's name."""
    found = []
    for item in items:
        name, separator, value = item.partition("=") if "=" in item else item.partition(":")
        if not separator and item != "no-new-privileges":
            raise ValueError(f'Invalid --security-opt: "{item}"')
        if name == "seccomp" and value not in ("unconfined", "builtin"):
            try:
                with open(value) as file:
                    value = " ".join(file.read().split("\n"))
            except OSError as error:
                raise ValueError(
                    f"opening seccomp profile ({value}) failed: open {value}: {(error.strerror or '').lower()}"
                ) from None
            item = f"seccomp={value}"
        found.append(item)
    return found
