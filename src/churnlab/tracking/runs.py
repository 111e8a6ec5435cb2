"""Open, fill and end the MLflow runs of jobs, trials and sweeps."""

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
from mlflow.tracking.fluent import _active_run_stack

from churnlab.data.dataset import Members
from churnlab.tracking import processes
from churnlab.tracking.fingerprints import git_tags, identity_tags, packages
from churnlab.tracking.names import EXPERIMENTS, Artifact, Tag
from churnlab.tracking.processes import finish_first
from churnlab.tracking.search import logged_models
from churnlab.tracking.server import wait_no_longer
from churnlab.tracking.store import experiment_id

log = logging.getLogger(__name__)

TRIAL_TAGS = {Tag.STUDY, "mlflow.user", "mlflow.source.name", "mlflow.source.type"}
"""Tags that a trial's run takes over from its study's run."""

job_label: ContextVar[str] = ContextVar("job_label", default="")
"""What distinguishes the current job of a sweep from the others; part of its run's name."""

reproduces: ContextVar[str] = ContextVar("reproduces", default="")
"""The id of the run that is being reproduced; a tag of the new run, not of the runs inside it."""


@contextmanager
def reproducing(run_id: str) -> Iterator[None]:
    """Mark the run that is opened inside as a reproduction, in its name and in a tag."""
    label, original = job_label.set("reproduced"), reproduces.set(run_id)
    try:
        yield
    finally:
        job_label.reset(label)
        reproduces.reset(original)


def environment_tags() -> dict[str, str]:
    """Return the commit, the packages and this process, by which doctor finds runs of dead ones."""
    return git_tags() | {Tag.PACKAGES: json.dumps(packages()), Tag.PROCESS: processes.process()}


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
    """Open a run with everything that design.md says a run carries, and end it with its outcome.

    It becomes a child of the run that is open, or of the outer run of ``mlflow run``. An exception
    ends it as FAILED with the message as its note; Ctrl-C and SIGTERM end it as KILLED. ``resume``
    is the id of an earlier run to continue; keys that start with one of ``growing`` may then have
    changed, so they are logged as tags: MLflow does not let a param change.
    """
    scalars = _scalars(config)
    scalars.pop("run_name", None)  # it is the run's name, not one of its differences
    all_tags = (
        identity_tags(command, config, data_sha256=dataset.sha256 if dataset is not None else None)
        | environment_tags()
        | {key: str(scalars.pop(key)) for key in list(scalars) if key.startswith(tuple(growing))}
        | dict(tags or {})
    )
    all_tags |= {Tag.REPRODUCES: original} if (original := reproduces.get()) else {}
    with _closing():
        if resume is not None:
            with finish_first():
                run = mlflow.start_run(run_id=resume, nested=True)
            mlflow.set_tags(all_tags)
        else:
            prefix = dataset_name if dataset is None else dataset.contract.name
            place = experiment_id(f"{prefix}-{EXPERIMENTS[command]}")
            with finish_first():
                run = mlflow.start_run(
                    experiment_id=place,
                    run_name=config.get("run_name") or f"{name} {job_label.get()}".strip(),
                    nested=True,
                    parent_run_id=parent_run_id(),
                    tags=all_tags,
                )
        _log_config(config, {key: scalars[key] for key in scalars if key not in run.data.params})
        if dataset is None:
            yield run
            return
        _log_table(dataset, run)
        warned = len(dataset.warnings)
        yield run
        if len(dataset.warnings) > warned:
            mlflow.log_dict(dataset.report(), Artifact.DATA_REPORT)


def _log_config(config: Mapping[str, Any], params: Mapping[str, Any]) -> None:
    """Log the config as params and, in its own order (that of columns decides results), as YAML."""
    mlflow.log_params(dict(params))
    plain = json.loads(json.dumps(config))
    mlflow.log_text(yaml.safe_dump(plain, sort_keys=False, allow_unicode=True), Artifact.CONFIG)


def _log_table(dataset: Members, run: Run) -> None:
    """Log the report on the table, and the table as the run's input."""
    mlflow.log_dict(dataset.report(), Artifact.DATA_REPORT)
    if run.inputs.dataset_inputs:
        return
    source = dataset.source if "://" in dataset.source else str(Path(dataset.source).absolute())
    frame, name, target = dataset.frame, dataset.contract.name, dataset.contract.target
    known = target if target in frame else None
    table = mlflow.data.from_pandas(frame, source=source, name=name, targets=known)
    context = "training" if known else "inference"
    try:
        mlflow.log_input(table, context=context)
    except MlflowException as error:
        # Runs that log one table at the same moment all find it new, and one of them writes it.
        if "unique" not in str(error).casefold():
            raise
        mlflow.log_input(table, context=context)


@contextmanager
def _closing() -> Iterator[None]:
    """End the run that is opened inside: FINISHED, FAILED or KILLED."""
    outer = mlflow.active_run()
    try:
        yield
    except BaseException as error:
        if _opened_since(outer):
            end_unfinished(error)
        raise
    if _opened_since(outer):
        with finish_first():
            mlflow.end_run("FINISHED")


def end_unfinished(error: BaseException) -> None:
    """End the open run as KILLED after a signal, else as FAILED with the error as its note."""
    wait_no_longer(error)
    stopped, run = processes.interruption(error), mlflow.active_run()
    error.run_id = run.info.run_id  # type: ignore[attr-defined]  # where it is recorded
    with suppress(MlflowException):  # the store itself may have failed
        if not stopped:
            mlflow.set_tag("mlflow.note.content", str(error) or type(error).__name__)
    with suppress(MlflowException), finish_first():
        mlflow.end_run("KILLED" if stopped else "FAILED")


