"""Find runs in MLflow by the tags that tracking gives them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import mlflow
from mlflow.entities import LoggedModel, Run, ViewType
from mlflow.exceptions import MlflowException

from churnlab.data.dataset import Dataset
from churnlab.errors import InputError
from churnlab.evaluation.metric_names import LOWER_IS_BETTER
from churnlab.tracking.fingerprints import identity_tags
from churnlab.tracking.names import EXPERIMENTS, SAME_QUESTION, Tag
from churnlab.tracking.store import restore

NOT_FOUND = ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST")
"""MLflow's error codes for a run, an alias, a version or a model that does not exist."""

WHERE = "`churnlab compare` lists the train runs of a dataset, the MLflow UI lists all runs."
"""Where a user finds the id of a run."""


def look_up(get: Callable[..., Any], *keys: str) -> Any:
    """Return what MLflow finds under these keys, None if it does not exist."""
    try:
        return get(*keys)
    except MlflowException as error:
        if error.error_code in NOT_FOUND:
            return None
        raise


def find_run(run_id: str) -> Run:
    """Return the run with this id; InputError if there is none or it is deleted."""
    run = look_up(mlflow.get_run, run_id)
    if run is None:
        raise InputError(f"There is no run {run_id} in {mlflow.get_tracking_uri()}. {WHERE}")
    if run.info.lifecycle_stage != "active":
        raise InputError(f"Run {run_id} is deleted; restore it: {restore('run', run_id)}")
    return run


def get_run(run_id: str, *, command: str) -> Run:
    """Return a finished run of this command; InputError if the id is of anything else."""
    run = find_run(run_id)
    if run.data.tags.get(Tag.COMMAND) != command or run.info.status != "FINISHED":
        raise InputError(
            f"Run {run_id} is a {run.info.status} {run.data.tags.get(Tag.COMMAND, 'foreign')} run; "
            f"name a FINISHED {command} run. {WHERE}"
        )
    return run


def find_runs(name: str, tags: Mapping[str, str], *, status: str | None = None) -> list[Run]:
    """Return the runs of an experiment with all of these tags, newest first."""
    experiment = mlflow.MlflowClient().get_experiment_by_name(name)
    return [] if experiment is None else _find_runs(experiment.experiment_id, tags, status=status)


def _find_runs(
    experiment_id: str, tags: Mapping[str, str], *, status: str | None = None
) -> list[Run]:
    conditions = [f"tags.`{key}` = '{value}'" for key, value in tags.items()]
    if status is not None:
        conditions.append(f"attributes.status = '{status}'")
    return pages(
        mlflow.MlflowClient().search_runs,
        experiment_ids=[experiment_id],
        filter_string=" and ".join(conditions),
        order_by=["attributes.start_time DESC"],
    )


def search(condition: str, *, view: int = ViewType.ACTIVE_ONLY) -> list[Run]:
    """Return the runs of all experiments that match an MLflow filter string."""
    client = mlflow.MlflowClient()
    experiments = [experiment.experiment_id for experiment in pages(client.search_experiments)]
    if not experiments:
        return []
    return pages(
        client.search_runs, experiment_ids=experiments, filter_string=condition, run_view_type=view
    )


def logged_models(experiment_ids: Sequence[str]) -> list[LoggedModel]:
    """Return all models that were logged in these experiments, half-written ones too."""
    if not experiment_ids:
        return []
    return pages(mlflow.MlflowClient().search_logged_models, experiment_ids=list(experiment_ids))


def pages(search: Callable[..., Any], **criteria: Any) -> list[Any]:
    """Return all pages of one of MLflow's searches as one list."""
    found: list[Any] = []
    token = None
    while True:
        page = search(**criteria, page_token=token)
        found += page
        token = page.token
        if not token:
            return found


def latest_run(command: str, dataset: Dataset) -> Run | None:
    """Return the newest finished run of a command on this table; None if there is none."""
    tags = {Tag.COMMAND: command, Tag.DATA: dataset.sha256}
    name = f"{dataset.contract.name}-{EXPERIMENTS[command]}"
    return next(iter(find_runs(name, tags, status="FINISHED")), None)


