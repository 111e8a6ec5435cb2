"""The params, metrics and artifacts of a train run, and the figures of the real table."""

import json
import subprocess
import zipfile
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import mlflow
import numpy as np
import pandas as pd
import pytest
import yaml
from sklearn import metrics as sk

import churnlab
from churnlab.data.dataset import folds_sha256, split_sha256
from churnlab.data.demo import members
from churnlab.evaluation import calibration, performance
from churnlab.evaluation.metric_names import METRICS, WITHOUT_COSTS
from churnlab.tracking.fingerprints import config_sha256
from support.real_table import ONLY_VERDICTS
from support.running import (
    artifact,
    churnlab_at,
    files,
    model_uri,
    scores_of,
    tracked_at,
    version_folder,
)

pytestmark = pytest.mark.slow

KINDS = ("cv_{}", "cv_{}_std", "test_{}", "test_{}_low", "test_{}_high")
OWN_MODEL = """\
name: gradient_boosting
scale: false
estimator:
  _target_: sklearn.ensemble.HistGradientBoostingClassifier
  max_iter: 10
  random_state: ${seed}
space:
  learning_rate: {_target_: optuna.distributions.FloatDistribution, low: 0.02, high: 0.3, log: true}
  max_leaf_nodes: {_target_: optuna.distributions.IntDistribution, low: 4, high: 32}
"""
MODELS = ("logistic_regression", "random_forest", "gradient_boosting")
ROWS = 500


@pytest.fixture(scope="module")
def own_conf(tmp_path_factory) -> Path:
    """A new model is one YAML and nothing else."""
    conf = tmp_path_factory.mktemp("own")
    (conf / "model").mkdir()
    (conf / "model/gradient_boosting.yaml").write_text(OWN_MODEL)
    return conf


@pytest.fixture(scope="module")
def trained(shared_home, own_conf, succeed, client_at):
    """One run per model on the same members, folds and hold-out; the threshold maximizes F1."""
    words = [
        f"dataset.rows={ROWS}",
        "features=behaviour",
        "evaluation.folds=3",
        "evaluation.repeats=2",
        "decision=f1",
    ]
    line = succeed(
        shared_home,
        "train",
        "-m",
        "--config-dir",
        str(own_conf),
        *words,
        f"model={','.join(MODELS)}",
    )
    client = client_at(shared_home)
    return dict(zip(MODELS, map(client.get_run, line["runs"]), strict=True))


@pytest.fixture
def run(trained):
    return trained["logistic_regression"]


@pytest.fixture
def oof(run):
    return pd.read_parquet(artifact(run, "predictions/oof.parquet"))


@pytest.fixture
def held_out(run):
    return pd.read_parquet(artifact(run, "predictions/test.parquet"))


def scores(table: pd.DataFrame, threshold: float) -> dict[str, float]:
    """The metrics but for the calibration error, by scikit-learn."""
    y, p = table["y"], table["probability"]
    predicted = p > threshold
    return {
        "roc_auc": sk.roc_auc_score(y, p),
        "average_precision": sk.average_precision_score(y, p),
        "log_loss": sk.log_loss(y, p.clip(0.001, 0.999)),
        "brier": sk.brier_score_loss(y, p),
        "accuracy": sk.accuracy_score(y, predicted),
        "precision": sk.precision_score(y, predicted),
        "recall": sk.recall_score(y, predicted),
        "f1": sk.f1_score(y, predicted),
    }


def test_a_run_has_its_experiment_name_params_and_config(run, client_at, shared_home):
    assert client_at(shared_home).get_experiment(run.info.experiment_id).name == "demo-churn"
    assert run.info.run_name == "logistic_regression behaviour"
    params = run.data.params
    expected = {
        "model.name": "logistic_regression",
        "features.name": "behaviour",
        "dataset.rows": str(ROWS),
        "evaluation.folds": "3",
        "evaluation.repeats": "2",
        "evaluation.test_size": "0.2",
    }
    assert {key: params[key] for key in expected} == expected
    assert params["model.estimator._target_"] == "sklearn.linear_model.LogisticRegression"
    assert params["seed"] == params["model.estimator.random_state"] == "0"
    config = yaml.safe_load(artifact(run, "config.yaml").read_text())
    assert config["dataset"]["columns"]["Age"]["max"] == 100
    assert config["features"]["derive"]["lifetime_log"] == "log1p(Lifetime)"
    assert "hydra" not in config


