"""One worker of a study: take a trial, fit, log it as a run, tell, until the study has its trials.

Workers know nothing of each other. What they agree on is in the study's storage, the book of
record: a trial is RUNNING when a worker has taken it, COMPLETE when its value is told, and what a
dead worker left is failed by the driver and its parameters are asked again. Whoever writes to a
trial that was failed under its hands learns it from the storage and drops it. So nothing here
depends on the order of two processes.
"""

from __future__ import annotations

import time
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

from churnlab.errors import interruption
from churnlab.models.cross_validation import (
    PreparedFold,
    cv_metrics,
    estimator_metrics,
    prepare_folds,
)
from churnlab.models.splits import Fold
from churnlab.tracking.names import Tag
from churnlab.tracking.runs import create_trial, end_trial, log_trial
from churnlab.tracking.search import children
from churnlab.tuning import studies
from churnlab.tuning.workers import WorkerSlot

WORKER, RUN_ID, SCORES, REUSED, ERROR = "worker", "run_id", "scores", "reused_from", "error"
ENQUEUED, DEATHS, SURPLUS = "enqueued", "deaths", "surplus"
"""A trial's user attributes: who does it, its MLflow run, what it scored, the run whose scores it
took over, why its fit failed; that its parameters were asked for, not drawn, and how many workers
have died of them; that it came when others had taken the last one."""

FAILURES_IN_A_ROW = 5
"""So many failed fits one after another stop a study: it is the space or the data, not the trial.
"""

DEATHS_IN_ALL = 5
"""A trial that so many workers have died of has failed: it takes more memory than there is."""

CLAIMING = 2.0
"""Seconds after which a trial that nobody has claimed is its dead worker's."""

PATIENCE = 0.05
"""Seconds between two looks at the study by a worker that waits for another's trial."""


class Remains(NamedTuple):
    """As much of a study's job as is known of one whose driver is dead: enough to put right what it
    left."""

    space: Collection[str]
    n_trials: int
    parent: Run


