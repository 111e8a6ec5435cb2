"""Members to judge candidates by."""

import numpy as np
import pytest

N = 500


@pytest.fixture(scope="module")
def world() -> tuple[np.ndarray, np.ndarray]:
    """Members and the probabilities of an ideal model: y, probability."""
    random = np.random.default_rng(0)
    chance = 1 / (1 + np.exp(-random.normal(-1.5, 2.5, N)))
    return (random.random(N) < chance).astype(int), chance
