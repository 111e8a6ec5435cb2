"""The page that ``churnlab report`` writes: from an empty store, a full one, and for odd names."""

import re
import shlex
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest

from support.running import (
    SMALL_SEGMENTS,
    THREE_SEGMENTS,
    Ended,
    artifact,
    churnlab_at,
    version_folder,
)

pytestmark = pytest.mark.slow

ROWS = ("dataset.rows=600",)
TRAINED = (*ROWS, "evaluation.folds=3")
FOREST = (
    *("model=random_forest", "+model.estimator.max_depth=3"),
    "model.estimator.n_estimators=20",
)


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
    """The text of a page and the addresses that it would fetch."""

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


class Pages(NamedTuple):
    """The pages of one store as it fills, the refused calls, and the result lines by name."""

    empty: Page
    full: Page
    later: Page
    twin: Page
    bank_early: Page
    bank: Page
    lost: Page
    suspect: Page
    replaced: Ended
    refused: dict[str, Ended]
    lines: dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def pages(shared_home, client_at) -> Pages:
    folder = shared_home.parent / "my pages"
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

    def done(run, name: str, *words: str) -> None:
        ended = run(*words)
        assert ended.code == 0, ended.err
        lines[name] = ended.line

    def page(run, name: str, *words: str) -> Page:
        done(run, name, "report", f"output='{folder / name}'", *words)
        return Page((folder / name).read_text(encoding="utf-8"))

    lines: dict[str, dict[str, Any]] = {}
    run = churnlab_at(shared_home)
    empty = page(run, "empty.html", *TRAINED)
    for name, words in {
        "explore": ("explore", *ROWS),
        "train": ("train", *TRAINED, *FOREST),
        "rival": ("train", *TRAINED, "model=dummy"),
        "segment": ("segment", *ROWS, *THREE_SEGMENTS),
        "promote": ("promote", *TRAINED, "reason='a try with <em>emphasis</em>'"),
    }.items():
        done(run, name, *words)
    full = page(run, "full.html", *TRAINED)
    done(run, "twin", "train", *TRAINED, *FOREST)
    twin = page(run, "twin.html", *TRAINED)
    done(run, "tune", "tune", *TRAINED, "features=behaviour", "tune.n_trials=2")
    later = page(run, "later.html", *TRAINED)
    suspect = page(run, "suspect.html", *TRAINED, "ceiling.cv_roc_auc=0.6")
    done(run, "default output", "report", *TRAINED)
    replaced = run("report", "dataset.rows=500")
    done(run, "default output again", "report", *TRAINED)
    done(run, "bank explored", "explore", *bank_words)
    bank_early = page(run, "bank early.html", *bank_words)
    done(run, "bank", "segment", "segments=all", "playbook=any", *SMALL_SEGMENTS, *bank_words)
    client = client_at(shared_home)  # a champion registered without churnlab promote
    client.create_registered_model("bank-churn")
    made = client.create_model_version(
        "bank-churn", client.get_model_version_download_uri("demo-churn", "1")
    )
    client.set_registered_model_alias("bank-churn", "champion", made.version)
    bank = page(run, "bank.html", *bank_words)
    refused = {
        output: run("report", *ROWS, f"output={output}")
        for output in ("report.pdf", "nowhere/report.html")
    }
    (version_folder(client, "demo-churn", "1") / "artifacts" / "churn.skops").unlink()
    lost = page(run, "lost.html", *TRAINED)
    assert {path.name for path in folder.iterdir()} == {
        *("bank <x>.csv", "bank early.html", "bank.html", "empty.html", "full.html"),
        *("later.html", "lost.html", "suspect.html", "twin.html"),
    }
    return Pages(
        empty, full, later, twin, bank_early, bank, lost, suspect, replaced, refused, lines
    )


