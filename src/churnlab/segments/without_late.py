"""Compare segments from all columns with segments from those that are known early."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import adjusted_rand_score

from churnlab.formatting import listed
from churnlab.segments.choose_k import check_members, check_rows, shortfall, stability_per_k
from churnlab.segments.clusterers import Clusterer
from churnlab.segments.kmeans import dependent_columns, segment_frame
from churnlab.segments.portraits import profile


def without_late(
    X: pd.DataFrame,
    y: np.ndarray,
    labels: np.ndarray,
    *,
    clusterer: Clusterer,
    columns: Mapping[str, str],
    late: Sequence[str],
    early: Mapping[str, str] | None,
    starts: Mapping[str, int],
    effort: Mapping[str, int],
) -> dict[str, Any] | None:
    """Segment by columns that are known early, into as many segments; None if no column is left.

    ``early`` are these columns; by default those of ``columns`` that need no ``late`` one. Keys:
    columns, agreement (adjusted Rand index with ``labels``), the criteria of
    choose_k.stability_per_k, unstable (the limits it misses, or None), segments (size, churn_rate
    and its 95% CI).
    """
    dependent = dependent_columns(columns, late)
    known = early or {name: made for name, made in columns.items() if name not in dependent}
    if not known:
        return None
    k, frame = int(labels.max()) + 1, segment_frame(X, known)
    check_rows(frame, k)
    fits = clusterer.fit(clusterer.space(frame), [k], **starts)
    check_members(fits[k])
    stability = stability_per_k(frame, fits, y=y, clusterer=clusterer, **effort)
    found = stability.per_k.loc[k].dropna().to_dict()
    segments = profile(X, fits[k].labels_, y)[["size", "churn_rate", "churn_low", "churn_high"]]
    return {
        "columns": dict(known),
        "agreement": float(adjusted_rand_score(labels, fits[k].labels_)),
        **{str(name): value for name, value in found.items()},
        "unstable": shortfall(found),
        "segments": segments.to_dict("records"),
    }


def early_comparison(early: Mapping[str, Any] | None) -> str:
    """Compare the segments with those from columns that are known early (without_late)."""
    if early is None:
        return "Without them, no column is left to segment by."
    auc = early.get("heldout_churn_auc")
    churn = "" if auc is None else f" and their held-out churn AUC {auc:.3f}"
    return (
        f"The same number of segments from columns known earlier "
        f"({listed(list(early['columns']), 12)}) agrees with these at an adjusted Rand index of "
        f"{early['agreement']:.2f} (1 is identical); their bootstrap ARI is "
        f"{early['bootstrap_ari']:.2f}{churn}."
    )
