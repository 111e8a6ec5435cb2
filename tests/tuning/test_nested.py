"""Studies inside outer folds: what they see, what they predict, and that kills do them no harm."""

from pathlib import Path

import pandas as pd
import pytest

from support.killing import ENDED, Command, check_promise, own_model, runs
from support.running import Ended, artifact, churnlab_at
from support.soak import RANDOM, SOAK, repeatable

pytestmark = pytest.mark.slow

OUTER, N = 2, 2
TUNE = (
    *("tune", "tune.study=mine", "dataset.rows=300", "evaluation.folds=3", "model=random_forest"),
    *("model.estimator.n_estimators=5", f"tune.n_trials={N}", f"tune.outer={OUTER}"),
)


INLINE, PROCESSES = (), ("engine=processes", "engine.workers=2")


def table(run, path: str) -> pd.DataFrame:
    return pd.read_parquet(artifact(run, path))


def check_nested(home: Path, ended: Ended, *, study: str, n: int, outer: int) -> pd.DataFrame:
    """Check promise 1 for the study and for those inside; return the nested predictions."""
    check_promise(home, n, ended, study=study)
    (parent,) = runs(home, "tune", study)
    tables = []
    for number in range(1, outer + 1):
        (inside,) = runs(home, "tune", f"{study}-outer-{number}-of-{outer}")
        assert inside.info.status == "FINISHED"
        assert inside.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert inside.data.tags["churnlab.outer_fold"] == f"{number} of {outer}"
        trials = runs(home, "trial", f"{study}-outer-{number}-of-{outer}")
        finished = [run for run in trials if run.info.status == "FINISHED"]
        assert len(finished) == n
        assert {run.data.tags["mlflow.parentRunId"] for run in trials} == {inside.info.run_id}
        best = min(run.data.metrics["cv_log_loss"] for run in finished)
        assert inside.data.metrics["best_cv_log_loss"] == best
        tables.append(table(inside, "predictions/nested.parquet"))
    nested = table(parent, "predictions/nested.parquet")
    pd.testing.assert_frame_equal(
        nested.drop(columns="threshold"), pd.concat(tables, ignore_index=True)
    )
    assert ended.line["nested_value"] == parent.data.metrics["nested_log_loss"]
    return nested


@pytest.fixture(scope="module")
def churnlab(shared_home):
    return churnlab_at(shared_home)


@pytest.fixture(scope="module")
def study(churnlab):
    ended = churnlab(*TUNE)
    assert ended.code == 0, ended.err
    return ended


def test_every_outer_fold_is_predicted_by_a_study_of_its_own_that_did_not_see_it(
    study, shared_home
):
    nested = check_nested(shared_home, study, study="mine", n=N, outer=OUTER)
    (best,) = [
        run for run in runs(shared_home, "train") if run.info.run_id == study.line["best_run_id"]
    ]
    # the training part, in the order of the hold-out's split
    oof, test = table(best, "predictions/oof.parquet"), table(best, "predictions/test.parquet")
    assert sorted(nested["row"]) == sorted(oof["row"])
    assert not set(nested["row"]) & set(test["row"])
    train = oof.sort_values(["fold", "row"])["row"].unique()
    assert len(train) == len(nested)
    assert nested.groupby("fold").size().tolist() == [120, 120]


def test_with_as_many_outer_folds_as_folds_they_are_those_of_the_first_draw(study, churnlab):
    """So that an untuned run can be compared with a tuned one without another fit."""
    ended = churnlab(*TUNE[:-1], "tune.outer=3", "tune.study=three")
    assert ended.code == 0, ended.err
    untuned = churnlab("train", *TUNE[2:6])
    assert untuned.code == 0, untuned.err
    pair = f"runs=[{ended.line['best_run_id']},{untuned.line['run_id']}]"
    compared = churnlab("compare", "dataset.rows=300", "evaluation.folds=3", pair)
    assert compared.code == 0, compared.err
    assert compared.line["decided_by"] == "nested"
    assert f"was chosen among {N} on these members" in compared.err
    assert "On the hold-out, which chose nothing" in compared.err
    other = churnlab(
        "compare",
        "dataset.rows=300",
        "evaluation.folds=3",
        f"runs=[{study.line['best_run_id']},{untuned.line['run_id']}]",
    )
    assert other.line["decided_by"] == "hold-out"
    assert other.line["delta"] == other.line["hold_out_delta"]
    assert other.line["fold_p"] is None