def test_a_model_that_is_too_good_to_be_true_is_marked_and_is_not_the_best(pages):
    assert "suspect" not in pages.later.text
    marks = pages.suspect.all("span", **{"class": "under no"})
    assert len(marks) == 2, "the forest and the tuned one, but not the dummy"
    assert "The best there is, dummy (raw features)" in pages.suspect.text
    assert "there is no other model that is not suspect on this table" in pages.suspect.text
    assert "the best logistic" not in pages.suspect.text
    assert "A suspect score is too good to be true" in pages.suspect.text


def test_a_page_about_other_rows_takes_no_place_without_a_word(pages):
    assert pages.replaced.code == 0
    default = pages.lines["default output"]["path"]
    assert f"warning: {default} was a page about another table or other rows" in pages.replaced.err
    assert pages.replaced.line["warnings"] == 1
    assert pages.lines["default output"]["warnings"] == 0
    assert pages.lines["default output again"]["warnings"] == 1


def test_a_missing_part_is_named_with_the_command_that_makes_it(pages):
    text = pages.empty.text
    for missing in (
        "has not been explored",
        "No model has been trained",
        "not been divided",
        "No version of demo-churn",
    ):
        assert missing in text
    assert {command.split()[1] for command in pages.empty.commands()} == {
        "explore",
        "train",
        "segment",
        "promote",
    }
    assert not pages.empty.all("img")


def test_the_commands_on_a_page_name_the_same_table_and_only_keys_they_have(pages):
    named = {command.split()[1]: shlex.split(command)[2:] for command in pages.empty.commands()}
    assert all("dataset.rows=600" in words for words in named.values())
    assert "evaluation.folds=3" in named["train"]
    assert "evaluation.folds=3" not in named["segment"]
    assert not any(word.startswith("output=") for words in named.values() for word in words)


def test_a_page_fetches_nothing(pages):
    for page in (pages.empty, pages.full, pages.later):
        assert not [
            tag
            for tag, _ in page.tags
            if tag in ("script", "link", "iframe", "a", "object", "base")
        ]
        assert all(image["src"].startswith("data:image/png;base64,") for image in page.all("img"))
        assert all(image["alt"] for image in page.all("img"))
        assert not re.search(r"url\(|@import|https?://", page.html)
    assert len(pages.full.all("img")) == 8


def test_each_short_id_is_a_run_of_the_store_and_is_listed_in_full(pages, shared_home, runs_at):
    known = {run.info.run_id for run in runs_at(shared_home)}
    shown = {
        (span["title"] or "").removeprefix("run ")
        for span in pages.full.all("span", **{"class": "run"})
    }
    named = {run_id for run_id in shown if len(run_id) == 32}
    assert {
        pages.lines[name]["run_id"] for name in ("explore", "train", "rival", "segment", "promote")
    } == named
    assert named <= known
    assert all(run_id in pages.full.text for run_id in {*named, pages.lines["full.html"]["run_id"]})


def test_the_numbers_are_those_of_the_runs(pages):
    text, lines = pages.full.text, pages.lines
    train, segments = lines["train"], lines["segment"]["segments"]
    assert f"{lines['explore']['churn_rate']:.1%}" in text
    assert (
        f"a cross-validated log loss of {train['cv_log_loss']:.4f}; in cross-validation it is "
        "better than the dummy" in text
    )
    assert "Avg class frequency current month, known only close to churn" in text
    assert (
        f"{train['test_roc_auc']:.1%} of the pairs (95% CI {train['test_roc_auc_low']:.1%} to"
        in text
    )
    assert re.search(
        r"percentage points on average, where a perfectly calibrated model would show \d+\.\d on "
        r"as many members: .*?\. Calibration: (none|isotonic|sigmoid), ",
        text,
    )
    for segment in segments:
        assert f"{segment['name']}" in text
        assert f"{segment['churn_rate']:.1%}" in text
    assert f"{lines['rival']['test_accuracy']:.1%}" in text


