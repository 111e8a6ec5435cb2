"""Build a version from a churn run and a segmentation run; the gate decides if it becomes champion.

Why: one version holds all that is served: model, threshold, segmentation, names and actions.
Candidate and champion are both loaded from the registry and compared on held-out members that
neither was trained on. Only a version that passes every check replaces the champion. If one fails,
the exit code is 3, and the verdict is refused, or undecided where the members are too few to judge
by. The limits are keys. The champion's own runs are not judged again.

    churnlab promote
    churnlab promote dataset=gym dataset.path=members.csv require=not_worse gate.minimum.roc_auc=0.8
    churnlab promote churn_run=RUN_ID force=true reason="the new contract has a column more"
"""

from __future__ import annotations

import logging
from dataclasses import asdict
from typing import Any, NamedTuple

import mlflow
import numpy as np
import pandas as pd
from mlflow.entities import Run

from churnlab.config.commands import Promote, Result
from churnlab.config.groups import GateKeys
from churnlab.data.dataset import Dataset
from churnlab.evaluation import performance
from churnlab.models.splits import make_split
from churnlab.registry import gate, judges, requests, versions
from churnlab.registry.against_champion import (
    check_against_dummy,
    check_slices,
    margin_of,
)
from churnlab.registry.candidate import Candidate, build
from churnlab.registry.champion import model_name, promotion_lock, register_version
from churnlab.registry.chosen_runs import choose_churn_run, choose_segment_run
from churnlab.registry.gate import Check
from churnlab.registry.judges import HeldOut, Judgment
from churnlab.registry.succession import Overtaken, replace_champion, settle
from churnlab.registry.versions import Champion
from churnlab.tracking import artifacts
from churnlab.tracking.fingerprints import split_tags
from churnlab.tracking.leaderboard import scores_with_intervals
from churnlab.tracking.looks import earlier_looks, log_look, looks_sentence
from churnlab.tracking.names import Artifact, Label, Tag
from churnlab.tracking.runs import log_metrics, start_run
from churnlab.tracking.search import costs_of

log = logging.getLogger(__name__)


class Decision(NamedTuple):
    """The outcome of the gate: ``champion`` is the version that the candidate was compared with,
    ``looks`` counts for each of the held-out judges how often models were compared on that member
    before."""

    verdict: str
    checks: list[Check]
    champion: str | None
    held_out: HeldOut
    looks: np.ndarray

    @property
    def promotes(self) -> bool:
        """Return whether the candidate becomes the champion."""
        return self.verdict in ("passed", "forced")


class Promotion(NamedTuple):
    """A candidate that was judged and registered as a version by a run."""

    run_id: str
    version: str
    candidate: Candidate
    decision: Decision


def run(settings: Promote, dataset: Dataset) -> Result:
    """Build, check and register a version; replace the champion after the run has ended."""
    judges.check_slices_known(dataset, settings.gate.slices)
    split = make_split(dataset, **settings.evaluation.split, seed=settings.seed)
    tags, name = split_tags(split), model_name(dataset.contract.name)
    churn = choose_churn_run(
        settings.churn_run, dataset, tags, metric=settings.metric, ceiling=settings.ceiling
    )
    segments = choose_segment_run(settings.segment_run, dataset, slices=settings.gate.slices)
    with promotion_lock(settings.storage, name):
        done = None
        while done is None:
            settle(name)
            champion = versions.load_champion(name)
            if champion is not None and champion.serves(churn, segments) and not settings.force:
                return _nothing_to_do(name, champion)
            with start_run(
                "promote", settings.model_dump(), name=f"promote {name}", dataset=dataset, tags=tags
            ) as mlflow_run:
                candidate, test = build(churn, segments, dataset, champion), split.test
                decision = _decide(settings, dataset, test, candidate, champion)
                run_id = mlflow_run.info.run_id
                version = _register(settings, name, candidate, decision, run_id)
                _log_decision(decision, version, versions.log_training_members(churn, dataset))
                mlflow.set_tag("mlflow.note.content", _summary(settings, name, version, decision))
            done = _conclude(settings, name, Promotion(run_id, version, candidate, decision))
    return _report(settings, dataset, name, done)


def _decide(
    settings: Promote,
    dataset: Dataset,
    test: np.ndarray,
    candidate: Candidate,
    champion: Champion | None,
) -> Decision:
    """Ask the gate, and log that it has looked at the judges."""
    checks, held_out = _check_predictions(settings, dataset, test, candidate, champion)
    checks += _check_form(settings.gate, candidate, champion)
    verdict = gate.verdict(checks, force=settings.force)
    looks = earlier_looks(dataset, held_out.rows)
    log_look(dataset, held_out.rows)
    return Decision(verdict, checks, champion.number if champion else None, held_out, looks)