def leave_open(error: BaseException) -> None:
    """Leave the open run RUNNING for other machines that work on it, when an error ends this one's
    part."""
    run = mlflow.active_run()
    error.run_id = run and run.info.run_id  # type: ignore[attr-defined]
    _active_run_stack.get().pop()


def _opened_since(outer: Run | None) -> bool:
    """Return whether a run is open inside the outer one."""
    run = mlflow.active_run()
    return run is not None and (outer is None or outer.info.run_id != run.info.run_id)


def log_metrics(
    metrics: Mapping[str, float], *, step: int = 0, model_id: str | None = None
) -> None:
    """Log metrics; leave out those that are undefined (NaN).

    With ``model_id`` they are also that model's, on the table that the run has as its input.
    """
    run, now = mlflow.active_run(), int(time.time() * 1000)
    assert run is not None
    of_model = {} if model_id is None else {"model_id": model_id} | _input(run.info.run_id)
    logged = [
        Metric(name, value, now, step, **of_model)
        for name, value in metrics.items()
        if value == value
    ]
    mlflow.MlflowClient().log_batch(run.info.run_id, metrics=logged)


def _input(run_id: str) -> dict[str, str]:
    """Return by what a metric names the table of a run."""
    tables = [used.dataset for used in mlflow.get_run(run_id).inputs.dataset_inputs]
    return {"dataset_name": tables[0].name, "dataset_digest": tables[0].digest} if tables else {}


def log_steps(series: Mapping[str, Sequence[float]], *, first: int = 0) -> None:
    """Log series of values, each as the steps of one metric, counted from ``first``."""
    run = mlflow.active_run()
    assert run is not None
    mlflow.MlflowClient().log_batch(run.info.run_id, metrics=_steps(series, first=first))


def _steps(series: Mapping[str, Sequence[float]], *, first: int = 0) -> list[Metric]:
    """Return each value with its place as the step; undefined ones (NaN) are left out."""
    now = int(time.time() * 1000)
    return [
        Metric(name, value, now, step)
        for name, values in series.items()
        for step, value in enumerate(values, first)
        if value == value
    ]


def take_outer_run() -> None:
    """Make the run that ``mlflow run`` opened around this process the parent of ours.

    MLflow would resume it instead, in an experiment and an artifact folder of its own.
    """
    outer = os.environ.pop("MLFLOW_RUN_ID", None)
    os.environ.pop("MLFLOW_EXPERIMENT_ID", None)
    os.environ.pop("MLFLOW_EXPERIMENT_NAME", None)
    if outer:
        os.environ["CHURNLAB_OUTER_RUN_ID"] = outer


def parent_run_id() -> str | None:
    active = mlflow.active_run()
    return active.info.run_id if active else os.environ.get("CHURNLAB_OUTER_RUN_ID")


def create_trial(parent: Run, number: int, params: Mapping[str, Any]) -> str:
    """Open the run of one trial inside its study's run ``parent``; return its id.

    Params are logged with the scores or at the end, to keep MLflow at three calls per trial. Until
    then they are in the description.
    """
    tags = {key: value for key, value in parent.data.tags.items() if key in TRIAL_TAGS}
    tags |= {Tag.COMMAND: "trial", Tag.TRIAL: str(number), "mlflow.parentRunId": parent.info.run_id}
    tags["mlflow.note.content"] = ", ".join(f"{key}={value}" for key, value in params.items())
    run = mlflow.MlflowClient().create_run(
        parent.info.experiment_id, tags=tags, run_name=f"trial {number}"
    )
    return run.info.run_id


def log_trial(
    run_id: str, params: Mapping[str, Any], scores: Mapping[str, Any], *, reused_from: str | None
) -> None:
    """Log a trial's params and scores in one call: ``metrics``, and ``per_fold`` as steps."""
    series = {key: [value] for key, value in scores["metrics"].items()} | scores["per_fold"]
    tags = [] if reused_from is None else [RunTag(Tag.REUSED_FROM, reused_from)]
    logged = {"params": _params(params), "metrics": _steps(series), "tags": tags}
    mlflow.MlflowClient().log_batch(run_id, **logged)


def end_trial(
    run_id: str, status: str, *, params: Mapping[str, Any] | None = None, note: str | None = None
) -> None:
    """Log ``params`` and ``note``, then end a trial's run as FINISHED, FAILED or KILLED."""
    client = mlflow.MlflowClient()
    if params or note:
        tags = [] if note is None else [RunTag("mlflow.note.content", note)]
        client.log_batch(run_id, params=_params(params or {}), tags=tags)
    client.set_terminated(run_id, status)


def _params(params: Mapping[str, Any]) -> list[Param]:
    return [Param(key, str(value)) for key, value in params.items()]


def end_dead(runs: Sequence[Run]) -> None:
    """End runs of a dead process as KILLED, children first, and its half-written models as FAILED.

    A run that another process has resumed in the meantime is left alone.
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


def log_reproduction(run: Run, answer: Mapping[str, Any]) -> None:
    """Log in a finished run how it compares with the run that it reproduces."""
    client, run_id = mlflow.MlflowClient(), run.info.run_id
    client.log_dict(run_id, dict(answer), Artifact.REPRODUCTION)
    client.set_tag(run_id, Tag.IDENTICAL, str(answer["identical"]).lower())


UNFLATTENED = ("dataset.columns", "dataset.rename", "claims.statements")
"""Blocks whose keys are names of the user, which may be no names of MLflow's params."""


def _scalars(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten plain values to dotted keys; columns, their names in a file, and claims are in
    config.yaml only."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            if f"{prefix}{key}" not in UNFLATTENED:
                flat |= _scalars(value, f"{prefix}{key}.")
        elif not isinstance(value, list | tuple):
            flat[f"{prefix}{key}"] = value
    return flat
