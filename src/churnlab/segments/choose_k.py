"""The evidence for each number of segments, and the rule that chooses one.

The target enters one column of the evidence, the held-out churn AUC, which chooses nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from sklearn.cluster import KMeans
from sklearn.metrics import (
    calinski_harabasz_score,
    davies_bouldin_score,
    pairwise_distances_chunked,
)

from churnlab.errors import InputError
from churnlab.segments.dendrogram import WardTree, height_gaps, ward_agreement
from churnlab.segments.kmeans import MOST_ROWS, sample_rows, standardized
from churnlab.segments.stability import (
    bootstrap_ari,
    gap_statistic,
    heldout_churn_auc,
    prediction_strength,
)
from churnlab.threads import on_all_cores, one_thread

STABLE = {"bootstrap_ari": 0.85, "prediction_strength": 0.8, "min_share": 0.05}
"""What a number of segments must reach to be stable; Tibshirani and Walther (2005) propose .8 to .9
for the second."""

FALLBACK_K = 3
"""Taken when no number of segments is stable."""

CHUNK_MIB = 32
"""Memory for the distances of one piece of the rows: it stays near the processor."""

ON_SAMPLES = ("silhouette", "bootstrap_ari", "prediction_strength", "gap", "heldout_churn_auc")
"""Criteria that above clustering.MOST_ROWS rows stand on a sample of as many."""


class Choice(NamedTuple):
    """A number of segments, one sentence that says why in numbers, and what it misses to be stable
    (None: nothing)."""

    k: int
    reason: str
    unstable: str | None

    @property
    def warning(self) -> str | None:
        """What is said beside every result of a number that is not stable."""
        if self.unstable is None:
            return None
        return f"{self.k} segments are not stable and may look different on other members: {self.unstable}."


def evidence_per_k(
    frame: pd.DataFrame,
    tree: WardTree,
    fits: Mapping[int, KMeans],
    *,
    y: np.ndarray | None = None,
    random_state: int,
    references: int = 10,
    max_rows: int = MOST_ROWS,
    **effort: int,
) -> pd.DataFrame:
    """What each number of segments has for and against it: one row per k, one float64 column per
    criterion.

    ``tree`` is the Ward tree and ``fits`` the k-means of each k (clustering.fit_kmeans) of the same
    frame, standardised; ``references`` tables are behind the gap statistic. The other arguments are
    those of trust_per_k, whose columns stand here, too.
    """
    Z, ks = standardized(frame), list(fits)
    rows = sample_rows(len(Z), max_rows, random_state=random_state)
    inertias = {k: kmeans.inertia_ * len(rows) / len(Z) for k, kmeans in fits.items()}
    gaps = gap_statistic(Z[rows], inertias, references=references, random_state=random_state)
    found = pd.DataFrame(
        on_all_cores(lambda k: criteria(Z, fits[k], tree), ks),
        index=pd.Index(ks, name="k"),
        dtype=np.float64,
    ).assign(
        silhouette=pd.Series(
            silhouettes(Z[rows], {k: kmeans.labels_[rows] for k, kmeans in fits.items()})
        ),
        gap=pd.Series({k: gap for k, (gap, _) in gaps.items()}),
        gap_s=pd.Series({k: error for k, (_, error) in gaps.items()}),
    )
    return found.join(
        trust_per_k(frame, fits, y=y, random_state=random_state, max_rows=max_rows, **effort)
    )


def trust_per_k(
    frame: pd.DataFrame,
    fits: Mapping[int, KMeans],
    *,
    y: np.ndarray | None = None,
    random_state: int,
    bootstraps: int = 20,
    refit_n_init: int = 10,
    splits: int = 20,
    max_rows: int = MOST_ROWS,
) -> pd.DataFrame:
    """How far each number of segments can be trusted on other rows: one row per k, what STABLE asks
    for and more.

    ``y`` (1 = left) adds nothing but heldout_churn_auc. The values of one k do not depend on the
    other k, nor on the number of cores. Above ``max_rows`` rows the criteria ON_SAMPLES see a
    seeded sample of so many.
    """
    Z, ks = standardized(frame), list(fits)
    rows = sample_rows(len(Z), max_rows, random_state=random_state)
    refits = {"n_init": refit_n_init, "random_state": random_state}
    agreement = bootstrap_ari(
        Z[rows],
        {k: kmeans.labels_[rows] for k, kmeans in fits.items()},
        resamples=bootstraps,
        **refits,
    )
    strength = prediction_strength(Z[rows], ks, splits=splits, **refits)
    trust = pd.DataFrame(
        {
            "min_share": {
                k: np.bincount(kmeans.labels_, minlength=k).min() / len(Z)
                for k, kmeans in fits.items()
            },
            "bootstrap_ari": agreement.mean(),
            "bootstrap_ari_min": agreement.min(),
            "prediction_strength": strength.mean(),
            "prediction_strength_sd": strength.std(ddof=0),
        }
    )
    if y is None:
        return trust
    aucs = heldout_churn_auc(frame.to_numpy()[rows], y[rows], ks, **refits)
    return trust.assign(heldout_churn_auc=pd.Series(aucs))


def criteria(Z: np.ndarray, kmeans: KMeans, tree: WardTree) -> dict[str, float]:
    """What one fit is worth on the rows it was fitted on; Ward sees the tree's rows."""
    labels, k = kmeans.labels_, kmeans.n_clusters
    return {
        "inertia": kmeans.inertia_,
        "calinski_harabasz": calinski_harabasz_score(Z, labels),
        "davies_bouldin": davies_bouldin_score(Z, labels),
        "ward_height_gap": height_gaps(tree, [k])[k],
        "ward_agreement": ward_agreement(tree, labels, k),
    }