def test_a_run_has_the_fingerprints_of_data_split_folds_config_and_code(
    run, trained, oof, held_out
):
    tags = run.data.tags
    assert tags["churnlab.command"] == "train"
    for other in trained.values():
        for tag in ("data", "split", "folds", "code"):
            assert other.data.tags[f"churnlab.{tag}_sha256"] == tags[f"churnlab.{tag}_sha256"]
    assert len({other.data.tags["churnlab.config_sha256"] for other in trained.values()}) == 3
    data = tags["churnlab.data_sha256"]
    folds = [part["row"].to_numpy() for _, part in oof.groupby(["repeat", "fold"])]
    assert tags["churnlab.split_sha256"] == split_sha256(data, held_out["row"].to_numpy())
    assert tags["churnlab.folds_sha256"] == folds_sha256(data, folds)
    (given,) = run.inputs.dataset_inputs
    assert given.dataset.name == "demo"


def test_the_config_fingerprint_covers_only_keys_that_decide_the_result(run):
    config = yaml.safe_load(artifact(run, "config.yaml").read_text())
    known = config_sha256("train", config)
    assert known == run.data.tags["churnlab.config_sha256"]
    same = config | {
        "run_name": "x",
        "force": True,
        "dry_run": True,
        "tracking": {"uri": "http://x"},
    }
    assert config_sha256("train", same) == known
    assert (
        config_sha256("train", config | {"dataset": config["dataset"] | {"path": "/x.csv"}})
        == known
    )
    others = [
        config_sha256("tune", config),
        config_sha256("train", config | {"seed": 1}),
        config_sha256("train", config | {"dataset": config["dataset"] | {"rows": 501}}),
        config_sha256("train", config | {"evaluation": config["evaluation"] | {"folds": 4}}),
    ]
    assert len({known, *others}) == 5


def test_a_run_of_a_checkout_has_its_commit(run):
    command = ["git", "-C", str(Path(churnlab.__file__).parent), "rev-parse", "HEAD"]
    commit = subprocess.run(command, capture_output=True, text=True)
    expected = commit.stdout.strip() if commit.returncode == 0 else None
    assert run.data.tags.get("churnlab.git_commit") == expected
    assert (run.data.tags.get("churnlab.git_dirty") in ("true", "false")) == (expected is not None)


@pytest.mark.parametrize("model", MODELS)
def test_every_metric_is_logged_once(trained, model):
    facts = {
        *("threshold", "fit_seconds", "model_bytes", "n_columns", "fold_log_loss"),
        *("cv_slope", "cv_intercept", "cv_pooled_ece", "early_cv_roc_auc", "early_cv_log_loss"),
    }
    values = {f"{part}_{name}" for name in WITHOUT_COSTS for part in ("cv", "test")}
    assert set(trained[model].data.metrics) == values | facts
    expected = {kind.format(name) for name in WITHOUT_COSTS for kind in KINDS} | facts
    expected |= {"cv_pooled_ece_floor", "test_ece_floor"}
    assert set(scores_of(trained[model])) == expected


@pytest.mark.parametrize("model", MODELS)
def test_the_folds_are_steps_of_one_metric(trained, model, shared_home, client_at):
    run = trained[model]
    steps = client_at(shared_home).get_metric_history(run.info.run_id, "fold_log_loss")
    folds = pd.read_csv(artifact(run, "folds.csv"))["log_loss"]
    assert {step.step: step.value for step in steps} == dict(enumerate(folds))
    assert run.data.metrics["cv_log_loss"] == pytest.approx(folds.mean())


@pytest.mark.parametrize("model", MODELS)
def test_the_metrics_equal_those_of_the_logged_predictions(trained, model):
    logged = scores_of(trained[model])
    threshold = logged["threshold"]
    oof = pd.read_parquet(artifact(trained[model], "predictions/oof.parquet"))
    test = pd.read_parquet(artifact(trained[model], "predictions/test.parquet"))
    for name, value in scores(test, threshold).items():
        assert logged[f"test_{name}"] == pytest.approx(value, abs=1e-9), name
    folds = pd.DataFrame(
        [
            scores(part, float(part["threshold"].iloc[0]))
            for _, part in oof.groupby(["repeat", "fold"])
        ]
    )
    assert len(folds) == 6
    for name in folds:
        assert logged[f"cv_{name}"] == pytest.approx(folds[name].mean(), abs=1e-9), name
        assert logged[f"cv_{name}_std"] == pytest.approx(folds[name].std(), abs=1e-9), name
    for name in WITHOUT_COSTS:
        low, value, high = (logged[f"test_{name}{end}"] for end in ("_low", "", "_high"))
        assert low <= value <= high, name
        assert low >= 0 or not METRICS[name].unit_interval, name
        assert low < high or value in (0, 1)
    assert logged["test_log_loss_low"] > 0


