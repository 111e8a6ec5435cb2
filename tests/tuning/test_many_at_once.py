"""Processes that start at once, before there is a store."""

import pytest

from support.killing import Command, check_promise, dead, notes, own_model, runs, trials
from support.soak import SOAK

pytestmark = pytest.mark.slow

MANY = 8


def at_once(home, *starts):
    """Start commands together, check that all succeed, and return how they ended."""
    commands = [Command(home, *words) for words in starts]
    try:
        ended = [command.ended() for command in commands]
    finally:
        for command in commands:
            command.__exit__()
    assert [end.code for end in ended] == [0] * len(starts), [end.err for end in ended]
    return ended


def test_the_same_study_started_eight_times_at_once_runs_its_trials_once(home):
    words = ["tune", *own_model(home.parent, "sleeper", {"x": (0.0, 1.0)}), "tune.n_trials=6"]
    ended = at_once(home, *[words] * MANY)
    assert (
        len({(end.line["run_id"], end.line["study"], end.line["n_complete"]) for end in ended}) == 1
    )
    assert len(list((home / "studies").glob("*.log"))) == 1
    assert len(check_promise(home, 6, ended[0])) == 6
    assert len(runs(home, "trial")) == 6


def test_a_start_that_waits_for_another_takes_over_when_that_is_killed(home):
    model = own_model(home.parent, "sleeper", {"x": (0.0, 1.0)}, seconds=0.3)
    words = ["tune", *model, "engine=processes", "engine.workers=2", "tune.n_trials=6"]
    with Command(home, *words) as first, Command(home, *words) as second:
        waiting = lambda command: "Another process is running the study" in command.err  # noqa: E731
        assert first.until(lambda: waiting(first) or waiting(second), "the second start")
        assert first.until(lambda: notes(home.parent, "sleeper"), "the first fit")
        works, waits = sorted([first, second], key=waiting)
        assert not waits.workers()
        works.kill()
        found = check_promise(home, 6, waits.ended())
    assert dead(found)


@pytest.mark.skipif(not SOAK, reason="part of the long form: make soak")
def test_eight_studies_started_at_once_do_not_interfere(home):
    model = own_model(home.parent, "sleeper", {"x": (0.0, 1.0)})
    other = own_model(home.parent, "other", {"x": [0.1, 0.2, 0.3, 0.4]})
    studies = [
        model,
        (*model, "seed=1"),
        (*model, "features=early"),
        (*model, "features=behaviour", "seed=1"),
        (*model, "features=fall"),
        other,
        (*other, "evaluation.folds=3"),
        ("model=logistic_regression", "dataset.rows=200", "evaluation.folds=2"),
    ]
    ended = at_once(home, *[("tune", *words, "tune.n_trials=1") for words in studies])
    assert len({end.line["study"] for end in ended}) == MANY == len(runs(home, "tune"))
    for end in ended:
        check_promise(home, 1, end, study=end.line["study"])
        assert len(trials(home, end.line["study"])) == 1
