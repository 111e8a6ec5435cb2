"""Draft the dataset YAML for a table of your own.

Why: a table of your own needs one YAML, and most of it can be inferred from the table: kinds,
ranges, categories, which column looks like an identifier and which one leaks the target. It is a
draft: read it, correct it, keep it. Nothing else in churnlab writes configuration.

    churnlab init clients.csv
    churnlab init clients.csv target=Exited name=bank
    churnlab init clients.parquet output=my_conf/dataset/clients.yaml force=true
"""

from __future__ import annotations

import logging
import re
import shlex
import unicodedata
from pathlib import Path

import yaml

from churnlab.config import shipped
from churnlab.config.commands import Init, Result
from churnlab.data.draft_contract import as_yaml, draft
from churnlab.data.reading import read_table
from churnlab.errors import InputError, did_you_mean
from churnlab.formatting import counted, listed

log = logging.getLogger(__name__)

LATIN = dict(zip("абвгдеёзийклмнопрстуфыэ", "abvgdeeziyklmnoprstufye", strict=True))
LATIN |= {"ж": "zh", "х": "kh", "ц": "ts", "ч": "ch", "ш": "sh", "щ": "shch", "ю": "yu", "я": "ya"}


def run(settings: Init) -> Result:
    """Read the table, write the YAML, log what to check in it."""
    frame = read_table(settings.path, key="path", encoding=settings.encoding).frame
    if settings.target is not None and settings.target not in frame:
        known = [str(name) for name in frame]
        hint = did_you_mean(settings.target, known)
        shown = settings.target or repr(settings.target)
        raise InputError(
            f"{settings.path} has no column {shown}.{hint} It has {listed(known, 40)}."
        )
    if frame.empty:
        raise InputError(f"{settings.path} has a header and no rows; give at least one row.")
    name = _word(settings.name or _dataset_name(settings.path).replace("-", "_"))
    output = Path(settings.output or f"my_conf/dataset/{name}.yaml")
    _check_free(name, settings, output)
    if output.is_dir() or (output.exists() and not settings.force):
        raise InputError(
            f"{output} exists already; choose another file with output=FILE, or overwrite it with "
            "force=true."
        )
    found = draft(frame, target=settings.target)
    source = settings.path if "://" in settings.path else str(Path(settings.path).absolute())
    text = as_yaml(found, name=name, path=source, encoding=settings.encoding)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(
            f"{output} cannot be written ({error.strerror}); give another file with output=FILE."
        ) from None
    left_out = [column for column in found.columns if column.declared is None]
    log.info("Wrote %s: %s.", output, counted(len(found.columns) - len(left_out), "column"))
    if name not in (settings.name or settings.path):
        log.info("  the dataset's name is %s; choose another with name=NAME", name)
    for column in left_out:
        log.info("  left out: %s, %s", column.name, column.remark)
    if found.target is None:
        log.info("  fill in: target, the column that says who left")
    log.info("Check it, then run: %s", _next_step(output))
    values = {"run_id": None, "output": str(output), "target": found.target, "id": found.id}
    return Result(values | {"left_out": [column.name for column in left_out]})


def _check_free(name: str, settings: Init, output: Path) -> None:
    """Refuse the name of a dataset that churnlab has: it would be read instead of this one."""
    place = _place(output)
    for taken in (name, place.stem):
        if theirs := shipped.taken_by("dataset", taken):
            free = shipped.free_name(place.with_stem(taken))
            words = [settings.path, f"name={free}"]
            words += [f"output={place.with_stem(free)}"] if settings.output else []
            words += [f"target={settings.target}"] if settings.target else []
            raise InputError(
                f"{place.with_stem(taken)} would be ignored: churnlab has a dataset {taken}, "
                f"{theirs}. Give yours another name: {shlex.join(['churnlab', 'init', *words])}"
            )


def _next_step(output: Path) -> str:
    """Return the command to run next, which first moves the YAML to where Hydra finds datasets."""
    place = _place(output)
    folder = place.parent.parent
    steps = [["mkdir", "-p", place.parent], ["mv", output, place]] if place != output else []
    steps.append(["churnlab", "explore", "--config-dir", folder, f"dataset={place.stem}"])
    return " && ".join(shlex.join(map(str, step)) for step in steps)


def _place(output: Path) -> Path:
    """Return where Hydra finds the dataset: dataset/NAME.yaml in the folder of the YAMLs."""
    folder = output.parent.parent if output.parent.name == "dataset" else output.parent
    return folder / "dataset" / f"{_word(_dataset_name(output.name))}.yaml"


def _dataset_name(path: str) -> str:
    """Make a dataset's name of a file's: Latin letters, digits, _ and -."""
    stem = path.rstrip("/").rpartition("/")[2].partition(".")[0]
    latin = "".join(LATIN.get(letter.lower(), letter) for letter in stem)
    plain = unicodedata.normalize("NFKD", latin).encode("ascii", "ignore").decode()
    return re.sub(r"[^\w-]+", "_", plain).strip("_-")


def _word(name: str) -> str:
    """Return a name that YAML and people read as a word, not as a number, a truth or nothing.

    >>> _word("2026_05"), _word("on"), _word("1e3"), _word(""), _word("gym")
    ('members_2026_05', 'members_on', 'members_1e3', 'members', 'gym')
    """
    try:
        float(name)
    except ValueError:
        if re.search("[A-Za-z]", name) and isinstance(yaml.safe_load(name), str):
            return name
    return f"members_{name}".strip("_")
