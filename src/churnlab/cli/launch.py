"""Run what a command line composes to: one job, or the jobs of a sweep under one parent run."""

from __future__ import annotations

import errno
import importlib
import logging
import os
import shutil
import sys
import traceback
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from churnlab.cli import arguments, hydra_compose
from churnlab.cli.outcomes import DONE, WRONG_INPUT, Outcome, report_job, report_sweep
from churnlab.config.commands import COMMANDS, Result
from churnlab.errors import InputError, JobError, Terminated, exception_chain, interruption

if TYPE_CHECKING:
    from churnlab.data.dataset import Dataset

log = logging.getLogger(__name__)

NO_ROOM = 2**20
"""Bytes: with so few left, a database that cannot be written has no room for its journal."""


@dataclass
class Jobs:
    """Collect the outcomes of one command line: Hydra passes in one composed config per job.

    ``sweep`` is the list of overrides that identify a sweep; None for a plain command.
    """

    command: str
    sweep: list[str] | None = None
    outcomes: list[Outcome] = field(default_factory=list)

    def run(self, composed: DictConfig, *, overrides: list[str]) -> None:
        """Run one job and record its outcome. A job never raises, so that its sweep goes on."""
        from churnlab.config import validation

        if self.sweep is not None:
            log.info("job %d: %s", len(self.outcomes) + 1, " ".join(overrides))
        config: dict[str, Any] = {}
        try:
            config = hydra_compose.plain(composed)
            settings = validation.read(self.command, config)
            if settings.dry_run:
                log.info("would run: churnlab %s", " ".join([self.command, *overrides]))
            if settings.previews or not settings.dry_run:
                label = hydra_compose.describe_job(self.sweep or [], overrides)
                result = self._perform(settings, label=label)
            if settings.dry_run:
                result = Result({"dry_run": True})
            outcome = Outcome("done" if result.yes else "no", overrides, result.values)
        except InputError as error:
            outcome = Outcome("input", overrides, message=str(error))
            self._record_failure(config, error)
        except Exception as error:
            if stopped := interruption(error):
                raise stopped from None
            log.debug("%s", traceback.format_exc())
            full = _disk_is_full(error)
            known = isinstance(error, JobError)
            message = str(error) if known else f"{type(error).__name__}: {error}"
            outcome = Outcome("failed", overrides, message=full or message)
            if not full:
                self._record_failure(config, error)
        self.outcomes.append(outcome)

    def close(self, *, ended: Literal["KILLED", "FAILED"] | None = None) -> str | None:
        """End the parent run of a sweep as ``ended``, or by how its jobs ended; returns its id."""
        if self.sweep is None or "churnlab.tracking.runs" not in sys.modules:
            return None  # no run was opened
        from churnlab.tracking.runs import close_sweep

        failed = [outcome for outcome in self.outcomes if outcome.message]
        note = "\n".join(f"{' '.join(outcome.overrides)}: {outcome.message}" for outcome in failed)
        return close_sweep(ended or ("FAILED" if failed else "FINISHED"), note=note)

    def _perform(self, settings: Any, *, label: str) -> Result:
        """Open the store, read the table, and run the command unless a sweep has done so before."""
        command = importlib.import_module(f"churnlab.commands.{self.command}")
        if settings.experiment is None or settings.dry_run:
            if settings.opens_store or settings.dry_run:
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
                    f"A sweep of churnlab {self.command} needs a dataset: dataset=NAME."
                )
            sha256 = table[0].sha256 if table else None
            open_sweep(
                self.command, self.sweep, dataset_name=settings.dataset.name, data_sha256=sha256
            )
            job_label.set(label)
            earlier = self._finished(settings, table)
            if earlier is not None:
                log.info("already finished as run %s", earlier)
                return Result({"run_id": earlier})
        result = command.run(settings, *table)
        if not table:
            return result
        return Result(result.values | {"warnings": len(table[0].warnings)}, result.yes)

    def _finished(self, settings: Any, table: list[Dataset]) -> str | None:
        """Return the run of an earlier sweep that did the same; None if the job must be run."""
        from churnlab.tracking.search import finished_in_a_sweep

        if settings.force or not table or settings.reads_store:
            return None
        return finished_in_a_sweep(self.command, settings.model_dump(), table[0])

    def _record_failure(self, config: Mapping[str, Any], error: Exception) -> None:
        """Give a job of a sweep that failed before its run was opened a FAILED run of its own."""
        name = (config.get("dataset") or {}).get("name")
        kept = COMMANDS[self.command].experiment
        if self.sweep is None or hasattr(error, "run_id") or name is None or not kept:
            return
        from churnlab.tracking.runs import open_sweep, record_failure

        _open_store(config["tracking"]["uri"])
        open_sweep(self.command, self.sweep, dataset_name=name)
        record_failure(self.command, config, error, dataset_name=name)


