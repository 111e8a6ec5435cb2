"""All other documented commands compose with dry_run=true, and in the long form they really run.

A page is complete: the YAML files that it shows are written where it says, in its order.
"""

import csv
import random
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from churnlab.data.demo import members
from support.pages import FILE, PAGES, ROOT, Block, blocks, commands, name
from support.reader import Ended, Reader, reading
from support.soak import SOAK

pytestmark = pytest.mark.slow

REFERENCE = ROOT / "docs" / "reference"
NEEDS_A_SERVER = ROOT / "docs" / "how-to" / "where-runs-are-kept.md"
SAYS_HOW_TO_MEASURE = ROOT / "docs" / "explanation" / "how-sure.md"
"""Its commands take hours, and make soak, which runs this file, is one of them."""
TEAM = ROOT / "docs" / "how-to" / "team.md"
RUN_BY_OTHER_TESTS = {ROOT / "README.md", ROOT / "docs" / "tutorial.md", TEAM}
WITH_COMMANDS = [page for page in PAGES if page not in RUN_BY_OTHER_TESTS and blocks(page, "sh")]
NOT_RUN = {NEEDS_A_SERVER, SAYS_HOW_TO_MEASURE}
REALLY_RUN = [
    page
    for page in WITH_COMMANDS
    if page.parent.name in ("how-to", "explanation") and page not in NOT_RUN
]
MAY_REFUSE = {"promote", "rollback", "doctor", "pipeline"}
"""Commands whose answer may be no: exit code 3."""

INLINE = re.compile(r"`(churnlab \w[^`]*)`")


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    """One process for all pages; each page has a folder of its own."""
    with reading(tmp_path_factory.mktemp("pages")) as reading_all:
        yield reading_all


def write(block: Block, folder: Path) -> None:
    """Write the file that a yaml block is; other blocks are excerpts."""
    if match := FILE.match(block.text):
        path = folder / match[1]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block.text, encoding="utf-8")


def dry(command: str) -> str:
    """The command that only shows what would be run."""
    words = shlex.split(command, comments=True)
    return shlex.join(words if "--help" in words else [*words, "dry_run=true"])


@pytest.mark.parametrize("page", WITH_COMMANDS, ids=name)
def test_the_commands_of_a_page_compose(reader: Reader, tmp_path: Path, page: Path) -> None:
    reader.folder = tmp_path
    if page.parent == REFERENCE:  # its commands use the files that other pages show
        for block in (block for other in WITH_COMMANDS for block in blocks(other, "yaml")):
            write(block, tmp_path)
    for block in blocks(page, "sh", "yaml"):
        if block.language == "yaml":
            write(block, tmp_path)
            continue
        for command in commands(block):
            if command.startswith("churnlab "):
                ended = reader.run(dry(command))
                assert ended.code == 0, f"{block.place}: {command}\n{ended.output}"


def test_the_commands_of_the_experiments_compose(reader: Reader, tmp_path: Path) -> None:
    reader.folder = tmp_path
    page = (ROOT / "experiments" / "README.md").read_text(encoding="utf-8")
    found = [command for command in INLINE.findall(page) if "COMMAND" not in command]
    assert len(found) >= 7
    for command in found:
        ended = reader.run(dry(command))
        assert ended.code == 0, f"{command}\n{ended.output}"


def clients(folder: Path, file: str, *, rows: int, target: bool) -> None:
    """Write a table of a bank's clients, who leave by age, activity and country."""
    draw = random.Random(rows)
    header = [
        "CustomerId",
        "Age",
        "Balance",
        "IsActiveMember",
        "Country",
        *(["Exited"] if target else []),
    ]
    with (folder / file).open("w", encoding="utf-8", newline="") as out:
        table = csv.writer(out)
        table.writerow(header)
        for row in range(rows):
            age, active = min(max(round(draw.gauss(40, 12)), 18), 90), draw.randrange(2)
            balance = draw.choice([0, round(draw.gammavariate(2, 30_000), 2)])
            country = draw.choice(["France", "France", "Germany", "Spain"])
            leaves = draw.random() < 0.1 + 0.01 * max(age - 30, 0) * (1.2 - active)
            table.writerow(
                [
                    15_600_000 + row,
                    age,
                    balance,
                    active,
                    country,
                    *([int(leaves)] if target else []),
                ]
            )


def run_ids(reader: Reader) -> dict[str, str]:
    """Make a champion to work with; return the ids for the pages' RUN_ID, A and B."""
    made = []
    of_a_file = "train dataset=gym dataset.path=members.csv"
    for words in (of_a_file, "train", "train features=behaviour", "segment", "promote"):
        ended = reader.run(f"churnlab {words}")
        assert ended.code == 0, ended.output
        made.append(re.findall(r'"run_id": "(\w+)"', ended.output)[-1])
    moved = "run={} dataset.path="  # only a table in a file can have moved
    return {
        moved.format("RUN_ID"): moved.format(made[0]),
        "RUN_ID": made[2],
        "[A,B]": f"[{made[1]},{made[2]}]",
    }


def really(reader: Reader, command: str, ids: dict[str, str]) -> Ended:
    """Run a command with real ids in the place of the page's, and a tenth of the trials."""
    for placeholder, run_id in ids.items():
        command = command.replace(placeholder, run_id)
    return reader.run(re.sub(r"(tune\.n_trials=\d+)0\b", r"\1", command))


@pytest.mark.skipif(not SOAK, reason="the long form: make soak")
@pytest.mark.parametrize("page", REALLY_RUN, ids=name)
def test_the_commands_of_a_page_really_run(tmp_path: Path, page: Path) -> None:
    with reading(tmp_path / "home") as reader:
        clients(reader.folder, "clients.csv", rows=1500, target=True)
        clients(reader.folder, "next_month.csv", rows=200, target=False)
        gym = members(n=4000, seed=0)
        gym.to_csv(reader.folder / "members.csv", index=False)
        gym.drop(columns="Churn").head(50).to_csv(reader.folder / "new_members.csv", index=False)
        ids = run_ids(reader)
        for block in blocks(page, "sh", "yaml"):
            if block.language == "yaml":
                write(block, reader.folder)
                continue
            for command in commands(block):
                ended = really(reader, command, ids)
                allowed = {0, 3} if MAY_REFUSE & set(command.split()) else {0}
                assert ended.code in allowed, f"{block.place}: {command}\n{ended.output}"
