"""`corral build` and the door that it uses: contexts as a difference, secrets, outputs, caches, attestations."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import tarfile
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.contexts import run
from tests.support.daemon import IMAGE, Daemon
from tests.support.terminal import Terminal
from tests.support.wait import until

_CORRAL = str(Path(__file__).resolve().parents[2] / "bin" / "corral")
_TIMEOUT_S = 60


def corral(daemon: Daemon, *words: str, input: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """The client."""
    surroundings = {**daemon.environment(), "CORRAL_HOST": daemon.host, **environment}
    return subprocess.run(
        [_CORRAL, *words],
        env=surroundings,
        input=input,
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_S,
        check=False,
    )


def built(daemon: Daemon, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
    """A build that must succeed."""
    done = corral(daemon, "build", "--progress", "plain", *words, **more)
    assert done.returncode == 0, done.stderr
    return done


def files(folder: Path, **texts: str) -> str:
    """Files by name, with two underscores for the slash and `Dockerfile` among them."""
    for name, text in texts.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return str(folder)


def test_a_build_and_its_display(daemon: Daemon, tmp_path: Path) -> None:
    place = files(
        tmp_path, Dockerfile=f"FROM {IMAGE} AS x\nCOPY a /a\nRUN cat /a; echo err >&2\nCMD cat /a", a="text\n", b="b"
    )
    done = built(daemon, "-t", "native:one", place)
    lines = [re.sub(r"\d+\.\d+", "T", line) for line in done.stderr.splitlines()]
    assert lines == [
        "WARN: JSONArgsRecommended: JSON arguments recommended for CMD to prevent unintended behavior related to OS "
        "signals",
        *lines[1:7],
        f"#1 [x 1/4] FROM {IMAGE} AS x", "#1 DONE Ts", "#2 [x 2/4] COPY a /a", "#2 DONE Ts",
        "#3 [x 3/4] RUN cat /a; echo err >&2", "#3 T text", "#3 T err", "#3 DONE Ts",
        "#4 [x 4/4] CMD cat /a", "#4 DONE Ts",
    ]  # fmt: skip
    assert "   4 | >>> CMD cat /a" in done.stderr
    assert run(daemon, "native:one") == "text\n"
    again = built(daemon, "-q", "-t", "native:one", place)
    assert again.stdout.strip() == daemon.inspect_image("native:one")["Id"]
    assert daemon.docker("rmi", "native:one").returncode == 0


def test_nothing_but_a_base_gets_names(daemon: Daemon, tmp_path: Path) -> None:
    place = files(tmp_path, Dockerfile=f"FROM {IMAGE}\n")
    names = ("corral.test/plain", "plain", "plain:2", "localhost:5000/plain")
    built(daemon, *(word for name in names for word in ("-t", name)), place)
    for name in names:
        assert daemon.inspect_image(name)["Id"] == daemon.inspect_image(IMAGE)["Id"]
        daemon.output("rmi", name)


def test_only_what_changed_is_sent(daemon: Daemon, tmp_path: Path) -> None:
    place = files(
        tmp_path, Dockerfile=f"FROM {IMAGE}\nCOPY . /c\nRUN find /c -type f | sort | xargs cat", one="1\n", two="2\n"
    )
    assert built(daemon, place).stderr.count("CACHED") == 0
    entries = {"one": ["f", 0o644, 2, 5, ""], "two": ["f", 0o644, 2, 5, ""], "d": ["d", 0o755, 0, 0, ""]}
    first = daemon.post("/corral/build/context", {"key": str(tmp_path), "entries": entries}).json()
    assert sorted(first["missing"]) == ["d", "one", "two"]
    from tests.support.images import directory, member, tar_of

    body = tar_of([directory("d"), member("one", b"1\n"), member("two", b"2\n")])
    reply = daemon.request("PUT", f"/corral/build/context/{first['id']}", body, {"Content-Type": "application/x-tar"})
    assert reply.status == 204, reply.body
    dockerfile = f"FROM {IMAGE}\nCOPY . /c\nRUN ls /c; cat /c/one /c/two"
    reply = daemon.post("/corral/build", {"context": first["id"], "dockerfile": dockerfile})
    assert b'"event":"result"' in reply.body, reply.body
    entries = {"one": entries["one"], "two": ["f", 0o644, 2, 6, ""]}
    second = daemon.post("/corral/build/context", {"key": str(tmp_path), "entries": entries}).json()
    assert second["missing"] == ["two"]
    body = tar_of([member("two", b"3\n")])
    daemon.request("PUT", f"/corral/build/context/{second['id']}", body, {"Content-Type": "application/x-tar"})
    reply = daemon.post("/corral/build", {"context": second["id"], "dockerfile": dockerfile})
    records = [json.loads(line) for line in reply.body.splitlines()]
    import base64

    output = b"".join(base64.b64decode(record["data"]) for record in records if record.get("event") == "wrote")
    assert output == b"one\ntwo\n1\n3\n"  # `d` is gone, `two` is new


def test_a_context_that_is_not_what_was_announced(daemon: Daemon) -> None:
    for path in ("../x", "/x", "a/../../x"):
        reply = daemon.post("/corral/build/context", {"key": "bad", "entries": {path: ["f", 0, 0, 0, ""]}})
        assert reply.status == 400
    found = daemon.post("/corral/build/context", {"key": "bad", "entries": {"x": ["f", 0, 1, 0, ""]}}).json()
    reply = daemon.request("PUT", f"/corral/build/context/{found['id']}", bytes(1024), {})
    assert reply.status == 400 and "was announced and did not come" in reply.message
    assert daemon.request("PUT", "/corral/build/context/none", b"", {}).status == 404
    reply = daemon.post("/corral/build", {"context": "none", "dockerfile": f"FROM {IMAGE}"})
    assert (reply.status, reply.message) == (404, "no such build context: none")


def test_secrets_and_ssh(daemon: Daemon, tmp_path: Path) -> None:
    place = files(
        tmp_path,
        Dockerfile=f"FROM {IMAGE}\nRUN --mount=type=secret,id=a,mode=0440 cd /run/secrets; stat -c %a a; wc -c < a\n"
        "RUN --mount=type=secret,id=b,env=B echo ${#B}\nRUN --mount=type=ssh test -S $SSH_AUTH_SOCK && echo agent\n"
        "RUN cat /run/secrets/a; env; true",
    )
    secret = tmp_path / "s"
    secret.write_text("hush-hush")
    agent = tmp_path / "agent"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(agent))
        done = built(
            daemon, "--secret", f"id=a,src={secret}", "--secret", "id=b,env=VALUE", "--ssh", "default", "--no-cache",
            place, VALUE="hidden", SSH_AUTH_SOCK=str(agent),
        )  # fmt: skip
    for line in (" 440", " 9", " 6", " agent"):
        assert re.search(rf"#\d \d+\.\d+{line}$", done.stderr, re.MULTILINE), done.stderr
    assert "hush" not in done.stderr and "hidden" not in done.stderr
    missing = corral(daemon, "build", "--secret", "id=a,src=/nonexistent", place)
    assert (missing.returncode, missing.stderr) == (
        1, "failed to read secret a: /nonexistent: no such file or directory\n"
    )  # fmt: skip


def test_outputs(daemon: Daemon, tmp_path: Path) -> None:
    place = files(
        tmp_path / "c",
        Dockerfile=f"FROM {IMAGE} AS x\nRUN mkdir /out; echo 1 > /out/f\nFROM scratch\nCOPY --from=x /out /",
    )
    local = tmp_path / "local"
    built(daemon, "-o", str(local), place)
    assert [path.name for path in local.iterdir()] == ["f"] and (local / "f").read_text() == "1\n"
    built(daemon, "-o", f"type=tar,dest={tmp_path}/t.tar", place)
    with tarfile.open(tmp_path / "t.tar") as archive:
        assert [name for name in archive.getnames() if name not in ("", ".")] == ["f"]
    built(daemon, "-t", "native:oci", "-o", f"type=oci,dest={tmp_path}/o.tar", place)
    with tarfile.open(tmp_path / "o.tar") as archive:
        assert {"oci-layout", "index.json"} <= set(archive.getnames())
    assert corral(daemon, "build", "-o", "type=nothing", place).returncode != 0


def test_settings(daemon: Daemon, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "o").write_text("other\n")
    place = files(
        tmp_path / "c",
        app__My=f"FROM {IMAGE} AS one\nARG A\nRUN echo $A > /one\nFROM named AS two\nCOPY --from=other o /o\n"
        "COPY --from=one /one /\nRUN cat /o /one",
    )
    done = built(
        daemon, "-f", f"{place}/app/My", "--build-arg", "A=arg", "--build-context", f"other={other}",
        "--build-context", f"named=docker-image://{IMAGE}", "--label", "l=1", "--annotation", "a=b", "-t", "native:set",
        "--iidfile", f"{tmp_path}/iid", "--metadata-file", f"{tmp_path}/meta", place,
    )  # fmt: skip
    assert "other" in done.stderr and "arg" in done.stderr
    image = daemon.inspect_image("native:set")
    assert image["Config"]["Labels"] == {"l": "1"}
    assert (tmp_path / "iid").read_text() == image["Id"]
    assert json.loads((tmp_path / "meta").read_text())["containerimage.digest"] == image["Id"]
    saved = Path(daemon.data_root, "image", "blobs", "sha256", image["Id"].removeprefix("sha256:"))
    assert json.loads(saved.read_text())["annotations"] == {"a": "b"}
    again = built(
        daemon, "-f", f"{place}/app/My", "--build-arg", "A=arg", "--build-context", f"other={other}",
        "--build-context", f"named=docker-image://{IMAGE}", "--no-cache-filter", "one", place,
    )  # fmt: skip
    assert again.stderr.count("CACHED") == 3  # all of stage two: what it copies is the same


def test_limits_of_the_commands(daemon: Daemon, tmp_path: Path) -> None:
    place = files(
        tmp_path,
        Dockerfile=f"FROM {IMAGE}\nRUN grep -E 'Cpus_allowed_list|Seccomp:' /proc/self/status; cat /proc/self/cgroup",
    )
    parent = f"{daemon.cgroup_parent}/builds"
    done = built(
        daemon, "--no-cache", "--cpuset-cpus", "1", "--security-opt", "seccomp=unconfined", "--cgroup-parent", parent,
        "--rm=false", "--force-rm", "--compress", place,
    )  # fmt: skip
    assert re.search(r"Cpus_allowed_list:\s+1\n", done.stderr), done.stderr
    assert re.search(r"Seccomp:\s+0\n", done.stderr), done.stderr
    named = [path for path in daemon.cgroups() if path.endswith("/builds")]
    assert named
    for path in named:  # a parent that somebody names is theirs to remove
        os.rmdir(path)
    for words in (("--memory-swap", "1m", "-m", "64m"), ("--cpu-quota", "7"), ("--cpuset-cpus", "99")):
        assert corral(daemon, "build", "--no-cache", *words, place).returncode == 1, words


def test_cache_that_travels(daemon: Daemon, tmp_path: Path, new_daemon: object) -> None:
    place = files(
        tmp_path / "c", Dockerfile=f"FROM {IMAGE}\nENV a=travels\nCOPY f /f\nRUN cat /f > /g\nRUN true", f="text"
    )
    cache = tmp_path / "cache"
    built(daemon, "--cache-to", f"type=local,dest={cache}", "-t", "native:travel", place)
    other: Daemon = new_daemon()  # type: ignore[operator]
    done = built(other, "--cache-from", f"type=local,src={cache}", place)
    assert done.stderr.count("CACHED") == 4, done.stderr
    assert "imported 4 steps of " in done.stderr
    nothing = built(other, "--cache-from", "127.0.0.1:1/none", place)
    assert "cannot import cache from 127.0.0.1:1/none" in nothing.stderr


def test_attestations(daemon: Daemon, tmp_path: Path) -> None:
    status = "Package: one\nStatus: install ok installed\nVersion: 1.2-3\n\nPackage: two\nVersion: 4\n"
    place = files(tmp_path, Dockerfile=f"FROM {IMAGE}\nCOPY status /var/lib/dpkg/status", status=status)
    built(daemon, "--sbom=true", "--provenance=true", "-t", "native:attested", place)
    blobs = Path(daemon.data_root, "image", "blobs", "sha256")
    index = json.loads((blobs / daemon.inspect_image("native:attested")["Id"].removeprefix("sha256:")).read_text())
    image, attestation = index["manifests"]
    assert attestation["annotations"] == {
        "vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": image["digest"]
    }  # fmt: skip
    manifest = json.loads((blobs / attestation["digest"].removeprefix("sha256:")).read_text())
    found = [json.loads((blobs / layer["digest"].removeprefix("sha256:")).read_text()) for layer in manifest["layers"]]
    assert [one["predicateType"] for one in found] == ["https://slsa.dev/provenance/v0.2", "https://spdx.dev/Document"]
    assert {one["subject"][0]["digest"]["sha256"] for one in found} == {image["digest"].removeprefix("sha256:")}
    assert [package["name"] for package in found[1]["predicate"]["packages"]] == ["one", "two"]
    assert run(daemon, "native:attested", "cat", "/var/lib/dpkg/status") == status


def test_a_failing_command(daemon: Daemon, tmp_path: Path) -> None:
    place = files(tmp_path, Dockerfile=f"FROM {IMAGE}\nRUN echo last words; exit 42\n")
    done = corral(daemon, "build", "--progress", "plain", place)
    assert done.returncode == 42
    assert done.stderr.splitlines()[-10:] == [
        "------", " > RUN echo last words; exit 42:", "last words", "------",
        "Dockerfile:2", "-" * 20, f"   1 |     FROM {IMAGE}", "   2 | >>> RUN echo last words; exit 42", "-" * 20,
        'ERROR: failed to build: process "/bin/sh -c echo last words; exit 42" did not complete successfully: exit '
        "code: 42",
    ]  # fmt: skip


def test_standard_input_checks_and_refusals(daemon: Daemon, tmp_path: Path) -> None:
    done = corral(daemon, "build", "-", input=f"FROM {IMAGE}\nRUN echo from stdin")
    assert done.returncode == 0 and "from stdin" in done.stderr
    checked = corral(daemon, "build", "--check", "-", input="FROM a AS Big\nMAINTAINER x\nENV PASSWORD=1\nWORKDIR rel")
    assert re.findall(r"WARN: (\w+)", checked.stderr) == [
        "StageNameCasing", "MaintainerDeprecated", "SecretsUsedInArgOrEnv", "WorkdirRelativePath"
    ]  # fmt: skip
    missing = corral(daemon, "build", str(tmp_path / "none"))
    assert missing.stderr == f'unable to prepare context: path "{tmp_path}/none" not found\n'
    empty = corral(daemon, "build", str(tmp_path))
    assert "failed to read dockerfile: open " in empty.stderr
    network = corral(daemon, "build", "-", input=f"FROM {IMAGE}\nRUN --network=host true")
    assert "granting entitlement network.host is not allowed by build" in network.stderr
    allowed = corral(
        daemon, "build", "--allow", "network.host,security.insecure", "-",
        input=f"FROM {IMAGE}\nRUN --network=host ls /sys/class/net\nRUN --security=insecure mount -t tmpfs t /mnt",
    )  # fmt: skip
    assert allowed.returncode == 0, allowed.stderr


def test_a_daemon_with_the_classic_api_only(daemon: Daemon, tmp_path: Path) -> None:
    """As with Docker's: the door is hidden by a proxy that gives the server another name."""
    place = files(tmp_path, Dockerfile=f"FROM {IMAGE}\nCOPY f /f\nARG A\nRUN cat /f; echo $A\nRUN exit 5", f="file\n")
    with renamed(daemon) as host:
        done = corral(daemon, "-H", host, "build", "--build-arg", "A=arg", place)
        assert (done.returncode, "file\narg\n" in done.stderr) == (5, True), done.stderr
        assert done.stderr.endswith("returned a non-zero code: 5\n")
        refused = corral(daemon, "-H", host, "build", "--sbom=true", place)
        assert refused.stderr == "this daemon cannot build with sbom: it has the classic API only\n"


