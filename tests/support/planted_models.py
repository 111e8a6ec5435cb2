"""Draw members whose true churn probability is known, and models with a planted error."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import numpy as np
from scipy.special import expit

Drawn = tuple[np.ndarray, np.ndarray]
"""Outcomes and predicted probabilities of the same members."""


class World(NamedTuple):
    """Members whose log odds of leaving are normal; a quarter of them leave."""

    middle: float
    spread: float


WEAK, STRONG = World(-1.2, 1.07), World(-2.5, 4.0)
"""Worlds in which knowing the true probabilities gives a ROC AUC of 0.75 and of 0.95."""

MODELS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "perfect": lambda log_odds: expit(log_odds),
    "slightly timid": lambda log_odds: expit(log_odds / 1.15),
    "timid": lambda log_odds: expit(log_odds / 1.3),
    "bold": lambda log_odds: expit(log_odds / 0.6),
    "shifted": lambda log_odds: expit(log_odds + 0.2),
    "far off": lambda log_odds: expit(log_odds + 1.0),
    "off at the top": lambda log_odds: np.where(
        log_odds > 0, 0.5 + 0.3 * (expit(log_odds) - 0.5), expit(log_odds)
    ),
}
"""Predicted probabilities from the true log odds; ``timid`` has the slope 1.3 of a forest."""


def draw(rng: np.random.Generator, members: int, world: World, model: str = "perfect") -> Drawn:
    """Draw outcomes, and what the model predicts."""
    log_odds = rng.normal(*world, members)
    return (rng.random(members) < expit(log_odds)).astype(int), MODELS[model](log_odds)


@cache
def true_calibration_error(world: World, model: str) -> float:
    """Return the model's ECE in the population, over ten bins of equal size."""
    grid = np.random.default_rng(0).normal(*world, 300_000)
    predicted = MODELS[model](grid)
    gaps = (predicted - expit(grid))[np.argsort(predicted)]
    return float(np.mean([abs(part.mean()) for part in np.array_split(gaps, 10)]))
