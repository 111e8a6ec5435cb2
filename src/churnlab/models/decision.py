"""From a probability to a decision: how a threshold is chosen, and what contacting members above it
earns.

A decision is one YAML: ``_target_`` names a function ``(y, probability, *, numbers) -> threshold``
that sees out-of-fold predictions only, the other keys are its numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
import pandas as pd

from churnlab.errors import InputError
from churnlab.models.metrics import will_churn
from churnlab.models.pipelines import check_parameters, locate


@dataclass(frozen=True)
class ContactEconomics:
    """What a contact costs and brings, in one currency; ``success`` and ``accept`` are assumptions,
    not measured.

    ``retained_value`` is what keeping a member is worth, ``contact_cost`` what every contact costs,
    ``incentive`` what it gives away, ``success`` the share of leavers who stay because of it (and
    take the incentive), ``accept`` the share of stayers who take it.
    """

    retained_value: float
    contact_cost: float
    incentive: float
    success: float
    accept: float

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            share = name in ("success", "accept")
            if (
                isinstance(value, bool)
                or not isinstance(value, int | float)
                or not 0 <= value < np.inf
            ):
                raise InputError(
                    f"decision.{name}={value!r} is not possible: give a number that is not "
                    "negative."
                )
            if share and value > 1:
                raise InputError(
                    f"decision.{name}={value} is not possible: it is a share, give 0 to 1."
                )

    @property
    def threshold(self) -> float:
        """The probability above which a contact is expected to earn something.

        A contact earns p s (V - k) - (1 - p) a k - c, with V the retained value, c the contact
        cost, k the incentive, s the success and a the acceptance; this is positive above (c + a k)
        / (s (V - k) + a k). InputError: no probability is enough.
        """
        of_leaver = self.success * (self.retained_value - self.incentive)
        wasted = self.accept * self.incentive
        if of_leaver <= self.contact_cost:
            raise InputError(
                "With these numbers no contact can pay: a member who would leave brings success x "
                f"(retained_value - incentive) = {of_leaver:g}, and contacting one costs "
                f"{self.contact_cost:g}. Give a larger decision.retained_value or "
                "decision.success, or a cheaper contact."
            )
        return (self.contact_cost + wasted) / (of_leaver + wasted)


def choose(rule: Mapping[str, Any], y: np.ndarray, probability: np.ndarray) -> float:
    """The threshold that a decision's YAML chooses on these predictions.

    InputError: no such function, a number it does not take or that is not possible, a threshold
    outside [0, 1].
    """
    target = rule.get("_target_", "")
    check_parameters(target, rule, where="decision")
    numbers = {key: value for key, value in rule.items() if not key.startswith("_")}
    threshold = float(locate(target, "decision")(y, probability, **numbers))
    if not 0 <= threshold <= 1:
        raise InputError(
            f"decision: {target} chose the threshold {threshold}, and a threshold is from 0 to 1."
        )
    return threshold


def fixed(y: np.ndarray, probability: np.ndarray, *, value: float) -> float:
    """The threshold that was given."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise InputError(
            f"decision.value={value!r} is not possible: a threshold is a number from 0 to 1."
        )
    return float(value)


def expected_value(
    y: np.ndarray,
    probability: np.ndarray,
    *,
    retained_value: float,
    contact_cost: float,
    incentive: float,
    success: float,
    accept: float,
) -> float:
    """The threshold above which a contact pays (see Economics); nothing is fitted, but p must be
    calibrated."""
    return ContactEconomics(retained_value, contact_cost, incentive, success, accept).threshold


def f1(y: np.ndarray, probability: np.ndarray) -> float:
    """The threshold with the best F1 on these predictions, halfway between two neighbouring
    probabilities.

    Of several best ones the highest is taken: it marks the fewest members.
    """
    steps = _steps(y, probability)
    churners = steps["left"].iloc[-1]
    steps = steps[steps["probability"] > 0]  # who has probability 0 is above no threshold
    if steps.empty:
        return 0.0
    best = int(np.argmax(2 * steps["left"] / (steps["marked"] + churners)))
    lowest, below = np.append(steps["probability"], 0.0)[[best, best + 1]]
    halfway = (lowest + below) / 2
    return float(halfway if halfway < lowest else below)  # the two may be neighbouring floats


def contact_economics(decision: Mapping[str, Any]) -> ContactEconomics | None:
    """The numbers of a decision that has them (its YAML's keys), else None."""
    names = [field.name for field in fields(ContactEconomics)]
    return (
        ContactEconomics(**{name: decision[name] for name in names})
        if set(names) <= set(decision)
        else None
    )


def profit(y: np.ndarray, contacted: np.ndarray, contact_economics: ContactEconomics) -> float:
    """What contacting these members would have earned, knowing who left."""
    leavers, stayers = int(np.sum(contacted & (y == 1))), int(np.sum(contacted & (y == 0)))
    return float(_earned(leavers, stayers, contact_economics))


def expected_profit(
    probability: np.ndarray, threshold: float, contact_economics: ContactEconomics
) -> float:
    """What contacting the members above the threshold is expected to earn, by their probabilities."""
    marked = np.asarray(probability)[will_churn(probability, threshold)]
    return float(_earned(marked.sum(), (1 - marked).sum(), contact_economics))


def profit_curve(
    y: np.ndarray, probability: np.ndarray, contact_economics: ContactEconomics
) -> pd.DataFrame:
    """Profit of contacting the riskiest first: probability (of the last one contacted), members,
    share, profit.

    One row for each distinct probability, the highest first, after a first row in which nobody is
    contacted.
    """
    steps = _steps(y, probability)
    earned = _earned(steps["left"], steps["marked"] - steps["left"], contact_economics)
    curve = pd.DataFrame(
        {"probability": steps["probability"], "members": steps["marked"], "profit": earned}
    )
    nobody = pd.DataFrame({"probability": [1.0], "members": [0], "profit": [0.0]})
    curve = pd.concat([nobody, curve], ignore_index=True)
    return curve.assign(share=curve["members"] / len(y))


def _earned(leavers: Any, stayers: Any, contact_economics: ContactEconomics) -> Any:
    of_leaver = contact_economics.success * (
        contact_economics.retained_value - contact_economics.incentive
    )
    return (
        leavers * of_leaver
        - stayers * contact_economics.accept * contact_economics.incentive
        - (leavers + stayers) * contact_economics.contact_cost
    )


def _steps(y: np.ndarray, probability: np.ndarray) -> pd.DataFrame:
    """Distinct probabilities, the highest first, with how many members reach each and how many of
    them left."""
    order = np.argsort(-np.asarray(probability), kind="stable")
    p, left = np.asarray(probability)[order], np.cumsum(np.asarray(y)[order])
    last = np.flatnonzero(np.append(np.diff(p) != 0, True))
    return pd.DataFrame({"probability": p[last], "marked": last + 1, "left": left[last]})
