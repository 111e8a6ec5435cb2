"""Gather evidence for each number of segments k, and choose one by a rule.

Churn is used in one column of the evidence only, the held-out churn AUC, which no rule reads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from sklearn.metrics import (
    calinski_harabasz_score,
    davies_bouldin_score,
    pairwise_distances_chunked,
)

from churnlab.segments.clusterers import KMEANS, Clusterer, Fit, MixtureFit
from churnlab.segments.dendrogram import WardTree, height_gaps, ward_agreement
from churnlab.segments.kmeans import MOST_ROWS, sample_rows
from churnlab.segments.refits import inertia, refit
from churnlab.segments.space import Undivided
from churnlab.segments.stability import (
    bootstrap_agreement,
    gap_statistic,
    heldout_churn_auc,
    prediction_strength,
)
from churnlab.threads import one_thread, spread

STABLE = {"bootstrap_ari": 0.85, "prediction_strength": 0.8, "min_share": 0.05}
"""The minimum of each criterion for a stable k, a cut that comes back on other members. That does
not show that the segments are groups: null_model tests it. For prediction strength Tibshirani and
Walther (2005) propose .8 to .9 plus one standard error; here the mean must reach it without."""

STABLE_MIXTURE = {"bootstrap_ari": 0.85, "jaccard_min": 0.75, "min_share": 0.05}
"""The same of a mixture, a clusterer with a BIC. Halvings cost it more than k-means: half the rows
do not show a class that all rows show, so that of planted classes which come back on 97% of the
resamples a fifth misses the prediction strength of STABLE. Hennig's (2007) limit for the worst
segment, .75, takes its place."""

FALLBACK_K = 3
"""Chosen when no k is stable."""

CHUNK_MIB = 32
"""Memory for the distances of one chunk of rows: it fits the processor's cache."""

SAMPLED_CRITERIA = (
    "silhouette",
    "bootstrap_ari",
    "prediction_strength",
    "gap",
    "heldout_churn_auc",
    "null_p",
)
"""Criteria that are computed on a sample of tables with more than kmeans.MOST_ROWS rows."""


class Evidence(NamedTuple):
    """What was found about each number of segments.

    ``per_k`` has one row per k and one float64 column per criterion; ``jaccard``, for each k, how
    well each segment comes back (stability.Agreement).
    """

    per_k: pd.DataFrame
    jaccard: dict[int, np.ndarray]


class Choice(NamedTuple):
    """A number of segments, the reason in one sentence, and the limits that it misses (None: it is
    stable)."""

    k: int
    reason: str
    unstable: str | None

    @property
    def warning(self) -> str | None:
        """Return the caveat that every result of an unstable k carries; None for a stable one."""
        if self.unstable is None:
            return None
        start = f"{self.k} segments are not stable and may look different on other members"
        return f"{start}: {self.unstable}."


def evidence_per_k(
    frame: pd.DataFrame,
    tree: WardTree,
    fits: Mapping[int, Fit],
    *,
    y: np.ndarray | None = None,
    random_state: int,
    references: int = 10,
    max_rows: int = MOST_ROWS,
    clusterer: Clusterer = KMEANS,
    **effort: int,
) -> Evidence:
    """Gather the evidence for each k, and the gap of k = 1: one segment, no groups.

    ``tree`` is the Ward tree and ``fits`` the clusterer's of each k on the frame's coordinates; the
    gap statistic draws ``references`` tables. The other arguments are those of stability_per_k,
    whose columns are included. The other criteria of k = 1 are NaN; only mixtures have a BIC.
    """
    Z, ks = clusterer.space(frame).Z, list(fits)
    rows = sample_rows(len(Z), max_rows, random_state=random_state)
    inertias = _inertias(Z, fits, rows, random_state=random_state)
    gaps = gap_statistic(Z[rows], inertias, references=references, random_state=random_state)
    full = {k: fit for k, fit in fits.items() if not empty(fit)}
    found = pd.DataFrame(
        spread(lambda fit: fit_criteria(Z, fit, tree), fits.values()),
        index=pd.Index(ks, name="k"),
        dtype=np.float64,
    ).assign(silhouette=pd.Series(silhouettes(Z[rows], _labels(full, rows)), dtype=np.float64))
    gap = pd.DataFrame.from_dict(gaps, orient="index", columns=["gap", "gap_s"])
    stable = stability_per_k(
        frame,
        fits,
        y=y,
        random_state=random_state,
        max_rows=max_rows,
        clusterer=clusterer,
        **effort,
    )
    per_k = gap.rename_axis("k").join([found, stable.per_k])
    return Evidence(per_k[[*found, *gap, *stable.per_k]], stable.jaccard)


