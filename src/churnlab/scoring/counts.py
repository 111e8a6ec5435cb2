"""Count what a run says of its members, part by part: counts add up, and no member is kept."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from churnlab.data import drift


@dataclass
class Counts:
    """What is counted of a part; those of several add up."""

    rows: int = 0
    rejected: int = 0
    leaving: int = 0
    probability: float = 0.0
    segments: Counter[str] = field(default_factory=Counter)
    why: Counter[str] = field(default_factory=Counter)
    missing: Counter[str] = field(default_factory=Counter)
    words: dict[str, Counter[str]] = field(default_factory=dict)
    others: dict[str, Counter[str]] = field(default_factory=dict)
    seen: dict[str, drift.Seen] = field(default_factory=dict)
    scores: drift.Seen = field(default_factory=drift.Seen)
    kinds: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    first_bad: str = ""
    separator: str | None = None
    columns: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> Counts:
        """Return the counts that ``asdict`` made plain."""
        counters = {name: Counter(plain[name]) for name in ("segments", "why", "missing")}
        nested = {
            name: {key: Counter(one) for key, one in plain[name].items()}
            for name in ("words", "others")
        }
        seen = {name: _seen(one) for name, one in plain["seen"].items()}
        return cls(
            **{**plain, **counters, **nested, "seen": seen, "scores": _seen(plain["scores"])}
        )

    def add(self, other: Counts) -> None:
        """Add the counts of the next part."""
        if other.rows:
            both = {*self.kinds} & {*other.kinds}
            unlike = {name for name in both if self.kinds[name] != other.kinds[name]}
            self.kinds = {**other.kinds, **self.kinds} | dict.fromkeys(unlike, "string")
            for name, column in other.seen.items():
                self.seen.setdefault(name, drift.Seen()).add(column)
            self.scores.add(other.scores)
        self.rows += other.rows
        self.rejected += other.rejected
        self.leaving += other.leaving
        self.probability += other.probability
        for name in ("segments", "why", "missing"):
            getattr(self, name).update(getattr(other, name))
        for name in ("words", "others"):
            for key, counter in getattr(other, name).items():
                getattr(self, name).setdefault(key, Counter()).update(counter)
        self.warnings += [one for one in other.warnings if one not in self.warnings]
        self.first_bad = self.first_bad or other.first_bad
        self.separator = self.separator or other.separator
        self.columns = self.columns or other.columns


def _seen(plain: Mapping[str, Any]) -> drift.Seen:
    return drift.Seen(**{**plain, "categories": Counter(plain["categories"])})


def plain_counts(counts: Counts) -> Any:
    """Return counts in JSON's types: numbers of numpy as those of Python, objects as mappings."""

    def plain(one: Any) -> Any:
        return one.item() if hasattr(one, "item") else vars(one)

    return json.loads(json.dumps(vars(counts), default=plain))


def sha256_of(columns: Sequence[str], hashes: Iterable[np.ndarray]) -> str:
    """Return the fingerprint of all rows, as data.dataset computes it of a whole table."""
    digest = hashlib.sha256(repr(list(columns)).encode())
    for part in hashes:
        digest.update(part.tobytes())
    return digest.hexdigest()