def launch(command: str, options: list[str], overrides: list[str], *, root: Path) -> int:
    """Let Hydra compose and run the job or jobs; returns the exit code.

    ``root`` holds conf/ and experiments/; ``options`` are Hydra's own. InputError: Hydra refused.
    """
    arguments.check_outputs(command, options, overrides)
    arguments.check_choices(overrides, conf=root / "conf")
    jobs = Jobs(command)
    sweeps = hydra_compose.register_experiments(root / "experiments", command=command)
    mode = ["hydra.mode=MULTIRUN"] if sweeps.intersection(overrides) else []
    try:
        _compose_and_run(jobs, [*options, *mode], overrides, conf=root / "conf")
    except (KeyboardInterrupt, Terminated):
        with suppress(Exception):  # the store itself may be what was interrupted
            jobs.close(ended="KILLED")
        raise
    except SystemExit as leaving:  # argparse refused a word
        return WRONG_INPUT if leaving.code else DONE
    except (HydraException, OmegaConfBaseException, YAMLError, ValueError) as error:
        jobs.close(ended="FAILED")
        log.debug("%s", traceback.format_exc())
        raise InputError(hydra_compose.explain(error, command=command)) from None
    except OSError as error:  # jobs do not raise: Hydra could not make its folder
        raise InputError(
            f"Nothing can be written to {os.environ['CHURNLAB_HOME']} ({error.strerror}); set "
            "CHURNLAB_HOME to a folder of yours."
        ) from None
    parent = jobs.close()
    if not jobs.outcomes:  # Hydra only printed the config
        return DONE
    if jobs.sweep is None:
        return report_job(command, jobs.outcomes[0])
    repeated = [option for option in options if option not in ("-m", "--multirun")]
    return report_sweep(command, jobs.outcomes, parent=parent, options=repeated)


def _compose_and_run(jobs: Jobs, options: list[str], overrides: list[str], *, conf: Path) -> None:
    def job(config: DictConfig) -> None:
        composed = HydraConfig.get()
        task: Any = OmegaConf.to_container(composed.overrides.task, resolve=False)
        if composed.mode == RunMode.MULTIRUN:
            jobs.sweep = hydra_compose.sweep_words(overrides, composed.sweeper.get("params"))
        jobs.run(config, overrides=task)

    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra's own messages are for programmers
    sys.argv = [f"churnlab {jobs.command}", *options, *overrides]
    hydra.main(version_base="1.3", config_path=str(conf), config_name=jobs.command)(job)()


def _disk_is_full(error: BaseException) -> str | None:
    """Return the message for a full disk; None if the error has another cause."""
    home = os.environ["CHURNLAB_HOME"]
    reasons = exception_chain(error)
    refused = any(
        isinstance(reason, OSError) and reason.errno in (errno.ENOSPC, errno.EDQUOT)
        for reason in reasons
    )
    text = " ".join(map(str, reasons))
    if not refused and not any(
        words in text for words in ("disk is full", "disk I/O error", "unable to open database")
    ):
        return None
    if not refused and shutil.disk_usage(home).free > NO_ROOM:
        return None
    return (
        f"The disk is full: nothing more can be written to {home}. What was finished is kept; free "
        "some space and run the same command again."
    )


def _open_store(uri: str) -> None:
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
        versions.warn_of_drift(dataset, served, model=f"the champion (version {champion.version})")
