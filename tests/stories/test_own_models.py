"""A model of one's own: boosting by one YAML, and a class in a file next to it, from training to a
served version."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from churnlab.data.demo import members
from support.running import (
    THREE_SEGMENTS,
    artifact,
    churnlab_at,
    environment,
    folder,
    version_folder,
)
from support.servers import post, serving

pytestmark = pytest.mark.slow

SMALL = ("dataset.rows=400", "evaluation.folds=2")
CONF = ("--config-dir", "my_conf")
TRUSTED = "model.trusted=[my_models.Net]"

NET = """\
import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from my_helpers import squash, FACTOR


class Net(ClassifierMixin, BaseEstimator):
    def __init__(self, steps=100, rate=0.5):
        self.steps = steps
        self.rate = rate

    def fit(self, X, y):
        self.classes_, self.w_, self.b_ = np.unique(y), np.zeros(X.shape[1]), 0.0
        for _ in range(self.steps):
            gap = squash(X @ self.w_ + self.b_) - y
            self.w_ -= self.rate * X.T @ gap / len(y)
            self.b_ -= self.rate * gap.mean()
        return self

    def predict_proba(self, X):
        p = squash(FACTOR * (X @ self.w_ + self.b_))
        return np.column_stack([1 - p, p])
"""
HELPERS = (
    "import numpy as np\n\nFACTOR = 1.0\n\n\ndef squash(z):\n    return 1 / (1 + np.exp(-z))\n"
)
LOOSE = """\
from sklearn.linear_model import LogisticRegression


class Loose(LogisticRegression):
    def __init__(self, C=1.0, **more):
        super().__init__(C=C)
