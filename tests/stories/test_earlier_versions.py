"""A champion from before versions took any frame: it answers as it did, and can be replaced."""

import json
import shutil
import sys
import warnings
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema

from churnlab.data.demo import members
from churnlab.tracking.names import Tag
from support.champions import change, store_at
from support.running import THREE_SEGMENTS, churnlab_at, version_folder

pytestmark = pytest.mark.slow

EARLIER_CODE = Path(__file__).parents[1] / "support" / "earlier_served_model.txt"
NOT_YET = ("kinds", "codes", "id", "target", "extra")
"""What an earlier served.json did not have."""

FEW = ("dataset.rows=300", "evaluation.folds=2")


def earlier_version(new: Path, folder: Path) -> str:
    """Log the files of a version as they were made before, and return the id of the model."""
    shutil.copytree(new / "artifacts", folder / "files")
    spec = json.loads((folder / "files" / "served.json").read_text(encoding="utf-8"))
    kept = {key: value for key, value in spec.items() if key not in NOT_YET}
    (folder / "files" / "served.json").write_text(json.dumps(kept), encoding="utf-8")
    code = shutil.copy(EARLIER_CODE, folder / "served_model.py")
    inputs = [ColSpec("double", name) for name in spec["inputs"]]
    inputs.append(ColSpec("string", "member_id", required=False))
    outputs = {"churn_probability": "double", "will_churn": "boolean", "segment": "long"}
    outputs |= {"segment_name": "string", "recommended_action": "string"}
    params = [ParamSpec("threshold", "double", 0.5), ParamSpec("reasons", "boolean", True)]
    with mlflow.start_run(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow misses an input example: there was none
        return mlflow.pyfunc.log_model(
            name="bundle",
            python_model=str(code),
            artifacts={path.stem: str(path) for path in sorted((folder / "files").iterdir())},
            signature=ModelSignature(
                Schema(inputs),
                Schema([ColSpec(kind, name) for name, kind in outputs.items()]),
                ParamSchema(params),
            ),
            pip_requirements=["mlflow"],
        ).model_id


@pytest.fixture(scope="module")
def champion(shared_home, tmp_path_factory):
    """A store whose champion, version 2, is an earlier one with the models of version 1."""
    churnlab = churnlab_at(shared_home)
    for words in (("train", *FEW), ("segment", FEW[0], *THREE_SEGMENTS), ("promote", *FEW)):
        ended = churnlab(*words)
        assert ended.code == 0, ended.err
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    with store_at(shared_home):
        client = mlflow.MlflowClient()
        new = client.get_model_version("demo-churn", "1")
        files = version_folder(client, "demo-churn", "1")
        mlflow.set_experiment("demo-promotions")
        model_id = earlier_version(files, tmp_path_factory.mktemp("earlier"))
        client.create_model_version(
            "demo-churn",
            f"models:/{model_id}",
            run_id=new.run_id,
            tags={tag: text for tag, text in new.tags.items() if tag != Tag.MANIFEST},
            model_id=model_id,
        )
        change("demo", "1", "2")
        yield mlflow.pyfunc.load_model("models:/demo-churn@champion")
    sys.dont_write_bytecode = before


def test_it_answers_as_it_did(champion, shared_home):
    table = members(20, seed=3).drop(columns="Churn")
    with pytest.raises(MlflowException, match="Can not safely convert int64 to float64"):
        champion.predict(table)
    ids = [f"{number:03d}" for number in range(20)]
    answers = champion.predict(table.astype("float64").assign(member_id=ids))
    assert [answer.pop("member_id") for answer in answers] == ids
    by_arrays = mlflow.pyfunc.load_model("models:/demo-churn/1").predict(table)
    for answer, other in zip(answers, by_arrays, strict=True):  # sums in another order
        same = pytest.approx(answer.pop("churn_probability"), abs=1e-12)
        assert other.pop("churn_probability") == same
    assert answers == by_arrays


def test_it_scores_files_and_is_replaced_after_a_comparison(champion, shared_home, tmp_path):
    table = members(20, seed=4).drop(columns="Churn").assign(card=range(20))
    table.to_csv(tmp_path / "in.csv", index=False)
    churnlab = churnlab_at(shared_home)
    words = ("score", f"input={tmp_path}/in.csv", "dataset.id=card")
    refused = churnlab(*words, f"output={tmp_path}/out.csv")
    assert refused.code == 3
    assert "no manifest" in refused.err
    ended = churnlab(*words, f"output={tmp_path}/out.csv", "model.unverified=true")
    assert ended.code == 0, ended.err
    assert ended.line["version"] == "2"
    again = ("force=true", "reason=the same models in the new form")
    promoted = churnlab("promote", *FEW, "require=not_worse", "gate.margin=0.2", *again)
    assert promoted.code in (0, 3), promoted.err
    scored = pd.read_csv(tmp_path / "out.csv")
    assert "member_id" not in scored
    answers = champion.predict(table.drop(columns="card").astype("float64"))
    expected = [answer["churn_probability"] for answer in answers]
    np.testing.assert_array_equal(scored["churn_probability"], expected)
    checks = {check["name"]: check for check in promoted.line["checks"]}
    assert checks["champion_known"]["passed"]
    assert checks["compatible_signature"]["value"] == []
    assert checks["log_loss_against_champion"]["value"] == pytest.approx(0, abs=1e-12)
