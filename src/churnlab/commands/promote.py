"""Make a version of a churn run and a segmentation run, gate it against the champion, move the
alias.

Why: what is served is one version, with its model, threshold, segmentation, names and actions in
one place. Candidate and champion are both loaded from the registry and asked about the same
held-out members, none of whom either was trained on. The champion is replaced only by a version
that passes every check (exit 3 when one fails); limits are keys.

    churnlab promote
    churnlab promote dataset=gym dataset.path=members.csv require=not_worse gate.minimum.roc_auc=0.8
    churnlab promote churn_run=RUN_ID force=true reason="the new contract has a column more"
"""

from __future__ import annotations

import json
import logging
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import mlflow
import numpy as np
import pandas as pd
from mlflow.entities import Run
from mlflow.entities.model_registry import ModelVersion

from churnlab.config.commands import Promote, Result
from churnlab.config.groups import GateKeys
from churnlab.data.dataset import Dataset
from churnlab.errors import InputError
from churnlab.formatting import counted
from churnlab.models import evaluation
from churnlab.models.splits import make_split
from churnlab.registry import champion as registry
from churnlab.registry import gate, versions
from churnlab.registry.gate import Check
from churnlab.registry.versions import log_bundle
from churnlab.tracking import artifacts
from churnlab.tracking.fingerprints import split_tags
from churnlab.tracking.names import EXPERIMENTS, Artifact, Tag
from churnlab.tracking.runs import start_run
from churnlab.tracking.search import find_runs, get_run, latest_run, ranked_train_runs

log = logging.getLogger(__name__)


class Champion(NamedTuple):
    """The champion of the moment, loaded; ``unknown`` says why it could not be."""

    version: ModelVersion
    served: versions.Served | None
    unknown: str


class Candidate(NamedTuple):
    """A version that is not registered yet: logged under ``model_id``, loaded, its segments
    numbered."""

    model_id: str
    served: versions.Served
    numbering: versions.Numbering
    megabytes: float


def run(settings: Promote, dataset: Dataset) -> Result:
    """Build, gate, register; the alias moves when every check has passed, after all is kept and the
    run has ended."""
    split = make_split(dataset, **settings.evaluation.split, seed=settings.seed)
    churn, segments = (
        _churn_run(settings, dataset, split_tags(split)),
        _segment_run(settings, dataset),
    )
    if unstable := segments.data.tags.get(Tag.UNSTABLE):
        dataset.warn(f"the segmentation that is promoted is marked: {unstable}")
    name, config = registry.model_name(dataset.contract.name), settings.model_dump()
    with registry.one_at_a_time():
        reign = _reign(name)
        champion = registry.number(reign.version.version) if reign else None
        with start_run(
            "promote", config, name=f"promote {name}", dataset=dataset, tags=split_tags(split)
        ) as mlflow_run:
            candidate = _build(churn, segments, dataset, reign)
            checks = [
                *_ask_both(settings, dataset, split.test, churn, candidate.served, reign),
                *_look_at(settings.gate, candidate, segments, reign),
            ]
            verdict, looks = (
                gate.verdict(checks, force=settings.force),
                _looks(name, split_tags(split)),
            )
            moves = verdict != "refused"
            version = registry.register(
                name,
                candidate.model_id,
                run_id=mlflow_run.info.run_id,
                description=_description(churn, segments),
                tags={
                    Tag.COMMAND: "promote",
                    Tag.GATE: verdict,
                    **{f"{Tag.GATE}.{check.name}": json.dumps(check.value) for check in checks},
                    Tag.CHURN_RUN_ID: churn.info.run_id,
                    Tag.SEGMENT_RUN_ID: segments.info.run_id,
                    Tag.SEGMENTS: candidate.numbering.told,
                    Tag.STABLE: segments.data.tags[Tag.STABLE],
                    Tag.REPLACED: champion or "" if moves else "",
                    Tag.REASON: settings.reason or "",
                },
            )
            kept = {
                "version": version,
                "promoted": moves,
                "gate": verdict,
                "against": champion,
                "holdout_looks": looks,
                "told_apart_by": versions.keep_training_rows(churn, dataset),
                "checks": [
                    check.line | {"said": check.said, "warning": check.warning} for check in checks
                ],
            }
            mlflow.log_dict(kept, Artifact.GATE)
            mlflow.log_metric("holdout_looks", looks)
            said = _said(settings, name, version, champion, verdict, checks)
            mlflow.set_tags({Tag.GATE: verdict, "mlflow.note.content": said})
        if moves:
            registry.move_champion(
                name,
                after=champion,
                to=version,
                previous=champion,
                why=settings.reason or "",
                command="promote",
                run_id=mlflow_run.info.run_id,
            )
        else:
            registry.make_challenger(name, version)
    told = [
        gate.told(checks),
        said,
        f"Segments: {candidate.numbering.told}",
        _looks_told(looks, settings.gate),
    ]
    log.info("%s", "\n".join(told))
    values = {"run_id": mlflow_run.info.run_id, "version": version, "promoted": moves}
    return Result(values | {"checks": [check.line for check in checks]}, yes=moves)


