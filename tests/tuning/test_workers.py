"""Several workers: none waits for another, each loads the table once, each runs trials."""

from collections import Counter

import pytest
import yaml

from support.killing import FOLDS, Command, check_promise, notes, own_model, runs

pytestmark = pytest.mark.slow

WORKERS, N = 4, 60
SECONDS, UNEVEN = 3.0, 6.0


@pytest.fixture(scope="module")
def worked(tmp_path_factory):
    """Run a study of short and long trials (up to six seconds) with four workers."""
    root = tmp_path_factory.mktemp("workers")
    home = root / "home"
    model = own_model(root, "sleeper", {"x": (0.0, 1.0)}, seconds=SECONDS, uneven=UNEVEN)
    generator = {
        "_target_": "estimators.noted_members",
        "n": 200,
        "seed": 0,
        "notes": str(root / "tables.jsonl"),
    }
    table = {"defaults": ["demo", "_self_"], "name": "noted", "generator": generator}
    (root / "own/dataset").mkdir()
    (root / "own/dataset/noted.yaml").write_text(yaml.safe_dump(table))
    words = [
        "tune",
        *model,
        "dataset=noted",
        "engine=processes",
        f"engine.workers={WORKERS}",
        f"tune.n_trials={N}",
    ]
    with Command(home, *words) as command:
        check_promise(home, N, command.ended())
    return home, command.process.pid


def fits_of_trials(home):
    """Return the fits that had begun when the last trial ended; later ones are the best model."""
    ended = max(run.info.end_time for run in runs(home, "trial")) / 1000
    return [line for line in notes(home.parent, "sleeper") if line["at"] < ended]


def test_no_worker_waits_for_the_slowest_of_a_batch(worked):
    """The baseline is batches of four, in which the next four start when the slowest has ended."""
    home, _ = worked
    spans = sorted(
        (run.info.start_time / 1000, run.info.end_time / 1000) for run in runs(home, "trial")
    )
    first = {line["pid"]: line["at"] for line in reversed(fits_of_trials(home))}
    up = max(first.values())  # from then on all four are running
    left = [ended - max(begun, up) for begun, ended in spans if ended > up]
    assert len(left) > N // 2, "most trials were done before all workers were up"
    batched = sum(max(left[place : place + WORKERS]) for place in range(0, len(left), WORKERS))
    took = max(ended for _, ended in spans) - up
    assert took < 0.6 * batched, (took, batched, sum(left))


def test_every_worker_fits_trials_and_starts_once(worked):
    home, driver = worked
    fits = Counter(line["pid"] for line in fits_of_trials(home))
    assert (len(fits), driver in fits) == (WORKERS, False)
    assert sum(fits.values()) == N * FOLDS


def test_every_process_loads_the_table_once(worked):
    home, driver = worked
    loads = Counter(line["pid"] for line in notes(home.parent, "tables"))
    assert set(loads.values()) == {1}
    workers = {line["pid"] for line in notes(home.parent, "sleeper")}
    assert loads.keys() <= workers | {driver}
