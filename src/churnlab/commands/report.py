"""Write one HTML page for a manager: who leaves, which model, which segments, what to do.

Why: the runs hold every number, and a manager opens none of them. The page puts the numbers
together, each with its run, and shows the command for a part that is missing. It needs no network,
prints, and fits a phone.

    churnlab report
    churnlab report dataset=gym dataset.path=members.csv output=gym.html
    churnlab report metric=roc_auc
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any

import mlflow
import pandas as pd
from mlflow.entities import Run
from mlflow.entities.model_registry import ModelVersion

from churnlab.config.command_line import suggested
from churnlab.config.commands import Report, Result
from churnlab.data.dataset import Dataset
from churnlab.evaluation import performance
from churnlab.evaluation.calibration_error import calibration_error
from churnlab.formatting import day
from churnlab.models.splits import make_split
from churnlab.registry.champion import (
    champion_changes,
    find_champion,
    model_name,
    refusal,
    registered_model,
    version_number,
    version_uri,
)
from churnlab.registry.gate import Check
from churnlab.registry.versions import (
    check_files,
    lost_in_words,
    read_version,
    served_segment_run_id,
)
from churnlab.report import model_parts, page, sentences
from churnlab.report import parts as contents
from churnlab.report.model_sentences import Late, model_in_words
from churnlab.segments.choose_k import stable_limits
from churnlab.segments.portraits import on_page
from churnlab.tracking import artifacts
from churnlab.tracking.fingerprints import split_tags
from churnlab.tracking.leaderboard import (
    compare_runs,
    found_on_notes,
    is_tuned,
    leaderboard,
    plausible,
    ranking_without_late,
    recommend,
    suspects,
)
from churnlab.tracking.looks import log_look
from churnlab.tracking.names import Artifact, Tag
from churnlab.tracking.runs import start_run
from churnlab.tracking.scores import scores_of
from churnlab.tracking.search import is_same, latest_run, ranked_train_runs

log = logging.getLogger(__name__)

Part = dict[str, Any]
"""The values of one section of the page, by name."""

SHARES = (0.1, 0.2)
"""The shares of riskiest members whose leavers the page counts."""

SERVED_PORTRAITS = "segmentation/portraits.json"
"""A version's portraits, with the numbers and names that it serves."""

MOST_ROWS = 12
"""How many rows of a table are shown; the runs have them all."""

SAME = {"dataset", "evaluation", "seed", "tracking"}
"""Keys that a suggested command takes over from the report's own command line."""


def run(settings: Report, dataset: Dataset) -> Result:
    """Gather what the runs found and write the page."""
    name, registered = dataset.contract.name, model_name(dataset.contract.name)
    output = page.output_path(settings.output, f"report-{name}.html")
    split = make_split(dataset, **settings.evaluation.split, seed=settings.seed)
    ranked = ranked_train_runs(name, split_tags(split), metric=settings.metric)
    recommended, _ = recommend(ranked, metric=settings.metric, ceiling=settings.ceiling)
    advised = mlflow.get_run(recommended) if recommended else None
    champion, segmented = _champion(registered, dataset), latest_run("segment", dataset)
    number = version_number(champion and champion.version)
    how: Part = {"held_out": len(split.test), "refused": refusal(registered, advised)}
    how |= settings.model_dump(include={"metric", "seed", "ceiling"})
    segment = None if segmented is None else _segment_of_row(segmented)
    parts: dict[str, Any] = {
        "members": members_part(dataset, latest_run("explore", dataset)),
        "models": models_part(ranked, segment, recommended=recommended, **how),
        "segments": segments_part(segmented, champion, churn_rate=float(dataset.y.mean())),
        "champion": champion_part(champion, advised, dataset, ceiling=settings.ceiling),
    }
    claims = claims_part(latest_run("claims", dataset))
    conclusions = sentences.five_sentences(**parts, registered=registered)
    tags = split_tags(split) | ({Tag.VERSION: number} if number else {})
    how = {"name": f"report {name}", "dataset": dataset, "tags": tags}
    with start_run("report", settings.model_dump(), **how) as opened:
        run_id = opened.info.run_id
        html = page.render(
            "report.html.j2",
            **parts,
            claims=claims,
            name=name,
            registered=registered,
            data_sha256=dataset.sha256,
            conclusions=conclusions,
            command_line=partial(suggested, dataset=settings.dataset, shared=SAME),
            shown=dict.fromkeys([settings.metric, "log_loss", "roc_auc"]),
            sources=contents.sources(**parts, claims=claims) | {run_id: "report: this page"},
        )
        mlflow.log_text(html, Artifact.REPORT)
        if parts["models"] and parts["models"]["looked"]:
            log_look(dataset, split.test)
        mlflow.set_tag("mlflow.note.content", "\n\n".join(each.text for each in conclusions))
    if replaced := page.replaced(output, data_sha256=dataset.sha256):
        log.warning("warning: %s", replaced)
    page.write(html, output)
    log.info("%s\n\nThe report: %s", "\n".join(each.text for each in conclusions), output)
    return Result({"run_id": run_id, "version": number, "path": str(output)})


