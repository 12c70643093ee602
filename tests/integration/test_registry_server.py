"""The registry as processes: kills, several workers, logins, TLS, caches, collection while it serves."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import signal
import ssl
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import bcrypt
import pytest

from tests.support import registry as debian
from tests.support.corral_registry import Served, command, environment, served
from tests.support.desk import image, sha256
from tests.support.wait import until

MANIFEST = "application/vnd.oci.image.manifest.v1+json"


@pytest.fixture
def folder() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="corral-registry-"))
    yield path
    shutil.rmtree(path)


def push_image(server: Served, name: str, tag: str, content: bytes) -> str:
    server.push_blob(name, b"{}", sha256(b"{}"))
    server.push_blob(name, content, sha256(content))
    return server.push_manifest(name, tag, image(content))


def check_store(root: str) -> None:
    """Every blob is what its name says, every manifest's content is there."""
    for algorithm in ("sha256", "sha512"):
        folder = os.path.join(root, "blobs", algorithm)
        for name in os.listdir(folder):
            data = Path(folder, name).read_bytes()
            assert hashlib.new(algorithm, data).hexdigest() == name
    for path, folders, links in os.walk(os.path.join(root, "repositories")):
        if path.endswith("/_tags"):
            for tag in [*links, *folders]:
                if not tag.startswith("."):
                    value = os.readlink(os.path.join(path, tag)).partition(":")[2]
                    manifest = json.loads(Path(root, "blobs", "sha256", value).read_bytes())
                    for descriptor in [manifest["config"], *manifest["layers"]]:
                        assert os.path.exists(os.path.join(root, "blobs", descriptor["digest"].replace(":", "/")))


# -- processes --------------------------------------------------------------------------------------


def test_killed_again_and_again_nothing_acknowledged_is_lost(folder: Path) -> None:
    root = str(folder / "root")
    acknowledged: dict[str, str] = {}
    for turn in range(6):
        with served(folder, "--access-log", "off", root=root) as server:
            for tag, digest in acknowledged.items():
                status, headers, _ = server.request("HEAD", f"/v2/a/manifests/{tag}")
                assert (status, headers["Docker-Content-Digest"]) == (200, digest)
            stop = threading.Event()

            def pushes(number: int, server: Served = server, stop: threading.Event = stop, turn: int = turn) -> None:
                count = 0
                while not stop.is_set():
                    tag = f"t{turn}-{number}-{count}"
                    try:
                        digest = push_image(server, "a", tag, tag.encode() * 10_000)
                    except OSError:
                        return  # the registry was killed
                    acknowledged[tag] = digest
                    count += 1

            enough = len(acknowledged) + 5 + turn
            with ThreadPoolExecutor(4) as pool:
                for number in range(4):
                    pool.submit(pushes, number)
                until(lambda enough=enough: len(acknowledged) >= enough, 60)
                children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text().split()
                server.stop(signal.SIGKILL)
                if turn % 2:
                    for pid in children:
                        try:
                            os.kill(int(pid), signal.SIGKILL)
                        except ProcessLookupError:
                            pass
                stop.set()
            # Workers end with the process that watches them, so that the address is free again.
            until(lambda children=children: not any(os.path.exists(f"/proc/{pid}") for pid in children), 60)
        check_store(root)
    assert len(acknowledged) > 30


def test_a_dead_worker_is_replaced(folder: Path) -> None:
    with served(folder, "--workers", "1") as server:
        path = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children")
        first = path.read_text().split()
        os.kill(int(first[0]), signal.SIGKILL)
        until(lambda: first[0] not in path.read_text().split() and set(path.read_text().split()) - set(first), 30)
        assert server.request("GET", "/v2/")[0] == 200


def test_many_push_the_same_and_different_things_at_once(folder: Path) -> None:
    with served(folder, "--workers", "3", "--access-log", "off") as server:

        def push(number: int) -> None:
            push_image(server, f"r{number % 3}", f"t{number % 5}", b"%d" % (number % 4) * 300_000)

        with ThreadPoolExecutor(16) as pool:
            list(pool.map(push, range(120)))
        tags = json.loads(server.request("GET", "/v2/r1/tags/list")[2])["tags"]
        assert tags == ["t0", "t1", "t2", "t3", "t4"]
        check_store(server.root)
        text = server.request("GET", "/metrics")[2].decode()
        assert 'corral_registry_requests_total{operation="manifests",method="PUT",status="201"} 120\n' in text


