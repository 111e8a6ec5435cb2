"""Hydra's side of the command line: named experiments, what identifies a sweep, and its errors in our words."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.errors import MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from churnlab.errors import meant, unknown_key

OPTIONS_WITH_A_VALUE = {
    "--config-dir",
    "-cd",
    "--config-name",
    "-cn",
    "--config-path",
    "-cp",
    "--package",
    "-p",
    "--cfg",
    "-c",
}

NOT_IN_A_SWEEP = {"force", "dry_run", "run_name", "reason", "tracking", "tracking.uri", "dataset.path"}
"""Keys that make no other sweep of a sweep."""


def register_experiments(folder: Path, *, command: str) -> None:
    """Make the experiments of one command known to Hydra as the choices of ``experiment=``.

    An experiment file opens with ``command: NAME``: what it is an experiment of.
    """
    for path in sorted(folder.glob("*.yaml")):
        experiment = OmegaConf.load(path)
        assert isinstance(experiment, DictConfig)
        if experiment.pop("command", None) == command:
            ConfigStore.instance().store(
                group="experiment", name=path.stem, node=experiment, package="_global_", provider=str(path)
            )


def plain(config: DictConfig) -> dict[str, Any]:
    """The composed config in plain types; what the user must give is still ``???``."""
    container = OmegaConf.to_container(config, resolve=True)
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}


def options_first(words: list[str]) -> list[str]:
    """The words with Hydra's options in front: its parser refuses overrides on both sides of an option."""
    options, overrides = [], []
    rest = iter(words)
    for word in rest:
        if not word.startswith("-"):
            overrides.append(word)
            continue
        options.append(word)
        if word in OPTIONS_WITH_A_VALUE:
            options += [value for value in [next(rest, None)] if value is not None]
    return [*options, *overrides]


def sweep_words(words: list[str], params: Mapping[str, str] | None) -> list[str]:
    """What identifies a sweep: the overrides on the command line and those of its experiment file."""
    given = [f"{key}={value}" for key, value in (params or {}).items()]
    given += [word for word in options_first(words) if "=" in word and not word.startswith("-")]
    return sorted(word for word in given if word.lstrip("+~").partition("=")[0] not in NOT_IN_A_SWEEP)


def explain(error: Exception, *, command: str, experiments: Path) -> str:
    """One paragraph for what Hydra refuses: what was found, what was probably meant, what exists."""
    cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else error
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        return _explain_choice(error, command=command, experiments=experiments)
    if (
        isinstance(cause, OmegaConfBaseException)
        and isinstance(cause.parent_node, DictConfig)
        and cause.key is not None
    ):
        return _explain_key(cause, command=command)
    text = " ".join(str(part) for part in (error, error.__cause__) if part)
    if "Multiple values for experiment" in text:
        return "The experiment is given twice: write experiment=NAME, without a plus."
    if "No match in the defaults list" in text:
        key = text.split("'")[1]
        return f"churnlab {command} has no key {key}; `churnlab {command} --help` lists those that it has."
    return " ".join(text.split())


def _explain_choice(error: MissingConfigException, *, command: str, experiments: Path) -> str:
    group, _, name = str(error.missing_cfg_file).rpartition("/")
    options = list(error.options or [])
    if not group:
        return f"There is no config {name} for churnlab {command}."
    if group == "experiment" and (experiments / f"{name}.yaml").exists():
        other = OmegaConf.load(experiments / f"{name}.yaml").command
        return f"experiment={name} is an experiment of another command: churnlab {other} experiment={name}."
    choices = ", ".join(options) or "none"
    return f"There is no {group}={name}.{meant(name, options, f'{group}=')} Choices of {group}: {choices}."


def _explain_key(error: OmegaConfBaseException, *, command: str) -> str:
    parent = error.parent_node
    assert isinstance(parent, DictConfig)
    full = str(error.full_key or error.key)
    *parents, key = full.split(".")
    if "is not in struct" not in str(error):
        return f"{full}: {str(error).splitlines()[0]}."
    known = [str(name) for name in parent if name != "hydra"]
    hint = f" A parameter that the YAML does not set needs a plus: +{full}=VALUE." if full.startswith("model.") else ""
    return unknown_key(parents, key, known) + hint