def test_the_decision_chooses_the_threshold_on_out_of_fold_predictions(run, oof):
    precision, recall, _ = sk.precision_recall_curve(oof["y"], oof["probability"])
    best = (2 * precision * recall / (precision + recall).clip(1e-12)).max()
    at_threshold = sk.f1_score(oof["y"], oof["probability"] > run.data.metrics["threshold"])
    assert at_threshold == pytest.approx(best, abs=1e-12)


def test_the_members_of_a_fold_do_not_choose_the_threshold_that_scores_them(oof):
    for (repeat, fold), part in oof.groupby(["repeat", "fold"]):
        others = oof[(oof["repeat"] == repeat) & (oof["fold"] != fold)]
        precision, recall, _ = sk.precision_recall_curve(others["y"], others["probability"])
        best = (2 * precision * recall / (precision + recall).clip(1e-12)).max()
        (threshold,) = part["threshold"].unique()
        found = sk.f1_score(others["y"], others["probability"] > threshold)
        assert found == pytest.approx(best, abs=1e-12)


def test_a_light_model_is_predicted_on_further_draws_of_the_folds(trained, oof):
    run = trained["logistic_regression"]
    further = pd.read_parquet(artifact(run, "predictions/further.parquet"))
    assert list(further.columns) == list(oof.columns)
    assert further["repeat"].unique().tolist() == [2, 3, 4, 5]
    assert sorted(further[further["repeat"] == 2]["row"]) == sorted(oof["row"].unique())
    assert len(pd.read_csv(artifact(run, "further_folds.csv"))) == 4 * 3
    assert "predictions/further.parquet" not in files(trained["random_forest"])


