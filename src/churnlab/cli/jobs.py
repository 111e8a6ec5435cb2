"""Run one job: validate its config, open the store, read the table, run the command."""

from __future__ import annotations

import errno
import gc
import importlib
import logging
import os
import shutil
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from churnlab.cli.outcomes import Outcome, shell_words
from churnlab.cli.warned import warnings_of
from churnlab.config.commands import COMMANDS, INLINE, Result
from churnlab.errors import InputError, JobError, Refused, disk_fault, exception_chain
from churnlab.tracking.processes import interruption

if TYPE_CHECKING:
    from churnlab.data.dataset import Dataset

log = logging.getLogger(__name__)

NO_ROOM = 2**20
"""Bytes: with so few left, a database that cannot be written has no room for its journal."""


@dataclass(frozen=True)
class Job:
    """One composed config in plain types, the overrides that made it, and its place in a sweep.

    ``unresolved`` says why the config cannot be resolved. ``label`` distinguishes the job from the
    others of its sweep, ``parent`` is the id of the sweep's run; a plain command has neither.
    ``options`` are Hydra's options that another start of this job needs. ``warned_in`` is the
    folder where the workers of a sweep note what they have warned of.
    """

    command: str
    config: Mapping[str, Any]
    overrides: list[str]
    unresolved: str = ""
    is_swept: bool = False
    label: str = ""
    parent: str | None = None
    options: tuple[str, ...] = ()
    warned_in: str | None = None

    @property
    def engine(self) -> Mapping[str, Any] | None:
        """Return what the job's config says of the engine; None if it could not be resolved."""
        return self.config.get("engine")

    def inline(self) -> Job:
        """Return the job with the engine that runs all of it in one process."""
        return replace(self, config={**self.config, "engine": INLINE} if self.config else {})

    @property
    def dataset_name(self) -> str | None:
        """Return the name of the job's dataset; None if it has none."""
        return (self.config.get("dataset") or {}).get("name")


def perform(job: Job) -> Outcome:
    """Run one job and return its outcome. A job raises only what stops the whole command line."""
    from churnlab.config import validation

    try:
        if job.unresolved:
            raise InputError(job.unresolved)
        settings = validation.read(job.command, job.config)
        if settings.dry_run:
            words = [word for word in job.overrides if not word.startswith("dry_run=")]
            shown = shell_words(["churnlab", job.command, *job.options, *words])
            log.info("would run: %s", shown)
        tables: list[Dataset] = []
        with warnings_of(tables) as warned:
            if not job.is_swept and settings.engine != INLINE and not settings.runs_engine:
                log.warning(
                    "The engine runs the jobs of a sweep (-m); this one job runs in one process."
                )
            if settings.previews or not settings.dry_run:
                with _spread(job, settings):
                    result = _perform(job, settings, tables)
        if settings.dry_run:
            result = Result({"dry_run": True})
        elif settings.experiment is not None:
            result = replace(result, values=result.values | {"warnings": len(warned)})
        status: Literal["done", "no"] = "done" if result.yes else "no"
        return Outcome(status, job.overrides, result.values, then=result.then)
    except InputError as error:
        _record_failure(job, error)
        return Outcome("input", job.overrides, message=str(error))
    except Refused as error:
        _record_failure(job, error)
        return Outcome("no", job.overrides, message=str(error))
    except Exception as error:
        if stopped := interruption(error):
            raise stopped from None
        log.debug("%s", traceback.format_exc())
        if not _disk_failed(error):
            _record_failure(job, error)
        if refused := _refusal(error):
            return Outcome("input", job.overrides, message=refused)
        return Outcome("failed", job.overrides, message=failure_in_words(error))


@contextmanager
def _spread(job: Job, settings: Any) -> Iterator[None]:
    """Let the engine's workers do the folds and refits of a command that has work for them."""
    if settings.engine == INLINE or not settings.runs_engine:
        yield
        return
    from churnlab.config.objects import build_object
    from churnlab.models.own_code import types_in
    from churnlab.tuning.needs import Needs
    from churnlab.tuning.spread import spread_over

    engine = build_object(settings.engine, key="engine")
    with spread_over(engine, Needs(types=frozenset(types_in(job.config))), job.command):
        yield


def failure_in_words(error: Exception) -> str:
    """Say what failed, in our own words if the error has them or the disk is full or fails."""
    if isinstance(error, JobError) and isinstance(error.__cause__, OSError):
        return str(error)  # it names the folder
    known = str(error) if isinstance(error, JobError) else f"{type(error).__name__}: {error}"
    return _disk_failed(error) or _server_is_gone(error) or known


