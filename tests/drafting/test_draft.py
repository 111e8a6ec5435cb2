"""What init makes of tables as people write them: cases from real tables, and their kinds."""

import string
from datetime import date, datetime
from decimal import Decimal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from churnlab.config.groups import DatasetKeys
from churnlab.data.reading import read_table
from churnlab.data.validation import check
from churnlab.errors import InputError
from churnlab.formatting import counted
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
    blank=st.text(" \t\u00a0\u2009\u3000\u200b\ufeff", max_size=3),
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
    word=st.sampled_from(
        ["NA", "N/A", "null", "NaN", "n/a", "#N/A", "?", "-", "\\N", "#DIV/0!", "#REF!"]
    ),
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
    assert f"{word!r} in {counted(count, 'cell')}" in found.notes
    assert found.checked.X[["plan", "visits"]].isna().sum().tolist() == [count, count]
    (warning,) = [text for text in found.checked.warnings if text.startswith("missing values")]
    assert warning.count(f"written {word!r} ({count})") == 2


@LIMITS
@given(
    seed=SEEDS,
    word=st.sampled_from(["never", "Free", "keine", "no calls", "нет"]),
    share=st.floats(0.1, 0.45),
)
def test_a_single_word_among_many_numbers_counts_as_missing_and_is_named(folder, seed, word, share):
    rng = np.random.default_rng(seed)
    cells = rng.permutation(np.arange(200, 200 + N)).astype(str).astype(object)
    gone = rng.permutation(N) < max(1, int(share * N))
    cells[gone] = word
    found = drafted(written(plain(seed, calls=cells.tolist()), folder))
    assert found.columns["calls"]["kind"] == "numeric"
    assert f"numbers but for {word!r} in {counted(int(gone.sum()), 'cell')}" in found.notes
    assert found.checked.X["calls"].isna().tolist() == gone.tolist()


@LIMITS
@given(
    seed=SEEDS,
    words=st.sampled_from([("Yes", "No"), ("YES", "NO"), ("true", "false"), ("1", "0")]),
    gaps=st.lists(
        st.sampled_from(["null", "None", "NA", "none", "na", "N/A", "NaN", "-", ""]),
        min_size=1,
        max_size=3,
        unique=True,
    ),
)
def test_beside_two_words_for_truth_any_word_for_nothing_is_a_gap_that_init_counts(
    folder, seed, words, gaps
):
    rng = np.random.default_rng([seed, 1])
    cells = rng.permutation(np.resize([*words, *gaps], N)).tolist()
    found = drafted(written(plain(seed, auto=cells), folder))
    assert found.columns["auto"]["kind"] == "binary"
    (note,) = [text for text in found.notes.split("\n") if "auto: " in text and "count" in text]
    for word in gaps:
        count = cells.count(word)
        said = f"{word!r} in {counted(count, 'cell')}" if word else counted(count, "empty cell")
        assert said in note
    assert "as missing" in note
    assert found.checked.X["auto"].isna().tolist() == [cell in gaps for cell in cells]