def test_every_member_is_either_out_of_fold_or_held_out(oof, held_out):
    y = members(ROWS, seed=0)["Churn"].to_numpy()
    assert sorted({*oof["row"], *held_out["row"]}) == list(range(ROWS))
    assert not set(oof["row"]) & set(held_out["row"])
    assert len(held_out) == ROWS // 5
    assert oof.groupby("repeat")["row"].nunique().tolist() == [ROWS * 4 // 5] * 2
    assert list(held_out.columns) == ["row", "y", "probability", "fold", "repeat"]
    assert list(oof.columns) == [*held_out.columns, "threshold"]
    for table in (oof, held_out):
        assert np.array_equal(table["y"], y[table["row"]])


@pytest.mark.parametrize("model", MODELS)
def test_the_logged_model_predicts_the_same_hold_out_after_loading(trained, model, shared_home):
    test = pd.read_parquet(artifact(trained[model], "predictions/test.parquet"))
    X = members(ROWS, seed=0).drop(columns="Churn").astype("float64").iloc[test["row"]]
    with tracked_at(shared_home):
        loaded = mlflow.pyfunc.load_model(model_uri(trained[model]))
        again = loaded.predict(X[X.columns[::-1]])
    assert np.array_equal(again[:, 1], test["probability"])
    assert loaded.metadata.flavors["sklearn"]["serialization_format"] == "skops"


@pytest.mark.parametrize("model", MODELS)
def test_a_model_carries_name_params_and_scores_of_its_run_and_an_example_that_is_nobody(
    trained, model, shared_home, client_at
):
    run = trained[model]
    logged = client_at(shared_home).get_logged_model(model_uri(run).rpartition("/")[2])
    assert (logged.name, logged.params) == (f"{model} behaviour", run.data.params)
    scores = {key: run.data.metrics[key] for key in run.data.metrics if key != "fold_log_loss"}
    assert {metric.key: metric.value for metric in logged.metrics} == scores
    (table,) = run.inputs.dataset_inputs
    of_tables = {(metric.dataset_name, metric.dataset_digest) for metric in logged.metrics}
    assert of_tables == {(table.dataset.name, table.dataset.digest)}
    with tracked_at(shared_home):
        loaded = mlflow.pyfunc.load_model(model_uri(run))
    X = members(ROWS, seed=0).drop(columns="Churn").astype("float64")
    assert list(loaded.input_example) == list(X)
    assert not X.eq(loaded.input_example.iloc[0]).all(axis=1).any()
    assert loaded.predict(loaded.input_example).sum() == pytest.approx(1)


def test_no_artifact_is_a_pickle_and_the_requirements_are_exact(trained, shared_home, client_at):
    kept = [path for path in (shared_home / "mlartifacts").rglob("*") if path.is_file()]
    assert len([path for path in kept if path.suffix == ".skops"]) == 3
    for path in kept:
        assert path.suffix not in {".pkl", ".pickle", ".joblib", ".cloudpickle"}, path
        assert not path.read_bytes().startswith((b"\x80\x04", b"\x80\x05")), path
        if path.suffix == ".skops":
            inside = zipfile.ZipFile(path)
            assert {Path(name).suffix for name in inside.namelist()} <= {".json", ".npy", ".npz"}
            for name in inside.namelist():
                assert not name.endswith(".npy") or b"'|O'" not in inside.read(name)[:128], name
        if path.name == "requirements.txt":
            wanted = path.read_text().split()
            assert f"scikit-learn=={version('scikit-learn')}" in wanted
            assert all("==" in line for line in wanted)


@pytest.mark.parametrize("model", MODELS)
def test_all_artifacts_are_logged_and_the_figures_are_pngs(trained, model):
    run = trained[model]
    figures = {
        "roc",
        "precision_recall",
        "reliability",
        "confusion",
        "scores",
        "gains",
        "importance",
        "net_benefit",
    }
    tables = {
        "config.yaml",
        "data_report.json",
        "folds.csv",
        "predictions/oof.parquet",
        "predictions/test.parquet",
    }
    tables |= {"calibration.csv", "importance.csv", "metrics.csv", "net_benefit.csv", "slices.csv"}
    if model == "logistic_regression":
        tables |= {"predictions/further.parquet", "further_folds.csv"}
    if model != "gradient_boosting":  # which says nothing of its columns
        tables.add("coefficients.csv")
    slices = pd.read_csv(artifact(run, "slices.csv"))
    if (slices["q"] < 0.05).any():
        figures.add("slices")
    assert files(run) == tables | {f"figures/{name}.png" for name in figures}
    for name in figures:
        picture = artifact(run, f"figures/{name}.png").read_bytes()
        assert picture.startswith(b"\x89PNG")
        assert len(picture) > 5_000


@pytest.mark.parametrize("model", MODELS)
def test_a_run_logs_the_size_of_its_model(trained, model, shared_home):
    run = trained[model]
    kept = (
        shared_home
        / "mlartifacts"
        / "models"
        / run.outputs.model_outputs[0].model_id
        / "artifacts"
        / "model.skops"
    )
    assert run.data.metrics["model_bytes"] == kept.stat().st_size
    assert run.data.metrics["n_columns"] == 13 + 12


@pytest.mark.parametrize("model", MODELS)
def test_a_run_reports_whether_it_needs_calibration(trained, model):
    run = trained[model]
    oof = pd.read_parquet(artifact(run, "predictions/oof.parquet"))
    found = performance.repeated_calibration_line(oof)
    assert run.data.metrics["cv_slope"] == pytest.approx(found["slope"])
    assert run.data.metrics["cv_intercept"] == pytest.approx(found["intercept"])
    table = pd.read_csv(artifact(run, "calibration.csv"))
    assert table[["method", "kept"]].to_numpy().tolist() == [["none", True]]
    assert table.loc[0, "log_loss"] == pytest.approx(run.data.metrics["cv_log_loss"])
    summary = run.data.tags["churnlab.calibration"]
    needed = calibration.miscalibration(found, slope=(0.9, 1.1), ece=0.02)
    assert summary.startswith(
        f"none, although {needed}" if needed else "not shown to be needed (slope "
    )
    assert f". Calibration: {summary}." in run.data.tags["mlflow.note.content"]


@pytest.mark.parametrize("model", MODELS)
def test_importance_is_by_column_with_correlated_pairs_merged(trained, model):
    table = pd.read_csv(artifact(trained[model], "importance.csv"))
    columns = [name for driver in table["driver"] for name in driver.split(" + ")]
    assert sorted(columns) == sorted(set(members(1, seed=0)) - {"Churn"})
    visits = table[
        table["driver"] == "Avg_class_frequency_total + Avg_class_frequency_current_month"
    ]
    assert "Contract_period + Month_to_end_contract" in set(table["driver"])
    assert (visits["low"] > 0).all()
    assert table["importance"].is_monotonic_decreasing
    assert set(table["direction"]) <= {
        *(
            "lower raises the risk",
            "higher raises the risk",
            "0 raises the risk",
            "1 raises the risk",
        ),
        *("no one direction", "no effect shown"),
        *(
            "Avg_class_frequency_total higher, "
            "Avg_class_frequency_current_month lower raise the risk",
        ),
    }
    assert table.set_index("driver").loc["Lifetime", "direction"] == "lower raises the risk"
    assert ("coefficient" in table) == (model == "logistic_regression")


def test_the_note_contains_the_main_metrics(run):
    note = run.data.tags["mlflow.note.content"]
    for name in ("cv_log_loss", "cv_roc_auc", "test_roc_auc", "test_roc_auc_low", "test_accuracy"):
        assert f"{scores_of(run)[name]:.4f}" in note


# Weak spots


@pytest.fixture(scope="module")
def light(tmp_path_factory, succeed, client_at):
    """Logistic regression with and without late columns on 1,000 members, by its features."""
    home = tmp_path_factory.mktemp("light") / "home"
    line = succeed(home, "train", "-m", "dataset.rows=1000", "features=raw,early")
    return {
        run.data.params["features.name"]: run for run in map(client_at(home).get_run, line["runs"])
    }


def test_a_model_with_late_columns_is_also_cross_validated_without_them(light):
    raw, early = (light[name].data.metrics for name in ("raw", "early"))
    assert raw["early_cv_roc_auc"] == early["cv_roc_auc"] < raw["cv_roc_auc"]
    assert raw["early_cv_log_loss"] == early["cv_log_loss"] > raw["cv_log_loss"]
    assert "early_cv_roc_auc" not in early
    note = light["raw"].data.tags["mlflow.note.content"]
    assert (
        "The same model without Avg class frequency current month, known only close to churn, "
        f"ranks {early['cv_roc_auc']:.1%} of the pairs correctly instead of {raw['cv_roc_auc']:.1%}"
    ) in note
    assert "known only close to churn" not in light["early"].data.tags["mlflow.note.content"]


def test_slices_are_by_every_column_also_those_that_the_model_does_not_see(light):
    run = light["early"]
    table = pd.read_csv(artifact(run, "slices.csv"))
    assert "Avg_class_frequency_current_month" in set(table["slice"])
    oof = pd.read_parquet(artifact(run, "predictions/oof.parquet"))
    binary = table[table["slice"] == "gender"]
    assert binary["n"].sum() == len(oof)
    assert (binary["n"] * binary["observed"]).sum() == pytest.approx(oof["y"].sum())
    assert table["p"].is_monotonic_increasing
    note = run.data.tags["mlflow.note.content"]
    assert ("Weakest where " in note) == (table["q"].min() < 0.05)


def test_a_light_model_has_a_learning_curve(light):
    curve = pd.read_csv(artifact(light["raw"], "learning_curve.csv"))
    assert len(curve) == 5 * 4
    full = curve.groupby("fold")["members"].max()
    assert full.tolist() == [640] * 5
    folds = pd.read_csv(artifact(light["raw"], "folds.csv"))
    last = curve[curve["members"] == 640]
    assert last["log_loss"].mean() == pytest.approx(folds["log_loss"].mean())
    note = light["raw"].data.tags["mlflow.note.content"]
    assert "wice as many" in note


def test_the_note_says_that_features_were_found_on_members_of_the_same_dataset(
    run, shared_home, succeed, client_at, tmp_path
):
    members(120, seed=0).to_csv(tmp_path / "members.csv", index=False)
    words = ("dataset=gym", f"dataset.path={tmp_path}/members.csv", "evaluation.folds=2")
    line = succeed(shared_home, "train", *words, "model=dummy", "features=behaviour")
    note = client_at(shared_home).get_run(line["run_id"]).data.tags["mlflow.note.content"]
    assert (
        "The behaviour features were found on members of gym: a hold-out among them is not" in note
    )
    assert "were found on" not in run.data.tags["mlflow.note.content"]  # behaviour, on demo


# Calibration


class Calibrated(NamedTuple):
    """Forests with and without calibration, and the champion that the calibrated one became."""

    line: dict
    run: Any
    plain: Any
    stderr_of_plain: str
    promoted: Any
    served: dict


@pytest.fixture(scope="module")
def forest(tmp_path_factory, client_at):
    home = tmp_path_factory.mktemp("forest") / "home"
    rows = ("dataset.rows=600",)
    words = (*rows, "model=random_forest", "model.estimator.n_estimators=10", "evaluation.folds=3")
    words += (*ONLY_VERDICTS, "evaluation.calibration_folds=3")
    ask = churnlab_at(home)
    ended = {
        "plain": ask("train", *words, "decision=expected_value"),
        "calibrated": ask(
            "train", *words, "decision=expected_value", "evaluation.calibration=auto"
        ),
    }
    assert [end.code for end in ended.values()] == [0, 0], [end.err for end in ended.values()]
    line = ended["calibrated"].line
    without = (f"churn_run={line['run_id']}", "segment_run=none")
    promoted = ask("promote", *rows, "evaluation.folds=3", *without)
    client = client_at(home)
    bundle = version_folder(client, "demo-churn", promoted.line["version"])
    return Calibrated(
        line,
        client.get_run(line["run_id"]),
        client.get_run(ended["plain"].line["run_id"]),
        ended["plain"].err,
        promoted,
        json.loads((bundle / "artifacts/served.json").read_text(encoding="utf-8")),
    )


def test_a_forest_is_calibrated_if_it_needs_it_and_it_helps(forest):
    table = pd.read_csv(artifact(forest.run, "calibration.csv")).set_index("method")
    assert table.index.tolist() == ["none", "isotonic", "sigmoid"]
    kept = table.index[table["kept"]].item()
    assert kept == table["log_loss"].idxmin() != "none"
    assert forest.run.data.metrics["cv_log_loss"] == pytest.approx(table.loc[kept, "log_loss"])
    assert forest.run.data.metrics["cv_slope"] == pytest.approx(table.loc[kept, "slope"])
    assert forest.run.data.tags["churnlab.calibration"].startswith(
        f"{kept}, because the out-of-fold slope "
    )
    assert forest.plain.data.metrics["cv_log_loss"] == pytest.approx(table.loc["none", "log_loss"])
    assert forest.run.data.metrics["model_bytes"] > forest.plain.data.metrics["model_bytes"]


def test_a_profit_is_logged_with_its_ci_its_break_even_and_its_assumptions(forest):
    metrics = scores_of(forest.run)
    for name in ("test_profit", "test_profit_total", "test_empc", "test_break_even_success"):
        assert metrics[f"{name}_low"] < metrics[name] < metrics[f"{name}_high"]
        assert forest.line[f"{name}_low"] == metrics[f"{name}_low"]
    capacity = pd.read_csv(artifact(forest.run, "capacity.csv"))
    assert capacity["contacts"].tolist() == [12, 30, 60, 120, 180]  # of 600 members
    sensitivity = pd.read_csv(artifact(forest.run, "sensitivity.csv"))
    unchanged = sensitivity[sensitivity["factor"] == 1]["profit"]
    assert unchanged.tolist() == pytest.approx([metrics["test_profit_total"]] * 5)
    members = len(pd.read_parquet(artifact(forest.run, "predictions/test.parquet")))
    assert metrics["test_profit"] == pytest.approx(metrics["test_profit_total"] / members)
    assert metrics["test_empc"] >= metrics["test_profit"]
    assert {"cv_profit", "cv_empc"} <= metrics.keys()
    assert {"figures/profit.png", "figures/sensitivity.png"} <= files(forest.run)
    assert "leavers contacted take the offer" in forest.run.data.tags["mlflow.note.content"]


def test_profit_from_uncalibrated_probabilities_is_warned_about(forest):
    (warned,) = [
        line
        for line in forest.stderr_of_plain.splitlines()
        if "computes profit from probabilities that are not calibrated" in line
    ]
    assert warned.startswith("warning: ")
    assert "try evaluation.calibration=auto" in warned
    report = json.loads(artifact(forest.plain, "data_report.json").read_text(encoding="utf-8"))
    assert [line for line in report["warnings"] if "not calibrated" in line]
    calm = json.loads(artifact(forest.run, "data_report.json").read_text(encoding="utf-8"))
    assert not [line for line in calm["warnings"] if "not calibrated" in line]


def test_a_calibrated_forest_is_served_as_it_was_trained(forest):
    assert forest.promoted.code == 0, forest.promoted.err
    checks = {check["name"]: check for check in forest.promoted.line["checks"]}
    assert checks["served_equals_trained"]["passed"]
    assert forest.served["threshold"] == forest.line["threshold"]


def test_without_playbook_phrases_correlated_columns_are_one_reason(forest):
    groups = [group["columns"] for group in forest.served["reasons"]]
    assert ["Contract_period", "Month_to_end_contract"] in groups
    assert ["Avg_class_frequency_total", "Avg_class_frequency_current_month"] in groups
    assert sorted(name for group in groups for name in group) == sorted(forest.served["inputs"])


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("evaluation.calibration=platt", "evaluation.calibration"),
        ("evaluation.calibrated.slope=[1.2,0.8]", "must have 0 <= LOW <= 1 <= HIGH"),
        ("evaluation.importance_repeats=1", "evaluation.importance_repeats"),
    ],
)
def test_impossible_calibration_settings_are_input_errors(home, run_command, word, message):
    ended = run_command(home, "train", word)
    assert ended.code == 2
    assert message in ended.err