def test_an_upload_may_change_workers(folder: Path) -> None:
    with served(folder, "--workers", "4") as server:
        location = server.request("POST", "/v2/a/blobs/uploads/")[1]["Location"]
        data = os.urandom(300_000)
        for start in range(0, len(data), 30_000):
            part = data[start : start + 30_000]
            headers = {"Content-Range": f"{start}-{start + len(part) - 1}"}
            assert server.request("PATCH", location, part, headers)[0] == 202
        assert server.request("PUT", f"{location}?digest={sha256(data)}")[0] == 201


def test_two_servers_share_a_root(folder: Path) -> None:
    root = str(folder / "root")
    with served(folder, root=root) as one, served(folder, "--read-only", root=root) as two:
        digest = push_image(one, "a", "x", b"content")
        assert two.request("GET", "/v2/a/manifests/x")[1]["Docker-Content-Digest"] == digest
        assert two.request("DELETE", f"/v2/a/manifests/{digest}")[0] == 405
        one.request("DELETE", f"/v2/a/manifests/{digest}")
        assert two.request("GET", "/v2/a/manifests/x")[0] == 404


def test_ends_in_order_with_a_request_running(folder: Path) -> None:
    with served(folder, "--workers", "1") as server:
        location = server.request("POST", "/v2/a/blobs/uploads/")[1]["Location"]
        import http.client

        connection = http.client.HTTPConnection(server.address, timeout=60)
        connection.putrequest("PATCH", location)
        connection.putheader("Content-Length", "10")
        connection.endheaders()
        connection.send(b"01234")
        upload = Path(server.root, "repositories/a/_uploads", location.rpartition("/")[2])
        until(lambda: upload.stat().st_size == 5)
        server.process.terminate()
        connection.send(b"56789")
        assert connection.getresponse().status == 202
        connection.close()
        assert server.process.wait(60) == 0


def test_serves_as_anybody(folder: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("runs as root to become nobody; without root every test is this test")
    folder.chmod(0o755)
    root = folder / "mine"
    root.mkdir()
    os.chown(root, 65534, 65534)
    address = f"127.0.0.1:{debian.free_port()}"
    words = command("serve", "--root", str(root), "--listen", address)
    process = subprocess.Popen(words, env=environment(), user=65534, group=65534, extra_groups=[], stderr=-3)
    try:
        debian.wait_for_port(address, 60)
        server = Served(process, address, str(root), folder)
        push_image(server, "a", "x", b"content")
    finally:
        process.terminate()
        assert process.wait(60) == 0


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ([], "no root: say where the registry keeps its files"),
        (["--root", "/proc/nothing"], "cannot use /proc/nothing: "),
        (["--root", "{foreign}"], "it is not empty and not a registry's root (there is 'somebody')"),
        (["--root", "{root}", "--listen", "{taken}"], "cannot listen at {taken}: Address already in use"),
        (["--root", "{root}", "--listen", "nonsense"], "cannot listen at 'nonsense': not HOST:PORT"),
        (["--root", "{root}", "--config", "/nonexistent"], "cannot read /nonexistent: No such file"),
        (["--root", "{root}", "--config", "{config}"], "Object contains unknown field `rootz`"),
        (["--root", "{root}", "--htpasswd", "/nonexistent"], "cannot read /nonexistent: No such file"),
        (["--root", "{root}", "--tlscert", "/x", "--tlskey", "/x"], "cannot use the TLS certificate, key"),
        (["--root", "{root}", "--upstream", "ftp://x"], "upstream.url must be http"),
    ],
)
def test_says_what_is_wrong(folder: Path, flags: list[str], says: str) -> None:
    (folder / "foreign").mkdir()
    (folder / "foreign" / "somebody").write_text("else")
    (folder / "config").write_text('{"rootz": "/x"}')
    with served(folder) as other:
        places = {name: str(folder / name) for name in ("foreign", "root", "config")} | {"taken": other.address}
        words = command("serve", *(flag.format(**places) for flag in flags))
        run = subprocess.run(words, env=environment(), capture_output=True, text=True, check=False, timeout=60)
    assert run.returncode == 1
    assert says.format(**places) in run.stderr and "Traceback" not in run.stderr


# -- logins -----------------------------------------------------------------------------------------


def htpasswd(folder: Path) -> str:
    path = folder / "htpasswd"
    lines = [f"{user}:{bcrypt.hashpw(f'{user}-pass'.encode(), bcrypt.gensalt(4)).decode()}" for user in ("ann", "bob")]
    path.write_text("# users\n" + "\n".join(lines) + "\n")
    return str(path)


def basic(user: str, password: str = "") -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password or user + '-pass'}".encode()).decode()}


