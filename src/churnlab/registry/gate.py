"""Check a candidate before it may replace the champion: plain values in, verdicts out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from churnlab.evaluation.calibration_error import calibration_error
from churnlab.evaluation.comparison import implausible
from churnlab.evaluation.metric_names import LABELS, LOWER_IS_BETTER
from churnlab.evaluation.metrics import CLIP
from churnlab.evaluation.performance import calibration_line
from churnlab.formatting import Lines, Table, counted, number

Interface = Mapping[str, Mapping[str, tuple[str, bool]]]
"""The fields of a version's inputs, outputs and params, each with its type and whether it is
required; ``others`` is empty if columns that are no inputs are refused."""


BETTER_BY = "better by"
"""The bound of a check whose value is how much better the candidate is than a rival, in the
metric's unit and at the unfavorable end of the 95% CI; below 0 it may be worse."""


@dataclass(frozen=True)
class Check:
    """One check: the measured value, its limit, and both in a sentence.

    ``value`` is None where it cannot be measured. A check that passes with a ``warning`` still
    needs attention. It is ``undecided`` if the members are too few to judge by: they show neither
    that the candidate keeps the limit nor that it breaks it. Those of calibration and of a ceiling
    pass then, the others fail.
    ``bound`` is where the
    value must lie: at most or at least a number, or BETTER_BY. ``shown`` is the value in words, for
    people; "" is the number itself.
    """

    name: str
    value: Any
    limit: Any
    passed: bool
    message: str
    warning: bool = False
    bound: str = "at most"
    undecided: bool = False
    shown: str = ""

    @property
    def line(self) -> dict[str, Any]:
        """Return what the result line shows of the check."""
        return {key: getattr(self, key) for key in ("name", "value", "limit", "passed")}

    @property
    def cells(self) -> dict[str, str]:
        """Return the same as text, with the limit in words.

        >>> Check("minimum_roc_auc", 0.71234, 0.6, True, "", bound="at least").cells
        {'name': 'minimum_roc_auc', 'value': '0.7123', 'limit': 'at least 0.6', 'passed': 'yes'}
        >>> gain = Check("log_loss_against_champion", 0.02, 0.0, True, "", bound=BETTER_BY).cells
        >>> gain["value"], gain["limit"]
        ('better by at least 0.02', 'better')
        """
        bound = f"{self.bound} " if isinstance(self.limit, int | float) else ""
        value, limit = (
            self.shown or _format_value(self.value),
            f"{bound}{_format_value(self.limit)}",
        )
        if self.bound == BETTER_BY:
            value = "-" if self.value is None else _format_gain(self.value, passed=self.passed)
            limit = "better" if self.limit == 0 else f"at most {-self.limit:.4g} worse"
        words = ("yes", "too few to judge") if self.passed else ("NO", "undecided")
        passed = words[self.undecided]
        return self.line | {"value": value, "limit": limit, "passed": passed}

    @property
    def needs_attention(self) -> bool:
        """Return whether the check failed, or passed with a warning."""
        return self.warning or not self.passed


def verdict(checks: Sequence[Check], *, force: bool) -> str:
    """Return ``passed``, ``refused``, ``undecided`` if checks failed only because the members are
    too few to judge by, or ``forced`` when it would have been one of the two.

    >>> verdict([check_at_most("megabytes", 3.0, 500.0, unit="MB")], force=False)
    'passed'
    """
    if all(check.passed for check in checks):
        return "passed"
    if force:
        return "forced"
    return "undecided" if all(check.passed or check.undecided for check in checks) else "refused"


def format_checks(checks: Sequence[Check]) -> Lines:
    """Format all checks as a table, followed by a sentence on each that needs attention."""
    table = pd.DataFrame([check.cells for check in checks])
    sentences = [
        f"{'warning' if check.passed else 'undecided' if check.undecided else 'failed'}: "
        f"{check.message}"
        for check in checks
        if check.needs_attention
    ]
    return Lines.of([Table.of(table), *sentences])


def check_served_predictions(
    trained: np.ndarray, served: Mapping[str, np.ndarray], *, limit: float
) -> Check:
    """Check that the version predicts what its train run predicted; arrays of shape (members,).

    ``served`` holds its predictions by the form in which it was given the members.
    """
    gaps = {form: float(np.abs(found - trained).max()) for form, found in served.items()}
    form = max(gaps, key=gaps.__getitem__)
    message = (
        f"given the members as {form}, the version's probabilities differ by up to "
        f"{gaps[form]:.2g} from those of its train run"
    )
    return Check("served_equals_trained", gaps[form], limit, gaps[form] <= limit, message)


def check_held_out_members(
    left_out: Mapping[str, int], *, members: int, left: int, limit: int
) -> Check:
    """Check that enough held-out members are left to judge by; ``left_out`` counts the others by
    reason."""
    reasons = ", ".join(f"{number} {reason}" for reason, number in left_out.items() if number)
    message = f"{left} of {members} held-out members can be used, at least {limit} are needed"
    if reasons:
        message += f"; left out: {reasons}"
    enough = left >= limit
    return Check(
        "held_out_members", left, limit, enough, message, bound="at least", undecided=not enough
    )


