"""Profit per member and expected maximum profit (EMPC): by hand, brute force and a package."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta

from churnlab.evaluation.performance import classification_metrics
from churnlab.evaluation.profit import CERTAINTY, expected_maximum_profit
from churnlab.models.decision import ContactEconomics, profit, profit_curve

COSTS = ContactEconomics(100, 2, 10, success=0.3, accept=0.5)
PAPER = (200, 1, 10, 6, 14)

EMPULSE = [
    (50, 0.1, 12, PAPER, 5.428622260842048),
    (200, 0.3, 12, PAPER, 17.261066756551347),
    (1000, 0.5, 12, PAPER, 27.96708940576342),
    (37, 0.3, 1, PAPER, 17.87912027216535),
    (400, 0.3, 1, PAPER, 10.67178479594871),
    (300, 0.05, 2, PAPER, 1.9047631773039568),
    (200, 0.3, 12, (100, 2, 10, 2, 18), 1.4244635160301442),
    (200, 0.3, 12, (60, 5, 20, 10, 10), 2.6250025625857),
    (500, 0.2, 1, (1000, 40, 0, 6, 14), 39.44153864340078),
    (500, 0.2, 2, (30, 0, 10, 12, 8), 1.4880000000000002),
]
"""EMPC by empulse 0.13.1 (PyPI), in an environment of its own: members, churn rate, decimals of the
probability; value, contact cost, incentive, and alpha and beta of the success; ``by_empulse`` of
``members(seed, ...)``, the seed being the number of the row."""


def members(seed: int, n: int, rate: float, decimals: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw outcomes and probabilities from a generator whose numbers never change."""
    drawn = np.random.RandomState(seed)
    y = (drawn.random_sample(n) < rate).astype(int)
    y[:2] = [0, 1]
    return y, np.round((drawn.random_sample(n) + 0.6 * y) / 1.6, decimals)


def by_empulse(y, p, value, contact, incentive, a, b) -> float:
    from empulse.metrics import empc_score

    how = {"clv": value, "contact_cost": contact, "incentive_cost": incentive}
    return float(empc_score(y, p, alpha=a, beta=b, **how))


def empc(y, p, costs: ContactEconomics) -> float:
    return classification_metrics(y, p, threshold=0.5, costs=costs)["empc"]


@pytest.mark.parametrize("seed", range(len(EMPULSE)))
def test_the_expected_maximum_profit_equals_that_of_another_package(seed):
    *drawn, (value, contact, incentive, a, b), expected = EMPULSE[seed]
    assert a + b == CERTAINTY
    costs = ContactEconomics(value, contact, incentive, success=a / (a + b), accept=1)
    assert empc(*members(seed, *drawn), costs) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("seed", range(len(EMPULSE)))
def test_the_recorded_numbers_are_what_the_package_still_computes(seed):
    pytest.importorskip("empulse", reason="empulse is installed only to check the numbers again")
    *drawn, costs, expected = EMPULSE[seed]
    assert by_empulse(*members(seed, *drawn), *costs) == pytest.approx(expected, rel=1e-12)


def by_brute_force(y, p, costs: ContactEconomics, *, steps: int = 20_000) -> float:
    """Integrate over quantiles of the success the best profit that any threshold reaches."""
    success = beta.ppf(
        (np.arange(steps) + 0.5) / steps, CERTAINTY * costs.success, CERTAINTY * (1 - costs.success)
    )
    best = np.zeros(steps)
    for threshold in np.unique(p):
        contacted = p >= threshold
        leavers, stayers = (contacted & (y == 1)).sum(), (contacted & (y == 0)).sum()
        gain = leavers * success * (costs.retained_value - costs.incentive)
        spent = stayers * costs.accept * costs.incentive + contacted.sum() * costs.contact_cost
        best = np.maximum(best, gain - spent)
    return float(best.mean() / len(y))


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    n=st.integers(4, 60),
    decimals=st.sampled_from([1, 12]),
    costs=st.builds(
        ContactEconomics,
        *(st.floats(0, 500), st.floats(0.1, 20), st.floats(0, 50)),
        success=st.floats(0.05, 0.95),
        accept=st.floats(0, 1),
    ),
)
def test_the_expected_maximum_profit_is_the_integral_over_the_best_thresholds(
    seed, n, decimals, costs
):
    y, p = members(seed, n, 0.3, decimals)
    assert empc(y, p, costs) == pytest.approx(by_brute_force(y, p, costs), rel=2e-3, abs=2e-3)


@pytest.mark.parametrize("success", [0.0, 1.0])
def test_a_success_that_is_certain_leaves_the_maximum_of_the_profit_curve(success):
    y, p = members(3, 100, 0.3, 12)
    costs = replace(COSTS, success=success)
    best = profit_curve(y, p, costs)["profit"].max() / len(y)
    assert empc(y, p, costs) == pytest.approx(best)
    assert (best > 0) == (success == 1)


def test_contacts_that_cannot_pay_earn_nothing_and_free_ones_never_lose():
    y, p = members(4, 100, 0.3, 12)
    assert empc(y, p, replace(COSTS, retained_value=5.0)) == 0
    free = ContactEconomics(100, 0, 10, success=0.3, accept=0)
    assert empc(y, p, free) == pytest.approx(0.3 * 90 * y.mean())


def test_the_expected_maximum_profit_depends_on_the_order_alone():
    y, p = members(5, 200, 0.3, 2)
    assert empc(y, p**3 / 2, COSTS) == empc(y, p, COSTS)
    assert empc(y, np.full(200, 0.3), COSTS) < empc(y, p, COSTS)


def test_resamples_without_members_in_some_groups_have_the_profit_of_the_others():
    left, stayed = np.array([[3.0, 0.0, 1.0]]), np.array([[1.0, 0.0, 5.0]])
    bare = expected_maximum_profit(left[:, [0, 2]], stayed[:, [0, 2]], COSTS)
    assert expected_maximum_profit(left, stayed, COSTS) == bare


@given(seed=st.integers(0, 1000), threshold=st.floats(0, 1))
def test_the_profit_is_that_of_contacting_everybody_above_the_threshold(seed, threshold):
    y, p = members(seed, 50, 0.3, 1)
    found = classification_metrics(y, p, threshold=threshold, costs=COSTS)["profit"]
    assert found == pytest.approx(profit(y, p > threshold, COSTS) / 50)
