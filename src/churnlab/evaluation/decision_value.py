"""Value a decision with its uncertainty: profit, net benefit, capacity, sensitivity to assumptions.

Every interval is a 95% CI over the members, for a model and a threshold that are not chosen on
them. It does not cover the assumptions (success, accept, retained value): ``sensitivity`` and
``break_even`` show what hangs on these.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from churnlab.errors import InputError
from churnlab.evaluation.metrics import Counts, Groups, group_members, will_churn
from churnlab.evaluation.performance import SURE, wilson
from churnlab.formatting import counted, percent, whole
from churnlab.models.decision import (
    ContactEconomics,
    capacity_threshold,
    contact_economics,
    earned_by,
    profit,
)

GROUPS = 400
"""Pool probabilities into this many groups when more of them are distinct."""

FACTORS = (0.5, 0.75, 1.0, 1.25, 1.5)
"""The sensitivity multiplies each assumption by these."""

ASSUMPTIONS = ("success", "accept", "retained_value", "contact_cost", "incentive")
"""What the sensitivity varies, one at a time."""

SHARES = (0.02, 0.05, 0.1, 0.2, 0.3)
"""The capacity table has these shares of the members where the decision has no capacity."""

THRESHOLDS = tuple(float(percent) / 100 for percent in range(1, 100))
"""The thresholds at which net benefits are compared."""


class Amount(NamedTuple):
    """A value with its 95% CI."""

    value: float
    low: float
    high: float


class Valuation(NamedTuple):
    """What a decision with contact economics earns on held-out members: profit and break-even
    success, the tables of ``capacity_table`` and ``sensitivity``, and a summary in one sentence."""

    profit: Amount
    break_even: Amount
    capacity: pd.DataFrame
    sensitivity: pd.DataFrame
    summary: str

    @property
    def metrics(self) -> dict[str, float]:
        """Return profit and break-even success with the ends of their 95% CIs, where finite."""
        found = {"test_profit_total": self.profit, "test_break_even_success": self.break_even}
        metrics = {name: estimate.value for name, estimate in found.items()}
        metrics |= {f"{name}_low": estimate.low for name, estimate in found.items()}
        metrics |= {f"{name}_high": estimate.high for name, estimate in found.items()}
        return {name: value for name, value in metrics.items() if np.isfinite(value)}


def value_decision(
    y: np.ndarray,
    probability: np.ndarray,
    *,
    threshold: float,
    decision: Mapping[str, Any],
    members: int,
    seed: int,
) -> Valuation | None:
    """Value a decision's YAML on held-out members; None if it has no contact economics.

    ``members`` is the size of the table, for a decision whose own ``members`` is null.
    """
    economics = contact_economics(decision)
    if economics is None:
        return None
    members = decision.get("members") or members
    capacity = decision.get("capacity")
    contacts = [capacity] if capacity else [max(round(share * members), 1) for share in SHARES]
    contacted = will_churn(probability, threshold)
    earned, needed = (of(y, contacted, economics) for of in (profit_interval, break_even))
    return Valuation(
        earned,
        needed,
        capacity_table(y, probability, economics, contacts=contacts, members=members, seed=seed),
        sensitivity(y, probability, threshold, economics),
        _summary(earned, needed, int(contacted.sum()), len(y), economics),
    )


def _summary(
    earned: Amount, needed: Amount, contacts: int, members: int, economics: ContactEconomics
) -> str:
    """Say what contacting earns, and which success that needs."""
    if not contacts:
        return f"None of the {counted(members, 'held-out member')} is above the threshold."
    if math.isinf(needed.value):
        return "None of the held-out members above the threshold left: no success would pay."
    return (
        f"Contacting {whole(contacts)} of {counted(members, 'held-out member')} would have earned "
        f"{whole(earned.value)} (95% CI {whole(earned.low)} to {whole(earned.high)}"
        f"{too_few(earned.low, earned.high)}), if {percent(economics.success)} of the leavers "
        "contacted take the offer and stay; it pays "
        f"from {percent(needed.value)} (95% CI {percent(needed.low)} to {percent(needed.high)})."
    )


def too_few(low: float, high: float) -> str:
    """Say that a profit's interval leaves open whether there is one; "" if it does not."""
    return ", too few to tell whether it earns anything" if low <= 0 < high else ""


