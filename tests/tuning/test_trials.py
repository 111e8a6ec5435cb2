"""How a driver handles RUNNING trials after a worker has died: a real journal, a real store, no
processes."""

import threading
import time

import mlflow
import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from churnlab.tracking import store
from churnlab.tuning import orphans, studies, trials
from churnlab.tuning.workers import WorkerSlot
from support.running import tracked_at

SPACE = {"x": FloatDistribution(0, 1)}
LIVING, DEAD = WorkerSlot(0, 0), WorkerSlot(1, 0)


@pytest.fixture
def job(tmp_path) -> trials.Job:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    with tracked_at(tmp_path):
        store.open_store(uri, home=tmp_path)
        parent = mlflow.MlflowClient().create_run(store.experiment_id("demo-churn"))
        storage = studies.Local(str(tmp_path / "studies"))
        optuna.create_study(study_name="s", storage=storage.open("s"))
        yield trials.Job(
            *(storage, "s", SPACE, 5, 0, "log_loss", make_pipeline(LogisticRegression())),
            **{
                "X": None,
                "y": None,
                "folds": [],
                "tracking_uri": uri,
                "parent": parent,
                "first": 0,
            },
        )


@pytest.fixture
def study(job) -> optuna.Study:
    return optuna.load_study(study_name="s", storage=job.storage.open("s"))


def states(study) -> list[tuple[str, float | None]]:
    """Return each trial's state and its x, also if it is only enqueued."""
    return [(trial.state.name, dict(trials.key_of(trial)).get("x")) for trial in study.get_trials()]


def test_a_trial_that_a_living_worker_is_about_to_claim_is_left_alone(job, study):
    taken = study.ask(dict(SPACE))

    def claim() -> None:
        time.sleep(0.3)
        taken.set_user_attr(trials.WORKER, str(LIVING))

    worker = threading.Thread(target=claim)
    worker.start()
    assert orphans.reconcile(study, job, living=[LIVING]) == ""
    worker.join()
    assert [state for state, _ in states(study)] == ["RUNNING"]


def test_a_trial_that_no_worker_claims_is_failed_and_enqueued_again(job, study):
    x = f"{study.ask(dict(SPACE)).params['x']:.12g}"
    assert "1 unfinished trial to run again" in orphans.reconcile(study, job, living=[LIVING])
    assert states(study) == [("FAIL", x), ("WAITING", x)]


def test_a_dead_workers_trial_is_enqueued_again_with_one_more_death(job, study):
    taken = study.ask(dict(SPACE))
    taken.set_user_attr(trials.WORKER, str(DEAD))
    orphans.reconcile(study, job, living=[LIVING])
    again = study.get_trials(states=[TrialState.WAITING])
    assert [(trial.user_attrs[trials.DEATHS], trials.key_of(trial)) for trial in again] == [
        (1, studies.params_key(taken.params))
    ]


def test_parameters_sampled_while_their_trial_was_failed_are_enqueued_again_once(job, study):
    x = f"{study.ask(dict(SPACE)).params['x']:.12g}"
    study.tell(0, state=TrialState.FAIL)
    for _ in range(2):
        orphans.reconcile(study, job, living=[LIVING])
        assert states(study) == [("FAIL", x), ("WAITING", x)]


def test_surplus_trials_and_failed_fits_are_not_enqueued_again(job, study):
    for why in (trials.SURPLUS, trials.ERROR):
        taken = study.ask(dict(SPACE))
        taken.set_user_attr(why, "yes")
        study.tell(taken, state=TrialState.FAIL)
    orphans.reconcile(study, job)
    assert [state for state, _ in states(study)] == ["FAIL", "FAIL"]


def test_nothing_is_enqueued_in_a_study_that_has_all_its_trials(job, study):
    for _ in range(5):
        study.tell(study.ask(dict(SPACE)), 0.5)
    study.ask(dict(SPACE)).set_user_attr(trials.WORKER, str(DEAD))
    orphans.reconcile(study, job, living=[LIVING])
    assert [state for state, _ in states(study)] == ["COMPLETE"] * 5 + ["FAIL"]
