"""Write a first dataset YAML for a table that nobody has described yet.

Why: a table of your own needs one YAML, and most of it can be read off the table: kinds, ranges,
categories, which column looks like an identifier and which gives the answer away. It is a draft:
read it, correct it, keep it. Nothing else in churnlab writes configuration.

    churnlab init clients.csv
    churnlab init clients.csv target=Exited name=bank
    churnlab init clients.parquet output=conf_of_mine/dataset/clients.yaml force=true
"""

from __future__ import annotations

import logging
import re
from pathlib import Path

from churnlab.config.commands import Init, Result
from churnlab.data import draft_contract
from churnlab.data.reading import read_table
from churnlab.errors import InputError, meant

log = logging.getLogger(__name__)


def run(settings: Init) -> Result:
    """Read the table, write the YAML, say what is to be looked at."""
    frame = read_table(settings.path, encoding=settings.encoding).frame
    if settings.target is not None and settings.target not in frame:
        known = [str(name) for name in frame]
        raise InputError(
            f"{settings.path} has no column {settings.target}.{meant(settings.target, known)} "
            f"It has {', '.join(known[:40])}."
        )
    name = settings.name or _name(settings.path)
    output = Path(settings.output or f"my_conf/dataset/{name}.yaml")
    if output.exists() and not settings.force:
        raise InputError(
            f"{output} is there already; write elsewhere with output=FILE, or over it with "
            "force=true."
        )
    found = draft_contract.draft(frame, target=settings.target)
    source = settings.path if "://" in settings.path else str(Path(settings.path).absolute())
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(
        draft_contract.as_yaml(found, name=name, path=source, encoding=settings.encoding),
        encoding="utf-8",
    )
    left_out = [column for column in found.columns if column.declared is None]
    log.info("%s is written: %d columns.", output, len(found.columns) - len(left_out))
    for column in left_out:
        log.info("  left out: %s, %s", column.name, column.remark)
    if found.target is None:
        log.info("  to be filled in: target, the column that says who left")
    log.info(
        "Read it, then: churnlab explore --config-dir %s dataset=%s", output.parent.parent, name
    )
    values = {
        "target": found.target,
        "id": found.id,
        "left_out": [column.name for column in left_out],
    }
    return Result({"run_id": None, "output": str(output), **values})


def _name(path: str) -> str:
    """A dataset's name made from a file's."""
    stem = path.rstrip("/").rpartition("/")[2].partition(".")[0]
    return re.sub(r"\W+", "_", stem, flags=re.ASCII).strip("_") or "members"
