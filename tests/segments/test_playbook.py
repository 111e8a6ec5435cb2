"""The form of a playbook, and what its tests and rules say about a segment."""

import copy
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from hydra import compose, initialize_config_dir
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf
from scipy.stats import binomtest

from churnlab.config import validation
from churnlab.errors import InputError
from churnlab.segments.playbook import (
    Sentences,
    choose_actions,
    find_traits,
    operands,
    rate_risk,
    text,
)
from churnlab.segments.portraits import check_columns, few_stay

PLAYBOOKS = Path(__file__).parents[2] / "conf" / "playbook"
GYM = yaml.safe_load((PLAYBOOKS / "gym.yaml").read_text(encoding="utf-8"))
COLUMNS = list(GYM["columns"])

SHOP = {
    "name": "shop",
    "language": "en",
    "risk": {
        "high_above": 1.4,
        "low_below": 0.5,
        "names": {"high": "leaving", "medium": "so-so", "low": "loyal"},
    },
    "salient": 0.3,
    "traits": {
        "old": {"when": {"mean": "Age", "above": 40}},
        "big": {"when": {"deviation": "Spend", "at_least": 0.5}},
        "middling": {"when": {"mean": "Age", "at_least": 30, "at_most": 40}},
        "web": {"when": {"share": "Orders > 3", "at_least": 0.5}},
        "gold": {
            "when": {
                "any": [
                    {"trait": "big"},
                    {"all": [{"trait": "old"}, {"mean": "Spend", "below": 5}]},
                ]
            }
        },
    },
    "naming": {"most": 2, "more": "high {column}", "less": "low {column}", "plain": "plain"},
    "columns": {},
    "values": {"member": 50},
    "levers": {"talk": "talk", "price": "price"},
    "sentences": dict.fromkeys(Sentences.__annotations__, "reaches {reach}"),
    "actions": {
        "call": {
            "text": "call them",
            "lever": "talk",
            "cost": 2,
            "keeps": 0.2,
            "reach": "Orders > 3",
        },
        "mail": {
            "text": {"en": "write", "ru": "написать"},
            "lever": "talk",
            "cost": 0.1,
            "keeps": [0, 0.02],
        },
        "gift": {
            "text": "a gift",
            "lever": "price",
            "cost": 5,
            "keeps": 0.3,
            "audience": "left",
            "rate": 0.9,
        },
    },
    "rules": [
        {"needs": ["old"], "risk": ["high"], "do": ["call"]},
        {"needs": ["old"], "do": ["mail", "call"]},
        {"risk": ["low"], "do": ["gift"]},
    ],
    "fallback": ["mail"],
    "everyone": [],
    "reasons": [],
}
Check = Callable[[Mapping[str, Any], pd.DataFrame], None]
X = pd.DataFrame({"Age": [1.0], "Spend": [1.0], "Orders": [1.0], "Plan": ["a"]})


def facts(age: float, spend: float, spend_off: float = 0.0, orders: float = 0.0) -> dict:
    return {
        "mean": {"Age": age, "Spend": spend},
        "deviation": {"Spend": spend_off},
        "share": {"Orders > 3": orders},
    }


@pytest.mark.parametrize(
    ("known", "expected"),
    [
        (facts(41, 9), ["old"]),
        (facts(40, 9), ["middling"]),
        (facts(30, 9), ["middling"]),
        (facts(20, 9, 0.5), ["big", "gold"]),
        (facts(50, 4), ["old", "gold"]),
        (facts(20, 4, -2.0, 0.5), ["web"]),
        (facts(20, 4, 0.49, 0.49), []),
    ],
)
def test_a_trait_holds_when_its_test_does(known, expected):
    assert find_traits(SHOP, known) == expected


@pytest.mark.parametrize(
    ("low", "high", "risk"),
    [(0.29, 0.5, "high"), (0.27, 0.5, "medium"), (0.0, 0.09, "low"), (0.0, 0.1, "medium")],
)
def test_risk_is_judged_by_the_whole_interval(low, high, risk):
    assert rate_risk(SHOP, low, high, 0.2) == risk


