import math

import pandas as pd

from churnlab.data.contract import Column, Contract
from churnlab.report.parts import claim_rows, explored, sources, varied_params


def test_groups_are_the_clear_sides_of_risk_ratios_and_unclear_features_have_none():
    columns = {
        "Age": Column("numeric", unit="years"),
        "Phone": Column("binary"),
        "flat": Column("numeric"),
    }
    sides = {"n_with": 50, "n_without": 50, "churn_with": 0.1, "churn_without": 0.4}
    rows = [
        {"feature": "Age", "split": "> 29", "risk_ratio": 0.25, "low": 0.2, "high": 0.5} | sides,
        {"feature": "Phone", "split": "= 1", "risk_ratio": 0.9, "low": 0.8, "high": 0.99} | sides,
        {"feature": "flat", "split": "> 1", "risk_ratio": math.nan, "low": 0, "high": 1} | sides,
    ]
    drivers = pd.DataFrame(rows).assign(p_value=[1e-6, 0.045, math.nan])
    noise = [rows[1] | {"feature": "Phone", "p_value": 0.5}] * 5
    r = pd.DataFrame({"feature": ["Age", "flat"], "pearson_r": [-0.4, math.nan]})
    contract = Contract("shop", "left", 1, columns)
    no_pairs = pd.DataFrame({"feature_a": [], "feature_b": []})
    many = pd.concat([drivers, pd.DataFrame(noise)], ignore_index=True)
    found = explored(contract, many, r, no_pairs)
    assert [group["group"] for group in found["groups"]] == ["Age at most 29 (years)"]
    assert found["groups"][0]["ratio"] == 4
    assert found["unclear"] == ["Phone"]
    assert found["looked"] == 7
    alone = explored(contract, drivers, r, no_pairs)
    assert len(alone["groups"]) == 2, "of two groups that were looked at, p = .045 counts"
    assert [row["feature"] for row in found["correlations"]] == ["Age"]
    assert found["pairs"] == []


def test_only_estimator_parameters_that_vary_among_a_model_are_shown():
    first = {"model.estimator.C": "0.5547119471592125", "model.estimator.tol": "1", "seed": "1"}
    second = {"model.estimator.C": "1", "model.estimator.tol": "1", "seed": "2"}
    assert varied_params(first, [first, second]) == {"C": "0.555"}
    assert varied_params(first, [first]) == {}
    assert varied_params(second, [second, {}]) == {"C": "1", "tol": "1"}


def test_a_verdict_of_false_is_a_word_even_where_it_is_read_as_a_boolean():
    table = pd.DataFrame({"verdict": [False], "measured": [0.5], "low": [0.4], "high": [0.6]})
    (row,) = claim_rows(table)
    assert row["verdict"] == "false"
    assert row["measured"] == "0.50 (0.40 to 0.60)"


def test_every_run_is_named_once_and_missing_parts_are_skipped():
    nothing = {"run_id": None}
    assert sources(nothing, None, None, None, None) == {}
    model = {"run_id": "m", "model": "random_forest", "features": "raw", "tuned": True}
    models = {"rows": [model], "rival_run_id": "r", "rival": "dummy (raw features)"}
    champion = {
        "run_id": "p",
        "churn_run_id": "m",
        "segment_run_id": "s",
        "version": "3",
        "model": "?",
    }
    found = sources({"run_id": "e"}, models, {"run_id": "s"}, champion, {"run_id": "c"})
    assert found == {
        "e": "explore",
        "m": "train: random forest (raw features, tuned)",
        "r": "train: dummy (raw features)",
        "s": "segment",
        "p": "promote: version 3",
        "c": "claims",
    }
