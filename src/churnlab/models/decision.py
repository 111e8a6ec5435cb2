"""Choose the threshold from probabilities, and compute the profit of contacting members above it.

A decision is one YAML: ``_target_`` names a function ``(y, probability, *, numbers) -> threshold``
that sees only out-of-fold predictions; the other keys are its numbers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
import pandas as pd

from churnlab.errors import InputError

COSTS = (
    "decision=expected_value decision.retained_value=100 decision.contact_cost=2 "
    "decision.incentive=10 decision.success=0.3 decision.accept=0.5"
)
"""The words that give a command the costs of a contact, with the numbers of the YAML."""

FEW = 0.2
"""Fewer marked members than this share of those who left are almost nobody."""


@dataclass(frozen=True)
class ContactEconomics:
    """Costs and returns of contacting a member, in one currency.

    ``retained_value`` is the value of a member who stays, ``contact_cost`` the cost of a contact,
    ``incentive`` the value of the offer, ``success`` the share of leavers who take the offer and
    stay, ``accept`` the share of stayers who take it. The two shares are assumptions, not measured.
    InputError: a negative number, a share above 1.
    """

    retained_value: float
    contact_cost: float
    incentive: float
    success: float
    accept: float

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            _check_number(name, value, most=1 if name in ("success", "accept") else math.inf)

    @property
    def threshold(self) -> float:
        """The probability above which a contact has a positive expected profit.

        A contact earns p s (V - k) - (1 - p) a k - c, with V the retained value, c the contact
        cost, k the incentive, s the success and a the acceptance; this is positive above (c + a k)
        / (s (V - k) + a k). InputError: no probability is high enough.

        >>> round(ContactEconomics(100, 2, 10, success=0.3, accept=0.5).threshold, 3)
        0.219
        """
        gain, waste = self.gain_per_leaver, self.accept * self.incentive
        if gain <= self.contact_cost:
            raise InputError(
                "With these numbers no contact can pay: contacting a member who would leave earns "
                f"success x (retained_value - incentive) = {gain:g} and costs "
                f"{self.contact_cost:g}. Give a larger decision.retained_value or "
                "decision.success, or a cheaper contact."
            )
        return (self.contact_cost + waste) / (gain + waste)

    @property
    def gain_per_leaver(self) -> float:
        """The expected gain from contacting a member who would leave, before the contact's cost."""
        return self.success * (self.retained_value - self.incentive)

    def expected_cost(self, probability: np.ndarray) -> np.ndarray:
        """Return what contacting members costs on average: the contact, and the offer if taken."""
        taken = probability * self.success + (1 - probability) * self.accept
        return self.contact_cost + self.incentive * taken