def members_part(dataset: Dataset, explored: Run | None) -> Part:
    """Describe the table, and what the explore run found in it (without one, groups is None)."""
    contract, left = dataset.contract, int(dataset.y.sum())
    part: Part = {
        "run_id": None,
        "rows": len(dataset.y),
        "left": left,
        "churn_rate": left / len(dataset.y),
        "n_columns": len(contract.columns),
        "warnings": list(dataset.warnings),
        "source": dataset.source,
        "target": contract.target,
        "groups": None,
    }
    if explored is None:
        return part
    run_id = explored.info.run_id
    tables = (Artifact.DRIVERS, Artifact.CORRELATIONS, Artifact.COLLINEAR)
    drivers, correlations, pairs = (artifacts.read_table(run_id, name) for name in tables)
    found = contents.explored(contract, drivers, correlations, pairs, dataset.words)
    figures = _figures(run_id, "churn_by_value", "distributions")
    return part | found | {"run_id": run_id, "figures": figures}


def models_part(
    ranked: Sequence[Run],
    segment: pd.Series | None,
    *,
    recommended: str | None,
    refused: Part | None,
    held_out: int,
    metric: str,
    seed: int,
    ceiling: Mapping[str, float | None],
) -> Part | None:
    """Describe the recommended model: how it ranks, and how it differs from another kind's best.

    None without any model; without a ``recommended`` one (its run's id), the best is described.
    A run beyond the ``ceiling`` is suspect, and neither the best nor a rival. ``segment`` is that
    of each row, ``refused`` that of ``refusal``.
    """
    if not ranked:
        return None
    suspected = suspects(ranked, ceiling)
    good = plausible(ranked, ceiling) or ranked
    shown = next((run for run in good if run.info.run_id == recommended), good[0])
    best, kind = good[0], shown.data.params["model.name"]
    others = [run for run in good if run is not shown]
    kinds = [run.data.params["model.name"] for run in others]
    rival = min(others, key=lambda run: run.data.params["model.name"] == kind, default=None)
    found = rival and compare_runs(shown, rival, metric=metric, seed=seed, among=good)
    rows = _ranks(ranked, shown, recommended=recommended, metric=metric)
    return {
        "rows": [row | {"suspect": row["run_id"] in suspected} for row in rows],
        "suspects": len(suspected),
        "n": len(ranked),
        "any_tuned": any(is_tuned(run) for run in ranked),
        "recommended": recommended and _model_name(shown),
        "kept": any(Tag.MODEL not in run.data.tags for run in ranked),
        "run_id": shown.info.run_id,
        "best": None if shown is best else (_model_name(best), best.data.metrics[f"cv_{metric}"]),
        "best_run_id": best.info.run_id,
        "rival": rival and _model_name(rival),
        "rivals": rival and kinds.count(rival.data.params["model.name"]),
        "rival_run_id": rival and rival.info.run_id,
        "found": found,
        "looked": found is not None and found.decided_by == "hold-out",
        "refused": refused,
        "metric": metric,
        "value": shown.data.metrics[f"cv_{metric}"],
        "held_out": held_out,
        "found_on": " ".join(found_on_notes([shown])),
        "measure_late": f"train model={kind} features={shown.data.params['features.name']}",
        **_evidence(shown, segment, held_out=held_out, seed=seed),
    }


