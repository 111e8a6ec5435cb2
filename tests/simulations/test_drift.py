"""Samples of one population are rarely called a drift, small shifts never, large ones mostly."""

import numpy as np
import pandas as pd
import pytest

from churnlab.data.drift import remember, score_warnings, warnings
from support.planted import assert_at_least, assert_at_most, count, tables


def column(rng: np.random.Generator, kind: int, n: int) -> np.ndarray | pd.Series:
    """One of six kinds: normal, skewed, whole with gaps, binary, few values, many categories."""
    if kind == 0:
        return rng.normal(size=n)
    if kind == 1:
        return np.exp(2 * rng.normal(size=n))
    if kind == 2:
        return np.where(rng.random(n) < 0.05, np.nan, rng.poisson(3, n))
    if kind == 3:
        return (rng.random(n) < 0.84).astype(float)
    if kind == 4:
        return rng.choice([1.0, 6.0, 12.0], n, p=[0.55, 0.2, 0.25])
    return pd.Series(rng.zipf(1.7, n).clip(max=300).astype("str"), dtype="str")


def table(rng: np.random.Generator, n: int, *, columns: int) -> pd.DataFrame:
    """Columns of all kinds, and who left."""
    members = {f"c{at}": column(rng, at % 6, n) for at in range(columns)}
    return pd.DataFrame(members | {"left": (rng.random(n) < 0.265).astype(float)})


SIZES = {
    "few of few": (200, 200, 6),
    "many columns": (200, 200, 60),
    "few now": (3200, 30, 12),
    "few then": (200, 4000, 12),
    "many": (3200, 100_000, 6),
}


@pytest.mark.parametrize(("then", "now", "columns"), SIZES.values(), ids=SIZES)
def test_two_samples_of_one_population_are_a_drift_in_few_tables(then, now, columns):
    def warned(rng: np.random.Generator) -> bool:
        remembered = remember(table(rng, then, columns=columns), scores=rng.beta(1, 3, then))
        found = [
            *warnings(table(rng, now, columns=columns), remembered, model="v1", target="left"),
            *score_warnings(rng.beta(1, 3, now), remembered, model="v1"),
        ]
        return any("drifted" in warning or warning.startswith("drift") for warning in found)

    large = now == 100_000
    of = tables(5 if large else max(10, 240 // columns), 100 if large else 12_000 // columns)
    assert_at_most(0.05, count(warned, of=of, seed=1), of=of)


def shifted(now: pd.DataFrame, rng: np.random.Generator) -> dict[str, pd.DataFrame]:
    """Return tables in which one column each is not what it was."""
    n = len(now)
    return {
        "c0": now.assign(c0=now["c0"] + 0.4),
        "c1": now.assign(c1=now["c1"] * 2),
        "c2": now.assign(c2=now["c2"].mask(rng.random(n) < 0.15)),
        "c3": now.assign(c3=(rng.random(n) < 0.70).astype(float)),
        "c4": now.assign(c4=rng.choice([1.0, 6.0, 12.0], n, p=[0.7, 0.15, 0.15])),
        "c5": now.assign(c5=now["c5"].mask(rng.random(n) < 0.3, "1")),
        "the outcome": now.assign(left=(rng.random(n) < 0.4).astype(float)),
    }


@pytest.mark.parametrize("name", ["c0", "c1", "c2", "c3", "c4", "c5", "the outcome"])
def test_a_shift_is_named_and_nothing_else_is(name):
    def named(rng: np.random.Generator) -> bool:
        remembered = remember(table(rng, 3200, columns=6))
        now = shifted(table(rng, 800, columns=6), rng)[name]
        found = list(warnings(now, remembered, model="v1", target="left"))
        drifts = [each for each in found if "categories that" not in each]
        return len(drifts) == 1 and f"{name} " in drifts[0]

    of = tables(12, 300)
    assert_at_least(0.9, count(named, of=of, seed=2), of=of)


def test_a_shift_of_one_percent_is_no_drift_however_many_members_show_it():
    def warned(rng: np.random.Generator) -> bool:
        remembered = remember(table(rng, 100_000, columns=6))
        now = table(rng, 100_000, columns=6)
        now = now.assign(c0=now["c0"] + 0.01, c3=(rng.random(len(now)) < 0.83).astype(float))
        now["left"] = (rng.random(len(now)) < 0.275).astype(float)
        found = list(warnings(now, remembered, model="v1", target="left"))
        return any("categories that" not in each for each in found)

    of = tables(3, 50)
    assert_at_most(0.0, count(warned, of=of, seed=3), of=of)


def test_predictions_that_have_moved_are_named():
    def named(rng: np.random.Generator) -> bool:
        remembered = remember(
            pd.DataFrame({"a": rng.normal(size=3200)}), scores=rng.beta(1, 3, 3200)
        )
        return bool(list(score_warnings(rng.beta(2, 3, 400), remembered, model="v1")))

    of = tables(20, 500)
    assert_at_least(0.95, count(named, of=of, seed=4), of=of)
