"""Files that hold a table are read unchanged, others are refused with the reason."""

import gzip
import http.server
import resource
import threading
import time

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from churnlab.data.contract import Contract
from churnlab.data.reading import read_table
from churnlab.data.table import in_memory
from churnlab.data.validation import check
from churnlab.data.violations import LONGEST_MESSAGE
from churnlab.errors import InputError, JobError
from support.shop import FRAME, SHOP, TEXT, error_of, parquet, read, refusal

GOOD = {
    "plain": TEXT,
    "a byte-order mark": b"\xef\xbb\xbf" + TEXT.encode(),
    "lines of Windows": TEXT.replace("\n", "\r\n"),
    "lines of an old Mac": TEXT.replace("\n", "\r"),
    "no last line end": TEXT.rstrip("\n"),
    "blank lines": "\n \n" + TEXT.replace("\n", "\n\n \t\n"),
    "gzip": gzip.compress(TEXT.encode()),
    "quoted": '"Client","Age","Plan","Left"\n"007","20","basic","no"\n'
    '008,"33.5",золото,yes\n009,41,None,"no"\n',
    "another order": "Left,Plan,Age,Client\nno,basic,20,007\nyes,золото,33.5,008\nno,None,41,009\n",
    "an index without a name": ",Client,Age,Plan,Left\n0,007,20,basic,no\n"
    "1,008,33.5,золото,yes\n2,009,41,None,no\n",
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


def test_only_the_columns_of_the_contract_are_read_unless_all_are_requested(tmp_path):
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


NO_TABLES = {
    "empty": (b"", "it is empty"),
    "blank": (b"\n \n\t\n", "it is empty"),
    "a header": (b"Client,Age,Plan,Left\n", "a header and no rows"),
    "latin letters of Windows": (
        TEXT.encode("cp1251"),
        "line 3 (byte 0xe7) is not utf-8; declare its encoding, as dataset.",
    ),
    "gzip of them": (gzip.compress(TEXT.encode("cp1251")), "line 3 (byte 0xe7) is not utf-8"),
    "UTF-16": (TEXT.encode("utf-16"), "dataset.encoding=utf-16"),
    "binary": (bytes(range(256)) * 9, "it is binary"),
    "a picture": (
        b"\x89PNG\r\n\x1a\n" + bytes(3) + b"\rIHDR\n",
        "it is binary, not text; give CSV",
    ),
    "binary after a header": (TEXT.encode() + bytes(9), "it is binary"),
    "gzip cut off": (gzip.compress(TEXT.encode() * 99)[:-30], "cannot be read as a table"),
    "gzip of nothing": (gzip.compress(b""), "it is empty"),
    "broken gzip": (
        gzip.compress(TEXT.encode() * 99)[:30] + b"\xff" * 99,
        "cannot be read as a table",
    ),
    "Parquet cut off": (parquet(FRAME)[:-30], "cannot be read as a table"),
    "a workbook": (b"PK\x03\x04" + bytes(99), "a zip archive or an Excel workbook"),
    "a web page": (b"<!DOCTYPE html>\n<html></html>\n", "like HTML or JSON"),
    "JSON": (b'[{"Client": "007", "Age": 20}]', "like HTML or JSON"),
    "semicolons": (
        TEXT.replace(",", ";").encode(),
        "its header is separated by semicolons, not by commas",
    ),
    "tabs": (TEXT.replace(",", "\t").encode(), "its header is separated by tabs"),
    "a quote that nobody closes": (
        TEXT.replace("basic", '"basic').encode(),
        "is a comma or a closing quote missing?",
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
        "column 3 has no name; name it in the header",
    ),
    "two without": (
        TEXT.replace("Age", "").replace("Plan", "").encode(),
        "columns 2, 3 have no name",
    ),
    "another spelling": (
        TEXT.replace("Age", " age").encode(),
        "or write rename: {'age': Age} into the YAML of shop",
    ),
}


@pytest.mark.parametrize(("content", "text"), NO_TABLES.values(), ids=NO_TABLES)
def test_a_file_without_a_valid_table_is_refused(tmp_path, content, text):
    assert text in refusal(content, tmp_path / "t.csv")


def test_a_csv_called_parquet_is_refused(tmp_path):
    assert "it is not Parquet, despite its name" in refusal(TEXT, tmp_path / "t.parquet")


def test_without_a_contract_ambiguous_names_are_refused(tmp_path):
    with pytest.raises(
        InputError, match="is not a valid table: 2 columns are called a; keep one of them"
    ):
        read("a,a\n1,2\n", tmp_path / "t.csv", None)


@pytest.mark.parametrize("name", ["/dev/zero", "nowhere.csv", "n" * 5000, "a\0b"])
def test_a_path_without_a_file_is_refused(name):
    with pytest.raises(InputError) as raised:
        read_table(name)
    assert len(str(raised.value)) < LONGEST_MESSAGE


PLACES = {
    "a missing file": ("nowhere.csv", "There is no file nowhere.csv ({folder}/nowhere.csv); name"),
    "a missing folder": ("no/t.csv", "There is no file no/t.csv ({folder}/no/t.csv); name"),
    "no name": ("", "There is no file '' ({folder}); name"),
    "an empty folder": ("folder", "there is no file in the folder; give CSV"),
    "an empty file": ("empty.csv", "it is empty; give CSV"),
    "a device": ("/dev/null", "it is neither a file nor a folder; give CSV"),
    "a URL": ("http://127.0.0.1:9/t.csv", "cannot be reached (Connection refused); check"),
}


@pytest.mark.parametrize("key", ["dataset.path", "path", "input"])
@pytest.mark.parametrize(("path", "text"), PLACES.values(), ids=PLACES)
def test_a_path_without_a_table_is_refused_with_the_key_that_gives_it(
    tmp_path, monkeypatch, path, text, key
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "empty.csv").touch()
    with pytest.raises(InputError) as raised:
        read_table(path, SHOP, key=key)
    assert text.format(folder=tmp_path) in str(raised.value)
    assert str(raised.value).endswith((f" {key}=FILE.", f" {key}=URL."))


def test_a_file_that_may_not_be_read_is_refused_in_the_words_of_the_system(tmp_path, monkeypatch):
    path = tmp_path / "t.csv"
    path.write_text(TEXT, encoding="utf-8")

    def forbid(*_):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("churnlab.data.reading.first_bytes", forbid)
    with pytest.raises(InputError, match="table: the system reports 'Permission denied'; correct"):
        read_table(str(path), SHOP)


DAMAGED = {
    "a cut gzip": ("t.csv.gz", gzip.compress(TEXT.encode() * 99)[:-30], "damaged or cut off"),
    "a cut Parquet": ("t.parquet", b"PAR1 and nothing", "damaged or cut off"),
    "an open quote": ("t.csv", TEXT.replace("009", '"009').encode(), "quotes do not match"),
}


@pytest.mark.parametrize(("name", "content", "text"), DAMAGED.values(), ids=DAMAGED)
def test_no_message_of_a_library_is_shown_for_a_damaged_file(tmp_path, name, content, text):
    message = refusal(content, tmp_path / name)
    assert " cannot be read as a table: it" in message
    assert text in message
    for library in ("Error", "error", "magic", "token", "marker"):
        assert library not in message


NAMES = ["it's.csv", 'dq"x.csv', "a b.csv", "a#b?.csv", "100%41.csv", "[x]{y}.csv", "Клиенты.csv"]


@pytest.mark.parametrize("name", [*NAMES, "$x;&.csv", "a\\b.csv", "a=b,c.csv", "*.csv"])
def test_a_file_of_any_name_is_read(tmp_path, name):
    assert len(read(TEXT, tmp_path / name).frame) == 3
    assert len(read(parquet(FRAME), tmp_path / f"{name}.parquet").frame) == 3


class Answers(http.server.BaseHTTPRequestHandler):
    """A web server with one table, and with others that break off or stop."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.close_connection = True
        if "chunks" in self.path:  # the last chunk is missing
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for _ in range(3):
                self.wfile.write(b"%x\r\n%s\r\n" % (2**19, b"a" * 2**19))
            return
        if "stops" in self.path:
            self.send_response(200)
            self.send_header("Content-Length", str(2**22))
            self.end_headers()
            self.wfile.write(b"a" * 2**21)
            time.sleep(3)
            return
        self.send_response(404 if "nowhere" in self.path else 200)
        self.send_header("Content-Length", str(len(TEXT.encode()) + 99 * ("broken" in self.path)))
        self.end_headers()
        self.wfile.write(TEXT.encode())

    def log_message(self, *args):
        pass


@pytest.mark.parametrize("ids", [[7, None, 2**53 + 1], [7.0, None, 8.0], [7, 8, 9]])
def test_ids_in_parquet_that_are_whole_numbers_stay_whole_next_to_gaps(tmp_path, ids):
    kind = "Float64" if 7.0 in ids and 8.0 in ids and None in ids else "Int64"
    frame = FRAME.assign(Client=pd.array(ids, dtype=kind))
    _, _, found, _ = check(read(parquet(frame), tmp_path / "t.parquet"), SHOP)
    expected = [None if one is None else str(int(one)) for one in ids]
    assert [None if pd.isna(one) else one for one in found] == expected


@pytest.fixture(scope="module")
def site():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_url_is_read_and_an_unreachable_one_is_refused(site, monkeypatch):
    table = read_table(f"{site}/members.csv?month=5", SHOP)
    assert (table.source, len(table.frame)) == (f"{site}/members.csv?month=5", 3)
    for url, text in [
        (f"{site}/nowhere.csv", "cannot be reached (HTTP Error 404"),
        (f"{site}/broken.csv", "broke off after"),
        ("http://127.0.0.1:9/members.csv", "cannot be reached"),
        ("gopher://127.0.0.1/members.csv", "cannot be reached"),
        ("http://[/members.csv", "cannot be reached"),
        (f"{site}/chunks.csv", "broke off after 1,572,864 bytes (IncompleteRead"),
        (f"{site}/stops.csv", "broke off after 2,097,152 bytes (timed out); run the same command"),
    ]:
        monkeypatch.setattr("churnlab.data.reading.TIMEOUT", 1)
        with pytest.raises(InputError) as raised:
            read_table(url, SHOP)
        assert text in str(raised.value)


def test_a_download_that_cannot_be_written_is_not_taken_for_a_server_that_cannot_be_reached(
    tmp_path,
):
    (tmp_path / "members.csv").write_text(TEXT + "009,41,None,no\n" * 50_000, encoding="utf-8")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(JobError) as raised:
            read_table(f"file://{tmp_path}/members.csv", SHOP)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "cannot be written to" in str(raised.value)
    assert "(File too large)" in str(raised.value)


# --- any bytes


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
def test_arbitrary_bytes_are_a_table_or_a_user_error(
    tmp_path_factory, content, ending, pack, cut, contract
):
    path = tmp_path_factory.mktemp("fuzz") / f"t{ending}"
    content = gzip.compress(content) if pack else content
    path.write_bytes(content[: len(content) - cut] if cut < 10 else content)
    assert 20 < len(error_of(str(path), contract) or "x" * 50) < LONGEST_MESSAGE
