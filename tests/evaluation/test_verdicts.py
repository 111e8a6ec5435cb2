"""Which of two models is better: what each answer needs, what decides, and what is said."""

import numpy as np
import pandas as pd
import pytest

from churnlab.evaluation.comparison import Difference, FoldTest
from churnlab.evaluation.verdicts import (
    BETTER,
    EQUAL,
    TOO_FEW,
    Predictions,
    compare_on_hold_out,
    decide,
    describe,
    judge,
)

SURE = FoldTest(-0.02, -0.03, -0.01, 0.001, 25)
UNSURE = FoldTest(-0.02, -0.05, 0.01, 0.2, 25)


@pytest.mark.parametrize(
    ("found", "metric", "who"),
    [
        (Difference(-0.01, -0.02, -0.001), "log_loss", 0),
        (Difference(-0.01, -0.02, -0.001), "roc_auc", 1),
        (Difference(0.01, 0.001, 0.02), "ece", 1),
        (Difference(0.01, 0.001, 0.02), "f1", 0),
        (Difference(0.01, -0.001, 0.03), "f1", None),
        (Difference(np.nan, np.nan, np.nan), "roc_auc", None),
    ],
)
def test_without_folds_a_model_is_better_if_it_is_better_in_the_whole_interval(found, metric, who):
    assert decide(found, None, metric=metric) == ((TOO_FEW if who is None else BETTER), who)


@pytest.mark.parametrize(
    ("found", "folds", "answer"),
    [
        (Difference(-0.02, -0.03, -0.01), SURE, (BETTER, 0)),
        (Difference(-0.02, -0.03, -0.01), UNSURE, (TOO_FEW, None)),
        (Difference(-0.02, -0.05, 0.01), SURE, (TOO_FEW, None)),
        (Difference(0.02, 0.01, 0.03), SURE, (TOO_FEW, None)),
        (Difference(0.001, -0.004, 0.006), FoldTest(0.001, -0.02, 0.02, 0.9, 5), (TOO_FEW, None)),
        (Difference(0.001, -0.004, 0.006), FoldTest(0.001, -0.009, 0.01, 0.9, 5), (EQUAL, None)),
        (
            Difference(-0.003, -0.004, -0.002),
            FoldTest(-0.003, -0.004, -0.002, 0.01, 5),
            (BETTER, 0),
        ),
    ],
)
def test_better_needs_both_tests_and_equal_both_intervals_within_the_margin(found, folds, answer):
    assert decide(found, folds, metric="log_loss") == answer


def test_the_region_of_practical_equivalence_can_be_set():
    found = Difference(0.001, -0.004, 0.006)
    assert decide(found, None, metric="log_loss", rope=0.005)[0] == TOO_FEW
    assert decide(found, None, metric="brier")[0] == TOO_FEW
    assert decide(found, None, metric="brier", rope=0.01)[0] == EQUAL
    assert decide(Difference(0, 0, 0), None, metric="brier", rope=0)[0] == EQUAL


@pytest.mark.parametrize(
    ("found", "sentence"),
    [
        (
            Difference(-0.01432, -0.018, -0.011),
            "linear is better than forest by 0.0143 (95% CI 0.0110 to 0.0180) in log loss.",
        ),
        (
            Difference(0.002, 0.001, 0.003),
            "forest is better than linear by 0.0020 (95% CI 0.0010 to 0.0030) in log loss, which "
            "is within 0.01 and matters little in practice.",
        ),
        (
            Difference(0.0015, -0.0012, 0.0041),
            "linear and forest are equal for all practical purposes: the first minus the second is "
            "+0.0015 (95% CI -0.0012 to +0.0041) in log loss, within 0.01 of 0.",
        ),
        (
            Difference(0.015, -0.012, 0.041),
            "4,000 members are too few to tell which of linear and forest is better: the first "
            "minus the second is +0.0150 (95% CI -0.0120 to +0.0410) in log loss.",
        ),
    ],
)
def test_each_answer_has_its_sentence(found, sentence):
    names = ("linear", "forest")
    assert describe(found, None, metric="log_loss", names=names, members=4000) == sentence


