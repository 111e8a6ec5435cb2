"""How a job becomes an MLflow run, with all that a run carries."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import mlflow
import yaml
from mlflow.entities import Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException

from churnlab.data.dataset import Members
from churnlab.errors import interruption
from churnlab.tracking import processes
from churnlab.tracking.fingerprints import git_tags, identity_tags, packages
from churnlab.tracking.names import EXPERIMENTS, Artifact, Tag
from churnlab.tracking.processes import is_alive
from churnlab.tracking.search import find_runs, logged_models, search
from churnlab.tracking.store import experiment_id

log = logging.getLogger(__name__)

TAGS_OF_A_TRIAL = {Tag.STUDY, "mlflow.user", "mlflow.source.name", "mlflow.source.type"}
"""Tags that a trial's run shares with the study's."""

job_label: ContextVar[str] = ContextVar("job_label", default="")
"""What sets the job of a sweep that is under way apart from the others; part of its run's name."""

reproduces: ContextVar[str] = ContextVar("reproduces", default="")
"""The id of the run that is being run again; the run that does so, not those inside it, tells it as
a tag."""

DATA_REPORT = Artifact.DATA_REPORT


@contextmanager
def reproducing(run_id: str) -> Iterator[None]:
    """The run that is opened inside does the same as an earlier one: its name and a tag say so."""
    label, of = job_label.set("again"), reproduces.set(run_id)
    try:
        yield
    finally:
        job_label.reset(label)
        reproduces.reset(of)


def _circumstances() -> dict[str, str]:
    """With what a run is made, and by which process: of one that died, doctor says so."""
    return git_tags() | {
        Tag.PACKAGES: json.dumps(packages()),
        Tag.PROCESS: processes.process(),
    }


@contextmanager
def start_run(
    command: str,
    config: Mapping[str, Any],
    *,
    name: str,
    dataset: Members | None = None,
    dataset_name: str | None = None,
    tags: Mapping[str, str] | None = None,
    resume: str | None = None,
    growing: Collection[str] = (),
) -> Iterator[Run]:
    """Open a run with everything that design.md says a run carries, and close it truthfully.

    It becomes a child of the run that is open, or of the outer run of ``mlflow run``. An exception
    ends it as FAILED with the message as its note; Ctrl-C and SIGTERM end it as KILLED. ``resume``
    is the id of an earlier run that goes on; the keys that begin as ``growing`` says may change
    when it does: they are tags, for a param never changes.
    """
    called = dataset.contract.name if dataset is not None else dataset_name
    assert called is not None
    scalars = _scalars(config)
    scalars.pop("run_name", None)  # it is the run's name, not one of its differences
    all_tags = (
        identity_tags(command, config, data_sha256=dataset.sha256 if dataset is not None else None)
        | _circumstances()
        | {key: str(scalars.pop(key)) for key in list(scalars) if key.startswith(tuple(growing))}
        | dict(tags or {})
    )
    if reproduces.get() and mlflow.active_run() is None:
        all_tags[Tag.REPRODUCES] = reproduces.get()
    with _closing():
        if resume is not None:
            run = mlflow.start_run(run_id=resume, nested=True)
            mlflow.set_tags(all_tags)
        else:
            run = mlflow.start_run(
                experiment_id=experiment_id(f"{called}-{EXPERIMENTS[command]}"),
                run_name=config.get("run_name") or f"{name} {job_label.get()}".strip(),
                nested=True,
                parent_run_id=_parent_run_id(),
                tags=all_tags,
            )
        mlflow.log_params(
            {key: value for key, value in scalars.items() if key not in run.data.params}
        )
        ordered = yaml.safe_dump(
            json.loads(json.dumps(config)), sort_keys=False, allow_unicode=True
        )
        mlflow.log_text(ordered, Artifact.CONFIG)  # the order of the columns decides the result
        if dataset is not None:
            _log_table(dataset, run)
        warned = len(dataset.warnings) if dataset is not None else 0
        yield run
        if dataset is not None and len(dataset.warnings) > warned:
            mlflow.log_dict(dataset.report(), DATA_REPORT)


