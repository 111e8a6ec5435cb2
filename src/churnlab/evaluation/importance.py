"""Measure permutation importance of columns and of groups of correlated columns.

Columns that go together are shuffled together: shuffled one by one, each would seem to matter
little while another still carries the information. Importance is not a causal effect.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
import pandas as pd
from scipy.stats import norm
from sklearn.pipeline import Pipeline

from churnlab.data.contract import Column
from churnlab.evaluation.metrics import log_losses
from churnlab.models.features import typical
from churnlab.models.pipelines import churn_probability, per_column

MOST, FEWEST = 300_000, 500
"""A large table is sampled: about MOST probabilities are computed in all, but for at least FEWEST
members."""

CLEAR = 0.3
"""A group has a direction if this share of the probability's total movement, up minus down, goes
that way."""


def permutation_importance(
    model: Pipeline,
    X: pd.DataFrame,
    y: np.ndarray,
    groups: Sequence[Sequence[str]],
    columns: Mapping[str, Column],
    *,
    repeats: int,
    seed: int,
    words: Mapping[str, Mapping[str, str]] | None = None,
) -> pd.DataFrame:
    """Measure the permutation importance (Breiman, 2001, Machine Learning 45:5) of column groups.

    ``model`` is fitted; X and y are members that it has not seen. One row per group, the largest
    importance first: driver (its columns, joined by " + "), importance (mean increase of the log
    loss over ``repeats`` shuffles of the group among the members), low and high (95% CI: normal,
    over members who receive values and who give theirs), direction (in words, those of the table
    for "0" and "1" too, by column). A member keeps the
    probability where another's values would give a derived column no value.
    """
    rng = np.random.default_rng(seed)
    most = max(MOST // (repeats * max(len(groups), 1)), FEWEST)
    if len(X) > most:
        rows = np.sort(rng.choice(len(X), most, replace=False))
        X, y = X.iloc[rows], y[rows]
    orders = np.array([rng.permutation(len(X)) for _ in range(repeats)])
    probability = churn_probability(model, X)
    loss = log_losses(y, probability)
    members, others = pd.concat([X] * repeats, ignore_index=True), X.iloc[orders.ravel()]
    measured = []
    for group in groups:
        shuffled = members.assign(**{name: others[name].array for name in group})
        table, known = model[0].possible(shuffled)
        predicted = np.tile(probability, repeats)
        if known.any():
            predicted[known] = churn_probability(model[1:], table)
        predicted = predicted.reshape(orders.shape)
        rise = log_losses(y, predicted) - loss
        half = norm.ppf(0.975) * _standard_error(rise, orders)
        low, high = rise.mean() - half, rise.mean() + half
        direction = "no effect shown"
        if low > 0:
            values = {name: X[name].to_numpy()[orders] for name in group}
            ends = {
                name: _riskier_end(values[name], predicted, columns[name], (words or {}).get(name))
                for name in group
            }
            direction = _direction(ends)
        measured.append((" + ".join(group), rise.mean(), low, high, direction))
    made = pd.DataFrame(measured, columns=["driver", "importance", "low", "high", "direction"])
    return made.sort_values("importance", ascending=False, kind="stable", ignore_index=True)


def _standard_error(rise: np.ndarray, orders: np.ndarray) -> float:
    """Return the standard error of the mean rise, (repeats, members), over other members.

    In ``orders``, of the same shape, is the member whose values each one received. Another member
    would receive other values and give others, so both count: the mean is that of a function of two
    members (Hoeffding, 1948, Annals of Mathematical Statistics 19:293). The noise of the few pairs,
    which is in both, is counted once. The variance over those who receive is the least.
    """
    received = rise.mean(axis=0)
    given = np.take_along_axis(rise, np.argsort(orders, axis=1), axis=1).mean(axis=0)
    variance = (received + given).var(ddof=1) - rise.var() / len(rise)
    return float(np.sqrt(max(variance, received.var(ddof=1)) / rise.shape[1]))


def group_coefficients(
    model: Pipeline, X: pd.DataFrame, groups: Sequence[Sequence[str]]
) -> pd.Series | None:
    """Return each group's coefficient in a linear model, by driver; None for any other model.

    It is the standard deviation, over the members of X, of the joint contribution to the log odds
    of the group's columns and those derived from them; negative if larger values lower the risk.
    For a single standardized column, and the X of the fit, it is the model's own coefficient.
    """
    weights = per_column(model, "coef_")
    if weights is None:
        return None

    def log_odds(table: pd.DataFrame) -> np.ndarray:
        return np.asarray(model[1:-1].transform(table), dtype=np.float64) @ weights

    whole, filler = log_odds(model[0].transform(X)), typical(X)
    coefficients = {}
    for group in groups:
        table, known = model[0].possible(X.assign(**{name: filler[name] for name in group}))
        if not known.any():
            continue  # no member can have typical values in these columns
        contribution = whole[known] - log_odds(table)
        numbers = X.loc[known, list(group)].select_dtypes("number")
        deviations = (numbers - numbers.mean()).fillna(0).to_numpy()
        towards = deviations.T @ (contribution - contribution.mean())
        sign = -1 if np.sign(towards).sum() < 0 else 1
        coefficients[" + ".join(group)] = sign * contribution.std()
    return pd.Series(coefficients, dtype="float64")


def _riskier_end(
    values: np.ndarray, predicted: np.ndarray, column: Column, words: Mapping[str, str] | None
) -> str:
    """Return the end, value or level of a column with the higher predicted churn; "" if none is.

    ``values`` and ``predicted`` are (repeats, members): the same members with other values.
    """
    if column.kind == "category":
        level = pd.Series(predicted.ravel()).groupby(values.ravel()).mean().idxmax()
        return f"= {level}"
    up = total = 0.0
    for one, other in combinations(range(len(values)), 2):
        change, moved = np.sign(values[one] - values[other]), predicted[one] - predicted[other]
        up += np.nansum(change * moved)
        total += np.nansum(np.abs(change * moved))
    if abs(up) <= CLEAR * total:
        return ""
    if column.kind == "binary":
        value = "1" if up > 0 else "0"
        return f"= {(words or {}).get(value, value)}"
    return "higher" if up > 0 else "lower"


def _direction(ends: Mapping[str, str]) -> str:
    """Say which end raises the risk; column by column where a group's columns disagree.

    >>> _direction({"visits": "lower", "near": "= 0"})
    'visits lower, near = 0 raise the risk'
    """
    clear = {name: end for name, end in ends.items() if end}
    if not clear:
        return "no one direction"
    if len(set(clear.values())) == 1:
        return f"{next(iter(clear.values())).removeprefix('= ')} raises the risk"
    return f"{', '.join(f'{name} {end}' for name, end in clear.items())} raise the risk"
