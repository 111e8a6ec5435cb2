"""Generate members of a fictional gym: the distributions of the real table, none of its rows.

Whether a member leaves is drawn first, and everything else given that: the sign-up form, field by
field, each a logistic model of the fields before it; the contract; then age, spending, tenure and
visits, which are independent given the outcome. Every parameter is an aggregate of the real table
(a mean, a deviation, an effect, a histogram); no row is stored or resampled.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Annotated, Any

import numpy as np
import pandas as pd
from pydantic import AfterValidator, ConfigDict, Field, ValidationError
from pydantic.dataclasses import dataclass
from scipy.special import expit

from churnlab.errors import InputError

Histogram = tuple[float, ...]
Probability = Annotated[float, Field(ge=0, le=1)]
NotNegative = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]


def _not_all_zero(weights: Histogram) -> Histogram:
    if not any(weights):
        raise ValueError("at least one weight must be above 0")
    return weights


Months = Annotated[tuple[NotNegative, ...], AfterValidator(_not_all_zero)]
"""Weights, not yet shares, of 2, 3, ... months left."""


@dataclass(frozen=True, config=ConfigDict(allow_inf_nan=False))
class Parameters:
    """The generator's parameters: probabilities, logits (intercept and effects) and distributions
    given the outcome."""

    churn: Probability = 0.265

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

    months_of_six: Annotated[Months, Field(min_length=5, max_length=5)] = (
        *(0.011, 0.025, 0.059, 0.148, 0.757),
    )
    months_of_twelve: Annotated[Months, Field(min_length=11, max_length=11)] = (
        *(0.005, 0.002, 0.009, 0.007, 0.015, 0.026),
        *(0.040, 0.076, 0.085, 0.189, 0.546),
    )

    age_stayed_mean: float = 29.98  # years, normal
    age_stayed_sd: NotNegative = 3.00
    age_churned_mean: float = 26.99
    age_churned_sd: NotNegative = 2.88
    age_min: float = 18
    age_max: float = 45

    charges_stayed_mean: float = 147.7  # normal, folded at 0
    charges_stayed_sd: NotNegative = 115.1
    charges_churned_mean: float = 100.9
    charges_churned_sd: NotNegative = 95.3

    lifetime_stayed_shape: Positive = 1.611  # months, gamma
    lifetime_stayed_scale: Positive = 2.924
    lifetime_churned_shape: Positive = 1.018
    lifetime_churned_scale: Positive = 1.011

    visits_stayed_mean: float = 2.016  # a week over the whole membership, normal, censored at 0
    visits_stayed_sd: NotNegative = 1.037
    visits_churned_mean: float = 1.470
    visits_churned_sd: NotNegative = 0.706

    # the current month minus the whole membership, normal
    visits_change_stayed_mean: float = 0.002
    visits_change_stayed_sd: NotNegative = 0.101
    visits_change_churned_mean: float = -0.484
    visits_change_churned_sd: NotNegative = 0.503

    gender: Probability = 0.51
    phone: Probability = 0.9035


def members(n: int, seed: int = 0, parameters: Mapping[str, Any] | None = None) -> pd.DataFrame:
    """Generate n members: the thirteen columns of the gym's table and Churn, reproducible by seed.

    ``parameters`` overrides fields of `Parameters` by name; a wrong one is an InputError. Tables of
    one seed and different parameters share their random numbers, except for visits, gender and
    Phone if the distribution of Lifetime changes (a gamma variate takes as many as its shape
    needs). Charges and visits have six decimals.

    >>> members(2)[["Age", "Lifetime", "Churn"]]
       Age  Lifetime  Churn
    0   31         2      0
    1   33         8      0
    """
    for name, value, least in (("n", n, 1), ("seed", seed, 0)):
        if not isinstance(value, int) or value < least:
            raise InputError(
                f"The generator's {name} is {value!r}; give a whole number of at least {least}."
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
    """Draw the sign-up form and the contract; the order of the draws is part of the definition."""

    def drawn(field: str, **given: np.ndarray) -> np.ndarray:
        effects = (getattr(p, f"{field}_{name}") * x for name, x in given.items())
        logit = sum(effects, start=getattr(p, f"{field}_intercept"))
        return rng.random(len(churn)) < expit(logit)

    near = drawn("near", churn=churn)
    partner = drawn("partner", churn=churn, near=near)
    promo = drawn("promo", churn=churn, near=near, partner=partner)
    long = drawn("long", churn=churn, partner=partner, promo=promo, near=near)
    year = long & drawn("year", churn=churn, partner=partner, promo=promo, near=near)
    form = {"churn": churn, "near": near, "partner": partner, "promo": promo}
    group = drawn("group", **form, long=long, year=year)
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
    """Draw age, spending, tenure and visits, independent of each other given the outcome."""

    def given(stayed: float, churned: float) -> np.ndarray:
        return np.where(churn, churned, stayed)

    def normal(habit: str) -> np.ndarray:
        mean, sd = (
            given(getattr(p, f"{habit}_stayed_{moment}"), getattr(p, f"{habit}_churned_{moment}"))
            for moment in ("mean", "sd")
        )
        return rng.normal(mean, sd)

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
    """Return the defaults with these overrides; InputError names the one that is not valid."""
    defaults = {field.name: field.default for field in fields(Parameters)}
    unknown = sorted(str(name) for name in overrides if name not in defaults)
    if unknown:
        raise InputError(
            f"The generator has no parameter {', '.join(unknown)}. Its parameters are: "
            f"{', '.join(defaults)}."
        )
    try:
        p = Parameters(**overrides)
    except ValidationError as error:
        first = error.errors()[0]
        name, reason = str(first["loc"][0]), first["msg"].removeprefix("Value error, ")
        raise InputError(
            f"The generator's {name} is {overrides[name]!r}: {reason}. The default is "
            f"{defaults[name]!r}."
        ) from None
    if p.age_min > p.age_max:
        raise InputError(
            f"The generator's age_min is {p.age_min:g} and its age_max {p.age_max:g}: swap them."
        )
    return p
