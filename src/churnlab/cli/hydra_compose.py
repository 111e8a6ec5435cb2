"""Compose a plain command, register experiments with Hydra, identify sweeps, explain its errors."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.errors import MissingConfigException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from churnlab.cli.arguments import command_of_experiment
from churnlab.cli.outcomes import shell_words
from churnlab.config import validation
from churnlab.config.commands import COMMANDS
from churnlab.config.shipped import in_sight
from churnlab.errors import InputError, unknown_choice, unknown_key
from churnlab.formatting import elided

# Hydra 1.4 warns of both; Hydra 1.3 needs version_base, config.build says why without a whitelist.
for needless in ("The version_base parameter is deprecated", r"hydra\.utils\.instantiate"):
    warnings.filterwarnings("ignore", message=needless)

NOT_IN_A_SWEEP = {
    *("force", "dry_run", "run_name", "reason"),
    *("tracking", "tracking.uri", "dataset.path", "engine", "engine.workers", "engine.address"),
}
"""Keys that do not make it another sweep."""

NAMED = {"dataset", "model", "features", "segments"}
"""Keys whose values stand in the name of a run or of its experiment."""

RANGE = re.compile(r"\+*(?P<key>model\.space(?P<inner>(\.\w+)?))=")
RANGE_PART = re.compile(r"\+*(?P<key>model\.space\.\w+)\.\w+=")
"""A word that gives the range of a parameter, or that of several, and one that changes a part."""

UNRESOLVED = (
    "{key} cannot be resolved: ${{KEY}} stands for the value of another key and ${{oc.env:NAME}} "
    "for an environment variable, and this one leads to none. For the sign itself write \\${{."
)


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


def one_job(command: str, words: list[str], *, conf: Path) -> DictConfig | None:
    """Compose the config of a plain command; None: a YAML makes it a sweep.

    hydra.main would compose it twice, the first time only to see whether it is one.
    """
    with initialize_config_dir(str(conf), version_base="1.3"):
        config = compose(command, words, return_hydra_config=True)
    if config.hydra.mode == RunMode.MULTIRUN:
        return None
    HydraConfig.instance().set_config(config)
    with open_dict(config):
        del config["hydra"]
    return config


def plain(config: DictConfig) -> dict[str, Any]:
    """Return the composed config in plain types; a key that the user must give is still ``???``."""
    try:
        container = OmegaConf.to_container(config, resolve=True)
    except OmegaConfBaseException as error:
        raise InputError(UNRESOLVED.format(key=error.full_key)) from error
    assert isinstance(container, dict)
    model = container.get("model")
    if isinstance(model, dict) and "given" in model:
        given, space = model.pop("given"), model.get("space")
        both = isinstance(given, dict) and isinstance(space, dict)
        model["space"] = space | given if both else given
    return {str(key): value for key, value in container.items()}


def open_model(words: list[str]) -> list[str]:
    """Let the words of a command line set parameters that the model's YAML does not.

    Hydra would refuse them without a plus, and merge a whole range with the YAML's: ``plain`` puts
    it in its place. InputError: a range is given whole and in part.
    """
    whole = {match["key"] for word in words if (match := RANGE.match(word))}
    for word in words:
        if (part := RANGE_PART.match(word)) and part["key"] in whole:
            raise InputError(
                f"{word} changes a part of {part['key']}, which is also given whole; give one of "
                "the two."
            )
    return [
        f"++{word.lstrip('+')}"
        if word.lstrip("+").startswith(("model.estimator.", "model.space.", "model.trusted="))
        else word
        for word in (RANGE.sub(r"++model.given\g<inner>=", word) for word in words)
    ]


def as_typed(word: str) -> str:
    """Return a word that ``open_model`` rewrote as a user types it.

    >>> as_typed("++model.given.C=[1,10]"), as_typed("++model.estimator.C=1"), as_typed("+a=1")
    ('model.space.C=[1,10]', 'model.estimator.C=1', '+a=1')
    """
    plain = word.removeprefix("++").replace("model.given", "model.space", 1)
    return plain if plain.startswith("model.") else word


def sweep_words(overrides: list[str], params: Mapping[str, str] | None) -> list[str]:
    """Return the overrides that identify a sweep: the command line's and its experiment file's."""
    given = [*[f"{key}={value}" for key, value in (params or {}).items()], *overrides]
    return sorted(
        word for word in given if word.lstrip("+~").partition("=")[0] not in NOT_IN_A_SWEEP
    )


def swept_keys(jobs: Sequence[Sequence[str]]) -> list[str]:
    """Return the keys in which the overrides of a sweep's jobs differ.

    >>> swept_keys([["seed=0", "+model.estimator.C=1"], ["seed=0", "+model.estimator.C=10"]])
    ['model.estimator.C']
    """
    given = [given_values(words) for words in jobs]
    keys = dict.fromkeys(key for values in given for key in values)
    return [key for key in keys if len({values.get(key) for values in given}) > 1]


def given_values(overrides: Sequence[str]) -> dict[str, str]:
    """Return the values of overrides by key."""
    return dict(word.lstrip("+").split("=", 1) for word in overrides if "=" in word)


def describe_job(swept: Sequence[str], overrides: Sequence[str]) -> str:
    """Return the swept keys of a job that its run's name does not contain anyway.

    >>> describe_job(["model", "model.estimator.C"], ["model=dummy", "model.estimator.C=1"])
    'C=1'
    """
    values = given_values(overrides)
    return " ".join(
        f"{key.rpartition('.')[2]}={elided(values[key], 40)}"
        for key in swept
        if key in values and key not in NAMED
    )


def explain(error: Exception, *, command: str, words: Sequence[str] = ()) -> str:
    """Explain Hydra's error in one paragraph: what was found, what was meant, what exists.

    ``words`` are the overrides as they were typed.
    """
    cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else error
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, name = str(error.missing_cfg_file).rpartition("/")
        options = [option for option in error.options or [] if not option.startswith("_")]
        missing = f"There is no config {name} for churnlab {command}."
        offered = in_sight(group, name)
        return f"{unknown_choice(group, name, options)}{offered}" if group else missing
    if isinstance(parent := getattr(cause, "parent_node", None), DictConfig):
        return _explain_key(cause, parent, command=command, words=words)
    if isinstance(error, OverrideParseException):
        return _explain_word(error.override, command=command)
    text = " ".join(str(part) for part in (error, error.__cause__) if part)
    named = [*re.findall("'(.*?)'", text), ""][0]
    if isinstance(error, YAMLError):
        mark = getattr(error, "problem_mark", error)
        return f"A YAML file cannot be read; check brackets, quotes and indents:{mark}."
    if "--multirun" in text and not named:
        return "--cfg and --info show the config of one job: leave out -m (--multirun)."
    if "--multirun" in text:
        key, _, value = named.partition("=")
        return (
            f"{named} is several values: add -m (--multirun) to run a job for each. One value with "
            f"commas needs quotes, '{key}=\"{value}\"', and a list brackets: {key}=[{value}]."
        )
    if "Additional config directory" in text:
        return f"There is no folder {named}; --config-dir takes the folder of your YAMLs."
    if "Config group override must be a string" in text:
        return f"A group needs the name of a choice; churnlab {command} --help lists the choices."
    return (
        f"{named or 'A word'} cannot be set, added (+), deleted (~) or swept like this; churnlab "
        f"{command} --help lists its keys and choices."
    )


def _explain_word(word: str, *, command: str) -> str:
    """Say how to write a word that Hydra's grammar does not read."""
    key, equals, value = word.partition("=")
    if not equals:
        shown = word or "An empty word ('')"
        return f"{shown} cannot be read as KEY=VALUE; churnlab {command} --help lists the keys."
    if not re.fullmatch(r"[+~]*[\w.@/:$-]+", key, re.ASCII):
        return (
            f"{word} cannot be read: a key of a command line has only Latin letters, digits, _ and "
            "dots. Set this one in a YAML of your own."
        )
    value = value.strip("'\"")
    single, double = value.replace("'", "\\'"), value.replace('"', '\\"')
    text = f"'{key}=\"{double}\"'" if single == value else f"\"{key}='{single}'\""
    return (
        f"{word} cannot be read as KEY=VALUE: brackets and quotes must be closed. If they are part "
        f"of a text, it needs quotes, {text}."
    )


def _explain_key(error: Any, parent: DictConfig, *, command: str, words: Sequence[str]) -> str:
    full = str(error.full_key or error.key)
    *parents, key = full.split(".")
    if "is not in struct" not in str(error):
        return f"{full}: {str(error).splitlines()[0]}."
    if key in validation.known_keys(COMMANDS[command], parents):
        given = [f"+{word}" for word in words if word.startswith(f"{full}=")]
        added = shell_words(given) or f"+{full}=VALUE"
        return f"The YAML in use does not set {full}; add it with a plus: {added}"
    known = [str(name) for name in parent if name != "hydra"]
    return unknown_key(parents, key, known)
