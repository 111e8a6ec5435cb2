"""Rank train runs, compare two of them, and recommend the simplest good one."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import mlflow
import pandas as pd
from mlflow.entities import Run

from churnlab.evaluation import comparison, verdicts
from churnlab.evaluation.comparison import Difference
from churnlab.evaluation.metric_names import LOWER_IS_BETTER, METRICS
from churnlab.evaluation.verdicts import Predictions, Verdict
from churnlab.formatting import whole
from churnlab.models.features import found_on_sentence
from churnlab.tracking import artifacts
from churnlab.tracking.names import Artifact, Tag
from churnlab.tracking.scores import scores_of
from churnlab.tracking.search import costs_of

log = logging.getLogger(__name__)


def leaderboard(runs: Sequence[Run], *, metric: str) -> pd.DataFrame:
    """Tabulate ranked runs, one row each: model, metrics out of fold and on the hold-out, origin.

    ``data``, ``split`` and ``folds`` are the first twelve digits of the fingerprints, times are in
    seconds; a metric that an older run did not log is nan. ``chosen_among`` is the number of trials
    from which a study chose the run, 1 for the others.
    """
    kinds = ("cv_{}", "cv_{}_std", "test_{}", "test_{}_low", "test_{}_high")
    logged = [kind.format(name) for name in dict.fromkeys([metric, *METRICS]) for kind in kinds]
    logged += [
        "early_cv_roc_auc",
        "early_cv_log_loss",
        "threshold",
        "fit_seconds",
        "model_bytes",
        "n_columns",
    ]
    fingerprints = {"data": Tag.DATA, "split": Tag.SPLIT, "folds": Tag.FOLDS}
    rows = []
    for rank, run in enumerate(runs, 1):
        scores, params, info = scores_of(run), run.data.params, run.info
        started = info.start_time / 1000
        rows.append(
            {
                "rank": rank,
                "name": info.run_name,
                "model": params["model.name"],
                "features": params["features.name"],
                "chosen_among": chosen_among(run),
                **{key: scores.get(key, math.nan) for key in logged},
                **{name: run.data.tags[tag][:12] for name, tag in fingerprints.items()},
                "started": datetime.fromtimestamp(started, UTC).isoformat(timespec="seconds"),
                "age": time.time() - started,
                "duration": info.end_time / 1000 - started,
                "run_id": info.run_id,
            }
        )
    return pd.DataFrame(rows)


def recommend(
    ranked: Sequence[Run], *, metric: str, ceiling: Mapping[str, float | None] | None = None
) -> tuple[str | None, str]:
    """Return the id of the simplest run within one standard error of the best, and a sentence.

    The runs come ranked, the best first, and have equal folds. Those with a score beyond the
    ``ceiling`` are left out: a score that is too good to be true is never recommended; nor are
    those that kept no model, as older runs of unreviewed types did not.
    """
    kept = [run for run in ranked if Tag.MODEL not in run.data.tags]
    if not kept:
        return None, "No run is recommended: none has kept its model. Train one again."
    runs = plausible(kept, ceiling or {})
    if not runs:
        return None, "No run is recommended: every score is too good to be true."
    best = runs[0]
    best_scores = _fold_metrics(best)[metric].to_numpy()

    def is_good_enough(place: int) -> bool:
        return place == 0 or comparison.within_one_standard_error(
            best_scores,
            _fold_metrics(runs[place])[metric].to_numpy(),
            paired=True,
            ratio=_fold_ratio(best),
            lower=metric in LOWER_IS_BETTER,
        )

    sizes = [run.data.metrics.get("model_bytes", math.inf) for run in runs]
    chosen = runs[comparison.simplest(sizes, is_good_enough)]
    trials = chosen_among(best)
    luck = f", which was chosen among {trials} on these folds" if trials > 1 else ""
    if chosen is best:
        other = "no simpler model is within one standard error of it"
        if len(runs) == 1:
            other = "the only run" if len(ranked) == 1 else "the only run that can be"
        return best.info.run_id, f"Recommended: {best.info.run_name}{luck}; {other}."
    return chosen.info.run_id, (
        f"Recommended: {chosen.info.run_name} ({_format_size(chosen)}), the simplest within one "
        f"standard error of the best, {best.info.run_name} ({_format_size(best)}){luck}."
    )


def suspects(runs: Sequence[Run], ceiling: Mapping[str, float | None]) -> dict[str, list[str]]:
    """Return the scores that are too good to be true beyond chance, by run id."""
    beyond = [run for run in runs if comparison.implausible(run.data.metrics, ceiling)]
    found = {
        run.info.run_id: comparison.too_good(scores_with_intervals(run), ceiling) for run in beyond
    }
    return {run_id: scores for run_id, scores in found.items() if scores}


def scores_with_intervals(run: Run) -> dict[str, float]:
    """Return a run's scores, with the ends of the 95% CI of those over the folds, and the numbers
    of members that both kinds are of."""
    scores, folds = scores_of(run), artifacts.find_table(run.info.run_id, Artifact.FOLDS)
    for kind, path in (("cv", Artifact.OOF), ("test", Artifact.TEST)):
        if (predicted := artifacts.find_table(run.info.run_id, path)) is not None:
            scores[f"{kind}_members"] = predicted["row"].nunique()
    if folds is None:
        return scores
    for metric in folds.columns.intersection([*METRICS]):
        ends = comparison.fold_interval(folds[metric].to_numpy(), ratio=_fold_ratio(run))
        scores |= zip((f"cv_{metric}_low", f"cv_{metric}_high"), ends, strict=True)
    return scores


def plausible(ranked: Sequence[Run], ceiling: Mapping[str, float | None]) -> list[Run]:
    """Return the ranked runs but those whose scores are too good to be true: the best run is the
    first of these, in every command."""
    suspected = suspects(ranked, ceiling)
    return [run for run in ranked if run.info.run_id not in suspected]


def compare_runs(
    first: Run,
    second: Run,
    *,
    metric: str,
    seed: int,
    rope: float | None = None,
    among: Sequence[Run] = (),
) -> Verdict:
    """Compare two runs on the same data and split by predictions that selected neither.

    ``among`` are the ranked runs, if each of the two was picked as a good one of its kind of model:
    its out-of-fold predictions then selected it, as those of a tuned run did.
    """
    sides = [
        _picked(evidence, _passed_over(run, among))
        for evidence, run in zip(_evidence(first, second), (first, second), strict=True)
    ]
    return verdicts.judge(*sides, metric=metric, seed=seed, rope=rope)


def _passed_over(run: Run, among: Sequence[Run]) -> int:
    """Count the ranked runs of a run's kind of model from which it was picked.

    Those of the same features as a tuned run are candidates of its study, near enough.
    """
    model, features = run.data.params["model.name"], run.data.params["features.name"]
    tuned = chosen_among(run) > 1
    return sum(
        other.info.run_id != run.info.run_id
        and other.data.params["model.name"] == model
        and not (tuned and other.data.params["features.name"] == features)
        for other in among
    )


def _picked(evidence: Predictions, passed_over: int) -> Predictions:
    """Count the runs that were passed over, too; nested predictions did not see that choice."""
    if not passed_over:
        return evidence
    return evidence._replace(nested=None, chosen_among=evidence.chosen_among + passed_over)


def found_on_notes(runs: Sequence[Run]) -> list[str]:
    """Name the feature sets that were found on the members of the runs' own dataset."""
    params = [run.data.params for run in runs]
    found = {
        (one["features.name"], one["dataset.name"])
        for one in params
        if one.get("features.found_on") == one["dataset.name"]
    }
    return [found_on_sentence(*names) for names in sorted(found)]


