"""Run a train, tune or segment run again from its id alone, and compare the two to the last bit.

Why: a number that nobody can get again is an anecdote. The run knows its config, its table by
fingerprint, its code and its packages; what has changed since is said. The new run is linked to the
old one, and metrics and predictions are compared bit by bit (exit 3 when they differ, or when the
table is no longer the same).

    churnlab reproduce RUN_ID
    churnlab reproduce run=RUN_ID dataset.path=moved/members.csv
    churnlab reproduce -m run=RUN_ID,RUN_ID
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import mlflow
import pandas as pd
from mlflow.entities import Run
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution

from churnlab.commands import segment, train, tune
from churnlab.config import validation
from churnlab.config.build import build_object, load_dataset
from churnlab.config.commands import Reproduce, Result, Tune
from churnlab.data.dataset import Dataset
from churnlab.data.diff import Mismatch, of_data, of_tables, of_values
from churnlab.errors import InputError
from churnlab.models.splits import make_split
from churnlab.tracking import artifacts
from churnlab.tracking.fingerprints import code_sha256, git_tags, packages, split_tags
from churnlab.tracking.names import Artifact, Tag
from churnlab.tracking.runs import DATA_REPORT, log_reproduction, reproducing
from churnlab.tracking.search import children, find_run, reproductions, source
from churnlab.tuning import studies, trials

log = logging.getLogger(__name__)

RUN: Mapping[str, Callable[..., Result]] = {
    "train": train.run,
    "tune": tune.run,
    "segment": segment.run,
}

NO_RESULTS = {"fit_seconds", "model_bytes"}
"""Metrics that may differ from run to run: a clock's, and the length of a file in which addresses
of memory stand."""

TABLES = {
    "train": (Artifact.OOF, Artifact.TEST),
    "segment": (Artifact.MEMBERS, Artifact.SEGMENTS, Artifact.EVIDENCE),
    "tune": (),
}
"""What a run has logged that must be the same to the last bit; a study has its trials, and the best
of them a run."""


def run(settings: Reproduce) -> Result:
    """Look at what the run was made of, run it again, compare."""
    before = _named(settings.run)
    command = before.data.tags[Tag.COMMAND]
    again = _settings(before, settings)
    changed = list(_circumstances(before))
    for found in changed:
        log.info("%s was %s, is %s", found["what"], found["before"], found["after"])
    dataset = _dataset(again, given=settings.dataset.path is not None)
    if isinstance(dataset, str):
        return _told(
            before,
            None,
            [{"what": "the table", "before": again.dataset.path, "after": dataset}],
            changed,
        )
    if dataset.sha256 != before.data.tags[Tag.DATA]:
        return _told(before, None, _of_table(before, dataset), changed)
    if command == "tune":
        _ask_as_drawn(before, again, dataset)
    with reproducing(settings.run):
        done = RUN[command](again, dataset)
    after = mlflow.get_run(done.values["run_id"])
    return _told(before, after, list(_compare(before, after)), changed)


def _named(run_id: str) -> Run:
    """The run of this id; InputError when there is none, or none that can be run again."""
    found = find_run(run_id)
    command = found.data.tags.get(Tag.COMMAND)
    possible = ", ".join(TABLES)
    if command is None:
        raise InputError(f"Run {run_id} is not churnlab's; give the id of a run of {possible}.")
    if command == "trial":
        study = found.data.tags["mlflow.parentRunId"]
        raise InputError(
            f"Run {run_id} is one trial of a study; reproduce the study: churnlab reproduce "
            f"run={study}."
        )
    if command not in TABLES:
        inside = [run for of in TABLES for run in children(found, of, status="FINISHED")]
        told = [f"{run.info.run_id} ({run.info.run_name})" for run in inside]
        more = f" Inside it: {', '.join(told)}." if told else ""
        raise InputError(
            f"Run {run_id} is a {command} run; those of {possible} can be reproduced.{more}"
        )
    if found.info.status != "FINISHED":
        raise InputError(
            f"Run {run_id} is {found.info.status}: it has no result to come to; name a FINISHED "
            "run."
        )
    return found


def _settings(before: Run, settings: Reproduce) -> Any:
    """The keys that the run was made with, its table looked for where it is now."""
    command, tags = before.data.tags[Tag.COMMAND], before.data.tags
    config = artifacts.read_config(before.info.run_id)
    config["tracking"] = settings.tracking.model_dump()
    dataset = config["dataset"]
    if dataset["path"] is not None:
        dataset["path"] = settings.dataset.path or source(before) or dataset["path"]
        dataset["encoding"] = settings.dataset.encoding or dataset["encoding"]
    elif settings.dataset.path is not None:
        raise InputError(
            f"The members of run {settings.run} were generated; leave dataset.path= out."
        )
    if command == "tune":
        config["storage"] = settings.storage
        # A later start of the study may have asked for fewer than there were.
        asked, done = config["tune"]["n_trials"], int(tags[Tag.N_COMPLETE])
        config["tune"] |= {"n_trials": max(asked, done), "study": _fresh_study(before)}
    try:
        return validation.read(command, config)
    except InputError as error:
        raise InputError(
            f"The config of run {settings.run} is not one of this churnlab's: {error} It was made "
            f"with the code {_code(tags)}; check that out and reproduce it there."
        ) from None


def _fresh_study(before: Run) -> str:
    """A study without a trial of the old one: the first attempt's, the second's ... A killed
    attempt goes on."""
    found = reproductions(before)
    return f"reproduce-{before.info.run_id}-{code_sha256()[:8]}-{len(found) + 1}"


def _circumstances(before: Run) -> Iterator[Mismatch]:
    """What is not the same as it was: the code, the packages."""
    tags, now = before.data.tags, {Tag.CODE: code_sha256()} | git_tags()
    if tags[Tag.CODE] != now[Tag.CODE]:
        yield {"what": "code", "before": _code(tags), "after": _code(now)}
    told = tags.get(Tag.PACKAGES)
    if told is None:
        yield {"what": "packages", "before": None, "after": packages()}
    else:
        yield from of_values(json.loads(told), packages())


def _code(tags: dict[str, str]) -> str:
    """Code in words: its fingerprint and the commit, which does not hold what was changed since."""
    code = tags[Tag.CODE][:12]
    if Tag.GIT_COMMIT not in tags:
        return f"{code} of no checkout"
    changed = " with changes that no commit holds" if tags[Tag.GIT_DIRTY] == "true" else ""
    return f"{code} of commit {tags[Tag.GIT_COMMIT][:12]}{changed}"


def _dataset(again: Any, *, given: bool) -> Dataset | str:
    """The run's table; a sentence when it is gone or no longer in order. InputError for a path that
    was given."""
    try:
        return load_dataset(again.dataset)
    except InputError as error:
        if given:
            raise
        return f"{error} When it is elsewhere, name the place with dataset.path=FILE."


def _of_table(before: Run, dataset: Dataset) -> list[Mismatch]:
    """Where another table differs from the run's."""
    report = artifacts.read_json(before.info.run_id, DATA_REPORT)
    command, best = (
        before.data.tags[Tag.COMMAND],
        before.data.tags.get(Tag.BEST_RUN_ID),
    )
    trained = {"train": before.info.run_id, "tune": best}.get(command)
    outcomes = None
    if trained is not None:
        outcomes = pd.concat(
            [artifacts.read_table(trained, path)[["row", "y"]] for path in TABLES["train"]]
        )
    whole = {
        "what": "the table",
        "before": before.data.tags[Tag.DATA],
        "after": dataset.sha256,
    }
    return [whole, *of_data(report, outcomes, dataset)]


