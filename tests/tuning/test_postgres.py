"""What a storage in PostgreSQL says of workers on other machines: a real database, no processes."""

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack

import mlflow
import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from churnlab.errors import InputError, JobError
from churnlab.tracking import store
from churnlab.tuning import orphans, trials
from churnlab.tuning.postgres import Postgres
from churnlab.tuning.workers import WorkerSlot
from support.running import tracked_at
from support.waiting import until

SPACE = {"x": FloatDistribution(0, 1)}
GRACE = 1.0


@pytest.fixture
def storage(postgres, request) -> Iterator[Postgres]:
    url = postgres.url(request.node.name[:60])
    opened = Postgres(url, heartbeat=0.2, grace=GRACE, patience=60)
    yield opened
    opened.open().engine.dispose()


@pytest.fixture
def study(storage) -> optuna.Study:
    return optuna.create_study(study_name="s", storage=storage.open("s"))


@pytest.fixture
def job(tmp_path, storage, study) -> trials.Job:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    with tracked_at(tmp_path):
        store.open_store(uri, home=tmp_path)
        parent = mlflow.MlflowClient().create_run(store.experiment_id("demo-churn"))
        yield trials.Job(
            *(storage, "s", SPACE, 5, 0, "log_loss", make_pipeline(LogisticRegression())),
            **{"X": None, "y": None, "folds": [], "tracking_uri": uri},
            **{"parent": parent, "first": 0, "driver": "here", "seat": 1},
        )


def numbers(storage, study) -> list[int]:
    return [trial.number for trial in storage.stale(study)]


def test_a_trial_is_stale_when_its_worker_has_been_silent_for_the_grace_period(storage, study):
    beating, silent = study.ask(SPACE), study.ask(SPACE)
    with storage.beating(beating):
        assert numbers(storage, study) == []
        until(lambda: numbers(storage, study), "a stale trial", seconds=60)
        assert numbers(storage, study) == [silent.number], "it had not even written a first beat"
    until(lambda: len(numbers(storage, study)) == 2, "the other", seconds=60)


def test_nobody_is_stale_right_after_a_restart_of_the_server(postgres, storage, study):
    study.ask(SPACE)
    until(lambda: numbers(storage, study), "a stale trial", seconds=60)
    postgres.stop()
    postgres.start()
    before = time.monotonic()
    found = numbers(storage, study)
    assert not found or time.monotonic() - before > GRACE


def test_a_stale_trial_is_enqueued_again_once_however_many_find_it(storage, study, job):
    x = study.ask(SPACE).params["x"]
    until(lambda: numbers(storage, study), "a stale trial", seconds=60)
    together = [threading.Thread(target=trials.give_up_stale, args=[study, job]) for _ in range(6)]
    for reaper in together:
        reaper.start()
    for reaper in together:
        reaper.join()
    states = [(trial.state.name, trial.params.get("x")) for trial in study.get_trials()]
    assert states == [("FAIL", x), ("WAITING", None)]
    (waiting,) = study.get_trials(states=[TrialState.WAITING])
    assert waiting.system_attrs["fixed_params"] == {"x": x}
    assert waiting.user_attrs["repeats"] == 0


def test_parameters_whose_worker_died_before_it_read_them_are_enqueued_again(storage, study, job):
    trials.enqueue(study, {"x": 0.25})
    study.ask()  # taken, and no parameter read
    until(lambda: numbers(storage, study), "a stale trial", seconds=60)
    trials.give_up_stale(study, job)
    assert study.ask(SPACE).params == {"x": 0.25}


