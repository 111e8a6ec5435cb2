"""Run one worker of a study: take a trial, fit it, log its run, until the study has all its trials.

Workers do not know each other: they coordinate through the study's storage, the book of record. A
trial is RUNNING once a worker has taken it and COMPLETE once it has a value. The driver fails the
trials of a dead worker and enqueues their parameters again. The last successful writer owns a
trial. A worker whose trial was failed in the meantime gets an error from the storage and drops it.
So nothing here depends on the order in which two processes run.
"""

from __future__ import annotations

import time
import warnings
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

import mlflow
import numpy as np
import optuna
import pandas as pd
from mlflow.entities import Run
from optuna.distributions import BaseDistribution
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, Trial, TrialState
from sklearn.base import clone
from sklearn.pipeline import Pipeline

from churnlab.evaluation.cross_validation import (
    PreparedFold,
    cv_metrics,
    estimator_metrics,
    prepare_folds,
)
from churnlab.formatting import counted, of_a_library
from churnlab.models.decision import ContactEconomics
from churnlab.models.splits import Fold
from churnlab.tracking.names import Tag
from churnlab.tracking.processes import interruption
from churnlab.tracking.runs import create_trial, end_trial, log_trial
from churnlab.tracking.search import children
from churnlab.tuning import studies
from churnlab.tuning.workers import WorkerSlot

WORKER, RUN_ID, SCORES, REUSED, ERROR = "worker", "run_id", "scores", "reused_from", "error"
ENQUEUED, DEATHS, SURPLUS, WARNED = "enqueued", "deaths", "surplus", "warned"
"""A trial's user attributes: its worker, its MLflow run, its scores, the run whose scores it
reused, why its fit failed; whether its parameters were enqueued instead of sampled, and how many
workers have died of them; whether it was taken after others had taken the last one; what a library
warned of in its fits."""

FAILURES_IN_A_ROW = 5
"""A study stops after this many failed fits in a row: the space or the data is wrong."""

MAX_DEATHS = 5
"""A trial that has killed this many workers is failed: it needs more memory than there is."""

CLAIM_SECONDS = 2.0
"""A RUNNING trial that no worker has claimed after this time is orphaned."""

POLL = 0.05
"""Seconds between two polls of the study by a worker that waits for another's trial."""


class DeadJob(NamedTuple):
    """The part of a job that is known after its driver has died: enough to clean up after it."""

    space: Collection[str]
    n_trials: int
    parent: Run


@dataclass(frozen=True)
class Job:
    """Hold what every worker of a study needs.

    ``n_trials`` is how many trials the study should complete; ``first`` is how many, in any state,
    it had when this job began. ``costs`` are those of a contact, if the metric is money: a trial is
    then scored above the threshold that they give, without the capacity.
    """

    storage: studies.Local
    study: str
    space: Mapping[str, BaseDistribution]
    n_trials: int
    seed: int
    metric: str
    pipeline: Pipeline
    X: pd.DataFrame
    y: np.ndarray
    folds: list[Fold]
    tracking_uri: str
    parent: Run
    first: int
    costs: ContactEconomics | None = None

    @property
    def exhaustive(self) -> bool:
        """Return whether all points of the space are tried: they are then enqueued, not sampled."""
        return studies.size(self.space) <= self.n_trials


def work(job: Job, slot: WorkerSlot) -> Iterator[None]:
    """Run trials until the study has all of them; yield after each."""
    mlflow.set_tracking_uri(job.tracking_uri)
    # The first call opens the store, which takes seconds: before a trial is taken, not during one.
    mlflow.get_run(job.parent.info.run_id)
    study = optuna.load_study(study_name=job.study, storage=job.storage.open(job.study))
    folds = list(prepare_folds(job.pipeline, job.X, job.y, job.folds))
    while (trial := _take(study, job, slot)) is not None:
        _run_trial(study, trial, job, folds)
        yield


def is_dead(trial: FrozenTrial) -> bool:
    """Return whether a trial ended without value and message: its worker died or was too late."""
    return trial.state == TrialState.FAIL and ERROR not in trial.user_attrs


