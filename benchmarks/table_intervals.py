"""Judge the intervals of what is stated about a table, its groups, claims and decisions."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import numpy as np
import pandas as pd
from scipy import stats

from churnlab.claims import measures
from churnlab.claims.claim import Claim
from churnlab.data.contract import Column
from churnlab.evaluation import decision_value
from churnlab.explore import association, statistics
from churnlab.models import decision
from churnlab.segments import portraits
from model_intervals import POPULATION, THRESHOLDS, WORLDS, draw, population
from tallies import Judged, Kind

# Columns against churn

CHURN = 0.27
COLUMNS = ("normal", "skewed", "binary 40%", "binary 3%")
"""``skewed`` is lognormal (skewness 4 to 6)."""


def columns(rng: np.random.Generator, n: int) -> tuple[pd.DataFrame, np.ndarray]:
    """Draw columns that differ between those who leave and those who stay."""
    y = (rng.random(n) < CHURN).astype(int)
    X = {
        "normal": rng.normal(0.5 * y, 1 + 0.5 * y),
        "skewed": np.exp(rng.normal(0.3 * y, 0.9)),
        "binary 40%": rng.random(n) < 0.3 + 0.37 * y,
        "binary 3%": rng.random(n) < 0.02 + 0.04 * y,
    }
    return pd.DataFrame(X).astype("float64"), y


@cache
def all_columns() -> tuple[pd.DataFrame, np.ndarray]:
    """Draw the members of whom truths are measured."""
    return columns(np.random.default_rng(0), POPULATION)


@cache
def true_correlations() -> dict[str, float]:
    """Return the correlation of each column with leaving."""
    X, y = all_columns()
    return {name: statistics.correlation(X[name].to_numpy(), y)[0] for name in X}


def correlations(rng: np.random.Generator, n: int) -> Iterator[Judged]:
    """Judge the correlation of each column with leaving."""
    X, y = columns(rng, n)
    for name in X:
        _, low, high = statistics.correlation(X[name].to_numpy(), y)
        yield name, low, true_correlations()[name], high


TRUE_MEANS = {
    "normal": (0.0, 0.5),
    "skewed": (np.exp(0.405), np.exp(0.705)),
    "binary 40%": (0.3, 0.67),
    "binary 3%": (0.02, 0.06),
}
"""The mean of each column among those who stay, and among those who leave."""


def mean_differences(rng: np.random.Generator, n: int) -> Iterator[Judged]:
    """Judge the differences of the class means (Welch), and those of shares (Newcombe)."""
    X, y = columns(rng, n)
    for row in statistics.class_means(X, y).itertuples():
        stayed, left = TRUE_MEANS[row.feature]
        yield f"Welch, {row.feature}", row.low, left - stayed, row.high
    context = measures.ClaimContext(X.assign(left=y), "left")
    for name in COLUMNS:
        claim = Claim("", "", "mean_difference", "above", of=f"`{name}`", among="left == 1")
        found = measures.measure(claim, context)
        stayed, left = TRUE_MEANS[name]
        method = "Newcombe" if "binary" in name else "Welch"
        yield f"claim, {method}, {name}", found.low, left - stayed, found.high


def means(rng: np.random.Generator, n: int) -> Iterator[Judged]:
    """Judge means (Student) and shares (Wilson) of all members."""
    X, y = columns(rng, n)
    context = measures.ClaimContext(X.assign(left=y), "left")
    for name in COLUMNS:
        claim = Claim("", "", "mean", "above", of=f"`{name}`", than=0.0)
        found = measures.measure(claim, context)
        stayed, left = TRUE_MEANS[name]
        yield name, found.low, (1 - CHURN) * stayed + CHURN * left, found.high


MARGINS = {
    "one against one": (["normal"], ["skewed"]),
    "two against two": (["normal", "binary 40%"], ["skewed", "binary 3%"]),
    "close rivals": (["binary 40%"], ["normal", "twin"]),
}


def margins(rng: np.random.Generator, n: int) -> Iterator[Judged]:
    """Judge the weakest of some correlations minus the strongest of others.

    ``twin`` is a column that correlates with leaving as much as ``normal`` does.
    """
    X, y = columns(rng, n)
    X["twin"] = rng.normal(0.5 * y, 1 + 0.5 * y)
    context = measures.ClaimContext(X.assign(left=y), "left", seed=int(rng.integers(2**31)))
    true = true_correlations() | {"twin": true_correlations()["normal"]}
    for label, (ours, theirs) in MARGINS.items():
        claim = Claim(
            *("", "", "correlation_margin", "above"),
            of=[f"`{name}`" for name in ours],
            against=[f"`{name}`" for name in theirs],
        )
        found = measures.measure(claim, context)
        truth = min(true[name] for name in ours) - max(true[name] for name in theirs)
        yield label, found.low, truth, found.high


# Churn rates and ratios of groups

GROUPS = {
    "20% of the members, churn 45% against 22%": (0.2, 0.45, 0.22),
    "10% of the members, churn 25% against 25%": (0.1, 0.25, 0.25),
    "2% of the members, churn 45% against 22%": (0.02, 0.45, 0.22),
    "2% of the members, churn 5% against 5%": (0.02, 0.05, 0.05),
    "20% of the members, churn 1% against 10%": (0.2, 0.01, 0.1),
}
"""The share of a group, its churn rate, that of all others."""


def ratios(rng: np.random.Generator, n: int) -> Iterator[Judged]:
    """Judge risk ratios (Katz; Walter where nobody left on a side)."""
    for label, (share, rate, other) in GROUPS.items():
        inside = rng.random(n) < share
        y = (rng.random(n) < np.where(inside, rate, other)).astype(int)
        found = statistics.risk_ratio(inside, y)
        yield label, found["low"], rate / other, found["high"]


SEGMENTS = {"60%": (0.6, 0.12), "30%": (0.3, 0.4), "8%": (0.08, 0.75), "2%": (0.02, 0.03)}
"""The share of each segment of all members, and its churn rate."""

SHARES, RATES = (np.array(values) for values in zip(*SEGMENTS.values(), strict=True))


def segmented(rng: np.random.Generator, n: int) -> tuple[pd.DataFrame, np.ndarray, np.ndarray]:
    """Draw members of four segments, and two columns in which these differ."""
    labels = rng.choice(len(SHARES), n, p=SHARES)
    normal = rng.normal(labels - 0.5, 1.0)
    X = pd.DataFrame({"normal": normal, "skewed": np.exp(rng.normal(0.2 * labels, 0.8))})
    return X, labels, (rng.random(n) < RATES[labels]).astype(int)


@cache
def true_profile() -> pd.DataFrame:
    """Return the profile of all members."""
    return portraits.profile(*segmented(np.random.default_rng(0), POPULATION))


def segments(rng: np.random.Generator, n: int) -> Iterator[Judged]:
    """Judge the segments' churn rates (Wilson) and deviations from the mean."""
    X, labels, y = segmented(rng, n)
    if len(np.unique(labels)) < len(SHARES):
        return
    found = portraits.profile(X, labels, y)
    for segment, (name, (_, rate)) in enumerate(SEGMENTS.items()):
        row = found.loc[segment]
        yield f"churn rate {rate:.0%}, {name} of all", row["churn_low"], rate, row["churn_high"]
        for column in X:
            low, high = row[f"interval_low_{column}"], row[f"interval_high_{column}"]
            true = true_profile().loc[segment, f"deviation_{column}"]
            yield f"deviation, {column} column, {name} of all", low, true, high


