"""How a job becomes an MLflow run: the one place that names experiments and tags."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import subprocess
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from functools import cache
from pathlib import Path
from typing import Any

import mlflow
import yaml
from mlflow.entities import LoggedModel, Metric, Param, Run, RunTag, ViewType
from mlflow.exceptions import MlflowException

from churnlab import environment
from churnlab.data import Dataset, Members
from churnlab.errors import InputError, Terminated
from churnlab.evaluation import LOWER_IS_BETTER
from churnlab.store import experiment_id

log = logging.getLogger(__name__)

EXPERIMENTS = {
    "explore": "explore",
    "train": "churn",
    "tune": "churn",
    "trial": "churn",
    "claims": "explore",
    "compare": "churn",
    "segment": "segments",
    "promote": "promotions",
    "rollback": "promotions",
    "history": "promotions",
    "score": "promotions",
    "report": "promotions",
    "pipeline": "churn",
}
"""The experiment of a command's runs is <dataset.name>-<this>; a sweep's parent is beside its jobs."""

TAGS_OF_A_TRIAL = {"churnlab.study", "mlflow.user", "mlflow.source.name", "mlflow.source.type"}
"""Tags that a trial's run shares with the study's."""

job_label: ContextVar[str] = ContextVar("job_label", default="")
"""What sets the job of a sweep that is under way apart from the others; part of its run's name."""

reproduces: ContextVar[str] = ContextVar("reproduces", default="")
"""The id of the run that is being run again; the run that does so, not those inside it, tells it as a tag."""

DATA_REPORT = "data_report.json"

SAME_QUESTION = ("churnlab.data_sha256", "churnlab.split_sha256")
"""Tags that two train runs must share to be compared."""

NOT_DECIDING = {"tracking", "engine", "storage", "run_name", "force", "dry_run", "reason", "input", "output"}
"""Keys that do not decide a result and are no part of its config_sha256 (nor is any path)."""

HOW_IT_IS_WRITTEN = {"path", "encoding", "rename"}
"""Keys of a dataset that say where and how its table is written, not what it holds."""


def config_sha256(command: str, config: Mapping[str, Any]) -> str:
    """Fingerprint what decides a result: the command and its deciding keys."""
    return hashlib.sha256(json.dumps([command, deciding(config)], sort_keys=True).encode()).hexdigest()


