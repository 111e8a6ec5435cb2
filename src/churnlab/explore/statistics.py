"""Describe a table before any model: each column by itself and against churn.

``X`` holds the feature columns (category columns as text, all others as float64), ``y`` is 1 for a
member who left, ``columns`` is the contract's. Missing values are skipped column by column.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd
from scipy import stats

from churnlab.data.contract import Column
from churnlab.errors import InputError
from churnlab.explore import binning
from churnlab.explore.association import q_values

Columns = Mapping[str, Column]

CORRELATION = ("pearson_r", "low", "high", "p_value", "spearman_r", "auc")
RISK_RATIO = (
    *("n_with", "n_without", "churn_with", "churn_without"),
    *("risk_ratio", "low", "high", "p_value"),
)


def numeric_columns(X: pd.DataFrame) -> pd.DataFrame:
    """Replace each category column of X by one 0/1 column per level, named ``Plan = gold``."""
    parts: list[pd.Series] = []
    for name in map(str, X):
        if pd.api.types.is_numeric_dtype(X[name]):
            parts.append(X[name])
            continue
        x = binning.with_common_levels(X[name])
        parts += [
            (x == level).astype("float64").where(x.notna()).rename(f"{name} = {level}")
            for level in binning.levels(x)
        ]
    return pd.concat([X.iloc[:, :0], *parts], axis=1)


def summary(X: pd.DataFrame, columns: Columns) -> pd.DataFrame:
    """Summarize each feature: kind, distinct, min, quartiles, max, mean, sd; NaN for categories."""
    numeric = X.select_dtypes("number")
    table = pd.DataFrame({"kind": {name: columns[name].kind for name in map(str, X)}})
    table["distinct"] = X.nunique()
    for name, share in {"min": 0, "q25": 0.25, "median": 0.5, "q75": 0.75, "max": 1}.items():
        table[name] = numeric.quantile(share).reindex(table.index)
    table["mean"], table["sd"] = numeric.mean(), numeric.std()
    return table.rename_axis("feature").reset_index()


def completeness(X: pd.DataFrame, y: np.ndarray) -> pd.DataFrame:
    """Count each feature's missing values and compare churn with and without a value.

    Columns: feature, missing, share, churn_missing, churn_known, the `risk_ratio` of the two with
    its CI and p_value, and q_value, corrected for the number of features with gaps. The emptiest
    come first.
    """
    names = {"n_with": "missing", "churn_with": "churn_missing", "churn_without": "churn_known"}
    rows = [{"feature": name} | risk_ratio(X[name].isna().to_numpy(), y) for name in map(str, X)]
    table = pd.DataFrame(rows).rename(columns=names).drop(columns="n_without")
    table.insert(2, "share", table["missing"] / max(len(y), 1))
    table["q_value"] = q_values(table["p_value"])
    return table.sort_values("missing", ascending=False, kind="stable", ignore_index=True)


def class_means(X: pd.DataFrame, y: np.ndarray) -> pd.DataFrame:
    """Compare the means of stayed and churned, one row per feature or level.

    The difference is churned minus stayed. Its 95% CI, ``low`` to ``high``, is Welch's (1947,
    Biometrika 34:28); NaN where the classes have no spread or fewer than two members. The
    standardized difference divides by the root of the mean of both variances (Austin, 2009,
    Statistics in Medicine 28:3083). Sorted by its size.
    """
    table = numeric_columns(X)
    stayed, churned = table[y == 0], table[y == 1]
    means = pd.DataFrame({"mean_stayed": stayed.mean(), "mean_churned": churned.mean()})
    means["difference"] = means["mean_churned"] - means["mean_stayed"]
    errors = pd.concat([part.var() / part.count() for part in (stayed, churned)], axis=1)
    error = errors.sum(axis=1, skipna=False)
    error = error.where(error > 0)
    n_less_one = np.column_stack([stayed.count() - 1, churned.count() - 1])
    freedom = error**2 / (errors**2 / n_less_one).sum(axis=1)
    half = stats.t.ppf(0.975, freedom) * np.sqrt(error)
    means["low"], means["high"] = means["difference"] - half, means["difference"] + half
    spread = np.sqrt((stayed.var() + churned.var()) / 2)
    means["standardised_difference"] = means["difference"] / spread.where(spread > 0)
    return _by_size(means.rename_axis("feature").reset_index(), "standardised_difference")


def correlations(X: pd.DataFrame, y: np.ndarray) -> pd.DataFrame:
    """Correlate each feature or level with y: pearson_r, its 95% CI and p_value, spearman_r, auc.

    ``auc`` is the probability that a member who left has a larger value than one who stayed. The CI
    is Fisher's z with the distribution-free standard error (Steiger and Hakstian, 1982, British
    Journal of Mathematical and Statistical Psychology 35:208), because Fisher's own assumes a
    normal y, and y is 0 or 1. NaN where the column or y is constant. Sorted by the size of
    pearson_r.
    """
    table = numeric_columns(X)
    rows = []
    for name in table:
        known = table[name].notna().to_numpy()
        rows.append({"feature": name} | _association(table[name].to_numpy()[known], y[known]))
    return _by_size(pd.DataFrame(rows), "pearson_r")


def _association(x: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """Compute the row of ``correlations`` for one column without gaps."""
    if len(x) < 3 or _is_constant(x) or _is_constant(y):
        return dict.fromkeys(CORRELATION, np.nan)
    r, p_value = stats.pearsonr(x, y)
    low, high = _correlation_interval(x, y, float(r))
    ranks = stats.rankdata(x)
    n_churned = int(y.sum())
    auc = (ranks[y == 1].sum() / n_churned - (n_churned + 1) / 2) / (len(y) - n_churned)
    # y has two values, so its ranks are a line in y, and Spearman's r is Pearson's with the ranks
    # of x.
    rho = stats.pearsonr(ranks, y).statistic
    return dict(zip(CORRELATION, (r, low, high, p_value, rho, auc), strict=True))


def correlation(x: np.ndarray, y: np.ndarray) -> tuple[float, float, float]:
    """Return Pearson's r of two columns without gaps and its 95% CI as in ``correlations``; NaN
    where one is constant."""
    if len(x) < 3 or _is_constant(x) or _is_constant(y):
        return np.nan, np.nan, np.nan
    r = float(stats.pearsonr(x, y).statistic)
    return r, *_correlation_interval(x, y, r)


def _correlation_interval(x: np.ndarray, y: np.ndarray, r: float) -> tuple[float, float]:
    if 1 - r * r < 1e-12:
        return r, r
    zx, zy = stats.zscore(x), stats.zscore(y)
    influence = zx * zy - r / 2 * (zx**2 + zy**2)
    half = stats.norm.ppf(0.975) * influence.std() / np.sqrt(len(x)) / (1 - r * r)
    low, high = np.tanh(np.arctanh(r) + np.array([-half, half]))
    return float(low), float(high)


def risk_ratios(X: pd.DataFrame, y: np.ndarray, columns: Columns) -> pd.DataFrame:
    """Compare churn between the two sides of each split of a feature: feature, split, RISK_RATIO,
    q_value.

    A binary column splits into 1 and 0; a category column into each level and the rest; a numeric
    column at its cut, the rounded median unless the contract declares another. A column with one
    value has no split. Sorted by the end of the CI that is closer to 1, so that a small group does
    not lead by chance. ``q_value`` is the p_value corrected for the number of splits: some of many
    CIs exclude 1 by chance.
    """
    rows = []
    for name in map(str, X):
        known = X[name].notna().to_numpy()
        for split, exposed in _splits(X[name][known], columns[name]):
            rows.append({"feature": name, "split": split} | risk_ratio(exposed, y[known]))
    table = pd.DataFrame(rows, columns=["feature", "split", *RISK_RATIO])
    table["q_value"] = q_values(table["p_value"])
    with np.errstate(divide="ignore"):
        sure = np.maximum(np.log(table["low"]), -np.log(table["high"])).clip(lower=0).fillna(0)
        size = np.log(table["risk_ratio"]).abs().fillna(-1)
    return table.iloc[np.lexsort([-size, -sure])].reset_index(drop=True)


def risk_ratio(exposed: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """Compare the churn of the members inside and outside a mask: RISK_RATIO's keys.

    The 95% CI is Katz's log interval (Katz et al., 1978, Biometrics 34:469), with a half
    added to the counts where nobody left on one side (Walter, 1975, Biometrika 62:371). The p_value
    is that of Pearson's chi-squared, or of Fisher's exact test where an expected count is below 5.
    NaN where a side has no members or nobody left at all.
    """
    n_with = int(exposed.sum())
    n_without = len(y) - n_with
    left_with = int(y[exposed].sum())
    left_without = int(y.sum()) - left_with
    if not (n_with and n_without):
        return {**dict.fromkeys(RISK_RATIO, np.nan), "n_with": n_with, "n_without": n_without}
    low, high = ratio_interval(left_with, n_with, left_without, n_without)
    counts = np.array([[left_with, n_with - left_with], [left_without, n_without - left_without]])
    sides = n_with, n_without, left_with / n_with, left_without / n_without
    ratio = stats.contingency.relative_risk(left_with, n_with, left_without, n_without)
    p_value = _independence_p_value(counts)
    values = (*sides, ratio.relative_risk, low, high, p_value)
    return dict(zip(RISK_RATIO, values, strict=True))


def ratio_interval(
    left: int, n: int, left_others: int, n_others: int, *, confidence: float = 0.95
) -> tuple[float, float]:
    """Return the CI of the risk ratio ``left / n`` over ``left_others / n_others``, as in
    ``risk_ratio``; NaN if nobody left."""
    if left and left_others:
        found = stats.contingency.relative_risk(left, n, left_others, n_others)
        low, high = found.confidence_interval(confidence)
        return float(low), float(high)
    if not left and not left_others:
        return np.nan, np.nan
    a, c = left + 0.5, left_others + 0.5
    log_ratio = np.log(a / (n + 0.5)) - np.log(c / (n_others + 0.5))
    variance = 1 / a - 1 / (n + 0.5) + 1 / c - 1 / (n_others + 0.5)
    half = stats.norm.isf((1 - confidence) / 2) * np.sqrt(variance)
    low, high = float(np.exp(log_ratio - half)), float(np.exp(log_ratio + half))
    return (low if left else 0.0), (high if left_others else np.inf)


def _independence_p_value(counts: np.ndarray) -> float:
    """Test independence in a 2 x 2 table: chi-squared, or Fisher's exact test for small counts."""
    if not counts.sum(axis=0).all():
        return np.nan
    if stats.contingency.expected_freq(counts).min() < 5:
        return float(stats.fisher_exact(counts).pvalue)
    return float(stats.chi2_contingency(counts, correction=False).pvalue)


