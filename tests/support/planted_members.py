"""Members of planted groups, and of none, in tables of numbers and words."""

import numpy as np
import pandas as pd
from scipy.special import softmax

ERRS = (0.02, 0.05)
"""The share of the members that an oracle which knows the mixture puts into a wrong group."""


def planted(rng: np.random.Generator, *, rows: tuple[int, int] = (800, 3000)) -> tuple:
    """Return members of 3 to 6 groups, and each member's group.

    Numbers are normal and words have shares of their own in each group; the groups are moved apart
    until an oracle that knows all of this errs as ERRS say.
    """
    k, n = int(rng.integers(3, 7)), int(rng.integers(*rows))
    numbers, words = rng.integers(2, 7, size=2)
    levels = rng.integers(2, 6, size=words)
    shares = np.full(k, 0.0)
    while shares.min() < 0.08:
        shares = rng.dirichlet(np.full(k, 8.0))
    group = rng.choice(k, size=n, p=shares)
    means, spread = rng.normal(size=(k, numbers)), rng.uniform(0.8, 1.25, size=(k, numbers))
    common = [0.5 * rng.normal(size=count) for count in levels]
    own = [0.8 * rng.normal(size=(k, count)) for count in levels]
    noise, uniform = rng.normal(size=(n, numbers)), rng.random((n, words))

    def drawn(apart: float) -> tuple[np.ndarray, np.ndarray, float]:
        X = apart * means[group] + spread[group] * noise
        logs = np.log(shares) - ((X[:, None] - apart * means) ** 2 / spread**2 / 2).sum(axis=2)
        logs -= np.log(spread).sum(axis=1)
        W = np.empty((n, words), int)
        for j in range(words):
            likely = softmax(common[j] + apart * own[j], axis=1)
            above = uniform[:, j, None] > likely[group].cumsum(axis=1)
            W[:, j] = above.sum(axis=1).clip(max=levels[j] - 1)
            logs += np.log(likely[:, W[:, j]]).T
        return X, W, float((logs.argmax(axis=1) != group).mean())

    low, high, wanted = 0.0, 12.0, rng.uniform(*ERRS)
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (middle, high) if drawn(middle)[2] > wanted else (low, middle)
    X, W, error = drawn(high)
    if not 0.018 <= error <= 0.052:  # too few rows, or too few words, for this error
        return planted(rng, rows=rows)
    return members(X, W), group


def one_cloud(rng: np.random.Generator, *, rows: tuple[int, int] = (800, 3000)) -> pd.DataFrame:
    """Return members without groups: 1 to 3 factors drive numbers, some skewed, and words."""
    n, factors = int(rng.integers(*rows)), int(rng.integers(1, 4))
    numbers, words = rng.integers(2, 7, size=2)
    loadings = rng.normal(size=(factors, numbers + words)) * rng.uniform(0, 1.2)
    latent = rng.normal(size=(n, factors)) @ loadings + rng.normal(size=(n, numbers + words))
    latent /= latent.std(axis=0)
    X, W = latent[:, :numbers], np.empty((n, words), int)
    skewed = rng.random(numbers) < 0.3
    X[:, skewed] = np.exp(0.7 * X[:, skewed])
    for j in range(words):
        count = int(rng.integers(2, 6))
        cuts = np.sort(rng.normal(size=count - 1))
        W[:, j] = rng.permutation(count)[(latent[:, numbers + j, None] > cuts).sum(axis=1)]
    return members(X, W)


def members(X: np.ndarray, W: np.ndarray) -> pd.DataFrame:
    """Return numbers and the words' numbers as columns."""
    table = pd.DataFrame(X).add_prefix("number")
    return table.join(pd.DataFrame(W).add_prefix("word").astype(str).radd("level "))
