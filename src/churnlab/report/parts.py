"""The parts of the report: what its sections show, from the tables and values of the runs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from churnlab.claims.claim import format_interval
from churnlab.data.contract import Contract
from churnlab.explore.association import MAX_FDR, q_values
from churnlab.formatting import short_value
from churnlab.report.model_sentences import model_in_words
from churnlab.report.sentences import riskier

ESTIMATOR = "model.estimator."
VARIED = (ESTIMATOR, "model.scale", "evaluation.", "decision.")
"""What the names begin with of the parameters in which runs of one model and feature set differ."""


def explored(
    contract: Contract,
    risk_ratios: pd.DataFrame,
    correlations: pd.DataFrame,
    pairs: pd.DataFrame,
    words: Mapping[str, Mapping[str, str]] | None = None,
) -> dict[str, Any]:
    """Return what an explore run found: groups with higher churn, correlations, redundant pairs.

    ``groups`` are the sides of risk ratios whose q-value over all of them is below MAX_FDR,
    ``looked`` is the number of ratios, ``unclear`` are the other features, ``words`` those of the
    dataset. (Earlier explore runs
    have no q-value in the table.)
    """
    q = q_values(risk_ratios["p_value"])
    known = risk_ratios.assign(q_value=q).dropna(subset=["risk_ratio", "low", "high"])
    outside = (known["low"] > 1) | (known["high"] < 1)
    clear = known[outside & (known["q_value"] < MAX_FDR)]
    columns, words = contract.columns, words or {}
    return {
        "groups": [
            riskier(
                row,
                kind=columns[row["feature"]].kind,
                unit=columns[row["feature"]].unit,
                words=words.get(row["feature"]),
            )
            for row in clear.to_dict("records")
        ],
        "looked": len(known),
        "unclear": [
            name for name in known["feature"].unique() if name not in set(clear["feature"])
        ],
        "correlations": correlations.dropna(subset="pearson_r").to_dict("records"),
        "pairs": pairs.to_dict("records"),
    }


def varied_params(params: Mapping[str, str], others: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """Return the parameters in which a run differs from others of its model, by their last name.

    A key that another run does not have is older than that run, unless it is the estimator's.

    >>> first, second = {"model.estimator.C": "1", "metric": "f1"}, {"model.estimator.C": "10"}
    >>> varied_params(first, [first, second])
    {'C': '1'}
    """
    varied = {
        key: value
        for prefix in VARIED
        for key, value in sorted(params.items())
        if key.startswith(prefix)
        and any(other.get(key, None if ESTIMATOR in key else value) != value for other in others)
    }
    return {
        key.removesuffix("._target_").rpartition(".")[2]: value.rpartition(".")[2]
        if key.endswith("._target_")
        else short_value(value)
        for key, value in varied.items()
    }


def claim_rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows of claims.csv with the measured value and its interval as text."""
    values = zip(table["measured"], table["low"], table["high"], strict=True)
    table = table.assign(
        # A column that holds nothing but "false" is read as booleans.
        verdict=table["verdict"].astype(str).str.lower(),
        measured=[format_interval(*row) for row in values],
        q=table.get("q", math.nan),
    )
    return table.to_dict("records")  # type: ignore[return-value]


def sources(
    members: Mapping[str, Any],
    models: Mapping[str, Any] | None,
    segments: Mapping[str, Any] | None,
    champion: Mapping[str, Any] | None,
    claims: Mapping[str, Any] | None,
) -> dict[str, str]:
    """Name every run that the page takes a number from, by its id."""
    named = {members["run_id"]: "explore"} if members["run_id"] else {}
    for row in models["rows"] if models else []:
        model = model_in_words(row["model"], row["features"], tuned=row["tuned"])
        named[row["run_id"]] = f"train: {model}"
    if models and models["rival_run_id"]:
        named.setdefault(models["rival_run_id"], f"train: {models['rival']}")
    if segments:
        named[segments["run_id"]] = "segment"
    if champion:
        named[champion["run_id"]] = f"promote: version {champion['version']}"
        named.setdefault(champion["churn_run_id"], f"train: {champion['model']}, the champion's")
        if champion["segment_run_id"] is not None:
            named.setdefault(champion["segment_run_id"], "segment: the champion's")
    if claims:
        named[claims["run_id"]] = "claims"
    return named