def key_of(trial: FrozenTrial) -> tuple[tuple[str, str], ...]:
    """Return a key that is equal for trials with equal parameters, enqueued trials included."""
    return studies.params_key(trial.params or trial.system_attrs.get("fixed_params", {}))


def enqueue(study: optuna.Study, params: Mapping[str, Any], *, deaths: int = 0) -> None:
    """Enqueue parameters for the next free worker."""
    study.enqueue_trial(dict(params), user_attrs={ENQUEUED: True, DEATHS: deaths})


def failures(study: optuna.Study, *, first: int = 0) -> list[str]:
    """Return the messages of the latest fits if they failed in a row, oldest first.

    Trials before number ``first`` are ignored: they may have stopped an earlier start, and the user
    may have fixed the cause since.
    """
    trials = study.get_trials(deepcopy=False)[first:]
    ended = [trial for trial in trials if trial.state.is_finished()]
    messages: list[str] = []
    for trial in sorted(ended, key=lambda trial: trial.datetime_complete or trial.datetime_start):
        if trial.state == TrialState.COMPLETE:
            messages.clear()
        elif ERROR in trial.user_attrs:
            messages.append(trial.user_attrs[ERROR])
    return messages


def _take(study: optuna.Study, job: Job, slot: WorkerSlot) -> Trial | None:
    """Take the next trial, with its parameters; None if there is none and will be none."""
    while True:
        trials = study.get_trials(deepcopy=False)
        states = Counter(trial.state for trial in trials)
        waiting, running = states[TrialState.WAITING], states[TrialState.RUNNING]
        complete = states[TrialState.COMPLETE]
        if complete >= job.n_trials or len(failures(study, first=job.first)) >= FAILURES_IN_A_ROW:
            return None
        if not waiting and (job.exhaustive or complete + running >= job.n_trials):
            if not running:
                return None
            time.sleep(POLL)  # another worker may die: its trial must then be run again
            continue
        # A new sampler with an old seed would repeat its draws, so each trial and slot has its own
        # seed. Dead attempts do not count: with one worker a resumed study draws what it would have
        # drawn without the kill.
        drawn = sum(not is_dead(trial) for trial in trials)
        seed = int(np.random.SeedSequence([job.seed, slot.number, drawn]).generate_state(1)[0])
        # TPE ignores failed fits, and would sample again and again where they fail.
        sampler = optuna.samplers.RandomSampler if failures(study) else optuna.samplers.TPESampler
        study.sampler = sampler(seed=seed)
        try:
            trial = study.ask(dict(job.space))
            trial.set_user_attr(WORKER, str(slot))
            if not _is_surplus(study, trial, job):
                return trial
            trial.set_user_attr(SURPLUS, True)
            _tell(study, trial, state=TrialState.FAIL)
        except UpdateFinishedTrialError:
            pass  # the driver took it for an orphan and enqueues it again


def _is_surplus(study: optuna.Study, trial: Trial, job: Job) -> bool:
    """Return whether workers that took trials at the same moment left nothing for this one.

    The storage numbers the trials: of all that are complete, running or waiting, only the first
    n_trials are run. If n + 1 trials were complete, the last would have seen n before it; so there
    are never more than n.
    """
    if job.exhaustive:
        return ENQUEUED not in trial.user_attrs
    live = (TrialState.WAITING, TrialState.RUNNING, TrialState.COMPLETE)
    others = study.get_trials(deepcopy=False, states=live)
    return sum(other.number < trial.number for other in others) >= job.n_trials


