"""What a churn model goes by: how much worse it says who leaves when it is told another member's
value instead.

A driver is a column of the table or a group of columns that go together: shuffled one by one, each
would seem to matter little while the other still says the same. What a model goes by is not what
would happen if it were changed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
import pandas as pd
from scipy.stats import norm
from sklearn.pipeline import Pipeline

from churnlab.data.contract import Column
from churnlab.models.features import typical
from churnlab.models.metrics import CLIP
from churnlab.models.pipelines import churn_probability, of_columns

MOST, FEWEST = 300_000, 500
"""Of many members a sample is asked: about MOST probabilities are computed in all, but of FEWEST
members at least."""

CLEAR = 0.3
"""A driver has a direction when this much of the movement of the probability, up less down, goes
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
) -> pd.DataFrame:
    """Permutation importance (Breiman, 2001, Machine Learning 45:5) of groups of columns, the
    largest first.

    ``model`` is fitted, X and y are members that it has not seen. One row a group: driver (its
    columns, joined by " + "), importance (by how much the log loss rises when the group's values
    come from another member, the mean over ``repeats`` shuffles), low and high (its 95% interval:
    normal, over the members), direction (words). A member who cannot have another one's values,
    because a derived column has none then, keeps the probability.
    """
    rng = np.random.default_rng(seed)
    asked = max(MOST // (repeats * max(len(groups), 1)), FEWEST)
    if len(X) > asked:
        rows = np.sort(rng.choice(len(X), asked, replace=False))
        X, y = X.iloc[rows], y[rows]
    orders = np.array([rng.permutation(len(X)) for _ in range(repeats)])
    probability = churn_probability(model, X)
    loss = _loss(y, probability)
    themselves, others = pd.concat([X] * repeats, ignore_index=True), X.iloc[orders.ravel()]
    told = []
    for group in groups:
        table, known = model[0].possible(
            themselves.assign(**{name: others[name].array for name in group})
        )
        said = np.tile(probability, repeats)
        if known.any():
            said[known] = churn_probability(model[1:], table)
        said = said.reshape(orders.shape)
        rise = (_loss(y, said) - loss).mean(axis=0)
        half = norm.ppf(0.975) * rise.std(ddof=1) / np.sqrt(len(rise))
        low, high = rise.mean() - half, rise.mean() + half
        words = "no effect shown"
        if low > 0:
            words = _words(
                {name: _riskier(X[name].to_numpy()[orders], said, columns[name]) for name in group}
            )
        told.append((" + ".join(group), rise.mean(), low, high, words))
    made = pd.DataFrame(told, columns=["driver", "importance", "low", "high", "direction"])
    return made.sort_values("importance", ascending=False, kind="stable", ignore_index=True)


def coefficients(
    model: Pipeline, X: pd.DataFrame, groups: Sequence[Sequence[str]]
) -> pd.Series | None:
    """Each driver's coefficient in a linear model, by the driver's name; None for a model without
    coefficients.

    It is the standard deviation, over the members of X, of what the group's columns and those
    derived from them contribute to the log odds together; negative when larger values lower the
    risk. Of one column that the pipeline standardises, and X it was fitted on, that is the model's
    own coefficient.
    """
    weights = of_columns(model, "coef_")
    if weights is None:
        return None

    def log_odds(table: pd.DataFrame) -> np.ndarray:
        return np.asarray(model[1:-1].transform(table), dtype=np.float64) @ weights

    whole, filler, merged = log_odds(model[0].transform(X)), typical(X), {}
    for group in groups:
        table, known = model[0].possible(X.assign(**{name: filler[name] for name in group}))
        if not known.any():
            continue  # nobody can be typical in these columns
        worth = whole[known] - log_odds(table)
        numbers = X.loc[known, list(group)].select_dtypes("number")
        towards = (numbers - numbers.mean()).fillna(0).to_numpy().T @ (worth - worth.mean())
        merged[" + ".join(group)] = -worth.std() if np.sign(towards).sum() < 0 else worth.std()
    return pd.Series(merged, dtype="float64")


def _loss(y: np.ndarray, probability: np.ndarray) -> np.ndarray:
    clipped = np.clip(probability, CLIP, 1 - CLIP)
    return -np.log(np.where(y == 1, clipped, 1 - clipped))


def _riskier(values: np.ndarray, said: np.ndarray, column: Column) -> str:
    """The end, value or level of a column at which the same members are said to leave more; "" when
    it is none.

    ``values`` and ``said`` are (repeats, members): the same members with other values.
    """
    if column.kind == "category":
        level = pd.Series(said.ravel()).groupby(values.ravel()).mean().idxmax()
        return f"= {level}"
    up = total = 0.0
    for one, other in combinations(range(len(values)), 2):
        change, moved = np.sign(values[one] - values[other]), said[one] - said[other]
        up += np.nansum(change * moved)
        total += np.nansum(np.abs(change * moved))
    if abs(up) <= CLEAR * total:
        return ""
    if column.kind == "binary":
        return "= 1" if up > 0 else "= 0"
    return "higher" if up > 0 else "lower"


def _words(ends: Mapping[str, str]) -> str:
    """What raises the risk: "lower raises the risk", or column by column where they do not agree."""
    clear = {name: end for name, end in ends.items() if end}
    if not clear:
        return "no one direction"
    if len(set(clear.values())) == 1:
        return f"{next(iter(clear.values())).removeprefix('= ')} raises the risk"
    return f"{', '.join(f'{name} {end}' for name, end in clear.items())} raise the risk"
