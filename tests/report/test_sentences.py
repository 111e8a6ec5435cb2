import math
from typing import Any

import pytest

from churnlab.report.sentences import (
    five_sentences,
    how_stable,
    needs_attention,
    riskier,
    which_segments,
    who_leaves,
)


def driver(
    ratio: float, low: float, high: float, *, feature: str = "Lifetime", split: str = "> 1"
) -> dict[str, Any]:
    return {
        **{"feature": feature, "split": split, "risk_ratio": ratio, "low": low, "high": high},
        **{
            "n_with": 80,
            "n_without": 20,
            "churn_with": 0.2,
            "churn_without": 0.2 / ratio if ratio else 0.2,
            "q_value": 0.01,
        },
    }


def portrait(
    number: int, size: int, rate: float, *, low: float | None = None, keeps: float = 0.1
) -> dict[str, Any]:
    return {
        **{"id": number, "name": f"kind {number}", "size": size, "churn_rate": rate},
        **{"churn_low": rate - 0.02 if low is None else low, "churn_high": rate + 0.02},
        "actions": ["call them", "write", "wait", "hope"],
        "plans": [{"keeps": keeps}] * 4,
    }


GAINS = {0.1: {"gain": 0.3, "perfect": 0.4}, 0.5: {"gain": 0.9, "perfect": 1.0}}
MEMBERS = {"run_id": None, "rows": 400, "left": 100, "churn_rate": 0.25, "groups": None}
MODELS = {
    **{"recommended": "forest (raw features)", "run_id": "a", "best": None, "best_run_id": "a"},
    **{"rival": None, "rivals": None, "rival_run_id": None, "found": None, "refused": None},
    **{"metric": "log_loss", "value": 0.3, "held_out": 80, "late": None, "kept": True},
    **{"test": {"roc_auc": 0.9, "low": 0.85, "high": 0.95}, "gains": GAINS},
}

GUESSING = {"roc_auc": 0.55, "low": 0.45, "high": 0.65}
REFUSED = {"version": "4", "verdict": "refused"}


def test_a_risk_ratio_is_turned_to_the_side_with_the_higher_churn():
    turned = riskier(driver(0.25, 0.2, 0.5), kind="numeric", unit="months")
    assert turned == {
        **{
            "group": "Lifetime at most 1 (months)",
            "n": 20,
            "n_other": 80,
            "churn": 0.8,
            "churn_other": 0.2,
        },
        **{"ratio": 4.0, "low": 2.0, "high": 5.0, "q": 0.01},
    }
    straight = riskier(driver(2.0, 1.5, 3.0), kind="numeric")
    assert (straight["group"], straight["n"], straight["ratio"]) == ("Lifetime above 1", 80, 2.0)


@pytest.mark.parametrize(
    ("split", "kind", "ratio", "group"),
    [
        ("= 1", "binary", 0.5, "Home Club = 0"),
        ("= 1", "binary", 2.0, "Home Club = 1"),
        ("= 1", "category", 0.5, "Home Club other than 1"),
        ("= a = b", "category", 2.0, "Home Club = a = b"),
    ],
)
def test_each_kind_of_split_has_its_name(split, kind, ratio, group):
    row = driver(ratio, ratio * 0.9, ratio * 1.1, feature="Home_Club", split=split)
    assert riskier(row, kind=kind)["group"] == group


def test_a_binary_column_has_the_words_of_the_table():
    words = {"0": "No", "1": "Yes"}
    for ratio, word in ((0.5, "No"), (2.0, "Yes")):
        row = driver(ratio, ratio * 0.9, ratio * 1.1, feature="Partner", split="= 1")
        assert riskier(row, kind="binary", words=words)["group"] == f"Partner = {word}"


def test_a_side_that_nobody_left_makes_an_infinite_ratio_and_no_error():
    infinite = riskier(driver(0.0, 0.0, 0.4), kind="numeric")
    assert (infinite["ratio"], infinite["low"], infinite["high"]) == (math.inf, 2.5, math.inf)
    text = who_leaves(100, 4, [infinite | {"churn_other": 0.0}], looked=1)
    assert "∞" not in text
    assert "against none of the others." in text


def test_who_leaves_claims_no_more_than_was_explored():
    assert who_leaves(4000, 1000, None, looked=0) == (
        "Of 4,000 members, 1,000 left (25.0%); who they are has not been explored yet."
    )
    assert who_leaves(4000, 1000, [], looked=13).endswith(
        "none of the 13 groups looked at differs beyond chance."
    )
    group = riskier(driver(0.25, 0.2, 0.5), kind="numeric", unit="months")
    assert who_leaves(4000, 1000, [group], looked=13) == (
        "Of 4,000 members, 1,000 left (25.0%), most clearly those with Lifetime at most 1 "
        "(months): 80.0% of them left, against 20.0% of the others, 4.0 times the rate (95% CI "
        "2.0 to 5.0). 13 groups were looked at, and 1 differs at a false discovery rate of 5%."
    )


def test_attention_goes_to_the_most_leavers_beyond_the_overall_rate():
    small, large = portrait(0, 20, 0.9), portrait(1, 200, 0.5)
    assert needs_attention([small, large], churn_rate=0.25) is large
    assert needs_attention([portrait(0, 200, 0.5, low=0.2)], churn_rate=0.25) is None
    assert "no segment churns clearly more" in which_segments(
        [portrait(0, 200, 0.26), portrait(1, 200, 0.24)], churn_rate=0.25, left=100
    )


