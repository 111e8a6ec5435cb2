"""Describe segments: what each is like, how many of its members left, and what to do about it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import binomtest, norm

from churnlab.data.expressions import check_expression, derive, evaluate
from churnlab.errors import InputError
from churnlab.formatting import listed
from churnlab.segments.action_value import plan_ab_test, value_action
from churnlab.segments.playbook import (
    ALL_LEFT,
    INSTEAD,
    assumed_range,
    choose_actions,
    find_traits,
    operands,
    page_language,
    rate_risk,
    text,
)
from churnlab.segments.shares import share_difference

MORE_OR_LESS = ("more", "less")
"""The words of a playbook's naming for numbers above and below the average."""

LEVEL = " = "
"""Between a column of words and its level, in the name of a column that says who has it."""

Z95 = float(norm.ppf(0.975))


def check_columns(playbook: Mapping[str, Any], X: pd.DataFrame) -> None:
    """Check that X has the columns that a playbook's tests and actions need; InputError if not."""
    where, numbers = f"The playbook {playbook['name']}", X.select_dtypes("number").columns
    needed = operands(playbook, "mean") | operands(playbook, "deviation")
    if missing := sorted(set(needed) - set(numbers)):
        raise InputError(
            f"{where} needs the number columns {', '.join(missing)}, which the table does not "
            f"have; it has {', '.join(numbers)}. Choose playbook=any, or write a playbook for this "
            "table."
        )
    expressions = [
        (f"trait {name}", share) for share, name in operands(playbook, "share").items()
    ] + [
        (f"action {name}", action["reach"])
        for name, action in playbook["actions"].items()
        if "reach" in action
    ]
    for name, expression in expressions:
        try:
            check_expression("", expression, list(X.columns))
        except InputError as error:
            raise InputError(f"{where}, {name}: {error} Or choose playbook=any.") from None


def profile(X: pd.DataFrame, labels: np.ndarray, y: np.ndarray) -> pd.DataFrame:
    """Profile the segments: size, share, churn rate, and each number column's mean and deviation.

    One row per segment. A deviation is (segment mean - table mean) / table standard deviation;
    interval_low_ and interval_high_ are the ends of its 95% CI. ``y`` is 1 for members who left.
    churn_low and churn_high are Wilson's 95% CI, which Brown, Cai and DasGupta (2001) recommend.
    """
    size = np.bincount(labels)
    assert (size > 0).all(), "segments are numbered 0 .. k-1 without a gap"
    left = np.bincount(labels[y == 1], minlength=len(size))
    intervals = [
        binomtest(int(churned), int(members)).proportion_ci(method="wilson")
        for churned, members in zip(left, size, strict=True)
    ]
    table = pd.DataFrame(
        {
            "size": size,
            "share": size / len(labels),
            "churn_rate": left / size,
            "churn_low": [interval.low for interval in intervals],
            "churn_high": [interval.high for interval in intervals],
        }
    ).rename_axis("segment")
    estimate, half = deviations(X, labels)
    parts = {
        "mean_": X.select_dtypes("number").groupby(labels).mean(),
        "deviation_": estimate,
        "interval_low_": estimate - half,
        "interval_high_": estimate + half,
    }
    return table.join([part.add_prefix(prefix) for prefix, part in parts.items()])