def profit_interval(y: np.ndarray, contacted: np.ndarray, economics: ContactEconomics) -> Amount:
    """Return the profit of contacting these members (a mask) and its 95% CI.

    The profit is a sum over members, each of whom earns one of three amounts; its standard error is
    sqrt(n) times their standard deviation.

    >>> economics = ContactEconomics(100, 2, 10, success=0.3, accept=0.5)
    >>> found = profit_interval(np.tile([1, 0, 0, 0], 50), np.tile([1, 1, 0, 0], 50) > 0, economics)
    >>> [round(number) for number in found]
    [900, 562, 1238]
    """
    earned = _earned_each(y, contacted, economics)
    error = math.sqrt(len(y)) * float(earned.std(ddof=1)) if len(y) > 1 else math.inf
    total = profit(y, contacted, economics)
    return Amount(total, total - SURE * error, total + SURE * error)


def break_even(y: np.ndarray, contacted: np.ndarray, economics: ContactEconomics) -> Amount:
    """Return the success at which contacting these members earns nothing, and its 95% CI.

    Of the members contacted a share r would leave. Nothing is earned at the success
    (c + (1 - r) a k) / (r (V - k)), in the letters of ``ContactEconomics.threshold``; the CI is
    that of r (Wilson, 1927), because the success falls as r rises. inf where no success pays;
    nan where nobody is contacted.
    """
    members, leavers = int(np.sum(contacted)), int(np.sum(contacted & (y == 1)))
    if not members:
        return Amount(math.nan, math.nan, math.nan)
    share = leavers / members
    value, high, low = (_success_needed(r, economics) for r in (share, *wilson(share, members)))
    return Amount(value, low, high)


def sensitivity(
    y: np.ndarray, probability: np.ndarray, threshold: float, economics: ContactEconomics
) -> pd.DataFrame:
    """Vary one assumption at a time: does contacting still pay, and which threshold is best then?

    Columns: assumption, factor, value, profit (at the given threshold) with low and high,
    best_threshold (of the varied numbers; 1, nobody, where no contact can pay) and best_profit
    (at that threshold). A share is at most 1.
    """
    rows: list[dict[str, Any]] = []
    numbers = asdict(economics)
    contacted = will_churn(probability, threshold)
    for name in ASSUMPTIONS:
        for factor in FACTORS:
            value = numbers[name] * factor
            value = min(value, 1.0) if name in ("success", "accept") else value
            varied = replace(economics, **{name: value})
            kept = profit_interval(y, contacted, varied)
            best = best_threshold(varied)
            rows.append(
                {"assumption": name, "factor": factor, "value": value, "profit": kept.value}
                | {"low": kept.low, "high": kept.high, "best_threshold": best}
                | {"best_profit": profit(y, will_churn(probability, best), varied)}
            )
    return pd.DataFrame(rows)


def best_threshold(economics: ContactEconomics) -> float:
    """Return the threshold above which a contact pays, 1 (nobody) where none can."""
    try:
        return economics.threshold
    except InputError:
        return 1.0


def net_benefit(
    y: np.ndarray, probability: np.ndarray, *, thresholds: Sequence[float]
) -> pd.DataFrame:
    """Compare contacting by the model with contacting everybody and nobody, over thresholds.

    The net benefit of a threshold t is (true positives - false positives t / (1 - t)) / n, in
    leavers found per member, where a false alarm costs what the threshold implies (Vickers and
    Elkin, 2006, Medical Decision Making 26:565). Nobody has 0. Columns: threshold, model, low, high
    (95% CI), all, gain (the model minus the better of all and none), gain_low, gain_high: the
    smaller ends of the paired CIs of both differences.

    >>> y, probability = np.array([1, 1, 0, 0]), np.array([0.9, 0.7, 0.6, 0.1])
    >>> table = net_benefit(y, probability, thresholds=[0.5])
    >>> table[["model", "all", "gain"]].iloc[0].tolist()
    [0.25, 0.0, 0.25]
    """
    left = np.asarray(y) == 1
    rows = []
    for threshold in thresholds:
        weight = threshold / (1 - threshold)
        worth = np.where(left, 1.0, -weight)
        marked = will_churn(probability, threshold)
        model, passed_over = _mean(worth * marked), _mean(-worth * ~marked)
        gain = Amount(*(min(ends) for ends in zip(model, passed_over, strict=True)))
        rows.append((threshold, *model, float(worth.mean()), *gain))
    names = ["threshold", "model", "low", "high", "all", "gain", "gain_low", "gain_high"]
    return pd.DataFrame(rows, columns=names)


