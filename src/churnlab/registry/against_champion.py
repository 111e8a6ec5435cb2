"""Compare a candidate with the champion, with an earlier champion and with a dummy on members that
neither was trained on: is it better, or not worse by more than a margin?"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import norm, ttest_1samp
from scipy.stats import t as student

from churnlab.data.drift import holm
from churnlab.evaluation.comparison import paired_difference
from churnlab.evaluation.metric_names import LABELS, LOWER_IS_BETTER, practical_margin
from churnlab.evaluation.metrics import log_losses
from churnlab.evaluation.performance import classification_metrics
from churnlab.evaluation.slices import values
from churnlab.formatting import counted, listed, percent, whole
from churnlab.models.decision import ContactEconomics
from churnlab.registry.gate import BETTER_BY, Check, has_both_outcomes, not_measured

Z = float(norm.ppf(0.975))

POWER = 0.8
"""The share of equal models that should pass; the message says how many members would do that."""

MAX_ERROR = 0.05
"""The chance that any slice refuses a candidate that is worse in none."""


class Loss(NamedTuple):
    """How much worse the candidate is, in the metric's unit whatever its direction: the estimate,
    its 95% CI, and the standard error."""

    estimate: float
    low: float
    high: float
    error: float


def margin_of(
    margin: float | Mapping[str, float] | None,
    metric: str,
    costs: ContactEconomics | None = None,
) -> float:
    """Return the margin of a metric: the number, the mapping's, or the metric's own.

    >>> margin_of(None, "log_loss"), margin_of({"brier": 0.001}, "brier"), margin_of(0.5, "f1")
    (0.01, 0.001, 0.5)
    """
    if isinstance(margin, Mapping):
        return margin.get(metric, practical_margin(metric, costs))
    return practical_margin(metric, costs) if margin is None else margin


def measure_loss(
    y: np.ndarray,
    candidate: np.ndarray,
    other: np.ndarray,
    *,
    metric: str,
    thresholds: tuple[float, float],
    seed: int,
    groups: np.ndarray | None = None,
    costs: ContactEconomics | None = None,
) -> Loss:
    """Measure how much worse the candidate is than another model on the same members.

    The CI is that of a paired bootstrap or, where it is wider, the t interval with the bootstrap's
    standard error and as many degrees of freedom as there are members of the rarer outcome, less
    one: the bootstrap alone is too narrow for few members (Hesterberg, 2015, American Statistician
    69:371). In log loss the standard error is at least that of outcomes drawn from the better
    model: with few members the rare, large losses may be missing, which makes both the estimate and
    its standard error too small. ``groups`` numbers the members if some have several rows; members
    are resampled then. ``costs`` are those of a contact.
    """
    difference = paired_difference(
        *(y, candidate, other),
        metric=metric,
        thresholds=thresholds,
        seed=seed,
        groups=groups,
        costs=costs,
    )
    delta, *ends = difference if metric in LOWER_IS_BETTER else (0.0 - end for end in difference)
    low, high = sorted(ends)
    error = (high - low) / (2 * Z)
    if metric == "log_loss":
        error = max(error, _expected_error(y, candidate, other))
    members = np.arange(len(y)) if groups is None else groups
    rarer = min(len(np.unique(members[y == outcome])) for outcome in (0, 1))
    reach = float(student.ppf(0.975, max(rarer - 1, 1))) * error
    return Loss(delta, min(low, delta - reach), max(high, delta + reach), error)


def _expected_error(y: np.ndarray, candidate: np.ndarray, other: np.ndarray) -> float:
    """Return the standard error of the difference in log loss if the better model were right."""
    models = candidate, other
    mean_losses = [log_losses(y, model).mean() for model in models]
    p = models[int(np.argmin(mean_losses))]
    left, stayed = (
        log_losses(outcome, candidate) - log_losses(outcome, other)
        for outcome in (np.ones(len(y)), np.zeros(len(y)))
    )
    expected = p * left + (1 - p) * stayed
    variance = np.mean(p * (1 - p) * (left - stayed) ** 2) + expected.var()
    return float(np.sqrt(variance / len(y)))


def check_against(
    y: np.ndarray,
    candidate: np.ndarray,
    rival: np.ndarray,
    *,
    metric: str,
    thresholds: tuple[float, float],
    require: str,
    margin: float,
    seed: int,
    groups: np.ndarray | None = None,
    name: str = "champion",
    called: str = "the champion",
    costs: ContactEconomics | None = None,
) -> Check:
    """Check that the candidate is better than the champion (or a rival so called), or not worse.

    The value is how much better it is at the unfavorable end of the CI. ``require="better"`` needs
    more than 0, ``"not_worse"`` at least ``-margin``. A failed check is undecided unless the other
    end of the CI is beyond the limit, too.
    """
    name = f"{metric}_against_{name}"
    limit = 0.0 - margin if require == "not_worse" else 0.0
    if not has_both_outcomes(y):
        return not_measured(name, limit, bound=BETTER_BY)
    loss = measure_loss(
        *(y, candidate, rival),
        metric=metric,
        thresholds=thresholds,
        seed=seed,
        groups=groups,
        costs=costs,
    )
    scores = [
        classification_metrics(y, probability, threshold=threshold, costs=costs)[metric]
        for probability, threshold in zip((candidate, rival), thresholds, strict=True)
    ]
    if require == "not_worse":
        passed, shown = loss.high <= margin, loss.low > margin
        needed = f"the candidate may lose at most {margin:g} at the unfavorable end of the CI"
    else:
        passed, shown = loss.high < 0, loss.low >= 0
        needed = "the candidate must be significantly better"
        needed += "" if passed else " (require=not_worse allows a loss of gate.margin)"
    message = (
        f"{LABELS[metric]} {scores[0]:.4f} against {called}'s {scores[1]:.4f}, "
        f"{_format_loss(loss, len(y))}; {needed}"
        f"{_power_sentence(loss, margin=margin, require=require, members=len(y))}"
    )
    gain, undecided = 0.0 - loss.high, not passed and not shown
    return Check(name, gain, limit, passed, message, bound=BETTER_BY, undecided=undecided)


def check_against_dummy(
    y: np.ndarray,
    probability: np.ndarray,
    *,
    churn_rate: float,
    threshold: float,
    seed: int,
    groups: np.ndarray | None = None,
) -> list[Check]:
    """Check that the candidate is better than a dummy that predicts the churn rate for everyone.

    As ``check_against``, in log_loss and in roc_auc: a model that has learned nothing fails in one
    of them.
    """
    checks = []
    for metric in ("log_loss", "roc_auc"):
        name = f"{metric}_against_dummy"
        if not has_both_outcomes(y):
            checks.append(not_measured(name, 0.0, bound=BETTER_BY))
            continue
        dummy, both = np.full(len(y), churn_rate), (threshold, threshold)
        loss = measure_loss(
            y, probability, dummy, metric=metric, thresholds=both, seed=seed, groups=groups
        )
        message = (
            f"{LABELS[metric]} against a dummy that predicts {churn_rate:.4f} for everyone: "
            f"{_format_loss(loss, len(y))}; the candidate must be significantly better"
        )
        gain, passed, undecided = 0.0 - loss.high, loss.high < 0, loss.low < 0 <= loss.high
        checks.append(Check(name, gain, 0.0, passed, message, bound=BETTER_BY, undecided=undecided))
    return checks


def ancestor_not_judged(metric: str, margin: float, reason: str) -> Check:
    """Return the check, passed with a warning, that could not compare with an earlier champion."""
    message = f"small losses since then may have added up unseen: {reason}"
    name = f"{metric}_against_ancestor"
    return Check(name, None, -margin, True, message, warning=True, bound=BETTER_BY)


def share_of_equals(loss: Loss, margin: float) -> float:
    """Return the share of equal models that would pass with this standard error.

    An equal model passes if its estimate, normal around 0, stays below the margin by the reach of
    the CI. As many models that are better by the margin pass require=better.
    """
    if loss.error == 0:
        return 1.0
    reach = max(loss.high - loss.estimate, Z * loss.error)
    return float(norm.cdf((margin - reach) / loss.error))


def _power_sentence(loss: Loss, *, margin: float, require: str, members: int) -> str:
    """Say how many equal models would pass with so many members, and how many members it takes."""
    if margin == 0 or loss.error == 0:
        return ""
    share = share_of_equals(loss, margin)
    models = (
        "models as good as the champion"
        if require == "not_worse"
        else f"models better by {margin:g}"
    )
    sentence = f". With so many members about {percent(share, 0)} of {models} would pass"
    if share >= POWER:
        return sentence
    needed = members * ((Z + norm.ppf(POWER)) * loss.error / margin) ** 2
    return f"{sentence}; {POWER:.0%} would with about {whole(_two_digits(needed))}"


def _two_digits(number: float) -> float:
    """Round up to two significant digits."""
    unit = 10 ** max(math.floor(math.log10(number)) - 1, 0)
    return math.ceil(number / unit) * unit


def _format_loss(loss: Loss, members: int) -> str:
    """Format how much better the candidate is, with the sign of the check's value."""
    gain, low, high = (0.0 - end for end in (loss.estimate, loss.high, loss.low))
    return (
        f"a gain of {gain:+.4f} (95% CI {low:+.4f} to {high:+.4f}; below 0 is a loss) on "
        f"{members} members"
    )