# A model of one's own


def test_a_model_that_is_one_yaml_can_be_tuned_too(home, own_conf, succeed, runs_at):
    words = ["dataset.rows=200", "evaluation.folds=2", "model=gradient_boosting", "tune.n_trials=2"]
    line = succeed(home, "tune", "--config-dir", str(own_conf), *words)
    assert line["n_complete"] == 2
    assert set(line["best_params"]) == {"learning_rate", "max_leaf_nodes"}
    (best,) = runs_at(home, command="train")
    assert (
        float(best.data.params["model.estimator.learning_rate"])
        == line["best_params"]["learning_rate"]
    )


def test_an_unknown_parameter_of_the_estimator_is_refused_with_the_known_ones(
    home, run_command, runs_at
):
    ended = run_command(
        home, "train", "dataset.rows=300", "model=random_forest", "model.estimator.depth=3"
    )
    assert (ended.code, ended.out) == (2, "")
    assert (
        "RandomForestClassifier has no parameter depth. Did you mean max_depth? It has n_estimators"
        in ended.err
    )
    assert len(ended.err.splitlines()) == 1
    assert runs_at(home) == []


SHORT = ("dataset.rows=300", "evaluation.folds=2")


def test_any_parameter_of_the_estimator_is_a_key_without_a_plus_also_in_a_sweep(
    own_store, client_at
):
    home, churnlab = own_store
    words = [
        "model.estimator.tol=0.001",
        "model.estimator.C=0.01,0.1",
        "+model.estimator.verbose=0",
    ]
    ended = churnlab("train", "-m", *SHORT, *words)
    assert ended.code == 0, ended.err
    assert "++" not in ended.err
    runs = [client_at(home).get_run(run) for run in ended.line["runs"]]
    assert [run.data.params["model.estimator.C"] for run in runs] == ["0.01", "0.1"]
    assert {run.data.params["model.estimator.tol"] for run in runs} == {"0.001"}
    assert [run.info.run_name.rpartition(" ")[2] for run in runs] == ["C=0.01", "C=0.1"]
    failed = churnlab("train", "-m", *SHORT, "model.estimator.C=-1")
    assert failed.code == 1
    assert "must be a float in the range (0.0, inf]. Got -1" in failed.err
    assert "model.estimator.C=-1" in failed.err.splitlines()[-1]
    assert "++" not in failed.err


