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
import os
import shlex
from collections.abc import Sequence
from datetime import datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlflow
from hydra.core.hydra_config import HydraConfig
from mlflow.entities import Run
from mlflow.entities.model_registry import ModelVersion

from churnlab.config.commands import COMMANDS, Report, Result
from churnlab.data.dataset import Dataset
from churnlab.errors import InputError
from churnlab.formatting import day
from churnlab.models import evaluation
from churnlab.models.metric_names import LABELS
from churnlab.models.splits import make_split
from churnlab.registry.champion import (
    champion_changes,
    find_champion,
    model_name,
    registered_model,
    version_number,
    version_uri,
)
from churnlab.registry.gate import Check
from churnlab.registry.versions import read_version
from churnlab.report import page, sentences
from churnlab.report import parts as contents
from churnlab.segments.choose_k import STABLE
from churnlab.tracking import artifacts
from churnlab.tracking.fingerprints import split_tags
from churnlab.tracking.leaderboard import compare_runs, leaderboard
from churnlab.tracking.names import Artifact, Tag
from churnlab.tracking.runs import start_run
from churnlab.tracking.search import latest_run, ranked_train_runs

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
    output, name = _output(settings), dataset.contract.name
    split = make_split(dataset, **settings.evaluation.split, seed=settings.seed)
    ranked = ranked_train_runs(name, split_tags(split), metric=settings.metric)
    registered = model_name(name)
    champion, segmented = _champion(registered, dataset), latest_run("segment", dataset)
    number = version_number(champion and champion.version)
    parts: dict[str, Any] = {
        "members": members_part(dataset, latest_run("explore", dataset)),
        "models": models_part(
            ranked, held_out=len(split.test), metric=settings.metric, seed=settings.seed
        ),
        "segments": segments_part(segmented, champion, churn_rate=float(dataset.y.mean())),
        "champion": champion_part(champion, ranked, dataset),
    }
    claims = claims_part(latest_run("claims", dataset))
    conclusions = sentences.five_sentences(**parts, registered=registered)
    tags = split_tags(split) | ({Tag.VERSION: number} if number else {})
    with start_run(
        "report", settings.model_dump(), name=f"report {name}", dataset=dataset, tags=tags
    ) as opened:
        run_id = opened.info.run_id
        html = page.render(
            "report.html.j2",
            **parts,
            claims=claims,
            name=name,
            registered=registered,
            data_sha256=dataset.sha256,
            today=day(datetime.now()),
            conclusions=conclusions,
            command_line=_command_line,
            metric_names=LABELS,
            shown=list(dict.fromkeys([settings.metric, "log_loss", "roc_auc"])),
            sources=contents.sources(**parts, claims=claims) | {run_id: "report: this page"},
            version=version("churnlab"),
        )
        mlflow.log_text(html, Artifact.REPORT)
        mlflow.set_tag("mlflow.note.content", "\n\n".join(each.text for each in conclusions))
    _write(html, output)
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
    found = contents.explored(contract, *(artifacts.read_table(run_id, name) for name in tables))
    figures = _figures(run_id, "churn_by_value", "distributions")
    return part | found | {"run_id": run_id, "figures": figures}


