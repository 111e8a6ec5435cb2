"""Decide whether a model needs calibration and whether calibration helps it.

Everything is judged out of fold. A calibrated model has scikit-learn's CalibratedClassifierCV as
its estimator: it sees only the train part of a fold, splits that again, and fits each calibrator on
members that its base estimator has not seen. It predicts the mean over these pairs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.pipeline import Pipeline

from churnlab.errors import InputError
from churnlab.evaluation import performance
from churnlab.evaluation.calibration_error import TOO_FEW
from churnlab.evaluation.cross_validation import cv_metrics, fold_metrics, fold_predictions
from churnlab.models.splits import Fold

NONE, METHODS = "none", ("isotonic", "sigmoid")

ALPHA = 0.05
"""A model is called miscalibrated only if the p-value of perfect calibration is below this."""


class Candidate(NamedTuple):
    """An unfitted model calibrated by ``method``, with its out-of-fold predictions and scores.

    ``scores``: those of ``repeated_calibration_line``, and log_loss as the mean over the folds.
    """

    method: str
    model: Pipeline
    oof: pd.DataFrame
    scores: dict[str, float]


class Choice(NamedTuple):
    """The candidate kept, all tried (uncalibrated first), why calibration is needed ("" if not),
    and a summary in one sentence."""

    kept: Candidate
    tried: list[Candidate]
    reason: str
    summary: str

    @property
    def table(self) -> pd.DataFrame:
        """One row per candidate: method, its scores, kept."""
        rows = [
            {"method": one.method} | one.scores | {"kept": one is self.kept} for one in self.tried
        ]
        return pd.DataFrame(rows)


def choose(
    model: Pipeline,
    X: pd.DataFrame,
    y: np.ndarray,
    folds: Sequence[Fold],
    *,
    rows: np.ndarray,
    method: str,
    slope: tuple[float, float],
    ece: float,
    splits: int,
) -> Choice:
    """Evaluate the model out of fold and calibrate it by ``method``: none, auto, isotonic, sigmoid.

    "auto" tries METHODS only if ``miscalibration`` calls for it, and keeps the candidate with the
    lowest log loss, the uncalibrated one included: the lowest of three on the same members is a
    little too low (by .005 on 400 members, .0015 on 1,600, for naive Bayes; the standard deviation
    of the log loss itself is .04 and .02). ``rows`` are the positions of X's rows in the whole
    table. InputError: too few members for ``splits``.
    """

    def evaluate(name: str, candidate: Pipeline) -> Candidate:
        oof = fold_predictions(candidate, X, y, folds, rows=rows)
        log_loss = cv_metrics(fold_metrics(oof, threshold=0.5))["cv_log_loss"]
        line = performance.repeated_calibration_line(oof)
        return Candidate(name, candidate, oof, line | {"log_loss": log_loss})

    plain = evaluate(NONE, model)
    reason = miscalibration(plain.scores, slope=slope, ece=ece)
    methods = [method] if method in METHODS else METHODS if method == "auto" and reason else []
    if methods:
        _check_splits(y, folds, splits)
    tried = [
        evaluate(name, with_calibration(model, method=name, splits=splits)) for name in methods
    ]
    if method in METHODS:
        kept = tried[0]
    else:
        kept = min([plain, *tried], key=lambda candidate: candidate.scores["log_loss"])
    return Choice(kept, [plain, *tried], reason, _summary(plain, tried, kept, reason))


def with_calibration(model: Pipeline, *, method: str, splits: int) -> Pipeline:
    """Return the unfitted pipeline with its estimator calibrated, in ``splits`` pairs.

    Members are split by outcome in the given order, which is random after ``hold_out``.
    """
    estimator = CalibratedClassifierCV(clone(model[-1]), method=method, cv=splits, ensemble=True)
    return clone(model).set_params(estimator=estimator)


def miscalibration(scores: Mapping[str, float], *, slope: tuple[float, float], ece: float) -> str:
    """Say why these scores need calibration; "" if they do not.

    They do if perfect calibration is rejected (``calibration_line``) *and* the slope or the
    calibration error, corrected for noise, is outside its limits: on few members the slope of a
    perfect model is often outside, on many a model that is good enough is rejected. A model without
    a slope (its probabilities are about equal) never needs it.

    >>> scores = {"slope": 1.3, "p": 0.001, "ece": 0.03, "ece_floor": 0.02, "ece_corrected": 0.01}
    >>> miscalibration(scores, slope=(0.9, 1.1), ece=0.02)
    'the out-of-fold slope 1.30 is outside 0.9 to 1.1 (perfect calibration: p = 0.0010)'
    >>> miscalibration(scores | {"p": 0.2}, slope=(0.9, 1.1), ece=0.02)
    ''
    """
    outside = outside_limits(scores, slope=slope, ece=ece)
    if not outside or not scores["p"] < ALPHA:
        return ""
    return f"{outside} (perfect calibration: {_format_p(scores['p'])})"


def outside_limits(scores: Mapping[str, float], *, slope: tuple[float, float], ece: float) -> str:
    """Say which of slope and calibration error is outside its limits, by chance or not."""
    low, high = slope
    reasons = []
    if scores["slope"] < low or scores["slope"] > high:
        reasons.append(
            f"the out-of-fold slope {scores['slope']:.2f} is outside {low:g} to {high:g}"
        )
    if scores["ece_corrected"] > ece:
        reasons.append(f"the out-of-fold calibration error {format_error(scores)} is above {ece:g}")
    return " and ".join(reasons)


def format_error(scores: Mapping[str, float]) -> str:
    """Format a calibration error with its noise floor, without which it says little.

    >>> format_error({"ece": 0.034, "ece_floor": 0.011})
    '0.034 (noise floor 0.011)'
    """
    return f"{scores['ece']:.3f} (noise floor {scores['ece_floor']:.3f})"


def _format_p(p: float) -> str:
    return f"p = {p:.4f}" if p >= 0.0001 else "p < 0.0001"


def _summary(plain: Candidate, tried: Sequence[Candidate], kept: Candidate, reason: str) -> str:
    """Say in one sentence what was kept and why."""
    slope, p, log_loss = (plain.scores[name] for name in ("slope", "p", "log_loss"))
    error = format_error(plain.scores)
    distinct = plain.oof.groupby(["repeat", "fold"])["probability"].nunique()
    if not tried and distinct.max() == 1:
        return "not applicable, because the model predicts the same probability for everyone"
    if not tried and not reason and math.isnan(slope):
        return (
            f"not applicable, because the probabilities hardly differ (calibration error {error})"
        )
    if not tried and not reason:
        few = ", with too few members to judge" if plain.scores["ece_floor"] > TOO_FEW else ""
        return (
            f"not shown to be needed{few} (slope {slope:.2f}, calibration error {error} out of "
            f"fold; perfect calibration: {_format_p(p)})"
        )
    if not tried:
        return f"none, although {reason}: try evaluation.calibration=auto"
    if kept is plain:
        others = ", ".join(f"{one.method} {one.scores['log_loss']:.4f}" for one in tried)
        return (
            f"none, although {reason}: calibration does not lower the out-of-fold log loss of "
            f"{log_loss:.4f} ({others})"
        )
    among = f" (the lowest of {len(tried) + 1} on these members)" if len(tried) > 1 else ""
    return (
        f"{kept.method}, {f'because {reason}' if reason else 'as requested, although not needed'}; "
        f"it changes the out-of-fold log loss from {log_loss:.4f} to "
        f"{kept.scores['log_loss']:.4f}{among} and the calibration error from {error} to "
        f"{format_error(kept.scores)}"
    )


def _check_splits(y: np.ndarray, folds: Sequence[Fold], splits: int) -> None:
    """Refuse more splits than a fold's train part has members of the rarer outcome."""
    rarest = min(int(np.bincount(y[fold.train], minlength=2).min()) for fold in folds)
    if rarest < splits:
        raise InputError(
            f"evaluation.calibration_folds={splits} is too many: a fold trains on only {rarest} "
            "members of one outcome. Give fewer (at least 2), more members, or "
            "evaluation.calibration=none."
        )
