"""Find runs in MLflow by the tags that tracking gives them."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import fields
from typing import Any

import mlflow
from mlflow.entities import LoggedModel, Run, ViewType
from mlflow.exceptions import MlflowException

from churnlab.data.dataset import Dataset
from churnlab.errors import InputError
from churnlab.evaluation.metric_names import LOWER_IS_BETTER, METRICS
from churnlab.formatting import counted, listed
from churnlab.models.decision import COSTS, ContactEconomics
from churnlab.tracking.artifacts import check_intact, intact
from churnlab.tracking.fingerprints import identity_tags
from churnlab.tracking.names import EXPERIMENTS, SAME_QUESTION, Tag
from churnlab.tracking.store import restore

log = logging.getLogger(__name__)

NOT_FOUND = ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST")
"""MLflow's error codes for a run, an alias, a version or a model that does not exist."""

SHORTEST = 4
"""The fewest characters of a run's id that may stand for it."""

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
    """Return the run with this id, or the only one whose id starts so, as in git.

    InputError: there is none, there are several, or it is deleted.
    """
    run = look_up(mlflow.get_run, run_id) or _run_by_prefix(run_id)
    if run is None:
        raise InputError(f"There is no run {run_id} in {mlflow.get_tracking_uri()}. {WHERE}")
    if run.info.lifecycle_stage != "active":
        deleted = run.info.run_id
        raise InputError(f"Run {deleted} is deleted; restore it: {restore('run', deleted)}")
    return run


def _run_by_prefix(start: str) -> Run | None:
    """Return the only run whose id starts so; None if there is none or the start is too short."""
    if re.fullmatch(f"[0-9a-f]{{{SHORTEST},31}}", start) is None:
        return None
    found = search(f"attributes.run_id LIKE '{start}%'", view=ViewType.ALL)
    if len(found) > 1:
        raise InputError(
            f"{counted(len(found), 'run')} start with {start}: "
            f"{listed([run.info.run_id for run in found])}. Give more characters of the id."
        )
    return found[0] if found else None


