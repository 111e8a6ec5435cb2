"""Files: whatever is a table is read as it is, whatever is none is said to be none, and every line
has its number."""

import gzip
import http.server
import io
import threading

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from churnlab.data.contract import Column, Contract
from churnlab.data.demo import members
from churnlab.data.reading import Table, in_memory, read_table
from churnlab.data.validation import check
from churnlab.data.violations import LONGEST_MESSAGE
from churnlab.errors import InputError

SHOP = Contract(
    name="shop",
    target="Left",
    positive="yes",
    id="Client",
    columns={
        "Age": Column(kind="numeric", min=0, max=120),
        "Plan": Column(kind="category", values=("basic", "None", "золото")),
    },
)
TEXT = """\
Client,Age,Plan,Left
007,20,basic,no
008,33.5,золото,yes
009,41,None,no
"""


def read(content: bytes | str, path, contract: Contract | None = SHOP, **options) -> Table:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_table(str(path), contract, **options)


def told(content: bytes | str, path, contract: Contract = SHOP) -> str:
    with pytest.raises(InputError) as raised:
        check(read(content, path, contract), contract)
    message = str(raised.value)
    assert message.startswith(str(path))
    assert len(message) < LONGEST_MESSAGE
    return message


def parquet(frame: pd.DataFrame, **options) -> bytes:
    buffer = io.BytesIO()
    frame.to_parquet(buffer, **options)
    return buffer.getvalue()


FRAME = pd.DataFrame(
    {
        "Client": ["007", "008", "009"],
        "Age": [20, 33.5, 41],
        "Plan": ["basic", "золото", "None"],
        "Left": list("yny"),
    }
).replace({"Left": {"y": "no", "n": "yes"}})


GOOD = {
    "as it is": TEXT,
    "a byte-order mark": b"\xef\xbb\xbf" + TEXT.encode(),
    "lines of Windows": TEXT.replace("\n", "\r\n"),
    "lines of an old Mac": TEXT.replace("\n", "\r"),
    "no last line end": TEXT.rstrip("\n"),
    "blank lines": "\n \n" + TEXT.replace("\n", "\n\n \t\n"),
    "gzip": gzip.compress(TEXT.encode()),
    "quoted": '"Client","Age","Plan","Left"\n"007","20","basic","no"\n008,"33.5",золото,yes\n009,41,None,"no"\n',
    "another order": "Left,Plan,Age,Client\nno,basic,20,007\nyes,золото,33.5,008\nno,None,41,009\n",
    "an index without a name": ",Client,Age,Plan,Left\n0,007,20,basic,no\n1,008,33.5,золото,yes\n2,009,41,None,no\n",
    "an index and one of before": ",Unnamed: 0,Client,Age,Plan,Left\n0,0,007,20,basic,no\n"
    "1,1,008,33.5,золото,yes\n2,2,009,41,None,no\n",
    "whole numbers as floats": TEXT.replace(",20,", ",20.0,").replace(",41,", ",4.1e1,"),
    "Parquet": parquet(FRAME),
    "Parquet with an index": parquet(FRAME.set_index(pd.Index([3, 1, 2]))),
    "Parquet with the id as its index": parquet(FRAME.set_index("Client")),
    "Parquet with nullable types": parquet(FRAME.convert_dtypes()),
    "Parquet with codes": parquet(FRAME.astype({"Plan": "category", "Left": "category"})),
}


@pytest.mark.parametrize("content", GOOD.values(), ids=GOOD)
@pytest.mark.parametrize("ending", ["csv", "csv.gz", "txt"])
def test_a_good_table_is_read_whatever_the_file_is_called(tmp_path, content, ending):
    X, y, ids, warnings = check(read(content, tmp_path / f"t.{ending}"), SHOP)
    assert X["Age"].tolist() == [20, 33.5, 41]
    assert X["Plan"].tolist() == ["basic", "золото", "None"]
    assert y.tolist() == [0, 1, 0]
    assert ids.tolist() == ["007", "008", "009"]
    index = "left out the first column, which has no name: an index"
    before = "left out columns that the dataset does not declare: Unnamed: 0"
    assert warnings in ([], [index], [index, before])


