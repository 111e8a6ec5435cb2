import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from scipy.stats import norm

from churnlab.data.demo import members
from churnlab.segments.kmeans import fit_segmentation, segment_frame
from churnlab.segments.playbook import ALL_LEFT, text
from churnlab.segments.portraits import (
    certain_deviations,
    deviations,
    plan,
    plans_for_everyone,
    portraits,
    profile,
    segment_names,
)

CONF = Path(__file__).parents[2] / "conf"


def playbook(name: str) -> dict:
    return yaml.safe_load((CONF / "playbook" / f"{name}.yaml").read_text(encoding="utf-8"))


def described(
    table: pd.DataFrame, preset: str, *, by: str = "gym", language: str = "en"
) -> list[dict]:
    X, y = table.drop(columns="Churn").astype(float), table["Churn"].to_numpy(int)
    frame = segment_frame(
        X, yaml.safe_load((CONF / "segments" / f"{preset}.yaml").read_text())["columns"]
    )
    labels = fit_segmentation(frame, 4, n_init=10, random_state=0).predict(frame)
    return portraits(X, labels, y, playbook=playbook(by), language=language)


@pytest.fixture(scope="module")
def demo() -> pd.DataFrame:
    return members(n=4000, seed=0)


def test_the_interval_of_a_churn_rate_is_wilsons():
    left, size = np.array([0, 3, 50, 20]), np.array([10, 10, 200, 20])
    labels = np.repeat([0, 1, 2, 3], size)
    y = np.concatenate([np.arange(n) < churned for churned, n in zip(left, size, strict=True)])
    table = profile(pd.DataFrame(index=range(len(labels))), labels, y.astype(int))
    z, p = norm.ppf(0.975), left / size
    center, half = p + z**2 / (2 * size), z * np.sqrt(p * (1 - p) / size + z**2 / (4 * size**2))
    low, high = (
        np.clip(center + sign * half, 0, 1 + z**2 / size) / (1 + z**2 / size) for sign in (-1, 1)
    )
    assert table["churn_low"].to_numpy() == pytest.approx(low, abs=1e-12)
    assert table["churn_high"].to_numpy() == pytest.approx(high, abs=1e-12)


def test_a_profile_counts_averages_and_compares():
    X = pd.DataFrame({"Age": [20.0, 30.0, 40.0, 50.0], "Plan": ["a", "b", "a", "b"], "One": 1.0})
    table = profile(X, np.array([0, 0, 0, 1]), np.array([1, 0, 0, 1]))
    assert table["size"].tolist() == [3, 1]
    assert table["share"].tolist() == [0.75, 0.25]
    assert table["churn_rate"].tolist() == pytest.approx([1 / 3, 1])
    assert table["mean_Age"].tolist() == [30, 50]
    assert table["deviation_Age"].tolist() == pytest.approx([-5 / np.sqrt(125), 15 / np.sqrt(125)])
    assert table["deviation_One"].tolist() == [0, 0]
    half = deviations(X, np.array([0, 0, 0, 1]))[1]["Age"]
    assert (table["interval_high_Age"] - table["interval_low_Age"]).tolist() == pytest.approx(
        (2 * half).tolist()
    )


def test_the_half_width_is_that_of_two_means_times_the_share_of_the_others():
    rng = np.random.default_rng(0)
    X = pd.DataFrame({"Age": rng.normal(size=1001) * np.repeat([1.0, 3.0], [900, 101])})
    labels = np.repeat([0, 1, 2], [900, 100, 1])
    _, half = deviations(X, labels)
    for segment in (0, 1):
        inside, outside = X["Age"][labels == segment], X["Age"][labels != segment]
        error = np.sqrt(inside.var() / len(inside) + outside.var() / len(outside))
        expected = norm.ppf(0.975) * error * len(outside) / 1001 / X["Age"].std(ddof=0)
        assert half["Age"][segment] == pytest.approx(expected)
    assert half["Age"][2] == np.inf


def test_what_stands_out_must_be_beyond_the_chance_of_all_columns_and_segments_together():
    estimate = pd.DataFrame(np.full((4, 10), 0.3))
    many, few = np.full(4, 1000), np.full(4, 50)
    assert (certain_deviations(estimate, estimate / 1.2, many) == 0).all(axis=None)
    assert (certain_deviations(estimate, estimate / 1.7, many) == 0.3).all(axis=None)
    assert (certain_deviations(estimate, estimate / 1.7, few) == 0).all(axis=None)


