"""Complete a command line in bash, zsh and fish: commands, keys, choices and flags.

The shells run churnlab for every press of the tab key; so YAMLs are read here without Hydra.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from churnlab.cli import help
from churnlab.cli.terminal import FLAGS
from churnlab.errors import InputError
from churnlab.formatting import typed

BASH = r"""_churnlab() {
    local line="${COMP_LINE:0:COMP_POINT}" word
    word="${line##* }"
    mapfile -t COMPREPLY < <("${COMP_WORDS[0]/#\~/$HOME}" completion candidates "$line" 2>/dev/null)
    if [[ "$word" == *=* && "$COMP_WORDBREAKS" == *=* ]]; then  # bash completes what follows the =
        COMPREPLY=("${COMPREPLY[@]#"${word%"${word##*=}"}"}")
    fi
    if [[ "${COMPREPLY[*]}" == *[=.] ]]; then compopt -o nospace; fi
}
complete -o bashdefault -o default -F _churnlab churnlab
"""

ZSH = r"""#compdef churnlab
_churnlab() {
    local -a found open
    found=("${(@f)$("${(Q)words[1]/#\~/$HOME}" completion candidates \
        "${(j: :)words[1,CURRENT-1]} $PREFIX" 2>/dev/null)}")
    found=(${found:#})
    if (( ! $#found )); then
        compset -P '*='
        _files
        return
    fi
    open=(${(M)found:#*[=.]})
    found=(${found:#*[=.]})
    (( $#open )) && compadd -S '' -- $open
    (( $#found )) && compadd -- $found
}
if [ "$funcstack[1]" = _churnlab ]; then _churnlab "$@"; else compdef _churnlab churnlab; fi
"""

FISH = r"""function __churnlab_candidates
    set -l program (commandline -opc)[1]
    eval $program completion candidates (string escape -- (commandline -cp)) 2>/dev/null
end
complete -c churnlab -f
complete -c churnlab -a '(__churnlab_candidates)'
complete -c churnlab -F -n 'string match -qr "(path|input|output)=" -- (commandline -ct)'
complete -c churnlab -F -n 'string match -qr -- "^(--config-dir|-cd|init)\$" (commandline -opc)[-1]'
"""

SCRIPTS = {"bash": BASH, "zsh": ZSH, "fish": FISH}

OPTIONS = ("--help", *(flag for flag in FLAGS if flag[:2] == "--"), "--multirun", "--config-dir")


def completion(words: Sequence[str], *, root: Path) -> str:
    """Return the script for a shell, or the candidates that it asks for, one a line.

    ``words`` are the name of the shell, or ``candidates LINE``; ``root`` is the folder of conf/ and
    experiments/. InputError: there is no script for the shell.
    """
    name, *rest = words or [""]
    if name == "candidates" and rest:
        return "\n".join(sorted(set(candidates(rest[0], root=root))))
    if name not in SCRIPTS or rest:
        raise InputError(
            "Name your shell: churnlab completion bash, zsh or fish. To have it in every session, "
            'write source <(churnlab completion bash) into ~/.bashrc, eval "$(churnlab completion '
            'zsh)" into ~/.zshrc, or source (churnlab completion fish | psub) '
            "into ~/.config/fish/config.fish."
        )
    return SCRIPTS[name].rstrip("\n")


def candidates(line: str, *, root: Path) -> list[str]:
    """Return what may stand at the end of a command line that is typed up to there."""
    try:
        words = shlex.split(line)
    except ValueError:  # an open quote
        words = line.split()
    current = words.pop() if words and not line[-1].isspace() else ""
    before = [word for word in words[1:] if word not in FLAGS]
    command = before[0] if before else None
    if command == "completion":
        found = list(SCRIPTS)
    elif command is None:
        found = [*help.commands(), "completion", "--version", *OPTIONS]
    elif command not in help.commands() or before[-1] in ("--config-dir", "-cd"):
        found = []
    elif current.startswith("-"):
        found = list(OPTIONS)
    else:
        found = _overrides(command, before[1:], current, root=root)
    return [candidate for candidate in found if candidate.startswith(current)]


def _overrides(command: str, given: list[str], current: str, *, root: Path) -> list[str]:
    """Return the keys of a command, or the values of the key that is typed."""
    folders = [root / "conf", *_own_folders(given)]
    chosen = dict(word.split("=", 1) for word in given if "=" in word)
    key, sign, value = current.partition("=")
    groups: set[str] = set()
    config = _composed(Path(f"{command}.yaml"), chosen, folders, groups)
    config.pop("hydra", None)
    if not sign:
        given_keys = {word.partition("=")[0] for word in given}
        found = [*groups, "experiment", *dict(_leaves(config)), *_parameters(config)]
        keys = dict.fromkeys(found)
        return [f"{key}=" for key in keys if key not in given_keys]
    start = current.removesuffix(value.rpartition(",")[2])  # after the comma of a sweep, too
    return [f"{start}{choice}" for choice in _choices(command, key, config, folders, root=root)]


def _parameters(config: Mapping[str, Any]) -> list[str]:
    """Return the keys of the parameters that a model's YAML sets, or tunes in its space: others
    need the import of its class, which takes seconds."""
    model = config.get("model") or {}
    names = [name for part in ("estimator", "space") for name in model.get(part) or {}]
    return [f"model.estimator.{name}" for name in dict.fromkeys(names) if name != "_target_"]


def _choices(
    command: str, key: str, config: Mapping[str, Any], folders: Sequence[Path], *, root: Path
) -> list[str]:
    """Return the values that a key may have, as far as YAMLs say so."""
    if key == "experiment":
        pattern = re.compile(rf"^command: *{command}\s*$", re.MULTILINE)
        places = [root / "experiments", *(folder / "experiment" for folder in folders[1:])]
        files = [file for place in places for file in place.glob("*.yaml")]
        return [file.stem for file in files if pattern.search(file.read_text(encoding="utf-8"))]
    if "." not in key and (found := [*_yamls(key, folders)]):
        return found
    value = dict(_leaves(config)).get(key)
    if isinstance(value, bool):
        return ["true", "false"]
    if found := _literals(command, key.split(".")):
        return found
    return [] if value in (None, "???", "") else [typed(value)]


def _literals(command: str, key: Sequence[str]) -> list[str]:
    """Return the only values that the declaration of a key allows, if it lists them."""
    from churnlab.config.commands import COMMANDS

    declared: Any = COMMANDS[command]
    for part in key:
        field = getattr(declared, "model_fields", {}).get(part)
        declared = field and field.annotation
    return [typed(value) for value in _allowed(declared)]


def _allowed(declared: Any) -> list[Any]:
    if get_origin(declared) is Literal:
        return [*get_args(declared)]
    return [value for part in get_args(declared) for value in _allowed(part)]


def _yamls(group: str, folders: Sequence[Path]) -> Iterator[str]:
    for folder in folders:
        yield from (file.stem for file in (folder / group).glob("[!_]*.yaml"))


def _own_folders(words: Sequence[str]) -> list[Path]:
    """Return the folders of the user's own YAMLs that the words name."""
    return [
        Path(value).expanduser()
        for option, value in zip(words, words[1:], strict=False)
        if option in ("--config-dir", "-cd")
    ] + [
        Path(word.partition("=")[2]).expanduser()
        for word in words
        if word.startswith(("--config-dir=", "-cd="))
    ]


def _composed(
    file: Path, chosen: Mapping[str, str], folders: Sequence[Path], groups: set[str]
) -> dict[str, Any]:
    """Return the keys of a YAML with their defaults, as Hydra would compose them.

    ``chosen`` are the choices on the command line; those that it can name are added to ``groups``.
    """
    block = _read(file, folders)
    keys: dict[str, Any] = {}
    for default in block.pop("defaults", []):
        inner = default if isinstance(default, dict) else {}
        if default != "_self_" and not inner:
            _merge(keys, _composed(file.with_name(f"{default}.yaml"), chosen, folders, groups))
        for group, choice in inner.items():
            if choice is None or " " in group:  # an override of Hydra's own groups
                continue
            name, _, place = group.partition("@")
            if not place:
                groups.add(name)
                choice = chosen.get(name, choice)
            part = _composed(Path(name, f"{choice}.yaml"), {}, folders, set())
            for key in reversed((place or name).split(".")):
                part = {key: part}
            _merge(keys, part)
    _merge(keys, block)
    return keys


def _read(place: Path, folders: Sequence[Path]) -> dict[str, Any]:
    """Return the first YAML at this place in one of the folders; nothing if it cannot be read."""
    import yaml

    for folder in folders:
        try:
            read = yaml.load(
                (folder / place).read_text(encoding="utf-8"),
                Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader),
            )
        except (OSError, yaml.YAMLError):
            continue
        return read if isinstance(read, dict) else {}
    return {}


def _merge(config: dict[str, Any], more: Mapping[str, Any]) -> None:
    for key, value in more.items():
        if isinstance(value, dict) and isinstance(config.get(key), dict):
            _merge(config[key], value)
        else:
            config[key] = value


def _leaves(block: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the keys that a user may type, dotted, with their defaults."""
    for key, value in block.items():
        if key in help.CONTENT and not isinstance(value, bool):
            continue
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
