"""CIs of a share and of the difference of two, by their error."""

import numpy as np
import pytest

from churnlab.segments.shares import share_difference, share_interval


def ones(share: float, size: int) -> np.ndarray:
    return (np.arange(size) < round(share * size)).astype(int)


def test_the_difference_has_the_ends_that_newcombe_publishes():
    """Newcombe (1998), table II: 56 of 70 minus 48 of 80, method 10."""
    low, high = share_difference(ones(56 / 70, 70), ones(48 / 80, 80))(0.05)
    assert (low, high) == pytest.approx((0.0524, 0.3339), abs=5e-5)


def test_shares_of_nobody_and_of_all_differ_with_an_interval_inside_their_range():
    low, high = share_difference(np.ones(10), np.zeros(10))(0.05)
    assert 0 < low < high == pytest.approx(1)
    assert share_interval(np.zeros(10))(0.05)[0] == 0


def test_a_smaller_error_widens_the_interval():
    interval = share_difference(ones(0.4, 50), ones(0.3, 60))
    (low, high), (lower, higher) = interval(0.05), interval(0.01)
    assert lower < low < 0.1 < high < higher
