"""Find what crashes have left behind in the store, the studies and the registry; mend it with
fix=true.

Why: a kill -9, a full disk or a hand in the store leaves runs that say RUNNING for ever, studies
with trials that nobody does, half-written models, a champion without a gate. Only what a dead
process has left is touched, and nothing that somebody may need is deleted; exit 3 says that there
is something to look at.

    churnlab doctor
    churnlab doctor fix=true
    churnlab doctor fix=true elsewhere=true
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

from churnlab.config.build import build_object
from churnlab.config.commands import Doctor, Result
from churnlab.doctor import store as examination
from churnlab.doctor.problems import Problem
from churnlab.doctor.store import left_over, other_schema
from churnlab.tracking import store

log = logging.getLogger(__name__)


def run(settings: Doctor) -> Result:
    """Examine; with ``fix``, mend what has a cure and examine again."""
    found = examine(settings)
    if not settings.fix:
        _tell(found, "Found")
        return Result(
            {"run_id": None, "problems": [_shown(problem) for problem in found]}, yes=not found
        )
    for problem in found:
        if problem.cure is not None:
            problem.cure()
    left = examine(settings)
    mended = [problem for problem in found if problem not in left]
    _tell(mended, "Mended")
    _tell(left, "Left")
    told = {
        "problems": [_shown(problem) for problem in mended],
        "left": [_shown(problem) for problem in left],
    }
    return Result({"run_id": None, **told}, yes=not left)


def examine(settings: Doctor) -> list[Problem]:
    """All problems: of the files first, then of what only a store of the right schema can tell."""
    home = Path(os.environ["CHURNLAB_HOME"])
    uri, folder = store.locate(settings.tracking.uri, home=home)
    path = Path(uri.removeprefix(store.SQLITE)) if uri.startswith(store.SQLITE) else None
    problems = list(left_over(home, path))
    if path is not None and not path.exists():
        log.info("There is no store at %s yet.", path)
        return problems
    if path is not None:
        strange = list(other_schema(path, *store.schemas(path)))
        if strange:
            return problems + strange
    store.point_at(uri, home=folder)
    storage = build_object(settings.storage, key="storage")
    return problems + examination.examine(storage, elsewhere=settings.elsewhere and settings.fix)


def _shown(problem: Problem) -> dict[str, Any]:
    return {key: value for key, value in vars(problem).items() if key != "cure"}


def _tell(problems: list[Problem], head: str) -> None:
    lines = [
        f"  {problem.kind}: {problem.what} ({problem.where})\n    {problem.mend}"
        for problem in problems
    ]
    log.info("%s: %s", head, "nothing" if not problems else "\n" + "\n".join(lines))
