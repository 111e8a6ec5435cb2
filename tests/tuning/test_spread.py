"""Worker processes do what a command spreads: to the same bits, and a dead one costs its chunk."""

import importlib
import logging
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression

from churnlab.config.commands import COMMANDS
from churnlab.data.contract import Column
from churnlab.errors import InputError, JobError
from churnlab.evaluation.cross_validation import fold_predictions
from churnlab.evaluation.learning_curve import learning_curve
from churnlab.models.features import Features
from churnlab.models.pipelines import pipeline
from churnlab.models.splits import make_folds
from churnlab.segments.choose_k import evidence_per_k
from churnlab.segments.clusterers import Clusterer, Gaussians, MixedClasses, NearestCenter
from churnlab.segments.dendrogram import ward_tree
from churnlab.segments.null_model import groups_p_value
from churnlab.threads import spread
from churnlab.tuning.needs import NOTHING
from churnlab.tuning.pool import ATTEMPTS
from churnlab.tuning.spread import WARM, spread_over
from churnlab.tuning.workers import Inline, Processes
from support import calls

pytestmark = pytest.mark.slow


def both(compute) -> tuple:
    """Return what a computation gives in this process, and in two others."""
    here = compute()
    with spread_over(Processes(2), NOTHING, "train"):
        return here, compute()


def members(n: int) -> tuple[pd.DataFrame, np.ndarray]:
    """Return members with gaps and words."""
    rng = np.random.default_rng(3)
    X = pd.DataFrame({"a": rng.normal(size=n), "b": rng.exponential(size=n)})
    y = (X["a"] + X["b"] + rng.normal(size=n) > 1).astype(int).to_numpy()
    X.loc[rng.choice(n, n // 10, replace=False), "a"] = np.nan
    return X.assign(plan=rng.choice(["x", "y", "z"], n)), y


COLUMNS = {
    "a": Column("numeric"),
    "b": Column("numeric"),
    "plan": Column("category", values=("x", "y", "z")),
}


@pytest.mark.parametrize("gaps", [True, False])
@pytest.mark.parametrize(
    "estimator", [LogisticRegression(), RandomForestClassifier(9, random_state=0)]
)
def test_folds_and_learning_curves_have_the_same_bits(estimator, gaps):
    X, y = members(400)
    X = X if gaps else X.fillna(0.0)
    names = ["a", "b", "plan"] if gaps else ["a", "b"]
    model = pipeline(
        estimator, features=Features(names, {"c": "a * b"}).fit(X), columns=COLUMNS, scale=True
    )
    folds = make_folds(y, folds=3, repeats=2, seed=0)
    rows = np.arange(len(X))

    def compute() -> tuple[pd.DataFrame, pd.DataFrame | None]:
        return (
            fold_predictions(model, X, y, folds, rows=rows),
            learning_curve(model, X, y, folds[:3], seed=0, fewest=2),
        )

    for here, there in zip(*both(compute), strict=True):
        pd.testing.assert_frame_equal(here, there, check_exact=True)


@pytest.mark.parametrize("clusterer", [NearestCenter(), Gaussians(), MixedClasses()])
def test_refits_have_the_same_bits(clusterer: Clusterer):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(300, 3)) + 4 * rng.integers(2, size=(300, 1)))
    frame.columns = list("abc")
    y = rng.integers(2, size=300)

    def compute() -> tuple[pd.DataFrame, float]:
        space = clusterer.space(frame)
        fits = clusterer.fit(space, [2, 3], n_init=2, random_state=0, max_rows=200)
        tree = ward_tree(space.Z, random_state=0)
        effort = {"bootstraps": 3, "refit_n_init": 1, "splits": 2, "references": 2}
        found = evidence_per_k(
            frame, tree, fits, y=y, random_state=0, clusterer=clusterer, **effort
        )
        measure = clusterer.structure(space.layout)
        how = {"layout": space.layout, "measure": measure, "random_state": 0, "tables": 9}
        return found.per_k, groups_p_value(space.Z, 2, **how)

    (here, p_here), (there, p_there) = both(compute)
    pd.testing.assert_frame_equal(here, there, check_exact=True)
    assert p_here == p_there


def test_an_exception_is_that_of_the_first_item_that_has_one_as_in_one_process():
    class Odd(Exception):
        """It cannot be rebuilt from its arguments."""

        def __init__(self, item: int, why: str) -> None:
            super().__init__(f"{item} {why}")

    def fail(item: int) -> int:
        if item == 3:
            raise InputError("model.estimator: 3 is too much.")
        if item > 3:
            raise Odd(item, "is odd")
        return item

    errors = []
    for engine in (Inline(), Processes(2)):
        with spread_over(engine, NOTHING, "train"):
            assert spread(fail, [0, 1, 2]) == [0, 1, 2]
            for items in ([1, 4, 3], [4, 5]):
                with pytest.raises(Exception, match="3 is too much|4 is odd") as caught:
                    spread(fail, items, n_jobs=1)
                errors.append(str(caught.value).removeprefix("Odd: "))
            assert spread(fail, [2, 1]) == [2, 1], "the workers serve on"
    assert errors[:2] == errors[2:]


def test_what_a_library_warns_of_in_a_worker_is_warned_of_here():
    def overflow(item: int) -> float:
        return float(np.exp(np.float64(1000 * item)))

    found = []
    for engine in (Inline(), Processes(2)):
        with spread_over(engine, NOTHING, "train"), warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("default")
            spread(overflow, [0, 1, 0], n_jobs=1)
        found.append({(one.category, str(one.message)) for one in caught})
    assert found[0] == found[1] != set()


def test_a_worker_that_dies_costs_its_chunk_alone(tmp_path: Path, caplog):
    caplog.set_level(logging.INFO, "churnlab")
    first = tmp_path / "first"

    def work(path: Path) -> str:
        with (tmp_path / "done").open("a") as notes:
            notes.write(f"{path.name}\n")
        if path == first:
            calls.die_the_first_time(path)
        return path.name

    items = [first, *(tmp_path / str(number) for number in range(7))]
    with spread_over(Processes(2), NOTHING, "train"):
        assert spread(work, items) == [path.name for path in items]
    done = (tmp_path / "done").read_text().split()
    assert sorted(done) == sorted([*(path.name for path in items), "first"])
    assert "A worker died by signal 9 (out of memory?); only what it was doing" in caplog.text


def test_work_that_kills_every_worker_is_one_paragraph():
    with (
        spread_over(Processes(2), NOTHING, "train"),
        pytest.raises(JobError, match=f"died {ATTEMPTS} times.*Use fewer workers"),
    ):
        spread(calls.die, [0, 1])


def test_every_command_with_work_for_an_engine_names_modules_that_its_workers_can_import():
    assert WARM.keys() == {name for name, keys in COMMANDS.items() if keys.runs_engine}
    for module in {module for modules in WARM.values() for module in modules}:
        importlib.import_module(module)