ROWS = np.arange(400)
LOGIT = np.random.default_rng(0).normal(-1, 2, 400)
Y = (np.random.default_rng(1).random(400) < 1 / (1 + np.exp(-LOGIT))).astype(int)


def evidence(name: str, *, noise: float, folds: int = 5, draws: int = 1, **more) -> Predictions:
    """The truth with noise on 300 members of a training part, and on 100 held out."""
    shifted = LOGIT + np.random.default_rng(2).normal(0, noise, 400)
    table = pd.DataFrame({"row": ROWS, "y": Y, "probability": 1 / (1 + np.exp(-shifted))})
    table["threshold"] = 0.5
    parts = [
        table[:300].assign(fold=(ROWS[:300] * (repeat + 1)) % folds, repeat=repeat)
        for repeat in range(draws)
    ]
    return Predictions(name, table[300:], 300, pd.concat(parts), **more)


GOOD, BAD = evidence("good", noise=0), evidence("bad", noise=3)


def test_untuned_models_are_decided_on_the_draws_that_they_share():
    found = judge(evidence("good", noise=0, draws=3), BAD, metric="log_loss", seed=0)
    assert (found.answer, found.winner, found.decided_by) == (BETTER, 0, "out of fold")
    assert found.fold_test.folds == len(found.folds) == 5
    assert found.sentences[0].startswith("good is better than bad by ")
    assert found.sentences[1].startswith("The fold test agrees over 5 folds")
    assert judge(BAD, GOOD, metric="log_loss", seed=0).winner == 1


def test_a_tuned_model_is_decided_by_nested_predictions_and_without_them_by_the_hold_out():
    tuned = evidence("tuned", noise=0, chosen_among=50)
    found = judge(tuned, BAD, metric="log_loss", seed=0)
    assert (found.winner, found.decided_by, found.fold_test) == (0, "hold-out", None)
    assert found.sentences[0].startswith("On the hold-out, which chose nothing, tuned is better")
    assert "tuned was chosen among 50 on these members." in found.sentences[1]
    nested = judge(tuned._replace(nested=BAD.out_of_fold), BAD, metric="log_loss", seed=0)
    assert (nested.answer, nested.decided_by) == (EQUAL, "nested")
    assert nested.difference == (0, 0, 0)
    assert "tuned was chosen among 50" in nested.sentences[2]


def test_a_tuned_model_is_not_decided_by_the_scores_that_selected_it():
    lucky = GOOD._replace(name="lucky", hold_out=BAD.hold_out, chosen_among=2)
    assert judge(lucky, BAD, metric="log_loss", seed=0).winner is None


def test_models_without_a_shared_draw_are_decided_on_the_hold_out():
    found = judge(GOOD, evidence("bad", noise=3, folds=4), metric="log_loss", seed=0)
    assert (found.winner, found.decided_by, found.folds) == (0, "hold-out", None)
    assert found.sentences[1] == "The two runs share no draw of the folds, so the hold-out decides."


def test_the_interval_on_the_hold_out_covers_training_on_other_members():
    """It is wider the more members are held out for each that is trained on."""
    few, many = (
        compare_on_hold_out(GOOD._replace(trained_on=members), BAD, metric="log_loss", seed=0)[0]
        for members in (100, 10_000)
    )
    assert few.delta == many.delta
    ratio = (few.ci_high - few.ci_low) / (many.ci_high - many.ci_low)
    assert ratio == pytest.approx(np.sqrt(2 / 1.01))


@pytest.mark.parametrize(
    ("found", "folds", "begins"),
    [
        (Difference(0.02, 0.01, 0.03), UNSURE, "The CI over the members excludes 0, but the fold"),
        (
            Difference(-0.02, -0.05, 0.01),
            SURE,
            "The fold test does find a difference",
        ),
        (Difference(-0.02, -0.03, -0.01), SURE, "The fold test agrees over 25 folds: 0.0200"),
        (Difference(-0.02, -0.05, 0.01), UNSURE, "The fold test agrees over 25 folds: -0.0200"),
    ],
)
def test_the_verdict_says_if_folds_and_members_disagree(found, folds, begins):
    from churnlab.evaluation.verdicts import _agreement

    assert _agreement(found, folds).startswith(begins)
