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


class Pair(NamedTuple):
    """Two runs on the same members: their difference, what the folds say of it, each fold's values,
    both in words."""

    found: comparison.Difference
    test: comparison.FoldTest | None
    folds: pd.DataFrame | None
    said: tuple[str, str]


def leaderboard(runs: Sequence[Run], *, metric: str) -> pd.DataFrame:
    """One row a run, the best first: what it is, its metrics out of fold and on the hold-out, of
    what, how old.

    ``data``, ``split`` and ``folds`` are the first twelve digits of the fingerprints, times are in
    seconds; what an older run has not logged is nan.
    """
    rows = []
    for rank, run in enumerate(runs, 1):
        scores, params, info = run.data.metrics, run.data.params, run.info
        row = {
            "rank": rank,
            "name": info.run_name,
            "model": params["model.name"],
            "features": params["features.name"],
        }
        for name in dict.fromkeys([metric, *METRICS]):
            asked = (
                f"cv_{name}",
                f"cv_{name}_std",
                f"test_{name}",
                f"test_{name}_low",
                f"test_{name}_high",
            )
            row |= {key: scores.get(key, math.nan) for key in asked}
        row |= {
            key: scores.get(key, math.nan)
            for key in ("threshold", "fit_seconds", "model_bytes", "n_columns")
        }
        row |= {
            part: run.data.tags[tag][:12]
            for part, tag in (("data", Tag.DATA), ("split", Tag.SPLIT), ("folds", Tag.FOLDS))
        }
        started = info.start_time / 1000
        row |= {"started": datetime.fromtimestamp(started, UTC).isoformat(timespec="seconds")}
        row |= {"age": time.time() - started, "duration": info.end_time / 1000 - started}
        rows.append(row | {"run_id": info.run_id})
    return pd.DataFrame(rows)


def recommend(runs: Sequence[Run], *, metric: str) -> tuple[str | None, str]:
    """The id of the simplest run within one standard error of the first, and why; the runs come the
    best first."""
    if not runs:
        return None, "No run is recommended: every one is too good to be true."
    best, lower = runs[0], metric in LOWER_IS_BETTER
    own = _by_fold(best)[metric].to_numpy()

    def enough(place: int) -> bool:
        other, paired = (
            _by_fold(runs[place])[metric].to_numpy(),
            same_tag(Tag.FOLDS, best, runs[place]),
        )
        return place == 0 or comparison.as_good(
            own, other, paired=paired, ratio=_ratio(best), lower=lower
        )

    sizes = [run.data.metrics.get("model_bytes", math.inf) for run in runs]
    chosen = runs[comparison.simplest(sizes, enough)]
    if chosen is best:
        return best.info.run_id, (
            f"Recommended: {best.info.run_name}; none that is simpler is within one standard error "
            "of it."
        )
    return chosen.info.run_id, (
        f"Recommended: {chosen.info.run_name} ({_size(chosen)}), the simplest within one standard "
        f"error of the best, {best.info.run_name} ({_size(best)})."
    )


def pair(first: Run, second: Run, *, metric: str, seed: int) -> Pair:
    """Compare two runs of one data and split by what they predicted out of fold, first minus
    second."""
    tables = [artifacts.read_table(run.info.run_id, Artifact.OOF) for run in (first, second)]
    (y, probability), (same_y, other) = map(comparison.by_repeat, tables)
    assert np.array_equal(y, same_y)
    thresholds = (first.data.metrics["threshold"], second.data.metrics["threshold"])
    found = comparison.paired_difference(
        y, probability, other, metric=metric, thresholds=thresholds, seed=seed
    )
    test = folds = None
    if same_tag(Tag.FOLDS, first, second):
        folds = pd.DataFrame(
            {"A": _by_fold(first)[metric], "B": _by_fold(second)[metric]}
        ).rename_axis("fold")
        test = comparison.fold_test(
            folds["A"].to_numpy(), folds["B"].to_numpy(), ratio=_ratio(first)
        )
        folds = folds.assign(difference=folds["A"] - folds["B"]).reset_index()
    said = comparison.verdict(
        found, test, metric=metric, names=run_names(first, second), members=len(y)
    )
    return Pair(found, test, folds, said)


def run_names(first: Run, second: Run) -> tuple[str, str]:
    """What two runs are called; where that is the same, with the beginning of their ids."""
    names = first.info.run_name, second.info.run_name
    if names[0] != names[1]:
        return names
    return f"{names[0]} ({first.info.run_id[:8]})", f"{names[1]} ({second.info.run_id[:8]})"


def same_tag(tag: str, first: Run, second: Run) -> bool:
    return first.data.tags[tag] == second.data.tags[tag]


def _by_fold(run: Run) -> pd.DataFrame:
    """The metrics of each fold, repeat by repeat."""
    return artifacts.read_table(run.info.run_id, Artifact.FOLDS).set_index("fold")


def _ratio(run: Run) -> float:
    """Members of a fold over members trained on."""
    return 1 / (int(run.data.params["evaluation.folds"]) - 1)


def _size(run: Run) -> str:
    size = run.data.metrics.get("model_bytes", math.inf)
    return f"{whole(size)} bytes" if math.isfinite(size) else "of unknown size"
