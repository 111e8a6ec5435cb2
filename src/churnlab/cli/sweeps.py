"""Run the jobs of a sweep under one parent run, by the engine: in this process or in several.

Each job, studies too, runs in one process.
"""

from __future__ import annotations

import logging
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

from hydra.core.hydra_config import HydraConfig
from hydra.utils import get_class
from omegaconf import DictConfig, OmegaConf

from churnlab.cli import terminal
from churnlab.cli.hydra_compose import NAMED, describe_job, given_values, swept_keys
from churnlab.cli.jobs import Job, failure_in_words, open_store, perform
from churnlab.cli.outcomes import Outcome
from churnlab.cli.presets import read_yaml
from churnlab.config.commands import COMMANDS, INLINE
from churnlab.config.shipped import ROOT
from churnlab.errors import InputError, JobError, Terminated
from churnlab.formatting import Lines, Table, counted, duration
from churnlab.tracking.processes import interruption, process
from churnlab.tuning.dask_engine import Dask
from churnlab.tuning.needs import needs_of
from churnlab.tuning.pool import ATTEMPTS, is_worker
from churnlab.tuning.workers import Inline, Processes, cause_of_death

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)

STATUS = {"done": "done", "no": "answer no", "input": "bad input", "failed": "failed"}
"""How the table of jobs calls each status of an outcome."""

MOST_ROWS = 30
"""How many jobs the table on stderr shows."""

WARM = (
    *("churnlab.cli.jobs", "churnlab.config.build", "churnlab.registry.versions"),
    *("churnlab.tracking.sweeps", "churnlab.plots.comparison", "churnlab.data.demo"),
    *("mlflow.store.tracking.sqlalchemy_workspace_store", "mlflow.sklearn", "mlflow.pyfunc"),
    *("git", "matplotlib.backends.backend_agg"),
)
"""What every worker needs, besides the command."""


@dataclass
class Sweep:
    """Collect the jobs of a sweep, then run them; ``words`` are the overrides that identify it."""

    words: list[str]
    jobs: list[Job] = field(default_factory=list)
    hydra: list[DictConfig] = field(default_factory=list)
    parent: str | None = None

    def add(self, job: Job) -> None:
        """Add a job that Hydra has composed; the first one starts the workers' imports."""
        self.jobs.append(replace(job, is_swept=True))
        self.hydra.append(OmegaConf.masked_copy(HydraConfig.instance().cfg, ["hydra"]))
        if len(self.jobs) == 1:
            with suppress(InputError):  # run raises it: from here Hydra would report it, too
                first = ["skops.io"] if COMMANDS[job.command].fits_models else []  # see jobs
                modules = [*first, *WARM, f"churnlab.commands.{job.command}"]
                _engine(self.jobs).warm_up(modules)

    def run(self) -> list[Outcome]:
        """Run all jobs and return their outcomes. A signal ends the parent run as KILLED."""
        engine = _engine(self.jobs)
        with (
            tempfile.TemporaryDirectory(prefix="churnlab-") as warned_in,
            engine.pool(needs_of(job.config for job in self.jobs)) as calls,
            _killed_by_signals(lambda: self.parent),
        ):
            swept = swept_keys([job.overrides for job in self.jobs])
            jobs = [
                replace(job, warned_in=warned_in, label=describe_job(swept, job.overrides))
                for job in self.jobs
            ]
            first = jobs[0]
            opened = calls.run(partial(_open, self.words, process()), [first], on_death=_give_up)
            if isinstance(opened[0], Exception):
                raise opened[0]
            self.parent = opened[0]
            numbered = [
                (number, replace(job, parent=self.parent).inline(), hydra)
                for number, (job, hydra) in enumerate(zip(jobs, self.hydra, strict=True), 1)
            ]
            started = time.monotonic()
            outcomes = calls.run(
                _perform,
                numbered,
                on_start=lambda place, done: self._say(
                    place, done, time.monotonic() - started, swept
                ),
                on_death=self._replaced,
            )
            if self.parent is not None:
                finish = partial(_finish, first, self.parent)
                calls.run(finish, [outcomes], on_death=_give_up)
        return outcomes

    def _say(self, place: int, done: int, seconds: float, swept: Sequence[str]) -> None:
        """Log which job starts, by what it differs in, and how long the rest takes if it goes on
        like this."""
        left = f" ({duration(seconds / done * (len(self.jobs) - done))} left)" if done else ""
        words = self.jobs[place].overrides
        differing = [word for word in words if word.lstrip("+").partition("=")[0] in swept]
        text = " ".join(differing or words)
        log.info("job %d of %d%s: %s", place + 1, len(self.jobs), left, text)

    def _replaced(self, place: int, attempts: int, code: int | None) -> Outcome:
        """Log that a job's worker died; return the outcome of the job unless it is run again."""
        cause = cause_of_death(code)
        if attempts < ATTEMPTS:
            log.warning("The worker of job %d died %s; the job is run again.", place + 1, cause)
        message = (
            f"its worker died {attempts} times, the last {cause}. Use fewer workers "
            "(engine.workers) or a smaller model."
        )
        return Outcome("failed", self.jobs[place].overrides, message=message)


