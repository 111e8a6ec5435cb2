"""Let Hydra compose a command line, then run its job, or the jobs of a sweep."""

from __future__ import annotations

import logging
import os
import sys
import traceback
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from churnlab.cli import arguments, hydra_compose, quoting, terminal
from churnlab.cli.jobs import Job, perform
from churnlab.cli.outcomes import DONE, WRONG_INPUT, Outcome, report_job, report_sweep
from churnlab.cli.sweeps import Sweep
from churnlab.errors import InputError, JobError

log = logging.getLogger(__name__)


PRINTING = {"--cfg", "-c", "--info", "-i"}
"""Options with which Hydra prints the config and runs nothing."""


def launch(
    command: str, options: list[str], overrides: list[str], *, root: Path, as_json: bool
) -> int:
    """Let Hydra compose and run the job or jobs; returns the exit code.

    ``root`` holds conf/ and experiments/; ``options`` are Hydra's own. ``as_json``: print
    the result line on a terminal, too. InputError: Hydra refused.
    """
    arguments.check_outputs(command, options, overrides)
    arguments.check_choices(overrides, conf=root / "conf")
    sweeps = hydra_compose.register_experiments(root / "experiments", command=command)
    mode = ["hydra.mode=MULTIRUN"] if sweeps.intersection(overrides) else []
    several = bool(mode or {"-m", "--multirun"} & {*options})
    words = quoting.quote_texts(command, overrides, several=several)
    words = [*options, *mode, *hydra_compose.open_model(words)]
    try:
        composed = _compose(command, words, overrides, conf=root / "conf")
    except SystemExit as leaving:  # argparse refused a word
        return WRONG_INPUT if leaving.code else DONE
    except (HydraException, OmegaConfBaseException, YAMLError, ValueError) as error:
        log.debug("%s", traceback.format_exc())
        raise InputError(hydra_compose.explain(error, command=command)) from None
    except OSError as error:  # jobs do not raise: Hydra could not make its folder
        raise InputError(
            f"Nothing can be written to {os.environ['CHURNLAB_HOME']} ({error.strerror}); set "
            "CHURNLAB_HOME to a folder of yours."
        ) from None
    if composed is None and several and not PRINTING & {*options}:
        raise InputError("The sweep has no job: one of its keys has no value (as range(1,1) has).")
    if composed is None:
        return DONE
    if isinstance(composed, Outcome):
        return report_job(command, composed, as_json=as_json)
    try:
        with terminal.live(command):
            outcomes = composed.run()
    except JobError as error:  # outside of the jobs
        return report_job(command, Outcome("failed", [], message=str(error)))
    repeated = [option for option in options if option not in ("-m", "--multirun")]
    return report_sweep(
        command, outcomes, parent=composed.parent, options=repeated, as_json=as_json
    )


def _compose(
    command: str, words: list[str], overrides: list[str], *, conf: Path
) -> Outcome | Sweep | None:
    """Return the jobs of a sweep, or the outcome of a plain command, which runs meanwhile."""
    found: Outcome | Sweep | None = None

    def job(config: DictConfig) -> None:
        nonlocal found
        composed = HydraConfig.get()
        task: Any = OmegaConf.to_container(composed.overrides.task, resolve=False)
        made = _job(command, config, [hydra_compose.as_typed(word) for word in task])
        if composed.mode != RunMode.MULTIRUN:
            with terminal.live(command):
                found = perform(made)
            return
        if found is None:
            found = Sweep(hydra_compose.sweep_words(overrides, composed.sweeper.get("params")))
        assert isinstance(found, Sweep)
        found.add(made)

    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra's own messages are for programmers
    sys.argv = [f"churnlab {command}", *words]
    hydra.main(version_base="1.3", config_path=str(conf), config_name=command)(job)()
    return found


def _job(command: str, config: DictConfig, overrides: list[str]) -> Job:
    try:
        return Job(command, hydra_compose.plain(config), overrides)
    except InputError as error:
        return Job(command, {}, overrides, unresolved=str(error))
