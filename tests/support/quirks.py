"""Draw tables with the quirks of real ones, and what a colleague would say of their columns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from support.odd_club import euros

Cells = list[Any]
Random = np.random.Generator


def _percent(rng: Random, n: int) -> Cells:
    return [f"{number:.1f}%" for number in rng.uniform(0, 100, n)]


def _with_gaps(cells: Cells, rng: Random, word: str, share: float = 0.06) -> Cells:
    return [word if rng.random() < share else cell for cell in cells]


def _days(rng: Random, n: int, form: str) -> Cells:
    dates = pd.Timestamp("2018-01-31") + pd.to_timedelta(rng.integers(0, 2400, n), unit="D")
    return dates.strftime(form).tolist()


KINDS: dict[str, tuple[str | None, Callable[[Random, int], Cells]]] = {
    "months": ("numeric", lambda rng, n: rng.integers(0, 73, n).tolist()),
    "Monthly Fee": ("numeric", lambda rng, n: rng.uniform(5, 99, n).round(2).tolist()),
    "total_charges": (
        "numeric",
        lambda rng, n: _with_gaps(rng.gamma(2, 500, n).round(2).astype(str).tolist(), rng, " "),
    ),
    "Balance": ("numeric", lambda rng, n: [f"{x:,.2f}" for x in rng.gamma(2, 9000, n)]),
    "Umsatz": ("numeric", lambda rng, n: [euros(x) for x in rng.gamma(2, 900, n)]),
    "income $": ("numeric", lambda rng, n: [f"${x:,}" for x in rng.integers(20_000, 2_000_000, n)]),
    "discount": ("numeric", _percent),
    "score": (
        "numeric",
        lambda rng, n: _with_gaps(rng.integers(300, 850, n).astype(str).tolist(), rng, "NA"),
    ),
    "change": ("numeric", lambda rng, n: rng.normal(0, 3, n).round(3).tolist()),
    "tenure": ("numeric", lambda rng, n: [f"{x} months" for x in rng.integers(1, 60, n)]),
    "senior": ("binary", lambda rng, n: rng.integers(0, 2, n).tolist()),
    "Paperless": ("binary", lambda rng, n: rng.choice(["Yes", "No"], n).tolist()),
    "active?": ("binary", lambda rng, n: rng.choice(["TRUE", "FALSE"], n).tolist()),
    "has card": ("binary", lambda rng, n: rng.choice(["Y", "N"], n).tolist()),
    "plan": ("category", lambda rng, n: rng.choice(["Gold", "Basic", "Free plan"], n).tolist()),
    "offer": ("category", lambda rng, n: rng.choice(["A", "B", "None"], n).tolist()),
    "Gender": ("category", lambda rng, n: rng.choice(["Male", "Female"], n).tolist()),
    "payment": (
        "category",
        lambda rng, n: _with_gaps(
            rng.choice(["card", "bank transfer (automatic)", "check, mailed"], n).tolist(), rng, ""
        ),
    ),
    "tariff": (
        "category",
        lambda rng, n: rng.choice(["1e3", "2e5", "X1", "on", "off"], n).tolist(),
    ),
    "zone": ("category", lambda rng, n: rng.choice(["007", "012", "100"], n).tolist()),
    "internet": ("category", lambda rng, n: rng.choice(["Yes", "No", "No phone"], n).tolist()),
    "age band": (
        "ordered",
        lambda rng, n: rng.choice(["18-24", "25-39", "40-64", "65+"], n).tolist(),
    ),
    "tenure_range": (
        "ordered",
        lambda rng, n: rng.choice(["< 1 year", "1-2 years", "3-9 years", "10+ years"], n).tolist(),
    ),
    "joined": ("date", lambda rng, n: _days(rng, n, "%Y-%m-%d")),
    "last visit": ("date", lambda rng, n: _days(rng, n, "%d.%m.%Y")),
    "Signup Date": ("date", lambda rng, n: _days(rng, n, "%m/%d/%Y")),
    "fee a month": ("numeric", lambda rng, n: [f"${x:.2f}/month" for x in rng.uniform(5, 99, n)]),
    "result": (
        "numeric",
        lambda rng, n: [f"({-x:,.2f})" if x < 0 else f"{x:,.2f}" for x in rng.normal(0, 4000, n)],
    ),
    "calls": (
        "numeric",
        lambda rng, n: _with_gaps(rng.integers(1, 500, n).astype(str).tolist(), rng, "never", 0.3),
    ),
    "ratio": (
        "numeric",
        lambda rng, n: _with_gaps(
            rng.normal(0, 1, n).round(3).astype(str).tolist(), rng, "#DIV/0!"
        ),
    ),
    "seen at": ("date", lambda rng, n: _days(rng, n, "%m/%d/%Y %I:%M %p")),
    "signed": ("date", lambda rng, n: _days(rng, n, "%b %d, %Y")),
    "valid to": (
        "date",
        lambda rng, n: _with_gaps(_days(rng, n, "%Y-%m-%d"), rng, "9999-12-31", 0.4),
    ),
    "income band": (
        "ordered",
        lambda rng, n: rng.choice(["Less than $40K", "$40K - $80K", "$80K +"], n).tolist(),
    ),
    "age interval": (
        "ordered",
        lambda rng, n: rng.choice(["(18.0, 25.0]", "(25.0, 40.0]", "(40.0, 99.0]"], n).tolist(),
    ),
    "tier": (
        "category",
        lambda rng, n: [f" {x}{' ' * rng.integers(3)}" for x in rng.choice(["gold", "silver"], n)],
    ),
    "comment": (
        None,
        lambda rng, n: [f"called {x} times, wants a new bag" for x in rng.permutation(n)],
    ),
    "country": (None, lambda rng, n: ["Spain"] * n),
    "fax": (None, lambda rng, n: [""] * n),
}
"""By name: the kind that a colleague would declare (None: leave it out), and how to draw cells."""

TARGETS = {
    "Churn": ("Yes", "No"),
    "Exited": ("1", "0"),
    "Attrition_Flag": ("Attrited Customer", "Existing Customer"),
    "Churn Value": ("1", "0"),
    "Customer Status": ("Churned", "Stayed"),
    "left": ("TRUE", "FALSE"),
    "has churned?": ("Y", "N"),
    "Status": ("Left", "Active"),
}
"""By name: the value that means left, and the other."""

IDS: dict[str, Callable[[Random, int], Cells]] = {
    "customerID": lambda rng, n: [f"{x:04d}-ABC{x % 7}Q" for x in rng.permutation(n) + 1000],
    "CustomerId": lambda rng, n: (rng.choice(9 * n, n, replace=False) + 15_000_000).tolist(),
    "client_id": lambda rng, n: (rng.permutation(n) + 1).tolist(),
    "Member No": lambda rng, n: [f"M-{x:05d}" for x in rng.permutation(n)],
}


@dataclass(frozen=True)
class Quirky:
    """A table as cells by column, its separator, and what a colleague would say of it."""

    cells: dict[str, Cells]
    separator: str
    target: str
    positive: str
    id: str | None
    kinds: dict[str, str | None] = field(default_factory=dict)


def quirky(seed: int) -> Quirky:
    """Draw a table: columns, size, separator, order, a row counter now and then."""
    rng = np.random.default_rng(seed)
    n = int(rng.choice([60, 150, 400, 1200]))
    names = rng.permutation(list(KINDS))[: rng.integers(3, 14)].tolist()
    cells = {name: KINDS[name][1](rng, n) for name in names}
    kinds = {name: KINDS[name][0] for name in names}
    target = str(rng.choice(list(TARGETS)))
    left = rng.permutation(n) < max(9, int(n * rng.uniform(0.08, 0.6)))
    positive, stayed = TARGETS[target]
    words = [positive if gone else stayed for gone in left]
    if target == "Customer Status":
        words = _with_gaps(words, rng, "Joined", 0.05)
    cells[target] = words
    id_ = str(rng.choice(list(IDS))) if rng.random() < 0.8 else None
    if id_ is not None:
        cells = {id_: IDS[id_](rng, n)} | cells
    if rng.random() < 0.4:
        counter = str(rng.choice(["RowNumber", "Unnamed: 0", "index", ""]))
        cells = {counter: [*range(n)]} | cells
        kinds |= {counter: None} if counter else {}
    separator = str(rng.choice([",", ";", "\t", "|"]))
    return Quirky(cells, separator, target, positive, id_, kinds)
