"""Sentences of the report about models: which one, how well it ranks, how far it is off, and where.

Values in, plain text out, as in ``sentences``. No sentence calls a model better by numbers that
chose it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from churnlab.evaluation.comparison import format_difference
from churnlab.evaluation.metric_names import LABELS, LOWER_IS_BETTER, METRICS
from churnlab.evaluation.verdicts import EQUAL, Verdict
from churnlab.formatting import listed, number, percent, readable, whole

DECIDED_BY = {
    "out of fold": "in cross-validation",
    "nested": "in nested cross-validation",
    "hold-out": "on {members}",
}
"""How a sentence names the predictions that decided a verdict."""


class Late(NamedTuple):
    """Columns of a model that are known only close to churn, and the cross-validated ROC AUC with
    them and without (None: not measured)."""

    columns: Sequence[str]
    with_them: float
    without: float | None


def model_in_words(model: str, features: str, *, tuned: bool = False) -> str:
    """Name a model and its features: ``logistic regression (behaviour features, tuned)``."""
    return f"{readable(model)} ({readable(features)} features{', tuned' if tuned else ''})"


def is_guessing(test: Mapping[str, float]) -> bool:
    """Return whether the hold-out's ROC AUC (roc_auc, low, high) does not exceed that of guessing
    beyond chance."""
    return test["low"] <= 0.5


def which_model(
    recommended: str | None,
    value: float,
    *,
    kept: bool = True,
    best: tuple[str, float] | None,
    rival: str | None,
    found: Verdict | None,
    metric: str,
    held_out: int,
    test: Mapping[str, float],
    rivals: int | None = None,
    suspects: int = 0,
) -> str:
    """Say which model is recommended, why, and whether it is better than the rival.

    ``recommended`` is None if every score is too good to be true, or no run has ``kept`` its model;
    ``value`` is then the best one's.
    ``best`` is the model with the best cross-validated metric and its value, if it is another one.
    ``found`` is the verdict on the recommended model (first) and the rival, ``test`` as in
    how_well; ``rivals`` counts the runs of the rival's kind, of which it is the best, ``suspects``
    those whose scores are too good to be true.
    """
    score = f"a cross-validated {LABELS[metric]} of {number(value, 4)}"
    if recommended is None and not kept:
        return f"No model is recommended, because no run has kept its model (the best has {score})."
    if recommended is None:
        return (
            f"No model is recommended, because every score is too good to be true (the best has "
            f"{score}): look for a column that is known only after a member has left."
        )
    text = f"The recommended model is {recommended}, with {score}"
    if is_guessing(test):
        text = f"The best there is, {recommended}, is not shown to be better than guessing: {score}"
    if best is not None:
        name, top = best
        text += f", the simplest within one standard error of the best ({name}, {number(top, 4)})"
    if rival is None or found is None:
        other = "no other model" if not suspects else "no other model that is not suspect"
        return f"{text}; there is {other} on this table and split to compare it with."
    rival = f"the {rival}" if rivals == 1 else f"the best {rival}"
    return f"{text}; {_against(rival, found, metric=metric, held_out=held_out)}."


def _against(rival: str, found: Verdict, *, metric: str, held_out: int) -> str:
    """Say how the recommended model, "it", compares with the rival, and by which predictions."""
    members = f"the {whole(held_out)} held-out members, which chose neither,"
    where = DECIDED_BY[found.decided_by].format(members=members)
    if found.winner is not None:
        sign = -1 if (metric in LOWER_IS_BETTER) == (found.winner == 0) else 1
        by = format_difference(found.difference, sign)
        small = max(-found.difference.ci_low, found.difference.ci_high) <= METRICS[metric].margin
        better = f"it is better than {rival}"
        if found.winner == 1:
            better = f"{rival} is better"
        return f"{where} {better} by {by}{', which matters little in practice' if small else ''}"
    difference = format_difference(found.difference).replace("-", "−")
    rest = f"the first minus the second is {difference}"
    if found.answer == EQUAL:
        return f"{where} it and {rival} are equal for all practical purposes: {rest}"
    few = members if found.decided_by == "hold-out" else "the members"
    if found.difference.significant:
        rest += ", which the folds, and so training on other members, do not confirm"
    return f"{few} are too few to tell whether it or {rival} is better: {rest}"


def how_well(
    test: Mapping[str, float],
    gains: Mapping[float, Mapping[str, float]],
    *,
    held_out: int,
    late: Late | None = None,
) -> str:
    """Say how well the model ranks members on the hold-out and out-of-fold.

    ``test``: roc_auc, low, high on the hold-out. ``gains``: the share of all leavers (gain), and
    that of a perfect ranking of the same members (perfect), by share of members contacted,
    out-of-fold. ``late``: what of this hangs on columns known only close to
    churn; None for a model without them.
    """
    found = " and ".join(
        f"the riskiest {percent(share, 0)} include {percent(found['gain'])}"
        for share, found in gains.items()
    )
    ideal = " and ".join(percent(found["perfect"]) for found in gains.values())
    return (
        "It ranks a member who leaves above a member who stays in "
        f"{percent(test['roc_auc'])} of the pairs (95% CI {percent(test['low'])} to "
        f"{percent(test['high'])}, on {whole(held_out)} held-out members)"
        f"{', which is not shown to be better than guessing' if is_guessing(test) else ''}; "
        f"{'' if late is None else f'{without_late(late)}; '}of all who leave, "
        f"{found} (a perfect ranking would find {ideal})."
    )


def without_late(late: Late) -> str:
    """Say how well the model ranks without the columns that are known only close to churn.

    >>> without_late(Late(["visits"], 0.991, None))
    'it uses visits, known only close to churn, and how well it ranks without is not measured'
    """
    columns = f"{listed([readable(name) for name in late.columns], 3)}, known only close to churn,"
    if late.without is None:
        return f"it uses {columns} and how well it ranks without is not measured"
    without, with_them = percent(late.without), percent(late.with_them)
    than = ", as many as with them" if without == with_them else f" instead of {with_them}"
    return (
        f"the same model without {columns} ranks {without} of the pairs correctly{than} "
        "(cross-validated)"
    )


def as_sentence(clause: str) -> str:
    """Return a clause as a sentence of its own.

    >>> as_sentence("it rains")
    'It rains.'
    """
    return f"{clause[:1].upper()}{clause[1:]}."
