"""`corral` beside the stock docker CLI, both on one daemon: the same words, the same output and exit status."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import shlex
import shutil
import struct
import subprocess
import tarfile
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.daemon import IMAGE, Daemon

_CORRAL = str(Path(__file__).resolve().parents[2] / "bin" / "corral")
_TIMEOUT_S = 20

pytestmark = pytest.mark.skipif(
    shutil.which("docker") is None, reason="compares with the docker CLI, which is not installed"
)


@pytest.fixture(scope="module")
def running(shared_daemon: Daemon) -> Iterator[Daemon]:
    """The session's daemon, with containers `cli-one` (runs), `cli-two` (has ended) and a volume."""
    daemon = shared_daemon
    daemon.output(
        "run", "-d", "--name", "cli-one", "-v", "cli-vol:/x", "--expose", "99", "-l", "a=b", IMAGE, "sleep", "1000"
    )
    daemon.docker("run", "--name", "cli-two", IMAGE, "sh", "-c", "echo out; echo err >&2; exit 3")
    yield daemon
    daemon.output("rm", "-fv", "cli-one", "cli-two")
    daemon.output("volume", "rm", "cli-vol")


def _run(daemon: Daemon, program: str, words: list[str], input: bytes = b"") -> tuple[int, str, str]:
    environment = {**daemon.environment(), "CORRAL_HOST": daemon.host}
    done = subprocess.run(
        [program, *words], env=environment, input=input, capture_output=True, timeout=_TIMEOUT_S, check=False
    )
    return done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")


_SUGGESTION = re.compile(r"\n\nDid you mean '[^']*'\?| \(did you mean [^)]*\)|(?<=\n)Hint: [^\n]*\n")


def _as_docker(text: str) -> str:
    """What `corral` says, with docker's name in place of its own and without its suggestions."""
    text = _SUGGESTION.sub("", text)
    return re.sub(
        r"\bcorral(?=[: ])|CORRAL(?=_HOST)", lambda found: "docker" if found[0] == "corral" else "DOCKER", text
    )