def _engine(jobs: Sequence[Job]) -> Inline | Processes | Dask:
    """Build the engine that runs the jobs; a dry run needs no workers.

    InputError: it is swept itself or cannot be built.
    """
    specs = [job.engine for job in jobs if job.engine is not None] or [INLINE]
    if any(spec != specs[0] for spec in specs):
        raise InputError("The engine runs the jobs of a sweep: give engine and its keys one value.")
    spec = dict(specs[0])
    try:
        engine: Inline | Processes | Dask = get_class(spec.pop("_target_"))(**spec)
    except (ImportError, TypeError) as error:
        raise InputError(f"engine cannot be made of {dict(specs[0])}: {error}") from None
    return Inline() if all(job.config.get("dry_run") for job in jobs) else engine


def _give_up(place: int, attempts: int, code: int | None) -> None:
    if attempts == ATTEMPTS:
        raise JobError(
            f"{attempts} workers died, the last {cause_of_death(code)}, before or after the jobs. "
            "What was finished is kept; run the same command again with fewer workers."
        )


@contextmanager
def _killed_by_signals(parent: Callable[[], str | None]) -> Iterator[None]:
    """End the parent run of the sweep as KILLED when a signal stops this process.

    In a process that leads others, they do so.
    """
    try:
        yield
    except (KeyboardInterrupt, Terminated):
        run_id = parent()
        if run_id is not None and "churnlab.tracking.sweeps" in sys.modules:
            from churnlab.tracking.sweeps import end_sweep

            with suppress(Exception):  # the store itself may be what was interrupted
                end_sweep(run_id, "KILLED")
        raise


def _open(words: list[str], leader: str, job: Job) -> str | InputError | JobError | None:
    """Open the sweep's parent run; return its id, None without one, or why it cannot be opened.

    The table of the first job is part of the sweep's identity, if it can be read.
    """
    kind = COMMANDS[job.command]
    if kind.experiment is None or job.dataset_name is None or job.config.get("dry_run"):
        return None
    from churnlab.config import validation
    from churnlab.config.build import load_dataset
    from churnlab.tracking.sweeps import active, open_sweep

    _log_as("", job)
    with _killed_by_signals(active):
        try:
            open_store(job.config["tracking"]["uri"])
            sha256 = None
            if kind.reads_table:
                with suppress(InputError):  # the job itself says what is wrong
                    sha256 = load_dataset(validation.read(job.command, job.config).dataset).sha256
            return open_sweep(
                job.command,
                words,
                dataset_name=job.dataset_name,
                data_sha256=sha256,
                process=leader,
            )
        except InputError as error:
            return error
        except Exception as error:
            if stopped := interruption(error):
                raise stopped from None
            return JobError(failure_in_words(error))


def _perform(numbered: tuple[int, Job, DictConfig]) -> Outcome:
    number, job, hydra = numbered
    HydraConfig.instance().cfg = hydra
    _log_as(f"job {number}: ", job)
    with _killed_by_signals(lambda: job.parent):
        return perform(job)


def _log_as(prefix: str, job: Job) -> None:
    """Begin the log lines of a worker process with the number of its job."""
    if is_worker():
        terminal.log_to_stderr(prefix, is_worker=True, warned_in=job.warned_in)


