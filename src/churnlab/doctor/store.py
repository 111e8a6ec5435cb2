"""Examine the whole store: processes, studies, models, parents and children, registry and files.

Runs, models and versions that churnlab did not make are left alone.
"""

from __future__ import annotations

import glob
import os
import re
import shlex
from collections import defaultdict
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from zipfile import BadZipFile, ZipFile

import mlflow
from mlflow.entities import Run

from churnlab.bundle.skops_types import TRUSTED
from churnlab.doctor.problems import REPAIRS, Problem, StoreSnapshot, read_store
from churnlab.doctor.processes import dead_processes, interrupted_writes, orphaned_trials, reconcile
from churnlab.doctor.registry import interrupted_changes, registry_problems
from churnlab.formatting import counted, listed
from churnlab.registry import versions
from churnlab.tracking import processes
from churnlab.tracking.artifacts import lost_files, make_again, name_of, repair
from churnlab.tracking.moved import ARTIFACTS, local_path
from churnlab.tracking.names import Tag
from churnlab.tracking.search import children, look_up, search
from churnlab.tracking.store import SQLITE, restore, sqlite_uri
from churnlab.tuning.studies import Storage

BY_HAND = "fix=true leaves it: nothing can be made up"
"""What the repair says of a loss that only a person can make good."""

UPLOADING = ".artifact.uploading.*"
"""The names that MLflow gives to artifacts until they are whole."""

MAX_CONDITIONS = 50
"""The number of conditions in one search: SQLite joins at most 64 tables."""


def examine(storage: Storage, *, elsewhere: bool) -> list[Problem]:
    """Return all problems of the store that MLflow points at.

    ``elsewhere``: processes on other machines are dead, too.
    """
    snapshot = read_store()
    changes = list(interrupted_changes(snapshot))
    return [
        *dead_processes(snapshot, storage, changes, elsewhere=elsewhere),
        *interrupted_writes(snapshot, changes),
        *orphaned_trials(snapshot, storage),
        *unusable_models(snapshot),
        *runs_without_files(snapshot),
        *orphaned_runs(snapshot),
        *childless_parents(snapshot, storage),
        *lost_studies(snapshot, storage),
        *registry_problems(snapshot),
        *unknown_folders(snapshot),
        *interrupted_uploads(snapshot),
    ]


# Models


def unusable_models(snapshot: StoreSnapshot) -> Iterator[Problem]:
    """Yield READY models that cannot be loaded; of those on a server, only that they have no files.

    Models of an earlier layout are one problem: skops files name types by the module that they had
    when the model was saved.
    """
    outdated: dict[str, list[str]] = {}
    fitted = {
        run_id
        for run_id, run in snapshot.active.items()
        if run.data.tags[Tag.COMMAND] in ("train", "segment")  # what promote logs is a version
    }
    for model in snapshot.models:
        folder, run_id = local_path(model.artifact_location), model.source_run_id
        if model.status != "READY" or run_id not in fitted:
            continue
        again = make_again(run_id)
        if folder is None:
            if "MLmodel" not in versions.file_names(f"models:/{model.model_id}"):
                what = f"model {model.model_id} has lost its files in the server's artifacts"
                yield Problem("model without files", what, run_id, again)
            continue
        if not (folder / "MLmodel").is_file():
            what = f"model {model.model_id} has lost its files in {folder}"
            yield Problem("model without files", what, run_id, again)
            continue
        for file in folder.glob("*.skops"):
            try:
                if modules := _outdated_modules(file):
                    outdated[run_id] = modules
            except (BadZipFile, KeyError):
                what = f"{file.name} of model {model.model_id} is damaged and cannot be loaded"
                yield Problem("damaged model", what, run_id, again)
    if outdated:
        modules = sorted({name for names in outdated.values() for name in names})
        what = (
            f"{counted(len(outdated), 'model')} saved by an earlier layout of churnlab cannot be "
            f"loaded: no module {listed(modules)}"
        )
        fix = "train again; promote the new run to serve it; delete the old one in the MLflow UI"
        yield Problem("models of an earlier layout", what, listed(sorted(outdated), 5), fix)


