"""Find the kinds of members: choose a number of segments, divide the members, and advise actions.

Why: the number of segments is chosen by evidence that can be checked (stability under resampling,
the largest gap in the dendrogram), not by taste. Stable segments are a cut that comes back on other
members; a test says whether they are groups. Churn is not an input and is measured afterwards.
The playbook recommends actions from what each segment is like. Words take part by clusterer=mixed.

    churnlab segment
    churnlab segment segments=seed002 playbook.language=ru
    churnlab segment dataset=gym dataset.path=members.csv segments.k=5
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import mlflow
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from sklearn.pipeline import Pipeline

from churnlab.config.commands import Result, Segment
from churnlab.config.groups import SegmentsKeys
from churnlab.config.objects import build_object
from churnlab.data.dataset import Dataset
from churnlab.explore.redundancy import REDUNDANT, collinear
from churnlab.formatting import listed
from churnlab.models.features import typical
from churnlab.plots import segments as plots
from churnlab.registry.input_example import invent_members
from churnlab.registry.model_artifacts import log_segmentation
from churnlab.segments import kmeans
from churnlab.segments.choose_k import (
    SAMPLED_CRITERIA,
    Choice,
    better_k,
    check_members,
    check_rows,
    choose_k,
    evidence_per_k,
    examined,
    given_k,
    k_per_criterion,
    segmented,
)
from churnlab.segments.clusterers import Clusterer, as_clusterer
from churnlab.segments.dendrogram import WardTree, proposed_k, ward_tree
from churnlab.segments.null_model import groups_p_value, groups_sentence
from churnlab.segments.playbook import page_language, text
from churnlab.segments.portraits import (
    check_columns,
    describe,
    deviations,
    effects_together,
    made_by_construction,
    on_page,
    plans_for_everyone,
    profile,
    with_levels,
)
from churnlab.segments.space import MOST_LEVELS, Space, Undivided, word_columns
from churnlab.segments.without_late import early_comparison, without_late
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
    clusterer, columns = choose_clusterer(settings, X)
    frame = kmeans.segment_frame(X, columns)
    ks = examined(keys.examined, keys.k, frame)
    check_rows(frame, ks[-1])
    # Refuse a faulty playbook before the minutes that the evidence takes.
    check_columns(playbook, X)
    text(playbook["naming"]["plain"], language)
    advice = advise_everyone(X, y, playbook=playbook, language=language)
    name = f"segments {keys.name}"
    with start_run("segment", settings.model_dump(), name=name, dataset=dataset) as mlflow_run:
        found = divide(keys, ks, clusterer, frame, y)
        choice, groups, labels = found.choice, found.groups, found.model.predict(frame)
        example = kmeans.segment_frame(invent_members(dataset, columns), columns)
        model_id = log_segmentation(found.model, example)
        late = [name for name in dataset.contract.late if kmeans.dependent_columns(columns, [name])]
        how: dict[str, Any] = {"columns": columns, "late": late, "early": keys.early}
        how |= {"clusterer": clusterer, "starts": keys.starts, "effort": keys.effort}
        early = without_late(X, y, labels, **how) if late else None
        caveats = find_caveats(frame, choice, early, late=late, sample=keys.sample_rows)
        caveats |= find_left_out(keys, X, columns)
        for caveat in caveats.values():
            dataset.warn(caveat)
        sources = kmeans.source_columns(columns, X.columns)
        made = made_by_construction(sources)
        marks = {"stable": choice.unstable is None} | groups | {"notes": [*caveats.values(), made]}
        members = with_levels(X, frame.select_dtypes(exclude="number"))
        made_from = [*sources, *members.columns.difference(X.columns)]
        how = {"playbook": playbook, "language": language, "made_from": made_from}
        described = describe(members, labels, y, found.jaccard, **how)
        _log_evidence(found, caveats, model_id=model_id)
        _log_segments(members, y, labels, described, caveats | {"made": made})
        _log_map(found.space.Z, labels, described, caveats, random_state=keys.random_state)
        together = effects_together(advice["everyone"], playbook, language)
        _log_plans(described, advice["everyone"], together)
        mlflow.log_dict([portrait | marks for portrait in described], Artifact.PORTRAITS)
        record = {"columns": columns, "fill": fill} | advice | {"without_late": early} | marks
        mlflow.log_dict(record, Artifact.SEGMENTATION)
    log.info("%s", "\n".join(_lines(_reason(choice, groups), found.evidence, described)))
    return _result(mlflow_run.info.run_id, choice, described, by_hand=keys.k != "auto")


class Division(NamedTuple):
    """What was found about the members: the evidence for each number of segments, the chosen one,
    each of its segments' Jaccard index, whether they are groups, and what predicts them."""

    made_by: str
    space: Space
    tree: WardTree
    evidence: pd.DataFrame
    choice: Choice
    jaccard: np.ndarray
    groups: dict[str, Any]
    model: Pipeline


def divide(
    keys: SegmentsKeys, ks: Sequence[int], clusterer: Clusterer, frame: pd.DataFrame, y: np.ndarray
) -> Division:
    """Fit every number of segments, choose one, and test whether its segments are groups."""
    space = clusterer.space(frame)
    tree = ward_tree(space.Z, random_state=keys.random_state)
    fits = clusterer.fit(space, ks, **keys.starts)
    how: dict[str, Any] = {"references": keys.references, "clusterer": clusterer}
    evidence, jaccard = evidence_per_k(frame, tree, fits, y=y, **how | keys.effort)
    choice = choose_k(evidence) if keys.k == "auto" else given_k(evidence, keys.k)
    check_members(fits[choice.k])
    better = better_k(evidence, choice.k)
    groups = find_groups(keys, clusterer, space, choice, better=better)
    model = clusterer.pipeline(frame, fits[choice.k])
    return Division(
        clusterer.called, space, tree, evidence, choice, jaccard[choice.k], groups, model
    )


