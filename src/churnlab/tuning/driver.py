"""Drive one study: open it and its run, let workers run the trials, and clean up whatever happens.

A driver takes a seat at the study. With storage=local there is one; with storage=postgres drivers
on several machines run trials at once, but one at a time opens the study or ends it.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import partial
from socket import gethostname
from typing import Any
from urllib.parse import urlsplit

import joblib
import mlflow
import optuna
import pandas as pd
from mlflow.entities import Run
from optuna.distributions import BaseDistribution
from optuna.trial import TrialState
from sklearn.base import clone
from sklearn.pipeline import Pipeline

from churnlab.config.commands import Tune
from churnlab.config.groups import ModelKeys
from churnlab.config.objects import build_object
from churnlab.data.dataset import Dataset
from churnlab.errors import InputError
from churnlab.evaluation.metric_names import LOWER_IS_BETTER, METRICS
from churnlab.formatting import PROGRESS, counted, duration
from churnlab.models.decision import ContactEconomics, contact_economics
from churnlab.models.own_code import own_code, types_in
from churnlab.models.splits import Split
from churnlab.tracking.artifacts import lost_files, name_of
from churnlab.tracking.fingerprints import split_tags
from churnlab.tracking.names import EXPERIMENTS, Label, Tag
from churnlab.tracking.runs import leave_open, start_run
from churnlab.tracking.search import find_runs, find_study
from churnlab.tuning import orphans, studies, trials
from churnlab.tuning.needs import Needs, needs_of
from churnlab.tuning.workers import WorkerSlot

log = logging.getLogger(__name__)

GROWING = (
    *("tune.n_trials", "tune.outer", "engine.", "decision."),
    *("evaluation.calibra", "evaluation.importance", "evaluation.further"),
)
"""Keys that may change from one start of a study to the next."""

STORE = "store"
"""The user attribute of a study that names the store with its runs."""


@dataclass(frozen=True)
class Plan:
    """Hold what a study needs: its keys, members, folds, model and name.

    ``split.train`` are the members that it sees. ``outer`` numbers the outer fold that the study is
    inside of ("2 of 5"); "" for a study on the whole training part.
    """

    settings: Tune
    dataset: Dataset
    split: Split
    pipeline: Pipeline
    name: str
    engine: Any
    storage: studies.Storage
    space: dict[str, BaseDistribution]
    outer: str = ""


@dataclass(frozen=True)
class OpenStudy:
    """A study whose run is open, and this driver's seat at it."""

    study: optuna.Study
    parent: Run
    seat: studies.Seat


def make_plan(settings: Tune, dataset: Dataset, split: Split, pipeline: Pipeline) -> Plan:
    """Plan the study of the whole training part; without tune.study its question names it."""
    prefix = f"{settings.dataset.name}-{settings.model.name}-{settings.features.name}"
    name = settings.tune.study or studies.study_name(question_of(settings, split), prefix=prefix)
    return Plan(
        settings,
        dataset,
        split,
        pipeline,
        name,
        engine=build_object(settings.engine, key="engine"),
        storage=build_object(settings.storage, key="storage"),
        space=build_space(settings),
    )


def build_space(settings: Tune) -> dict[str, BaseDistribution]:
    """Build the distributions of the model's search space."""
    return {
        key: build_object(value, key=f"model.space.{key}")
        for key, value in settings.model.space.items()
    }


def question_of(settings: Tune, split: Split) -> dict[str, Any]:
    """Return what two studies must share to answer the same question; its keys name differences."""
    model, tags = settings.model, split_tags(split)
    return {
        "model": model.name,
        "scaling": model.scale,
        **_own_code(model),
        "fixed estimator parameters": {
            key: value for key, value in model.estimator.items() if key not in model.space
        },
        "search space": model.space,
        "features": settings.features.model_dump(exclude={"found_on"}),
        "metric": settings.metric,
        **({"costs of a contact": asdict(costs)} if (costs := _costs(settings)) else {}),
        "seed": settings.seed,
        "data": tags[Tag.DATA],
        "split": tags[Tag.SPLIT],
        "folds": tags[Tag.FOLDS],
    }


def _costs(settings: Tune) -> ContactEconomics | None:
    """Return the costs of a contact if the study's metric is an amount of money."""
    needed = METRICS[settings.metric].needs_costs
    return contact_economics(settings.decision) if needed else None


def _own_code(model: ModelKeys) -> dict[str, str]:
    """Return the fingerprint of the model's own classes under a key; {} if it has none."""
    found = own_code(types_in(model.estimator))
    return {"code of its classes": found.sha256()} if found.files else {}


def direction(metric: str) -> str:
    """Return the direction of a study of this metric, in Optuna's words.

    >>> direction("log_loss"), direction("roc_auc")
    ('minimize', 'maximize')
    """
    return "minimize" if metric in LOWER_IS_BETTER else "maximize"


def run_name(settings: Tune) -> str:
    """Name the run of a study, and that of its best model."""
    return f"{settings.model.name} {settings.features.name} tuned"


