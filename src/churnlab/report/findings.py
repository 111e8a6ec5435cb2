"""What the tables of an exploration say, as a page for people: complete or not, who leaves more,
what cannot be told.

Values in, Markdown out. A sentence claims no more than its interval does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd

from churnlab.data.contract import Contract
from churnlab.explore.association import (
    BENDS,
    CHANCE,
    DIFFERS,
    NOTHING_TO_COMPARE,
    smallest_difference,
)
from churnlab.explore.statistics import churn_rate
from churnlab.formatting import counted, listed, number, percent, spoken, whole
from churnlab.report.sentences import riskier

Tables = Mapping[str, pd.DataFrame]
"""The tables of `churnlab.exploration`, `churnlab.links` and `churnlab.redundancy`, each by its
function's name."""

SMALL = 30
"""The churn of fewer members is hardly known."""

WHO, LEFT, OTHERS, TIMES, ALONG, TELLS = (
    "who",
    "left",
    "the others",
    "times as many (95%)",
    "along the feature",
    "tells",
)

GLOSSARY = (
    f"“{TELLS}” is how much of the uncertainty about who leaves a feature takes away by itself: 0% "
    "nothing, 100% all. The strongest come first."
)


def page(contract: Contract, y: np.ndarray, tables: Tables, *, warnings: Sequence[str]) -> str:
    """The whole page in Markdown."""
    leaving, silent = (who_leaves(contract, tables, signal=signal) for signal in (True, False))
    sections = {
        "Complete and correct": _bullets(
            completeness(contract, tables["completeness"], warnings=warnings)
        ),
        "Who leaves more": f"{_markdown(leaving)}\n\n{GLOSSARY}"
        if len(leaving)
        else "No feature shows it.",
        "No signal": _silence(silent, tables["links"]),
        "Says the same twice": _bullets(redundancies(tables)) or "Nothing does.",
        "What this table cannot tell": _bullets(cannot_tell(contract, y, tables)),
    }
    texts = [f"## {title}\n\n{text}" for title, text in sections.items()]
    return "\n\n".join([f"# What the table of {contract.name} says", opening(y), *texts]) + "\n"


def short(contract: Contract, y: np.ndarray, tables: Tables) -> str:
    """What a terminal shows of the page: how many left, who more, and what has no signal."""
    leaving = who_leaves(contract, tables, signal=True).drop(columns=ALONG)
    silent = _silent(tables["links"])
    parts = [opening(y)]
    if len(leaving):
        parts.append(
            leaving.to_string(
                index=False, formatters={WHO: f"{{:<{leaving[WHO].str.len().max()}}}".format}
            )
        )
    if silent:
        parts.append(f"No signal: {listed(silent)}.")
    return "\n".join([*parts, *redundancies(tables)])


def opening(y: np.ndarray) -> str:
    """How many members there are and how many of them left."""
    rate = churn_rate(int(y.sum()), len(y))
    interval = f"95% interval {percent(rate['low'])} to {percent(rate['high'])}"
    return f"Of {counted(len(y), 'member')} {whole(y.sum())} left: {percent(rate['churn_rate'])} ({interval})."


def completeness(
    contract: Contract, table: pd.DataFrame, *, warnings: Sequence[str]
) -> Iterator[str]:
    """What is missing, whether that goes with leaving, and what was checked
    (`exploration.completeness`)."""
    rules = (
        f", and every row keeps {counted(len(contract.rules), 'rule')}" if contract.rules else ""
    )
    yield f"Checked: every value is of the kind and in the range that the dataset's YAML allows{rules}."
    yield from warnings  # among them what is missing
    yield from _gaps(table)


def _gaps(table: pd.DataFrame) -> Iterator[str]:
    gaps = table[table["missing"] > 0]
    if gaps.empty:
        yield f"No value is missing in {counted(len(table), 'feature')}."
        return
    telling = gaps[gaps["q_value"] < CHANCE]
    for row in telling.to_dict("records"):
        yield (
            f"Members without {spoken(row['feature'])} leave "
            f"{'more' if row['risk_ratio'] > 1 else 'less'} often: {percent(row['churn_missing'])} "
            f"of them left, {percent(row['churn_known'])} of the others, "
            f"{_times(row['risk_ratio'], row['low'], row['high'])} times as many."
        )
    if telling.empty:
        yield "That a value is missing does not go with leaving, as far as these members show."


def who_leaves(contract: Contract, tables: Tables, *, signal: bool) -> pd.DataFrame:
    """The features with a signal, or those without, one line each, in the words and digits of
    people."""
    links = tables["links"]
    clearest = tables["drivers"].drop_duplicates("feature").set_index("feature", drop=False)
    gradients = {str(name): groups for name, groups in tables["gradients"].groupby("feature")}
    lines = []
    for link in links[(links["signal"] == signal) & links["feature"].isin(clearest.index)].to_dict(
        "records"
    ):
        name = link["feature"]
        column = contract.columns[name]
        group = riskier(clearest.loc[name].to_dict(), kind=column.kind, unit=column.unit)
        line = {
            WHO: group["group"],
            LEFT: percent(group["churn"]),
            OTHERS: percent(group["churn_other"]),
            TIMES: _times(group["ratio"], group["low"], group["high"]),
            ALONG: _along(gradients[name], in_order=link["verdict"] not in (BENDS, DIFFERS)),
            TELLS: percent(link["uncertainty_coefficient"])
            if signal
            else f"at most {percent(link['high'], 2)}",
        }
        chosen = column.kind == "category" and link["groups"] > 2
        if (group["low"] <= 1) if signal else chosen:
            # Neither a split without a difference is an example of a signal, nor the farthest of
            # many levels of none.
            line |= {WHO: spoken(name), **dict.fromkeys([LEFT, OTHERS, TIMES], "")}
        lines.append(line)
    return pd.DataFrame(lines, columns=[WHO, LEFT, OTHERS, TIMES, ALONG, TELLS])


