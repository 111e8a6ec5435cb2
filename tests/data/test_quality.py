"""Leakage is refused, other oddities of a valid table are reported, chance is neither."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from churnlab.data.contract import Column, Contract
from churnlab.data.quality import duplicate_rows, leaking_columns
from churnlab.data.table import in_memory
from churnlab.data.validation import Checked, check
from churnlab.errors import InputError


def checked(frame: pd.DataFrame, contract: Contract) -> Checked:
    return check(in_memory(frame, source="members.csv"), contract)


def refusal(frame: pd.DataFrame, contract: Contract) -> str:
    with pytest.raises(InputError) as raised:
        checked(frame, contract)
    return str(raised.value)


def club(n: int = 400, seed: int = 0) -> tuple[pd.DataFrame, Contract]:
    """Members with a strong, honest feature, a weak one, a category and noise."""
    rng = np.random.default_rng(seed)
    left = rng.random(n) < 0.3
    frame = pd.DataFrame(
        {
            "strong": rng.normal(left * 2.5, 1),
            "weak": rng.normal(left * 0.3, 1),
            "town": rng.choice(list("abcd"), n),
            "coin": rng.integers(0, 2, n),
            "y": left.astype(int),
        }
    )
    columns = {
        name: Column(kind="category" if name == "town" else "numeric")
        for name in frame
        if name != "y"
    }
    return frame, Contract("club", "y", 1, columns)


LEAKS = {
    "a copy": lambda y, rng: y,
    "the opposite": lambda y, rng: 1 - y,
    "words": lambda y, rng: np.where(y == 1, "gone", "here"),
    "codes": lambda y, rng: np.where(y == 1, 5, rng.choice([3, 8], len(y))),
    "reasons": lambda y, rng: np.where(
        y == 1, rng.choice(["price", "moved"], len(y)), rng.choice(["-", "+"], len(y))
    ),
    "a refund": lambda y, rng: np.where(y == 1, rng.normal(50, 3, len(y)), 0),
    "a number that jumps": lambda y, rng: rng.normal(-100.0 * y, 5),
    "a copy with few slips": lambda y, rng: np.where(np.arange(len(y)) < len(y) // 400, 1 - y, y),
    "when they left": lambda y, rng: np.where(y == 1, rng.normal(50, 3, len(y)), np.nan),
}


@pytest.mark.parametrize("leak", LEAKS)
@pytest.mark.parametrize("n", [60, 400, 30_000])
def test_a_leaking_column_is_refused(leak, n):
    frame, contract = club(n)
    frame["leak"] = LEAKS[leak](frame["y"].to_numpy(), np.random.default_rng(1))
    kind = "category" if frame["leak"].dtype.kind not in "if" else "numeric"
    message = refusal(
        frame, replace(contract, columns={**contract.columns, "leak": Column(kind=kind)})
    )
    assert "column leak alone predicts who left (AUC " in message
    assert (
        "a copy of y or was recorded after the event (leakage); take it out of dataset.columns in "
        "the YAML of club" in message
    )
    assert "strong" not in message


@settings(max_examples=150, deadline=None)
@given(
    n=st.integers(10, 50),
    left=st.integers(1, 5),
    seed=st.integers(0, 2**32 - 1),
    levels=st.sampled_from([2, 3, 99]),
)
def test_a_small_table_is_not_refused_by_chance(n, left, seed, levels):
    rng = np.random.default_rng(seed)
    names = [f"f{number}" for number in range(20)]
    frame = pd.DataFrame({name: rng.integers(0, levels, n) for name in names[:10]})
    frame = frame.assign(**{name: rng.normal(size=n) for name in names[10:]})
    frame["y"] = rng.permutation([1] * left + [0] * (n - left))
    checked(frame, Contract("few", "y", 1, {name: Column(kind="numeric") for name in names}))


COPIES = {
    "the same": lambda y: y,
    "the opposite": lambda y: 1 - y,
    "words": lambda y: np.where(y == 1, "gone", "here"),
    "truth": lambda y: y == 1,
    "with gaps": lambda y: np.where(np.arange(len(y)) % 10 == 5, np.nan, y),
}


@pytest.mark.parametrize("form", COPIES)
@pytest.mark.parametrize("left", [3, 4, 6, 20, 37])
def test_an_exact_copy_of_the_outcome_is_found_in_a_small_table(form, left):
    rng = np.random.default_rng(left)
    for _ in range(20):
        y = rng.permutation(np.arange(40) < left).astype(int)
        X = pd.DataFrame({f"coin {number}": rng.integers(0, 2, 40) for number in range(5)})
        X["copy"] = COPIES[form](y)
        if X["copy"].nunique() == 2 and X["copy"].value_counts().min() > 2:
            assert leaking_columns(X, y) == {"copy": 1.0}


@pytest.mark.parametrize(
    ("left", "alike", "most"),
    [
        (1, True, 0),  # by chance one table in eight, so that such a copy is no leak
        (1, False, 0),
        (2, True, 0.0064),  # 5 columns, 780 pairs of members
        (2, False, 0.0005),
        (3, True, 0.0005),
    ],
)
def test_a_column_of_two_values_that_agrees_with_the_outcome_by_chance_is_hardly_ever_a_leak(
    left, alike, most
):
    """Columns that are ``alike`` are 1 for as many members as have left, others for any number."""
    rng, tables = np.random.default_rng([left, alike]), 800
    alarms = 0
    for _ in range(tables):
        y = (np.arange(40) < left).astype(int)
        sizes = [left] * 5 if alike else rng.integers(1, 40, 5)
        X = pd.DataFrame(
            {f"f{n}": rng.permutation(np.arange(40) < size) for n, size in enumerate(sizes)}
        )
        alarms += bool(leaking_columns(X, y))
    assert alarms <= tables * most + 2 * np.sqrt(tables * most)


@pytest.mark.parametrize("n", [12, 50, 400, 30_000])
def test_a_strong_honest_feature_and_identifiers_are_no_leakage(n):
    for seed in range(5):
        frame, contract = club(n, seed)
        if 0 < frame["y"].sum() < n:
            frame["name"] = [f"member {number}" for number in range(n)]
            checked(
                frame,
                replace(contract, columns={**contract.columns, "name": Column(kind="category")}),
            )


# --- warnings


def warned(n: int = 400, **more: object) -> list[str]:
    """The warnings of the club's table with more columns, or others."""
    frame, contract = club(n)
    frame = frame.assign(**more)
    kinds = {
        name: Column(kind="category" if frame[name].dtype.kind not in "if" else "numeric")
        for name in frame
    }
    return checked(
        frame, replace(contract, columns={name: kinds[name] for name in frame if name != "y"})
    ).warnings