@contextmanager
def opened(plan: Plan) -> Iterator[OpenStudy]:
    """Lock and open the plan's study; resume its run, or open a new one.

    If this driver is stopped while others go on with the study, its run stays RUNNING for them.
    """
    settings, name = plan.settings, plan.name
    question = question_of(settings, plan.split)
    with plan.storage.locked(name) as seat:
        study = studies.open_study(
            plan.storage.open(name), name, question, direction=direction(settings.metric)
        )
        study_id = study.user_attrs["id"]
        earlier = find_study(plan.dataset.contract.name, name, study_id)
        _warn_of_losses(plan, study, earlier)
        tags = {Tag.STUDY: name, Tag.STUDY_ID: study_id, **split_tags(plan.split)}
        tags |= {Label.MODEL: settings.model.name, Label.FEATURES: settings.features.name}
        tags |= {Tag.OUTER_FOLD: plan.outer} if plan.outer else {}
        tags |= {Tag.STORAGE: plan.storage.place} if plan.storage.place else {}
        with start_run(
            "tune",
            settings.model_dump(),
            name=f"{run_name(settings)}{plan.outer and f', outer fold {plan.outer}'}",
            dataset=plan.dataset,
            tags=tags,
            resume=earlier.info.run_id if earlier else None,
            growing=GROWING,
        ) as parent:
            if study.user_attrs.get(STORE) != _store():
                study.set_user_attr(STORE, _store())
            try:
                yield OpenStudy(study, parent, seat)
            except BaseException as error:
                if seat.leaves_others():
                    leave_open(error)
                raise


def _store() -> str:
    """Name the store of runs, without a password; one on a disk with its machine."""
    address = urlsplit(mlflow.get_tracking_uri())
    if not address.hostname:
        return f"{address.geturl()} on {gethostname()}"
    return address._replace(netloc=address.netloc.rpartition("@")[2]).geturl()


def _warn_of_losses(plan: Plan, study: optuna.Study, earlier: Run | None) -> None:
    """Warn if the run of the study has lost files, or a finished run the file of its study.

    InputError: other machines keep the run of the study in another store.
    """
    if earlier is not None:
        if lost := lost_files(earlier):
            log.warning("warning: %s %s; they are logged again.", name_of(earlier), lost)
        return
    kept = study.user_attrs.get(STORE)
    if plan.storage.place and kept not in (None, _store()):
        raise InputError(
            f"The study {plan.name} in {plan.storage.place} has its runs in the store {kept}, not "
            f"in {_store()}. Machines that share a study share a tracking server, too: give its "
            "address (tracking=server tracking.uri=...), or choose another tune.study."
        )
    name = f"{plan.dataset.contract.name}-{EXPERIMENTS['tune']}"
    for run in find_runs(name, {Tag.COMMAND: "tune", Tag.STUDY: plan.name})[:1]:
        log.warning(
            "warning: the study %s of run %s has lost its file, so a new study runs all trials.",
            plan.name,
            run.info.run_id,
        )


def run_trials(
    plan: Plan, there: OpenStudy, *, keep: Sequence[int] = ()
) -> list[optuna.trial.FrozenTrial]:
    """Run the trials that are missing; return all that are complete.

    ``keep`` are the locks, besides the study's own, that the workers inherit. Other drivers can
    take part in the meantime; afterwards the study is locked against them until it is closed.
    """
    job, seat = _job(plan, there), there.seat
    _resume(there, job)
    needs = needs_of([plan.settings.model_dump() | {"storage": plan.settings.storage}])
    seat.unlock()
    _run_workers(plan.engine, there, job, keep=[*seat.keep, *keep], needs=needs)
    seat.lock()
    _settle(there, job)
    complete = _complete(there.study, job)
    warned = Counter(text for trial in complete for text in trial.user_attrs.get(trials.WARNED, []))
    for text, times in warned.items():
        plan.dataset.warn(f"in {times} of {counted(len(complete), 'trial')} {text}")
    return complete


def _job(plan: Plan, there: OpenStudy) -> trials.Job:
    """Collect what the workers need."""
    settings, train = plan.settings, plan.split.train
    return trials.Job(
        storage=plan.storage,
        study=plan.name,
        space=plan.space,
        n_trials=settings.tune.n_trials,
        seed=settings.seed,
        metric=settings.metric,
        pipeline=_sharing_cores(plan.pipeline, workers=plan.engine.workers),
        X=plan.dataset.X.iloc[train],
        y=plan.dataset.y[train],
        folds=plan.split.folds,
        tracking_uri=mlflow.get_tracking_uri(),
        parent=there.parent,
        first=len(there.study.trials),
        costs=_costs(settings),
        driver=there.seat.id,
        seat=there.seat.number,
    )