def _inertias(
    Z: np.ndarray, fits: Mapping[int, Fit], rows: np.ndarray, *, random_state: int
) -> dict[int, float]:
    """Return the inertia of k-means for 1 segment and each k, on as many rows as a sample has.

    The gap statistic is about k-means; a mixture does not make the inertia small.
    """
    whole = {1: float((Z**2).sum())} | {k: fit.inertia_ for k, fit in fits.items()}
    if any(isinstance(fit, MixtureFit) for fit in fits.values()):
        part = Z[rows]
        centers = refit(part, fits, 10, np.random.default_rng(random_state))
        whole |= {k: inertia(part, of_k) * len(Z) / len(rows) for k, of_k in centers.items()}
    return {k: value * len(rows) / len(Z) for k, value in whole.items()}


def stability_per_k(
    frame: pd.DataFrame,
    fits: Mapping[int, Fit],
    *,
    y: np.ndarray | None = None,
    random_state: int,
    bootstraps: int = 20,
    refit_n_init: int = 10,
    splits: int = 20,
    max_rows: int = MOST_ROWS,
    clusterer: Clusterer = KMEANS,
) -> Evidence:
    """Measure the stability of each k on other rows: among other columns, those of STABLE.

    ``y`` (1 = left) only adds heldout_churn_auc. The values of one k depend neither on the other k
    nor on the number of cores. Above ``max_rows`` rows the SAMPLED_CRITERIA see a seeded sample of
    that size.
    """
    (Z, layout), ks = clusterer.space(frame), list(fits)
    rows = sample_rows(len(Z), max_rows, random_state=random_state)
    quick = clusterer.quick(layout)
    refits: dict[str, Any] = {"n_init": refit_n_init, "random_state": random_state, "refit": quick}
    agreement = bootstrap_agreement(Z[rows], _labels(fits, rows), resamples=bootstraps, **refits)
    strength = prediction_strength(Z[rows], ks, splits=splits, **refits)
    smallest = {k: np.bincount(fits[k].labels_, minlength=k).min() / len(Z) for k in ks}
    stability = pd.DataFrame(
        {
            "min_share": smallest,
            "bootstrap_ari": agreement.ari.mean(),
            "bootstrap_ari_min": agreement.ari.min(),
            "jaccard_min": pd.Series({k: of_k.min() for k, of_k in agreement.jaccard.items()}),
            "prediction_strength": strength.mean(),
            "prediction_strength_sd": strength.std(ddof=0),
            "prediction_strength_se": strength.std(ddof=1) / np.sqrt(splits),
        }
    )
    if y is not None:
        values = Z if layout.levels else frame.to_numpy()
        rescale = not layout.levels
        aucs = heldout_churn_auc(values[rows], y[rows], ks, rescale=rescale, **refits)
        stability = stability.assign(heldout_churn_auc=pd.Series(aucs))
    return Evidence(stability, agreement.jaccard)


def _labels(fits: Mapping[int, Fit], rows: np.ndarray) -> dict[int, np.ndarray]:
    return {k: fit.labels_[rows] for k, fit in fits.items()}


def fit_criteria(Z: np.ndarray, fit: Fit, tree: WardTree) -> dict[str, float]:
    """Return the criteria of one fit on the rows it was fitted on; Ward's on the tree's rows."""
    labels, k = fit.labels_, fit.n_clusters
    likelihood = {"bic": fit.bic} if isinstance(fit, MixtureFit) else {}
    scores = dict.fromkeys(("calinski_harabasz", "davies_bouldin"), np.nan)
    if not empty(fit):
        scores["calinski_harabasz"] = calinski_harabasz_score(Z, labels)
        scores["davies_bouldin"] = davies_bouldin_score(Z, labels)
    return {
        **likelihood,
        "inertia": fit.inertia_,
        **scores,
        "ward_height_gap": height_gaps(tree, [k])[k],
        "ward_agreement": ward_agreement(tree, labels, k),
    }


def empty(fit: Fit) -> bool:
    """Return whether a segment has no member: a mixture can have one to which nobody is nearest."""
    return len(np.unique(fit.labels_)) < fit.n_clusters