def check_slices(
    y: np.ndarray, candidate: np.ndarray, champion: np.ndarray, labels: pd.DataFrame
) -> Check:
    """Check that in no slice of the members the candidate is worse than the champion.

    ``labels`` has a row per member and a column per way to slice. In each slice a one-sided t test
    of the members' paired differences in log loss asks whether the candidate is worse; Holm's
    adjustment (1979, Scandinavian Journal of Statistics 6:65) keeps the chance that it refuses a
    candidate that is worse in no slice at MAX_ERROR. A loss within the margin of log loss is none.
    The value counts the slices in which it is worse.
    """
    losses = log_losses(y, candidate) - log_losses(y, champion)
    slices = [
        (name, value, losses[members])
        for name in labels.columns
        for value, members in values(labels[name])
    ]
    ps = [
        ttest_1samp(loss, 0, alternative="greater").pvalue if np.ptp(loss) > 0 else loss[0] <= 0
        for *_, loss in slices
    ]
    margin = practical_margin("log_loss")
    worse = [
        (name, value, loss)
        for (name, value, loss), p in zip(slices, holm(np.array(ps, float)), strict=True)
        if p < MAX_ERROR and loss.mean() > margin
    ]
    message = f"the candidate is worse than the champion in none of {counted(len(slices), 'slice')}"
    if worse:
        found = [
            f"{name} = {value} (log loss {loss.mean():+.4f} on {len(loss)} members)"
            for name, value, loss in worse
        ]
        message = (
            f"the candidate is worse than the champion in {listed(found)}, "
            f"of {counted(len(slices), 'slice')}, beyond chance"
        )
    return Check("slices_against_champion", len(worse), 0, not worse, message)