"""
YAMLS = {
    "loose": "{_target_: my_loose.Loose}\ntrusted: [my_loose.Loose]\nspace: {}",
    "net": "{_target_: my_models.Net}\nspace: {rate: {low: 0.1, high: 1.0, log: true}}",
    "light": "{_target_: lightgbm.LGBMClassifier, n_estimators: 20, n_jobs: 1, verbose: -1}\n"
    "space: {num_leaves: [4, 8]}",
    "extreme": "{_target_: xgboost.XGBClassifier, n_estimators: 20, n_jobs: 1}\n"
    "space: {max_depth: {low: 2, high: 3}}",
    "cat": "{_target_: catboost.CatBoostClassifier, iterations: 20, thread_count: 1, "
    "verbose: false, allow_writing_files: false}\nspace: {depth: {low: 2, high: 3}}",
}
PACKAGES = {"light": "lightgbm", "extreme": "xgboost", "cat": "catboost"}


@pytest.fixture(scope="module")
def churnlab(shared_home):
    conf = shared_home.parent / "my_conf"
    (conf / "model").mkdir(parents=True)
    (conf / "my_models.py").write_text(NET)
    (conf / "my_helpers.py").write_text(HELPERS)
    (conf / "my_loose.py").write_text(LOOSE)
    for name, estimator in YAMLS.items():
        scale = str(name == "net").lower()
        (conf / f"model/{name}.yaml").write_text(
            f"name: {name}\nscale: {scale}\nestimator: {estimator}\n"
        )
    return churnlab_at(shared_home)


def line(churnlab, *words):
    ended = churnlab(*words)
    assert ended.code == 0, ended.err
    return ended.line


@pytest.fixture(scope="module")
def segmented(churnlab):
    return line(churnlab, "segment", SMALL[0], *THREE_SEGMENTS)


@pytest.fixture(scope="module")
def promoted(churnlab, segmented):
    """The result lines of a champion of an own class."""
    lines = {"train": line(churnlab, "train", *CONF, *SMALL, "model=net", TRUSTED)}
    best = f"churn_run={lines['train']['run_id']}"
    lines["promote"] = line(churnlab, "promote", *SMALL, best, "force=true", "reason=mine")
    return lines


def requests() -> pd.DataFrame:
    return members(40, seed=5).drop(columns="Churn")


@pytest.mark.parametrize("model", PACKAGES)
def test_a_boosting_model_is_one_yaml_and_is_kept_with_its_package_among_its_requirements(
    churnlab, segmented, shared_home, client_at, model
):
    package = pytest.importorskip(PACKAGES[model])
    words = [*CONF, *SMALL, f"model={model}", "tune.n_trials=1"]
    tuned = churnlab("tune", *words)
    assert tuned.code == 0, tuned.err
    assert "takes any parameter" not in tuned.err
    client, best = client_at(shared_home), tuned.line["best_run_id"]
    run = client.get_run(best)
    kept = folder(client.get_logged_model(run.outputs.model_outputs[0].model_id).artifact_location)
    needed = (kept / "requirements.txt").read_text()
    assert f"{PACKAGES[model]}" in needed
    assert f"=={package.__version__}" in needed
    assert {path.suffix for path in kept.rglob("*") if path.is_file()} <= {
        *("", ".skops", ".txt", ".yaml", ".json")
    }
    out = line(
        churnlab, "promote", *SMALL, f"churn_run={best}", "force=true", f"reason=a {model} model"
    )
    version = version_folder(client, "demo-churn", out["version"])
    assert f"{PACKAGES[model]}" in (version / "requirements.txt").read_text()
    (same,) = [check for check in out["checks"] if check["name"] == "served_equals_trained"]
    assert same["passed"]
    assert same["value"] == 0


def test_an_untrusted_class_is_refused_before_training_with_a_list_to_paste(
    churnlab, shared_home, runs_at
):
    for command in ("train", "tune"):
        ended = churnlab(command, *CONF, *SMALL, "model=net", "seed=77")
        assert (ended.code, ended.out) == (2, "")
        assert f"'{TRUSTED}'" in ended.err
        assert "trusted: [my_models.Net]" in ended.err
        assert len(ended.err.splitlines()) == 1
    assert not [run for run in runs_at(shared_home) if run.data.params.get("seed") == "77"]


def test_the_class_is_tuned_by_workers_in_other_processes(churnlab):
    engine = ("engine=processes", "engine.workers=2", "tune.n_trials=2")
    out = line(churnlab, "tune", *CONF, *SMALL, "model=net", TRUSTED, *engine)
    assert out["n_complete"] == 2
    assert set(out["best_params"]) == {"rate"}


def test_a_version_holds_the_class_and_answers_where_neither_it_nor_churnlab_can_be_imported(
    promoted, shared_home, client_at, tmp_path
):
    files = version_folder(client_at(shared_home), "demo-churn", promoted["promote"]["version"])
    assert {path.name for path in (files / "artifacts/own").iterdir()} == {
        *("my_models.py", "my_helpers.py")
    }
    shutil.copytree(files, tmp_path / "version")
    requests().to_json(tmp_path / "in.json", orient="records")
    alone = (
        "import sys, json; sys.modules['churnlab'] = None\n"
        "import mlflow.pyfunc, pandas as pd\n"
        "model = mlflow.pyfunc.load_model('version')\n"
        "print(json.dumps(model.predict(pd.DataFrame(json.load(open('in.json'))))))"
    )
    process = subprocess.run(
        [sys.executable, "-c", alone],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment(tmp_path),
    )
    assert process.returncode == 0, process.stderr
    answers = json.loads(process.stdout.splitlines()[-1])
    records = {"dataframe_records": json.loads((tmp_path / "in.json").read_text())}
    with serving(shared_home, f"models:/demo-churn/{promoted['promote']['version']}") as address:
        status, served = post(address, records)
    assert status == 200
    assert served["predictions"] == answers
    assert not list((files / "artifacts").rglob("__pycache__"))


def test_a_changed_class_is_trained_again_and_does_not_change_the_version(
    churnlab, promoted, shared_home, client_at, runs_at
):
    import mlflow.pyfunc

    uri = str(version_folder(client_at(shared_home), "demo-churn", promoted["promote"]["version"]))
    before = mlflow.pyfunc.load_model(uri).predict(requests())
    sweep = ("train", *CONF, *SMALL, "-m", "model=net", TRUSTED, "seed=1")
    first = line(churnlab, *sweep)["runs"]
    assert line(churnlab, *sweep)["runs"] == first
    helpers = shared_home.parent / "my_conf/my_helpers.py"
    try:
        helpers.write_text(HELPERS.replace("1.0", "3.0"))
        another = churnlab_at(shared_home)  # as a user's next command is
        second = line(another, *sweep)["runs"]
        assert not set(first) & set(second)
        words = ["promote", *SMALL, "seed=1", f"churn_run={second[0]}", "force=true"]
        new = line(another, *words, "reason=the new class")["version"]
    finally:
        helpers.write_text(HELPERS)
    changed = str(version_folder(client_at(shared_home), "demo-churn", new))
    probability = [
        [
            answer["churn_probability"]
            for answer in mlflow.pyfunc.load_model(which).predict(requests())
        ]
        for which in (uri, changed, uri)
    ]
    assert probability[0] == probability[2] == [answer["churn_probability"] for answer in before]
    assert not np.allclose(probability[0], probability[1])


def test_a_run_of_an_own_class_is_reproduced(churnlab, promoted):
    out = line(churnlab, "reproduce", *CONF, f"run={promoted['train']['run_id']}")
    assert (out["identical"], out["changed"]) == (True, [])


def test_a_run_of_an_own_class_is_reproduced_from_the_files_that_it_keeps(
    promoted, shared_home, run_command, client_at
):
    run_id = promoted["train"]["run_id"]
    ended = run_command(shared_home, "reproduce", run_id)
    assert ended.code == 0, ended.err
    assert (ended.line["identical"], ended.line["changed"]) == (True, [])
    assert "The model's own classes are those that the run has kept" in ended.err
    client = client_at(shared_home)
    (model,) = client.get_run(run_id).outputs.model_outputs
    kept = folder(client.get_logged_model(model.model_id).artifact_location) / "code"
    assert {path.name for path in kept.iterdir()} == {"my_models.py", "my_helpers.py"}


def test_a_change_in_an_own_class_is_reported_by_reproduce(promoted, shared_home, run_command):
    changed = shared_home.parent / "changed"
    shutil.copytree(shared_home.parent / "my_conf", changed)
    (changed / "my_helpers.py").write_text(HELPERS + "\n")
    ended = run_command(
        shared_home, "reproduce", "--config-dir", str(changed), promoted["train"]["run_id"]
    )
    assert ended.code == 0, ended.err
    assert [found["what"] for found in ended.line["changed"]] == ["code"]


def test_parameters_that_nobody_checks_are_named_in_one_warning(churnlab):
    words = ("train", *CONF, *SMALL, "model=loose")
    before = line(churnlab, *words)["warnings"]
    ended = churnlab(*words, "model.estimator.C=0.5", "model.estimator.no_such=1")
    assert ended.line["warnings"] == before + 1, ended.err
    warning = "my_loose.Loose takes any parameter, and no_such is not among those that it declares"
    assert ended.err.count(f"warning: {warning}: check the spelling") == 1


def test_a_missing_package_is_named_with_what_to_do(churnlab, shared_home):
    yaml = shared_home.parent / "my_conf/model/missing.yaml"
    yaml.write_text("name: missing\nscale: false\nestimator: {_target_: no_such.Net}\nspace: {}\n")
    ended = churnlab("train", *CONF, *SMALL, "model=missing")
    assert ended.code == 2
    assert "no_such.Net cannot be imported" in ended.err
    assert "put its module into the folder of --config-dir" in ended.err


def test_the_kept_model_loads_from_its_run_without_the_users_folder(
    promoted, shared_home, client_at, tmp_path
):
    run = client_at(shared_home).get_run(promoted["train"]["run_id"])
    predicted = pd.read_parquet(artifact(run, "predictions/test.parquet"))
    assert predicted["probability"].between(0, 1).all()
    load = (
        "import sys, mlflow\nfrom churnlab.registry.model_artifacts import load_pipeline\n"
        "mlflow.set_tracking_uri(sys.argv[1])\n"
        "print(type(load_pipeline(sys.argv[2])[-1]).__module__)"
    )
    uri = f"sqlite:///{shared_home}/mlflow.db"
    process = subprocess.run(
        [sys.executable, "-c", load, uri, run.info.run_id],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment(tmp_path),
    )
    assert process.stdout.splitlines()[-1] == "my_models", process.stderr
