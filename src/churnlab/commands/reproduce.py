"""Run a train, tune or segment run again from its id, and compare the results to the last bit.

Why: a number that nobody can reproduce is an anecdote. The command reuses the run's config and
dataset (whose fingerprint must match) and reports changes in code or packages. The new run is
linked to the old one, and metrics and predictions are compared bit by bit (exit 3 if they differ or
if the dataset has changed).

    churnlab reproduce RUN_ID
    churnlab reproduce run=RUN_ID dataset.path=moved/members.csv
    churnlab reproduce -m run=RUN_ID,RUN_ID
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from typing import Any

import mlflow
import pandas as pd
from mlflow.entities import Run
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution

from churnlab.bundle.import_folder import imported_from
from churnlab.commands import segment, train, tune
from churnlab.config import validation
from churnlab.config.build import build_pipeline, load_dataset
from churnlab.config.commands import Reproduce, Result, Tune
from churnlab.data.dataset import Dataset
from churnlab.data.diff import Mismatch, data_mismatches, table_mismatches, value_mismatches
from churnlab.errors import InputError
from churnlab.models.own_code import types_in
from churnlab.models.splits import make_split
from churnlab.registry.model_artifacts import code_folder, model_folder
from churnlab.tracking import artifacts
from churnlab.tracking.fingerprints import code_of, code_sha256, git_tags, packages
from churnlab.tracking.names import Artifact, Tag
from churnlab.tracking.runs import log_reproduction, reproducing
from churnlab.tracking.search import children, find_run, reproductions, source
from churnlab.tuning import driver, nested, studies, trials

log = logging.getLogger(__name__)

RUN: Mapping[str, Callable[..., Result]] = {
    "train": train.run,
    "tune": tune.run,
    "segment": segment.run,
}

NOT_COMPARED = {"fit_seconds", "model_bytes"}
"""Metrics that may differ: a duration, and the size of a file that contains memory addresses."""

TABLES = {
    "train": (Artifact.OOF, Artifact.TEST),
    "segment": (Artifact.MEMBERS, Artifact.SEGMENTS, Artifact.EVIDENCE),
    "tune": (),
}
"""Tables of a run that must be equal to the last bit; of a study, trials and best run are compared.
"""


def run(settings: Reproduce) -> Result:
    """Report changes in code and packages, run the run again on the same dataset, and compare."""
    before = _reproducible_run(settings.run)
    again = _settings(before, settings)
    with _own_classes(before, again):
        return _run_again(settings, before, again)


def _run_again(settings: Reproduce, before: Run, again: Any) -> Result:
    """Report what has changed since the run, run it again and compare."""
    command = before.data.tags[Tag.COMMAND]
    changed = list(_environment_changes(before, again))
    for found in changed:
        log.info("%s", _describe_mismatch(found))
    dataset = _dataset(again, given=settings.dataset.path is not None)
    if isinstance(dataset, str):
        missing = {"what": "the table", "before": again.dataset.path, "after": dataset}
        return _result(before, None, [missing], changed)
    if dataset.sha256 != before.data.tags[Tag.DATA]:
        return _result(before, None, _table_changes(before, dataset), changed)
    if command == "tune":
        _replay(before, again, dataset)
    with reproducing(settings.run):
        done = RUN[command](again, dataset)
    after = mlflow.get_run(done.values["run_id"])
    return _result(before, after, list(_compare(before, after)), changed)


def _reproducible_run(run_id: str) -> Run:
    """Return the run with this id; InputError if there is none or it cannot be run again."""
    found = find_run(run_id)
    command = found.data.tags.get(Tag.COMMAND)
    possible = "train, tune or segment"
    if command is None:
        raise InputError(f"Run {run_id} was not made by churnlab; give the id of a {possible} run.")
    if command == "trial":
        study = found.data.tags["mlflow.parentRunId"]
        raise InputError(
            f"Run {run_id} is one trial of a study; reproduce the study: churnlab reproduce "
            f"run={study}."
        )
    if Tag.OUTER_FOLD in found.data.tags:
        study = found.data.tags["mlflow.parentRunId"]
        raise InputError(
            f"Run {run_id} is one outer fold of a study; reproduce the study: churnlab reproduce "
            f"run={study}."
        )
    if command not in TABLES:
        inside = [run for name in TABLES for run in children(found, name, status="FINISHED")]
        names = ", ".join(f"{run.info.run_id} ({run.info.run_name})" for run in inside)
        raise InputError(
            f"Run {run_id} is a {command} run; only {possible} runs can be reproduced."
            + (f" Inside it: {names}." if names else "")
        )
    if found.info.status != "FINISHED":
        raise InputError(
            f"Run {run_id} is {found.info.status} and has no result to compare with; give the id "
            "of a FINISHED run."
        )
    return found


def _settings(before: Run, settings: Reproduce) -> Any:
    """Return the run's config as settings, with the current place of its table."""
    command, tags = before.data.tags[Tag.COMMAND], before.data.tags
    config = artifacts.read_config(before.info.run_id)
    config["tracking"] = settings.tracking.model_dump()
    dataset = config["dataset"]
    if dataset["path"] is not None:
        dataset["path"] = settings.dataset.path or source(before) or dataset["path"]
        dataset["encoding"] = settings.dataset.encoding or dataset["encoding"]
    elif settings.dataset.path is not None:
        raise InputError(
            f"The members of run {settings.run} were generated; leave out dataset.path."
        )
    if command == "tune":
        config["storage"] = settings.storage
        # A later start of the study may have had a smaller n_trials.
        n_trials = max(config["tune"]["n_trials"], int(tags[Tag.N_COMPLETE]))
        config["tune"] |= {"n_trials": n_trials, "study": _new_study_name(before)}
    try:
        return validation.read(command, config)
    except InputError as error:
        raise InputError(
            f"This churnlab cannot read the config of run {settings.run}: {error} The run was made "
            f"with code {_describe_code(tags)}; check that out and reproduce the run there."
        ) from None


