"""Build a version from a churn run and a segmentation run; the gate decides if it becomes champion.

Why: one version holds all that is served: model, threshold, segmentation, names and actions.
Candidate and champion are both loaded from the registry and compared on held-out members that
neither was trained on. Only a version that passes every check replaces the champion (exit 3 when
one fails); the limits are keys.

    churnlab promote
    churnlab promote dataset=gym dataset.path=members.csv require=not_worse gate.minimum.roc_auc=0.8
    churnlab promote churn_run=RUN_ID force=true reason="the new contract has a column more"
"""

from __future__ import annotations

import json
import logging
import time
import timeit
from dataclasses import asdict
from typing import Any, NamedTuple

import mlflow
import numpy as np
import pandas as pd
from mlflow.entities import Run

from churnlab.config.commands import Promote, Result
from churnlab.config.groups import GateKeys
from churnlab.data.dataset import Dataset
from churnlab.errors import InputError
from churnlab.formatting import counted
from churnlab.models import evaluation
from churnlab.models.splits import make_split
from churnlab.registry import gate, versions
from churnlab.registry.candidate import Candidate, build
from churnlab.registry.champion import (
    dataset_name,
    model_name,
    promotion_lock,
    register_version,
    replace_champion,
)
from churnlab.registry.gate import Check
from churnlab.registry.versions import Champion, Served
from churnlab.tracking import artifacts
from churnlab.tracking.fingerprints import split_tags
from churnlab.tracking.names import EXPERIMENTS, Artifact, Tag
from churnlab.tracking.runs import start_run
from churnlab.tracking.search import find_runs, get_run, latest_run, ranked_train_runs

log = logging.getLogger(__name__)


class Decision(NamedTuple):
    """The outcome of the gate: ``champion`` is the version that the candidate was compared with,
    ``looks`` counts how often this hold-out was used before."""

    verdict: str
    checks: list[Check]
    champion: str | None
    looks: int

    @property
    def promotes(self) -> bool:
        """Return whether the candidate becomes the champion."""
        return self.verdict != "refused"


class HeldOut(NamedTuple):
    """The held-out ``rows`` to judge by; ``left_out`` counts the others by reason.

    ``champion`` is what the candidate can be compared with, ``unknown`` the reason why the present
    champion cannot be.
    """

    rows: np.ndarray
    left_out: dict[str, int]
    champion: Served | None = None
    unknown: str | None = None


def run(settings: Promote, dataset: Dataset) -> Result:
    """Build, check and register a version; replace the champion after the run has ended."""
    split = make_split(dataset, **settings.evaluation.split, seed=settings.seed)
    tags, name = split_tags(split), model_name(dataset.contract.name)
    churn, segments = _churn_run(settings, dataset, tags), _segment_run(settings, dataset)
    if unstable := segments.data.tags.get(Tag.UNSTABLE):
        dataset.warn(f"the segmentation to be promoted is not stable: {unstable}")
    with promotion_lock():
        champion = versions.load_champion(name)
        with start_run(
            "promote", settings.model_dump(), name=f"promote {name}", dataset=dataset, tags=tags
        ) as mlflow_run:
            candidate = build(churn, segments, dataset, champion)
            checks = [
                *_check_predictions(settings, dataset, split.test, candidate, champion),
                *_check_form(settings.gate, candidate, champion),
            ]
            verdict = gate.verdict(checks, force=settings.force)
            replaced = champion.number if champion else None
            decision = Decision(verdict, checks, replaced, _looks(name, tags))
            run_id = mlflow_run.info.run_id
            version = _register(settings, name, candidate, decision, run_id)
            summary = _summary(settings, f"{name} version {version}", decision)
            _log_decision(decision, version, versions.log_training_members(churn, dataset))
            mlflow.set_tag("mlflow.note.content", summary)
        if decision.promotes:
            replace_champion(
                name,
                expected=replaced,
                to=version,
                previous=replaced,
                why=settings.reason or "",
                command="promote",
                run_id=run_id,
            )
        else:
            mlflow.MlflowClient().set_registered_model_alias(name, "challenger", version)
    log.info("%s\n%s.", gate.format_checks(checks), summary)
    log.info("Segments: %s.", candidate.numbering.summary)
    log.info("%s", _format_looks(decision.looks, settings.gate))
    values = {"run_id": run_id, "version": version, "promoted": decision.promotes}
    return Result(values | {"checks": [check.line for check in checks]}, yes=decision.promotes)