def silhouettes(Z: np.ndarray, labels: Mapping[int, np.ndarray]) -> dict[int, float]:
    """Return the mean silhouette of each k's labels (0 .. k-1). Rousseeuw (1987).

    Equal to scikit-learn's silhouette_score, but the distances are computed once for all k.
    """
    members = [np.eye(k)[numbers] for k, numbers in labels.items()]
    with one_thread():
        chunks = pairwise_distances_chunked(
            Z,
            reduce_func=lambda distances, start: tuple(distances @ one_hot for one_hot in members),
            working_memory=CHUNK_MIB,
        )
        sums = [np.vstack(parts) for parts in zip(*chunks, strict=True)]
    return {k: _silhouette(of_k, labels[k]) for k, of_k in zip(labels, sums, strict=True)}


def _silhouette(sums: np.ndarray, labels: np.ndarray) -> float:
    """Average (nearest other - own) / larger, from each row's sums of distances to the segments.

    A segment of one row counts as 0.
    """
    own, sizes = (np.arange(len(labels)), labels), np.bincount(labels, minlength=sums.shape[1])
    inside = sums[own] / np.maximum(sizes[labels] - 1, 1)
    means = sums / sizes
    means[own] = np.inf
    nearest = means.min(axis=1)
    values = (nearest - inside) / np.maximum(np.maximum(nearest, inside), np.finfo(float).tiny)
    return float(np.where(sizes[labels] > 1, values, 0.0).mean())


def check_rows(frame: pd.DataFrame, most: int) -> None:
    """Check that a frame has enough distinct rows for ``most`` segments; Undivided if not."""
    distinct, enough = len(frame.drop_duplicates()), most_segments(frame)
    if most > enough:
        fix = (
            "Choose more columns, or promote without segments (churnlab promote segment_run=none)."
        )
        if enough > 1:
            fix = (
                f"At most {enough} are possible: segments.k={enough} 'segments.range=[2,{enough}]'."
            )
        raise Undivided(
            f"{len(frame)} rows with {distinct} distinct combinations of the segmentation's "
            f"columns are too few for {most} segments: there must be ten rows per segment and more "
            f"combinations than segments. {fix}"
        )