LINKS = {
    "no link": [0.27] * 5,
    "weak link": [0.2, 0.24, 0.27, 0.3, 0.36],
    "strong link": [0.05, 0.15, 0.3, 0.6, 0.9],
    "nearly certain": [0.005, 0.01, 0.02, 0.9, 0.98],
}
"""The churn rates of five equally large levels."""


def counted(n: np.ndarray, churned: np.ndarray) -> dict[str, float]:
    """Return the association of five levels from their counts."""
    rows = pd.DataFrame({"feature": "level", "n": n, "churned": churned})
    return association.links(rows, {"level": Column("category", values=("a",))}).iloc[0].to_dict()


def true_link(name: str) -> float:
    """Return the uncertainty coefficient: the share of the entropy that the level takes."""
    rates = np.array(LINKS[name])
    outcome, within = (stats.entropy([r, 1 - r]) for r in (rates.mean(), rates))
    return float(max(1 - within.mean() / outcome, 0.0))


def uncertainty(rng: np.random.Generator, n: int) -> Iterator[Judged]:
    """Judge the uncertainty coefficient of a category column."""
    for name, rates in LINKS.items():
        size = rng.multinomial(n, [0.2] * 5)
        found = counted(size, rng.binomial(size, rates))
        yield name, found["low"], true_link(name), found["high"]