def _log_table(dataset: Members, run: Run) -> None:
    """Log what was found in the table, and the table as the run's input."""
    mlflow.log_dict(dataset.report(), DATA_REPORT)
    if run.inputs.dataset_inputs:
        return
    source = dataset.source if "://" in dataset.source else str(Path(dataset.source).absolute())
    frame, target = dataset.frame, dataset.contract.target
    known = target if target in frame else None
    shown = mlflow.data.from_pandas(frame, source=source, name=dataset.contract.name, targets=known)
    mlflow.log_input(shown, context="training" if known else "inference")


@contextmanager
def _closing() -> Iterator[None]:
    """End the run that is opened inside by what happened to it."""
    outer = mlflow.active_run()
    try:
        yield
    except BaseException as error:
        if run_id := _opened_since(outer):
            stopped = interruption(error)
            error.run_id = run_id  # type: ignore[attr-defined]  # where it is recorded
            with suppress(MlflowException):  # the store may be what has failed
                if not stopped:
                    mlflow.set_tag("mlflow.note.content", str(error) or type(error).__name__)
            with suppress(MlflowException):
                mlflow.end_run("KILLED" if stopped else "FAILED")
        raise
    mlflow.end_run("FINISHED")


def _opened_since(outer: Run | None) -> str | None:
    """The id of the run that is open inside the outer one."""
    run = mlflow.active_run()
    if run is None or (outer is not None and outer.info.run_id == run.info.run_id):
        return None
    return run.info.run_id


def log_metrics(metrics: Mapping[str, float], *, step: int | None = None) -> None:
    """Log metrics, leaving out those that do not exist here (NaN)."""
    mlflow.log_metrics({key: value for key, value in metrics.items() if value == value}, step=step)


def take_outer_run() -> None:
    """Remember the run that ``mlflow run`` opened around this process and make it the parent of
    ours.

    MLflow would resume it instead, in an experiment and an artifact folder of its own.
    """
    outer = os.environ.pop("MLFLOW_RUN_ID", None)
    os.environ.pop("MLFLOW_EXPERIMENT_ID", None)
    os.environ.pop("MLFLOW_EXPERIMENT_NAME", None)
    if outer:
        os.environ["CHURNLAB_OUTER_RUN_ID"] = outer


def _parent_run_id() -> str | None:
    active = mlflow.active_run()
    return active.info.run_id if active else os.environ.get("CHURNLAB_OUTER_RUN_ID")


def create_trial(parent: Run, number: int, params: Mapping[str, Any]) -> str:
    """Open the run of one trial of the study whose run is ``parent``; returns its id.

    Its params come with its scores or its end: three calls a trial are what MLflow costs at least.
    Until then its description tells them.
    """
    tags = {key: value for key, value in parent.data.tags.items() if key in TAGS_OF_A_TRIAL}
    tags |= {
        Tag.COMMAND: "trial",
        Tag.TRIAL: str(number),
        "mlflow.parentRunId": parent.info.run_id,
    }
    tags["mlflow.note.content"] = ", ".join(f"{key}={value}" for key, value in params.items())
    run = mlflow.MlflowClient().create_run(
        parent.info.experiment_id, tags=tags, run_name=f"trial {number}"
    )
    return run.info.run_id


def log_trial(
    run_id: str,
    metrics: Mapping[str, float],
    *,
    params: Mapping[str, Any],
    per_fold: Mapping[str, Sequence[float]],
    reused_from: str | None,
) -> None:
    """Log a trial's params and scores in one go: ``per_fold`` as steps, and the run that had the
    scores before."""
    now = int(time.time() * 1000)
    logged = [Metric(key, value, now, 0) for key, value in metrics.items()]
    logged += [
        Metric(key, value, now, step)
        for key, values in per_fold.items()
        for step, value in enumerate(values)
    ]
    tags = [] if reused_from is None else [RunTag(Tag.REUSED_FROM, reused_from)]
    known = [metric for metric in logged if metric.value == metric.value]
    mlflow.MlflowClient().log_batch(run_id, params=_params(params), metrics=known, tags=tags)


def end_trial(
    run_id: str, status: str, *, params: Mapping[str, Any] | None = None, note: str | None = None
) -> None:
    """End a trial's run as FINISHED, FAILED or KILLED; ``params`` and ``note`` are what is still to
    be said of it."""
    client = mlflow.MlflowClient()
    if params or note:
        tags = [] if note is None else [RunTag("mlflow.note.content", note)]
        client.log_batch(run_id, params=_params(params or {}), tags=tags)
    client.set_terminated(run_id, status)


