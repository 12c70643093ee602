"""Where the files of an installation go.  Pure."""

from __future__ import annotations

from dataclasses import dataclass

from corral.installation import units

PROGRAMS = ("corral", "corrald", "corral-runtime")
GROUP = "docker"
_COMPLETIONS = {
    "bash": "share/bash-completion/completions/corral",
    "zsh": "share/zsh/site-functions/_corral",
    "fish": "share/fish/vendor_completions.d/corral.fish",
}


@dataclass(frozen=True)
class Piece:
    """A file with a text, or a link to `target`."""

    path: str
    text: str = ""
    target: str = ""


def pieces(
    prefix: str, completions: dict[str, str], manual: dict[str, str], programs: dict[str, str], daemon: str
) -> list[Piece]:
    """All files below `prefix`; `programs` are elsewhere and get links, `daemon` is what the unit starts."""
    linked = [Piece(f"{prefix}/bin/{name}", target=program) for name, program in sorted(programs.items())]
    return [
        *linked,
        Piece(f"{prefix}/lib/systemd/system/corral.service", units.SERVICE.format(program=daemon)),
        Piece(f"{prefix}/lib/systemd/system/corral.socket", units.SOCKET.format(group=GROUP)),
        *(Piece(_completion(prefix, shell), script) for shell, script in sorted(completions.items())),
        *(Piece(f"{prefix}/share/man/man1/{name}.1", page) for name, page in sorted(manual.items())),
        Piece(f"{prefix}/share/doc/corral/daemon.json", units.DAEMON_JSON),
    ]


def _completion(prefix: str, shell: str) -> str:
    if prefix == "/usr" and shell == "zsh":  # what Debian's zsh reads there
        return "/usr/share/zsh/vendor-completions/_corral"
    return f"{prefix}/{_COMPLETIONS[shell]}"
