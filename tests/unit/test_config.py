"""corrald's flags and daemon.json."""

from __future__ import annotations

import json
from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.config import Config, ConfigError, Runtime, merge, parse_arguments


def config(*words: str, file: object = None) -> Config:
    return merge(parse_arguments(words), None if file is None else json.dumps(file))


def test_defaults_need_nothing() -> None:
    assert config() == Config()


@pytest.mark.parametrize(
    "words",
    [
        ("-H", "unix:///a"),
        ("-Hunix:///a",),
        ("--host", "unix:///a"),
        ("--host=unix:///a",),
    ],
)
def test_a_flag_takes_its_value_in_every_form(words: tuple[str, ...]) -> None:
    assert config(*words).hosts == ("unix:///a",)


def test_repeated_flags_collect() -> None:
    found = config("-H", "unix:///a", "-H", "tcp://127.0.0.1:1", "--label", "a=b", "--log-opt", "max-size=1m")
    assert found.hosts == ("unix:///a", "tcp://127.0.0.1:1")
    assert found.labels == ("a=b",)
    assert found.log_opts == {"max-size": "1m"}


def test_booleans_are_go_s() -> None:
    assert config("-D").debug is True
    assert config("--debug=true").debug is True
    assert config("--ip-forward=false").ip_forward is False
    with pytest.raises(ConfigError, match='invalid argument "perhaps" for "--debug" flag'):
        config("--debug=perhaps")


def test_structured_flags() -> None:
    found = config(
        "--add-runtime", "mine=/bin/mine", "--default-ulimit", "nofile=10:20",
        "--default-address-pool", "base=10.9.0.0/16,size=24",
    )  # fmt: skip
    assert found.runtime("mine") == Runtime("/bin/mine")
    assert found.default_ulimits == {"nofile": {"Name": "nofile", "Soft": 10, "Hard": 20}}
    assert found.default_address_pools == ({"base": "10.9.0.0/16", "size": 24},)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--nonsense"], "unknown flag: --nonsense"),
        (["-Z"], "unknown shorthand flag"),
        (["--data-root"], "flag needs an argument: --data-root"),
        (["start"], "accepts no arguments: start"),
        (["--mtu", "big"], 'invalid argument "big" for "--mtu" flag'),
        (["--default-ulimit", "nofile=many"], "--default-ulimit"),
        (["--default-address-pool", "size=24"], "--default-address-pool"),
    ],
)
def test_wrong_flags_are_refused(words: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as told:
        config(*words)
    assert message in str(told.value)


def test_what_can_only_be_one_way_is_accepted_that_way() -> None:
    assert config("--live-restore", "--storage-driver", "overlay2") == Config()
    assert config(file={"live-restore": True, "storage-driver": "overlay2", "experimental": False}) == Config()
    for words in (["--experimental"], ["--storage-driver=vfs"], ["--selinux-enabled"]):
        with pytest.raises(ConfigError, match="no other way"):
            config(*words)
    with pytest.raises(ConfigError, match="no other way"):
        config(file={"selinux-enabled": True})
    with pytest.raises(ConfigError, match="does not have ip6tables: it follows iptables"):
        config(file={"ip6tables": True})


def test_the_file_is_read_by_docker_s_keys() -> None:
    found = config(file={"hosts": ["unix:///b"], "data-root": "/d", "log-opts": {"max-file": "2"}, "debug": True})
    assert (found.hosts, found.data_root, found.log_opts, found.debug) == (
        ("unix:///b",), "/d", {"max-file": "2"}, True,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "invalid JSON"),
        ("[]", "must hold an object"),
        ('{"nonsense": 1}', "don't match any configuration option: nonsense"),
        ('{"data_root": "/x"}', "don't match any configuration option: data_root"),
        ('{"mtu": "1500"}', "mtu"),
        ('{"mtu": true}', "mtu"),
        ('{"hosts": "unix:///a"}', "hosts"),
        ('{"debug": 1}', "debug"),
        ('{"labels": [1]}', "labels"),
        ('{"runtimes": {"x": {}}}', "runtimes"),
    ],
)
def test_a_wrong_file_is_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as told:
        merge(parse_arguments([]), text)
    assert message in str(told.value)


def test_an_option_in_both_places_is_refused_with_both_values() -> None:
    with pytest.raises(ConfigError) as told:
        config("--debug", file={"debug": False})
    assert "debug: (from flag: true, from file: false)" in str(told.value)


def test_runtimes() -> None:
    found = config(file={"runtimes": {"kata": {"path": "/k", "runtimeArgs": ["--x"]}}})
    assert found.runtime("kata") == Runtime("/k", ("--x",))
    assert found.runtime("") is None
    assert found.runtime("corral") is None
    assert found.runtime("crun") == Runtime("crun")
    with pytest.raises(ConfigError, match="unknown or invalid runtime name: absent"):
        found.runtime("absent")


CHOICES = ("log_level", "log_format", "default_cgroupns_mode", "default_ipc_mode", "publish_policy")
TEXTS = [field.name for field in fields(Config) if field.type == "str" and field.name not in CHOICES]


@given(st.sampled_from(TEXTS), st.text(st.characters(blacklist_categories=("Cs",)), min_size=1))
def test_a_flag_and_the_file_say_the_same(name: str, value: str) -> None:
    key = name.replace("_", "-")
    assert config(f"--{key}={value}") == config(file={key: value})


@given(st.lists(st.text(max_size=12), max_size=6))
def test_any_words_are_read_or_refused(words: list[str]) -> None:
    try:
        parse_arguments(words)
    except ConfigError:
        return


@given(st.text())
def test_any_file_is_read_or_refused(text: str) -> None:
    try:
        merge(parse_arguments([]), text)
    except ConfigError:
        return


def test_registries() -> None:
    found = config(
        "--registry-mirror", "https://m", "--max-concurrent-downloads", "7",
        file={
            "proxies": {"https-proxy": "http://p:1", "no-proxy": "a,b"},
            "registries": {"r.example": {"mirrors": ["https://m"]}},
            "allow-nondistributable-artifacts": ["r.example"],
        },
    )  # fmt: skip
    assert found.registry_mirrors == ("https://m",) and found.max_concurrent_downloads == 7
    assert (found.http_proxy, found.https_proxy, found.no_proxy) == ("", "http://p:1", "a,b")
    assert found.registries == {"r.example": {"mirrors": ["https://m"]}}
    assert found.allow_nondistributable_artifacts == ("r.example",)


@pytest.mark.parametrize("proxies", ["http://p", {"ftp-proxy": "p"}, {"http-proxy": 1}, []])
def test_bad_proxies(proxies: object) -> None:
    with pytest.raises(ConfigError, match="cannot use"):
        config(file={"proxies": proxies})


@pytest.mark.parametrize("registries", [[], {"r.example": "https://m"}])
def test_bad_registries(registries: object) -> None:
    with pytest.raises(ConfigError, match="cannot use"):
        config(file={"registries": registries})


def test_the_policy_of_published_ports_is_one_of_two() -> None:
    assert config().publish_policy == "open"
    assert config(file={"publish-policy": "host-firewall"}).publish_policy == "host-firewall"
    with pytest.raises(ConfigError, match="invalid publish-policy: closed: must be one of open, host-firewall"):
        config("--publish-policy", "closed")
