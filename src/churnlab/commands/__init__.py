"""The verbs: one file is one command, read top to bottom; its module docstring is its help."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Result:
    """What a command answers: the keys of its result line, and whether the answer is yes (exit 0) or no (exit 3)."""

    values: dict[str, Any]
    yes: bool = True