@dataclass(frozen=True)
class Job:
    """What every worker of a study is given.

    ``first`` is the number of trials that the study had when this work began; ``n_trials`` how many
    it shall complete.
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

    @property
    def walked(self) -> bool:
        """Whether the space has so few points that all of them are tried; then they are enqueued,
        not sampled."""
        return studies.size(self.space) <= self.n_trials


def work(job: Job, seat: WorkerSlot) -> Iterator[None]:
    """Do trials until the study has all of them; yields after each."""
    mlflow.set_tracking_uri(job.tracking_uri)
    mlflow.get_run(
        job.parent.info.run_id
    )  # opens the store, which takes seconds: before a trial is taken, not in it
    study = optuna.load_study(study_name=job.study, storage=job.storage.open(job.study))
    folds = list(prepare_folds(job.pipeline, job.X, job.y, job.folds))
    while (trial := _take(study, job, seat)) is not None:
        _do(study, trial, job, folds)
        yield


def is_dead(trial: FrozenTrial) -> bool:
    """Whether a trial ended without a value and without a message: its worker died, or had come too
    late."""
    return trial.state == TrialState.FAIL and ERROR not in trial.user_attrs


def parameters(trial: FrozenTrial) -> tuple[tuple[str, str], ...]:
    """What is equal for trials of equal parameters, those that are still to be done included."""
    return studies.same(trial.params or trial.system_attrs.get("fixed_params", {}))


def enqueue(study: optuna.Study, params: Mapping[str, Any], *, deaths: int = 0) -> None:
    """Ask for these parameters: the next worker takes them."""
    study.enqueue_trial(dict(params), user_attrs={ENQUEUED: True, DEATHS: deaths})


def failures(study: optuna.Study, *, first: int = 0) -> list[str]:
    """The messages of the fits that failed one after another, up to the last that ended; the oldest
    first.

    Trials before number ``first`` are left out: an earlier start may have been stopped by them, and
    since been mended.
    """
    ended = [
        trial for trial in study.get_trials(deepcopy=False)[first:] if trial.state.is_finished()
    ]
    messages: list[str] = []
    for trial in sorted(ended, key=lambda trial: trial.datetime_complete or trial.datetime_start):
        if trial.state == TrialState.COMPLETE:
            messages.clear()
        elif ERROR in trial.user_attrs:
            messages.append(trial.user_attrs[ERROR])
    return messages


def _take(study: optuna.Study, job: Job, seat: WorkerSlot) -> Trial | None:
    """The next trial to do, parameters chosen; None when there is none and will be none."""
    while True:
        trials = study.get_trials(deepcopy=False)
        states = Counter(trial.state for trial in trials)
        waiting, running = states[TrialState.WAITING], states[TrialState.RUNNING]
        complete = states[TrialState.COMPLETE]
        if complete >= job.n_trials or len(failures(study, first=job.first)) >= FAILURES_IN_A_ROW:
            return None
        if not waiting and (job.walked or complete + running >= job.n_trials):
            if not running:
                return None
            time.sleep(PATIENCE)  # for the trials of others: one that dies is to be done again
            continue
        # A sampler made again with one seed would repeat its draws, so each trial and seat has a
        # seed of its own. Dead attempts do not count: with one worker a resumed study draws what it
        # would have drawn without the kill.
        drawn = sum(not is_dead(trial) for trial in trials)
        seed = int(np.random.SeedSequence([job.seed, seat.number, drawn]).generate_state(1)[0])
        # TPE is blind to fits that failed and would look again and again where nothing was ever
        # found.
        samplers = optuna.samplers
        study.sampler = (
            samplers.RandomSampler(seed=seed) if failures(study) else samplers.TPESampler(seed=seed)
        )
        try:
            trial = study.ask(dict(job.space))
            trial.set_user_attr(WORKER, str(seat))
            if not _too_many(study, trial, job):
                return trial
            trial.set_user_attr(SURPLUS, True)
            _tell(study, trial, state=TrialState.FAIL)
        except UpdateFinishedTrialError:
            pass  # the driver took it for a dead worker's, and asks for it again


def _too_many(study: optuna.Study, trial: Trial, job: Job) -> bool:
    """Whether workers that asked at the same moment have left nothing to do.

    Trials are numbered by the storage: of all that are done, under way or waiting, the first
    n_trials are to be done. Of n + 1 completed trials the last would have seen n before it; so
    there are never more than n.
    """
    if job.walked:
        return ENQUEUED not in trial.user_attrs
    live = (TrialState.WAITING, TrialState.RUNNING, TrialState.COMPLETE)
    before = [
        other
        for other in study.get_trials(deepcopy=False, states=live)
        if other.number < trial.number
    ]
    return len(before) >= job.n_trials


def _do(study: optuna.Study, trial: Trial, job: Job, folds: list[PreparedFold]) -> None:
    """Fit one trial, or take over what its parameters have scored before; log it and tell the
    study."""
    run_id = create_trial(job.parent, trial.number, trial.params)
    try:
        trial.set_user_attr(RUN_ID, run_id)
        twin = _twin(study, trial)
        reused = None
        if twin is not None:
            scores, reused = twin.user_attrs[SCORES], twin.user_attrs[RUN_ID]
            trial.set_user_attr(REUSED, reused)
        else:
            try:
                if trial.user_attrs.get(DEATHS, 0) >= DEATHS_IN_ALL:
                    raise MemoryError(f"{DEATHS_IN_ALL} workers died of it (out of memory?).")
                scores = _score(trial.params, job, folds)
            except Exception as error:
                if stopped := interruption(error):
                    raise stopped from None
                message = f"{type(error).__name__}: {error}"
                trial.set_user_attr(ERROR, message)
                _tell(study, trial, state=TrialState.FAIL)
                end_trial(run_id, "FAILED", params=trial.params, note=message)
                return
        trial.set_user_attr(SCORES, scores)
        _log(run_id, trial.params, scores, reused=reused)
        _tell(study, trial, scores["metrics"][f"cv_{job.metric}"])
    except UpdateFinishedTrialError:
        end_trial(run_id, "KILLED", params=trial.params)
    else:
        end_trial(run_id, "FINISHED")


def _log(
    run_id: str, params: Mapping[str, Any], scores: Mapping[str, Any], *, reused: str | None
) -> None:
    log_trial(
        run_id, scores["metrics"], params=params, per_fold=scores["per_fold"], reused_from=reused
    )


def _tell(
    study: optuna.Study,
    trial: Trial | int,
    value: float | None = None,
    *,
    state: TrialState | None = None,
) -> None:
    """Tell how a trial ended; UpdateFinishedTrialError when somebody else has ended it."""
    try:
        study.tell(trial, value, state=state)
    except ValueError as error:  # so says Optuna when it sees it before it writes
        raise UpdateFinishedTrialError(str(error)) from error


def _twin(study: optuna.Study, trial: Trial) -> FrozenTrial | None:
    """A completed trial with the same parameters; one that is under way is waited for."""
    key = studies.same(trial.params)
    while True:
        equal = [other for other in study.get_trials(deepcopy=False) if parameters(other) == key]
        for other in equal:
            if other.state == TrialState.COMPLETE:
                return other
        if not any(
            other.state == TrialState.RUNNING and other.number < trial.number for other in equal
        ):
            return None
        time.sleep(PATIENCE)


def _score(params: Mapping[str, Any], job: Job, folds: list[PreparedFold]) -> dict[str, Any]:
    """Fit on every fold: the run's ``metrics``, and those ``per_fold``."""
    started = time.perf_counter()
    estimator = clone(job.pipeline[-1]).set_params(**params)
    per_fold = estimator_metrics(estimator, folds)
    means = cv_metrics(per_fold)
    spread = f"cv_{job.metric}_std"
    metrics = {
        key: value for key, value in means.items() if key == spread or not key.endswith("_std")
    }
    if np.isnan(metrics[f"cv_{job.metric}"]):
        raise ValueError(f"{job.metric} is not a number: a fold lacks one of the two outcomes.")
    return {
        "metrics": metrics | {"fit_seconds": time.perf_counter() - started},
        "per_fold": {f"fold_{job.metric}": [scores[job.metric] for scores in per_fold]},
    }


