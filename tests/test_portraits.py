import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from scipy.stats import binomtest

from churnlab.clustering import fit_segmentation, segment_frame
from churnlab.demo import members
from churnlab.portraits import advice_for_everyone, deviations, portraits, profile, segment_names, wilson_interval

CONF = Path(__file__).parents[1] / "conf"


def playbook(name: str) -> dict:
    return yaml.safe_load((CONF / "playbook" / f"{name}.yaml").read_text(encoding="utf-8"))


def described(table: pd.DataFrame, preset: str, *, by: str = "gym", language: str = "en") -> list[dict]:
    X, y = table.drop(columns="Churn").astype(float), table["Churn"].to_numpy(int)
    frame = segment_frame(X, yaml.safe_load((CONF / "segments" / f"{preset}.yaml").read_text())["columns"])
    labels = fit_segmentation(frame, 4, n_init=10, random_state=0).predict(frame)
    return portraits(X, labels, y, playbook=playbook(by), language=language)


@pytest.fixture(scope="module")
def demo() -> pd.DataFrame:
    return members(n=4000, seed=0)


def test_the_interval_is_wilsons():
    left, size = np.array([0, 3, 50, 20]), np.array([10, 10, 200, 20])
    low, high = wilson_interval(left, size)
    for i in range(4):
        expected = binomtest(int(left[i]), int(size[i])).proportion_ci(method="wilson")
        assert (low[i], high[i]) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_a_profile_counts_averages_and_compares():
    X = pd.DataFrame({"Age": [20.0, 30.0, 40.0, 50.0], "Plan": ["a", "b", "a", "b"], "One": 1.0})
    table = profile(X, np.array([0, 0, 0, 1]), np.array([1, 0, 0, 1]))
    assert table["size"].tolist() == [3, 1]
    assert table["share"].tolist() == [0.75, 0.25]
    assert table["churn_rate"].tolist() == pytest.approx([1 / 3, 1])
    assert table["mean_Age"].tolist() == [30, 50]
    assert table["deviation_Age"].tolist() == pytest.approx([-5 / np.sqrt(125), 15 / np.sqrt(125)])
    assert table["deviation_One"].tolist() == [0, 0]


def test_the_half_width_shrinks_with_the_segment_and_is_infinite_for_one_row():
    rng = np.random.default_rng(0)
    X = pd.DataFrame({"Age": rng.normal(size=1001)})
    _, half = deviations(X, np.repeat([0, 1, 2], [900, 100, 1]))
    assert half["Age"].tolist()[:2] == pytest.approx([1.96 / 30, 1.96 / 10], rel=0.15)
    assert half["Age"][2] == np.inf


def test_portraits_do_not_depend_on_the_numbers_of_the_segments(demo):
    X, y = demo.drop(columns="Churn").astype(float), demo["Churn"].to_numpy(int)
    labels = (X["Near_Location"].to_numpy() + 2 * (X["Contract_period"].to_numpy() > 1)).astype(int)
    swapped = np.array([3, 1, 0, 2])[labels]
    one, two = (portraits(X, numbers, y, playbook=playbook("gym"), language="en") for numbers in (labels, swapped))
    by_name = {portrait["name"]: portrait for portrait in two}
    assert [portrait | {"id": 0} for portrait in one] == [by_name[portrait["name"]] | {"id": 0} for portrait in one]
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
    assert segment_names(grown, rules, "en") == ["near, low age, loyal", "near, old, loyal", "old, loyal"]
    alike = [portrait(["shy"]), portrait([]), portrait([], Spend=2.0, Age=1.0)]
    assert segment_names(alike, rules, "en") == ["plain, loyal (1)", "plain, loyal (2)", "high Spend, loyal"]


def test_a_deviation_within_chance_is_neither_a_trait_nor_salient():
    rules = playbook("any") | {"traits": {"old": {"name": "old", "when": {"deviation": "Age", "at_least": 0.3}}}}
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
    assert far["actions"] == [playbook("gym")["actions"]["no_special_action"]["en"]]


def test_advice_for_everyone_is_said_in_the_language():
    assert len(advice_for_everyone(playbook("gym"), "ru")) == 4
    assert advice_for_everyone(playbook("any"), "en") == []


def test_the_groups_of_seed_002_get_every_action_it_published(gym_csv):
    actions = {name: entry["ru"] for name, entry in playbook("gym")["actions"].items()}
    segments = described(pd.read_csv(gym_csv), "seed002", language="ru")
    by_traits = {frozenset(segment["traits"]): (segment["risk"], set(segment["actions"])) for segment in segments}

    def found(*traits: str) -> tuple[str, set[str]]:
        (portrait,) = [value for key, value in by_traits.items() if set(traits) <= key]
        return portrait

    def texts(*names: str) -> set[str]:
        return {actions[name] for name in names}

    risk, said = found("near", "short_contract", "newcomers")
    assert risk == "high"
    assert said >= texts("priority", "long_contract_discount", "bring_a_friend", "first_month")
    assert found("far", "short_contract", "partner") == ("high", texts("email_only"))
    risk, said = found("near", "short_contract", "active")
    assert risk == "low"
    assert said >= texts("long_contract_discount", "partner_discount", "bring_a_friend", "competitions")
    assert found("near", "long_contract") == ("low", texts("extra_services", "renewal_reminder"))


def test_the_far_segment_by_behaviour_is_medium_and_gets_the_fallback(gym_csv):
    segments = described(pd.read_csv(gym_csv), "behaviour")
    assert [segment["size"] for segment in segments] == pytest.approx([1544, 1282, 609, 565], rel=0.01)
    assert [segment["risk"] for segment in segments] == ["low", "medium", "high", "medium"]
    assert "far" in segments[3]["traits"]
    assert segments[3]["actions"] == [playbook("gym")["actions"]["no_special_action"]["en"]]
    assert {"falling", "newcomers"} <= set(segments[2]["traits"])
