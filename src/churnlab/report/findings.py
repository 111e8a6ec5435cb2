"""Findings of an exploration as Markdown: data quality, signals, redundancy and limits.

Values in, text out. A sentence claims no more than its confidence interval (CI) supports.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from churnlab.data.contract import Contract
from churnlab.data.dataset import Dataset
from churnlab.explore.association import (
    BENDS,
    DIFFERS,
    MAX_FDR,
    NOTHING_TO_COMPARE,
    smallest_difference,
)
from churnlab.explore.binning import as_written
from churnlab.explore.statistics import churn_rate
from churnlab.formatting import Lines, Table, counted, listed, number, percent, readable, whole
from churnlab.report.sentences import riskier

Tables = Mapping[str, pd.DataFrame]
"""The tables of an explore run (statistics, association, redundancy), by name."""

SMALL = 30
"""The churn rate of fewer members is too uncertain."""

GROUP, CHURN, OTHERS, RATIO, ALONG, EXPLAINED = (
    "group",
    "churn",
    "others' churn",
    "risk ratio (95% CI)",
    "churn by value",
    "explained",
)

EQUAL = 0.999995
"""Above this a correlation is 1: one feature says what the other does."""

NO_SPLIT = "–"
"""Stands for the numbers of a split where no split shows the signal."""

GLOSSARY = (
    f"“{EXPLAINED}” is the share of the uncertainty about churn that a feature removes by itself "
    "(uncertainty coefficient): 0% nothing, 100% all. The strongest come first."
)


def page(dataset: Dataset, tables: Tables) -> str:
    """Return the whole page in Markdown."""
    contract, y = dataset.contract, dataset.y
    leaving, silent = (signals(dataset, tables, signal=signal) for signal in (True, False))
    checks = completeness(contract, tables["completeness"], warnings=dataset.warnings)
    strongest = f"{_markdown(leaving)}\n\n{GLOSSARY}" if len(leaving) else "No feature has one."
    sections = {
        "Data quality": _bullets(checks),
        "Features with a signal": strongest,
        "Features without a signal": _silence(silent, tables["links"]),
        "Redundant columns": _bullets(redundancies(tables, dataset.words)) or "None.",
        "Limits of this table": _bullets(limits(contract, y, tables)),
    }
    texts = [f"## {title}\n\n{text}" for title, text in sections.items()]
    return "\n\n".join([f"# Findings: {contract.name}", opening(dataset), *texts]) + "\n"


def short(dataset: Dataset, tables: Tables) -> str:
    """Return the part of the page for a terminal: churn rate, signals, no signals, redundancy."""
    leaving = signals(dataset, tables, signal=True)
    values = (": " + leaving[ALONG]).where(leaving[CHURN] == NO_SPLIT, "")
    leaving = leaving.assign(**{GROUP: leaving[GROUP] + values}).drop(columns=ALONG)
    silent = _silent(tables["links"])
    parts = [opening(dataset)]
    if len(leaving):
        parts.append(Table.of(leaving, left=GROUP))
    if silent:
        parts.append(f"No signal shown: {listed(silent)}.")
    return Lines.of([*parts, *redundancies(tables, dataset.words)])


def opening(dataset: Dataset) -> str:
    """Say how many members there are (or rows, where a member has several) and how many left."""
    y, groups = dataset.y, dataset.groups
    rate = churn_rate(int(y.sum()), len(y))
    share, left = percent(rate["churn_rate"]), whole(y.sum())
    if groups is not None:  # no CI: rows of one member are not independent
        members = counted(int(groups.max()) + 1, "member")
        return f"Of {counted(len(y), 'row')} of {members}, {left} left: {share}."
    ci = f"95% CI {percent(rate['low'])} to {percent(rate['high'])}"
    return f"Of {counted(len(y), 'member')}, {left} left: {share} ({ci})."


def completeness(
    contract: Contract, table: pd.DataFrame, *, warnings: Sequence[str]
) -> Iterator[str]:
    """Say what was checked, what is missing and whether gaps are associated with churn.

    The table is that of statistics.completeness.
    """
    rules = (
        f", and every row satisfies {counted(len(contract.rules), 'rule')}"
        if contract.rules
        else ""
    )
    yield f"Every value has the kind and range that the dataset's YAML declares{rules}."
    yield from warnings  # among them what is missing
    yield from _gaps(table)


def _gaps(table: pd.DataFrame) -> Iterator[str]:
    gaps = table[table["missing"] > 0]
    if gaps.empty:
        yield f"No value is missing in {counted(len(table), 'feature')}."
        return
    telling = gaps[gaps["q_value"] < MAX_FDR]
    for row in telling.to_dict("records"):
        yield (
            f"Members without {readable(row['feature'])} leave "
            f"{'more' if row['risk_ratio'] > 1 else 'less'} often: {percent(row['churn_missing'])} "
            f"of them left, {percent(row['churn_known'])} of the others, a risk ratio of "
            f"{_with_ci(row['risk_ratio'], row['low'], row['high'])}."
        )
    if telling.empty:
        yield "No association between missing values and churn is shown."


def signals(dataset: Dataset, tables: Tables, *, signal: bool) -> pd.DataFrame:
    """Return the features with a signal, or those without one, as text, one row per feature."""
    contract, words = dataset.contract, dataset.words
    links = tables["links"]
    clearest = tables["drivers"].drop_duplicates("feature").set_index("feature", drop=False)
    gradients = {str(name): groups for name, groups in tables["gradients"].groupby("feature")}
    wanted = links[(links["signal"] == signal) & links["feature"].isin(clearest.index)]
    lines = []
    for link in wanted.to_dict("records"):
        name = link["feature"]
        column = contract.columns[name]
        look: dict[str, Any] = {"kind": column.kind, "unit": column.unit, "words": words.get(name)}
        side = riskier(clearest.loc[name].to_dict(), **look)
        explained = percent(link["uncertainty_coefficient"])
        line = {
            GROUP: side["group"],
            CHURN: percent(side["churn"]),
            OTHERS: percent(side["churn_other"]),
            RATIO: _with_ci(side["ratio"], side["low"], side["high"]),
            ALONG: _along(gradients[name], in_order=link["verdict"] not in (BENDS, DIFFERS)),
            EXPLAINED: explained if signal else f"at most {percent(link['high'], 2)}",
        }
        # A split that shows no difference is no example of a signal, and the most extreme of many
        # levels is none of its absence.
        extreme_level = column.kind == "category" and link["groups"] > 2
        shows = side["low"] > 1 and clearest.loc[name, "q_value"] < MAX_FDR
        if not shows if signal else extreme_level:
            line |= {GROUP: readable(name), **dict.fromkeys([CHURN, OTHERS, RATIO], NO_SPLIT)}
        lines.append(line)
    return pd.DataFrame(lines, columns=[GROUP, CHURN, OTHERS, RATIO, ALONG, EXPLAINED])


def _with_ci(ratio: float, low: float, high: float) -> str:
    return f"{number(ratio, 2)} ({number(low, 2)} to {number(high, 2)})"


def _along(groups: pd.DataFrame, *, in_order: bool) -> str:
    """Give the churn of the first and last value or, without order, the lowest and highest."""
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
    """List the features without a signal, and those without two values to compare."""
    texts = [_markdown(silent.drop(columns=ALONG))] if len(silent) else ["None."]
    constant = [readable(name) for name in links["feature"][links["verdict"] == NOTHING_TO_COMPARE]]
    if constant:
        texts.append(f"Constant or empty: {listed(constant)}.")
    return "\n\n".join(texts)


def _silent(links: pd.DataFrame) -> list[str]:
    return [
        readable(name) for name in links["feature"][links["p_value"].notna() & ~links["signal"]]
    ]


def redundancies(tables: Tables, words: Mapping[str, Mapping[str, str]]) -> Iterator[str]:
    """Name strongly correlated features and groups that are the same members (redundancy)."""
    pairs = tables["collinear"]
    equal = pairs[pairs["pearson_r"].abs() > EQUAL]
    several = [group for group in _joined(equal) if len(group) > 2]
    for group in several:
        names = listed([readable(name) for name in group], 20)
        yield f"{names}: each has a correlation of 1 or -1 with each other."
    for pair in pairs.to_dict("records"):
        a, b = pair["feature_a"], pair["feature_b"]
        if not any(a in group and b in group for group in several):
            r = number(pair["pearson_r"], 2)
            yield f"{readable(a)} and {readable(b)}: correlation {r}."
    for same in tables["same_groups"].to_dict("records"):
        a, b = (
            f"{readable(same[f'feature_{side}'])} "
            + as_written(same[f"group_{side}"], words.get(same[f"feature_{side}"], {}))
            .replace("<=", "at most")
            .replace(">", "above")
            for side in "ab"
        )
        yield f"{a} and {b} are the same {counted(same['n'], 'member')}."


def _joined(pairs: pd.DataFrame) -> list[list[str]]:
    """Return the features that pairs join, directly or through others.

    >>> _joined(pd.DataFrame({"feature_a": ["x", "z", "y"], "feature_b": ["y", "w", "v"]}))
    [['z', 'w'], ['x', 'y', 'v']]
    """
    groups: list[list[str]] = []
    for pair in zip(pairs["feature_a"], pairs["feature_b"], strict=True):
        touched = [group for group in groups if {*pair} & {*group}]
        joined = dict.fromkeys([name for group in touched for name in group] + [*pair])
        groups = [group for group in groups if group not in touched] + [[*joined]]
    return groups


def limits(contract: Contract, y: np.ndarray, tables: Tables) -> Iterator[str]:
    """Name the conclusions that this table does not support, and why."""
    yield (
        "Time: a member is one row without dates, so the table shows who left, not when or what "
        "came first."
    )
    yield (
        "Cause: an association need not be an effect, because nothing in the table was assigned at "
        "random. Only an action tried on a random half of the members shows its effect."
    )
    late = [readable(name) for name in contract.late if name in contract.columns]
    if late:
        yield (
            f"Leakage: {listed(late)} {'is' if len(late) == 1 else 'are'} known only close to the "
            "event and may be part of leaving rather than a sign of it; features=early trains "
            "without."
        )
    collinear = tables["collinear"]
    pairs = [
        f"{readable(a)} or {readable(b)}"
        for a, b in zip(collinear["feature_a"], collinear["feature_b"], strict=True)
    ]
    if pairs:
        yield f"Which of two correlated columns matters: {listed(pairs, 5, length=90)}."
    n, rate = len(y), float(y.mean())
    halves, tenth = (
        100 * smallest_difference(share * n, (1 - share) * n, rate) for share in (0.5, 0.1)
    )
    yield (
        f"Small differences: at 80% power, this table detects a difference in churn of "
        f"{number(halves, 1)} percentage points between two halves of the members, and of "
        f"{number(tenth, 1)} between a tenth and the rest."
    )
    silent = _silent(tables["links"])
    if silent:
        yield f"Weak effects of {listed(silent)}: no signal does not mean no effect."
    empty = tables["completeness"].query("share > 0.5")
    if len(empty):
        columns = listed([*map(readable, empty["feature"])])
        yield f"Columns that are mostly missing: {columns}."
    yield from _small_groups(tables["gradients"])


def _small_groups(gradients: pd.DataFrame) -> Iterator[str]:
    small = gradients[gradients["n"] < SMALL]
    named = [
        f"{readable(str(name))} ({counted(len(n), 'group')} with {counted(int(n.sum()), 'member')})"
        for name, n in small.groupby("feature", sort=False)["n"]
    ]
    if named:
        groups = listed(named, 5, length=90)
        yield f"Churn rates of groups with fewer than {SMALL} members: {groups}."


def _bullets(sentences: Iterator[str]) -> str:
    return "\n".join(f"- {sentence}" for sentence in sentences)


def _markdown(table: pd.DataFrame) -> str:
    cells = [list(map(str, table)), ["---"] * table.shape[1], *table.to_numpy().tolist()]
    return "\n".join(
        f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in cells
    )