def _run_trial(study: optuna.Study, trial: Trial, job: Job, folds: list[PreparedFold]) -> None:
    """Score one trial, log its run, and report its value or its failure to the study."""
    run_id = create_trial(job.parent, trial.number, trial.params)
    try:
        trial.set_user_attr(RUN_ID, run_id)
        outcome = _outcome(study, trial, job, folds)
        if isinstance(outcome, str):
            trial.set_user_attr(ERROR, outcome)
            _tell(study, trial, state=TrialState.FAIL)
            end_trial(run_id, "FAILED", params=trial.params, note=outcome)
        else:
            trial.set_user_attr(SCORES, outcome)
            log_trial(run_id, trial.params, outcome, reused_from=trial.user_attrs.get(REUSED))
            _tell(study, trial, outcome["metrics"][f"cv_{job.metric}"])
            end_trial(run_id, "FINISHED")
    except UpdateFinishedTrialError:
        end_trial(run_id, "KILLED", params=trial.params)


def _outcome(
    study: optuna.Study, trial: Trial, job: Job, folds: list[PreparedFold]
) -> dict[str, Any] | str:
    """Return a trial's scores, reused from equal parameters or new, or why its fit failed."""
    equal = _completed_equal(study, trial)
    if equal is not None:
        trial.set_user_attr(REUSED, equal.user_attrs[RUN_ID])
        return equal.user_attrs[SCORES]
    if trial.user_attrs.get(DEATHS, 0) >= MAX_DEATHS:
        return f"MemoryError: {MAX_DEATHS} workers died of it (out of memory?)."
    try:
        with warnings.catch_warnings(record=True) as caught:
            scores = _score(trial.params, job, folds)
        if caught:
            texts = [of_a_library(warning.category, warning.message) for warning in caught]
            trial.set_user_attr(WARNED, list(dict.fromkeys(texts)))
        return scores
    except Exception as error:
        if stopped := interruption(error):
            raise stopped from None
        return f"{type(error).__name__}: {error}"


def _tell(
    study: optuna.Study,
    trial: Trial | int,
    value: float | None = None,
    *,
    state: TrialState | None = None,
) -> None:
    """Report a trial's end to Optuna; UpdateFinishedTrialError if another process ended it."""
    try:
        study.tell(trial, value, state=state)
    except ValueError as error:  # Optuna's error if it notices before it writes
        raise UpdateFinishedTrialError(str(error)) from error


def _completed_equal(study: optuna.Study, trial: Trial) -> FrozenTrial | None:
    """Return a completed trial with the same parameters; wait for one that is still running."""
    key = studies.params_key(trial.params)
    while True:
        equal = [other for other in study.get_trials(deepcopy=False) if key_of(other) == key]
        complete = [other for other in equal if other.state == TrialState.COMPLETE]
        earlier = [other.state for other in equal if other.number < trial.number]
        if complete or TrialState.RUNNING not in earlier:
            return next(iter(complete), None)
        time.sleep(POLL)


def _score(params: Mapping[str, Any], job: Job, folds: list[PreparedFold]) -> dict[str, Any]:
    """Fit on every fold; return the run's ``metrics`` and, ``per_fold``, the tuned one."""
    started = time.perf_counter()
    estimator = clone(job.pipeline[-1]).set_params(**params)
    threshold = 0.5 if job.costs is None else job.costs.threshold
    per_fold = estimator_metrics(estimator, folds, threshold=threshold, costs=job.costs)
    means = cv_metrics(per_fold)
    spread = f"cv_{job.metric}_std"
    metrics = {
        key: value for key, value in means.items() if key == spread or not key.endswith("_std")
    }
    if np.isnan(metrics[f"cv_{job.metric}"]):
        raise ValueError(f"{job.metric} is undefined: a fold has only one of the two outcomes.")
    return {
        "metrics": metrics | {"fit_seconds": time.perf_counter() - started},
        "per_fold": {f"fold_{job.metric}": [scores[job.metric] for scores in per_fold]},
    }