def get_run(run_id: str, *, command: str) -> Run:
    """Return a finished run of this command; InputError if the id is of anything else."""
    run = find_run(run_id)
    if run.data.tags.get(Tag.COMMAND) != command or run.info.status != "FINISHED":
        kind = f"{run.info.status} {run.data.tags.get(Tag.COMMAND, 'foreign')}"
        raise InputError(
            f"Run {run.info.run_id} is a {kind} run; name a FINISHED {command} run. {WHERE}"
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
    """Return the newest finished run of a command on this table; None if there is none.

    A run that has lost files is left out, with a warning.
    """
    tags = {Tag.COMMAND: command, Tag.DATA: dataset.sha256}
    name = f"{dataset.contract.name}-{EXPERIMENTS[command]}"
    return next(iter(_usable(find_runs(name, tags, status="FINISHED"))), None)


def ranked_train_runs(dataset_name: str, tags: Mapping[str, str], *, metric: str) -> list[Run]:
    """Return the finished train runs on one table, split and folds, best cv_<metric> first.

    Of runs with equal configs only the newest is kept. A run that has lost files is left out, with
    a warning.
    """
    same = {key: tags[key] for key in SAME_QUESTION}
    ranked = _ranked(_train_runs(dataset_name, same), metric=metric)
    _check_known(metric, ranked)
    return ranked


def train_runs_by_question(dataset_name: str, *, metric: str) -> dict[tuple[str, ...], list[Run]]:
    """Group all finished train runs into comparable ones (equal SAME_QUESTION), newest group first.

    Each group has the order of ``ranked_train_runs``.
    """
    groups: dict[tuple[str, ...], list[Run]] = {}
    for run in _train_runs(dataset_name, {}):
        groups.setdefault(tuple(run.data.tags[key] for key in SAME_QUESTION), []).append(run)
    ranked = {question: _ranked(runs, metric=metric) for question, runs in groups.items()}
    found = {question: runs for question, runs in ranked.items() if runs}
    _check_known(metric, found)
    return found


def _train_runs(dataset_name: str, tags: Mapping[str, str]) -> list[Run]:
    tags = {Tag.COMMAND: "train"} | dict(tags)
    found = find_runs(f"{dataset_name}-{EXPERIMENTS['train']}", tags, status="FINISHED")
    return _usable(found)


def _usable(runs: Sequence[Run]) -> list[Run]:
    """Leave out runs that have lost files, and copies by churnlab reproduce of a run, or of the
    study around a run, that is here: a copy stands for an original that is lost or deleted."""
    kept = list(intact(runs))
    here = {run.info.run_id for run in kept}
    here |= {run.data.tags.get("mlflow.parentRunId", "") for run in kept}
    return [run for run in kept if run.data.tags.get(Tag.REPRODUCES) not in here]


def _ranked(newest_first: Sequence[Run], *, metric: str) -> list[Run]:
    """Rank the newest run of each config; runs older than the metric have no rank.

    Of an amount of money only the runs with the costs of the newest are ranked.
    """
    key, sign = f"cv_{metric}", 1 if metric in LOWER_IS_BETTER else -1
    known = [run for run in newest_first if key in run.data.metrics]
    if METRICS[metric].needs_costs:
        known = _of_equal_costs(known, metric=metric)
    newest = {run.data.tags[Tag.CONFIG]: run for run in reversed(known)}
    return sorted(newest.values(), key=lambda run: sign * run.data.metrics[key])


def _of_equal_costs(newest_first: Sequence[Run], *, metric: str) -> list[Run]:
    """Return the runs with the costs of the newest, and say how many others there are."""
    alike = [run for run in newest_first if costs_of(run) == costs_of(newest_first[0])]
    if others := len(newest_first) - len(alike):
        log.info(
            "Not ranked by %s: %s whose decision has other costs than the newest run, %s.",
            metric,
            counted(others, "run"),
            newest_first[0].info.run_name,
        )
    return alike


def costs_of(run: Run) -> ContactEconomics | None:
    """Return the costs of a contact in the decision of a train run; None if it has none."""
    names = [field.name for field in fields(ContactEconomics)]
    given = [run.data.params.get(f"decision.{name}") for name in names]
    numbers = [float(number) for number in given if number is not None]
    return ContactEconomics(*numbers) if len(numbers) == len(names) else None


def check_costs(metric: str, *runs: Run) -> None:
    """Refuse a metric of money for runs whose decision has no costs."""
    for run in runs:
        if METRICS[metric].needs_costs and costs_of(run) is None:
            name = f"{run.info.run_name} ({run.info.run_id})"
            raise _without_costs(f"The run {name} does not have {metric}", metric)


def _check_known(metric: str, runs: Collection[Any]) -> None:
    """Refuse a metric of money where no run has it."""
    if METRICS[metric].needs_costs and not runs:
        raise _without_costs(f"No finished train run here has {metric}", metric)


def _without_costs(what: str, metric: str) -> InputError:
    return InputError(
        f"{what}: it needs a decision with the costs of a contact. Train again with your own "
        f"numbers: churnlab train metric={metric} {COSTS}"
    )


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
    found = next(intact(_find_runs(parent.info.experiment_id, same, status="FINISHED")), None)
    return found and found.info.run_id


def finished_in_a_sweep(command: str, config: Mapping[str, Any], dataset: Dataset) -> str | None:
    """Return the finished job of any sweep with the same config, data and code; None if there is
    none."""
    same = identity_tags(command, config, data_sha256=dataset.sha256)
    name = f"{dataset.contract.name}-{EXPERIMENTS[command]}"
    for run in intact(find_runs(name, same, status="FINISHED")):
        parent = run.data.tags.get("mlflow.parentRunId")
        if parent and mlflow.get_run(parent).data.tags.get(Tag.COMMAND) == "sweep":
            return run.info.run_id
    return None


def find_study(dataset_name: str, study: str, study_id: str) -> Run | None:
    """Return the parent run of a study; its id tells it from a deleted study of the same name."""
    tags = {Tag.COMMAND: "tune", Tag.STUDY: study, Tag.STUDY_ID: study_id}
    return next(iter(find_runs(f"{dataset_name}-{EXPERIMENTS['tune']}", tags)), None)


def reproductions(run: Run) -> list[Run]:
    """Return the finished runs of the same command that reproduce a run, newest first."""
    same = {Tag.REPRODUCES: run.info.run_id, Tag.COMMAND: run.data.tags[Tag.COMMAND]}
    return _find_runs(run.info.experiment_id, same, status="FINISHED")


def source(run: Run) -> str | None:
    """Return the absolute path or URL of a run's table; None if the run does not record it."""
    inputs = run.inputs.dataset_inputs
    return json.loads(inputs[0].dataset.source).get("uri") if inputs else None


def run_on_table(run_id: str, command: str, dataset: Dataset) -> Run:
    """Return a run by its id. InputError: it did not use this table."""
    found = get_run(run_id, command=command)
    check_intact(found)
    if found.data.tags[Tag.DATA] != dataset.sha256:
        raise InputError(
            f"The {command} run {run_id} used another table than {dataset.source} as it is now; "
            "give its own table with dataset= and dataset.path= (or dataset.rows=), or another run."
        )
    return found


def is_same(run: Run, other: Run) -> bool:
    """Return whether two runs are one, or have the same config and table."""
    tags, others = run.data.tags, other.data.tags
    known = all(tag in tags for tag in (Tag.CONFIG, Tag.DATA))
    same = known and all(tags[tag] == others.get(tag) for tag in (Tag.CONFIG, Tag.DATA))
    return same or run.info.run_id == other.info.run_id
