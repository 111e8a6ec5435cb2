"""Pure noise shows no groups, and the share of uncertainty that a link explains is covered."""

import numpy as np
import pandas as pd
import pytest
from scipy import special, stats

from churnlab.data.contract import Column, Contract
from churnlab.explore import statistics
from churnlab.explore.association import links
from churnlab.report.parts import explored
from churnlab.report.sentences import who_leaves
from support.planted import assert_at_least, assert_at_most, count, tables


def noise(rng: np.random.Generator, *, columns: int, n: int = 400) -> tuple[pd.DataFrame, Contract]:
    """Columns of all kinds that have nothing to do with who left."""
    kinds = [("numeric", "binary", "category")[at % 3] for at in range(columns)]
    values = {
        "numeric": lambda: rng.exponential(size=n),
        "binary": lambda: (rng.random(n) < 0.4).astype(float),
        "category": lambda: rng.choice(["a", "b", "c", "d"], n),
    }
    X = pd.DataFrame({f"c{at}": values[kind]() for at, kind in enumerate(kinds)})
    return X, Contract(
        "noise", "left", 1, {f"c{at}": Column(kind) for at, kind in enumerate(kinds)}
    )


def groups(X: pd.DataFrame, y: np.ndarray, contract: Contract) -> list:
    drivers = statistics.risk_ratios(X, y, contract.columns)
    none = pd.DataFrame(columns=["pearson_r", "p_value"])
    return explored(contract, drivers, none, none)["groups"]


@pytest.mark.parametrize("columns", [5, 20, 50])
def test_on_pure_noise_a_group_is_named_in_few_tables(columns):
    def named(rng: np.random.Generator) -> bool:
        X, contract = noise(rng, columns=columns)
        found = groups(X, (rng.random(len(X)) < 0.27).astype(int), contract)
        sentence = who_leaves(len(X), 100, found, looked=columns)
        assert ("most clearly" in sentence) == bool(found)
        return bool(found)

    of = tables(200 // columns, 2000)
    assert_at_most(0.05, count(named, of=of, seed=1), of=of)


def test_a_group_that_does_leave_more_is_named_among_50_columns():
    def named(rng: np.random.Generator) -> bool:
        X, contract = noise(rng, columns=50)
        y = (rng.random(len(X)) < np.where(X["c1"] == 1, 0.42, 0.18)).astype(int)
        return any(group["group"] == "c1 = 1" for group in groups(X, y, contract))

    of = tables(8, 500)
    assert_at_least(0.9, count(named, of=of, seed=2), of=of)


def planted_u(groups: int, slope: float) -> tuple[np.ndarray, float]:
    """Return the churn rates of groups of equal size, and the uncertainty coefficient."""
    rates = special.expit(np.linspace(-1, 1, groups) * slope - 1)
    whole = stats.entropy([rates.mean(), 1 - rates.mean()])
    return rates, float(1 - np.mean(stats.entropy([rates, 1 - rates])) / whole)


@pytest.mark.parametrize("n", [800, 4000])
@pytest.mark.parametrize(("size", "slope"), [(2, 0.3), (4, 1), (8, 2), (4, 4), (2, 4), (8, 8)])
def test_the_interval_of_the_uncertainty_coefficient_covers_it_and_no_more(size, slope, n):
    rates, truth = planted_u(size, slope)
    columns = {"a": Column("category")}

    def missed(rng: np.random.Generator) -> bool:
        members = rng.multinomial(n, np.full(size, 1 / size))
        churned = rng.binomial(members, rates)
        counted = pd.DataFrame({"feature": "a", "n": members, "churned": churned})
        found = links(counted, columns).iloc[0]
        return not found["low"] <= truth <= found["high"]

    of = tables(60, 4000)
    misses = count(missed, of=of, seed=3)
    assert_at_most(0.06, misses, of=of)
    assert_at_least(0.025, misses, of=of)
