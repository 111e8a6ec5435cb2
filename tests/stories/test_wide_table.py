"""Tables with many columns: an answer with reasons costs in proportion to them."""

import cProfile
import pstats

import mlflow
import numpy as np
import pandas as pd
import pytest

from support.running import churnlab_at, tracked_at

pytestmark = pytest.mark.slow

NARROW, WIDE = 40, 160
LIGHT = (
    "evaluation.folds=2",
    "evaluation.further_draws=0",
    "evaluation.learning_curve=false",
    "evaluation.importance_repeats=2",
)


def measures(columns: int) -> pd.DataFrame:
    """Members with so many numbers each, of which the first decides who leaves."""
    rng = np.random.default_rng(columns)
    values = rng.normal(size=(400, columns)).round(3)
    table = pd.DataFrame(values, columns=[f"measure {number:03}" for number in range(columns)])
    table.insert(0, "member", [f"M{row:04}" for row in range(400)])
    return table.assign(Churn=(rng.random(400) < 1 / (1 + np.exp(-1.5 * values[:, 0]))).astype(int))


def calls_of_an_answer(home, columns: int) -> int:
    """Count the function calls of one answer with reasons; the first answer also imports."""
    with tracked_at(home):
        champion = mlflow.pyfunc.load_model(f"models:/wide{columns}-churn/1")
    member = measures(columns).drop(columns="Churn").head(1)
    (answer,) = champion.predict(member)
    assert "reasons" in answer
    profile = cProfile.Profile()
    profile.runcall(champion.predict, member)
    return pstats.Stats(profile).total_calls


def test_reasons_cost_in_proportion_to_the_columns(tmp_path):
    home = tmp_path / "home"
    churnlab = churnlab_at(home)
    for columns in (NARROW, WIDE):
        measures(columns).to_csv(tmp_path / f"wide{columns}.csv", index=False)
        own = ("--config-dir", "my_conf", f"dataset=wide{columns}")
        for words in (
            ("init", f"wide{columns}.csv"),
            ("train", *own, *LIGHT),
            ("promote", *own, *LIGHT[:1], "segment_run=none", "force=true", "reason=wide"),
        ):
            ended = churnlab(*words)
            assert ended.code == 0, ended.err
    narrow, wide = (calls_of_an_answer(home, columns) for columns in (NARROW, WIDE))
    assert wide < 1.5 * WIDE / NARROW * narrow  # members differ in how many reasons they have