@pytest.mark.parametrize("encoding", ["cp1251", "utf-16", "utf-16-le", "utf-8", "UTF_8"])
def test_a_declared_encoding_is_read(tmp_path, encoding):
    contract = Contract(**{**vars(SHOP), "encoding": encoding})
    for content in (TEXT.encode(encoding), gzip.compress(TEXT.encode(encoding))):
        assert check(read(content, tmp_path / "t.csv", contract), contract).X["Plan"][1] == "золото"


def test_columns_are_renamed_as_declared(tmp_path):
    contract = Contract(
        **{**vars(SHOP), "rename": {" AGE ": "Age", "gone?": "Left", "client": "Client"}}
    )
    text = TEXT.replace("Client,Age,Plan,Left", "client, AGE ,Plan,gone?")
    assert check(read(text, tmp_path / "t.csv", contract), contract).X["Age"].tolist() == [
        20,
        33.5,
        41,
    ]
    renamed = parquet(FRAME.rename(columns={"Client": "client", "Age": " AGE ", "Left": "gone?"}))
    assert check(read(renamed, tmp_path / "t.parquet", contract), contract).y.tolist() == [0, 1, 0]
    frame = FRAME.rename(columns={"Left": "gone?"})
    assert check(in_memory(frame, source="made", rename=contract.rename), contract).y.tolist() == [
        0,
        1,
        0,
    ]


def test_a_folder_of_parquet_is_one_table_though_its_parts_have_other_types(tmp_path):
    FRAME.iloc[[0]].astype({"Age": "int64"}).to_parquet(tmp_path / "part-0.parquet")
    FRAME.iloc[1:].to_parquet(tmp_path / "part-1.parquet")
    (tmp_path / "_SUCCESS").touch()
    X, _, ids, _ = check(read_table(str(tmp_path), SHOP), SHOP)
    assert X["Age"].tolist() == [20, 33.5, 41]
    assert ids.tolist() == ["007", "008", "009"]


def test_only_what_the_contract_needs_is_read_unless_all_is_asked_for(tmp_path):
    text = "Note,Client,Age,Plan,Left\nhm,007,20,basic,no\n"
    table = read(text, tmp_path / "t.csv")
    assert list(table.frame) == ["Client", "Age", "Plan", "Left"]
    assert table.columns == ("Note", "Client", "Age", "Plan", "Left")
    index = read(text.replace("Note", ""), tmp_path / "t.csv", None)
    assert list(index.frame) == ["Client", "Age", "Plan", "Left"]
    assert list(read(text.replace("Note", ""), tmp_path / "t.csv", whole=True).written)[:2] == [
        "",
        "Client",
    ]
    whole = read(text, tmp_path / "t.csv", whole=True)
    assert whole.written.iloc[0].tolist() == ["hm", "007", "20", "basic", "no"]
    assert (
        list(whole.frame) == list(read(text, tmp_path / "t.csv", None).frame) == list(table.columns)
    )


def test_a_column_of_several_minds_is_text_however_long_the_file(tmp_path):
    ages = ["20"] * 300_000 + ["old"] + ["20"] * 10
    rows = "".join(
        f"{number},{age},basic,{'yes' if number % 3 else 'no'}\n" for number, age in enumerate(ages)
    )
    message = told(f"Client,Age,Plan,Left\n{rows}", tmp_path / "t.csv")
    assert "line 300002, column Age: 'old' is not a number;" in message


