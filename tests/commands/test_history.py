"""The command that lists the changes of champion, on models whose versions have no files."""

import mlflow
import pytest

from support.champions import change, registered, store_at
from support.running import churnlab_at

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def at(shared_home):
    """The store, open in this process."""
    with store_at(shared_home) as home:
        yield home


@pytest.fixture
def model(at):
    """A registered model with four versions; the name of its dataset."""
    with registered("shop") as dataset:
        yield dataset


@pytest.fixture(scope="module")
def churnlab(at):
    return churnlab_at(at)


def test_history_lists_who_replaced_whom_when_why_and_how_the_oldest_first_and_records_nothing(
    model, churnlab, runs_at, at
):
    change(model, None, "1")
    change(model, "1", "2")
    change(model, "2", "1", command="rollback")
    ended = churnlab("history")
    assert ended.code == 0, ended.err
    assert set(ended.line) == {"command", "run_id", "entries"}
    assert ended.line["run_id"] is None
    entries = ended.line["entries"]
    assert all(set(entry) == {"from", "to", "when", "who", "why", "command"} for entry in entries)
    assert [(entry["from"], entry["to"], entry["why"], entry["command"]) for entry in entries] == [
        (None, "1", "to 1", "promote"),
        ("1", "2", "to 2", "promote"),
        ("2", "1", "to 1", "rollback"),
    ]
    assert f"The champion of {model}-churn is version 1." in ended.err
    assert runs_at(at) == []


def test_without_a_dataset_history_takes_the_only_model_with_a_champion(model, churnlab):
    nothing = churnlab("history")
    assert (nothing.code, nothing.line["entries"]) == (3, [])
    assert "There is no registered model with a champion; run churnlab promote" in nothing.err
    client = mlflow.MlflowClient()
    client.create_registered_model("gym-churn")
    client.create_model_version("gym-churn", "file:///nowhere")
    client.create_registered_model("somebody-elses")
    client.create_model_version("somebody-elses", "file:///nowhere")
    client.set_registered_model_alias("somebody-elses", "champion", "1")
    change(model, None, "1")
    assert churnlab("history").line["entries"][0]["to"] == "1"
    change("gym", None, "1")
    for command in ("history", "rollback"):
        several = churnlab(command)
        assert (several.code, several.out) == (2, "")
        assert (
            f"Several registered models have a champion: gym-churn, {model}-churn." in several.err
        )
    assert len(churnlab("history", "dataset=gym").line["entries"]) == 1, (
        "a dataset without its path is enough"
    )
    assert churnlab("history", "dataset=demo").code == 3
    looks = churnlab("history", "-m", "seed=0,1")
    assert looks.code == 1
    assert "Several registered models have a champion" in looks.err
    sweep = churnlab("rollback", "-m", "seed=0,1")
    assert sweep.code == 1
    assert "needs a dataset" in sweep.err
    for name in ("gym-churn", "somebody-elses"):
        client.delete_registered_model(name)
