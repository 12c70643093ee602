"""Reading request bodies as Go's decoder reads them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.wire.common import InvalidBody, read
from corral.wire.containers import CreateRequest, HostConfig, UpdateRequest


def create(**fields: Any) -> CreateRequest:
    return read(json.dumps(fields).encode(), CreateRequest)


def test_names_are_docker_s() -> None:
    found = create(
        Image="a",
        Cmd=["x"],
        HostConfig={"UTSMode": "host", "NanoCpus": 5, "BlkioDeviceReadIOps": [{"Path": "/dev/x", "Rate": 1}]},
        NetworkingConfig={"EndpointsConfig": {"n": {"IPAMConfig": {"IPv4Address": "1.2.3.4"}}}},
    )
    assert found.host_config is not None
    assert (found.host_config.uts_mode, found.host_config.nano_cpus) == ("host", 5)
    assert found.host_config.blkio_device_read_iops is not None
    assert found.networking_config is not None and found.networking_config.endpoints_config is not None
    ipam = found.networking_config.endpoints_config["n"].ipam_config
    assert ipam is not None and ipam.ipv4_address == "1.2.3.4"


def test_null_is_absent_but_not_in_a_map() -> None:
    found = create(Image=None, Env=None, HostConfig=None, ExposedPorts={"80/tcp": None}, Volumes={"/v": None})
    assert (found.image, found.env, found.host_config) == ("", None, None)
    assert found.exposed_ports == {"80/tcp": {}}
    assert found.volumes == {"/v": {}}
    found = create(HostConfig={"PortBindings": {"80/tcp": None}}, NetworkingConfig={"EndpointsConfig": {"n": None}})
    assert found.host_config is not None and found.host_config.port_bindings == {"80/tcp": []}
    assert found.networking_config is not None and found.networking_config.endpoints_config is not None
    assert list(found.networking_config.endpoints_config) == ["n"]


def test_unknown_fields_are_ignored() -> None:
    assert create(Image="a", Whatever={"x": 1}).image == "a"


@pytest.mark.parametrize(
    ("body", "where"),
    [
        (b"{", "invalid JSON"),
        (b"[]", "invalid JSON"),
        (b"\xff", "invalid JSON"),
        (b'"text"', "invalid JSON"),
        (b'{"Image": 1}', "$.Image"),
        (b'{"HostConfig": {"Memory": "1g"}}', "$.HostConfig.Memory"),
        (b'{"HostConfig": {"Binds": {"a": 1}}}', "$.HostConfig.Binds"),
        (b'{"Labels": {"a": 1}}', "$.Labels"),
    ],
)
def test_a_wrong_body_names_the_place(body: bytes, where: str) -> None:
    with pytest.raises(InvalidBody) as told:
        read(body, CreateRequest)
    assert where in str(told.value)


def test_deep_nesting_is_refused() -> None:
    with pytest.raises(InvalidBody):
        read(b'{"Image":' + b"[" * 100_000 + b"]" * 100_000 + b"}", CreateRequest)


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(body: bytes) -> None:
    try:
        read(body, UpdateRequest)
    except InvalidBody:
        return


JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["HostConfig", "Image", "Memory", "Binds", "Env", "Labels", "Mounts", "Type"]), inner
        )
    ),
    max_leaves=12,
)


@given(JSON)
def test_any_json_is_read_or_refused(value: Any) -> None:
    try:
        read(json.dumps(value).encode(), CreateRequest)
    except InvalidBody:
        return


def test_what_was_read_is_not_shared() -> None:
    first, second = read(b"{}", HostConfig), read(b"{}", HostConfig)
    first.restart_policy.name = "always"
    assert second.restart_policy.name == ""
