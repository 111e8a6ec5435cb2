"""Every check of the gate, on members generated for it."""

import re

import numpy as np
import pytest

from churnlab.evaluation.performance import calibration_line
from churnlab.registry import gate
from churnlab.registry.against_champion import check_against, check_against_dummy


def against(y, candidate, champion, *, require="better", margin=0.01):
    how = {"metric": "log_loss", "thresholds": (0.5, 0.5), "seed": 0}
    return check_against(y, candidate, champion, require=require, margin=margin, **how)


def calibrated(y, probability):
    found = gate.check_calibration(y, probability, slope=(0.5, 2.0), ece=0.1, threshold=0.5, seed=0)
    return {check.name: check for check in found}


def test_calibration_fails_only_when_it_is_significantly_wrong(world):
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


def test_calibration_is_shown_with_its_interval_and_never_as_a_bare_zero(world):
    y, chance = world
    few = slice(0, 30)
    for part in (slice(None), few):
        cells = {name: check.cells for name, check in calibrated(y[part], chance[part]).items()}
        slope, ece = cells["calibration_slope"]["value"], cells["calibration_ece"]["value"]
        assert re.fullmatch(r"−?\d+\.\d\d \(−?\d+\.\d\d to \d+\.\d\d\)", slope)
        assert re.fullmatch(r"0\.\d{3} \(0\.\d{3} to 0\.\d{3}\)", ece)


def test_few_members_pass_with_a_warning_that_they_cannot_judge_the_calibration_error():
    rng = np.random.default_rng(0)
    chance = rng.uniform(0.1, 0.6, 40)
    y = (rng.random(40) < chance).astype(int)
    few = calibrated(y, chance)["calibration_ece"]
    assert (few.passed, few.warning) == (True, True)
    assert "40 members are too few to judge by a limit of 0.1" in few.message
    many = calibrated(np.tile(y, 20), np.tile(chance, 20))["calibration_ece"]
    assert not many.warning
    assert "a perfectly calibrated model would show" in many.message


def test_outcomes_that_are_separated_perfectly_have_an_infinite_slope_interval(world):
    y = world[0]
    perfect = np.where(y == 1, 0.97, 0.03) + np.linspace(-0.01, 0.01, len(y))
    assert calibrated(y, perfect)["calibration_slope"].passed


def test_an_interval_of_the_slope_that_excludes_nothing_is_said_to_be_too_few_to_judge(world):
    y, chance = (part[:12] for part in world)
    slope = calibrated(y, chance)["calibration_slope"]
    assert (slope.passed, slope.warning, slope.cells["passed"]) == (True, True, "too few to judge")
    assert "12 members are too few to judge by limits of 0.5 to 2" in slope.message
    many = calibrated(*world)["calibration_slope"]
    assert (many.warning, many.cells["passed"]) == (False, "yes")


def test_a_score_beyond_its_ceiling_is_leakage_only_if_it_is_beyond_chance():
    scores = {"test_f1": 0.9744, "test_f1_low": 0.87, "test_f1_high": 0.99, "cv_roc_auc": 1.0}
    scores |= {"cv_roc_auc_low": 1.0, "cv_roc_auc_high": 1.0}
    scores |= {"cv_members": 320, "test_members": 80}
    luck, leak = gate.check_ceiling(scores, {"test_f1": 0.97, "cv_roc_auc": 0.995})
    assert (luck.passed, luck.warning, luck.cells["passed"]) == (True, True, "too few to judge")
    assert (leak.passed, leak.cells["passed"]) == (False, "NO")
    assert "(95% CI 0.8700 to 0.9900) is above 0.97, with so few members perhaps by luck" in (
        luck.message
    )
    assert "leakage is suspected" in leak.message
    assert "with few members it may also be luck" in leak.message
    of_many = gate.check_ceiling(scores | {"test_members": 800}, {"test_f1": 0.97})
    assert [check.passed for check in of_many] == [False]


def test_a_gain_has_one_sign_in_words_and_in_the_result_line(world):
    y, chance = world
    for candidate, rival in ((chance, np.full(len(y), 0.3)), (np.full(len(y), 0.3), chance)):
        check = against(y, candidate, rival)
        low = re.search(r"a gain of \S+ \(95% CI (\S+) to ", check.message)
        assert low is not None
        assert float(low[1]) == pytest.approx(check.value, abs=1e-4)
    same = [against(y, chance, chance, require=word) for word in ("better", "not_worse")]
    assert [check.cells["value"] for check in same] == ["no better", "no worse"]


def test_the_95_percent_interval_of_the_slope_covers_the_truth_about_as_often():
    covered = []
    for seed in range(200):
        random = np.random.default_rng(seed)
        logit = random.normal(-1, 1.5, 300)
        y = (random.random(300) < 1 / (1 + np.exp(-0.8 * logit))).astype(int)
        predicted = 1 / (1 + np.exp(-logit))
        line = calibration_line(y, predicted)
        low, high = gate.slope_interval(
            y, predicted, slope=line["slope"], intercept=line["intercept"]
        )
        covered.append(low <= 0.8 <= high)
    assert 0.91 <= np.mean(covered) <= 0.985