def _times(ratio: float, low: float, high: float) -> str:
    return f"{number(ratio, 2)} ({number(low, 2)} to {number(high, 2)})"


def _along(groups: pd.DataFrame, *, in_order: bool) -> str:
    """The churn of the first and the last value, or, where they have no order, of the safest and
    the riskiest."""
    if len(groups) < 3:
        return ""
    large = groups[groups["n"] >= SMALL]
    ends = large if len(large) > 1 else groups
    if not in_order:
        ends = ends.sort_values("churn_rate")
    first, last = (
        f"{percent(end['churn_rate'])} ({end['value']})"
        for end in ends.iloc[[0, -1]].to_dict("records")
    )
    return f"from {first} to {last}" if in_order else f"between {first} and {last}"


def _silence(silent: pd.DataFrame, links: pd.DataFrame) -> str:
    """The features without a signal, and those that have nothing to show."""
    said = [_markdown(silent.drop(columns=ALONG))] if len(silent) else ["Every feature has one."]
    alone = [spoken(name) for name in links["feature"][links["verdict"] == NOTHING_TO_COMPARE]]
    return "\n\n".join([*said, f"No two known values: {listed(alone)}."] if alone else said)


def _silent(links: pd.DataFrame) -> list[str]:
    return [spoken(name) for name in links["feature"][links["p_value"].notna() & ~links["signal"]]]


def redundancies(tables: Tables) -> Iterator[str]:
    """The features that say the same, and the groups that are the same members
    (`churnlab.redundancy`)."""
    for pair in tables["collinear"].to_dict("records"):
        a, b = spoken(pair["feature_a"]), spoken(pair["feature_b"])
        yield f"{a} and {b}: correlation {number(pair['pearson_r'], 2)}."
    for same in tables["same_groups"].to_dict("records"):
        a, b = (
            f"{spoken(same[f'feature_{side}'])} {_in_words(same[f'group_{side}'])}" for side in "ab"
        )
        yield f"{a} is exactly {b} ({counted(same['n'], 'member')}): what is said of one is said of the other."


def _in_words(group: str) -> str:
    return group.replace("<=", "at most").replace(">", "above")


def cannot_tell(contract: Contract, y: np.ndarray, tables: Tables) -> Iterator[str]:
    """What should not be read out of this table, and why."""
    yield "When: a member is one row without dates, so the table knows who left, not when or what came first."
    yield (
        "Why: what goes with leaving need not cause it, for the table does not say that anything "
        "was given to members at random. Only an action tried on a random half of them tells what "
        "it does."
    )
    late = [spoken(name) for name in contract.late if name in contract.columns]
    if late:
        yield (
            f"Early: {listed(late)} {'is' if len(late) == 1 else 'are'} known only close to the "
            "event and may be the leaving itself rather than its sign; features=early shows what "
            "is known without."
        )
    collinear = tables["collinear"]
    pairs = [
        f"{spoken(a)} or {spoken(b)}"
        for a, b in zip(collinear["feature_a"], collinear["feature_b"], strict=True)
    ]
    if pairs:
        yield f"Which of two that go together counts: {listed(pairs, 5, length=90)}."
    n, rate = len(y), float(y.mean())
    halves, tenth = (
        100 * smallest_difference(share * n, (1 - share) * n, rate) for share in (0.5, 0.1)
    )
    yield (
        f"Small differences: two halves of these members must differ by {number(halves, 1)} "
        f"percentage points of churn, a tenth and the rest by {number(tenth, 1)}, before four of "
        "five such tables show it."
    )
    silent = _silent(tables["links"])
    if silent:
        yield f"Whether {listed(silent)} matter{'s' if len(silent) == 1 else ''} a little: no signal is not no link."
    empty = tables["completeness"].query("share > 0.5")
    if len(empty):
        yield f"Much about {listed([*map(spoken, empty['feature'])])}: most members have no value of it."
    yield from _small_groups(tables["gradients"])


def _small_groups(gradients: pd.DataFrame) -> Iterator[str]:
    small = gradients[gradients["n"] < SMALL]
    named = [
        f"{spoken(str(name))} ({counted(len(n), 'group')} with {counted(int(n.sum()), 'member')})"
        for name, n in small.groupby("feature", sort=False)["n"]
    ]
    if named:
        yield f"The churn of groups of fewer than {SMALL} members: {listed(named, 5, length=90)}."


def _bullets(sentences: Iterator[str]) -> str:
    return "\n".join(f"- {sentence}" for sentence in sentences)


def _markdown(table: pd.DataFrame) -> str:
    cells = [list(map(str, table)), ["---"] * table.shape[1], *table.to_numpy().tolist()]
    return "\n".join(
        f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in cells
    )
