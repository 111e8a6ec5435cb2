"""Portraits: what each segment is like, how many of its members left, and what the playbook says to
do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import norm

from churnlab.data.expressions import derive, evaluate
from churnlab.segments.action_value import proof_of, worth_of
from churnlab.segments.playbook import (
    actions_of,
    check_playbook,
    risk_of,
    shares_in,
    text,
    traits_of,
)

Z95 = float(norm.ppf(0.975))


def profile(X: pd.DataFrame, labels: np.ndarray, y: np.ndarray) -> pd.DataFrame:
    """One row per segment: size, share, churn rate with its 95% interval; mean and deviation of
    each number column.

    A deviation is (segment's mean - table's mean) / table's standard deviation, interval_low_ and
    interval_high_ the ends of its 95% interval. ``y`` is 1 for those who left.
    """
    size = np.bincount(labels)
    assert (size > 0).all(), "segments are numbered 0 .. k-1 without a gap"
    left = np.bincount(labels, weights=y, minlength=len(size))
    low, high = wilson_interval(left, size)
    table = pd.DataFrame(
        {
            "size": size,
            "share": size / len(labels),
            "churn_rate": left / size,
            "churn_low": low,
            "churn_high": high,
        }
    ).rename_axis("segment")
    means = X.select_dtypes("number").groupby(labels).mean()
    estimate, half = deviations(X, labels)
    parts = {
        "mean_": means,
        "deviation_": estimate,
        "interval_low_": estimate - half,
        "interval_high_": estimate + half,
    }
    return table.join([part.add_prefix(prefix) for prefix, part in parts.items()])


def deviations(X: pd.DataFrame, labels: np.ndarray) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Standardised deviations of the segments' means (segments x number columns) and their 95%
    half-widths.

    A column that never varies deviates by 0. A segment of one row has an infinite half-width.
    """
    numbers = X.select_dtypes("number")
    scale = numbers.std(ddof=0).replace(0.0, np.inf)
    groups = numbers.groupby(labels)
    estimate = ((groups.mean() - numbers.mean()) / scale).rename_axis("segment")
    error = groups.std(ddof=1).div(np.sqrt(groups.size()), axis=0) / scale
    return estimate, (Z95 * error).fillna(np.inf).rename_axis("segment")


