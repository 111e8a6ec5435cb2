"""Do the intervals of a portrait cover, and does nothing stand out by chance?"""

import numpy as np
import pandas as pd
import pytest

from churnlab.segments.kmeans import fit_segmentation
from churnlab.segments.portraits import certain_deviations, deviations, portraits
from support.planted import assert_at_least, assert_at_most, count, tables

PLAYBOOK = {
    "risk": {
        "high_above": 1.4,
        "low_below": 0.5,
        "names": {"high": "h", "medium": "m", "low": "l"},
    },
    "salient": 0.0,
    "traits": {},
    "naming": {"most": 2, "more": "high {column}", "less": "low {column}", "plain": "plain"},
    "columns": {},
    "actions": {"wait": {"text": "wait", "lever": "none", "cost": 0, "keeps": 0}},
    "values": {"member": 100},
    "levers": {"none": "nothing"},
    "sentences": {"free": "free", "nobody": "nobody"},
    "rules": [],
    "fallback": ["wait"],
}


def segments(rng: np.random.Generator, members: int) -> np.ndarray:
    """Segment members by two columns that no other column depends on."""
    made = pd.DataFrame(rng.normal(size=(members, 2)), columns=["a", "b"])
    return fit_segmentation(made, 4, n_init=1, random_state=0).predict(made)


def independent(rng: np.random.Generator, members: int) -> pd.DataFrame:
    """Eight columns of four kinds that have nothing to do with the segments."""
    kinds = {
        "normal": rng.normal(size=(members, 2)),
        "skewed": rng.exponential(size=(members, 2)),
        "even": rng.random((members, 2)) < 0.5,
        "flag": rng.random((members, 2)) < 0.15,
    }
    return pd.DataFrame(
        {f"{kind}{i}": column for kind, pair in kinds.items() for i, column in enumerate(pair.T)}
    ).astype(float)


@pytest.mark.parametrize("members", [400, 1500])
def test_no_column_that_the_segments_do_not_depend_on_stands_out(members: int):
    """At most 5% of the tables have any such column in any segment, at any size of deviation."""

    def stands_out(rng: np.random.Generator) -> bool:
        labels, X = segments(rng, members), independent(rng, members)
        y = rng.integers(2, size=members)
        found = portraits(X, labels, y, playbook=PLAYBOOK, language="en")
        return any(any(portrait["salient"].values()) for portrait in found)

    of = tables(30, 1000)
    wrong = count(stands_out, of=of, seed=1)
    print(f"{members} members: a column stands out in {wrong} of {of} tables")
    assert_at_most(0.05, wrong, of=of)


def test_the_interval_of_a_deviation_covers_the_true_one_at_its_own_rate():
    """Of one segment and column, with a planted deviation: 95%, not 98.5% as without the share."""
    means, of, inside = np.array([0.5, -0.2, 0.0, 0.1]), 0, 0
    for rng in np.random.default_rng(2).spawn(tables(16, 160)):
        labels = segments(rng, 800)
        X = pd.DataFrame(means[labels][:, None] + rng.normal(size=(800, 250)))
        estimate, half = deviations(X, labels)
        share = np.bincount(labels) / 800
        middle = share @ means
        true = (means[0] - middle) / np.sqrt(1 + share @ (means - middle) ** 2)
        inside += int((np.abs(estimate.loc[0] - true) <= half.loc[0]).sum())
        of += 250
    print(f"the interval covers in {inside} of {of} columns ({inside / of:.1%})")
    assert_at_least(0.94, inside, of=of)
    assert_at_most(0.975, inside, of=of)


def test_a_planted_difference_of_three_tenths_of_a_deviation_stands_out():
    def found(rng: np.random.Generator) -> bool:
        labels, X = segments(rng, 4000), independent(rng, 4000)
        X["normal0"] += 0.45 * (labels == 1)
        estimate, half = deviations(X, labels)
        return bool(certain_deviations(estimate, half, np.bincount(labels)).loc[1, "normal0"] > 0)

    of = tables(20, 400)
    assert_at_least(0.95, count(found, of=of, seed=3), of=of)


@pytest.mark.parametrize("rate", [0.013, 0.25, 0.82])
def test_no_segment_has_a_high_risk_by_chance(rate: float):
    """At most 5% of the tables whose segments all leave at the same rate have such a word."""

    def rated_high(rng: np.random.Generator) -> bool:
        labels = segments(rng, 300)
        X, y = independent(rng, 300), rng.binomial(1, rate, size=300)
        found = portraits(X, labels, y, playbook=PLAYBOOK, language="en")
        return any(portrait["risk"] == "high" for portrait in found)

    of = tables(30, 1000)
    wrong = count(rated_high, of=of, seed=4)
    print(f"churn rate {rate}: a segment has a high risk in {wrong} of {of} tables")
    assert_at_most(0.05, wrong, of=of)
