"""Does what an action is worth come true next month?"""

import numpy as np
import pandas as pd

from churnlab.segments.portraits import plan
from support.planted import assert_at_most, count, tables

PLAYBOOK = {
    "values": {"member": 100},
    "levers": {"talk": "talk"},
    "sentences": dict.fromkeys(
        ("worth", "never", "free", "proof", "too_small", "unprovable"), "reaches {reach}"
    ),
    "actions": {
        "call": {"text": "call", "lever": "talk", "cost": 1, "keeps": [0.05, 0.25]},
        "mail": {"text": "mail", "lever": "talk", "cost": 1, "keeps": [0.05, 0.25]},
    },
}
MEMBERS, RATE = 2000, 0.5


def worth_next_month(rng: np.random.Generator, *, keeps: float) -> tuple[dict, float]:
    """Plan an action for members whose leavers are known, and count what it is worth to the others.

    Who has not left leaves next month at the same rate, and the action keeps a share of them.
    """
    X, y = pd.DataFrame({"Age": rng.normal(size=MEMBERS)}), rng.binomial(1, RATE, MEMBERS)
    would_leave = rng.binomial((y == 0).sum(), RATE)
    return plan(PLAYBOOK, "call", X, y, "en"), 100 * keeps * would_leave


def test_the_worth_of_an_action_lies_in_its_range_when_its_effect_does():
    def beyond(rng: np.random.Generator) -> bool:
        planned, worth = worth_next_month(rng, keeps=rng.uniform(0.05, 0.25))
        return not planned["worth_low"] <= worth <= planned["worth_high"]

    of = tables(100, 2000)
    wrong = count(beyond, of=of, seed=1)
    print(f"the worth is beyond its range in {wrong} of {of} tables")
    assert_at_most(0.05, wrong, of=of)


def test_the_middle_of_the_range_is_right_on_average():
    ratios = []
    for rng in np.random.default_rng(2).spawn(tables(50, 1000)):
        planned, worth = worth_next_month(rng, keeps=0.15)
        ratios.append(planned["worth"] / worth)
    assert abs(np.mean(ratios) - 1) < 0.02
