"""The gate promotes worse models as rarely as it says, and equal ones as often as it says."""

from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import brentq
from scipy.special import expit

from churnlab.evaluation.metric_names import LOWER_IS_BETTER, METRICS
from churnlab.evaluation.performance import classification_metrics
from churnlab.registry.against_champion import (
    check_against,
    check_slices,
    measure_loss,
    share_of_equals,
)
from churnlab.registry.gate import Check
from support.planted import assert_at_least, assert_at_most, tables
from support.planted_models import STRONG, WEAK, World
from support.soak import SOAK

WORLDS = {"weak": WEAK, "strong": STRONG, "few leave": World(-5.6, 3.0)}
NOISE = 0.15
"""What each model gets wrong by itself: the standard deviation of its error in log odds."""


class Rivals(NamedTuple):
    """Outcomes, and the predictions of a candidate and of a champion."""

    y: np.ndarray
    candidate: np.ndarray
    champion: np.ndarray


def rivals(rng: np.random.Generator, members: int, world: str, *, extra: float = 0.0) -> Rivals:
    """Draw outcomes, and models with errors in common and of their own; the candidate's are larger
    by ``extra``."""
    log_odds = rng.normal(*WORLDS[world], members)
    y = (rng.random(members) < expit(log_odds)).astype(int)
    shared = log_odds + rng.normal(0, NOISE, members)
    spreads = np.hypot(NOISE, extra), NOISE
    return Rivals(y, *(expit(shared + rng.normal(0, sd, members)) for sd in spreads))


def expected_log_loss(world: str, error: float) -> float:
    """Return the log loss of a model whose log odds have a normal error, by quadrature."""
    at, weight = np.polynomial.hermite_e.hermegauss(80)
    middle, spread = WORLDS[world]
    log_odds = (middle + spread * at)[:, None]
    guess = np.clip(expit(log_odds + error * at), 0.001, 0.999)
    loss = -expit(log_odds) * np.log(guess) - expit(-log_odds) * np.log1p(-guess)
    return float(weight @ loss @ weight / weight.sum() ** 2)


@cache
def extra_error(world: str, metric: str, loss: float) -> float:
    """Return the extra error that makes a candidate worse by so much in the population."""

    def too_much(extra: float) -> float:
        if metric == "log_loss":
            errors = np.sqrt(2 * NOISE**2 + extra**2), np.sqrt(2) * NOISE
            worse, better = (expected_log_loss(world, error) for error in errors)
            return worse - better - loss
        y, *models = rivals(np.random.default_rng(0), 1_000_000, world, extra=extra)
        worse, better = (classification_metrics(y, each, threshold=0.5)[metric] for each in models)
        sign = 1 if metric in LOWER_IS_BETTER else -1
        return sign * (worse - better) - loss

    return float(brentq(too_much, 0, 8, xtol=0.002))


def against(
    y: np.ndarray, candidate: np.ndarray, champion: np.ndarray, *, metric: str = "log_loss"
) -> Check:
    return check_against(
        y,
        candidate,
        champion,
        metric=metric,
        thresholds=(0.5, 0.5),
        require="not_worse",
        margin=METRICS[metric].margin,
        seed=0,
    )


def tables_with_both(members: int, world: str, of: int, *, extra: float = 0.0) -> Iterator[Rivals]:
    """Draw the members of so many tables; a table without both outcomes is no table."""
    for rng in np.random.default_rng(members).spawn(of):
        drawn = rivals(rng, members, world, extra=extra)
        if 0 < drawn.y.sum() < members:
            yield drawn


@pytest.mark.parametrize("world", list(WORLDS))
@pytest.mark.parametrize("members", [50, 200, 800, 4000] if SOAK else [50])
def test_a_model_worse_by_the_margin_is_promoted_in_at_most_2_5_percent(world: str, members: int):
    extra, of = extra_error(world, "log_loss", 0.01), tables(150, 4000 if members < 1000 else 500)
    drawn = tables_with_both(members, world, of, extra=extra)
    assert_at_most(0.025, sum(against(*table).passed for table in drawn), of=of)


