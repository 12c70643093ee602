"""The table of properties is complete, and the tests that it names exist."""

from __future__ import annotations

import ast
import os
import typing
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from corral.api.volumes import CreateVolume
from corral.wire.containers import (
    ContainerConfig,
    EndpointSettings,
    ExecRequest,
    ExecStartRequest,
    HostConfig,
    UpdateRequest,
)
from tests import properties
from tests.support import compatibility

_TESTS = Path(__file__).parents[1]
_WORDS = ("refused: ", "ignored: ", "untested: ")


def fields(kind: type[msgspec.Struct]) -> set[str]:
    """The names of a body's fields, with those of the objects in it: `Mounts.BindOptions.Propagation`."""
    found = set()
    for field in msgspec.structs.fields(kind):
        found.add(field.encode_name)
        for inner in _structs(field.type):
            found |= {f"{field.encode_name}.{name}" for name in fields(inner)}
    return found


def _structs(kind: Any) -> list[type[msgspec.Struct]]:
    """The objects of which a field is one, a list, or a table."""
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return [kind]
    return [found for argument in typing.get_args(kind) for found in _structs(argument)]


def rows() -> dict[str, str]:
    found = {f"ContainerConfig.{name}": value for name, value in properties.CONTAINER_CONFIG.items()}
    found |= {f"HostConfig.{name}": value for name, value in properties.HOST_CONFIG.items()}
    found |= {f"EndpointSettings.{name}": value for name, value in properties.ENDPOINT_SETTINGS.items()}
    for tables in (properties.QUERIES, properties.BODIES):
        found |= {f"{way} {name}": value for way, table in tables.items() for name, value in table.items()}
    return found


def test_every_row_names_a_test_or_a_reason() -> None:
    wrong = []
    for name, value in rows().items():
        if value.startswith(_WORDS):
            continue
        file, _, function = value.partition("::")
        path = _TESTS / file
        defined = {node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)}
        if function and function not in defined:
            wrong.append((name, value))
    assert wrong == []


@pytest.mark.parametrize(
    ("kind", "table"),
    [
        (ContainerConfig, properties.CONTAINER_CONFIG),
        (HostConfig, properties.HOST_CONFIG),
        (EndpointSettings, properties.ENDPOINT_SETTINGS),
        (ExecRequest, properties.BODIES["POST /containers/{id}/exec"]),
        (ExecStartRequest, properties.BODIES["POST /exec/{id}/start"]),
        (UpdateRequest, properties.BODIES["POST /containers/{id}/update"]),
        (CreateVolume, properties.BODIES["POST /volumes/create"]),
    ],
)
def test_every_field_that_is_read_has_a_row(kind: type[msgspec.Struct], table: dict[str, str]) -> None:
    assert fields(kind) - table.keys() == set()


def test_nothing_is_untested() -> None:
    assert [name for name, value in rows().items() if value.startswith("untested: ")] == []


def test_every_field_of_dockers_definition_has_a_row() -> None:
    folder = os.environ.get("CORRAL_REFERENCE", "")
    found = sorted(Path(folder).glob("engine-api-v*.yaml")) if folder else []
    if not found:
        pytest.skip("CORRAL_REFERENCE names no folder with Docker's definition of its API")
    text = yaml.load(found[-1].read_text(), yaml.CSafeLoader)
    kinds = text["definitions"]
    for name, table in (
        ("ContainerConfig", properties.CONTAINER_CONFIG),
        ("HostConfig", properties.HOST_CONFIG),
        ("EndpointSettings", properties.ENDPOINT_SETTINGS),
    ):
        assert _members(kinds, kinds[name]) - table.keys() == set()
    for path, ways in text["paths"].items():
        for method, way in ways.items():
            if isinstance(way, dict) and {"Container", "Exec", "Volume", "System"} & set(way.get("tags", ())):
                asked = {item["name"] for item in way.get("parameters", ()) if item["in"] == "query"}
                assert asked - properties.QUERIES.get(f"{method.upper()} {path}", {}).keys() == set(), path


def _members(kinds: dict[str, Any], kind: dict[str, Any]) -> set[str]:
    found = set(kind.get("properties", ()))
    for part in kind.get("allOf", ()):
        found |= _members(kinds, kinds[part["$ref"].rpartition("/")[2]] if "$ref" in part else part)
    return found


def test_the_page_for_users_says_what_the_table_says() -> None:
    page = compatibility.PAGE.read_text()
    assert compatibility.updated(page) == page, "run: python -m tests.support.compatibility"
