"""What kinds of members there are: evidence for the number of segments, dendrogram, k-means, portraits, actions.

Why: the number of segments is chosen by what can be checked (stability under resampling, the dendrogram's largest
gap), never by taste; churn is no input and is measured afterwards. The playbook turns what a segment is like into what
to do about it.

    churnlab segment
    churnlab segment segments=seed002 playbook.language=ru
    churnlab segment dataset=gym dataset.path=members.csv segments.k=5
"""

from __future__ import annotations

import logging

import mlflow
import numpy as np
import pandas as pd

from churnlab import artifacts, schema, tracking
from churnlab.clustering import all_columns, fit_segmentation, segment_frame, standardized
from churnlab.commands import Result
from churnlab.data import Dataset
from churnlab.dendrogram import WardTree, proposed_k, ward_tree
from churnlab.evidence import Choice, choose_k, evidence_per_k, given_k
from churnlab.features import typical
from churnlab.playbook import check_playbook, text
from churnlab.plots import segments as plots
from churnlab.portraits import advice_for_everyone, deviations, portraits, profile

log = logging.getLogger(__name__)


def run(settings: schema.Segment, dataset: Dataset) -> Result:
    """Examine every number of segments in the range, choose one, fit it on all rows and describe it."""
    keys, playbook, y, fill = settings.segments, settings.playbook, dataset.y, typical(dataset.X)
    X = dataset.X.fillna(fill)
    columns = all_columns(X) if keys.columns == "all" else dict(keys.columns)
    frame = segment_frame(X, columns)
    guide = playbook.model_dump()
    check_playbook(guide, X)  # what is wrong with the playbook is said before the minutes that the evidence takes
    text(guide["naming"]["plain"], playbook.language)
    for_everyone = advice_for_everyone(guide, playbook.language)
    with tracking.start_run(
        "segment", settings.model_dump(), name=f"segments {keys.name}", dataset=dataset
    ) as mlflow_run:
        tree = ward_tree(standardized(frame), random_state=keys.random_state)
        evidence = evidence_per_k(frame, tree, keys.examined, y=y, **keys.effort)
        choice = choose_k(evidence) if keys.k == "auto" else given_k(evidence, keys.k)
        segmentation = fit_segmentation(frame, choice.k, n_init=keys.n_init, random_state=keys.random_state)
        labels = segmentation.predict(frame)
        described = portraits(X, labels, y, playbook=guide, language=playbook.language)
        _log_evidence(evidence, tree, choice)
        _log_segments(X, y, labels, [portrait["name"] for portrait in described])
        mlflow.log_dict(described, "portraits.json")
        mlflow.log_dict({"columns": columns, "fill": fill, "for_everyone": for_everyone}, "segmentation.json")
        artifacts.log_segmentation(segmentation)
    if choice.warning:
        log.warning("warning: %s", choice.warning)
    lines = [
        f"{part['id']}  {part['size']:>6,} members, {part['churn_rate']:.1%} left: {part['name']}\n"
        f"   {part['recommended_action']}"
        for part in described
    ]
    log.info("%s", "\n".join([choice.reason, *lines]))
    keys_told = ("id", "name", "size", "churn_rate", "recommended_action")
    told = [{key: part[key] for key in keys_told} for part in described]
    return Result({"run_id": mlflow_run.info.run_id, "k": choice.k, "segments": told})


def _log_evidence(evidence: pd.DataFrame, tree: WardTree, choice: Choice) -> None:
    """The criteria as metrics with step=k, the dendrogram with its cut, and why this k."""
    evidence = evidence.assign(ward_height=[tree.heights[k - 2] for k in evidence.index])
    for row in evidence.reset_index().to_dict("records"):
        tracking.log_metrics({str(name): value for name, value in row.items() if name != "k"}, step=int(row["k"]))
    proposed = proposed_k(tree, evidence.index)
    mlflow.log_metrics({"k": choice.k, "k_dendrogram": proposed})
    mlflow.set_tags({"churnlab.k_reason": choice.reason, "mlflow.note.content": choice.warning or choice.reason})
    artifacts.log_table(evidence.reset_index(), "evidence.csv")
    mlflow.log_figure(plots.dendrogram(tree, choice.k, proposed=proposed), "figures/dendrogram.png")
    mlflow.log_figure(plots.stability(evidence, choice.k), "figures/stability.png")
    mlflow.log_figure(plots.criteria(evidence, choice.k), "figures/criteria.png")


def _log_segments(X: pd.DataFrame, y: np.ndarray, labels: np.ndarray, names: list[str]) -> None:
    """Who is in which segment, what the segments are like and how many left, as tables and figures."""
    table = profile(X, labels, y)
    artifacts.log_table(table.reset_index().assign(name=names), "segments.csv")
    artifacts.log_table(pd.DataFrame({"row": np.arange(len(labels)), "segment": labels}), "segments/members.parquet")
    mlflow.log_figure(plots.profile_map(deviations(X, labels)[0], names), "figures/profile.png")
    rates = plots.churn_rates(table, names, base_rate=float(y.mean()))
    mlflow.log_figure(rates, "figures/churn_by_segment.png")