def _conclude(settings: Promote, name: str, made: Promotion) -> Promotion | None:
    """Move the alias that the decision is about; None if the champion was replaced meanwhile, so
    that the gate has to judge again."""
    client, champion = mlflow.MlflowClient(), made.decision.champion
    if not made.decision.promotes:
        client.set_registered_model_alias(name, "challenger", made.version)
        return made
    try:
        replace_champion(
            name,
            expected=champion,
            to=made.version,
            previous=champion,
            why=settings.reason or "",
            command="promote",
            run_id=made.run_id,
        )
    except Overtaken:
        client.set_model_version_tag(name, made.version, Tag.GATE, "overtaken")
        log.info(
            "Another machine has replaced the champion of %s meanwhile, so version %s is not "
            "promoted: the gate judges again.",
            name,
            made.version,
        )
        return None
    return made


def _report(settings: Promote, dataset: Dataset, name: str, done: Promotion) -> Result:
    """Log the checks and the outcome, and return the result."""
    run_id, version, candidate, decision = done
    summary = _summary(settings, name, version, decision)
    details = _details(settings, dataset, candidate, decision)
    for line in [*gate.format_checks(decision.checks).parts, f"{summary}.", *details]:
        log.log(logging.WARNING if line.startswith("warning: ") else logging.INFO, "%s", line)
    values: dict[str, Any] = {"run_id": run_id, "version": version, "promoted": decision.promotes}
    values |= {"verdict": decision.verdict, "twins": decision.held_out.twins}
    lines = [check.line for check in decision.checks]
    return Result(values | {"checks": lines}, yes=decision.promotes)


def _details(
    settings: Promote, dataset: Dataset, candidate: Candidate, decision: Decision
) -> list[str]:
    """Say how the segments continue the champion's, how often the judges were used before, and how
    many of them are alike with members in training."""
    numbered = f"The segments are {candidate.numbering.summary}."
    twins = judges.twins_sentence(decision.held_out, named=dataset.ids is not None)
    looks = looks_sentence(decision.looks, enough=settings.gate.looks)
    return [*([] if candidate.segments is None else [numbered]), looks, *twins]


def _nothing_to_do(name: str, champion: Champion) -> Result:
    """Say that the champion is made of these runs, which the gate does not judge twice."""
    log.info(
        "%s version %s, the champion, is made of these two runs already: nothing is registered, "
        "and the hold-out is not used again. To judge and register them once more, add "
        'force=true reason="...".',
        name,
        champion.number,
    )
    values = {"run_id": None, "version": champion.number, "promoted": False}
    return Result(values | {"verdict": "champion", "checks": []})


def _register(
    settings: Promote, name: str, candidate: Candidate, decision: Decision, run_id: str
) -> str:
    """Register the candidate, whatever the verdict; return the number of the version."""
    churn, segments = candidate.churn, candidate.segments
    tags = {
        Tag.COMMAND: "promote",
        Tag.GATE: decision.verdict,
        Tag.CHURN_RUN_ID: churn.info.run_id,
        Tag.SEGMENT_RUN_ID: versions.segment_run_id(segments),
        Tag.SEGMENTS: candidate.numbering.summary,
        Tag.REPLACED: decision.champion or "" if decision.promotes else "",
        Tag.REASON: settings.reason or "",
        **candidate.tags,
    }
    if segments is not None:
        tags[Tag.STABLE] = segments.data.tags[Tag.STABLE]
    return register_version(
        name, candidate.model_id, run_id=run_id, tags=tags, description=candidate.description
    )


def _log_decision(decision: Decision, version: str, identifying_columns: list[str]) -> None:
    """Log the verdict and all checks in the run."""
    record = {
        "version": version,
        "promoted": decision.promotes,
        "gate": decision.verdict,
        "against": decision.champion,
        **_looks(decision),
        "twins": decision.held_out.twins,
        "identifying_columns": identifying_columns,
        "checks": [asdict(check) for check in decision.checks],
    }
    mlflow.log_dict(record, Artifact.GATE)
    log_metrics(_looks(decision))
    mlflow.set_tags(
        {Tag.GATE: decision.verdict, Label.VERDICT: decision.verdict, Tag.VERSION: version}
    )


def _looks(decision: Decision) -> dict[str, float]:
    """Return the largest and the mean number of earlier looks at the judges."""
    looks = decision.looks if len(decision.looks) else np.zeros(1, int)
    return {"holdout_looks": int(looks.max()), "holdout_looks_mean": float(looks.mean())}


def _summary(settings: Promote, name: str, number: str, decision: Decision) -> str:
    """Return the outcome in a sentence."""
    version, champion = f"{name} version {number}", decision.champion
    becomes = f"replaces version {champion}" if champion else "becomes the first champion"
    if decision.verdict == "passed":
        few = ", ".join(check.name for check in decision.checks if check.undecided)
        note = f" (the members are too few to judge {few})" if few else ""
        return f"{version} passed every check{note} and {becomes}"
    refused = decision.verdict == "refused"  # then not for what the members are too few to judge
    failed = ", ".join(
        check.name
        for check in decision.checks
        if not check.passed and not (refused and check.undecided)
    )
    if decision.verdict == "forced":
        return f"{version} failed {failed} and {becomes} by force: {settings.reason}"
    stays = f"version {champion} stays the champion" if champion else "there is no champion"
    if decision.verdict == "undecided":
        return f"{version} is undecided: the members are too few to judge {failed}; {stays}"
    return f"{version} failed {failed} and is refused: {stays}"


