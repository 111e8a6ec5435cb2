"""A study never fits the same parameters twice, and a failed fit is neither counted nor the end."""

from collections import Counter

import pytest

from support.killing import FOLDS, check_promise, in_state, notes, own_model, runs, trials
from support.running import churnlab_at
from support.soak import SOAK

pytestmark = pytest.mark.slow

ENGINES = {"inline": ("engine=inline",), "processes": ("engine=processes", "engine.workers=2")}


@pytest.fixture(params=ENGINES)
def engine(request):
    if request.param == "processes" and not SOAK:
        pytest.skip("part of the long form: make soak")
    return request.param


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """Return a folder, and what runs commands in it."""
    root = tmp_path_factory.mktemp("lab")
    churnlab = churnlab_at(root / "home")
    return root, churnlab


UNTUNED = 0.5
"""The default of x: each study also fits it, to compare with the best on the hold-out."""


def fits(root, name: str) -> Counter:
    """Count the fits of each x."""
    return Counter(line["x"] for line in notes(root, name))


def study(root, ended):
    return trials(root / "home", ended.line["study"])


def test_a_space_of_six_points_is_tried_once(lab, engine):
    root, churnlab = lab
    name = f"six_{engine}"
    model = own_model(root, name, {"x": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]})
    ended = churnlab("tune", *model, *ENGINES[engine], "tune.n_trials=20")
    found = check_promise(root / "home", 6, ended, study=ended.line["study"])
    assert sorted(trial.params["x"] for trial in found) == [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
    assert (ended.line["n_reused"], ended.line["best_params"]) == (0, {"x": 0.3})
    counted = fits(root, name)
    refit, untuned = (counted.pop(x) - FOLDS for x in (0.3, UNTUNED))
    assert counted == dict.fromkeys([0.1, 0.2, 0.4, 0.6], FOLDS)
    assert refit > 0
    assert untuned > 0
    assert "The space has 6 points: each is tried once." in ended.err
    assert "trials, best" not in ended.err, "without -v a pipe gets no progress"

    again = churnlab("tune", *model, *ENGINES[engine], "tune.n_trials=20")
    assert (again.code, again.line["n_complete"]) == (0, 6)
    assert counted.items() <= fits(root, name).items()


def test_parameters_sampled_again_reuse_the_earlier_value(lab, engine):
    root, churnlab = lab
    name = f"many_{engine}"
    model = own_model(root, name, {"x": [place / 20 for place in range(20)]})
    four = ["engine.workers=4"] if engine == "processes" else []
    ended = churnlab("tune", *model, *ENGINES[engine], *four, "tune.n_trials=18")
    found = check_promise(root / "home", 18, ended, study=ended.line["study"])
    attempts = {run.info.run_id: run for run in runs(root / "home", "trial", ended.line["study"])}
    reused = [
        trial
        for trial in found
        if "churnlab.reused_from" in attempts[trial.user_attrs["run_id"]].data.tags
    ]
    assert ended.line["n_reused"] == len(reused) > 0
    for trial in reused:
        run = attempts[trial.user_attrs["run_id"]]
        source = attempts[run.data.tags["churnlab.reused_from"]]
        assert source.info.status == "FINISHED"
        assert "churnlab.reused_from" not in source.data.tags
        assert source.data.params == run.data.params
        assert source.data.metrics["cv_log_loss"] == run.data.metrics["cv_log_loss"] == trial.value
    counted = fits(root, name)
    tried = {trial.params["x"] for trial in found}
    assert len(tried) == 18 - len(reused)
    # the best and the untuned parameters are fitted again for the hold-out
    again = {ended.line["best_params"]["x"], UNTUNED}
    assert {x: counted[x] for x in tried - again} == dict.fromkeys(tried - again, FOLDS)
    assert counted.keys() <= tried | again


def test_a_failed_trial_is_logged_but_not_counted_and_not_the_end(lab, engine):
    root, churnlab = lab
    name = f"frail_{engine}"
    model = own_model(root, name, {"x": (0.0, 1.0)}, fails_below=0.25)
    ended = churnlab("tune", *model, *ENGINES[engine], "tune.n_trials=12")
    found = check_promise(root / "home", 12, ended, study=ended.line["study"])
    failed = in_state(found, "FAIL")
    assert failed
    assert all(trial.params["x"] < 0.25 and "error" in trial.user_attrs for trial in failed)
    attempts = {run.info.run_id: run for run in runs(root / "home", "trial", ended.line["study"])}
    for trial in failed:
        run = attempts[trial.user_attrs["run_id"]]
        assert run.info.status == "FAILED"
        assert f"x={trial.params['x']} is below 0.25" in run.data.tags["mlflow.note.content"]
    assert Counter(run.info.status for run in attempts.values()) == {
        "FINISHED": 12,
        "FAILED": len(failed),
    }


def test_a_study_in_which_everything_fails_stops_with_the_first_message(lab, engine):
    root, churnlab = lab
    name = f"broken_{engine}"
    model = own_model(root, name, {"x": (0.0, 1.0)}, fails_below=2.0)
    ended = churnlab("tune", *model, *ENGINES[engine], "tune.n_trials=50", f"tune.study={name}")
    assert ended.code in (1, 2)
    assert ended.out == ""
    assert "Traceback" not in ended.err
    found = trials(root / "home", name)
    first = min(in_state(found, "FAIL"), key=lambda trial: trial.number)
    assert ended.err.splitlines()[-1].count(f"x={first.params['x']} is below 2.0") == 1, ended.err
    assert 2 <= len(found) <= 12
    assert {trial.state.name for trial in found} == {"FAIL"}
    statuses = Counter(run.info.status for run in runs(root / "home", study=name))
    assert statuses == {"FAILED": len(found) + 1}
