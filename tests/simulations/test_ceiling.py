"""How often a plausible score of a small table is suspect by luck; a leak is always found."""

from collections.abc import Mapping
from functools import partial

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit
from sklearn.metrics import roc_auc_score

from churnlab.evaluation.comparison import fold_interval, too_good
from churnlab.evaluation.performance import classification_metrics, hold_out_metrics
from support.planted import assert_at_least, assert_at_most, count, tables
from support.planted_models import World

GOOD = World(-9.5, 14.0)
"""A world in which the best model has a ROC AUC of .9955, at the ceiling over the folds."""

CEILING = {"cv_roc_auc": 0.995, "test_roc_auc": 0.998, "test_f1": 0.97}
FOLDS = 5

BY_LUCK = {("cv_roc_auc", 200): 0.12, ("cv_roc_auc", 400): 0.08}
"""Where it is more than 5%: so few members are often perfect in every fold (how-sure.md)."""


def best_scores() -> dict[str, float]:
    """Return the scores of the best model in the population, as ceilings."""
    rng = np.random.default_rng(0)
    odds = rng.normal(*GOOD, 400_000)
    y = (rng.random(len(odds)) < expit(odds)).astype(int)
    true = classification_metrics(y, expit(odds), threshold=0.5)
    return {name: true[name.partition("_")[2]] for name in CEILING}


def suspected(
    rng: np.random.Generator, members: int, ceiling: Mapping[str, float], *, known: float
) -> bool:
    """Draw a table of members, of whom a fifth are held out, and a model that knows the outcome of
    a share of them; return whether it is suspect."""
    odds = rng.normal(*GOOD, members)
    y = (rng.random(members) < expit(odds)).astype(int)
    probability = np.where(rng.random(members) < known, 0.002 + 0.996 * y, expit(odds))
    test, train = np.arange(members) < members // 5, np.arange(members) >= members // 5
    held_out = pd.DataFrame({"y": y[test], "probability": probability[test]})
    scores = hold_out_metrics(held_out, threshold=0.5, seed=0)
    folds = np.array_split(np.flatnonzero(train), FOLDS)
    areas = np.array([roc_auc_score(y[fold], probability[fold]) for fold in folds])
    low, high = fold_interval(areas, ratio=1 / (FOLDS - 1))
    scores |= {"cv_roc_auc": areas.mean(), "cv_roc_auc_low": low, "cv_roc_auc_high": high}
    scores |= {"cv_members": int(train.sum()), "test_members": int(test.sum())}
    return bool(too_good(scores, ceiling))


@pytest.mark.parametrize("members", [200, 400, 800])
@pytest.mark.parametrize("score", CEILING)
def test_a_score_that_is_truly_the_ceiling_is_seldom_suspect(score: str, members: int):
    ceiling, of = {score: best_scores()[score]}, tables(20, 1000)
    event = partial(suspected, members=members, ceiling=ceiling, known=0.0)
    found = count(event, of=of, seed=members)
    print(f"{score} {ceiling[score]:.4f}, {members} members: suspect in {found} of {of}")
    assert_at_most(BY_LUCK.get((score, members), 0.05), found, of=of)


@pytest.mark.parametrize("members", [200, 400, 800])
def test_a_column_that_knows_the_outcome_is_found(members: int):
    of = tables(20, 1000)
    event = partial(suspected, members=members, ceiling=CEILING, known=1.0)
    found = count(event, of=of, seed=members)
    print(f"{members} members: a leak is found in {found} of {of}")
    assert_at_least(0.95, found, of=of)