def _ask_as_drawn(before: Run, settings: Tune, dataset: Dataset) -> None:
    """Ask for the trials that several workers drew: in which order they drew was chance, what they
    scored was not."""
    attempts = artifacts.read_table(before.info.run_id, Artifact.TRIALS)
    alone = (
        attempts["worker"].dropna().astype(int).nunique() < 2
    )  # of several, too, when the others came late
    if alone and settings.engine.get("workers", 1) == 1:  # it draws the same again
        return
    log.info(
        "Several workers drew these trials, in an order of chance: each is done again as it was "
        "drawn."
    )
    space = {
        key: build_object(value, key=f"model.space.{key}")
        for key, value in settings.model.space.items()
    }
    asked = tune.question_of(
        settings, split_tags(make_split(dataset, **settings.evaluation.split, seed=settings.seed))
    )
    storage, name = build_object(settings.storage, key="storage"), settings.tune.study
    assert name is not None
    with storage.locked(name):
        study = studies.open_study(
            storage.open(name), name, asked, direction=tune.direction(settings.metric)
        )
        there = Counter(
            trials.parameters(trial) for trial in study.get_trials() if not trials.is_dead(trial)
        )
        for trial in _trials(before):
            params = {key: _value(space[key], text) for key, text in trial.data.params.items()}
            if not there[studies.same(params)]:
                trials.enqueue(study, params)
            there[studies.same(params)] -= 1


