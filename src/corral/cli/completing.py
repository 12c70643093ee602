"""What may follow the words of an unfinished command line.  Nothing is asked of a daemon here.

Kinds of names are found in the usage of a command (`CONTAINER [CONTAINER...]`), so a new command completes without
being mentioned here.
"""

from __future__ import annotations

from corral.cli import commands

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from corral.cli.command import Command
    from corral.cli.flags import Flag

NO_SPACE, NO_FILES, FOLDERS = 2, 4, 16  # what the shell is told, in the numbers that other programs' scripts know

# In a usage: what stands in a position, and what kind of thing completes it.
_KINDS = {
    "CONTAINER": "container", "CONTAINER:SRC_PATH": "path", "SRC_PATH|-": "path", "DEST_PATH|-": "path",
    "IMAGE": "image", "SOURCE_IMAGE[:TAG]": "image", "TARGET_IMAGE[:TAG]": "image", "NAME[:TAG]": "image",
    "NAME[:TAG|@DIGEST]": "image", "REPOSITORY[:TAG]": "image", "NETWORK": "network", "VOLUME": "volume",
    "CONTEXT": "context", "NAME|ID": "any", "PATH": "folder", "FILE|-": "file", "file|URL|-": "file", "SHELL": "shell",
    "DAEMON": "context",
}  # fmt: skip
_CHOICES = {
    "shell": ("bash", "zsh", "fish"),
    "restart": ("no", "always", "unless-stopped", "on-failure"),
    "pull": ("always", "missing", "never"),
    "progress": ("auto", "plain", "tty", "quiet"),
    "type": ("container", "image", "network", "volume"),
    "as": ("run", "compose"),
    "log-level": ("debug", "info", "warn", "error", "fatal"),
    "log-driver": ("json-file", "local", "none", "journald", "syslog", "fluentd", "gelf"),
    "format": ("json", "table"),
    "cgroupns": ("host", "private"),
    "signal": ("HUP", "INT", "QUIT", "KILL", "TERM", "USR1", "USR2", "STOP", "CONT", "WINCH"),
}
_CHOICES["stop-signal"] = _CHOICES["signal"]
_OF_FLAGS = {
    "network": "network", "net": "network", "volumes-from": "container", "link": "container", "from": "context",
    "context": "contexts", "config": "folder", "root": "folder",
    **dict.fromkeys(
        """file env-file label-file cidfile iidfile metadata-file input output volume tlscacert tlscert tlskey secret
        cache-to cache-from build-context device""".split(),
        "file",
    ),
}  # fmt: skip
_STATES = {
    **dict.fromkeys(("stop", "kill", "pause", "exec", "attach", "top", "wait"), "running"),
    "unpause": "paused",
    "start": "stopped",
    "rm": "stopped",
}
_FILTERS = {
    "ps": ("status", "name", "label", "ancestor", "network", "volume", "health", "exited", "publish", "expose", "id"),
    "images": ("dangling", "reference", "label", "before", "since", "until"),
    "network": ("driver", "name", "label", "scope", "type", "dangling", "id"),
    "volume": ("dangling", "driver", "label", "name"),
    "events": ("type", "event", "container", "image", "network", "volume", "label"),
}
_ALL_FILTERS = ("label", "until")


class Wanted:
    """What to complete: words to choose from (with descriptions), and a kind of names that has to be asked for.

    `lead` stands before every candidate (`--network=`), `prefix` is what has been typed of it, `state` narrows
    containers down, `group` is the command's group (of secrets and configs), `directive` is for the shell.
    """

    def __init__(self, prefix: str, lead: str = "") -> None:
        self.prefix = prefix
        self.lead = lead
        self.words: list[tuple[str, str]] = []
        self.kind = ""
        self.state = ""
        self.group = ""
        self.directive = NO_FILES

    def of_kind(self, kind: str) -> Wanted:
        """The same, for a kind of thing."""
        if kind in _CHOICES:
            self.words = [(word, "") for word in _CHOICES[kind]]
        elif kind == "file":
            self.directive = 0
        elif kind == "folder":
            self.directive = FOLDERS
        else:
            self.kind = kind
            if kind == "path":
                self.directive = NO_SPACE
        return self


def wanted(words: Sequence[str], global_flags: Sequence[Flag]) -> Wanted:
    """What may stand in place of the last word."""
    *before, last = words or [""]
    pending, rest = _walk(global_flags, before, interspersed=False)
    if pending is not None:
        return _value(pending, last, "", "")
    if not rest:
        return _flags(global_flags, last) if last.startswith("-") else _named(last, _top_level())
    path, command, rest = _command(rest)
    if command is None:
        members = commands.GROUPS[path][1] if path in commands.GROUPS and not rest else {}
        return _named(last, [(name, place[2]) for name, place in members.items()])
    pending, arguments = _walk(command.flags, rest, command.interspersed)
    if pending is not None:
        return _value(pending, last, "", path)
    if last.startswith("-") and (command.interspersed or not arguments) and "--" not in rest:
        name, equals, value = last.partition("=")
        flag = next((flag for flag in command.flags if f"--{flag.name}" == name), None)
        return _value(flag, value, f"{name}=", path) if equals and flag else _flags(command.flags, last)
    return _argument(path, command, len(arguments), last, rest)


