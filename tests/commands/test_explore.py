"""The artifacts of an explore run, tables at the edge of what is allowed, and the real table."""

import io
import json
import re
import time

import numpy as np
import pandas as pd
import pytest

from churnlab.commands import explore
from churnlab.data.contract import Column, Contract
from churnlab.data.dataset import Dataset
from churnlab.data.demo import members
from churnlab.report import findings
from support.running import artifact, files

pytestmark = pytest.mark.slow

TABLES = {
    *("summary", "completeness", "class_means", "correlations", "links", "drivers", "gradients"),
    *("collinear", "same_groups"),
}
FIGURES = {
    "links",
    "distributions",
    "correlations",
    "correlation_matrix",
    "risk_ratios",
    "churn_by_value",
}


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


def test_the_result_line_has_the_members_and_the_churn_rate(explored, table):
    assert explored.code == 0, explored.err
    assert explored.line == {
        "command": "explore",
        "run_id": explored.line["run_id"],
        "rows": 400,
        "churn_rate": table["Churn"].mean(),
        "warnings": 1,
    }
    assert "warning: left out columns that the dataset does not declare: Shoes" in explored.err


def test_a_run_has_its_experiment_artifacts_and_note(run, explored, shared_home, client_at):
    assert client_at(shared_home).get_experiment(run.info.experiment_id).name == "gym-explore"
    assert run.data.tags["churnlab.command"] == "explore"
    texts = {"config.yaml", "data_report.json", "findings.md"}
    assert files(run) == texts | {f"{name}.csv" for name in TABLES} | {
        f"figures/{name}.png" for name in FIGURES
    }
    for name in FIGURES:
        assert artifact(run, f"figures/{name}.png").read_bytes().startswith(b"\x89PNG")
    assert run.data.metrics == {
        "rows": 400,
        "churn_rate": explored.line["churn_rate"],
        "warnings": 1,
    }
    assert f"left: {run.data.metrics['churn_rate']:.1%}" in run.data.tags["mlflow.note.content"]
    report = json.loads(artifact(run, "data_report.json").read_text())
    assert report["warnings"] == ["left out columns that the dataset does not declare: Shoes"]


def test_the_findings_open_alike_in_the_run_and_on_the_terminal(run, explored, table):
    page = artifact(run, "findings.md").read_text(encoding="utf-8")
    first = f"Of 400 members, {table['Churn'].sum()} left"
    assert first in page
    assert first in explored.err
    assert "No signal shown: " in explored.err
    assert "left out columns that the dataset does not declare: Shoes" in page


def test_the_tables_are_those_of_the_members(run, table):
    features = table.drop(columns=["Churn", "Shoes"])
    correlations = pd.read_csv(artifact(run, "correlations.csv")).set_index("feature")
    for name in features:
        assert correlations.loc[name, "pearson_r"] == pytest.approx(
            np.corrcoef(table[name], table["Churn"])[0, 1]
        )
    assert correlations["pearson_r"].abs().is_monotonic_decreasing
    means = pd.read_csv(artifact(run, "class_means.csv")).set_index("feature")
    left = features[table["Churn"] == 1].mean()
    assert any(
        np.allclose(means[name].reindex(left.index), left) for name in means.select_dtypes("number")
    )
    drivers = pd.read_csv(artifact(run, "drivers.csv")).set_index("feature")
    near = table.groupby("Near_Location")["Churn"].mean()
    assert drivers.loc["Near_Location", "risk_ratio"] == pytest.approx(near[1] / near[0])
    assert (
        drivers.loc["Near_Location", "low"]
        < near[1] / near[0]
        < drivers.loc["Near_Location", "high"]
    )


def odd_tables():
    """Yield tables at the edge of what a contract allows: tiny, wide, full of gaps, two leavers."""
    rng = np.random.default_rng(0)
    m = members(300, seed=3)
    X, y = m.drop(columns="Churn").astype("float64"), m["Churn"].to_numpy()
    plan = pd.Series(rng.choice(["basic", "gold", None], 300), dtype="str")
    mixed = X.assign(
        plan=plan, city=[f"city {i % 90}" for i in range(300)], empty=np.nan, country=1.0
    )
    mixed = mixed.mask(rng.random(mixed.shape) < 0.3)
    wide = X.assign(**{f"measure_{i}": rng.normal(size=300) for i in range(27)})
    few = (np.arange(300) < 2).astype(int)
    some = mixed[["Age", "Lifetime", "plan", "city", "empty", "country"]]
    yield pytest.param(X.iloc[:10, :6], np.arange(10) % 2, id="ten rows")
    yield pytest.param(some.iloc[:10], np.arange(10) % 2, id="ten rows with gaps")
    yield pytest.param(X[["Age"]], y, id="one feature")
    yield pytest.param(mixed[["plan"]], y, id="one category with gaps")
    yield pytest.param(mixed[["country"]], y, id="one constant with gaps")
    yield pytest.param(mixed[["empty"]], y, id="one empty column")
    yield pytest.param(some, few, id="two leavers")
    yield pytest.param(some, 1 - few, id="two stayers")
    yield pytest.param(wide, y, id="forty columns")


