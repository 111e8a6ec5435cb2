"""The 95% CIs of metrics, single and paired, cover the true values at the stated rate."""

from functools import cache

import numpy as np
import pytest
from scipy.special import expit

from churnlab.evaluation.comparison import paired_difference
from churnlab.evaluation.metric_names import METRICS
from churnlab.evaluation.performance import bootstrap_intervals, classification_metrics
from churnlab.models.decision import ContactEconomics
from support.planted import assert_at_most, tables
from support.planted_models import STRONG, WEAK, World
from support.soak import SOAK

WORLDS = {"weak": WEAK, "strong": STRONG, "few leave": World(-5.6, 3.0)}
NOISE = {"weak": 0.8, "strong": 2.0, "few leave": 1.5}
COSTS = ContactEconomics(100, 2, 10, success=0.3, accept=0.5)
CASES = pytest.mark.parametrize(
    ("world", "threshold"), [("weak", 0.5), ("weak", 0.85), ("strong", 0.2), ("few leave", 0.5)]
)
"""At 0.85 the weak model predicts churn for 0.3% of the members."""


def rivals(rng: np.random.Generator, members: int, world: str) -> tuple[np.ndarray, ...]:
    """Draw outcomes, the true probabilities, and those of a model that sees a noisy input."""
    log_odds = rng.normal(*WORLDS[world], members)
    y = (rng.random(members) < expit(log_odds)).astype(int)
    middle, spread = WORLDS[world]
    kept = spread**2 / (spread**2 + NOISE[world] ** 2)
    guess = middle + kept * (log_odds + rng.normal(0, NOISE[world], members) - middle)
    return y, expit(log_odds), expit(guess / np.sqrt(1 + np.pi * spread**2 * (1 - kept) / 8))


@cache
def truth(world: str, threshold: float) -> tuple[dict[str, float], dict[str, float]]:
    """Return the metrics of both models in the population."""
    y, *models = rivals(np.random.default_rng(0), 400_000, world)
    first, second = (
        classification_metrics(y, model, threshold=threshold, costs=COSTS) for model in models
    )
    return first, second


@CASES
@pytest.mark.parametrize("members", [800, 4000] if SOAK else [800])
def test_the_ci_of_a_metric_covers_its_true_value(world: str, threshold: float, members: int):
    true, _ = truth(world, threshold)
    missed = dict.fromkeys(METRICS, 0)
    of = tables(12, 4000)
    for rng in np.random.default_rng(members).spawn(of):
        y, model, _ = rivals(rng, members, world)
        found = bootstrap_intervals(y, model, threshold=threshold, seed=0, costs=COSTS)
        for name, (low, high) in found.items():
            missed[name] += not low <= true[name] <= high
    for events in missed.values():
        assert_at_most(0.06, events, of=of)


@pytest.mark.parametrize("metric", list(METRICS))
def test_the_ci_of_a_paired_difference_covers_its_true_value(metric: str):
    of, missed = tables(8, 2000), 0
    first, second = (scores[metric] for scores in truth("weak", 0.5))
    for rng in np.random.default_rng(5).spawn(of):
        y, *models = rivals(rng, 800, "weak")
        found = paired_difference(
            *(y, *models), metric=metric, thresholds=(0.5, 0.5), seed=0, costs=COSTS
        )
        missed += not found.ci_low <= first - second <= found.ci_high
    assert_at_most(0.06, missed, of=of)
