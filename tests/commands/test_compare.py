"""The leaderboard and paired comparisons, on one store of small runs."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import log_loss

from conftest import artifact, files

pytestmark = pytest.mark.slow

SMALL = ("dataset.rows=500", "evaluation.folds=3")


@pytest.fixture(scope="module")
def runs(shared_home, succeed, client_at):
    """Two models on two splits, by (model, seed); one of them twice."""
    words = ["train", *SMALL, "model=dummy,logistic_regression", "seed=0,1"]
    line = succeed(shared_home, *words, "-m")
    found = map(client_at(shared_home).get_run, line["runs"])
    by_name = {(run.data.params["model.name"], run.data.params["seed"]): run for run in found}
    again = succeed(shared_home, "train", *SMALL, "model=dummy")
    return by_name | {("dummy", "again"): client_at(shared_home).get_run(again["run_id"])}


@pytest.fixture(scope="module")
def leaderboard(runs, shared_home, run_command):
    return run_command(shared_home, "compare", *SMALL)


@pytest.fixture(scope="module")
def pair(runs, shared_home, run_command):
    """The dummy against logistic regression, in this order."""
    ids = [runs["dummy", "0"].info.run_id, runs["logistic_regression", "0"].info.run_id]
    return run_command(shared_home, "compare", *SMALL, f"runs=[{','.join(ids)}]")


def predictions(run) -> pd.DataFrame:
    return pd.read_parquet(artifact(run, "predictions/oof.parquet")).set_index("row").sort_index()


def test_the_leaderboard_ranks_the_runs_of_one_split_and_of_equal_ones_the_newest(
    leaderboard, runs, shared_home, client_at
):
    assert leaderboard.code == 0, leaderboard.err
    run = client_at(shared_home).get_run(leaderboard.line["run_id"])
    table = pd.read_csv(artifact(run, "leaderboard.csv"))
    best, worst = runs["logistic_regression", "0"], runs["dummy", "again"]
    assert table["run_id"].tolist() == [best.info.run_id, worst.info.run_id]
    assert table["cv_log_loss"].tolist() == [best.data.metrics["cv_log_loss"], worst.data.metrics["cv_log_loss"]]
    assert table["test_roc_auc"].tolist() == [best.data.metrics["test_roc_auc"], 0.5]
    assert leaderboard.line["winner"] == best.info.run_id
    assert leaderboard.line["comparable"] is True
    assert leaderboard.line["delta"] < 0
    assert "figures/leaderboard.png" in files(run)
    assert run.data.tags["churnlab.command"] == "compare"
    assert run.data.tags["churnlab.split_sha256"] == best.data.tags["churnlab.split_sha256"]


def test_the_difference_of_two_runs_is_first_minus_second_out_of_fold_with_its_interval(pair, runs):
    assert pair.code == 0, pair.err
    assert set(pair.line) == {"command", "run_id", "comparable", "winner", "delta", "ci_low", "ci_high", "warnings"}
    first, second = predictions(runs["dummy", "0"]), predictions(runs["logistic_regression", "0"])
    assert np.array_equal(first.index, second.index)
    losses = [log_loss(table["y"], table["probability"].clip(0.001, 0.999)) for table in (first, second)]
    assert pair.line["delta"] == pytest.approx(losses[0] - losses[1], abs=1e-9)
    assert 0 < pair.line["ci_low"] < pair.line["delta"] < pair.line["ci_high"]
    assert pair.line["winner"] == runs["logistic_regression", "0"].info.run_id


def test_the_other_way_round_the_difference_has_the_other_sign_and_the_same_winner(leaderboard, pair):
    assert leaderboard.line["delta"] == pytest.approx(-pair.line["delta"], abs=1e-12)
    assert leaderboard.line["winner"] == pair.line["winner"]
    assert leaderboard.line["ci_high"] < 0


def test_a_run_does_not_differ_from_itself_and_then_nobody_wins(runs, shared_home, run_command):
    ids = [runs["dummy", "0"].info.run_id, runs["dummy", "again"].info.run_id]
    ended = run_command(shared_home, "compare", *SMALL, f"runs=[{','.join(ids)}]", "metric=roc_auc")
    assert ended.code == 0, ended.err
    assert (ended.line["comparable"], ended.line["winner"], ended.line["delta"]) == (True, None, 0.0)


def test_runs_of_different_splits_are_not_compared_and_the_exit_code_is_3(runs, shared_home, run_command, client_at):
    ids = [runs["dummy", "0"].info.run_id, runs["logistic_regression", "1"].info.run_id]
    ended = run_command(shared_home, "compare", *SMALL, f"runs=[{','.join(ids)}]")
    assert ended.code == 3
    assert ended.line == {
        "command": "compare",
        "run_id": ended.line["run_id"],
        "comparable": False,
        **dict.fromkeys(("winner", "delta", "ci_low", "ci_high")),
        "warnings": 0,
    }
    assert "cannot be compared: the split differs." in ended.err
    assert client_at(shared_home).get_run(ended.line["run_id"]).info.status == "FINISHED"


def test_a_run_of_another_command_is_refused(runs, pair, shared_home, run_command):
    ids = [runs["dummy", "0"].info.run_id, pair.line["run_id"]]
    ended = run_command(shared_home, "compare", *SMALL, f"runs=[{','.join(ids)}]")
    assert (ended.code, ended.out) == (2, "")
    assert f"Run {ids[1]} is a FINISHED compare run; name a FINISHED train run." in ended.err
