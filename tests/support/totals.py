"""Tables of members with a line of totals below."""

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st

N = 30
LIMITS = settings(max_examples=15, deadline=None)
SEEDS = st.integers(0, 2**32 - 1)
LABELS = ["Total", "TOTAL:", "Grand Total", "Gesamt", "Summe", "Sum of all", "Итого", "合计"]


def members(seed: int) -> dict[str, list]:
    rng = np.random.default_rng(seed)
    return {
        "member": [f"M-{number:03d}" for number in range(N)],
        "visits": rng.integers(0, 30, N).tolist(),
        "fee": rng.uniform(15, 90, N).round(2).tolist(),
        "plan": rng.choice(["gold", "basic"], N).tolist(),
        "Churn": rng.permutation(np.resize(["Yes", "No", "No"], N)).tolist(),
    }


def sums(table: dict[str, list], *, rows: int = N) -> dict[str, float]:
    return {name: round(sum(table[name][:rows]), 2) for name in ("visits", "fee")}


def with_line(table: dict[str, list], **cells) -> dict[str, list]:
    return {name: [*column, cells.get(name, "")] for name, column in table.items()}