def ranking_without_late(run: Run) -> tuple[list[str], float, float | None] | None:
    """Return a run's columns that are known only close to churn, and its cross-validated ROC AUC
    with them and without (None: not measured); None for a model that has no such columns."""
    config, scores = artifacts.read_config(run.info.run_id), run.data.metrics
    late = list(config["dataset"]["late"]) if config["features"]["late"] else []
    return (late, scores["cv_roc_auc"], scores.get("early_cv_roc_auc")) if late else None


def compare_on_hold_out(
    first: Run, second: Run, *, metric: str, seed: int, rope: float | None = None
) -> tuple[Difference, str]:
    """Return the paired difference of two runs on the hold-out, and a sentence; this is a look."""
    sides = _evidence(first, second)
    return verdicts.compare_on_hold_out(*sides, metric=metric, seed=seed, rope=rope)


def _evidence(first: Run, second: Run) -> tuple[Predictions, Predictions]:
    """Read the predictions of two runs; ids distinguish those of the same name."""
    names = distinct_names(first, second)
    return _read_evidence(names[0], first), _read_evidence(names[1], second)


def _read_evidence(name: str, run: Run) -> Predictions:
    predicted, (among, study) = out_of_fold_predictions(run), _study(run)
    try:
        nested = artifacts.find_table(study, Artifact.NESTED) if study else None
    except artifacts.LostFile as lost:
        log.warning(
            "warning: nested predictions of %s, if there were any, are left out: %s", name, lost
        )
        nested = None
    members = predicted["row"].nunique()
    costs = costs_of(run)
    return Predictions(name, hold_out_predictions(run), members, predicted, nested, among, costs)


