"""Parameters of requests that no other test is about."""

from __future__ import annotations

import io
import tarfile

from tests.support.daemon import IMAGE, Daemon, Engine


def test_a_container_for_another_platform(daemon: Daemon) -> None:
    reply = daemon.post("/containers/create", {"Image": IMAGE, "Cmd": ["true"]}, platform="linux/s390x")
    assert reply.status == 404
    assert daemon.post("/containers/create", {"Image": IMAGE}, platform="not/a/plat/form").status in (400, 404)


def test_sizes(engine: Engine) -> None:
    container = engine.start("sh", "-c", "head -c 100000 /dev/zero > /grown")
    engine.wait(container)
    assert "SizeRw" not in engine.inspect(container)
    sized = engine.get(f"/containers/{container}/json", size="1").json()
    assert sized["SizeRw"] >= 100_000
    assert sized["SizeRootFs"] > sized["SizeRw"]


def test_disk_usage(engine: Engine) -> None:
    container = engine.create("true")
    only = engine.get("/system/df", type="container", verbose="1").json()
    assert only.get("ImageUsage") is None
    assert container in [entry["Id"] for entry in only["ContainerUsage"]["Items"]]
    assert not engine.get("/system/df", type="container").json()["ContainerUsage"].get("Items")
    assert engine.get("/system/df", type="weather").status == 400


def test_removing_what_is_not_there(engine: Engine) -> None:
    assert engine.delete("/volumes/nobody").status == 404
    assert engine.delete("/volumes/nobody", force="1").status == 204


def test_a_folder_is_not_replaced_by_a_file(engine: Engine) -> None:
    container = engine.create("true")
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("home"))
    headers = {"Content-Type": "application/x-tar"}
    path = f"/containers/{container}/archive"
    kept = engine.request("PUT", path, data.getvalue(), headers, path="/", noOverwriteDirNonDir="1")
    assert kept.status in (400, 500)
    assert "directory" in kept.message


def test_endpoints(daemon: Daemon) -> None:
    mac, address = "02:42:ac:77:00:05", "10.78.0.5"
    daemon.output("network", "create", "--subnet", "10.78.0.0/24", "chosen")
    daemon.output("network", "create", "plain")
    try:
        flags = ("--network", f"name=chosen,ip={address},mac-address={mac},gw-priority=5", "--network", "plain")
        found = daemon.output("run", "-d", "--name", "settled", *flags, IMAGE, "sleep", "60")
        shown = daemon.output("exec", found, "ip", "address")
        assert mac in shown
        assert address in shown
        assert "default via 10.78.0.1 " in daemon.output("exec", found, "ip", "route")
        linked = (
            "run",
            "--rm",
            "--network",
            "chosen",
            "--link",
            "settled:db",
            IMAGE,
            "ping",
            "-c",
            "1",
            "-W",
            "2",
            "db",
        )
        assert address in daemon.output(*linked)
    finally:
        daemon.remove_all()
        daemon.output("network", "rm", "chosen", "plain")
