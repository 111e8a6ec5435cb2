"""Find and clean up what dead processes left: open runs, half-written models, orphaned trials.

A run records its process, and the lock of a study is free once the last of its processes has ended,
so the work of a living process is never a problem.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial

import mlflow
import optuna
from mlflow.entities import LoggedModel, Run
from optuna.trial import FrozenTrial, TrialState

from churnlab.doctor.problems import REPAIRS, Problem, StoreSnapshot
from churnlab.doctor.registry import InterruptedChange, undo
from churnlab.formatting import counted, listed
from churnlab.tracking.names import Tag
from churnlab.tracking.processes import is_alive
from churnlab.tracking.runs import end_dead
from churnlab.tuning import studies


def dead_processes(
    snapshot: StoreSnapshot,
    storage: studies.Storage,
    changes: Sequence[InterruptedChange],
    *,
    elsewhere: bool,
) -> Iterator[Problem]:
    """Yield one problem per dead process, with everything that it left open.

    ``elsewhere``: processes on other machines are dead, too.
    """
    client = mlflow.MlflowClient()
    for process, found in _open_by_process(snapshot).items():
        alive = is_alive(process) if process else None
        tuned = [run for run in found if _command(run) == "tune"]
        if elsewhere_kept := _kept_elsewhere(tuned, storage):
            yield elsewhere_kept
            continue
        driven = {run.data.tags[Tag.STUDY] for run in tuned}
        if alive or not all(_is_free(storage, study) for study in driven & {*storage.names()}):
            continue
        runs = [run for run in found if client.get_run(run.info.run_id).info.status == "RUNNING"]
        if not runs:  # the process has ended in the meantime
            continue
        ids = {run.info.run_id for run in runs}
        interrupted = [change for change in changes if change.run_id in ids]
        what = _left_open(runs, snapshot, interrupted)
        where = listed(sorted(ids - {run.info.run_id for run in snapshot.open_trials} or ids), 5)
        if alive is None and not elsewhere:
            yield _unverifiable(process, what, where)
            continue
        host, pid = process.split()[:2] if process else ("", "")
        who = f"process {pid} on {host}" if process else "an unknown process"
        what = f"{who} is dead and left open: {what}"
        repair = partial(_clean_up, runs, interrupted, snapshot, storage)
        yield Problem("dead process", what, where, REPAIRS, repair)


def _kept_elsewhere(tuned: Sequence[Run], storage: studies.Storage) -> Problem | None:
    """Return the problem of open studies in a storage that this doctor does not look into."""
    places = {run.data.tags.get(Tag.STORAGE, "") for run in tuned} - {storage.place}
    if not places:
        return None
    (place, *_), where = sorted(places), listed(sorted(run.info.run_id for run in tuned), 5)
    choice = "storage=postgres storage.url=..." if place else "storage=local"
    what = f"a study in {place or 'files'} is open; who works on it is known only there"
    return Problem("open study elsewhere", what, where, f"look there: churnlab doctor {choice}")


def _open_by_process(snapshot: StoreSnapshot) -> dict[str, list[Run]]:
    """Group the RUNNING runs by their process, trials by that of their study."""
    found: dict[str, list[Run]] = defaultdict(list)
    for run in snapshot.open.values():
        parent = run.data.tags.get("mlflow.parentRunId", "")
        owner = snapshot.runs.get(parent, run) if _command(run) == "trial" else run
        found[owner.data.tags.get(Tag.PROCESS, "")].append(run)
    return found


def _left_open(
    runs: Sequence[Run], snapshot: StoreSnapshot, interrupted: Sequence[InterruptedChange]
) -> str:
    """Describe what a process left open: runs by command, models, changes of champion."""
    commands = sorted(map(_command, runs))
    counts = [counted(commands.count(name), f"{name} run") for name in dict.fromkeys(commands)]
    left, ids = [f"{', '.join(counts)}, still RUNNING"], {run.info.run_id for run in runs}
    models = [model.model_id for model in _half_written(snapshot) if model.source_run_id in ids]
    left += [f"{counted(len(models), 'half-written model')}: {listed(models)}"] if models else []
    left += [f"an interrupted change of the champion of {change.model}" for change in interrupted]
    return "; ".join(left)


def _unverifiable(process: str, what: str, where: str) -> Problem:
    """Return the problem of a process that may be alive: this machine cannot see it."""
    fix = f"check whether it is still running; if not: {REPAIRS} elsewhere=true"
    if process:
        what = f"a process on {process.split()[0]}, another machine, has open: {what}"
        return Problem("process on another machine", what, where, fix)
    what = f"an unknown process (its runs have no tag {Tag.PROCESS}) has open: {what}"
    return Problem("unknown process", what, where, fix)


def interrupted_writes(
    snapshot: StoreSnapshot, changes: Sequence[InterruptedChange]
) -> Iterator[Problem]:
    """Yield half-written models and interrupted champion changes of runs that have ended."""
    client, open_now = mlflow.MlflowClient(), snapshot.open
    for model in _half_written(snapshot):
        if model.source_run_id not in open_now:
            what = f"model {model.model_id} was not completely written before its run ended"
            repair = partial(client.finalize_logged_model, model.model_id, "FAILED")
            where = model.source_run_id or model.model_id
            yield Problem("half-written model", what, where, REPAIRS, repair)
    for change in changes:
        if change.run_id not in open_now:
            what = f"{change.model}: the change of champion {change.description} was not completed"
            repair = partial(undo, change)
            yield Problem("interrupted champion change", what, change.model, REPAIRS, repair)


def _half_written(snapshot: StoreSnapshot) -> list[LoggedModel]:
    return [model for model in snapshot.models if model.status == "PENDING"]


def _command(run: Run) -> str:
    return run.data.tags[Tag.COMMAND]


def _is_free(storage: studies.Storage, study: str) -> bool:
    """Return whether no process holds the lock of a study."""
    try:
        with storage.locked(study, wait=False):
            return True
    except BlockingIOError:
        return False


def _clean_up(
    runs: Sequence[Run],
    interrupted: Sequence[InterruptedChange],
    snapshot: StoreSnapshot,
    storage: studies.Storage,
) -> None:
    """Clean up after a dead process, its runs last: after a kill in here, doctor finds it again."""
    parents = {run.data.tags["mlflow.parentRunId"] for run in runs if _command(run) == "trial"}
    parents |= {run.info.run_id for run in runs if _command(run) == "tune"}
    for parent in parents & snapshot.runs.keys():
        reconcile(snapshot.runs[parent], storage)
    for change in interrupted:
        undo(change)
    end_dead(runs)


def reconcile(parent: Run, storage: studies.Storage) -> None:
    """Clean up a study and its runs after its driver died, unless a process holds its lock."""
    from churnlab.tuning import orphans, trials  # loads scikit-learn, which few repairs need

    name = parent.data.tags[Tag.STUDY]
    if name not in storage.names():
        return
    with suppress(BlockingIOError), storage.locked(name, wait=False):
        study = _load(storage, name)
        if study is not None and study.user_attrs.get("id") == parent.data.tags.get(Tag.STUDY_ID):
            space = study.user_attrs[studies.QUESTION]["search space"]
            n_trials = int(parent.data.tags["tune.n_trials"])
            orphans.reconcile(study, trials.DeadJob(storage, space, n_trials, parent))


def _load(storage: studies.Storage, name: str) -> optuna.Study | None:
    """Load a study; None if a kill came before it was created in its file."""
    opened = storage.open(name)
    if not optuna.get_all_study_names(opened):
        return None
    return optuna.load_study(study_name=name, storage=opened)


def orphaned_trials(snapshot: StoreSnapshot, storage: studies.Storage) -> Iterator[Problem]:
    """Yield studies whose run has ended or is gone, but which have trials without a live worker."""
    parents = {
        (run.data.tags[Tag.STUDY], run.data.tags.get(Tag.STUDY_ID)): run
        for run in snapshot.active.values()
        if _command(run) == "tune"
    }
    for name in storage.names():
        try:
            with storage.locked(name, wait=False):
                study = _load(storage, name)
                running = _running(study) if study is not None else []
        except BlockingIOError:
            continue
        if study is None or not running:
            continue
        parent = parents.get((name, study.user_attrs.get("id")))
        if parent is None and storage.place:
            continue  # its run is in another store
        if parent is not None and parent.info.status == "RUNNING":
            continue  # part of its process's problem
        what = f"the study {name} has {counted(len(running), 'RUNNING trial')} without live worker"
        where = parent.info.run_id if parent else name
        repair = partial(reconcile, parent, storage) if parent else partial(_fail, storage, name)
        fix = f"run the same tune command again, or {REPAIRS}"
        yield Problem("orphaned trials", what, where, fix, repair)


def _running(study: optuna.Study) -> list[FrozenTrial]:
    return study.get_trials(deepcopy=False, states=[TrialState.RUNNING])


def _fail(storage: studies.Storage, name: str) -> None:
    """Fail the RUNNING trials of a study without a run; its next start enqueues them again."""
    with suppress(BlockingIOError), storage.locked(name, wait=False):
        study = optuna.load_study(study_name=name, storage=storage.open(name))
        for trial in _running(study):
            study.tell(trial.number, state=TrialState.FAIL)