def test_portraits_do_not_depend_on_the_numbers_of_the_segments(demo):
    X, y = demo.drop(columns="Churn").astype(float), demo["Churn"].to_numpy(int)
    labels = (X["Near_Location"].to_numpy() + 2 * (X["Contract_period"].to_numpy() > 1)).astype(int)
    swapped = np.array([3, 1, 0, 2])[labels]
    one, two = (
        portraits(X, numbers, y, playbook=playbook("gym"), language="en")
        for numbers in (labels, swapped)
    )
    by_name = {portrait["name"]: portrait for portrait in two}
    assert [portrait | {"id": 0} for portrait in one] == [
        by_name[portrait["name"]] | {"id": 0} for portrait in one
    ]
    assert [portrait["id"] for portrait in two] == [0, 1, 2, 3]


def test_portraits_can_be_written_as_json(demo):
    described_segments = described(demo, "behaviour", by="any", language="ru")
    assert json.loads(json.dumps(described_segments, allow_nan=False)) == described_segments


@pytest.mark.parametrize("by", ["gym", "any"])
def test_names_differ_and_end_with_the_risk(demo, by):
    segments = described(demo, "behaviour", by=by)
    assert len({segment["name"] for segment in segments}) == 4
    for segment in segments:
        assert segment["name"].endswith(f"{segment['risk']} churn risk")


def test_names_that_clash_grow_and_at_last_are_numbered():
    def portrait(traits: list[str], **salient: float) -> dict:
        return {"traits": traits, "salient": salient, "risk": "low"}

    rules = {
        "risk": {"names": {"low": "loyal"}},
        "traits": {"near": {"name": "near"}, "old": {"name": "old"}, "shy": {}},
        "naming": {"most": 1, "more": "high {column}", "less": "low {column}", "plain": "plain"},
        "columns": {"Age": "age"},
    }
    grown = [portrait(["near"], Age=-0.5), portrait(["near", "old"], Age=0.5), portrait(["old"])]
    assert segment_names(grown, rules, "en") == [
        "near, low age, loyal",
        "near, old, loyal",
        "old, loyal",
    ]
    alike = [portrait(["shy"]), portrait([]), portrait([], Spend=2.0, Age=1.0)]
    assert segment_names(alike, rules, "en") == [
        "plain, loyal (1)",
        "plain, loyal (2)",
        "high Spend, loyal",
    ]


def test_a_deviation_within_chance_is_neither_a_trait_nor_salient():
    rules = playbook("any") | {
        "traits": {"old": {"name": "old", "when": {"deviation": "Age", "at_least": 0.3}}}
    }
    rng = np.random.default_rng(4)
    for size, expected in ((8, []), (400, ["old"])):
        age = np.concatenate([rng.normal(size=size) + 0.45, rng.normal(size=2000)])
        X, labels = pd.DataFrame({"Age": age}), np.repeat([0, 1], [size, 2000])
        X.loc[: size - 1, "Age"] += 0.45 - X["Age"][:size].mean()  # the same deviation in both
        portrait = portraits(X, labels, np.arange(len(X)) % 2, playbook=rules, language="en")[0]
        assert portrait["traits"] == expected
        assert list(portrait["salient"]) == (["Age"] if expected else [])


def test_the_demo_members_show_the_four_behaviours(demo):
    segments = described(demo, "behaviour")
    assert sorted(segment["risk"] for segment in segments) == ["high", "low", "medium", "medium"]
    fading = next(segment for segment in segments if segment["risk"] == "high")
    assert {"falling", "newcomers"} <= set(fading["traits"])
    far = next(segment for segment in segments if "far" in segment["traits"])
    assert far["actions"] == [playbook("gym")["actions"]["no_special_action"]["text"]["en"]]


def everyone(table: pd.DataFrame, *, by: str = "gym", language: str = "en") -> dict[str, dict]:
    X, y = table.drop(columns="Churn").astype(float), table["Churn"].to_numpy(int)
    return {
        one["action"]: one
        for one in plans_for_everyone(X, y, playbook=playbook(by), language=language)
    }


def test_everyone_gets_the_strategy_for_all_and_the_programs_with_their_reach(demo):
    plans = everyone(demo)
    left, newcomers = demo["Churn"] == 1, demo["Lifetime"] <= 1
    still = ~left
    assert list(plans) == [
        *("reach_neighbours", "expiring_mailing", "win_back", "partner_companies"),
        *(
            "friends_and_colleagues",
            "first_month_achievements",
            "attendance_league",
            "quality_contests",
        ),
    ]
    assert plans["win_back"]["reach"] == left.sum()
    expiring = demo["Month_to_end_contract"] <= 1
    assert plans["expiring_mailing"]["reach"] == (expiring & still).sum()
    assert plans["expiring_mailing"]["gone"] == (expiring & left).sum()
    assert plans["win_back"]["gone"] == 0
    assert plans["first_month_achievements"]["reach"] == (newcomers & still).sum()
    assert plans["first_month_achievements"]["rate"] == pytest.approx(left[newcomers].mean())
    assert plans["attendance_league"]["reach"] == ((demo["Group_visits"] == 1) & still).sum()
    assert plans["friends_and_colleagues"]["reach"] == still.sum()
    assert plans["reach_neighbours"]["reach"] is None
    assert everyone(demo, by="any") == {}


