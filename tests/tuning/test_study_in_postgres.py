"""A study in PostgreSQL as users run it: the same trials, who leaves, what is refused, doctor."""

import os
import signal

import pytest

from support.killing import Command, check_promise, dead, in_state, own_model
from support.machines import GRACE, HEARTBEAT, Shared
from support.postgres import PASSWORD
from support.running import churnlab_at
from support.soak import RANDOM
from support.waiting import until

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("moments_of_its_own")]

SMALL = ("dataset.rows=250", "evaluation.folds=2")


@pytest.fixture
def shared(tmp_path, postgres, request) -> Shared:
    (tmp_path / "shared").mkdir()
    store = f"sqlite:///{tmp_path}/shared/mlflow.db"
    return Shared(tmp_path, postgres, store, request.node.name[:60])


def history(found) -> list[tuple[dict, float | None]]:
    return [(trial.params, trial.value) for trial in found if trial not in dead(found)]


def test_one_worker_has_the_same_trials_as_in_files_also_when_it_is_killed(shared, tmp_path):
    n = 12  # more than 10: the first ones are drawn at random
    words = (*SMALL, f"tune.n_trials={n}")
    with Command(tmp_path / "files", "tune", *words) as command:
        in_files = history(check_promise(tmp_path / "files", n, command.ended()))
    with shared.tune("one", *words) as command:
        enough = RANDOM.randrange(1, 10)
        assert command.until(
            lambda: len(in_state(shared.trials(), "COMPLETE")) >= enough, f"trial {enough}"
        )
        command.kill()
    with shared.tune("one", *words) as command:
        found = shared.check(n, command.ended())
    assert history(found) == in_files


def test_a_driver_that_wants_fewer_trials_speaks_of_the_model_that_it_has_trained(shared):
    with (
        shared.tune("one", *SMALL, "tune.n_trials=3") as one,
        shared.tune("two", *SMALL, "tune.n_trials=12") as two,
    ):
        ended = [one.ended(), two.ended()]
    for end, n in zip(ended, (3, 12), strict=True):
        assert (end.code, end.line["n_complete"] >= n) == (0, True), end.err
        best = shared.client.get_run(end.line["best_run_id"]).data
        assert best.metrics["cv_log_loss"] == pytest.approx(end.line["best_value"])
        for name, value in end.line["best_params"].items():
            assert best.params[f"model.estimator.{name}"] == str(value)


def test_who_leaves_early_leaves_the_run_open_for_the_others(shared):
    words = shared.model(seconds=1.0)
    many = (*words, "tune.n_trials=200")
    with shared.tune("one", *many) as one:
        until(lambda: shared.busy(one), "a fit on the first machine")
        with shared.tune("two", *many) as two:
            until(lambda: shared.busy(two), "a fit on the second machine")
            os.kill(one.process.pid, signal.SIGINT)
            ended = one.ended()
            assert (ended.code, ended.out) == (130, "")
            assert shared.states()["tune"] == {"RUNNING"}
            assert PASSWORD not in ended.err
            assert "se%2Fcret" not in ended.err
            until(lambda: shared.busy(two), "another fit on the second machine")
            two.process.terminate()
            assert two.ended().code == 143
    left = shared.states()
    assert left["tune"] == {"KILLED"}
    assert "RUNNING" not in left["study"] | left["trial"]
    n = len(in_state(shared.trials(), "COMPLETE")) + 2
    with shared.tune("one", *words, f"tune.n_trials={n}") as one:
        shared.check(n, one.ended())


