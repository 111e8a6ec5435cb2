"""Do tables without groups pass for groups, and are planted groups found?

Every table is segmented as `churnlab segment` does it: the rule chooses k on the same rows.
"""

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from churnlab.segments.choose_k import RULES, choose_k, evidence_per_k
from churnlab.segments.dendrogram import ward_tree
from churnlab.segments.kmeans import fit_kmeans, standardized
from churnlab.segments.null_model import ALPHA, groups_p_value
from churnlab.segments.stability import gap_statistic
from support.planted import assert_at_least, assert_at_most, count, tables

Table = Callable[[np.random.Generator], np.ndarray]
MEMBERS = 500
EFFORT = {"bootstraps": 4, "refit_n_init": 3, "splits": 4, "references": 2, "random_state": 0}
LOADINGS = np.array([0.9, 0.85, 0.8, 0.7, 0.6, 0.5])


def one_factor(rng: np.random.Generator) -> np.ndarray:
    """Six columns that one normal factor drives: a cigar, whose halves come back (ARI .98)."""
    factor = rng.normal(size=(MEMBERS, 1))
    return factor * LOADINGS + rng.normal(size=(MEMBERS, 6)) * np.sqrt(1 - LOADINGS**2)


def correlated(rng: np.random.Generator) -> np.ndarray:
    """Five normal columns with random correlations."""
    return rng.normal(size=(MEMBERS, 5)) @ rng.normal(size=(5, 5))


def skewed(rng: np.random.Generator) -> np.ndarray:
    """Six lognormal columns of one factor."""
    return np.exp(one_factor(rng))


def with_binary_columns(rng: np.random.Generator) -> np.ndarray:
    """Two binary columns, a count and three normal columns of one factor."""
    table = one_factor(rng)
    table[:, [0, 2]] = table[:, [0, 2]] > [0, 0.8]
    table[:, 3] = np.round(np.exp(table[:, 3]))
    return table


def uneven_spread(rng: np.random.Generator) -> np.ndarray:
    """A factor that raises level and spread of four columns: no Gaussian copula, no groups."""
    factor = rng.normal(size=(MEMBERS, 1))
    rest = factor / 2 + np.exp(0.3 * factor) * rng.normal(size=(MEMBERS, 4))
    return np.hstack([factor + rng.normal(size=(MEMBERS, 1)) / 2, rest])


def curved(rng: np.random.Generator) -> np.ndarray:
    """A factor that acts on one column by its square: no Gaussian copula, no groups."""
    factor = rng.normal(size=(MEMBERS, 1))
    table = np.hstack([factor, factor**2, factor, factor, factor])
    return table + rng.normal(size=(MEMBERS, 5)) * [0.4, 0.8, 1, 1, 1]


def planted(rng: np.random.Generator, *, groups: int, apart: float) -> np.ndarray:
    """Spherical groups in five columns, their centers ``apart`` standard deviations apart."""
    turned = np.linalg.qr(rng.normal(size=(5, 5)))[0]
    centers = turned[:groups] * apart / np.sqrt(2)
    return centers[rng.integers(groups, size=MEMBERS)] + rng.normal(size=(MEMBERS, 5))


def planted_with_flags(rng: np.random.Generator) -> np.ndarray:
    """Three groups in four columns and two flags that the groups have more or less often."""
    group = rng.integers(3, size=MEMBERS)
    centers = np.array([[0, 0, 0, 0], [2.5, 2.5, 0, 0], [0, 2.5, 2.5, 0]])
    often = np.array([[0.1, 0.9], [0.9, 0.5], [0.5, 0.1]])
    flags = rng.random((MEMBERS, 2)) < often[group]
    return np.hstack([centers[group] + rng.normal(size=(MEMBERS, 4)), flags])


def shown_to_be_groups(table: np.ndarray, k: int | None = None) -> bool:
    """Segment a table, into the k that the rule chooses unless given, and test the segments."""
    frame = pd.DataFrame(table)
    Z = standardized(frame)
    if k is None:
        fits = fit_kmeans(Z, range(2, 6), n_init=3, random_state=0)
        tree = ward_tree(Z, random_state=0)
        k = choose_k(evidence_per_k(frame, tree, fits, **EFFORT).per_k).k
    return groups_p_value(Z, k, tables=49, random_state=0) < ALPHA


@pytest.mark.parametrize(
    "cloud", [one_factor, correlated, skewed, with_binary_columns, uneven_spread, curved]
)
def test_members_without_groups_are_not_shown_to_be_groups(cloud: Table):
    of = tables(5, 200)
    wrong = count(lambda rng: shown_to_be_groups(cloud(rng)), of=of, seed=1)
    print(f"{cloud.__name__}: groups in {wrong} of {of} tables without groups")
    assert_at_most(0.05, wrong, of=of)


@pytest.mark.parametrize(("groups", "power"), [(2, 0.5), (3, 0.9), (4, 0.9)])
def test_planted_groups_three_deviations_apart_are_shown(groups: int, power: float):
    of = tables(5, 200)
    found = count(
        lambda rng: shown_to_be_groups(planted(rng, groups=groups, apart=3.0), groups),
        of=of,
        seed=2,
    )
    print(f"{groups} groups: shown in {found} of {of} tables")
    assert_at_least(power, found, of=of)


def test_planted_groups_with_flags_are_shown():
    of = tables(5, 200)
    found = count(lambda rng: shown_to_be_groups(planted_with_flags(rng), 3), of=of, seed=3)
    print(f"three groups with flags: shown in {found} of {of} tables")
    assert_at_least(0.9, found, of=of)


def k_of_the_gap(table: np.ndarray) -> int | None:
    """Return the k that the gap statistic alone chooses."""
    Z = standardized(pd.DataFrame(table))
    fits = fit_kmeans(Z, range(2, 6), n_init=3, random_state=0)
    inertias = {1: float((Z**2).sum())} | {k: kmeans.inertia_ for k, kmeans in fits.items()}
    gaps = gap_statistic(Z, inertias, references=10, random_state=0)
    return RULES["gap"](pd.DataFrame(gaps, index=["gap", "gap_s"]).T)


def test_the_gap_chooses_one_for_a_cloud_and_three_for_three_groups():
    """Not for skewed columns: its references are uniform, and a long tail is no uniform column."""
    of = tables(8, 200)
    wrong = count(lambda rng: k_of_the_gap(one_factor(rng)) != 1, of=of, seed=4)
    found = count(lambda rng: k_of_the_gap(planted(rng, groups=3, apart=5)) == 3, of=of, seed=5)
    print(f"the gap sees groups in {wrong} of {of} clouds, and three in {found} of {of}")
    assert_at_most(0.05, wrong, of=of)
    assert_at_least(0.9, found, of=of)