def _new_study_name(before: Run) -> str:
    """Name a study after the number of the reproduction, so that a killed reproduction resumes."""
    number = len(reproductions(before)) + 1
    return f"reproduce-{before.info.run_id}-{code_sha256()[:8]}-{number}"


@contextmanager
def _own_classes(before: Run, again: Any) -> Iterator[None]:
    """Import classes of the user's own from the files that the run's model keeps, unless they are
    in a folder of this command line."""
    model, tags = getattr(again, "model", None), before.data.tags
    names = {name.partition(".")[0] for name in types_in(model.estimator if model else None)}
    code = None
    if any(find_spec(name) is None for name in names):
        with suppress(InputError):  # the model was lost: the error of the missing class says more
            code = code_folder(model_folder(tags.get(Tag.BEST_RUN_ID, before.info.run_id)))
    if code is None:
        yield
        return
    log.info("The model's own classes are those that the run has kept, in %s.", code)
    with imported_from(code):
        yield


def _environment_changes(before: Run, again: Any) -> Iterator[Mismatch]:
    """Yield what has changed since the run: code, that of own classes too, and packages."""
    tags, now = before.data.tags, {Tag.CODE: code_of(again.model_dump())} | git_tags()
    if tags[Tag.CODE] != now[Tag.CODE]:
        yield {"what": "code", "before": _describe_code(tags), "after": _describe_code(now)}
    if Tag.PACKAGES in tags:
        yield from value_mismatches(json.loads(tags[Tag.PACKAGES]), packages())
    else:
        yield {"what": "packages", "before": None, "after": packages()}


def _describe_code(tags: dict[str, str]) -> str:
    """Describe code by its fingerprint and commit."""
    code = tags[Tag.CODE][:12]
    if Tag.GIT_COMMIT not in tags:
        return f"{code} outside a git checkout"
    changed = " with uncommitted changes" if tags[Tag.GIT_DIRTY] == "true" else ""
    return f"{code} at commit {tags[Tag.GIT_COMMIT][:12]}{changed}"


def _dataset(again: Any, *, given: bool) -> Dataset | str:
    """Load the run's table; return a sentence if it is gone or invalid, but InputError for a path
    that was given."""
    try:
        return load_dataset(again.dataset)
    except InputError as error:
        if given:
            raise
        return f"{error} If the table has moved, give its place: dataset.path=FILE."


def _table_changes(before: Run, dataset: Dataset) -> list[Mismatch]:
    """Return how a table differs from the one of the run."""
    report = artifacts.read_json(before.info.run_id, Artifact.DATA_REPORT)
    command, best = before.data.tags[Tag.COMMAND], before.data.tags.get(Tag.BEST_RUN_ID)
    trained = {"train": before.info.run_id, "tune": best}.get(command)
    outcomes = None
    if trained is not None:
        outcomes = pd.concat(
            [artifacts.read_table(trained, path)[["row", "y"]] for path in TABLES["train"]]
        )
    whole = {"what": "the table", "before": before.data.tags[Tag.DATA], "after": dataset.sha256}
    return [whole, *data_mismatches(report, outcomes, dataset)]


def _replay(before: Run, settings: Tune, dataset: Dataset) -> None:
    """Enqueue the trials of a study, and of those inside its outer folds, that had several workers.

    With several workers the number of trials is the same, but the sampled parameters depend on
    timing; the scores of given parameters do not.
    """
    split = make_split(dataset, **settings.evaluation.split, seed=settings.seed)
    pipeline = build_pipeline(settings.model, dataset, features=settings.features)
    plan = driver.make_plan(settings, dataset, split, pipeline)
    _replay_study(before, plan)
    if settings.tune.outer is not None:
        inside = {
            run.data.tags[Tag.OUTER_FOLD]: run
            for run in children(before, "tune", status="FINISHED")
        }
        for inner in nested.outer_plans(plan):
            _replay_study(inside[inner.outer], inner)


