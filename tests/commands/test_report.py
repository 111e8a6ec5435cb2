"""The page that ``churnlab report`` writes: from an empty store, from a full one, and of a table
with odd names."""

import re
import shlex
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest

from support.running import SMALL_SEGMENTS, THREE_SEGMENTS, Ended, artifact, opened

pytestmark = pytest.mark.slow

ROWS = ("dataset.rows=600",)
TRAINED = (*ROWS, "evaluation.folds=3")


BANK = """\
name: bank
path: ???
target: gone
positive: "yes"
id: null
columns:
  "Fee & <i>more</i>": {kind: numeric, min: 0}
  Plan: {kind: category, values: ["<b>gold</b>", "a & b", plain]}
  Balance: {kind: numeric}
  same: {kind: numeric}
rules: {}
late: []
"""


def bank_table(n: int) -> pd.DataFrame:
    """Customers whose columns and plans have names that are markup."""
    random = np.random.default_rng(0)
    fee, plan = random.gamma(2, 5, n), random.choice(["<b>gold</b>", "a & b", "plain"], n)
    gone = np.where(random.random(n) < 1 / (1 + np.exp(-(fee - 10) / 4)), "yes", "no")
    table = pd.DataFrame(
        {"Fee & <i>more</i>": fee, "Plan": plan, "Balance": random.normal(size=n), "same": 1.0}
    )
    return table.assign(gone=gone, **{"extra <u>": 1})