@pytest.mark.parametrize(
    ("by", "language"), [("gym", "en"), ("gym", "ru"), ("any", "en"), ("any", "ru")]
)
def test_every_segment_has_an_action_and_every_action_says_what_it_would_bring(demo, by, language):
    for preset in ("behaviour", "seed002", "course"):
        for segment in described(demo, preset, by=by, language=language):
            assert segment["actions"] == [planned["text"] for planned in segment["plans"]] != []
            for planned in segment["plans"]:
                assert planned["lever"]
                assert 0 <= planned["reach"] <= segment["size"]
                assert f"{planned['reach']:,}".replace(",", "") in planned["sentence"].replace(
                    ",", ""
                )
                assert "{" not in planned["sentence"]
    for planned in everyone(demo, by=by, language=language).values():
        assert planned["sentence"]


def test_a_plan_is_for_those_it_reaches_and_its_sentence_has_its_numbers(demo):
    X, y = demo.drop(columns="Churn").astype(float), demo["Churn"].to_numpy(int)
    reached = (X["Contract_period"] == 1).to_numpy()
    planned = plan(playbook("gym"), "long_contract_discount", X, y, "en")
    action = playbook("gym")["actions"]["long_contract_discount"]
    still, rate = (reached & (y == 0)).sum(), y[reached].mean()
    low, high = action["keeps"]
    assert (planned["reach"], planned["rate"]) == (still, pytest.approx(rate))
    assert planned["gone"] == y[reached].sum()
    assert planned["cost"] == pytest.approx(action["cost"] * still)
    assert planned["worth"] == pytest.approx(100 * (low + high) / 2 * still * rate)
    assert planned["worth_low"] == pytest.approx(100 * low * still * rate)
    assert planned["worth_high"] == pytest.approx(100 * high * still * rate)
    assert planned["break_even"] == pytest.approx(planned["cost"] / (100 * still * rate))
    assert f"reaches {still:,}, " in planned["sentence"]
    assert f"keeps {low:.0%} to {high:.0%} of those" in planned["sentence"]
    assert f"{planned['gone']:,} like them have left already" in planned["sentence"]
    assert f"takes {planned['per_arm']:,} per arm" in planned["sentence"]
    few = plan(playbook("gym"), "long_contract_discount", X[reached][:60], y[reached][:60], "en")
    assert few["too_small"]
    assert "too few for an A/B test" in few["sentence"]
    stayed = X[y == 0]
    none_left = plan(
        playbook("gym"), "long_contract_discount", stayed, np.zeros(len(stayed), int), "en"
    )
    assert "cannot pay for itself" in none_left["sentence"]


def test_a_number_is_a_range_of_one_and_older_playbooks_keep_their_sentences(demo):
    X, y = demo.drop(columns="Churn").astype(float), demo["Churn"].to_numpy(int)
    book = playbook("any")
    book["actions"]["test_offer"]["keeps"] = 0.1
    planned = plan(book, "test_offer", X, y, "en")
    assert planned["keeps_low"] == planned["keeps"] == planned["keeps_high"] == 0.1
    assert "if it keeps 10% of those" in planned["sentence"]
    book["actions"]["test_offer"]["keeps"] = [0.0, 0.2]
    for newer in ("gone", "together", "worth_range", "nobody"):
        del book["sentences"][newer]
    planned = plan(book, "test_offer", X, y, "en")
    assert "if it keeps 10% of those" in planned["sentence"]
    assert "left already" not in planned["sentence"]


@pytest.mark.parametrize("language", ["en", "ru"])
def test_several_actions_say_that_their_worth_does_not_add_up(demo, language):
    sentence = text(playbook("gym")["sentences"]["together"], language)
    for segment in described(demo, "behaviour", language=language):
        several = sum(bool(planned["worth"]) for planned in segment["plans"]) > 1
        assert segment["together"] == (sentence if several else "")
    assert {bool(segment["together"]) for segment in described(demo, "behaviour")} == {True, False}


def test_columns_that_made_the_segments_are_marked_as_by_construction(demo):
    X, y = demo.drop(columns="Churn").astype(float), demo["Churn"].to_numpy(int)
    made_from = ["Near_Location", "Contract_period"]
    labels = (X["Near_Location"] + 2 * (X["Contract_period"] > 1)).to_numpy(int)
    found = portraits(X, labels, y, playbook=playbook("gym"), language="en", made_from=made_from)
    for segment in found:
        assert set(segment["by_construction"]) == set(made_from) & set(segment["salient"])


