"""Probabilities that mean what they say: whether a model calls for calibration, and whether
calibration helps it.

Everything is judged out of fold. A calibrated model has scikit-learn's CalibratedClassifierCV in
the place of its estimator: of a fold it sees the train part only, splits that again, and fits each
calibrator on members that the estimator before it has not seen; what it says is the mean over these
pairs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.pipeline import Pipeline

from churnlab.errors import InputError
from churnlab.models import evaluation
from churnlab.models.cross_validation import cv_metrics, fold_metrics, fold_predictions
from churnlab.models.splits import Fold

NONE, METHODS = "none", ("isotonic", "sigmoid")
"""Ways to calibrate."""


class Judged(NamedTuple):
    """A model, unfitted, calibrated by ``method``, its out-of-fold predictions and what these are
    like.

    ``scores`` are slope, intercept and ece over all predictions together, and log_loss as the mean
    over the folds.
    """

    method: str
    model: Pipeline
    oof: pd.DataFrame
    scores: dict[str, float]


class Choice(NamedTuple):
    """What was kept and what was tried (plain first), why calibration was called for ("" if not),
    and all in words."""

    kept: Judged
    tried: list[Judged]
    reason: str
    said: str

    @property
    def table(self) -> pd.DataFrame:
        """One row a way: method, slope, intercept, ece, log_loss, kept."""
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
    """Judge the model out of fold and calibrate it by ``method``: none, auto, isotonic or sigmoid.

    "auto" tries METHODS only when the slope or the ece of the plain model is outside the limits,
    and keeps the way with the lowest log loss, the plain one included. ``rows`` are the positions
    of X's rows in the whole table. InputError: too few members for ``splits``.
    """

    def judge(name: str, candidate: Pipeline) -> Judged:
        made = fold_predictions(candidate, X, y, folds, rows=rows)
        oof = pd.concat(made, ignore_index=True)
        per_fold = fold_metrics(oof, threshold=0.5)
        found = evaluation.calibration_line(oof["y"].to_numpy(), oof["probability"].to_numpy())
        return Judged(
            name, candidate, oof, found | {"log_loss": cv_metrics(per_fold)["cv_log_loss"]}
        )

    plain = judge(NONE, model)
    reason = called_for(plain.scores, slope=slope, ece=ece)
    asked: Sequence[str] = (
        [method] if method in METHODS else METHODS if method == "auto" and reason else []
    )
    if asked:
        _check_splits(y, folds, splits)
    tried = [judge(name, with_calibration(model, method=name, splits=splits)) for name in asked]
    kept = (
        tried[0]
        if method in METHODS
        else min([plain, *tried], key=lambda one: one.scores["log_loss"])
    )
    return Choice(kept, [plain, *tried], reason, _said(plain, tried, kept, reason, method=method))


def with_calibration(model: Pipeline, *, method: str, splits: int) -> Pipeline:
    """The unfitted pipeline with its estimator calibrated: as many estimators and calibrators as
    ``splits``.

    Members are split by outcome in the order in which they are given, and that is random after
    ``hold_out``.
    """
    estimator = CalibratedClassifierCV(clone(model[-1]), method=method, cv=splits, ensemble=True)
    return clone(model).set_params(estimator=estimator)


def called_for(found: Mapping[str, float], *, slope: tuple[float, float], ece: float) -> str:
    """Why probabilities with this slope and ece call for calibration; "" when they do not (or have
    no slope)."""
    low, high = slope
    reasons = []
    if found["slope"] < low or found["slope"] > high:
        reasons.append(f"the out-of-fold slope {found['slope']:.2f} is outside {low:g} to {high:g}")
    if found["ece"] > ece:
        reasons.append(f"the out-of-fold calibration error {found['ece']:.3f} is above {ece:g}")
    return " and ".join(reasons)


def _said(plain: Judged, tried: Sequence[Judged], kept: Judged, reason: str, *, method: str) -> str:
    if not tried and not reason:
        slope, ece = plain.scores["slope"], plain.scores["ece"]
        known = f"slope {slope:.2f}, " if slope == slope else ""
        return f"none: not called for ({known}calibration error {ece:.3f} out of fold)"
    if not tried:
        return f"none, though {reason}: evaluation.calibration=auto calibrates if that helps"
    why = reason or "asked for, not called for"
    before = f"{plain.scores['log_loss']:.4f}"
    if kept is plain:
        others = ", ".join(f"{one.method} {one.scores['log_loss']:.4f}" for one in tried)
        return f"none: {why}, but it does not lower the out-of-fold log loss of {before} ({others})"
    after, ece = kept.scores["log_loss"], kept.scores["ece"]
    return f"{kept.method}: {why}; out-of-fold log loss {before} to {after:.4f}, calibration error now {ece:.3f}"


def _check_splits(y: np.ndarray, folds: Sequence[Fold], splits: int) -> None:
    rarest = min(int(np.bincount(y[fold.train], minlength=2).min()) for fold in folds)
    if rarest < splits:
        raise InputError(
            f"evaluation.calibration_folds={splits} cannot be made of a fold that trains on only "
            f"{rarest} members of one kind. Give fewer (at least 2), more members, or "
            "evaluation.calibration=none."
        )
