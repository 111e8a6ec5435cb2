"""Run one worker of a study: take a trial, fit it, log its run, until the study has all its trials.

Workers do not know each other: they coordinate through the study's storage, the book of record. A
trial is RUNNING once a worker has taken it and COMPLETE once it has a value. The driver, or over
machines any worker that waits, fails the trials of a dead worker and enqueues their parameters
again. The last successful writer owns a trial. A worker whose trial was failed in the meantime gets
an error from the storage and drops it. So nothing here depends on the order in which two processes
run.
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
    preparation,
)
from churnlab.formatting import of_a_library
from churnlab.models.decision import ContactEconomics
from churnlab.models.splits import Fold
from churnlab.tracking.processes import interruption
from churnlab.tracking.runs import create_trial, end_trial, log_trial
from churnlab.tuning import studies
from churnlab.tuning.studies import WORKER
from churnlab.tuning.workers import WorkerSlot

RUN_ID, SCORES, REUSED, ERROR = "run_id", "scores", "reused_from", "error"
ENQUEUED, REPEATS, DEATHS, SURPLUS, WARNED = "enqueued", "repeats", "deaths", "surplus", "warned"
"""A trial's user attributes: its MLflow run, its scores, the run whose scores it reused, why its
fit failed; whether its parameters were enqueued instead of sampled, which dead trial it repeats,
and how many workers have died of them; whether it was taken after others had taken the last one;
what a library warned of in its fits."""

FAILURES_IN_A_ROW = 5
"""A study stops after this many failed fits in a row: the space or the data is wrong."""

MAX_DEATHS = 5
"""A trial that has killed this many workers is failed: it needs more memory than there is."""

POLL = 0.05
"""Seconds between two polls of the study by a worker that waits for another's trial."""

SEATS = 1000
"""The numbers of workers that one driver has: those of the next begin there."""


class DeadJob(NamedTuple):
    """The part of a job that is known after its driver has died: enough to clean up after it."""

    storage: studies.Storage
    space: Collection[str]
    n_trials: int
    parent: Run


@dataclass(frozen=True)
class Job:
    """Hold what every worker of a study needs.

    ``n_trials`` is how many trials the study should complete; ``first`` is how many, in any state,
    it had when this job began. ``costs`` are those of a contact, if the metric is money: a trial is
    then scored above the threshold that they give, without the capacity. ``driver`` and ``seat``
    are the id and the number of the driver's seat.
    """

    storage: studies.Storage
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
    driver: str = ""
    seat: int = 0

    def worker(self, slot: WorkerSlot) -> str:
        """Name a worker, uniquely over all machines that work on the study."""
        return f"{slot._replace(number=self.seat * SEATS + slot.number)} {self.driver}".rstrip()

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
    folds = [*map(preparation(job.pipeline, job.X, job.y), job.folds)]
    while (trial := _take(study, job, slot)) is not None:
        with job.storage.beating(trial):
            _run_trial(study, trial, job, folds)
        yield


def is_dead(trial: FrozenTrial) -> bool:
    """Return whether a trial ended without value and message: its worker died or was too late."""
    return trial.state == TrialState.FAIL and ERROR not in trial.user_attrs


def key_of(trial: FrozenTrial) -> tuple[tuple[str, str], ...]:
    """Return a key that is equal for trials with equal parameters, enqueued trials included."""
    return studies.params_key(trial.params or trial.system_attrs.get("fixed_params", {}))