def test_the_same_command_again_adds_no_run(study, churnlab, shared_home):
    before = len(runs(shared_home))
    again = churnlab(*TUNE)
    assert (again.code, again.line) == (0, study.line)
    assert len(runs(shared_home)) == before


def test_an_outer_fold_alone_is_not_reproduced_but_its_study_is(study, churnlab, shared_home):
    inside = runs(shared_home, "tune", f"mine-outer-1-of-{OUTER}")[0].info.run_id
    refused = churnlab("reproduce", inside)
    assert (refused.code, refused.out) == (2, "")
    assert f"reproduce the study: churnlab reproduce run={study.line['run_id']}." in refused.err
    again = churnlab("reproduce", study.line["run_id"])
    assert again.code == 0, again.err
    assert again.line["identical"]


def kills(home: Path, words: list[str], study: str, n: int) -> int:
    """Kill the command a few times, the last time for certain inside an outer fold."""
    done = 0
    for last in [False] * (SOAK and RANDOM.randrange(1, 6)) + [True]:
        with Command(home, *words) as command, repeatable(done, "kills"):
            if last and not command.until(
                lambda: [
                    run
                    for run in runs(home, "trial", f"{study}-outer-1-of-2")
                    if run.info.status == "FINISHED"
                ],
                "a trial of an outer fold",
            ):
                return done
            if not command.pause(RANDOM.uniform(0, 1 if last else 15)):
                return done
            command.kill_everything()
            done += 1
    return done


@pytest.mark.usefixtures("moments_of_its_own")
@pytest.mark.parametrize(
    ("killed", "resumed"),
    [(INLINE, INLINE), (PROCESSES, PROCESSES)] if SOAK else [(INLINE, PROCESSES)],
)
def test_a_nested_study_killed_at_random_moments_ends_with_exactly_its_trials(
    tmp_path, killed, resumed
):
    home = tmp_path / "home"
    model = own_model(tmp_path, "sleeper", {"x": (0.0, 1.0)}, seconds=0.1)
    words = ["tune", *model, f"tune.n_trials={N}", "tune.outer=2", "tune.study=nested"]
    assert kills(home, [*words, *killed], "nested", N)
    with Command(home, *words, *resumed) as command:
        check_nested(home, command.ended(), study="nested", n=N, outer=2)


def test_without_outer_folds_the_same_study_ends_what_a_kill_left_of_them(tmp_path):
    home = tmp_path / "home"
    model = own_model(tmp_path, "sleeper", {"x": (0.0, 1.0)}, seconds=0.3)
    words = ["tune", *model, f"tune.n_trials={N}", "tune.study=left"]
    with Command(home, *words, "tune.outer=2") as command:
        assert command.until(lambda: runs(home, "trial", "left-outer-1-of-2"), "a trial")
        command.kill_everything()
    with Command(home, *words) as command:
        check_promise(home, N, command.ended(), study="left")
    (inside,) = runs(home, "tune", "left-outer-1-of-2")
    assert inside.info.status == "KILLED"
    assert {run.info.status for run in runs(home)} <= ENDED


def test_a_study_whose_untuned_parameters_do_not_fit_only_warns(tmp_path):
    home = tmp_path / "home"
    model = own_model(tmp_path, "sleeper", {"x": (0.6, 1.0)}, fails_below=0.55)
    with Command(home, "tune", *model, "tune.n_trials=2", "tune.study=untuned") as command:
        ended = command.ended()
    check_promise(home, 2, ended, study="untuned")
    assert "the untuned parameters cannot be fitted: x=0.5 is below 0.55" in ended.err
    (parent,) = runs(home, "tune")
    assert "hold-out" not in parent.data.tags["mlflow.note.content"]
    assert "hold_out_delta" not in parent.data.metrics
