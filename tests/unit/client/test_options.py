"""From keyword arguments to the body of a create request."""

from __future__ import annotations

from typing import Any

import pytest

from corral.client.errors import BadArgument
from corral.client.options import Options, body, seconds
from corral.wire.common import convert
from corral.wire.containers import CreateRequest


@pytest.mark.parametrize(
    ("options", "place", "value"),
    [
        ({"env": {"A": "b=c"}}, ("Env",), ["A=b=c"]),
        ({"workdir": "/w"}, ("WorkingDir",), "/w"),
        ({"entrypoint": "sh"}, ("Entrypoint",), ["sh"]),
        ({"entrypoint": []}, ("Entrypoint",), []),
        ({"labels": {"a": "b"}}, ("Labels",), {"a": "b"}),
        ({"memory": "512m"}, ("HostConfig", "Memory"), 512 << 20),
        ({"memory_swap": -1}, ("HostConfig", "MemorySwap"), -1),
        ({"cpus": 1.5}, ("HostConfig", "NanoCpus"), 1_500_000_000),
        ({"pids": 100}, ("HostConfig", "PidsLimit"), 100),
        ({"volumes": {"/data": "name", "/x": "/srv/x:ro"}}, ("HostConfig", "Binds"), ["name:/data", "/srv/x:/x:ro"]),
        ({"restart": "on-failure:3"}, ("HostConfig", "RestartPolicy", "MaximumRetryCount"), 3),
        ({"egress": ["allow=a:1"]}, ("HostConfig", "Egress"), ["allow=a:1"]),
        ({"secrets": ["s", {"Source": "t", "Mode": 256}]}, ("HostConfig", "Secrets", 1, "Mode"), 256),
        ({"devices": ["/dev/a:/dev/b:r"]}, ("HostConfig", "Devices", 0, "CgroupPermissions"), "r"),
        ({"network": "n", "aliases": ["x"]}, ("NetworkingConfig", "EndpointsConfig", "n", "Aliases"), ["x"]),
        ({"ports": {80: 8080}}, ("HostConfig", "PortBindings", "80/tcp"), [{"HostIp": "", "HostPort": "8080"}]),
        (
            {"ports": {"53/udp": ["127.0.0.1:5353", None]}},
            ("HostConfig", "PortBindings", "53/udp"),
            [{"HostIp": "127.0.0.1", "HostPort": "5353"}, {"HostIp": "", "HostPort": ""}],
        ),
        ({"ports": {1: "[::1]:2"}}, ("HostConfig", "PortBindings", "1/tcp", 0, "HostIp"), "::1"),
        ({"stdin": True}, ("OpenStdin",), True),
        ({"api": {"HostConfig": {"OomScoreAdj": 5}, "Domainname": "d"}}, ("HostConfig", "OomScoreAdj"), 5),
    ],
)
def test_what_is_said_is_in_the_body(options: Options, place: tuple[Any, ...], value: Any) -> None:
    found: Any = body("image", ["word"], options)
    assert (found["Image"], found["Cmd"]) == ("image", ["word"])
    convert(found, CreateRequest)  # as the daemon reads it
    for key in place:
        found = found[key]
    assert found == value


def test_what_is_not_said_is_not() -> None:
    assert body("image", [], {}) == {"Image": "image", "HostConfig": {}}


def test_every_option_is_known() -> None:
    for name in Options.__annotations__:
        try:
            body("image", [], {name: {}})
        except (BadArgument, AttributeError, TypeError) as error:
            assert "there is no option" not in str(error)
    with pytest.raises(TypeError, match="there is no option 'memroy'"):
        body("image", [], {"memroy": 1})


@pytest.mark.parametrize(
    ("command", "options"),
    [
        (["a", 1], {}),
        ([], {"memory": "much"}),
        ([], {"restart": "on-failure:x"}),
        ([], {"ports": {"http": 1}}),
        ([], {"ports": {80: "host:http"}}),
        ([], {"cap_add": "ALL"}),
        ([], {"aliases": ["x"]}),
        ([], {"volumes": {"data": "name"}}),
        ([], {"volumes": {"/a:b": "name"}}),
    ],
)
def test_what_cannot_be_sent_is_refused(command: list[Any], options: Any) -> None:
    with pytest.raises(BadArgument):
        body("image", command, options)


def test_durations() -> None:
    assert [seconds(value, "t") for value in (1, 0.5, "1m30s")] == [1.0, 0.5, 90.0]
    with pytest.raises(BadArgument, match="t: "):
        seconds("soon", "t")