def as_dataset(X: pd.DataFrame, y: np.ndarray) -> Dataset:
    columns = {
        name: Column(
            "category"
            if not pd.api.types.is_numeric_dtype(X[name])
            else "binary"
            if is_binary
            else "numeric"
        )
        for name, is_binary in ((name, set(X[name].dropna()) == {0, 1}) for name in X)
    }
    return Dataset(
        Contract("odd", "left", 1, columns), X.reset_index(drop=True), None, "memory", "0", y
    )


@pytest.mark.parametrize(("X", "y"), [*odd_tables()])
def test_any_table_has_all_tables_all_figures_and_a_page(X, y):
    dataset = as_dataset(X, y)
    tables = explore.describe(dataset)
    assert set(tables) == TABLES
    for name in ("summary", "completeness", "links"):
        assert sorted(tables[name]["feature"]) == sorted(X), name
    for name, figure in explore.draw(dataset, tables).items():
        figure.savefig(io.BytesIO())
        assert name in FIGURES
    page = findings.page(dataset, tables)
    assert len(findings.short(dataset, tables)) < len(page)
    assert "nan" not in page


def wide_table(n: int):
    """Members with twenty columns of noise and seven of kinds, one value in twenty missing."""
    m, rng = members(n), np.random.default_rng(0)
    X = m.drop(columns="Churn").astype("float64")
    X = X.assign(**{f"measure_{i}": rng.normal(size=len(X)) for i in range(20)})
    X = X.assign(
        **{
            f"kind_{i}": pd.Series(rng.choice(list("abcdefgh"), len(X)), dtype="str")
            for i in range(7)
        }
    )
    return as_dataset(X.mask(rng.random(X.shape) < 0.05), m["Churn"].to_numpy())


def test_the_cost_of_exploring_grows_no_faster_than_the_members():
    spent = []
    for n in (2_000, 20_000):
        dataset, started = wide_table(n), time.process_time()
        tables = explore.describe(dataset)
        spent.append(time.process_time() - started)
    assert spent[1] < 2 * 10 * spent[0]
    assert tables["links"]["signal"].sum() >= 11


def test_the_real_table_has_the_published_numbers(gym_csv, home, run_command, client_at):
    """Through the command, with the cuts of conf/dataset/gym.yaml; the full list of numbers is with
    the modules."""
    ended = run_command(home, "explore", "dataset=gym", f"dataset.path={gym_csv}")
    assert (ended.line["rows"], ended.line["churn_rate"], ended.line["warnings"]) == (
        4000,
        0.26525,
        0,
    )
    run = client_at(home).get_run(ended.line["run_id"])
    correlations, drivers, links, means = (
        pd.read_csv(artifact(run, f"{name}.csv")).set_index("feature")
        for name in ("correlations", "drivers", "links", "class_means")
    )
    strongest = {
        "Lifetime": -0.44,
        "Avg_class_frequency_current_month": -0.41,
        "Age": -0.40,
        "Contract_period": -0.39,
    }
    assert correlations["pearson_r"].head(4).to_dict() == pytest.approx(strongest, abs=0.005)
    ratios = {"Contract_period": 1 / 5.97, "Month_to_end_contract": 1 / 5.97, "Lifetime": 1 / 6.72}
    assert drivers.loc[[*ratios], "risk_ratio"].to_dict() == pytest.approx(ratios, abs=0.001)
    holds = [
        "Near_Location",
        "Partner",
        "Promo_friends",
        "Group_visits",
        "Age",
        "Avg_class_frequency_current_month",
    ]
    assert (drivers.loc[[*holds, *ratios], "high"] < 1).all()
    assert (means.loc[[*holds, *ratios], "high"] < 0).all()
    assert links.index[~links["signal"]].tolist() == ["Phone", "gender"]
    assert "No signal shown: Phone, gender." in ended.err


def test_words_of_the_table_are_shown_as_the_file_writes_them(
    table, shared_home, run_command, client_at
):
    path, answers = shared_home.parent / "words.csv", {0: "No", 1: "Yes"}
    table.assign(Partner=table["Partner"].map(answers)).to_csv(path, index=False)
    ended = run_command(shared_home, "explore", "dataset=gym", f"dataset.path={path}")
    assert ended.code == 0, ended.err
    run = client_at(shared_home).get_run(ended.line["run_id"])
    page = artifact(run, "findings.md").read_text()
    assert re.search(r"Partner = (No|Yes)", page + ended.err)
    assert not re.search(r"Partner = [01]", page + ended.err)
    gradients = pd.read_csv(artifact(run, "gradients.csv"), keep_default_na=False)
    assert set(gradients.loc[gradients["feature"] == "Partner", "value"]) == {"No", "Yes"}


def test_letters_that_the_font_of_figures_lacks_are_one_warning(table, home, run_command):
    path = home.parent / "letters.csv"
    names = {"Age": "年龄", "Lifetime": "会员月数"}
    table.rename(columns=names).assign(left=table["Churn"]).drop(columns="Churn").to_csv(
        path, index=False
    )
    conf = home.parent / "conf"
    drafted = f"output={conf}/dataset/letters.yaml"
    assert run_command(home, "init", str(path), "target=left", drafted).code == 0
    ended = run_command(home, "explore", f"--config-dir={conf}", "dataset=letters")
    assert ended.code == 0, ended.err
    assert "Glyph" not in ended.err
    assert ended.err.count("figures show boxes in place of letters") == 1