def reconcile(
    study: optuna.Study, job: Job | Remains, *, living: Collection[WorkerSlot] | None = None
) -> str:
    """Put right what dead workers left, in the study and among its runs; says what was found, ""
    for nothing.

    A dead attempt is failed, its parameters are asked again, and its run is KILLED; a run of a
    trial whose value the study has is FINISHED. ``living`` are the workers that are still at work,
    when one has died: their trials are not touched. Without it nobody is at work, and runs that are
    gone are logged anew. A kill in here does no harm: the next call goes on.
    """
    dead = _unfinished(study, living)
    for trial in dead:
        _ask_again(study, job, trial, alone=living is not None)
        with suppress(
            UpdateFinishedTrialError
        ):  # a worker that had just taken it has found it surplus
            _tell(study, trial.number, state=TrialState.FAIL)
    for trial in _forgotten(study):
        _ask_again(study, job, trial, alone=False)
    found = [f"{len(dead)} unfinished trials to be done again"] if dead else []
    ended = Counter(_end_runs(study, job, every=living is None))
    return "; ".join(found + [f"{count} {what}" for what, count in ended.items()])


def _unfinished(study: optuna.Study, living: Collection[WorkerSlot] | None) -> list[FrozenTrial]:
    """The trials under way that no living worker has.

    A worker claims a trial right after it has taken it: one that nobody has claimed is looked at
    for a while.
    """
    alive = {str(seat) for seat in living or ()}
    deadline = time.monotonic() + CLAIMING
    while True:
        running = study.get_trials(deepcopy=False, states=[TrialState.RUNNING])
        dead = [trial for trial in running if trial.user_attrs.get(WORKER) not in alive]
        if (
            not alive
            or time.monotonic() > deadline
            or all(WORKER in trial.user_attrs for trial in dead)
        ):
            return dead
        time.sleep(PATIENCE)


def _forgotten(study: optuna.Study) -> list[FrozenTrial]:
    """Dead trials whose parameters were not asked again: they were drawn when the trial had been
    given up already."""
    trials = study.get_trials(deepcopy=False)
    last = {parameters(trial): trial for trial in trials}  # of equal ones the last
    return [trial for trial in last.values() if is_dead(trial) and SURPLUS not in trial.user_attrs]


def _ask_again(study: optuna.Study, job: Job | Remains, dead: FrozenTrial, *, alone: bool) -> None:
    """Enqueue what a dead trial had drawn; ``alone`` says that its worker died and not all there
    was."""
    if ERROR in dead.user_attrs or dead.params.keys() != set(job.space):
        return  # it had failed by itself, or had no parameters yet
    if len(study.get_trials(deepcopy=False, states=[TrialState.COMPLETE])) >= job.n_trials:
        return  # nobody would take it; a larger n_trials finds it forgotten
    waiting = study.get_trials(deepcopy=False, states=[TrialState.WAITING])
    if parameters(dead) not in map(parameters, waiting):
        enqueue(study, dead.params, deaths=dead.user_attrs.get(DEATHS, 0) + alone)


def _end_runs(study: optuna.Study, job: Job | Remains, *, every: bool) -> Iterator[str]:
    """End the runs that no living worker will end; yields what became of each."""
    runs = children(job.parent, "trial", status=None if every else "RUNNING")
    trials = study.get_trials(deepcopy=False)  # after the runs: a trial ends before its run does
    for run in [run for run in runs if run.info.status == "RUNNING"]:
        trial = trials[int(run.data.tags[Tag.TRIAL])]
        if trial.state.is_finished():
            unfinished = "FAILED" if ERROR in trial.user_attrs else "KILLED"
            told = "FINISHED" if trial.state == TrialState.COMPLETE else unfinished
            end_trial(run.info.run_id, told, params=trial.params, note=trial.user_attrs.get(ERROR))
            yield f"open runs ended as {told}"
    if not every:
        return
    logged = {int(run.data.tags[Tag.TRIAL]) for run in runs}
    for trial in trials:
        if trial.state == TrialState.COMPLETE and trial.number not in logged:
            run_id = create_trial(job.parent, trial.number, trial.params)
            _log(
                run_id, trial.params, trial.user_attrs[SCORES], reused=trial.user_attrs.get(REUSED)
            )
            end_trial(run_id, "FINISHED")
            yield "missing runs logged anew"
    for run in children(job.parent, "train", status="RUNNING"):
        end_trial(run.info.run_id, "KILLED")
        yield "open trainings ended as KILLED"