def test_a_splined_model_is_one_yaml_and_its_steps_have_keys(own_store, client_at):
    home, churnlab = own_store
    ended = churnlab(
        "train", *SHORT, "model=spline_logistic_regression", "model.estimator.logistic__C=0.05"
    )
    assert ended.code == 0, ended.err
    config = yaml.safe_load(
        artifact(client_at(home).get_run(ended.line["run_id"]), "config.yaml").read_text()
    )
    assert config["model"]["estimator"]["logistic__C"] == 0.05
    refused = churnlab(
        "train", *SHORT, "model=spline_logistic_regression", "model.estimator.logistic__c=1"
    )
    assert refused.code == 2
    assert "Did you mean logistic__C?" in refused.err


def test_what_a_library_warns_of_is_counted_once_and_stands_in_the_report(own_store, client_at):
    home, churnlab = own_store
    ended = churnlab("train", *SHORT, "model.estimator.max_iter=3")
    assert ended.code == 0
    assert ended.line["warnings"] == 1
    shown = [line for line in ended.err.splitlines() if "ConvergenceWarning" in line]
    assert len(shown) == 1
    assert shown[0].startswith("warning: a library warns (ConvergenceWarning): lbfgs failed")
    run = client_at(home).get_run(ended.line["run_id"])
    (reported,) = json.loads(artifact(run, "data_report.json").read_text())["warnings"]
    assert f"warning: {reported}" == shown[0]
    assert churnlab("train", *SHORT).line["warnings"] == 0


