"""Fixtures of the runtime's tests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import bundles

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="namespaces, mounts and cgroups need root")


@pytest.fixture(scope="session")
def busybox_root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("busybox")
    root = folder / "root"
    bundles.make_root(root)
    # The folders above stay closed to other users, as an engine's data root is.
    yield root
    bundles.remove_test_cgroups()


@pytest.fixture
def bundle(tmp_path: Path, busybox_root: Path) -> Iterator[bundles.Bundle]:
    made = bundles.Bundle(tmp_path, busybox_root)
    yield made
    made.close()
