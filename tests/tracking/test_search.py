"""Find runs again: which of them share a rank."""

import mlflow
import pytest

from churnlab.errors import InputError
from churnlab.tracking.search import get_run, ranked_train_runs, train_runs_by_question
from support.champions import store_at
from support.stores import write_run

TAGS = {"data_sha256": "d", "split_sha256": "s", "folds_sha256": "f"}


@pytest.fixture
def client(home):
    """MLflow's client of a new store."""
    with store_at(home):
        yield mlflow.MlflowClient()


def train_run(client, config: str, *, folds: str = "f", **metrics: float) -> str:
    tags = TAGS | {"config_sha256": config, "folds_sha256": folds}
    run_id = write_run(client, "train", status="FINISHED", **tags)
    for name, value in metrics.items():
        client.log_metric(run_id, f"cv_{name}", value)
    return run_id


def ranked(metric: str) -> list[str]:
    tags = {f"churnlab.{key}": value for key, value in TAGS.items()}
    return [run.info.run_id for run in ranked_train_runs("demo", tags, metric=metric)]


def test_runs_are_ranked_by_the_metric_and_a_loss_the_other_way_round(client):
    first = train_run(client, "a", roc_auc=0.8, log_loss=0.5)
    second = train_run(client, "b", roc_auc=0.9, log_loss=0.6)
    assert ranked("roc_auc") == [second, first]
    assert ranked("log_loss") == [first, second]


def test_a_run_that_is_not_there_or_deleted_is_refused_with_where_to_look_or_how_to_restore_it(
    client,
):
    with pytest.raises(InputError, match="There is no run 1234 .*`churnlab compare` lists"):
        get_run("1234", command="train")
    run_id = train_run(client, "a", roc_auc=0.8)
    with pytest.raises(InputError, match="a FINISHED train run; name a FINISHED segment run"):
        get_run(run_id, command="segment")
    client.delete_run(run_id)
    with pytest.raises(InputError) as refused:
        get_run(run_id, command="train")
    command = str(refused.value).rpartition("restore it: ")[2]
    assert command == (
        f"MLFLOW_TRACKING_URI={mlflow.get_tracking_uri()} mlflow runs restore --run-id {run_id}"
    )


def test_a_run_that_is_older_than_a_metric_has_no_rank_in_it(client):
    train_run(client, "a", roc_auc=0.8)
    newer = train_run(client, "b", roc_auc=0.7, f1=0.5)
    assert ranked("f1") == [newer]
    assert list(map(len, train_runs_by_question("demo", metric="f1").values())) == [1]
    assert train_runs_by_question("demo", metric="brier") == {}


def test_runs_with_other_folds_share_no_rank(client):
    """The same model with 20 folds trains on more members and would win."""
    here = train_run(client, "a", roc_auc=0.8)
    train_run(client, "b", folds="twenty", roc_auc=0.9)
    assert ranked("roc_auc") == [here]
    assert list(map(len, train_runs_by_question("demo", metric="roc_auc").values())) == [1, 1]
