"""Find leakage, duplicates and other oddities in a table whose cells are all valid.

Cheap on purpose, so that every command can afford it: where a sample is enough, a sample is used.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd

from churnlab.data.contract import Contract
from churnlab.data.violations import Violation
from churnlab.formatting import listed

LEAKING = 0.995
"""A column with this AUC by itself was recorded after the members had left."""

FEW = 30
"""With fewer leavers (or stayers) only an AUC of 1 is leakage: chance may come close."""

CHANCE = 1e-6
"""Leakage must be less likely than this in a table of columns unrelated to the outcome."""

COPY = 0.01
"""An exact copy of the outcome must be less likely than this among unrelated columns of two values,
of as many members each: a bound far above the true chance, for the numbers must agree, too."""

LEVELS = 50
"""A number with more distinct values than this is ranked by its order, not value by value."""

SAMPLE = 10_000

REDUNDANT = 0.99
"""Columns of this absolute correlation are redundant."""

RARE = 0.05
"""A smaller share of leavers (or stayers) is a strong imbalance."""

USUAL = (
    *({"0", "1"}, {"-1", "1"}, {"yes", "no"}, {"true", "false"}, {"y", "n"}, {"t", "f"}),
    {"on", "off"},
)
"""Codes of an outcome whose meaning nobody has to look up. Longer words say what they mean."""

SMALLEST = 100
"""In smaller tables whole numbers are different in every row by nature."""

UNIQUE = 0.95
"""A larger share of distinct values marks an identifier."""


def leaking_columns(X: pd.DataFrame, y: np.ndarray) -> dict[str, float]:
    """Return the columns that predict the outcome by themselves, with their AUC.

    None where chance may be the reason: with few leavers (or stayers) some column separates them.

    >>> X = pd.DataFrame({"refund": [0.0] * 20 + [9.0] * 20, "age": [30.0, 40.0] * 20})
    >>> leaking_columns(X, np.repeat([0, 1], 20))
    {'refund': 1.0}
    """
    rare = int(min(y.sum(), len(y) - y.sum()))
    if not X.shape[1] or math.log(2 * X.shape[1]) - _log_orders(y) > math.log(CHANCE):
        return dict.fromkeys(_copies(X, y), 1.0)
    rows = np.concatenate([_spread(np.flatnonzero(y == outcome)) for outcome in (0, 1)])
    sample, left = X.iloc[rows].reset_index(drop=True), y[rows].astype("float64")
    aucs = {str(name): _best_auc(sample[name], left) for name in sample}
    return {name: auc for name, auc in aucs.items() if auc >= (LEAKING if rare >= FEW else 1)}


def _log_orders(y: np.ndarray) -> float:
    """Return the logarithm of the number of ways to choose as many leavers among the members."""
    left = int(y.sum())
    return math.lgamma(len(y) + 1) - math.lgamma(left + 1) - math.lgamma(len(y) - left + 1)


def _copies(X: pd.DataFrame, y: np.ndarray) -> Iterator[str]:
    """Yield the columns of a small table that are the outcome in other words, where chance is not
    the reason: among 40 members with 2 leavers it may be if there are 8 columns of two values."""
    known = {str(name): X[name].notna().to_numpy() for name in X}
    two = {name: there for name, there in known.items() if X[name][there].nunique() == 2}
    for name, there in two.items():
        left, codes = y[there], pd.factorize(X[name][there])[0]
        equal = abs(int((codes == left).sum()) * 2 - len(left)) == len(left)
        if equal and math.log(len(two)) - _log_orders(left) <= math.log(COPY):
            yield name


def _best_auc(x: pd.Series, left: np.ndarray) -> float:
    """Return the AUC of a column by its order, its values or its gaps, whichever is best."""
    known = x.notna().to_numpy()
    aucs = [0.5]
    if not known.all():  # a reason for leaving is empty for who stayed
        aucs.append(_auc(_rates_of_others(known.astype(int), left), left))
        x, left = x[known], left[known]
    if 0 < left.sum() < len(left):
        codes, values = pd.factorize(x)
        if len(values) <= LEVELS or not pd.api.types.is_numeric_dtype(x):
            aucs.append(_auc(_rates_of_others(codes, left), left))
        else:
            auc = _auc(x.to_numpy(dtype="float64"), left)
            aucs += [auc, 1 - auc]
    return max(aucs)


def _spread(rows: np.ndarray, most: int = SAMPLE) -> np.ndarray:
    """Return at most so many of the rows, evenly spread."""
    return rows if len(rows) <= most else rows[np.linspace(0, len(rows) - 1, most).astype(int)]


def _rates_of_others(codes: np.ndarray, left: np.ndarray) -> np.ndarray:
    """Return the churn rate of a member's value in the other half of the members.

    With a member's own outcome every identifier would predict perfectly.
    """
    levels, half = int(codes.max()) + 1, np.arange(len(codes)) % 2
    place, other = codes + half * levels, codes + (1 - half) * levels
    size = np.bincount(place, minlength=2 * levels)[other]
    churned = np.bincount(place, weights=left, minlength=2 * levels)[other]
    return np.where(size > 0, churned / np.maximum(size, 1), 0.5)


def _auc(x: np.ndarray, left: np.ndarray) -> float:
    """Return the area under the ROC curve of a number as a score of leaving."""
    ranks = pd.Series(x).rank().to_numpy()
    churned = left.sum()
    return float((ranks[left == 1].sum() / churned - (churned + 1) / 2) / (len(left) - churned))


def leaks(X: pd.DataFrame, y: np.ndarray, contract: Contract) -> list[Violation]:
    """Return a violation for each feature that leaks the target."""
    return [
        Violation(
            f"column {name} alone predicts who left (AUC {auc:.3f}): it is a copy of "
            f"{contract.target} or was recorded after the event (leakage)",
            f"take it out of dataset.columns in the YAML of {contract.name}",
        )
        for name, auc in leaking_columns(X, y).items()
    ]


def gaps(X: pd.DataFrame, words: Mapping[str, Mapping[str, int]]) -> Iterator[str]:
    """Warn of missing values, with their number by column and the words that they are written with.

    ``words`` counts these by column, "" for an empty cell.
    """
    missing = {str(name): int(count) for name, count in X.isna().sum().items()}
    return gaps_of(missing, len(X), words)


def gaps_of(
    missing: Mapping[str, int], rows: int, words: Mapping[str, Mapping[str, int]]
) -> Iterator[str]:
    """Yield the warning of ``gaps`` for the number of missing values by column in so many rows."""
    missing = {name: count for name, count in missing.items() if count}
    if missing:
        counts = [
            f"{name} ({count:,} of {rows:,}, {count / rows:.1%}{_written(words.get(name, {}))})"
            for name, count in sorted(missing.items(), key=lambda one: -one[1])
        ]
        shown = listed(counts, length=140)
        yield f"missing values, filled with the column's typical value: {shown}"


def unlisted(name: str, others: Sequence[str], count: int, rows: int) -> str:
    """Return the warning of categories that are not listed, found ``count`` times."""
    return (
        f"{name}: {listed(others, 5)} in {count:,} of {rows:,} rows, not listed in "
        f"dataset.columns.{name}.values; models treat it as none of the listed categories"
    )


def _written(words: Mapping[str, int]) -> str:
    """Say how gaps are written, nothing if all are empty cells.

    >>> _written({"": 2, " ": 9, "NA": 1})
    ", written ' ' (9), 'NA' (1) or left empty (2)"
    """
    shown = [f"{word!r} ({count:,})" for word, count in words.items() if word]
    if not shown:
        return ""
    empty = f" or left empty ({words['']:,})" if "" in words else ""
    return f", written {listed(shown, 5, length=60)}{empty}"


def warnings(
    X: pd.DataFrame, y: np.ndarray, contract: Contract, ids: pd.Series | None = None
) -> list[str]:
    """Return one sentence for each oddity to look at before trusting a model of this table."""
    with np.errstate(all="ignore"):  # a YAML may allow numbers whose squares are none
        return [
            *_of_columns(X, named=ids is not None),
            *_of_pairs(X),
            *_of_the_target(y, contract),
            *_of_repeated_rows(X, y, ids),
        ]


def _of_columns(X: pd.DataFrame, *, named: bool) -> Iterator[str]:
    """Warn of constants and identifiers; of members ``named`` by an id, numbers such as wages are
    different, too."""
    constant = [name for name in X if len(X) > 1 and (X[name] == X[name].iloc[0]).all()]
    if constant:
        yield f"constant columns, of no use to a model: {listed(constant)}"
    identifiers = [
        name
        for name in X
        if len(X) >= SMALLEST
        and not (named and pd.api.types.is_numeric_dtype(X[name]))
        and _is_identifier(X[name])
    ]
    if identifiers:
        yield (
            f"columns that look like identifiers, distinct in nearly every row: "
            f"{listed(identifiers)}; take an identifier out of dataset.columns, or make it "
            "dataset.id"
        )


def _is_identifier(column: pd.Series) -> bool:
    """Return whether text or whole numbers are distinct in nearly every row; no decimals are."""
    numeric = pd.api.types.is_numeric_dtype(column)
    for part in (column.iloc[:1000], column):  # most columns need no second look
        known = part.dropna()
        if (numeric and (known != np.floor(known)).any()) or known.nunique() < UNIQUE * len(part):
            return False
    return True


def _of_pairs(X: pd.DataFrame) -> Iterator[str]:
    numbers = X.select_dtypes("number")
    values = numbers.to_numpy()[_spread(np.arange(len(X)))]
    if len(values) < FEW or not numbers.shape[1]:
        return
    values = np.where(np.isnan(values), np.nanmean(values, axis=0), values)
    varied = np.flatnonzero(values.std(axis=0) > 0)
    if len(varied) < 2:
        return
    r = np.abs(np.corrcoef(values[:, varied], rowvar=False))
    names = numbers.columns[varied]
    pairs = zip(*np.nonzero(np.triu(r >= REDUNDANT, k=1)), strict=True)
    shown = [f"{names[a]} and {names[b]}" for a, b in pairs]
    if shown:
        yield (
            f"redundant columns (absolute correlation of {REDUNDANT} or more): "
            f"{listed(shown, 5, length=90)}"
        )


def _of_the_target(y: np.ndarray, contract: Contract) -> Iterator[str]:
    share = float(y.mean())
    if min(share, 1 - share) < RARE:
        rare, outcome = (share, "left") if share < 0.5 else (1 - share, "stayed")
        yield (
            f"only {rare:.2%} of {len(y):,} members {outcome} ({contract.target}): accuracy says "
            "little here; look at average_precision and log_loss"
        )


def target_codes(raw: pd.Series, y: np.ndarray, contract: Contract) -> Iterator[str]:
    """Warn of codes of the target that may mean the opposite: 1 and 2, or more leavers than
    stayers. A model of the inverted question is as good as the right one."""
    texts = raw.astype("str").str.strip().str.removesuffix(".0")
    left, stayed = (texts[y == outcome].iloc[0] for outcome in (1, 0))
    codes = [left.casefold(), stayed.casefold()]
    known = {*codes} in USUAL or any(len(code) > 2 and not _is_number(code) for code in codes)
    share = float(y.mean())
    if known and share <= 0.5:
        return
    counts = f"{contract.target} is {left} in {y.sum():,} rows and {stayed} in {(1 - y).sum():,}"
    yield (
        f"{counts}, and {left} counts as left, so {share:.1%} of the members did; if it means "
        f"that they stayed, set {shlex.quote(f'dataset.positive={stayed}')}"
    )


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _of_repeated_rows(X: pd.DataFrame, y: np.ndarray, ids: pd.Series | None) -> Iterator[str]:
    """Warn of members equal in every feature, if the columns are too rich for chance duplicates.

    Members of different ids are alike and not the same: there is nothing to remove.
    """
    repeated, conflicting = duplicate_rows(X, y)
    if not repeated and not conflicting:
        return
    most = 10 * _expected_pairs(X)
    same = repeated if ids is None else _repeated_with_id(X, y, ids)
    if same > most:
        yield (
            f"{same:,} of {len(X):,} rows repeat an earlier row, outcome included: was the "
            "table joined twice?"
        )
    elif repeated > most:
        yield (
            f"{repeated:,} of {len(X):,} members are alike with an earlier one in every feature "
            "and in outcome, though of different ids"
        )
    if conflicting > most:
        yield (
            f"{conflicting:,} times members are equal in every feature but differ in outcome: no "
            "model can separate them"
        )


def _repeated_with_id(X: pd.DataFrame, y: np.ndarray, ids: pd.Series) -> int:
    """Count the rows that repeat an earlier row, its outcome and its id."""
    return duplicate_rows(X.assign(**{"id of the contract": ids.astype("str")}), y)[0]


def train_test_overlap(
    X: pd.DataFrame,
    y: np.ndarray,
    *,
    train: np.ndarray,
    test: np.ndarray,
    ids: pd.Series | None = None,
) -> Iterator[str]:
    """Warn of test members that are in the training set, too: their scores are no forecast.

    ``train`` and ``test`` are 0-based positions. Silent where chance may make duplicates, and where
    ids say that they are different members.
    """
    repeated = duplicate_rows(X, y)[0] if ids is None else _repeated_with_id(X, y, ids)
    if repeated and repeated > 10 * _expected_pairs(X):
        members = row_groups(X) * 2 + y
        known = int(np.isin(members[test], members[train]).sum())
        yield (
            f"{known:,} of the {len(test):,} test members are in the training set, too, equal in "
            "every feature and in outcome: test scores are too good by them; remove repeated rows "
            "from the table"
        )


def duplicate_rows(X: pd.DataFrame, y: np.ndarray) -> tuple[int, int]:
    """Count rows that repeat an earlier row and its outcome, and groups of equal rows with both
    outcomes.

    >>> duplicate_rows(pd.DataFrame({"age": [30, 30, 30, 41]}), np.array([0, 0, 1, 1]))
    (1, 1)
    """
    outcomes = np.bincount(row_groups(X) * 2 + y, minlength=2 * len(X)).reshape(-1, 2) > 0
    return len(X) - int(outcomes.sum()), int(outcomes.all(axis=1).sum())


def _expected_pairs(X: pd.DataFrame) -> float:
    """Return the expected number of pairs equal in every column if the columns were independent."""
    sample = X.iloc[_spread(np.arange(len(X)))]
    meet = [
        float((sample[name].value_counts(normalize=True, dropna=False) ** 2).sum()) for name in X
    ]
    return len(X) * (len(X) - 1) / 2 * math.prod(meet)


def row_groups(X: pd.DataFrame) -> np.ndarray:
    """Number the rows so that rows equal in every column share a number; a gap equals a gap.

    A weighted sum sorts equal rows together; then neighbors are compared cell by cell.
    """
    weights = np.random.default_rng(0).uniform(1, 2, X.shape[1])
    codes = [
        X[name].to_numpy()
        if pd.api.types.is_numeric_dtype(X[name])
        else pd.factorize(X[name])[0].astype("float64")
        for name in X
    ]
    key = np.zeros(len(X))
    for weight, values in zip(weights, codes, strict=True):
        key += weight * np.nan_to_num(values, nan=-1.5)
    order = np.argsort(key, kind="stable")
    near = np.flatnonzero(key[order][1:] == key[order][:-1])
    one, other = order[near], order[near + 1]
    same = np.ones(len(near), bool)
    for values in codes:
        same &= (values[one] == values[other]) | (np.isnan(values[one]) & np.isnan(values[other]))
    new = np.ones(len(X), "int64")
    new[near[same] + 1] = 0
    groups = np.empty(len(X), "int64")
    groups[order] = np.cumsum(new) - 1
    return groups