def _register(
    settings: Promote, name: str, candidate: Candidate, decision: Decision, run_id: str
) -> str:
    """Register the candidate, whatever the verdict; return the number of the version."""
    churn, segments = candidate.churn, candidate.segments
    tags = {
        Tag.COMMAND: "promote",
        Tag.GATE: decision.verdict,
        **{f"{Tag.GATE}.{check.name}": json.dumps(check.value) for check in decision.checks},
        Tag.CHURN_RUN_ID: churn.info.run_id,
        Tag.SEGMENT_RUN_ID: segments.info.run_id,
        Tag.SEGMENTS: candidate.numbering.summary,
        Tag.STABLE: segments.data.tags[Tag.STABLE],
        Tag.REPLACED: decision.champion or "" if decision.promotes else "",
        Tag.REASON: settings.reason or "",
    }
    description = (
        f"{churn.info.run_name} at threshold {churn.data.metrics['threshold']:.2f}, with "
        f"{segments.info.run_name} ({segments.data.tags[Tag.K_REASON]})"
    )
    return register_version(
        name, candidate.model_id, run_id=run_id, tags=tags, description=description
    )


def _log_decision(decision: Decision, version: str, identifying_columns: list[str]) -> None:
    """Log the verdict and all checks in the run."""
    record = {
        "version": version,
        "promoted": decision.promotes,
        "gate": decision.verdict,
        "against": decision.champion,
        "holdout_looks": decision.looks,
        "identifying_columns": identifying_columns,
        "checks": [asdict(check) for check in decision.checks],
    }
    mlflow.log_dict(record, Artifact.GATE)
    mlflow.log_metric("holdout_looks", decision.looks)
    mlflow.set_tags({Tag.GATE: decision.verdict, Tag.VERSION: version})


def _summary(settings: Promote, version: str, decision: Decision) -> str:
    """Return the outcome in a sentence."""
    champion = decision.champion
    becomes = f"replaces version {champion}" if champion else "becomes the first champion"
    if decision.verdict == "passed":
        return f"{version} passed every check and {becomes}"
    failed = ", ".join(check.name for check in decision.checks if not check.passed)
    if decision.verdict == "forced":
        return f"{version} failed {failed} and {becomes} by force: {settings.reason}"
    stays = f"version {champion} stays the champion" if champion else "there is no champion"
    return f"{version} failed {failed} and is refused: {stays}"


def _looks(name: str, tags: dict[str, str]) -> int:
    """Return how often the gate has used this hold-out before."""
    same = {Tag.COMMAND: "promote", Tag.SPLIT: tags[Tag.SPLIT]}
    experiment = f"{dataset_name(name)}-{EXPERIMENTS['promote']}"
    return len(find_runs(experiment, same, status="FINISHED"))