class Page(HTMLParser):
    """What a page says and what it would fetch."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.html, self.tags, self.pieces = html, [], []
        self.feed(html)
        self.text = " ".join(" ".join(self.pieces).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.pieces.append(data)

    def all(self, tag: str, **wanted: str) -> list[dict[str, str | None]]:
        return [
            found for name, found in self.tags if name == tag and wanted.items() <= found.items()
        ]

    def commands(self) -> list[str]:
        return [
            re.sub(r"&#39;", "'", code)
            for code in re.findall(r'<code class="command">(.*?)</code>', self.html)
        ]


class Told(NamedTuple):
    """The pages of one store as it fills, what was refused, and the result lines of what filled it."""

    empty: Page
    full: Page
    later: Page
    bank: Page
    refused: dict[str, Ended]
    lines: dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def told(shared_home, client_at) -> Told:
    folder = shared_home.parent / "pages of mine"
    folder.mkdir()

    conf = shared_home.parent / "conf"
    (conf / "dataset").mkdir(parents=True)
    (conf / "dataset" / "bank.yaml").write_text(BANK, encoding="utf-8")
    bank_table(300).to_csv(folder / "bank <x>.csv", index=False)
    bank_words = (
        "--config-dir",
        str(conf),
        "dataset=bank",
        f"dataset.path='{folder / 'bank <x>.csv'}'",
    )

    def done(ask, name: str, *words: str) -> None:
        ended = ask(*words)
        assert ended.code == 0, ended.err
        lines[name] = ended.line

    def page(ask, name: str, *words: str) -> Page:
        done(ask, name, "report", f"output='{folder / name}'", *words)
        return Page((folder / name).read_text(encoding="utf-8"))

    lines: dict[str, dict[str, Any]] = {}
    with opened(shared_home) as ask:
        empty = page(ask, "empty.html", *TRAINED)
        for name, words in {
            "explore": ("explore", *ROWS),
            "train": ("train", *TRAINED, "model=random_forest", "+model.estimator.max_depth=3"),
            "rival": ("train", *TRAINED, "model=dummy"),
            "segment": ("segment", *ROWS, *THREE_SEGMENTS),
            "promote": ("promote", *TRAINED, "reason='a try with <em>emphasis</em>'"),
        }.items():
            done(ask, name, *words)
        full = page(ask, "full.html", *TRAINED)
        done(ask, "tune", "tune", *TRAINED, "features=behaviour", "tune.n_trials=2")
        later = page(ask, "later.html", *TRAINED)
        done(ask, "nowhere said", "report", *TRAINED)
        done(ask, "bank explored", "explore", *bank_words)
        done(ask, "bank", "segment", "segments=all", "playbook=any", *SMALL_SEGMENTS, *bank_words)
        client = client_at(shared_home)  # a champion that no promotion has made
        client.create_registered_model("bank-churn")
        made = client.create_model_version(
            "bank-churn", client.get_model_version_download_uri("demo-churn", "1")
        )
        client.set_registered_model_alias("bank-churn", "champion", made.version)
        bank = page(ask, "bank.html", *bank_words)
        refused = {
            output: ask("report", *ROWS, f"output={output}")
            for output in ("report.pdf", "nowhere/report.html")
        }
    assert {path.name for path in folder.iterdir()} == {
        *("bank <x>.csv", "bank.html", "empty.html", "full.html", "later.html")
    }
    return Told(empty, full, later, bank, refused, lines)


def test_what_has_not_been_done_is_said_with_the_command_that_does_it(told):
    text = told.empty.text
    for missing in (
        "has not been looked at",
        "No model has been trained",
        "not been divided",
        "No version of demo-churn",
    ):
        assert missing in text
    assert {command.split()[1] for command in told.empty.commands()} == {
        "explore",
        "train",
        "segment",
        "promote",
    }
    assert not told.empty.all("img")


def test_the_commands_on_a_page_name_the_same_table_and_only_keys_they_have(told):
    named = {command.split()[1]: shlex.split(command)[2:] for command in told.empty.commands()}
    assert all("dataset.rows=600" in words for words in named.values())
    assert "evaluation.folds=3" in named["train"]
    assert "evaluation.folds=3" not in named["segment"]
    assert not any(word.startswith("output=") for words in named.values() for word in words)


def test_a_page_fetches_nothing(told):
    for page in (told.empty, told.full, told.later):
        assert not [
            tag
            for tag, _ in page.tags
            if tag in ("script", "link", "iframe", "a", "object", "base")
        ]
        assert all(image["src"].startswith("data:image/png;base64,") for image in page.all("img"))
        assert all(image["alt"] for image in page.all("img"))
        assert not re.search(r"url\(|@import|https?://", page.html)
    assert len(told.full.all("img")) == 8


def test_each_short_id_is_a_run_of_the_store_and_is_listed_in_full(told, shared_home, runs_at):
    known = {run.info.run_id for run in runs_at(shared_home)}
    shown = {
        (span["title"] or "").removeprefix("run ")
        for span in told.full.all("span", **{"class": "run"})
    }
    named = {run_id for run_id in shown if len(run_id) == 32}
    assert {
        told.lines[name]["run_id"] for name in ("explore", "train", "rival", "segment", "promote")
    } == named
    assert named <= known
    assert all(run_id in told.full.text for run_id in {*named, told.lines["full.html"]["run_id"]})


def test_the_numbers_are_those_of_the_runs(told):
    text, lines = told.full.text, told.lines
    train, segments = lines["train"], lines["segment"]["segments"]
    assert f"{lines['explore']['churn_rate']:.1%}" in text
    assert (
        f"a cross-validated log loss of {train['cv_log_loss']:.4f}, better than the best dummy"
        in text
    )
    assert (
        f"{train['test_roc_auc']:.1%} of the pairs (95% interval {train['test_roc_auc_low']:.1%} to"
        in text
    )
    assert re.search(r"percentage points on average\. Calibration: (none|isotonic|sigmoid), ", text)
    for segment in segments:
        assert f"{segment['name']}" in text
        assert f"{segment['churn_rate']:.1%}" in text
    assert f"{lines['rival']['test_accuracy']:.1%}" in text


def test_the_champion_is_told_with_its_gate_and_reason_and_as_the_recommended_model(told):
    text = told.full.text
    assert "demo-churn version 1" in text
    assert "a try with <em>emphasis</em>" in text
    assert not told.full.all("em")
    assert "served equals trained" in text
    assert "made of the recommended model: score the members" in text
    assert [command for command in told.full.commands() if command.startswith("churnlab score ")]


def test_a_better_model_is_recommended_and_not_called_the_champion(told):
    text = told.later.text
    assert "The recommended model is logistic regression (behaviour features, tuned)" in text
    assert "better than the best random forest (raw features)" in text
    assert "but not made of the recommended model: let the gate decide" in text
    assert "No model has been tuned yet" in told.full.text
    assert "No model has been tuned yet" not in text
    assert [command for command in told.later.commands() if command.startswith("churnlab promote ")]


def test_the_page_is_an_artifact_of_the_run_too(told, shared_home, runs_at):
    runs = {run.info.run_id: run for run in runs_at(shared_home, command="report")}
    line = told.lines["full.html"]
    assert set(line) == {"command", "run_id", "path", "warnings"}
    run = runs[line["run_id"]]
    assert run.info.status == "FINISHED"
    assert artifact(run, "report.html").read_text(encoding="utf-8") == Path(line["path"]).read_text(
        encoding="utf-8"
    )


def test_without_an_output_the_page_is_among_the_outputs(told, shared_home):
    assert told.lines["nowhere said"]["path"] == str(shared_home / "outputs" / "report-demo.html")
    assert (shared_home / "outputs" / "report-demo.html").stat().st_size > 5000


def test_a_place_where_no_page_can_be_is_refused_before_any_work(told, shared_home, runs_at):
    for output, complaint in {
        "report.pdf": "ends in .html",
        "nowhere/report.html": "make it first",
    }.items():
        assert told.refused[output].code == 2
        assert complaint in told.refused[output].err
        assert told.refused[output].err.count("\n") == 1
    assert len(runs_at(shared_home, command="report")) == 5


def test_names_of_another_table_are_text_and_never_markup(told, shared_home):
    page = told.bank
    assert not [tag for tag, _ in page.tags if tag in ("i", "u", "x")]
    assert len(page.all("b")) == 5  # what the five sentences are about
    for name in ("Fee & <i>more</i>", "Plan = <b>gold</b>", "extra <u>", "bank <x>.csv"):
        assert name in page.text
    train = next(command for command in page.commands() if command.startswith("churnlab train "))
    assert f"--config-dir {shared_home.parent / 'conf'}" in train


def test_a_champion_made_by_hand_is_warned_of_and_the_page_is_without_it(told):
    assert "No version of bank-churn is promoted yet" in told.bank.text
    assert told.lines["bank.html"]["warnings"] > told.lines["bank explored"]["warnings"]
