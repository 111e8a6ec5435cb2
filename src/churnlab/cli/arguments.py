"""The words of a command line, looked at before Hydra, which takes half a second to say what is
wrong with them."""

from __future__ import annotations

import re
from pathlib import Path

from churnlab.config import validation
from churnlab.config.commands import COMMANDS
from churnlab.errors import InputError, meant, unknown_choice

OPTIONS = (
    "--multirun",
    "-m",
    "--run",
    "-r",
    "--resolve",
    "--info",
    "-i",
    "--hydra-help",
    "--shell-completion",
    "-sc",
)
OPTIONS_WITH_A_VALUE = (
    *("--config-dir", "-cd", "--config-name", "-cn", "--config-path", "-cp"),
    *("--package", "-p", "--cfg", "-c"),
)

OVERRIDE = re.compile(r"(?P<sign>[+~]*)(?P<key>[\w.]+)=(?P<value>.*)", re.DOTALL)
"""KEY=VALUE; names of groups with / or @ are Hydra's to check."""

CHOICES = re.compile(r"[\w-]+(,[\w-]+)*")
"""One choice, or several of a sweep; other values, as choice(a,b), are Hydra's to read."""


def split(words: list[str]) -> tuple[list[str], list[str]]:
    """Hydra's options, which may stand anywhere, and the overrides."""
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
            known = [
                option for option in (*OPTIONS_WITH_A_VALUE, *OPTIONS) if option.startswith("--")
            ]
            raise InputError(
                f"There is no option {name}.{meant(name, known)} Options: --help, "
                f"{', '.join(known)}."
            )
    return options, overrides


def named(command: str, overrides: list[str]) -> list[str]:
    """The overrides with a key for the word that needs none: ``churnlab init FILE`` is
    ``path=FILE``."""
    key = COMMANDS[command].positional
    if key is None:
        return overrides
    quoted = {word: word.replace("\\", "\\\\").replace("'", "\\'") for word in overrides}
    return [
        word if "=" in word or word[:1] in "~+" else f"{key}='{quoted[word]}'" for word in overrides
    ]


def check(command: str, overrides: list[str], *, root: Path | None) -> None:
    """Refuse keys that the command does not have, and choices that are not there.

    ``root`` holds conf/ and experiments/; None leaves it to Hydra which choices there are.
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
                options = sorted(path.stem for path in folder.glob("*.yaml"))
                if name not in [*options, "null"]:
                    raise InputError(unknown_choice(key, name, options))


def command_of_experiment(folder: Path) -> dict[str, str]:
    """The named experiments and the command that each is one of, which its file opens with:
    ``command: NAME``."""
    told = {
        path.stem: re.search(r"^command: *(\w+)", path.read_text(encoding="utf-8"), re.MULTILINE)
        for path in sorted(folder.glob("*.yaml"))
    }
    return {name: command[1] for name, command in told.items() if command}


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
