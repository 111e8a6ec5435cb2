"""The checks that a candidate must pass to replace the champion, as plain values, and what follows
from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from churnlab.models.comparison import paired_difference, too_good
from churnlab.models.evaluation import bootstrap_intervals, calibration_line, classification_metrics
from churnlab.models.metric_names import LOWER_IS_BETTER
from churnlab.models.metrics import CLIP

Interface = Mapping[str, Mapping[str, tuple[str, bool]]]
"""The fields of a version's inputs, outputs and params, each with its type and whether it must be
given."""

NOT_MEASURED = "not measured: there are no held-out members of both outcomes to measure it on"


@dataclass(frozen=True)
class Check:
    """One check: what was found, what is allowed, and in ``said`` both in words.

    ``value`` is None where it cannot be measured. What passes with a ``warning`` needs a look all
    the same.
    """

    name: str
    value: Any
    limit: Any
    passed: bool
    said: str
    warning: bool = False

    @property
    def line(self) -> dict[str, Any]:
        """What the result line tells of it."""
        return {
            key: value
            for key, value in asdict(self).items()
            if key in ("name", "value", "limit", "passed")
        }


def verdict(checks: Sequence[Check], *, force: bool) -> str:
    """``passed``, ``refused``, or ``forced`` when it would have been refused."""
    if all(check.passed for check in checks):
        return "passed"
    return "forced" if force else "refused"


def told(checks: Sequence[Check]) -> str:
    """All checks as a table, and under it in words those that failed or need a look."""
    table = pd.DataFrame([check.line for check in checks])
    for column in ("value", "limit"):
        table[column] = [_shown(value) for value in table[column]]
    table["passed"] = table["passed"].map({True: "yes", False: "NO"})
    words = [
        f"{'warning' if check.passed else 'failed'}: {check.said}"
        for check in checks
        if needs_a_look(check)
    ]
    return "\n".join([table.to_string(index=False), *words])


def needs_a_look(check: Check) -> bool:
    """Whether a check failed, or passed with a warning."""
    return check.warning or not check.passed


def same_answers(in_process: np.ndarray, served: np.ndarray, *, limit: float) -> Check:
    """Whether the version answers with the probabilities that its train run has kept; arrays of
    shape (members,)."""
    gap = float(np.abs(served - in_process).max())
    said = f"the version's probabilities differ by up to {gap:.2g} from those of its train run"
    return Check("served_equals_trained", gap, limit, gap <= limit, said)


def enough_members(left_out: Mapping[str, int], *, members: int, left: int, limit: int) -> Check:
    """Whether enough members are left to judge by; ``left_out`` says how many are not, and why."""
    why = ", ".join(f"{number} {reason}" for reason, number in left_out.items() if number)
    said = f"of {members} held-out members {left} can judge, at least {limit} must{f'; left out: {why}' if why else ''}"
    return Check("held_out_members", left, limit, left >= limit, said)


def known_champion(unknown: str | None) -> Check:
    """Whether the champion can be asked and it is known who it was trained on; ``unknown`` says why
    not."""
    if unknown is None:
        return Check("champion_known", "yes", "yes", True, "the champion can be compared with")
    return Check(
        "champion_known",
        "no",
        "yes",
        False,
        f'{unknown}. To replace it all the same: force=true reason="..."',
    )


def against_champion(
    y: np.ndarray,
    candidate: np.ndarray,
    champion: np.ndarray,
    *,
    metric: str,
    thresholds: tuple[float, float],
    require: str,
    margin: float,
    seed: int,
) -> Check:
    """Whether the candidate is better than the champion on the same members, or not worse by more
    than a margin.

    The value is how much worse it is at the bad end of the 95% interval of a paired bootstrap, in
    the metric's unit, whichever way the metric runs: below 0 it is better, and for
    ``require="not_worse"`` up to ``margin`` is allowed.
    """
    name = f"{metric}_against_champion"
    limit = margin if require == "not_worse" else 0.0
    if not _judges(y):
        return Check(name, None, limit, False, f"{name} is {NOT_MEASURED}")
    worse, interval = _worse(
        y, candidate, champion, metric=metric, thresholds=thresholds, seed=seed
    )
    passed = worse <= limit if require == "not_worse" else worse < limit
    scores = [
        classification_metrics(y, probability, threshold=threshold)[metric]
        for probability, threshold in zip((candidate, champion), thresholds, strict=True)
    ]
    asked = (
        f"may be worse by {margin:g} at most"
        if require == "not_worse"
        else "must be better beyond doubt"
    )
    hint = (
        ""
        if passed or require == "not_worse"
        else ", or with require=not_worse as good within gate.margin"
    )
    said = f"{metric} {scores[0]:.4f} against the champion's {scores[1]:.4f}, {interval}; the candidate {asked}{hint}"
    return Check(name, worse, limit, passed, said)


def against_dummy(
    y: np.ndarray, probability: np.ndarray, *, churn_rate: float, threshold: float, seed: int
) -> list[Check]:
    """Whether the candidate is better than the churn rate of its training members for everybody, on
    the same members.

    As in ``against_champion``, in log_loss and in roc_auc: a model that has learned nothing fails
    in one of them.
    """
    checks = []
    for metric in ("log_loss", "roc_auc"):
        name = f"{metric}_against_dummy"
        if not _judges(y):
            checks.append(Check(name, None, 0.0, False, f"{name} is {NOT_MEASURED}"))
            continue
        guess = np.full(len(y), churn_rate)
        worse, interval = _worse(
            y, probability, guess, metric=metric, thresholds=(threshold, threshold), seed=seed
        )
        said = f"{metric} beside a dummy's that says {churn_rate:.4f} of everybody {interval}; it must be better"
        checks.append(Check(name, worse, 0.0, worse < 0, said))
    return checks


def check_calibration(
    y: np.ndarray,
    probability: np.ndarray,
    *,
    slope: tuple[float, float],
    ece: float,
    threshold: float,
    seed: int,
) -> list[Check]:
    """Whether the probabilities can be taken at their word.

    A check fails when the whole 95% interval of slope or ece lies beyond what is allowed; its value
    is the point of the interval that is nearest to it.
    """
    if not _judges(y):
        allowed = {"calibration_slope": list(slope), "calibration_ece": ece}
        return [
            Check(name, None, limit, False, f"{name} is {NOT_MEASURED}")
            for name, limit in allowed.items()
        ]
    found = calibration_line(y, probability)
    between = slope_interval(y, probability, slope=found["slope"], intercept=found["intercept"])
    limits = bootstrap_intervals(y, probability, threshold=threshold, seed=seed)["ece"]
    if np.isnan(found["slope"]):
        checks = [
            Check(
                "calibration_slope",
                None,
                list(slope),
                True,
                "all probabilities are equal: there is no slope",
            )
        ]
    else:
        value = _nearest(found["slope"], between, slope)
        said = f"the calibration slope is {found['slope']:.2f} (95% {between[0]:.2f} to {between[1]:.2f}; 1 is right)"
        checks = [
            Check("calibration_slope", value, list(slope), slope[0] <= value <= slope[1], said)
        ]
    value = _nearest(found["ece"], limits, (0.0, ece))
    said = f"said and seen churn differ by {found['ece']:.3f} (ece, 95% {limits[0]:.3f} to {limits[1]:.3f})"
    return [*checks, Check("calibration_ece", value, ece, value <= ece, said)]


def slope_interval(
    y: np.ndarray, probability: np.ndarray, *, slope: float, intercept: float
) -> tuple[float, float]:
    """95% Wald interval of the calibration slope, from the information matrix of the logistic
    regression.

    Without end where the outcomes are told apart perfectly. Cox (1958); Hosmer and Lemeshow,
    Applied Logistic Regression, 2.4.
    """
    clipped = np.clip(probability, CLIP, 1 - CLIP)
    logit = np.log(clipped / (1 - clipped))
    fitted = 0.5 * (1 + np.tanh((intercept + slope * logit) / 2))
    weight = fitted * (1 - fitted)
    spread = weight.sum() * (weight * logit**2).sum() - (weight * logit).sum() ** 2
    error = np.sqrt(weight.sum() / spread) if spread > 0 else np.inf
    return float(slope - 1.96 * error), float(slope + 1.96 * error)


def good_enough(scores: Mapping[str, float], minimum: Mapping[str, float]) -> list[Check]:
    """Whether each metric is at least what is asked for."""
    checks = []
    for name, limit in minimum.items():
        value, called = scores.get(name, np.nan), f"minimum_{name}"
        if np.isnan(value):
            checks.append(Check(called, None, limit, False, f"{called} is {NOT_MEASURED}"))
            continue
        said = f"{name} {value:.4f} must be at least {limit:g}"
        checks.append(Check(called, float(value), limit, bool(value >= limit), said))
    return checks


def plausible(scores: Mapping[str, float], ceiling: Mapping[str, float | None]) -> list[Check]:
    """Whether no score is too good to be true: beyond its ceiling a column is suspected to know the
    outcome."""
    checks = []
    for name, limit in ceiling.items():
        value, called = scores.get(name, np.nan), f"ceiling_{name}"
        if limit is None:
            continue
        if np.isnan(value):
            checks.append(Check(called, None, limit, False, f"{called} is {NOT_MEASURED}"))
            continue
        found = too_good(scores, {name: limit})
        said = (
            f"{found[0]}: a column is suspected to know the outcome"
            if found
            else f"{name} {value:.4f} is plausible"
        )
        checks.append(Check(called, float(value), limit, not found, said))
    return checks


def stable_segments(unstable: str | None, *, by_hand: bool) -> Check:
    """Whether the segments come back on other members; a number of segments that was set by hand
    passes, marked.

    ``unstable`` is what they miss, None for stable ones.
    """
    if unstable is None:
        return Check(
            "stable_segmentation",
            "stable",
            "stable",
            True,
            "the segments come back on other members",
        )
    said = f"the segmentation is not stable: {unstable}"
    if by_hand:
        return Check(
            "stable_segmentation", "unstable", "stable, or set by hand", True, said, warning=True
        )
    return Check(
        "stable_segmentation",
        "unstable",
        "stable, or set by hand",
        False,
        f"{said} Set segments.k by hand.",
    )


def compatible(new: Interface, old: Interface) -> Check:
    """Whether whoever asks the champion can ask the candidate in the same words and gets answers of
    the same form.

    An input more is compatible when it may be left out.
    """
    faults = []
    for name, (kind, required) in new["inputs"].items():
        if name not in old["inputs"]:
            faults += [f"{name} must be given and was not asked for"] if required else []
        elif old["inputs"][name][0] != kind:
            faults.append(f"{name} is {kind} and was {old['inputs'][name][0]}")
        elif required and not old["inputs"][name][1]:
            faults.append(f"{name} must be given and could be left out")
    for part in ("inputs", "params", "outputs"):
        faults += [f"{name} is gone" for name in old[part] if name not in new[part]]
    for part in ("params", "outputs"):
        both = [name for name in old[part] if name in new[part]]
        faults += [
            f"{name} has another type" for name in both if old[part][name][0] != new[part][name][0]
        ]
    said = (
        f"who asks the champion cannot ask the candidate: {', '.join(faults)}"
        if faults
        else "as the champion's"
    )
    return Check("compatible_signature", faults, [], not faults, said)


def light(name: str, value: float, limit: float, *, unit: str) -> Check:
    """Whether a version is small or quick enough."""
    return Check(
        name, value, limit, value <= limit, f"{name}: {value:.3g} {unit}, at most {limit:g}"
    )


def _judges(y: np.ndarray) -> bool:
    """Whether members can tell models apart: some left and some stayed."""
    return len(np.unique(y)) == 2


def _worse(
    y: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    *,
    metric: str,
    thresholds: tuple[float, float],
    seed: int,
) -> tuple[float, str]:
    """How much worse the first is at the bad end of the 95% interval, and the difference in words."""
    delta, low, high = paired_difference(
        y, first, second, metric=metric, thresholds=thresholds, seed=seed
    )
    said = f"a difference of {delta:+.4f} (95% {low:+.4f} to {high:+.4f}) on {len(y)} members"
    return (high if metric in LOWER_IS_BETTER else 0.0 - low), said


def _nearest(point: float, interval: tuple[float, float], allowed: tuple[float, float]) -> float:
    """The point of an interval that is nearest to what is allowed; ``point`` is its estimate."""
    return float(np.clip(np.clip(point, *allowed), *interval))


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return (
            " to ".join(map(_shown, value))
            if value and isinstance(value[0], float)
            else f"{len(value)} faults"
        )
    return "-" if value is None else str(value)
