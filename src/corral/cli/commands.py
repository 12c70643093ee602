"""Every command: its name, where it is, and what it is for.  Nothing here imports a command."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from corral.cli.command import Command

# name -> (module, the Command in it, summary); a module is below corral.cli
COMMON = {
    "run": ("run", "RUN", "Create a container from an image and start it"),
    "exec": ("exec", "EXEC", "Run another command in a running container"),
    "ps": ("listing", "PS", "List containers"),
    "build": ("build", "BUILD", "Build an image from a Dockerfile"),
    "pull": ("transfer", "PULL", "Fetch an image from a registry"),
    "push": ("transfer", "PUSH", "Send an image to a registry"),
    "images": ("images", "LIST", "List images"),
    "login": ("login", "LOGIN", "Store credentials for a registry"),
    "logout": ("login", "LOGOUT", "Forget the credentials for a registry"),
    "search": ("search", "SEARCH", "Search a registry for images"),
    "version": ("system", "VERSION", "Show the versions of client and daemon"),
    "info": ("system", "INFO", "Show what the daemon and its machine are"),
    "quickstart": ("quickstart", "QUICKSTART", "Start a daemon, get a Debian image, open a shell in it"),
}
OTHERS = {
    "attach": ("attach", "ATTACH", "Connect the terminal to a running container"),
    "commit": ("images", "COMMIT", "Make an image of a container's changes"),
    "completion": ("completion", "COMPLETION", "Print what makes a shell complete commands and names"),
    "cp": ("copy", "CP", "Copy files between a container and this machine"),
    "create": ("run", "CREATE", "Create a container from an image"),
    "diff": ("containers", "DIFF", "Show what changed in a container's files"),
    "events": ("events", "EVENTS", "Show what happens at the daemon, as it happens"),
    "export": ("archives", "EXPORT", "Write a container's files as a tar archive"),
    "history": ("images", "HISTORY", "Show the steps that an image was made of"),
    "import": ("archives", "IMPORT", "Make an image of a tar archive of files"),
    "inspect": ("inspecting", "INSPECT", "Show everything about containers, images, networks or volumes"),
    "kill": ("containers", "KILL", "Send a signal to running containers"),
    "load": ("archives", "LOAD", "Load images from an archive"),
    "logs": ("logs", "LOGS", "Show what a container has written"),
    "pause": ("containers", "PAUSE", "Freeze every process of containers"),
    "port": ("ports", "PORT", "Show or change the published ports of a container"),
    "rename": ("containers", "RENAME", "Give a container another name"),
    "restart": ("containers", "RESTART", "Stop containers and start them again"),
    "rm": ("containers", "RM", "Remove containers"),
    "rmi": ("images", "RM", "Remove images"),
    "save": ("archives", "SAVE", "Write images to an archive"),
    "start": ("attach", "START", "Start stopped containers"),
    "stats": ("stats", "STATS", "Show what containers use, live"),
    "stop": ("containers", "STOP", "Stop running containers"),
    "tag": ("images", "TAG", "Give an image another name"),
    "top": ("top", "TOP", "Show the processes of a container, or what all containers use"),
    "traffic": ("traffic", "TRAFFIC", "Show what containers received and sent"),
    "unpause": ("containers", "UNPAUSE", "Let the processes of containers run on"),
    "update": ("update", "UPDATE", "Change limits and restart policy of containers"),
    "wait": ("containers", "WAIT", "Wait until containers stop and print their exit statuses"),
}
GROUPS: dict[str, tuple[str, dict[str, tuple[str, str, str]]]] = {
    "builder": (
        "Manage builds",
        {
            "build": COMMON["build"],
            "prune": ("prune", "BUILDS", "Remove the cache of builds"),
        },
    ),
    "config": (
        "Manage configs of plain containers",
        {
            "create": ("vault", "CONFIG_CREATE", "Keep a config"),
            "inspect": ("vault", "CONFIG_INSPECT", "Show what is known of configs"),
            "ls": ("vault", "CONFIG_LIST", "List configs"),
            "rm": ("vault", "CONFIG_REMOVE", "Remove configs"),
            "update": ("vault", "CONFIG_UPDATE", "Replace a config, in running containers too"),
        },
    ),
    "container": (
        "Manage containers",
        {
            **{
                name: OTHERS.get(name) or COMMON[name]
                for name in [
                    "attach",
                    "commit",
                    "cp",
                    "create",
                    "diff",
                    "exec",
                    "export",
                    "kill",
                    "logs",
                    "pause",
                    "port",
                    "rename",
                    "restart",
                    "rm",
                    "run",
                    "start",
                    "stats",
                    "stop",
                    "top",
                    "traffic",
                    "unpause",
                    "update",
                    "wait",
                ]
            },
            "inspect": ("inspecting", "CONTAINER_INSPECT", "Show everything about containers"),
            "forget": ("snapshots", "FORGET", "Remove snapshots of a container"),
            "ls": COMMON["ps"],
            "rewind": ("snapshots", "REWIND", "Put a stopped container's files back to a snapshot"),
            "snapshot": ("snapshots", "SNAPSHOT", "Keep a container's files as they are, under a name"),
            "snapshots": ("snapshots", "LIST", "List the snapshots of a container"),
            "prune": ("prune", "CONTAINERS", "Remove every container that is not running"),
        },
    ),
    "context": (
        "Manage contexts",
        {
            "create": ("contexts", "CREATE", "Store the address of a daemon under a name"),
            "export": ("contexts", "EXPORT", "Write a context to a tar archive"),
            "import": ("contexts", "IMPORT", "Read a context from a tar archive"),
            "inspect": ("contexts", "INSPECT", "Show everything about contexts"),
            "ls": ("contexts", "LIST", "List contexts"),
            "rm": ("contexts", "RM", "Remove contexts"),
            "show": ("contexts", "SHOW", "Print the name of the context in use"),
            "update": ("contexts", "UPDATE", "Change a context"),
            "use": ("contexts", "USE", "Choose the context that commands use"),
        },
    ),
    "device": (
        "Manage devices of containers that exist",
        {
            "add": ("livedevices", "ADD", "Give a device to a container, at once if it runs"),
            "rm": ("livedevices", "REMOVE", "Take devices from a container, at once if it runs"),
        },
    ),
    "egress": (
        "Show what containers may send to",
        {
            "log": ("egress", "LOG", "Show what a container tried to reach and may not"),
            "ls": ("egress", "LIST", "Show a container's egress list, and what its names stand for now"),
        },
    ),
    "image": (
        "Manage images",
        {
            **{
                name: OTHERS.get(name) or COMMON[name]
                for name in ["build", "history", "import", "load", "pull", "push", "save", "tag"]
            },
            "gc": ("upkeep", "COLLECT", "Remove the images that the daemon's policy says"),
            "inspect": ("inspecting", "IMAGE_INSPECT", "Show everything about images"),
            "ls": COMMON["images"],
            "prune": ("prune", "IMAGES", "Remove images that nothing uses"),
            "rm": OTHERS["rmi"],
        },
    ),
    "mount": (
        "Manage mounts of containers that exist",
        {
            "add": ("livemounts", "ADD", "Add a mount to a container, at once if it runs"),
            "rm": ("livemounts", "REMOVE", "Remove mounts from a container, at once if it runs"),
        },
    ),
    "network": (
        "Manage networks",
        {
            "connect": ("networks", "CONNECT", "Connect a container to a network"),
            "create": ("networks", "CREATE", "Create a network"),
            "disconnect": ("networks", "DISCONNECT", "Disconnect a container from a network"),
            "inspect": ("inspecting", "NETWORK_INSPECT", "Show everything about networks"),
            "ls": ("networks", "LIST", "List networks"),
            "prune": ("prune", "NETWORKS", "Remove networks that nothing uses"),
            "rm": ("networks", "RM", "Remove networks"),
        },
    ),
    "plugin": (
        "Look at the plugins of a Docker daemon",
        {"ls": ("plugins", "LIST", "List plugins")},
    ),
    "registry": (
        "Run a registry of images",
        {
            "gc": ("registry", "COLLECT", "Remove what a registry needs no longer, also while it serves"),
            "serve": ("registry", "SERVE", "Serve a registry that Docker and OCI clients push to and pull from"),
        },
    ),
    "secret": (
        "Manage secrets of plain containers",
        {
            "create": ("vault", "SECRET_CREATE", "Keep a secret"),
            "inspect": ("vault", "SECRET_INSPECT", "Show what is known of secrets"),
            "ls": ("vault", "SECRET_LIST", "List secrets"),
            "rm": ("vault", "SECRET_REMOVE", "Remove secrets"),
            "update": ("vault", "SECRET_UPDATE", "Replace a secret, in running containers too"),
        },
    ),
    "system": (
        "Manage the daemon",
        {
            "check": ("upkeep", "CHECK", "Verify everything in the daemon's store"),
            "df": ("disk", "DF", "Show how much disk space is used"),
            "events": OTHERS["events"],
            "info": COMMON["info"],
            "prune": ("prune", "SYSTEM", "Remove everything that nothing uses"),
        },
    ),
    "volume": (
        "Manage volumes",
        {
            "clone": ("volumefiles", "CLONE", "Make a volume with the files of another"),
            "create": ("volumes", "CREATE", "Create a volume"),
            "export": ("volumefiles", "EXPORT", "Write a volume's files as a tar archive"),
            "import": ("volumefiles", "IMPORT", "Make a volume of a tar archive of files"),
            "inspect": ("inspecting", "VOLUME_INSPECT", "Show everything about volumes"),
            "forget": ("snapshots", "VOLUME_FORGET", "Remove snapshots of a volume"),
            "ls": ("volumes", "LIST", "List volumes"),
            "restore": ("snapshots", "RESTORE", "Give a volume the files of a snapshot"),
            "snapshot": ("snapshots", "VOLUME_SNAPSHOT", "Keep a volume's files as they are, under a name"),
            "snapshots": ("snapshots", "VOLUME_LIST", "List the snapshots of a volume"),
            "prune": ("prune", "VOLUMES", "Remove volumes that nothing uses"),
            "rename": ("volumefiles", "RENAME", "Give a volume that no container has another name"),
            "rm": ("volumes", "RM", "Remove volumes"),
        },
    ),
}
# what programs run, and no help shows
HIDDEN: dict[str, tuple[str, str, str]] = {
    "__complete": ("completion", "COMPLETE", "Print what may follow"),
    "system dial-stdio": ("dial", "DIAL", "Connect standard input and output to the daemon"),
}
# what else a command of a group is called
GROUP_ALIASES = {"list": "ls", "remove": "rm"}


def top_level(name: str) -> tuple[str, str, str] | None:
    """Where the command is, or None."""
    return COMMON.get(name) or OTHERS.get(name) or HIDDEN.get(name)


def in_group(group: str, name: str) -> tuple[str, str, str] | None:
    """Where a group's command is, or None."""
    members = GROUPS[group][1]
    if group == "container" and name == "ps":
        name = "ls"
    return members.get(name) or members.get(GROUP_ALIASES.get(name, "")) or HIDDEN.get(f"{group} {name}")


def load(place: tuple[str, str, str]) -> Command:
    """Import a command."""
    module = __import__(f"corral.cli.{place[0]}", fromlist=("",))
    command: Command = getattr(module, place[1])
    return command
