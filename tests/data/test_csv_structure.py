"""Every row of a CSV is known by its line in the file, and every row of another width is found."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from churnlab.data.contract import Column, Contract
from churnlab.data.reading import read_table

NOTES = st.sampled_from(
    ["", "a", '"a,b"', '"a\nb"', '"a\r\n\nb"', '"say ""hi"""', 'a"b', '" x', "'", '"x"y']
)
BLANKS = st.lists(st.sampled_from(["", " ", "\t ", "  "]), max_size=2)


@settings(max_examples=150, deadline=None)
@given(
    rows=st.lists(
        st.tuples(BLANKS, st.sampled_from(["20", "20", "20", "-1"]), NOTES), min_size=2, max_size=25
    ),
    above=BLANKS,
    end=st.sampled_from(["\n", "\r\n", "\r"]),
    last=st.booleans(),
    block=st.sampled_from([1, 40, 2**22]),
)
def test_a_line_is_reported_by_its_number_in_the_file(
    tmp_path_factory, rows, above, end, last, block
):
    contract = Contract(
        "notes", "Left", 1, {"Age": Column(kind="numeric", min=0), "Note": Column(kind="category")}
    )
    lines = [*above, "Age,Left,Note"]
    bad = []
    for number, (blanks, age, note) in enumerate(rows):
        lines += blanks
        note = note if note.count('"') % 2 == 0 or not note.startswith('"') else f'{note}"'
        if age == "-1":
            bad.append(
                1
                + len(
                    end.join([*lines, ""])
                    .replace("\r\n", "\n")
                    .replace("\r", "\n")
                    .split("\n")[:-1]
                )
            )
        lines.append(f"{age},{number % 2},{note}")
    path = tmp_path_factory.mktemp("lines") / "t.csv"
    path.write_bytes((end.join(lines) + end * last).encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("churnlab.data.csv_structure.BLOCK", block)
        table = read_table(str(path), contract)
    assert not table.violations
    assert len(table.frame) == len(rows)
    found = [table.place(int(row)) for row in np.flatnonzero(table.frame["Age"] < 0)]
    assert found == [f"line {number}" for number in bad]


@settings(max_examples=100, deadline=None)
@given(
    widths=st.lists(st.integers(1, 5), min_size=1, max_size=30),
    quoted=st.booleans(),
    block=st.sampled_from([1, 30, 2**22]),
)
def test_every_line_of_another_width_is_found_and_the_others_are_read(
    tmp_path_factory, widths, quoted, block
):
    path = tmp_path_factory.mktemp("ragged") / "t.csv"
    cell = '"7,7"' if quoted else "7"
    path.write_text(
        "a,b,c\n" + "".join(",".join([cell] * width) + "\n" for width in widths), encoding="utf-8"
    )
    contract = Contract("abc", "c", 1, {name: Column(kind="category") for name in "ab"})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("churnlab.data.csv_structure.BLOCK", block)
        table = read_table(str(path), contract)
    wrong = [row for row, width in enumerate(widths) if width != 3]
    assert sorted(row for found in table.violations for row in found.rows) == wrong
    assert list(table.frame.index) == [row for row, width in enumerate(widths) if width == 3]
    assert set(table.frame["a"]) <= {cell.strip('"')}