def _build(churn: Run, segments: Run, dataset: Dataset, reign: Champion | None) -> Candidate:
    """Log the version that would be registered and load it as it would be served."""
    numbering = versions.number_segments(
        segments,
        dataset,
        champion=registry.number(reign.version.version) if reign else None,
        serving=reign.served if reign else None,
    )
    with tempfile.TemporaryDirectory() as scratch:
        files = versions.write(Path(scratch), churn, segments, dataset, numbering)
        size = sum(path.stat().st_size for path in Path(scratch).rglob("*") if path.is_file())
        threshold = churn.data.metrics["threshold"]
        model_id = log_bundle(files, dataset.contract, threshold=threshold, gaps=dataset.gaps)
    return Candidate(model_id, versions.load(f"models:/{model_id}"), numbering, size / 1e6)


def _said(
    settings: Promote,
    name: str,
    version: str,
    champion: str | None,
    verdict: str,
    checks: list[Check],
) -> str:
    """How it went, in a sentence."""
    becomes = f"takes the place of version {champion}" if champion else "is the first champion"
    if verdict == "passed":
        return f"{name} version {version} passed every check and {becomes}"
    failed = ", ".join(check.name for check in checks if not check.passed)
    if verdict == "forced":
        return (
            f"{name} version {version} {becomes} by force, in spite of {failed}: {settings.reason}"
        )
    return f"{name} version {version} is refused for {failed}: the champion stays"


def _reign(name: str) -> Champion | None:
    champion = registry.champion(name)
    if champion is None:
        return None
    try:
        return Champion(champion, versions.load(registry.uri(champion)), "")
    except LookupError as error:
        return Champion(champion, None, str(error))


def _looks(name: str, tags: dict[str, str]) -> int:
    """How often this hold-out has decided about a promotion before."""
    same = {Tag.COMMAND: "promote", Tag.SPLIT: tags[Tag.SPLIT]}
    experiment = f"{registry.dataset_name(name)}-{EXPERIMENTS['promote']}"
    return len(find_runs(experiment, same, status="FINISHED"))


def _looks_told(looks: int, limits: GateKeys) -> str:
    said = (
        f"This hold-out has decided {counted(looks, 'time')} before"
        if looks
        else "This hold-out has not decided before"
    )
    if looks + 1 < limits.looks:
        return f"{said}."
    return (
        f"warning: {said}. Members that decide again and again are no longer new to the models: "
        "promote on newer members, or train and promote with another seed."
    )


def _description(churn: Run, segments: Run) -> str:
    """What a version is, for those who open it in the registry."""
    return (
        f"{churn.info.run_name} at threshold {churn.data.metrics['threshold']:.2f}, with "
        f"{segments.info.run_name} ({segments.data.tags[Tag.K_REASON]})"
    )


def _churn_run(settings: Promote, dataset: Dataset, tags: dict[str, str]) -> Run:
    if settings.churn_run != "best":
        return _named_run(settings.churn_run, "train", dataset)
    ranked = ranked_train_runs(dataset.contract.name, tags, metric=settings.metric)
    if not ranked:
        raise InputError(
            "There is no finished train run on this table and split to promote; run churnlab train "
            "(or tune) with the same dataset=, seed= and evaluation keys first."
        )
    return ranked[0]


def _segment_run(settings: Promote, dataset: Dataset) -> Run:
    if settings.segment_run != "best":
        return _named_run(settings.segment_run, "segment", dataset)
    latest = latest_run("segment", dataset)
    if latest is None:
        raise InputError(
            "There is no finished segment run on this table; run churnlab segment first."
        )
    return latest


def _named_run(run_id: str, command: str, dataset: Dataset) -> Run:
    """A run by its id; InputError when it is none of this table."""
    found = get_run(run_id, command=command)
    if found.data.tags[Tag.DATA] != dataset.sha256:
        raise InputError(
            f"The {command} run {run_id} is of another table than {dataset.source} as it is now; "
            "name its own table with dataset= and dataset.path= (or dataset.rows=), or another run."
        )
    return found


