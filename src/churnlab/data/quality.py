"""What is suspicious in a table that is right cell by cell: a column that gives the answer away,
and what to look at.

Cheap on purpose, so that every command can afford it: what a sample can tell is asked of a sample.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pandas as pd

from churnlab.data.contract import Contract
from churnlab.data.violations import Violation
from churnlab.formatting import listed

GIVEN_AWAY = 0.995
"""A column that tells leavers from stayers with this AUC by itself was written after they had left.
"""

FEW = 30
"""With fewer leavers (or stayers) a column must be perfect to be called a giveaway: chance does the
rest."""

CHANCE = 1e-6
"""A giveaway less likely than this in a table of columns that know nothing is no chance."""

LEVELS = 50
"""A number with more different values than this is judged by its order, not value by value."""

SAMPLE = 10_000

SAME = 0.99
"""Columns correlated beyond this say the same."""

RARE = 0.05
"""A smaller share of leavers (or stayers) is a strong imbalance."""

SMALLEST = 100
"""In smaller tables whole numbers are different in every row by nature."""

UNIQUE = 0.95
"""A larger share of different values is what identifiers have."""


def leaking_columns(X: pd.DataFrame, y: np.ndarray) -> dict[str, float]:
    """The columns that tell by themselves who left, with their AUC; none where chance may be the
    reason."""
    rare = int(min(y.sum(), len(y) - y.sum()))
    orders = math.lgamma(len(y) + 1) - math.lgamma(rare + 1) - math.lgamma(len(y) - rare + 1)
    if not X.shape[1] or math.log(2 * X.shape[1]) - orders > math.log(CHANCE):
        return {}
    rows = np.concatenate([_spread(np.flatnonzero(y == outcome)) for outcome in (0, 1)])
    sample, left = X.iloc[rows].reset_index(drop=True), y[rows].astype("float64")
    aucs = {str(name): _best_auc(sample[name], left) for name in sample}
    return {name: auc for name, auc in aucs.items() if auc >= (GIVEN_AWAY if rare >= FEW else 1)}


def _best_auc(x: pd.Series, left: np.ndarray) -> float:
    """How well a column tells leavers from stayers by its order, by its values, or by where it is
    empty."""
    known = x.notna().to_numpy()
    aucs = [0.5]
    if not known.all():  # a reason for leaving is empty for who stayed
        aucs.append(_auc(_rates_of_others(known.astype(int), left), left))
        x, left = x[known], left[known]
    if 0 < left.sum() < len(left):
        codes, values = pd.factorize(x)
        if len(values) <= LEVELS or not pd.api.types.is_numeric_dtype(x):
            aucs.append(_auc(_rates_of_others(codes, left), left))
        else:
            auc = _auc(x.to_numpy(dtype="float64"), left)
            aucs += [auc, 1 - auc]
    return max(aucs)


def _spread(rows: np.ndarray, most: int = SAMPLE) -> np.ndarray:
    """At most so many of the rows, evenly spread."""
    return rows if len(rows) <= most else rows[np.linspace(0, len(rows) - 1, most).astype(int)]


def _rates_of_others(codes: np.ndarray, left: np.ndarray) -> np.ndarray:
    """The churn of a member's value in the other half: with its own outcome every identifier would
    be a giveaway."""
    levels, half = int(codes.max()) + 1, np.arange(len(codes)) % 2
    place, other = codes + half * levels, codes + (1 - half) * levels
    size = np.bincount(place, minlength=2 * levels)[other]
    churned = np.bincount(place, weights=left, minlength=2 * levels)[other]
    return np.where(size > 0, churned / np.maximum(size, 1), 0.5)


def _auc(x: np.ndarray, left: np.ndarray) -> float:
    """How well a number ranks leavers above stayers."""
    ranks = pd.Series(x).rank().to_numpy()
    churned = left.sum()
    return float((ranks[left == 1].sum() / churned - (churned + 1) / 2) / (len(left) - churned))


def leaks(X: pd.DataFrame, y: np.ndarray, contract: Contract) -> list[Violation]:
    """The features that are the target, a copy of it, or were written after it."""
    return [
        Violation(
            f"column {name} tells by itself who left (AUC {auc:.3f}): it is a copy of "
            f"{contract.target} or was written after the event",
            f"take it out of dataset.columns in the YAML of {contract.name}",
        )
        for name, auc in leaking_columns(X, y).items()
    ]


def gaps(X: pd.DataFrame) -> Iterator[str]:
    """How many values are missing, and what stands in for them."""
    missing = X.isna().sum()
    missing = missing[missing > 0].sort_values(ascending=False, kind="stable")
    if len(missing):
        told = [
            f"{name} ({count:,} of {len(X):,}, {count / len(X):.1%})"
            for name, count in missing.items()
        ]
        yield f"missing values, for which the column's typical value stands in: {listed(told, length=90)}"


def warnings(X: pd.DataFrame, y: np.ndarray, contract: Contract) -> list[str]:
    """What a person should look at before believing a model of this table, one sentence each."""
    with np.errstate(all="ignore"):  # a YAML may allow numbers whose squares are none
        return [
            *_of_columns(X),
            *_of_pairs(X),
            *_of_the_target(y, contract),
            *_of_repeated_rows(X, y),
        ]


def _of_columns(X: pd.DataFrame) -> Iterator[str]:
    constant = [name for name in X if len(X) > 1 and (X[name] == X[name].iloc[0]).all()]
    if constant:
        yield f"{listed(constant)}: the same value in every row, which tells a model nothing"
    identifiers = [name for name in X if len(X) >= SMALLEST and _is_identifier(X[name])]
    if identifiers:
        yield (
            f"{listed(identifiers)}: a different value in nearly every row, as in an identifier; "
            "if it is one, take it out of dataset.columns, or make it dataset.id"
        )


def _is_identifier(column: pd.Series) -> bool:
    """Whether text or whole numbers are different in nearly every row; lengths and sums with
    decimals are no names."""
    numeric = pd.api.types.is_numeric_dtype(column)
    for part in (column.iloc[:1000], column):  # most columns need no second look
        known = part.dropna()
        if (numeric and (known != np.floor(known)).any()) or known.nunique() < UNIQUE * len(part):
            return False
    return True


def _of_pairs(X: pd.DataFrame) -> Iterator[str]:
    numbers = X.select_dtypes("number")
    values = numbers.to_numpy()[_spread(np.arange(len(X)))]
    if len(values) < FEW or not numbers.shape[1]:
        return
    values = np.where(np.isnan(values), np.nanmean(values, axis=0), values)
    varied = np.flatnonzero(values.std(axis=0) > 0)
    if len(varied) < 2:
        return
    r = np.abs(np.corrcoef(values[:, varied], rowvar=False))
    names = numbers.columns[varied]
    named = [
        f"{names[a]} and {names[b]}"
        for a, b in zip(*np.nonzero(np.triu(r >= SAME, k=1)), strict=True)
    ]
    if named:
        yield f"say nearly the same (correlation of {SAME} and more): {listed(named, 5, length=90)}"


def _of_the_target(y: np.ndarray, contract: Contract) -> Iterator[str]:
    share = float(y.mean())
    if min(share, 1 - share) < RARE:
        rare, said = (share, "left") if share < 0.5 else (1 - share, "stayed")
        yield (
            f"only {rare:.2%} of {len(y):,} members {said} ({contract.target}): accuracy says "
            "little here; look at average_precision and log_loss"
        )


def _of_repeated_rows(X: pd.DataFrame, y: np.ndarray) -> Iterator[str]:
    """Members equal in everything: told only where the columns are too rich for chance to make
    twins."""
    again, torn = duplicate_rows(X, y)
    if not again and not torn:
        return
    most = 10 * _twins_by_chance(X)
    if again > most:
        yield f"{again:,} of {len(X):,} rows repeat an earlier row, outcome included: a table that was joined twice?"
    if torn > most:
        yield f"{torn:,} times members are equal in every feature and different in outcome: no model tells them apart"


def train_test_overlap(
    X: pd.DataFrame, y: np.ndarray, *, train: np.ndarray, test: np.ndarray
) -> Iterator[str]:
    """Members of the hold-out that are in the training part, too: what a model scores on them is no
    forecast.

    ``train`` and ``test`` are positions. Told only where the columns are too rich for chance to
    make twins.
    """
    again, _ = duplicate_rows(X, y)
    if again and again > 10 * _twins_by_chance(X):
        who = _alike(X) * 2 + y
        known = int(np.isin(who[test], who[train]).sum())
        yield (
            f"{known:,} of the {len(test):,} members held out are in the training part, too, equal "
            "in every feature and in outcome: the hold-out flatters every model by them; leave "
            "repeated rows out of the table"
        )


def duplicate_rows(X: pd.DataFrame, y: np.ndarray) -> tuple[int, int]:
    """How many rows repeat an earlier one and its outcome, and how often equal rows have two
    outcomes."""
    alike = _alike(X)
    there = np.bincount(alike * 2 + y, minlength=2 * len(X)).reshape(-1, 2) > 0
    return len(X) - int(there.sum()), int(there.all(axis=1).sum())


def _twins_by_chance(X: pd.DataFrame) -> float:
    """How many pairs would be equal in every column if the columns had nothing to do with each
    other."""
    sample = X.iloc[_spread(np.arange(len(X)))]
    meet = [
        float((sample[name].value_counts(normalize=True, dropna=False) ** 2).sum()) for name in X
    ]
    return len(X) * (len(X) - 1) / 2 * math.prod(meet)


def _alike(X: pd.DataFrame) -> np.ndarray:
    """A number for each row, the same for rows that are equal in every column; a gap equals a gap.

    A weighted sum brings equal rows together; then neighbours are compared cell by cell.
    """
    weights = np.random.default_rng(0).uniform(1, 2, X.shape[1])
    codes = [
        X[name].to_numpy()
        if pd.api.types.is_numeric_dtype(X[name])
        else pd.factorize(X[name])[0].astype("float64")
        for name in X
    ]
    key = np.zeros(len(X))
    for weight, values in zip(weights, codes, strict=True):
        key += weight * np.nan_to_num(values, nan=-1.5)
    order = np.argsort(key, kind="stable")
    near = np.flatnonzero(key[order][1:] == key[order][:-1])
    one, other = order[near], order[near + 1]
    same = np.ones(len(near), bool)
    for values in codes:
        same &= (values[one] == values[other]) | (np.isnan(values[one]) & np.isnan(values[other]))
    new = np.ones(len(X), "int64")
    new[near[same] + 1] = 0
    alike = np.empty(len(X), "int64")
    alike[order] = np.cumsum(new) - 1
    return alike