def check_champion_known(unknown: str | None, caveat: str = "") -> Check:
    """Check that the champion can be compared with; ``unknown`` is the reason why not, ``caveat``
    what is uncertain about its training members ("" for nothing)."""
    if unknown is None:
        message = caveat or "the champion is comparable"
        return Check("champion_known", "yes", "yes", True, message, warning=bool(caveat))
    message = f'{unknown}. To replace it anyway: force=true reason="..."'
    return Check("champion_known", "no", "yes", False, message)


def check_calibration(
    y: np.ndarray,
    probability: np.ndarray,
    *,
    slope: tuple[float, float],
    ece: float,
    threshold: float,
    seed: int,
) -> list[Check]:
    """Check that predicted probabilities match observed churn: calibration slope and ECE.

    A check fails when the whole 95% CI lies outside its limits; its value is the point of the CI
    that is nearest to them. It passes undecided, with a warning, where the members are too few to
    judge by: the CI of the slope reaches beyond both limits, or even a perfectly calibrated model
    would show an ECE above the limit.
    """
    if not has_both_outcomes(y):
        return [
            not_measured("calibration_slope", list(slope)),
            not_measured("calibration_ece", ece),
        ]
    line = calibration_line(y, probability)
    shown, few, too_few = "", False, f"and {counted(len(y), 'member')} are too few to judge by"
    if np.isnan(line["slope"]):
        value, passed = None, True
        message = "the probabilities are about equal: there is no slope"
    else:
        low, high = slope_interval(y, probability, slope=line["slope"], intercept=line["intercept"])
        value = _nearest(line["slope"], (low, high), slope)
        passed = slope[0] <= value <= slope[1]
        few = low < slope[0] and high > slope[1]
        shown = f"{number(line['slope'], 2)} ({number(low, 2)} to {number(high, 2)})"
        message = f"the calibration slope is {shown.replace('(', '(95% CI ')[:-1]}; ideal: 1)"
        if few:
            message += f", {too_few} limits of {slope[0]:g} to {slope[1]:g}"
    name = "calibration_slope"
    checks = [Check(name, value, list(slope), passed, message, few, undecided=few, shown=shown)]
    error = calibration_error(y, probability, seed=seed)
    value = _nearest(error.corrected, (error.low, error.high), (0.0, ece))
    message = (
        f"predicted and observed churn differ by {error.ece:.3f} (expected calibration error, "
        f"95% CI {error.low:.3f} to {error.high:.3f}; a perfectly calibrated model would show "
        f"{error.floor:.3f} on as many members)"
    )
    passed, few = value <= ece, error.floor > ece
    if few:
        message += f", {too_few} a limit of {ece:g}"
    shown = f"{error.corrected:.3f} ({error.low:.3f} to {error.high:.3f})"
    few, name = few and passed, "calibration_ece"
    return [*checks, Check(name, value, ece, passed, message, few, undecided=few, shown=shown)]


def slope_interval(
    y: np.ndarray, probability: np.ndarray, *, slope: float, intercept: float
) -> tuple[float, float]:
    """Return the 95% Wald CI of the calibration slope.

    From the information matrix of the logistic regression (Cox, 1958; Hosmer and Lemeshow, Applied
    Logistic Regression, 2.4). Infinite where the outcomes are separated perfectly.
    """
    clipped = np.clip(probability, CLIP, 1 - CLIP)
    logit = np.log(clipped / (1 - clipped))
    fitted = 0.5 * (1 + np.tanh((intercept + slope * logit) / 2))
    weight = fitted * (1 - fitted)
    spread = weight.sum() * (weight * logit**2).sum() - (weight * logit).sum() ** 2
    error = np.sqrt(weight.sum() / spread) if spread > 0 else np.inf
    return float(slope - 1.96 * error), float(slope + 1.96 * error)


def check_minimum(scores: Mapping[str, float], minimum: Mapping[str, float]) -> list[Check]:
    """Check that each metric reaches its minimum."""
    checks = []
    for metric, limit in minimum.items():
        name, value = f"minimum_{metric}", scores.get(metric, np.nan)
        if np.isnan(value):
            checks.append(not_measured(name, limit))
            continue
        message = f"{LABELS[metric]} {value:.4f} must be at least {limit:g}"
        checks.append(
            Check(name, float(value), limit, bool(value >= limit), message, bound="at least")
        )
    return checks