def test_without_members_of_both_outcomes_nothing_is_measured_and_nothing_passes():
    y, p = np.zeros(5, int), np.full(5, 0.2)
    found = [
        against(y, p, p, require="not_worse"),
        *check_against_dummy(y, p, churn_rate=0.2, threshold=0.5, seed=0),
    ]
    found += [
        *calibrated(y, p).values(),
        *gate.check_minimum({}, {"roc_auc": 0.6}),
        *gate.check_ceiling({}, {"test_f1": 1}),
    ]
    assert [(check.value, check.passed) for check in found] == [(None, False)] * len(found)
    assert all("not measured" in check.message for check in found)
    assert gate.verdict(found, force=False) == "undecided"
    assert gate.verdict(found, force=True) == "forced"
    assert gate.verdict([], force=True) == "passed"


OLD = {
    "inputs": {"Age": ("double", True), "Plan": ("string", True), "Visits": ("double", False)},
    "outputs": {"churn_probability": ("double", True)},
    "params": {"threshold": ("double", False)},
}


@pytest.mark.parametrize(
    ("part", "change", "broken"),
    [
        ("inputs", {"Lifetime": ("double", True)}, "Lifetime is required and was no input"),
        ("inputs", {"Lifetime": ("double", False)}, None),
        ("inputs", {"Age": ("double", False)}, None),
        ("inputs", {"Age": ("string", True)}, "Age is string and was double"),
        ("inputs", {"Visits": ("double", True)}, "Visits is required and was optional"),
        ("inputs", {"Age": None}, "Age was removed"),
        ("outputs", {"churn_probability": None}, "churn_probability was removed"),
        ("outputs", {"churn_probability": ("long", True)}, "churn_probability has another type"),
        ("outputs", {"segment": ("long", True)}, None),
        ("params", {"threshold": None}, "threshold was removed"),
    ],
)
def test_requests_to_the_champion_must_work_with_the_candidate(part, change, broken):
    fields = {name: kind for name, kind in (OLD[part] | change).items() if kind is not None}
    check = gate.check_signature(OLD | {part: fields}, OLD)
    assert check.value == ([broken] if broken else [])
    assert check.passed == (broken is None)


def test_a_candidate_that_refuses_other_columns_is_not_what_clients_of_the_champion_expect():
    ignores, refuses = OLD | {"others": {"others": ("any", False)}}, OLD | {"others": {}}
    assert gate.check_signature(ignores, refuses).passed
    assert gate.check_signature(refuses, refuses).passed
    broken = gate.check_signature(refuses, ignores)
    assert broken.value == ["other columns are refused and were ignored"]


def test_served_predictions_equal_the_trained_ones_in_every_form_in_which_members_are_given():
    trained = np.array([0.1, 0.7])
    served = {"pandas reads them from CSV": trained, "JSON": trained + [0, 1e-3]}
    check = gate.check_served_predictions(trained, served, limit=1e-9)
    assert not check.passed
    assert check.value == pytest.approx(1e-3)
    assert check.message.startswith("given the members as JSON, the version's probabilities differ")
    assert gate.check_served_predictions(trained, {"JSON": trained}, limit=0).passed


def test_the_table_lists_every_check_and_sentences_explain_those_that_need_attention():
    checks = [
        gate.check_at_most("megabytes", 3.0, 500.0, unit="MB"),
        gate.check_stability("bootstrap ARI .6", by_hand=True),
        gate.check_held_out_members(
            {"were trained on": 3, "break the contract": 0}, members=10, left=7, limit=50
        ),
    ]
    table, words = (
        gate.format_checks(checks).split("\n")[part] for part in (slice(0, 4), slice(4, None))
    )
    assert [line.split()[0] for line in table[1:]] == [
        "megabytes",
        "stable_segmentation",
        "held_out_members",
    ]
    assert words == [
        "warning: the segmentation is not stable: bootstrap ARI .6",
        "undecided: 7 of 10 held-out members can be used, at least 50 are needed; "
        "left out: 3 were trained on",
    ]


def test_the_table_of_checks_says_in_words_where_a_good_value_lies(world):
    y, chance = world
    checks = [
        *check_against_dummy(y, chance, churn_rate=0.3, threshold=0.5, seed=0),
        against(y, chance, chance),
        against(y, chance, chance, require="not_worse", margin=0.02),
        *calibrated(y, chance).values(),
        gate.check_held_out_members({}, members=80, left=80, limit=50),
        *gate.check_minimum({"roc_auc": 0.9}, {"roc_auc": 0.6}),
        *gate.check_ceiling(
            {"test_f1": 0.9, "cv_log_loss": 0.3}, {"test_f1": 1, "cv_log_loss": 0.01}
        ),
        gate.check_stability(None, by_hand=False),
        gate.check_at_most("megabytes", 3.0, 500.0, unit="MB"),
    ]
    assert [check.cells["limit"] for check in checks] == [
        *("better", "better", "better", "at most 0.02 worse"),
        *("0.5 to 2", "at most 0.1", "at least 50", "at least 0.6"),
        *("at most 1", "at least 0.01", "stable", "at most 500"),
    ]
    printed = gate.format_checks(checks)
    assert all(check.cells["limit"] in printed for check in checks)
    assert "log loss" in checks[0].message
    assert "log_loss" not in checks[0].message