def test_a_table_without_oddities_is_read_without_a_warning():
    assert warned() == []


def test_constant_columns_are_reported():
    assert warned(zero=0, fax="none") == ["constant columns, of no use to a model: zero, fax"]


def test_identifiers_among_the_features_are_reported_and_floats_never_are():
    numbers = np.random.default_rng(1).permutation(400)
    warnings = warned(
        card=15_600_000 + numbers, mail=[f"{number}@club" for number in numbers], sum=numbers + 0.5
    )
    assert warnings[0].startswith(
        "columns that look like identifiers, distinct in nearly every row: card, mail;"
    )
    assert "sum" not in warnings[0]
    assert warned(50, card=np.arange(50)) == [], (
        "small tables of whole numbers are different by nature"
    )


def test_redundant_columns_are_reported():
    frame, _ = club()
    assert warned(again=frame["weak"] * 3 + 1) == [
        "redundant columns (absolute correlation of 0.99 or more): weak and again"
    ]


def test_a_strong_imbalance_is_reported():
    left = np.zeros(400, int)
    left[:12] = 1
    rare = "members left (y): accuracy says little here; look at average_precision and log_loss"
    assert warned(y=left) == [f"only 3.00% of 400 {rare}"]
    assert warned(y=1 - left) == [
        f"only 3.00% of 400 {rare.replace('left', 'stayed')}",
        "y is 1 in 388 rows and 0 in 12, and 1 counts as left, so 97.0% of the members did; if it "
        "means that they stayed, set dataset.positive=0",
    ]


