"""What a version is handed: members as it would read them itself."""

from datetime import date

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from churnlab.data.contract import Column, Contract
from churnlab.data.dataset import make_members
from churnlab.data.table import in_memory
from churnlab.registry.versions import Served, features_of, with_its_days

DAYS = st.dates(date(2015, 1, 1), date(2030, 12, 31))


def contract(before: date) -> Contract:
    columns = {"joined": Column("date", before=before), "fee": Column("numeric")}
    return Contract("club", "left", 1, columns)


@given(joined=st.lists(DAYS, min_size=1, max_size=9), trained=DAYS, stated=DAYS)
def test_ages_for_a_version_are_those_that_it_reads_from_the_dates_itself(joined, trained, stated):
    frame = pd.DataFrame({"joined": [str(day) for day in joined], "fee": 1.0})
    reading = {name: contract(trained).reading(name) for name in ("joined", "fee")}
    version = Served(model=None, spec={"reading": reading})
    members = make_members(in_memory(frame, source="frame"), contract(stated))
    X = features_of(version, members)
    ages = [(trained - day).days for day in joined]
    np.testing.assert_array_equal(X["joined"], ages)
    own = make_members(in_memory(frame, source="frame"), with_its_days(version, contract(stated)))
    np.testing.assert_array_equal(own.X["joined"], ages)


@pytest.mark.parametrize("spec", [{}, {"reading": {"fee": {"kind": "numeric"}}}])
def test_a_version_without_dates_is_handed_members_as_they_are(spec):
    frame = pd.DataFrame({"joined": ["2026-05-01"], "fee": 1.0})
    members = make_members(in_memory(frame, source="frame"), contract(date(2026, 5, 2)))
    assert features_of(Served(model=None, spec=spec), members) is members.X