def _finish(first: Job, parent: str, outcomes: list[Outcome]) -> None:
    """Log the table and the figure of all jobs, and end the parent run; a failure is a warning."""
    from churnlab.tracking import sweeps
    from churnlab.tracking.store import ui_command
    from churnlab.tracking.view import models_view

    _log_as("", first)
    failed = [outcome for outcome in outcomes if outcome.message]
    notes = [f"{' '.join(outcome.overrides)}: {outcome.message}" for outcome in failed]
    with _killed_by_signals(lambda: parent):
        try:
            open_store(first.config["tracking"]["uri"])
            sweeps.join(parent)
            metric = first.config.get("metric")
            swept, table, best = _log_jobs(parent, outcomes, metric=metric)
            log.info("\n%s%s", table, best and f"\n{best}")
            if best and metric is not None and first.dataset_name is not None:
                params, name = _params(first, swept), f"churnlab-{parent[:8]}"
                address = models_view(first.dataset_name, metric=metric, params=params, name=name)
                opened = f" ({command})" if (command := ui_command()) else ""
                log.info("In the MLflow UI%s: %s", opened, address)
            notes = [best, *notes] if best else notes
            sweeps.end_sweep(parent, "FAILED" if failed else "FINISHED", note="\n\n".join(notes))
        except Exception as error:
            if stopped := interruption(error):
                raise stopped from None
            log.warning("The sweep's own run is not complete: %s", failure_in_words(error))


def _params(job: Job, swept: Sequence[str]) -> list[str]:
    """Return the params of train runs that a sweep varied and that their name's columns lack."""
    train = COMMANDS["train"].model_fields
    keys = [key for key in swept if key not in NAMED and key.partition(".")[0] in train]
    return [f"{key}._target_" if isinstance(job.config.get(key), Mapping) else key for key in keys]


def _log_jobs(
    parent: str, outcomes: Sequence[Outcome], *, metric: str | None
) -> tuple[list[str], str, str]:
    """Log the table and the figure of all jobs; return the swept keys, the table for people, and
    the best job."""
    from churnlab.tracking import artifacts, sweeps

    swept, table = _table(outcomes)
    # What is too good to be true is no key of the commands that rank jobs.
    ceiling = read_yaml(ROOT / "conf/ceiling/default.yaml")
    ranked, comparable = sweeps.log_jobs(parent, table, metric=metric, ceiling=ceiling)
    columns = [column for column in ("k", f"cv_{metric}") if column in ranked]
    text = _format(ranked[["job", *swept, *columns, "seconds", "status", "run_id"]])
    if metric is None or f"cv_{metric}" not in ranked:
        return swept, text, ""
    from churnlab.plots import comparison

    figure = comparison.jobs(ranked, swept, metric=metric, comparable=comparable)
    artifacts.log_figure(figure, "jobs")
    return swept, text, _best(ranked, swept, metric=metric, comparable=comparable)


def _table(outcomes: Sequence[Outcome]) -> tuple[list[str], pd.DataFrame]:
    """Return the swept keys, and a row per job: its number, its swept keys, status and run."""
    import pandas as pd

    given = [given_values(outcome.overrides) for outcome in outcomes]
    swept = swept_keys([outcome.overrides for outcome in outcomes])
    rows = [
        {"job": number}
        | {key: words.get(key, "") for key in swept}
        | {"status": STATUS[outcome.status], "run_id": outcome.values.get("run_id") or ""}
        for number, (outcome, words) in enumerate(zip(outcomes, given, strict=True), 1)
    ]
    return swept, pd.DataFrame(rows)


def _best(table: pd.DataFrame, swept: Sequence[str], *, metric: str, comparable: bool) -> str:
    """Say which job is best; jobs on other members or folds are not compared without saying so."""
    from churnlab.evaluation.metric_names import LABELS

    best = table.iloc[0]
    if best["suspect"]:
        return f"No job is the best: every score is too good to be true ({best['suspect']})."
    what = ", ".join(f"{key}={best[key]}" for key in swept) or "the only one"
    scored = int((table[f"cv_{metric}"].notna() & (table["suspect"] == "")).sum())
    sentence = (
        f"Best of {counted(scored, 'job')} by cross-validated {LABELS[metric]}: job "
        f"{best['job']} with {best[f'cv_{metric}']:.4f} ({what}), run {best['run_id']}."
    )
    if comparable:
        return sentence
    return f"{sentence} The jobs have different members or folds: their order ranks no models."


def _format(table: pd.DataFrame) -> str:
    """Return the table for the terminal: its first rows, run ids cut as git cuts them."""
    shown = table.head(MOST_ROWS).assign(
        seconds=table["seconds"].map("{:.1f}".format, na_action="ignore"),
        run_id=table["run_id"].str[:8],
    )
    more = len(table) - MOST_ROWS
    rest = [f"... and {counted(more, 'more job')} in jobs.csv"] if more > 0 else []
    return Lines.of([Table.of(shown, missing="-", floats="{:.4f}".format), *rest])
