"""What the measured numbers say, in sentences that a manager can read.

Values in, text out. A sentence claims no more than its interval does, and none of them says that
one thing makes another happen. Texts are plain: whoever puts them on a page escapes them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from churnlab.formatting import counted, number, percent, spoken, whole
from churnlab.models.metric_names import METRICS

TRY_FIRST = "try each action on a random half of its segment first (an A/B test), for a correlation is not an effect"

SIMPLE_SWEEP = "train -m model=logistic_regression,random_forest"
"""What makes the first models of any table."""

Part = Mapping[Any, Any]
"""What is known of one thing, by name."""


class Conclusion(NamedTuple):
    """One sentence: what it is about, the runs it rests on, and the command that comes next
    (without churnlab)."""

    about: str
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
    """Who leaves, which model, how well it ranks, which segments, what next; None is a part not
    made yet.

    The parts are those of ``churnlab report``: members (rows, left, churn_rate, run_id, groups:
    None when they were not explored), models (best, value, rival, difference, ...), segments
    (portraits, run_id), champion (version, since, ...). ``registered`` is the registered model's
    name.
    """
    churn_rate, groups = members["churn_rate"], members["groups"]
    leaving = who_leaves(members["rows"], members["left"], groups)
    said = [
        Conclusion("Who leaves", leaving, _runs(members), "explore" if groups is None else None)
    ]
    if models is None:
        said += [
            Conclusion(
                "Which model",
                "No model has been trained on this table and split yet.",
                (),
                SIMPLE_SWEEP,
            ),
            Conclusion(
                "How well",
                "How well a model ranks is measured when it is trained, on members held out from it.",
            ),
        ]
    else:
        keys = ("best", "value", "rival", "difference", "metric", "lower_is_better")
        found = how_well(
            models["test"], models["gains"], held_out=models["held_out"], churn_rate=churn_rate
        )
        said += [
            Conclusion(
                "Which model",
                which_model(**{key: models[key] for key in keys}),
                _runs(models, "rival_run_id"),
            ),
            Conclusion("How well", found, _runs(models)),
        ]
    if segments is None:
        said.append(
            Conclusion(
                "Which segments",
                "The members have not been divided into segments yet.",
                (),
                "segment",
            )
        )
    else:
        kinds = which_segments(segments["portraits"], churn_rate=churn_rate, left=members["left"])
        said.append(Conclusion("Which segments", kinds, _runs(segments)))
    promote = champion is None or champion["recommended"] is False
    command = "promote" if promote else "score input=members.csv output=scored.csv"
    return [
        *said,
        Conclusion("What next", what_next(registered, champion), _runs(champion or {}), command),
    ]


def _runs(part: Part, *more: str) -> tuple[str, ...]:
    return tuple(part[key] for key in ("run_id", *more) if part.get(key))


def model_in_words(model: str, features: str, *, tuned: bool = False) -> str:
    """A model and its features: ``logistic regression (behaviour features, tuned)``."""
    return f"{spoken(model)} ({spoken(features)} features{', tuned' if tuned else ''})"


def riskier(driver: Part, *, kind: str, unit: str | None = None) -> dict[str, Any]:
    """A row of exploration.drivers turned to the side on which more leave, so that its ratio is at
    least 1.

    Keys: group (in words), n, n_other, churn, churn_other, ratio, low, high. ``kind`` and ``unit``
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
    """The side of a split in words: ``Lifetime at most 1 (months)``, ``Partner = 0``, ``Plan other
    than gold``."""
    sign, _, value = split.partition(" ")
    if sign == ">":
        return f"{spoken(feature)} {'at most' if turned else 'above'} {value}{f' ({unit})' if unit else ''}"
    if kind == "binary":
        return f"{spoken(feature)} = {0 if turned else 1}"
    return f"{spoken(feature)} {'other than' if turned else '='} {value}"


def who_leaves(rows: int, left: int, groups: Sequence[Part] | None) -> str:
    """How many left, and the first of the groups (of ``riskier``, the clearest first); None: not
    looked at yet."""
    said = f"Of {counted(rows, 'member')} {whole(left)} left ({percent(left / rows)})"
    if groups is None:
        return f"{said}; who they are has not been looked at yet."
    if not groups:
        return f"{said}; no single column says clearly who."
    first = groups[0]
    others = percent(first["churn_other"]) if first["churn_other"] else "none"
    interval = f"95% interval {number(first['low'], 1)} to {number(first['high'], 1)}"
    times = (
        ""
        if math.isinf(first["ratio"])
        else f", {number(first['ratio'], 1)} times as many ({interval})"
    )
    return (
        f"{said}, most clearly those with {first['group']}: {percent(first['churn'])} of them "
        f"left, against {others} of the others{times}."
    )


