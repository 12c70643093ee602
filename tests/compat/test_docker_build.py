"""`POST /build`: the Dockerfile language end to end, through the classic API, docker's command and docker-py."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import docker.errors
import pytest

from tests.support.contexts import Built, build, context, refused, run
from tests.support.daemon import IMAGE, Daemon, Engine
from tests.support.images import directory, member, tar_of
from tests.support.registry import free_port
from tests.support.wait import until


def scratch(daemon: Daemon) -> list[str]:
    """What builds have left that is of no use to later ones."""
    return sorted(set(os.listdir(os.path.join(daemon.data_root, "build"))) - {"mounts", "contexts"})


def write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        (folder / name).write_text(text)
    return folder


# --- clients ---------------------------------------------------------------------------------------------------


def cli(engine: Engine, *words: str, **more: object) -> str:
    """`docker build` of the stock command; what it prints."""
    done = engine.docker("build", *words, **more)  # type: ignore[arg-type]
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_docker_command(engine: Engine, tmp_path: Path) -> None:
    write(
        tmp_path,
        Dockerfile=f"FROM {IMAGE}\nCOPY hello /hello\nRUN cat /hello; echo oops >&2\nCMD cat /hello\n",
        hello="hi\n",
    )
    printed = cli(engine, "-t", "built:cli", "-t", "built:other", str(tmp_path))
    plain = printed.replace("\x1b[0m", "")
    assert re.sub(r"[0-9a-f]{12}", "ID", plain[plain.index("Step 1") :]).splitlines() == [
        f"Step 1/4 : FROM {IMAGE}", " ---> ID",
        "Step 2/4 : COPY hello /hello", " ---> ID",
        "Step 3/4 : RUN cat /hello; echo oops >&2", " ---> Running in ID",
        *plain.splitlines()[8:10],
        "Removing intermediate container ID",
        " ---> ID",
        "Step 4/4 : CMD cat /hello", " ---> ID",
        "Successfully built ID", "Successfully tagged built:cli", "Successfully tagged built:other",
    ]  # fmt: skip
    assert "hi" in printed and "\x1b[91moops" in printed
    assert engine.output("run", "--rm", "built:cli") == "hi"
    again = cli(engine, "-t", "built:cli", str(tmp_path))
    assert again.count(" ---> Using cache") == 3
    assert again.splitlines()[-2] == printed.splitlines()[-3]  # the same image


def test_the_dockerfile_from_standard_input(engine: Engine) -> None:
    told = cli(engine, "-", input=f"FROM {IMAGE}\nRUN true\n").splitlines()
    (made,) = (line.split()[-1] for line in told if line.startswith("Successfully built"))
    assert [line for line in told if line.startswith(" ---> ")][-1] == f" ---> {made}"


def test_quiet_prints_the_id_only(engine: Engine, tmp_path: Path) -> None:
    write(tmp_path, Dockerfile=f"FROM {IMAGE}\nLABEL quiet=1\n")
    printed = cli(engine, "-q", str(tmp_path)).strip()
    assert re.fullmatch(r"sha256:[0-9a-f]{64}", printed)
    assert engine.inspect_image(printed)["Config"]["Labels"]["quiet"] == "1"


def test_the_command_tells_of_a_failing_run(engine: Engine, tmp_path: Path) -> None:
    write(tmp_path, Dockerfile=f"FROM {IMAGE}\nRUN echo before; exit 7\n")
    done = engine.docker("build", str(tmp_path))
    assert done.returncode == 7
    assert "before" in done.stdout
    assert done.stderr.rstrip().endswith("The command '/bin/sh -c echo before; exit 7' returned a non-zero code: 7")


def test_docker_py(engine: Engine) -> None:
    fileobj = io.BytesIO(f"FROM {IMAGE}\nARG who=me\nRUN echo $who > /who\n".encode())
    image, stream = engine.py.images.build(
        fileobj=fileobj, tag="built:py", buildargs={"who": "you"}, labels={"l": "1"}, rm=True
    )
    assert any("Successfully built" in record.get("stream", "") for record in stream)
    assert image.labels == {"l": "1"}
    assert run(engine, "built:py", "cat", "/who") == "you\n"
    with pytest.raises(docker.errors.BuildError, match="returned a non-zero code: 3"):
        engine.py.images.build(fileobj=io.BytesIO(f"FROM {IMAGE}\nRUN exit 3".encode()))


# --- the language ----------------------------------------------------------------------------------------------


def test_copy_forms(engine: Engine) -> None:
    files = {"a/one": "1\n", "a/b/two": "2\n", "x.md": "x", "y.md": "y", "sp ace": "s", "skip/me": "no"}
    dockerfile = f"""FROM {IMAGE}
