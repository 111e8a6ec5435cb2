"""Who judges a candidate: held-out members that it was not trained on, twins of others too."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from churnlab.data.contract import Column, Contract
from churnlab.data.dataset import Dataset, make_dataset
from churnlab.data.table import in_memory
from churnlab.registry.judges import select, twins_sentence

N = 60


def club(seed: int, twins: int, same: int, *, named: bool = True) -> Dataset:
    """Members, of whom the last are twins of the first, and before them some are the first again,
    under their own ids."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "fee": rng.normal(50, 9, N),
            "plan": rng.choice(["gold", "basic", None], N),
            "visits": np.where(rng.random(N) < 0.3, np.nan, rng.normal(3, 1, N)),
        }
    )
    place = {"twins": slice(N - twins, N), "same": slice(N - twins - same, N - twins)}
    frame.iloc[place["twins"]] = frame.iloc[:twins].to_numpy()
    ids = [f"M{number}" for number in range(N)]
    ids[place["same"]] = ids[:same]
    frame["member"], frame["left"] = ids, rng.permutation(np.arange(N) % 3 == 0).astype(int)
    columns = {"fee": Column("numeric"), "plan": Column("category"), "visits": Column("numeric")}
    contract = Contract(
        "club", "left", 1, columns, id="member" if named else None, repeated_ids=named
    )
    return make_dataset(in_memory(frame, source="club"), contract)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), twins=st.integers(0, 12), same=st.integers(0, 12))
def test_the_same_member_is_left_out_and_a_twin_of_another_id_judges_and_is_counted(
    seed, twins, same
):
    dataset = club(seed, twins, same)
    trained, test = np.arange(30), np.arange(30, N)
    judges = select(dataset, test, trained, None)
    assert sum(judges.left_out.values()) == same
    assert len(judges.rows) == len(test) - same
    assert judges.twins == twins
    said = twins_sentence(judges, named=True)
    assert bool(said) == bool(twins)
    if twins:
        assert said[0].startswith(f"{twins} of the {len(judges.rows)} judges are alike in every")


@pytest.mark.parametrize("named", [True, False])
def test_what_twins_are_depends_on_whether_members_have_an_id(named):
    judges = select(club(0, 4, 0, named=named), np.arange(30, N), np.arange(30), None)
    (said,) = twins_sentence(judges, named=named)
    assert ("though of different ids" in said) == named
    assert judges.twins == 4