def silhouettes(Z: np.ndarray, labels: Mapping[int, np.ndarray]) -> dict[int, float]:
    """The mean silhouette of each labelling (with labels 0 .. k-1); the distances are computed once
    for all of them.

    scikit-learn's silhouette_score to the last digits, at the cost of one. Rousseeuw (1987).
    """
    members = {k: np.eye(k)[numbers] for k, numbers in labels.items()}
    with one_thread():
        pieces = pairwise_distances_chunked(
            Z,
            reduce_func=lambda distances, start: tuple(
                distances @ of_k for of_k in members.values()
            ),
            working_memory=CHUNK_MIB,
        )
        sums = [np.vstack(parts) for parts in zip(*pieces, strict=True)]
    return {k: _silhouette(of_k, labels[k]) for k, of_k in zip(members, sums, strict=True)}


def _silhouette(sums: np.ndarray, labels: np.ndarray) -> float:
    """From each row's sums of distances to the segments: (other - own) / larger; a segment of one
    row counts 0."""
    own, sizes = (np.arange(len(labels)), labels), np.bincount(labels, minlength=sums.shape[1])
    inside = sums[own] / np.maximum(sizes[labels] - 1, 1)
    means = sums / sizes
    means[own] = np.inf
    nearest = means.min(axis=1)
    values = (nearest - inside) / np.maximum(np.maximum(nearest, inside), np.finfo(float).tiny)
    return float(np.where(sizes[labels] > 1, values, 0.0).mean())


def check_rows(frame: pd.DataFrame, most: int) -> None:
    """Refuse a frame with too few rows, or too few that differ, for ``most`` segments."""
    distinct = len(frame.drop_duplicates())
    if distinct <= most or len(frame) < 10 * most:
        raise InputError(
            f"{len(frame)} rows with {distinct} distinct combinations of the segmentation's "
            f"columns are too few for {most} segments: it takes ten rows a segment and more "
            "combinations than segments. Lower segments.range and segments.k, or choose more "
            "columns."
        )


def choose_k(evidence: pd.DataFrame) -> Choice:
    """The stable number of segments with the largest Ward gap (a tie: the larger silhouette); none
    stable: 3."""
    stable = evidence[(evidence[list(STABLE)] >= pd.Series(STABLE)).all(axis=1)]
    if stable.empty:
        k = min(map(int, evidence.index), key=lambda number: abs(number - FALLBACK_K))
        why = f"the fallback, no number of segments among {_list(evidence)} is stable ({_limits()})"
        return Choice(
            k, f"k={k}: {why}; {_figures(evidence, k)}", shortfall(evidence.loc[k].to_dict())
        )
    k = int(
        stable.sort_values(["ward_height_gap", "silhouette"], ascending=False, kind="stable").index[
            0
        ]
    )
    gap = f"Ward gap ({stable['ward_height_gap'].max():.1f})"
    why = f"largest {gap} among the stable numbers of segments {_list(stable)}"
    if len(stable) == 1:
        why = f"the only stable number of segments among {_list(evidence)}, {gap}"
    return Choice(k, f"k={k}: {why}; {_figures(evidence, k)}", None)