def _ask_both(
    settings: Promote,
    dataset: Dataset,
    test: np.ndarray,
    churn: Run,
    candidate: versions.Served,
    reign: Champion | None,
) -> list[Check]:
    """What is measured on members: is it what was trained, and how good is it beside the champion
    and beside nothing.

    The members are those of the hold-out ``test`` that neither was trained on and both can answer
    for.
    """
    limits, seed, threshold = settings.gate, settings.seed, churn.data.metrics["threshold"]
    own = artifacts.read_table(churn.info.run_id, Artifact.TEST)
    asked = np.union1d(own["row"], test)
    started = time.perf_counter()
    answered = np.full(len(dataset.y), np.nan)
    answered[asked] = _probabilities(candidate, dataset.X.iloc[asked])
    batch_ms = (time.perf_counter() - started) / len(asked) * 1000
    checks = [
        gate.same_answers(own["probability"].to_numpy(), answered[own["row"]], limit=limits.same)
    ]

    trained = versions.training_rows(churn)
    seen = np.isin(test, trained)
    left_out = {
        "were in the candidate's training part (name its own seed= and evaluation keys)": int(
            seen.sum()
        )
    }
    usable = ~seen
    serving = reign.served if reign else None
    if reign is not None:
        try:
            if serving is None:
                raise LookupError(reign.unknown)
            seen = versions.trained_on(reign.version, dataset)[test]
            able = versions.answerable(serving, dataset.X.iloc[test])
            left_out["more were in the champion's training part"] = int((usable & seen).sum())
            left_out["more break the champion's contract"] = int((usable & ~seen & ~able).sum())
            usable &= ~seen & able
            checks.append(gate.known_champion(None))
        except LookupError as error:
            serving = None
            checks.append(
                gate.known_champion(
                    f"version {reign.version.version} cannot be compared with: {error}"
                )
            )
    rows = test[usable]
    y, probability = dataset.y[rows], answered[rows]
    checks.append(
        gate.enough_members(left_out, members=len(test), left=len(rows), limit=limits.members)
    )
    if serving is not None:
        checks.append(
            gate.against_champion(
                y,
                probability,
                _probabilities(serving, dataset.X.iloc[rows]),
                metric=settings.metric,
                thresholds=(threshold, serving.about["threshold"]),
                require=settings.require,
                margin=limits.margin,
                seed=seed,
            )
        )
    guess = float(dataset.y[trained].mean())
    checks += gate.against_dummy(y, probability, churn_rate=guess, threshold=threshold, seed=seed)
    checks += gate.check_calibration(
        y, probability, slope=limits.slope, ece=limits.ece, threshold=threshold, seed=seed
    )
    scores = (
        evaluation.classification_metrics(y, probability, threshold=threshold)
        if len(np.unique(y)) == 2
        else {}
    )
    known = {key: value for key, value in churn.data.metrics.items() if key.startswith("cv_")}
    known |= {f"test_{key}": value for key, value in scores.items()}
    checks += gate.good_enough(scores, {str(key): value for key, value in limits.minimum.items()})
    checks += gate.plausible(known, settings.ceiling)
    return [
        *checks,
        gate.light("batch_ms", batch_ms, limits.batch_ms, unit="ms a member"),
        gate.light(
            "one_ms", _one_ms(candidate, dataset.X.iloc[test[:1]]), limits.one_ms, unit="ms"
        ),
    ]


def _one_ms(candidate: versions.Served, member: pd.DataFrame) -> float:
    """Milliseconds for one member with reasons, the best of five: what it costs, not how busy the
    machine is."""
    spent = []
    for _ in range(5):
        started = time.perf_counter()
        versions.answers(candidate, member, reasons=True)
        spent.append((time.perf_counter() - started) * 1000)
    return min(spent)


def _look_at(
    limits: GateKeys, candidate: Candidate, segments: Run, reign: Champion | None
) -> list[Check]:
    """What is seen of the version without asking it: its segments, the words in which it is asked,
    its size."""
    tags = segments.data.tags
    unstable = None if tags[Tag.STABLE] == "true" else tags.get(Tag.UNSTABLE, "it is marked so.")
    checks = [gate.stable_segments(unstable, by_hand=segments.data.params["segments.k"] != "auto")]
    if reign and reign.served:
        checks.append(
            gate.compatible(versions.interface(candidate.served), versions.interface(reign.served))
        )
    return [*checks, gate.light("megabytes", candidate.megabytes, limits.megabytes, unit="MB")]


def _probabilities(version: versions.Served, X: pd.DataFrame) -> np.ndarray:
    """What a version answers for these members."""
    return np.array([answer["churn_probability"] for answer in versions.answers(version, X)])