@pytest.mark.parametrize(
    ("base", "left", "size", "risk"),
    [
        (0.82, 0.90, 400, "high"),
        (0.82, 0.75, 400, "medium"),
        (0.82, 0.30, 400, "low"),
        (0.013, 0.032, 4000, "medium"),
        (0.013, 0.09, 4000, "high"),
        (0.013, 0.0, 4000, "low"),
    ],
)
def test_risk_words_have_room_where_most_leave_and_where_few_do(base, left, size, risk):
    """A segment of this size among 3,000 others, who leave at ``base``."""
    inside, outside = np.arange(size) < left * size, np.arange(3000) < base * 3000
    ends = binomtest(int(inside.sum()), size).proportion_ci(method="wilson")
    few = few_stay(inside, outside, 4, limit=1.4)
    assert rate_risk(SHOP, ends.low, ends.high, base, few_stay=few) == risk


@given(
    base=st.floats(0.01, 0.95),
    size=st.integers(30, 3000),
    rates=st.tuples(st.floats(0, 1), st.floats(0, 1)).map(sorted),
)
def test_no_segment_in_which_more_leave_has_a_weaker_word_and_one_that_all_leave_is_high(
    base, size, rates
):
    others = np.arange(3000) < base * 3000

    def risk(rate: float) -> int:
        inside = np.arange(size) < rate * size
        ends = binomtest(int(inside.sum()), size).proportion_ci(method="wilson")
        overall = np.concatenate([inside, others]).mean()
        few = few_stay(inside, others, 4, limit=1.4)
        word = rate_risk(SHOP, ends.low, ends.high, float(overall), few_stay=few)
        return ("low", "medium", "high").index(word)

    fewer, more = map(risk, rates)
    if rates[1] <= base or rates[0] >= base:  # a segment moves the overall rate towards its own
        assert fewer <= more
    if base <= 0.8 and size >= 100:
        assert risk(1.0) == 2


def test_every_matching_rule_applies_in_order_and_an_action_is_chosen_once():
    assert choose_actions(SHOP, ["old", "big"], "high") == ["call", "mail"]
    assert choose_actions(SHOP, ["old"], "low") == ["mail", "call", "gift"]


def test_without_a_matching_rule_the_fallback_is_chosen():
    assert choose_actions(SHOP, ["big"], "medium") == ["mail"]


def test_a_text_is_taken_in_the_language_or_serves_for_all():
    assert text(SHOP["actions"]["mail"]["text"], "ru") == "написать"
    assert text("a gift", "ru") == "a gift"
    with pytest.raises(InputError, match="'de'"):
        text(SHOP["actions"]["mail"]["text"], "de")


def faulty(change) -> dict:
    playbook = copy.deepcopy(SHOP)
    change(playbook)
    return playbook