RIGHTS = [
    {"users": ["ann"], "actions": ["pull", "push", "delete", "catalog"]},
    {"users": ["*"], "repositories": ["team/**"], "actions": ["pull", "push"]},
    {"users": ["anonymous"], "repositories": ["public/*"], "actions": ["pull"]},
]


def test_passwords_and_rights(folder: Path) -> None:
    with served(folder, auth={"htpasswd": htpasswd(folder)}, rights=RIGHTS) as server:
        status, headers, _ = server.request("GET", "/v2/")
        assert (status, headers["WWW-Authenticate"]) == (401, 'Basic realm="corral-registry"')
        assert server.request("GET", "/v2/", headers=basic("ann"))[0] == 200
        for bad in (basic("ann", "wrong"), basic("eve"), {"Authorization": "Basic ?"}, basic("ann", "x" * 100)):
            assert server.request("GET", "/v2/", headers=bad)[0] == 401

        def begin(name: str, headers: dict[str, str]) -> int:
            return server.request("POST", f"/v2/{name}/blobs/uploads/", headers=headers)[0]

        assert [begin("team/x", headers) for headers in (basic("ann"), basic("bob"), {})] == [202, 202, 401]
        assert [begin("public/x", headers) for headers in (basic("ann"), basic("bob"), {})] == [202, 403, 401]
        server.headers = basic("ann")
        digest = push_image(server, "public/x", "v", b"content")
        server.headers = {}
        assert server.request("GET", "/v2/public/x/manifests/v")[0] == 200
        assert server.request("GET", "/v2/team/x/manifests/v")[0] == 401
        assert server.request("DELETE", f"/v2/public/x/manifests/{digest}", headers=basic("bob"))[0] == 403
        assert server.request("GET", "/v2/_catalog", headers=basic("bob"))[0] == 403
        assert server.request("GET", "/v2/_catalog", headers=basic("ann"))[0] == 200
        assert server.request("GET", "/metrics")[0] == 401
        # A mount from where one may not pull is an ordinary upload, so that it tells nothing.
        mount = f"/v2/team/y/blobs/uploads/?mount={sha256(b'content')}&from=secret/x"
        assert server.request("POST", mount, headers=basic("bob"))[0] == 202
        users = {json.loads(line)["user"] for line in server.log.read_text().splitlines() if line.startswith("{")}
        assert users == {"", "ann", "bob"}


def test_tokens_of_our_own(folder: Path) -> None:
    with served(folder, auth={"htpasswd": htpasswd(folder), "scheme": "token"}, rights=RIGHTS) as server:
        status, headers, _ = server.request("POST", "/v2/team/x/blobs/uploads/")
        expected = f'Bearer realm="http://{server.address}/token",service="corral-registry"'
        assert headers["WWW-Authenticate"] == expected + ',scope="repository:team/x:pull,push"'

        def token(scope: str, headers: dict[str, str]) -> dict[str, str]:
            status, _, body = server.request("GET", f"/token?service=corral-registry&scope={scope}", headers=headers)
            assert status == 200
            return {"Authorization": f"Bearer {json.loads(body)['token']}"}

        assert server.request("GET", "/token", headers=basic("ann", "no"))[0] == 401
        bob = token("repository:team/x:pull,push", basic("bob"))
        assert server.request("GET", "/v2/", headers=bob)[0] == 200
        assert server.request("POST", "/v2/team/x/blobs/uploads/", headers=bob)[0] == 202
        status, headers, _ = server.request("POST", "/v2/team/y/blobs/uploads/", headers=bob)
        assert status == 401 and 'error="insufficient_scope"' in headers["WWW-Authenticate"]
        more = token("repository:public/x:pull,push,delete", basic("bob"))
        assert server.request("POST", "/v2/public/x/blobs/uploads/", headers=more)[0] == 401
        anonymous = token("repository:public/x:pull", {})
        assert server.request("GET", "/v2/public/x/manifests/v", headers=anonymous)[0] == 404
        forged = {"Authorization": bob["Authorization"][:-4] + "AAAA"}
        assert server.request("GET", "/v2/", headers=forged)[0] == 401
        form = b"grant_type=password&username=ann&password=ann-pass&scope=registry:catalog:*"
        ann = json.loads(server.request("POST", "/token", form)[2])["access_token"]
        assert server.request("GET", "/v2/_catalog", headers={"Authorization": f"Bearer {ann}"})[0] == 200


