"""`corral setup`: looks whether containers can run here, and installs units, group, completions and manual pages."""

from __future__ import annotations

import os
import sys

from corral.cli.command import PROGRAM, Command, Session, error_line
from corral.cli.flags import Flag
from corral.cli.problems import CliError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from corral.installation.findings import Finding
    from corral.installation.record import Record

_DATA_ROOT, _EXEC_ROOT = "/var/lib/corral", "/run/corral"
_PACKAGED_UNIT = "/usr/lib/systemd/system/corral.service"
_ON_PATH = ("/usr/bin", "/usr/local/bin")
_UNITS = ("corral.socket", "corral.service")


def _setup(session: Session) -> int:
    flags = session.flags
    if flags["uninstall"]:
        return _uninstall(flags["root"], flags["purge"])
    for name, needed in (("purge", "uninstall"), ("format", "check")):
        if flags[name] and not flags[needed]:
            raise UsageError(f"--{name} goes with --{needed}")
    if flags["format"] not in ("", "json"):
        raise UsageError(f'invalid argument "{flags["format"]}" for "--format" flag: must be json')
    if flags["root"]:
        return _install_below(flags["root"], flags["prefix"])
    findings = _look(flags["data-root"])
    _show(findings, flags["format"])
    if any(one.state == "gap" for one in findings):
        if not flags["check"]:
            error_line(f"{PROGRAM} setup: containers cannot run here, so nothing was installed")
        return 1
    return 0 if flags["check"] else _install(flags["prefix"])


def _look(data_root: str) -> list[Finding]:
    from corral.installation import findings, machine

    return findings.judge(machine.look(data_root))


def _show(findings: Sequence[Finding], format_: str) -> None:
    from corral import jsontext

    if format_ == "json":
        rows = [{"Name": one.name, "State": one.state, "Found": one.found, "Remedy": one.remedy} for one in findings]
        sys.stdout.write(jsontext.indented(rows) + "\n")
        return
    for one in findings:
        sys.stdout.write(f"{one.state:<5} {one.name:<16} {one.found}\n")
        if one.remedy:
            sys.stdout.write(f"{'':<22} -> {one.remedy}\n")


def _install(prefix: str) -> int:
    from corral.installation.pieces import GROUP
    from corral.installation.record import Record

    if os.path.exists(_PACKAGED_UNIT):
        raise CliError(f"{PROGRAM} setup: a package has installed all of this; --check looks at the host")
    programs, daemon = _programs(prefix)
    record = Record()
    _have_group(record, GROUP)
    pieces = _pieces(prefix, programs, daemon)
    record.place(pieces)
    for piece in pieces:
        if "/man1/" not in piece.path:
            print(f"installed {piece.path}")
    print(f"installed {sum('/man1/' in piece.path for piece in pieces)} manual pages: man {PROGRAM}")
    if not os.path.isdir("/run/systemd/system"):
        print(f"systemd does not run here: start {daemon} by other means")
        return 0
    _run("systemctl", "daemon-reload")
    _run("systemctl", "enable", "--now", *_UNITS)
    print("corrald runs, and starts with the machine: corral version")
    return 0


def _install_below(root: str, prefix: str) -> int:
    """For those who make packages: files alone, and no record of them."""
    from corral.installation.record import place

    for piece in _pieces(prefix, {}, f"{prefix}/bin/corrald"):
        place(root.rstrip("/") + piece.path, piece)
    return 0


def _pieces(prefix: str, programs: dict[str, str], daemon: str) -> list[pieces_module.Piece]:
    from corral.cli import manpages, shellscripts
    from corral.installation.pieces import pieces

    if not prefix.startswith("/"):
        raise CliError(f"{PROGRAM} setup: the prefix must be an absolute path: {prefix}")
    return pieces(prefix.rstrip("/"), shellscripts.SCRIPTS, manpages.pages(), programs, daemon)


