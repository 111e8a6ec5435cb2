"""An effect of a column that the outcome does not depend on is rarely stated."""

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from churnlab.data.contract import Column
from churnlab.evaluation.importance import permutation_importance
from churnlab.models import pipelines
from churnlab.models.features import Features
from support.planted import assert_at_most, count, tables

COLUMNS = {name: Column("numeric") for name in "ab"}


def draw(rng: np.random.Generator, n: int) -> tuple[pd.DataFrame, np.ndarray]:
    """Draw members whose outcome depends on a and not on b."""
    X = pd.DataFrame(rng.normal(size=(n, 2)), columns=list(COLUMNS))
    return X, (rng.random(n) < expit(X["a"].to_numpy() - 1.2)).astype(int)


@pytest.mark.parametrize("members", [60, 800])
def test_an_effect_of_a_useless_column_is_shown_in_few_tables(members):
    def shown(rng: np.random.Generator) -> bool:
        features = Features(list(COLUMNS), {})
        unfitted = pipelines.pipeline(
            LogisticRegression(), features=features, columns=COLUMNS, scale=True
        )
        model = pipelines.fit(unfitted, *draw(rng, 4 * members))
        held_out = draw(rng, members)
        found = permutation_importance(model, *held_out, [["b"]], COLUMNS, repeats=10, seed=0)
        return bool(found["low"].iloc[0] > 0)

    of = tables(40, 1000)
    assert_at_most(0.025, count(shown, of=of, seed=1), of=of)