def _check_number(name: str, value: Any, *, most: float) -> None:
    """Refuse what is no finite number from 0 to ``most``; YAML may give a text or a bool."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not 0 <= value <= most or value == math.inf:
        allowed = f"a number from 0 to {most}" if most < math.inf else "a number that is at least 0"
        raise InputError(f"decision.{name}={value!r} is not possible: give {allowed}.")


def choose(
    rule: Mapping[str, Any], y: np.ndarray, probability: np.ndarray, *, members: int | None = None
) -> float:
    """Choose the threshold on these predictions by a decision's YAML.

    ``members`` is the size of the table, for a decision whose own ``members`` is null. InputError:
    no such function, an unknown or impossible number, a threshold outside [0, 1].
    """
    from churnlab.models.pipelines import check_parameters, locate  # loads scikit-learn

    target = rule.get("_target_", "")
    check_parameters(target, rule, where="decision")
    numbers = {key: value for key, value in rule.items() if not key.startswith("_")}
    if "members" in numbers and numbers["members"] is None:
        numbers["members"] = members
    threshold = float(locate(target, "decision")(y, probability, **numbers))
    if not 0 <= threshold <= 1:
        raise InputError(
            f"decision: {target} chose the threshold {threshold}; a threshold is from 0 to 1."
        )
    return threshold


def fixed(y: np.ndarray, probability: np.ndarray, *, value: float) -> float:
    """Return the given threshold."""
    _check_number("value", value, most=1)
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
    capacity: int | None = None,
    members: int | None = None,
    value_column: str | None = None,
) -> float:
    """Return the threshold above which a contact pays (see ContactEconomics), or a higher one.

    The first is not fitted, but the probabilities must be calibrated. At most ``capacity`` of
    ``members`` members are above the threshold if they are like these. ``value_column`` is for the
    contact list: a threshold for all members has one ``retained_value``. InputError: a capacity
    without members.
    """
    pays = ContactEconomics(retained_value, contact_cost, incentive, success, accept).threshold
    if capacity is None:
        return pays
    share = capacity_share(capacity, members)
    return max(pays, capacity_threshold(probability, share=share))


def capacity_share(capacity: int, members: int | None) -> float:
    """Return the share of the members that can be contacted.

    >>> capacity_share(200, 4000)
    0.05
    """
    _check_number("capacity", capacity, most=math.inf)
    if members is None:
        raise InputError(
            f"decision.capacity={capacity} needs decision.members: of how many members can so many "
            "be contacted?"
        )
    _check_number("members", members, most=math.inf)
    if members < 1:
        raise InputError(f"decision.members={members} is not possible: give at least 1.")
    return min(capacity / members, 1.0)


def capacity_threshold(probability: np.ndarray, *, share: float) -> float:
    """Return the lowest threshold above which there is at most this share of the probabilities.

    >>> capacity_threshold(np.array([0.1, 0.2, 0.3, 0.4]), share=0.5)
    0.2
    """
    ordered = np.sort(probability)[::-1]
    most = math.floor(share * len(ordered) + 1e-9)
    return float(ordered[most]) if most < len(ordered) else 0.0


def as_many(y: np.ndarray, probability: np.ndarray) -> float:
    """Return the threshold above which there are as many members as left, the riskiest.

    Precision and recall are then the same share, however rare or common it is to leave: the
    break-even point of the two (van Rijsbergen 1979, Information Retrieval, chapter 7).

    >>> as_many(np.array([0, 0, 1, 0]), np.array([0.01, 0.02, 0.05, 0.03]))
    0.03
    """
    return capacity_threshold(probability, share=float(np.mean(y)))


def f1(y: np.ndarray, probability: np.ndarray) -> float:
    """Return the threshold with the best F1, halfway between two neighboring probabilities.

    Ties go to the highest, which marks the fewest members.
    """
    steps = _steps(y, probability)
    churners = steps["left"].iloc[-1]
    steps = steps[steps["probability"] > 0]  # probability 0 is above no threshold
    if steps.empty:
        return 0.0
    best = int(np.argmax(2 * steps["left"] / (steps["marked"] + churners)))
    lowest, below = np.append(steps["probability"], 0.0)[[best, best + 1]]
    halfway = (lowest + below) / 2
    return float(halfway if halfway < lowest else below)  # the two may be adjacent floats


def extreme(hold_out: pd.DataFrame, threshold: float) -> str | None:
    """Say that a threshold marks almost nobody or almost everybody; None if it does not.

    ``hold_out`` has a row per held-out member: y and probability. Almost nobody are FEW times as
    many as left, almost everybody all but FEW times as many as stayed. A model with one probability
    for all has no threshold that helps.
    """
    y, probability = hold_out["y"], hold_out["probability"]
    marked, left = int((probability > threshold).sum()), int(y.sum())
    if FEW * left <= marked <= len(y) - FEW * (len(y) - left) or probability.nunique() == 1:
        return None
    much = "almost nobody" if marked < FEW * left else "almost everybody"
    return (
        f"the threshold {threshold:.2f} marks {much}: {marked:,} of {len(y):,} held-out members, "
        f"of whom {left:,} left; decision=as_many marks as many as leave"
    )


def contact_economics(decision: Mapping[str, Any]) -> ContactEconomics | None:
    """Return the economics in a decision's YAML, or None if it has none."""
    names = [field.name for field in fields(ContactEconomics)]
    if not set(names) <= set(decision):
        return None
    return ContactEconomics(**{name: decision[name] for name in names})


def profit(y: np.ndarray, contacted: np.ndarray, economics: ContactEconomics) -> float:
    """Return the profit that contacting these members (a mask) would have earned."""
    leavers, stayers = int(np.sum(contacted & (y == 1))), int(np.sum(contacted & (y == 0)))
    return float(earned_by(leavers, stayers, economics))


def profit_curve(
    y: np.ndarray, probability: np.ndarray, economics: ContactEconomics
) -> pd.DataFrame:
    """Compute the profit of contacting the riskiest members first.

    Columns: probability (of the last one contacted), members, profit, share. One row per distinct
    probability, the highest first, after a row in which nobody is contacted.
    """
    steps = _steps(y, probability)
    earned = earned_by(steps["left"], steps["marked"] - steps["left"], economics)
    curve = pd.DataFrame(
        {"probability": steps["probability"], "members": steps["marked"], "profit": earned}
    )
    nobody = pd.DataFrame({"probability": [1.0], "members": [0], "profit": [0.0]})
    curve = pd.concat([nobody, curve], ignore_index=True)
    return curve.assign(share=curve["members"] / len(y))


def earned_by(leavers: Any, stayers: Any, economics: ContactEconomics) -> Any:
    """Return the profit of contacting so many leavers and stayers; numbers or arrays."""
    return (
        leavers * economics.gain_per_leaver
        - stayers * economics.accept * economics.incentive
        - (leavers + stayers) * economics.contact_cost
    )


def _steps(y: np.ndarray, probability: np.ndarray) -> pd.DataFrame:
    """Count by distinct probability, the highest first, the members who reach it and their leavers.

    Columns: probability, marked, left.
    """
    order = np.argsort(-np.asarray(probability), kind="stable")
    p, left = np.asarray(probability)[order], np.cumsum(np.asarray(y)[order])
    last = np.flatnonzero(np.append(np.diff(p) != 0, True))
    return pd.DataFrame({"probability": p[last], "marked": last + 1, "left": left[last]})
