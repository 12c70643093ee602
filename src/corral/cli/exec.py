"""`corral exec`."""

from __future__ import annotations

from corral.cli import attach, runbody
from corral.cli.command import Command, Session, error_line
from corral.cli.flags import Flag
from corral.cli.problems import CliError


def _exec(session: Session) -> int:
    flags, name = session.flags, session.arguments[0]
    try:
        variables = runbody.environment(flags["env-file"], flags["env"])
    except ValueError as error:
        raise CliError(str(error)) from None
    detach = flags["detach"]
    keys = flags["detach-keys"] or attach.configured_keys(session)
    client = session.client
    found = client.get(
        f"/containers/{name}/json"
    )  # a container that is not there is told before the terminal is judged
    if not detach and flags["tty"] and flags["interactive"]:
        from corral.cli.run import require_terminal

        require_terminal()
    body = {
        "User": flags["user"],
        "Privileged": flags["privileged"],
        "Tty": flags["tty"],
        "AttachStdin": flags["interactive"] and not detach,
        "AttachStdout": not detach,
        "AttachStderr": not detach,
        "DetachKeys": keys,
        "Env": variables,
        "WorkingDir": flags["workdir"],
        "Cmd": session.arguments[1:],
        "ConsoleSize": _size() if flags["tty"] and not detach else None,
    }
    if flags["timeout"]:
        body["Timeout"] = flags["timeout"]
    identity = str(client.post(f"/containers/{found['Id']}/exec", body=body)["Id"])
    start = {"Detach": detach, "Tty": flags["tty"], "ConsoleSize": body["ConsoleSize"]}
    if detach:
        client.post(f"/exec/{identity}/start", body=start)
        return 0
    hijacked = client.hijack(f"/exec/{identity}/start", body=start)
    streams = attach.Streams(flags["interactive"], True, True, flags["tty"])
    attach.carry(session, name, hijacked, streams, f"/exec/{identity}/resize")
    ended = client.get(f"/exec/{identity}/json")
    if ended.get("TimedOut"):
        error_line(f"the command did not end within {flags['timeout'] / 1e9:g}s and was killed")
    return int(ended.get("ExitCode") or 0)


def _size() -> list[int] | None:
    from corral.cli.terminal import size

    rows, columns = size()
    return [rows, columns] if rows and columns else None


EXEC = Command(
    _exec,
    "Run another command in a running container",
    "[OPTIONS] CONTAINER COMMAND [ARG...]",
    (
        Flag("detach", "d", "bool", "Run in the background"),
        Flag("detach-keys", "", "string", "Keys that leave the command running and return"),
        Flag("env", "e", "list", "Environment variable (NAME=VALUE, or NAME to pass ours on)"),
        Flag("env-file", "", "list", "File of environment variables"),
        Flag("interactive", "i", "bool", "Keep standard input open"),
        Flag("privileged", "", "bool", "Every capability"),
        Flag("timeout", "", "duration", "Kill the command after this time (ms|s|m|h)"),
        Flag("tty", "t", "bool", "Give the command a terminal"),
        Flag("user", "u", "string", "User and group (NAME|ID[:GROUP|ID])"),
        Flag("workdir", "w", "string", "Working folder"),
    ),
    least=2,
    most=None,
    aliases="container exec, exec",
    interspersed=False,
    examples=("exec -it web sh", "exec -e DEBUG=1 -w /srv web ./task"),
)
