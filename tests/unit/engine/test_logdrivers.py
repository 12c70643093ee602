"""Log drivers: their options, and what shim and forwarder are told."""

from __future__ import annotations

import json

import pytest

from corral.engine import logdrivers
from corral.engine.record import Container
from corral.errors import InvalidParameter
from corral.wire.containers import ContainerConfig, HostConfig, LogConfig


def container(driver: str, **options: str) -> Container:
    host = HostConfig(log_config=LogConfig(type=driver, config=dict(options)))
    logdrivers.check(host.log_config)
    return Container(
        id="c" * 64,
        name="web",
        created_ns=0,
        image_id="sha256:" + "i" * 64,
        image_ref="app:1",
        layers="",
        config=ContainerConfig(labels={"rack": "7", "team": "a"}, env=["A=1", "B=2", "BARE"], cmd=["run", "it"]),
        host=host,
        networks={},
        mounts=[],
    )


@pytest.mark.parametrize(
    ("driver", "options", "why"),
    [
        ("splunk", {}, "no log driver named 'splunk' is registered"),
        ("json-file", {"syslog-address": "udp://a"}, "unknown log opt 'syslog-address' for json-file log driver"),
        ("local", {"max-file": "0"}, "max-file cannot be less than 1"),
        ("local", {"compress": "maybe"}, "'maybe' is neither true nor false"),
        ("json-file", {"cache-max-size": "1m"}, "unknown log opt 'cache-max-size' for json-file log driver"),
        ("json-file", {"mode": "quick"}, "logging mode not supported: quick"),
        ("json-file", {"max-buffer-size": "1m"}, "only supported with 'mode=non-blocking'"),
        ("json-file", {"mode": "non-blocking", "max-buffer-size": "x"}, "invalid size: 'x'"),
        ("json-file", {"tag": "{{.Nme}}"}, "cannot expand {{.Nme}}"),
        ("json-file", {"tag": "{{.Name"}, "unclosed action"),
        ("json-file", {"labels-regex": "("}, "log opt 'labels-regex'"),
        ("syslog", {"syslog-address": "http://a"}, "is not an address"),
        ("syslog", {"syslog-address": "udp://a:99999"}, "is not an address"),
        ("syslog", {"syslog-address": "unix://relative"}, "is not an address"),
        ("syslog", {"syslog-facility": "fun"}, "invalid syslog facility: fun"),
        ("syslog", {"syslog-format": "rfc1"}, "Invalid syslog format"),
        ("gelf", {}, "gelf-address is a required parameter"),
        ("gelf", {"gelf-address": "tcp://a", "gelf-compression-type": "none"}, "only supported when using the UDP"),
        ("gelf", {"gelf-address": "udp://a", "gelf-tcp-max-reconnect": "1"}, "only supported when using the TCP"),
        ("gelf", {"gelf-address": "udp://a", "gelf-compression-type": "lzma"}, "unknown compression type: lzma"),
        ("gelf", {"gelf-address": "udp://a", "gelf-compression-level": "11"}, "must be between -1 and 9"),
        ("fluentd", {"fluentd-address": "udp://a"}, "is not an address"),
        ("fluentd", {"fluentd-async": "perhaps"}, "neither true nor false"),
        ("fluentd", {"fluentd-buffer-limit": "x"}, "invalid size: 'x'"),
    ],
)
def test_what_cannot_be(driver: str, options: dict[str, str], why: str) -> None:
    with pytest.raises(InvalidParameter, match=why.replace("{", r"\{").replace("(", r"\(")):
        container(driver, **options)


def test_what_the_shim_is_told() -> None:
    options = {"max-size": "1k", "max-file": "3", "compress": "true"}
    options |= {"labels": "rack", "env-regex": "^B", "tag": "{{.Name}}"}
    found = logdrivers.file_settings(container("json-file", **options), "/p")
    assert found is not None
    attributes = json.loads(found.pop("attributes"))
    assert found == {"path": "/p", "max_size": 1024, "max_files": 3, "compress": True}
    assert attributes == {"rack": "7", "B": "2", "tag": "web"}
    assert logdrivers.file_settings(container("json-file"), "/p") == {
        "path": "/p", "max_size": 20 << 20, "max_files": 5, "compress": False, "attributes": "",
    }  # fmt: skip
    assert (logdrivers.file_settings(container("local"), "/p") or {})["compress"]
    assert logdrivers.file_settings(container("none"), "/p") is None


def test_a_remote_driver_keeps_a_cache_unless_told_not_to() -> None:
    record = container("syslog", **{"cache-max-size": "1m", "cache-max-file": "2"})
    assert logdrivers.file_settings(record, "/p") == {
        "path": "/p", "max_size": 1 << 20, "max_files": 2, "compress": True, "attributes": "",
    }  # fmt: skip
    quiet = container("syslog", **{"cache-disabled": "true"})
    assert logdrivers.file_settings(quiet, "/p") is None and not logdrivers.is_readable(quiet.host.log_config)


def test_what_the_forwarder_is_told() -> None:
    assert logdrivers.forwarder_settings(container("json-file"), 1) is None
    found = logdrivers.forwarder_settings(container("gelf", **{"gelf-address": "udp://a", "labels": "team"}), 7)
    assert found is not None and (found["tag"], found["extras"]) == ("c" * 12, {"team": "a"})
    assert (found["buffer_bytes"], found["container"]["command"], found["daemon_pid"]) == (0, "run it", 7)
    more = {"mode": "non-blocking", "max-buffer-size": "4k", "tag": "{{.ImageName}}/{{.FullID}}"}
    quick = container("syslog", **more)
    found = logdrivers.forwarder_settings(quick, 1)
    assert found is not None and (found["buffer_bytes"], found["tag"]) == (4096, f"app:1/{'c' * 64}")