def out_of_fold_predictions(run: Run) -> pd.DataFrame:
    """Read a run's out-of-fold predictions, those of further draws included: row, y, probability,
    fold, repeat, threshold.

    Runs older than the column have the threshold that all their predictions chose.
    """
    further = artifacts.find_table(run.info.run_id, Artifact.FURTHER)
    tables = [artifacts.read_table(run.info.run_id, Artifact.OOF)]
    table = pd.concat(tables if further is None else [*tables, further], ignore_index=True)
    if "threshold" in table:
        return table
    return table.assign(threshold=run.data.metrics["threshold"])


def hold_out_predictions(run: Run) -> pd.DataFrame:
    """Read a run's predictions for the hold-out: row, y, probability, threshold."""
    table = artifacts.read_table(run.info.run_id, Artifact.TEST)
    return table.assign(threshold=run.data.metrics["threshold"])


def chosen_among(run: Run) -> int:
    """Return how many trials of a study a run was chosen from; 1 for an untuned run."""
    return _study(run)[0]


def is_tuned(run: Run) -> bool:
    """Return whether a study made the run."""
    return _study(run)[1] is not None


def _study(run: Run) -> tuple[int, str | None]:
    """Return how many trials a run was chosen from, and the id of their study's run (None: none).

    A study that is still at work counts by the trials that it will have.
    """
    parent = run.data.tags.get("mlflow.parentRunId")
    if parent is None:
        return 1, None
    tags = mlflow.get_run(parent).data.tags
    if tags.get(Tag.COMMAND) != "tune":
        return 1, None
    return int(tags.get(Tag.N_COMPLETE) or tags["tune.n_trials"]), parent


def distinct_names(first: Run, second: Run) -> tuple[str, str]:
    """Return the names of two runs, followed by the start of their ids where they are the same."""
    names = first.info.run_name, second.info.run_name
    if names[0] != names[1]:
        return names
    return f"{names[0]} ({first.info.run_id[:8]})", f"{names[1]} ({second.info.run_id[:8]})"


def _fold_metrics(run: Run) -> pd.DataFrame:
    """Return a run's metrics, one row per fold, repeat by repeat."""
    return artifacts.read_table(run.info.run_id, Artifact.FOLDS).set_index("fold")


def _fold_ratio(run: Run) -> float:
    """Return the members of a fold over the members trained on."""
    return 1 / (int(run.data.params["evaluation.folds"]) - 1)


def _format_size(run: Run) -> str:
    size = run.data.metrics.get("model_bytes", math.inf)
    return f"{whole(size)} bytes" if math.isfinite(size) else "of unknown size"
