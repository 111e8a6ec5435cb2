"""What a promotion leaves in the registry, and when it is refused."""

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

import churnlab
from conftest import SMALL_SEGMENTS, artifact, opened, start, version_folder, wait

ROWS = ("dataset.rows=600",)
TRAINED = (*ROWS, "evaluation.folds=2")
PAIR = ("dataset.name=pair",)
UNREVIEWED = ("model.scale=true", "model.estimator._target_=sklearn.gaussian_process.GaussianProcessClassifier")
NAME = "demo-churn"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def story(shared_home, client_at):
    """Runs to promote from, and then one promotion after another: name -> how it ended (and aliases after it)."""

    def aliases() -> dict[str, str]:
        return {
            alias: str(version) for alias, version in client_at(shared_home).get_registered_model(NAME).aliases.items()
        }

    shared_home.parent.mkdir(exist_ok=True)
    for name in ("uv.lock", "pyproject.toml"):  # MLflow would put them into every model that is logged from here
        (shared_home.parent / name).write_text("version = 1\n", encoding="utf-8")
    with opened(shared_home) as ask:
        told = {
            "good": ask("train", *TRAINED),
            "dummy": ask("train", *TRAINED, "model=dummy"),
            "other seed": ask("train", *TRAINED, "seed=1"),
            "not kept": ask("train", *TRAINED, "model=dummy", "~model.estimator.strategy", *UNREVIEWED),
            "other table": ask("train", "dataset.rows=500", "evaluation.folds=2"),
        }
        told["promote without segments"] = ask("promote", *TRAINED)
        told["segments"] = ask("segment", *ROWS, *SMALL_SEGMENTS)
        told["segments of another table"] = ask("segment", "dataset.rows=500", *SMALL_SEGMENTS)
        run = {name: ended.line["run_id"] for name, ended in told.items() if ended.code == 0}
        promotions = {
            "first": [],
            "again": [],
            "worse": [f"churn_run={run['dummy']}"],
            "unseen": [f"churn_run={run['other seed']}", "metric=roc_auc"],
        }
        for name, words in promotions.items():
            told[name] = ask("promote", *TRAINED, *words, f"reason=the {name}")
            told[f"aliases after {name}"] = aliases()
        told |= {
            "run of another table": ask("promote", *TRAINED, f"churn_run={run['other table']}"),
            "segments not of this table": ask("promote", *TRAINED, f"segment_run={run['segments of another table']}"),
            "run without a model": ask("promote", *TRAINED, f"churn_run={run['not kept']}"),
            "unknown run": ask("promote", *TRAINED, "churn_run=0123456789abcdef"),
            "run of another command": ask("promote", *TRAINED, f"churn_run={run['segments']}"),
            "no train run": ask("promote", *ROWS, "evaluation.folds=2", "seed=77"),
        }
        told["aliases in the end"] = aliases()
        ask("train", *TRAINED, *PAIR)
        ask("segment", *ROWS, *PAIR, *SMALL_SEGMENTS)
    return told


@pytest.fixture
def client(story, shared_home, client_at):
    return client_at(shared_home)


def test_the_first_promotion_makes_a_champion(story):
    line = story["first"].line
    assert story["first"].code == 0
    assert (line["command"], line["version"], line["promoted"]) == ("promote", "1", True)
    assert [set(check) for check in line["checks"]] == [{"name", "value", "limit", "passed"}]
    assert line["checks"][0]["name"] == "served_equals_trained"
    assert line["checks"][0]["value"] <= 1e-9
    assert story["aliases after first"] == {"champion": "1"}


def test_a_version_tells_who_made_it_when_why_and_of_what(story, client):
    tags = client.get_model_version(NAME, "1").tags
    assert tags["churnlab.gate"] == "passed"
    assert float(tags["churnlab.gate.served_equals_trained"]) <= 1e-9
    assert tags["churnlab.churn_run_id"] == story["good"].line["run_id"]
    assert tags["churnlab.segment_run_id"] == story["segments"].line["run_id"]
    assert tags["churnlab.reason"] == "the first"
    assert tags["churnlab.replaced"] == ""
    assert tags["churnlab.who"]
    assert abs(pd.Timestamp(tags["churnlab.when"]) - pd.Timestamp.now("UTC")) < pd.Timedelta("1h")


def test_the_segmentation_can_be_read_from_a_version_without_its_code(story, client):
    shown = version_folder(client, NAME, "1") / "artifacts" / "segmentation"
    portraits = json.loads((shown / "portraits.json").read_text(encoding="utf-8"))
    table = pd.read_csv(shown / "segments.csv")
    told = story["segments"].line["segments"]
    assert [portrait["name"] for portrait in portraits] == [segment["name"] for segment in told]
    assert table["size"].sum() == 600
    assert (shown / "k_reason.txt").read_text(encoding="utf-8").startswith(f"k={story['segments'].line['k']}")
    assert (shown / "dendrogram.png").read_bytes().startswith(b"\x89PNG")


def test_the_same_candidate_again_is_not_worse_and_the_old_version_stays_at_hand(story, client):
    line = story["again"].line
    assert (story["again"].code, line["promoted"], line["version"]) == (0, True, "2")
    gate = line["checks"][1]
    assert gate["name"] == "log_loss_against_champion"
    assert gate["value"] == gate["limit"]
    assert client.get_model_version(NAME, "2").tags["churnlab.replaced"] == "1"
    assert story["aliases after again"] == {"champion": "2", "previous": "1"}