COPY a /a
COPY a/one /file
COPY a/one /into/
COPY *.md /md/
COPY ["sp ace", "/q r/"]
COPY --chown=bob:wheel --chmod=640 a/one /owned
COPY --parents a/b/two /p/
COPY --exclude=b a /ex
WORKDIR /w
COPY a/one .
COPY a/b/ sub/
COPY <<one <<"two" /docs/
$HOME-${{UNSET:-d}}
one
$HOME
two
RUN find /a /file /into /md "/q r" /p /ex /w /docs -type f | sort; stat -c '%u:%g %a' /owned; cat /docs/*
"""
    text = build(engine, dockerfile, files).text
    listed = [line for line in text.splitlines() if line.startswith("/")]
    assert listed == [
        "/a/b/two", "/a/one", "/docs/one", "/docs/two", "/ex/one", "/file", "/into/one", "/md/x.md", "/md/y.md",
        "/p/a/b/two", "/q r/sp ace", "/w/one", "/w/sub/two",
    ]  # fmt: skip
    assert "1000:10 640" in text
    assert "-d\n$HOME\n" in text


def test_add_unpacks_archives_and_nothing_else(engine: Engine) -> None:
    inner = tar_of([directory("in"), member("in/f", b"data")])
    import bz2
    import gzip
    import lzma

    files: dict[str, bytes | str] = {
        "t.tar": inner, "t.gz": gzip.compress(inner), "t.bz2": bz2.compress(inner), "t.xz": lzma.compress(inner),
        "plain.gz": gzip.compress(b"only text"), "text": "t",
    }  # fmt: skip
    lines = "".join(f"ADD {name} /{name.replace('.', '-')}/\n" for name in files)
    text = build(
        engine, f"FROM {IMAGE}\n{lines}COPY t.tar /copied\nRUN find /t-* /plain-gz /text /copied -type f | sort", files
    ).text
    assert [line for line in text.splitlines() if line.startswith("/")] == [
        "/copied", "/plain-gz/plain.gz", "/t-bz2/in/f", "/t-gz/in/f", "/t-tar/in/f", "/t-xz/in/f", "/text/text",
    ]  # fmt: skip


def test_an_archive_cannot_leave_the_image(daemon: Daemon, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    evil = tar_of([member("link", kind=b"2", link=str(tmp_path)), member("link/victim", b"broken out")])
    built = build(daemon, f"FROM {IMAGE}\nADD evil.tar /\nRUN ls -l /link", {"evil.tar": evil})
    assert not victim.exists()
    assert built.id
    outside = tar_of([member("../../../../victim", b"x")])
    assert "outside of the destination" in refused(daemon, f"FROM {IMAGE}\nADD o.tar /", {"o.tar": outside})


def test_links_of_the_image_and_of_the_context_stay_inside(daemon: Daemon, tmp_path: Path) -> None:
    body = tar_of(
        [
            member("Dockerfile", f"FROM {IMAGE}\nRUN ln -s {tmp_path} /out; ln -s /real /to; mkdir /real\n"
                                 "COPY f /out/f\nCOPY f /to/\nRUN cat /real/f\n".encode()),
            member("f", b"content\n"),
        ]
    )  # fmt: skip
    assert "content" in build(daemon, body).text
    assert os.listdir(tmp_path) == []
    secret = tmp_path / "secret"
    secret.write_text("host file")
    body = tar_of(
        [member("Dockerfile", f"FROM {IMAGE}\nCOPY l /l\n".encode()), member("l", kind=b"2", link=str(secret))]
    )
    assert "file does not exist" in build(daemon, body).error
    body = tar_of(
        [member("Dockerfile", f"FROM {IMAGE}\nCOPY d /d\nRUN cat /d/l || echo nothing\n".encode()), directory("d"),
         member("d/l", kind=b"2", link=str(secret))]
    )  # fmt: skip
    assert "nothing" in build(daemon, body).text


def test_stages(engine: Engine) -> None:
    dockerfile = f"""ARG BASE={IMAGE}
FROM $BASE AS made
RUN echo made > /made
FROM $BASE AS broken
RUN exit 1
FROM made AS more
RUN echo more >> /made
FROM scratch AS files
COPY --from=more /made /bin/busybox /
FROM $BASE
COPY --from=files / /files/
COPY --from=0 /made /first
COPY --from={IMAGE} /etc/passwd /p
RUN cat /files/made /first; ls /files
"""
    built = build(engine, dockerfile)
    assert "made\nmore\nmade\nbusybox\nmade\n" in built.text
    assert "Step 1/12" in built.text and "exit 1" not in built.text
    only = build(engine, dockerfile, target="made")
    assert "Step 3/3" in only.text and only.cached == 1


def test_arguments_environment_and_history(engine: Engine) -> None:
    dockerfile = f"""FROM {IMAGE}
ARG A=1
ARG B
ENV C=${{A}}-$B
RUN echo "run $A $B $C $TARGETARCH:$HTTP_PROXY"
ARG TARGETARCH
RUN echo "arch $TARGETARCH"
"""
    arguments = json.dumps({"B": "b", "HTTP_PROXY": "http://p", "UNUSED": "x"})
    built = build(engine, dockerfile, buildargs=arguments, t="built:args")
    assert "run 1 b 1-b :http://p" in built.text
    assert "arch a" in built.text
    assert "[Warning] One or more build-args [UNUSED] were not consumed\n" in built.text
    shown = [step["CreatedBy"] for step in engine.get("/images/built:args/history").json()]
    assert "RUN |2 A=1 B=b /bin/sh -c echo" in shown[2]
    other = build(engine, dockerfile, buildargs=json.dumps({"B": "b", "HTTP_PROXY": "http://other"}))
    assert other.cached == 6  # a proxy is nothing that the cache knows


def test_configuration(engine: Engine) -> None:
    dockerfile = f"""FROM {IMAGE}
USER bob
WORKDIR /some/where
EXPOSE 80 90/udp
VOLUME /v
STOPSIGNAL SIGINT
HEALTHCHECK --interval=2s CMD true
ENTRYPOINT ["echo"]
CMD ["x"]
LABEL a=1
"""
    built = build(engine, dockerfile, labels='{"b": "2"}', t="built:config")
    config = engine.inspect_image(built.id)["Config"]
    assert (config["User"], config["WorkingDir"], config["Cmd"]) == ("bob", "/some/where", ["x"])
    assert set(config["ExposedPorts"]) == {"80/tcp", "90/udp"}
    assert config["Labels"] == {"a": "1", "b": "2"}
    assert config["Healthcheck"] == {"Test": ["CMD-SHELL", "true"], "Interval": 2_000_000_000}
    assert (config["StopSignal"], list(config["Volumes"])) == ("SIGINT", ["/v"])
    assert run(engine, "built:config") == "x\n"


def test_onbuild(engine: Engine) -> None:
    build(engine, f"FROM {IMAGE}\nONBUILD COPY f /f\nONBUILD RUN cat /f\n", t="built:onbuild")
    built = build(engine, "FROM built:onbuild\nRUN echo own\n", {"f": "from the trigger\n"})
    assert "from the trigger\n" in built.text
    assert engine.inspect_image(built.id)["Config"]["OnBuild"] is None


def test_run_mounts(engine: Engine) -> None:
    dockerfile = f"""FROM {IMAGE} AS other
RUN mkdir /d; echo other > /d/f; ln -s /d /link; ln -s ../../../../../d/f /file
FROM {IMAGE}
RUN --mount=type=cache,target=/cache,id=compat-cache echo x >> /cache/f
RUN --mount=type=cache,target=/cache,id=compat-cache wc -l < /cache/f
RUN --mount=target=/ctx cat /ctx/f; touch /ctx/x 2>/dev/null || echo read-only
RUN --mount=target=/ctx,rw touch /ctx/new && echo written
RUN --mount=from=other,source=/d,target=/m cat /m/f
RUN --mount=from=other,source=/link,target=/m echo link $(cat /m/f)
RUN --mount=from=other,source=file,target=/m echo file $(cat /m)
RUN --mount=type=tmpfs,target=/t touch /t/x
RUN --mount=type=secret,id=none ls /run/secrets 2>/dev/null || echo no secret
RUN ls -d /cache /ctx /m /t 2>/dev/null || echo nothing left
"""
    built = build(engine, dockerfile, {"f": "from the context\n"})
    for line in (
        "from the context",
        "read-only",
        "written",
        "other",
        "link other",
        "file other",
        "no secret",
        "nothing left",
    ):
        assert f"{line}\n" in built.text, built.text
    assert refused(engine, f"FROM {IMAGE}\nRUN --mount=type=secret,id=x,required=true true") == "secret x: not found"


def test_run_with_heredocs_and_other_shells(engine: Engine) -> None:
    dockerfile = f"""FROM {IMAGE}
ENV who=env
RUN <<EOF
set -e
echo "hello $who"
EOF
RUN cat <<EOF > /f && cat /f
file $who
EOF
RUN <<EOF
#!/bin/cat
printed by its interpreter
EOF
SHELL ["/bin/busybox", "sh", "-ec"]
RUN false; true
"""
    built = build(engine, dockerfile)
    assert "hello env\n" in built.text and "file env\n" in built.text and "printed by its interpreter\n" in built.text
    assert built.error == "The command '/bin/busybox sh -ec false; true' returned a non-zero code: 1"


def test_what_a_step_leaves_is_what_it_wrote(engine: Engine) -> None:
    built = build(
        engine,
        f"FROM {IMAGE}\nRUN true\nRUN rm /not-executable; mkdir -p /a/b; touch /a/b/c\nRUN rm -r /a/b\nWORKDIR /w",
        t="built:layers",
    )  # fmt: skip
    image = engine.inspect_image(built.id)
    assert len(image["RootFS"]["Layers"]) == 1 + 3  # `true` changes nothing
    saved = engine.get("/images/built:layers/get").body
    names: list[list[str]] = []
    with tarfile.open(fileobj=io.BytesIO(saved)) as archive:
        manifest = json.load(archive.extractfile("manifest.json") or io.BytesIO())[0]
        for layer in manifest["Layers"][1:]:
            with tarfile.open(fileobj=archive.extractfile(layer)) as inside:
                names.append([member.name for member in inside if member.name != "."])
    assert [sorted(name.removeprefix("./") for name in found) for found in names] == [
        [".wh.not-executable", "a", "a/b", "a/b/c"], ["a", "a/.wh.b"], ["w"]
    ]  # fmt: skip
    assert "not-executable" not in run(engine, "built:layers", "ls", "/")


def test_ignore_files(engine: Engine) -> None:
    files = {".dockerignore": "*.log\nout\n!out/keep\n", "a.log": "", "b": "", "out/x": "", "out/keep": ""}
    text = build(engine, f"FROM {IMAGE}\nCOPY . /c\nRUN find /c | sort", files).text
    assert [line for line in text.splitlines() if line.startswith("/c/")] == [
        "/c/.dockerignore", "/c/Dockerfile", "/c/b", "/c/out", "/c/out/keep"
    ]  # fmt: skip
    files["Dockerfile.dockerignore"] = "b\n"
    text = build(engine, f"FROM {IMAGE}\nCOPY . /d\nRUN ls /d/b || echo own file", files).text
    assert "own file" in text


# --- the cache -------------------------------------------------------------------------------------------------

CACHED = f"FROM {IMAGE}\nENV cache=1\nCOPY f /f\nRUN cat /f\nARG X\nRUN echo $X\n"


def test_the_cache_looks_at_content_and_mode_and_not_at_times(engine: Engine) -> None:
    def at(mtime: float, data: bytes = b"same", mode: int = 0o644) -> Built:
        members = [member("Dockerfile", CACHED.encode()), member("f", data, mtime=mtime, mode=mode)]
        return build(engine, tar_of(members))

    first = at(1_600_000_000)
    second = at(1_700_000_000)
    assert (second.cached, second.id) == (5, first.id)
    assert at(1_600_000_000, b"other").cached == 1
    assert at(1_600_000_000, mode=0o755).cached == 1
    assert at(1_650_000_000).cached == 5


def test_the_cache_and_arguments(engine: Engine) -> None:
    build(engine, CACHED, {"f": "args"}, buildargs='{"X": "1"}')
    assert build(engine, CACHED, {"f": "args"}, buildargs='{"X": "2"}').cached == 4
    assert build(engine, CACHED, {"f": "args"}, buildargs='{"X": "1"}').cached == 5
    fresh = build(engine, CACHED, {"f": "args"}, buildargs='{"X": "1"}', nocache="1")
    assert fresh.cached == 0


def test_builds_at_the_same_time_share_their_work(daemon: Daemon, tmp_path: Path) -> None:
    mark = tmp_path.name
    gate = f"--mount=type=cache,id={mark},target=/gate"
    body = context(
        f"FROM {IMAGE}\nRUN {gate} echo begun-{mark}; until test -e /gate/open; do sleep 0.1; done\nRUN true"
    )
    head = f"POST /build HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    with daemon.raw(60) as first:
        first.sendall(head + body)
        until(lambda: f"begun-{mark}".encode() in first.recv(65536))
        with ThreadPoolExecutor(3) as pool:
            others = [pool.submit(build, daemon, body) for _ in range(3)]
            until(lambda: len(scratch(daemon)) == 4)
            # The one that does the work for all goes away: another one does it.
            first.close()
            until(lambda: len(scratch(daemon)) == 3)
            mounts = Path(daemon.data_root, "build", "mounts")
            (note,) = [path for path in mounts.glob("*.json") if mark in path.read_text()]
            Path(str(note).removesuffix(".json"), "open").touch()
            found = [other.result() for other in others]
    assert len({one.id for one in found}) == 1
    assert sorted(one.cached for one in found) == [0, 2, 2]


def test_the_cache_outlives_the_image_and_the_daemon(own_daemon: Daemon) -> None:
    first = build(own_daemon, CACHED, {"f": "kept"})
    assert own_daemon.delete(f"/images/{first.id}", force="1").status == 200
    own_daemon.restart()
    again = build(own_daemon, CACHED, {"f": "kept"})
    assert (again.cached, again.id) == (5, first.id)
    rows = own_daemon.get("/v1.51/system/df").json()["BuildCache"]
    assert {"regular", "source.local"} == {row["Type"] for row in rows}
    assert any(row["Description"] == "RUN cat /f" and row["UsageCount"] == 1 for row in rows)
    own_daemon.delete(f"/images/{first.id}", force="1")
    pruned = own_daemon.post("/build/prune", all="1").json()
    assert len(pruned["CachesDeleted"]) == len(rows) and pruned["SpaceReclaimed"] > 0
    assert own_daemon.get("/v1.51/system/df").json()["BuildCache"] == []
    assert build(own_daemon, CACHED, {"f": "kept"}).cached == 0


def test_the_cache_has_a_limit(own_daemon: Daemon) -> None:
    own_daemon.end()
    Path(own_daemon.folder, "daemon.json").write_text('{"builder": {"gc": {"defaultKeepStorage": "3MB"}}}')
    own_daemon.launch()
    for number in range(4):
        built = build(own_daemon, f"FROM {IMAGE}\nRUN echo {number}; dd if=/dev/zero of=/f bs=1M count=1")
        own_daemon.delete(f"/images/{built.id}", force="1")
    build(own_daemon, f"FROM {IMAGE}\nRUN echo last")
    rows = own_daemon.get("/v1.51/system/df").json()["BuildCache"]
    assert sum(row["Size"] for row in rows) <= 3_200_000
    assert build(own_daemon, f"FROM {IMAGE}\nRUN echo 3; dd if=/dev/zero of=/f bs=1M count=1").cached == 1


def test_the_docker_command_prunes(own_daemon: Daemon) -> None:
    build(own_daemon, f"FROM {IMAGE}\nRUN echo prune > /me")
    assert "Total reclaimed space" in own_daemon.output("builder", "prune", "-f", "-a")
    assert own_daemon.get("/v1.51/system/df").json()["BuildCache"] == []


def test_cache_mounts_are_part_of_the_cache(own_daemon: Daemon) -> None:
    dockerfile = f"FROM {IMAGE}\nRUN --mount=type=cache,id=big,target=/c dd if=/dev/zero of=/c/f bs=1M count=2"
    build(own_daemon, dockerfile)
    rows = own_daemon.get("/v1.51/system/df").json()["BuildCache"]
    (row,) = [row for row in rows if row["Type"] == "exec.cachemount"]
    assert (row["Description"], row["Size"], row["InUse"]) == ("cached mount big", 2 << 20, False)
    pruned = own_daemon.post("/build/prune", all="1", filters='{"type": ["exec.cachemount"]}').json()
    assert pruned["CachesDeleted"] == [row["ID"]] and pruned["SpaceReclaimed"] >= 2 << 20
    assert os.listdir(os.path.join(own_daemon.data_root, "build", "mounts")) == []


# --- settings --------------------------------------------------------------------------------------------------


def test_limits_network_and_hosts(engine: Engine) -> None:
    dockerfile = f"FROM {IMAGE}\nRUN ulimit -n; grep magic /etc/hosts; df -k /dev/shm | tail -1; ls /sys/class/net"
    built = build(
        engine, dockerfile, ulimits='[{"Name": "nofile", "Soft": 99, "Hard": 99}]', extrahosts="magic:1.2.3.4",
        shmsize=str(8 << 20), networkmode="none", memory=str(64 << 20),
    )  # fmt: skip
    assert "99\n" in built.text and re.search(r"1\.2\.3\.4\s+magic", built.text)
    assert " 8192 " in built.text
    assert "lo\n" in built.text and "eth0" not in built.text


def test_every_step_has_its_network(engine: Engine) -> None:
    dockerfile = f"FROM {IMAGE}\nRUN ls /sys/class/net\nRUN --network=none echo alone $(ls /sys/class/net)"
    text = build(engine, dockerfile).text
    assert "eth0" in text and "alone lo\n" in text


def test_containers_that_are_to_stay(daemon: Daemon) -> None:
    built = build(daemon, f"FROM {IMAGE}\nRUN echo stays > /stays", rm="0", nocache="1")
    (container,) = daemon.get("/containers/json", all="1").json()
    assert container["Id"].startswith(re.findall(r"Running in (\w+)", built.text)[0])
    assert container["State"] == "exited" and "Removing intermediate" not in built.text
    assert daemon.docker("cp", f"{container['Id']}:/stays", "-").stdout.count("stays") == 3
    assert daemon.docker("start", "-a", container["Id"]).returncode == 0


def test_squash(engine: Engine) -> None:
    built = build(
        engine, f"FROM {IMAGE}\nRUN echo 1 > /a\nRUN rm /a; echo 2 > /b\nRUN rm -r /home", squash="1", t="built:sq"
    )
    assert len(engine.inspect_image(built.id)["RootFS"]["Layers"]) == 2
    listed = run(engine, "built:sq", "ls", "/").split()
    assert "b" in listed and "a" not in listed and "home" not in listed


def test_a_date_makes_images_equal_everywhere(daemon: Daemon, own_daemon: Daemon) -> None:
    dockerfile = (
        f"FROM {IMAGE}\nRUN date > /dev/null; mkdir -p /d/e; touch /d/f; ln -s f /d/l; chown -h 1:2 /d/l\nWORKDIR /w\n"
        "COPY f /new/f\nADD a.tar /a/\nCOPY <<x /x\nhere\nx\nRUN rm /d/f; echo x >> /etc/passwd\nCMD x\n"
    )
    files: dict[str, bytes | str] = {"f": "x", "a.tar": tar_of([member("in/f", b"y", mtime=1_900_000_000)])}
    arguments = json.dumps({"SOURCE_DATE_EPOCH": "1600000000"})
    made = [
        build(place, dockerfile, files, nocache="1", buildargs=arguments).id for place in (daemon, daemon, own_daemon)
    ]
    assert len(set(made)) == 1
    image = daemon.inspect_image(made[0])
    assert image["Created"] == "2020-09-13T12:26:40Z"
    assert {step["Created"] for step in daemon.get(f"/images/{made[0]}/history").json()[:-1]} == {1_600_000_000}


@pytest.fixture
def web(daemon: Daemon, tmp_path: Path) -> Iterator[str]:
    """The address of an HTTP server that the daemon reaches, serving `tmp_path`."""
    port = free_port()
    command = [
        "nsenter", f"--net=/proc/{daemon.space.pid}/ns/net",
        sys.executable, "-m", "http.server", "--bind", "127.0.0.1", "-d", str(tmp_path), str(port),
    ]  # fmt: skip
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}"
    try:
        until(lambda: not build(daemon, f"FROM {IMAGE}\nADD {address}/ /x").error)
        yield address
    finally:
        server.terminate()
        server.wait()


def test_files_and_contexts_from_urls(daemon: Daemon, web: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("from the net\n")
    digest = hashlib.sha256(b"from the net\n").hexdigest()
    dockerfile = f"FROM {IMAGE}\nADD --checksum=sha256:{digest} {web}/file /one\nADD --chmod=755 {web}/file /d/\n"
    built = build(daemon, dockerfile + "RUN cat /one /d/file; stat -c %a /one /d/file")
    assert "from the net\nfrom the net\n600\n755\n" in built.text
    assert build(daemon, dockerfile).cached == 2
    (tmp_path / "file").write_text("changed\n")
    changed = hashlib.sha256(b"changed\n").hexdigest()
    assert f"digest mismatch sha256:{changed}" in build(daemon, dockerfile).error
    assert "with status 404" in refused(daemon, f"FROM {IMAGE}\nADD {web}/none /")
    (tmp_path / "c.tar").write_bytes(context(f"FROM {IMAGE}\nCOPY f /f\nRUN cat /f", {"f": "in an archive\n"}))
    assert "in an archive\n" in build(daemon, b"", remote=f"{web}/c.tar").text
    (tmp_path / "Dockerfile").write_text(f"FROM {IMAGE}\nRUN echo only a Dockerfile")
    assert "only a Dockerfile\n" in build(daemon, b"", remote=f"{web}/Dockerfile").text


def test_repositories(daemon: Daemon, web: str, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "sub").mkdir(parents=True)
    (tree / "sub" / "Dockerfile").write_text(f"FROM {IMAGE}\nCOPY f /f\nRUN cat /f; ls -a")
    (tree / "sub" / "f").write_text("in a repository\n")
    git = ["git", "-c", "user.name=x", "-c", "user.email=x@x", "-C", str(tree)]
    for words in (["init", "-q", "-b", "main"], ["add", "."], ["commit", "-qm", "x"], ["branch", "side"]):
        subprocess.run([*git, *words], check=True)
    subprocess.run(["git", "clone", "-q", "--bare", str(tree), str(tmp_path / "r.git")], check=True)
    subprocess.run(["git", "-C", str(tmp_path / "r.git"), "update-server-info"], check=True)
    for ref in ("", "main", "side"):
        assert "in a repository\n" in build(daemon, b"", remote=f"{web}/r.git#{ref}:sub", nocache="1").text
    assert "outside of the repository" in refused(daemon, "", remote=f"{web}/r.git#main:../..")
    assert "failed to fetch repository" in refused(daemon, "", remote=f"{web}/r.git#nope")
    text = build(daemon, f"FROM {IMAGE}\nADD {web}/r.git /r\nRUN find /r -type f | sort").text
    assert [line for line in text.splitlines() if line.startswith("/r/")] == ["/r/sub/Dockerfile", "/r/sub/f"]


def test_remote_contexts(engine: Engine) -> None:
    assert "could not be recognized as URL" in refused(engine, "", remote="nonsense")
    assert refused(engine, "", remote="http://127.0.0.1:1/x").startswith("cannot download")


# --- bad input -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dockerfile", "query", "message"),
    [
        ("FROMM x", {}, "dockerfile parse error on line 1: unknown instruction: FROMM (did you mean FROM?)"),
        ("RUN x", {}, "dockerfile parse error on line 1: no build stage in current context"),
        ("", {}, "the Dockerfile (Dockerfile) cannot be empty"),
        ("FROM $X", {}, "base name ($X) should not be blank"),
        ("FROM a AS x\nCOPY --from=y / /\nFROM x AS y", {}, "circular dependency detected on stage: y"),
        ("FROM scratch", {}, "No image was generated. Is your Dockerfile empty?"),
        (f"FROM {IMAGE}", {"target": "no"}, 'target stage "no" could not be found'),
        (f"FROM {IMAGE}", {"dockerfile": "no"}, "Cannot locate specified Dockerfile: no"),
        (f"FROM {IMAGE}", {"dockerfile": "../no"}, "forbidden path outside the build context: ../no ()"),
        (f"FROM {IMAGE}\nADD ../x /", {}, "ADD failed: forbidden path outside the build context: ../x ()"),
        (f"FROM {IMAGE}\nCOPY no /", {}, "COPY failed: file not found in build context or excluded by .dockerignore: "
         "stat no: file does not exist"),
        (f"FROM {IMAGE}\nCOPY no* /", {}, "COPY failed: file not found in build context or excluded by .dockerignore: "
         "stat no*: file does not exist"),
        (f"FROM {IMAGE}\nCOPY --chown=nobodyelse f /", {}, "COPY failed: unable to convert uid/gid chown string to "
         "host mapping: can't find uid for user nobodyelse: no such user: nobodyelse"),
        (f"FROM {IMAGE}\nCOPY f /bin/busybox/x", {}, 'COPY failed: cannot unpack "bin/busybox/x": Not a directory'),
        (f"FROM {IMAGE}\nENV a=${{b:?why}}", {}, 'failed to process "${b:?why}": b: why'),
        (f"FROM {IMAGE}\nRUN --security=insecure true", {}, "granting entitlement security.insecure is not allowed by "
         "build: use --allow=security.insecure"),
        (f"FROM {IMAGE}\nRUN exit 9", {}, "The command '/bin/sh -c exit 9' returned a non-zero code: 9"),
        (f"FROM {IMAGE}\nRUN echo far", {"networkmode": "nowhere"}, "network nowhere not found"),
        (f"FROM {IMAGE}", {"version": "2"}, "BuildKit's protocol is not supported by this daemon: set "
         "DOCKER_BUILDKIT=0"),
        (f"FROM {IMAGE}", {"memory": "5"}, "Minimum memory limit allowed is 6MB"),
        (f"FROM {IMAGE}\nRUN a\0b", {}, "Dockerfile is not text: it contains null bytes"),
    ],
)  # fmt: skip
def test_refusals(daemon: Daemon, dockerfile: str, query: dict[str, str], message: str) -> None:
    assert refused(daemon, dockerfile, {"f": "x"}, **query).split("\n")[0] == message
    assert scratch(daemon) == []


def test_a_context_that_is_no_archive(daemon: Daemon) -> None:
    reply = daemon.request("POST", "/build", b"x" * 5000, {"Content-Type": "application/x-tar"})
    assert (reply.status, reply.message) == (400, "cannot read tar archive: invalid tar header")
    cut = context(f"FROM {IMAGE}", {"f": "y" * 5000})[:3000]
    reply = daemon.request("POST", "/build", cut, {"Content-Type": "application/x-tar"})
    assert (reply.status, reply.message) == (400, "cannot read tar archive: unexpected EOF")


@pytest.mark.parametrize("target", ["/build", "/build?q=1", "/corral/build"])
def test_a_client_that_goes_away(daemon: Daemon, target: str) -> None:
    dockerfile = f"FROM {IMAGE}\nRUN echo started; sleep 1000\n"
    native = target == "/corral/build"
    body = json.dumps({"dockerfile": dockerfile}).encode() if native else context(dockerfile)
    with daemon.raw() as connection:
        head = f"POST {target} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body)
        until(lambda: len(daemon.exec_files()) == 1)
    until(lambda: daemon.exec_files() == [] and scratch(daemon) == [])


def test_a_daemon_that_dies(own_daemon: Daemon) -> None:
    body = context(f"FROM {IMAGE}\nRUN echo done > /first\nRUN echo started; sleep 1000\n")
    with own_daemon.raw() as connection:
        connection.sendall(f"POST /build HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        until(lambda: b"started" in connection.recv(65536))
        own_daemon.restart()
    assert own_daemon.exec_files() == []
    assert own_daemon.cgroups() == []
    assert scratch(own_daemon) == []
    assert own_daemon.get("/containers/json", all="1").json() == []