def wilson_interval(successes: np.ndarray, n: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The 95% score interval of proportions. Wilson (1927); recommended by Brown, Cai and DasGupta
    (2001)."""
    rate = successes / n
    centre = rate + Z95**2 / (2 * n)
    half = Z95 * np.sqrt(rate * (1 - rate) / n + Z95**2 / (4 * n**2))
    return np.maximum((centre - half) / (1 + Z95**2 / n), 0), np.minimum(
        (centre + half) / (1 + Z95**2 / n), 1
    )


def portraits(
    X: pd.DataFrame,
    labels: np.ndarray,
    y: np.ndarray,
    *,
    playbook: Mapping[str, Any],
    language: str,
) -> list[dict[str, Any]]:
    """Describe every segment by tests on its members, never by its number, in values that JSON can
    hold.

    Keys: id, name, size, share, churn_rate, churn_low, churn_high, risk, traits (names in the
    playbook), salient (column: deviation, the largest first), actions (texts), recommended_action
    (the same in one string), plans (of plan, one an action), profile (column: mean, deviation and
    the ends of its interval, None where it has none). X holds the columns the playbook names.
    InputError: it does not, or the playbook is faulty.
    """
    check_playbook(playbook, X)
    table = profile(X, labels, y)
    estimate, half = deviations(X, labels)
    certain = estimate.where(
        estimate.abs() > half, 0.0
    )  # a deviation whose interval includes 0 is none
    means, shares = (
        X.select_dtypes("number").groupby(labels).mean(),
        _shares(X, labels, shares_in(playbook)),
    )
    described = []
    for segment in range(len(table)):
        row, deviation = table.iloc[segment], certain.iloc[segment]
        facts = {"mean": means.iloc[segment], "deviation": deviation, "share": shares.iloc[segment]}
        traits = traits_of(playbook, facts)
        risk = risk_of(playbook, row["churn_low"], row["churn_high"], float(np.mean(y)))
        inside = labels == segment
        plans = [
            plan(playbook, name, X[inside], y[inside], language)
            for name in actions_of(playbook, traits, risk)
        ]
        actions = [planned["text"] for planned in plans]
        described.append(
            {"id": segment, "name": "", "size": int(row["size"])}
            | {
                name: float(row[name])
                for name in ("share", "churn_rate", "churn_low", "churn_high")
            }
            | {"risk": risk, "traits": traits, "salient": _salient(deviation, playbook["salient"])}
            | {"actions": actions, "recommended_action": "; ".join(actions), "plans": plans}
            | {"profile": _profile(means.iloc[segment], estimate.iloc[segment], half.iloc[segment])}
        )
    for portrait, name in zip(described, segment_names(described, playbook, language), strict=True):
        portrait["name"] = name
    return described


def segment_names(
    described: Sequence[Mapping[str, Any]], playbook: Mapping[str, Any], language: str
) -> list[str]:
    """A short name for each portrait, no two alike: its first traits, without any its salient
    columns, then its risk.

    Where names clash they grow by the next trait or column; segments that stay alike are numbered.
    """
    most, risks = playbook["naming"]["most"], playbook["risk"]["names"]
    ends = [text(risks[portrait["risk"]], language) for portrait in described]
    traits = [_trait_words(portrait, playbook, language) for portrait in described]
    parts = [
        held + _column_words(portrait, playbook, language)
        for held, portrait in zip(traits, described, strict=True)
    ]
    lengths = [min(most, len(held) or most) for held in traits]
    while True:
        names = [
            ", ".join([*some[:n], end]) for some, n, end in zip(parts, lengths, ends, strict=True)
        ]
        clashing = [
            i
            for i, name in enumerate(names)
            if names.count(name) > 1 and lengths[i] < len(parts[i])
        ]
        if not clashing:
            break
        for i in clashing:
            lengths[i] += 1
    numbered = [f"{name} ({names[: i + 1].count(name)})" for i, name in enumerate(names)]
    return [
        number if names.count(name) > 1 else name
        for name, number in zip(names, numbered, strict=True)
    ]


def plans_for_everyone(
    X: pd.DataFrame, y: np.ndarray, *, playbook: Mapping[str, Any], language: str
) -> list[dict[str, Any]]:
    """The plan of everything the playbook advises whatever the segment, for all members."""
    return [plan(playbook, name, X, y, language) for name in playbook["everyone"]]


def plan(
    playbook: Mapping[str, Any], name: str, X: pd.DataFrame, y: np.ndarray, language: str
) -> dict[str, Any]:
    """What one action would do for the members X: whom it reaches, what it costs and is worth, what
    would prove it.

    Keys: action, text, lever, audience, reach, rate (the share of the reached that is lost without
    the action), keeps (assumed) and those of economics.Worth and economics.Proof; sentence says it
    all in the language.
    """
    action = playbook["actions"][name]
    audience, keeps = action.get("audience", "members"), float(action["keeps"])
    reached = (
        evaluate(action["reach"], X) != 0 if "reach" in action else np.ones(len(X), dtype=bool)
    )
    reached &= (audience == "members") | (y == 1)
    reach = None if audience == "others" else int(reached.sum())
    rate = float(action["rate"] if "rate" in action else y[reached].mean() if reach else 0.0)
    worth = worth_of(
        reach,
        rate,
        cost=float(action["cost"]),
        keeps=keeps,
        value=float(playbook["values"]["member"]),
    )
    proof = proof_of(reach, rate, keeps=keeps)
    values = {"rate": rate, "keeps": keeps} | worth._asdict() | proof._asdict()
    sentences = (text(playbook["sentences"][part], language) for part in _said(values))
    filled = [
        sentence.format(
            **values, each=float(action["cost"]), points=100 * (proof.smallest_cut or 0.0)
        )
        for sentence in sentences
    ]
    return (
        {"action": name, "text": text(action["text"], language)}
        | {"lever": text(playbook["levers"][action["lever"]], language), "audience": audience}
        | values
        | {"sentence": "; ".join(filled)}
    )


def _said(values: Mapping[str, Any]) -> list[str]:
    """Which of the playbook's sentences hold for the numbers of a plan."""
    if values["reach"] is None:
        return ["outside"]
    if values["cost"] == 0:
        return ["free"]
    if values["break_even"] is None or values["break_even"] > 1:
        return ["never"]
    if values["per_arm"] is None:
        return ["worth"]
    if values["smallest_cut"] is None:
        return ["worth", "unprovable"]
    return ["worth", "too_small" if values["too_small"] else "proof"]


def _trait_words(
    portrait: Mapping[str, Any], playbook: Mapping[str, Any], language: str
) -> list[str]:
    traits = [playbook["traits"][name] for name in portrait["traits"]]
    return [text(trait["name"], language) for trait in traits if "name" in trait]


def _column_words(
    portrait: Mapping[str, Any], playbook: Mapping[str, Any], language: str
) -> list[str]:
    """Words for the salient columns, the most salient first; without any, the words for an average
    segment."""
    naming, words = playbook["naming"], []
    for column, deviation in portrait["salient"].items():
        label = text(playbook["columns"].get(column, column), language)
        words.append(
            text(naming["more" if deviation > 0 else "less"], language).format(column=label)
        )
    return words or [text(naming["plain"], language)]


def _profile(
    mean: pd.Series, estimate: pd.Series, half: pd.Series
) -> dict[str, dict[str, float | None]]:
    """Of each column the segment's mean, its deviation, and the ends of its interval."""
    table = pd.DataFrame(
        {"mean": mean, "deviation": estimate, "low": estimate - half, "high": estimate + half}
    )
    return {
        str(name): {
            str(key): float(value) if np.isfinite(value) else None for key, value in row.items()
        }
        for name, row in table.T.items()
    }


def _salient(deviation: pd.Series, limit: float) -> dict[str, float]:
    """The deviations of at least ``limit`` standard deviations, the largest first."""
    marked = deviation[deviation.abs() >= limit]
    return {
        str(name): float(marked[name])
        for name in marked.abs().sort_values(ascending=False, kind="stable").index
    }


def _shares(X: pd.DataFrame, labels: np.ndarray, expressions: Sequence[str]) -> pd.DataFrame:
    """Per segment and expression the share of rows for which it holds."""
    named = {f"share_of_rows_{i}": expression for i, expression in enumerate(expressions)}
    held = derive(X, named)[list(named)].set_axis(list(expressions), axis=1)
    return (held != 0).groupby(labels).mean()
