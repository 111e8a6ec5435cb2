"""The pages as text: links lead somewhere, the index is complete, the English is plain."""

import re
from pathlib import Path

import pytest

from support.pages import PAGES, ROOT, anchors, blocks, links, name, prose
from support.reader import TARGETS

BANNED = re.compile(
    r"\b(told|said|asked|mend(s|ed|ing)?|goes by|whoever|beside|of which|as it was)\b",
    re.IGNORECASE,
)
BRITISH = re.compile(
    r"\b(behaviour|colour|centre|programme|neighbour|favour|judgement|labell|"
    r"\w*(standard|normal|optim|summar|recogn|general|organ|anal|serial|minim|maxim)[iy]s(e|ed|es|ing|ation))\b",
    re.IGNORECASE,
)
MADE = re.compile(r"(?:^ *|`|; |&& )make ([a-z][a-z-]*)", re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    lost = []
    for target in links(page):
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            lost.append(target)
    assert not lost


def test_the_index_lists_every_page_of_docs() -> None:
    index = ROOT / "docs" / "README.md"
    listed = {(index.parent / target.partition("#")[0]).resolve() for target in links(index)}
    assert {page for page in index.parent.rglob("*.md") if page != index} <= listed


def test_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 120


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_a_page_is_in_plain_american_english(page: Path) -> None:
    found = [
        f"{number}: {match[0]}"
        for number, line in enumerate(prose(page).splitlines(), 1)
        for pattern in (BANNED, BRITISH)
        for match in pattern.finditer(line)
    ]
    assert not found


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_blocks_say_what_they_are(page: Path) -> None:
    """Commands, their output, or a file: a reader, and the tests, must be able to tell."""
    assert {block.language for block in blocks(page)} <= {
        "sh",
        "text",
        "yaml",
        "json",
        "python",
        "toml",
    }


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_make_target_exists(page: Path) -> None:
    assert set(MADE.findall(page.read_text(encoding="utf-8"))) <= set(TARGETS)
