"""One self-contained HTML page a manager can read: who leaves, which model, which segments, what to
do.

Why: the runs hold every number, and a decision needs them on one page, each beside the run it came
from. What has not been done yet is said, with the command that does it. The page opens without a
network, prints, and fits a phone.

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

from churnlab.claims.claim import measured_in_words
from churnlab.config.commands import COMMANDS, Report, Result
from churnlab.data.dataset import Dataset
from churnlab.errors import InputError
from churnlab.formatting import day, setting
from churnlab.models import evaluation
from churnlab.models.metric_names import LOWER_IS_BETTER, METRICS
from churnlab.models.splits import make_split
from churnlab.registry import champion as registry
from churnlab.registry.versions import read_version
from churnlab.report import page, sentences
from churnlab.segments.choose_k import STABLE
from churnlab.tracking import artifacts
from churnlab.tracking.fingerprints import split_tags
from churnlab.tracking.leaderboard import leaderboard, pair
from churnlab.tracking.names import Artifact, Tag
from churnlab.tracking.runs import start_run
from churnlab.tracking.search import latest_run, ranked_train_runs

log = logging.getLogger(__name__)

Part = dict[str, Any]
"""What one section of the page tells."""

SHARES = (0.1, 0.2)
"""The riskiest members of whom the page says how many of those who leave they hold."""

SHOWN = "segmentation/portraits.json"
"""Where a version has its portraits, under the numbers and names that it serves."""

MOST_ROWS = 12
"""So many rows of a table are shown; the runs have them all."""

SAME = {"dataset", "evaluation", "seed", "tracking"}
"""Keys by which the next command finds what the report was made of."""


def run(settings: Report, dataset: Dataset) -> Result:
    """Gather what the runs found, say it in sentences, write the page."""
    output, name = _output(settings), dataset.contract.name
    split = make_split(dataset, **settings.evaluation.split, seed=settings.seed)
    ranked = ranked_train_runs(name, split_tags(split), metric=settings.metric)
    registered = registry.model_name(name)
    champion, segmented = _champion(registered, dataset), latest_run("segment", dataset)
    parts: dict[str, Any] = {
        "members": members_part(dataset, latest_run("explore", dataset)),
        "models": models_part(
            ranked, held_out=len(split.test), metric=settings.metric, seed=settings.seed
        ),
        "segments": segments_part(segmented, champion, churn_rate=float(dataset.y.mean())),
        "champion": champion_part(champion, ranked, dataset),
    }
    claims = claims_part(latest_run("claims", dataset))
    with start_run(
        "report",
        settings.model_dump(),
        name=f"report {name}",
        dataset=dataset,
        tags=split_tags(split),
    ) as mlflow_run:
        said = sentences.five_sentences(**parts, registered=registered)
        html = page.render(
            "report.html.j2",
            **parts,
            claims=claims,
            name=name,
            registered=registered,
            data_sha256=dataset.sha256,
            today=day(datetime.now()),
            said=said,
            line=_line,
            metric_names=METRICS,
            shown=list(dict.fromkeys([settings.metric, "log_loss", "roc_auc"])),
            sources=_sources(**parts)
            | ({claims["run_id"]: "claims"} if claims else {})
            | {mlflow_run.info.run_id: "report: this page"},
            version=version("churnlab"),
        )
        mlflow.log_text(html, Artifact.REPORT)
        mlflow.set_tag("mlflow.note.content", "\n\n".join(sentence.text for sentence in said))
    _write(html, output)
    log.info("%s\n\nThe report: %s", "\n".join(sentence.text for sentence in said), output)
    return Result({"run_id": mlflow_run.info.run_id, "path": str(output)})


def members_part(dataset: Dataset, explored: Run | None) -> Part:
    """The table in numbers, and what the explore run found in it (groups is None without one)."""
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
    drivers = artifacts.read_table(run_id, "drivers.csv").dropna(
        subset=["risk_ratio", "low", "high"]
    )
    clear = drivers[(drivers["low"] > 1) | (drivers["high"] < 1)]
    kinds: dict[str, dict[str, Any]] = {
        name: {"kind": column.kind, "unit": column.unit}
        for name, column in contract.columns.items()
    }
    correlations = artifacts.read_table(run_id, "correlations.csv").dropna(subset="pearson_r")
    return part | {
        "run_id": run_id,
        "groups": [
            sentences.riskier(row, **kinds[row["feature"]]) for row in clear.to_dict("records")
        ],
        "unclear": [
            name for name in drivers["feature"].unique() if name not in set(clear["feature"])
        ],
        "correlations": correlations.to_dict("records"),
        "pairs": artifacts.read_table(run_id, "collinear.csv").to_dict("records"),
        "figures": _figures(run_id, "churn_by_value", "distributions"),
    }


def models_part(ranked: Sequence[Run], *, held_out: int, metric: str, seed: int) -> Part | None:
    """The models side by side, and how the best ranks and differs from the best of another kind;
    None without any."""
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
        "rows": [row | _about(run, ranked) for row, run in zip(rows, ranked, strict=False)],
        "n": len(ranked),
        "any_tuned": any(_is_tuned(run) for run in ranked),
        "best": _in_words(best),
        "run_id": run_id,
        "rival": rival and _in_words(rival),
        "rival_run_id": rival and rival.info.run_id,
        "difference": rival and pair(best, rival, metric=metric, seed=seed).found._asdict(),
        "metric": metric,
        "lower_is_better": metric in LOWER_IS_BETTER,
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
    """The portraits of a segment run, why so many segments, how stable they are, what to do for
    everyone.

    The champion's segments have the numbers and names under which they are served.
    """
    if segmented is None:
        return None
    run_id, k = segmented.info.run_id, int(segmented.data.metrics["k"])
    served = champion is not None and champion.tags[Tag.SEGMENT_RUN_ID] == run_id
    shown = read_version(registry.uri(champion), SHOWN) if champion is not None and served else None
    portraits = shown or artifacts.read_json(run_id, Artifact.PORTRAITS)
    made_of = artifacts.read_json(run_id, Artifact.SEGMENTATION)
    evidence = artifacts.read_table(run_id, Artifact.EVIDENCE).set_index("k")
    return {
        "run_id": run_id,
        "portraits": sorted(portraits, key=lambda portrait: portrait["id"]),
        "numbered": f"as version {champion.version} serves them"
        if champion and shown
        else "by size",
        "attention": sentences.needs_attention(portraits, churn_rate=churn_rate),
        "columns": list(made_of["columns"]),
        "for_everyone": made_of["for_everyone"],
        "reason": segmented.data.tags[Tag.K_REASON],
        "stable": sentences.how_stable(evidence.loc[k].to_dict(), STABLE),
        "notes": made_of["notes"],
        "figures": _figures(run_id, "churn_by_segment", "profile", "dendrogram"),
    }


def claims_part(measured: Run | None) -> Part | None:
    """What was said about this table and what became of it when it was measured; None when nothing
    was."""
    if measured is None:
        return None
    run_id = measured.info.run_id
    rows = (
        artifacts.read_table(run_id, Artifact.CLAIMS).astype({"verdict": "str"}).to_dict("records")
    )
    for row in rows:
        row["verdict"] = row[
            "verdict"
        ].lower()  # "false" alone in its column is read as a truth value
        row["measured"] = measured_in_words(row["measured"], row["low"], row["high"])
    return {"run_id": run_id, "rows": rows, "summary": measured.data.tags["mlflow.note.content"]}


def _champion(registered: str, dataset: Dataset) -> ModelVersion | None:
    """The version in use; one that churnlab did not make says nothing of itself, and the page is
    without it."""
    found = registry.champion(registered)
    if found is None or Tag.CHURN_RUN_ID in found.tags:
        return found
    dataset.warn(
        f"version {found.version} of {registered} is the champion, but churnlab promote did not "
        "make it: the report knows nothing of it"
    )
    return None


def champion_part(
    found: ModelVersion | None, ranked: Sequence[Run], dataset: Dataset
) -> Part | None:
    """The version in use: what it was made of, what the gate said, when, by whom and why; None
    without one."""
    if found is None:
        return None
    churn, model = (
        mlflow.get_run(found.tags[Tag.CHURN_RUN_ID]),
        registry.registered(found.name),
    )
    moves = registry.moves(model) if model else []
    last = moves[-1] if moves and moves[-1]["to"] == registry.number(found.version) else {}
    # A promotion killed after the alias was moved has left no record of the gate.
    recorded = mlflow.get_run(found.run_id).info.status == "FINISHED"
    return {
        "version": found.version,
        "since": day(datetime.fromisoformat(last.get("when", found.tags[Tag.WHEN]))),
        "who": last.get("who", found.tags[Tag.WHO]),
        "reason": last.get("why", found.tags[Tag.REASON]),
        "replaced": last.get("from", found.tags[Tag.REPLACED]),
        "put_back": last.get("command") == "rollback",
        "checks": artifacts.read_json(found.run_id, Artifact.GATE)["checks"] if recorded else [],
        "model": _in_words(churn),
        "threshold": churn.data.metrics["threshold"],
        "run_id": found.run_id,
        "churn_run_id": churn.info.run_id,
        "segment_run_id": found.tags[Tag.SEGMENT_RUN_ID],
        "recommended": ranked[0].info.run_id == churn.info.run_id if ranked else None,
        "same_table": churn.data.tags.get(Tag.DATA) == dataset.sha256,
    }


def _about(run: Run, ranked: Sequence[Run]) -> Part:
    """What a model is, in the words of its config; of its parameters those in which the runs of its
    kind differ."""
    model, params = run.data.params["model.name"], run.data.params
    kind = [other.data.params for other in ranked if other.data.params["model.name"] == model]
    named = sorted({key for other in kind for key in other if key.startswith("model.estimator.")})
    differ = [key for key in named if len({other.get(key) for other in kind}) > 1]
    chosen = {
        key.removeprefix("model.estimator."): setting(params[key])
        for key in differ
        if key in params
    }
    return {
        "model": model,
        "features": params["features.name"],
        "tuned": _is_tuned(run),
        "params": chosen,
    }


def _is_tuned(run: Run) -> bool:
    parent = run.data.tags.get("mlflow.parentRunId")
    return parent is not None and _command_of(parent) == "tune"


@cache
def _command_of(run_id: str) -> str | None:
    return mlflow.get_run(run_id).data.tags.get(Tag.COMMAND)


def _in_words(run: Run) -> str:
    params = run.data.params
    return sentences.model_in_words(
        params["model.name"], params["features.name"], tuned=_is_tuned(run)
    )


def _figures(run_id: str, *names: str) -> dict[str, page.Picture]:
    """Those of these figures that the run has logged."""
    pictures = {name: artifacts.read_bytes(run_id, f"figures/{name}.png") for name in names}
    return {name: page.picture(png) for name, png in pictures.items() if png is not None}


def _sources(
    members: Part, models: Part | None, segments: Part | None, champion: Part | None
) -> dict[str, str]:
    """Every run that the page has a number of, by its id, with what it was."""
    named = {members["run_id"]: "explore"} if members["run_id"] else {}
    for row in models["rows"] if models else []:
        called = sentences.model_in_words(row["model"], row["features"], tuned=row["tuned"])
        named[row["run_id"]] = f"train: {called}"
    if models and models["rival_run_id"]:
        named.setdefault(models["rival_run_id"], f"train: {models['rival']}")
    if segments:
        named[segments["run_id"]] = "segment"
    if champion:
        named[champion["run_id"]] = f"promote: version {champion['version']}"
        named.setdefault(champion["churn_run_id"], f"train: {champion['model']}, the champion's")
        named.setdefault(champion["segment_run_id"], "segment: the champion's")
    return named


def _line(command: str) -> str:
    """A command as a line to paste: with the words that name the same table, split and store as the
    report's own."""
    if not HydraConfig.initialized():
        return f"churnlab {command}"
    asked, about = COMMANDS[command.split()[0]], HydraConfig.get()
    words = [
        word
        for source in about.runtime.config_sources
        if source.provider == "command-line"
        for word in ("--config-dir", source.path)
    ]
    for word in about.overrides.task:
        key = word.lstrip("+").partition("=")[0]
        if key.partition(".")[0] in SAME & set(asked.model_fields) and (
            asked.reads_table or key != "dataset.path"
        ):
            words.append(word)
    return f"churnlab {command} {shlex.join(words)}".strip()


def _output(settings: Report) -> Path:
    """Where the page goes; InputError for a folder that does not exist or a file that no browser
    would open."""
    if settings.output is None:
        folder = Path(os.environ["CHURNLAB_HOME"]) / "outputs"
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"report-{settings.dataset.name}.html"
    output = Path(settings.output).absolute()
    if output.suffix not in (".html", ".htm"):
        raise InputError(f"output={settings.output} is no page; give a name that ends in .html.")
    if not output.parent.is_dir():
        raise InputError(
            f"output={settings.output} lies in a folder that does not exist; make it first."
        )
    return output


def _write(html: str, output: Path) -> None:
    """Write beside the output and move it into place: a kill leaves no half of a page under its
    name."""
    building = output.with_name(f".{os.getpid()}.{output.name}")
    try:
        building.write_text(html, encoding="utf-8")
        os.replace(building, output)
    finally:
        building.unlink(missing_ok=True)
