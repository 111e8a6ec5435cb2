"""EM on numbers and words: it finds what was planted, and its BIC counts what it fitted."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

from churnlab.segments.latent_classes import class_shares, features, fit_classes
from churnlab.segments.space import Layout, Space, space_of


def table(n: int = 900, *, seed: int = 0) -> tuple[Space, np.ndarray]:
    """Two numbers and a word; three classes of which each is seen in one column only."""
    rng = np.random.default_rng(seed)
    group = rng.choice(3, size=n, p=[0.5, 0.3, 0.2])
    frame = pd.DataFrame(
        {
            "visits": rng.normal(np.array([0, 6, 0])[group], 1),
            "spent": rng.normal(0, np.array([1, 1, 0.2])[group]),
            "plan": np.where(group == 2, "gold", np.where(rng.random(n) < 0.5, "a", "b")),
        }
    )
    return space_of(frame, ["plan"]), group


def fit(space: Space, ks: list[int], *, seed: int = 0, **options):
    rng = np.random.default_rng(seed)
    return fit_classes(space.Z, space.layout, ks, n_init=10, rng=rng, **options)


def labels(space: Space, classes) -> np.ndarray:
    return class_shares(features(space.Z, space.layout), classes).argmax(axis=1)


def test_planted_classes_are_found_and_the_lowest_bic_is_theirs():
    space, group = table()
    fits = fit(space, [1, 2, 3, 4, 5])
    assert min(fits, key=lambda k: fits[k].bic) == 3
    agree = pd.crosstab(group, labels(space, fits[3])).max(axis=1).sum() / len(group)
    assert agree > 0.97


def test_one_class_has_the_likelihood_of_independent_columns():
    space, _ = table()
    one = fit(space, [1])[1]
    shares = (space.Z[:, 2:] > 0).mean(axis=0)
    expected = norm.logpdf(space.Z[:, :2]).sum() + len(space.Z) * (shares * np.log(shares)).sum()
    assert one.log_likelihood == pytest.approx(expected, rel=1e-5)
    # Two means, two variances, and two of three shares.
    assert one.bic == pytest.approx(6 * np.log(len(space.Z)) - 2 * one.log_likelihood)


def test_a_row_of_weight_two_is_two_rows():
    space, _ = table(400)
    times = np.random.default_rng(1).integers(1, 3, size=len(space.Z))
    twice = Space(np.repeat(space.Z, times, axis=0), space.layout)
    weighted = fit(space, [2], weights=times.astype(float))[2]
    repeated = fit(twice, [2])[2]
    assert weighted.log_likelihood == pytest.approx(repeated.log_likelihood, rel=1e-4)
    assert (labels(space, weighted) == labels(space, repeated)).mean() in (
        pytest.approx(0, abs=0.01),
        pytest.approx(1, abs=0.01),
    )


def test_equal_values_in_a_class_leave_the_likelihood_finite():
    rng = np.random.default_rng(2)
    spent = np.where(rng.random(300) < 0.5, 0.0, rng.exponential(size=300))
    space = space_of(pd.DataFrame({"spent": spent, "age": rng.normal(size=300)}))
    for found in fit(space, [2, 3, 4]).values():
        assert np.isfinite([found.bic, found.log_likelihood]).all()
        assert np.isfinite(class_shares(features(space.Z, space.layout), found)).all()


def test_words_alone_have_classes():
    rng = np.random.default_rng(3)
    group = rng.integers(2, size=600)
    often = np.where(group[:, None] == 1, 0.9, 0.1)
    frame = pd.DataFrame(np.where(rng.random((600, 6)) < often, "Yes", "No")).add_prefix("w")
    space = space_of(frame, list(frame))
    assert space.layout == Layout(0, (2,) * 6)
    fits = fit(space, [1, 2, 3])
    assert min(fits, key=lambda k: fits[k].bic) == 2
    assert pd.crosstab(group, labels(space, fits[2])).max(axis=1).sum() > 0.95 * 600
