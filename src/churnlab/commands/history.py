"""Who was the champion when, who replaced it, why, and by which command.

Why: "which model said that in May?" must have an answer. Every move of the alias champion is kept
with the registered model, the oldest first; nothing is changed or recorded by looking.

    churnlab history
    churnlab history dataset=gym
    churnlab history dataset=demo tracking=server
"""

from __future__ import annotations

import logging

import pandas as pd

from churnlab.config.commands import History, Result
from churnlab.registry import champion as registry

log = logging.getLogger(__name__)

TOLD = ("from", "to", "when", "who", "why", "command")
"""What is told of every move."""


def run(settings: History) -> Result:
    """Read the journal of the registered model and show it."""
    model = registry.asked_model(settings.dataset.name if settings.dataset else None)
    entries = [{key: move[key] for key in TOLD} for move in registry.moves(model)] if model else []
    if model is None or not entries:
        told = (
            f"{model.name} has no history"
            if model
            else "There is no registered model with a champion"
        )
        log.info("%s; run churnlab promote first.", told)
        return Result({"entries": []}, yes=False)
    champion = model.aliases.get("champion")
    shown = pd.DataFrame(entries).fillna({"from": "-"}).to_string(index=False)
    log.info("%s\nThe champion of %s is version %s.", shown, model.name, champion or "none")
    return Result({"entries": entries})