def test_a_driver_gives_up_its_own_dead_workers_and_leaves_those_of_others_alone(
    storage, study, job
):
    living, dead = WorkerSlot(0, 0), WorkerSlot(1, 0)
    with ExitStack() as stack:
        seat = stack.enter_context(storage.locked("s"))
        seat.unlock()
        other = stack.enter_context(storage.locked("s"))
        assert (seat.number, other.number) == (0, 1)
        assert seat.id != other.id
        workers = [f"0.0 {seat.id}", f"1.0 {seat.id}", f"1000.0 {other.id}"]
        for worker in workers:
            taken = study.ask(SPACE)
            stack.enter_context(storage.beating(taken))
            taken.set_user_attr(trials.WORKER, worker)
        ours = trials.Job(**{**vars(job), "driver": seat.id, "seat": seat.number})
        assert ours.worker(living) == workers[0]
        assert ours.worker(dead) == workers[1]
        orphans.reconcile(study, ours, living=[living], others=seat.others)
        states = [trial.state.name for trial in study.get_trials()]
        assert states == ["RUNNING", "FAIL", "RUNNING", "WAITING"]


def test_a_driver_alone_at_a_study_gives_up_what_dead_drivers_left(storage, study, job):
    taken = study.ask(SPACE)
    taken.set_user_attr(trials.WORKER, "0.0 dead")
    time.sleep(GRACE)  # the server has been up for longer than the grace period
    with storage.beating(taken), storage.locked("s") as seat:
        assert seat.number == 0
        assert "1 unfinished trial" in orphans.reconcile(study, job, others=seat.others)


def test_a_study_with_a_driver_is_not_free_for_doctor(storage, study):
    with storage.locked("s") as seat:
        with pytest.raises(BlockingIOError), storage.locked("s", wait=False):
            pass
        assert not seat.leaves_others()
    until(lambda: _free(storage), "the end of the session", seconds=10)


def test_a_driver_knows_that_it_has_lost_the_lock_of_the_study_meanwhile(postgres, storage):
    with storage.locked("s") as seat:
        assert seat.is_locked()
        postgres.stop()
        postgres.start()
        assert not seat.is_locked(), "another driver may have ended the study"
        seat.lock()
        assert seat.is_locked()


def _free(storage) -> bool:
    try:
        with storage.locked("s", wait=False):
            return True
    except BlockingIOError:
        return False


def test_calls_go_on_after_the_server_was_restarted_under_them(postgres, storage, study):
    threading.Timer(0.3, postgres.stop).start()
    threading.Timer(1.0, postgres.start).start()
    end = time.monotonic() + 2
    while time.monotonic() < end:
        trial = study.ask(SPACE)
        study.tell(trial, 0.5)
    found = study.get_trials()
    assert [trial.number for trial in found] == list(range(len(found)))
    left = [trial for trial in found if trial.state != TrialState.COMPLETE]
    assert len(left) <= 2, "at most a call that was broken off"


def test_a_server_that_stays_away_ends_a_call_in_one_sentence(postgres, request):
    storage = Postgres(postgres.url("gone"), heartbeat=0.2, grace=GRACE, patience=1)
    study = optuna.create_study(study_name="s", storage=storage.open("s"))
    postgres.stop()
    try:
        with pytest.raises(JobError, match="has not answered for"):
            study.ask(SPACE)
    finally:
        postgres.start()
        storage.open().engine.dispose()


def test_processes_that_make_the_tables_at_once_all_go_on(storage):
    made, failed = [], []

    def make(number: int) -> None:
        try:  # another grace: another server to this process, which opens each once
            again = Postgres(storage.url, heartbeat=0.2, grace=GRACE + number)
            made.append(again.open())
        except Exception as error:
            failed.append(error)

    together = [threading.Thread(target=make, args=(number,)) for number in range(4)]
    for thread in together:
        thread.start()
    for thread in together:
        thread.join()
    for opened in made:
        opened.engine.dispose()
    assert not failed
    assert len({id(opened) for opened in made}) == 4


def test_heartbeats_too_rare_for_the_grace_period_are_refused(storage):
    with pytest.raises(InputError, match="storage.heartbeat=6"):
        Postgres(storage.url, heartbeat=6, grace=10)