def test_the_segment_needing_attention_is_named_with_its_share_and_first_actions():
    text = which_segments([portrait(0, 300, 0.1), portrait(1, 100, 0.6)], churn_rate=0.25, left=90)
    assert "segment 1, “kind 1”, has the most leavers beyond the overall rate: 60.0% of its" in text
    assert "60 of all 90 who left; 40 are still there. The playbook advises, with no" in text
    assert text.endswith("call them; write; wait (and 1 more, below).")


def test_nobody_is_to_be_addressed_where_all_have_left():
    gone, next_one = portrait(0, 100, 1.0), portrait(1, 100, 0.6)
    assert needs_attention([gone, next_one], churn_rate=0.25) is next_one
    text = which_segments([gone, next_one], churn_rate=0.25, left=160)
    assert "all 100 members of segment 0, “kind 0”, have left, so there is nobody to ad" in text
    assert "; of the others, segment 1, “kind 1”, has the most leavers beyond" in text
    alone = which_segments([gone, portrait(1, 300, 0.0)], churn_rate=0.25, left=100)
    assert alone.endswith("; no other segment churns clearly more than the members overall.")
    assert "advises" not in alone


def test_no_action_is_to_be_tested_where_the_playbook_has_none_with_an_effect():
    for keeps, acts in ((0.0, False), (0.1, True)):
        segments = {"run_id": "s", "portraits": [portrait(0, 100, 0.6, keeps=keeps)]}
        found = five_sentences(MEMBERS, MODELS, segments, None, registered="demo-churn")
        assert ("advises, with no effect measured yet: call" in found[-2].text) == acts
        assert ("expects no effect of what it advises for them: call" in found[-2].text) != acts
        assert ("random half of its segment" in found[-1].text) == acts


def test_stability_is_judged_by_every_limit():
    limits = {"bootstrap_ari": 0.85, "prediction_strength": 0.8, "min_share": 0.05}
    found = {"bootstrap_ari": 0.99, "prediction_strength": 0.94, "min_share": 0.14}
    assert how_stable(found, limits).startswith("They are a cut that comes back on other members: ")
    for name in limits:
        assert how_stable(found | {name: limits[name] - 0.01}, limits).startswith(
            "They are a cut that may not come back"
        )
    groups = "shown to be groups (p = 0.02)"
    assert how_stable(found, limits, groups).startswith(f"They are {groups}: refits ")


@pytest.mark.parametrize(
    ("champion", "models", "part", "command"),
    [
        (None, {}, "No version of demo-churn is promoted yet", "promote"),
        (None, {"test": GUESSING}, "so there is none to promote", "explore"),
        (None, {"recommended": None}, "Every score is too good to be true", "explore"),
        (None, {"recommended": None, "kept": False}, "No run has kept its model", "train"),
        (None, {"refused": REFUSED}, "The gate refused it (version 4): train another", "train"),
        ({"recommended": False}, {}, "but does not use the recommended model", "promote"),
        ({"recommended": False}, {"refused": REFUSED}, "score the members with the cham", "score"),
        (
            {"recommended": False},
            {"refused": REFUSED | {"verdict": "undecided"}},
            "The gate had too few members to judge it (version 4): score",
            "score",
        ),
        ({"recommended": True}, {}, "and uses the recommended model: score the members", "score"),
        ({"recommended": None}, {}, "since 1 May 2026: score the members", "score"),
        (
            {"recommended": True, "lost": "it has lost its files: MLmodel"},
            {},
            "since 1 May 2026, but it cannot score anybody: it has lost its files: MLmodel.",
            "doctor",
        ),
    ],
)
def test_what_comes_next_depends_on_what_is_in_the_registry(champion, models, part, command):
    known = (
        None
        if champion is None
        else {"version": "3", "since": "1 May 2026", "run_id": "p", "lost": None} | champion
    )
    sentence = five_sentences(MEMBERS, MODELS | models, None, known, registered="demo-churn")[-1]
    assert part in sentence.text
    assert sentence.command is not None
    assert sentence.command.split()[0] == command
    if command != "doctor" and not models:
        assert "a correlation is not an effect" in sentence.text


def test_there_are_five_sentences_whatever_is_missing():
    for models in (None, MODELS):
        for segments in (None, {"run_id": "s", "portraits": [portrait(0, 100, 0.5)]}):
            found = five_sentences(MEMBERS, models, segments, None, registered="demo-churn")
            assert len(found) == 5
            assert all(sentence.text.endswith(".") for sentence in found)


def test_the_command_promotes_the_recommended_run_where_it_is_not_the_best():
    models = MODELS | {"best": ("deeper forest", 0.29), "best_run_id": "b"}
    found = five_sentences(MEMBERS, models, None, None, registered="demo-churn")[-1]
    assert found.command == "promote churn_run=a"
    found = five_sentences(MEMBERS, MODELS, None, None, registered="demo-churn")[-1]
    assert found.command == "promote"


def test_scores_are_too_good_to_be_true_only_where_models_were_kept():
    for kept in (True, False):
        models = MODELS | {"recommended": None, "kept": kept}
        which = five_sentences(MEMBERS, models, None, None, registered="demo-churn")[1].text
        assert ("too good to be true" in which) == kept
        assert ("no run has kept its model" in which) != kept
