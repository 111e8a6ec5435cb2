"""What kinds of members there are: evidence for the number of segments, dendrogram, k-means,
portraits, actions.

Why: the number of segments is chosen by what can be checked (stability under resampling, the
dendrogram's largest gap), never by taste; churn is no input and is measured afterwards. The
playbook turns what a segment is like into what to do about it.

    churnlab segment
    churnlab segment segments=seed002 playbook.language=ru
    churnlab segment dataset=gym dataset.path=members.csv segments.k=5
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from sklearn.metrics import adjusted_rand_score

from churnlab.config.commands import Result, Segment
from churnlab.config.groups import SegmentsKeys
from churnlab.data.dataset import Dataset
from churnlab.explore.redundancy import ONE_THING, collinear
from churnlab.formatting import listed
from churnlab.models.features import typical
from churnlab.plots import segments as plots
from churnlab.registry.model_artifacts import log_segmentation
from churnlab.segments.choose_k import (
    ON_SAMPLES,
    Choice,
    check_rows,
    choose_k,
    chosen_by,
    evidence_per_k,
    given_k,
    shortfall,
    trust_per_k,
)
from churnlab.segments.dendrogram import WardTree, proposed_k, ward_tree
from churnlab.segments.kmeans import (
    all_columns,
    columns_from,
    fit_kmeans,
    plane,
    sample_rows,
    segment_frame,
    segmentation,
    standardized,
)
from churnlab.segments.playbook import check_playbook, text
from churnlab.segments.portraits import deviations, plans_for_everyone, portraits, profile
from churnlab.tracking import artifacts
from churnlab.tracking.names import Artifact, Tag
from churnlab.tracking.runs import log_metrics, start_run

log = logging.getLogger(__name__)

DRAWN = 5_000
"""So many members are drawn in their map."""


def run(settings: Segment, dataset: Dataset) -> Result:
    """Examine every number of segments in the range, choose one, fit it on all rows and describe
    it."""
    keys, playbook, y, fill = settings.segments, settings.playbook, dataset.y, typical(dataset.X)
    X = dataset.X.fillna(fill)
    columns = all_columns(X) if keys.columns == "all" else dict(keys.columns)
    frame = segment_frame(X, columns)
    check_rows(frame, keys.examined[-1])
    guide = playbook.model_dump()
    check_playbook(
        guide, X
    )  # what is wrong with the playbook is said before the minutes that the evidence takes
    text(guide["naming"]["plain"], playbook.language)
    everyone = plans_for_everyone(X, y, playbook=guide, language=playbook.language)
    with start_run(
        "segment", settings.model_dump(), name=f"segments {keys.name}", dataset=dataset
    ) as mlflow_run:
        Z = standardized(frame)
        tree, fits = (
            ward_tree(Z, random_state=keys.random_state),
            fit_kmeans(Z, keys.examined, **keys.starts),
        )
        evidence = evidence_per_k(frame, tree, fits, y=y, references=keys.references, **keys.effort)
        choice = choose_k(evidence) if keys.k == "auto" else given_k(evidence, keys.k)
        model = segmentation(frame, fits[choice.k])
        labels = model.predict(frame)
        late = [name for name in dataset.contract.late if columns_from(columns, [name])]
        early = without_late(keys, X, y, labels, columns=columns, late=late) if late else None
        notes = notes_on(frame, choice, early, late=late, sample=keys.sample_rows)
        for note in notes.values():
            dataset.warn(note)
        marks = {"stable": choice.unstable is None, "notes": list(notes.values())}
        described = [
            part | marks
            for part in portraits(X, labels, y, playbook=guide, language=playbook.language)
        ]
        names = [portrait["name"] for portrait in described]
        tags = {Tag.STABLE: str(choice.unstable is None).lower()}
        mlflow.set_tags(tags | notes)
        _log_evidence(evidence, tree, choice, notes)
        _log_segments(X, y, labels, names, notes)
        _log_map(Z, labels, names, notes, random_state=keys.random_state)
        _log_plans(described, everyone)
        mlflow.log_dict(described, Artifact.PORTRAITS)
        made_of = {
            "columns": columns,
            "fill": fill,
            "for_everyone": [planned["text"] for planned in everyone],
        }
        mlflow.log_dict(
            made_of | {"everyone": everyone, "without_late": early} | marks, Artifact.SEGMENTATION
        )
        log_segmentation(model)
    log.info("%s", "\n".join([choice.reason, alone_in_words(evidence), *_in_words(described)]))
    keys_told = ("id", "name", "size", "churn_rate", "recommended_action")
    told = [{key: part[key] for key in keys_told} for part in described]
    return Result({"run_id": mlflow_run.info.run_id, "k": choice.k, "segments": told})


def without_late(
    keys: SegmentsKeys,
    X: pd.DataFrame,
    y: np.ndarray,
    labels: np.ndarray,
    *,
    columns: dict[str, str],
    late: Sequence[str],
) -> dict[str, Any] | None:
    """The same number of segments by columns that are known early, to stand beside; None: no column
    is left.

    Keys: columns, agreement (adjusted Rand index with the segmentation), how far the number can be
    trusted (evidence.trust_per_k), unstable (what it misses to be stable, or None), segments (size
    and churn_rate of each).
    """
    touched = columns_from(columns, late)
    known = keys.early or {
        name: expression for name, expression in columns.items() if name not in touched
    }
    if not known:
        return None
    k, frame = int(labels.max()) + 1, segment_frame(X, known)
    check_rows(frame, k)
    fits = fit_kmeans(standardized(frame), [k], **keys.starts)
    found = trust_per_k(frame, fits, y=y, **keys.effort).loc[k].dropna().to_dict()
    others = fits[k].labels_
    segments = profile(X, others, y)[["size", "churn_rate", "churn_low", "churn_high"]]
    return {
        "columns": known,
        "agreement": float(adjusted_rand_score(labels, others)),
        **{str(name): value for name, value in found.items()},
        "unstable": shortfall(found),
        "segments": segments.assign(size=segments["size"].astype(int)).to_dict("records"),
    }


def notes_on(
    frame: pd.DataFrame,
    choice: Choice,
    early: dict[str, Any] | None,
    *,
    late: Sequence[str],
    sample: int,
) -> dict[str, str]:
    """What must be known beside every result, by the tag that says it; what does not apply is left
    out."""
    notes = {Tag.UNSTABLE: choice.warning} if choice.warning else {}
    pairs = collinear(frame, limit=ONE_THING)
    if len(pairs):
        said = [f"{a} and {b} (r = {r:.2f})" for a, b, r in pairs.itertuples(index=False)]
        notes[Tag.COLLINEAR] = (
            f"Columns that say nearly the same count twice: {listed(said, 12, length=100)}."
        )
    if late:
        notes[Tag.LATE] = (
            f"The segments use {listed(late, 12)}, known only close to the event; {_beside(early)}."
        )
    if len(frame) > sample:
        notes[Tag.SAMPLED] = (
            f"{', '.join(ON_SAMPLES)} stand on a sample of {sample:,} out of {len(frame):,} "
            "members."
        )
    return notes


def _beside(early: dict[str, Any] | None) -> str:
    """How the segments without late columns compare."""
    if early is None:
        return "without, no column is left to segment by"
    auc = early.get("heldout_churn_auc")
    shown = "" if auc is None else f" and churn AUC {auc:.3f} on held-out members"
    return (
        f"by columns known earlier ({listed(list(early['columns']), 12)}) as many segments agree "
        f"with these by {early['agreement']:.2f} (1 is the same), with bootstrap ARI "
        f"{early['bootstrap_ari']:.2f}{shown}"
    )


def alone_in_words(evidence: pd.DataFrame) -> str:
    """What each criterion would have chosen by itself."""
    said = [f"{name} {'none' if k is None else k}" for name, k in chosen_by(evidence).items()]
    return f"Each criterion alone would choose: {', '.join(said)}."


def _in_words(described: list[dict[str, Any]]) -> list[str]:
    """The segments, each with what to do about it and what that would bring."""
    return [
        line
        for part in described
        for line in (
            f"{part['id']}  {part['size']:>6,} members, {part['churn_rate']:.1%} left: {part['name']}",
            *(f"   {planned['text']}: {planned['sentence']}" for planned in part["plans"]),
        )
    ]


def _log_evidence(
    evidence: pd.DataFrame, tree: WardTree, choice: Choice, notes: dict[str, str]
) -> None:
    """The criteria as metrics with step=k, the dendrogram with its cut, and why this k."""
    evidence = evidence.assign(ward_height=[tree.heights[k - 2] for k in evidence.index])
    for row in evidence.reset_index().to_dict("records"):
        log_metrics(
            {str(name): value for name, value in row.items() if name != "k"}, step=int(row["k"])
        )
    proposed, alone = proposed_k(tree, evidence.index), chosen_by(evidence)
    mlflow.log_metrics({"k": choice.k, "k_dendrogram": proposed})
    said = [choice.reason + ".", alone_in_words(evidence), *notes.values()]
    mlflow.set_tags(
        {
            Tag.K_REASON: choice.reason,
            Tag.K_ALONE: json.dumps(alone),
            "mlflow.note.content": "\n\n".join(said),
        }
    )
    by = {
        k: " ".join(name for name, number in alone.items() if number == k) for k in evidence.index
    }
    artifacts.log_table(evidence.assign(chosen_by=pd.Series(by)).reset_index(), Artifact.EVIDENCE)
    agreement = float(evidence["ward_agreement"][choice.k])
    _log_figure(
        plots.dendrogram(tree, choice.k, proposed=proposed, agreement=agreement),
        "dendrogram",
        notes,
        Tag.UNSTABLE,
    )
    _log_figure(plots.stability(evidence, choice.k), "stability", notes, Tag.UNSTABLE, Tag.SAMPLED)
    _log_figure(plots.criteria(evidence, choice.k), "criteria", notes, Tag.UNSTABLE, Tag.SAMPLED)


def _log_segments(
    X: pd.DataFrame, y: np.ndarray, labels: np.ndarray, names: list[str], notes: dict[str, str]
) -> None:
    """Who is in which segment, what the segments are like and how many left, as tables and figures."""
    table = profile(X, labels, y)
    artifacts.log_table(table.reset_index().assign(name=names), Artifact.SEGMENTS)
    artifacts.log_table(
        pd.DataFrame({"row": np.arange(len(labels)), "segment": labels}), Artifact.MEMBERS
    )
    estimate, half = deviations(X, labels)
    drawn = plots.profile_map(estimate, names, chance=estimate.abs() <= half)
    _log_figure(drawn, "profile", notes, Tag.UNSTABLE, Tag.LATE)
    rates = plots.churn_rates(table, names, base_rate=float(y.mean()))
    _log_figure(rates, "churn_by_segment", notes, Tag.UNSTABLE, Tag.LATE)


def _log_map(
    Z: np.ndarray, labels: np.ndarray, names: list[str], notes: dict[str, str], *, random_state: int
) -> None:
    """The members in two dimensions."""
    rows, (points, shares) = sample_rows(len(Z), DRAWN, random_state=random_state), plane(Z)
    figure = plots.member_map(points[rows], labels[rows], names, shares=shares)
    drawn = (
        {"drawn": f"{DRAWN:,} out of {len(Z):,} members are drawn."} if len(rows) < len(Z) else {}
    )
    _log_figure(figure, "members", notes | drawn, Tag.UNSTABLE, "drawn")


def _log_plans(described: list[dict[str, Any]], everyone: list[dict[str, Any]]) -> None:
    """Every action of every segment, and of everyone (no segment), in one table."""
    rows = [
        {"segment": part["id"], "name": part["name"]} | planned
        for part in described
        for planned in part["plans"]
    ]
    rows += [{"segment": None, "name": "everyone"} | planned for planned in everyone]
    artifacts.log_table(pd.DataFrame(rows).astype({"segment": "Int64"}), Artifact.ACTIONS)


def _log_figure(figure: Figure, name: str, notes: dict[str, str], *shown: str) -> None:
    """A figure with those of the notes that belong below it."""
    artifacts.log_figure(plots.footnote(figure, *(notes.get(note) for note in shown)), name)
