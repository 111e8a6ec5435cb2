"""Check the words of a command line before Hydra does, which takes half a second to start."""

from __future__ import annotations

import re
from pathlib import Path

from churnlab.cli.terminal import FLAGS
from churnlab.config import validation
from churnlab.config.commands import COMMANDS
from churnlab.config.shipped import in_sight
from churnlab.errors import InputError, did_you_mean, unknown_choice

OPTIONS = ("--multirun", "-m", "--run", "-r", "--resolve", "--info", "-i", "--hydra-help")
OPTIONS_WITH_A_VALUE = (
    *("--config-dir", "-cd", "--config-name", "-cn", "--config-path", "-cp"),
    *("--package", "-p", "--cfg", "-c"),
)

PRINTING = {"--cfg", "-c", "--info", "-i"}
"""Options with which Hydra prints the config and runs nothing."""

OVERRIDE = re.compile(r"(?P<sign>[+~]*)(?P<key>[\w.]+)=(?P<value>.*)", re.DOTALL)
"""KEY=VALUE; Hydra checks the names of groups with / or @."""

CHOICES = re.compile(r"[\w-]+(,[\w-]+)*")
"""One choice, or several of a sweep; Hydra reads other values, such as choice(a,b)."""

SEVERAL = re.compile(r"[^\[{'\"]*[,(]")
"""Several values of a sweep: no list, block or quoted text."""


def split(words: list[str]) -> tuple[list[str], list[str]]:
    """Split words into Hydra's options, which may stand anywhere, and overrides."""
    options, overrides = [], []
    rest = iter(words)
    for word in rest:
        name = word.partition("=")[0]
        if not word.startswith("-"):
            overrides.append(word)
        elif word in OPTIONS_WITH_A_VALUE:
            value = next(rest, None)
            if value is None:
                raise InputError(f"The option {word} needs a value after it.")
            options += [word, value]
        elif name in (*OPTIONS, *OPTIONS_WITH_A_VALUE):
            options.append(word)
        else:
            known = [full for full in (*FLAGS, *OPTIONS_WITH_A_VALUE, *OPTIONS) if full[:2] == "--"]
            raise InputError(
                f"There is no option {name}.{did_you_mean(name, known)} Options: --help, "
                f"{', '.join(known)}."
            )
    return options, overrides


def without_sweep(options: list[str]) -> list[str]:
    """Return the options of a command line with which one of its jobs is run."""
    return [option for option in options if option not in ("-m", "--multirun")]


def named(command: str, overrides: list[str]) -> list[str]:
    """Add the key to a word that needs none: ``churnlab init FILE`` is ``path=FILE``."""
    key = COMMANDS[command].positional
    known = COMMANDS[command].model_fields
    bare = [
        word
        for word in overrides
        if ("=" not in word and word[:1] not in "~+")
        or (re.split(r"[.=]", word)[0] not in known and Path(word).is_file())
    ]
    if key is None or not bare:
        return overrides
    given = [word for word in overrides if word in bare or word.startswith(f"{key}=")]
    if len(given) > 1:
        raise InputError(
            f"churnlab {command} takes one {key} and got {len(given)}: {', '.join(given)}. A word "
            f"without a key is its {key}; run the command once for each."
        )
    return [f"{key}={quoted(word)}" if word in bare else word for word in overrides]


def quoted(text: str) -> str:
    r"""Quote a text for Hydra, where a backslash escapes a quote and backslashes before one.

    >>> print(quoted("it's"))
    'it\'s'
    """
    escaped = re.sub(r"\\*(?='|\Z)", lambda run: 2 * run[0], text).replace("'", "\\'")
    return f"'{escaped}'"


def config_folders(words: list[str]) -> list[Path]:
    """Return the folders of YAMLs that a command line names besides churnlab's own."""
    folders = [word.partition("=")[2] for word in words if re.match("(--config-dir|-cd)=", word)]
    folders += [
        value
        for word, value in zip(words, words[1:], strict=False)
        if word in ("--config-dir", "-cd")
    ]
    for word in words:
        key, _, value = word.partition("=")
        if key == "hydra.searchpath":
            folders += [path for path in re.split(r"[\[\],'\"]+", value) if "pkg://" not in path]
    return [Path(folder.strip().removeprefix("file://")) for folder in folders if folder.strip()]


def check_outputs(command: str, options: list[str], overrides: list[str]) -> None:
    """Refuse a sweep in which several jobs write the same file; the default has a name of these."""
    if "output" not in COMMANDS[command].model_fields or not {"-m", "--multirun"} & {*options}:
        return
    given = dict(word.lstrip("+").partition("=")[::2] for word in overrides)
    swept = {key for key, value in given.items() if SEVERAL.match(value)}
    names = {"output"} if "output" in given else {"dataset", "dataset.name", "path", "name"}
    if swept - names and "${" not in given.get("output", ""):
        raise InputError(
            "Several jobs of this sweep would write the same file, each over the last. Put "
            f"{' and '.join(sorted(swept - names))} into its name: 'output=${{KEY}}.csv'."
        )


def check(command: str, overrides: list[str], *, root: Path | None) -> None:
    """Refuse unknown keys and choices.

    ``root`` is the folder of conf/ and experiments/; None leaves the check of choices to Hydra.
    """
    for word in overrides:
        given = OVERRIDE.fullmatch(word)
        if given is None:
            continue
        sign, key, value = given["sign"], given["key"], given["value"]
        if key == "experiment" and sign:
            raise InputError(f"An experiment is chosen without {sign}: experiment={value}.")
        if key != "experiment" and not key.startswith("hydra."):
            validation.check_key(command, key.split("."))
        if root is None or not CHOICES.fullmatch(value):
            continue
        for name in value.split(","):
            if key == "experiment":
                _check_experiment(command, name, command_of_experiment(root / "experiments"))
            elif (folder := root / "conf" / key).is_dir():
                options = sorted(path.stem for path in folder.glob("[!_]*.yaml"))
                if name not in [*options, "null"]:
                    offered = in_sight(key, name)
                    raise InputError(f"{unknown_choice(key, name, options)}{offered}")


def command_of_experiment(folder: Path) -> dict[str, str]:
    """Map each experiment to its command, which its file opens with: ``command: NAME``."""
    found = {
        path.stem: re.search(r"^command: *(\w+)", path.read_text(encoding="utf-8"), re.MULTILINE)
        for path in sorted(folder.glob("*.yaml"))
    }
    return {name: command[1] for name, command in found.items() if command}


def _check_experiment(command: str, name: str, known: dict[str, str]) -> None:
    own = [experiment for experiment, of in known.items() if of == command]
    if name in known and name not in own:
        raise InputError(
            f"experiment={name} is an experiment of another command: churnlab {known[name]} "
            f"experiment={name}."
        )
    if not own:
        others = [f"churnlab {of} experiment={experiment}" for experiment, of in known.items()]
        raise InputError(f"churnlab {command} has no experiments; there are {', '.join(others)}.")
    if name not in [*own, "null"]:
        raise InputError(unknown_choice("experiment", name, own))


def check_choices(overrides: list[str], *, conf: Path) -> None:
    """Refuse a list of choices for a group: Hydra would merge them, and the last would win."""
    for word in overrides:
        group, _, value = word.partition("=")
        if value.startswith("[") and group and (conf / group).is_dir():
            raise InputError(
                f"{word} is a list, and {group} takes one choice; for a job with each, write "
                f"-m {group}={value.strip('[]')}."
            )
