"""Find leftovers of crashes and manual edits; ``fix=true`` repairs them.

Why: a kill -9, a full disk or a manual edit leaves runs that stay RUNNING forever, orphaned trials
(RUNNING, no live worker), half-written models, or a champion that did not pass the gate. Only what
a dead process left is repaired, and nothing that somebody may need is deleted; exit 3 means that
problems were found.

    churnlab doctor
    churnlab doctor fix=true
    churnlab doctor fix=true elsewhere=true
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

from churnlab.config.commands import Doctor, Result
from churnlab.config.objects import build_object
from churnlab.doctor import store as doctor
from churnlab.doctor.problems import Problem
from churnlab.formatting import counted
from churnlab.tracking import store

log = logging.getLogger(__name__)


def run(settings: Doctor) -> Result:
    """Examine the store; with ``fix``, repair what can be repaired and examine it again."""
    found = examine(settings)
    if not settings.fix:
        repairs = any(problem.repair for problem in found)
        answer: dict[str, Any] = {"run_id": None, "problems": _report("Found", found)}
        return Result(answer, yes=not found, then="doctor fix=true" if repairs else "")
    for problem in found:
        if problem.repair is not None:
            problem.repair()
    left = examine(settings)
    repaired = _report("Repaired", [problem for problem in found if problem not in left])
    answer = {"run_id": None, "problems": repaired, "left": _report("Left", left)}
    return Result(answer, yes=not left)


def examine(settings: Doctor) -> list[Problem]:
    """Return all problems: of files first, then of the store if its schema can be read."""
    home = Path(os.environ["CHURNLAB_HOME"])
    uri, folder = store.locate(settings.tracking.uri, home=home)
    path = store.sqlite_path(uri) if uri.startswith(store.SQLITE) else None
    problems = list(doctor.leftover_files(home, path))
    if path is not None and not path.exists():
        log.info("There is no store at %s yet.", path)
        return problems
    if path is not None:
        incompatible = list(doctor.schema_problems(path, *store.schemas(path)))
        if incompatible:
            return problems + incompatible
    store.point_at(uri, home=folder)
    if settings.fix:
        store.check_writable(folder)
    storage = build_object(settings.storage, key="storage")
    return problems + doctor.examine(storage, elsewhere=settings.elsewhere and settings.fix)


def _report(title: str, problems: list[Problem]) -> list[dict[str, Any]]:
    """Log problems under a title; return them for the result line."""
    log.info("%s: %s", title, counted(len(problems), "problem") if problems else "nothing")
    for problem in problems:
        log.info("  %s: %s (%s)", problem.kind, problem.what, problem.where)
        if title != "Repaired":
            log.info("    Fix: %s", problem.fix)
    return [
        {key: value for key, value in vars(problem).items() if key != "repair"}
        for problem in problems
    ]