def _splits(x: pd.Series, column: Column) -> Iterator[tuple[str, np.ndarray]]:
    """Yield each split of a column without gaps: its name and the mask of its first side."""
    if column.cut is not None and column.kind != "numeric":
        raise InputError(f"{x.name} has a cut, but only a numeric column can have one.")
    if x.nunique() < 2:
        return
    if column.kind == "category":
        x = binning.with_common_levels(x)
        for level in binning.levels(x):
            yield f"= {level}", (x == level).to_numpy()
        return
    values = x.to_numpy()
    if column.kind == "binary":
        yield "= 1", values == 1
        return
    cut = binning.median_cut(values) if column.cut is None else column.cut
    if not values.min() <= cut < values.max():
        raise InputError(
            f"The cut of {x.name} at {cut:g} leaves nobody on one side: its values run from "
            f"{values.min():g} to {values.max():g}. Choose a cut between them."
        )
    yield f"> {binning.format_number(cut)}", values > cut


def gradients(X: pd.DataFrame, y: np.ndarray, columns: Columns, *, n_bins: int = 8) -> pd.DataFrame:
    """Compute churn along each feature: feature, value, n, churned, churn_rate, low, high (95% CI).

    ``value`` names the group of `churnlab.explore.binning.groups`. Columns with one value are left
    out. The columns along which the churn rate varies most come first (variance between groups,
    weighted by members).
    """
    tables: list[tuple[float, pd.DataFrame]] = []
    for name in map(str, X):
        known = X[name].notna().to_numpy()
        if X[name].nunique() < 2:
            continue
        codes, names = binning.groups(X[name][known], columns[name], n_bins=n_bins)
        n = np.bincount(codes, minlength=len(names))
        churned = np.bincount(codes, y[known], len(names))
        used = n > 0
        variance = np.average((churned[used] / n[used] - y[known].mean()) ** 2, weights=n[used])
        counts = zip(names, churned, n, strict=True)
        rows = [
            {"feature": name, "value": v} | churn_rate(int(k), int(of)) for v, k, of in counts if of
        ]
        tables.append((float(variance), pd.DataFrame(rows)))
    tables.sort(key=lambda table: -table[0])
    empty = pd.DataFrame(columns=["feature", "value", "n", "churned", "churn_rate", "low", "high"])
    return pd.concat([table for _, table in tables], ignore_index=True) if tables else empty


