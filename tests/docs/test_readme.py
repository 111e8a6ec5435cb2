"""README: its commands run in order, and its results are those of make run."""

import re
import shlex
from pathlib import Path

import pandas as pd
import pytest

from support.pages import ROOT, blocks, commands
from support.reader import reading
from support.running import THREE_SEGMENTS
from support.soak import SOAK

pytestmark = pytest.mark.slow

README = ROOT / "README.md"
FEW = ("dataset.rows=600",)
SAME = (*FEW, "evaluation.folds=3")  # runs are ranked within equal folds
LESS = {
    "explore": FEW,
    "train": SAME,
    "compare": SAME,
    "tune": (*SAME, "tune.n_trials=2"),
    "segment": (*FEW, *THREE_SEGMENTS),
    "promote": SAME,
    "score": (),
    "serve": (),
}
"""What makes a command of README quick; the command itself stays."""

MEMBERS = """\
gender,Near_Location,Partner,Promo_friends,Phone,Contract_period,Group_visits,Age,Avg_additional_charges_total,\
Month_to_end_contract,Lifetime,Avg_class_frequency_total,Avg_class_frequency_current_month
1,1,0,0,1,1,0,26,90.5,1,2,1.7,1.5
"""
"""The file that make run leaves in outputs/."""


def quick(command: str) -> str:
    """Return a churnlab command with fewer rows and less effort, any other command unchanged."""
    words = shlex.split(command)
    if words[0] != "churnlab":
        return command
    less = LESS[words[1]]
    keys = [word.partition("=")[0] for word in less]
    return shlex.join([*(word for word in words if word.partition("=")[0] not in keys), *less])


def test_the_commands_of_readme_run_in_order(tmp_path: Path) -> None:
    home = tmp_path / "home"
    (home / "outputs").mkdir(parents=True)
    (home / "outputs" / "demo-members.csv").write_text(MEMBERS, encoding="utf-8")
    with reading(home) as reader:
        for block in blocks(README, "sh"):
            for command in commands(block):
                ended = reader.run(quick(command))
                assert ended.code == 0, f"{block.place}: {command}\n{ended.output}"
        assert (home / "scored.csv").read_text(encoding="utf-8").count("\n") == 2
        (notebook,) = blocks(README, "python")
        *lines, last = notebook.text.splitlines()
        shown = f"print(({last})['churn_probability'].item())"  # a notebook shows the last line
        (home / "notebook.py").write_text("\n".join([*lines, shown]), encoding="utf-8")
        ended = reader.run("python notebook.py 2> /dev/null")
    scored = pd.read_csv(home / "scored.csv")
    assert ended.code == 0, f"{notebook.place}\n{ended.output}"
    assert float(ended.output) == scored["churn_probability"].item()


@pytest.mark.skipif(not SOAK, reason="the long form: make soak")
def test_the_results_in_readme_are_those_of_make_run(tmp_path: Path) -> None:
    with reading(tmp_path / "home") as reader:
        ended = reader.run("churnlab pipeline")
    assert ended.code == 0, ended.output
    (best,) = blocks(README, "text")
    assert best.text in ended.output, f"{best.place}: not shown in\n\n{ended.output}"
    rows = re.findall(
        r"^\| .+? \| ([\d,]+) \| ([\d.]+%) \|", README.read_text(encoding="utf-8"), re.MULTILINE
    )
    assert len(rows) == 4
    for members, left in rows:
        assert f"{members} members, {left} churned: " in ended.output