def test_a_worse_candidate_is_refused_and_the_champion_stays(story, client):
    line = story["worse"].line
    assert (story["worse"].code, line["promoted"], line["version"]) == (3, False, "3")
    gate = line["checks"][1]
    assert not gate["passed"]
    assert gate["value"] > gate["limit"]
    tags = client.get_model_version(NAME, "3").tags
    assert (tags["churnlab.gate"], tags["churnlab.replaced"]) == ("refused", "")
    assert float(tags["churnlab.gate.log_loss_against_champion"]) == gate["value"]
    assert story["aliases after worse"] == {"champion": "2", "previous": "1", "challenger": "3"}


def test_a_candidate_of_another_split_is_compared_on_members_that_neither_was_trained_on(story, shared_home, runs_at):
    gate = story["unseen"].line["checks"][1]
    assert gate["name"] == "roc_auc_against_champion"
    runs = {run.info.run_id: run for run in runs_at(shared_home, command="train")}
    good, other = (runs[story[name].line["run_id"]] for name in ("good", "other seed"))
    held_out = [pd.read_parquet(artifact(run, "predictions/test.parquet")) for run in (good, other)]
    common = held_out[1]["row"].isin(held_out[0]["row"])
    assert 5 < common.sum() < 60
    both = held_out[1][common].merge(held_out[0], on="row", suffixes=("", "_champion"))
    assert gate["value"] == pytest.approx(roc_auc_score(both["y"], both["probability"]), abs=1e-12)
    assert gate["limit"] == pytest.approx(roc_auc_score(both["y"], both["probability_champion"]), abs=1e-12)
    assert (story["unseen"].code == 0) == gate["passed"]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("promote without segments", "run churnlab segment first"),
        ("run of another table", "is of another table"),
        ("segments not of this table", "is of another table"),
        ("run without a model", "has kept no model (not kept: it holds types that models.TRUSTED does not list)"),
        ("unknown run", "There is no run 0123456789abcdef"),
        ("run of another command", "name a FINISHED train run"),
        ("no train run", "run churnlab train"),
    ],
)
def test_what_cannot_be_promoted_is_the_users_mistake_and_says_what_to_do(story, name, said):
    assert story["aliases in the end"] == story["aliases after unseen"]
    assert story[name].code == 2
    assert story[name].out == ""
    assert said in story[name].err
    assert "Traceback" not in story[name].err


def test_two_promotions_at_once_come_one_after_the_other(story, shared_home, client):
    both = [wait(process) for process in [start(shared_home, "promote", *TRAINED, *PAIR) for _ in range(2)]]
    assert [ended.code for ended in both] == [0, 0], [ended.err for ended in both]
    first, second = sorted((ended.line for ended in both), key=lambda line: int(line["version"]))
    assert (first["version"], second["version"]) == ("1", "2")
    assert (len(first["checks"]), len(second["checks"])) == (1, 2), "the second was not compared with the first"
    assert client.get_model_version("pair-churn", "2").tags["churnlab.replaced"] == "1"
    aliases = client.get_registered_model("pair-churn").aliases
    assert {name: str(version) for name, version in aliases.items()} == {"champion": "2", "previous": "1"}


READABLE = {".csv", ".json", ".parquet", ".png", ".py", ".skops", ".txt", ".yaml"}


def test_no_artifact_of_any_run_or_version_is_a_pickle(story, shared_home):
    paths = [path for path in (shared_home / "mlartifacts").rglob("*") if path.is_file()]
    assert {"bundle.py", "churn.skops", "model.skops", "MLmodel"} <= {path.name for path in paths}
    for path in paths:
        assert path.suffix in READABLE or path.name in ("MLmodel", "registered_model_meta"), path
        assert not looks_pickled(path.read_bytes()), path
        if path.suffix == ".skops":
            with zipfile.ZipFile(path) as parts:
                for part in parts.namelist():
                    content = parts.read(part)
                    assert part.endswith((".json", ".npy")), f"{part} in {path}"
                    assert not looks_pickled(content), f"{part} in {path}"
                    if part.endswith(".npy"):
                        np.load(io.BytesIO(content), allow_pickle=False)


def looks_pickled(content: bytes) -> bool:
    """A pickle of protocol 2 or later opens with its opcode and number, and ends with a stop."""
    return content[:1] == b"\x80" and content[1:2] in b"\x02\x03\x04\x05" and content[-1:] == b"."


def test_a_version_does_not_tell_where_on_this_machine_it_was_made(story, client):
    files = version_folder(client, NAME, "1")
    told = (files / "MLmodel").read_text(encoding="utf-8")
    outside = [line for line in told.splitlines() if "artifact_path: file://" not in line]  # the store's own address
    assert str(Path(churnlab.__file__).parents[2]) not in "\n".join(outside)
    for path in ("artifacts/served.json", "requirements.txt", "conda.yaml", "python_env.yaml"):
        assert str(files.parents[2]) not in (files / path).read_text(encoding="utf-8")


def test_a_version_needs_only_packages_of_a_fixed_version(story, client):
    needed = (version_folder(client, NAME, "1") / "requirements.txt").read_text(encoding="utf-8").split()
    assert {line.split("==")[0] for line in needed} >= {"mlflow", "scikit-learn", "skops", "pandas", "numpy"}
    assert all("==" in line for line in needed)
    assert not any(line.startswith("churnlab") for line in needed)
