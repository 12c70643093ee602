"""Rights, retention, settings, passwords: what is decided without a request."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import bcrypt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.registry import settings as configuration
from corral.registry.passwords import BadPassword, BadPasswordFile, Passwords
from corral.registry.retention import RetentionRule, reachable, retired_tags
from corral.registry.rights import Rights, Rule, matches
from corral.registry.settings import BadSettings
from corral.registry.tokens import parse_scopes


@pytest.mark.parametrize(
    ("pattern", "text", "fits"),
    [
        ("**", "a/b/c", True),
        ("*", "a/b", False),
        ("a/*", "a/b", True),
        ("a/**", "a/b/c", True),
        ("a/**", "a", False),
        ("a.b", "axb", False),
        ("v*", "v1.2", True),
        ("*", "", True),
    ],
)
def test_patterns(pattern: str, text: str, fits: bool) -> None:
    assert matches(pattern, text) is fits


def test_rights() -> None:
    assert Rights().may("ann", "a", "push") and not Rights().may("", "a", "pull")
    rights = Rights(
        (
            Rule(("anonymous",), ("public/*",), ("pull",)),
            Rule(("*",), ("team/**",), ("pull", "push")),
            Rule(("ann",), ("**",), ("delete",)),
        )
    )
    assert rights.allowed("", "public/x", ("pull", "push")) == ["pull"]
    assert rights.allowed("bob", "team/x/y", ("pull", "push", "delete")) == ["pull", "push"]
    assert rights.allowed("ann", "team/x", ("delete", "push")) == ["delete", "push"]
    assert not rights.may("", "team/x", "pull")


def rule(*tags: str, last: int | None = None, younger: float | None = None) -> RetentionRule:
    return RetentionRule(("**",), tags or ("**",), last, younger, None)


def test_retention() -> None:
    ages = {"v1": 50.0, "v2": 40.0, "ci-1": 30.0, "ci-2": 20.0, "ci-3": 10.0}
    assert retired_tags((rule("v*"), rule(last=1)), "r", ages) == ["ci-1", "ci-2"]
    assert retired_tags((rule("ci-*", last=1, younger=25.0),), "r", ages) == ["ci-1"]
    assert retired_tags((rule(younger=35.0),), "r", ages) == ["v1", "v2"]
    assert retired_tags((rule(last=0),), "r", ages) == sorted(ages)
    assert retired_tags((RetentionRule(("other",), ("**",), 0, None, None),), "r", ages) == []


@given(
    ages=st.dictionaries(st.sampled_from([f"t{number}" for number in range(9)]), st.floats(0, 100)),
    last=st.none() | st.integers(0, 9),
    younger=st.none() | st.floats(0, 100),
)
def test_retention_keeps_what_it_promises(ages: dict[str, float], last: int | None, younger: float | None) -> None:
    retired = set(retired_tags((rule(last=last, younger=younger),), "r", ages))
    kept = ages.keys() - retired
    assert len(kept) >= min(last or 0, len(ages))
    assert all(ages[tag] >= (younger or 0.0) for tag in retired)
    assert not (last is None and younger is None and retired)


def test_reachable() -> None:
    children = {"index": ("one", "two"), "two": ("index",)}
    subjects = {"signature": "one", "of-signature": "signature", "stray": "nowhere"}
    assert reachable({"index"}, children, subjects) == {"index", "one", "two", "signature", "of-signature"}


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({}, "no root"),
        ({"root": "/r", "x": 1}, "unknown field `x`"),
        ({"root": 3}, "Expected `str`"),
        ({"root": "/r", "listen": "1.2.3.4"}, "not HOST:PORT"),
        ({"root": "/r", "listen": "::1:80"}, "brackets"),
        ({"root": "/r", "workers": -1}, "workers must be"),
        ({"root": "/r", "rights": [{"users": ["a"], "actions": ["pull"]}]}, "rights need auth"),
        ({"root": "/r", "auth": {}}, "either htpasswd or token"),
        ({"root": "/r", "auth": {"htpasswd": "x", "scheme": "digest"}}, "auth.scheme"),
        ({"root": "/r", "auth": {"htpasswd": "x"}, "rights": [{"users": ["a"], "actions": ["look"]}]}, "'look'"),
        ({"root": "/r", "upstream": {"url": "https://user@host"}}, "upstream.url"),
        ({"root": "/r", "upstream": {"url": "https://host", "tag-ttl": "soon"}}, "'soon' is not a duration"),
        ({"root": "/r", "collection": {"grace": ""}}, "not a duration"),
        ({"root": "/r", "retention": [{"keep-last": -1}]}, "must not be negative"),
    ],
)
def test_settings_that_are_refused(keys: dict[str, Any], says: str) -> None:
    with pytest.raises(BadSettings, match=says):
        configuration.read(None, keys)


def test_settings(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text('{"root": "/r", "read-only": true}')
    assert configuration.read(str(path), {"workers": 3}).read_only
    with pytest.raises(BadSettings, match="root is set by a flag and in"):
        configuration.read(str(path), {"root": "/s"})
    for text in ("{", "[]"):
        path.write_text(text)
        with pytest.raises(BadSettings, match="cannot read"):
            configuration.read(str(path), {})
    assert configuration.duration_s("1d2h3m4s") == 93784.0
    assert configuration.address("[::1]:80") == ("::1", 80)


def test_passwords(tmp_path: Path) -> None:
    path = tmp_path / "users"
    line = "ann:" + bcrypt.hashpw(b"right", bcrypt.gensalt(4)).decode() + "\n"
    path.write_text("\n# comment\n" + line)
    passwords = Passwords(str(path))
    passwords.verify("ann", "right")
    passwords.verify("ann", "right")  # remembered
    for user, password in (("ann", "wrong"), ("bob", "right"), ("", ""), ("ann", "right\0"), ("ann", "r" * 1000)):
        with pytest.raises(BadPassword):
            passwords.verify(user, password)
    path.write_text("bob" + line[3:])
    passwords.verify("bob", "right")
    with pytest.raises(BadPassword):
        passwords.verify("ann", "right")
    path.write_text("nonsense\n")
    passwords.verify("bob", "right")  # a file that is being edited locks nobody out
    os.unlink(path)
    passwords.verify("bob", "right")
    path.write_text("eve:plain\n")
    with pytest.raises(BadPasswordFile, match="line 1 is not NAME:BCRYPT"):
        Passwords(str(path))


def test_scopes() -> None:
    texts = ["repository:a/b:pull,push registry:catalog:*", "repository:host:80/x:pull", "nonsense", "repository::pull"]
    assert parse_scopes(texts) == [
        ("repository", "a/b", ["pull", "push"]),
        ("registry", "catalog", ["*"]),
        ("repository", "host:80/x", ["pull"]),
    ]