_SAME = """
ps
ps -a
ps -aq
ps -as
ps -a --no-trunc
ps -a --format json
ps -a --format '{{.ID}} {{.Names}} {{.Labels}} {{.Mounts}} {{.LocalVolumes}} {{.Networks}}'
ps -a --format 'table {{.Names}}\\t{{.State}}\\t{{.Ports}}'
ps -a --filter name=cli-two
ps --filter foo
ps --format '{{'
ps x
ps --foo
images
images -q --no-trunc
images --digests
images --format json
image ls --format '{{.Repository}}:{{.Tag}} {{.Size}} {{.ID}}'
image inspect nosuch
images --tree -q
images --tree --format json
images --tree --digests
network ls
network ls --no-trunc
network ls --format json
network inspect bridge
network rm nosuch
network create
network create --subnet 10.9.0.0/24 --gateway 10.8.0.1 n1
volume ls
volume ls -q
volume inspect cli-vol
volume rm nosuch
volume create --driver foo x
inspect cli-one
inspect cli-one nosuch
inspect nosuch
inspect cli-vol
inspect -f '{{.State.Status}} {{.Name}} {{.State.ExitCode}}' cli-one cli-two
inspect -f '{{json .Config.Cmd}} {{index .Config.Labels "a"}} {{len .Mounts}}' cli-one
inspect -f '{{range .Mounts}}{{.Name}} -> {{.Destination}}{{"\\n"}}{{end}}' cli-one
inspect -f '{{if eq .State.Status "running"}}yes{{else}}no{{end}}' cli-one
inspect -f '{{.Nope}}' cli-one
inspect -f '{{.HostConfig.CapAdd}} {{.HostConfig.Dns}} {{.HostConfig.PidsLimit}} {{.Config.OnBuild}}' cli-two
inspect -f '{{json .HostConfig.CapAdd}} {{len .HostConfig.Links}} {{range .HostConfig.CapAdd}}x{{end}}' cli-two
logs cli-two
logs --tail 1 cli-two
logs -t cli-two
logs --since garbage cli-two
logs nosuch
port cli-one
port cli-one 80
top cli-one
top cli-one -o pid,args
diff cli-two
rm cli-one
rm nosuch
stop nosuch
kill cli-two
kill -s FOO cli-one
pause cli-two
rename cli-one cli-two
rename x
wait cli-two
start nosuch
start -a cli-two
update cli-one
update -m 1k cli-one
exec cli-one echo hi
exec cli-one sh -c 'echo e >&2; exit 9'
exec cli-one nosuchcmd
exec -e A=b -w /tmp -u 5 cli-one sh -c 'echo $A; pwd; id -u'
exec cli-two true
exec -it cli-one sh
attach cli-two
attach nosuch
tag nosuch x:y
tag cli 'BAD NAME'
rmi nosuch
export nosuch
cp cli-one:/nosuch x
cp nosuch:/a x
cp a b
cp cli-one:/a cli-two:/b
info --format '{{.Driver}} {{.NCPU}} {{json .Plugins}}'
version --format '{{.Server.Version}} {{.Server.Os}}'
events --since 1h --until 0s --filter container=cli-two --filter event=create
search --filter foo term
search 127.0.0.1:1/term
plugin ls
plugin ls --format json
plugin ls -q
plugin ls --filter foo=bar
events --since 1h --until 0s --filter container=cli-two --format '{{.Type}} {{.Action}} {{.Actor.ID}}'
context ls
context show
context use nosuch
--context nosuch ps
run
run --name cli-one IMAGE true
run --rm IMAGE sh -c 'echo e >&2; exit 5'
run --rm IMAGE nosuchcmd
run --rm IMAGE /etc
run --rm IMAGE /not-executable
run --rm -w /x/y IMAGE pwd
run --rm --hostname h -e A=1 -e B IMAGE env
run --rm -t IMAGE echo hi
run -it IMAGE sh
run --rm -m 1k IMAGE true
run --memory xx IMAGE true
run -p a:b IMAGE true
run --mount type=bind IMAGE true
run --mount type=bind,src=/nosuch,dst=/x IMAGE true
run -v relative/x:/x IMAGE true
run --ulimit foo IMAGE true
run --restart on-failure:x IMAGE true
run --restart always --rm IMAGE true
run --network nosuch IMAGE true
run --network none --rm IMAGE ip -o link
run --cpus abc IMAGE true
run --no-healthcheck --health-cmd x IMAGE true
run -d --rm -a stdin IMAGE true
run --pull foo IMAGE true
run --pull never nosuch:x
run --env-file /nosuch IMAGE true
run --add-host foo IMAGE true
run --device /dev/null:/dev/x:q IMAGE true
run --security-opt foo IMAGE true
run --cgroupns foo IMAGE true
run --cidfile /etc/passwd IMAGE true
run 'BAD IMAGE' true
run --foo IMAGE
run -Z IMAGE
run --name
load -i /nosuch
pull BAD
rn
image foo
container prune -f --filter foo=bar
system foo
-H foo://x ps
-H unix:///nosuch ps
-H unix:///nosuch run x
""".strip().splitlines()


@pytest.mark.parametrize("line", _SAME)
def test_prints_what_docker_prints(running: Daemon, line: str) -> None:
    words = [IMAGE if word == "IMAGE" else word for word in shlex.split(line)]
    for _ in range(5):  # ages tick on between the two
        theirs = _run(running, "docker", words)
        status, out, err = _run(running, _CORRAL, words)
        ours = (status, _as_docker(out), _as_docker(err))
        if ours == theirs:
            return
    assert ours == theirs


def test_images_as_a_tree_have_dockers_cells(running: Daemon) -> None:
    """Docker's layout is experimental and has colours even in a pipe; the cells are to be the same."""
    running.output("tag", IMAGE, "tree.test/other:1")
    theirs = re.sub(r"\x1b\[[0-9;]*m", "", _run(running, "docker", ["images", "--tree"])[1])
    status, out, _ = _run(running, _CORRAL, ["images", "--tree"])
    running.output("rmi", "tree.test/other:1")
    assert status == 0
    cells = [line.split() for line in theirs.splitlines() if line.strip()]
    expected = cells[cells.index(["IMAGE", "ID", "DISK", "USAGE", "CONTENT", "SIZE", "EXTRA"]) :]
    found = [line.split() for line in out.splitlines()]
    # Images of one second stand in any order, in docker's list too.
    assert found[0] == expected[0] and sorted(found) == sorted(expected)
    assert any(line.startswith("└─ linux/") for line in out.splitlines())


def test_carries_standard_input_and_its_end(running: Daemon) -> None:
    data = os.urandom(3 << 20)
    environment = {**running.environment(), "CORRAL_HOST": running.host}
    done = subprocess.run(
        [_CORRAL, "run", "--rm", "-i", IMAGE, "cat"],
        env=environment,
        input=data,
        capture_output=True,
        timeout=_TIMEOUT_S,
        check=True,
    )
    assert done.stdout == data


