"""What the report's sentences claim of equal models and of segments that do not matter.

The groups of its first sentence are simulated in test_explore.py.
"""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from churnlab.report.sentences import which_segments
from churnlab.segments.portraits import profile
from churnlab.tracking import artifacts, leaderboard
from churnlab.tracking.names import Artifact, Tag
from support.planted import assert_at_least, assert_at_most, count, tables

FOLDS, HELD_OUT = 5, 0.2


def sigmoid(logit: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logit))


def log_loss(y: np.ndarray, p: np.ndarray) -> float:
    return float(-np.where(y == 1, np.log(p), np.log1p(-p)).mean())


class Store:
    """Runs of models that are the truth with noise of their own, and the tables that they logged.

    ``runs`` has a model's kind and the deviation of its noise.
    """

    def __init__(self, rng: np.random.Generator, runs: list[tuple[str, float]], *, n: int) -> None:
        logit = rng.normal(-1.2, 2, n)
        y = (rng.random(n) < sigmoid(logit)).astype(int)
        test, train = np.split(np.arange(n), [int(HELD_OUT * n)])
        self.tables: dict[tuple[str, str], pd.DataFrame] = {}
        self.runs = []
        for number, (kind, spread) in enumerate(runs):
            p = np.clip(sigmoid(logit + rng.normal(0, spread, n)), 0.001, 0.999)
            run_id = str(number)
            oof = {"row": train, "y": y[train], "probability": p[train], "threshold": 0.5}
            self.tables[run_id, Artifact.OOF] = pd.DataFrame(
                oof | {"fold": np.arange(len(train)) % FOLDS, "repeat": 0}
            )
            self.tables[run_id, Artifact.TEST] = pd.DataFrame(
                {"row": test, "y": y[test], "probability": p[test]}
            )
            scores = {"cv_log_loss": log_loss(y[train], p[train]), "threshold": 0.5}
            self.runs.append(
                SimpleNamespace(
                    info=SimpleNamespace(run_id=run_id, run_name=f"{kind} {number}"),
                    data=SimpleNamespace(
                        metrics=scores,
                        params={"model.name": kind, "features.name": run_id},
                        tags={Tag.FOLDS: "same"},
                    ),
                )
            )
        self.ranked = sorted(self.runs, key=lambda run: run.data.metrics["cv_log_loss"])

    def read(self, run_id: str, path: str) -> pd.DataFrame:
        return self.tables[run_id, path]

    def find(self, run_id: str, path: str) -> pd.DataFrame | None:
        return self.tables.get((run_id, path))


def verdict_of_the_report(store: Store, monkeypatch: pytest.MonkeyPatch) -> str | None:
    """Return the kind of model that the report calls better: its best run against the best rival
    of another kind."""
    monkeypatch.setattr(artifacts, "read_table", store.read)
    monkeypatch.setattr(artifacts, "find_table", store.find)
    shown = store.ranked[0]
    kind = shown.data.params["model.name"]
    rival = next(run for run in store.ranked if run.data.params["model.name"] != kind)
    found = leaderboard.compare_runs(shown, rival, metric="log_loss", seed=0, among=store.ranked)
    if found.winner is None:
        return None
    return (shown, rival)[found.winner].data.params["model.name"]


@pytest.mark.parametrize("others", [1, 2, 20])
def test_the_best_of_several_equal_models_is_rarely_called_better(others, monkeypatch):
    """One run of one kind of model against the best of several of another kind."""
    of, better = tables(15, 1000), {"linear": 0, "forest": 0}
    for rng in np.random.default_rng(0).spawn(of):
        runs = [("linear", 0.5)] + [("forest", 0.5)] * others
        kind = verdict_of_the_report(Store(rng, runs, n=1000), monkeypatch)
        if kind is not None:
            better[kind] += 1
    print(f"one against {others}, of {of} tables: {better}")
    for wrong in better.values():
        assert_at_most(0.025, wrong, of=of)


@pytest.mark.parametrize(("others", "power"), [(1, 0.9), (3, 0.6)])
def test_a_kind_of_model_that_is_better_is_called_better(others, power, monkeypatch):
    """Noise of one deviation costs about .035 of log loss; several runs leave it to 600 members."""
    of, found = tables(15, 400), 0
    for rng in np.random.default_rng(1).spawn(of):
        runs = [("linear", 0.1)] * others + [("forest", 1.0)] * others
        found += verdict_of_the_report(Store(rng, runs, n=3000), monkeypatch) == "linear"
    print(f"{others} runs of a kind, of {of} tables: {found} better")
    assert_at_least(power, found, of=of)


def portraits_of(labels: np.ndarray, y: np.ndarray) -> list[dict[str, Any]]:
    found = profile(pd.DataFrame({"age": np.zeros(len(y))}), labels, y)
    rows = found.reset_index(drop=True).to_dict("records")
    return [
        row | {"id": at, "name": f"kind {at}", "actions": ["call"], "plans": []}
        for at, row in enumerate(rows)
    ]


def names_a_segment(y: np.ndarray, labels: np.ndarray) -> bool:
    found = portraits_of(labels, y)
    text = which_segments(found, churn_rate=float(y.mean()), left=int(y.sum()))
    return "beyond the overall rate" in text


@pytest.mark.parametrize("k", [2, 4, 8])
def test_a_segment_is_rarely_named_where_segments_have_nothing_to_do_with_churn(k):
    def named(rng: np.random.Generator) -> bool:
        return names_a_segment((rng.random(800) < 0.27).astype(int), rng.integers(k, size=800))

    of = tables(60, 4000)
    assert_at_most(0.05, count(named, of=of, seed=2), of=of)


def test_a_segment_that_leaves_more_is_named():
    def named(rng: np.random.Generator) -> bool:
        labels = rng.integers(4, size=800)
        return names_a_segment((rng.random(800) < np.where(labels == 1, 0.42, 0.22)) * 1, labels)

    of = tables(20, 1000)
    assert_at_least(0.9, count(named, of=of, seed=3), of=of)