def given_k(evidence: pd.DataFrame, k: int) -> Choice:
    """The number of segments the user set, with what the evidence says of it and what the rule
    would choose."""
    chosen = choose_k(evidence)
    rule = f"the rule {'agrees' if chosen.k == k else f'would choose {chosen.k}'}"
    return Choice(
        k,
        f"k={k}: set by hand, {rule}; {_figures(evidence, k)}",
        shortfall(evidence.loc[k].to_dict()),
    )


def shortfall(found: Mapping[Any, Any]) -> str | None:
    """What one number of segments misses to be stable, in words; None when it misses nothing."""
    words = {
        "bootstrap_ari": "bootstrap ARI",
        "prediction_strength": "prediction strength",
        "min_share": "smallest share",
    }
    missed = [
        f"{words[name]} {found[name]:.2f} where {limit:g} is asked for"
        for name, limit in STABLE.items()
        if not found[name] >= limit
    ]
    return ", ".join(missed) or None


def chosen_by(evidence: pd.DataFrame) -> dict[str, int | None]:
    """The number of segments that each criterion alone would choose; None where its own rule finds
    none.

    Largest value, or least of Davies-Bouldin; the others by the rules of those who proposed them:
    the gap takes the first k that is within one standard error of the next (Tibshirani and others
    2001), prediction strength the largest k that reaches its limit (2005), inertia the k farthest
    below the line between its ends. The target chooses nothing, and so does the smallest share.
    """
    return {name: None if (k := rule(evidence)) is None else int(k) for name, rule in ALONE.items()}


def _one_standard_error(evidence: pd.DataFrame) -> Any:
    following = (evidence["gap"] - evidence["gap_s"]).shift(-1)
    enough = evidence.index[evidence["gap"] >= following]
    return enough[0] if len(enough) else None


def _strong_enough(evidence: pd.DataFrame) -> Any:
    strong = evidence.index[evidence["prediction_strength"] >= STABLE["prediction_strength"]]
    return strong[-1] if len(strong) else None


def _bend(evidence: pd.DataFrame) -> Any:
    inertia = evidence["inertia"]
    line = np.linspace(inertia.iloc[0], inertia.iloc[-1], len(inertia))
    return (line - inertia).idxmax() if len(inertia) > 2 else None


ALONE: Mapping[str, Callable[[pd.DataFrame], Any]] = {
    "ward_height_gap": lambda evidence: evidence["ward_height_gap"].idxmax(),
    "silhouette": lambda evidence: evidence["silhouette"].idxmax(),
    "calinski_harabasz": lambda evidence: evidence["calinski_harabasz"].idxmax(),
    "davies_bouldin": lambda evidence: evidence["davies_bouldin"].idxmin(),
    "gap": _one_standard_error,
    "inertia": _bend,
    "bootstrap_ari": lambda evidence: evidence["bootstrap_ari"].idxmax(),
    "prediction_strength": _strong_enough,
    "ward_agreement": lambda evidence: evidence["ward_agreement"].idxmax(),
}
"""How each criterion chooses by itself."""


def _figures(evidence: pd.DataFrame, k: int) -> str:
    return _in_words(*evidence.loc[k, list(STABLE)])


def _limits() -> str:
    return f"at least {_in_words(*STABLE.values())}"


def _in_words(bootstrap_ari: float, prediction_strength: float, min_share: float) -> str:
    return f"bootstrap ARI {bootstrap_ari:.2f}, prediction strength {prediction_strength:.2f}, smallest {min_share:.1%}"


def _list(evidence: pd.DataFrame) -> str:
    return ", ".join(map(str, evidence.index))
