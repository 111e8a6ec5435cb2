"""What crashes have left behind in the store, the studies and the registry: problems, each with its
cure if it has one.

A run knows its process, and a study has a lock that is free when the last of its processes is gone;
so what a living process is at work on is no problem. Runs, models and versions that are not
churnlab's are left alone.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

import mlflow
import optuna
from mlflow.entities import LoggedModel, Run
from mlflow.exceptions import MlflowException
from optuna.trial import TrialState

from churnlab.doctor.problems import REPAIRS, Problem, StoreSnapshot, read_store
from churnlab.doctor.registry import Move, registered, take_back, unfinished_moves
from churnlab.formatting import listed
from churnlab.tracking import processes
from churnlab.tracking.names import Tag
from churnlab.tracking.processes import is_alive
from churnlab.tracking.runs import end_dead
from churnlab.tracking.search import children, search
from churnlab.tuning import trials
from churnlab.tuning.studies import Local

JOINS = 50
"""So many conditions a database can be asked at once: SQLite joins no more than 64 tables."""


def examine(storage: Local, *, elsewhere: bool) -> list[Problem]:
    """All problems of the store that MLflow is pointed at; ``elsewhere``: other machines' processes
    are dead, too."""
    books = read_store()
    moves = list(unfinished_moves(books))
    return [
        *dead_processes(books, storage, moves, elsewhere=elsewhere),
        *dead_trials(books, storage),
        *models_without_files(books),
        *orphans(books),
        *lonely_parents(books, storage),
        *registered(books),
        *unknown_folders(books),
    ]


# Processes


def dead_processes(
    books: StoreSnapshot, storage: Local, moves: Sequence[Move], *, elsewhere: bool
) -> Iterator[Problem]:
    """What each dead process has left open is one problem: its runs, their models, their trials, a
    champion's move."""
    left: dict[str, list[Run]] = defaultdict(list)
    for run in books.open.values():
        owner = (
            books.runs.get(run.data.tags.get("mlflow.parentRunId", ""), run)
            if _is_trial(run)
            else run
        )
        left[owner.data.tags.get(Tag.PROCESS, "")].append(run)
    for process, runs in left.items():
        alive = is_alive(process) if process else None
        studies = [run for run in runs if run.data.tags[Tag.COMMAND] == "tune"]
        if alive or any(not _is_free(storage, run.data.tags[Tag.STUDY]) for run in studies):
            continue
        client = mlflow.MlflowClient()
        runs = [run for run in runs if client.get_run(run.info.run_id).info.status == "RUNNING"]
        if not runs:  # the process came to its end while we looked
            continue
        ids = {run.info.run_id for run in runs}
        models = [
            model
            for model in books.models
            if model.source_run_id in ids and model.status == "PENDING"
        ]
        moved = [move for move in moves if move.run_id in ids]
        told = [_counted(runs)]
        told += (
            [f"half-written models: {listed([model.model_id for model in models])}"]
            if models
            else []
        )
        told += [f"an unfinished move of the champion of {move.model}" for move in moved]
        cure = partial(_end, runs, moved, books, storage)
        where = listed(sorted(ids - {trial.info.run_id for trial in books.open_trials} or ids), 5)
        if alive is None and not elsewhere:
            machine = (
                f"on {process.split()[0]}, another machine" if process else "that no tag names"
            )
            mend = f"look whether it is at work; if not: {REPAIRS} elsewhere=true"
            yield Problem(
                "process elsewhere", f"a process {machine} has open: {'; '.join(told)}", where, mend
            )
        else:
            who = (
                f"process {process.split()[1]} of {process.split()[0]}"
                if process
                else "a process that no tag names"
            )
            yield Problem(
                "dead process",
                f"{who} is gone and left open: {'; '.join(told)}",
                where,
                REPAIRS,
                cure,
            )
    open_now = books.open
    for model in books.models:
        if model.status == "PENDING" and model.source_run_id not in open_now:
            what = f"model {model.model_id} of a run that has ended was not written to its end"
            yield Problem("half-written model", what, _place(model), REPAIRS, partial(_fail, model))
    for move in moves:
        if move.run_id not in open_now:
            what = f"{move.model}: the champion was not moved as {move.key} says: {move.told}"
            yield Problem("unfinished move", what, move.model, REPAIRS, partial(take_back, move))


def _is_trial(run: Run) -> bool:
    return run.data.tags[Tag.COMMAND] == "trial"


def _counted(runs: Sequence[Run]) -> str:
    """Runs in words: how many of which command."""
    commands = [run.data.tags[Tag.COMMAND] for run in runs]
    return "RUNNING " + ", ".join(
        f"{commands.count(name)} {name}" for name in dict.fromkeys(sorted(commands))
    )


def _is_free(storage: Local, study: str) -> bool:
    """Whether no process is at work on a study."""
    try:
        with storage.locked(study, wait=False):
            return True
    except BlockingIOError:
        return False