@pytest.mark.skipif(not SOAK, reason="the population of each metric is simulated, too")
@pytest.mark.parametrize("members", [200, 800])
@pytest.mark.parametrize("metric", ["roc_auc", "average_precision", "brier", "f1", "accuracy"])
def test_so_it_is_in_other_metrics_with_their_own_margins(metric: str, members: int):
    extra, of = extra_error("weak", metric, METRICS[metric].margin), tables(60, 1000)
    drawn = tables_with_both(members, "weak", of, extra=extra)
    assert_at_most(0.025, sum(against(*table, metric=metric).passed for table in drawn), of=of)


def test_a_model_better_by_a_hundredth_passes_not_worse_in_at_least_80_percent():
    extra, of = extra_error("weak", "log_loss", 0.01), tables(30, 2000)
    drawn = tables_with_both(800, "weak", of, extra=extra)
    passed = sum(against(y, better, worse).passed for y, worse, better in drawn)
    assert_at_least(0.8, passed, of=of)


@pytest.mark.parametrize("members", [200, 800] if SOAK else [400])
def test_the_message_states_the_share_of_equal_models_that_pass(members: int):
    of, passed, promised = tables(20, 2000), 0, 0.0
    for y, *models in tables_with_both(members, "weak", of):
        loss = measure_loss(y, *models, metric="log_loss", thresholds=(0.5, 0.5), seed=0)
        passed += loss.high <= 0.01
        promised += share_of_equals(loss, 0.01) / of
    assert_at_most(min(promised + 0.02, 1), passed, of=of)
    assert_at_least(max(promised - 0.02, 0), passed, of=of)


CHAIN, JUDGES = 10, 5000
"""Promotions in a row, each of a model that is worse than the one before by half a margin; so many
judges that the champion alone would let nearly all of them pass."""


def test_ten_promotions_that_each_lose_half_a_margin_are_stopped_by_the_earlier_champion():
    slipped, of = 0, tables(3, 100)
    errors = np.sqrt(np.diff([0.0, *(lost_error(0.005 * step) for step in range(1, CHAIN + 1))]))
    for rng in np.random.default_rng(1).spawn(of):
        for step in range(1, CHAIN + 1):
            log_odds = rng.normal(*WEAK, JUDGES)
            y = (rng.random(JUDGES) < expit(log_odds)).astype(int)
            added = rng.normal(0, errors[:step, None], (step, JUDGES))
            models = expit(log_odds + np.cumsum(np.vstack([0 * log_odds[None], added]), axis=0))
            former = models[max(0, step - 6)]
            if not against(y, models[-1], models[-2]).passed:
                break
            if step > 1 and not against(y, models[-1], former).passed:
                break
        else:
            slipped += 1
    assert_at_most(0.01, slipped, of=of)


def lost_error(loss: float) -> float:
    """Return the variance of an error in log odds that costs a perfect model so much log loss."""
    perfect = expected_log_loss("weak", 0.0)
    error = brentq(lambda sd: expected_log_loss("weak", sd) - perfect - loss, 0, 8)
    return float(error) ** 2


def test_equal_models_are_refused_for_a_slice_in_at_most_5_percent():
    of, refused = tables(50, 4000), 0
    for y, *models in tables_with_both(800, "weak", of):
        plan = np.repeat([f"plan {i}" for i in range(10)], 80)
        segment = np.arange(800) % 20
        labels = pd.DataFrame({"plan": plan, "segment": np.where(segment > 3, 4, segment)})
        refused += not check_slices(y, *models, labels).passed
    assert_at_most(0.05, refused, of=of)


def test_a_model_that_is_ruined_in_a_tenth_of_the_members_is_refused():
    of, refused = tables(30, 1000), 0
    for rng in np.random.default_rng(2).spawn(of):
        plan = np.repeat([f"plan {i}" for i in range(10)], 80)
        y, candidate, champion = rivals(rng, 800, "weak")
        ruined = np.where(plan == "plan 3", 1 - candidate, candidate)
        refused += not check_slices(y, ruined, champion, pd.DataFrame({"plan": plan})).passed
    assert_at_least(0.8, refused, of=of)