def deciding(config: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of a config that decide a result: all but paths, engines and names of runs."""
    kept = {key: value for key, value in config.items() if key not in NOT_DECIDING}
    if kept.get("dataset"):
        kept["dataset"] = {key: value for key, value in kept["dataset"].items() if key not in HOW_IT_IS_WRITTEN}
    return kept


@cache
def code_sha256() -> str:
    """Fingerprint the installed package: every file of it but what Python compiles."""
    digest = hashlib.sha256()
    package = Path(__file__).parent
    for path in sorted(path for path in package.rglob("*.*") if path.parent.name != "__pycache__"):
        digest.update(path.relative_to(package).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


@contextmanager
def reproducing(run_id: str) -> Iterator[None]:
    """The run that is opened inside does the same as an earlier one: its name and a tag say so."""
    label, of = job_label.set("again"), reproduces.set(run_id)
    try:
        yield
    finally:
        job_label.reset(label)
        reproduces.reset(of)


@cache
def git_tags() -> dict[str, str]:
    """The commit the code stands at and whether it was changed since; nothing outside a checkout."""
    asked = ["git", "-C", str(Path(__file__).parent)]
    try:
        commit = subprocess.run([*asked, "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
        status = subprocess.run([*asked, "status", "--porcelain"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return {}
    return {"churnlab.git_commit": commit.stdout.strip(), "churnlab.git_dirty": str(bool(status.stdout)).lower()}


def _circumstances() -> dict[str, str]:
    """With what a run is made, and by which process: of one that died, doctor says so."""
    packages = json.dumps(environment.packages())
    return git_tags() | {"churnlab.packages": packages, "churnlab.process": environment.process()}


def identity_tags(command: str, config: Mapping[str, Any], *, data_sha256: str | None = None) -> dict[str, str]:
    """The tags by which runs of the same thing find each other: command, config, code and data."""
    tags = {
        "churnlab.command": command,
        "churnlab.config_sha256": config_sha256(command, config),
        "churnlab.code_sha256": code_sha256(),
    }
    return tags if data_sha256 is None else tags | {"churnlab.data_sha256": data_sha256}


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

    It becomes a child of the run that is open, or of the outer run of ``mlflow run``. An exception ends it as
    FAILED with the message as its note; Ctrl-C and SIGTERM end it as KILLED. ``resume`` is the id of an earlier run
    that goes on; the keys that begin as ``growing`` says may change when it does: they are tags, for a param never
    changes.
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
        all_tags["churnlab.reproduces"] = reproduces.get()
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
        mlflow.log_params({key: value for key, value in scalars.items() if key not in run.data.params})
        ordered = yaml.safe_dump(json.loads(json.dumps(config)), sort_keys=False, allow_unicode=True)
        mlflow.log_text(ordered, "config.yaml")  # the order of the columns decides the result
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
    except (KeyboardInterrupt, Terminated):
        if _opened_since(outer):
            mlflow.end_run("KILLED")
        raise
    except BaseException as error:
        if run_id := _opened_since(outer):
            error.run_id = run_id  # type: ignore[attr-defined]  # where it is recorded
            with suppress(MlflowException):  # the store may be what has failed
                mlflow.set_tag("mlflow.note.content", str(error) or type(error).__name__)
            with suppress(MlflowException):
                mlflow.end_run("FAILED")
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
    """Remember the run that ``mlflow run`` opened around this process and make it the parent of ours.

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


def find_study(dataset_name: str, study: str, study_id: str) -> Run | None:
    """The parent run of a study that was begun earlier; of two studies of one name the id tells which."""
    tags = {"churnlab.command": "tune", "churnlab.study": study, "churnlab.study_id": study_id}
    found = find_runs(f"{dataset_name}-{EXPERIMENTS['tune']}", tags)
    return found[0] if found else None


def children(parent: Run, command: str, *, status: str | None = None) -> list[Run]:
    """The runs of one command inside another, newest first."""
    tags = {"churnlab.command": command, "mlflow.parentRunId": parent.info.run_id}
    return _find_runs(parent.info.experiment_id, tags, status=status)


def finished_inside(parent: Run, command: str, config: Mapping[str, Any], dataset: Dataset) -> str | None:
    """The run inside another in which the same was done with the same config, data and code."""
    same = identity_tags(command, config, data_sha256=dataset.sha256) | {"mlflow.parentRunId": parent.info.run_id}
    found = _find_runs(parent.info.experiment_id, same, status="FINISHED")
    return found[0].info.run_id if found else None


def create_trial(parent: Run, number: int, params: Mapping[str, Any]) -> str:
    """Open the run of one trial of the study whose run is ``parent``; returns its id.

    Its params come with its scores or its end: three calls a trial are what MLflow costs at least. Until then its
    description tells them.
    """
    tags = {key: value for key, value in parent.data.tags.items() if key in TAGS_OF_A_TRIAL}
    tags |= {"churnlab.command": "trial", "churnlab.trial": str(number), "mlflow.parentRunId": parent.info.run_id}
    tags["mlflow.note.content"] = ", ".join(f"{key}={value}" for key, value in params.items())
    run = mlflow.MlflowClient().create_run(parent.info.experiment_id, tags=tags, run_name=f"trial {number}")
    return run.info.run_id


def log_trial(
    run_id: str,
    metrics: Mapping[str, float],
    *,
    params: Mapping[str, Any],
    per_fold: Mapping[str, Sequence[float]],
    reused_from: str | None,
) -> None:
    """Log a trial's params and scores in one go: ``per_fold`` as steps, and the run that had the scores before."""
    now = int(time.time() * 1000)
    logged = [Metric(key, value, now, 0) for key, value in metrics.items()]
    logged += [Metric(key, value, now, step) for key, values in per_fold.items() for step, value in enumerate(values)]
    tags = [] if reused_from is None else [RunTag("churnlab.reused_from", reused_from)]
    known = [metric for metric in logged if metric.value == metric.value]
    mlflow.MlflowClient().log_batch(run_id, params=_params(params), metrics=known, tags=tags)


def end_trial(run_id: str, status: str, *, params: Mapping[str, Any] | None = None, note: str | None = None) -> None:
    """End a trial's run as FINISHED, FAILED or KILLED; ``params`` and ``note`` are what is still to be said of it."""
    client = mlflow.MlflowClient()
    if params or note:
        tags = [] if note is None else [RunTag("mlflow.note.content", note)]
        client.log_batch(run_id, params=_params(params or {}), tags=tags)
    client.set_terminated(run_id, status)


def _params(params: Mapping[str, Any]) -> list[Param]:
    return [Param(key, str(value)) for key, value in params.items()]


def open_sweep(command: str, words: Sequence[str], *, dataset_name: str, data_sha256: str | None = None) -> None:
    """Open the parent run of a sweep unless it is open: the one of the same sweep on the same data, or a new one."""
    if mlflow.active_run():
        return
    name = f"{dataset_name}-{EXPERIMENTS[command]}"
    tags = identity_tags("sweep", {"command": command, "sweep": sorted(words)}, data_sha256=data_sha256)
    found = find_runs(name, tags)
    earlier = [run for run in found if run.data.tags.get("churnlab.data_sha256") == data_sha256]
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
    """End as KILLED what the process that held a sweep left open when it was killed: its jobs, not the sweep itself."""
    process = parent.data.tags.get("churnlab.process", "")
    if parent.info.status != "RUNNING" or not process or environment.is_alive(process) is not False:
        return
    left = search(f"attributes.status = 'RUNNING' and tags.`churnlab.process` = '{process}'")
    for run in left:
        if run.info.run_id != parent.info.run_id:
            mlflow.MlflowClient().set_terminated(run.info.run_id, "KILLED")
    log.info("The last start of this sweep was killed; what it was at work on is KILLED and done again.")


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


def record_failure(command: str, config: Mapping[str, Any], error: Exception, *, dataset_name: str) -> None:
    """Give a job that failed before its run was opened a FAILED run with the message as its note."""
    with suppress(type(error)), start_run(command, config, name=f"{command} failed", dataset_name=dataset_name):
        raise error


def finished_in_a_sweep(command: str, config: Mapping[str, Any], dataset: Dataset) -> str | None:
    """The run of any sweep in which the same was done with the same config, data and code."""
    same = identity_tags(command, config, data_sha256=dataset.sha256)
    for run in find_runs(f"{dataset.contract.name}-{EXPERIMENTS[command]}", same, status="FINISHED"):
        parent = run.data.tags.get("mlflow.parentRunId")
        if parent and mlflow.get_run(parent).data.tags.get("churnlab.command") == "sweep":
            return run.info.run_id
    return None


def find_runs(name: str, tags: Mapping[str, str], *, status: str | None = None) -> list[Run]:
    """The runs of an experiment with all of these tags, newest first."""
    experiment = mlflow.MlflowClient().get_experiment_by_name(name)
    return [] if experiment is None else _find_runs(experiment.experiment_id, tags, status=status)


def _find_runs(experiment_id: str, tags: Mapping[str, str], *, status: str | None = None) -> list[Run]:
    client = mlflow.MlflowClient()
    wanted = [f"tags.`{key}` = '{value}'" for key, value in tags.items()]
    if status is not None:
        wanted.append(f"attributes.status = '{status}'")
    order = ["attributes.start_time DESC"]
    return pages(client.search_runs, experiment_ids=[experiment_id], filter_string=" and ".join(wanted), order_by=order)


def search(wanted: str, *, view: int = ViewType.ACTIVE_ONLY) -> list[Run]:
    """The runs of all experiments for which a filter of MLflow's holds."""
    client = mlflow.MlflowClient()
    experiments = [experiment.experiment_id for experiment in pages(client.search_experiments)]
    if not experiments:
        return []
    return pages(client.search_runs, experiment_ids=experiments, filter_string=wanted, run_view_type=view)


def logged_models(experiment_ids: Sequence[str]) -> list[LoggedModel]:
    """All models that were logged in these experiments, half-written ones too."""
    if not experiment_ids:
        return []
    return pages(mlflow.MlflowClient().search_logged_models, experiment_ids=list(experiment_ids))


def pages(search: Callable[..., Any], **asked: Any) -> list[Any]:
    """All that one of MLflow's searches finds, page after page."""
    found: list[Any] = []
    token = None
    while True:
        page = search(**asked, page_token=token)
        found += page
        token = page.token
        if not token:
            return found


def latest_run(command: str, dataset: Dataset) -> Run | None:
    """The newest finished run of a command on this table, None when there is none."""
    tags = {"churnlab.command": command, "churnlab.data_sha256": dataset.sha256}
    found = find_runs(f"{dataset.contract.name}-{EXPERIMENTS[command]}", tags, status="FINISHED")
    return found[0] if found else None


def ranked_train_runs(dataset_name: str, tags: Mapping[str, str], *, metric: str) -> list[Run]:
    """The finished train runs on one data and split, the best cv_<metric> first; of equal runs the newest only."""
    same = {key: tags[key] for key in SAME_QUESTION}
    return _ranked(_train_runs(dataset_name, same), metric=metric)


def train_runs_by_question(dataset_name: str, *, metric: str) -> dict[tuple[str, ...], list[Run]]:
    """All finished train runs, by what they share when they can be compared (SAME_QUESTION), the newest question first.

    Each list is in ``ranked_train_runs``' order.
    """
    groups: dict[tuple[str, ...], list[Run]] = {}
    for run in _train_runs(dataset_name, {}):
        groups.setdefault(tuple(run.data.tags[key] for key in SAME_QUESTION), []).append(run)
    return {question: _ranked(runs, metric=metric) for question, runs in groups.items()}


def _train_runs(dataset_name: str, tags: Mapping[str, str]) -> list[Run]:
    wanted = {"churnlab.command": "train"} | dict(tags)
    return find_runs(f"{dataset_name}-{EXPERIMENTS['train']}", wanted, status="FINISHED")


def _ranked(newest_first: Sequence[Run], *, metric: str) -> list[Run]:
    newest = {run.data.tags["churnlab.config_sha256"]: run for run in reversed(newest_first)}
    sign = 1 if metric in LOWER_IS_BETTER else -1
    return sorted(newest.values(), key=lambda run: sign * run.data.metrics[f"cv_{metric}"])


def find_run(run_id: str) -> Run:
    """A run by its id; InputError when there is none."""
    try:
        return mlflow.get_run(run_id)
    except MlflowException:
        raise InputError(f"There is no run {run_id} in {mlflow.get_tracking_uri()}.") from None


def get_run(run_id: str, *, command: str) -> Run:
    """A finished run of one command by its id; InputError when there is none."""
    run = find_run(run_id)
    if run.data.tags.get("churnlab.command") != command or run.info.status != "FINISHED":
        raise InputError(
            f"Run {run_id} is a {run.info.status} {run.data.tags.get('churnlab.command', 'foreign')} run; "
            f"name a FINISHED {command} run."
        )
    return run


def source(run: Run) -> str | None:
    """Where the table of a run was, an absolute path or an address; None when that is not known."""
    inputs = run.inputs.dataset_inputs
    return json.loads(inputs[0].dataset.source).get("uri") if inputs else None


def reproductions(run: Run) -> list[Run]:
    """The finished runs that did the same as another, newest first."""
    return _find_runs(run.info.experiment_id, {"churnlab.reproduces": run.info.run_id}, status="FINISHED")


def log_reproduction(run: Run, answer: Mapping[str, Any]) -> None:
    """Keep in a finished run how it compares with the run that it was to reproduce."""
    client, run_id = mlflow.MlflowClient(), run.info.run_id
    client.log_dict(run_id, dict(answer), "reproduction.json")
    client.set_tag(run_id, "churnlab.identical", str(answer["identical"]).lower())


def _scalars(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The config's plain values by dotted key; columns of the dataset and claims are in config.yaml only."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            if f"{prefix}{key}" not in ("dataset.columns", "claims.statements"):
                flat |= _scalars(value, f"{prefix}{key}.")
        elif not isinstance(value, list | tuple):
            flat[f"{prefix}{key}"] = value
    return flat