def deviations(X: pd.DataFrame, labels: np.ndarray) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the standardized deviations of the segments' means and the half-widths of their CIs.

    Both are segments x number columns, the CIs 95%. A constant column deviates by 0; a segment
    of one row has an infinite half-width. A segment is part of the table, so that its deviation is
    its difference from the other rows times their share: the error is that of two independent
    means with unequal variances (Welch 1947) times that share.
    """
    numbers = X.select_dtypes("number")
    scale = numbers.std(ddof=0).replace(0.0, np.inf)
    centered = (numbers - numbers.mean()) / scale
    groups = centered.groupby(labels)
    estimate, inside = groups.mean(), groups.size().to_numpy(float)[:, None]
    outside = len(numbers) - inside
    squares = groups.var(ddof=0).mul(inside)
    between = estimate**2 * inside * (1 + inside / np.maximum(outside, 1))
    others = (centered.pow(2).sum() - squares - between).clip(lower=0)
    with np.errstate(divide="ignore", invalid="ignore"):  # a side of one row has no variance
        error = squares.div(inside * (inside - 1)) + others.div(outside * (outside - 1))
    half = error.pow(0.5).mul(Z95 * outside / len(numbers))
    return estimate.rename_axis("segment"), half.fillna(np.inf).rename_axis("segment")


def certain_deviations(
    estimate: pd.DataFrame, half: pd.DataFrame, sizes: np.ndarray
) -> pd.DataFrame:
    """Return the deviations that are no chance in segments of these sizes; the others become 0.

    At most 5% of the tables have a wrong one (Bonferroni over segments and columns): each one that
    stands out is a statement, and there are dozens. It must be beyond its own error and beyond that
    of as many rows drawn from the table, because a skewed column makes the former too small.
    """
    z, n_rows = float(norm.ppf(1 - 0.025 / max(estimate.size, 1))), sizes.sum()
    drawn = z * np.sqrt((n_rows - sizes) / (sizes * max(n_rows - 1, 1)))[:, None]
    return estimate.where((estimate.abs() > z / Z95 * half) & (estimate.abs() > drawn), 0.0)


def with_levels(X: pd.DataFrame, words: pd.DataFrame) -> pd.DataFrame:
    """Append a column of 0 and 1 for each level of each column of words; of two levels the last.

    >>> members = pd.DataFrame({"Age": [31, 45], "Paid": ["No", "Yes"]})
    >>> with_levels(members, members[["Paid"]]).to_dict("list")
    {'Age': [31, 45], 'Paid': ['No', 'Yes'], 'Paid = Yes': [0.0, 1.0]}
    """
    held = {
        f"{name}{LEVEL}{level}": (words[name] == level).astype(np.float64)
        for name in words
        for level in sorted(words[name].unique())[1 if words[name].nunique() == 2 else 0 :]
    }
    return pd.concat([X, pd.DataFrame(held, index=X.index)], axis=1) if held else X


def few_stay(inside: np.ndarray, outside: np.ndarray, segments: int, *, limit: float) -> bool:
    """Return whether at least ``limit`` times fewer stay in a segment than of all members, and
    fewer than outside it beyond chance.

    Both arrays are 1 for members who left. Beyond chance are at most 5% of the tables, in any of
    their ``segments`` (Bonferroni).
    """
    stayed = 1 - np.concatenate([inside, outside]).mean()
    if len(outside) == 0 or limit * (1 - inside.mean()) > stayed:
        return False
    return share_difference(inside, outside)(0.05 / segments)[0] > 0


def portraits(
    X: pd.DataFrame,
    labels: np.ndarray,
    y: np.ndarray,
    *,
    playbook: Mapping[str, Any],
    language: str,
    made_from: Collection[str] = (),
) -> list[dict[str, Any]]:
    """Describe every segment by tests on its members, never by its number; the values fit JSON.

    Keys: id, name, size, share, churn_rate, churn_low, churn_high, risk, traits (names in the
    playbook), salient (column: deviation, the largest first), actions (texts), recommended_action
    (the same in one string), plans (of plan, one per action), together (that their effects do not
    add up; empty for fewer than two), by_construction (the salient columns among ``made_from``, of
    which the segments were made: that they differ there is no finding), profile (column: mean,
    deviation and the ends of its interval, None where it has none). A segment in which nobody stays
    has no action for members; action_for_new has those of a member who comes to it later.
    """
    table = profile(X, labels, y)
    estimate, half = deviations(X, labels)
    certain = certain_deviations(estimate, half, table["size"].to_numpy())
    means = X.select_dtypes("number").groupby(labels).mean()
    shares = _shares(X, labels, list(operands(playbook, "share")))
    described = []
    for segment, row in enumerate(table.to_dict("records")):
        deviation, inside = certain.iloc[segment], labels == segment
        facts = {"mean": means.iloc[segment], "deviation": deviation, "share": shares.iloc[segment]}
        traits = find_traits(playbook, facts)
        few = few_stay(y[inside], y[~inside], len(table), limit=playbook["risk"]["high_above"])
        ends = row["churn_low"], row["churn_high"]
        risk = rate_risk(playbook, *ends, float(np.mean(y)), few_stay=few)
        plans = [
            plan(playbook, name, X[inside], y[inside], language)
            for name in choose_actions(playbook, traits, risk)
        ]
        later = {}
        if y[inside].all():
            later = {"action_for_new": _joined(plans, language)}
            plans = [planned for planned in plans if planned["audience"] != "members"]
        salient = _salient(deviation, playbook["salient"])
        described.append(
            {"id": segment, "name": "", "size": int(row["size"])}
            | {name: row[name] for name in ("share", "churn_rate", "churn_low", "churn_high")}
            | {"risk": risk, "traits": traits, "salient": salient}
            | {"by_construction": [column for column in salient if column in made_from]}
            | {"together": effects_together(plans, playbook, language)}
            | {"actions": [planned["text"] for planned in plans]}
            | {"recommended_action": _joined(plans, language), "plans": plans}
            | later
            | {"profile": _profile(means.iloc[segment], estimate.iloc[segment], half.iloc[segment])}
        )
    for portrait, name in zip(described, segment_names(described, playbook, language), strict=True):
        portrait["name"] = name
    return described


def describe(
    X: pd.DataFrame,
    labels: np.ndarray,
    y: np.ndarray,
    jaccard: np.ndarray,
    *,
    playbook: Mapping[str, Any],
    language: str,
    made_from: Collection[str],
) -> list[dict[str, Any]]:
    """Return the portraits in the language that is served, each with its Jaccard index and, if that
    is not English, the English texts for on_page."""
    how: dict[str, Any] = {"playbook": playbook, "made_from": made_from}
    page = page_language(playbook, language)
    served = portraits(X, labels, y, language=language, **how)
    shown = served if page == language else portraits(X, labels, y, language=page, **how)
    return [
        portrait | {"jaccard": float(value)} | page_texts(portrait, also)
        for portrait, also, value in zip(served, shown, jaccard, strict=True)
    ]


def made_by_construction(sources: Sequence[str]) -> str:
    """Say that segments differ by construction in the columns that they were made from."""
    return (
        f"The segments were made from {listed(list(sources), 12)}: that they differ in these "
        "columns, and in traits from them, is by construction and no finding."
    )


def page_texts(portrait: Mapping[str, Any], shown: Mapping[str, Any]) -> dict[str, Any]:
    """Return, under ``page``, the texts of the same portrait in the language of the report; {} if
    they are the same."""
    keys = ("name", "actions", "recommended_action", "plans", "together")
    texts = {key: shown[key] for key in keys}
    return {} if shown is portrait else {"page": texts}


def on_page(portrait: Mapping[str, Any]) -> dict[str, Any]:
    """Return a portrait with the texts that the terminal, the figures and the report show."""
    return {**portrait, **portrait.get("page", {})}


def segment_names(
    described: Sequence[Mapping[str, Any]], playbook: Mapping[str, Any], language: str
) -> list[str]:
    """Return a short name for each portrait: its first traits or salient columns, and its risk.

    No two are alike: names that clash grow by the next trait or column, and are numbered if that
    does not help.
    """
    most, risks = playbook["naming"]["most"], playbook["risk"]["names"]
    ends = [text(risks[portrait["risk"]], language) for portrait in described]
    traits = [_trait_words(portrait, playbook, language) for portrait in described]
    columns = [_column_words(portrait, playbook, language) for portrait in described]
    parts = [held + others for held, others in zip(traits, columns, strict=True)]
    lengths = [min(most, len(held) or most) for held in traits]
    while True:
        names = [
            ", ".join([*words[:n], end]) for words, n, end in zip(parts, lengths, ends, strict=True)
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
    return [
        f"{name} ({names[: i + 1].count(name)})" if names.count(name) > 1 else name
        for i, name in enumerate(names)
    ]


def plans_for_everyone(
    X: pd.DataFrame, y: np.ndarray, *, playbook: Mapping[str, Any], language: str
) -> list[dict[str, Any]]:
    """Return the plans of the actions that the playbook advises for all members, in any segment."""
    return [plan(playbook, name, X, y, language) for name in playbook["everyone"]]


def plan(
    playbook: Mapping[str, Any], name: str, X: pd.DataFrame, y: np.ndarray, language: str
) -> dict[str, Any]:
    """Plan one action for the members X: whom it reaches, its cost and worth, and its A/B test.

    An action for members reaches those who have not left; those who have show the churn rate of
    such members, which is assumed to be next month's. Keys: action, text, lever, audience, reach,
    gone (members like those reached who have left), rate (the share of those reached who leave
    without the action), keeps (assumed; the middle of keeps_low and keeps_high), those of
    action_value.Worth and action_value.ABTest, and sentence, which sums them up in the language.
    """
    action = playbook["actions"][name]
    audience = action.get("audience", "members")
    cost, (low, high) = float(action["cost"]), assumed_range(action["keeps"])
    alike = evaluate(action["reach"], X) != 0 if "reach" in action else np.ones(len(X), bool)
    gone, keeps = int(y[alike].sum()), (low + high) / 2
    counted = {"members": int(alike.sum()) - gone, "left": gone, "others": None}
    rate = float(action["rate"] if "rate" in action else y[alike].mean() if alike.any() else 0.0)
    value = float(playbook["values"]["member"])
    worth = value_action(counted[audience], rate, cost=cost, keeps=(low, high), value=value)
    test = plan_ab_test(worth.reach, rate, keeps=keeps)
    values = {"rate": rate, "keeps": keeps, "keeps_low": low, "keeps_high": high}
    values |= {"gone": gone if audience == "members" else 0} | worth._asdict() | test._asdict()
    numbers = values | {"each": cost, "points": 100 * (test.smallest_cut or 0.0)}
    known = playbook["sentences"]
    sentences = [
        text(known[key if key in known else INSTEAD[key]], language).format(**numbers)
        for key in _sentence_keys(values)
        if key in known or key in INSTEAD
    ]
    return (
        {"action": name, "text": text(action["text"], language)}
        | {"lever": text(playbook["levers"][action["lever"]], language), "audience": audience}
        | values
        | {"sentence": "; ".join(sentences)}
    )


def effects_together(
    plans: Sequence[Mapping[str, Any]], playbook: Mapping[str, Any], language: str
) -> str:
    """Say that the worth of several actions does not add up; empty for fewer than two with one."""
    sentence = playbook["sentences"].get("together", "")
    several = sum(bool(planned["worth"]) for planned in plans) > 1
    return text(sentence, language) if several else ""


def _joined(plans: Sequence[Mapping[str, Any]], language: str) -> str:
    """Join the actions of a segment to one text, which says so if there are none."""
    texts = [planned["text"] for planned in plans]
    return "; ".join(texts) or ALL_LEFT.get(language, ALL_LEFT["en"])


def _sentence_keys(values: Mapping[str, Any]) -> list[str]:
    """Choose the playbook's sentences that are true for the numbers of a plan."""
    gone = ["gone"] if values["gone"] else []
    worth = "worth" if values["keeps_low"] == values["keeps_high"] else "worth_range"
    if values["reach"] is None:
        return ["outside"]
    if values["reach"] == 0:
        return ["nobody", *gone]
    if values["cost"] == 0:
        return ["free", *gone]
    if values["break_even"] is None or values["break_even"] > 1:
        return ["never", *gone]
    if values["per_arm"] is None:
        return [worth, *gone]
    if values["smallest_cut"] is None:
        return [worth, *gone, "unprovable"]
    return [worth, *gone, "too_small" if values["too_small"] else "proof"]