def test_passes_signals_on(running: Daemon) -> None:
    script = 'trap "echo got; exit 6" TERM; echo ready; while :; do sleep 0.02; done'
    environment = {**running.environment(), "CORRAL_HOST": running.host}
    with subprocess.Popen(
        [_CORRAL, "run", "--rm", IMAGE, "sh", "-c", script], env=environment, stdout=subprocess.PIPE
    ) as client:
        assert client.stdout is not None
        assert client.stdout.readline() == b"ready\n"
        client.terminate()
        assert client.stdout.read() == b"got\n"
        assert client.wait(_TIMEOUT_S) == 6


def test_copies_there_and_back(running: Daemon, tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "deep").mkdir(parents=True)
    (source / "deep" / "file").write_bytes(b"x" * 100_000)
    (source / "link").symlink_to("deep/file")
    for words in (["cp", str(source), "cli-one:/tmp"], ["cp", "cli-one:/tmp/source", str(tmp_path / "back")]):
        status, _, err = _run(running, _CORRAL, words)
        assert (status, err) == (0, "")
    assert (tmp_path / "back" / "deep" / "file").read_bytes() == b"x" * 100_000
    assert os.readlink(tmp_path / "back" / "link") == "deep/file"


def test_a_copy_does_not_leave_its_folder(tmp_path: Path) -> None:
    from corral.cli.copy import Unpacker
    from corral.cli.problems import CliError

    archive = tmp_path / "hostile.tar"
    with tarfile.open(archive, "w") as tar:
        link = tarfile.TarInfo("top/way")
        link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path)
        tar.addfile(link)
        tar.addfile(tarfile.TarInfo("top/way/planted"))
    (tmp_path / "target").mkdir()
    with tarfile.open(archive) as tar, pytest.raises(CliError, match="refused to unpack"):
        Unpacker(tar, str(tmp_path / "target"), "new", False).run()
    assert not (tmp_path / "planted").exists()


class _Terminal:
    """`corral` on a pseudo-terminal of a size."""

    def __init__(self, daemon: Daemon, *words: str, rows: int = 31, columns: int = 97) -> None:
        self.text = ""
        environment = {**daemon.environment(), "CORRAL_HOST": daemon.host, "TERM": "dumb"}
        self._fd, slave = pty.openpty()
        self.resize(rows, columns)
        self.process = subprocess.Popen(
            [_CORRAL, *words], env=environment, stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )  # fmt: skip
        os.close(slave)

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self._fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def send(self, text: str) -> None:
        os.write(self._fd, text.encode())

    def expect(self, wanted: str) -> None:
        """Read up to the text."""
        deadline = time.monotonic() + _TIMEOUT_S
        while wanted not in self.text:
            ready, _, _ = select.select([self._fd], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, f"{wanted!r} did not come: {self.text!r}"
            self.text += os.read(self._fd, 65536).decode(errors="replace")
        self.text = self.text.partition(wanted)[2]

    def status(self) -> int:
        """Exit status; the terminal must be as it was."""
        status = self.process.wait(_TIMEOUT_S)
        os.close(self._fd)
        return status


def test_a_terminal_with_resize_and_control_keys(running: Daemon) -> None:
    terminal = _Terminal(running, "run", "-it", "--rm", IMAGE, "sh")
    terminal.expect("# ")
    terminal.send("stty size\n")
    terminal.expect("31 97")
    terminal.resize(40, 120)
    terminal.send("until stty size | grep 120; do :; done\n")
    terminal.expect("40 120")
    terminal.send("sh -c 'echo $((40 + 2)); exec sleep 100'\n")  # the line comes from whom the key is for
    terminal.expect("42\r\n")
    terminal.send("\x03")
    terminal.expect("# ")
    terminal.send("exit 4\n")
    assert terminal.status() == 4


def test_detach_and_attach_again(running: Daemon) -> None:
    terminal = _Terminal(running, "run", "-it", "--name", "cli-terminal", IMAGE, "sh")
    try:
        terminal.expect("# ")
        terminal.send("\x10\x11")
        assert terminal.status() == 0
        assert running.state("cli-terminal")["Running"]
        terminal = _Terminal(running, "attach", "cli-terminal")
        terminal.send("echo again$((1 + 1))\n")
        terminal.expect("again2")
        terminal.send("exit 3\n")
        assert terminal.status() == 3
    finally:
        running.output("rm", "-f", "cli-terminal")