def test_nulls_of_a_parquet_file_in_a_column_of_truth_are_counted(folder):
    frame = pd.DataFrame(plain(2, auto=[True, None, False, True] * (N // 4)))
    frame.to_parquet(folder / "nulls.parquet")
    found = drafted(folder / "nulls.parquet")
    assert "auto: true or false but for 10 empty cells, which count as missing" in found.notes


# capitals and blanks make no category


@LIMITS
@given(
    seed=SEEDS,
    values=st.lists(
        st.sampled_from(["Paris", "New York", "Île-de-France", "straße", "none", "A1", "kg"]),
        min_size=2,
        unique=True,
    ),
)
def test_values_that_differ_in_capitals_and_blanks_alone_are_one_and_init_says_so(
    folder, seed, values
):
    rng = np.random.default_rng([seed, 1])
    cells = rng.permutation(np.resize(values, N)).tolist()
    ways = [
        str,
        str.upper,
        str.title,
        lambda text: f" {text} ",
        lambda text: text.replace(" ", "  "),
    ]
    as_written = [
        ways[rng.integers(len(ways))](cell) if row > 9 else cell for row, cell in enumerate(cells)
    ]
    as_written[-1] = as_written[0].swapcase()
    found = drafted(written(plain(seed, town=as_written), folder))
    declared = found.columns["town"]
    assert declared["fold"] is True
    assert len(declared["values"]) == len(values)
    assert "one value each (fold: true)" in found.notes
    usual = dict(
        zip(
            [" ".join(text.casefold().split()) for text in declared["values"]],
            declared["values"],
            strict=True,
        )
    )
    expected = [usual[" ".join(cell.casefold().split())] for cell in as_written]
    assert found.checked.X["town"].tolist() == expected


def test_many_values_are_folded_too_and_blanks_around_them_are_none_of_them(folder):
    rng, n = np.random.default_rng(4), 900
    towns = [f"Town {number}" for number in rng.integers(0, 70, n)]
    for change in (str.upper, lambda text: f"{text} "):
        cells = [change(town) if row % 3 == 0 else town for row, town in enumerate(towns)]
        found = drafted(written(plain(4, n=n, town=cells), folder))
        assert found.columns["town"] == {
            "kind": "category",
            "encoding": "target",
            "unknown": "accept",
            "fold": True,
        }
        assert found.checked.X["town"].tolist() == [town.casefold() for town in towns]


def test_bands_in_other_capitals_are_one_band(folder):
    cells = np.resize(["1-3 Months", "1-3 months", "4-6 months", "7+ months"], N).tolist()
    found = drafted(written(plain(1, since=cells), folder))
    assert found.columns["since"]["ordered"]
    assert len(found.columns["since"]["values"]) == 3
    assert found.checked.X["since"].nunique() == 3


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


@LIMITS
@given(
    seed=SEEDS,
    above=st.sampled_from(
        [
            "Report of May 2026",
            "# exported by the CRM",
            "Members;as of 2026-05-01",
            "Club,,",
            "\n\nClub",
        ]
    ),
    separator=st.sampled_from([",", ";", "\t", "|"]),
)
def test_lines_above_the_header_and_a_missing_header_are_named(folder, seed, above, separator):
    path = written(plain(seed), folder, separator=separator)
    text = path.read_text(encoding="utf-8")
    above = above.replace(";", " ").replace(",", separator)
    path.write_text(f"{above}\n{text}", encoding="utf-8")
    with pytest.raises(InputError, match="above (the|it is)|above the header"):
        drafted(path)
    path.write_text(text.partition("\n")[2], encoding="utf-8")
    with pytest.raises(InputError, match="the first line looks like a member"):
        drafted(path)
    path.write_text(f"sep={separator}\n{text}", encoding="utf-8")
    assert drafted(path).checked is not None, "Excel's own first line"


@LIMITS
@given(seed=SEEDS, rows=st.integers(1, 30), filled=st.integers(0, N - 2))
def test_rows_without_a_cell_at_the_end_are_left_out_and_those_between_are_not(
    folder, seed, rows, filled
):
    path = written(plain(seed), folder)
    lines = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join([*lines, *[" ,,"] * rows]) + "\n", encoding="utf-8")
    found = drafted(path)
    assert (
        f"left out the last {rows} row{'s' * (rows > 1)}, without a value" in found.checked.warnings
    )
    assert (len(found.checked.X), found.keys["id"]) == (N, "member")
    lines.insert(filled + 1, ",,")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    assert "Churn is missing in 1 row, which take no part" in drafted(path).notes


@pytest.mark.parametrize("separator", ["^", "~", "::", " "])
def test_a_separator_that_churnlab_does_not_know_is_a_right_paragraph(folder, separator):
    path = written(plain(0), folder)
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace(",", separator), encoding="utf-8")
    with pytest.raises(InputError, match="has a single column, member.*save it with one of them"):
        drafted(path)


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


@LIMITS
@given(
    seed=SEEDS,
    words=st.lists(st.sampled_from(["visits", "a", "week", "Fee €", "1"]), min_size=2, max_size=4),
    sign=st.sampled_from(["`", "\n", "``", " ` "]),
)
def test_what_no_expression_can_quote_is_renamed_by_init_and_refused_in_a_yaml_with_how_to(
    folder, seed, words, sign
):
    name = sign.join(words)
    found = drafted(written(plain(seed, **{name: [*range(0, 2 * N, 2)]}), folder))
    (free,) = found.keys["rename"].values()
    assert list(found.checked.X) == ["fee", free]
    own = found.keys | {"columns": {name: {"kind": "numeric"}}, "rename": {}}
    with pytest.raises(ValueError, match="no expression can quote a backtick or a line end") as no:
        DatasetKeys.model_validate(own)
    advice = str(no.value).partition("write rename: ")[2].partition(" [type")[0]
    rename = yaml.safe_load(advice)
    mended = own | {"columns": {rename[name]: {"kind": "numeric"}}, "rename": rename}
    contract = DatasetKeys.model_validate(mended).contract
    X = check(read_table(found.keys["path"], contract), contract).X
    assert X[rename[name]].tolist() == [*range(0, 2 * N, 2)]


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
    style=st.sampled_from(
        ["{}-{}", "{} - {}", "{}–{}", "{} to {}", "{}/{}", "${}-${}", "{}~{}", "{}..{}"]
    ),
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


@LIMITS
@given(
    seed=SEEDS,
    edges=st.lists(st.integers(1, 900), min_size=3, max_size=6, unique=True).map(sorted),
    written_as=st.sampled_from(["pandas.cut", "thousands"]),
)
def test_intervals_of_pandas_and_bands_of_thousands_are_in_their_order(
    folder, seed, edges, written_as
):
    pairs = [*zip(edges, edges[1:], strict=False)]
    bands = [f"({low}.0, {high}.5]" for low, high in pairs]
    if written_as == "thousands":
        ends = [f"{edge}K" if edge < 300 else f"{edge / 1000}M" for edge in edges]
        middle = [f"${low} - ${high}" for low, high in zip(ends, ends[1:], strict=False)]
        bands = [f"Less than ${ends[0]}", *middle, f"${ends[-1]} and above"]
    cells = np.random.default_rng([seed, 1]).permutation(np.resize(bands, N)).tolist()
    found = drafted(written(plain(seed, band=cells), folder))
    assert found.columns["band"] == {"kind": "category", "values": bands, "ordered": True}


@pytest.mark.parametrize(
    "cells", [["1.2.3", "4.5.6"], ["10.0.0.1", "10.0.0.2"], ["1-3-5", "2-4-6"]]
)
def test_versions_addresses_and_codes_are_no_bands(folder, cells):
    found = drafted(written(plain(3, code=np.resize(cells, N).tolist()), folder))
    assert found.columns["code"] == {"kind": "category", "values": cells}


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
    *(
        "1,234.5/month",
        "$1,234.5 / mo",
        "1234.5 per day",
        "$1,234.5 USD",
        "1234.5mo",
        "1.234,5 €/Monat",
    ),
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


@LIMITS
@given(
    seed=SEEDS,
    styles=st.sampled_from(
        [("{}", "({})"), ("{}", "{}-"), ("{}", "−{}"), ("${}", "$({})"), ("{} €", "({}) €")]
        + [("{} EUR", "{} EUR-"), ("$ {}", "-$ {}"), ("£{}", "(£{})")]
    ),
)
def test_losses_are_negative_however_they_are_written(folder, seed, styles):
    numbers = np.random.default_rng(seed).uniform(-5000, 9000, N).round(2)
    numbers[:2] = 1234.5, -1234.5
    cells = [styles[int(number < 0)].format(f"{abs(number):,.2f}") for number in numbers]
    found = drafted(written(plain(seed, result=cells), folder))
    assert found.columns["result"]["kind"] == "numeric"
    np.testing.assert_array_equal(found.checked.X["result"], numbers)


@LIMITS
@given(seed=SEEDS, prefix=st.sampled_from(["", "₹", "Rs. "]))
def test_groups_of_two_as_in_india_are_thousands(folder, seed, prefix):
    numbers = np.random.default_rng(seed).integers(50_000, 90_000_000, N)

    def lakh(number: int) -> str:
        head, tail = str(number)[:-3], str(number)[-3:]
        pairs = [head[max(0, end - 2) : end] for end in range(len(head), 0, -2)]
        return ",".join([*reversed(pairs), tail])

    cells = [prefix + lakh(number) for number in numbers]
    found = drafted(written(plain(seed, income=cells), folder))
    assert found.columns["income"]["kind"] == "numeric"
    assert found.checked.X["income"].tolist() == numbers.tolist()


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


@LIMITS
@given(seed=SEEDS, before=st.text(" \t\u00a0", max_size=2), after=st.text(" \u200b", max_size=2))
def test_any_blanks_around_words_are_no_part_of_them(folder, seed, before, after):
    rng = np.random.default_rng([seed, 1])
    words = rng.permutation(np.resize(["gold", "basic plan", "free"], N))
    padded = [f"{before}{word}{after}" if rng.random() < 0.5 else word for word in words]
    yes = [f"{before}{word}{after}" for word in rng.permutation(np.resize(["Yes", "no", "YES"], N))]
    found = drafted(written(plain(seed, plan=padded, auto=yes), folder))
    assert found.columns["plan"] == {"kind": "category", "values": ["basic plan", "free", "gold"]}
    assert found.columns["auto"] == {"kind": "binary"}
    assert found.checked.X["plan"].tolist() == words.tolist()


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


TYPES = {
    "decimal128(12, 2)": ("numeric", st.decimals(0, 10**6, places=2)),
    "uint8": ("numeric", st.integers(0, 9)),
    "float64": ("numeric", st.floats(-1e6, 1e6) | st.sampled_from([np.inf, -np.inf])),
    "bool": ("binary", st.booleans()),
    "date32": ("date", st.dates(date(2015, 1, 1), date(2026, 5, 1)) | st.just(date(9999, 12, 31))),
    "timestamp[us]": ("date", st.datetimes(datetime(2015, 1, 1), datetime(2026, 5, 1))),
    "timestamp[ns, tz=Europe/Berlin]": (
        "date",
        st.datetimes(datetime(2015, 1, 1), datetime(2026, 5, 1)),
    ),
    "large_string": ("category", st.sampled_from(["gold", "basic", "free"])),
    "dictionary": ("category", st.sampled_from(["gold", "basic", "free"])),
}


@pytest.mark.parametrize("name", TYPES)
@settings(max_examples=6, deadline=None)
@given(data=st.data(), seed=SEEDS)
def test_columns_of_any_type_of_a_database_are_read_back(folder, name, data, seed):
    kind, cell = TYPES[name]
    values = [data.draw(cell)] * 2 + [data.draw(st.none() | cell) for _ in range(N - 2)]
    column = pa.array(values) if name == "dictionary" else pa.array(values, _type(name))
    column = column.dictionary_encode() if name == "dictionary" else column
    table = pa.Table.from_pandas(pd.DataFrame(plain(seed))).append_column("made", column)
    pq.write_table(table, folder / "typed.parquet")
    found = drafted(folder / "typed.parquet")
    (made,) = [column for column in found.found.columns if column.name == "made"]
    if made.declared is None:
        assert made.remark.startswith(("always", "empty", "counts the rows", "alone predicts"))
        return
    assert made.declared["kind"] == kind or {*values} <= {0, 1, None}
    gone = [one is None or one in (np.inf, -np.inf, date(9999, 12, 31)) for one in values]
    assert found.checked.X["made"].isna().tolist() == gone


def _type(name: str) -> pa.DataType:
    if name.startswith("decimal"):
        return pa.decimal128(12, 2)
    if name.startswith("timestamp"):
        return pa.timestamp(name[10:12], tz="Europe/Berlin" if "tz" in name else None)
    return getattr(pa, {"bool": "bool_"}.get(name, name))()


# Q: two columns that say who left


def test_of_two_columns_that_say_who_left_one_is_the_target_and_the_other_is_left_out():
    path = case("q1_label_and_value.csv")
    for target, other in ((None, "Churn Label"), ("Churn Label", "Churn Value")):
        found = drafted(path, target=target)
        assert f"{other}: says the same as {found.keys['target']}" in found.notes
        assert list(found.columns) == ["months"]


@LIMITS
@given(
    seed=SEEDS,
    names=st.lists(
        st.sampled_from(["Churn Label", "Churn Value", "churned", "Exited", "left", "Attrition"]),
        min_size=2,
        max_size=4,
        unique=True,
    ),
    codes=st.lists(
        st.sampled_from(
            [("Yes", "No"), ("1", "0"), ("TRUE", "FALSE"), ("Left", "Stayed"), ("ja", "nein")]
        ),
        min_size=4,
        max_size=4,
    ),
    named=st.booleans(),
)
def test_of_any_columns_that_say_the_same_one_is_the_target_and_the_others_are_left_out(
    folder, seed, names, codes, named
):
    columns = plain(seed)
    left = [cell == "Yes" for cell in columns.pop("Churn")]
    for name, (yes, no) in zip(names, codes, strict=False):
        columns[name] = [yes if gone else no for gone in left]
    found = drafted(written(columns, folder), target=names[0] if named else None)
    target = found.keys["target"]
    assert target == names[0] if named else target in names
    assert list(found.columns) == ["fee"]
    assert found.checked.y.tolist() == [int(gone) for gone in left]
    for other in {*names} - {target}:
        assert f"{other}: says the same as {target}" in found.notes


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


@LIMITS
@given(
    seed=SEEDS,
    name=st.sampled_from(
        ["Customer ID", "Kundennummer", "ИД клиента", "номер договора", "cust_no"]
    ),
    written_as=st.sampled_from(["{}", "{:,}", "{}.0", "{:012d}", "K-{}"]),
    counter=st.sampled_from(["index", "row", "S. No. of row", "Unnamed: 0"]),
)
def test_the_id_is_found_however_it_is_written_and_a_shuffled_counter_is_none(
    folder, seed, name, written_as, counter
):
    rng = np.random.default_rng(seed)
    ids = rng.choice(900_000, N, replace=False) + 100_000
    columns = {counter: rng.permutation(N).tolist(), "order_id": rng.permutation(ids).tolist()}
    columns[name] = [written_as.format(number) for number in ids]
    rest = plain(seed)
    del rest["member"]
    found = drafted(written(columns | rest, folder))
    assert found.keys["id"] == name
    assert list(found.columns) == ["fee"]


def test_an_identifier_with_gaps_is_no_feature(folder):
    columns = plain(3)
    columns["customer_id"] = [*[""] * 5, *range(7000, 7000 + 2 * (N - 5), 2)]
    del columns["member"]
    found = drafted(written(columns, folder))
    assert (found.keys["id"], list(found.columns)) == (None, ["fee"])


def test_several_rows_of_a_member_are_one_members(folder):
    columns = plain(8)
    columns["member"] = [f"M-{number // 2:03d}" for number in range(N)]
    found = drafted(written({"customer_id": columns.pop("member"), **columns}, folder))
    assert (found.keys["id"], found.keys["repeated_ids"]) == ("customer_id", True)


# dates, many values, free text


@LIMITS
@given(
    seed=SEEDS,
    style=st.sampled_from(
        ["%Y-%m-%d", "%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%Y-%m-%d %H:%M:%S", "%b %d, %Y", "%Y%m%d"]
        + ["%d %B %Y", "%B %d, %Y", "%d-%m-%y", "%m/%d/%Y %I:%M %p", "%Y/%m/%d %H:%M", "%d-%b-%y"]
    ),
)
def test_dates_of_any_format_are_ages_before_a_day(folder, seed, style):
    days = np.random.default_rng(seed).integers(0, 2000, N)
    dates = pd.Timestamp("2020-01-31") + pd.to_timedelta(days, unit="D")
    found = drafted(written(plain(seed, joined=[*dates.strftime(style)]), folder))
    declared = found.columns["joined"]
    assert declared["kind"] == "date"
    assert declared["before"] == str((dates.max() + pd.Timedelta(days=1)).date())
    assert found.checked.X["joined"].tolist() == (days.max() + 1 - days).tolist()


@LIMITS
@given(
    seed=SEEDS,
    word=st.sampled_from(
        ["9999-12-31", "0000-00-00", "unknown", "n.a.", "-", "2999-01-01", "NULL"]
    ),
    count=st.integers(1, 20),
)
def test_a_word_or_a_day_far_away_among_dates_counts_as_missing_and_is_named(
    folder, seed, word, count
):
    days = np.random.default_rng(seed).integers(0, 2000, N)
    dates = pd.Timestamp("2020-01-31") + pd.to_timedelta(days, unit="D")
    cells = [*[word] * count, *dates[count:].strftime("%Y-%m-%d")]
    found = drafted(written(plain(seed, until=cells), folder))
    assert found.columns["until"]["kind"] == "date"
    counts = "counts" if count == 1 else "count"
    said = f"dates but for {word!r} in {counted(count, 'cell')}, which {counts} as missing"
    assert said in found.notes
    ages = (days[count:].max() + 1 - days[count:]).tolist()
    assert found.checked.X["until"][count:].tolist() == ages
    assert found.checked.X["until"][:count].isna().all()


def test_months_are_dates_too(folder):
    months = np.resize(["202001", "202012", "202106", "202111"], N).tolist()
    found = drafted(
        written(plain(1, month=months, since=[f"{m[4:]}/{m[:4]}" for m in months]), folder)
    )
    formats = [found.columns[name]["format"] for name in ("month", "since")]
    assert formats == ["YYYYMM", "MM/YYYY"]
    assert found.checked.X["month"].tolist() == found.checked.X["since"].tolist()


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


def test_a_typing_error_among_many_numbers_counts_as_missing_and_is_named(folder):
    rng = np.random.default_rng(4)
    fees = rng.uniform(10, 300, 300).round(2).astype(str).tolist()
    found = drafted(written(plain(4, n=300, paid=[*fees[1:], "12O.5"]), folder))
    assert "paid: numbers but for '12O.5' in 1 cell, which counts as missing" in found.notes
    assert found.columns["paid"]["kind"] == "numeric"
    assert found.checked.X["paid"].isna().sum() == 1
    codes = rng.permutation([f"{number}{'ABC'[number % 3]}" for number in range(300)]).tolist()
    found = drafted(written(plain(4, n=300, code=[*codes[1:], "17"]), folder))
    assert "code" not in found.columns


@pytest.mark.parametrize("name", ["id", "ID", "customer_id", "Identifiant"])
@pytest.mark.parametrize("start", [1, 7001])
def test_a_unique_column_called_id_is_the_id_before_a_phone_or_an_address(folder, name, start):
    columns = plain(3)
    del columns["member"]
    rng = np.random.default_rng(3)
    columns |= {"phone": (rng.choice(900_000, N, replace=False) + 100_000).tolist()}
    columns |= {"email": [f"m{number:03d}@club.org" for number in rng.permutation(N)]}
    if name == "Identifiant":  # no other is there
        del columns["phone"], columns["email"]
    columns[name] = [*range(start, start + N)]
    assert drafted(written(columns, folder)).keys["id"] == name