def _end(runs: Sequence[Run], moves: Sequence[Move], books: StoreSnapshot, storage: Local) -> None:
    """Put right what a dead process has left, its runs last: whoever is killed in here finds the
    rest again."""
    parents = {run.data.tags["mlflow.parentRunId"] for run in runs if _is_trial(run)}
    studies = [books.runs[parent] for parent in parents if parent in books.runs]
    studies += [
        run
        for run in runs
        if run.data.tags[Tag.COMMAND] == "tune" and run.info.run_id not in parents
    ]
    for study in studies:
        reconcile(study, storage)
    for move in moves:
        take_back(move)
    end_dead(runs)


def reconcile(parent: Run, storage: Local) -> None:
    """Put right what a study's dead driver has left, in the study and among its runs, unless
    somebody is at work."""
    name = parent.data.tags[Tag.STUDY]
    if name not in storage.names():
        return
    with suppress(BlockingIOError), storage.locked(name, wait=False):
        study = _load(storage, name)
        if study is not None and study.user_attrs.get("id") == parent.data.tags.get(Tag.STUDY_ID):
            asked, n_trials = study.user_attrs["asked"], int(parent.data.tags["tune.n_trials"])
            trials.reconcile(study, trials.Remains(asked["search space"], n_trials, parent))


def _load(storage: Local, name: str) -> optuna.Study | None:
    """The study of this name; None when a kill fell before it was made."""
    opened = storage.open(name)
    return (
        optuna.load_study(study_name=name, storage=opened)
        if optuna.get_all_study_names(opened)
        else None
    )


def dead_trials(books: StoreSnapshot, storage: Local) -> Iterator[Problem]:
    """Trials that are under way in a study whose run has ended, or which has none, and which nobody
    works on."""
    parents = {
        (run.data.tags[Tag.STUDY], run.data.tags.get(Tag.STUDY_ID)): run
        for run in books.active.values()
        if run.data.tags[Tag.COMMAND] == "tune"
    }
    for name in storage.names():
        try:
            with storage.locked(name, wait=False):
                study = _load(storage, name)
                running = (
                    study.get_trials(deepcopy=False, states=[TrialState.RUNNING])
                    if study is not None
                    else []
                )
        except BlockingIOError:
            continue
        if study is None or not running:
            continue
        parent = parents.get((name, study.user_attrs.get("id")))
        if parent is not None and parent.info.status == "RUNNING":
            continue  # its process's problem
        what = f"{len(running)} trials of the study {name} are under way and nobody does them"
        cure = partial(reconcile, parent, storage) if parent else partial(_give_up, storage, name)
        yield Problem(
            "dead trials",
            what,
            parent.info.run_id if parent else name,
            f"run the same tune, or {REPAIRS}",
            cure,
        )


def _give_up(storage: Local, name: str) -> None:
    """Fail the trials under way of a study that has no run; its next start asks for them again."""
    with suppress(BlockingIOError), storage.locked(name, wait=False):
        study = optuna.load_study(study_name=name, storage=storage.open(name))
        for trial in study.get_trials(deepcopy=False, states=[TrialState.RUNNING]):
            study.tell(trial.number, state=TrialState.FAIL)


# Models


def _place(model: LoggedModel) -> str:
    return model.source_run_id or model.model_id


def _fail(model: LoggedModel) -> None:
    mlflow.MlflowClient().finalize_logged_model(model.model_id, "FAILED")


def models_without_files(books: StoreSnapshot) -> Iterator[Problem]:
    """Models of ours that are said to be READY and whose files are not there (of a store on this
    machine's disk)."""
    gone = [
        model
        for model in books.models
        if model.status == "READY" and _lacks_files(model.artifact_location)
    ]
    for model in gone:
        what = f"the files of model {model.model_id} are gone from {model.artifact_location}"
        yield Problem(
            "model without files", what, _place(model), f"churnlab reproduce run={_place(model)}"
        )


def _lacks_files(location: str) -> bool:
    folder = _folder(location)
    return folder is not None and not (folder / "MLmodel").is_file()


def _folder(location: str) -> Path | None:
    """The folder of an address on this machine's disk; None for any other address."""
    parts = urlparse(location)
    return Path(unquote(parts.path)) if parts.scheme in ("file", "") else None


# Parents and children


def orphans(books: StoreSnapshot) -> Iterator[Problem]:
    """Runs inside a run that is deleted or gone: one problem a parent."""
    inside: dict[str, list[Run]] = defaultdict(list)
    for run in [*books.active.values(), *_trials_outside(books)]:
        parent = run.data.tags.get("mlflow.parentRunId")
        if parent is not None and parent not in books.active:
            inside[parent].append(run)
    for parent, runs in inside.items():
        try:
            if mlflow.get_run(parent).info.lifecycle_stage == "active":
                continue  # a run of somebody else, as `mlflow run` opens one around ours
            state, mend = "deleted", f"bring it back: mlflow runs restore --run-id {parent}"
        except MlflowException:
            state, mend = "not there", "delete them, too, or leave them: each is complete by itself"
        commands = listed(sorted({run.data.tags[Tag.COMMAND] for run in runs}))
        what = f"{len(runs)} runs ({commands}) are inside run {parent}, which is {state}"
        yield Problem("children without a parent", what, parent, mend)


