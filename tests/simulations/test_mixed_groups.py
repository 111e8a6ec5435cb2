"""Are planted groups found in tables of numbers and words, and none where there are none?

Every table is segmented as `churnlab segment segments=all` does it, with less effort.
"""

import numpy as np
import pandas as pd
import pytest

from churnlab.segments.choose_k import better_k, choose_k, evidence_per_k
from churnlab.segments.clusterers import MixedClasses
from churnlab.segments.dendrogram import ward_tree
from churnlab.segments.null_model import ALPHA, groups_p_value
from simulations.test_groups import Table, curved, uneven_spread
from support.planted import assert_at_least, assert_at_most, count, tables
from support.planted_members import members, one_cloud, planted
from support.soak import SOAK

ROWS = (800, 3000) if SOAK else (500, 900)
EFFORT = {"bootstraps": 4, "refit_n_init": 5, "splits": 2, "references": 2, "random_state": 0}
CLUSTERER = MixedClasses()
CURVED = pytest.param(
    *(curved, 0.15), marks=pytest.mark.skipif(not SOAK, reason="three tables cannot break 15%")
)


def segmented(table: pd.DataFrame) -> tuple[int, bool]:
    """Return the chosen number of segments, and whether they are shown to be groups."""
    space = CLUSTERER.space(table)
    fits = CLUSTERER.fit(
        space, range(2, 9), n_init=20 if SOAK else 8, random_state=0, max_rows=10_000
    )
    tree = ward_tree(space.Z, random_state=0)
    evidence = evidence_per_k(table, tree, fits, clusterer=CLUSTERER, **EFFORT).per_k
    k = choose_k(evidence).k
    if better_k(evidence, k) is not None:
        return k, False
    how = {"layout": space.layout, "measure": CLUSTERER.structure(space.layout)}
    return k, groups_p_value(space.Z, k, tables=19, random_state=0, **how) <= ALPHA


def with_words(X: np.ndarray, rng: np.random.Generator) -> pd.DataFrame:
    """Return the first three columns as numbers, and the next two cut into four words each."""
    cut = [np.digitize(column, np.quantile(column, [0.3, 0.6, 0.85])) for column in X[:, 3:5].T]
    words = [rng.permutation(4)[column] for column in cut]
    return members(X[:, :3], np.column_stack(words))


def test_the_number_of_planted_groups_is_found_and_shown():
    """Of 3 to 6 groups, in which an oracle that knows them errs in 2 to 5%."""
    shown = []

    def right(rng: np.random.Generator) -> bool:
        table, group = planted(rng, rows=ROWS)
        k, groups = segmented(table)
        shown.append(groups)
        return k == len(np.unique(group))

    of = tables(4, 400)
    found = count(right, of=of, seed=1)
    print(f"the number of groups is right in {found} of {of} tables, shown in {sum(shown)}")
    assert_at_least(0.95, found, of=of)
    assert_at_least(0.9, sum(shown), of=of)


def test_members_of_one_cloud_are_not_shown_to_be_groups():
    of = tables(4, 400)
    wrong = count(lambda rng: segmented(one_cloud(rng, rows=ROWS))[1], of=of, seed=2)
    print(f"groups in {wrong} of {of} tables without groups")
    assert_at_most(0.05, wrong, of=of)


@pytest.mark.parametrize(("cloud", "promised"), [(uneven_spread, 0.05), CURVED])
def test_members_of_a_cloud_that_is_no_gaussian_copula_seldom_are(cloud: Table, promised: float):
    """A curve that several columns form passes for groups more often than at 5% (how-sure.md)."""
    of = tables(3, 200)
    wrong = count(lambda rng: segmented(with_words(cloud(rng), rng))[1], of=of, seed=3)
    print(f"{cloud.__name__}: groups in {wrong} of {of} tables without groups")
    assert_at_most(promised, wrong, of=of)
