"""Ports, mounts, networks, devices and limits: what the daemon gets for what was written."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.cli import limits, mounts, networks, networkspec, portspecs
from corral.cli.runbody import environment, restart_policy, security_options


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("80", [("80/tcp", "", "")]),
        ("8080:80/UDP", [("80/udp", "", "8080")]),
        ("127.0.0.1:8080:80", [("80/tcp", "127.0.0.1", "8080")]),
        ("127.0.0.1::80", [("80/tcp", "127.0.0.1", "")]),
        ("[::1]:8080:80", [("80/tcp", "::1", "8080")]),
        ("::1:8080:80", [("80/tcp", "::1", "8080")]),
        ("8080-8081:80-81", [("80/tcp", "", "8080"), ("81/tcp", "", "8081")]),
        ("8080-8090:80", [("80/tcp", "", "8080-8090")]),
        ("target=80,published=81,protocol=sctp", [("80/sctp", "", "81")]),
    ],
)
def test_publish(text: str, expected: list[tuple[str, str, str]]) -> None:
    assert [(port, one["HostIp"], one["HostPort"]) for port, one in portspecs.published(text)] == expected


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no port specified"),
        ("a:b", "invalid containerPort: b"),
        ("a:80", "invalid hostPort: a"),
        ("80/foo", "invalid proto: foo"),
        ("1.2.3.300:1:1", "invalid IP address"),
        ("70000", "invalid containerPort"),
        ("1-3:1-2", "invalid ranges"),
        ("90-80", "invalid containerPort"),
        ("[::1", "invalid IP address"),
        ("target=80,mode=x", "invalid publish mode"),
        ("published=80", "missing mandatory field"),
    ],
)
def test_publish_refused(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        portspecs.published(text)


@given(st.text(st.sampled_from("0123456789:-/.[]tcpud=,"), max_size=20))
def test_publish_is_read_or_refused(text: str) -> None:
    try:
        for port, binding in portspecs.published(text):
            assert port.rpartition("/")[2] in ("tcp", "udp", "sctp")
            assert set(binding) == {"HostIp", "HostPort"}
    except ValueError:
        pass


def test_expose() -> None:
    assert portspecs.exposed("80-82/udp") == ["80/udp", "81/udp", "82/udp"]
    with pytest.raises(ValueError, match="invalid range format"):
        portspecs.exposed("x")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("type=bind,src=/a,dst=/b,ro", {"Type": "bind", "Source": "/a", "Target": "/b", "ReadOnly": True}),
        ("dst=/b", {"Type": "volume", "Target": "/b"}),
        (
            "type=tmpfs,target=/t,tmpfs-size=1m,tmpfs-mode=1777",
            {"Type": "tmpfs", "Target": "/t", "TmpfsOptions": {"SizeBytes": 1 << 20, "Mode": 0o1777}},
        ),
        (
            'src=v,dst=/v,"volume-opt=o=a,b",volume-driver=d',
            {
                "Type": "volume",
                "Source": "v",
                "Target": "/v",
                "VolumeOptions": {"DriverConfig": {"Options": {"o": "a,b"}, "Name": "d"}},
            },
        ),
    ],
)
def test_mount(text: str, expected: dict[str, Any]) -> None:
    assert mounts.mount(text) == expected


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("type=bind", "target is required"),
        ("foo", "must be a key=value pair"),
        ("type=bind,dst=/x,bar=1", "unexpected key 'bar' in 'bar=1'"),
        ("type=bind,dst=/x,ro=maybe", "invalid value for ro: maybe"),
        ("type=bind,dst=/x,tmpfs-size=1m", "cannot mix 'tmpfs-\\*' options with mount type 'bind'"),
        ("type=tmpfs,dst=/x,tmpfs-mode=9", "invalid value for tmpfs-mode"),
    ],
)
def test_mount_refused(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        mounts.mount(text)


def test_volumes(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.chdir(tmp_path)
    assert mounts.volumes(["/a:/b", "v:/c:ro", "/d", "./e:/f"]) == (["/a:/b", "v:/c:ro", f"{tmp_path}/e:/f"], ["/d"])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("net", {"name": "net"}),
        (
            "name=n,ip=1.2.3.4,alias=a,alias=b,driver-opt=k=v",
            {"name": "n", "ip": "1.2.3.4", "alias": ["a", "b"], "driver-opt": {"k": "v"}},
        ),
    ],
)
def test_network(text: str, expected: dict[str, Any]) -> None:
    assert networkspec.parse(text) == expected


@pytest.mark.parametrize("text", ["ip=1.2.3.4", "name=n,foo=1", "name=n,x", "name=n,driver-opt=k"])
def test_network_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"network name is required|invalid"):
        networkspec.parse(text)


def test_pools_put_everything_with_its_subnet() -> None:
    found = networks.pools(["10.1.0.0/16", "fd00::/64"], ["10.1.2.0/24"], ["fd00::1", "10.1.0.1"], {"x": "10.1.0.9"})
    assert found == [
        {
            "Subnet": "10.1.0.0/16",
            "IPRange": "10.1.2.0/24",
            "Gateway": "10.1.0.1",
            "AuxiliaryAddresses": {"x": "10.1.0.9"},
        },
        {"Subnet": "fd00::/64", "Gateway": "fd00::1"},
    ]


@pytest.mark.parametrize(
    ("subnets", "gateways", "reason"),
    [
        (["10.1.0.0/16", "10.1.5.0/24"], [], "overlapping"),
        (["10.1.0.0/16"], ["10.2.0.1"], "no matching subnet for gateway 10.2.0.1"),
        ([], ["10.2.0.1"], "must have a corresponding subnet"),
        (["x"], [], "invalid CIDR address: x"),
    ],
)
def test_pools_refused(subnets: list[str], gateways: list[str], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        networks.pools(subnets, [], gateways, {})


@pytest.mark.parametrize(
    ("text", "source", "target", "permissions"),
    [
        ("/dev/a", "/dev/a", "/dev/a", "rwm"),
        ("/dev/a:/dev/b", "/dev/a", "/dev/b", "rwm"),
        ("/dev/a:r", "/dev/a", "/dev/a", "r"),
        ("/dev/a:/dev/b:rw", "/dev/a", "/dev/b", "rw"),
    ],
)
def test_device(text: str, source: str, target: str, permissions: str) -> None:
    expected = {"PathOnHost": source, "PathInContainer": target, "CgroupPermissions": permissions}
    assert limits.device(text) == expected


def test_device_refused() -> None:
    with pytest.raises(ValueError, match="bad mode specified: q"):
        limits.device("/dev/a:/dev/b:q")


@pytest.mark.parametrize(
    ("text", "soft", "hard"), [("nofile=5", 5, 5), ("nofile=5:9", 5, 9), ("core=-1", -1, -1), ("core=5:-1", 5, -1)]
)
def test_ulimit(text: str, soft: int, hard: int) -> None:
    assert limits.ulimit(text) == {"Name": text.partition("=")[0], "Soft": soft, "Hard": hard}


@pytest.mark.parametrize("text", ["nofile", "foo=1", "nofile=9:5", "nofile=a", "nofile=1:2:3"])
def test_ulimit_refused(text: str) -> None:
    with pytest.raises(ValueError, match="limit"):
        limits.ulimit(text)


@pytest.mark.parametrize(
    ("text", "name", "count"),
    [("no", "no", 0), ("on-failure:3", "on-failure", 3), ("always", "always", 0), ("", "no", 0)],
)
def test_restart_policy(text: str, name: str, count: int) -> None:
    assert restart_policy(text) == {"Name": name, "MaximumRetryCount": count}


def test_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setenv("OURS", "1")
    monkeypatch.delenv("NOT_OURS", raising=False)
    file = tmp_path / "env"
    file.write_text("# comment\n\n  A=b c \nOURS\nNOT_OURS\n")
    assert environment([str(file)], ["X=", "OURS", "NOT_OURS"]) == ["A=b c ", "OURS=1", "X=", "OURS=1", "NOT_OURS"]
    with pytest.raises(ValueError, match="invalid environment variable: =x"):
        environment([], ["=x"])
    file.write_text("A B=c\n")
    with pytest.raises(ValueError, match="contains whitespaces"):
        environment([str(file)], [])


def test_security_options(tmp_path: Any) -> None:
    profile = tmp_path / "profile"
    profile.write_text("{}")
    assert security_options([f"seccomp={profile}", "no-new-privileges"]) == ["seccomp={}", "no-new-privileges"]
    with pytest.raises(ValueError, match="Invalid --security-opt"):
        security_options(["foo"])
