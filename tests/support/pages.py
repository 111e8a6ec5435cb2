"""Read the pages of the documentation: blocks, the commands in them, prose, links, headings.

A fenced ``sh`` block holds commands, a ``text`` block the output of the commands above it, and a
``yaml`` block that opens with ``# my_conf/...`` is that file.
"""

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
OUTSIDE = (
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "experiments/README.md",
    "benchmarks/README.md",
)
PAGES = [*(ROOT / page for page in OUTSIDE), *sorted((ROOT / "docs").rglob("*.md"))]

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"`[^`\n]+`")
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ +(.+)$", re.MULTILINE)
HERE_DOCUMENT = re.compile(r"<<'(\w+)'")
FILE = re.compile(r"(?:# @package _global_\n)?# (my_conf/\S+\.yaml)")


class Block(NamedTuple):
    """A fenced block, its language, and where it opens."""

    page: Path
    line: int
    language: str
    text: str

    @property
    def place(self) -> str:
        """Return page and line, as an editor opens them."""
        return f"{name(self.page)}:{self.line}"


def name(page: Path) -> str:
    """Return the path of a page within the project."""
    return str(page.relative_to(ROOT))


def blocks(page: Path, *languages: str) -> list[Block]:
    """Return the fenced blocks of a page in order; with ``languages``, only theirs."""
    text = page.read_text(encoding="utf-8")
    found = [
        Block(page, text.count("\n", 0, match.start()) + 1, match[1], match[2])
        for match in FENCE.finditer(text)
    ]
    return [block for block in found if not languages or block.language in languages]


def commands(block: Block) -> list[str]:
    """Return the commands of an sh block: one a line, or a continued line or here-document."""
    found, rest = [], iter(block.text.splitlines())
    for line in rest:
        while line.endswith("\\"):
            line = line[:-1] + next(rest).lstrip()
        if here := HERE_DOCUMENT.search(line):
            for more in rest:
                line += f"\n{more}"
                if more == here[1]:
                    break
        if line.strip() and not line.startswith("#"):
            found.append(line)
    return found


def prose(page: Path) -> str:
    """Return a page without fenced blocks and inline code; lines keep their numbers."""
    text = page.read_text(encoding="utf-8")
    return CODE.sub("", FENCE.sub(lambda match: "\n" * match[0].count("\n"), text))


def links(page: Path) -> list[str]:
    """Return the targets of the relative links and images of a page."""
    return [target for target in LINK.findall(prose(page)) if "://" not in target]


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    titles = HEADING.findall(FENCE.sub("", page.read_text(encoding="utf-8")))
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
