"""`corral.client` against a daemon, in both flavours."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from corral import client as api
from tests.support.daemon import IMAGE, Daemon
from tests.support.netns import inside
from tests.support.pyapi import Async, Sync
from tests.support.registry import registry
from tests.support.wait import until

_SOURCE = str(Path(__file__).resolve().parents[2] / "src")


@pytest.fixture(params=[Sync, Async], ids=["sync", "async"])
def flavour(request: pytest.FixtureRequest) -> Iterator[Any]:
    made = request.param()
    yield made
    made.close()


@pytest.fixture
def client(flavour: Any, daemon: Daemon) -> Iterator[Any]:
    with flavour.client(daemon.host) as made:
        yield made


def connections(daemon: Daemon) -> int:
    return sum(target.startswith("socket:") for target in daemon.descriptors().values())


def test_the_daemon(client: Any, daemon: Daemon) -> None:
    assert client.ping() == "1.51"
    assert (client.version().os, client.info().driver) == ("linux", "overlayfs")
    assert client.host == daemon.host
    assert client.request("GET", "/containers/json", query={"all": True}) == []
    assert client.request("POST", "/volumes/create", body={"Name": "raw"})["Name"] == "raw"
    client.volumes.get("raw").remove()


def test_the_life_of_a_container(client: Any) -> None:
    with client.containers.create(IMAGE, "sleep", "600", name="life", labels={"a": "b"}, memory="64m") as made:
        assert made.inspect().state.status == "created"
        made.start()
        made.start()  # it runs already
        info = made.inspect(size=True)
        assert (info.name, info.state.running, info.config.labels, info.host_config["Memory"]) == (
            "/life", True, {"a": "b"}, 64 << 20
        )  # fmt: skip
        assert info.size_root_fs > 0
        [row] = client.containers.list(filters={"label": ["a=b"]})
        assert (row.id, row.state) == (made.id, "running")
        made.pause()
        assert made.inspect().state.paused
        made.unpause()
        made.restart(timeout=0)
        made.rename("later")
        assert client.containers.get("later").id == made.id
        assert list(made.top("-o pid,args").processes[0][-1].split()[-2:]) == ["sleep", "600"]
        assert made.stats().memory_stats.limit == 64 << 20
        for sample in made.watch_stats():
            assert sample.pids_stats.current >= 1
            break
        with pytest.raises(api.TimedOut):
            made.wait(timeout=0.1)
        made.kill("TERM")
        made.stop(timeout=0)
        assert made.wait() in (137, 143)
    assert client.containers.list(all=True) == ()
    with pytest.raises(api.NotFound, match="No such container: later"):
        client.containers.get("later")


def test_errors_have_kinds_and_leave_nothing(client: Any) -> None:
    with pytest.raises(api.NotFound, match="No such image"):
        client.containers.run("no.such/image:1")
    with pytest.raises(api.Refusal, match="not found"):
        client.containers.run(IMAGE, "no-such-program")
    assert client.containers.list(all=True) == ()
    with client.containers.create(IMAGE, name="taken"), pytest.raises(api.Conflict, match="already in use"):
        client.containers.create(IMAGE, name="taken")
    with pytest.raises(api.InvalidParameter):
        client.containers.create(IMAGE, name="no name")
    with pytest.raises(TypeError):
        client.containers.create(IMAGE, memroy=5)
    with client.containers.create(IMAGE, "true") as idle, pytest.raises(api.Conflict):
        idle.exec("true")


def test_the_output_of_a_program(client: Any) -> None:
    done = client.containers.output(IMAGE, "sh", "-c", "echo out; echo err >&2; exit 3", env={"A": "b"})
    assert (done.exit_code, done.stdout, done.stderr, done.ok) == (3, b"out\n", b"err\n", False)
    data = os.urandom(5_000_000)
    done = client.containers.output(IMAGE, "cat", input=data)
    assert done.ok and done.stdout == data
    late = client.containers.output(IMAGE, "sh", "-c", "echo early; sleep 600", timeout=0.5)
    assert (late.timed_out, late.exit_code) == (True, 137)
    much = client.containers.output(IMAGE, "sh", "-c", "yes | head -c 3000000; exit 4", limit_bytes=1000)
    assert (len(much.stdout), much.truncated, much.exit_code) == (1000, True, 4)
    assert client.containers.list(all=True) == ()


def test_programs_in_a_container(client: Any) -> None:
    with client.containers.run(IMAGE, "sleep", "600") as box:
        done = box.exec(
            "sh", "-c", "echo $A; pwd; id -u; echo err >&2; exit 5", env={"A": "b"}, user="bob", workdir="/tmp"
        )
        assert (done.exit_code, done.text, done.stderr) == (5, "b\n/tmp\n1000\n", b"err\n")
        data = os.urandom(5_000_000)
        assert box.exec("cat", stdin=data).stdout == data
        assert box.exec("sh", "-c", "exec <&-; sleep 0.2; echo on", stdin=data).text == "on\n"  # it reads nothing
        late = box.exec("sh", "-c", "echo early; sleep 600", timeout=0.3)
        assert (late.timed_out, late.exit_code, late.text) == (True, 137, "early\n")
        assert box.exec("no-such-program").exit_code == 127
        assert [pid for pid in box.top().processes if "600" in pid[-1]][1:] == []


def test_a_program_that_is_talked_to(client: Any) -> None:
    with client.containers.run(IMAGE, "sh", "-c", "while read line; do echo got $line; done", stdin=True) as box:
        with box.process("sh", "-c", "cat; echo end >&2; exit 7", stdin=True) as process:
            process.write(b"one\n")
            assert process.read() == api.Output(b"one\n")
            with pytest.raises(api.TimedOut):
                process.read(timeout=0.05)
            process.write(b"two")
            process.close_stdin()
            pieces = list(process)
            assert b"".join(piece.data for piece in pieces if not piece.stderr) == b"two"
            assert [piece.data for piece in pieces if piece.stderr] == [b"end\n"]
            assert process.wait() == 7
        with box.process("tty", tty=True) as process:
            assert b"/dev/pts" in b"".join(piece.data for piece in process)
        with box.attach(stdin=True) as main:
            main.write(b"this\n")
            assert main.read().data == b"got this\n"
            main.close_stdin()
            assert main.wait() == 0


def test_logs(client: Any, daemon: Daemon) -> None:
    script = "echo one; echo two >&2; i=0; while true; do i=$((i+1)); echo $i; sleep 0.05; done"
    with client.containers.run(IMAGE, "sh", "-c", script) as box:
        before = connections(daemon)
        found = []
        for line in box.lines(follow=True):
            found.append(line)
            if len(found) == 6:
                break
        assert {"one", "two", "1", "2"} <= set(found)
        until(lambda: connections(daemon) <= before)  # nobody follows any more
        box.kill()
        box.wait()
        assert list(box.lines(stdout=False)) == ["two"]
        assert len(list(box.lines(tail=3))) == 3
        pieces = list(box.logs(follow=True))
        assert pieces[0].data == b"one\n" and any(piece.stderr for piece in pieces)
        assert list(box.lines(until=1)) == []


def test_much_output_and_bytes_of_every_kind(client: Any) -> None:
    script = "head -c 30000000 /dev/zero | tr '\\0' x; head -c 100000 /dev/zero | tr '\\0' y >&2"
    with client.containers.run(IMAGE, "sh", "-c", script) as box:
        box.wait()
        pieces = list(box.logs())
        assert sum(len(piece.data) for piece in pieces if not piece.stderr) == 30_000_000
        assert sum(len(piece.data) for piece in pieces if piece.stderr) == 100_000


def test_events(client: Any, daemon: Daemon) -> None:
    with client.events(filters={"type": ["container"]}) as events:
        client.containers.output(IMAGE, "true", name="seen")
        seen = []
        for event in events:
            seen.append((event.action, event.actor.attributes["name"]))
            if event.action == "destroy":
                break
        during = connections(daemon)
    assert ("create", "seen") in seen and ("die", "seen") in seen and event.time_ns > 0
    until(lambda: connections(daemon) < during)
    now = event.time_ns / 1e9 + 1e-6
    past = list(client.events(since=now - 600, until=now, filters={"container": ["seen"]}))
    assert [one.action for one in past][:1] == ["create"]


def test_files(client: Any, tmp_path: Path) -> None:
    with client.containers.create(IMAGE, "true") as box:
        data = os.urandom(300_000)
        box.write("/tmp/x", data, mode=0o600, uid=1000)
        assert box.read("/tmp/x") == data
        assert {change.path: change.kind for change in box.changes()}["/tmp/x"] == 1
        with pytest.raises(api.BadArgument, match="no regular file"):
            box.read("/tmp")
        with pytest.raises(api.NotFound):
            box.read("/nothing")
        with pytest.raises(api.BadArgument):
            box.write("relative", b"")
        archive = b"".join(box.get_archive("/tmp"))
        box.put_archive("/mnt", iter([archive[:1000], archive[1000:]]))
        (tmp_path / "a.tar").write_bytes(archive)
        with open(tmp_path / "a.tar", "rb") as file:
            box.put_archive("/var", file)
        assert box.read("/mnt/tmp/x") == box.read("/var/tmp/x") == data
        assert len(b"".join(box.export())) > 1_000_000
        image = box.commit("corral.test/committed:2", changes=["ENV A=b"])
        assert "A=b" in client.images.get(image).config.env
        client.images.remove("corral.test/committed:2")


def test_images(client: Any, tmp_path: Path) -> None:
    dockerfile = f"FROM {IMAGE}\nARG WHO\nCOPY . /ctx\nRUN echo for $WHO; ls /ctx"
    ignored = "secret\nsub\n!sub/kept"
    files = {
        "Dockerfile": dockerfile,
        ".dockerignore": ignored,
        "kept": "",
        "secret": "",
        "sub/kept": "",
        "sub/not": "",
    }
    for name, content in files.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(content)
    output: list[str] = []
    built = client.images.build(
        tmp_path,
        tags=["corral.test/built:1"],
        arguments={"WHO": "me"},
        cache=False,
        watch=lambda one: output.append(one.stream),
    )
    assert built.repo_tags == ("corral.test/built:1",)
    assert "for me" in "".join(output) and "secret" not in "".join(output)
    listed = client.containers.output("corral.test/built:1", "find", "/ctx", "-type", "f").text.split()
    assert set(listed) >= {"/ctx/kept", "/ctx/sub/kept"} and not {"/ctx/secret", "/ctx/sub/not"} & set(listed)
    with pytest.raises(api.Failed, match="returned a non-zero code: 3"):
        (tmp_path / "Dockerfile").write_text(f"FROM {IMAGE}\nRUN exit 3")
        client.images.build(tmp_path)
    client.images.tag(built.id, "corral.test/again:1")
    assert {"corral.test/again:1", "corral.test/built:1"} <= {
        tag for image in client.images.list() for tag in image.repo_tags
    }
    saved = b"".join(client.images.save("corral.test/again:1"))
    client.images.remove("corral.test/again:1")
    client.images.remove("corral.test/built:1")
    assert client.images.load(saved) == ["corral.test/again:1"]
    assert client.images.history("corral.test/again:1")[0].created_by
    [*_, last] = client.images.remove("corral.test/again:1")
    assert last.deleted or last.untagged
    with pytest.raises(api.NotFound):
        client.images.get("corral.test/again:1")


def test_pull_and_push(flavour: Any, daemon: Daemon) -> None:
    with inside(daemon.space.pid), registry() as address, flavour.client(daemon.host) as client:
        name = f"{address}/some/thing:2"
        client.images.tag(IMAGE, name)
        digest = client.images.push(name)
        assert digest.startswith("sha256:")
        client.images.remove(name)
        records: list[api.Output] = []
        assert name in client.images.pull(name, watch=records.append).repo_tags
        assert any("Digest" in one.status for one in client.images.pulling(name)) and records
        client.images.remove(name)
        with pytest.raises(api.CorralError, match=r"not found|unknown"):
            client.images.pull(f"{address}/some/thing:3")


def test_networks(client: Any) -> None:
    with client.networks.create("pynet", subnet="10.77.0.0/24", labels={"a": "b"}) as network:
        with client.containers.run(IMAGE, "sleep", "600", network="pynet", aliases=["db"]) as one:
            assert one.exec("nslookup", "db").exit_code == 0 or "10.77.0" in one.exec("ip", "a").text
            with client.containers.run(IMAGE, "sleep", "600") as two:
                network.connect(two.id, address="10.77.0.9")
                assert two.inspect().network_settings.networks["pynet"].ip_address == "10.77.0.9"
                assert two.id in network.inspect().containers
                network.disconnect(two.id)
                assert two.id not in network.inspect().containers
        assert network.inspect().ipam.config[0].subnet == "10.77.0.0/24"
        assert client.networks.get("pynet").id == network.id
        assert "pynet" in [one.name for one in client.networks.list(filters={"label": ["a=b"]})]
    assert "pynet" not in [one.name for one in client.networks.list()]


def test_volumes(client: Any) -> None:
    with client.volumes.create("pyvol", labels={"a": "b"}) as volume:
        write = lambda text: client.containers.output(IMAGE, "sh", "-c", f"echo {text} > /v/f", volumes={"/v": "pyvol"})  # noqa: E731
        read = lambda name: client.containers.output(IMAGE, "cat", "/v/f", volumes={"/v": name}).text  # noqa: E731
        assert write("one").ok
        volume.snapshot("s1")
        write("two")
        assert [one.name for one in volume.snapshots()] == ["s1"]
        with volume.clone("pyvol2") as copy:
            volume.restore("s1")
            assert (read("pyvol"), read("pyvol2")) == ("one\n", "two\n")
            archive = b"".join(copy.export())
            copy.rename("pyvol3")
        with client.volumes.restore("pyvol4", archive):
            assert read("pyvol4") == "two\n"
        volume.forget_snapshot("s1")
        assert volume.inspect().labels == {"a": "b"}
    assert [one.name for one in client.volumes.list()] == []


def test_secrets(client: Any) -> None:
    made = client.secrets.create("token", "one", labels={"a": "b"})
    try:
        with client.containers.run(IMAGE, "sleep", "600", secrets=["token"]) as box:
            assert box.exec("cat", "/run/secrets/token").text == "one"
            client.secrets.update("token", b"two")
            assert box.exec("cat", "/run/secrets/token").text == "two"
            with pytest.raises(api.Conflict):
                client.secrets.remove("token")
        assert (client.secrets.get("token").id, client.configs.list()) == (made.id, ())
    finally:
        client.secrets.remove("token")


def test_what_changes_while_it_runs(client: Any, tmp_path: Path) -> None:
    with client.containers.run(IMAGE, "sleep", "600") as box:
        box.add_ports({"80/tcp": "127.0.0.1:18080"})
        assert box.inspect().network_settings.ports["80/tcp"][0].port == "18080"
        box.remove_ports("127.0.0.1:18080")
        (tmp_path / "f").write_text("x")
        box.add_mount("/more", str(tmp_path), read_only=True)
        assert box.exec("cat", "/more/f").text == "x"
        box.remove_mount("/more")
        box.add_device("/dev/null:/dev/other")
        assert box.exec("test", "-c", "/dev/other").ok
        box.remove_device("/dev/other")
        assert box.update(memory="32m", memory_swap="32m", label_add={"c": "d"}, pids=50) == ()
        info = box.inspect()
        assert (info.host_config["Memory"], info.config.labels["c"]) == (32 << 20, "d")


def test_snapshots(client: Any) -> None:
    with client.containers.run(IMAGE, "sleep", "600") as box:
        box.write("/f", b"one")
        box.snapshot("s1")
        box.write("/f", b"two")
        with box.fork("s1", "sleep", "600") as fork:
            assert (fork.read("/f"), box.read("/f")) == (b"one", b"two")
        with pytest.raises(api.Conflict, match="stop the container"):
            box.rewind("s1")
        box.rewind("s1", restart=True)
        assert box.exec("cat", "/f").text == "one"
        assert [one.name for one in box.snapshots()] == ["s1"]
        box.forget_snapshot("s1")


def test_a_daemon_that_dies_in_the_middle(flavour: Any, own_daemon: Daemon) -> None:
    script = "while true; do echo x; sleep 0.05; done"
    with flavour.client(own_daemon.host) as client, client.containers.run(IMAGE, "sh", "-c", script) as box:
        lines = box.lines(follow=True)
        assert next(lines) == "x"
        with box.process("cat", stdin=True) as process:
            process.write(b"begun")
            assert process.read().data == b"begun"
            own_daemon.end(signal.SIGKILL)
            with pytest.raises(api.Interrupted):
                for _ in lines:
                    pass
            process.write(b"the program goes on\n")  # its streams are not the daemon's
            assert process.read().data == b"the program goes on\n"
            with pytest.raises((api.NotConnected, api.Interrupted)):
                client.ping()
            own_daemon.launch()
            assert client.ping() and box.inspect().state.running


def test_the_sandbox(client: Any, flavour: Any) -> None:
    files = {"/work/a/run.sh": "echo from $NAME", "/b": b"\0\1"}
    with flavour.sandbox(IMAGE, client, files=files, env={"NAME": "file"}, workdir="/work", memory="64m") as box:
        assert box.run("sh", "a/run.sh").text == "from file\n"
        assert box.read("/b") == b"\0\1"
        status = dict(
            line.split(":\t", 1) for line in box.run("cat", "/proc/self/status").text.splitlines() if ":\t" in line
        )
        assert int(status["CapBnd"], 16) == 0 and status["NoNewPrivs"] == "1"
        assert [line.split(":")[1].strip() for line in box.run("ip", "-o", "link").text.splitlines()] == ["lo"]
        late = box.run("sleep", "600", timeout=0.3)
        assert (late.timed_out, late.exit_code, late.ok) == (True, 137, False)
        full = box.run("sh", "-c", "a=x; while true; do a=$a$a$a$a; done")
        assert (full.oom_killed, full.timed_out, full.exit_code) == (True, False, 137)
        crowd = box.run("sh", "-c", "for i in $(seq 300); do sleep 600 & done", timeout=20)
        assert b"fork" in crowd.stderr
        box.snapshot("s1")
        box.write("/work/new/f", "new")
        box.rewind("s1")
        assert box.run("ls", "/work").text == "a\n"
        assert len(box.run("ps", "-o", "comm").text.split()) < 8  # what ran is gone
        with box.fork("s1") as twin:
            assert twin.id != box.id and twin.run("sh", "a/run.sh").text == "from file\n"
        with box.run_stream("cat", stdin=True) as process:
            process.write(b"hello")
            assert process.read().data == b"hello"
    assert client.containers.list(all=True) == ()
    with pytest.raises(api.Ended):
        box.run("true")


def test_a_sandbox_bounds_output_and_time(client: Any, flavour: Any) -> None:
    with flavour.sandbox(IMAGE, client, timeout=2, output_limit="1k", read_only=True) as box:
        much = box.run("sh", "-c", "yes | head -c 100000")
        assert (len(much.stdout), much.truncated, much.exit_code) == (1024, True, 0)
        assert box.run("sh", "-c", "echo x > /x").exit_code != 0 and box.run("sh", "-c", "echo x > /tmp/x").ok
        assert box.run("sleep", "600").timed_out
        until(lambda: not box.left_s)
        with pytest.raises(api.Ended, match=r"time .2 s. is over"):
            box.run("true")
        until(lambda: client.containers.list(all=True) == ())  # by itself
    with pytest.raises(TypeError):
        flavour.sandbox(IMAGE, client, memroy=1)
    with pytest.raises(api.NotFound), flavour.sandbox(IMAGE, client, network="no-such-network"):
        pass
    assert client.containers.list(all=True) == ()


def test_a_sandbox_sends_only_where_its_list_says(client: Any, flavour: Any) -> None:
    def reaches(box: Any, address: str) -> bool:
        return bool(box.run("wget", "-q", "-O", "/dev/null", f"http://{address}/passwd", timeout=10).ok)

    with (
        client.containers.run(IMAGE, "httpd", "-f", "-h", "/etc") as open_one,
        client.containers.run(IMAGE, "httpd", "-f", "-h", "/etc") as closed_one,
    ):
        allowed, other = (
            one.inspect().network_settings.networks["bridge"].ip_address for one in (open_one, closed_one)
        )
        with flavour.sandbox(IMAGE, client, egress=[f"allow={allowed}:80"]) as box:
            until(lambda: reaches(box, allowed))  # once the server listens
            assert not reaches(box, other)
        with flavour.sandbox(IMAGE, client, network="bridge") as box:
            until(lambda: reaches(box, other))
        with flavour.sandbox(IMAGE, client) as box:
            assert not reaches(box, allowed)
    with pytest.raises(api.InvalidParameter), flavour.sandbox(IMAGE, client, egress=["allow=:::"]):
        pass
    assert client.containers.list(all=True) == ()


def test_a_sandbox_whose_program_was_killed_goes_in_time(daemon: Daemon) -> None:
    program = (
        "import os, signal; from corral.client import Client, Sandbox\n"
        f"box = Sandbox({IMAGE!r}, client=Client({daemon.host!r}), timeout=2); box.start()\n"
        "print(box.run('echo', 'here').text, flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": _SOURCE}, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout.strip()) == (-9, "here"), done.stderr
    until(lambda: not daemon.containers(), 30)


def test_threads_share_a_client(daemon: Daemon) -> None:
    with api.Client(daemon.host) as client, client.containers.run(IMAGE, "sleep", "600") as box:
        found: list[str] = []

        def work(number: int) -> None:
            for turn in range(5):
                found.append(box.exec("echo", f"{number}.{turn}").text.strip())

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(found) == sorted(f"{number}.{turn}" for number in range(4) for turn in range(5))


def test_cancelled_tasks_leave_nothing(daemon: Daemon) -> None:
    async def work() -> None:
        async with api.AsyncClient(daemon.host) as client:
            await client.ping()
            before = connections(daemon)
            async with client.containers.run(IMAGE, "sleep", "600") as box:
                waits: list[Callable[[], Any]] = [box.wait, lambda: box.exec("sleep", "600"), lambda: client.events()]
                for wait in waits:
                    with pytest.raises(TimeoutError):
                        async with asyncio.timeout(0.2):
                            result = await wait()
                            async for _ in result:
                                pass
                results = await asyncio.gather(*(box.exec("echo", str(number)) for number in range(10)))
                assert [result.text for result in results] == [f"{number}\n" for number in range(10)]
                with pytest.raises(ExceptionGroup):
                    async with asyncio.TaskGroup() as group:
                        group.create_task(_awaited(box.exec("sleep", "600")))
                        await asyncio.sleep(0.1)  # cancelled in the middle, not before its beginning
                        raise ZeroDivisionError
            assert await client.containers.list(all=True) == ()
        await asyncio.to_thread(until, lambda: connections(daemon) <= before)

    async def _awaited(call: Any) -> Any:
        return await call

    asyncio.run(work(), debug=True)
