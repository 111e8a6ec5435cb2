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
from pathlib import Path

from churnlab.config.commands import Init, Result
from churnlab.data.draft_contract import as_yaml, draft
from churnlab.data.reading import read_table
from churnlab.errors import InputError, did_you_mean

log = logging.getLogger(__name__)


def run(settings: Init) -> Result:
    """Read the table, write the YAML, log what to check in it."""
    frame = read_table(settings.path, encoding=settings.encoding).frame
    if settings.target is not None and settings.target not in frame:
        known = [str(name) for name in frame]
        hint = did_you_mean(settings.target, known)
        raise InputError(
            f"{settings.path} has no column {settings.target}.{hint} It has "
            f"{', '.join(known[:40])}."
        )
    name = settings.name or _dataset_name(settings.path)
    output = Path(settings.output or f"my_conf/dataset/{name}.yaml")
    if output.exists() and not settings.force:
        raise InputError(
            f"{output} exists already; choose another file with output=FILE, or overwrite it with "
            "force=true."
        )
    found = draft(frame, target=settings.target)
    source = settings.path if "://" in settings.path else str(Path(settings.path).absolute())
    output.parent.mkdir(parents=True, exist_ok=True)
    text = as_yaml(found, name=name, path=source, encoding=settings.encoding)
    output.write_text(text, encoding="utf-8")
    left_out = [column for column in found.columns if column.declared is None]
    log.info("Wrote %s: %d columns.", output, len(found.columns) - len(left_out))
    for column in left_out:
        log.info("  left out: %s, %s", column.name, column.remark)
    if found.target is None:
        log.info("  fill in: target, the column that says who left")
    log.info(
        "Check it, then run: churnlab explore --config-dir %s dataset=%s",
        output.parent.parent,
        name,
    )
    values = {"run_id": None, "output": str(output), "target": found.target, "id": found.id}
    return Result(values | {"left_out": [column.name for column in left_out]})


def _dataset_name(path: str) -> str:
    """Make a dataset's name of a file's."""
    stem = path.rstrip("/").rpartition("/")[2].partition(".")[0]
    return re.sub(r"\W+", "_", stem, flags=re.ASCII).strip("_") or "members"