def test_a_portrait_has_every_mean_and_deviation_with_its_interval(demo):
    X = demo.drop(columns="Churn").astype(float)
    for segment in described(demo, "behaviour"):
        assert list(segment["profile"]) == list(X.columns)
        for name, row in segment["profile"].items():
            assert row["low"] <= row["deviation"] <= row["high"], name
            assert row["mean"] == pytest.approx(
                X[name].mean() + row["deviation"] * X[name].std(ddof=0)
            ), name


def test_the_groups_of_seed_002_get_every_action_it_published(gym_csv):
    actions = {name: entry["text"]["ru"] for name, entry in playbook("gym")["actions"].items()}
    segments = described(pd.read_csv(gym_csv), "seed002", language="ru")
    by_traits = {
        frozenset(segment["traits"]): (segment["risk"], set(segment["actions"]))
        for segment in segments
    }

    def found(*traits: str) -> tuple[str, set[str]]:
        (portrait,) = [value for key, value in by_traits.items() if set(traits) <= key]
        return portrait

    def texts(*names: str) -> set[str]:
        return {actions[name] for name in names}

    risk, advice = found("near", "short_contract", "newcomers")
    assert risk == "high"
    assert advice >= texts("priority", "long_contract_discount", "bring_a_friend", "first_month")
    assert found("far", "short_contract") == ("high", texts("email_only"))
    risk, advice = found("near", "short_contract", "active")
    assert risk == "low"
    assert advice >= texts(
        "long_contract_discount", "partner_discount", "bring_a_friend", "competitions"
    )
    assert found("near", "long_contract") == ("low", texts("extra_services", "renewal_reminder"))


def test_the_far_segment_by_behaviour_is_medium_and_gets_the_fallback(gym_csv):
    segments = described(pd.read_csv(gym_csv), "behaviour")
    assert [segment["size"] for segment in segments] == pytest.approx(
        [1544, 1282, 609, 565], rel=0.01
    )
    assert [segment["risk"] for segment in segments] == ["low", "medium", "high", "medium"]
    assert "far" in segments[3]["traits"]
    assert segments[3]["actions"] == [playbook("gym")["actions"]["no_special_action"]["text"]["en"]]
    assert {"falling", "newcomers"} <= set(segments[2]["traits"])


@pytest.mark.parametrize("language", ["en", "ru", "de"])
def test_a_segment_that_everybody_left_has_no_action_but_for_who_comes_later(demo, language):
    X, y = demo.drop(columns="Churn").astype(float), demo["Churn"].to_numpy(int)
    book = yaml.safe_load((CONF / "playbook/any.yaml").read_text().replace("ru:", "de:"))
    if language != "de":
        book = playbook("any")
    gone, stay = portraits(X, 1 - y, y, playbook=book, language=language)
    assert (gone["churn_rate"], gone["plans"], gone["actions"], gone["together"]) == (1, [], [], "")
    assert gone["recommended_action"] == ALL_LEFT.get(language, ALL_LEFT["en"])
    assert gone["action_for_new"].startswith(text(book["actions"]["ask_why"]["text"], language))
    assert "action_for_new" not in stay
    assert stay["recommended_action"] == "; ".join(stay["actions"]) != ""
    book["rules"].insert(0, {"risk": ["high"], "do": ["win_back"]})
    book["actions"]["win_back"] = book["actions"]["test_offer"] | {"audience": "left", "rate": 0.9}
    gone, _ = portraits(X, 1 - y, y, playbook=book, language=language)
    assert [planned["reach"] for planned in gone["plans"]] == [y.sum()]


@pytest.mark.parametrize(("by", "language"), [("gym", "en"), ("gym", "ru")])
def test_an_action_that_reaches_nobody_says_so_in_the_playbooks_words(demo, by, language):
    X, y = demo.drop(columns="Churn").astype(float), demo["Churn"].to_numpy(int)
    partners = (X["Partner"] == 1).to_numpy()
    book = playbook(by)
    planned = plan(book, "partner_discount", X[~partners], y[~partners], language)
    assert (planned["reach"], planned["cost"]) == (0, 0)
    assert planned["sentence"] == text(book["sentences"]["nobody"], language).format(reach=0)
    older = book | {"sentences": {k: v for k, v in book["sentences"].items() if k != "nobody"}}
    planned = plan(older, "partner_discount", X[~partners], y[~partners], language)
    assert planned["sentence"] == text(book["sentences"]["free"], language).format(reach=0)
