"""The route table, dispatch, and errors as answers."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from corral import errors
from corral.api import statuses
from corral.api.http import (
    Answer,
    BadContentType,
    BadQuery,
    BodyTooLarge,
    Hijacked,
    Query,
    Request,
    Response,
    empty,
)
from corral.api.router import Route, Router
from corral.api.routes import ROUTES
from corral.api.versions import NEWEST
from corral.wire.common import InvalidBody
from corral.wire.containers import UpdateRequest


class FakeTransport:
    """A connection that has a body."""

    def __init__(self, *parts: bytes) -> None:
        self.parts = parts
        self.head = b""

    async def read_body(self) -> AsyncIterator[bytes]:
        for part in self.parts:
            yield part

    async def hijack(self, head: bytes) -> Hijacked:
        self.head = head
        return Hijacked(-1, b"")


def request(method: str, path: str, *body: bytes, **headers: str) -> Request:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Request(method, path, NEWEST, Query({}), named, FakeTransport(*body))


def answer(routes: list[Route], method: str, path: str) -> Response:
    found = asyncio.run(Router(None, routes).dispatch(request(method, path)))
    assert isinstance(found, Response)
    return found


def raising(error: BaseException) -> Route:
    async def handler(services: Any, request: Request) -> Answer:
        raise error

    return Route("GET", "/x", handler)


def test_every_route_reaches_its_handler() -> None:
    async def note(services: Any, request: Request) -> Answer:
        return empty()

    for route in ROUTES:
        filled = re.sub(r"\{\w+\*\}", "reg.example:5000/a/b", re.sub(r"\{\w+\}", "json", route.pattern))
        reached: list[str] = []

        def noting(pattern: str, reached: list[str] = reached) -> Any:
            async def handler(services: Any, request: Request) -> Answer:
                reached.append(pattern)
                return empty()

            return handler

        router = Router(None, [Route(r.method, r.pattern, noting(r.pattern), r.since) for r in ROUTES])
        asyncio.run(router.dispatch(request(route.method, f"/v1.56{filled}")))
        asyncio.run(router.dispatch(request(route.method, filled)))
        assert reached == [route.pattern, route.pattern], filled


def test_no_operation_is_there_twice() -> None:
    named = [(route.method, route.pattern) for route in ROUTES]
    assert len(named) == len(set(named))


@pytest.mark.parametrize("path", ["/", "", "/nothing", "/containers", "/v1.44/nothing", "/containers/a/b/json", "//"])
def test_unknown_paths_are_404(path: str) -> None:
    found = answer(list(ROUTES), "GET", path)
    assert (found.status, found.body) == (404, b'{"message":"page not found"}\n')


def test_an_operation_that_came_later_is_absent_before() -> None:
    async def handler(services: Any, request: Request) -> Answer:
        return empty()

    routes = [Route("GET", "/x", handler, (1, 30))]
    assert answer(routes, "GET", "/v1.29/x").status == 404
    assert answer(routes, "GET", "/v1.30/x").status == 204


KINDS = [
    (errors.NotFound, 404), (errors.InvalidParameter, 400), (errors.Conflict, 409), (errors.Unauthorized, 401),
    (errors.Forbidden, 403), (errors.Unsupported, 501), (errors.Unavailable, 503), (errors.System, 500),
    (errors.DataLoss, 500), (errors.Timeout, 500), (errors.Cancelled, 500),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "status"), KINDS)
def test_a_kind_of_error_has_a_status(kind: type[errors.CorralError], status: int) -> None:
    concrete = type("Concrete", (kind,), {})
    found = answer([raising(concrete("the text"))], "GET", "/x")
    assert (found.status, msgspec.json.decode(found.body)) == (status, {"message": "the text"})


def test_every_kind_is_in_the_table() -> None:
    assert all(statuses.of(kind("")) is not None for kind in errors.CorralError.__subclasses__())


def test_not_modified_has_no_body() -> None:
    found = answer([raising(errors.NotModified("already"))], "GET", "/x")
    assert (found.status, found.body, found.content_type) == (304, b"", "")


def test_an_unforeseen_error_is_500_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        found = answer([raising(RuntimeError("inside"))], "GET", "/x")
    assert (found.status, msgspec.json.decode(found.body)) == (500, {"message": "inside"})
    assert caplog.records[0].exc_info is not None


def test_of_a_group_the_first_error_is_told() -> None:
    group = ExceptionGroup("both", [errors.NotFound("first"), errors.Conflict("second")])
    assert answer([raising(group)], "GET", "/x").status == 404


def test_a_version_out_of_range_is_400() -> None:
    found = answer(list(ROUTES), "GET", "/v9.9/info")
    assert found.status == 400
    assert "is too new" in msgspec.json.decode(found.body)["message"]


# -- requests ---------------------------------------------------------------------------------------------------


def read_json(*body: bytes, **headers: str) -> Any:
    return asyncio.run(request("POST", "/x", *body, **headers).json(UpdateRequest, default=UpdateRequest))


def test_a_json_body() -> None:
    assert read_json(b'{"Mem', b'ory": 5}', content_type="application/json; charset=utf-8").memory == 5
    assert read_json().memory == 0
    with pytest.raises(BadContentType, match="unsupported Content-Type header"):
        read_json(b"{}", content_type="text/plain")
    with pytest.raises(BadContentType):
        read_json(b"{}")
    with pytest.raises(InvalidBody, match="EOF"):
        asyncio.run(request("POST", "/x").json(UpdateRequest))


def test_a_body_beyond_the_limit_is_refused_without_reading_on() -> None:
    served = 0

    class Endless(FakeTransport):
        async def read_body(self) -> AsyncIterator[bytes]:
            nonlocal served
            while True:
                served += 1
                yield b"x" * (1 << 20)

    endless = request("POST", "/x")
    endless.transport = Endless()
    with pytest.raises(BodyTooLarge):
        asyncio.run(endless.body())
    assert served == 5


def test_hijacking_with_and_without_an_upgrade() -> None:
    for headers, line in (({"upgrade": "tcp"}, b"HTTP/1.1 101 UPGRADED"), ({}, b"HTTP/1.1 200 OK")):
        taken = request("POST", "/x", **headers)
        asyncio.run(taken.hijack("application/vnd.docker.raw-stream"))
        assert isinstance(taken.transport, FakeTransport)
        assert taken.transport.head.startswith(line + b"\r\n")
        assert taken.transport.head.endswith(b"\r\n\r\n")


def test_queries() -> None:
    query = Query({"all": ["1"], "size": ["False"], "empty": [""], "n": ["5"], "bad": ["x"], "t": ["a", "b"]})
    assert [query.flag(name) for name in ("all", "size", "empty", "absent")] == [True, False, False, False]
    assert query.flag("absent", True) is True
    assert (query.number("n"), query.number("absent", 7), query.number("empty")) == (5, 7, None)
    assert query.all("t") == ["a", "b"]
    with pytest.raises(BadQuery):
        query.number("bad")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", {}),
        ('{"name":["a","b"]}', {"name": ["a", "b"]}),
        ('{"name":{"a":true,"b":false}}', {"name": ["a"]}),
    ],
)
def test_filters_in_both_forms(text: str, found: dict[str, list[str]]) -> None:
    assert Query({"filters": [text]}).filters() == found


@pytest.mark.parametrize("text", ["{", "[]", '{"name":1}', '{"name":[1]}', '"a"'])
def test_wrong_filters(text: str) -> None:
    with pytest.raises(BadQuery, match="invalid filter"):
        Query({"filters": [text]}).filters()