def _check_predictions(
    settings: Promote,
    dataset: Dataset,
    test: np.ndarray,
    candidate: Candidate,
    champion: Champion | None,
) -> tuple[list[Check], HeldOut]:
    """Check what the candidate predicts: as trained, good enough for the hold-out, fast enough.

    Returns the checks, and the members who judged.
    """
    limits, own = settings.gate, artifacts.read_table(candidate.churn.info.run_id, Artifact.TEST)
    predicted = requests.ask(candidate.served, dataset, np.union1d(own["row"], test))
    held_out = judges.select(dataset, test, versions.training_rows(candidate.churn), champion)
    one_ms = requests.one_ms(candidate.served, dataset.X.iloc[test[:1]])
    sent = requests.as_sent(dataset.X.iloc[own["row"]], candidate.served)
    served = {
        "pandas reads them from CSV": predicted.probability[own["row"]],
        "JSON": versions.probabilities(candidate.served, sent),
    }
    checks = [
        gate.check_served_predictions(own["probability"].to_numpy(), served, limit=limits.same),
        *([gate.check_champion_known(held_out.unknown, held_out.caveat)] if champion else []),
        gate.check_held_out_members(
            held_out.left_out, members=len(test), left=len(held_out.rows), limit=limits.members
        ),
        *_check_rivals(settings, dataset, test, predicted, candidate.churn, held_out),
        *_check_quality(settings, dataset, held_out.rows, predicted.probability, candidate.churn),
        gate.check_at_most("batch_ms", predicted.batch_ms, limits.batch_ms, unit="ms a member"),
        gate.check_at_most("one_ms", one_ms, limits.one_ms, unit="ms"),
    ]
    return checks, held_out


def _check_rivals(
    settings: Promote,
    dataset: Dataset,
    test: np.ndarray,
    predicted: requests.Predicted,
    churn: Run,
    held_out: HeldOut,
) -> list[Check]:
    """Compare the candidate with the champion, in slices too, and with an earlier champion."""
    if held_out.champion is None:
        if settings.gate.slices:
            log.info("gate.slices compares with a champion, and there is none to compare with yet.")
        return []
    rows, limits = held_out.rows, settings.gate
    costs = costs_of(churn)
    judgment = Judgment(
        dataset,
        predicted.probability,
        churn.data.metrics["threshold"],
        metric=settings.metric,
        margin=margin_of(limits.margin, settings.metric, costs),
        seed=settings.seed,
        costs=costs,
    )
    compared = judges.compare(judgment, held_out, require=settings.require)
    checks = [compared]
    better = compared.value is not None and compared.value > 0
    if settings.require == "not_worse" and limits.ancestor and not better:
        name = model_name(dataset.contract.name)
        if ancestor := versions.load_ancestor(name, limits.ancestor):
            trained = versions.training_rows(churn)
            also = judges.select(dataset, test, trained, ancestor, called="the former champion")
            checks.append(judges.compare_ancestor(judgment, also, ancestor, members=limits.members))
    if limits.slices:
        labels = judges.slice_labels(dataset, rows, limits.slices, predicted.segment[rows])
        X = versions.features_of(held_out.champion, dataset).iloc[rows]
        rival = versions.probabilities(held_out.champion, X)
        checks.append(check_slices(dataset.y[rows], predicted.probability[rows], rival, labels))
    return checks


def _check_quality(
    settings: Promote, dataset: Dataset, rows: np.ndarray, predicted: np.ndarray, churn: Run
) -> list[Check]:
    """Check the candidate's probabilities of the judges against a dummy and the limits."""
    limits, threshold = settings.gate, churn.data.metrics["threshold"]
    y, probability = dataset.y[rows], predicted[rows]
    churn_rate = float(dataset.y[versions.training_rows(churn)].mean())
    how: dict[str, Any] = {"threshold": threshold, "seed": settings.seed}
    judged = pd.DataFrame({"y": y, "probability": probability})
    scores = performance.hold_out_metrics(judged, **how) if gate.has_both_outcomes(y) else {}
    test = {name.removeprefix("test_"): value for name, value in scores.items()}
    cv = {key: value for key, value in scores_with_intervals(churn).items() if key[:3] == "cv_"}
    groups = dataset.groups_of(rows)
    return [
        *check_against_dummy(y, probability, churn_rate=churn_rate, groups=groups, **how),
        *gate.check_calibration(y, probability, slope=limits.slope, ece=limits.ece, **how),
        *gate.check_minimum(test, {str(key): least for key, least in limits.minimum.items()}),
        *gate.check_ceiling(cv | scores | {"test_members": len(y)}, settings.ceiling),
    ]


def _check_form(limits: GateKeys, candidate: Candidate, champion: Champion | None) -> list[Check]:
    """Check what needs no prediction: stability of the segments, signature and size."""
    checks = [candidate.check_segments()]
    if champion and champion.served:
        new, old = requests.interface(candidate.served), requests.interface(champion.served)
        checks.append(gate.check_signature(new, old))
    size = gate.check_at_most("megabytes", candidate.megabytes, limits.megabytes, unit="MB")
    return [*checks, size]