def _ranks(
    ranked: Sequence[Run], shown: Run, *, recommended: str | None, metric: str
) -> list[Part]:
    """Return the rows of the first models, the shown one always among them."""
    listed = list(ranked[:MOST_ROWS])
    if shown not in listed:
        listed[-1] = shown
    rows: list[Part] = leaderboard(listed, metric=metric).to_dict("records")  # type: ignore[assignment]
    return [
        row | _model(run, ranked) | {"recommended": run.info.run_id == recommended}
        for row, run in zip(rows, listed, strict=True)
    ]


def _evidence(run: Run, segment: pd.Series | None, *, held_out: int, seed: int) -> Part:
    """Say how well a model ranks, where its probabilities hold, and what contacting earns."""
    run_id, scores, late = run.info.run_id, scores_of(run), ranking_without_late(run)
    oof = artifacts.read_table(run_id, Artifact.OOF)
    first_draw = oof[oof["repeat"] == 0]
    gains = performance.repeated_gains(oof, shares=SHARES)
    tables = (Artifact.SLICES, Artifact.LEARNING_CURVE, Artifact.CAPACITY, Artifact.SENSITIVITY)
    sliced, curve, *valued = (artifacts.find_table(run_id, name) for name in tables)
    ends = {"roc_auc": "", "low": "_low", "high": "_high"}
    return {
        "late": late and Late(*late),
        "test": {name: scores[f"test_roc_auc{end}"] for name, end in ends.items()},
        "gains": gains.set_index("share")[["gain", "perfect"]].to_dict("index"),
        "calibration_error": _calibration_error(first_draw, seed=seed),
        "calibration": run.data.tags.get(Tag.CALIBRATION, ""),
        "slices": model_parts.slices(sliced, first_draw, segment),
        "more_members": model_parts.more_members(curve, members=len(first_draw)),
        "decisions": model_parts.decisions(scores, *valued, held_out=held_out),
        "figures": _figures(run_id, "importance", "gains", "reliability"),
    }


def _calibration_error(predicted: pd.DataFrame, *, seed: int) -> str:
    """Say how far the out-of-fold probabilities of one draw of the folds are off."""
    y, probability = predicted["y"].to_numpy(), predicted["probability"].to_numpy()
    return model_parts.calibration(calibration_error(y, probability, seed=seed))


def _segment_of_row(segmented: Run) -> pd.Series:
    """Return the segment of each row of the table."""
    return artifacts.read_table(segmented.info.run_id, Artifact.MEMBERS).set_index("row")["segment"]


def segments_part(
    segmented: Run | None, champion: ModelVersion | None, *, churn_rate: float
) -> Part | None:
    """Return the portraits of a segment run, why this many segments and how stable they are.

    The champion's segments have the numbers and names that the champion serves.
    """
    if segmented is None:
        return None
    run_id, k = segmented.info.run_id, int(segmented.data.metrics["k"])
    served = champion is not None and champion.tags[Tag.SEGMENT_RUN_ID] == run_id
    numbered = None
    if champion is not None and served:
        numbered = read_version(version_uri(champion), SERVED_PORTRAITS)
    portraits = numbered or artifacts.read_json(run_id, Artifact.PORTRAITS)
    shown = [on_page(portrait) for portrait in portraits]
    made_of = artifacts.read_json(run_id, Artifact.SEGMENTATION)
    evidence = artifacts.read_table(run_id, Artifact.EVIDENCE).set_index("k").loc[k].to_dict()
    return {
        "run_id": run_id,
        "portraits": sorted(shown, key=lambda portrait: portrait["id"]),
        "numbered": f"as in version {champion.version}" if champion and numbered else "by size",
        "attention": sentences.needs_attention(shown, churn_rate=churn_rate),
        "columns": list(made_of["columns"]),
        "for_everyone": made_of["for_everyone"],
        "reason": segmented.data.tags[Tag.K_REASON],
        "stable": sentences.how_stable(
            evidence, stable_limits(evidence), segmented.data.tags.get(Tag.GROUPS)
        ),
        "notes": made_of["notes"],
        "figures": _figures(run_id, "churn_by_segment", "profile", "dendrogram"),
    }