def churn_rate(churned: int, n: int) -> dict[str, float]:
    """Return the churn rate of n members with its 95% CI (Wilson, 1927, JASA 22:209).

    >>> rate = churn_rate(5, 20)
    >>> rate["churn_rate"], round(float(rate["low"]), 3), round(float(rate["high"]), 3)
    (0.25, 0.112, 0.469)
    """
    low, high = stats.binomtest(churned, n).proportion_ci(method="wilson")
    return {"n": n, "churned": churned, "churn_rate": churned / n, "low": low, "high": high}


def histograms(
    X: pd.DataFrame, y: np.ndarray, columns: Columns, *, n_bins: int = 30
) -> pd.DataFrame:
    """Compute each feature's distribution by outcome: feature, value, left, right, stayed, churned.

    ``stayed`` and ``churned`` are shares of the members who stayed and who left; each sums to 1
    within a feature. Few-valued columns have one row per ``value``; others have bins of equal width
    from ``left`` to ``right``, of which the outermost also hold the half percent of the members
    beyond them.
    """
    tables = []
    for name in map(str, X):
        known = X[name].notna().to_numpy()
        x = X[name][known]
        if x.empty:
            continue
        if columns[name].kind == "category" or x.nunique() <= binning.FEW_VALUES:
            codes, names = binning.groups(x, columns[name], n_bins=n_bins)
            table = pd.DataFrame({"value": names, "left": np.nan, "right": np.nan})
        else:
            edges = binning.even_edges(x.to_numpy(), n_bins=n_bins)
            codes = np.searchsorted(edges, x.to_numpy(), side="right") - 1
            codes = np.clip(codes, 0, len(edges) - 2)
            table = pd.DataFrame({"value": None, "left": edges[:-1], "right": edges[1:]})
        table.insert(0, "feature", name)
        for side, of in (("stayed", y[known] == 0), ("churned", y[known] == 1)):
            table[side] = np.bincount(codes[of], minlength=len(table)) / max(of.sum(), 1)
        tables.append(table)
    empty = pd.DataFrame(columns=["feature", "value", "left", "right", "stayed", "churned"])
    return pd.concat(tables, ignore_index=True) if tables else empty


def _is_constant(values: np.ndarray) -> bool:
    return bool(np.ptp(values) <= 1e-12 * np.abs(values).max())


def _by_size(table: pd.DataFrame, by: str) -> pd.DataFrame:
    return table.sort_values(by, key=lambda r: -r.abs(), kind="stable", ignore_index=True)