def _format_looks(looks: int, limits: GateKeys) -> str:
    often = f"{counted(looks, 'time')} before" if looks else "for the first time"
    before = f"The gate has used this hold-out {often}"
    if looks + 1 < limits.looks:
        return f"{before}."
    return (
        f"warning: {before}. Members that decide again and again are no longer new to the models: "
        "promote on newer members, or train and promote with another seed."
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
    """Return a run by its id. InputError: it did not use this table."""
    found = get_run(run_id, command=command)
    if found.data.tags[Tag.DATA] != dataset.sha256:
        raise InputError(
            f"The {command} run {run_id} used another table than {dataset.source} as it is now; "
            "give its own table with dataset= and dataset.path= (or dataset.rows=), or another run."
        )
    return found


def _check_predictions(
    settings: Promote,
    dataset: Dataset,
    test: np.ndarray,
    candidate: Candidate,
    champion: Champion | None,
) -> list[Check]:
    """Check what the candidate predicts: as trained, good enough for the hold-out, fast enough."""
    limits, own = settings.gate, artifacts.read_table(candidate.churn.info.run_id, Artifact.TEST)
    rows = np.union1d(own["row"], test)
    started = time.perf_counter()
    predicted = np.full(len(dataset.y), np.nan)
    predicted[rows] = _probabilities(candidate.served, dataset.X.iloc[rows])
    batch_ms = (time.perf_counter() - started) / len(rows) * 1000
    checks = [
        gate.check_served_predictions(
            own["probability"].to_numpy(), predicted[own["row"]], limit=limits.same
        ),
        *_check_quality(settings, dataset, test, predicted, candidate.churn, champion),
    ]
    one_ms = _one_ms(candidate.served, dataset.X.iloc[test[:1]])
    return [
        *checks,
        gate.check_at_most("batch_ms", batch_ms, limits.batch_ms, unit="ms a member"),
        gate.check_at_most("one_ms", one_ms, limits.one_ms, unit="ms"),
    ]


def _check_quality(
    settings: Promote,
    dataset: Dataset,
    test: np.ndarray,
    predicted: np.ndarray,
    churn: Run,
    champion: Champion | None,
) -> list[Check]:
    """Check the candidate's probabilities on the hold-out against champion, dummy and limits."""
    limits, seed, threshold = settings.gate, settings.seed, churn.data.metrics["threshold"]
    trained = versions.training_rows(churn)
    held_out = _held_out(dataset, test, trained, champion)
    y, probability = dataset.y[held_out.rows], predicted[held_out.rows]
    checks = [] if champion is None else [gate.check_champion_known(held_out.unknown)]
    checks.append(
        gate.check_held_out_members(
            held_out.left_out, members=len(test), left=len(y), limit=limits.members
        )
    )
    if held_out.champion is not None:
        checks.append(
            gate.check_against_champion(
                y,
                probability,
                _probabilities(held_out.champion, dataset.X.iloc[held_out.rows]),
                metric=settings.metric,
                thresholds=(threshold, held_out.champion.spec["threshold"]),
                require=settings.require,
                margin=limits.margin,
                seed=seed,
            )
        )
    churn_rate = float(dataset.y[trained].mean())
    scores = {}
    if len(np.unique(y)) == 2:
        scores = evaluation.classification_metrics(y, probability, threshold=threshold)
    known = {key: value for key, value in churn.data.metrics.items() if key.startswith("cv_")}
    known |= {f"test_{key}": value for key, value in scores.items()}
    how: dict[str, Any] = {"threshold": threshold, "seed": seed}
    return [
        *checks,
        *gate.check_against_dummy(y, probability, churn_rate=churn_rate, **how),
        *gate.check_calibration(y, probability, slope=limits.slope, ece=limits.ece, **how),
        *gate.check_minimum(scores, {str(key): least for key, least in limits.minimum.items()}),
        *gate.check_ceiling(known, settings.ceiling),
    ]


def _held_out(
    dataset: Dataset, test: np.ndarray, trained: np.ndarray, champion: Champion | None
) -> HeldOut:
    """Select the hold-out rows that neither model was trained on and both accept."""
    seen = np.isin(test, trained)
    left_out = {
        "in the candidate's training part (name its own seed= and evaluation keys)": int(seen.sum())
    }
    if champion is None:
        return HeldOut(test[~seen], left_out)
    served, unknown = champion.served, champion.unknown
    if served is not None:
        try:
            seen_before = versions.trained_on(champion.version, dataset)[test]
        except LookupError as error:
            served, unknown = None, str(error)
    if served is None:
        unknown = f"no comparison with the champion, version {champion.number}: {unknown}"
        return HeldOut(test[~seen], left_out, unknown=unknown)
    able = versions.answerable(served, dataset.X.iloc[test])
    left_out |= {
        "more in the champion's training part": int((~seen & seen_before).sum()),
        "more that the champion's contract refuses": int((~seen & ~seen_before & ~able).sum()),
    }
    return HeldOut(test[~seen & ~seen_before & able], left_out, served)


def _one_ms(version: Served, member: pd.DataFrame) -> float:
    """Return the milliseconds for one member with reasons.

    The best of five: the cost of the model, not the load of the machine.
    """
    seconds = timeit.repeat(
        lambda: versions.answers(version, member, reasons=True), number=1, repeat=5
    )
    return min(seconds) * 1000


def _check_form(limits: GateKeys, candidate: Candidate, champion: Champion | None) -> list[Check]:
    """Check what needs no prediction: stability of the segments, signature and size."""
    tags, params = candidate.segments.data.tags, candidate.segments.data.params
    unstable = None if tags[Tag.STABLE] == "true" else tags.get(Tag.UNSTABLE, "it is marked so.")
    checks = [gate.check_stability(unstable, by_hand=params["segments.k"] != "auto")]
    if champion and champion.served:
        new, old = versions.interface(candidate.served), versions.interface(champion.served)
        checks.append(gate.check_signature(new, old))
    size = gate.check_at_most("megabytes", candidate.megabytes, limits.megabytes, unit="MB")
    return [*checks, size]


def _probabilities(version: Served, X: pd.DataFrame) -> np.ndarray:
    """Return a version's churn probabilities for these members."""
    return np.array([answer["churn_probability"] for answer in versions.answers(version, X)])