def _params(params: Mapping[str, Any]) -> list[Param]:
    return [Param(key, str(value)) for key, value in params.items()]


def open_sweep(
    command: str, words: Sequence[str], *, dataset_name: str, data_sha256: str | None = None
) -> None:
    """Open the parent run of a sweep unless it is open: the one of the same sweep on the same data,
    or a new one."""
    if mlflow.active_run():
        return
    name = f"{dataset_name}-{EXPERIMENTS[command]}"
    tags = identity_tags(
        "sweep", {"command": command, "sweep": sorted(words)}, data_sha256=data_sha256
    )
    found = find_runs(name, tags)
    earlier = [run for run in found if run.data.tags.get(Tag.DATA) == data_sha256]
    if earlier:
        _end_what_died_with(earlier[0])
        mlflow.start_run(run_id=earlier[0].info.run_id)
        mlflow.set_tags(_circumstances())
        return
    mlflow.start_run(
        experiment_id=experiment_id(name),
        run_name=f"sweep: {_label(words)}"[:250],
        parent_run_id=_parent_run_id(),
        tags=tags | _circumstances(),
    )
    mlflow.log_params({"command": command, "sweep": " ".join(words)})


def _end_what_died_with(parent: Run) -> None:
    """End as KILLED what the process that held a sweep left open when it was killed: its jobs, not
    the sweep itself."""
    process = parent.data.tags.get(Tag.PROCESS, "")
    if parent.info.status != "RUNNING" or not process or is_alive(process) is not False:
        return
    left = search(f"attributes.status = 'RUNNING' and tags.`{Tag.PROCESS}` = '{process}'")
    end_dead([run for run in left if run.info.run_id != parent.info.run_id])
    log.info(
        "The last start of this sweep was killed; what it was at work on is KILLED and done again."
    )


def end_dead(runs: Sequence[Run]) -> None:
    """End runs whose process is dead as KILLED, what is inside first, and the models it was writing
    as FAILED.

    A run that somebody has taken up in the meantime is left alone.
    """
    client, ids = mlflow.MlflowClient(), {run.info.run_id for run in runs}
    for model in logged_models(sorted({run.info.experiment_id for run in runs})):
        if model.status == "PENDING" and model.source_run_id in ids:
            client.finalize_logged_model(model.model_id, "FAILED")
    for run in sorted(runs, key=lambda run: run.info.start_time, reverse=True):
        now = client.get_run(run.info.run_id)
        same = now.data.tags.get(Tag.PROCESS) == run.data.tags.get(Tag.PROCESS)
        if now.info.status == "RUNNING" and same:
            client.set_terminated(run.info.run_id, "KILLED")


def _label(words: Sequence[str]) -> str:
    """A sweep's name: its experiment, or what it varies."""
    named = [word.partition("=")[2] for word in words if word.startswith("experiment=")]
    return " ".join(named or [word for word in words if "," in word] or words)


def close_sweep(status: str, *, note: str) -> str | None:
    """End the parent run of a sweep; returns its id, None when there was none to open."""
    run = mlflow.active_run()
    if run is None:
        return None
    mlflow.set_tag("mlflow.note.content", note)
    mlflow.end_run(status)
    return run.info.run_id


def record_failure(
    command: str, config: Mapping[str, Any], error: Exception, *, dataset_name: str
) -> None:
    """Give a job that failed before its run was opened a FAILED run with the message as its note."""
    with (
        suppress(type(error)),
        start_run(command, config, name=f"{command} failed", dataset_name=dataset_name),
    ):
        raise error


def log_reproduction(run: Run, answer: Mapping[str, Any]) -> None:
    """Keep in a finished run how it compares with the run that it was to reproduce."""
    client, run_id = mlflow.MlflowClient(), run.info.run_id
    client.log_dict(run_id, dict(answer), Artifact.REPRODUCTION)
    client.set_tag(run_id, Tag.IDENTICAL, str(answer["identical"]).lower())


def _scalars(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The config's plain values by dotted key; columns of the dataset and claims are in config.yaml
    only."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            if f"{prefix}{key}" not in ("dataset.columns", "claims.statements"):
                flat |= _scalars(value, f"{prefix}{key}.")
        elif not isinstance(value, list | tuple):
            flat[f"{prefix}{key}"] = value
    return flat
