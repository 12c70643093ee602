"""Credentials in headers."""

from __future__ import annotations

import base64
import json
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.api import credentials
from corral.api.credentials import BadAuth
from corral.api.http import Request


def request(name: str, header: str) -> Request:
    return cast(Request, SimpleNamespace(headers={name: header}))


def of_request(header: str) -> dict[str, str] | None:
    return credentials.of_request(request("x-registry-auth", header))


@pytest.mark.parametrize("encode", [base64.urlsafe_b64encode, base64.b64encode])
def test_both_alphabets_with_and_without_padding(encode: Any) -> None:
    document = {"username": "ü?>", "password": "~~~", "number": 1}
    header = encode(json.dumps(document, ensure_ascii=False).encode()).decode()
    expected = {"username": "ü?>", "password": "~~~"}
    assert of_request(header) == of_request(header.rstrip("=")) == expected


def test_no_credentials() -> None:
    assert of_request("") is None
    assert of_request(base64.urlsafe_b64encode(b"{}").decode()) == {}
    assert credentials.of_registries(request("x", "")) == {}


def test_credentials_of_several_registries() -> None:
    document = {"a.example": {"username": "u"}, "b.example": {"identitytoken": "t"}, "c": 1}
    header = base64.urlsafe_b64encode(json.dumps(document).encode()).decode()
    assert credentials.of_registries(request("x-registry-config", header)) == {
        "a.example": {"username": "u"},
        "b.example": {"identitytoken": "t"},
    }


@pytest.mark.parametrize("data", [b"[]", b"1", b"{", b'"x"', b"[" * 100_000])
def test_headers_that_hold_something_else(data: bytes) -> None:
    with pytest.raises(BadAuth, match="invalid X-Registry-Auth header"):
        of_request(base64.urlsafe_b64encode(data).decode())


@given(st.text(max_size=60))
def test_any_header_is_refused_or_read(header: str) -> None:
    try:
        found = of_request(header)
    except BadAuth:
        return
    assert found is None or isinstance(found, dict)
