"""The comparisons of a candidate with the champion, a former champion and a dummy."""

import numpy as np
import pandas as pd
import pytest

from churnlab.registry import gate
from churnlab.registry.against_champion import (
    check_against,
    check_against_dummy,
    check_slices,
    margin_of,
)

N = 500  # the members of world


def against(y, candidate, champion, **how):
    settings = {
        "metric": "log_loss",
        "thresholds": (0.5, 0.5),
        "require": "better",
        "margin": 0.01,
        "seed": 0,
    } | how
    return check_against(y, candidate, champion, **settings)


@pytest.mark.parametrize("metric", ["log_loss", "roc_auc", "f1", "brier"])
def test_the_same_model_is_not_better_and_not_worse_in_any_metric(world, metric):
    y, chance = world
    assert not against(y, chance, chance, metric=metric).passed
    same = against(y, chance, chance, metric=metric, require="not_worse", margin=0.0)
    assert (same.passed, same.value) == (True, 0)


@pytest.mark.parametrize("metric", ["log_loss", "roc_auc"])
def test_a_much_better_model_passes_either_requirement_and_its_rival_neither(world, metric):
    y, chance = world
    blurred = 1 / (
        1 + np.exp(-(np.log(chance / (1 - chance)) + np.random.default_rng(1).normal(0, 3, N)))
    )
    for require in ("better", "not_worse"):
        assert against(y, chance, blurred, metric=metric, require=require).passed
        assert not against(y, blurred, chance, metric=metric, require=require).passed


def test_a_slightly_different_model_is_not_worse_and_not_significantly_better(world):
    y, chance = world
    other = 1 / (
        1 + np.exp(-(np.log(chance / (1 - chance)) + np.random.default_rng(2).normal(0, 0.1, N)))
    )
    for first, second in ((chance, other), (other, chance)):
        assert against(y, first, second, require="not_worse").passed
    assert not against(y, other, chance).passed
    assert not against(y, other, chance, require="not_worse", margin=0.0).passed


def test_noise_is_not_better_than_a_dummy_whatever_the_seed():
    for seed in range(6):
        random = np.random.default_rng(seed)
        y, noise = (random.random(160) < 0.27).astype(int), random.beta(2, 5, 160)
        found = check_against_dummy(y, noise, churn_rate=0.27, threshold=0.5, seed=0)
        assert not all(check.passed for check in found)


def test_an_honest_model_beats_the_dummy_and_the_dummy_does_not_beat_itself(world):
    y, chance = world
    assert all(
        check.passed
        for check in check_against_dummy(y, chance, churn_rate=0.3, threshold=0.5, seed=0)
    )
    dummy = check_against_dummy(
        y, np.full(N, y.mean()), churn_rate=float(y.mean()), threshold=0.5, seed=0
    )
    assert [check.passed for check in dummy] == [False, False]


def test_a_margin_is_a_number_for_all_metrics_one_for_each_or_the_metrics_own():
    assert margin_of(0.02, "log_loss") == margin_of(0.02, "roc_auc") == 0.02
    assert margin_of({"roc_auc": 0.03}, "roc_auc") == 0.03
    assert margin_of({"roc_auc": 0.03}, "brier") == margin_of(None, "brier") == 0.005


def shifted(chance: np.ndarray, by: float, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, by, len(chance))
    return 1 / (1 + np.exp(-(np.log(chance / (1 - chance)) + noise)))


def test_a_comparison_is_undecided_if_the_interval_holds_losses_on_both_sides_of_the_limit(world):
    y, chance = world
    poor, blurred = shifted(chance, 2.0), shifted(chance, 4.0)
    decided = {
        "equal": against(y[:60], chance[:60], shifted(chance, 0.7)[:60], require="not_worse"),
        "worse": against(y, blurred, chance, require="not_worse"),
        "same": against(y, chance, chance),
        "a little": against(y, chance, shifted(chance, 0.05)),
        "good": against(y, chance, poor),
    }
    outcomes = {name: (check.passed, check.undecided) for name, check in decided.items()}
    assert outcomes == {
        "equal": (False, True),
        "worse": (False, False),
        "same": (False, False),
        "a little": (False, True),
        "good": (True, False),
    }
    assert gate.verdict([decided["equal"], decided["good"]], force=False) == "undecided"
    assert gate.verdict([decided["equal"], decided["worse"]], force=False) == "refused"
    assert gate.verdict([decided["equal"]], force=True) == "forced"
    assert "undecided: log loss" in gate.format_checks([decided["equal"]])


def test_the_message_says_how_many_equal_models_would_pass_and_how_many_members_it_takes(world):
    y, chance = world
    few = against(y[:60], chance[:60], shifted(chance, 0.7)[:60], require="not_worse")
    assert "With so many members about " in few.message
    assert " of models as good as the champion would pass; 80% would with about " in few.message
    better = against(y, chance, shifted(chance, 0.1))
    assert " of models better by 0.01 would pass" in better.message
    assert "would pass" not in against(y, chance, chance).message


def test_rows_of_one_member_are_resampled_together(world):
    y, chance = world
    other = shifted(chance, 0.5)
    y, chance, other = (np.tile(values, 4) for values in (y, chance, other))
    groups = np.tile(np.arange(N), 4) * 7  # any numbers
    rows, members = (
        against(y, chance, other, require="not_worse", groups=each) for each in (None, groups)
    )
    once = against(y[:N], chance[:N], other[:N], require="not_worse")
    assert rows.value > members.value
    assert members.value == pytest.approx(once.value, abs=0.002)


def test_a_candidate_that_is_ruined_in_one_slice_is_refused_and_the_slice_is_named(world):
    y, chance = world
    plan = np.repeat(["basic", "gold"], [450, 50])
    labels = pd.DataFrame({"plan": plan, "one": "all"})
    same = check_slices(y, chance, chance, labels)
    assert (same.passed, same.value, same.limit) == (True, 0, 0)
    assert "none of 2 slices" in same.message
    ruined = check_slices(y, np.where(plan == "gold", 1 - chance, chance), chance, labels)
    assert (ruined.passed, ruined.value, ruined.undecided) == (False, 1, False)
    assert "worse than the champion in plan = gold (log loss +" in ruined.message
    assert check_slices(y, np.full(N, 0.2), np.full(N, 0.2), labels).passed
    everyone = check_slices(np.zeros(N, int), np.full(N, 0.9), np.full(N, 0.1), labels)
    assert everyone.value == 2
