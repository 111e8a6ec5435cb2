"""From a composed config to an outcome: one job, or the jobs of a sweep under one parent run."""

from __future__ import annotations

import errno
import importlib
import logging
import os
import shutil
import sys
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from churnlab.cli.hydra_compose import job_label, plain
from churnlab.config.commands import COMMANDS, Result
from churnlab.errors import InputError, JobError, interruption, origins

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from churnlab.data.dataset import Dataset

log = logging.getLogger(__name__)

NO_ROOM = 2**20
"""Bytes: with so few left, a database that cannot be written has no room for its journal."""


@dataclass(frozen=True)
class Outcome:
    """How one job ended: done (yes), answered no, stopped by wrong input, or failed."""

    status: Literal["done", "no", "input", "failed"]
    overrides: list[str]
    values: dict[str, Any] = field(default_factory=dict)
    message: str = ""


@dataclass
class Launch:
    """What one call of churnlab runs: Hydra hands it one composed config after another.

    ``sweep`` holds the words that name a sweep (its overrides), or None for a plain command.
    """

    command: str
    sweep: list[str] | None = None
    outcomes: list[Outcome] = field(default_factory=list)

    def run(self, composed: DictConfig, *, overrides: list[str]) -> None:
        """Run one job and record its outcome: a job never raises, so that the others of its sweep
        go on."""
        from churnlab.config import validation

        if self.sweep is not None:
            log.info("job %d: %s", len(self.outcomes) + 1, " ".join(overrides))
        config: dict[str, Any] = {}
        try:
            config = plain(composed)
            settings = validation.read(self.command, config)
            if settings.dry_run:
                log.info("would run: churnlab %s", " ".join([self.command, *overrides]))
                outcome = Outcome("done", overrides, {"dry_run": True})
            else:
                result = self._perform(settings, label=job_label(self.sweep or [], overrides))
                outcome = Outcome("done" if result.yes else "no", overrides, result.values)
        except InputError as error:
            outcome = Outcome("input", overrides, message=str(error))
            self._record_failure(config, error)
        except Exception as error:
            if stopped := interruption(error):
                raise stopped from None
            log.debug("%s", traceback.format_exc())
            full = _disk_is_full(error)
            told = str(error) if isinstance(error, JobError) else f"{type(error).__name__}: {error}"
            outcome = Outcome("failed", overrides, message=full or told)
            if not full:
                self._record_failure(config, error)
        self.outcomes.append(outcome)

    def close(self, *, ended: Literal["KILLED", "FAILED"] | None = None) -> str | None:
        """End the parent run of a sweep, by what became of its jobs unless it ``ended`` otherwise;
        returns its id."""
        if (
            self.sweep is None or "churnlab.tracking.runs" not in sys.modules
        ):  # without it, no run was opened
            return None
        from churnlab.tracking.runs import close_sweep

        failed = [outcome for outcome in self.outcomes if outcome.message]
        note = "\n".join(f"{' '.join(outcome.overrides)}: {outcome.message}" for outcome in failed)
        return close_sweep(ended or ("FAILED" if failed else "FINISHED"), note=note)

    def _perform(self, settings: Any, *, label: str) -> Result:
        command = importlib.import_module(f"churnlab.commands.{self.command}")
        if not settings.keeps_runs:
            if settings.opens_store:
                _open_store(settings.tracking.uri)
            return command.run(settings)
        from churnlab.config.build import load_dataset
        from churnlab.tracking.runs import job_label, open_sweep

        _open_store(settings.tracking.uri)
        table = [load_dataset(settings.dataset)] if settings.reads_table else []
        for dataset in table:
            _compare_with_champion(dataset)
        if self.sweep is not None:
            if settings.dataset is None:
                raise InputError(
                    f"A sweep of churnlab {self.command} needs a dataset to be kept with: "
                    "dataset=NAME."
                )
            sha256 = table[0].sha256 if table else None
            open_sweep(
                self.command, self.sweep, dataset_name=settings.dataset.name, data_sha256=sha256
            )
            job_label.set(label)
            earlier = self._finished(settings, table)
            if earlier is not None:
                log.info("already done as run %s", earlier)
                return Result({"run_id": earlier})
        result = command.run(settings, *table)
        return (
            Result(result.values | {"warnings": len(table[0].warnings)}, result.yes)
            if table
            else result
        )

    def _finished(self, settings: Any, table: list[Dataset]) -> str | None:
        """The run in which a sweep has done the same; None for what is to be run whatever was run
        before."""
        from churnlab.tracking.search import finished_in_a_sweep

        if settings.force or not table or settings.reads_store:
            return None
        return finished_in_a_sweep(self.command, settings.model_dump(), table[0])

    def _record_failure(self, config: Mapping[str, Any], error: Exception) -> None:
        """Give a job of a sweep that failed before its run was opened a FAILED run of its own."""
        name = (config.get("dataset") or {}).get("name")
        kept = COMMANDS[self.command].keeps_runs
        if self.sweep is None or hasattr(error, "run_id") or name is None or not kept:
            return
        from churnlab.tracking.runs import open_sweep, record_failure

        _open_store(config["tracking"]["uri"])
        open_sweep(self.command, self.sweep, dataset_name=name)
        record_failure(self.command, config, error, dataset_name=name)


def _disk_is_full(error: BaseException) -> str | None:
    """What to tell when something could not be written because there is no room; None when that is
    not why."""
    home = os.environ["CHURNLAB_HOME"]
    reasons = origins(error)
    refused = any(
        isinstance(reason, OSError) and reason.errno in (errno.ENOSPC, errno.EDQUOT)
        for reason in reasons
    )
    said = " ".join(map(str, reasons))
    if not refused and not any(
        words in said for words in ("disk is full", "disk I/O error", "unable to open database")
    ):
        return None
    if not refused and shutil.disk_usage(home).free > NO_ROOM:
        return None
    return (
        f"The disk is full: no more can be written to {home}. What was finished is kept; make room "
        "and run the same command again."
    )


def _open_store(uri: str) -> None:
    from churnlab.tracking import store
    from churnlab.tracking.runs import take_outer_run

    take_outer_run()
    store.open_store(uri, home=Path(os.environ["CHURNLAB_HOME"]))


def _compare_with_champion(dataset: Dataset) -> None:
    """Warn of members unlike those that the champion was trained on."""
    from churnlab.registry import champion as registry
    from churnlab.registry import versions
    from churnlab.registry.versions import read_version

    champion = registry.champion(registry.model_name(dataset.contract.name))
    if champion is not None:
        served = read_version(registry.uri(champion), "served.json")
        versions.warn_of_drift(dataset, served, model=f"the champion (version {champion.version})")