def awaits_value(table: Sequence[Flag], words: Sequence[str]) -> bool:
    """Whether the words end with a flag that needs one more."""
    return _walk(table, words, interspersed=False)[0] is not None


def _top_level() -> Iterable[tuple[str, str]]:
    for table in (commands.COMMON, commands.OTHERS):
        yield from ((name, place[2]) for name, place in table.items())
    yield from ((name, summary) for name, (summary, _) in commands.GROUPS.items())


def _named(last: str, found: Iterable[tuple[str, str]]) -> Wanted:
    done = Wanted(last)
    done.words = sorted(found)
    return done


def _flags(table: Sequence[Flag], last: str) -> Wanted:
    return _named(last, [(f"--{flag.name}", flag.help) for flag in table if not flag.hidden])


def _command(words: list[str]) -> tuple[str, Command | None, list[str]]:
    """The command's path and itself, if the words have one, and the words after it."""
    first = words[0]
    if first not in commands.GROUPS:
        place = commands.top_level(first)
        return first, commands.load(place) if place else None, words[1:]
    if len(words) == 1:
        return first, None, []
    place = commands.in_group(first, words[1])
    return f"{first} {words[1]}", commands.load(place) if place else None, words[2:]


def _walk(table: Sequence[Flag], words: Sequence[str], interspersed: bool) -> tuple[Flag | None, list[str]]:
    """The flag whose value comes next, if the words end with one; the arguments among them."""
    names = {flag.name: flag for flag in table}
    shorts = {flag.short: flag for flag in table if flag.short}
    pending: Flag | None = None
    arguments: list[str] = []
    for index, word in enumerate(words):
        if pending is not None:
            pending = None
        elif word == "--":
            return None, arguments + list(words[index + 1 :])
        elif word.startswith("--"):
            flag = names.get(word[2:])
            pending = flag if flag is not None and flag.kind != "bool" else None
        elif len(word) > 1 and word[0] == "-":
            pending = _of_cluster(shorts, word[1:])
        else:
            arguments.append(word)
            if not interspersed:
                return None, arguments + list(words[index + 1 :])
    return pending, arguments


def _of_cluster(shorts: dict[str, Flag], letters: str) -> Flag | None:
    """`-it`: None; `-itp`: the flag of the last letter, whose value comes next."""
    for index, letter in enumerate(letters):
        flag = shorts.get(letter)
        if flag is None or letters[index + 1 : index + 2] == "=":
            return None
        if flag.kind != "bool":
            return flag if index == len(letters) - 1 else None
    return None


def _value(flag: Flag, prefix: str, lead: str, path: str) -> Wanted:
    done = Wanted(prefix, lead)
    if flag.name == "filter":
        group = path.partition(" ")[0]
        key = {"container": "ps", "image": "images", "system": "events"}.get(group, group)
        done.words = [(f"{name}=", "") for name in _FILTERS.get(key, _ALL_FILTERS)]
        done.directive |= NO_SPACE
        return done
    name = "choice" if flag.kind == "bool" else flag.name
    if name == "pull" and path.endswith("build"):
        return done
    return done.of_kind(_OF_FLAGS.get(name, name if name in _CHOICES else ""))


def _argument(path: str, command: Command, position: int, last: str, words: Sequence[str]) -> Wanted:
    done = Wanted(last)
    group, _, verb = path.rpartition(" ")
    places = [place for place in command.usage.split("\n")[0].split() if place not in ("[OPTIONS]", "|")]
    if not places or (position >= len(places) and not places[-1].endswith("...]")):
        return done
    place = places[min(position, len(places) - 1)]
    bare = place.removesuffix("...]") if place.endswith("...]") else place
    bare = bare.removeprefix("[").removesuffix("]") if place.startswith("[") else bare
    kind = _KINDS.get(bare, "")
    if bare == "NAME" and group in ("secret", "config"):
        kind, done.group = "kept", group
    if bare in ("COMMAND", "ARG"):
        done.directive = 0
    if (verb == "create" and kind != "image") or path in ("context import", "network create"):
        return done
    if kind == "container":
        done.state = _STATES.get(verb, "")
        if verb == "rm" and any(word in ("-f", "--force", "-vf", "-fv") for word in words):
            done.state = ""
    return done.of_kind(kind)
