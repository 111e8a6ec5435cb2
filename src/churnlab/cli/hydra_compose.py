"""Register experiments with Hydra, identify sweeps, and explain Hydra's errors."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.errors import MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from churnlab.cli.arguments import command_of_experiment
from churnlab.config import validation
from churnlab.config.commands import COMMANDS
from churnlab.errors import InputError, unknown_choice, unknown_key

# Hydra 1.4 warns of both; Hydra 1.3 needs version_base, config.build says why without a whitelist.
for needless in ("The version_base parameter is deprecated", r"hydra\.utils\.instantiate"):
    warnings.filterwarnings("ignore", message=needless)

NOT_IN_A_SWEEP = {
    *("force", "dry_run", "run_name", "reason"),
    *("tracking", "tracking.uri", "dataset.path"),
}
"""Keys that do not make it another sweep."""


def register_experiments(folder: Path, *, command: str) -> set[str]:
    """Register the experiments of one command with Hydra as the choices of ``experiment=``.

    Returns the overrides that choose a sweep: Hydra 1.4 does not read the mode of an experiment.
    """
    sweeps, store = set(), ConfigStore.instance()
    store.repo.pop("experiment", None)  # of the command that this process ran before
    for name, of in command_of_experiment(folder).items():
        if of == command:
            path = folder / f"{name}.yaml"
            experiment = OmegaConf.load(path)
            assert isinstance(experiment, DictConfig)
            experiment.pop("command")
            if OmegaConf.select(experiment, "hydra.mode") == "MULTIRUN":
                sweeps.add(f"experiment={name}")
            store.store(
                name, experiment, group="experiment", package="_global_", provider=str(path)
            )
    return sweeps


def plain(config: DictConfig) -> dict[str, Any]:
    """Return the composed config in plain types; a key that the user must give is still ``???``."""
    try:
        container = OmegaConf.to_container(config, resolve=True)
    except OmegaConfBaseException as error:
        raise InputError(f"{error.full_key}: {str(error).splitlines()[0]}.") from error
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}


def sweep_words(overrides: list[str], params: Mapping[str, str] | None) -> list[str]:
    """Return the overrides that identify a sweep: the command line's and its experiment file's."""
    given = [*[f"{key}={value}" for key, value in (params or {}).items()], *overrides]
    return sorted(
        word for word in given if word.lstrip("+~").partition("=")[0] not in NOT_IN_A_SWEEP
    )


def describe_job(sweep: list[str], overrides: list[str]) -> str:
    """Return the swept keys of a job that its run's name does not contain anyway."""
    swept = {word.partition("=")[0] for word in sweep if "," in word or "(" in word}
    keys = [word.partition("=")[::2] for word in overrides if word.partition("=")[0] in swept]
    return " ".join(
        f"{key.rpartition('.')[2]}={value}" for key, value in keys if "." in key or key == "seed"
    )


def explain(error: Exception, *, command: str) -> str:
    """Explain Hydra's error in one paragraph: what was found, what was meant, what exists."""
    cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else error
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        return _explain_choice(error, command=command)
    if (
        isinstance(cause, OmegaConfBaseException)
        and isinstance(cause.parent_node, DictConfig)
        and cause.key is not None
    ):
        return _explain_key(cause, command=command)
    if isinstance(error, OverrideParseException):
        return (
            f"{error.override} cannot be read as KEY=VALUE. Put a value with brackets, commas "
            "or equals signs in double quotes, and the whole in single quotes: 'KEY=\"VALUE\"'."
        )
    text = " ".join(str(part) for part in (error, error.__cause__) if part)
    if isinstance(error, YAMLError):
        return f"A YAML file cannot be read: {' '.join(text.split())}."
    if "Config group override must be a string" in text:
        return f"A group needs the name of a choice; churnlab {command} --help lists the choices."
    if "Multiple values for experiment" in text:
        return "The experiment is given twice; give it once: experiment=NAME."
    if "No match in the defaults list" in text:
        key = text.split("'")[1]
        return f"churnlab {command} has no key {key}; churnlab {command} --help lists its keys."
    return " ".join(text.split())


def _explain_choice(error: MissingConfigException, *, command: str) -> str:
    group, _, name = str(error.missing_cfg_file).rpartition("/")
    options = [option for option in error.options or [] if not option.startswith("_")]
    if not group:
        return f"There is no config {name} for churnlab {command}."
    return unknown_choice(group, name, options)


def _explain_key(error: OmegaConfBaseException, *, command: str) -> str:
    parent = error.parent_node
    assert isinstance(parent, DictConfig)
    full = str(error.full_key or error.key)
    *parents, key = full.split(".")
    if "is not in struct" not in str(error):
        return f"{full}: {str(error).splitlines()[0]}."
    if key in validation.known_keys(COMMANDS[command], parents):
        return (
            f"The YAML in use does not set {full}; to set it, put a plus before it: +{full}=VALUE."
        )
    known = [str(name) for name in parent if name != "hydra"]
    hint = (
        f" A parameter that the YAML does not set needs a plus: +{full}=VALUE."
        if full.startswith("model.")
        else ""
    )
    return unknown_key(parents, key, known) + hint