@pytest.mark.parametrize(
    ("left", "stayed", "suspicious"),
    [
        *[(1, 0, False), ("yes", "no", False), ("True", "False", False), ("Y", "N", False)],
        *[("Attrited", "Existing", False), ("left", "on", False), (1, -1, False)],
        *[(1, 2, True), (2, 1, True), ("2", "1", True), ("A", "I", True), (0.5, 1.5, True)],
    ],
)
def test_codes_that_may_mean_the_opposite_are_reported_with_counts(left, stayed, suspicious):
    frame, contract = club()
    y = frame["y"].to_numpy()
    coded = frame.assign(y=[left if gone else stayed for gone in y])
    found = checked(coded, replace(contract, positive=left)).warnings
    assert bool(found) == suspicious
    if suspicious:
        assert f"y is {left} in {y.sum()} rows" in found[0]
        assert f"set dataset.positive={stayed}" in found[0]


def test_more_leavers_than_stayers_are_reported_whatever_the_codes():
    frame, contract = club()
    coded = frame.assign(y=np.where(frame["y"] == 1, "stayed", "left for good"))
    (warning,) = checked(coded, replace(contract, positive="left for good")).warnings
    assert "if it means that they stayed, set dataset.positive=stayed" in warning
    share = f"{(frame['y'] == 0).mean():.1%}"
    assert f"left for good counts as left, so {share} of the members did" in warning


def test_codes_of_the_target_are_shown_as_the_table_has_them():
    frame, contract = club()
    coded = frame.assign(y=np.where(frame["y"] == 1, "STAYED On", "Left"))
    (warning,) = checked(coded, replace(contract, positive="Left")).warnings
    assert warning.startswith("y is Left in ")
    assert "rows and STAYED On in " in warning
    assert warning.endswith("set 'dataset.positive=STAYED On'")


def test_repeated_rows_and_conflicting_outcomes_are_reported():
    frame, contract = club()
    again = pd.concat([frame, frame.iloc[:7], frame.iloc[:3].assign(y=1 - frame["y"].iloc[:3])])
    assert checked(again, contract).warnings == [
        "7 of 410 rows repeat an earlier row, outcome included: was the table joined twice?",
        "3 times members are equal in every feature but differ in outcome: no model can separate "
        "them",
    ]


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), alike=st.integers(2, 40))
def test_members_alike_but_of_different_ids_are_not_the_same(seed, alike):
    frame, contract = club()
    newcomers = frame.iloc[np.random.default_rng(seed).integers(0, len(frame), 1).repeat(alike)]
    table = pd.concat([frame, newcomers], ignore_index=True)
    named = table.assign(member=[f"M-{number}" for number in range(len(table))])
    (warning,) = checked(named, replace(contract, id="member")).warnings
    assert warning == (
        f"{alike} of {len(table)} members are alike with an earlier one in every feature and in "
        "outcome, though of different ids"
    )
    twice = replace(contract, id="member", repeated_ids=True)
    same = named.assign(member=[*named["member"][: len(frame)], *["M-0"] * alike])
    both = pd.concat([same, same.iloc[:9]], ignore_index=True)
    assert (
        "rows repeat an earlier row, outcome included: was the" in checked(both, twice).warnings[0]
    )


@pytest.mark.parametrize("names", [["town", "coin"], ["town"], ["coin"], ["weak"]])
def test_duplicates_by_chance_are_not_reported(names):
    frame, contract = club()
    columns = {name: contract.columns[name] for name in names}
    assert checked(frame[[*names, "y"]], replace(contract, columns=columns)).warnings == []


def test_absurdly_large_numbers_are_read_if_the_yaml_allows_them():
    frame, contract = club()
    columns = {
        "weak": Column(kind="numeric", min=-1e308, max=1e308),
        "strong": contract.columns["strong"],
    }
    frame = frame[["weak", "strong", "y"]].assign(weak=frame["weak"].clip(-1, 1) * 1e308)
    assert checked(frame, replace(contract, columns=columns)).warnings == []


@settings(max_examples=100, deadline=None)
@given(
    rows=st.lists(
        st.tuples(
            st.sampled_from([0.5, 1, 2, None]), st.sampled_from(["a", "b", None]), st.integers(0, 1)
        )
    )
)
def test_duplicates_are_counted_as_by_hand(rows):
    frame = pd.DataFrame(rows, columns=["x", "town", "y"]).astype({"x": "float64", "town": "str"})
    repeated, conflicting = duplicate_rows(frame[["x", "town"]], frame["y"].to_numpy(dtype="int64"))
    assert repeated == frame.duplicated().sum()
    outcomes = frame.groupby(["x", "town"], dropna=False)["y"].nunique()
    assert conflicting == (outcomes == 2).sum()