def _refusal(error: Exception) -> str | None:
    """Return the message for a server that refused this user; None if the error is another."""
    from churnlab.tracking import server

    return server.refusal(error)


def _server_is_gone(error: Exception) -> str | None:
    """Return the message for a server that is gone; None if the error has another cause."""
    from churnlab.tracking import server

    return server.failure(error)


def _perform(job: Job, settings: Any, tables: list[Dataset]) -> Result:
    """Open the store, read the table, and run the command unless a sweep has done so before.

    ``tables`` gets the table, if the command reads one.
    """
    if settings.fits_models:
        importlib.import_module("skops.io")  # first: it searches all modules that are loaded
    command = importlib.import_module(f"churnlab.commands.{job.command}")
    gc.freeze()  # what is imported by now
    gc.set_threshold(20_000, 20, 20)  # what a job makes lives long: figures, the store's classes
    gc.enable()
    if settings.experiment is None or settings.dry_run:
        if settings.opens_store or settings.dry_run:
            open_store(settings.tracking.uri)
        return command.run(settings)
    from churnlab.config.build import load_dataset

    open_store(settings.tracking.uri)
    if settings.reads_table:
        tables.append(load_dataset(settings.dataset))
        _compare_with_champion(tables[0])
    if job.is_swept:
        if settings.dataset is None:
            raise InputError(f"A sweep of churnlab {job.command} needs a dataset: dataset=NAME.")
        _join_sweep(job)
        earlier = _finished(job, settings, tables)
        if earlier is not None:
            log.info("already finished as run %s", earlier)
            return Result({"run_id": earlier})
    return command.run(settings, *tables)


def _join_sweep(job: Job) -> None:
    from churnlab.tracking.runs import job_label
    from churnlab.tracking.sweeps import join

    job_label.set(job.label)
    if job.parent is not None:
        join(job.parent)


def _finished(job: Job, settings: Any, tables: list[Dataset]) -> str | None:
    """Return the run of an earlier sweep that did the same; None if the job must be run."""
    from churnlab.tracking.search import finished_in_a_sweep

    if settings.force or not tables or settings.reads_store:
        return None
    return finished_in_a_sweep(job.command, settings.model_dump(), tables[0])


def _record_failure(job: Job, error: Exception) -> None:
    """Give a job of a sweep that failed before its run was opened a FAILED run of its own."""
    name, kept = job.dataset_name, COMMANDS[job.command].experiment
    if not job.is_swept or hasattr(error, "run_id") or name is None or not kept:
        return
    from churnlab.tracking.sweeps import record_failure

    open_store(job.config["tracking"]["uri"])
    _join_sweep(job)
    record_failure(job.command, job.config, error, dataset_name=name)


def _disk_failed(error: BaseException) -> str | None:
    """Return the message for a disk that is full or fails; None if the error has another cause."""
    home, fault = os.environ["CHURNLAB_HOME"], disk_fault(error)
    unsaid = any("unable to open database" in str(reason) for reason in exception_chain(error))
    if (fault or unsaid) and shutil.disk_usage(home).free <= NO_ROOM:
        fault = errno.ENOSPC  # SQLite does not say that there is no room for its journal
    places = f"{home}, or to the folder of temporary files (TMPDIR)"
    if fault == errno.ENOSPC:
        return (
            f"The disk is full: nothing more can be written to {places}. What was finished "
            "is kept; free some space and run the same command again."
        )
    if fault == errno.EIO:
        return (
            f"The disk failed (input/output error) while something was written to {places}. What "
            f"was finished is kept; run the same command again. If it fails once more, copy {home} "
            "to another disk and set CHURNLAB_HOME to the copy."
        )
    return None


def open_store(uri: str) -> None:
    from churnlab.tracking import store
    from churnlab.tracking.runs import take_outer_run

    take_outer_run()
    store.open_store(uri, home=Path(os.environ["CHURNLAB_HOME"]))


def _compare_with_champion(dataset: Dataset) -> None:
    """Warn if the members differ from those that the champion was trained on."""
    from churnlab.registry import versions
    from churnlab.registry.champion import find_champion, model_name, version_uri
    from churnlab.registry.versions import read_version

    champion = find_champion(model_name(dataset.contract.name))
    if champion is not None:
        served = read_version(version_uri(champion), "served.json")
        if served is None and (lost := versions.lost_in_words(version_uri(champion))):
            dataset.warn(
                f"the champion (version {champion.version} of {champion.name}) cannot be compared "
                f"with this table: {lost}"
            )
        versions.warn_of_drift(dataset, served, model=f"the champion (version {champion.version})")