def test_a_model_that_could_not_be_kept_is_refused_before_it_is_trained(own_store, runs_at):
    home, churnlab = own_store
    before = len(runs_at(home))
    words = ["model.estimator._target_=sklearn.gaussian_process.GaussianProcessClassifier"]
    refused = churnlab("train", *SHORT, "model=dummy", "~model.estimator.strategy", *words)
    assert (refused.code, refused.out) == (2, "")
    added = refused.err.partition("'model.trusted=[")[2].partition("]'")[0]
    assert len(runs_at(home)) == before
    words += ["model.scale=true", f"model.trusted=[{added}]"]
    ended = churnlab("train", *SHORT, "model=dummy", "~model.estimator.strategy", *words)
    assert ended.code == 0, ended.err
    assert ended.line["model_bytes"] > 0


# The real table


@pytest.fixture(scope="module")
def course(gym_csv, tmp_path_factory, succeed, client_at):
    """The seeds' plain hold-out: models scaled and unscaled, by (model, scale)."""
    home = tmp_path_factory.mktemp("course") / "home"
    words = [
        "dataset=gym",
        f"dataset.path={gym_csv}",
        "evaluation.stratify=false",
        "evaluation.folds=2",
        *ONLY_VERDICTS,
    ]
    line = succeed(
        home,
        "train",
        "-m",
        *words,
        "model=logistic_regression,random_forest",
        "model.scale=true,false",
    )
    runs = map(client_at(home).get_run, line["runs"])
    return {(run.data.params["model.name"], run.data.params["model.scale"]): run for run in runs}


