"""Write the help texts from the docstrings of the commands and the comments of their YAMLs."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from churnlab.errors import InputError
from churnlab.formatting import typed

COMMANDS = Path(__file__).parents[1] / "commands"

CONTENT = {
    *("columns", "rules", "derive", "space", "risk", "traits", "naming", "actions", "reasons"),
    *("claims", "early", "levers", "sentences", "fallback", "everyone", "presets", "_target_"),
}
"""What belongs to a choice and is edited in its YAML, not typed."""

FLAGS = """\
-q, --quiet     only warnings and errors
-v, --verbose   also progress and tracebacks, as CHURNLAB_LOG=DEBUG
--json          the result line on a terminal, too; in a pipe it is always the last line of stdout
NO_COLOR=1      (in the environment) no colors"""
"""The flags of every command."""

KEY = re.compile(r"(?P<indent> *)(?P<key>\w+):(?P<value>[^#]*)(?:# *(?P<comment>.*))?$")


def commands() -> list[str]:
    """Return the names of all commands: each is a file in commands/ and a YAML in conf/."""
    return [path.stem for path in sorted(COMMANDS.glob("[a-z]*.py"))]


def docstring(command: str) -> str:
    """Return the docstring of a command without importing the command, which takes seconds."""
    source = (COMMANDS / f"{command}.py").read_text(encoding="utf-8")
    return ast.get_docstring(ast.parse(source)) or ""


def overview() -> str:
    """Return the list of all commands, each with the first line of its docstring."""
    width = max(map(len, commands()))
    firsts = {name: docstring(name).splitlines()[0].replace("``", "") for name in commands()}
    lines = "\n".join(f"  {name:{width}}  {first}" for name, first in firsts.items())
    return (
        "churnlab COMMAND [KEY=VALUE ...]   who will leave, what kinds of members there are, "
        f"and what to do about each\n\n{lines}\n\n"
        "churnlab COMMAND --help   what it does, its keys, and examples\n"
        "churnlab COMMAND -m KEY=A,B   every combination, as one sweep\n"
        "churnlab completion bash   what to source for completion in bash; or zsh, fish\n\n"
        f"{FLAGS}"
    )


def command_help(command: str, words: Sequence[str] = (), *, root: Path) -> str:
    """Return the help text of one command; ``root`` is the folder of conf/ and experiments/.

    ``words`` are what else the command line has: choices whose keys are shown, and a --config-dir
    whose choices are shown, too.
    """
    from omegaconf import OmegaConf

    from churnlab.cli.arguments import config_folders
    from churnlab.config.commands import COMMANDS as DECLARED

    folders = [folder.absolute() for folder in config_folders([*words])]
    config, choices = _composed(command, words, root=root, folders=folders)
    comments = _all_comments(command, choices, folders=[root / "conf", *folders])
    keys = OmegaConf.to_container(config, resolve=False)
    assert isinstance(keys, dict)
    kind, own = DECLARED[command], _comments(root / "conf" / f"{command}.yaml")
    forced = "force" in own or (kind.reads_table and not kind.reads_store)
    idle = {"hydra": True, "run_name": kind.experiment is None, "force": not forced}
    keys = {key: value for key, value in keys.items() if not idle.get(str(key))}
    shown = [f"{key}={value}" for key, value in _keys(keys)]
    width = min(max(map(len, shown)), 48)
    flags = [f"  {flag}" for flag in FLAGS.splitlines()]
    lines = [docstring(command).replace("``", ""), "", "Flags:", *flags]
    lines += ["", "Choices (the default first):"]
    for group, options in sorted(choices.items()):
        if group.partition("@")[2].partition(".")[0] not in CONTENT:
            lines.append(f"  {group}={'|'.join(options)}")
    lines += ["", "Keys and their defaults:"]
    lines += [
        f"  {text:{width}}  {comments.get(text.partition('=')[0], '')}".rstrip() for text in shown
    ]
    return "\n".join(lines)


def _composed(
    command: str, words: Sequence[str], *, root: Path, folders: Sequence[Path]
) -> tuple[Any, dict[str, list[str]]]:
    """Return a command's composed config, and the choices of each group, the chosen one first."""
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException

    from churnlab.cli.hydra_compose import explain, register_experiments
    from churnlab.cli.presets import preset_words

    register_experiments(root / "experiments", command=command)
    chosen = [word for word in words if re.fullmatch(r"[a-z_]+=[\w-]+", word)]
    chosen = [*preset_words(command, chosen, root=root, folders=folders), *chosen]
    own = [f"hydra.searchpath=[{','.join(f'file://{folder}' for folder in folders)}]"]
    choices = {}
    with initialize_config_dir(str(root / "conf"), version_base="1.3"):
        try:
            config = compose(command, [*chosen, *own], return_hydra_config=True)
        except HydraException as error:
            raise InputError(explain(error, command=command)) from None
        loader = GlobalHydra.instance().config_loader()
        for group, choice in config.hydra.runtime.choices.items():
            if "hydra/" not in group:
                default, known = choice or "none", loader.get_group_options(group.partition("@")[0])
                others = [name for name in known if name != choice and name[0] != "_"]
                choices[str(group)] = [default, *others]
    return config, choices


def _all_comments(
    command: str, choices: Mapping[str, list[str]], *, folders: Sequence[Path]
) -> dict[str, str]:
    """Return the comments on a command's keys: its own YAML's, its choices', the other choices'."""
    found: dict[str, str] = {}
    for group, (choice, *_) in choices.items():
        name, _, place = group.partition("@")
        files = [file for folder in folders for file in (folder / name).glob("*.yaml")]
        for file in sorted(files, key=lambda file: (file.stem == choice, file.stem)):
            own = _comments(file)
            found |= {f"{place or name}.{key}": comment for key, comment in own.items()}
    conf = folders[0]
    return found | _comments(conf / "base.yaml") | _comments(conf / f"{command}.yaml")


def _comments(file: Path) -> dict[str, str]:
    """Return the comments at the end of a YAML file's lines, by dotted key."""
    found: dict[str, str] = {}
    path: list[str] = []
    for line in file.read_text(encoding="utf-8").splitlines():
        match = KEY.match(line)
        if match is None:
            continue
        path = [*path[: len(match["indent"]) // 2], match["key"]]
        if match["comment"]:
            found[".".join(path)] = match["comment"]
    return found


def _keys(block: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield the keys that a user may type, dotted, with their defaults."""
    for key, value in block.items():
        if key in CONTENT and not isinstance(value, bool):
            continue
        if isinstance(value, Mapping):
            yield from _keys(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", typed(value)
