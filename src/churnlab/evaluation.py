"""How good a churn model is: hold-out, folds, metrics, their intervals, calibration."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import binomtest
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, train_test_split
from sklearn.pipeline import Pipeline
from threadpoolctl import ThreadpoolController

from churnlab.errors import InputError
from churnlab.metrics import CLIP, group_members, nine_metrics

LOWER_IS_BETTER = {"log_loss", "brier", "ece"}
"""Metrics that are losses."""

GROUPS = 4096
"""The bootstrap pools probabilities into this many groups of equal size when more of them are distinct."""


class Fold(NamedTuple):
    """One fold of one repeat; ``train`` and ``validation`` are positions in the y that was split."""

    repeat: int
    fold: int
    train: np.ndarray
    validation: np.ndarray


def hold_out(y: np.ndarray, *, test_size: float, stratify: bool, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions of the training part and of the hold-out, in the order of scikit-learn's train_test_split.

    InputError: too few members to have both classes in both parts.
    """
    told = f"evaluation.test_size={test_size} of {len(y)} members"
    try:
        train, test = train_test_split(
            np.arange(len(y)), test_size=test_size, stratify=y if stratify else None, random_state=seed
        )
    except ValueError as error:
        raise InputError(f"{told} cannot be split off: {error} Give more members or another size.") from None
    for part, positions in {"training part": train, "hold-out": test}.items():
        if len(np.unique(y[positions])) < 2:
            raise InputError(
                f"{told} leaves a {part} in which all {len(positions)} members have the same outcome. Give more "
                "members, a larger part, or evaluation.stratify=true."
            )
    return train, test


def make_folds(y: np.ndarray, *, folds: int, repeats: int, seed: int) -> list[Fold]:
    """Stratified shuffled folds; repeat r is drawn with random_state = seed + r.

    InputError: a class with fewer members than folds.
    """
    rarest = int(np.bincount(y, minlength=2).min())
    if folds < 2 or repeats < 1 or rarest < folds:
        raise InputError(
            f"evaluation.folds={folds} and evaluation.repeats={repeats} cannot be made of {len(y)} members of whom "
            f"{int(y.sum())} left: each fold needs one of each kind. Give from 2 to {rarest} folds and at least one "
            "repeat, or more members."
        )
    return [
        Fold(repeat, fold, train, validation)
        for repeat in range(repeats)
        for fold, (train, validation) in enumerate(
            StratifiedKFold(folds, shuffle=True, random_state=seed + repeat).split(y, y)
        )
    ]


class PreparedFold(NamedTuple):
    """A fold whose members are ready for an estimator: all steps before it are fitted on the train part."""

    fold: Fold
    train: np.ndarray | pd.DataFrame
    train_y: np.ndarray
    validation: np.ndarray | pd.DataFrame
    validation_y: np.ndarray


def prepare_folds(model: Pipeline, X: pd.DataFrame, y: np.ndarray, folds: Sequence[Fold]) -> Iterator[PreparedFold]:
    """Do everything of a fold but the estimator's part.

    The features learn nothing of a table without gaps and are computed once; all else is fitted inside the fold.
    """
    whole = None if X.isna().any(axis=None) else _numbers(model[0].transform(X))
    for fold in folds:
        if whole is None:
            features = clone(model[0]).fit(X.iloc[fold.train])
            train, validation = (_numbers(features.transform(X.iloc[rows])) for rows in (fold.train, fold.validation))
        else:
            train, validation = _take(whole, fold.train), _take(whole, fold.validation)
        preparation = clone(model[1:-1])
        train = preparation.fit_transform(train, y[fold.train])
        yield PreparedFold(fold, train, y[fold.train], preparation.transform(validation), y[fold.validation])


def _numbers(table: pd.DataFrame) -> pd.DataFrame | np.ndarray:
    """A table of numbers only as an array: names cost as much as a small fit."""
    return np.ascontiguousarray(table.to_numpy()) if all(dtype == np.float64 for dtype in table.dtypes) else table


