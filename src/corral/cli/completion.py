"""`corral completion SHELL`, and `corral __complete WORDS`, which the scripts of all shells run."""

from __future__ import annotations

import sys

from corral.cli import completing
from corral.cli.command import Command, Session
from corral.cli.listing import SHORT_ID as _SHORT_ID
from corral.cli.listing import filters
from corral.cli.problems import CliError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    Ask = Callable[[Session, completing.Wanted], Iterable[tuple[str, str]]]

_PATIENCE_S = 3  # a daemon that does not answer must not lock up somebody's shell


def _completion(session: Session) -> int:
    from corral.cli import shellscripts

    shell = session.arguments[0]
    script = shellscripts.SCRIPTS.get(shell)
    if script is None:
        raise CliError(f"no completions for {shell}: there are {', '.join(sorted(shellscripts.SCRIPTS))}")
    sys.stdout.write(script)
    return 0


def _complete(session: Session) -> int:
    from corral.cli.main import GLOBAL_FLAGS

    wanted = completing.wanted(session.arguments, GLOBAL_FLAGS)
    if wanted.kind:
        wanted.words = list(_names(session, wanted))
    used = set(session.arguments[:-1]) if wanted.kind in _LISTED_ONCE else set()
    for word, description in wanted.words:
        if word.startswith(wanted.prefix) and word not in used:
            sys.stdout.write(f"{wanted.lead}{word}\t{description}\n")
    sys.stdout.write(f":{wanted.directive}\n")
    return 0


_LISTED_ONCE = ("container", "network", "volume", "kept")


def _names(session: Session, wanted: completing.Wanted) -> Iterable[tuple[str, str]]:
    """The names that there are, with descriptions; none if the daemon cannot be asked."""
    import _signal  # type: ignore[import-not-found, unused-ignore]

    from corral.cli.command import Globals
    from corral.cli.flags import parse
    from corral.cli.main import GLOBAL_FLAGS

    _signal.alarm(_PATIENCE_S)
    try:
        words = session.arguments[:-1]
        if completing.awaits_value(GLOBAL_FLAGS, words):
            words = words[:-1]
        flags, _ = parse(GLOBAL_FLAGS, words, interspersed=False)
        typed = Session("", flags, [], Globals(flags))
        return [found for ask in _ASKED[wanted.kind] for found in ask(typed, wanted)]
    except (CliError, OSError):
        return []


def _containers(session: Session, wanted: completing.Wanted) -> Iterable[tuple[str, str]]:
    for one in session.client.get("/containers/json", {"all": wanted.state not in ("running", "paused")}):
        state = one["State"]
        if wanted.state == "stopped" and state in ("running", "paused", "restarting"):
            continue
        if wanted.state == "paused" and state != "paused":
            continue
        described = f"{one['Image']}, {one['Status']}"
        yield from ((name, described) for name in (name.strip("/") for name in one["Names"]) if "/" not in name)
        if wanted.prefix and one["Id"].startswith(wanted.prefix):
            yield one["Id"][:_SHORT_ID], described


def _paths(session: Session, wanted: completing.Wanted) -> Iterable[tuple[str, str]]:
    return ((f"{name}:", described) for name, described in _containers(session, wanted))


def _images(session: Session, wanted: completing.Wanted) -> Iterable[tuple[str, str]]:
    for one in session.client.get("/images/json"):
        for name in one.get("RepoTags") or ():
            yield name.removesuffix(":latest") if ":" not in wanted.prefix else name, one["Id"][7 : 7 + _SHORT_ID]
        if wanted.prefix and one["Id"].removeprefix("sha256:").startswith(wanted.prefix):
            yield one["Id"][7 : 7 + _SHORT_ID], ", ".join(one.get("RepoTags") or ())


def _networks(session: Session, wanted: completing.Wanted) -> Iterable[tuple[str, str]]:
    return ((one["Name"], one["Driver"]) for one in session.client.get("/networks"))


def _volumes(session: Session, wanted: completing.Wanted) -> Iterable[tuple[str, str]]:
    return ((one["Name"], one["Driver"]) for one in session.client.get("/volumes")["Volumes"] or ())


def _contexts(session: Session, wanted: completing.Wanted) -> Iterable[tuple[str, str]]:
    from corral.cli.contexts import stored

    yield "default", "the environment's daemon"
    for one in stored(session.globals.config):
        yield one["Name"], (one.get("Endpoints") or {}).get("docker", {}).get("Host", "")


def _all_contexts(session: Session, wanted: completing.Wanted) -> Iterable[tuple[str, str]]:
    yield "all", "every context"


def _kept(session: Session, wanted: completing.Wanted) -> Iterable[tuple[str, str]]:
    found = session.client.get("/vault", {"filters": filters([f"kind={wanted.group}"])})
    return ((one["Name"], one["CreatedAt"]) for one in found)


_ASKED: dict[str, tuple[Ask, ...]] = {
    "container": (_containers,),
    "path": (_paths,),
    "image": (_images,),
    "network": (_networks,),
    "volume": (_volumes,),
    "context": (_contexts,),
    "contexts": (_contexts, _all_contexts),
    "any": (_containers, _images, _networks, _volumes),
    "kept": (_kept,),
}

COMPLETION = Command(
    _completion,
    "Print what makes a shell complete commands, flags and the names of containers, images, networks and volumes",
    "SHELL",
    (),
    1,
    1,
    details="bash:  corral completion bash > /etc/bash_completion.d/corral\n"
    "zsh:   corral completion zsh > /usr/local/share/zsh/site-functions/_corral\n"
    "fish:  corral completion fish > /etc/fish/completions/corral.fish",
    examples=("completion bash > ~/.local/share/bash-completion/completions/corral",),
)
COMPLETE = Command(
    _complete, "Print what may follow; for the scripts of shells", "[WORD...]", (), 0, None, verbatim=True
)
