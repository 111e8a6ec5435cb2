"""What init makes of tables as people write them: cases from real tables, and their kinds."""

import string
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from churnlab.errors import InputError
from support.drafts import CASES, drafted, written

N = 40
LIMITS = settings(max_examples=12, deadline=None)
SEEDS = st.integers(0, 2**32 - 1)


def plain(seed: int, n: int = N, **columns) -> dict[str, list]:
    """Members with an id, a number and an outcome, and what else is given."""
    rng = np.random.default_rng(seed)
    left = rng.permutation(np.arange(n) % 3 == 0)
    return {
        "member": [f"M-{number:03d}" for number in range(n)],
        "fee": rng.uniform(15, 90, n).round(2).tolist(),
        **columns,
        "Churn": ["Yes" if gone else "No" for gone in left],
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("tables")


def case(name: str):
    """The file of a case; the test is skipped where the cases are not at hand."""
    if not (CASES / name).exists():
        pytest.skip("the cases are not here")
    return CASES / name


# A: cells of white space are missing


def test_blank_cells_of_a_file_are_gaps_of_a_number():
    found = drafted(case("a1_blank_cells.csv"))
    assert found.columns["total_paid"]["kind"] == "numeric"
    assert found.checked.X["total_paid"].isna().sum() > 0
    assert "written ' ' (" in found.checked.warnings[0]


@LIMITS
@given(
    seed=SEEDS,
    blank=st.text(" \t\u00a0", max_size=3),
    rows=st.sets(st.integers(0, N - 1), min_size=1, max_size=9),
)
def test_any_white_space_is_a_gap_in_numbers_words_and_truth(folder, seed, blank, rows):
    rng = np.random.default_rng(seed)
    columns = {
        "paid": rng.uniform(0, 900, N).round(1).astype(str).tolist(),
        "plan": rng.permutation(np.resize(["gold", "basic", "free"], N)).tolist(),
        "auto": rng.permutation(np.resize(["Yes", "No"], N)).tolist(),
    }
    for cells in columns.values():
        for row in rows:
            cells[row] = blank
    found = drafted(written(plain(seed, **columns), folder))
    kinds = {name: found.columns[name]["kind"] for name in columns}
    assert kinds == {"paid": "numeric", "plan": "category", "auto": "binary"}
    for name in columns:
        assert set(np.flatnonzero(found.checked.X[name].isna())) == rows


# B: None and NA may be values


def test_none_in_a_column_of_words_is_a_value_that_init_counts():
    found = drafted(case("b1_none_is_a_value.csv"))
    assert found.columns["offer"]["values"] == ["Autumn", "None", "Spring"]
    assert "'None' in 9 cells: a value here" in found.notes
    assert found.checked.X["offer"].notna().all()


@LIMITS
@given(
    seed=SEEDS,
    word=st.sampled_from(["NA", "N/A", "null", "NaN", "n/a", "#N/A", "?", "-"]),
    count=st.integers(1, 12),
)
def test_other_words_for_nothing_are_gaps_that_init_and_every_warning_name(
    folder, seed, word, count
):
    cells = ["gold", "basic plan", "free", "gold"] * (N // 4)
    numbers = [str(number % 37) for number in range(N)]
    for row in range(count):
        cells[row], numbers[-row - 1] = word, word
    found = drafted(written(plain(seed, plan=cells, visits=numbers), folder))
    assert word not in found.columns["plan"]["values"]
    assert found.columns["visits"]["kind"] == "numeric"
    assert f"{word!r} in {count} cells" in found.notes
    assert found.checked.X[["plan", "visits"]].isna().sum().tolist() == [count, count]
    (warning,) = [text for text in found.checked.warnings if text.startswith("missing values")]
    assert warning.count(f"written {word!r} ({count})") == 2


def test_na_among_codes_of_regions_is_a_value(folder):
    cells = ["EU", "NA", "APAC", "NA"] * (N // 4)
    found = drafted(written(plain(0, region=cells), folder))
    assert found.columns["region"]["values"] == ["APAC", "EU", "NA"]
    assert f"'NA' in {N // 2} cells: a value here" in found.notes


# C: lines that are no members


def test_a_line_that_describes_the_columns_is_named_and_nothing_is_drafted_from_it():
    path = case("c1_described_header.csv")
    for target in (None, "Churn"):
        with pytest.raises(InputError, match=r"line 2 describes the columns \(member: ") as refused:
            drafted(path, target=target)
        assert f"sed 2d {path} > " in str(refused.value)


@LIMITS
@given(
    seed=SEEDS,
    lines=st.integers(1, 3),
    words=st.text(string.ascii_letters + " ", min_size=3, max_size=12).filter(str.strip),
)
def test_descriptions_units_and_types_under_a_header_are_found(folder, seed, lines, words):
    columns = plain(seed)
    described = {
        name: [f"{words} {name} {'x' * number}" for number in range(lines)] + cells
        for name, cells in columns.items()
    }
    with pytest.raises(InputError) as refused:
        drafted(written(described, folder))
    numbers = ", ".join(str(2 + number) for number in range(lines))
    assert f"line{'s' if lines > 1 else ''} {numbers} describes the columns" in str(refused.value)
    assert drafted(written(columns, folder)).checked is not None


def test_a_header_repeated_among_the_members_is_named(folder):
    columns = {name: [*cells, name, *cells[:5]] for name, cells in plain(1).items()}
    with pytest.raises(InputError, match=f"line {N + 2} repeats the header, and is no member"):
        drafted(written(columns, folder))


def test_empty_columns_an_index_and_blanks_around_names_are_left_out_with_a_word(folder):
    columns = plain(2)
    columns = {"": [*range(N)], " fee ": columns.pop("fee"), **columns}
    path = written(columns, folder)
    text = path.read_text(encoding="utf-8")
    path.write_text("".join(f"{line},,\n" for line in text.splitlines()), encoding="utf-8")
    found = drafted(path)
    assert list(found.columns) == ["fee"]
    assert found.checked.warnings[:2] == [
        "left out the first column, which has no name: an index",
        "left out columns 5, 6, without a name and without a value",
    ]


# D: what init writes is read back


def test_codes_like_1e3_are_read_back_as_text():
    found = drafted(case("d1_exponent_codes.csv"))
    assert "1e3" in found.columns["plan"]["values"]
    assert found.checked.X["plan"].isin(["1e3", "2e5", "7e1", "A1"]).all()


CODES = st.one_of(
    st.from_regex(r"[0-9]{1,2}[eE][0-9]", fullmatch=True),
    st.sampled_from(
        ["on", "off", "yes", "no", "null", "~", "true", "0x1F", "1_000", "1:30", "007", "${x}"]
        + ["'a'", '"b"', "a: b", "# c", "- d", "[e]", "{f}", "g, h", "%i", "@j", "!k", "&l", "*m"]
        + ["é", "ж", "`n`", "back\\slash", ".inf", "2026-05-01", "=1+1", "???", "a\nb", "\\${y}"]
    ),
    st.text(string.printable, min_size=1, max_size=6).filter(lambda text: text.strip() == text),
)


@LIMITS
@given(seed=SEEDS, codes=st.lists(CODES, min_size=2, max_size=5, unique=True), name=CODES)
def test_any_codes_and_names_are_read_back_through_hydras_loader(folder, seed, codes, name):
    columns = plain(seed)
    columns |= {f"x{name}": ["word", *codes, *np.resize(codes, N - len(codes) - 1)]}
    found = drafted(written(columns, folder), target="Churn")
    assert found.checked is not None
    assert found.keys["positive"] == "Yes"
    kept = [column for column in found.columns if column.startswith("x")]
    for column in kept:
        cells = found.checked.X[column].dropna()
        if found.columns[column]["kind"] == "category":
            assert set(cells) <= {"word", *codes, *(code.replace("\r\n", "\n") for code in codes)}


def test_a_backtick_in_a_name_which_no_expression_can_quote_is_renamed():
    found = drafted(case("l1_backtick.csv"))
    assert found.keys["rename"] == {"visits`week": "visits week"}
    assert "visits`week is called visits week here" in found.notes
    assert list(found.checked.X) == ["visits week", "fee"]


# E: bands are ordered categories


def test_bands_are_an_ordered_category_and_no_dates():
    found = drafted(case("e1_tenure_bands.csv"))
    assert found.columns["tenure_band"] == {
        "kind": "category",
        "values": ["1-3", "4-6", "7-9", "10-12"],
        "ordered": True,
    }


@LIMITS
@given(
    seed=SEEDS,
    edges=st.lists(st.integers(1, 400), min_size=4, max_size=6, unique=True).map(sorted),
    style=st.sampled_from(["{}-{}", "{} - {}", "{}–{}", "{} to {}", "{}/{}", "${}-${}"]),
    unit=st.sampled_from(["", " months", " yrs"]),
)
def test_bands_in_any_style_are_in_their_order(folder, seed, edges, style, unit):
    bands = [
        style.format(low, high - 1) + unit for low, high in zip(edges, edges[1:], strict=False)
    ]
    bands = [f"< {edges[0]}{unit}", *bands, f"{edges[-1]}+{unit}"]
    cells = np.random.default_rng([seed, 1]).permutation(np.resize(bands, N)).tolist()
    found = drafted(written(plain(seed, band=cells), folder))
    assert found.columns["band"] == {"kind": "category", "values": bands, "ordered": True}


# F: numbers in other clothes


def test_thousands_separators_are_a_format_that_is_read_and_questioned():
    found = drafted(case("f1_thousands.csv"))
    assert found.columns["paid"]["format"] == "1,234.5"
    assert "written as 8,993, which is read as 8993" in found.notes
    assert "not sure: if 8,993 is 8.993, write format: '1234,5'" in found.notes
    assert found.checked.X["paid"].iloc[0] == 8993


def clothed(number: float, style: str) -> str:
    """Write a number in a style, which is the number 1234.5 so written."""
    text = f"{abs(number):,.2f}"
    marks = {"thousands": style.split("234")[0][-1], "decimal": style.split("234")[1][0]}
    marks["thousands"] = "" if marks["thousands"] == "1" else marks["thousands"]
    text = text.replace(",", "\0").replace(".", marks["decimal"]).replace("\0", marks["thousands"])
    prefix, _, _ = style.partition("1")
    _, _, suffix = style.rpartition("5")
    return f"{'-' if number < 0 else ''}{prefix}{text}{suffix}"


STYLES = [
    *("1,234.5", "1.234,5", "1 234,5", "1234,5", "1'234.5", "$1,234.5", "1.234,5 €", "€1234.5"),
    *("1234.5%", "1234,5 %", "USD 1,234.5", "1,234.5 kg", "1234.5 GB", "R$1.234,5", "1 234,5 руб."),
]


@settings(max_examples=24, deadline=None)
@given(
    seed=SEEDS,
    style=st.sampled_from(STYLES),
    low=st.sampled_from([0.0, -5000.0]),
    separator=st.sampled_from([",", ";", "\t", "|"]),
)
def test_numbers_in_any_clothes_keep_their_size(folder, seed, style, low, separator):
    numbers = np.random.default_rng(seed).uniform(low, 60_000, N).round(2)
    numbers[0] = 12345.67
    cells = [clothed(number, style) for number in numbers]
    found = drafted(written(plain(seed, paid=cells), folder, separator=separator))
    assert found.columns["paid"]["kind"] == "numeric"
    np.testing.assert_allclose(found.checked.X["paid"], numbers, rtol=0, atol=0)


def test_numbers_that_a_letter_multiplies_are_left_out_with_a_word(folder):
    found = drafted(written(plain(3, paid=np.resize(["12k", "3.5K"], N).tolist()), folder))
    assert "paid: numbers that a letter multiplies, as 12k: write them out" in found.notes


def test_mixed_units_leading_zeros_and_postal_codes_make_no_numbers(folder):
    found = drafted(
        written(plain(3, **{"Zip Code": np.resize([90210, 10001], N).tolist()}), folder)
    )
    assert found.columns["Zip Code"] == {"kind": "category", "values": ["10001", "90210"]}
    for cells in (["$5", "€7"], ["007", "012"], ["4G", "5G"], ["(415)", "(510)"]):
        found = drafted(written(plain(3, code=np.resize(cells, N).tolist()), folder))
        assert found.columns["code"]["kind"] == "category", cells


# M: blanks around names


@pytest.mark.parametrize("target", [None, "Status"])
def test_blanks_around_names_are_no_part_of_them(target):
    found = drafted(case("m1_header_blanks.csv"), target=target)
    assert (found.keys["target"], found.keys["id"]) == ("Status", "member")
    assert list(found.columns) == ["months", "fee"]


@LIMITS
@given(seed=SEEDS, before=st.text(" \t", max_size=2), after=st.text(" \t", max_size=2))
def test_any_blanks_around_names_are_read_as_without_them(folder, seed, before, after):
    columns = {f"{before}{name}{after}": cells for name, cells in plain(seed).items()}
    found = drafted(written(columns, folder))
    assert (found.keys["id"], list(found.columns), found.keys["target"]) == (
        "member",
        ["fee"],
        "Churn",
    )


# N: a third status


@pytest.mark.parametrize("target", [None, "Status"])
def test_a_third_status_takes_no_part_and_init_says_so(target):
    found = drafted(case("n1_three_statuses.csv"), target=target)
    assert found.keys["rows_where"] == "Status in ['Churned', 'Stayed']"
    assert "Status has 3 values; rows with Joined take no part" in found.notes
    assert len(found.checked.X) == 24


@LIMITS
@given(
    seed=SEEDS,
    name=st.sampled_from(["Status", "Customer Status", "Attrition_Flag", "churn?", "has left"]),
    left=st.sampled_from(["Churned", "Left", "Attrited Customer", "cancelled", "Exited"]),
    stayed=st.sampled_from(["Stayed", "Existing Customer", "active", "not churned", "retained"]),
    others=st.lists(st.sampled_from(["Joined", "Trial", "Pending"]), max_size=2, unique=True),
)
def test_the_target_its_meaning_and_its_other_values_are_found(
    folder, seed, name, left, stayed, others
):
    columns = plain(seed)
    del columns["Churn"]
    rng = np.random.default_rng(seed)
    cells = rng.permutation(np.resize([left, stayed, stayed, *others], N))
    found = drafted(written(columns | {name: cells.tolist()}, folder))
    assert (found.keys["target"], found.keys["positive"]) == (name, left)
    assert ("rows_where" in found.keys) == bool(others)
    taking_part = np.isin(cells, [left, stayed])
    assert found.checked.y.tolist() == (cells[taking_part] == left).astype(int).tolist()


def test_a_target_of_1_and_2_is_a_guess_that_init_admits(folder):
    columns = plain(4)
    codes = {"Yes": "2", "No": "1"}
    columns["Churn"] = [codes[cell] for cell in columns["Churn"]]
    found = drafted(written(columns, folder))
    assert found.keys["positive"] == 2
    assert (
        "not sure: Churn is 2 in 14 rows, which counts as left for being the rarer" in found.notes
    )


def test_members_without_an_outcome_take_no_part(folder):
    columns = plain(5)
    columns["Churn"][:4] = ["", "", " ", ""]
    found = drafted(written(columns, folder))
    assert "Churn is missing in 4 rows, which take no part" in found.notes
    assert len(found.checked.X) == N - 4


# P: decimals of a database


def test_decimals_of_a_database_are_numbers():
    found = drafted(case("p1_decimal_money.parquet"))
    assert found.columns["fee"]["kind"] == "numeric"


@LIMITS
@given(
    seed=SEEDS,
    cells=st.lists(st.one_of(st.none(), st.decimals(0, 10**9, places=2)), min_size=N, max_size=N),
)
def test_any_decimals_are_numbers(folder, seed, cells):
    cells = [Decimal("1.50"), Decimal("7.25"), *cells[2:]]
    frame = pd.DataFrame(plain(seed)).assign(paid=pd.Series(cells, dtype=object))
    frame.to_parquet(folder / "decimals.parquet")
    found = drafted(folder / "decimals.parquet")
    assert found.columns["paid"]["kind"] == "numeric"
    expected = [np.nan if cell is None else float(cell) for cell in cells]
    np.testing.assert_array_equal(found.checked.X["paid"], expected)


# Q: two columns that say who left


def test_of_two_columns_that_say_who_left_one_is_the_target_and_the_other_is_left_out():
    path = case("q1_label_and_value.csv")
    for target, other in ((None, "Churn Label"), ("Churn Label", "Churn Value")):
        found = drafted(path, target=target)
        assert f"{other}: says the same as {found.keys['target']}" in found.notes
        assert list(found.columns) == ["months"]


def test_columns_that_disagree_on_who_left_are_a_question(folder):
    columns = plain(6)
    columns["Left"] = columns["Churn"][1:] + columns["Churn"][:1]
    found = drafted(written(columns, folder))
    assert found.keys["target"] == "???"
    assert "not sure: Left, Churn may each say who left" in found.notes or (
        "not sure: Churn, Left may each say who left" in found.notes
    )


def test_what_is_about_leaving_by_its_name_or_predicts_it_alone_is_left_out(folder):
    columns = plain(7, n=90)
    left = [cell == "Yes" for cell in columns["Churn"]]
    rng = np.random.default_rng(7)
    columns["Churn Score"] = rng.integers(0, 100, 90).tolist()
    columns["refund"] = [
        round(50 * gone + number, 2)
        for gone, number in zip(left, rng.uniform(0, 9, 90), strict=True)
    ]
    found = drafted(written(columns, folder))
    assert list(found.columns) == ["fee"]
    assert "refund: alone predicts who left (AUC 1.000)" in found.notes
    assert "Churn Score: by its name about who left" in found.notes


# W: which column is the id


@LIMITS
@given(
    seed=SEEDS,
    before=st.sampled_from(["RowNumber", "index", "Unnamed: 0", "wage", "balance"]),
    name=st.sampled_from(["CustomerId", "customer_id", "Client No", "ID", "account", "user-id"]),
    coded=st.booleans(),
)
def test_the_id_is_neither_a_row_counter_nor_a_wage(folder, seed, before, name, coded):
    rng = np.random.default_rng(seed)
    counter = before not in ("wage", "balance")
    first = [*range(N)] if counter else rng.choice(90_000, N, replace=False).tolist()
    ids = rng.choice(900_000, N, replace=False) + 100_000
    columns = {before: first, name: [f"AB{number}" if coded else number for number in ids]}
    rest = plain(seed)
    del rest["member"]
    found = drafted(written(columns | rest, folder))
    assert found.keys["id"] == name
    assert (before in found.columns) != counter


def test_several_rows_of_a_member_are_one_members(folder):
    columns = plain(8)
    columns["member"] = [f"M-{number // 2:03d}" for number in range(N)]
    found = drafted(written({"customer_id": columns.pop("member"), **columns}, folder))
    assert (found.keys["id"], found.keys["repeated_ids"]) == ("customer_id", True)


# dates, many values, free text


@LIMITS
@given(
    seed=SEEDS,
    style=st.sampled_from(["%Y-%m-%d", "%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%Y-%m-%d %H:%M:%S"]),
)
def test_dates_of_any_format_are_ages_before_a_day(folder, seed, style):
    days = np.random.default_rng(seed).integers(0, 2000, N)
    dates = pd.Timestamp("2020-01-31") + pd.to_timedelta(days, unit="D")
    found = drafted(written(plain(seed, joined=[*dates.strftime(style)]), folder))
    declared = found.columns["joined"]
    assert declared["kind"] == "date"
    assert declared["before"] == str((dates.max() + pd.Timedelta(days=1)).date())
    assert found.checked.X["joined"].tolist() == (days.max() + 1 - days).tolist()


def test_many_values_are_encoded_by_churn_rates_and_free_text_is_left_out(folder):
    n = 900
    rng = np.random.default_rng(9)
    columns = plain(
        9,
        n=n,
        town=[f"Town {number}" for number in rng.integers(0, 70, n)],
        remark=[f"called on day {number} about the fee" for number in range(n)],
        surname=[f"Name{number}" for number in rng.integers(0, 400, n)],
    )
    found = drafted(written(columns, folder))
    assert found.columns["town"] == {"kind": "category", "encoding": "target", "unknown": "accept"}
    assert set(found.columns) == {"fee", "town"}
