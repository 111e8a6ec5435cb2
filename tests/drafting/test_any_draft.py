"""Tables drawn at random, with many quirks at once: the draft is read back, and is right."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.drafts import Drafted, drafted, written
from support.quirks import Quirky, quirky


def kind_of(found: Drafted, name: str) -> str | None:
    """The kind that was drafted for a column; None if it is left out."""
    keys = found.columns.get(name.strip())
    if keys is None:
        return None
    return "ordered" if keys.get("ordered") else keys["kind"]


def mistakes(made: Quirky, found: Drafted) -> list[str]:
    """What a colleague would say otherwise."""
    wrong = [
        f"{name}: {kind_of(found, name)}, not {kind}"
        for name, kind in made.kinds.items()
        if kind_of(found, name) != kind
    ]
    if found.keys["target"] != made.target or (
        str(found.keys["positive"]).casefold() != made.positive.casefold()
    ):
        wrong.append(f"target {found.keys['target']} = {found.keys['positive']}")
    return wrong + ([f"id {found.keys['id']}"] if found.keys["id"] != made.id else [])


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_what_init_writes_of_any_table_is_accepted_by_the_same_table(tmp_path_factory, seed):
    made = quirky(seed)
    path = written(made.cells, tmp_path_factory.mktemp("quirky"), separator=made.separator)
    found = drafted(path)
    assert found.checked is not None
    assert found.keys["target"] == made.target


def test_at_least_95_of_100_columns_are_drafted_as_a_colleague_would(tmp_path):
    wrong, judged = [], 0
    for seed in range(25):
        made = quirky(seed)
        found = drafted(written(made.cells, tmp_path, separator=made.separator))
        wrong += [f"{seed}: {text}" for text in mistakes(made, found)]
        judged += len(made.kinds) + 2
    assert len(wrong) <= 0.05 * judged, "\n".join(wrong)


@pytest.mark.parametrize("separator", [",", ";"])
def test_a_table_of_nothing_but_an_id_and_an_outcome_is_no_crash(tmp_path, separator):
    cells = {"id": [*range(10, 50)], "churn": ["yes", "no"] * 20}
    assert drafted(written(cells, tmp_path, separator=separator)).keys["columns"] is None