def _programs(prefix: str) -> tuple[dict[str, str], str]:
    """The programs that need a link below the prefix, and the daemon to start."""
    from corral.cli.quickstart import daemon_program
    from corral.installation.pieces import PROGRAMS

    daemon = os.path.abspath(daemon_program())
    folder = os.path.dirname(daemon)
    if folder in (*_ON_PATH, os.path.join(prefix, "bin")):
        return {}, daemon
    return {name: os.path.join(folder, name) for name in PROGRAMS}, os.path.join(prefix, "bin", "corrald")


def _have_group(record: Record, name: str) -> None:
    if _group_exists(name):
        return
    record.note_group(name)
    _run("groupadd", "--system", name)
    print(f"made the group {name}: its members may use the socket, and are root on this machine")


def _group_exists(name: str) -> bool:
    import grp

    try:
        grp.getgrnam(name)
    except KeyError:
        return False
    return True


def _uninstall(root: str, purge: bool) -> int:
    from corral.installation.record import Record

    if os.geteuid() != 0:
        raise CliError(f"{PROGRAM} setup needs root")
    record = Record(root)
    if not record.exists and not purge:
        raise CliError(f"{PROGRAM} setup: nothing is installed here (no {record.path})")
    if purge and not root:
        _check_unused()
    running = os.path.isdir("/run/systemd/system") and not root
    if running and any(path.endswith(_UNITS[0]) and os.path.exists(path) for path in record.placed):
        _run("systemctl", "disable", "--now", *reversed(_UNITS))
    if record.group and _group_exists(record.group):
        _run("groupdel", record.group)
    for path in record.remove():
        print(f"removed {path}")
    if running:
        _run("systemctl", "daemon-reload")
    if purge:
        _purge(root)
    return 0


def _check_unused() -> None:
    """Raise CliError if containers would lose what they stand on."""
    folder = os.path.join(_EXEC_ROOT, "containers")
    if os.path.isdir(folder) and os.listdir(folder):
        raise CliError(f"{PROGRAM} setup: containers run: stop them first (corral stop $(corral ps -q))")


def _purge(root: str) -> None:
    """Remove what corrald keeps; raises CliError while a daemon uses it."""
    import fcntl
    import shutil

    try:
        with open(f"{root}{_DATA_ROOT}/lock") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        pass
    except BlockingIOError:
        raise CliError(f"{PROGRAM} setup: a daemon still uses {_DATA_ROOT}: end it first") from None
    for path in (_DATA_ROOT, _EXEC_ROOT, "/etc/corral"):
        if os.path.isdir(root + path):
            shutil.rmtree(root + path)
            print(f"removed {path}")


def _run(*words: str) -> None:
    """Run a command of the system; raises CliError with what it says."""
    import subprocess

    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise CliError(f"{PROGRAM} setup: there is no {words[0]}") from None
    if done.returncode:
        raise CliError(f"{PROGRAM} setup: {' '.join(words)} failed: {done.stderr.strip()}")


SETUP = Command(
    _setup,
    "Check this host, and install units, group, completions and manual pages",
    "[OPTIONS]",
    (
        Flag("check", "", "bool", "Look at the host and change nothing"),
        Flag("data-root", "", "string", "Where the daemon's data will be, for the check", _DATA_ROOT),
        Flag("format", "", "string", "json: print what --check found as JSON"),
        Flag("prefix", "", "string", "Where to install", "/usr/local"),
        Flag("purge", "", "bool", f"With --uninstall: also remove {_DATA_ROOT} and /etc/corral"),
        Flag("root", "", "string", "Install the files below this folder, for a package; nothing else is done"),
        Flag("uninstall", "", "bool", "Take away what setup has installed, and put back what was there before"),
    ),
    details="""Each thing that is looked at is "ok"; or "note": something is limited; or "gap": containers cannot run,
and then nothing is installed and the exit status is 1.  A line after it says what to do.  Needs root.""",
    examples=("setup --check", "setup", "setup --uninstall --purge"),
)

if TYPE_CHECKING:
    from corral.installation import pieces as pieces_module
