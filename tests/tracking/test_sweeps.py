"""What the parent run of a sweep shows of its jobs: their metric as steps, in the order of jobs."""

import mlflow
import pandas as pd
import pytest

from churnlab.tracking.names import SAME_QUESTION, Tag
from churnlab.tracking.processes import process
from churnlab.tracking.sweeps import end_dead_jobs, end_sweep, log_jobs
from support.champions import store_at
from support.running import artifact
from support.stores import write_run

CEILING = {"cv_log_loss": 0.01, "test_f1": None}


@pytest.fixture
def store(home):
    with store_at(home):
        yield mlflow.MlflowClient()


def job(client: mlflow.MlflowClient, loss: float, *, folds: str = "f") -> str:
    """Write the run of a job; return its id."""
    run_id = write_run(client, "train")
    for tag in SAME_QUESTION:
        client.set_tag(run_id, tag, folds)
    client.log_metric(run_id, "cv_log_loss", loss)
    client.set_terminated(run_id)
    return run_id


def log(parent: str, run_ids: list[str], metric: str = "log_loss") -> None:
    rows = [
        {"job": number, "status": "done", "run_id": run_id}
        for number, run_id in enumerate(run_ids, 1)
    ]
    with mlflow.start_run(run_id=parent):
        log_jobs(parent, pd.DataFrame(rows), metric=metric, ceiling=CEILING)


def steps(client: mlflow.MlflowClient, run_id: str, metric: str) -> list[tuple[int, float]]:
    return sorted((one.step, one.value) for one in client.get_metric_history(run_id, metric))


def test_a_job_is_a_step_of_its_parent_with_its_metric_and_the_best_so_far(store):
    parent = write_run(store, "sweep")
    log(parent, [job(store, loss) for loss in (0.3, 0.2, 0.25)])
    assert steps(store, parent, "job_log_loss") == [(1, 0.3), (2, 0.2), (3, 0.25)]
    assert steps(store, parent, "best_cv_log_loss") == [(1, 0.3), (2, 0.2), (3, 0.2)]
    assert steps(store, parent, "cv_log_loss") == [(0, 0.2)]


def test_of_a_metric_that_should_be_high_the_best_so_far_rises(store):
    parent, runs = write_run(store, "sweep"), [job(store, loss) for loss in (0.3, 0.2)]
    for run_id, auc in zip(runs, (0.7, 0.9), strict=True):
        store.log_metric(run_id, "cv_roc_auc", auc)
    log(parent, runs, metric="roc_auc")
    assert steps(store, parent, "best_cv_roc_auc") == [(1, 0.7), (2, 0.9)]


def test_a_failed_job_leaves_its_step_out_and_a_resumed_sweep_fills_it_in_without_repeating_others(
    store,
):
    parent, runs = write_run(store, "sweep"), [job(store, loss) for loss in (0.3, 0.2)]
    log(parent, [runs[0], "", runs[1]])
    assert steps(store, parent, "job_log_loss") == [(1, 0.3), (3, 0.2)]
    assert steps(store, parent, "best_cv_log_loss") == [(1, 0.3), (2, 0.3), (3, 0.2)]
    log(parent, [runs[0], job(store, 0.4), runs[1]])
    assert steps(store, parent, "job_log_loss") == [(1, 0.3), (2, 0.4), (3, 0.2)]
    assert steps(store, parent, "best_cv_log_loss") == [(1, 0.3), (2, 0.3), (3, 0.2)]


def test_a_job_that_is_too_good_to_be_true_is_not_the_best(store):
    parent = write_run(store, "sweep")
    runs = [job(store, loss) for loss in (0.3, 0.001)]
    store.log_param(runs[1], "evaluation.folds", "2")
    store.log_text(runs[1], "fold,log_loss\n0,0.001\n1,0.001\n", "folds.csv")
    for name in ("oof", "test"):
        predicted = artifact(store.get_run(runs[1]), f"predictions/{name}.parquet")
        pd.DataFrame({"row": range(1000)}).to_parquet(predicted)
    log(parent, [*runs, ""])
    assert steps(store, parent, "job_log_loss") == [(1, 0.3), (2, 0.001)]
    assert steps(store, parent, "best_cv_log_loss") == [(1, 0.3), (2, 0.3), (3, 0.3)]
    assert steps(store, parent, "cv_log_loss") == [(0, 0.3)]
    jobs = pd.read_csv(artifact(store.get_run(parent), "jobs.csv"))
    assert list(jobs["job"]) == [1, 2, 3]
    assert list(jobs["status"]) == ["done", "done, suspect", "done"]
    assert jobs["suspect"][1].startswith("cv_log_loss 0.0010 ")


def test_jobs_on_other_folds_have_no_best_so_far(store):
    parent = write_run(store, "sweep")
    log(parent, [job(store, 0.3), job(store, 0.2, folds="other")])
    assert steps(store, parent, "job_log_loss") == [(1, 0.3), (2, 0.2)]
    assert steps(store, parent, "best_cv_log_loss") == []


def test_what_is_left_running_on_another_machine_ends_with_the_sweep_and_not_before(store):
    parent = write_run(store, "sweep")
    elsewhere, here = (write_run(store, "train") for _ in range(2))
    for run_id, of in ((elsewhere, "another-machine 12 345"), (here, process())):
        store.set_tag(run_id, "mlflow.parentRunId", parent)
        store.set_tag(run_id, Tag.PROCESS, of)

    def statuses() -> list[str]:
        return [store.get_run(run_id).info.status for run_id in (elsewhere, here, parent)]

    end_dead_jobs(parent)
    assert statuses() == ["RUNNING"] * 3
    end_sweep(parent, "FINISHED")
    assert statuses() == ["KILLED", "RUNNING", "FINISHED"]
