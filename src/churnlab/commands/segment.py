"""Find the kinds of members: choose a number of segments, fit k-means, and advise actions.

Why: the number of segments is chosen by evidence that can be checked (stability under resampling,
the largest gap in the dendrogram), not by taste. Stable segments are a cut that comes back on other
members; a test says whether they are groups. Churn is not an input and is measured afterwards.
The playbook recommends actions from what each segment is like.

    churnlab segment
    churnlab segment segments=seed002 playbook.language=ru
    churnlab segment dataset=gym dataset.path=members.csv segments.k=5
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from sklearn.metrics import adjusted_rand_score

from churnlab.config.commands import Result, Segment
from churnlab.config.groups import SegmentsKeys
from churnlab.data.dataset import Dataset
from churnlab.explore.redundancy import REDUNDANT, collinear
from churnlab.formatting import listed
from churnlab.models.features import typical
from churnlab.plots import segments as plots
from churnlab.registry.model_artifacts import log_segmentation
from churnlab.segments import kmeans
from churnlab.segments.choose_k import (
    SAMPLED_CRITERIA,
    Choice,
    check_rows,
    choose_k,
    evidence_per_k,
    given_k,
    k_per_criterion,
    segmented,
    shortfall,
    stability_per_k,
)
from churnlab.segments.dendrogram import WardTree, proposed_k, ward_tree
from churnlab.segments.null_model import groups_p_value, groups_sentence
from churnlab.segments.playbook import page_language, text
from churnlab.segments.portraits import (
    check_columns,
    deviations,
    effects_together,
    on_page,
    page_texts,
    plans_for_everyone,
    portraits,
    profile,
)
from churnlab.tracking import artifacts
from churnlab.tracking.names import Artifact, Label, Tag
from churnlab.tracking.runs import log_metrics, start_run

log = logging.getLogger(__name__)

DRAWN = 5_000
"""Members in the member map; of a larger table, a sample."""

SHOWN = ("id", "name", "size", "churn_rate", "recommended_action")
"""What the result line has of each segment."""


def run(settings: Segment, dataset: Dataset) -> Result:
    """Examine every number of segments in the range, choose one, fit it and describe it."""
    keys, playbook, y = settings.segments, settings.playbook.model_dump(), dataset.y
    language, fill = settings.playbook.language, typical(dataset.X)
    X = dataset.X.fillna(fill)
    columns = kmeans.all_columns(X) if keys.columns == "all" else dict(keys.columns)
    frame = kmeans.segment_frame(X, columns)
    check_rows(frame, keys.examined[-1])
    # Refuse a faulty playbook before the minutes that the evidence takes.
    check_columns(playbook, X)
    text(playbook["naming"]["plain"], language)
    advice = advise_everyone(X, y, playbook=playbook, language=language)
    name = f"segments {keys.name}"
    with start_run("segment", settings.model_dump(), name=name, dataset=dataset) as mlflow_run:
        Z = kmeans.standardized(frame)
        tree = ward_tree(Z, random_state=keys.random_state)
        fits = kmeans.fit_kmeans(Z, keys.examined, **keys.starts)
        evidence, jaccard = evidence_per_k(
            frame, tree, fits, y=y, references=keys.references, **keys.effort
        )
        choice = choose_k(evidence) if keys.k == "auto" else given_k(evidence, keys.k)
        groups = find_groups(keys, Z, choice)
        model = kmeans.segmentation(frame, fits[choice.k])
        labels = model.predict(frame)
        late = [name for name in dataset.contract.late if kmeans.dependent_columns(columns, [name])]
        early = without_late(keys, X, y, labels, columns=columns, late=late) if late else None
        caveats = find_caveats(frame, choice, early, late=late, sample=keys.sample_rows)
        for caveat in caveats.values():
            dataset.warn(caveat)
        sources = kmeans.source_columns(columns, X.columns)
        made = made_by_construction(sources)
        marks = {"stable": choice.unstable is None} | groups | {"notes": [*caveats.values(), made]}
        how: dict[str, Any] = {"playbook": playbook, "language": language, "made_from": sources}
        described = describe(X, labels, y, jaccard[choice.k], **how)
        _log_evidence(evidence, tree, choice, groups, caveats)
        _log_segments(X, y, labels, described, caveats | {"made": made})
        _log_map(Z, labels, described, caveats, random_state=keys.random_state)
        together = effects_together(advice["everyone"], playbook, language)
        _log_plans(described, advice["everyone"], together)
        mlflow.log_dict([portrait | marks for portrait in described], Artifact.PORTRAITS)
        record = {"columns": columns, "fill": fill} | advice | {"without_late": early} | marks
        mlflow.log_dict(record, Artifact.SEGMENTATION)
        log_segmentation(model)
    log.info("%s", "\n".join(_lines(_reason(choice, groups), evidence, described)))
    segments = [{key: portrait[key] for key in SHOWN} for portrait in described]
    return Result({"run_id": mlflow_run.info.run_id, "k": choice.k, "segments": segments})


def find_groups(keys: SegmentsKeys, Z: np.ndarray, choice: Choice) -> dict[str, Any]:
    """Test whether the segments are groups: null_p, and in words groups."""
    rows = kmeans.sample_rows(len(Z), keys.sample_rows, random_state=keys.random_state)
    effort = {"tables": keys.null_tables, "random_state": keys.random_state}
    p = groups_p_value(Z[rows], choice.k, **effort)
    return {"null_p": p, "groups": groups_sentence(p, stable=choice.unstable is None)}


def made_by_construction(sources: Sequence[str]) -> str:
    """Say that segments differ by construction in the columns that they were made from."""
    return (
        f"The segments were made from {listed(list(sources), 12)}: that they differ in these "
        "columns, and in traits from them, is by construction and no finding."
    )


def without_late(
    keys: SegmentsKeys,
    X: pd.DataFrame,
    y: np.ndarray,
    labels: np.ndarray,
    *,
    columns: dict[str, str],
    late: Sequence[str],
) -> dict[str, Any] | None:
    """Segment by columns that are known early, into as many segments; None if no column is left.

    Keys: columns, agreement (adjusted Rand index with ``labels``), the criteria of
    choose_k.stability_per_k, unstable (the limits it misses, or None), segments (size, churn_rate
    and its 95% CI).
    """
    dependent = kmeans.dependent_columns(columns, late)
    known = keys.early or {
        name: expression for name, expression in columns.items() if name not in dependent
    }
    if not known:
        return None
    k, frame = int(labels.max()) + 1, kmeans.segment_frame(X, known)
    check_rows(frame, k)
    fits = kmeans.fit_kmeans(kmeans.standardized(frame), [k], **keys.starts)
    found = stability_per_k(frame, fits, y=y, **keys.effort).per_k.loc[k].dropna().to_dict()
    segments = profile(X, fits[k].labels_, y)[["size", "churn_rate", "churn_low", "churn_high"]]
    return {
        "columns": known,
        "agreement": float(adjusted_rand_score(labels, fits[k].labels_)),
        **{str(name): value for name, value in found.items()},
        "unstable": shortfall(found),
        "segments": segments.to_dict("records"),
    }


def find_caveats(
    frame: pd.DataFrame,
    choice: Choice,
    early: dict[str, Any] | None,
    *,
    late: Sequence[str],
    sample: int,
) -> dict[str, str]:
    """Return the caveats that are attached to every result, by tag; those that do not apply are
    left out."""
    caveats = {Tag.UNSTABLE: choice.warning} if choice.warning else {}
    pairs = [
        f"{a} and {b} (r = {r:.2f})"
        for a, b, r in collinear(frame, limit=REDUNDANT).itertuples(index=False)
    ]
    if pairs:
        caveats[Tag.COLLINEAR] = (
            "Nearly collinear columns carry double weight in the distances: "
            f"{listed(pairs, 12, length=100)}."
        )
    if late:
        caveats[Tag.LATE] = (
            f"The segments use columns known only close to churn: {listed(late, 12)}. "
            f"{_early_comparison(early)}"
        )
    if len(frame) > sample:
        caveats[Tag.SAMPLED] = (
            f"{', '.join(SAMPLED_CRITERIA)} were computed on a sample of {sample:,} out of "
            f"{len(frame):,} members."
        )
    return caveats


def _early_comparison(early: dict[str, Any] | None) -> str:
    """Compare the segments with those from columns that are known early."""
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


def _criteria_sentence(evidence: pd.DataFrame) -> str:
    alone = [f"{name} {k or 'none'}" for name, k in k_per_criterion(evidence).items()]
    return f"Each criterion alone would choose: {', '.join(alone)}."


def advise_everyone(
    X: pd.DataFrame, y: np.ndarray, *, playbook: dict[str, Any], language: str
) -> dict[str, Any]:
    """Return the plans for all members (everyone), and their texts on the page (for_everyone)."""
    plans, shown = (
        plans_for_everyone(X, y, playbook=playbook, language=each)
        for each in (language, page_language(playbook, language))
    )
    return {"for_everyone": [planned["text"] for planned in shown], "everyone": plans}


def describe(
    X: pd.DataFrame,
    labels: np.ndarray,
    y: np.ndarray,
    jaccard: np.ndarray,
    *,
    playbook: dict[str, Any],
    language: str,
    made_from: Sequence[str],
) -> list[dict[str, Any]]:
    """Return the portraits in the language that is served, each with its Jaccard index and, if that
    is not English, the English texts for portraits.on_page."""
    how: dict[str, Any] = {"playbook": playbook, "made_from": made_from}
    page = page_language(playbook, language)
    served = portraits(X, labels, y, language=language, **how)
    shown = served if page == language else portraits(X, labels, y, language=page, **how)
    return [
        portrait | {"jaccard": float(value)} | page_texts(portrait, also)
        for portrait, also, value in zip(served, shown, jaccard, strict=True)
    ]


def _lines(reason: str, evidence: pd.DataFrame, described: list[dict[str, Any]]) -> Iterator[str]:
    """Yield the reason for k, a line per segment, and one for each of its actions."""
    yield from (reason, _criteria_sentence(evidence))
    for part in map(on_page, described):
        rate = f"{part['churn_rate']:.1%} churned"
        yield f"{part['id']}  {part['size']:>6,} members, {rate}: {part['name']}"
        yield from (f"   {planned['text']}: {planned['sentence']}" for planned in part["plans"])
        yield from [f"   {part['together']}"] if part["together"] else []


def _reason(choice: Choice, groups: dict[str, Any]) -> str:
    return f"{choice.reason}. They are {groups['groups']}."


def _log_evidence(
    evidence: pd.DataFrame,
    tree: WardTree,
    choice: Choice,
    groups: dict[str, Any],
    caveats: dict[str, str],
) -> None:
    """Log the criteria as metrics with step=k, the reason for k, the caveats, and the figures."""
    ks = segmented(evidence).index
    evidence = evidence.assign(ward_height=pd.Series({k: tree.heights[k - 2] for k in ks}))
    for row in evidence.reset_index().to_dict("records"):
        step = int(row.pop("k"))
        log_metrics({str(name): value for name, value in row.items()}, step=step)
    proposed, alone = proposed_k(tree, ks), k_per_criterion(evidence)
    mlflow.log_metrics({"k": choice.k, "k_dendrogram": proposed, "null_p": groups["null_p"]})
    note = [_reason(choice, groups), _criteria_sentence(evidence), *caveats.values()]
    mlflow.set_tags(
        {
            Tag.STABLE: str(choice.unstable is None).lower(),
            Tag.K_REASON: f"{choice.reason}; {groups['groups']}",
            Tag.GROUPS: groups["groups"],
            Label.VERDICT: groups["groups"],
            Tag.K_ALONE: json.dumps(alone),
            "mlflow.note.content": "\n\n".join(note),
        }
        | caveats
    )
    chosen_by = [
        " ".join(name for name, number in alone.items() if number == k) for k in evidence.index
    ]
    artifacts.log_table(evidence.assign(chosen_by=chosen_by).reset_index(), Artifact.EVIDENCE)
    agreement = float(evidence["ward_agreement"][choice.k])
    drawn = plots.dendrogram(tree, choice.k, proposed=proposed, agreement=agreement)
    _log_figure(drawn, "dendrogram", caveats, Tag.UNSTABLE)
    for name, figure in (("stability", plots.stability), ("criteria", plots.criteria)):
        _log_figure(figure(evidence, choice.k), name, caveats, Tag.UNSTABLE, Tag.SAMPLED)


def _log_segments(
    X: pd.DataFrame,
    y: np.ndarray,
    labels: np.ndarray,
    described: list[dict[str, Any]],
    caveats: dict[str, str],
) -> None:
    """Log each member's segment and the segments' profile and churn, as tables and figures."""
    table, names = profile(X, labels, y), [on_page(part)["name"] for part in described]
    table = table.assign(**{key: [part[key] for part in described] for key in ("name", "jaccard")})
    artifacts.log_table(table.reset_index(), Artifact.SEGMENTS)
    artifacts.log_table(
        pd.DataFrame({"row": np.arange(len(labels)), "segment": labels}), Artifact.MEMBERS
    )
    estimate, half = deviations(X, labels)
    drawn = plots.profile_map(estimate, names, chance=estimate.abs() <= half)
    _log_figure(drawn, "profile", caveats, Tag.UNSTABLE, Tag.LATE, "made")
    rates = plots.churn_rates(table, names, base_rate=float(y.mean()))
    _log_figure(rates, "churn_by_segment", caveats, Tag.UNSTABLE, Tag.LATE)


def _log_map(
    Z: np.ndarray,
    labels: np.ndarray,
    described: list[dict[str, Any]],
    caveats: dict[str, str],
    *,
    random_state: int,
) -> None:
    """Log the members on their principal plane, colored by segment."""
    rows = kmeans.sample_rows(len(Z), DRAWN, random_state=random_state)
    points, shares = kmeans.principal_plane(Z)
    names = [on_page(part)["name"] for part in described]
    figure = plots.member_map(points[rows], labels[rows], names, shares=shares)
    if len(rows) < len(Z):
        caveats = caveats | {"drawn": f"{DRAWN:,} out of {len(Z):,} members are drawn."}
    _log_figure(figure, "members", caveats, Tag.UNSTABLE, "drawn")


def _log_plans(
    described: list[dict[str, Any]], everyone: list[dict[str, Any]], together: str
) -> None:
    """Log every action of every segment, and of everyone (no segment), in one table.

    ``together`` says of everyone's actions what each portrait says of its own.
    """
    rows = [
        {"segment": part["id"], "name": part["name"]} | planned | {"together": part["together"]}
        for part in described
        for planned in part["plans"]
    ]
    of_all = {"segment": None, "name": "everyone"}
    rows += [of_all | planned | {"together": together} for planned in everyone]
    artifacts.log_table(pd.DataFrame(rows).astype({"segment": "Int64"}), Artifact.ACTIONS)


def _log_figure(figure: Figure, name: str, caveats: dict[str, str], *shown: str) -> None:
    """Log a figure with the caveats that concern it as a footnote."""
    artifacts.log_figure(plots.footnote(figure, *map(caveats.get, shown)), name)