NO_TABLES = {
    "empty": (b"", "it is empty"),
    "blank": (b"\n \n\t\n", "it is empty"),
    "a header": (b"Client,Age,Plan,Left\n", "a header and no rows"),
    "latin letters of Windows": (
        TEXT.encode("cp1251"),
        "line 3 (byte 0xe7) is not utf-8; say how it is encoded, as data",
    ),
    "gzip of them": (gzip.compress(TEXT.encode("cp1251")), "line 3 (byte 0xe7) is not utf-8"),
    "UTF-16": (TEXT.encode("utf-16"), "dataset.encoding=utf-16"),
    "binary": (bytes(range(256)) * 9, "it is binary"),
    "binary after a header": (TEXT.encode() + bytes(9), "it is binary"),
    "gzip cut off": (gzip.compress(TEXT.encode() * 99)[:-30], "cannot be read as a table"),
    "gzip of nothing": (gzip.compress(b""), "it is empty"),
    "broken gzip": (
        gzip.compress(TEXT.encode() * 99)[:30] + b"\xff" * 99,
        "cannot be read as a table",
    ),
    "Parquet cut off": (parquet(FRAME)[:-30], "cannot be read as a table"),
    "a workbook": (b"PK\x03\x04" + bytes(99), "a zip archive or an Excel workbook"),
    "a web page": (b"<!DOCTYPE html>\n<html></html>\n", "as a web page or JSON does"),
    "JSON": (b'[{"Client": "007", "Age": 20}]', "as a web page or JSON does"),
    "semicolons": (
        TEXT.replace(",", ";").encode(),
        "its header is separated by semicolons, not by commas",
    ),
    "tabs": (TEXT.replace(",", "\t").encode(), "its header is separated by tabs"),
    "a quote that nobody closes": (
        TEXT.replace("basic", '"basic').encode(),
        "and its quotes closed?",
    ),
    "a decimal comma": (
        TEXT.replace("33.5", "33,5").encode(),
        "line 3, 5 cells where the header has 4; correct the",
    ),
    "a short line": (
        TEXT.replace(",basic,no", "").encode(),
        "line 2, 2 cells where the header has 4; correct the",
    ),
    "two short lines": (
        TEXT.replace(",no", "").encode(),
        "line 2, 3 cells where the header has 4 (and in 1 more row)",
    ),
    "one name for two columns": (TEXT.replace("Plan", "Age").encode(), "2 columns are called Age"),
    "a column without a name": (
        TEXT.replace("Plan", " ").encode(),
        "column 3 has no name; write a name into the header",
    ),
    "two without": (
        TEXT.replace("Age", "").replace("Plan", "").encode(),
        "columns 2, 3 have no name",
    ),
    "another spelling": (
        TEXT.replace("Age", " age").encode(),
        "or write rename: {' age': Age} into the YAML of shop",
    ),
}


@pytest.mark.parametrize(("content", "said"), NO_TABLES.values(), ids=NO_TABLES)
def test_what_is_no_table_or_out_of_order_is_told(tmp_path, content, said):
    assert said in told(content, tmp_path / "t.csv")


def test_names_that_are_not_in_order_are_told_of_parquet_too(tmp_path):
    twice = pd.concat([FRAME, FRAME[["Age"]].rename(columns={"Age": "age"})], axis=1)
    contract = Contract(**{**vars(SHOP), "rename": {"age": "Age"}})
    assert "2 columns are called Age" in told(parquet(twice), tmp_path / "t.parquet", contract)


def test_what_is_only_called_parquet_is_told(tmp_path):
    assert "it is not Parquet, whatever its name" in told(TEXT, tmp_path / "t.parquet")


def test_a_folder_without_tables_is_told(tmp_path):
    for content, said in [
        (None, "there is no file in the folder"),
        (TEXT, "t.csv in the folder is not Parquet"),
    ]:
        if content:
            (tmp_path / "t.csv").write_text(content, encoding="utf-8")
        with pytest.raises(InputError, match=said):
            read_table(str(tmp_path), SHOP)


def test_the_faults_of_a_file_and_of_its_cells_are_told_together_worst_first(tmp_path):
    text = (
        "Client,Age,Age,Plan\n007,-1,3,basic\n\n008,-2,3,basic\n009,3\n010,-3,3,silver\n010,20,3,basic\n"
        '011,20,3,"a\nb"\n012,130,3,basic\n'
    )
    message = told(text, tmp_path / "t.csv")
    assert message.splitlines() == [
        f"{tmp_path}/t.csv does not keep the contract of dataset shop, 7 faults.",
        "  - 2 columns are called Age; keep one of them, or name them apart.",
        message.splitlines()[2],
        "  - line 2, column Age: -1 is below 0 (and in 2 more rows); correct it, or change "
        "dataset.columns.Age.min in the YAML of shop.",
        "  - line 6, column Plan: 'silver' is not one of basic, None, золото (and in 1 more row); "
        "correct it, or add it to dataset.columns.Plan.values.",
        "  - line 5, 2 cells where the header has 4; correct the line: are its commas there, and its quotes closed?",
        "  - line 10, column Age: 130 is above 120; correct it, or change dataset.columns.Age.max in the YAML of shop.",
        "  - line 7, id Client: '010' is there already; keep one row a member, or say "
        "dataset.id=null when it is no identifier.",
    ]
    assert message.splitlines()[2].startswith(
        "  - there is no target column Left (the table has Client, Age,"
    )


def test_without_a_contract_a_file_that_is_not_in_order_is_refused(tmp_path):
    with pytest.raises(
        InputError, match="is not in order: 2 columns are called a; keep one of them"
    ):
        read("a,a\n1,2\n", tmp_path / "t.csv", None)