def _sharing_cores(pipeline: Pipeline, *, workers: int) -> Pipeline:
    """Limit the estimator of a pipeline to one worker's share of the machine's cores."""
    n_jobs = pipeline[-1].get_params().get("n_jobs")
    if n_jobs is None or workers == 1:
        return pipeline
    share = max(1, joblib.cpu_count() // workers)
    return clone(pipeline).set_params(estimator__n_jobs=min(joblib.effective_n_jobs(n_jobs), share))


def _resume(there: OpenStudy, job: trials.Job) -> None:
    """Clean up after an earlier start, log what is complete, and enqueue all points of a small
    space."""
    study = there.study
    found = orphans.reconcile(study, job, others=there.seat.others)
    complete = len(study.get_trials(deepcopy=False, states=[TrialState.COMPLETE]))
    if found or complete:
        done, found = counted(complete, "trial"), found and f" Found {found}."
        log.info("Resuming the study %s: %s complete.%s", job.study, done, found)
    if job.exhaustive:
        points = list(studies.points(job.space))
        log.info("The space has %s: each is tried once.", counted(len(points), "point"))
        states = (TrialState.WAITING, TrialState.RUNNING, TrialState.COMPLETE)
        known = set(map(trials.key_of, study.get_trials(deepcopy=False, states=states)))
        for point in points:
            if studies.params_key(point) not in known:
                trials.enqueue(study, point)


def _settle(there: OpenStudy, job: trials.Job) -> None:
    """Wait until no trial is left that nobody runs, and end all runs that are left open."""
    orphans.end_trainings(there.parent)
    end = time.monotonic() + there.seat.patience
    while True:
        orphans.reconcile(there.study, job, others=there.seat.others, every=False)
        running = there.study.get_trials(deepcopy=False, states=[TrialState.RUNNING])
        if not running or time.monotonic() > end:  # another driver may want more trials
            return
        time.sleep(trials.POLL)


def _run_workers(
    engine: Any, there: OpenStudy, job: trials.Job, *, keep: list[int], needs: Needs
) -> None:
    """Let the engine's workers run the trials; leave no trial and no run open, however it ends."""
    study, others = there.study, there.seat.others

    def on_death(living: Collection[WorkerSlot]) -> int:
        found = orphans.reconcile(study, job, living=living, others=others)
        log.info("A worker died and is replaced.%s", found and f" Found {found}.")
        ended = [trial for trial in study.get_trials(deepcopy=False) if trial.state.is_finished()]
        return len([trial for trial in ended if not trials.is_dead(trial)])

    try:
        watch = _progress(study, job)
        watch()
        work = partial(trials.work, job)
        engine.run(work, watch=watch, on_death=on_death, keep=keep, needs=needs)
        watch()
    except BaseException:
        there.seat.hurry()
        with suppress(Exception):  # the store itself may have failed; the next start cleans up then
            orphans.reconcile(study, job, others=others, every=False)
        raise


def _progress(study: optuna.Study, job: trials.Job) -> Callable[[], None]:
    """Return what reports how many trials are complete, the best value, failures and time left."""
    total, started = int(min(job.n_trials, studies.size(job.space))), time.monotonic()
    counts: list[int] = []

    def watch() -> None:
        if not log.isEnabledFor(PROGRESS):
            return
        ended = study.get_trials(deepcopy=False)
        values = [trial.value for trial in ended if trial.value is not None]
        if not values or counts[-1:] == [len(values)]:
            return
        counts.append(len(values))
        best = min(values) if job.metric in LOWER_IS_BETTER else max(values)
        failed = sum(trials.ERROR in trial.user_attrs for trial in ended)
        text = f"{len(values)} of {counted(total, 'trial')}, best {best:.4f}, {failed} failed"
        done = counts[-1] - counts[0]  # trials of earlier starts tell nothing of the time left
        if done and (left := total - counts[-1]) > 0:
            text = f"{text} ({duration((time.monotonic() - started) / done * left)} left)"
        log.log(PROGRESS, "%s", text)

    return watch


def _complete(study: optuna.Study, job: trials.Job) -> list[optuna.trial.FrozenTrial]:
    """Return the completed trials; InputError if fits kept failing or none succeeded."""
    complete = study.get_trials(states=[TrialState.COMPLETE])
    messages = trials.failures(study, first=job.first)
    if len(messages) >= trials.FAILURES_IN_A_ROW or not complete:
        raise InputError(
            f"{counted(len(messages), 'trial')} in a row failed, the first with "
            f"{messages[0].rstrip('.')}. Fix the estimator's parameters or the space, then run the "
            f"same command again; completed trials ({len(complete)}) are kept."
        )
    return complete


def trials_table(study: optuna.Study) -> pd.DataFrame:
    """Return a row per attempt: state, value, parameters, metrics, run, source or error, times."""
    rows = []
    for trial in study.get_trials(deepcopy=False):
        attributes = {
            key: trial.user_attrs.get(key)
            for key in (trials.RUN_ID, trials.REUSED, trials.ERROR, trials.WORKER)
        }
        times = {"started": trial.datetime_start, "ended": trial.datetime_complete}
        metrics = trial.user_attrs.get(trials.SCORES, {}).get("metrics", {})
        first = {"number": trial.number, "state": trial.state.name, "value": trial.value}
        rows.append(first | trial.params | metrics | attributes | times)
    return pd.DataFrame(rows)