def ranked_train_runs(dataset_name: str, tags: Mapping[str, str], *, metric: str) -> list[Run]:
    """Return the finished train runs on one table, split and folds, best cv_<metric> first.

    Of runs with equal configs only the newest is kept.
    """
    same = {key: tags[key] for key in SAME_QUESTION}
    return _ranked(_train_runs(dataset_name, same), metric=metric)


def train_runs_by_question(dataset_name: str, *, metric: str) -> dict[tuple[str, ...], list[Run]]:
    """Group all finished train runs into comparable ones (equal SAME_QUESTION), newest group first.

    Each group has the order of ``ranked_train_runs``.
    """
    groups: dict[tuple[str, ...], list[Run]] = {}
    for run in _train_runs(dataset_name, {}):
        groups.setdefault(tuple(run.data.tags[key] for key in SAME_QUESTION), []).append(run)
    ranked = {question: _ranked(runs, metric=metric) for question, runs in groups.items()}
    return {question: runs for question, runs in ranked.items() if runs}


def _train_runs(dataset_name: str, tags: Mapping[str, str]) -> list[Run]:
    tags = {Tag.COMMAND: "train"} | dict(tags)
    return find_runs(f"{dataset_name}-{EXPERIMENTS['train']}", tags, status="FINISHED")


def _ranked(newest_first: Sequence[Run], *, metric: str) -> list[Run]:
    """Rank the newest run of each config; runs older than the metric have no rank."""
    key, sign = f"cv_{metric}", 1 if metric in LOWER_IS_BETTER else -1
    known = [run for run in newest_first if key in run.data.metrics]
    newest = {run.data.tags[Tag.CONFIG]: run for run in reversed(known)}
    return sorted(newest.values(), key=lambda run: sign * run.data.metrics[key])


def children(parent: Run, command: str, *, status: str | None = None) -> list[Run]:
    """Return the child runs of one command, newest first."""
    tags = {Tag.COMMAND: command, "mlflow.parentRunId": parent.info.run_id}
    return _find_runs(parent.info.experiment_id, tags, status=status)


def finished_inside(
    parent: Run, command: str, config: Mapping[str, Any], dataset: Dataset
) -> str | None:
    """Return the finished child run with the same config, data and code; None if there is none."""
    same = identity_tags(command, config, data_sha256=dataset.sha256) | {
        "mlflow.parentRunId": parent.info.run_id
    }
    found = _find_runs(parent.info.experiment_id, same, status="FINISHED")
    return found[0].info.run_id if found else None


def finished_in_a_sweep(command: str, config: Mapping[str, Any], dataset: Dataset) -> str | None:
    """Return the finished job of any sweep with the same config, data and code; None if there is
    none."""
    same = identity_tags(command, config, data_sha256=dataset.sha256)
    name = f"{dataset.contract.name}-{EXPERIMENTS[command]}"
    for run in find_runs(name, same, status="FINISHED"):
        parent = run.data.tags.get("mlflow.parentRunId")
        if parent and mlflow.get_run(parent).data.tags.get(Tag.COMMAND) == "sweep":
            return run.info.run_id
    return None


def find_study(dataset_name: str, study: str, study_id: str) -> Run | None:
    """Return the parent run of a study; its id tells it from a deleted study of the same name."""
    tags = {Tag.COMMAND: "tune", Tag.STUDY: study, Tag.STUDY_ID: study_id}
    return next(iter(find_runs(f"{dataset_name}-{EXPERIMENTS['tune']}", tags)), None)


def reproductions(run: Run) -> list[Run]:
    """Return the finished runs that reproduce a run, newest first."""
    return _find_runs(run.info.experiment_id, {Tag.REPRODUCES: run.info.run_id}, status="FINISHED")


def source(run: Run) -> str | None:
    """Return the absolute path or URL of a run's table; None if the run does not record it."""
    inputs = run.inputs.dataset_inputs
    return json.loads(inputs[0].dataset.source).get("uri") if inputs else None
