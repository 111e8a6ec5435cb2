"""The CIs of what a decision earns cover the truth at the stated rate."""

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest

from churnlab.evaluation.decision_value import (
    break_even,
    capacity_table,
    net_benefit,
    profit_interval,
)
from churnlab.models.decision import ContactEconomics, profit
from support.planted import assert_at_least, assert_at_most, count, tables
from support.planted_models import STRONG, WEAK, World, draw

ECONOMICS = ContactEconomics(100, 2, 10, success=0.3, accept=0.5)
WORLDS = pytest.mark.parametrize("world", [WEAK, STRONG], ids=["weak", "strong"])
SIZES = pytest.mark.parametrize("members", [200, 800, 4000])
N, FEW = tables(40, 4000), tables(15, 4000)


@cache
def population(world: World) -> tuple[np.ndarray, np.ndarray]:
    return draw(np.random.default_rng(0), 400_000, world)


def assert_covers(measure: Callable[..., Any], true: float, world: World, members: int) -> None:
    """Check that the CI of a measure of a decision covers the true value in most tables."""

    def missed(rng: np.random.Generator) -> bool:
        y, p = draw(rng, members, world)
        found = measure(y, p > ECONOMICS.threshold, ECONOMICS)
        return not found.low <= true <= found.high

    assert_at_most(0.06, count(missed, of=N, seed=members), of=N)


@WORLDS
@SIZES
def test_the_ci_of_a_profit_covers_the_profit_to_expect(world: World, members: int):
    y, p = population(world)
    true = profit(y, p > ECONOMICS.threshold, ECONOMICS) * members / len(y)
    assert_covers(profit_interval, true, world, members)


@WORLDS
@SIZES
def test_the_ci_of_the_break_even_success_covers_the_true_one(world: World, members: int):
    y, p = population(world)
    true = break_even(y, p > ECONOMICS.threshold, ECONOMICS).value
    assert_covers(break_even, true, world, members)


@WORLDS
@pytest.mark.parametrize("threshold", [0.1, 0.3, 0.6])
def test_the_cis_of_a_net_benefit_cover_the_true_ones(world: World, threshold: float):
    true = net_benefit(*population(world), thresholds=[threshold]).iloc[0]

    def missed(rng: np.random.Generator) -> tuple[bool, bool]:
        found = net_benefit(*draw(rng, 800, world), thresholds=[threshold]).iloc[0]
        return (
            not found["low"] <= true["model"] <= found["high"],
            not found["gain_low"] <= true["gain"] <= found["gain_high"],
        )

    events = np.sum([missed(rng) for rng in np.random.default_rng(1).spawn(N)], axis=0)
    for number in events:
        assert_at_most(0.06, int(number), of=N)


def test_a_model_that_knows_nothing_seldom_has_a_net_benefit_above_all_and_none():
    def shown(rng: np.random.Generator) -> bool:
        y = (rng.random(800) < 0.27).astype(int)
        table = net_benefit(y, rng.uniform(0, 1, 800), thresholds=[0.27])
        return bool(table["gain_low"].iloc[0] > 0)

    assert_at_most(0.025, count(shown, of=N, seed=1), of=N)


@WORLDS
def test_the_cis_of_a_capacity_cover_what_the_riskiest_members_find_and_earn(world: World):
    kinds, how = ["precision", "leavers", "profit"], {"contacts": [200], "members": 4000, "seed": 0}
    true = capacity_table(*population(world), ECONOMICS, **how, resamples=2).iloc[0]
    missed = np.zeros(3, dtype=int)
    for rng in np.random.default_rng(2).spawn(FEW):
        found = capacity_table(*draw(rng, 800, world), ECONOMICS, **how).iloc[0]
        missed += [
            not found[f"{kind}_low"] <= true[kind] <= found[f"{kind}_high"] for kind in kinds
        ]
    for events in missed:
        assert_at_most(0.06, int(events), of=FEW)


def test_a_useful_model_is_shown_to_beat_contacting_everybody_and_nobody():
    def shown(rng: np.random.Generator) -> bool:
        table = net_benefit(*draw(rng, 800, STRONG), thresholds=[0.3])
        return bool(table["gain_low"].iloc[0] > 0)

    assert_at_least(0.95, count(shown, of=N, seed=1), of=N)