@pytest.mark.parametrize(
    ("scale", "cells", "accuracy", "precision", "recall"),
    [
        ("True", [574, 28, 34, 164], 0.9225, 0.8542, 0.8283),
        ("False", [575, 27, 34, 164], 0.92375, 0.8586, 0.8283),
    ],
)
def test_the_courses_logistic_regression_is_reproduced(
    course, scale, cells, accuracy, precision, recall
):
    run = course["logistic_regression", scale]
    test = pd.read_parquet(artifact(run, "predictions/test.parquet"))
    found = sk.confusion_matrix(test["y"], test["probability"] > 0.5).ravel()
    assert np.abs(found - cells).max() <= 1
    logged = run.data.metrics
    assert logged["threshold"] == 0.5
    assert logged["test_accuracy"] == pytest.approx(accuracy, abs=0.0013)
    assert logged["test_precision"] == pytest.approx(precision, abs=0.005)
    assert logged["test_recall"] == pytest.approx(recall, abs=0.0051)
    assert logged["test_roc_auc"] == pytest.approx(0.9707, abs=0.0005)


@pytest.mark.parametrize("scale", ["True", "False"])
def test_the_courses_random_forest_is_reproduced(course, scale):
    logged = course["random_forest", scale].data.metrics
    assert logged["test_accuracy"] == pytest.approx(0.9150, abs=0.01)
    assert logged["test_precision"] == pytest.approx(0.8385, abs=0.01)
    assert logged["test_recall"] == pytest.approx(0.8131, abs=0.01)


def test_cross_validation_on_the_real_table_reaches_its_figures(real, client_at):
    client = client_at(real.home)
    runs = [client.get_run(run_id) for name, run_id in real.ids.items() if name != "forest tuned"]
    found = {
        (run.data.params["model.name"], run.data.params["features.name"]): run.data.metrics
        for run in runs
    }
    assert found["logistic_regression", "raw"]["cv_roc_auc"] == pytest.approx(0.976, abs=0.003)
    assert found["logistic_regression", "behaviour"]["cv_roc_auc"] >= 0.989
    assert found["logistic_regression", "behaviour"]["cv_log_loss"] <= 0.102
    assert found["random_forest", "behaviour"]["cv_roc_auc"] >= 0.983
    assert found["random_forest", "raw"]["cv_roc_auc"] == pytest.approx(0.972, abs=0.006)
    assert artifact(client.get_run(real.sweep)).is_relative_to(real.home)


def test_on_the_real_table_the_forest_needs_calibration_and_logistic_regression_does_not(
    gym_csv, home, succeed, client_at
):
    words = ["dataset=gym", f"dataset.path={gym_csv}", "evaluation.calibration=auto"]
    words += [*ONLY_VERDICTS, "evaluation.calibration_folds=3"]
    line = succeed(home, "train", "-m", *words, "model=logistic_regression,random_forest")
    runs = {
        run.data.params["model.name"]: run for run in map(client_at(home).get_run, line["runs"])
    }
    assert (
        runs["logistic_regression"]
        .data.tags["churnlab.calibration"]
        .startswith("not shown to be needed (slope 1.0")
    )
    table = pd.read_csv(artifact(runs["random_forest"], "calibration.csv")).set_index("method")
    assert table.index[table["kept"]].tolist() == ["isotonic"]
    assert 1.26 <= table.loc["none", "slope"] <= 1.43
    assert table.loc["none", "ece"] > 0.03
    assert table.loc["isotonic", "ece"] < 0.01 < table.loc["sigmoid", "ece"]
    assert table.loc["none", "log_loss"] - table.loc["isotonic", "log_loss"] == pytest.approx(
        0.013, abs=0.003
    )
    drivers = pd.read_csv(artifact(runs["logistic_regression"], "importance.csv")).set_index(
        "driver"
    )
    assert drivers.index[:2].tolist() == [
        *("Lifetime", "Avg_class_frequency_total + Avg_class_frequency_current_month")
    ]
    assert (drivers["direction"].head(5) == "lower raises the risk").all()
    assert drivers["coefficient"].iloc[1] == pytest.approx(-1.57, abs=0.02), (
        "4.22 down and 3.12 up, merged"
    )
