"""List every change of champion: from which version to which, when, by whom, why, by which command.

Why: "which model predicted that in May?" must have an answer. Every change is recorded with the
registered model; the list begins with the oldest. The command only reads.

    churnlab history
    churnlab history dataset=gym
    churnlab history dataset=demo tracking=server
"""

from __future__ import annotations

import logging

import pandas as pd

from churnlab.config.commands import History, Result
from churnlab.formatting import Table
from churnlab.registry.champion import champion_changes, find_model

log = logging.getLogger(__name__)

COLUMNS = ("from", "to", "when", "who", "why", "command")


def run(settings: History) -> Result:
    """Read the recorded changes of champion and print them."""
    model = find_model(settings.dataset.name if settings.dataset else None)
    if model is None:
        return Result({"entries": []}, yes=False)
    entries = [{key: change[key] for key in COLUMNS} for change in champion_changes(model)]
    champion, table = model.aliases.get("champion"), "No change of the champion is recorded."
    if entries:
        table = Table.of(pd.DataFrame(entries).fillna({"from": "-"}))
    now = f"version {champion}" if champion else "none"
    log.info("%s\nThe champion of %s is %s.", table, model.name, now)
    return Result({"entries": entries}, yes=bool(entries))