def _trials_outside(books: StoreSnapshot) -> list[Run]:
    """The trials whose study's run is not there, without looking at all the others."""
    studies = [
        run_id for run_id, run in books.active.items() if run.data.tags[Tag.COMMAND] == "tune"
    ]
    others = (
        [f"tags.`mlflow.parentRunId` != '{run_id}'" for run_id in studies]
        if len(studies) <= JOINS
        else []
    )
    return search(" and ".join([f"tags.`{Tag.COMMAND}` = 'trial'", *others]))


def lonely_parents(books: StoreSnapshot, storage: Local) -> Iterator[Problem]:
    """Finished studies and pipelines without the runs that they have had inside."""
    first = search(f"tags.`{Tag.COMMAND}` = 'trial' and tags.`{Tag.TRIAL}` = '0'")
    studies = {run.data.tags.get("mlflow.parentRunId") for run in first}
    parents = {run.data.tags.get("mlflow.parentRunId") for run in books.active.values()}
    for run_id, run in books.active.items():
        if run.info.status != "FINISHED":
            continue
        name = f"{run.data.tags[Tag.COMMAND]} run {run_id} ({run.info.run_name})"
        if run.data.tags[Tag.COMMAND] == "pipeline" and run_id not in parents:
            yield Problem(
                "parent without children",
                f"{name} has nothing inside",
                run_id,
                "run it again, or delete it",
            )
        if run.data.tags[Tag.COMMAND] != "tune":
            continue
        best = run.data.tags.get(Tag.BEST_RUN_ID)
        if best is not None and best not in books.active:
            mend = (
                "run the same tune again"
                if best not in books.runs
                else f"mlflow runs restore --run-id {best}"
            )
            yield Problem(
                "parent without children", f"{name} has lost its best run {best}", run_id, mend
            )
        if run_id not in studies and not children(
            run, "trial"
        ):  # the first trial may have died too early
            kept = run.data.tags[Tag.STUDY] in storage.names()
            cure = partial(reconcile, run, storage) if kept else None
            mend = REPAIRS if kept else "its study is gone, too: reproduce it, or delete it"
            yield Problem(
                "parent without children", f"{name} has no trials inside", run_id, mend, cure
            )


# Files


def unknown_folders(books: StoreSnapshot) -> Iterator[Problem]:
    """Folders of artifacts whose run or model the store does not know; they may hold what somebody
    needs."""
    root = Path(os.environ["CHURNLAB_STORE"]) / "mlartifacts"
    known = {model.model_id for model in books.models}
    runs = [path for path in root.glob("*") if re.fullmatch(r"[0-9a-f]{32}", path.name)]
    unknown = [
        path
        for path in runs
        if path.name not in books.runs and not _exists(mlflow.get_run, path.name)
    ]
    models = [path for path in root.glob("models/m-*") if path.name not in known]
    unknown += [path for path in models if not _exists(mlflow.get_logged_model, path.name)]
    if unknown:
        what = f"the store knows nothing of {len(unknown)} folders: {listed([path.name for path in unknown], 5)}"
        mend = (
            "they are of another store or of deleted runs: look into them, then move or remove them"
        )
        yield Problem("unknown folders", what, str(root), mend)


def _exists(get: Callable[[str], Any], name: str) -> bool:
    try:
        get(name)
    except MlflowException:
        return False
    return True


def left_over(home: Path, store: Path | None) -> Iterator[Problem]:
    """Files that a killed process had not yet moved into place: half a database, half a report,
    half a scored file."""
    halves = [*store.parent.glob(f"{store.name}.*.tmp*")] if store is not None else []
    halves += (home / "outputs").glob(".*.*")
    dead = [
        path
        for path in halves
        if (pid := re.search(r"\.(\d+)\.", path.name)) and not processes.runs(int(pid[1]))
    ]
    for path in dead:
        what = "a process that is gone had not moved this file into place"
        yield Problem(
            "left-over file", what, str(path), REPAIRS, partial(path.unlink, missing_ok=True)
        )


def other_schema(store: Path, found: str | None, expected: str) -> Iterator[Problem]:
    """A store that this MLflow cannot work with."""
    if found == expected:
        return
    what = f"the store's schema is version {found or 'unknown'}; this MLflow works with {expected}"
    older = f"copy {store.name}, then: mlflow db upgrade sqlite:///{store}"
    mend = f"{older}; when it says that it cannot locate the revision, the store was made by a newer MLflow: install that"
    yield Problem("another schema", what, str(store), mend)