def _result(
    run_id: str, choice: Choice, described: list[dict[str, Any]], *, by_hand: bool
) -> Result:
    """Return the result line; say what to do about segments that the gate refuses."""
    segments = [{key: portrait[key] for key in SHOWN} for portrait in described]
    values = {"run_id": run_id, "k": choice.k, "segments": segments}
    if choice.unstable is None or by_hand:
        return Result(values)
    log.info(
        "churnlab promote refuses segments that are not stable: divide the members by other "
        "columns (segments=NAME), set their number by hand (segments.k=%d), or promote without "
        "segments (churnlab promote segment_run=none).",
        choice.k,
    )
    return Result(values, then="")


def choose_clusterer(settings: Segment, X: pd.DataFrame) -> tuple[Clusterer, dict[str, str]]:
    """Return what divides the members, and the segmentation's columns.

    A preset of all columns has a clusterer of its own for tables with columns of words.
    """
    keys, spec, where = settings.segments, settings.clusterer, "clusterer"
    if keys.columns == "all" and keys.words and word_columns(X):
        spec, where = keys.words, "segments.words"
    block = {key: value for key, value in spec.items() if key != "name"}
    clusterer = as_clusterer(build_object(block, key=where), where=where)
    if keys.columns != "all":
        return clusterer, dict(keys.columns)
    columns = kmeans.all_columns(X, words=clusterer.takes_words)
    if not columns:
        raise Undivided(
            f"No column is left to divide the members by: {spec['name']} takes numbers only, and "
            f"columns of words need 2 to {MOST_LEVELS} different words. Choose clusterer=mixed, "
            "or promote without segments (churnlab promote segment_run=none)."
        )
    return clusterer, columns


def find_left_out(keys: SegmentsKeys, X: pd.DataFrame, columns: dict[str, str]) -> dict[str, str]:
    """Say which columns of a preset that takes all take no part, by tag."""
    left_out = [str(name) for name in X if name not in columns]
    if keys.columns != "all" or not left_out:
        return {}
    return {
        Tag.LEFT_OUT: (
            f"Columns of words that take no part in the segments: {listed(left_out, 12)} (a column "
            f"of 2 to {MOST_LEVELS} words takes part with clusterer=mixed)."
        )
    }


def find_groups(
    keys: SegmentsKeys, clusterer: Clusterer, space: Space, choice: Choice, *, better: int | None
) -> dict[str, Any]:
    """Test whether the segments are groups: null_p, and in words groups."""
    rows = kmeans.sample_rows(len(space.Z), keys.sample_rows, random_state=keys.random_state)
    effort = {"tables": keys.null_tables, "random_state": keys.random_state}
    measure = clusterer.structure(space.layout)
    p = groups_p_value(space.Z[rows], choice.k, **effort, layout=space.layout, measure=measure)
    return {
        "null_p": p,
        "groups": groups_sentence(p, stable=choice.unstable is None, better=better),
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
            f"{early_comparison(early)}"
        )
    if len(frame) > sample:
        caveats[Tag.SAMPLED] = (
            f"{', '.join(SAMPLED_CRITERIA)} were computed on a sample of {sample:,} out of "
            f"{len(frame):,} members."
        )
    return caveats


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


def _lines(reason: str, evidence: pd.DataFrame, described: list[dict[str, Any]]) -> Iterator[str]:
    """Yield the reason for k, a line per segment, and one for each of its actions."""
    yield from (reason, _criteria_sentence(evidence))
    for part in map(on_page, described):
        rate = f"{part['churn_rate']:.1%} churned"
        yield f"{part['id']}  {part['size']:>6,} members, {rate}: {part['name']}"
        yield from (f"   {planned['text']}: {planned['sentence']}" for planned in part["plans"])
        yield from [] if part["plans"] else [f"   {part['recommended_action']}"]
        yield from [f"   {part['together']}"] if part["together"] else []


def _reason(choice: Choice, groups: dict[str, Any]) -> str:
    return f"{choice.reason}. They are {groups['groups']}."


def _log_evidence(found: Division, caveats: dict[str, str], *, model_id: str) -> None:
    """Log the criteria as metrics with step=k, those of the chosen k as the model's, too; the
    reason for k, the caveats, and the figures."""
    (_, _, tree, evidence, choice, _, groups, _), ks = found, segmented(found.evidence).index
    evidence = evidence.assign(ward_height=pd.Series({k: tree.heights[k - 2] for k in ks}))
    for row in evidence.reset_index().to_dict("records"):
        step = int(row.pop("k"))
        criteria = {str(name): value for name, value in row.items()}
        log_metrics(criteria, step=step, model_id=model_id if step == choice.k else None)
    proposed, alone = proposed_k(tree, ks), k_per_criterion(evidence)
    values = {"k": choice.k, "k_dendrogram": proposed, "null_p": groups["null_p"]}
    log_metrics(values, model_id=model_id)
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
    drawn = plots.dendrogram(
        tree, choice.k, proposed=proposed, agreement=agreement, made_by=found.made_by
    )
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
