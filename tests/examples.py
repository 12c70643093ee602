"""What the commands in the documentation need to be run, and which are not run, and why.

tests/compat/test_examples.py runs every command of every page, block by block, against a daemon that is emptied
before each block.
"""

from __future__ import annotations

# Images by these names are there: a busybox that sleeps.
IMAGES = (
    "alpine:latest app:1 app:latest busybox:latest debian:11 debian:12 debian:latest dns:latest nginx:latest web:latest"
).split()

_WEB, _NETWORK = "docker run -d --name web web", "docker network create app"
_PUBLISHED = "docker run -d -p 8080:80 web"

# What is there before a block: page, beginning of the block, commands.  The first row that fits counts.
SETUP: list[tuple[str, str, list[str]]] = [
    ("docs/beyond-docker.md", "corral run -d --restart", []),
    ("docs/beyond-docker.md", "corral run -d --depends-on", [
        "docker run -d --name db --health-cmd true --health-interval 100ms app",
        "docker run -d --name migrate app true",
    ]),
    ("docs/beyond-docker.md", "corral volume clone", ["docker volume create data"]),
    ("docs/beyond-docker.md", "corral volume snapshot", ["docker run -d --name app -v data:/data app"]),
    ("docs/beyond-docker.md", "corral secret create", [
        "echo secret > password.txt; echo other > new.txt", "corral config create app.yaml password.txt",
    ]),
    ("docs/beyond-docker.md", "corral mount add", [_WEB, "mkdir -p /srv/more"]),
    ("docs/beyond-docker.md", "corral run -d --name worker --egress", [_NETWORK]),
    ("docs/beyond-docker.md", "corral traffic", ["docker run -d --name app app"]),
    ("docs/beyond-docker.md", "corral port check", [_PUBLISHED]),
    ("docs/beyond-docker.md", "", [_WEB]),
    ("docs/build.md", "", ["echo FROM busybox > Dockerfile"]),
    ("docs/cli.md", "corral context create", ["touch ca.pem cert.pem key.pem"]),
    ("docs/volumes.md", "docker volume create data", [
        "docker run --rm -v data:/data debian mkdir -p /data/etc/app",
    ]),
    ("docs/images.md", "", ["docker run -d --name container app"]),
    ("docs/networking.md", "docker network connect", [_WEB, _NETWORK]),
    ("docs/networking.md", "docker run --network name=app", [_WEB, _NETWORK]),
    ("docs/networking.md", "corral port add", [_WEB]),
    ("docs/networking.md", "corral traffic", [_WEB]),
    ("docs/networking.md", "corral port check", [_PUBLISHED]),
]  # fmt: skip

# What stands for an ellipsis at the end of a command, or for the command of the image before it.
REST = "debian true"

# Commands that are not run here, by what is in them.
NOT_RUN: dict[str, str] = {
    "bin/corral quickstart": "makes an image from Debian's mirror, on a machine of its own",
    "bin/test": "it runs this",
    "bin/corral build -t web examples/web": "fetches packages from Debian and npm for a minute",
    "corrald ": "starts a daemon",
    "export DOCKER_HOST": "it is set",
    "docker logs -f web": "goes on; test_docker_containers.py follows logs",
    "docker run --rm debian getent hosts db": "needs a daemon with bridge-names; test_egress.py has one",
    "corral egress log -f": "goes on; test_egress.py follows a log",
    "bin/corral logs -f": "goes on; test_corral_logs.py follows logs",
    "bin/corral top ": "needs a terminal; test_corral_top.py has one",
    "ssh://far": "no such host; test_corral_ssh.py has one",
    "docker exec -it": "needs a terminal; test_docker_terminal.py has one",
    "corral volume import data -": "from one daemon to another; test_volume_files.py",
    "registry serve": "goes on; test_registry_server.py serves",
    "127.0.0.1:5000": "needs a registry; test_registries.py has one",
    "podman --runtime": "test_podman_runtime.py",
    "/dev/ttyUSB0": "this machine has none",
    "/dev/modem": "this machine has none",
    "loghost": "no such host; test_log_drivers.py",
    "vendor.com/gpu": "no such device; test_cdi.py",
    "--gpus all": "no such device; test_cdi.py",
    "--runtime crun": "not every crun takes this machine's cgroups; test_runtimes.py",
    "linux/arm64": "needs images of two platforms; test_image_parts.py",
    "https://example.org": "no such host; test_docker_image_archives.py imports from a URL",
    "registry.example": "no such host; test_registries.py has registries",
    "corral image gc": "needs a policy; test_image_upkeep.py has one",
    "docker pull debian": "needs Docker Hub; test_registries.py pulls",
    "/var/lib/corral": "the store of the daemon here is elsewhere; test_image_store.py",
    "eth0.50": "not every kernel has VLANs; test_docker_macvlan.py",
    "-d ipvlan": "not every kernel has ipvlan; test_docker_macvlan.py",
    "rslave": "needs a shared mount of the host; test_binds.py",
    "--volume-driver NAME": "a plugin's name; test_volume_plugins.py has one",
    "tests/bench": "takes long",
    "tests.bench": "takes long",
}


def setup_of(page: str, first: str) -> list[str]:
    """The commands before a block."""
    return next((commands for of, start, commands in SETUP if page == of and first.startswith(start)), [])


def completed(command: str) -> str:
    """The command with something in place of an ellipsis."""
    if not command.endswith(" ..."):
        return command
    front = command.removesuffix(" ...")
    return f"{front} {REST.partition(' ')[2]}" if front.endswith(" debian") else f"{front} {REST}"


def reason_not_to_run(command: str) -> str:
    """Why a command is not run; empty if it is."""
    return next((reason for part, reason in NOT_RUN.items() if part in command), "")