def reconcile(
    study: optuna.Study, job: Job | DeadJob, *, living: Collection[WorkerSlot] | None = None
) -> str:
    """Clean up after dead workers, in the study and its runs; return the findings, "" if none.

    An orphaned trial is failed, its parameters are enqueued again, and its run is KILLED; a run
    whose trial is COMPLETE becomes FINISHED. ``living`` are the workers that are alive after one
    has died: their trials are left alone. Without it no worker is alive, and runs that are missing
    are logged again. A kill in here does no harm: the next call continues.
    """
    orphaned = _orphaned(study, living)
    for trial in orphaned:
        _enqueue_again(study, job, trial, died=living is not None)
        with suppress(UpdateFinishedTrialError):  # its worker had just found it surplus
            _tell(study, trial.number, state=TrialState.FAIL)
    for trial in _not_enqueued_again(study):
        _enqueue_again(study, job, trial, died=False)
    found = Counter([("unfinished trial", "to run again")] * len(orphaned))
    found.update(_end_runs(study, job, every=living is None))
    return "; ".join(f"{counted(count, noun)} {what}" for (noun, what), count in found.items())


def _orphaned(study: optuna.Study, living: Collection[WorkerSlot] | None) -> list[FrozenTrial]:
    """Return the RUNNING trials that have no living worker.

    A worker claims a trial right after it has taken it, so give unclaimed ones a moment.
    """
    alive = {str(slot) for slot in living or ()}
    deadline = time.monotonic() + CLAIM_SECONDS
    while True:
        running = study.get_trials(deepcopy=False, states=[TrialState.RUNNING])
        dead = [trial for trial in running if trial.user_attrs.get(WORKER) not in alive]
        if (
            not alive
            or time.monotonic() > deadline
            or all(WORKER in trial.user_attrs for trial in dead)
        ):
            return dead
        time.sleep(POLL)


def _not_enqueued_again(study: optuna.Study) -> list[FrozenTrial]:
    """Return dead trials whose parameters were sampled after the driver had failed the trial."""
    trials = study.get_trials(deepcopy=False)
    latest = {key_of(trial): trial for trial in trials}
    return [
        trial for trial in latest.values() if is_dead(trial) and SURPLUS not in trial.user_attrs
    ]


def _enqueue_again(
    study: optuna.Study, job: Job | DeadJob, trial: FrozenTrial, *, died: bool
) -> None:
    """Enqueue a dead trial's parameters; ``died``: its worker alone died, maybe because of them."""
    if ERROR in trial.user_attrs or trial.params.keys() != set(job.space):
        return  # its fit failed, or it had no parameters yet
    if len(study.get_trials(deepcopy=False, states=[TrialState.COMPLETE])) >= job.n_trials:
        return  # no worker would take it; a start with a larger n_trials enqueues it
    waiting = study.get_trials(deepcopy=False, states=[TrialState.WAITING])
    if key_of(trial) not in map(key_of, waiting):
        enqueue(study, trial.params, deaths=trial.user_attrs.get(DEATHS, 0) + died)


def _end_runs(study: optuna.Study, job: Job | DeadJob, *, every: bool) -> Iterator[tuple[str, str]]:
    """End the runs that no living worker will end; yield what each was and what was done."""
    runs = children(job.parent, "trial", status=None if every else "RUNNING")
    trials = study.get_trials(deepcopy=False)  # after the runs: a trial ends before its run does
    for run in [run for run in runs if run.info.status == "RUNNING"]:
        trial = trials[int(run.data.tags[Tag.TRIAL])]
        if trial.state.is_finished():
            unfinished = "FAILED" if ERROR in trial.user_attrs else "KILLED"
            status = "FINISHED" if trial.state == TrialState.COMPLETE else unfinished
            note = trial.user_attrs.get(ERROR)
            end_trial(run.info.run_id, status, params=trial.params, note=note)
            yield "open run", f"ended as {status}"
    if not every:
        return
    logged = {int(run.data.tags[Tag.TRIAL]) for run in runs}
    for trial in trials:
        if trial.state == TrialState.COMPLETE and trial.number not in logged:
            run_id = create_trial(job.parent, trial.number, trial.params)
            scores, reused = trial.user_attrs[SCORES], trial.user_attrs.get(REUSED)
            log_trial(run_id, trial.params, scores, reused_from=reused)
            end_trial(run_id, "FINISHED")
            yield "missing run", "logged again"
    for run in children(job.parent, "train", status="RUNNING"):
        end_trial(run.info.run_id, "KILLED")
        yield "open training", "ended as KILLED"
