"""CSV: encodings, columns of numbers and text, and violations by line."""

import gzip

import pytest

from churnlab.data.contract import Column, Contract
from churnlab.data.validation import check
from churnlab.errors import InputError
from support.shop import SHOP, TEXT, read, refusal


@pytest.mark.parametrize("encoding", ["cp1251", "utf-16", "utf-16-le", "utf-8", "UTF_8"])
def test_a_declared_encoding_is_read(tmp_path, encoding):
    contract = Contract(**{**vars(SHOP), "encoding": encoding})
    for content in (TEXT.encode(encoding), gzip.compress(TEXT.encode(encoding))):
        assert check(read(content, tmp_path / "t.csv", contract), contract).X["Plan"][1] == "золото"


def test_a_column_of_numbers_and_text_is_text_however_long_the_file(tmp_path):
    ages = ["20"] * 300_000 + ["old"] + ["20"] * 10
    rows = "".join(
        f"{number},{age},basic,{'yes' if number % 3 else 'no'}\n" for number, age in enumerate(ages)
    )
    message = refusal(f"Client,Age,Plan,Left\n{rows}", tmp_path / "t.csv")
    assert "line 300002, column Age: 'old' is not a number;" in message


def test_violations_of_a_file_and_of_its_cells_are_reported_together_worst_first(tmp_path):
    text = (
        "Client,Age,Age,Plan\n007,-1,3,basic\n\n008,-2,3,basic\n009,3\n010,-3,3,silver\n010,20,3,basic\n"
        '011,20,3,"a\nb"\n012,130,3,basic\n'
    )
    message = refusal(text, tmp_path / "t.csv")
    assert message.splitlines() == [
        f"{tmp_path}/t.csv violates the contract of dataset shop (7 problems):",
        "  - 2 columns are called Age; keep one of them, or rename the others.",
        message.splitlines()[2],
        "  - line 2, column Age: -1 is below 0 (and in 2 more rows); correct it, or change "
        "dataset.columns.Age.min in the YAML of shop.",
        "  - line 6, column Plan: 'silver' is not one of basic, None, золото (and in 1 more row); "
        "correct it, or add 'silver' to dataset.columns.Plan.values in the YAML of shop.",
        "  - line 5, 2 cells where the header has 4; correct the line: is a comma or a closing "
        "quote missing?",
        "  - line 10, column Age: 130 is above 120; correct it, or change dataset.columns.Age.max "
        "in the YAML of shop.",
        "  - line 7, id Client: '010' occurs in an earlier row, too; keep one row per member, or "
        "set dataset.repeated_ids=true, which keeps all rows of one member on one side of every "
        "split.",
    ]
    assert message.splitlines()[2].startswith(
        "  - there is no target column Left (the table has Client, Age,"
    )


@pytest.mark.parametrize(("separator", "mark"), [(";", ";"), ("tab", "\t"), ("|", "|")])
def test_a_declared_separator_and_decimal_comma_are_read(tmp_path, separator, mark):
    contract = Contract(**{**vars(SHOP), "separator": separator, "decimal": ","})
    text = TEXT.replace(",", mark).replace(".", ",")
    table = read(text, tmp_path / "t.csv", contract)
    assert check(table, contract).X["Age"].tolist() == [20, 33.5, 41]
    broken = read(text.replace("33,5", "33.5"), tmp_path / "t.csv", contract)
    with pytest.raises(InputError, match="'33.5' is not a number written like 1234,5"):
        check(broken, contract)
    assert f"write separator: {separator if separator == 'tab' else repr(separator)}".replace(
        "'", '"'
    ) in refusal(text, tmp_path / "t.csv")


@pytest.mark.parametrize("quoted", ["plain", '"a;b"', '"a\nb"'])
def test_lines_are_known_whatever_the_separator(tmp_path, quoted):
    contract = Contract("t", "y", 1, {"a": Column(kind="numeric", min=0)}, separator=";")
    table = read(f"a;note;y\n1;{quoted};0\n-1;x;1\n2;x\n", tmp_path / "t.csv", contract)
    shift = quoted.count("\n")
    with pytest.raises(InputError) as refused:
        check(table, contract)
    assert f"line {3 + shift}, column a: -1 is below 0" in str(refused.value)
    assert f"line {4 + shift}, 2 cells where the header has 3" in str(refused.value)
    assert "is a semicolon or a closing quote missing?" in str(refused.value)


def test_rows_that_take_no_part_are_neither_checked_nor_learned_from(tmp_path):
    contract = Contract(**{**vars(SHOP), "rows_where": "Left in ['yes', 'no'] and State != 'x'"})
    text = TEXT.replace("Left\n", "Left,State\n").replace("no\n", "no,a\n")
    text = text.replace("yes\n", "yes,\n") + "010,-5,silver,later,a\n011,-5,silver,no,x\n"
    table = read(text, tmp_path / "t.csv", contract)
    X, y, ids, warnings = check(table, contract)
    assert (len(X), y.tolist(), ids.tolist()) == (3, [0, 1, 0], ["007", "008", "009"])
    assert warnings[0].startswith("2 of 5 rows take no part: Left in ['yes', 'no']")
    with pytest.raises(InputError, match="line 5, column Age: -5.0 is below 0"):
        check(table, contract, needs_target=False)
    for where, reason in (("Lft == 'yes'", "has no column Lft"), ("Age > 99", "has no row in")):
        wrong = Contract(**{**vars(SHOP), "rows_where": where})
        with pytest.raises(InputError, match=f"{reason}.*rows_where"):
            check(read(text, tmp_path / "t.csv", wrong), wrong)