def _outdated_modules(file: Path) -> list[str]:
    """Return the churnlab modules that a skops file names and that no longer have its types."""
    with ZipFile(file) as archive:
        schema = archive.read("schema.json").decode()
    named = set(re.findall(r'"__module__": "(churnlab\.[\w.]+)"', schema))
    return sorted(named - {name.rpartition(".")[0] for name in TRUSTED})


def runs_without_files(snapshot: StoreSnapshot) -> Iterator[Problem]:
    """Yield finished runs that have lost files which others read; lost models are apart."""
    for run_id, run in snapshot.active.items():
        if found := lost_files(run, thorough=True):
            what = f"{name_of(run)} {found}; every command leaves it out or stops at it"
            yield Problem("run without files", what, run_id, f"{repair(run)} ({BY_HAND})")


# Parents and children


def orphaned_runs(snapshot: StoreSnapshot) -> Iterator[Problem]:
    """Yield runs whose parent is deleted or does not exist: one problem per parent."""
    inside: dict[str, list[Run]] = defaultdict(list)
    for run in [*snapshot.active.values(), *_trials_outside(snapshot)]:
        parent = run.data.tags.get("mlflow.parentRunId")
        if parent is not None and parent not in snapshot.active:
            inside[parent].append(run)
    for parent, runs in inside.items():
        state, fix = "is deleted", f"restore it: {restore('run', parent)}"
        found = look_up(mlflow.get_run, parent)
        if found is None:
            state, fix = "does not exist", "delete them, or keep them: each is complete by itself"
        elif found.info.lifecycle_stage == "active":
            continue  # not ours: for example, `mlflow run` opens one around ours
        commands = listed(sorted({run.data.tags[Tag.COMMAND] for run in runs}))
        what = f"{counted(len(runs), 'run')} ({commands}) inside run {parent}, which {state}"
        yield Problem("orphaned runs", what, parent, fix)


def _trials_outside(snapshot: StoreSnapshot) -> list[Run]:
    """Return the trials that are in none of our studies' runs, without reading all others."""
    parents = [
        run_id for run_id, run in snapshot.active.items() if run.data.tags[Tag.COMMAND] == "tune"
    ]
    conditions = [f"tags.`{Tag.COMMAND}` = 'trial'"]
    if len(parents) <= MAX_CONDITIONS:
        conditions += [f"tags.`mlflow.parentRunId` != '{run_id}'" for run_id in parents]
    return search(" and ".join(conditions))


def childless_parents(snapshot: StoreSnapshot, storage: Storage) -> Iterator[Problem]:
    """Yield finished pipelines and studies that have lost the runs inside them."""
    kind = "parent without children"
    first = search(f"tags.`{Tag.COMMAND}` = 'trial' and tags.`{Tag.TRIAL}` = '0'")
    studies = {run.data.tags.get("mlflow.parentRunId") for run in first}
    parents = {run.data.tags.get("mlflow.parentRunId") for run in snapshot.active.values()}
    finished = {
        run_id: run for run_id, run in snapshot.active.items() if run.info.status == "FINISHED"
    }
    for run_id, run in finished.items():
        command, best = run.data.tags[Tag.COMMAND], run.data.tags.get(Tag.BEST_RUN_ID)
        name = f"{command} run {run_id} ({run.info.run_name})"
        if command == "pipeline" and run_id not in parents:
            yield Problem(kind, f"{name} has no runs inside", run_id, "run it again, or delete it")
        if command == "tune" and best is not None and best not in snapshot.active:
            deleted = best in snapshot.runs
            fix = restore("run", best) if deleted else "run the same tune again"
            yield Problem(kind, f"{name} has lost its best run {best}", run_id, fix)
        # A first trial that died early has no run, so look for any trial.
        if command == "tune" and run_id not in studies and not children(run, "trial"):
            kept = run.data.tags[Tag.STUDY] in storage.names()
            repair = partial(reconcile, run, storage) if kept else None
            fix = REPAIRS if kept else "its study is gone, too: reproduce it, or delete it"
            yield Problem(kind, f"{name} has no trials inside", run_id, fix, repair)


