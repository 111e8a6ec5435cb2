"""Clean up after dead workers: their trials are failed and enqueued again, and their runs end."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence

import optuna
from mlflow.entities import Run
from optuna.trial import FrozenTrial, TrialState

from churnlab.formatting import counted
from churnlab.tracking.names import Tag
from churnlab.tracking.runs import create_trial, end_trial, log_trial
from churnlab.tracking.search import children
from churnlab.tuning.studies import WORKER
from churnlab.tuning.trials import (
    POLL,
    REUSED,
    SCORES,
    SURPLUS,
    DeadJob,
    Job,
    end_run,
    enqueue_again,
    give_up,
    is_dead,
    key_of,
    run_status,
)
from churnlab.tuning.workers import WorkerSlot

CLAIM_SECONDS = 2.0
"""A RUNNING trial that no worker has claimed after this time is orphaned."""

Others = Callable[[optuna.Study, Sequence[FrozenTrial]], Collection[int]]
"""Returns the numbers of RUNNING trials that workers of other drivers may be fitting."""


def _no_others(study: optuna.Study, running: Sequence[FrozenTrial]) -> Collection[int]:
    return ()


def reconcile(
    study: optuna.Study,
    job: Job | DeadJob,
    *,
    living: Collection[WorkerSlot] | None = None,
    others: Others = _no_others,
    every: bool | None = None,
) -> str:
    """Clean up after dead workers, in the study and its runs; return the findings, "" if none.

    An orphaned trial is failed, its parameters are enqueued again, and its run is KILLED; a run
    whose trial is COMPLETE becomes FINISHED. ``living`` are the workers that are alive after one
    has died: their trials are left alone, as are those that ``others`` may be fitting. Without it
    no worker of this driver is alive, and runs that are missing are logged again, unless ``every``
    is False. A kill in here does no harm: the next call continues.
    """
    alive = {job.worker(slot) for slot in living or () if isinstance(job, Job)}
    orphaned = _orphaned(study, alive, others)
    for trial in orphaned:
        give_up(study, job, trial, died=living is not None)
    with job.storage.alone(study.study_name):
        for trial in _not_enqueued_again(study):
            enqueue_again(study, job, trial, died=False)
    found = Counter([("unfinished trial", "to run again")] * len(orphaned))
    found.update(_end_runs(study, job, every=living is None if every is None else every))
    return "; ".join(f"{counted(count, noun)} {what}" for (noun, what), count in found.items())


def _orphaned(study: optuna.Study, alive: Collection[str], others: Others) -> list[FrozenTrial]:
    """Return the RUNNING trials that have no living worker.

    A worker claims a trial right after it has taken it, so give unclaimed ones a moment.
    """
    deadline = time.monotonic() + CLAIM_SECONDS
    while True:
        running = study.get_trials(deepcopy=False, states=[TrialState.RUNNING])
        left = {*others(study, running)}
        dead = [
            trial
            for trial in running
            if trial.user_attrs.get(WORKER) not in alive and trial.number not in left
        ]
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


def _end_runs(study: optuna.Study, job: Job | DeadJob, *, every: bool) -> Iterator[tuple[str, str]]:
    """End the runs that no living worker will end; yield what each was and what was done."""
    runs = children(job.parent, "trial", status=None if every else "RUNNING")
    trials = study.get_trials(deepcopy=False)  # after the runs: a trial ends before its run does
    for run in [run for run in runs if run.info.status == "RUNNING"]:
        trial = trials[int(run.data.tags[Tag.TRIAL])]
        if trial.state.is_finished():
            end_run(run.info.run_id, trial)
            yield "open run", f"ended as {run_status(trial)}"
    if not every:
        return
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    logged = {int(run.data.tags[Tag.TRIAL]) for run in runs}
    if any(trial.number not in logged for trial in complete):
        # Workers of other drivers may have logged some since.
        logged = {int(run.data.tags[Tag.TRIAL]) for run in children(job.parent, "trial")}
    for trial in complete:
        if trial.number not in logged:
            run_id = create_trial(job.parent, trial.number, trial.params)
            scores, reused = trial.user_attrs[SCORES], trial.user_attrs.get(REUSED)
            log_trial(run_id, trial.params, scores, reused_from=reused)
            end_trial(run_id, "FINISHED")
            yield "missing run", "logged again"
    for _ in range(end_trainings(job.parent)):
        yield "open training", "ended as KILLED"


def end_trainings(parent: Run) -> int:
    """End the open runs that fit a study's best model as KILLED; return their number.

    The study is locked: who opened them is dead, or has lost the lock.
    """
    found = children(parent, "train", status="RUNNING")
    for run in found:
        end_trial(run.info.run_id, "KILLED")
    return len(found)
