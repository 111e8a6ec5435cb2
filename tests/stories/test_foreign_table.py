"""A new membership table: from `init` and one edited line to a served champion."""

import json

import mlflow
import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import make_classification

from support.pages import ROOT, blocks
from support.running import THREE_SEGMENTS, artifact, churnlab_at, tracked_at
from support.servers import post, serving

pytestmark = pytest.mark.slow

README = ROOT / "README.md"
NAMED = ("--config-dir", "my_conf", "dataset=readers")


def readers(rows: slice) -> pd.DataFrame:
    """Readers of a newspaper, drawn by scikit-learn: an id, numbers and categories with gaps, a
    date, and a leak."""
    n = 2000
    drawn, left = make_classification(
        n,
        n_features=6,
        n_informative=5,
        n_redundant=0,
        n_clusters_per_class=1,
        weights=[0.75],
        random_state=7,
    )
    rng = np.random.default_rng(7)
    table = pd.DataFrame(
        {
            "reader no": [f"R{number:06d}" for number in rng.permutation(n)],
            "age": np.clip(45 + 12 * drawn[:, 0], 18, 95).round(),
            "visits a week": np.maximum(0, 4 + 2 * drawn[:, 1]).round(2),
            "paid": np.exp(3 + 0.5 * drawn[:, 2]).round(2),
            "plan": np.array(["paper", "digital", "both"])[np.digitize(drawn[:, 3], [-0.7, 0.9])],
            "newsletter": (drawn[:, 4] > 0).astype(int),
            "since": (
                pd.Timestamp("2021-03-01") + pd.to_timedelta(rng.integers(0, 900, n), unit="D")
            ).astype("str"),
            "refund": np.where(left == 1, rng.normal(20, 2, n), 0).round(2),
            "churned": np.where(left == 1, "yes", "no"),
        }
    )
    for name, share in {"age": 0.08, "plan": 0.05, "newsletter": 0.03}.items():
        table.loc[rng.random(n) < share, name] = None
    return table.iloc[rows]


@pytest.fixture(scope="module")
def churnlab(shared_home):
    """Return what runs commands in the folder of the tables."""
    readers(slice(1500)).to_csv(shared_home.parent / "readers.csv", index=False)
    return churnlab_at(shared_home)


@pytest.fixture(scope="module")
def road(churnlab, shared_home):
    """The result lines of init, train, segment and promote, one line of the YAML edited after the
    first."""
    lines = {"init": succeed(churnlab, "init", "readers.csv")}
    draft = shared_home.parent / "my_conf/dataset/readers.yaml"
    text = draft.read_text(encoding="utf-8")
    assert "late: []" in text
    draft.write_text(text.replace("late: []", "late: [visits a week]"), encoding="utf-8")
    lines["train"] = succeed(churnlab, "train", *NAMED, "evaluation.folds=3")
    lines["segment"] = succeed(
        churnlab, "segment", *NAMED, "segments=all", "playbook=any", *THREE_SEGMENTS
    )
    lines["promote"] = succeed(churnlab, "promote", *NAMED, "evaluation.folds=3")
    return lines


def succeed(churnlab, *words):
    ended = churnlab(*words)
    assert ended.code == 0, ended.err
    return ended.line


def test_the_draft_leaves_out_what_no_model_may_use(road):
    assert (road["init"]["target"], road["init"]["id"]) == ("churned", "reader no")
    assert set(road["init"]["left_out"]) == {"refund"}


def test_every_run_reports_missing_values_and_columns_left_out(road, shared_home, client_at):
    for command in ("train", "segment", "promote"):
        run = client_at(shared_home).get_run(road[command]["run_id"])
        report = json.loads(artifact(run, "data_report.json").read_text())
        assert report["rows"] == 1500
        assert set(report["missing"]) == {"age", "plan", "newsletter"}
        # The result line counts those of the segmentation and of the gate, too.
        assert road[command]["warnings"] >= len(report["warnings"]) >= 2
        assert "age (" in report["warnings"][1]


def test_the_model_beats_a_guess_and_the_early_one_does_not_use_the_late_column(
    churnlab, road, shared_home, client_at
):
    assert road["train"]["cv_roc_auc"] > 0.8
    early = succeed(churnlab, "train", *NAMED, "evaluation.folds=3", "features=early")
    used = [
        set(
            pd.read_csv(
                artifact(client_at(shared_home).get_run(line["run_id"]), "coefficients.csv")
            )["feature"]
        )
        for line in (road["train"], early)
    ]
    assert used[0] - used[1] == {"visits a week"}


def test_it_is_promoted_and_scores_next_months_file_gaps_and_all(churnlab, road, shared_home):
    assert road["promote"]["promoted"]
    next_month = readers(slice(1500, 1700)).drop(columns=["churned", "refund"])
    next_month.to_csv(shared_home.parent / "next.csv", index=False)
    line = succeed(
        churnlab, "score", *NAMED, "input=next.csv", "output=scored.csv", "score.reasons=true"
    )
    assert line["rows"] == 200
    scored = pd.read_csv(shared_home.parent / "scored.csv")
    assert scored["churn_probability"].between(0, 1).all()
    assert scored["reader no"].tolist() == next_month["reader no"].tolist()
    assert scored["segment_name"].notna().all()


def test_the_notebook_of_readme_puts_the_answers_next_to_the_members(road, shared_home):
    (notebook,) = blocks(README, "python")
    *_, last = notebook.text.splitlines()
    left_out = ["churned", "refund"]
    members = readers(slice(1500, 1540)).drop(columns=left_out).reset_index(drop=True)
    with tracked_at(shared_home):
        champion = mlflow.pyfunc.load_model("models:/readers-churn@champion")
        shown = eval(last, {"members": members, "champion": champion, "pd": pd})
    assert [name for name in shown if name in members] == list(members), "the id is there once"
    assert shown["reader no"].tolist() == members["reader no"].tolist()
    assert shown["churn_probability"].between(0, 1).all()


def test_it_is_served_and_answers_a_gap_like_score(churnlab, road, shared_home):
    table = readers(slice(1700, 1740)).drop(columns=["churned", "refund"])
    table.to_csv(shared_home.parent / "few.csv", index=False)
    succeed(churnlab, "score", *NAMED, "input=few.csv", "output=few_scored.csv")
    scored = pd.read_csv(shared_home.parent / "few_scored.csv")["churn_probability"]
    rows = json.loads(table.drop(columns="reader no").to_json(orient="records"))
    with serving(shared_home, "models:/readers-churn@champion") as address:
        status, answer = post(address, {"dataframe_records": rows})
        assert status == 200, answer
        assert [one["churn_probability"] for one in answer["predictions"]] == pytest.approx(
            list(scored), abs=1e-12
        )
        first = {name: value for name, value in rows[0].items() if name != "visits a week"}
        for missing in ("age", "plan", "newsletter"):  # null, or not there at all, one member alone
            with_null = post(address, {"dataframe_records": [rows[0] | {missing: None}]})
            without = {name: value for name, value in rows[0].items() if name != missing}
            assert with_null[0] == 200, with_null
            assert post(address, {"dataframe_records": [without]}) == with_null
        assert post(address, {"dataframe_records": [first]})[0] == 400
        unknown = post(address, {"dataframe_records": [rows[0] | {"plan": "stone"}]})
        assert unknown[0] == 400
        assert "plan is stone; it must be one of" in unknown[1]["message"]
        nothing = post(address, {"dataframe_records": [rows[0] | {"visits a week": None}]})
        assert nothing[0] == 400
        assert "visits a week is missing; give it a value" in nothing[1]["message"]
