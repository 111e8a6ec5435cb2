"""Sentences for the report: what the measured numbers say, readable for a manager.

Values in, plain text out; the page escapes it. A sentence claims no more than its confidence
interval (CI) supports and never states a cause.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from churnlab.formatting import counted, number, percent, readable, whole
from churnlab.models.comparison import Difference, format_difference, winner
from churnlab.models.metric_names import LABELS, LOWER_IS_BETTER

TEST_FIRST = (
    "test each action on a random half of its segment first (an A/B test), because a correlation "
    "is not an effect"
)

FIRST_MODELS = "train -m model=logistic_regression,random_forest"
"""The command that trains the first models of any table."""

Part = Mapping[Any, Any]
"""The values of one section of the report, by name."""


class Conclusion(NamedTuple):
    """One sentence with its topic, the runs it rests on and the next command (without churnlab)."""

    topic: str
    text: str
    runs: tuple[str, ...] = ()
    command: str | None = None


def five_sentences(
    members: Part,
    models: Part | None,
    segments: Part | None,
    champion: Part | None,
    *,
    registered: str,
) -> list[Conclusion]:
    """Return who leaves, which model, how well it ranks, which segments and what is next.

    A part is None if its command has not run. members: rows, left, churn_rate, run_id, groups (None
    if not explored). models: best, value, rival, difference ... segments: portraits, run_id.
    champion: version, since, recommended ... ``registered`` is the registered model's name.
    """
    rate, left, groups = members["churn_rate"], members["left"], members["groups"]
    who = who_leaves(members["rows"], left, groups)
    explore = "explore" if groups is None else None
    promote = champion is None or champion["recommended"] is False
    command = "promote" if promote else "score input=members.csv output=scored.csv"
    following = what_next(registered, champion)
    return [
        Conclusion("Who leaves", who, _runs(members), explore),
        *_about_models(models, churn_rate=rate),
        _about_segments(segments, churn_rate=rate, left=left),
        Conclusion("What next", following, _runs(champion or {}), command),
    ]


def _about_models(models: Part | None, *, churn_rate: float) -> list[Conclusion]:
    if models is None:
        missing = "No model has been trained on this table and split yet."
        later = "How well a model ranks members is measured on held-out members when it is trained."
        return [Conclusion("Which model", missing, (), FIRST_MODELS), Conclusion("How well", later)]
    keys = ("best", "value", "rival", "difference", "metric")
    which = which_model(**{key: models[key] for key in keys})
    well = how_well(
        models["test"], models["gains"], held_out=models["held_out"], churn_rate=churn_rate
    )
    return [
        Conclusion("Which model", which, _runs(models, "rival_run_id")),
        Conclusion("How well", well, _runs(models)),
    ]


def _about_segments(segments: Part | None, *, churn_rate: float, left: int) -> Conclusion:
    if segments is None:
        missing = "The members have not been divided into segments yet."
        return Conclusion("Which segments", missing, (), "segment")
    text = which_segments(segments["portraits"], churn_rate=churn_rate, left=left)
    return Conclusion("Which segments", text, _runs(segments))


def _runs(part: Part, *more: str) -> tuple[str, ...]:
    return tuple(part[key] for key in ("run_id", *more) if part.get(key))


def model_in_words(model: str, features: str, *, tuned: bool = False) -> str:
    """Name a model and its features: ``logistic regression (behaviour features, tuned)``."""
    return f"{readable(model)} ({readable(features)} features{', tuned' if tuned else ''})"


def riskier(driver: Part, *, kind: str, unit: str | None = None) -> dict[str, Any]:
    """Turn a row of statistics.risk_ratios to the side with the higher churn: its ratio is >= 1.

    Return group (in words), n, n_other, churn, churn_other, ratio, low, high. ``kind`` and ``unit``
    are the column's.
    """
    ratio, low, high = driver["risk_ratio"], driver["low"], driver["high"]
    turned = ratio < 1
    if turned:
        ratio, low, high = (1 / end if end else math.inf for end in (ratio, high, low))
    here, there = ("without", "with") if turned else ("with", "without")
    return {
        "group": _group(driver["feature"], driver["split"], kind=kind, unit=unit, turned=turned),
        "n": int(driver[f"n_{here}"]),
        "n_other": int(driver[f"n_{there}"]),
        "churn": driver[f"churn_{here}"],
        "churn_other": driver[f"churn_{there}"],
        **{"ratio": ratio, "low": low, "high": high},
    }


def _group(feature: str, split: str, *, kind: str, unit: str | None, turned: bool) -> str:
    """Name a side of a split, as ``Age at most 29 (years)``, ``Partner = 0``, ``Plan = gold``."""
    name = readable(feature)
    sign, _, value = split.partition(" ")
    if sign == ">":
        units = f" ({unit})" if unit else ""
        return f"{name} {'at most' if turned else 'above'} {value}{units}"
    if kind == "binary":
        return f"{name} = {0 if turned else 1}"
    return f"{name} {'other than' if turned else '='} {value}"


def who_leaves(rows: int, left: int, groups: Sequence[Part] | None) -> str:
    """Say how many members left, and among which group most clearly.

    ``groups`` are those of ``riskier``, the clearest first; None if not explored yet.
    """
    text = f"Of {counted(rows, 'member')}, {whole(left)} left ({percent(left / rows)})"
    if groups is None:
        return f"{text}; who they are has not been explored yet."
    if not groups:
        return f"{text}; no single column shows clearly who."
    first = groups[0]
    others = percent(first["churn_other"]) if first["churn_other"] else "none"
    times = ""
    if not math.isinf(first["ratio"]):
        ci = f"95% CI {number(first['low'], 1)} to {number(first['high'], 1)}"
        times = f", {number(first['ratio'], 1)} times the rate ({ci})"
    return (
        f"{text}, most clearly those with {first['group']}: {percent(first['churn'])} of them "
        f"left, against {others} of the others{times}."
    )


def which_model(
    best: str, value: float, rival: str | None, difference: Difference | None, *, metric: str
) -> str:
    """Say which model is best in cross-validation, and by how much it beats the rival.

    ``difference`` is best minus rival, in the same words as ``comparison.verdict``.
    """
    text = f"The recommended model is {best}, with a cross-validated {LABELS[metric]}"
    text += f" of {number(value, 4)}"
    if rival is None or difference is None:
        return f"{text}; there is no other model on this table and split to compare it with."
    if winner(difference, metric=metric) == 0:
        gain = format_difference(difference, -1 if metric in LOWER_IS_BETTER else 1)
        return f"{text}, better than the best {rival} by {gain}."
    return (
        f"{text}; these data do not show that it is better than the best {rival}: the first minus "
        f"the second is {format_difference(difference).replace('-', '−')}."
    )


def how_well(
    test: Mapping[str, float], gains: Mapping[float, float], *, held_out: int, churn_rate: float
) -> str:
    """Say how well the model ranks members on the hold-out and out-of-fold.

    ``test``: roc_auc, low, high on the hold-out. ``gains``: the share of all leavers by share of
    members contacted, out-of-fold.
    """
    found = " and ".join(
        f"the riskiest {percent(share, 0)} include {percent(gain)}" for share, gain in gains.items()
    )
    ideal = " and ".join(percent(min(share / churn_rate, 1)) for share in gains)
    return (
        "It ranks a member who leaves above a member who stays in "
        f"{percent(test['roc_auc'])} of the pairs (95% CI {percent(test['low'])} to "
        f"{percent(test['high'])}, on {whole(held_out)} held-out members); of all who leave, "
        f"{found} (a perfect ranking would find {ideal})."
    )


def needs_attention(portraits: Sequence[Part], *, churn_rate: float) -> Part | None:
    """Return the segment with the most leavers beyond the overall rate, or None.

    Only segments whose 95% CI lies above that rate count.
    """
    clear = [portrait for portrait in portraits if portrait["churn_low"] > churn_rate]
    return max(
        clear,
        key=lambda portrait: portrait["size"] * (portrait["churn_rate"] - churn_rate),
        default=None,
    )


def which_segments(portraits: Sequence[Part], *, churn_rate: float, left: int) -> str:
    """Say how many segments there are, and which one needs attention first with its actions."""
    text = f"The members fall into {counted(len(portraits), 'segment')}"
    worst = needs_attention(portraits, churn_rate=churn_rate)
    if worst is None:
        return f"{text}; no segment churns clearly more than the members overall."
    gone, actions = round(worst["size"] * worst["churn_rate"]), worst["actions"]
    more = f" (and {len(actions) - 3} more, below)" if len(actions) > 3 else ""
    return (
        f"{text}; segment {worst['id']}, “{worst['name']}”, needs attention first: "
        f"{percent(worst['churn_rate'])} of its {counted(worst['size'], 'member')} left (95% CI "
        f"{percent(worst['churn_low'])} to {percent(worst['churn_high'])}), {whole(gone)} of all "
        f"{whole(left)} who left, and the playbook advises: {'; '.join(actions[:3])}{more}."
    )


def how_stable(found: Part, limits: Mapping[str, float]) -> str:
    """Say whether the segments are stable: a row of evidence_per_k against choose_k.STABLE."""
    stable = all(found[name] >= limit for name, limit in limits.items())
    ari, strength = number(limits["bootstrap_ari"], 2), number(limits["prediction_strength"], 2)
    return (
        f"They {'are stable' if stable else 'are not stable, and may look different next month'}: "
        "refits on resampled members agree with them at an adjusted Rand index of "
        f"{number(found['bootstrap_ari'], 2)} (1 is identical, at least {ari} is required), their "
        f"prediction strength is {number(found['prediction_strength'], 2)} (at least {strength}), "
        f"and the smallest has {percent(found['min_share'])} of the members (at least "
        f"{percent(limits['min_share'], 0)})."
    )


def what_next(registered: str, champion: Part | None) -> str:
    """Say what is in the registry and what to do next.

    ``champion``: version, since, and whether it uses the recommended model (None: no model to
    recommend yet).
    """
    if champion is None:
        return (
            f"No version of {registered} is promoted yet, so no member can be scored: promote one, "
            f"and {TEST_FIRST}."
        )
    text = (
        f"Version {champion['version']} of {registered} has been the champion "
        f"since {champion['since']}"
    )
    if champion["recommended"] is False:
        return (
            f"{text}, but does not use the recommended model: let the gate decide between them, "
            f"and {TEST_FIRST}."
        )
    uses = " and uses the recommended model" if champion["recommended"] else ""
    return f"{text}{uses}: score the members with it, and {TEST_FIRST}."