def capacity_table(
    y: np.ndarray,
    probability: np.ndarray,
    economics: ContactEconomics | None,
    *,
    contacts: Sequence[int],
    members: int,
    resamples: int = 1000,
    seed: int,
) -> pd.DataFrame:
    """Estimate what so many contacts among ``members`` members find and earn, the riskiest first.

    The same share of these members is contacted and scaled up to ``members``. Columns: contacts,
    share, threshold (above it are at most that share), precision, leavers (among the contacts) and,
    with economics, profit, each with _low and _high. The 95% CI of the precision is Wilson's, for
    as many trials as its bootstrap variance is worth: resamples are ranked again, so that it also
    covers where the last contact falls. The other two follow from the precision.
    """
    number = np.minimum(np.asarray(contacts, dtype=np.int64), members)
    share = number / members
    groups = group_members(y, probability, 0.5, most=GROUPS)
    counts = np.concatenate([groups.left, groups.stayed])
    drawn = np.random.default_rng(seed).multinomial(len(y), counts / len(y), size=resamples)
    precision = _precision(groups, counts[None, :], share)[0]
    variance = _precision(groups, drawn.astype(np.float64), share).var(axis=0, ddof=1)
    spread = precision * (1 - precision)
    with np.errstate(divide="ignore", invalid="ignore"):
        trials = np.fmin(spread / variance, share * len(y))
    # Nobody or everybody among the contacts left: 0 over the variance of resamples is no trial.
    trials = np.where(spread > 0, trials, share * len(y))
    ends = np.array([wilson(*pair) for pair in zip(precision, trials, strict=True)])
    table = pd.DataFrame({"contacts": number, "share": share})
    table["threshold"] = [capacity_threshold(probability, share=one) for one in share]
    columns = {"": precision, "_low": ends[:, 0], "_high": ends[:, 1]}
    for end, values in columns.items():
        table[f"precision{end}"] = values
        table[f"leavers{end}"] = values * number
        if economics is not None:
            table[f"profit{end}"] = earned_by(values * number, (1 - values) * number, economics)
    return table


def _precision(groups: Groups, drawn: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Return the precision of contacting each share of each resample: (resample, share).

    A share that ends inside a group takes that part of it.
    """
    counts = Counts(groups, *np.split(drawn, 2, axis=1))
    reached = counts.left_so_far + counts.stayed_so_far
    leavers = [
        np.interp(share * total, np.append(0, members), np.append(0, left))
        for total, members, left in zip(counts.n, reached, counts.left_so_far, strict=True)
    ]
    return np.array(leavers) / (share * counts.n[:, None])


def _earned_each(y: np.ndarray, contacted: np.ndarray, economics: ContactEconomics) -> np.ndarray:
    """Return what each member earns: (members,), 0 for those who are not contacted."""
    left = np.asarray(y) == 1
    return earned_by(contacted & left, contacted & ~left, economics)


def _success_needed(share: float, economics: ContactEconomics) -> float:
    """Return the success that pays for contacting members of whom this share would leave."""
    cost = economics.contact_cost + (1 - share) * economics.accept * economics.incentive
    gain = share * (economics.retained_value - economics.incentive)
    return cost / gain if gain > 0 else math.inf


def _mean(values: np.ndarray) -> Amount:
    """Return the mean over members and its 95% CI."""
    mean, error = float(values.mean()), float(values.std(ddof=1)) / math.sqrt(len(values))
    return Amount(mean, mean - SURE * error, mean + SURE * error)
