"""The site of the documentation can be built, and has every page."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import pages


def _run(*words: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(pages.ROOT / "src"), "NO_MKDOCS_2_WARNING": "true"}
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stderr


def test_the_site(tmp_path: Path) -> None:
    folder = tmp_path / "docs"
    _run(str(pages.ROOT / "docs" / "site" / "assemble.py"), str(folder))
    # Strict, as mkdocs.yml says: a link that leads nowhere, or a page that no menu has, is an error.
    _run("-m", "mkdocs", "build", "-f", str(folder / "mkdocs.yml"))
    built = {path.stem for path in (folder / "site").glob("*.html")}
    assert {page.stem for page in pages.pages() if page.parent.name == "docs"} <= built
    assert "--from-snapshot" in (folder / "site" / "commands.html").read_text()
    operations = (folder / "site" / "operations.html").read_text()
    assert "POST /containers/{name}/rewind" in operations


def test_a_broken_link_is_an_error(tmp_path: Path) -> None:
    folder = tmp_path / "docs"
    _run(str(pages.ROOT / "docs" / "site" / "assemble.py"), str(folder))
    (folder / "pages" / "volumes.md").write_text("[away](nowhere.md)\n")
    with pytest.raises(AssertionError, match=r"nowhere\.md"):
        _run("-m", "mkdocs", "build", "-f", str(folder / "mkdocs.yml"))