def _trials(study: Run) -> list[Run]:
    """The finished trials of a study's run, by their numbers."""
    found = children(study, "trial", status="FINISHED")
    return sorted(found, key=lambda run: int(run.data.tags[Tag.TRIAL]))


def _value(distribution: BaseDistribution, text: str) -> Any:
    """A parameter's value from its text."""
    if isinstance(distribution, CategoricalDistribution):
        return next(choice for choice in distribution.choices if str(choice) == text)
    return int(text) if isinstance(distribution, IntDistribution) else float(text)


def _compare(before: Run, after: Run) -> Iterator[Mismatch]:
    """Where two runs of one command differ in metrics and tables; two studies also in trials and
    the best of them."""
    yield from of_values(_metrics(before), _metrics(after))
    for path in TABLES[before.data.tags[Tag.COMMAND]]:
        yield from of_tables(
            path, *[artifacts.read_table(run.info.run_id, path) for run in (before, after)]
        )
    best = [run.data.tags.get(Tag.BEST_RUN_ID) for run in (before, after)]
    if any(best):
        yield from of_values(
            *[{"best parameters": run.data.tags[Tag.BEST_PARAMS]} for run in (before, after)]
        )
        yield from of_values(*[_scores(run) for run in (before, after)], told="trial of ")
        for found in _compare(*map(mlflow.get_run, best)):
            yield found | {"what": f"{found['what']}, of the best model"}


def _metrics(run: Run) -> dict[str, float]:
    return {key: value for key, value in run.data.metrics.items() if key not in NO_RESULTS}


def _scores(study: Run) -> dict[str, float]:
    """What each point of a study scored, in every metric."""
    points = {json.dumps(run.data.params, sort_keys=True): _metrics(run) for run in _trials(study)}
    return {
        f"{point}: {key}": value
        for point, scores in points.items()
        for key, value in scores.items()
    }


def _told(
    before: Run, after: Run | None, differences: list[Mismatch], changed: list[Mismatch]
) -> Result:
    """The answer, in the new run, on the terminal and for scripts."""
    identical = not differences
    answer = {"identical": identical, "differences": differences, "changed": changed}
    name = f"{before.info.run_name} ({before.info.run_id})"
    said = (
        f"{name} comes out again, identical to the last bit."
        if identical
        else f"{name} is not reproduced:"
    )
    lines = [
        f"  {found['what']}: was {found['before']}, is {found['after']}" for found in differences
    ]
    log.info("%s", "\n".join([said, *lines]))
    if after is not None:
        log_reproduction(after, answer | {"reproduces": before.info.run_id})
    return Result({"run_id": after and after.info.run_id, **answer}, yes=identical)