def models_part(ranked: Sequence[Run], *, held_out: int, metric: str, seed: int) -> Part | None:
    """Compare the models: how the best one ranks and how it differs from the best of another kind.

    None without any model.
    """
    if not ranked:
        return None
    best, run_id, scores = ranked[0], ranked[0].info.run_id, ranked[0].data.metrics
    others = [
        run for run in ranked if run.data.params["model.name"] != best.data.params["model.name"]
    ] or ranked[1:]
    rival = others[0] if others else None
    oof = artifacts.read_table(run_id, Artifact.OOF).groupby("row")[["y", "probability"]].mean()
    y, probability = oof["y"].to_numpy(dtype=int), oof["probability"].to_numpy()
    gains = evaluation.gains(y, probability, shares=SHARES)
    rows = leaderboard(ranked[:MOST_ROWS], metric=metric).to_dict("records")
    return {
        "rows": [row | _model(run, ranked) for row, run in zip(rows, ranked, strict=False)],
        "n": len(ranked),
        "any_tuned": any(_is_tuned(run) for run in ranked),
        "best": _model_name(best),
        "run_id": run_id,
        "rival": rival and _model_name(rival),
        "rival_run_id": rival and rival.info.run_id,
        "difference": rival and compare_runs(best, rival, metric=metric, seed=seed).difference,
        "metric": metric,
        "value": scores[f"cv_{metric}"],
        "calibration_error": evaluation.calibration_line(y, probability)["ece"],
        "calibration": best.data.tags.get(Tag.CALIBRATION, ""),
        "held_out": held_out,
        "test": {
            "roc_auc": scores["test_roc_auc"],
            "low": scores["test_roc_auc_low"],
            "high": scores["test_roc_auc_high"],
        },
        "gains": dict(zip(gains["share"], gains["gain"], strict=True)),
        "figures": _figures(run_id, "importance", "gains", "reliability"),
    }


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
    made_of = artifacts.read_json(run_id, Artifact.SEGMENTATION)
    evidence = artifacts.read_table(run_id, Artifact.EVIDENCE).set_index("k")
    return {
        "run_id": run_id,
        "portraits": sorted(portraits, key=lambda portrait: portrait["id"]),
        "numbered": f"as in version {champion.version}" if champion and numbered else "by size",
        "attention": sentences.needs_attention(portraits, churn_rate=churn_rate),
        "columns": list(made_of["columns"]),
        "for_everyone": made_of["for_everyone"],
        "reason": segmented.data.tags[Tag.K_REASON],
        "stable": sentences.how_stable(evidence.loc[k].to_dict(), STABLE),
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
        return found
    dataset.warn(
        f"version {found.version} of {registered} is the champion, but churnlab promote did not "
        "make it, so the report leaves it out"
    )
    return None


def champion_part(
    found: ModelVersion | None, ranked: Sequence[Run], dataset: Dataset
) -> Part | None:
    """Describe the champion: its model, its gate, and when, by whom and why it was promoted."""
    if found is None:
        return None
    churn, model = mlflow.get_run(found.tags[Tag.CHURN_RUN_ID]), registered_model(found.name)
    moves = champion_changes(model) if model else []
    last = moves[-1] if moves and moves[-1]["to"] == version_number(found.version) else {}
    # A promotion killed after it moved the alias has not logged the gate.
    recorded = mlflow.get_run(found.run_id).info.status == "FINISHED"
    checks = artifacts.read_json(found.run_id, Artifact.GATE)["checks"] if recorded else []
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
        "segment_run_id": found.tags[Tag.SEGMENT_RUN_ID],
        "recommended": ranked[0].info.run_id == churn.info.run_id if ranked else None,
        "same_table": churn.data.tags.get(Tag.DATA) == dataset.sha256,
    }


def _model(run: Run, ranked: Sequence[Run]) -> Part:
    """Describe a model by its config; of its parameters those that differ among its kind."""
    model, params = run.data.params["model.name"], run.data.params
    kind = [other.data.params for other in ranked if other.data.params["model.name"] == model]
    return {
        "model": model,
        "features": params["features.name"],
        "tuned": _is_tuned(run),
        "params": contents.varied_params(params, kind),
    }


def _is_tuned(run: Run) -> bool:
    parent = run.data.tags.get("mlflow.parentRunId")
    return parent is not None and _command_of(parent) == "tune"


@cache
def _command_of(run_id: str) -> str | None:
    return mlflow.get_run(run_id).data.tags.get(Tag.COMMAND)


def _model_name(run: Run) -> str:
    params = run.data.params
    return sentences.model_in_words(
        params["model.name"], params["features.name"], tuned=_is_tuned(run)
    )


def _figures(run_id: str, *names: str) -> dict[str, page.Picture]:
    """Return those of these figures that the run has logged."""
    pictures = {name: artifacts.read_bytes(run_id, f"figures/{name}.png") for name in names}
    return {name: page.picture(png) for name, png in pictures.items() if png is not None}


def _command_line(command: str) -> str:
    """Complete a command with the words of this command line that choose the table and split."""
    if not HydraConfig.initialized():
        return f"churnlab {command}"
    schema, config = COMMANDS[command.split()[0]], HydraConfig.get()
    words = [
        word
        for source in config.runtime.config_sources
        if source.provider == "command-line"
        for word in ("--config-dir", source.path)
    ]
    for word in config.overrides.task:
        key = word.lstrip("+").partition("=")[0]
        if key.partition(".")[0] in SAME & set(schema.model_fields) and (
            schema.reads_table or key != "dataset.path"
        ):
            words.append(word)
    return f"churnlab {command} {shlex.join(words)}".strip()


def _output(settings: Report) -> Path:
    """Return the path of the page; InputError for a missing folder or an ending unlike .html."""
    if settings.output is None:
        folder = Path(os.environ["CHURNLAB_HOME"]) / "outputs"
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"report-{settings.dataset.name}.html"
    output = Path(settings.output).absolute()
    if output.suffix not in (".html", ".htm"):
        raise InputError(f"output={settings.output} is not a page; give a name that ends in .html.")
    if not output.parent.is_dir():
        raise InputError(
            f"output={settings.output} is in a folder that does not exist; create it first."
        )
    return output


def _write(html: str, output: Path) -> None:
    """Write to a temporary file and rename it: a kill leaves no partial page."""
    building = output.with_name(f".{os.getpid()}.{output.name}")
    try:
        building.write_text(html, encoding="utf-8")
        os.replace(building, output)
    finally:
        building.unlink(missing_ok=True)
