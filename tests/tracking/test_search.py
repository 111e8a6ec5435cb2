"""Find runs again: which of them share a rank."""

import mlflow
import pytest

from churnlab.errors import InputError
from churnlab.tracking.search import get_run, ranked_train_runs, train_runs_by_question
from support.champions import store_at
from support.running import artifact
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


def test_a_run_is_found_by_the_start_of_its_id_if_no_other_starts_so(client):
    runs = [train_run(client, str(number)) for number in range(40)]
    first = runs[0]
    length = next(n for n in range(4, 32) if sum(run.startswith(first[:n]) for run in runs) == 1)
    assert get_run(first[:length], command="train").info.run_id == first
    for short in ("", first[:3], "%", "_" * 8, first[:8].upper() + "Z"):
        with pytest.raises(InputError, match="There is no run"):
            get_run(short, command="train")


def test_a_start_that_several_runs_share_is_refused_with_their_ids(client):
    starts: dict[str, str] = {}
    while True:  # two of some 300 random ids share their first four characters
        run_id = client.create_run("0").info.run_id
        if (other := starts.setdefault(run_id[:4], run_id)) != run_id:
            break
    with pytest.raises(InputError, match="2 runs start with") as refused:
        get_run(run_id[:4], command="train")
    assert run_id in str(refused.value)
    assert other in str(refused.value)


def test_a_copy_that_reproduce_made_has_no_rank(client):
    first = train_run(client, "a", roc_auc=0.8)
    copy = train_run(client, "a", roc_auc=0.8)
    client.set_tag(copy, "churnlab.reproduces", first)
    assert ranked("roc_auc") == [first]
    study = write_run(client, "tune", status="FINISHED", study="s")
    best, again = [train_run(client, "b", roc_auc=0.7) for _ in range(2)]
    client.set_tag(best, "mlflow.parentRunId", study)
    client.set_tag(again, "churnlab.reproduces", study)
    assert ranked("roc_auc") == [first, best]


@pytest.mark.parametrize("loss", ["files", "run"])
def test_a_copy_that_reproduce_made_stands_for_an_original_that_is_lost(client, loss):
    first, copy = [train_run(client, "a", roc_auc=0.8) for _ in range(2)]
    client.set_tag(copy, "churnlab.reproduces", first)
    if loss == "run":
        client.delete_run(first)
    else:
        artifact(client.get_run(first), "predictions/oof.parquet").unlink()
    assert ranked("roc_auc") == [copy]


def test_a_run_that_has_lost_files_is_named_and_has_no_rank(client, caplog):
    lost, kept = [train_run(client, config, roc_auc=0.8) for config in "ab"]
    artifact(client.get_run(lost), "folds.csv").unlink()
    assert ranked("roc_auc") == [kept]
    assert f"train run {lost}" in caplog.text
    assert "has lost folds.csv in" in caplog.text
    assert kept not in caplog.text


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
