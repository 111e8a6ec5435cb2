from typing import Any, get_args

import pytest

from churnlab.config.commands import Metric
from churnlab.evaluation.comparison import Difference
from churnlab.evaluation.metric_names import LABELS
from churnlab.evaluation.verdicts import Verdict, decide, describe
from churnlab.report.model_sentences import Late, how_well, model_in_words, which_model

TEST = {"roc_auc": 0.9, "low": 0.85, "high": 0.95}
GAINS = {0.1: {"gain": 0.3, "perfect": 0.4}, 0.5: {"gain": 0.9, "perfect": 1.0}}


def compared(
    delta: float, low: float, high: float, *, lower: bool = True, basis: Any = "hold-out"
) -> str:
    metric = "log_loss" if lower else "roc_auc"
    found = Difference(delta, low, high)
    answer, winner = decide(found, None, metric=metric)
    verdict = Verdict(answer, winner, basis, found, None, None, ())
    return which_model(
        "logistic",
        0.1,
        best=None,
        rival="forest",
        found=verdict,
        metric=metric,
        held_out=800,
        test=TEST,
    )


def test_a_model_is_better_by_a_positive_number_whichever_way_the_metric_goes():
    assert compared(-0.03, -0.04, -0.02) == (
        "The recommended model is logistic, with a cross-validated log loss of 0.1000; on the 800 "
        "held-out members, which chose neither, it is better than the best forest by 0.0300 (95% "
        "CI 0.0200 to 0.0400)."
    )
    assert compared(0.03, 0.02, 0.04, lower=False).endswith("by 0.0300 (95% CI 0.0200 to 0.0400).")


def test_the_predictions_that_decided_are_named():
    assert "in cross-validation it is better" in compared(-0.03, -0.04, -0.02, basis="out of fold")
    assert "in nested cross-validation it" in compared(-0.03, -0.04, -0.02, basis="nested")


def test_a_recommended_model_can_be_worse_than_the_rival():
    assert "the best forest is better by 0.0300 (95% CI 0.0200 to 0.0400)" in compared(
        0.03, 0.02, 0.04
    )


def test_a_clear_difference_within_the_margin_matters_little():
    assert compared(-0.004, -0.006, -0.002).endswith(
        "to 0.0060), which matters little in practice."
    )


@pytest.mark.parametrize("delta", [-0.01, 0.01])
def test_a_model_is_not_called_better_when_the_interval_includes_no_difference(delta):
    text = compared(delta, delta - 0.02, delta + 0.02)
    assert "neither, are too few to tell whether it or the best forest is better" in text
    assert "−" in text


def test_models_within_the_margin_are_equal():
    assert "it and the best forest are equal for all practical purposes" in compared(
        0.001, -0.004, 0.006
    )


@pytest.mark.parametrize("lower", [True, False])
@pytest.mark.parametrize("delta", [-0.0123, 0.0123])
def test_the_report_states_a_difference_with_the_same_sign_as_compare(delta, lower):
    found = Difference(delta, delta - 0.03, delta + 0.03)
    metric = "log_loss" if lower else "roc_auc"
    sentence = describe(found, None, metric=metric, names=("logistic", "forest"), members=100)
    start = "the first minus the second is "
    stated = sentence.partition(start)[2].partition(" in ")[0]
    assert stated.startswith("-0.0123 (" if delta < 0 else "+0.0123 (")
    text = compared(*found, lower=lower)
    assert text.endswith(f"{start}{stated.replace('-', '−')}.")


def alone(recommended: str | None, **more: Any) -> str:
    keys = {"best": None, "rival": None, "found": None, "metric": "log_loss", "held_out": 80}
    return which_model(recommended, 0.3, **{**keys, "test": TEST, **more})


def test_a_model_alone_is_compared_with_nothing():
    assert "no other model on this table" in alone("forest")


def test_a_recommended_model_that_is_not_the_best_is_set_against_the_best():
    text = alone("logistic", best=("forest", 0.29))
    assert (
        "log loss of 0.3000, the simplest within one standard error of the best (forest, 0.2900)"
        in text
    )


def test_a_model_that_is_not_shown_to_beat_guessing_is_not_called_recommended():
    text = alone("dummy", test={"roc_auc": 0.5, "low": 0.5, "high": 0.5})
    assert text.startswith("The best there is, dummy, is not shown to be better than guessing: a c")


def test_no_model_is_recommended_where_every_score_is_too_good_to_be_true():
    text = alone(None)
    assert text.startswith("No model is recommended")
    assert "known only after a member has left" in text


def test_the_leavers_among_the_riskiest_are_compared_with_a_perfect_ranking():
    text = how_well(TEST, GAINS, held_out=80)
    assert "in 90.0% of the pairs (95% CI 85.0% to 95.0%, on 80 held-out members); of all" in text
    assert text.endswith(
        "the riskiest 10% include 30.0% and the riskiest 50% include 90.0% (a perfect ranking "
        "would find 40.0% and 100.0%)."
    )


def test_a_ranking_whose_interval_holds_one_half_is_not_shown_to_be_better_than_guessing():
    test = {"roc_auc": 0.53, "low": 0.47, "high": 0.59}
    text = how_well(test, GAINS, held_out=80)
    assert "80 held-out members), which is not shown to be better than guessing; of all" in text


@pytest.mark.parametrize(
    ("without", "part"),
    [
        (0.956, "the same model without last visits, known only close to churn, ranks 95.6% of"),
        (None, "it uses last visits, known only close to churn, and how well it ranks without"),
    ],
)
def test_a_model_with_late_columns_never_ranks_without_a_word_about_them(without, part):
    late = Late(["last_visits"], 0.992, without)
    text = how_well(TEST, GAINS, held_out=80, late=late)
    assert part in text
    assert ("instead of 99.2%" in text) == (without is not None)


def test_the_same_share_of_pairs_is_not_set_against_itself():
    late = Late(["last_visits"], 0.5001, 0.5)
    assert "ranks 50.0% of the pairs correctly, as many as with them (cross" in how_well(
        TEST, GAINS, held_out=80, late=late
    )


def test_every_metric_and_model_has_words():
    assert set(LABELS) == set(get_args(Metric))
    assert (
        model_in_words("random_forest", "raw", tuned=True) == "random forest (raw features, tuned)"
    )