def check_ceiling(scores: Mapping[str, float], ceiling: Mapping[str, float | None]) -> list[Check]:
    """Check that no score is too good to be true, which would suggest leakage.

    A score beyond its ceiling that may be luck (``comparison.implausible``) passes with a warning.
    A ceiling of None is no limit.
    """
    checks, beyond = [], implausible(scores, ceiling)
    for score, limit in ceiling.items():
        name, value = f"ceiling_{score}", scores.get(score, np.nan)
        if limit is None:
            continue
        if np.isnan(value):
            checks.append(not_measured(name, limit))
            continue
        found = beyond.get(score)
        message = f"{score} {value:.4f} is plausible"
        if found is not None:
            message = (
                f"{found.text}: leakage is suspected, a column may know the outcome (with few "
                "members it may also be luck)"
                if found.sure
                else f"{found.text}, with so few members perhaps by luck; if it stays so with more "
                "members, a column may know the outcome"
            )
        bound = "at least" if score.partition("_")[2] in LOWER_IS_BETTER else "at most"
        leak, luck = (found is not None and found.sure == sure for sure in (True, False))
        checks.append(Check(name, float(value), limit, not leak, message, luck, bound, luck))
    return checks


def check_stability(unstable: str | None, *, by_hand: bool) -> Check:
    """Check that the segments are stable; a number of segments that was set by hand passes with a
    warning.

    ``unstable`` is the reason why they are not, None for stable ones.
    """
    name = "stable_segmentation"
    if unstable is None:
        return Check(name, "stable", "stable", True, "the segmentation is stable")
    message = f"the segmentation is not stable: {unstable}"
    if not by_hand:
        message += (
            " Divide the members by other columns (churnlab segment segments=...), promote an "
            "earlier segmentation (segment_run=...), or none (segment_run=none)."
        )
    return Check(name, "unstable", "stable, or set by hand", by_hand, message, warning=by_hand)


def no_segments() -> Check:
    """Return the check, passed with a warning, of the segments of a version that has none."""
    message = (
        "the version has no segments (segment_run=none), so no check is about them; its answers "
        "have null for segment, name and action"
    )
    return Check("stable_segmentation", "no segments", "stable", True, message, warning=True)


def check_signature(new: Interface, old: Interface) -> Check:
    """Check that requests to the champion work with the candidate and get answers of the same form.

    An additional input is compatible when it is optional. The value lists what is incompatible.
    """
    changes = []
    for name, (kind, required) in new["inputs"].items():
        if name not in old["inputs"]:
            changes += [f"{name} is required and was no input"] if required else []
        elif old["inputs"][name][0] != kind:
            changes.append(f"{name} is {kind} and was {old['inputs'][name][0]}")
        elif required and not old["inputs"][name][1]:
            changes.append(f"{name} is required and was optional")
    for part in ("inputs", "params", "outputs"):
        changes += [f"{name} was removed" for name in old[part] if name not in new[part]]
    for part in ("params", "outputs"):
        both = [name for name in old[part] if name in new[part]]
        changes += [
            f"{name} has another type" for name in both if old[part][name][0] != new[part][name][0]
        ]
    if old.get("others") and not new.get("others"):
        changes.append("other columns are refused and were ignored")
    message = "the signature is compatible with the champion's"
    if changes:
        message = f"the signature is not compatible with the champion's: {', '.join(changes)}"
    return Check("compatible_signature", changes, [], not changes, message)


def check_at_most(name: str, value: float, limit: float, *, unit: str) -> Check:
    """Check that a size or a time is within its limit.

    >>> check_at_most("one_ms", 35.0, 2000.0, unit="ms").message
    'one_ms: 35 ms, at most 2000'
    """
    message = f"{name}: {value:.3g} {unit}, at most {limit:g}"
    return Check(name, value, limit, value <= limit, message)


def has_both_outcomes(y: np.ndarray) -> bool:
    return len(np.unique(y)) == 2


def not_measured(name: str, limit: Any, *, bound: str = "at most") -> Check:
    """Return the failed check of what cannot be measured on these members."""
    message = f"{name} is not measured: it needs held-out members who churned and who stayed"
    return Check(name, None, limit, False, message, bound=bound, undecided=True)


def _nearest(point: float, interval: tuple[float, float], allowed: tuple[float, float]) -> float:
    """Return the point of an interval that is nearest to the allowed range; ``point`` is its
    estimate."""
    return float(np.clip(np.clip(point, *allowed), *interval))


def _format_gain(gain: float, *, passed: bool) -> str:
    """Say how much better a candidate is at least, or how much worse it may be.

    >>> [_format_gain(gain, passed=True) for gain in (0.436, -0.0032, 0.0)]
    ['better by at least 0.436', 'up to 0.0032 worse', 'no worse']
    >>> _format_gain(0.0, passed=False)
    'no better'
    """
    if gain == 0:
        return "no worse" if passed else "no better"
    return f"better by at least {gain:.4g}" if gain > 0 else f"up to {-gain:.4g} worse"


def _format_value(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if not isinstance(value, list | tuple):
        return "-" if value is None else str(value)
    if value and isinstance(value[0], float):
        return " to ".join(map(_format_value, value))
    return counted(len(value), "change")