def test_the_champion_is_described_with_its_gate_and_reason_and_as_the_recommended_model(pages):
    text = pages.full.text
    assert "demo-churn version 1" in text
    assert "a try with <em>emphasis</em>" in text
    assert not pages.full.all("em")
    assert "served equals trained" in text
    assert "and uses the recommended model: score the members" in text
    assert [command for command in pages.full.commands() if command.startswith("churnlab score ")]


def test_the_champions_model_is_the_recommended_one_also_after_it_was_trained_again(pages):
    assert pages.lines["twin"]["run_id"] in pages.twin.text
    assert "and uses the recommended model: score the members" in pages.twin.text
    assert "does not use the recommended model" not in pages.twin.text


def test_a_champion_without_files_is_not_advised_for_scoring(pages):
    said = "but it cannot score anybody: it has lost its files: artifacts/churn.skops"
    assert said in pages.lost.text
    commands = [command.split()[1] for command in pages.lost.commands()]
    assert "doctor" in commands
    assert "score" not in commands


def test_the_command_that_segments_a_table_of_ones_own_fits_it(pages):
    commands = [found for found in pages.bank_early.commands() if " segment " in found]
    assert commands
    assert all(command.endswith("segments=all playbook=any") for command in commands)


def test_a_better_model_is_recommended_and_not_called_the_champion(pages):
    text = pages.later.text
    assert "The recommended model is logistic regression (behaviour features, tuned)" in text
    assert "better than the random forest (raw features)" in text
    assert "but does not use the recommended model: let the gate decide" in text
    assert "No model has been tuned yet" in pages.full.text
    assert "No model has been tuned yet" not in text
    assert [
        command for command in pages.later.commands() if command.startswith("churnlab promote ")
    ]


def test_the_page_is_an_artifact_of_the_run_too(pages, shared_home, runs_at):
    runs = {run.info.run_id: run for run in runs_at(shared_home, command="report")}
    line = pages.lines["full.html"]
    assert set(line) == {"command", "run_id", "version", "path", "warnings"}
    run = runs[line["run_id"]]
    assert run.info.status == "FINISHED"
    assert run.data.tags["churnlab.version"] == line["version"] == pages.lines["promote"]["version"]
    assert pages.lines["empty.html"]["version"] is None
    assert artifact(run, "report.html").read_text(encoding="utf-8") == Path(line["path"]).read_text(
        encoding="utf-8"
    )


def test_without_an_output_key_the_page_is_in_the_folder_outputs(pages, shared_home):
    assert pages.lines["default output"]["path"] == str(
        shared_home / "outputs" / "report-demo.html"
    )
    assert (shared_home / "outputs" / "report-demo.html").stat().st_size > 5000


def test_an_output_that_cannot_be_a_page_is_refused_before_any_work(pages, shared_home, runs_at):
    for output, complaint in {
        "report.pdf": "ends in .html",
        "nowhere/report.html": "create it first",
    }.items():
        assert pages.refused[output].code == 2
        assert complaint in pages.refused[output].err
        assert pages.refused[output].err.count("\n") == 1
    assert len(runs_at(shared_home, command="report")) == 11


def test_names_of_another_table_are_text_and_never_markup(pages, shared_home):
    page = pages.bank
    assert not [tag for tag, _ in page.tags if tag in ("i", "u", "x")]
    assert len(page.all("b")) == 5  # the topics of the five sentences
    for name in ("Fee & <i>more</i>", "Plan = <b>gold</b>", "extra <u>", "bank <x>.csv"):
        assert name in page.text
    train = next(command for command in page.commands() if command.startswith("churnlab train "))
    assert f"--config-dir {shared_home.parent / 'conf'}" in train


def test_a_champion_registered_by_hand_is_left_out_with_a_warning(pages):
    assert "No version of bank-churn is promoted yet" in pages.bank.text
    assert pages.lines["bank.html"]["warnings"] > pages.lines["bank explored"]["warnings"]