def fold_probabilities(estimator: Any, folds: Iterable[PreparedFold]) -> Iterator[tuple[PreparedFold, np.ndarray]]:
    """Fit a clone per fold and give its validation members' probabilities.

    One thread does it, so that the bits do not depend on the machine.
    """
    threads = ThreadpoolController()
    for prepared in folds:
        with threads.limit(limits=1):
            fitted = clone(estimator).fit(prepared.train, prepared.train_y)
            probability = fitted.predict_proba(prepared.validation)[:, 1].astype(np.float64)
        if not ((probability >= 0) & (probability <= 1)).all():  # also false for nan
            raise InputError(
                f"model.estimator: {type(estimator).__name__} gave a probability that is not between 0 and 1 in fold "
                f"{prepared.fold.fold}. Choose another estimator or other parameters."
            )
        yield prepared, probability


def fold_predictions(
    model: Pipeline, X: pd.DataFrame, y: np.ndarray, folds: Sequence[Fold], *, rows: np.ndarray
) -> Iterator[pd.DataFrame]:
    """The validation members of each fold: row, y, probability, fold, repeat.

    ``rows`` are the positions of X's rows in the whole table.
    """
    for prepared, probability in fold_probabilities(model[-1], prepare_folds(model, X, y, folds)):
        repeat, fold, _, validation = prepared.fold
        members = {"row": rows[validation], "y": prepared.validation_y, "probability": probability}
        yield pd.DataFrame({**members, "fold": fold, "repeat": repeat})


def estimator_metrics(
    estimator: Any, folds: Iterable[PreparedFold], *, threshold: float = 0.5
) -> list[dict[str, float]]:
    """The metrics of each fold, as ``fold_metrics`` gives them, of an estimator on prepared folds."""
    return [
        classification_metrics(prepared.validation_y, probability, threshold=threshold)
        for prepared, probability in fold_probabilities(estimator, folds)
    ]


def fold_metrics(predictions: pd.DataFrame, *, threshold: float) -> list[dict[str, float]]:
    """The metrics of each fold of out-of-fold predictions, repeat by repeat."""
    return [
        classification_metrics(part["y"].to_numpy(), part["probability"].to_numpy(), threshold=threshold)
        for _, part in predictions.groupby(["repeat", "fold"])
    ]


def cv_metrics(per_fold: Sequence[dict[str, float]]) -> dict[str, float]:
    """Mean (``cv_<metric>``) and standard deviation over the folds (``cv_<metric>_std``, n - 1)."""
    table = {name: np.array([metrics[name] for metrics in per_fold]) for name in per_fold[0]}
    means = {f"cv_{name}": float(values.mean()) for name, values in table.items()}
    return means | {f"cv_{name}_std": float(values.std(ddof=1)) for name, values in table.items()}


def classification_metrics(y: np.ndarray, probability: np.ndarray, *, threshold: float) -> dict[str, float]:
    """The nine metrics of a churn model; who has ``probability > threshold`` is said to leave.

    log_loss clips probabilities to [.001, .999]. ece is the mean gap between probability and outcome over ten
    bins of equally many members, where members with one and the same probability share their mean outcome, so
    that the order of the rows does not matter. Precision is 0 where nobody is said to leave, recall and f1 are 0
    and roc_auc and average_precision nan where there is nothing to find.
    """
    groups = group_members(y, probability, threshold)
    values = nine_metrics(groups, groups.left[None, :], groups.stayed[None, :])
    return {name: float(value[0]) for name, value in values.items()}


