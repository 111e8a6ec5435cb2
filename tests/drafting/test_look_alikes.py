"""Tables like the well-known public ones: init drafts them as a colleague would."""

import numpy as np
import pytest

from churnlab.data.reading import read_table
from churnlab.drafting.draft import draft
from support.lookalikes import LOOK_ALIKES, look_alike

MAY_BE_LEFT_OUT = {"Zip Code", "Churn Score", "City"}
"""What a colleague might leave out: a code, a score that knows the outcome, 300 names of places."""


@pytest.mark.parametrize("name", LOOK_ALIKES)
def test_the_target_the_id_and_what_no_model_may_use_are_found(tmp_path, name):
    table = look_alike(name, n=1500)
    read = read_table(str(table.write(tmp_path, name)), whole=True)
    found = draft(read)
    assert (found.target.name, found.target.positive) == (table.target, table.positive)
    assert found.target.sure
    assert found.id == table.id
    assert (read.separator, found.decimal) == (table.separator, table.decimal)
    left_out = {column.name for column in found.columns if column.declared is None}
    assert set(table.left_out) <= left_out <= {*table.left_out, *MAY_BE_LEFT_OUT}
    status = table.table[table.target]
    assert np.array_equal(found.target.taking_part, status != "Joined")