def enqueue(study: optuna.Study, params: Mapping[str, Any], **attributes: int) -> None:
    """Enqueue parameters for the next free worker."""
    study.enqueue_trial(dict(params), user_attrs={ENQUEUED: True, DEATHS: 0} | attributes)


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
    number = job.seat * SEATS + slot.number
    while True:
        give_up_stale(study, job)
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
        seed = int(np.random.SeedSequence([job.seed, number, drawn]).generate_state(1)[0])
        # TPE ignores failed fits, and would sample again and again where they fail.
        sampler = optuna.samplers.RandomSampler if failures(study) else optuna.samplers.TPESampler
        study.sampler = sampler(seed=seed)
        try:
            trial = study.ask(dict(job.space))
            trial.set_user_attr(WORKER, job.worker(slot))
            if not _is_surplus(study, trial, job):
                return trial
            trial.set_user_attr(SURPLUS, True)
            tell(study, trial, state=TrialState.FAIL)
        except UpdateFinishedTrialError:
            pass  # it was taken for an orphan and is enqueued again


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
            tell(study, trial, state=TrialState.FAIL)
            end_trial(run_id, "FAILED", params=trial.params, note=outcome)
        else:
            trial.set_user_attr(SCORES, outcome)
            log_trial(run_id, trial.params, outcome, reused_from=trial.user_attrs.get(REUSED))
            tell(study, trial, outcome["metrics"][f"cv_{job.metric}"])
            end_trial(run_id, "FINISHED")
    except UpdateFinishedTrialError:
        end_run(run_id, study.get_trials(deepcopy=False)[trial.number])


def _outcome(
    study: optuna.Study, trial: Trial, job: Job, folds: list[PreparedFold]
) -> dict[str, Any] | str:
    """Return a trial's scores, reused from equal parameters or new, or why its fit failed."""
    equal = _completed_equal(study, trial, job)
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


def tell(
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


def _completed_equal(study: optuna.Study, trial: Trial, job: Job) -> FrozenTrial | None:
    """Return a completed trial with the same parameters; wait for one that is still running."""
    key = studies.params_key(trial.params)
    while True:
        equal = [other for other in study.get_trials(deepcopy=False) if key_of(other) == key]
        complete = [other for other in equal if other.state == TrialState.COMPLETE]
        earlier = [other.state for other in equal if other.number < trial.number]
        if complete or TrialState.RUNNING not in earlier:
            return next(iter(complete), None)
        give_up_stale(study, job)
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


def give_up(
    study: optuna.Study, job: Job | DeadJob, trial: FrozenTrial, *, died: bool = False
) -> None:
    """Fail an orphaned trial and enqueue its parameters again, once over all machines."""
    with job.storage.alone(study.study_name):
        if study.get_trials(deepcopy=False)[trial.number].state == TrialState.RUNNING:
            enqueue_again(study, job, trial, died=died)
            with suppress(UpdateFinishedTrialError):  # its worker had just found it surplus
                tell(study, trial.number, state=TrialState.FAIL)


def give_up_stale(study: optuna.Study, job: Job) -> None:
    """Give up the trials of workers that have shown no sign of life, on any machine."""
    for trial in job.storage.stale(study):
        give_up(study, job, trial)
        if RUN_ID in trial.user_attrs:
            end_run(trial.user_attrs[RUN_ID], study.get_trials(deepcopy=False)[trial.number])


def enqueue_again(
    study: optuna.Study, job: Job | DeadJob, trial: FrozenTrial, *, died: bool
) -> None:
    """Enqueue a dead trial's parameters; ``died``: its worker alone died, maybe because of them."""
    params = trial.system_attrs.get("fixed_params") or trial.params
    if ERROR in trial.user_attrs or params.keys() != set(job.space):
        return  # its fit failed, or it had no parameters yet
    if len(study.get_trials(deepcopy=False, states=[TrialState.COMPLETE])) >= job.n_trials:
        return  # no worker would take it; a start with a larger n_trials enqueues it
    others = study.get_trials(deepcopy=False)
    if any(other.user_attrs.get(REPEATS) == trial.number for other in others):
        return
    waiting = [other for other in others if other.state == TrialState.WAITING]
    if key_of(trial) not in map(key_of, waiting):
        deaths = trial.user_attrs.get(DEATHS, 0) + died
        enqueue(study, params, **{REPEATS: trial.number, DEATHS: deaths})


def end_run(run_id: str, trial: FrozenTrial) -> None:
    """End the run of a trial that has ended, as the study says."""
    end_trial(run_id, run_status(trial), params=trial.params, note=trial.user_attrs.get(ERROR))


def run_status(trial: FrozenTrial) -> str:
    """Return what the run of an ended trial ends as."""
    unfinished = "FAILED" if ERROR in trial.user_attrs else "KILLED"
    return "FINISHED" if trial.state == TrialState.COMPLETE else unfinished