def lost_studies(snapshot: StoreSnapshot, storage: Storage) -> Iterator[Problem]:
    """Yield studies of a local store whose file is gone: their runs are complete, but cannot be
    resumed."""
    if storage.place or not mlflow.get_tracking_uri().startswith(SQLITE):
        return  # other machines keep the files of their studies themselves
    kept = {*storage.names()}
    for run_id, run in snapshot.active.items():
        name = run.data.tags.get(Tag.STUDY)
        if (
            run.data.tags[Tag.COMMAND] == "tune"
            and name not in kept
            and Tag.OUTER_FOLD not in run.data.tags
            and Tag.STORAGE not in run.data.tags
        ):
            what = f"the study {name} of run {run_id} has lost its file in {storage}"
            fix = (
                "put the file back from a backup, or run the same tune command again: it starts a "
                f"new study with all its trials ({BY_HAND})"
            )
            yield Problem("lost study", what, run_id, fix)


# Files


def unknown_folders(snapshot: StoreSnapshot) -> Iterator[Problem]:
    """Yield folders of artifacts whose run or model is not in the store; somebody may need them.

    None of a server: what lies in CHURNLAB_HOME then belongs to the store on this machine.
    """
    if mlflow.get_tracking_uri().startswith("http"):
        return
    root = Path(os.environ["CHURNLAB_STORE"]) / ARTIFACTS
    known = {*snapshot.runs, *(model.model_id for model in snapshot.models)}
    runs = [path for path in root.glob("*") if re.fullmatch(r"[0-9a-f]{32}", path.name)]
    found = [(path.name, mlflow.get_run) for path in runs]
    found += [(path.name, mlflow.get_logged_model) for path in root.glob("models/m-*")]
    unknown = [name for name, get in found if name not in known and look_up(get, name) is None]
    if unknown:
        count = counted(len(unknown), "folder")
        what = f"{count} of runs or models that the store does not have: {listed(unknown, 5)}"
        fix = "they belong to another store or to deleted runs: check, then move or remove them"
        yield Problem("unknown folders", what, str(root), fix)


def interrupted_uploads(snapshot: StoreSnapshot) -> Iterator[Problem]:
    """Yield the files that dead processes were logging: MLflow hides them, and they stay."""
    root = Path(os.environ["CHURNLAB_STORE"]) / ARTIFACTS
    logged_by = {model.model_id: model.source_run_id for model in snapshot.models}
    for path in sorted(root.rglob(UPLOADING)):
        first, second, *_ = path.relative_to(root).parts
        run = snapshot.runs.get(logged_by.get(second, "") if first == "models" else first)
        if run is None:
            continue  # not ours, or part of an unknown folder
        process = run.data.tags.get(Tag.PROCESS)
        if run.info.status != "RUNNING" or (process and processes.is_alive(process) is False):
            what = f"{name_of(run)} was stopped while it logged this temporary file"
            repair = partial(path.unlink, missing_ok=True)
            yield Problem("leftover file", what, str(path), REPAIRS, repair)


def leftover_files(home: Path, store: Path | None) -> Iterator[Problem]:
    """Yield temporary files of dead processes: a database, a report or a scored file, half done."""
    temporary = (
        [*store.parent.glob(f"{glob.escape(store.name)}.*.tmp*")] if store is not None else []
    )
    temporary += (home / "outputs").glob(".*.*")
    for path in temporary:
        pid = re.search(r"\.(\d+)\.", path.name)
        if pid and not processes.runs(int(pid[1])):
            what = f"process {pid[1]} ended before it renamed this temporary file"
            repair = partial(path.unlink, missing_ok=True)
            yield Problem("leftover file", what, str(path), REPAIRS, repair)


def schema_problems(store: Path, found: str | None, expected: str) -> Iterator[Problem]:
    """Yield a problem if the store's schema is not the one that this MLflow works with."""
    if found == expected:
        return
    what = "this file cannot be read as a database of MLflow"
    fix = "restore it from a backup, or move it away: then the next command makes a new store"
    if found is not None:
        what = f"the store's schema is version {found}; this MLflow needs {expected}"
        fix = (
            f"copy {store.name}, then: mlflow db upgrade {shlex.quote(sqlite_uri(store))}; if that "
            "cannot locate the revision, a newer MLflow made the store: install that version"
        )
    yield Problem("incompatible schema", what, str(store), fix)