def _trait_words(
    portrait: Mapping[str, Any], playbook: Mapping[str, Any], language: str
) -> list[str]:
    traits = [playbook["traits"][name] for name in portrait["traits"]]
    return [text(trait["name"], language) for trait in traits if "name" in trait]


def _column_words(
    portrait: Mapping[str, Any], playbook: Mapping[str, Any], language: str
) -> list[str]:
    """Return words for the salient columns, the most salient first, or those for an average
    segment."""
    naming, words = playbook["naming"], []
    for column, deviation in portrait["salient"].items():
        label = text(playbook["columns"].get(column, column), language)
        more, less = ("often", "rarely") if LEVEL in column and "often" in naming else MORE_OR_LESS
        word = text(naming[more if deviation > 0 else less], language)
        words.append(word.format(column=label))
    return words or [text(naming["plain"], language)]


def _profile(
    mean: pd.Series, estimate: pd.Series, half: pd.Series
) -> dict[str, dict[str, float | None]]:
    """Return each column's mean in the segment, its deviation, and the ends of its interval."""
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
    """Return the deviations of at least ``limit`` standard deviations, the largest first."""
    order = deviation.abs().sort_values(ascending=False, kind="stable").index
    return {str(name): float(deviation[name]) for name in order if abs(deviation[name]) >= limit}


def _shares(X: pd.DataFrame, labels: np.ndarray, expressions: Sequence[str]) -> pd.DataFrame:
    """Return the share of each segment's rows for which each expression holds."""
    named = {f"share_of_rows_{i}": expression for i, expression in enumerate(expressions)}
    held = derive(X, named)[list(named)].set_axis(list(expressions), axis=1)
    return (held != 0).groupby(labels).mean()
