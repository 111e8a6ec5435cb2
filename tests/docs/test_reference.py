"""The reference is generated: what stands in docs/reference/ is what the code and conf/ say now."""

import importlib.util
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def made():
    spec = importlib.util.spec_from_file_location("make_reference", DOCS / "make_reference.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_reference_is_up_to_date(made):
    written = {path.name: path.read_text() for path in (DOCS / "reference").glob("*.md")}
    assert written == made.pages(), "run make docs"


def test_every_tag_artifact_metric_and_exit_code_has_a_meaning(made):
    for page in ("tags.md", "artifacts.md", "metrics.md", "exit-codes.md"):
        rows = made.pages()[page].splitlines()[6:]
        assert len(rows) >= 6
        assert all(len(row.split("|")[2].strip()) > 1 for row in rows if row)


def test_every_choice_of_every_group_says_what_it_is(made):
    groups = made.pages()["keys.md"].partition("## Groups")[2]
    rows = [row for row in groups.splitlines() if row.startswith("| `")]
    assert len(rows) > 20
    assert [row for row in rows if row.endswith("|  |")] == []
