import time

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ttest_rel

from churnlab.evaluation.comparison import (
    FoldTest,
    by_draw,
    differing_keys,
    fold_error,
    fold_interval,
    fold_test,
    implausible,
    paired_difference,
    shared_draws,
    simplest,
    too_good,
    within_one_standard_error,
)
from churnlab.evaluation.metric_names import METRICS
from churnlab.evaluation.performance import classification_metrics
from churnlab.models.decision import ContactEconomics

HALVES = (0.5, 0.5)
COSTS = ContactEconomics(100, 2, 10, success=0.3, accept=0.5)
examples = settings(max_examples=30, deadline=None)


def models(
    n: int, *, seed: int = 0, decimals: int = 12
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Outcomes, and the probabilities of a good and of a worse model; few decimals make ties."""
    rng = np.random.default_rng(seed)
    logit = rng.normal(-1.2, 2, n)
    y = (rng.random(n) < 1 / (1 + np.exp(-logit))).astype(int)
    y[:2] = [0, 1]
    good, worse = (1 / (1 + np.exp(-logit - rng.normal(0, noise, n))) for noise in (0.3, 1.2))
    return y, good.round(decimals), worse.round(decimals)


@pytest.fixture(scope="module", params=[12, 1])
def one_by_one(request):
    """The textbook paired bootstrap, member by member: data, thresholds, all differences,
    the observed one."""
    y, first, second = models(300, decimals=request.param)
    thresholds = (0.4, 0.5)

    def scores(rows) -> list[dict[str, float]]:
        return [
            classification_metrics(y[rows], probability[rows], threshold=threshold, costs=COSTS)
            for probability, threshold in zip((first, second), thresholds, strict=True)
        ]

    rng = np.random.default_rng(2)
    drawn = [scores(rng.integers(0, len(y), len(y))) for _ in range(600)]
    differences = {
        name: np.array([one[name] - other[name] for one, other in drawn]) for name in METRICS
    }
    observed = scores(np.arange(len(y)))
    return (
        (y, first, second),
        thresholds,
        differences,
        {name: observed[0][name] - observed[1][name] for name in METRICS},
    )


# The paired bootstrap


@pytest.mark.parametrize("metric", [name for name in METRICS if name != "ece"])
def test_the_interval_equals_that_of_members_drawn_one_by_one(metric, one_by_one):
    data, thresholds, differences, observed = one_by_one
    delta, low, high = paired_difference(
        *data, metric=metric, thresholds=thresholds, resamples=4000, seed=1, costs=COSTS
    )
    assert delta == pytest.approx(observed[metric], abs=1e-12)
    expected = np.percentile(differences[metric], [2.5, 97.5])
    width = expected[1] - expected[0]
    assert width > 0
    assert np.abs(np.array([low, high]) - expected).max() < 0.15 * width


@examples
@given(
    metric=st.sampled_from(list(METRICS)),
    n=st.integers(4, 80),
    seed=st.integers(0, 1000),
    decimals=st.sampled_from([1, 12]),
    thresholds=st.tuples(st.floats(0, 1), st.floats(0, 1)),
)
def test_swapping_the_models_flips_every_sign(metric, n, seed, decimals, thresholds):
    y, first, second = models(n, seed=seed, decimals=decimals)
    how = {"metric": metric, "resamples": 200, "seed": 0, "costs": COSTS}
    there = paired_difference(y, first, second, thresholds=thresholds, **how)
    back = paired_difference(y, second, first, thresholds=thresholds[::-1], **how)
    assert there == pytest.approx((-back[0], -back[2], -back[1]), abs=1e-12)


@examples
@given(n=st.integers(4, 80), seed=st.integers(0, 1000), decimals=st.sampled_from([1, 12]))
def test_a_monotonic_transformation_does_not_change_ranking_metrics(n, seed, decimals):
    y, first, second = models(n, seed=seed, decimals=decimals)
    options = {"thresholds": HALVES, "resamples": 200, "seed": 0}
    moved = (first + 0.5) / 2
    for metric in ("roc_auc", "average_precision"):
        found = paired_difference(y, first, second, metric=metric, **options)
        assert paired_difference(y, moved, second, metric=metric, **options) == pytest.approx(
            found, abs=1e-12
        )
    assert paired_difference(y, moved, first, metric="roc_auc", **options) == pytest.approx(
        (0, 0, 0), abs=1e-12
    )
    assert paired_difference(y, moved, first, metric="brier", **options)[0] != 0


@pytest.mark.parametrize("metric", METRICS)
def test_a_model_does_not_differ_from_itself(metric):
    y, good, _ = models(200)
    how = {"metric": metric, "thresholds": HALVES, "seed": 0, "costs": COSTS}
    assert paired_difference(y, good, good, **how) == (0, 0, 0)


def test_the_difference_does_not_depend_on_the_order_of_the_members():
    y, good, worse = models(400)
    turned = paired_difference(
        y[::-1], good[::-1], worse[::-1], metric="roc_auc", thresholds=HALVES, seed=0
    )
    found = paired_difference(y, good, worse, metric="roc_auc", thresholds=HALVES, seed=0)
    assert turned[0] == pytest.approx(found[0], abs=1e-12)
    assert turned == pytest.approx(found, abs=0.1 * (found[2] - found[1]))


def test_repeats_average_their_metrics_not_their_probabilities():
    y, good, worse = models(400)
    rng = np.random.default_rng(5)
    repeats = np.clip(worse[:, None] + rng.normal(0, 0.15, (400, 5)), 0.001, 0.999)
    found = paired_difference(y, good, repeats, metric="log_loss", thresholds=HALVES, seed=0)
    alone = [
        paired_difference(y, good, repeat, metric="log_loss", thresholds=HALVES, seed=0)
        for repeat in repeats.T
    ]
    assert found[0] == pytest.approx(np.mean([each[0] for each in alone]), abs=1e-12)
    assert found[2] - found[1] < max(high - low for _, low, high in alone)
    together = paired_difference(
        y, good, repeats.mean(axis=1), metric="log_loss", thresholds=HALVES, seed=0
    )
    assert together[0] > found[0] + 0.01, (
        "an ensemble of the repeats would be better than the model is"
    )


def test_the_same_seed_gives_the_same_interval():
    y, good, worse = models(300)
    options = {"metric": "roc_auc", "thresholds": HALVES}
    assert paired_difference(y, good, worse, **options, seed=3) == paired_difference(
        y, good, worse, **options, seed=3
    )
    assert paired_difference(y, good, worse, **options, seed=3) != paired_difference(
        y, good, worse, **options, seed=4
    )


@pytest.mark.parametrize("metric", ["log_loss", "roc_auc"])
def test_vectorized_resamples_cost_less_than_a_third_of_a_loop(metric):
    y, good, worse = models(4000)
    started = time.process_time()
    paired_difference(y, good, worse, metric=metric, thresholds=HALVES, resamples=1000, seed=0)
    together, rng = time.process_time() - started, np.random.default_rng(0)
    started = time.process_time()
    for _ in range(100):
        rows = rng.integers(0, len(y), len(y))
        for probability in (good, worse):
            classification_metrics(y[rows], probability[rows], threshold=0.5)
    assert together < 10 * (time.process_time() - started) / 3


# The folds


def test_without_the_correction_the_fold_test_is_scipys_paired_t_test():
    rng = np.random.default_rng(0)
    first = rng.normal(0.97, 0.01, 25)
    second = first - rng.normal(0.003, 0.004, 25)
    expected = ttest_rel(first, second)
    found = fold_test(first, second, ratio=0)
    assert found.p == pytest.approx(expected.pvalue)
    assert (found.ci_low, found.ci_high) == pytest.approx(expected.confidence_interval())
    assert found.delta == pytest.approx((first - second).mean())


def test_the_correction_widens_the_interval_by_the_overlap_of_the_folds():
    rng = np.random.default_rng(1)
    first, second = rng.normal(0.97, 0.01, 10), rng.normal(0.96, 0.01, 10)
    plain, corrected = fold_test(first, second, ratio=0), fold_test(first, second, ratio=1 / 9)
    widths = [found.ci_high - found.ci_low for found in (plain, corrected)]
    assert widths[1] / widths[0] == pytest.approx(np.sqrt((1 / 10 + 1 / 9) / (1 / 10)))
    assert corrected.p > plain.p
    assert fold_error(first - second, ratio=1 / 9) == pytest.approx(
        np.std(first - second, ddof=1) * np.sqrt(19 / 90)
    )


@examples
@given(st.lists(st.floats(0, 1), min_size=2, max_size=30), st.floats(0.01, 1), st.integers(0, 100))
def test_swapping_the_models_flips_the_fold_test(values, ratio, seed):
    first = np.array(values)
    second = first + np.random.default_rng(seed).normal(0, 0.1, len(first))
    there, back = fold_test(first, second, ratio=ratio), fold_test(second, first, ratio=ratio)
    assert there[:4] == pytest.approx((-back.delta, -back.ci_high, -back.ci_low, back.p))
    assert there.ci_low <= there.delta <= there.ci_high
    assert (there.p < 0.05) == (there.ci_low > 0 or there.ci_high < 0)


def test_folds_with_equal_differences_have_an_interval_without_width():
    values = np.array([0.5, 0.25, 0.75])
    assert fold_test(values, values, ratio=0.5) == FoldTest(0, 0, 0, 1, 3)
    assert fold_test(values + 0.25, values, ratio=0.5) == FoldTest(0.25, 0.25, 0.25, 0, 3)


def test_between_equal_models_the_corrected_test_errs_far_less_often_than_the_plain_one():
    """Two models that learn only noise, on 5 x 5 repeated folds that share their training
    members."""
    rng = np.random.default_rng(0)
    wrong = np.zeros(2)
    for _ in range(200):
        members = rng.normal(0, 1, (2, 60))
        steps = []
        for _ in range(5):
            parts = np.array_split(rng.permutation(60), 5)
            for part in parts:
                rest = np.setdiff1d(np.arange(60), part)
                # each "model" is the mean of what it saw; its error on who it did not see
                errors = [
                    np.mean((members[0, part] - members[which, rest].mean()) ** 2)
                    for which in (0, 1)
                ]
                steps.append(errors)
        first, second = np.array(steps).T
        wrong += [fold_test(first, second, ratio=ratio).p < 0.05 for ratio in (0, 1 / 4)]
    assert wrong[0] / 200 > 0.2
    assert wrong[1] / 200 < wrong[0] / 200 / 2


# Which is enough


def test_the_simplest_good_enough_model_is_chosen():
    assert simplest([900, 100, 300], lambda place: True) == 1
    assert simplest([900, 100, 300], lambda place: place != 1) == 2
    assert simplest([900, 100, 300], lambda place: place == 0) == 0


def test_among_models_of_similar_size_the_better_one_is_chosen():
    assert simplest([1000, 960, 955], lambda place: True) == 0
    assert simplest([1100, 960, 955], lambda place: True) == 1
    assert simplest([1100, 960, 955], lambda place: place != 1) == 2


def test_a_model_of_unknown_size_counts_as_the_most_complex():
    assert simplest([np.inf, np.inf, 5000], lambda place: True) == 2
    assert simplest([np.inf, np.inf], lambda place: True) == 0


def test_on_the_same_folds_the_standard_error_is_that_of_the_differences():
    hard = np.array(
        [0.10, 0.14, 0.12, 0.16, 0.08]
    )  # folds differ much, the models in each of them little
    worse = hard + np.array([0.004, 0.006, 0.005, 0.004, 0.006])
    options = {"ratio": 1 / 4, "lower": True}
    assert not within_one_standard_error(hard, worse, paired=True, **options)
    assert within_one_standard_error(hard, worse, paired=False, **options)
    assert within_one_standard_error(
        hard, hard + np.array([0.02, -0.02, 0.01, -0.01, 0.002]), paired=True, **options
    )


@examples
@given(st.lists(st.floats(0, 1), min_size=2, max_size=10), st.booleans(), st.booleans())
def test_an_equal_or_better_model_is_always_within_one_standard_error(values, paired, lower):
    best = np.array(values)
    better = best - 0.25 if lower else best + 0.25
    assert within_one_standard_error(best, best, paired=paired, ratio=0.25, lower=lower)
    assert within_one_standard_error(best, better, paired=paired, ratio=0.25, lower=lower)


# Which is too good


def test_only_a_score_beyond_the_ceiling_is_listed():
    ceiling = {"cv_roc_auc": 0.995, "test_f1": 0.97, "cv_log_loss": 0.05, "test_roc_auc": None}
    scores = {"cv_roc_auc": 0.9971, "test_f1": 0.97, "cv_log_loss": 0.01, "test_roc_auc": 1.0}
    assert too_good(scores, ceiling) == [
        "cv_roc_auc 0.9971 is above 0.995",
        "cv_log_loss 0.0100 is below 0.05",
    ]
    assert too_good({"cv_roc_auc": 0.99, "cv_log_loss": 0.1}, ceiling) == []


@pytest.mark.parametrize(
    ("score", "value", "low", "high", "limit", "sure"),
    [
        ("test_f1", 0.9744, 0.87, 0.99, 0.97, False),
        ("test_f1", 0.9744, 0.971, 0.99, 0.97, True),
        ("cv_log_loss", 0.05, 0.01, 0.2, 0.1, False),
        ("cv_log_loss", 0.05, 0.01, 0.08, 0.1, True),
    ],
)
def test_a_score_beyond_the_ceiling_by_chance_is_not_too_good(score, value, low, high, limit, sure):
    scores, limits = {score: value, f"{score}_low": low, f"{score}_high": high}, {score: limit}
    counted = f"{score.partition('_')[0]}_members"
    (found,) = implausible(scores | {counted: 799}, limits).values()
    assert found.sure == sure
    assert f"(95% CI {low:.4f} to {high:.4f})" in found.text
    assert too_good(scores | {counted: 799}, limits) == [found.text] * sure
    assert too_good(scores | {counted: 800}, limits) == [found.text], "of so many it is no luck"


def test_a_perfect_score_in_every_fold_is_beyond_chance_and_a_scattered_one_is_not():
    perfect = fold_interval(np.ones(5), ratio=0.25)
    scattered = fold_interval(np.array([1, 1, 1, 0.99, 1.0]), ratio=0.25)
    assert perfect == (1, 1)
    assert scattered[0] < 0.995 < np.mean([1, 1, 1, 0.99, 1.0])


# What differs


def test_keys_that_differ_are_listed_by_their_dotted_names():
    first = {
        "seed": 0,
        "model": {"name": "lr", "estimator": {"C": 1.0, "l1": None}},
        "runs": [1, 2],
        "empty": {},
    }
    second = {
        "seed": 0,
        "model": {"name": "rf", "estimator": {"depth": 3}},
        "runs": [1, 3],
        "empty": {},
    }
    table = differing_keys(first, second)
    assert table.fillna("absent").to_numpy().tolist() == [
        ["model.name", "lr", "rf"],
        ["model.estimator.C", "1.0", "absent"],
        ["model.estimator.l1", "null", "absent"],
        ["runs", "[1, 2]", "[1, 3]"],
        ["model.estimator.depth", "absent", "3"],
    ]
    assert differing_keys(first, first).empty
    assert list(differing_keys(first, first)) == ["key", "A", "B"]


def predictions(*draws: dict[int, int], probability: float = 0.5) -> pd.DataFrame:
    """Out-of-fold predictions: for each draw, the fold of each row."""
    return pd.DataFrame(
        [
            {"row": row, "y": row % 2, "probability": probability, "fold": fold, "repeat": repeat}
            for repeat, draw in enumerate(draws)
            for row, fold in draw.items()
        ]
    )


def test_out_of_fold_predictions_are_aligned_by_row_in_any_order():
    table = pd.DataFrame(
        {
            "row": [7, 2, 2, 7],
            "y": [1, 0, 0, 1],
            "probability": [0.8, 0.1, 0.2, 0.9],
            "repeat": [0, 0, 1, 1],
        }
    ).sample(frac=1, random_state=1)
    assert by_draw(table).tolist() == [[0.1, 0.2], [0.8, 0.9]]
    assert by_draw(table, "y").tolist() == [[0, 0], [1, 1]]


def test_draws_of_equal_folds_are_shared_whatever_their_numbers():
    odd, half, third = {1: 0, 2: 1, 3: 0, 4: 1}, {1: 0, 2: 0, 3: 1, 4: 1}, {1: 0, 2: 1, 3: 1, 4: 1}
    first = predictions(odd, half, probability=0.1)
    renumbered = {row: 5 - fold for row, fold in odd.items()}
    second = predictions(third, renumbered, probability=0.9).sample(frac=1, random_state=0)
    a, b = shared_draws(first, second)
    assert a["row"].tolist() == b["row"].tolist() == [1, 2, 3, 4]
    assert a["fold"].tolist() == b["fold"].tolist() == [0, 1, 0, 1]
    assert set(a["repeat"]) == set(b["repeat"]) == {0}
    assert (set(a["probability"]), set(b["probability"])) == ({0.1}, {0.9})


def test_folds_of_other_members_or_in_another_number_are_not_shared():
    first = predictions({1: 0, 2: 1, 3: 0, 4: 1})
    assert shared_draws(first, predictions({1: 0, 2: 1, 3: 0, 5: 1})) is None
    assert shared_draws(first, predictions({1: 0, 2: 1, 3: 2, 4: 1})) is None


@pytest.mark.parametrize("metric", ["accuracy", "precision", "recall", "f1"])
def test_a_threshold_may_differ_from_member_to_member(metric):
    y, good, worse = models(200)
    options = {"metric": metric, "seed": 0}
    same = paired_difference(y, good, worse, thresholds=(0.3, 0.5), **options)
    arrays = np.full(200, 0.3), np.full(200, 0.5)
    assert paired_difference(y, good, worse, thresholds=arrays, **options) == same
    fold = np.arange(200) % 2
    own = np.where(fold == 1, 0.3, 0.6)
    marked = (good > own).astype(float)
    assert paired_difference(y, good, worse, thresholds=(own, 0.5), **options) == paired_difference(
        y, marked, worse, thresholds=(0.5, 0.5), **options
    )


def test_a_difference_is_significant_if_its_interval_excludes_zero():
    y, good, worse = models(1000)
    found = paired_difference(y, good, worse, metric="brier", thresholds=HALVES, seed=0)
    assert found.significant
    assert not paired_difference(
        y, good, good, metric="brier", thresholds=HALVES, seed=0
    ).significant
    assert found.delta < 0