def claims_part(measured: Run | None) -> Part | None:
    """Return the claims about this table with their verdicts; None without a claims run."""
    if measured is None:
        return None
    run_id = measured.info.run_id
    rows = contents.claim_rows(artifacts.read_table(run_id, Artifact.CLAIMS))
    return {"run_id": run_id, "rows": rows, "summary": measured.data.tags["mlflow.note.content"]}


def _champion(registered: str, dataset: Dataset) -> ModelVersion | None:
    """Return the champion; warn and leave it out if churnlab promote did not make it."""
    found = find_champion(registered)
    if found is None or Tag.CHURN_RUN_ID in found.tags:
        if found is not None:
            check_files(found)
        return found
    dataset.warn(
        f"version {found.version} of {registered} is the champion, but churnlab promote did not "
        "make it, so the report leaves it out"
    )
    return None


def champion_part(
    found: ModelVersion | None,
    recommended: Run | None,
    dataset: Dataset,
    *,
    ceiling: Mapping[str, float | None],
) -> Part | None:
    """Describe the champion: its model, its gate, and when, by whom and why it was promoted.

    It is the ``recommended`` model, too, if another run had the same config and table.
    """
    if found is None:
        return None
    churn, model = mlflow.get_run(found.tags[Tag.CHURN_RUN_ID]), registered_model(found.name)
    moves = champion_changes(model) if model else []
    last = moves[-1] if moves and moves[-1]["to"] == version_number(found.version) else {}
    # A promotion killed after it moved the alias has not logged the gate.
    recorded = mlflow.get_run(found.run_id).info.status == "FINISHED"
    checks = _checks(found.run_id, dataset) if recorded else []
    return {
        "version": found.version,
        "since": day(datetime.fromisoformat(last.get("when", found.tags[Tag.WHEN]))),
        "who": last.get("who", found.tags[Tag.WHO]),
        "reason": last.get("why", found.tags[Tag.REASON]),
        "replaced": last.get("from", found.tags[Tag.REPLACED]),
        "put_back": last.get("command") == "rollback",
        "checks": [Check(**check).cells for check in checks],
        "model": _model_name(churn),
        "threshold": churn.data.metrics["threshold"],
        "run_id": found.run_id,
        "churn_run_id": churn.info.run_id,
        "segment_run_id": served_segment_run_id(found),
        "recommended": None if recommended is None else is_same(churn, recommended),
        "suspect": bool(suspects([churn], ceiling)),
        "lost": lost_in_words(version_uri(found)),
        "same_table": churn.data.tags.get(Tag.DATA) == dataset.sha256,
    }


def _checks(promotion: str, dataset: Dataset) -> list[Part]:
    """Return the gate's checks of a promote run; none, with a warning, if it has lost them."""
    try:
        return artifacts.read_json(promotion, Artifact.GATE)["checks"]
    except artifacts.LostFile as lost:
        dataset.warn(f"the checks of the champion are left out: {lost}")
        return []


def _model(run: Run, ranked: Sequence[Run]) -> Part:
    """Describe a model by its config; of its parameters those that differ among its kind."""
    model, params = run.data.params["model.name"], run.data.params
    kind = [other.data.params for other in ranked if other.data.params["model.name"] == model]
    return {
        "model": model,
        "features": params["features.name"],
        "tuned": is_tuned(run),
        "params": contents.varied_params(params, kind),
    }


def _model_name(run: Run) -> str:
    params = run.data.params
    return model_in_words(params["model.name"], params["features.name"], tuned=is_tuned(run))


def _figures(run_id: str, *names: str) -> dict[str, page.Picture]:
    """Return those of these figures that the run has logged."""
    pictures = {name: artifacts.read_bytes(run_id, f"figures/{name}.png") for name in names}
    return {name: page.picture(png) for name, png in pictures.items() if png is not None}
