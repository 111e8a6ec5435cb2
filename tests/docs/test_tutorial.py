"""The tutorial, typed command by command: each works, and shows what the page says it shows."""

from pathlib import Path

import pytest

from support.pages import ROOT, blocks, commands
from support.reader import not_shown, reading

pytestmark = pytest.mark.slow

TUTORIAL = ROOT / "docs" / "tutorial.md"


def test_the_tutorial_runs_and_shows_what_it_says(tmp_path: Path) -> None:
    output, compared, wrong = "", 0, []
    with reading(tmp_path / "home") as reader:
        for block in blocks(TUTORIAL, "sh", "text"):
            if block.language == "text":
                compared += 1
                if (missing := not_shown(block.text, output)) is not None:
                    wrong.append(f"{block.place}: not shown: {missing}\n\n{output}")
                continue
            output = ""
            for command in commands(block):
                ended = reader.run(command)
                assert ended.code == 0, f"{block.place}: {command}\n{ended.output}"
                output += ended.output
    assert not wrong, "\n".join(wrong)
    assert compared >= 8


@pytest.mark.parametrize(
    ("documented", "output", "missing"),
    [
        ("a 1.00 b\n", "a  1.001 b\n", None),
        ("a 1.00 b\n", "a 1.5 b\n", "a 1.00 b"),
        ("a 1.00 b\n", "c\na 1.00 b\n", "a 1.00 b"),
        ("...\na 1.00 b\n", "c\n\na 1.00 b\n", None),
        ("a ... z\n...\n", "a b c z\nmore\n", None),
        ("a ... z\n", "a b c z\nmore\n", "(nothing more, but there is) more"),
        ('{"id": "...", "n": 4000}\n', '{"id": "1f3c", "n": 4000}\n', None),
        ("4,000 left\n", "2,000 left\n", "4,000 left"),
    ],
)
def test_a_documented_line_that_is_not_shown_is_named(
    documented: str, output: str, missing: str | None
) -> None:
    assert not_shown(documented, output) == missing
