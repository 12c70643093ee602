"""The documentation's links lead somewhere, and every page can be found from the README."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import pages


@pytest.mark.parametrize("page", pages.pages(), ids=pages.name_of)
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for link in pages.links(page):
        path, _, anchor = link.partition("#")
        if "://" in path:
            continue
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in pages.anchors(target)):
            broken.append(link)
    assert broken == []


def test_the_readme_names_every_page() -> None:
    readme = pages.ROOT / "README.md"
    named = {(readme.parent / link.partition("#")[0]).resolve() for link in pages.links(readme)}
    assert [pages.name_of(page) for page in pages.pages() if page.parent.name == "docs" and page not in named] == []


def test_every_decision_has_its_number() -> None:
    numbers = [page.name[:4] for page in pages.pages() if page.parent.name == "decisions"]
    assert numbers == sorted(set(numbers)) and all(number.isdecimal() for number in numbers)


def test_blocks_and_their_commands(tmp_path: Path) -> None:
    page = pages.ROOT / "docs" / "beyond-docker.md"
    found = [block for block in pages.blocks(page) if block.lines[0].startswith("corral port add")]
    assert [block.commands for block in found] == [
        ["corral port add web 8080:80 127.0.0.1:5353:53/udp", "corral port rm web 8080 5353/udp"]
    ]