@pytest.fixture(scope="module")
def check(tmp_path_factory) -> Check:
    """Check a playbook as ``churnlab segment`` does: its form first, then its columns."""
    with (
        pytest.MonkeyPatch.context() as patch,
        initialize_config_dir(str(PLAYBOOKS.parent), version_base="1.3"),
    ):
        patch.setenv("CHURNLAB_HOME", str(tmp_path_factory.mktemp("home")))
        config = OmegaConf.to_container(compose("segment"), resolve=True)

    def checked(playbook: Mapping[str, Any], table: pd.DataFrame) -> None:
        keys = validation.read("segment", config | {"playbook": playbook}).playbook.model_dump()
        assert keys == playbook, "params and fingerprints are those of the YAML"
        check_columns(keys, table)

    return checked


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda p: p["traits"]["old"].update(when={"mean": "Age", "over": 3}),
            r"playbook\.traits\.old.*at_least",
        ),
        (lambda p: p["traits"]["old"].update(when={"mean": "Age"}), r"playbook\.traits\.old\.when"),
        (
            lambda p: p["traits"]["old"].update(when={"median": "Age", "above": 3}),
            r"playbook\.traits\.old.*deviation",
        ),
        (lambda p: p["traits"]["old"].update(when={"mean": "Height", "above": 3}), "Height"),
        (lambda p: p["traits"]["old"].update(when={"mean": "Plan", "above": 3}), "Plan"),
        (
            lambda p: p["traits"]["old"].update(when={"share": "Height > 2", "above": 3}),
            "trait old.*Height",
        ),
        (lambda p: p["traits"]["old"].update(when={"share": "Age >", "above": 3}), "trait old"),
        (lambda p: p["traits"]["old"].update(when={"all": [{"trait": "gold"}]}), "gold"),
        (lambda p: p["traits"].update(odd={}), r"playbook\.traits\.odd\.when is missing"),
        (lambda p: p["rules"][0].update(needs=["young"]), "young"),
        (lambda p: p["rules"][0].update(risk=["huge"]), "huge"),
        (lambda p: p["rules"][0].update(do=["shout"]), "shout"),
        (lambda p: p["rules"][0].pop("do"), r"playbook\.rules\[0\]\.do is missing"),
        (lambda p: p.update(fallback=["shout"]), "shout"),
        (lambda p: p.pop("naming"), r"playbook\.naming is missing"),
        (lambda p: p.update(fallback=[]), "no fallback"),
        (lambda p: p["values"].update(member=0), r"playbook\.values\.member=0 .*above 0"),
        (lambda p: p["sentences"].pop("proof"), r"playbook\.sentences\.proof is missing"),
        (
            lambda p: p["sentences"].update(proof={"en": "of {members}"}),
            r"playbook\.sentences\.proof.*'members'.*reach",
        ),
        (lambda p: p["sentences"].update(proof="{reach:,.0q}"), r"playbook\.sentences\.proof"),
        (
            lambda p: p["actions"].update(call="call them"),
            r"playbook\.actions\.call=call them .*a block of keys",
        ),
        (lambda p: p["actions"]["call"].pop("lever"), r"playbook\.actions\.call\.lever is missing"),
        (lambda p: p["actions"]["call"].update(lever="magic"), "magic"),
        (
            lambda p: p["actions"]["call"].update(cost="much"),
            r"playbook\.actions\.call\.cost=much .*number",
        ),
        (lambda p: p["actions"]["call"].update(cost=-1), r"playbook\.actions\.call\.cost=-1 "),
        (
            lambda p: p["actions"]["call"].update(keeps=1.5),
            r"playbook\.actions\.call\.keeps=1\.5 .*at most 1 or a list, \[A,B\]",
        ),
        (
            lambda p: p["actions"]["call"].update(keeps=[0.3, 0.1]),
            r"playbook\.actions\.call\.keeps: \[0\.3, 0\.1\] must have LOW <= HIGH",
        ),
        (
            lambda p: p["actions"]["call"].update(keeps=[0.1]),
            r"playbook\.actions\.call\.keeps",
        ),
        (lambda p: p["actions"]["call"].update(reach="Height > 3"), "action call.*Height"),
        (lambda p: p["actions"]["gift"].update(audience="press"), "press"),
        (lambda p: p["actions"]["gift"].pop("rate"), r"actions\.gift has no rate"),
        (lambda p: p["risk"]["names"].pop("low"), r"playbook\.risk\.names\.low is missing"),
        (lambda p: p["actions"]["call"].update(audiance="left"), "Did you mean .*audience"),
    ],
)
def test_a_faulty_playbook_is_refused_with_the_place(check, change, message):
    with pytest.raises(InputError, match=message):
        check(faulty(change), X)


def test_a_whole_playbook_passes_and_knows_its_expressions(check):
    check(SHOP, X)
    assert list(operands(SHOP, "share")) == ["Orders > 3"]


def test_the_gym_playbook_names_every_column_a_table_lacks(check):
    with pytest.raises(InputError, match=r"Near_Location, Partner, Phone.*playbook=any"):
        check(GYM, pd.DataFrame({"Avg_class_frequency_current_month": [1.0], "Age": [1.0]}))


@pytest.mark.parametrize("name", ["gym", "any"])
def test_every_text_of_a_playbook_is_there_in_both_languages(check, name):
    playbook = yaml.safe_load((PLAYBOOKS / f"{name}.yaml").read_text(encoding="utf-8"))
    check(playbook, pd.DataFrame({column: [1.0] for column in COLUMNS}))
    naming = [playbook["naming"][part] for part in ("more", "less", "plain")]
    traits = [trait["name"] for trait in playbook["traits"].values()]
    actions = [action["text"] for action in playbook["actions"].values()]
    texts = [
        *actions,
        *playbook["levers"].values(),
        *playbook["sentences"].values(),
        *playbook["columns"].values(),
        *playbook["risk"]["names"].values(),
    ]
    for entry in texts + naming + traits:
        assert set(entry) == {"en", "ru"}
        assert entry["en"] != entry["ru"]
    # score joins several actions by "; "
    assert not any(";" in words for entry in actions for words in entry.values())