@contextlib.contextmanager
def renamed(daemon: Daemon) -> Iterator[str]:
    """The daemon under the name of Docker's."""
    folder = tempfile.mkdtemp()
    path = os.path.join(folder, "s")

    def carry(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data.replace(b"Server: Corral (linux)", b"Server: Docker/20.10 ()"))
            target.shutdown(socket.SHUT_WR)

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                server = daemon.raw(60)
                for pair in ((client, server), (server, client)):
                    threading.Thread(target=carry, args=pair, daemon=True).start()
                open_now.extend((client, server))

    open_now: list[socket.socket] = []
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"unix://{path}"
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
    for one in open_now:
        with contextlib.suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)  # a thread may be reading: without this its connection would stay
        one.close()
    shutil.rmtree(folder)


def test_the_display_on_a_terminal(daemon: Daemon, tmp_path: Path) -> None:
    command = "echo on-a-terminal; until test -e /c/go; do :; done"
    place = files(tmp_path, Dockerfile=f"FROM {IMAGE}\nRUN --mount=target=/c {command}")
    environment = {**daemon.environment(), "CORRAL_HOST": daemon.host}
    with Terminal([_CORRAL, "build", "--no-cache", place], environment) as terminal:
        terminal.expect("[+] Building ")
        terminal.expect(" => => on-a-terminal")
        terminal.expect("\x1b[J[+] Building ")  # the clock goes on though nothing is heard
        for name in os.listdir(os.path.join(daemon.data_root, "build", "contexts")):
            Path(daemon.data_root, "build", "contexts", name, "files", "go").touch()
        terminal.expect("(2/2)")
        assert terminal.finish() == 0


