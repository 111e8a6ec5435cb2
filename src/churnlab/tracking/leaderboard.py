"""Rank train runs, compare two of them, and recommend the simplest good one."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NamedTuple

import numpy as np
import pandas as pd
from mlflow.entities import Run

from churnlab.formatting import whole
from churnlab.models import comparison
from churnlab.models.metric_names import LOWER_IS_BETTER, METRICS
from churnlab.tracking import artifacts
from churnlab.tracking.names import Artifact, Tag


class RunComparison(NamedTuple):
    """Two runs on the same members: first minus second, the test over the folds, and the verdict.

    ``folds`` has a row per fold: fold, A, B, difference. It and ``fold_test`` are None if the runs
    have different folds. ``verdict`` is two sentences.
    """

    difference: comparison.Difference
    fold_test: comparison.FoldTest | None
    folds: pd.DataFrame | None
    verdict: tuple[str, str]


def leaderboard(runs: Sequence[Run], *, metric: str) -> pd.DataFrame:
    """Tabulate ranked runs, one row each: model, metrics out of fold and on the hold-out, origin.

    ``data``, ``split`` and ``folds`` are the first twelve digits of the fingerprints, times are in
    seconds; a metric that an older run did not log is nan.
    """
    kinds = ("cv_{}", "cv_{}_std", "test_{}", "test_{}_low", "test_{}_high")
    logged = [kind.format(name) for name in dict.fromkeys([metric, *METRICS]) for kind in kinds]
    logged += ["threshold", "fit_seconds", "model_bytes", "n_columns"]
    fingerprints = {"data": Tag.DATA, "split": Tag.SPLIT, "folds": Tag.FOLDS}
    rows = []
    for rank, run in enumerate(runs, 1):
        scores, params, info = run.data.metrics, run.data.params, run.info
        started = info.start_time / 1000
        rows.append(
            {
                "rank": rank,
                "name": info.run_name,
                "model": params["model.name"],
                "features": params["features.name"],
                **{key: scores.get(key, math.nan) for key in logged},
                **{name: run.data.tags[tag][:12] for name, tag in fingerprints.items()},
                "started": datetime.fromtimestamp(started, UTC).isoformat(timespec="seconds"),
                "age": time.time() - started,
                "duration": info.end_time / 1000 - started,
                "run_id": info.run_id,
            }
        )
    return pd.DataFrame(rows)


def recommend(runs: Sequence[Run], *, metric: str) -> tuple[str | None, str]:
    """Return the id of the simplest run within one standard error of the first, and a sentence.

    The runs come ranked, the best first.
    """
    if not runs:
        return None, "No run is recommended: every score is too good to be true."
    best = runs[0]
    best_scores = _fold_metrics(best)[metric].to_numpy()

    def is_good_enough(place: int) -> bool:
        return place == 0 or comparison.within_one_standard_error(
            best_scores,
            _fold_metrics(runs[place])[metric].to_numpy(),
            paired=_same_folds(best, runs[place]),
            ratio=_fold_ratio(best),
            lower=metric in LOWER_IS_BETTER,
        )

    sizes = [run.data.metrics.get("model_bytes", math.inf) for run in runs]
    chosen = runs[comparison.simplest(sizes, is_good_enough)]
    if chosen is best:
        return best.info.run_id, (
            f"Recommended: {best.info.run_name}; no simpler model is within one standard error."
        )
    return chosen.info.run_id, (
        f"Recommended: {chosen.info.run_name} ({_format_size(chosen)}), the simplest within one "
        f"standard error of the best, {best.info.run_name} ({_format_size(best)})."
    )


def compare_runs(first: Run, second: Run, *, metric: str, seed: int) -> RunComparison:
    """Compare two runs on the same data and split by their out-of-fold predictions."""
    tables = [artifacts.read_table(run.info.run_id, Artifact.OOF) for run in (first, second)]
    (y, probability), (same_y, other) = map(comparison.by_repeat, tables)
    assert np.array_equal(y, same_y)
    difference = comparison.paired_difference(
        y,
        probability,
        other,
        metric=metric,
        thresholds=(first.data.metrics["threshold"], second.data.metrics["threshold"]),
        seed=seed,
    )
    fold_test = folds = None
    if _same_folds(first, second):
        a, b = (_fold_metrics(run)[metric] for run in (first, second))
        fold_test = comparison.fold_test(a.to_numpy(), b.to_numpy(), ratio=_fold_ratio(first))
        folds = pd.DataFrame({"A": a, "B": b, "difference": a - b}).reset_index(names="fold")
    verdict = comparison.verdict(
        difference, fold_test, metric=metric, names=distinct_names(first, second), members=len(y)
    )
    return RunComparison(difference, fold_test, folds, verdict)


def distinct_names(first: Run, second: Run) -> tuple[str, str]:
    """Return the names of two runs, followed by the start of their ids where they are the same."""
    names = first.info.run_name, second.info.run_name
    if names[0] != names[1]:
        return names
    return f"{names[0]} ({first.info.run_id[:8]})", f"{names[1]} ({second.info.run_id[:8]})"


def _same_folds(first: Run, second: Run) -> bool:
    return bool(first.data.tags[Tag.FOLDS] == second.data.tags[Tag.FOLDS])


def _fold_metrics(run: Run) -> pd.DataFrame:
    """Return a run's metrics, one row per fold, repeat by repeat."""
    return artifacts.read_table(run.info.run_id, Artifact.FOLDS).set_index("fold")


def _fold_ratio(run: Run) -> float:
    """Return the members of a fold over the members trained on."""
    return 1 / (int(run.data.params["evaluation.folds"]) - 1)


def _format_size(run: Run) -> str:
    size = run.data.metrics.get("model_bytes", math.inf)
    return f"{whole(size)} bytes" if math.isfinite(size) else "of unknown size"
