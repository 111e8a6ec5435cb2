"""One worker and one seed give the same trials to the last bit, with or without kills."""

import pytest

from support.killing import Command, check_promise, dead, in_state, own_model, trials
from support.soak import RANDOM, SOAK, repeatable

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("moments_of_its_own")]


N = 34
"""More than 25: Optuna's sampler weights the 25 newest trials differently from older ones."""

TUNE = ("tune", "dataset.rows=250", "evaluation.folds=2", f"tune.n_trials={N}")
ALONE = ("engine=processes", "engine.workers=1")


def history(found) -> list[tuple[dict, float | None]]:
    """Return parameters and value of each trial, without killed attempts."""
    return [(trial.params, trial.value) for trial in found if trial not in dead(found)]


def complete(home) -> int:
    return len(in_state(trials(home), "COMPLETE"))


def soon(command, home) -> bool:
    """Wait for a moment some trials later; return False if the study ended before."""
    enough = complete(home) + RANDOM.randrange(1, 4 if SOAK else 10)
    return command.until(lambda: complete(home) >= enough, f"trial {enough}") and command.pause(
        RANDOM.uniform(0, 0.1)
    )


def killed_and_resumed(home, words, *, kills):
    """Kill and resume a study some times; return its trials."""
    fell = []
    while len(fell) < kills:
        with Command(home, *words) as command, repeatable("killed after", fell):
            if not soon(command, home):
                break
            command.kill()
            fell.append(complete(home))
    assert fell
    with Command(home, *words) as command, repeatable("killed after", fell):
        return check_promise(home, N, command.ended())


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    home = tmp_path_factory.mktemp("uninterrupted") / "home"
    with Command(home, *TUNE) as command:
        return history(check_promise(home, N, command.ended()))


def test_a_study_killed_and_resumed_has_the_trials_of_one_that_was_not(uninterrupted, home):
    assert history(killed_and_resumed(home, TUNE, kills=8 if SOAK else 2)) == uninterrupted


@pytest.mark.parametrize("kills", [0, 5] if SOAK else [1])
def test_one_worker_in_a_process_of_its_own_has_the_same_trials_also_when_it_is_killed(
    uninterrupted, home, kills
):
    with Command(home, *TUNE, *ALONE) as command, repeatable():
        for _ in range(kills):
            if not soon(command, home):
                break
            for worker in command.workers():
                worker.kill()
        found = check_promise(home, N, command.ended())
    assert history(found) == uninterrupted
    assert len(dead(found)) <= kills


@pytest.mark.skipif(not SOAK, reason="part of the long form: make soak")
def test_trials_that_fail_are_the_same_too_when_the_study_is_killed_and_resumed(tmp_path):
    model = own_model(tmp_path, "sleeper", {"x": (0.0, 1.0)}, seconds=0.01, fails_below=0.3)
    words = ("tune", *model, f"tune.n_trials={N}")
    with Command(tmp_path / "whole", *words) as command:
        whole = check_promise(tmp_path / "whole", N, command.ended())
    assert in_state(whole, "FAIL")
    assert history(killed_and_resumed(tmp_path / "killed", words, kills=8)) == history(whole)
    with Command(tmp_path / "alone", *words, *ALONE) as command:
        assert history(check_promise(tmp_path / "alone", N, command.ended())) == history(whole)