def test_tokens_of_another_server(folder: Path) -> None:
    import jwt

    subprocess.run(
        ["openssl", "ecparam", "-genkey", "-name", "prime256v1", "-noout", "-out", str(folder / "key")], check=True
    )
    subprocess.run(["openssl", "ec", "-in", folder / "key", "-pubout", "-out", folder / "pub"], check=True, stderr=-3)
    keys = {"realm": "https://tokens", "service": "here", "issuer": "them", "keys": [str(folder / "pub")]}
    with served(folder, auth={"token": keys}) as server:
        assert 'realm="https://tokens"' in server.request("GET", "/v2/")[1]["WWW-Authenticate"]
        access = [{"type": "repository", "name": "a", "actions": ["push", "pull"]}]
        fields = {"iss": "them", "aud": "here", "sub": "x", "exp": int(time.time()) + 60, "access": access}
        key = (folder / "key").read_text()

        def begin(algorithm: str = "ES256", secret: str = key, **more: object) -> int:
            token = jwt.encode({**fields, **more}, secret, algorithm=algorithm)
            headers = {"Authorization": f"Bearer {token}"}
            return server.request("POST", "/v2/a/blobs/uploads/", headers=headers)[0]

        assert begin() == 202
        assert begin(iss="me") == begin(aud="there") == begin(exp=1) == begin(access=[]) == 401
        assert begin("HS256", "0" * 64) == begin("none", "") == 401
        assert begin(access="x") == begin(access=[{"type": "repository", "name": "a", "actions": "push"}]) == 401


def test_tls_and_client_certificates(folder: Path) -> None:
    for name in ("server", "client"):
        subprocess.run(
            f"openssl req -x509 -newkey rsa:2048 -nodes -keyout {folder}/{name}.key -out {folder}/{name}.crt -days 2 "
            "-subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1".split(),
            check=True,
            stderr=-3,
        )
    certificate = ["--tlscert", f"{folder}/server.crt", "--tlskey", f"{folder}/server.key"]
    context = ssl.create_default_context(cafile=f"{folder}/server.crt")
    content = os.urandom(3_000_000)
    with served(folder, *certificate) as server:
        server.tls = context
        push_image(server, "a", "x", content)
        assert server.request("GET", f"/v2/a/blobs/{sha256(content)}")[2] == content
        server.tls = None
        status, _, body = server.request("GET", "/v2/")
        assert (status, body) == (400, b"Client sent an HTTP request to an HTTPS server.\n")
    with served(folder, *certificate, "--tlscacert", f"{folder}/client.crt") as server:
        server.tls = context
        with pytest.raises((ssl.SSLError, ConnectionError)):
            server.request("GET", "/v2/")
        context.load_cert_chain(f"{folder}/client.crt", f"{folder}/client.key")
        assert server.request("GET", "/v2/")[0] == 200


# -- a cache of another registry ---------------------------------------------------------------------


@pytest.mark.skipif(debian.PROGRAM is None, reason="needs docker-registry")
def test_a_cache_of_another_registry(folder: Path) -> None:
    content = os.urandom(20 << 20)
    with debian.registry() as upstream:
        for data in (b"{}", content):
            debian.push_blob(upstream, "team/app", sha256(data), data)
        manifest = json.dumps(image(content)).encode()
        digest = debian.push(upstream, "team/app", "v1", MANIFEST, manifest)
        keys = {"upstream": {"url": f"http://{upstream}", "tag-ttl": "0s"}}
        with served(folder, "--workers", "3", **keys) as server:
            status, headers, body = server.request("GET", "/v2/team/app/manifests/v1")
            assert (status, headers["Docker-Content-Digest"], body) == (200, digest, manifest)
            blob = f"/v2/team/app/blobs/{sha256(content)}"
            assert server.request("HEAD", blob)[1]["Content-Length"] == str(len(content))
            with ThreadPoolExecutor(8) as pool:
                answers = list(pool.map(lambda _: server.request("GET", blob), range(8)))
            assert all((status, body) == (200, content) for status, _, body in answers)
            link = Path(server.root, "repositories/team/app/_blobs", sha256(content).replace(":", "/"))
            until(link.exists)  # the answers were whole a moment before the blob was ours
            metrics = server.request("GET", "/metrics")[2].decode()
            assert "corral_registry_upstream_fetches_total 1\n" in metrics
            assert f"corral_registry_upstream_bytes_total {len(content)}\n" in metrics
            assert server.request("GET", blob, headers={"Range": "bytes=-5"})[2] == content[-5:]
            assert server.request("GET", "/v2/team/app/manifests/none")[0] == 404
            assert server.request("GET", f"/v2/team/app/blobs/{sha256(b'no')}")[0] == 404
            assert server.request("POST", "/v2/team/app/blobs/uploads/")[0] == 405
            debian.push(upstream, "team/app", "v9", MANIFEST, manifest)
            assert json.loads(server.request("GET", "/v2/team/app/tags/list")[2])["tags"] == ["v1", "v9"]
            # A tag moves upstream, and follows here when its time is over.
            newer = json.dumps({**image(content), "annotations": {"newer": "yes"}}).encode()
            debian.push(upstream, "team/app", "v1", MANIFEST, newer)
            assert server.request("GET", "/v2/team/app/manifests/v1")[2] == newer
            root = server.root
    with served(folder, root=root, **keys) as server:  # upstream is away: what is here is served
        assert server.request("GET", "/v2/team/app/manifests/v1")[2] == newer
        assert server.request("GET", blob)[2] == content
        assert server.request("GET", "/v2/team/app/manifests/v2")[0] == 503
        assert json.loads(server.request("GET", "/v2/team/app/tags/list")[2])["tags"] == ["v1"]


