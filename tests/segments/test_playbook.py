import copy
from pathlib import Path

import pandas as pd
import pytest
import yaml

from churnlab.errors import InputError
from churnlab.segments.playbook import (
    SENTENCES,
    actions_of,
    check_playbook,
    risk_of,
    shares_in,
    text,
    traits_of,
)

PLAYBOOKS = Path(__file__).parents[2] / "conf" / "playbook"
GYM = yaml.safe_load((PLAYBOOKS / "gym.yaml").read_text(encoding="utf-8"))
COLUMNS = list(GYM["columns"])

SHOP = {
    "name": "shop",
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
    "sentences": dict.fromkeys(SENTENCES, "reaches {reach}"),
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
            "keeps": 0.01,
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
}
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
    assert traits_of(SHOP, known) == expected


@pytest.mark.parametrize(
    ("low", "high", "risk"),
    [(0.29, 0.5, "high"), (0.27, 0.5, "medium"), (0.0, 0.09, "low"), (0.0, 0.1, "medium")],
)
def test_risk_is_judged_by_the_whole_interval(low, high, risk):
    assert risk_of(SHOP, low, high, 0.2) == risk


def test_every_matching_rule_fires_in_order_and_an_action_is_said_once():
    assert actions_of(SHOP, ["old", "big"], "high") == ["call", "mail"]
    assert actions_of(SHOP, ["old"], "low") == ["mail", "call", "gift"]


def test_without_a_matching_rule_the_fallback_is_said():
    assert actions_of(SHOP, ["big"], "medium") == ["mail"]


def test_a_text_is_taken_in_the_language_or_serves_for_all():
    assert text(SHOP["actions"]["mail"]["text"], "ru") == "написать"
    assert text("a gift", "ru") == "a gift"
    with pytest.raises(InputError, match="'de'"):
        text(SHOP["actions"]["mail"]["text"], "de")


def faulty(change) -> dict:
    playbook = copy.deepcopy(SHOP)
    change(playbook)
    return playbook


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda p: p["traits"]["old"].update(when={"mean": "Age", "over": 3}),
            "trait old.*at_least",
        ),
        (lambda p: p["traits"]["old"].update(when={"mean": "Age"}), "trait old"),
        (
            lambda p: p["traits"]["old"].update(when={"median": "Age", "above": 3}),
            "trait old.*deviation",
        ),
        (lambda p: p["traits"]["old"].update(when={"mean": "Height", "above": 3}), "Height"),
        (lambda p: p["traits"]["old"].update(when={"mean": "Plan", "above": 3}), "Plan"),
        (
            lambda p: p["traits"]["old"].update(when={"share": "Height > 2", "above": 3}),
            "trait old.*Height",
        ),
        (lambda p: p["traits"]["old"].update(when={"share": "Age >", "above": 3}), "trait old"),
        (lambda p: p["traits"]["old"].update(when={"all": [{"trait": "gold"}]}), "gold"),
        (lambda p: p["traits"].update(odd={}), "odd.*when"),
        (lambda p: p["rules"][0].update(needs=["young"]), "young"),
        (lambda p: p["rules"][0].update(risk=["huge"]), "huge"),
        (lambda p: p["rules"][0].update(do=["shout"]), "shout"),
        (lambda p: p["rules"][0].pop("do"), "do"),
        (lambda p: p.update(fallback=["shout"]), "shout"),
        (lambda p: p.pop("naming"), "naming"),
        (lambda p: p.update(fallback=[]), "no fallback"),
        (lambda p: p["values"].update(member=0), "values.member is 0; give a number above 0"),
        (lambda p: p["sentences"].pop("proof"), "proof"),
        (
            lambda p: p["sentences"].update(proof={"en": "of {members}"}),
            "sentence proof.*'members'.*reach",
        ),
        (lambda p: p["sentences"].update(proof="{reach:,.0q}"), "sentence proof"),
        (lambda p: p["actions"].update(call="call them"), "action call is only a text"),
        (lambda p: p["actions"]["call"].pop("lever"), "action call.*lever"),
        (lambda p: p["actions"]["call"].update(lever="magic"), "magic"),
        (lambda p: p["actions"]["call"].update(cost="much"), "cost is 'much'"),
        (lambda p: p["actions"]["call"].update(cost=-1), "cost is -1"),
        (
            lambda p: p["actions"]["call"].update(keeps=1.5),
            "keeps is 1.5; give a number from 0 to 1",
        ),
        (lambda p: p["actions"]["call"].update(reach="Height > 3"), "action call.*Height"),
        (lambda p: p["actions"]["gift"].update(audience="press"), "press"),
        (lambda p: p["actions"]["gift"].pop("rate"), "action gift.*rate"),
        (lambda p: p["risk"]["names"].pop("low"), "low"),
    ],
)
def test_a_faulty_playbook_is_refused_with_the_place(change, said):
    with pytest.raises(InputError, match=said):
        check_playbook(faulty(change), X)


def test_a_whole_playbook_passes_and_knows_its_expressions():
    check_playbook(SHOP, X)
    assert shares_in(SHOP) == ["Orders > 3"]


def test_the_gym_playbook_names_every_column_a_table_lacks():
    with pytest.raises(InputError, match=r"Near_Location, Partner, Phone.*playbook=any"):
        check_playbook(
            GYM, pd.DataFrame({"Avg_class_frequency_current_month": [1.0], "Age": [1.0]})
        )


@pytest.mark.parametrize("name", ["gym", "any"])
def test_every_text_of_a_playbook_is_there_in_both_languages(name):
    playbook = yaml.safe_load((PLAYBOOKS / f"{name}.yaml").read_text(encoding="utf-8"))
    check_playbook(playbook, pd.DataFrame({column: [1.0] for column in COLUMNS}))
    naming = [playbook["naming"][part] for part in ("more", "less", "plain")]
    traits = [trait["name"] for trait in playbook["traits"].values()]
    said = [action["text"] for action in playbook["actions"].values()]
    texts = [
        *said,
        *playbook["levers"].values(),
        *playbook["sentences"].values(),
        *playbook["columns"].values(),
        *playbook["risk"]["names"].values(),
    ]
    for entry in texts + naming + traits:
        assert set(entry) == {"en", "ru"}
        assert entry["en"] != entry["ru"]
    # score joins several actions by "; "
    assert not any(";" in words for entry in said for words in entry.values())