@pytest.mark.parametrize("name", ["/dev/zero", "nowhere.csv", "n" * 5000, "a\0b"])
def test_what_is_no_file_is_told(name):
    with pytest.raises(InputError) as raised:
        read_table(name)
    assert len(str(raised.value)) < LONGEST_MESSAGE


class Answers(http.server.BaseHTTPRequestHandler):
    """A web server with one table, and with one that breaks off."""

    def do_GET(self):
        self.send_response(404 if "nowhere" in self.path else 200)
        self.send_header("Content-Length", str(len(TEXT.encode()) + 99 * ("broken" in self.path)))
        self.end_headers()
        self.wfile.write(TEXT.encode())

    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def site():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_an_address_is_read_and_one_that_cannot_be_is_told(site):
    table = read_table(f"{site}/members.csv?month=5", SHOP)
    assert (table.source, len(table.frame)) == (f"{site}/members.csv?month=5", 3)
    for address, said in [
        (f"{site}/nowhere.csv", "cannot be reached (HTTP Error 404"),
        (f"{site}/broken.csv", "broke off after"),
        ("http://127.0.0.1:9/members.csv", "cannot be reached"),
        ("gopher://127.0.0.1/members.csv", "cannot be reached"),
        ("http://[/members.csv", "cannot be reached"),
    ]:
        with pytest.raises(InputError) as raised:
            read_table(address, SHOP)
        assert said in str(raised.value)


# --- every line has its number

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
def test_a_line_is_told_by_its_number_in_the_file(tmp_path_factory, rows, above, end, last, block):
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
    assert not table.faults
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
    assert [row for fault in table.faults for row in fault.rows] == wrong
    assert list(table.frame.index) == [row for row, width in enumerate(widths) if width == 3]
    assert set(table.frame["a"]) <= {cell.strip('"')}


# --- whatever the bytes are


def refusal(path: str, contract: Contract | None) -> str | None:
    """What is said of a file that is refused."""
    try:
        table = read_table(path, contract)
        if contract is not None:
            check(table, contract)
    except InputError as error:
        return str(error)
    return None


PIECES = st.lists(
    st.one_of(
        st.binary(max_size=12),
        st.sampled_from(
            [
                b",",
                b"\n",
                b"\r",
                b'"',
                b'""',
                b"Age",
                b"Client,Age,Plan,Left\n",
                b"007,20,basic,no\n",
                b"\x00",
                b"\xff\xfe",
            ]
        ),
        st.sampled_from(
            [
                b"PAR1",
                b"\x1f\x8b\x08",
                b"\xef\xbb\xbf",
                b" ",
                b"\t",
                b"1e999",
                b"9" * 40,
                b"nan",
                b"\xc3\xa9",
            ]
        ),
    ),
    max_size=20,
).map(b"".join)
ENDINGS = st.sampled_from([".csv", ".csv.gz", ".parquet", ".pq", ".txt", ""])


@settings(max_examples=300, deadline=None)
@given(
    content=PIECES,
    ending=ENDINGS,
    pack=st.booleans(),
    cut=st.integers(0, 30),
    contract=st.sampled_from([SHOP, None]),
)
def test_arbitrary_bytes_are_a_table_or_a_mistake_of_the_users(
    tmp_path_factory, content, ending, pack, cut, contract
):
    path = tmp_path_factory.mktemp("fuzz") / f"t{ending}"
    content = gzip.compress(content) if pack else content
    path.write_bytes(content[: len(content) - cut] if cut < 10 else content)
    assert 20 < len(refusal(str(path), contract) or "x" * 50) < LONGEST_MESSAGE


@settings(max_examples=60, deadline=None)
@given(at=st.integers(0, 10_000), byte=st.binary(min_size=1, max_size=3))
def test_damaged_parquet_is_a_table_or_a_mistake_of_the_users(tmp_path_factory, at, byte):
    path = tmp_path_factory.mktemp("damage") / "t.parquet"
    whole = parquet(members(30, seed=1))
    at %= len(whole)
    path.write_bytes(whole[:at] + byte + whole[at + len(byte) :])
    contract = Contract("gym", "Churn", 1, {"Age": Column(kind="numeric")})
    assert len(refusal(str(path), contract) or "") < LONGEST_MESSAGE