# -- collection --------------------------------------------------------------------------------------


def collect(root: str, *flags: str) -> str:
    words = command("gc", "--root", root, *flags)
    run = subprocess.run(words, env=environment(), capture_output=True, text=True, check=True, timeout=120)
    return run.stdout


def test_collects_only_where_a_registry_is(folder: Path) -> None:
    words = command("gc", "--root", str(folder / "typo"))
    run = subprocess.run(words, env=environment(), capture_output=True, text=True, check=False, timeout=60)
    assert (run.returncode, run.stderr) == (1, f"corral registry: cannot use {folder}/typo: there is no registry\n")
    assert not (folder / "typo").exists()


def test_collects_while_others_push(folder: Path) -> None:
    with served(folder, "--access-log", "off") as server:
        gone = push_image(server, "a", "gone", b"gone" * 1000)
        push_image(server, "a", "kept", b"kept" * 1000)
        server.request("DELETE", f"/v2/a/manifests/{gone}")
        assert collect(server.root).endswith("removed 0 tags, 0 manifests, 0 links, 0 uploads, 0 blobs (0 bytes)\n")
        shown = collect(server.root, "--grace", "0s", "--dry-run")
        assert f"would remove blob {sha256(b'gone' * 1000)}" in shown
        assert server.request("GET", f"/v2/a/blobs/{sha256(b'gone' * 1000)}")[0] == 200
        stop = threading.Event()
        failures: list[str] = []

        def pushes(number: int) -> None:
            count = 0
            while not stop.is_set():
                content = b"%d-%d" % (number, count % 7) * 2000
                try:
                    push_image(server, f"r{number}", f"t{count}", content)
                except AssertionError as error:
                    failures.append(str(error))
                count += 1

        with ThreadPoolExecutor(3) as pool:
            for number in range(3):
                pool.submit(pushes, number)
            for _ in range(5):
                collect(server.root, "--grace", "20s")
            stop.set()
        assert failures == []
        check_store(server.root)
        text = collect(server.root, "--grace", "0s")
        assert f"removed blob {sha256(b'gone' * 1000)}" in text
        assert server.request("GET", f"/v2/a/blobs/{sha256(b'gone' * 1000)}")[0] == 404
        assert server.request("GET", f"/v2/a/blobs/{sha256(b'kept' * 1000)}")[0] == 200
        check_store(server.root)


def test_collects_by_itself_with_retention(folder: Path) -> None:
    rules = [{"repositories": ["ci/**"], "tags": ["build-*"], "keep-last": 2, "remove-untagged": "0s"}]
    root = str(folder / "root")
    with served(folder, root=root) as server:
        for number in range(5):
            push_image(server, "ci/app", f"build-{number}", b"%d" % number * 100)
        push_image(server, "ci/app", "release", b"release")
        push_image(server, "other", "build-1", b"other")
    keys = {"retention": rules, "collection": {"grace": "0s", "interval": "1h"}}
    with served(folder, root=root, **keys) as server:

        def tags() -> list[str]:
            found: list[str] = json.loads(server.request("GET", "/v2/ci/app/tags/list")[2])["tags"]
            return found

        until(lambda: "corral_registry_collections_total 1\n" in server.request("GET", "/metrics")[2].decode(), 30)
        assert tags() == ["build-3", "build-4", "release"]
        assert server.request("GET", f"/v2/ci/app/blobs/{sha256(b'0' * 100)}")[0] == 404
        assert server.request("GET", f"/v2/ci/app/blobs/{sha256(b'4' * 100)}")[0] == 200
        assert server.request("GET", "/v2/other/manifests/build-1")[0] == 200
        metrics = server.request("GET", "/metrics")[2].decode()
        assert "corral_registry_retired_tags_total 3\n" in metrics
    check_store(root)
