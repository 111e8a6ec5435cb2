"""With repeated_ids a model that memorizes persons scores no better than chance."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import mannwhitneyu
from sklearn.neighbors import KNeighborsClassifier

from churnlab.data.contract import Column, Contract
from churnlab.data.dataset import Dataset, make_dataset
from churnlab.data.table import in_memory
from churnlab.models.splits import make_split
from support.planted import assert_at_least, assert_at_most, tables

PERSONS, ROWS = 150, 4
COLUMNS = {name: Column("numeric") for name in ("a", "b", "c")}


def persons(rng: np.random.Generator, *, repeated: bool) -> Dataset:
    """Draw persons with several rows each, whose features know nothing of the outcome but who they
    are; without ``repeated`` the table has no id."""
    place = np.repeat(rng.normal(size=(PERSONS, 3)), ROWS, axis=0)
    frame = pd.DataFrame(place + rng.normal(0, 0.01, place.shape), columns=list(COLUMNS))
    frame["left"] = np.repeat((rng.random(PERSONS) < 0.4).astype(int), ROWS)
    frame["who"] = np.repeat([f"p{i}" for i in range(PERSONS)], ROWS)
    frame = frame.sample(frac=1, random_state=int(rng.integers(2**31)), ignore_index=True)
    contract = Contract(
        "persons",
        target="left",
        positive=1,
        columns=COLUMNS,
        id="who" if repeated else None,
        repeated_ids=repeated,
    )
    return make_dataset(in_memory(frame, source="generated"), contract)


def seems_to_know(dataset: Dataset, train: np.ndarray, test: np.ndarray) -> bool:
    """Return whether a nearest neighbor ranks the test persons better than chance (p < 0.05)."""
    model = KNeighborsClassifier(3).fit(dataset.X.iloc[train], dataset.y[train])
    predicted = pd.DataFrame(
        {
            "who": np.round(dataset.X.iloc[test]["a"], 1).to_numpy(),
            "left": dataset.y[test],
            "score": model.predict_proba(dataset.X.iloc[test])[:, 1],
        }
    )
    if dataset.groups is not None:
        predicted["who"] = dataset.groups[test]
    person = predicted.groupby("who").mean()
    left = person["left"] > 0.5
    test_of_ranks = mannwhitneyu(
        person.loc[left, "score"], person.loc[~left, "score"], alternative="greater"
    )
    return bool(test_of_ranks.pvalue < 0.05)


@pytest.mark.parametrize("repeated", [True, False])
def test_a_model_that_memorizes_persons_knows_nothing_of_those_held_out(repeated: bool):
    held_out = folds = 0
    of = tables(20, 1000)
    for rng in np.random.default_rng(0).spawn(of):
        dataset = persons(rng, repeated=repeated)
        split = make_split(dataset, test_size=0.25, stratify=True, folds=4, repeats=1, seed=0)
        held_out += seems_to_know(dataset, split.train, split.test)
        fold = split.folds[0]
        parts = split.train[fold.train], split.train[fold.validation]
        folds += seems_to_know(dataset, *parts)
    for found in (held_out, folds):
        if repeated:
            assert_at_most(0.05, found, of=of)
        else:  # without an id the same persons are on both sides, and the model knows them again
            assert_at_least(0.9, found, of=of)
