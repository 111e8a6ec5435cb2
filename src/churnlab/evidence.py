"""The evidence for each number of segments, and the rule that chooses one.

The target enters one column of the evidence, the held-out churn AUC, which chooses nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from sklearn.cluster import KMeans
from sklearn.metrics import calinski_harabasz_score, davies_bouldin_score, silhouette_score

from churnlab.clustering import fit_kmeans, one_thread, standardized
from churnlab.dendrogram import WardTree, height_gaps, ward_agreement
from churnlab.errors import InputError
from churnlab.stability import bootstrap_ari, gap_statistic, heldout_churn_auc, prediction_strength

STABLE = {"bootstrap_ari": 0.85, "prediction_strength": 0.8, "min_share": 0.05}
"""What a number of segments must reach to be stable; Tibshirani and Walther (2005) propose .8 to .9 for the second."""

FALLBACK_K = 3
"""Taken when no number of segments is stable."""


class Choice(NamedTuple):
    """A number of segments, one sentence that says why in numbers, and a warning when it is not stable."""

    k: int
    reason: str
    warning: str | None


def evidence_per_k(
    frame: pd.DataFrame,
    tree: WardTree,
    ks: Iterable[int],
    *,
    y: np.ndarray | None = None,
    random_state: int,
    n_init: int = 50,
    bootstraps: int = 20,
    refit_n_init: int = 10,
    splits: int = 20,
    references: int = 10,
    n_jobs: int = 1,
) -> pd.DataFrame:
    """What each number of segments has for and against it: one row per k, one float64 column per criterion.

    ``tree`` is the Ward tree of the same frame, standardised; its rows carry the silhouette too. ``y`` (1 = left)
    adds nothing but heldout_churn_auc. The values of one k do not depend on the other k, nor on
    ``n_jobs``, the number of processes. InputError: too few rows.
    """
    Z, numbers = standardized(frame), sorted(set(ks))
    _check_rows(frame, numbers[-1])

    def row(k: int) -> dict[str, float]:
        refits = {"n_init": refit_n_init, "random_state": random_state}
        kmeans = fit_kmeans(Z, k, n_init=n_init, random_state=random_state)
        agreement = bootstrap_ari(Z, kmeans.labels_, k, resamples=bootstraps, **refits)
        strength = prediction_strength(Z, k, splits=splits, **refits)
        gap, gap_s = gap_statistic(Z, kmeans.inertia_, k, references=references, random_state=random_state)
        return (
            criteria(Z, kmeans, tree)
            | {"gap": gap, "gap_s": gap_s}
            | {"bootstrap_ari": agreement.mean(), "bootstrap_ari_min": agreement.min()}
            | {"prediction_strength": strength.mean(), "prediction_strength_sd": strength.std()}
            | ({} if y is None else {"heldout_churn_auc": heldout_churn_auc(frame.to_numpy(), y, k, **refits)})
        )

    rows = Parallel(n_jobs=n_jobs)(delayed(row)(k) for k in numbers)
    return pd.DataFrame(rows, index=pd.Index(numbers, name="k"), dtype=np.float64)


def criteria(Z: np.ndarray, kmeans: KMeans, tree: WardTree) -> dict[str, float]:
    """What one fit is worth on the rows it was fitted on; the silhouette and Ward see the tree's rows."""
    labels, k = kmeans.labels_, kmeans.n_clusters
    with one_thread():
        return {
            "inertia": kmeans.inertia_,
            "silhouette": silhouette_score(Z[tree.rows], labels[tree.rows]),
            "calinski_harabasz": calinski_harabasz_score(Z, labels),
            "davies_bouldin": davies_bouldin_score(Z, labels),
            "min_share": np.bincount(labels, minlength=k).min() / len(labels),
            "ward_height_gap": height_gaps(tree, [k])[k],
            "ward_agreement": ward_agreement(tree, labels, k),
        }


def choose_k(evidence: pd.DataFrame) -> Choice:
    """The stable number of segments with the largest Ward gap (a tie: the larger silhouette); none stable: 3."""
    stable = evidence[(evidence[list(STABLE)] >= pd.Series(STABLE)).all(axis=1)]
    if stable.empty:
        k = min(map(int, evidence.index), key=lambda number: abs(number - FALLBACK_K))
        none = f"no number of segments among {_list(evidence)} is stable ({_limits()})"
        return Choice(
            k, f"k={k}: the fallback, {none}; {_figures(evidence, k)}", f"{k} segments as a fallback: {none}."
        )
    k = int(stable.sort_values(["ward_height_gap", "silhouette"], ascending=False, kind="stable").index[0])
    gap = f"Ward gap ({stable['ward_height_gap'].max():.1f})"
    why = f"largest {gap} among the stable numbers of segments {_list(stable)}"
    if len(stable) == 1:
        why = f"the only stable number of segments among {_list(evidence)}, {gap}"
    return Choice(k, f"k={k}: {why}; {_figures(evidence, k)}", None)


def given_k(evidence: pd.DataFrame, k: int) -> Choice:
    """The number of segments the user set, with what the evidence says of it and what the rule would choose."""
    chosen = choose_k(evidence)
    rule = f"the rule {'agrees' if chosen.k == k else f'would choose {chosen.k}'}"
    unstable = not (evidence.loc[k, list(STABLE)] >= pd.Series(STABLE)).all()
    warning = f"{k} segments are not stable ({_limits()}): {_figures(evidence, k)}." if unstable else None
    return Choice(k, f"k={k}: set by hand, {rule}; {_figures(evidence, k)}", warning)


def _check_rows(frame: pd.DataFrame, most: int) -> None:
    distinct = len(frame.drop_duplicates())
    if distinct <= most or len(frame) < 10 * most:
        raise InputError(
            f"{len(frame)} rows with {distinct} distinct combinations of the segmentation's columns are too few for "
            f"{most} segments: it takes ten rows a segment and more combinations than segments. Lower segments.range "
            "and segments.k, or choose more columns."
        )


def _figures(evidence: pd.DataFrame, k: int) -> str:
    return _in_words(*evidence.loc[k, list(STABLE)])


def _limits() -> str:
    return f"at least {_in_words(*STABLE.values())}"


def _in_words(bootstrap_ari: float, prediction_strength: float, min_share: float) -> str:
    return f"bootstrap ARI {bootstrap_ari:.2f}, prediction strength {prediction_strength:.2f}, smallest {min_share:.1%}"


def _list(evidence: pd.DataFrame) -> str:
    return ", ".join(map(str, evidence.index))