def bootstrap_intervals(
    y: np.ndarray, probability: np.ndarray, *, threshold: float, resamples: int = 1000, seed: int
) -> dict[str, tuple[float, float]]:
    """95% percentile intervals of the nine metrics over resamples of the members.

    A resample is drawn as multinomial counts over the distinct (probability, outcome) pairs, which is the same as
    drawing members with replacement. With more than GROUPS distinct probabilities, neighbours are pooled (never
    across the threshold), which bounds time and memory and moves a limit by less than a hundredth of its
    interval's width. Resamples without both classes have no roc_auc and average_precision and are left out there.
    Resampling inflates an ece, a sum of absolute gaps: its resamples are shifted back to have its mean.
    """
    groups = group_members(y, probability, threshold, most=GROUPS)
    rng = np.random.default_rng(seed)
    counts = np.concatenate([groups.left, groups.stayed])
    filled = np.flatnonzero(counts)
    parts = []
    for done in range(0, resamples, chunk := max(1, 250_000 // len(counts))):
        drawn = np.zeros((min(chunk, resamples - done), len(counts)))
        drawn[:, filled] = rng.multinomial(len(y), counts[filled] / len(y), size=len(drawn))
        parts.append(nine_metrics(groups, *np.split(drawn, 2, axis=1)))
    values = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    said = nine_metrics(groups, groups.left[None, :], groups.stayed[None, :])["ece"]
    values["ece"] = np.clip(values["ece"] - (values["ece"].mean() - said), 0, 1)
    return {name: percentiles(value) for name, value in values.items()}


def calibration(y: np.ndarray, probability: np.ndarray) -> dict[str, float]:
    """Slope and intercept of an unpenalised logistic regression of y on the clipped logit, and the ece.

    A perfect model has slope 1 and intercept 0; a slope above 1 says that the probabilities are too timid.
    Where all probabilities or all outcomes are equal, slope and intercept are nan.
    """
    clipped = np.clip(probability, CLIP, 1 - CLIP)
    logit = np.log(clipped / (1 - clipped))
    slope = intercept = np.nan
    if np.ptp(logit) > 0 and np.ptp(y) > 0:
        line = LogisticRegression(C=np.inf, solver="newton-cholesky", tol=1e-8).fit(logit[:, None], y)
        slope, intercept = float(line.coef_[0, 0]), float(line.intercept_[0])
    ece = classification_metrics(y, probability, threshold=0.5)["ece"]
    return {"slope": slope, "intercept": intercept, "ece": ece}


def reliability(y: np.ndarray, probability: np.ndarray, *, bins: int = 10) -> pd.DataFrame:
    """Said against seen, by bins of about equally many members: members, probability, churn_rate, low, high.

    ``probability`` is the bin's mean, low and high the 95% Wilson interval of the churn rate. Members with one
    and the same probability stay in one bin.
    """
    _, inverse, count = np.unique(probability, return_inverse=True, return_counts=True)
    middle = np.cumsum(count) - count / 2
    frame = pd.DataFrame({"bin": (middle * bins / len(y)).astype(int)[inverse], "y": y, "probability": probability})
    table = frame.groupby("bin").agg(
        members=("y", "size"), left=("y", "sum"), probability=("probability", "mean"), churn_rate=("y", "mean")
    )
    limits = [
        binomtest(int(left), int(members)).proportion_ci(method="wilson")
        for left, members in zip(table.pop("left"), table["members"], strict=True)
    ]
    return table.assign(low=[limit.low for limit in limits], high=[limit.high for limit in limits])


def gains(y: np.ndarray, probability: np.ndarray, *, shares: Sequence[float]) -> pd.DataFrame:
    """What the riskiest members hold: share, members, gain (share of all churners), precision, lift.

    A share that ends inside a group of equal probabilities takes that part of the group's churners.
    """
    groups = group_members(y, probability, 0.5)
    members = np.concatenate([[0], np.cumsum(groups.left + groups.stayed)])
    left = np.concatenate([[0], np.cumsum(groups.left)])
    share = np.asarray(shares, dtype=np.float64)
    found = np.interp(share * len(y), members, left)
    gain = found / max(left[-1], 1)
    precision = found / (share * len(y))
    table = {"share": share, "members": share * len(y), "gain": gain, "precision": precision, "lift": gain / share}
    return pd.DataFrame(table)


def _take(values: pd.DataFrame | np.ndarray, positions: np.ndarray) -> pd.DataFrame | np.ndarray:
    return values.iloc[positions] if isinstance(values, pd.DataFrame) else values[positions]


def percentiles(values: np.ndarray) -> tuple[float, float]:
    """The ends of the middle 95% of values, NaN left out."""
    known = values[~np.isnan(values)]
    low, high = np.percentile(known, [2.5, 97.5]) if len(known) else (np.nan, np.nan)
    return float(low), float(high)
