"""Whatever a create request says, it becomes a spec that the runtime reads, or it is refused with a reason."""

from __future__ import annotations

import types
import typing
from typing import Any

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from corral.engine import defaults, devices, logdrivers, mounts, unsupported
from corral.engine.record import Container
from corral.errors import CorralError
from corral.oci.image import RunConfig
from corral.runtime import validate
from corral.runtime.failure import Failure
from corral.wire.common import read
from corral.wire.containers import ContainerConfig, CreateRequest, HostConfig, LogConfig
from tests.unit.engine.test_spec import build

WORDS = [
    "", "a", "/", "/a", "/a/b", "a:b", "/a:/b", "/a:/b:ro", "host", "none", "bridge", "default", "container:x",
    "private", "80/tcp", "80-82/udp", "8080", "0", "-1", "1-2", "tcp", "ALL", "NET_ADMIN", "cap_chown", "A=b", "=", ":",
    "seccomp=unconfined", "no-new-privileges", "label=disable", "c 1:3 rwm", "b *:* r", "SIGTERM", "9", "json-file",
    "max-size", "10m", "always", "on-failure", "bind", "volume", "tmpfs", "rshared", "nofile", "net.core.somaxconn",
    "\0", "ä", "x" * 300,
]  # fmt: skip
NUMBERS = [0, 1, -1, 2, 100, 1000, 65535, 65536, 1 << 22, 1 << 28, 1 << 40, 1 << 62, -(1 << 62)]


def values(kind: Any) -> st.SearchStrategy[Any]:
    """JSON values of a wire type."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is str:
        return st.sampled_from(WORDS)
    if kind is int:
        return st.sampled_from(NUMBERS)
    if kind is bool:
        return st.booleans()
    if kind is type(None):
        return st.none()
    if origin is list:
        return st.lists(values(arguments[0]), max_size=3)
    if origin is dict:
        return st.dictionaries(st.sampled_from(WORDS), values(arguments[1]), max_size=2)
    if origin in (types.UnionType, typing.Union):
        return st.one_of([values(argument) for argument in arguments])
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        hints = typing.get_type_hints(kind)
        fields = {field.encode_name: hints[field.name] for field in msgspec.structs.fields(kind)}
        return st.lists(st.sampled_from(sorted(fields)), max_size=4, unique=True).flatmap(
            lambda chosen: st.fixed_dictionaries({name: values(fields[name]) for name in chosen})
        )
    return st.just({})


def volume_of(name: str, driver: str, options: dict[str, str], labels: dict[str, str]) -> tuple[str, str]:
    return name or "v", "/volumes/v/_data"


def become_spec(body: dict[str, Any]) -> dict[str, Any]:
    """What create and start do with a request, but for what they ask of the machine."""
    request = read(msgspec.json.encode(body), CreateRequest)
    host = request.host_config or HostConfig()
    defaults.apply_image(request, msgspec.convert({"Cmd": ["sh"]}, RunConfig))
    defaults.check_config(request)
    defaults.fill_host(host, shm_size=1 << 26, log=LogConfig(type="json-file"), runtime="corral", init=False)
    defaults.check_host(host, cpus=2)
    logdrivers.check(host.log_config)
    unsupported.check(host, confining=frozenset(), quotas=False)
    record = Container(
        id="c" * 64, name="n", created_ns=0, image_id="", image_ref="", layers="",
        config=ContainerConfig(**{name: getattr(request, name) for name in ContainerConfig.__struct_fields__}),
        host=host, networks={}, mounts=mounts.points(request, host, volume_of),
    )  # fmt: skip
    devices.wanted_ports(record)
    return build(record)


@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(values(CreateRequest), values(HostConfig))
def test_any_request_becomes_a_spec_or_is_refused(body: dict[str, Any], host: dict[str, Any]) -> None:
    try:
        built = become_spec({**body, "HostConfig": host})
    except CorralError as refusal:
        assert str(refusal)
        return
    msgspec.json.encode(built)
    try:
        validate.check(built)
    except Failure as failure:
        assert failure.stage == "spec"
