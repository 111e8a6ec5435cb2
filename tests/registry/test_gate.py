"""The checks of the gate, each on members made for it."""

import numpy as np
import pytest

from churnlab.models.evaluation import calibration_line
from churnlab.registry import gate

N = 500


@pytest.fixture(scope="module")
def world() -> tuple[np.ndarray, np.ndarray]:
    """Members with honest probabilities: y, and what an ideal model says."""
    random = np.random.default_rng(0)
    chance = 1 / (1 + np.exp(-random.normal(-1.5, 2.5, N)))
    return (random.random(N) < chance).astype(int), chance


def against(y, candidate, champion, **how):
    asked = {
        "metric": "log_loss",
        "thresholds": (0.5, 0.5),
        "require": "better",
        "margin": 0.01,
        "seed": 0,
    } | how
    return gate.against_champion(y, candidate, champion, **asked)


@pytest.mark.parametrize("metric", ["log_loss", "roc_auc", "f1", "brier"])
def test_the_same_model_is_not_better_and_not_worse_in_any_metric(world, metric):
    y, chance = world
    assert not against(y, chance, chance, metric=metric).passed
    same = against(y, chance, chance, metric=metric, require="not_worse", margin=0.0)
    assert (same.passed, same.value) == (True, 0)


@pytest.mark.parametrize("metric", ["log_loss", "roc_auc"])
def test_a_decisively_better_model_passes_both_ways_and_its_rival_neither(world, metric):
    y, chance = world
    blurred = 1 / (
        1 + np.exp(-(np.log(chance / (1 - chance)) + np.random.default_rng(1).normal(0, 3, N)))
    )
    for require in ("better", "not_worse"):
        assert against(y, chance, blurred, metric=metric, require=require).passed
        assert not against(y, blurred, chance, metric=metric, require=require).passed


def test_a_slightly_other_model_is_not_worse_and_not_proven_better(world):
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
        found = gate.against_dummy(y, noise, churn_rate=0.27, threshold=0.5, seed=0)
        assert not all(check.passed for check in found)


def test_an_honest_model_beats_the_dummy_and_the_dummy_does_not_beat_itself(world):
    y, chance = world
    assert all(
        check.passed
        for check in gate.against_dummy(y, chance, churn_rate=0.3, threshold=0.5, seed=0)
    )
    dummy = gate.against_dummy(
        y, np.full(N, y.mean()), churn_rate=float(y.mean()), threshold=0.5, seed=0
    )
    assert [check.passed for check in dummy] == [False, False]


def calibrated(y, probability):
    found = gate.check_calibration(y, probability, slope=(0.5, 2.0), ece=0.1, threshold=0.5, seed=0)
    return {check.name: check for check in found}


def test_probabilities_are_refused_only_when_they_are_wrong_beyond_doubt(world):
    y, chance = world
    logit = np.log(chance / (1 - chance))
    assert all(check.passed for check in calibrated(y, chance).values())
    bold = calibrated(y, 1 / (1 + np.exp(-4 * logit)))
    assert not bold["calibration_slope"].passed
    assert 0.2 < bold["calibration_slope"].value < 0.5
    assert not calibrated(y, np.clip(chance + 0.3, 0, 1))["calibration_ece"].passed
    few = slice(0, 30)
    assert all(
        check.passed for check in calibrated(y[few], 1 / (1 + np.exp(-2.5 * logit[few]))).values()
    )


def test_outcomes_that_are_told_apart_perfectly_have_a_slope_without_end(world):
    y = world[0]
    perfect = np.where(y == 1, 0.97, 0.03) + np.linspace(-0.01, 0.01, N)
    assert calibrated(y, perfect)["calibration_slope"].passed


def test_the_slopes_interval_covers_the_truth_about_as_often_as_it_says():
    covered = []
    for seed in range(200):
        random = np.random.default_rng(seed)
        logit = random.normal(-1, 1.5, 300)
        y = (random.random(300) < 1 / (1 + np.exp(-0.8 * logit))).astype(int)
        said = 1 / (1 + np.exp(-logit))
        found = calibration_line(y, said)
        low, high = gate.slope_interval(y, said, slope=found["slope"], intercept=found["intercept"])
        covered.append(low <= 0.8 <= high)
    assert 0.91 <= np.mean(covered) <= 0.985


def test_without_members_of_both_outcomes_nothing_is_measured_and_nothing_passes():
    y, p = np.zeros(5, int), np.full(5, 0.2)
    found = [
        against(y, p, p, require="not_worse"),
        *gate.against_dummy(y, p, churn_rate=0.2, threshold=0.5, seed=0),
    ]
    found += [
        *calibrated(y, p).values(),
        *gate.good_enough({}, {"roc_auc": 0.6}),
        *gate.plausible({}, {"test_f1": 1}),
    ]
    assert [(check.value, check.passed) for check in found] == [(None, False)] * len(found)
    assert all("not measured" in check.said for check in found)
    assert gate.verdict(found, force=False) == "refused"
    assert gate.verdict(found, force=True) == "forced"
    assert gate.verdict([], force=True) == "passed"


OLD = {
    "inputs": {"Age": ("double", True), "Plan": ("string", True), "Visits": ("double", False)},
    "outputs": {"churn_probability": ("double", True)},
    "params": {"threshold": ("double", False)},
}


@pytest.mark.parametrize(
    ("part", "change", "fault"),
    [
        ("inputs", {"Lifetime": ("double", True)}, "Lifetime must be given and was not asked for"),
        ("inputs", {"Lifetime": ("double", False)}, None),
        ("inputs", {"Age": ("double", False)}, None),
        ("inputs", {"Age": ("string", True)}, "Age is string and was double"),
        ("inputs", {"Visits": ("double", True)}, "Visits must be given and could be left out"),
        ("inputs", {"Age": None}, "Age is gone"),
        ("outputs", {"churn_probability": None}, "churn_probability is gone"),
        ("outputs", {"churn_probability": ("long", True)}, "churn_probability has another type"),
        ("outputs", {"segment": ("long", True)}, None),
        ("params", {"threshold": None}, "threshold is gone"),
    ],
)
def test_who_asks_the_champion_can_ask_the_candidate_in_the_same_words(part, change, fault):
    fields = {name: kind for name, kind in (OLD[part] | change).items() if kind is not None}
    check = gate.compatible(OLD | {part: fields}, OLD)
    assert check.value == ([fault] if fault else [])
    assert check.passed == (fault is None)


def test_the_table_tells_every_check_and_in_words_what_failed_or_needs_a_look():
    checks = [
        gate.light("megabytes", 3.0, 500.0, unit="MB"),
        gate.stable_segments("bootstrap ARI .6", by_hand=True),
        gate.enough_members(
            {"were trained on": 3, "break the contract": 0}, members=10, left=7, limit=50
        ),
    ]
    table, words = (gate.told(checks).split("\n")[part] for part in (slice(0, 4), slice(4, None)))
    assert [line.split()[0] for line in table[1:]] == [
        "megabytes",
        "stable_segmentation",
        "held_out_members",
    ]
    assert words == [
        "warning: the segmentation is not stable: bootstrap ARI .6",
        "failed: of 10 held-out members 7 can judge, at least 50 must; left out: 3 were trained on",
    ]
