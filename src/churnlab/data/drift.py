"""Detect drift: columns, outcomes or scores unlike those that a model was trained with."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from churnlab.formatting import listed, percent

LEVEL = 0.01
"""In so many tables of the same population some column may be named by chance (``holm``)."""

DISTANCE = 0.1
"""A Cramér's V of then against now, or a Kolmogorov-Smirnov distance, below this is no drift,
however many members show it. As Cohen's w this is a small effect (1988, Statistical Power Analysis,
7.2); a binary column moves by 10 percentage points, or by fewer at the ends of the scale."""

SHIFT = 0.2
"""So many standard deviations between two means are a drift, too (Cohen's d, small: 2.2)."""

CHURN_RATIO = 1.25
"""A churn rate, or a mean probability, so many times the other one is a drift, too."""

FEW = 5
"""Cells with fewer expected members are left to the exact test (Cochran, 1954)."""

BINS = 10
POINTS = 100
"""Number of points at which the distribution of a numeric column is kept."""

COMPARED = 40
"""So many points are each compared with all values faster than a place is searched for each."""

LEVELS = 1000
"""Number of categories kept of a column, the most frequent ones."""


class Change(NamedTuple):
    """A comparison of then and now: p-value, whether the effect is large, and its description."""

    p: float
    large: bool
    text: str


@dataclass
class Seen:
    """What of a column is compared with what a version remembers of it (``was``): counts and sums,
    so that batches of members add up and none of them is kept.

    ``up_to`` and ``at`` count the values up to each remembered point and equal to it; ``sums`` are
    those of the distances from the remembered mean and of their squares.
    """

    rows: int = 0
    missing: int = 0
    sums: list[float] = field(default_factory=lambda: [0.0, 0.0])
    up_to: list[int] = field(default_factory=list)
    at: list[int] = field(default_factory=list)
    categories: Counter[str] = field(default_factory=Counter)

    @classmethod
    def of(cls, column: pd.Series, was: Mapping[str, Any]) -> Seen:
        """Count a column."""
        if "edges" not in was:
            known = column.dropna().value_counts(sort=False)
            categories = Counter({str(name): int(n) for name, n in known.items()})
            return cls(len(column), len(column) - int(known.sum()), categories=categories)
        cells = column.to_numpy(dtype="float64")
        missing = np.isnan(cells)
        values = cells[~missing] if missing.any() else cells
        far = values - (was["mean"] or 0.0)
        points = _cumulative(was)[0]
        if len(points) <= COMPARED:
            up_to = [int(np.count_nonzero(values <= point)) for point in points]
        else:
            bins = np.searchsorted(points, values)
            up_to = np.bincount(bins, minlength=len(points) + 1).cumsum()[:-1].tolist()
        few = points if len(points) <= 2 else ()
        at = [int(np.count_nonzero(values == point)) for point in few]
        return cls(len(cells), int(missing.sum()), [far.sum(), (far * far).sum()], up_to, at)

    def add(self, other: Seen) -> None:
        """Add the counts of another batch."""
        self.rows += other.rows
        self.missing += other.missing
        self.sums = [a + b for a, b in zip(self.sums, other.sums, strict=True)]
        self.up_to = _added(self.up_to, other.up_to)
        self.at = _added(self.at, other.at)
        self.categories.update(other.categories)

    @property
    def known(self) -> int:
        """Return the number of values."""
        return self.rows - self.missing

    def mean(self, was: Mapping[str, Any]) -> float:
        """Return the mean of the values."""
        return (was["mean"] or 0.0) + self.sums[0] / self.known

    def variance(self) -> float:
        """Return the variance of the values."""
        return max(self.sums[1] / self.known - (self.sums[0] / self.known) ** 2, 0.0)


def _added(mine: list[int], theirs: list[int]) -> list[int]:
    return [a + b for a, b in zip(mine, theirs, strict=True)] if mine else theirs


def seen(X: pd.DataFrame, remembered: Mapping[str, Any]) -> dict[str, Seen]:
    """Count the columns that a version remembers."""
    return {
        str(name): Seen.of(column, remembered["columns"][str(name)])
        for name, column in X.items()
        if str(name) in remembered.get("columns", {})
    }


def remember(X: pd.DataFrame, *, scores: np.ndarray | None = None) -> dict[str, Any]:
    """Return what JSON is to keep of a table: its ``rows``, and the distribution of each of
    ``columns`` and of the model's ``scores`` (out-of-fold churn probabilities).

    A numeric column has ``points`` with the share of members up to each; a category ``values`` with
    their ``shares``. The last of the ``shares`` is that of missing values. (Earlier versions have
    no points and compare the shares between ``edges``.)
    """
    columns = {str(name): _distribution(column) for name, column in X.items()}
    kept = {"rows": len(X), "columns": columns}
    if scores is not None:
        kept["scores"] = {"rows": len(scores)} | _distribution(pd.Series(scores))
    return kept


def warnings(
    X: pd.DataFrame, remembered: Mapping[str, Any], *, model: str, target: str | None = None
) -> Iterator[str]:
    """Yield the warnings of ``warnings_of`` for a table."""
    return warnings_of(seen(X, remembered), remembered, model=model, target=target)


def warnings_of(
    now: Mapping[str, Seen],
    remembered: Mapping[str, Any],
    *,
    model: str,
    target: str | None = None,
) -> Iterator[str]:
    """Yield one sentence for columns that have drifted since ``model`` was trained, one for the
    outcome (column ``target``, if there), one for categories new to the model."""
    columns = {name: column for name, column in now.items() if name != target}
    drifted = list(_drifted(columns, remembered))
    if drifted:
        yield f"drift since {model} was trained: {listed(drifted, length=120)}"
    if target is not None and target in now:
        yield from _outcome(target, now[target], remembered, model=model, alone=not drifted)
    new = [
        f"{name} ({found})"
        for name, column in columns.items()
        if (found := _new_categories(column, remembered["columns"][name]))
    ]
    if new:
        yield (
            f"categories that {model} was not trained on, which it treats as none of those it "
            f"knows: {listed(new, length=120)}"
        )


def score_warnings(
    scores: np.ndarray, remembered: Mapping[str, Any], *, model: str
) -> Iterator[str]:
    """Yield the warnings of ``score_warnings_of`` for the probabilities of a table."""
    if "scores" not in remembered or not len(scores):
        return iter(())
    now = Seen.of(pd.Series(scores), remembered["scores"])
    return score_warnings_of(now, remembered, model=model)


def score_warnings_of(now: Seen, remembered: Mapping[str, Any], *, model: str) -> Iterator[str]:
    """Yield one sentence if the churn probabilities of ``model`` have drifted since its training.

    Versions that remember no scores yield nothing.
    """
    if "scores" not in remembered or not now.rows:
        return
    was = remembered["scores"]
    change, mean = _of_numbers(now, was, was["rows"]), now.mean(was)
    if change.p < LEVEL and (change.large or _ratio(was["mean"], mean) >= CHURN_RATIO):
        yield (
            f"the predictions of {model} have drifted: the mean probability was "
            f"{percent(was['mean'])} on its training members (out of fold) and is {percent(mean)} "
            "now"
        )


def _drifted(columns: Mapping[str, Seen], remembered: Mapping[str, Any]) -> Iterator[str]:
    """Describe the changes beyond chance, by Holm over all columns, and large."""
    changes = [
        (name, change)
        for name, column in columns.items()
        for change in _changes(column, remembered["columns"][name], remembered["rows"])
    ]
    beyond = holm(np.array([change.p for _, change in changes])) <= LEVEL
    texts: dict[str, list[str]] = {}
    for at, (name, change) in enumerate(changes):
        if beyond[at] and change.large:
            texts.setdefault(name, []).append(change.text)
    for name, parts in texts.items():
        yield f"{name} ({'; '.join(parts)})"


def holm(p: np.ndarray) -> np.ndarray:
    """Adjust p-values for their number (Holm, 1979, Scandinavian Journal of Statistics 6:65).

    >>> holm(np.array([0.01, 0.04, 0.03])).tolist()
    [0.03, 0.06, 0.06]
    """
    order = np.argsort(p, kind="stable")
    adjusted = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    return np.minimum(adjusted, 1)[np.argsort(order)]


def _changes(column: Seen, was: Mapping[str, Any], rows: int) -> Iterator[Change]:
    """Compare the values of a column, and the share without a value if there is one."""
    gaps = np.array([column.missing, was["shares"][-1] * rows]).round()
    total = np.array([column.rows, rows])
    if gaps.any():
        then, now = ([total[i] - gaps[i], gaps[i]] for i in (1, 0))
        p, v = _homogeneity(np.array(then), np.array(now))
        share = gaps / total
        text = f"missing {share[1]:.0%} then, {share[0]:.0%} now"
        yield Change(p, v >= DISTANCE, text)
    if (gaps == total).any():
        return
    yield (_of_numbers if "edges" in was else _of_categories)(column, was, rows)


def _of_categories(column: Seen, was: Mapping[str, Any], rows: int) -> Change:
    """Compare the shares of categories: chi-squared test and Cramér's V.

    Categories that are new count one by one, not as a group: a group that is defined by its absence
    then would have grown by definition.
    """
    then = pd.Series(
        np.array(was["shares"][:-2]) * rows, index=pd.Index(was["values"], dtype=object)
    )
    now = pd.Series(column.categories, dtype=float)
    if len(was["values"]) == LEVELS:  # the others were not kept
        then["others"] = was["shares"][-2] * rows
        now = now.groupby(now.index.where(now.index.isin(then.index), "others")).sum()
    cells = pd.DataFrame({"then": then, "now": now}).fillna(0).round()
    p, v = _homogeneity(cells["then"].to_numpy(), cells["now"].to_numpy())
    shares = cells / cells.sum()
    most = int((shares["now"] - shares["then"]).abs().argmax())
    before, after = shares.iloc[most]
    text = f"{shares.index[most]} {before:.0%} then, {after:.0%} now"
    return Change(p, v >= DISTANCE, text)


def _of_numbers(column: Seen, was: Mapping[str, Any], rows: int) -> Change:
    """Compare numbers by Kolmogorov and Smirnov's test, their distance, and the standardized
    difference of means; a column of two values as categories."""
    from scipy.special import kolmogorov

    if len(was.get("points", ())) in (1, 2):
        return _of_few(column, was, rows)
    points, then = _cumulative(was)
    if not len(points):
        return Change(1.0, False, "")
    now = np.array(column.up_to) / column.known
    gap = np.abs(now - then)
    size = 1 / (1 / column.known + 1 / (rows * (1 - was["shares"][-1])))
    p = float(kolmogorov(math.sqrt(size) * gap.max()))
    spread = math.sqrt((was.get("sd", math.nan) ** 2 + column.variance()) / 2)
    shifted = spread > 0 and abs(column.mean(was) - was["mean"]) >= SHIFT * spread
    if shifted or "sd" not in was:
        text = f"mean {was['mean']:.3g} then, {column.mean(was):.3g} now"
    else:
        most = int(gap.argmax())
        text = f"at most {points[most]:.3g}: {then[most]:.0%} then, {now[most]:.0%} now"
    return Change(p, shifted or gap.max() >= DISTANCE, text)


def _of_few(column: Seen, was: Mapping[str, Any], rows: int) -> Change:
    """Compare the shares of one value or two and of all others."""
    points, cumulative = np.array(was["points"]), np.array(was["cumulative"])
    there = np.array(column.at)
    now = np.append(there, column.known - there.sum())
    then = np.append(np.diff(cumulative, prepend=0), 0) * rows * (1 - was["shares"][-1])
    p, v = _homogeneity(then.round(), now)
    text = f"mean {was['mean']:.3g} then, {column.mean(was):.3g} now"
    if set(points) <= {0.0, 1.0}:
        text = f"{was['mean']:.0%} then, {column.mean(was):.0%} now"
    return Change(p, v >= DISTANCE, text)


def _homogeneity(then: np.ndarray, now: np.ndarray) -> tuple[float, float]:
    """Test whether two samples of categories have the same shares; return p and Cramér's V.

    Pearson's chi-squared over the cells with FEW or more expected members in both samples, the
    others merged; each of those by a binomial test, because a category that is new, or was rare,
    must be seen too. V is that of two samples of equal size: it does not grow with either.
    """
    from scipy.special import chdtrc

    there = then + now > 0
    then, now = then[there], now[there]
    shares = then / then.sum(), now / now.sum()
    v = math.sqrt(float(((shares[0] - shares[1]) ** 2 / (2 * (shares[0] + shares[1]))).sum()))
    part = now.sum() / (then.sum() + now.sum())
    thin = (then + now) * min(part, 1 - part) < FEW
    cells = np.array([then, now])
    merged = np.column_stack([cells[:, ~thin], cells[:, thin].sum(axis=1)])
    merged = merged[:, merged.sum(axis=0) * min(part, 1 - part) >= FEW]
    p = 1.0
    if merged.shape[1] > 1:
        expected = merged.sum(axis=0) * np.array([[1 - part], [part]])
        p = float(chdtrc(merged.shape[1] - 1, ((merged - expected) ** 2 / expected).sum()))
    if thin.any():
        tails = _binomial(now[thin], (then + now)[thin], part)
        p = min(1.0, 2 * min(p, float(thin.sum() * tails.min())))
    return p, v


def _binomial(hits: np.ndarray, of: np.ndarray, share: float) -> np.ndarray:
    """Return the two-sided p-values (twice the smaller tail) of binomial counts."""
    from scipy.special import bdtr, bdtrc

    whole = of.astype(int)
    at_least = np.where(hits > 0, bdtrc(np.maximum(hits - 1, 0), whole, share), 1.0)
    at_most = bdtr(hits, whole, share)
    return np.minimum(1, 2 * np.minimum(at_most, at_least))


def _outcome(
    name: str, column: Seen, remembered: Mapping[str, Any], *, model: str, alone: bool
) -> Iterator[str]:
    was = remembered["columns"][name]
    then, now, rows = float(was["mean"]), column.mean(was), remembered["rows"]
    counts = [
        np.array([n * (1 - share), n * share]).round()
        for n, share in ((rows, then), (column.rows, now))
    ]
    p, v = _homogeneity(*counts)
    if p < LEVEL and (v >= DISTANCE or _ratio(then, now) >= CHURN_RATIO):
        columns = ", though no column has drifted" if alone else ""
        yield (
            f"the outcome has drifted since {model} was trained: {percent(then)} of the members "
            f"had left then, {percent(now)} now{columns}; its probabilities are too "
            f"{'low' if now > then else 'high'} unless what it knows of the members explains this"
        )


def _ratio(then: float, now: float) -> float:
    least, most = sorted((then, now))
    return most / least if least > 0 else math.inf if most > 0 else 1.0


def _distribution(column: pd.Series) -> dict[str, Any]:
    known = column.dropna()
    if not pd.api.types.is_numeric_dtype(column):
        found: dict[str, Any] = {"values": known.value_counts().index[:LEVELS].tolist()}
    elif len(known):
        values = known.to_numpy(dtype="float64")
        edges = np.unique(np.quantile(values, np.arange(1, BINS) / BINS))
        points = np.unique(values)
        if len(points) > POINTS:
            shares = np.arange(1, POINTS) / POINTS
            points = np.unique(np.quantile(values, shares, method="inverted_cdf"))
        cumulative = np.searchsorted(np.sort(values), points, side="right") / len(values)
        found = {"edges": edges.tolist(), "mean": float(values.mean()), "sd": float(values.std())}
        found |= {"points": points.tolist(), "cumulative": cumulative.tolist()}
    else:
        found = {"edges": [], "mean": None}
    return found | {"shares": _shares(column, found).tolist()}


def _cumulative(was: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Return the points at which a distribution is known, and the share up to each."""
    if "points" in was:
        return np.array(was["points"]), np.array(was["cumulative"])
    shares = np.array(was["shares"][:-1])
    return np.array(was["edges"]), np.cumsum(shares)[:-1] / shares.sum()


def _shares(column: pd.Series, bins: Mapping[str, Any]) -> np.ndarray:
    """Return the share of members in each bin, in other categories, and without a value."""
    known = column.notna().to_numpy()
    if "edges" in bins:
        count = len(bins["edges"]) + 1
        codes = np.searchsorted(bins["edges"], column.to_numpy(dtype="float64"), side="left")
    else:
        count = len(bins["values"]) + 1
        codes = pd.Index(bins["values"]).get_indexer(pd.Index(column))
        codes = np.where(codes < 0, count - 1, codes)
    return np.bincount(np.where(known, codes, count), minlength=count + 1) / max(len(column), 1)


def _new_categories(column: Seen, was: Mapping[str, Any]) -> str:
    """List the new categories, "" for none or if not all of the old ones were kept."""
    if "edges" in was or len(was["values"]) == LEVELS:
        return ""
    new = [name for name in column.categories if name not in {*was["values"]}]
    count = sum(column.categories[name] for name in new)
    found = f"{listed(new, 3)}: {count:,} of {column.rows:,}"
    return found if new else ""
