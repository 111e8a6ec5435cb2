"""Know churnlab's own YAMLs, and refuse a user's YAML that has the name of one of them.

Hydra reads its primary folder first: a user's YAML of the same name would be ignored in silence.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

from churnlab.errors import InputError

PACKAGE = Path(__file__).parents[1]
CHECKOUT = PACKAGE.parents[1]
ROOT = CHECKOUT if (CHECKOUT / "conf").is_dir() else PACKAGE
"""The folder of conf/ and experiments/: the checkout, or the package of an installed wheel."""


def yamls() -> Iterator[tuple[Path, Path]]:
    """Yield churnlab's own YAMLs, each with its place in a folder of YAMLs: ``model/dummy.yaml``.

    An experiment's place there is ``experiment/NAME.yaml``.
    """
    for path in sorted((ROOT / "conf").rglob("*.yaml")):
        yield path, path.relative_to(ROOT / "conf")
    for path in sorted((ROOT / "experiments").glob("*.yaml")):
        yield path, Path("experiment", path.name)


def check_names(folder: Path) -> None:
    """Refuse a folder of the user's YAMLs in which one has the name of churnlab's own."""
    for path, place in yamls():
        own = folder / place
        if own.exists() and not own.samefile(path):
            new = own.with_name(f"{free_name(own)}.yaml")
            choice = "" if own.parent == folder else f" and choose {place.parent}={new.stem}"
            raise InputError(
                f"{own} would be ignored: churnlab has a YAML of that name, {path}. Rename yours"
                f"{choice}: {shlex.join(['mv', str(own), str(new)])}"
            )


def taken_by(group: str, name: str) -> Path | None:
    """Return churnlab's own YAML of this name in a group; None if the name is free."""
    return next((path for path, place in yamls() if place == Path(group, f"{name}.yaml")), None)


def presets(dataset: str | None) -> list[str]:
    """Return the words that segment a dataset of the user's own: the default presets name columns
    of churnlab's datasets.

    >>> presets("gym"), presets("bank")
    ([], ['segments=all', 'playbook=any'])
    """
    own = dataset is not None and taken_by("dataset", dataset) is None
    return ["segments=all", "playbook=any"] if own else []


def in_sight(group: str, name: str) -> str:
    """Say which folder in the current one has this YAML, as a sentence; nothing if none has it."""
    found = sorted(Path().glob(f"*/{group}/{name}.yaml"))
    return f" There is {found[0]}: add --config-dir {found[0].parents[1]}." if found else ""


def free_name(own: Path) -> str:
    """Return a name like that of the YAML ``own`` which neither its folder nor churnlab has."""
    taken = {place.stem for _, place in yamls()} | {path.stem for path in own.parent.glob("*.yaml")}
    names = [f"my_{own.stem}", *(f"my_{own.stem}_{number}" for number in range(2, len(taken) + 3))]
    return next(name for name in names if name not in taken)
