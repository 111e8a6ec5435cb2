"""Members of a gym that does not exist: a generator with the habits of the real table and none of
its rows.

Whether a member leaves is drawn first, and everything else given that: the answers of the sign-up
form, one after another, each a logistic model of those before it; the contract; then age, spending,
tenure and visits, which are independent of each other within those who stay and within those who
leave. Every parameter is an aggregate of the real table (a mean, a deviation, an effect, a
histogram); no row is stored or resampled.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import expit

from churnlab.errors import InputError

Histogram = tuple[float, ...]


@dataclass(frozen=True)
class Parameters:
    """What the generator can be told: probabilities, logits (intercept and effects), laws given
    stayed or churned."""

    churn: float = 0.265

    near_intercept: float = 1.929
    near_churn: float = -0.731

    partner_intercept: float = 0.266
    partner_churn: float = -0.749
    partner_near: float = -0.147

    promo_intercept: float = -3.914
    promo_churn: float = -0.510
    promo_near: float = 2.071
    promo_partner: float = 2.306

    long_intercept: float = -0.901  # a contract of more than one month
    long_churn: float = -2.130
    long_partner: float = 1.029
    long_promo: float = 0.329
    long_near: float = 0.607

    year_intercept: float = -0.854  # twelve months, given more than one
    year_churn: float = -1.716
    year_partner: float = 0.617
    year_promo: float = 0.012
    year_near: float = 0.774

    group_intercept: float = -0.973
    group_churn: float = -0.605
    group_near: float = 0.706
    group_partner: float = -0.285
    group_promo: float = 0.371
    group_long: float = 0.216
    group_year: float = 0.320

    months_of_six: Histogram = (
        0.011,
        0.025,
        0.059,
        0.148,
        0.757,
    )  # 2..6 months left; weights, not yet shares
    months_of_twelve: Histogram = (
        *(0.005, 0.002, 0.009, 0.007, 0.015, 0.026),  # 2..7 months left
        *(0.040, 0.076, 0.085, 0.189, 0.546),  # 8..12
    )

    age_stayed_mean: float = 29.98  # years, normal
    age_stayed_sd: float = 3.00
    age_churned_mean: float = 26.99
    age_churned_sd: float = 2.88
    age_min: float = 18
    age_max: float = 45

    charges_stayed_mean: float = 147.7  # normal, folded at 0
    charges_stayed_sd: float = 115.1
    charges_churned_mean: float = 100.9
    charges_churned_sd: float = 95.3

    lifetime_stayed_shape: float = 1.611  # months, gamma
    lifetime_stayed_scale: float = 2.924
    lifetime_churned_shape: float = 1.018
    lifetime_churned_scale: float = 1.011

    visits_stayed_mean: float = 2.016  # a week over the whole membership, normal, censored at 0
    visits_stayed_sd: float = 1.037
    visits_churned_mean: float = 1.470
    visits_churned_sd: float = 0.706

    visits_change_stayed_mean: float = (
        0.002  # of the current month against the whole membership, normal
    )
    visits_change_stayed_sd: float = 0.101
    visits_change_churned_mean: float = -0.484
    visits_change_churned_sd: float = 0.503

    gender: float = 0.51
    phone: float = 0.9035


def members(n: int, seed: int = 0, parameters: Mapping[str, Any] | None = None) -> pd.DataFrame:
    """Generate n members: the thirteen columns of the gym's table and Churn, the same rows for the
    same seed.

    ``parameters`` replaces any field of `Parameters` by name; a name that is not there is an
    InputError. Tables of one seed and different parameters share their random numbers, except for
    visits, gender and Phone where the law of Lifetime changed for somebody (a gamma takes as many
    as its shape needs). Charges and visits have six decimals.
    """
    if not isinstance(n, int) or n < 1:
        raise InputError(
            f"The generator was asked for {n!r} members; n must be a whole number of at least 1."
        )
    if not isinstance(seed, int) or seed < 0:
        raise InputError(
            f"The generator's seed is {seed!r}; it must be a whole number of at least 0."
        )
    p = _parameters(parameters or {})
    rng = np.random.default_rng(seed)
    churn = rng.random(n) < p.churn
    data = {**_sign_up(rng, churn, p), **_habits(rng, churn, p)}
    data["gender"] = rng.random(n) < p.gender
    data["Phone"] = rng.random(n) < p.phone
    data["Churn"] = churn
    return pd.DataFrame({name: data.pop(name).astype(dtype) for name, dtype in COLUMNS.items()})


COLUMNS = {
    "gender": np.int64,
    "Near_Location": np.int64,
    "Partner": np.int64,
    "Promo_friends": np.int64,
    "Phone": np.int64,
    "Contract_period": np.int64,
    "Group_visits": np.int64,
    "Age": np.int64,
    "Avg_additional_charges_total": np.float64,
    "Month_to_end_contract": np.float64,
    "Lifetime": np.int64,
    "Avg_class_frequency_total": np.float64,
    "Avg_class_frequency_current_month": np.float64,
    "Churn": np.int64,
}
"""The generated table's columns in the source's order, with their types."""


def _sign_up(rng: np.random.Generator, churn: np.ndarray, p: Parameters) -> dict[str, np.ndarray]:
    """Draw what a member says and signs on the first day; the order of the draws is part of the
    definition."""

    def drawn(logit: np.ndarray) -> np.ndarray:
        return rng.random(len(logit)) < expit(logit)

    near = drawn(p.near_intercept + p.near_churn * churn)
    partner = drawn(p.partner_intercept + p.partner_churn * churn + p.partner_near * near)
    promo = drawn(
        p.promo_intercept + p.promo_churn * churn + p.promo_near * near + p.promo_partner * partner
    )
    long = drawn(
        p.long_intercept
        + p.long_churn * churn
        + p.long_partner * partner
        + p.long_promo * promo
        + p.long_near * near
    )
    year = long & drawn(
        p.year_intercept
        + p.year_churn * churn
        + p.year_partner * partner
        + p.year_promo * promo
        + p.year_near * near
    )
    group = drawn(
        p.group_intercept
        + p.group_churn * churn
        + p.group_near * near
        + p.group_partner * partner
        + p.group_promo * promo
        + p.group_long * long
        + p.group_year * year
    )
    # The months are drawn for every member and used where they apply: one contract's draws never
    # move another's.
    of_six = _months(rng, p.months_of_six, len(churn))
    of_twelve = _months(rng, p.months_of_twelve, len(churn))
    return {
        "Near_Location": near,
        "Partner": partner,
        "Promo_friends": promo,
        "Group_visits": group,
        "Contract_period": np.where(year, 12, np.where(long, 6, 1)),
        "Month_to_end_contract": np.where(year, of_twelve, np.where(long, of_six, 1)),
    }


def _months(rng: np.random.Generator, weights: Histogram, n: int) -> np.ndarray:
    return rng.choice(np.arange(2, 2 + len(weights)), size=n, p=np.array(weights) / np.sum(weights))


def _habits(rng: np.random.Generator, churn: np.ndarray, p: Parameters) -> dict[str, np.ndarray]:
    """Draw age, spending, tenure and visits, independent of each other among those who stay and who
    leave."""

    def given(stayed: float, churned: float) -> np.ndarray:
        return np.where(churn, churned, stayed)

    def normal(law: str) -> np.ndarray:
        mean, sd = (
            (getattr(p, f"{law}_stayed_{of}"), getattr(p, f"{law}_churned_{of}"))
            for of in ("mean", "sd")
        )
        return rng.normal(given(*mean), given(*sd))

    age = np.rint(np.clip(normal("age"), p.age_min, p.age_max))
    charges = np.abs(normal("charges"))
    lifetime = rng.gamma(
        given(p.lifetime_stayed_shape, p.lifetime_churned_shape),
        given(p.lifetime_stayed_scale, p.lifetime_churned_scale),
    )
    total = np.maximum(0, normal("visits"))
    current = np.maximum(0, total + normal("visits_change"))
    return {
        "Age": age,
        "Avg_additional_charges_total": np.round(charges, 6),
        "Lifetime": np.rint(lifetime),
        "Avg_class_frequency_total": np.round(total, 6),
        "Avg_class_frequency_current_month": np.round(current, 6),
    }


def _parameters(overrides: Mapping[str, Any]) -> Parameters:
    """The defaults with the overrides in their place; InputError says which one cannot be."""
    known = {field.name: field.default for field in fields(Parameters)}
    unknown = sorted(str(name) for name in overrides if name not in known)
    if unknown:
        raise InputError(
            f"The generator has no parameter {', '.join(unknown)}. Its parameters are: "
            f"{', '.join(known)}."
        )
    given = {
        str(name): _checked(str(name), value, known[name]) for name, value in overrides.items()
    }
    p = replace(Parameters(), **given)
    if p.age_min > p.age_max:
        raise InputError(
            f"The generator's age_min is {p.age_min:g} and its age_max {p.age_max:g}: swap them."
        )
    return p


def _checked(name: str, value: Any, default: Any) -> Any:
    """One override as the number, or the histogram, that it must be."""
    is_histogram = isinstance(default, tuple)
    try:
        numbers = np.array([*value] if is_histogram else [value], dtype=np.float64)
    except (TypeError, ValueError):
        numbers = np.array([np.nan])
    if is_histogram:
        must = f"a list of {len(default)} weights, none below 0 and not all of them 0"
        holds = len(numbers) == len(default) and numbers.min() >= 0 and numbers.sum() > 0
    elif name in ("churn", "gender", "phone"):
        must, holds = "a probability between 0 and 1", 0 <= numbers[0] <= 1
    elif name.endswith(("_shape", "_scale")):
        must, holds = "above 0", numbers[0] > 0
    elif name.endswith("_sd"):
        must, holds = "at least 0", numbers[0] >= 0
    else:
        must, holds = "a number", True
    if not (holds and np.isfinite(numbers).all()):
        raise InputError(
            f"The generator's {name} is {value!r}; it must be {must}. The default is {default!r}."
        )
    return tuple(numbers.tolist()) if is_histogram else float(numbers[0])