def test_both_doors_share_one_cache(daemon: Daemon, tmp_path: Path) -> None:
    dockerfile = f"FROM {IMAGE}\nENV doors=2\nCOPY . /c\nRUN ls /c > /l\nWORKDIR /w"
    place = files(tmp_path, Dockerfile=dockerfile, a__b="x", d="y")
    first = daemon.docker("build", place)
    assert first.returncode == 0, first.stderr
    assert built(daemon, place).stderr.count("CACHED") == 4
    (tmp_path / "d").write_text("z")
    built(daemon, place)
    again = daemon.docker("build", place)
    assert again.stdout.count("Using cache") == 4


def test_pruning(own_daemon: Daemon, tmp_path: Path) -> None:
    built(own_daemon, files(tmp_path, Dockerfile=f"FROM {IMAGE}\nRUN echo x > /x"))
    done = corral(own_daemon, "builder", "prune", "-af")
    assert done.returncode == 0 and "Total reclaimed space" in done.stdout
    until(lambda: os.listdir(os.path.join(own_daemon.data_root, "build", "contexts")) == [])


@pytest.mark.parametrize("size", [1, 300])
def test_many_files(daemon: Daemon, tmp_path: Path, size: int) -> None:
    for number in range(size):
        (tmp_path / f"f{number}").write_text(str(number))
    place = files(tmp_path, Dockerfile=f"FROM {IMAGE}\nCOPY . /c\nRUN ls /c | wc -l")
    assert re.search(rf" {size + 1}$", built(daemon, place).stderr, re.MULTILINE)
