"""Let Hydra compose a command line, then run its job, or the jobs of a sweep."""

from __future__ import annotations

import logging
import os
import sys
import traceback
from contextlib import nullcontext
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
from churnlab.cli.arguments import PRINTING
from churnlab.cli.jobs import Job, perform
from churnlab.cli.next_step import next_step
from churnlab.cli.outcomes import ANSWER_IS_NO, DONE, WRONG_INPUT, Outcome, report_job, report_sweep
from churnlab.cli.presets import preset_words
from churnlab.cli.sweeps import Sweep
from churnlab.config.commands import COMMANDS
from churnlab.errors import InputError, JobError

log = logging.getLogger(__name__)

SAYS_MORE = ("-", "hydra", "experiment")
"""How words begin that are for Hydra itself, or can make a sweep."""


def launch(
    command: str, options: list[str], overrides: list[str], *, root: Path, as_json: bool
) -> int:
    """Let Hydra compose and run the job or jobs, and say what comes next; returns the exit code.

    ``root`` holds conf/ and experiments/; ``options`` are Hydra's own. ``as_json``: print
    the result line on a terminal, too. InputError: Hydra refused.
    """
    arguments.check_outputs(command, options, overrides)
    arguments.check_choices(overrides, conf=root / "conf")
    sweeps = hydra_compose.register_experiments(root / "experiments", command=command)
    mode = ["hydra.mode=MULTIRUN"] if sweeps.intersection(overrides) else []
    several = bool(mode or {"-m", "--multirun"} & {*options})
    words = quoting.quote_texts(command, overrides, several=several)
    presets = preset_words(command, overrides, root=root, folders=arguments.config_folders(options))
    words = [*options, *mode, *presets, *hydra_compose.open_model(words)]
    prints, composed = bool(PRINTING & {*options}), None
    try:
        with terminal.printing() if prints else nullcontext():
            composed = _compose(
                command, words, overrides, options, presets=presets, conf=root / "conf"
            )
    except SystemExit as leaving:  # argparse refused a word
        return WRONG_INPUT if leaving.code else DONE
    except (HydraException, OmegaConfBaseException, YAMLError, ValueError) as error:
        log.debug("%s", traceback.format_exc())
        raise InputError(hydra_compose.explain(error, command=command, words=overrides)) from None
    except OSError as error:  # jobs do not raise: Hydra could not make its folder
        raise InputError(
            f"Nothing can be written to {os.environ['CHURNLAB_HOME']} ({error.strerror}); set "
            "CHURNLAB_HOME to a folder of yours."
        ) from None
    if composed is None and several and not prints:
        raise InputError("The sweep has no job: one of its keys has no value (as range(1,1) has).")
    if composed is None:
        return DONE
    if isinstance(composed, Outcome):
        code = report_job(command, composed, as_json=as_json)
        _show_next(command, options, overrides, code, then=composed.then)
        return code
    try:
        with terminal.live(command):
            outcomes = composed.run()
    except JobError as error:  # outside of the jobs
        return report_job(command, Outcome("failed", [], message=str(error)))
    repeated = arguments.without_sweep(options)
    code = report_sweep(
        command, outcomes, parent=composed.parent, options=repeated, as_json=as_json
    )
    _show_next(command, options, overrides, code)
    return code


def _show_next(
    command: str, options: list[str], overrides: list[str], code: int, *, then: str | None = None
) -> None:
    """Print the command that comes next after a command that did its work."""
    if code in (DONE, ANSWER_IS_NO):
        terminal.show_next(next_step(command, options, overrides, yes=code == DONE, then=then))


def _compose(
    command: str,
    words: list[str],
    overrides: list[str],
    options: list[str],
    *,
    presets: list[str],
    conf: Path,
) -> Outcome | Sweep | None:
    """Return the jobs of a sweep, or the outcome of a plain command, which runs meanwhile."""
    repeated = tuple(arguments.without_sweep(options))
    found: Outcome | Sweep | None = None

    def job(config: DictConfig) -> None:
        nonlocal found
        composed = HydraConfig.get()
        task: Any = OmegaConf.to_container(composed.overrides.task, resolve=False)
        typed = [
            quoting.unquoted(command, hydra_compose.as_typed(word))
            for word in task
            if word not in presets
        ]
        made = _job(command, config, typed, options=repeated)
        if composed.mode != RunMode.MULTIRUN:
            with nullcontext() if COMMANDS[command].stays else terminal.live(command):
                found = perform(made)
            return
        if found is None:
            found = Sweep(hydra_compose.sweep_words(overrides, composed.sweeper.get("params")))
        assert isinstance(found, Sweep)
        found.add(made)

    is_plain = not any(word.lstrip("+~").startswith(SAYS_MORE) for word in words)
    if is_plain and (config := hydra_compose.one_job(command, words, conf=conf)) is not None:
        job(config)
        return found
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra's own messages are for programmers
    sys.argv = [f"churnlab {command}", *words]
    hydra.main(version_base="1.3", config_path=str(conf), config_name=command)(job)()
    return found


def _job(
    command: str, config: DictConfig, overrides: list[str], *, options: tuple[str, ...]
) -> Job:
    try:
        return Job(command, hydra_compose.plain(config), overrides, options=options)
    except InputError as error:
        return Job(command, {}, overrides, unresolved=str(error))
