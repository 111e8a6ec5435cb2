"""Each quantity of a claim against its formula or library, and the members it is measured on."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from churnlab.claims.claim import Claim, verdict
from churnlab.claims.measures import ClaimContext, check_claims, measure
from churnlab.data.demo import members
from churnlab.errors import InputError
from churnlab.evaluation.comparison import fold_test, paired_difference
from churnlab.explore.statistics import correlations, risk_ratio


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    return members(1500, seed=4).astype("float64")


@pytest.fixture
def context(frame) -> ClaimContext:
    return ClaimContext(
        frame,
        "Churn",
        segments={"by_age": pd.cut(frame["Age"], 4, labels=False).to_numpy()},
        resamples=400,
    )


def claim(quantity: str, **keys) -> Claim:
    return Claim(source="", statement="", quantity=quantity, **{"direction": "above"} | keys)


def test_a_correlation_has_the_value_and_interval_of_an_exploration(frame, context):
    found = measure(claim("correlation", of="Lifetime"), context)
    expected = correlations(frame[["Lifetime"]], frame["Churn"].to_numpy(int)).iloc[0]
    assert found[:3] == pytest.approx((expected["pearson_r"], expected["low"], expected["high"]))
    assert found.about == "over 1,500 members"


def test_a_correlation_may_be_with_another_column_and_among_some(frame, context):
    found = measure(
        claim("correlation", of="log1p(Lifetime)", against="Age", among="Partner == 1"), context
    )
    some = frame[frame["Partner"] == 1]
    assert found.value == pytest.approx(
        stats.pearsonr(np.log1p(some["Lifetime"]), some["Age"]).statistic
    )
    assert found.low < found.value < found.high


def test_the_interval_of_a_correlation_covers_that_of_fisher_where_both_are_normal():
    rng = np.random.default_rng(0)
    x = rng.normal(size=4000)
    table = pd.DataFrame({"x": x, "y": 0.5 * x + rng.normal(size=4000)})
    found = measure(claim("correlation", of="x", against="y"), ClaimContext(table, "y"))
    fisher = stats.pearsonr(table["x"], table["y"]).confidence_interval()
    assert (found.low, found.high) == pytest.approx((fisher.low, fisher.high), abs=0.003)


def test_a_risk_ratio_is_katzs_and_its_other_group_is_outside_the_first(frame, context):
    found = measure(claim("risk_ratio", among="Lifetime <= 1"), context)
    expected = risk_ratio(frame["Lifetime"].to_numpy() <= 1, frame["Churn"].to_numpy(int))
    assert found[:3] == pytest.approx((expected["risk_ratio"], expected["low"], expected["high"]))
    some = frame[frame["Lifetime"] <= 3]
    expected = risk_ratio(some["Lifetime"].to_numpy() <= 1, some["Churn"].to_numpy(int))
    found = measure(claim("risk_ratio", among="Lifetime <= 1", against="Lifetime <= 3"), context)
    assert found[:3] == pytest.approx((expected["risk_ratio"], expected["low"], expected["high"]))
    first, both = int((frame["Lifetime"] <= 1).sum()), len(some)
    assert found.about == f"{first} members against {both - first} members"


def test_a_risk_ratio_may_be_of_any_condition(frame, context):
    found = measure(
        claim("risk_ratio", of="Group_visits == 1", among="Promo_friends == 1"), context
    )
    means = frame.groupby("Promo_friends")["Group_visits"].mean()
    assert found.value == pytest.approx(means[1] / means[0])


def test_a_difference_of_means_has_welchs_interval(frame, context):
    found = measure(claim("mean_difference", of="Age", among="Churn == 1"), context)
    left, stayed = (frame["Age"][frame["Churn"] == value] for value in (1, 0))
    expected = stats.ttest_ind(left, stayed, equal_var=False).confidence_interval()
    assert found[:3] == pytest.approx((left.mean() - stayed.mean(), expected.low, expected.high))


def test_a_difference_of_shares_has_newcombes_interval():
    """The first example of Newcombe (1998), table II: 56 of 70 against 48 of 80, method 10: .0524
    to .3339."""
    table = pd.DataFrame(
        {"group": [1] * 70 + [0] * 80, "yes": [1] * 56 + [0] * 14 + [1] * 48 + [0] * 32}
    )
    found = measure(
        claim("mean_difference", of="yes", among="group == 1"),
        ClaimContext(table.astype(float), "yes"),
    )
    assert found[:3] == pytest.approx((0.2, 0.0524, 0.3339), abs=5e-5)


def test_what_everybody_does_here_and_nobody_there_is_a_difference():
    table = pd.DataFrame({"group": [1.0] * 20 + [0.0] * 20})
    table["near"], table["left"] = table["group"], [0.0, 1.0] * 20
    found = measure(
        claim("mean_difference", of="near", among="group == 1"), ClaimContext(table, "left")
    )
    assert found.value == found.high == 1
    assert 0.5 < found.low < 1


def test_a_share_has_wilsons_interval_and_a_mean_students(frame, context):
    share = measure(claim("mean", of="Partner == 1", among="Churn == 1", than=0.5), context)
    left = frame["Partner"][frame["Churn"] == 1]
    expected = stats.binomtest(int(left.sum()), len(left)).proportion_ci(method="wilson")
    assert share[:3] == pytest.approx((left.mean(), expected.low, expected.high))
    mean = measure(claim("mean", of="Age", than=30), context)
    expected = stats.ttest_1samp(frame["Age"], 30).confidence_interval()
    assert mean[:3] == pytest.approx((frame["Age"].mean(), expected.low, expected.high))


def test_a_margin_is_of_the_weakest_of_these_over_the_strongest_of_those(frame, context):
    found = measure(
        claim("correlation_margin", of=["Lifetime", "Age"], against=["gender", "Partner"]), context
    )
    r = {name: abs(np.corrcoef(frame[name], frame["Churn"])[0, 1]) for name in frame.columns[:-1]}
    assert found.value == pytest.approx(
        min(r["Lifetime"], r["Age"]) - max(r["gender"], r["Partner"])
    )
    assert found.low < found.value < found.high
    turned = measure(
        claim("correlation_margin", of="gender", against="Lifetime", direction="below"), context
    )
    assert turned.value == pytest.approx(r["gender"] - r["Lifetime"])
    assert turned.high < 0


def test_the_interval_of_a_margin_holds_what_resampling_row_by_row_gives(frame, context):
    found = measure(claim("correlation_margin", of="Lifetime", against="Age"), context)
    rng = np.random.default_rng(0)
    columns = frame[["Lifetime", "Age", "Churn"]].to_numpy()
    drawn = []
    for _ in range(400):
        r = np.abs(np.corrcoef(columns[rng.integers(0, len(frame), len(frame))].T)[2])
        drawn.append(r[0] - r[1])
    assert (found.low, found.high) == pytest.approx(
        tuple(np.percentile(drawn, [2.5, 97.5])), abs=1e-9
    )


def test_the_ends_of_a_margin_are_those_of_its_pairs(frame, context):
    """The lower end is the lowest of all pairs, the upper one the lowest at the Bonferroni level;
    the extremes of each resample are biased, and would call a true margin false."""
    names = {"of": ["Lifetime", "Age"], "against": ["Partner", "Promo_friends"]}
    found = measure(claim("correlation_margin", **names), context)
    pairs = [
        measure(claim("correlation_margin", of=a, against=b), context)
        for a in names["of"]
        for b in names["against"]
    ]
    assert found.value == pytest.approx(min(pair.value for pair in pairs))
    assert found.low == pytest.approx(min(pair.low for pair in pairs))
    assert found.high > min(pair.high for pair in pairs)


def test_p_is_below_5_percent_exactly_if_a_verdict_is_reached_and_is_that_of_the_test(
    frame, context
):
    left = frame["Churn"] == 1
    welch = stats.ttest_ind(frame["Age"][left], frame["Age"][~left], equal_var=False).pvalue
    found = measure(
        claim("mean_difference", of="Age * 0.1 + gender", among="gender == 1"),
        context,
    )
    assert found.p < 0.05
    gender = frame["gender"] == 1
    weak = stats.ttest_ind(frame["Age"][gender], frame["Age"][~gender], equal_var=False)
    assert measure(
        claim("mean_difference", of="Age", among="gender == 1"), context
    ).p == pytest.approx(weak.pvalue)
    assert measure(claim("mean_difference", of="Age", among="Churn == 1"), context).p == max(
        welch, 1e-12
    )
    r, n = np.corrcoef(frame["gender"], frame["Phone"])[0, 1], len(frame)
    fisher = 2 * stats.norm.sf(abs(np.arctanh(r)) * np.sqrt(n))
    assert measure(claim("correlation", of="gender", against="Phone"), context).p == pytest.approx(
        fisher, rel=0.2
    )


def test_a_ci_allows_for_the_choice_of_segments(frame, context):
    means = frame.groupby(context.segments["by_age"])["Lifetime"].mean()
    at = means.idxmax()
    keys = {"of": "Lifetime", "segments": "by_age"}
    chosen = measure(claim("mean_difference", among={"highest": "Lifetime"}, **keys), context)
    named = measure(claim("mean_difference", among=f"segment == {at}", **keys), context)
    assert chosen.value == pytest.approx(named.value)
    assert chosen.high - chosen.low > named.high - named.low
    assert chosen.p == pytest.approx(min(1, 4 * named.p))
    assert chosen.about.endswith("; the CI allows for a choice among 4")
    assert named.about.endswith("; descriptive: it names a segment by its number")


def test_what_the_segments_were_made_of_describes_them(frame, context):
    made = replace(context, made_of={"by_age": {"Age"}})
    keys = {"segments": "by_age", "among": {"highest": "Churn"}}
    assert measure(claim("mean_difference", of="Age + 1", **keys), made).about.endswith(
        "; descriptive: the segments were made of Age"
    )
    assert "descriptive" not in measure(claim("risk_ratio", **keys), made).about


def test_the_strongest_rival_is_every_rival(frame, context):
    """Above the highest of the others is above each of them, at the level of each pair."""
    keys = {"of": "Age", "segments": "by_age"}
    found = measure(
        claim("mean_difference", among="segment == 3", against={"highest": "Age"}, **keys), context
    )
    pairs = [
        measure(
            claim("mean_difference", among="segment == 3", against=f"segment == {other}", **keys),
            context,
        )
        for other in range(3)
    ]
    assert found.value == pytest.approx(min(pair.value for pair in pairs))
    assert found.low == pytest.approx(min(pair.low for pair in pairs))
    assert found.high > min(pair.high for pair in pairs)


def test_a_model_difference_is_the_hull_of_members_and_folds():
    rng = np.random.default_rng(2)
    y = (rng.random(300) < 0.3).astype(int)
    folds = np.column_stack([rng.permutation(300) % 5 for _ in range(5)])
    good = np.clip(0.3 + 0.4 * (y[:, None] - 0.3) + 0.2 * rng.normal(size=(300, 5)), 0.01, 0.99)
    poor = np.clip(0.3 + 0.3 * (y - 0.3) + 0.2 * rng.normal(size=300), 0.01, 0.99)
    keys = {"of": "good", "against": "poor", "metric": "brier"}
    stated = claim("model_difference", direction="below", **keys)
    models = {"good": good, "poor": poor}
    members = ClaimContext(pd.DataFrame({"y": y}), "y", probabilities=models, resamples=200)
    alone, both = measure(stated, members), measure(stated, replace(members, folds=folds))
    scores = [
        np.array([np.mean((p - y)[folds[:, 0] == fold] ** 2) for fold in range(5)])
        for p in (good[:, 0], poor)
    ]
    test = fold_test(*scores, ratio=1 / 4)
    assert both.low == pytest.approx(min(alone.low, test.ci_low))
    assert both.high == pytest.approx(max(alone.high, test.ci_high))
    assert both.p >= max(test.p, alone.p) * 0.999
    assert both.about == "brier out of fold, over 300 members and 5 folds"
    same = measure(
        stated, replace(members, folds=folds, probabilities={"good": good, "poor": good})
    )
    assert (same.low, same.high) == (0, 0)
    assert same.about.endswith("25 folds")


def test_segments_are_chosen_by_their_means_and_a_number_by_a_condition(frame, context):
    age = claim("mean", of="segment", segments="by_age", among={"highest": "Age"}, than=0)
    assert measure(age, context).value == 3
    lowest = claim("mean", of="segment", segments="by_age", among={"lowest": "Age"}, than=0)
    assert measure(lowest, context).value == 0
    rate = frame.groupby(context.segments["by_age"])["Churn"].mean()
    above = claim("mean", of="segment", segments="by_age", among={"above": "Churn"}, than=0)
    chosen = rate.index[rate > frame["Churn"].mean()]
    assert 0 < len(chosen) < 4
    assert measure(above, context).value == pytest.approx(
        context.segments["by_age"][np.isin(context.segments["by_age"], chosen)].mean()
    )
    oldest = claim("correlation", of="Lifetime", segments="by_age", among={"highest": "Age"})
    count = (context.segments["by_age"] == 3).sum()
    about = measure(oldest, context).about
    assert about == f"nothing can be said about {count} members: too few, or all alike"
    numbered = claim("risk_ratio", segments="by_age", among="segment == 0", against="segment == 2")
    assert measure(numbered, context).value == pytest.approx(rate[0] / rate[2])


def test_the_rival_of_the_highest_segment_is_the_highest_of_the_others(context, frame):
    means = frame.groupby(context.segments["by_age"])["Age"].mean()
    found = measure(
        claim(
            "mean_difference",
            of="Age",
            segments="by_age",
            among={"highest": "Age"},
            against={"highest": "Age"},
        ),
        context,
    )
    assert found.value == pytest.approx(means[3] - means[2])


def test_a_model_difference_is_the_paired_bootstrap_of_evaluation():
    rng = np.random.default_rng(1)
    y = (rng.random(400) < 0.3).astype(int)
    good, poor = (
        np.clip(0.3 + share * (y - 0.3) + 0.2 * rng.normal(size=400), 0.01, 0.99)
        for share in (0.5, 0.3)
    )
    context = ClaimContext(
        pd.DataFrame({"y": y}),
        "y",
        probabilities={"good": good, "poor": poor},
        resamples=200,
        seed=7,
    )
    for metric in ("roc_auc", "log_loss", "f1"):
        found = measure(
            claim("model_difference", of="good", against="poor", metric=metric), context
        )
        expected = paired_difference(
            y, good, poor, metric=metric, thresholds=(0.5, 0.5), resamples=200, seed=7
        )
        assert found[:3] == expected


def test_a_row_without_a_value_is_left_out_of_the_claims_that_need_it_and_of_no_other(frame):
    gaps = frame.copy()
    gaps.loc[gaps.index[:300], "Age"] = np.nan
    context = ClaimContext(gaps, "Churn")
    with_gaps = measure(claim("risk_ratio", among="Age > 29"), context)
    assert with_gaps == measure(
        claim("risk_ratio", among="Age > 29"), ClaimContext(frame.iloc[300:], "Churn")
    )
    assert measure(claim("correlation", of="Lifetime"), context).about == "over 1,500 members"
    assert measure(claim("correlation", of="Age"), context).about == "over 1,200 members"


ALIKE = "nothing can be said about 1,500 members: too few, or all alike"
NOBODY = "no member is in the group Age > 1000, so nothing can be said"
NOTHING = {
    "a constant": (claim("correlation", of="0 * Age"), ALIKE),
    "a constant of several": (
        claim("correlation_margin", of=["Age", "0 * Age"], against="Partner"),
        ALIKE,
    ),
    "nobody": (claim("risk_ratio", among="Age > 1000"), NOBODY),
    "everybody": (
        claim("risk_ratio", among="Age < 1000"),
        "no member is outside the group Age < 1000, so nothing can be said",
    ),
    "nobody to compare": (
        claim("mean_difference", of="Age", among="Age < 30", against="Age > 1000"),
        NOBODY,
    ),
    "the mean of nobody": (claim("mean", of="Age", among="Age > 1000", than=0), NOBODY),
    "the share of nobody": (
        claim("mean", of="Partner == 1", among="Age > 1000", than=0),
        NOBODY,
    ),
    "correlation of nobody": (claim("correlation", of="Age", among="Age > 1000"), NOBODY),
    "a margin of nobody": (
        claim("correlation_margin", of="Age", against="Partner", among="Age > 1000"),
        NOBODY,
    ),
    "one segment against the segments of nobody": (
        claim("risk_ratio", segments="one", among={"highest": "Age"}, against={"lowest": "Age"}),
        "no member is in the group {lowest: Age}, so nothing can be said",
    ),
    "a column without a value": (
        claim("mean", of="Empty", than=0),
        "no member is in the group without gaps, so nothing can be said",
    ),
}


@pytest.mark.parametrize(("nothing", "why"), NOTHING.values(), ids=NOTHING)
def test_without_anything_to_compare_a_quantity_has_no_interval_and_says_why(frame, nothing, why):
    context = ClaimContext(
        frame.assign(Empty=np.nan),
        "Churn",
        segments={"one": np.zeros(len(frame), dtype=int)},
        resamples=100,
    )
    found = measure(nothing, context)
    assert math.isnan(found.low)
    assert verdict(nothing, found.low, found.high) == "not shown"
    assert found.about == why


def test_an_expression_that_is_not_a_condition_is_refused(context):
    with pytest.raises(InputError, match="Age is not a condition"):
        measure(claim("risk_ratio", among="Age"), context)


def test_a_table_with_its_own_segment_column_is_refused(frame):
    context = ClaimContext(frame.assign(segment=1.0), "Churn", segments={"s": np.zeros(len(frame))})
    with pytest.raises(InputError, match="column segment already"):
        measure(claim("risk_ratio", segments="s", among="segment == 0"), context)


def test_faulty_expressions_are_reported_with_claim_and_key_before_any_work(frame):
    claims = {
        "right": claim("correlation", of="Age"),
        "typo": claim("correlation", of="Agee"),
        "code": claim("risk_ratio", among="__import__('os')"),
        "alone": claim("mean", of="segment == 1", than=0),
        "together": claim("mean", of="segment == 1", than=0, segments="s"),
        "list": claim("correlation_margin", of=["Age", "Heigth"], against="gender"),
    }
    with pytest.raises(InputError) as refused:
        check_claims(claims, list(frame), where="claims.statements")
    lines = str(refused.value).splitlines()
    for line, (name, reason) in zip(
        lines,
        {"typo.of": "Agee", "code.among": "no function __import__", "alone.of": "segment"}.items(),
        strict=False,
    ):
        assert line.startswith(f"claims.statements.{name}: ")
        assert reason in line
    assert lines[-1] == "and 1 more"
    check_claims({name: claims[name] for name in ("right", "together")}, list(frame), where="")


def test_the_same_seed_gives_the_same_bits_and_another_seed_other_ones(frame):
    margin = claim("correlation_margin", of="Lifetime", against="Age")
    found = [
        measure(margin, ClaimContext(frame, "Churn", resamples=100, seed=seed))
        for seed in (0, 0, 1)
    ]
    assert found[0] == found[1]
    assert found[0].low != found[2].low