def which_model(
    best: str,
    value: float,
    rival: str | None,
    difference: Mapping[str, float] | None,
    *,
    metric: str,
    lower_is_better: bool,
) -> str:
    """The best cross-validated model, and by how much it beats the best of another kind.

    ``difference`` is best minus rival: delta, ci_low, ci_high.
    """
    said = f"The recommended model is {best}, with a cross-validated {METRICS[metric]} of {number(value, 4)}"
    if rival is None or difference is None:
        return f"{said}; there is no other on this table and split to compare it with."
    sign = -1 if lower_is_better else 1
    gain = sign * difference["delta"]
    low, high = sorted(sign * difference[end] for end in ("ci_low", "ci_high"))
    interval = f"95% interval {number(low, 4)} to {number(high, 4)}"
    if low > 0:
        return f"{said}, better than the best {rival} by {number(gain, 4)} ({interval})."
    return (
        f"{said}; these data do not show it to be better than the best {rival}, from which it "
        f"differs by {number(gain, 4)} ({interval})."
    )


def how_well(
    test: Mapping[str, float], gains: Mapping[float, float], *, held_out: int, churn_rate: float
) -> str:
    """Pairs ranked rightly on the hold-out (roc_auc, low, high), and leavers found among the
    riskiest shares.

    ``gains``: the share of all leavers by share of members contacted, out of fold.
    """
    found = " and ".join(
        f"the riskiest {percent(share, 0)} hold {percent(gain)}" for share, gain in gains.items()
    )
    most = " and ".join(percent(min(share / churn_rate, 1)) for share in gains)
    return (
        "Of a member who leaves and one who stays, it gives the higher risk to the one who leaves "
        f"in {percent(test['roc_auc'])} of the pairs (95% interval {percent(test['low'])} to "
        f"{percent(test['high'])}, on {counted(held_out, 'member')} held out); of all who leave, "
        f"{found} (hindsight would find {most})."
    )


def needs_attention(portraits: Sequence[Part], *, churn_rate: float) -> Part | None:
    """The segment with the most leavers beyond the rate of all members; None when none is clearly
    above that rate."""
    clear = [portrait for portrait in portraits if portrait["churn_low"] > churn_rate]
    return max(
        clear,
        key=lambda portrait: portrait["size"] * (portrait["churn_rate"] - churn_rate),
        default=None,
    )


def which_segments(portraits: Sequence[Part], *, churn_rate: float, left: int) -> str:
    """How many segments there are, and which of them needs attention first, with what the playbook
    says to do."""
    said = f"The members fall into {counted(len(portraits), 'segment')}"
    worst = needs_attention(portraits, churn_rate=churn_rate)
    if worst is None:
        return f"{said}, none of which leaves clearly more often than all members together."
    gone = round(worst["size"] * worst["churn_rate"])
    return (
        f"{said}; segment {worst['id']}, “{worst['name']}”, needs attention first: "
        f"{percent(worst['churn_rate'])} of its {counted(worst['size'], 'member')} left (95% "
        f"interval {percent(worst['churn_low'])} to {percent(worst['churn_high'])}), {whole(gone)} "
        f"of the {whole(left)} who left in all, and the playbook advises: "
        f"{_first(worst['actions'], 3)}."
    )


def _first(texts: Sequence[str], most: int) -> str:
    """The first of the texts, and how many more there are."""
    more = len(texts) - most
    return "; ".join(texts[:most]) + (f" (and {more} more, below)" if more > 0 else "")


def how_stable(found: Part, limits: Mapping[str, float]) -> str:
    """Whether the segments come back on other members: a row of evidence.evidence_per_k against
    evidence.STABLE."""
    held = all(found[name] >= limit for name, limit in limits.items())
    ari, strength = number(limits["bootstrap_ari"], 2), number(limits["prediction_strength"], 2)
    return (
        f"They {'are stable' if held else 'are not stable, and may look different next month'}: "
        "made again from resampled members they agree with these by "
        f"{number(found['bootstrap_ari'], 2)} (1 is the same, {ari} is asked for), made from one "
        f"half of the members they hold in the other by {number(found['prediction_strength'], 2)} "
        f"({strength} is asked for), and the smallest has {percent(found['min_share'])} of the "
        f"members ({percent(limits['min_share'], 0)} is asked for)."
    )


def what_next(registered: str, champion: Part | None) -> str:
    """What is in the registry and what to do.

    ``champion``: version, since, and whether it is made of the recommended model (None: no model to
    recommend yet).
    """
    if champion is None:
        return f"No version of {registered} is promoted yet, so nothing can be scored: promote one, and {TRY_FIRST}."
    said = f"Version {champion['version']} of {registered} is the champion in the registry since {champion['since']}"
    if champion["recommended"] is False:
        return f"{said}, but not made of the recommended model: let the gate decide between them, and {TRY_FIRST}."
    made = ", made of the recommended model" if champion["recommended"] else ""
    return f"{said}{made}: score the members with it, and {TRY_FIRST}."
