"""One command from a foreign table, unedited, to a champion that answers with the file's rows."""

import warnings

import mlflow
import numpy as np
import pandas as pd
import pytest

from support.lookalikes import LOOK_ALIKES, look_alike
from support.running import churnlab_at, tracked_at
from support.soak import SOAK

pytestmark = pytest.mark.slow

LITTLE = (
    "tune.n_trials=1",
    "segments.bootstraps=2",
    "segments.null_tables=20",
    "segments.splits=2",
)
NAMES = [*LOOK_ALIKES] if SOAK else ["maven", "insurance"]
"""Three statuses and gaps that are values; semicolons, units and dates; in make soak all."""


@pytest.fixture(scope="module", params=NAMES)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def table(name):
    return look_alike(name, n=2000)


@pytest.fixture(scope="module")
def home(name, tmp_path_factory):
    return tmp_path_factory.mktemp(name) / "home"


@pytest.fixture(scope="module")
def ended(name, table, home):
    """How the pipeline and the scoring of the file's own rows ended."""
    file = table.write(home.parent, name).name
    words = () if SOAK else LITTLE
    churnlab = churnlab_at(home)
    made = churnlab("pipeline", f"input={file}", f"target={table.target}", *words)
    own = ("--config-dir", "my_conf", f"dataset={name}")
    return made, churnlab("score", *own, f"input={file}", "output=scored.csv")


def test_a_foreign_table_ends_in_a_champion(ended):
    made, _ = ended
    assert made.code == 0, made.err
    assert made.line["version"] == "1"
    assert "Wrote my_conf/dataset/" in made.err


def test_its_own_rows_are_scored_and_a_notebook_answers_the_same(ended, name, table, home):
    _, scored = ended
    assert scored.code == 0, scored.err
    rows = pd.read_csv(home.parent / "scored.csv", sep=table.separator, decimal=table.decimal)
    assert len(rows) == len(table.table)
    marked, left = rows["will_churn"].mean(), (table.table[table.target] == table.positive).mean()
    assert left / 2 < marked < 2 * left
    file = home.parent / f"{name}.csv"
    members = pd.read_csv(file, sep=table.separator, keep_default_na=False).head(50)
    with tracked_at(home), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="ignored columns that are no inputs")
        champion = mlflow.pyfunc.load_model(f"models:/{name}-churn@champion")
        answers = pd.DataFrame(champion.predict(members.drop(columns=table.target)))
    np.testing.assert_allclose(
        answers["churn_probability"], rows["churn_probability"].head(50), atol=1e-9
    )