def most_segments(frame: pd.DataFrame) -> int:
    """Return the largest number of segments for which a frame has enough distinct rows."""
    return min(len(frame) // 10, len(frame.drop_duplicates()) - 1)


def examined(ks: Sequence[int], chosen: int | Literal["auto"], frame: pd.DataFrame) -> list[int]:
    """Return which of these numbers of segments to examine: beyond one that was chosen by hand,
    only those for which there are enough rows."""
    most = max(ks) if chosen == "auto" else max(chosen, most_segments(frame))
    return [k for k in ks if k <= most]


def check_members(fit: Fit) -> None:
    """Refuse a number of segments, set by hand, if one of them has no member."""
    if empty(fit):
        raise Undivided(
            f"Of {fit.n_clusters} segments one would have no member; choose fewer (segments.k=...)."
        )


def choose_k(evidence: pd.DataFrame) -> Choice:
    """Choose the stable k with the largest Ward gap (ties: the larger silhouette), of mixtures that
    with the lowest BIC; 3 if none is stable."""
    evidence = segmented(evidence)
    limits = stable_limits(evidence)
    stable = evidence[(evidence[list(limits)] >= pd.Series(limits)).all(axis=1)]
    if stable.empty:
        empty = evidence["min_share"] == 0
        k = min(map(int, evidence.index), key=lambda k: (empty[k], abs(k - FALLBACK_K)))
        required = f"required: {_figures(limits)}"
        why = f"is the fallback, because no number among {_ks(evidence)} is stable ({required})"
        return _choice(evidence, k, why)
    by, best = ["ward_height_gap", "silhouette"], "the largest Ward gap"
    if "bic" in evidence:
        stable, by, best = stable.assign(minus=-stable["bic"]), ["minus"], "the lowest BIC"
    k = int(stable.sort_values(by, ascending=False, kind="stable").index[0])
    name, value = "Ward gap", f"{stable['ward_height_gap'][k]:.1f}"
    if "bic" in evidence:
        name, value = "BIC", f"{stable['bic'][k]:.0f}"
    why = f"has {best} ({value}) of the stable numbers of segments, {_ks(stable)}"
    if len(stable) == 1:
        why = f"is the only stable number of segments among {_ks(evidence)} ({name} {value})"
    return _choice(evidence, k, why)


def stable_limits(found: Any) -> dict[str, float]:
    """Return the limits of a stable k among these criteria, of one k or of several."""
    return STABLE_MIXTURE if "bic" in found else STABLE


def segmented(evidence: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of two segments or more: k = 1 has a gap and is no segmentation."""
    return evidence[evidence.index > 1]


def better_k(evidence: pd.DataFrame, k: int) -> int | None:
    """Return the number of segments with the lowest BIC, None if it is ``k`` or there is no BIC."""
    if "bic" not in evidence:
        return None
    lowest = int(evidence.index[int(evidence["bic"].argmin())])
    return None if lowest == k else lowest


def given_k(evidence: pd.DataFrame, k: int) -> Choice:
    """Keep the k that the user set; the reason compares it with the choice of the rule."""
    chosen = choose_k(evidence)
    rule = f"the rule {'agrees' if chosen.k == k else f'would choose {chosen.k}'}"
    return _choice(evidence, k, f"was set by hand, and {rule}")


def _choice(evidence: pd.DataFrame, k: int, why: str) -> Choice:
    row = evidence.loc[k].to_dict()
    return Choice(k, f"k={k} {why}: {_figures(row)}", shortfall(row))


def shortfall(found: Mapping[Any, Any]) -> str | None:
    """Name the limits of STABLE that one k misses; None if it misses none.

    >>> shortfall({"bootstrap_ari": 0.9, "prediction_strength": 0.47, "min_share": 0.1})
    'prediction strength 0.47 (required: 0.8)'
    """
    words = {
        "bootstrap_ari": "bootstrap ARI",
        "prediction_strength": "prediction strength",
        "jaccard_min": "Jaccard index of the worst segment",
        "min_share": "smallest share",
    }
    missed = [
        f"{words[name]} {found[name]:.2f} (required: {limit:g})"
        for name, limit in stable_limits(found).items()
        if not found[name] >= limit
    ]
    return ", ".join(missed) or None


def k_per_criterion(evidence: pd.DataFrame) -> dict[str, int | None]:
    """Return the k that each criterion alone would choose; None if its own rule finds none.

    The largest value, or the smallest of Davies-Bouldin; the others by their authors' rules: the
    gap takes the first k within one standard error of the next one examined (Tibshirani, Walther
    and Hastie 2001), prediction strength the largest k that reaches its limit with one standard
    error added, and 1 if none does (Tibshirani and Walther 2005), inertia the elbow: the k farthest
    below the line between its ends. The gap, too, may choose 1: no groups. The held-out churn AUC
    and the smallest share choose nothing.
    """
    rules = {name: rule for name, rule in RULES.items() if name in evidence}
    return {name: None if (k := rule(evidence)) is None else int(k) for name, rule in rules.items()}


def _one_standard_error(evidence: pd.DataFrame) -> Any:
    following = (evidence["gap"] - evidence["gap_s"]).shift(-1)
    enough = evidence.index[evidence["gap"] >= following]
    return enough[0] if len(enough) else None


def _strong_enough(evidence: pd.DataFrame) -> Any:
    reached = evidence["prediction_strength"] + evidence["prediction_strength_se"]
    strong = evidence.index[reached >= STABLE["prediction_strength"]]
    return strong[-1] if len(strong) else 1


def _elbow(evidence: pd.DataFrame) -> Any:
    inertia = segmented(evidence)["inertia"]
    line = np.linspace(inertia.iloc[0], inertia.iloc[-1], len(inertia))
    return (line - inertia).idxmax() if len(inertia) > 2 else None


RULES: Mapping[str, Callable[[pd.DataFrame], Any]] = {
    "ward_height_gap": lambda evidence: evidence["ward_height_gap"].idxmax(),
    "silhouette": lambda evidence: evidence["silhouette"].idxmax(),
    "calinski_harabasz": lambda evidence: evidence["calinski_harabasz"].idxmax(),
    "davies_bouldin": lambda evidence: evidence["davies_bouldin"].idxmin(),
    "gap": _one_standard_error,
    "inertia": _elbow,
    "bootstrap_ari": lambda evidence: evidence["bootstrap_ari"].idxmax(),
    "prediction_strength": _strong_enough,
    "ward_agreement": lambda evidence: evidence["ward_agreement"].idxmax(),
    "bic": lambda evidence: evidence["bic"].idxmin(),
}
"""How each criterion chooses by itself."""


def _figures(row: Mapping[Any, Any]) -> str:
    strength = (
        f"Jaccard index of the worst segment {row['jaccard_min']:.2f}"
        if "prediction_strength" not in row or "bic" in row
        else f"prediction strength {row['prediction_strength']:.2f}"
    )
    return (
        f"bootstrap ARI {row['bootstrap_ari']:.2f}, {strength}, "
        f"smallest segment {row['min_share']:.1%} of the members"
    )


def _ks(evidence: pd.DataFrame) -> str:
    *others, last = map(str, evidence.index)
    return f"{', '.join(others)} and {last}" if others else last