def test_a_server_that_is_gone_for_good_ends_the_command_and_it_resumes(shared):
    words = (*shared.model(seconds=0.3), "tune.n_trials=6")
    with shared.tune("one", *words, "storage.patience=1") as one:
        until(lambda: shared.busy(one), "a fit")
        shared.postgres.stop()
        try:
            ended = one.ended()
        finally:
            shared.postgres.start()
    assert (ended.code, ended.out) == (1, "")
    assert "Traceback" not in ended.err
    assert "SQL" not in ended.err.replace("PostgreSQL", "")
    last = ended.err.splitlines()[-1]
    assert "has not answered for" in last
    assert "run the same command again" in last
    assert sum("does not answer; waiting" in line for line in ended.err.splitlines()) == 1
    with shared.tune("one", *words) as one:
        shared.check(6, one.ended())


def test_doctor_knows_who_works_on_a_study_in_postgres(shared, tmp_path):
    words = (*shared.model(seconds=1.0), "tune.n_trials=8")
    tracking = f"tracking.uri={shared.tracking}"
    churnlab = churnlab_at(tmp_path / "doctor")
    with shared.tune("one", *words) as one:
        until(lambda: shared.busy(one), "a fit")
        assert churnlab("doctor", tracking, *shared.words()).line["problems"] == []
        one.kill()
    until(lambda: not one.session(), "its end")
    elsewhere = churnlab("doctor", tracking, "fix=true")
    (left,) = elsewhere.line["left"] if elsewhere.code == 0 else [None]
    assert left is None
    found = churnlab("doctor", tracking)
    assert found.code == 3
    assert [problem["kind"] for problem in found.line["problems"]] == ["open study elsewhere"]
    found = churnlab("doctor", tracking, *shared.words())
    assert found.code == 3
    assert [problem["kind"] for problem in found.line["problems"]] == ["dead process"]
    assert churnlab("doctor", tracking, *shared.words(), "fix=true").code == 0
    left = shared.states()
    assert "RUNNING" not in left["study"] | left["trial"] | left["tune"]


def test_what_is_wrong_is_said_in_one_paragraph_and_no_password_is_kept(shared, tmp_path):
    home = tmp_path / "one"
    words = ("tune", *SMALL, "tune.n_trials=2", "tune.study=ours")
    url, times = shared.url, (f"storage.heartbeat={HEARTBEAT}", f"storage.grace={GRACE}")
    churnlab = churnlab_at(home)
    refused = [
        churnlab(*words, "storage=postgres"),
        churnlab(*words, "storage=postgres", f"storage.url={url}".replace("cret", "x")),
        churnlab(*words, "storage=postgres", f"storage.url={url}nowhere"),
        churnlab(*words, "storage=postgres", f"storage.url={url}", "storage.grace=1"),
    ]
    done = churnlab(*words, "storage=postgres", f"storage.url={url}", *times)
    other = (*words, "storage=postgres", *times, f"tracking.uri=sqlite:///{tmp_path}/other.db")
    refused.append(churnlab_at(home, CHURNLAB_STORAGE_URL=url)(*other))
    assert done.code == 0, done.err
    says = [
        *("CHURNLAB_STORAGE_URL", "does not let this user in", "no such user or database"),
        *("storage.heartbeat=2", "has its runs in the store"),
    ]
    for ended, text in zip(refused, says, strict=True):
        assert (ended.code, ended.out) == (2, ""), ended.err
        assert text in ended.err.splitlines()[-1]
        assert "Traceback" not in ended.err
    assert f"{home}/mlflow.db" in refused[-1].err
    for file in [path for path in tmp_path.rglob("*") if path.is_file()]:
        content = file.read_bytes()
        assert b"se%2Fcret" not in content, file
        assert PASSWORD.encode() not in content, file


def test_workers_in_processes_and_a_small_space_have_exactly_its_points(shared):
    model = own_model(shared.root, "sleeper", {"x": [0.1, 0.2, 0.3, 0.4]}, seconds=0.1)
    two = ("engine=processes", "engine.workers=2")
    with shared.tune("one", *model, *two, "tune.n_trials=9") as one:
        found = shared.check(4, one.ended())
    assert sorted(trial.params["x"] for trial in in_state(found, "COMPLETE")) == [
        0.1,
        0.2,
        0.3,
        0.4,
    ]