def _replay_study(before: Run, plan: driver.Plan) -> None:
    """Enqueue the trials of one study."""
    try:
        attempts = artifacts.read_table(before.info.run_id, Artifact.TRIALS)
        # One of several workers may have run every trial, when the others started late.
        numbers = attempts["worker"].dropna().astype(str).str.partition(".")[0]
        alone = numbers.nunique() < 2
    except artifacts.LostFile as lost:
        log.warning("warning: the trials are replayed, one by one: %s", lost)
        alone = False
    if alone and plan.engine.workers == 1:  # it samples the same again
        return
    log.info(
        "The study had several workers, so its sampled parameters depended on timing: they are "
        "replayed."
    )
    question = driver.question_of(plan.settings, plan.split)
    direction, name = driver.direction(plan.settings.metric), plan.name
    with plan.storage.locked(name):
        study = studies.open_study(plan.storage.open(name), name, question, direction=direction)
        present = Counter(
            trials.key_of(trial) for trial in study.get_trials() if not trials.is_dead(trial)
        )
        for trial in _trials(before):
            params = {key: _parse(plan.space[key], text) for key, text in trial.data.params.items()}
            if not present[studies.params_key(params)]:
                trials.enqueue(study, params)
            present[studies.params_key(params)] -= 1


def _trials(study: Run) -> list[Run]:
    """Return the finished trials of a study's run, in the order of their numbers."""
    found = children(study, "trial", status="FINISHED")
    return sorted(found, key=lambda run: int(run.data.tags[Tag.TRIAL]))


def _parse(distribution: BaseDistribution, text: str) -> Any:
    """Return a parameter's value from its logged text."""
    if isinstance(distribution, CategoricalDistribution):
        return next(choice for choice in distribution.choices if str(choice) == text)
    return int(text) if isinstance(distribution, IntDistribution) else float(text)


def _compare(before: Run, after: Run) -> Iterator[Mismatch]:
    """Yield how two runs of a command differ in metrics and tables, and studies in their trials and
    best runs."""
    yield from value_mismatches(_metrics(before), _metrics(after))
    for path in TABLES[before.data.tags[Tag.COMMAND]]:
        try:
            table = artifacts.read_table(before.info.run_id, path)
        except artifacts.LostFile as lost:
            yield {"what": f"{path} cannot be compared: {lost}", "before": None, "after": None}
            continue
        yield from table_mismatches(path, table, artifacts.read_table(after.info.run_id, path))
    best = [run.data.tags.get(Tag.BEST_RUN_ID) for run in (before, after)]
    if any(best):
        yield from value_mismatches(
            *[{"best parameters": run.data.tags[Tag.BEST_PARAMS]} for run in (before, after)]
        )
        yield from value_mismatches(*[_scores(run) for run in (before, after)], prefix="trial of ")
        for found in _compare(*map(mlflow.get_run, best)):
            yield found | {"what": f"{found['what']}, of the best model"}


def _metrics(run: Run) -> dict[str, float]:
    return {key: value for key, value in run.data.metrics.items() if key not in NOT_COMPARED}


def _scores(study: Run) -> dict[str, float]:
    """Return all metrics of all trials of a study, by parameters and metric."""
    points = {json.dumps(run.data.params, sort_keys=True): _metrics(run) for run in _trials(study)}
    return {
        f"{point}: {key}": value
        for point, scores in points.items()
        for key, value in scores.items()
    }


def _describe_mismatch(found: Mismatch) -> str:
    values = [("was", found["before"]), ("is", found["after"])]
    known = ", ".join(f"{verb} {value}" for verb, value in values if value is not None)
    return f"{found['what']}: {known}" if known else found["what"]


def _result(
    before: Run, after: Run | None, differences: list[Mismatch], changed: list[Mismatch]
) -> Result:
    """Log the outcome, in the new run and on the terminal, and return it."""
    identical = not differences
    answer = {"identical": identical, "differences": differences, "changed": changed}
    verdict = "is reproduced, identical to the last bit." if identical else "is not reproduced:"
    lines = [f"{before.info.run_name} ({before.info.run_id}) {verdict}"]
    lines += [f"  {_describe_mismatch(found)}" for found in differences]
    log.info("%s", "\n".join(lines))
    if after is not None:
        log_reproduction(after, answer | {"reproduces": before.info.run_id})
    return Result({"run_id": after and after.info.run_id, **answer}, yes=identical)
