"""Draft the dataset YAML for a table of your own.

Why: a table of your own needs one YAML, and most of it can be inferred from the table: how its
numbers, dates and gaps are written, kinds, ranges, categories, which column says who left, which
one is the identifier and which ones leak the target. It is a draft, and says where it is not sure:
read it, correct it, keep it.

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

import pandas as pd
import yaml
from omegaconf import OmegaConf
from pydantic import ValidationError

from churnlab.config import shipped
from churnlab.config.commands import Init, Result
from churnlab.config.groups import DatasetKeys
from churnlab.data.reading import read_table
from churnlab.data.table import Table
from churnlab.data.validation import check
from churnlab.drafting.as_yaml import as_yaml
from churnlab.drafting.draft import Draft, candidates, cells_of, draft
from churnlab.drafting.layout import check_lines
from churnlab.errors import InputError, did_you_mean
from churnlab.formatting import counted, listed

log = logging.getLogger(__name__)

LATIN = dict(zip("абвгдеёзийклмнопрстуфыэ", "abvgdeeziyklmnoprstufye", strict=True))
LATIN |= {"ж": "zh", "х": "kh", "ц": "ts", "ч": "ch", "ш": "sh", "щ": "shch", "ю": "yu", "я": "ya"}


def run(settings: Init) -> Result:
    """Write the YAML, log what to check in it, and say what comes next."""
    found, output = write(settings)
    log.info("Check it, then run: %s", _next_step(output))
    chosen = found.target and found.target.name
    values = {"run_id": None, "output": str(output), "target": chosen, "id": found.id}
    left_out = [column.name for column in found.columns if column.declared is None]
    return Result(values | {"left_out": left_out})


def write(settings: Init, *, key: str = "path", needs_target: bool = False) -> tuple[Draft, Path]:
    """Read the table, write the YAML, read it back, log what was seen; return draft and file.

    ``key`` of the command line names the table. InputError: it cannot be read, the YAML is there
    already, or, with ``needs_target``, no column says who left or is left to learn from.
    """
    table = read_table(settings.path, key=key, encoding=settings.encoding, whole=True)
    cells = cells_of(table)
    target = _target(settings, cells)
    if cells.empty:
        raise InputError(f"{settings.path} has a header and no rows; give at least one row.")
    check_lines(cells, table)
    name = name_for(settings)
    output = Path(settings.output or f"my_conf/dataset/{name}.yaml")
    _check_free(name, settings, output)
    if output.is_dir() or (output.exists() and not settings.force):
        raise InputError(
            f"{output} exists already; choose another file with output=FILE, or overwrite it with "
            "force=true."
        )
    found = draft(table, target=target)
    if needs_target and found.target is None:
        raise InputError(
            f"No column of {settings.path} says by its name and values who left; name it with "
            f"target=COLUMN ({candidates(found.candidates)})."
        )
    if needs_target and (problem := _nothing_left(found)):
        raise InputError(f"{settings.path}: {problem}.")
    source = settings.path if "://" in settings.path else str(Path(settings.path).absolute())
    text = as_yaml(
        found, name=name, path=source, encoding=settings.encoding, separator=table.separator
    )
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
    _log_what_was_seen(found, table, output)
    return found, output


def name_for(settings: Init) -> str:
    """Return the name of the dataset: the given one, or that of the file made a word."""
    return _word(settings.name or _dataset_name(settings.path).replace("-", "_"))


def _target(settings: Init, cells: pd.DataFrame) -> str | None:
    """Return the column that is named as the target; blanks around a name are no part of it."""
    if settings.target is None or settings.target in cells:
        return settings.target
    if (bare := settings.target.strip()) in cells:
        return bare
    known = [str(name) for name in cells]
    hint = did_you_mean(settings.target, known)
    shown = settings.target or repr(settings.target)
    raise InputError(f"{settings.path} has no column {shown}.{hint} It has {listed(known, 40)}.")


def _log_what_was_seen(found: Draft, table: Table, output: Path) -> None:
    """Log whom the draft counts as left, what it left out, and where a person should decide."""
    for warning in table.warnings:
        log.info("  %s", warning)
    if found.target is None:
        which = candidates(found.candidates)
        who = f"the column that says who left ({which})"
        log.info("  fill in: target, %s, with target=COLUMN force=true", who)
    else:
        left, rows = int(found.target.left.sum()), int(found.target.taking_part.sum())
        who = f"{found.target.name} is {found.target.positive} in {left:,} of {rows:,} rows"
        log.info("  who left: %s", who)
    log.info("  id: %s", "none found" if found.id is None else found.id)
    for note in found.notes:
        log.info("  %s", note)
    for column in found.columns:
        for note in column.notes:
            log.info("  %s: %s", column.name, note)
        if column.declared is None:
            log.info("  left out: %s, %s", column.name, column.remark)
    if problem := _nothing_left(found) or (found.target and _problem(output)):
        log.info("  to correct before it is used: %s", problem)


def _nothing_left(found: Draft) -> str | None:
    """Say that no column is left to learn from, why, and what to do; None if one is."""
    if any(column.declared is not None for column in found.columns):
        return None
    why = [f"{column.name} ({column.remark})" for column in found.columns]
    if not why:
        return (
            "no column is left to learn from: the table holds no other than the target and the "
            "id; give a table that says more of its members"
        )
    return (
        f"no column is left to learn from: {listed(why, 5, length=600)}; correct them in the file, "
        "or declare one under columns: in the YAML that churnlab init writes, such as age: {kind: "
        "numeric}"
    )


def _problem(output: Path) -> str | None:
    """Read the YAML back as the other commands will; return what its own table breaks in it."""
    config = OmegaConf.to_container(OmegaConf.load(output), resolve=True)
    try:
        contract = DatasetKeys.model_validate(config).contract
        check(read_table(str(config["path"]), contract), contract)  # type: ignore[call-overload,index]
    except ValidationError as invalid:
        return str(invalid.errors(include_url=False)[0].get("msg")).removeprefix("Value error, ")
    except InputError as error:
        return str(error)
    return None


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