# Decisions

ECONOMICS = decision.ContactEconomics(100, 2, 10, success=0.3, accept=0.5)
NET_BENEFIT_AT = [0.1, 0.3, 0.6]
CAPACITY = {"contacts": [200], "members": 4000}


@cache
def true_decision(name: str) -> dict[str, float]:
    """Return what the model's decision is worth in a world, per member."""
    y, probability = population(WORLDS[name])
    contacted = probability > THRESHOLDS[name]
    true = {
        "profit": decision_value.profit_interval(y, contacted, ECONOMICS).value / len(y),
        "break-even success": decision_value.break_even(y, contacted, ECONOMICS).value,
    }
    for row in decision_value.net_benefit(y, probability, thresholds=NET_BENEFIT_AT).itertuples():
        true[f"net benefit at {row.threshold}"] = row.model
        true[f"net benefit over all and none at {row.threshold}"] = row.gain
    table = decision_value.capacity_table(
        y, probability, ECONOMICS, **CAPACITY, resamples=2, seed=0
    )
    return true | {"precision": float(table["precision"].iloc[0])}


def decisions(rng: np.random.Generator, n: int) -> Iterator[Judged]:
    """Judge profit, break-even success, net benefits and the precision of 200 calls."""
    for name in list(WORLDS)[::3]:
        true, (y, probability) = true_decision(name), draw(rng, n, WORLDS[name])
        contacted = probability > THRESHOLDS[name]
        found = decision_value.profit_interval(y, contacted, ECONOMICS)
        yield f"profit, {name}", found.low, true["profit"] * n, found.high
        found = decision_value.break_even(y, contacted, ECONOMICS)
        yield f"break-even success, {name}", found.low, true["break-even success"], found.high
        for row in decision_value.net_benefit(
            y, probability, thresholds=NET_BENEFIT_AT
        ).itertuples():
            label = f"net benefit at {row.threshold}"
            yield f"{label}, {name}", row.low, true[label], row.high
            label = f"net benefit over all and none at {row.threshold}"
            yield f"{label}, {name}", row.gain_low, true[label], row.gain_high
        row = decision_value.capacity_table(
            y, probability, ECONOMICS, **CAPACITY, seed=int(rng.integers(2**31))
        ).iloc[0]
        yield (
            f"precision of 200 calls among 4,000, {name}",
            *(row["precision_low"], true["precision"], row["precision_high"]),
        )


KINDS = {
    "correlation": Kind("explore, claims", correlations),
    "mean-difference": Kind("explore, claims", mean_differences),
    "mean": Kind("claims", means),
    "correlation-margin": Kind("claims", margins, 0.25),
    "risk-ratio": Kind("explore, claims", ratios),
    "segments": Kind("segment", segments),
    "uncertainty-coefficient": Kind("explore", uncertainty),
    "decision": Kind("train", decisions, 0.5),
}
