"""Decide between two models by predictions that selected neither, and say so in sentences.

The CI over the members holds both trained models fixed, so that alone it calls one of two equal
models better in more than 2.5% a side; the test over the folds covers training on other members. A
model is better only if both agree.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import norm
from scipy.stats import t as student

from churnlab.evaluation.comparison import (
    Difference,
    FoldTest,
    by_draw,
    fold_test,
    format_difference,
    paired_difference,
    shared_draws,
)
from churnlab.evaluation.cross_validation import fold_metrics
from churnlab.evaluation.metric_names import LABELS, LOWER_IS_BETTER, practical_margin
from churnlab.formatting import counted
from churnlab.models.decision import ContactEconomics

ALPHA = 0.05
"""The fold test calls a difference significant below this p-value."""

BETTER, EQUAL, TOO_FEW = "better", "equal for all practical purposes", "too few to tell"
"""The answers."""

Basis = Literal["out of fold", "nested", "hold-out"]
"""The predictions that decide; ``nested``: those of studies inside outer folds."""


class Predictions(NamedTuple):
    """The predictions of one model: tables with row, y, probability and threshold.

    ``hold_out`` is by the model that was fitted on ``trained_on`` members. ``out_of_fold`` and
    ``nested`` also have fold and repeat; ``nested`` is None without outer folds. ``chosen_among``
    counts the trials from which the out-of-fold metric selected the model. ``costs`` are those of a
    contact; two models are compared by those of the first.
    """

    name: str
    hold_out: pd.DataFrame
    trained_on: int
    out_of_fold: pd.DataFrame | None = None
    nested: pd.DataFrame | None = None
    chosen_among: int = 1
    costs: ContactEconomics | None = None

    @property
    def tuned(self) -> bool:
        """Whether the out-of-fold predictions selected the model."""
        return self.chosen_among > 1

    @property
    def fair(self) -> pd.DataFrame | None:
        """The predictions of the folds that did not select the model; None if there are none."""
        return self.nested if self.tuned else self.out_of_fold


class Verdict(NamedTuple):
    """The answer about two models, the tests behind it, and both in sentences.

    ``winner`` is 0, 1 or None. ``difference`` (first minus second) and ``fold_test`` are those that
    decided; ``folds`` has a row per fold: fold, A, B, difference. The hold-out has no folds.
    """

    answer: str
    winner: int | None
    decided_by: Basis
    difference: Difference
    fold_test: FoldTest | None
    folds: pd.DataFrame | None
    sentences: tuple[str, ...]


def judge(
    first: Predictions, second: Predictions, *, metric: str, seed: int, rope: float | None = None
) -> Verdict:
    """Decide which of two models is better on the draws of folds that both share.

    A tuned model enters with its nested predictions, because its out-of-fold ones selected it.
    Without a shared draw the hold-out decides. ``rope`` as in ``decide``.
    """
    rope = practical_margin(metric, first.costs) if rope is None else rope
    shared = None
    if first.fair is not None and second.fair is not None:
        shared = shared_draws(first.fair, second.fair)
    if shared is None:
        return _judge_on_hold_out(first, second, metric=metric, seed=seed, rope=rope)
    found = _difference(*shared, metric=metric, seed=seed, costs=first.costs)
    test, folds = _test_over_folds(*shared, metric=metric, costs=first.costs)
    answer = decide(found, test, metric=metric, rope=rope)
    members, names = int((shared[0]["repeat"] == 0).sum()), (first.name, second.name)
    sentence = describe(found, test, metric=metric, names=names, members=members, rope=rope)
    sentences = [sentence, _agreement(found, test)]
    if first.tuned or second.tuned:
        sentences.append(f"{_chosen(first, second)} Nested cross-validation decides.")
    basis: Basis = "nested" if first.tuned or second.tuned else "out of fold"
    return Verdict(*answer, basis, found, test, folds, tuple(sentences))


def _judge_on_hold_out(
    first: Predictions, second: Predictions, *, metric: str, seed: int, rope: float | None
) -> Verdict:
    """Decide on the hold-out, and say why the folds cannot."""
    found, sentence = compare_on_hold_out(first, second, metric=metric, seed=seed, rope=rope)
    why = "The two runs share no draw of the folds, so the hold-out decides."
    if first.tuned or second.tuned:
        why = (
            f"{_chosen(first, second)} Such out-of-fold scores cannot decide; nested "
            "cross-validation can: tune.outer, with as many folds as evaluation.folds."
        )
    answer = decide(found, None, metric=metric, rope=rope)
    return Verdict(*answer, "hold-out", found, None, None, (sentence, why))


def compare_on_hold_out(
    first: Predictions, second: Predictions, *, metric: str, seed: int, rope: float | None = None
) -> tuple[Difference, str]:
    """Return the paired difference of two models on the hold-out, and what it shows in a sentence.

    Its 95% CI also covers training on other members: the bootstrap CI, which holds both models
    fixed, is widened to 1 + n_test / n_train times the variance (``fold_error`` for J = 1), and
    from the normal to the t quantile with the variance over n - 1 (Hesterberg, 2015, The American
    Statistician 69:371).
    """
    rope = practical_margin(metric, first.costs) if rope is None else rope
    tables = [one.hold_out.assign(repeat=0) for one in (first, second)]
    delta, low, high = _difference(*tables, metric=metric, seed=seed, costs=first.costs)
    n = len(first.hold_out)
    wider = student.ppf(0.975, n - 1) / norm.ppf(0.975)
    wider *= math.sqrt(n / (n - 1) * (1 + n / first.trained_on))
    found = Difference(delta, delta - wider * (delta - low), delta + wider * (high - delta))
    names = first.name, second.name
    sentence = describe(found, None, metric=metric, names=names, members=n, rope=rope)
    return found, f"On the hold-out, which chose nothing, {sentence}"


def decide(
    found: Difference, folds: FoldTest | None, *, metric: str, rope: float | None = None
) -> tuple[str, int | None]:
    """Return the answer about a difference, and which model is better: 0, 1 or None.

    BETTER if the CI over the members excludes 0 and the fold test, where there is one, has p <
    ALPHA in the same direction; else EQUAL if the whole of each CI lies within ``rope`` of 0 (the
    region of practical equivalence, by default the metric's margin); else TOO_FEW.

    >>> decide(Difference(-0.02, -0.03, -0.01), None, metric="log_loss")
    ('better', 0)
    >>> decide(Difference(-0.002, -0.005, 0.001), None, metric="log_loss")
    ('equal for all practical purposes', None)
    """
    rope = practical_margin(metric) if rope is None else rope
    confirmed = folds is None or (folds.p < ALPHA and folds.delta * found.delta > 0)
    if found.significant and confirmed:
        return BETTER, int((found.delta > 0) == (metric in LOWER_IS_BETTER))
    intervals: list[Difference | FoldTest] = [found, *([] if folds is None else [folds])]
    equal = all(-rope <= one.ci_low and one.ci_high <= rope for one in intervals)
    return EQUAL if equal else TOO_FEW, None


def describe(
    found: Difference,
    folds: FoldTest | None,
    *,
    metric: str,
    names: tuple[str, str],
    members: int,
    rope: float | None = None,
) -> str:
    """Say in one sentence what ``decide`` answers."""
    limit = practical_margin(metric) if rope is None else rope
    answer, better = decide(found, folds, metric=metric, rope=limit)
    label = LABELS[metric]
    if better is not None:
        by = format_difference(found, int(np.sign(found.delta)))
        small = max(-found.ci_low, found.ci_high) <= limit
        matter = f", which is within {limit:g} and matters little in practice" if small else ""
        return f"{names[better]} is better than {names[1 - better]} by {by} in {label}{matter}."
    difference = f"the first minus the second is {format_difference(found)} in {label}"
    if answer == EQUAL:
        return (
            f"{names[0]} and {names[1]} are equal for all practical purposes: {difference}, within "
            f"{limit:g} of 0."
        )
    inside = "" if folds is None else f" in {counted(folds.folds, 'fold')}"
    return (
        f"{counted(members, 'member')}{inside} are too few to tell which of {names[0]} and "
        f"{names[1]} is better: {difference}."
    )


def _difference(
    first: pd.DataFrame,
    second: pd.DataFrame,
    *,
    metric: str,
    seed: int,
    costs: ContactEconomics | None,
) -> Difference:
    """Return the paired difference of two tables of predictions for the same members."""
    y = by_draw(first, "y")[:, 0].astype(int)
    assert np.array_equal(y, by_draw(second, "y")[:, 0])
    return paired_difference(
        y,
        by_draw(first),
        by_draw(second),
        metric=metric,
        thresholds=(by_draw(first, "threshold"), by_draw(second, "threshold")),
        seed=seed,
        costs=costs,
    )


def _test_over_folds(
    first: pd.DataFrame, second: pd.DataFrame, *, metric: str, costs: ContactEconomics | None
) -> tuple[FoldTest, pd.DataFrame]:
    """Return the test over the folds of shared draws, and the metric in each: fold, A, B,
    difference."""
    a, b = (
        np.array([scores[metric] for scores in fold_metrics(table, costs=costs)])
        for table in (first, second)
    )
    table = pd.DataFrame({"A": a, "B": b, "difference": a - b}).reset_index(names="fold")
    return fold_test(a, b, ratio=1 / (first["fold"].nunique() - 1)), table


def _agreement(found: Difference, folds: FoldTest) -> str:
    """Say whether the test over the folds agrees with the CI over the members."""
    sign = int(np.sign(found.delta)) if found.significant else 0
    p = f"p = {folds.p:.4f}" if folds.p >= 0.0001 else "p < 0.0001"
    result = (
        f"over {counted(folds.folds, 'fold')}: {format_difference(folds, sign)}, {p} "
        "(Nadeau-Bengio)"
    )
    if (folds.p < ALPHA and folds.delta * found.delta > 0) == found.significant:
        return f"The fold test agrees {result}."
    if found.significant:
        return (
            "The CI over the members excludes 0, but the fold test does not confirm the difference "
            f"{result}. Trained on other members, the two might not differ."
        )
    return f"The fold test does find a difference {result}. More members might show it."


def _chosen(first: Predictions, second: Predictions) -> str:
    """Say how many trials each tuned model was chosen among."""
    chosen = [
        f"{one.name} was chosen among {one.chosen_among} on these members"
        for one in (first, second)
        if one.tuned
    ]
    return f"{' and '.join(chosen)}."
