"""What an explore run carries, and the figures of the real table."""

import json

import numpy as np
import pandas as pd
import pytest

from churnlab.demo import members
from conftest import artifact, files

pytestmark = pytest.mark.slow

TABLES = {"config.yaml", "data_report.json", "summary.csv", "class_means.csv", "correlations.csv", "drivers.csv"}
FIGURES = {"distributions", "correlations", "correlation_matrix", "risk_ratios", "churn_by_value"}


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> pd.DataFrame:
    return members(400, seed=5).assign(Shoes=42)


@pytest.fixture(scope="module")
def explored(table, shared_home, run_command):
    """A table on disk with a column too many."""
    path = shared_home.parent / "members.csv"
    table.to_csv(path, index=False)
    return run_command(shared_home, "explore", "dataset=gym", f"dataset.path={path}")


@pytest.fixture
def run(explored, shared_home, client_at):
    return client_at(shared_home).get_run(explored.line["run_id"])


def test_the_result_says_how_many_members_there_are_and_how_many_left(explored, table):
    assert explored.code == 0, explored.err
    assert explored.line == {
        "command": "explore",
        "run_id": explored.line["run_id"],
        "rows": 400,
        "churn_rate": table["Churn"].mean(),
        "warnings": 1,
    }
    assert "warning: left out columns that the dataset does not declare: Shoes" in explored.err


def test_a_run_has_its_place_its_artifacts_and_a_note(run, explored, shared_home, client_at):
    assert client_at(shared_home).get_experiment(run.info.experiment_id).name == "gym-explore"
    assert run.data.tags["churnlab.command"] == "explore"
    assert files(run) == TABLES | {"gradients.csv"} | {f"figures/{name}.png" for name in FIGURES}
    for name in FIGURES:
        assert artifact(run, f"figures/{name}.png").read_bytes().startswith(b"\x89PNG")
    assert run.data.metrics == {"rows": 400, "churn_rate": explored.line["churn_rate"], "warnings": 1}
    assert f"400 members of whom {run.data.metrics['churn_rate']:.1%} left" in run.data.tags["mlflow.note.content"]
    report = json.loads(artifact(run, "data_report.json").read_text())
    assert report["warnings"] == ["left out columns that the dataset does not declare: Shoes"]
    pairs = {frozenset((pair["feature_a"], pair["feature_b"])) for pair in report["correlated_pairs"]}
    assert frozenset(("Contract_period", "Month_to_end_contract")) in pairs


def test_the_tables_are_those_of_the_members(run, table):
    features = table.drop(columns=["Churn", "Shoes"])
    correlations = pd.read_csv(artifact(run, "correlations.csv")).set_index("feature")
    for name in features:
        assert correlations.loc[name, "pearson_r"] == pytest.approx(np.corrcoef(table[name], table["Churn"])[0, 1])
    assert correlations["pearson_r"].abs().is_monotonic_decreasing
    means = pd.read_csv(artifact(run, "class_means.csv")).set_index("feature")
    left = features[table["Churn"] == 1].mean()
    assert any(np.allclose(means[name].reindex(left.index), left) for name in means.select_dtypes("number"))
    drivers = pd.read_csv(artifact(run, "drivers.csv")).set_index("feature")
    near = table.groupby("Near_Location")["Churn"].mean()
    assert drivers.loc["Near_Location", "risk_ratio"] == pytest.approx(near[1] / near[0])
    assert drivers.loc["Near_Location", "low"] < near[1] / near[0] < drivers.loc["Near_Location", "high"]


REFERENCE = {
    "Lifetime": -0.4382,
    "Avg_class_frequency_current_month": -0.4123,
    "Age": -0.4047,
    "Contract_period": -0.3900,
    "Month_to_end_contract": -0.3814,
    "Avg_class_frequency_total": -0.2497,
    "Avg_additional_charges_total": -0.1987,
    "Group_visits": -0.1753,
    "Promo_friends": -0.1622,
    "Partner": -0.1580,
    "Near_Location": -0.1281,
    "Phone": -0.0012,
    "gender": 0.0007,
}
RATIOS = {
    "Near_Location": 0.61,
    "Partner": 0.58,
    "Promo_friends": 0.50,
    "Group_visits": 0.52,
    "gender": 1.00,
    "Phone": 0.99,
    "Contract_period": 1 / 5.97,
    "Lifetime": 1 / 6.72,
}
"""With against without, above the cut against below it."""


def test_the_correlations_and_risk_ratios_of_the_real_table_are_the_references(gym_csv, home, succeed, client_at):
    line = succeed(home, "explore", "dataset=gym", f"dataset.path={gym_csv}")
    assert (line["rows"], line["churn_rate"], line["warnings"]) == (4000, 0.26525, 0)
    run = client_at(home).get_run(line["run_id"])
    correlations = pd.read_csv(artifact(run, "correlations.csv")).set_index("feature")["pearson_r"]
    assert list(correlations.index[:5]) == list(REFERENCE)[:5]
    for name, expected in REFERENCE.items():
        assert correlations[name] == pytest.approx(expected, abs=1e-4), name
    drivers = pd.read_csv(artifact(run, "drivers.csv")).set_index("feature")["risk_ratio"]
    for name, expected in RATIOS.items():
        assert drivers[name] == pytest.approx(expected, abs=0.006), name
