"""Scoring part by part: killed, out of room or changed under way, the same command completes."""

import csv
import gzip
import json
import signal
import sys
from collections.abc import Callable, Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import product
from threading import Event, Thread

import mlflow
import numpy as np
import pandas as pd
import psutil
import pytest

from churnlab.data.demo import members
from churnlab.models.decision import COSTS
from support.killing import Command
from support.running import Ended, churnlab_at, version_folder
from support.soak import SOAK

pytestmark = pytest.mark.slow

ROWS = 6_000

SMALL_PARTS = """
from churnlab.scoring import blocks, parts
blocks.SIZE, blocks.ROWS = 20_000, 400
"""
"""Parts of some 400 rows, so that a small table has many."""

LIMITED = """
import atexit, os, resource, signal, sys
begin, finish = parts.begin, parts.finish
def begin_without_room(*words):
    begin(*words)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
def finish_and_stop(part, number, *words):
    finish(part, number, *words)
    if number == halt:
        os.kill(os.getpid(), signal.SIGSTOP)
if limit:
    parts.begin = begin_without_room
parts.finish = finish_and_stop
def print_peak():
    print("peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)
atexit.register(print_peak)
"""
"""A process that may lack room on the disk, and stops itself after the part ``halt``."""


@pytest.fixture
def start(promoted, tmp_path_factory) -> Iterator[Callable[..., Command]]:
    """Yield what starts a job in a process of its own, which can be stopped and killed."""
    root, jobs = tmp_path_factory.mktemp("jobs"), []

    def start(*words: str, limit: int = 0, halt: int = -1, size: int = 20_000) -> Command:
        given = f"{SMALL_PARTS}blocks.SIZE, limit, halt = {size}, {limit}, {halt}\n"
        jobs.append(Command(promoted.home, "score", *words, root=root, before=given + LIMITED))
        return jobs[-1]

    yield start
    for job in jobs:
        job.process.kill()
        job.process.wait()


@pytest.fixture(scope="module")
def score(promoted) -> Callable[..., Ended]:
    """Return what scores in small parts."""
    churnlab = churnlab_at(promoted.home, before=SMALL_PARTS)
    return partial(churnlab, "score")


def wait_until_halted(job: Command) -> None:
    """Wait until a job has finished the part after which it stops itself."""
    process = psutil.Process(job.process.pid)
    assert job.until(lambda: process.status() == psutil.STATUS_STOPPED, "its halt"), job.err


def go_on(job: Command) -> Ended:
    """Let a job that has stopped itself go on to its end."""
    job.process.send_signal(signal.SIGCONT)
    return job.ended()


@pytest.fixture
def table(tmp_path) -> pd.DataFrame:
    """Members in members.csv, three of whom break the contract, far apart."""
    table = members(ROWS, seed=5).drop(columns="Churn")
    table.insert(0, "card", [f"{number:05d}" for number in range(ROWS)])
    for row in (3, 2_500, 5_990):
        table.loc[row, "Age"] = 7
    table.to_csv(tmp_path / "members.csv", index=False)
    return table


@pytest.fixture
def words(tmp_path) -> list[str]:
    return [f"input={tmp_path}/members.csv", f"output={tmp_path}/scored.csv"]


REJECT = "score.on_bad_row=reject"


def test_the_same_bits_come_out_in_batches_of_any_size(promoted, score, table, words, tmp_path):
    whole = tmp_path / "whole.csv"
    churnlab = churnlab_at(promoted.home)
    ended = churnlab("score", words[0], f"output={whole}", REJECT, "score.reasons=true")
    assert ended.code == 0, ended.err
    small = score(*words, REJECT, "score.reasons=true")
    assert small.code == 0, small.err
    assert (tmp_path / "scored.csv").read_bytes() == whole.read_bytes()
    workers = ("engine=processes", "engine.workers=2")
    several = score(words[0], f"output={tmp_path}/p.csv.gz", REJECT, *workers)
    assert several.code == 0, several.err
    with_reasons = pd.read_csv(whole, dtype="str").drop(columns="reasons")
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "p.csv.gz", dtype="str"), with_reasons)


@pytest.mark.parametrize(
    ("part", "ending"),
    [*product((0, 5, 13), ("csv", "parquet"))] if SOAK else [(0, "csv"), (5, "parquet")],
)
def test_a_killed_job_goes_on_with_the_finished_parts(
    start, score, table, words, tmp_path, part, ending
):
    words = [words[0], f"output={tmp_path}/scored.{ending}", REJECT]
    folder = tmp_path / f".scored.{ending}.parts"
    job = start(*words, halt=part)
    wait_until_halted(job)
    job.kill()
    kept = {path: path.stat().st_mtime_ns for path in folder.glob("*.json")}
    assert len(kept) == part + 2, "the manifest, too"
    assert not (tmp_path / f"scored.{ending}").exists()
    ended = score(*words)
    assert ended.code == 0, ended.err
    assert (ended.line["rows"], ended.line["rejected"]) == (ROWS - 3, 3)
    read = pd.read_parquet if ending == "parquet" else pd.read_csv
    scored = read(tmp_path / f"scored.{ending}")
    assert scored["card"].astype("int64").tolist() == [
        row for row in range(ROWS) if row not in (3, 2_500, 5_990)
    ]
    rejected = pd.read_csv(tmp_path / f"scored.{ending}.rejected.csv", dtype="str")
    assert rejected["place"].tolist() == ["line 5", "line 2502", "line 5992"]
    assert rejected["card"].tolist() == ["00003", "02500", "05990"]
    assert not folder.exists()


def test_a_row_that_breaks_the_contract_late_in_the_file_leaves_nothing(
    score, table, words, tmp_path
):
    table.drop(index=[3, 2_500]).to_csv(tmp_path / "members.csv", index=False)
    ended = score(*words)
    assert ended.code == 2
    assert "line 5990, column Age: 7 is below 14" in ended.err
    assert [path.name for path in tmp_path.iterdir()] == ["members.csv"]


def test_a_full_disk_is_one_paragraph_and_the_same_command_completes(
    start, score, table, words, tmp_path
):
    parquet = [words[0], f"output={tmp_path}/scored.parquet", REJECT]
    ended = start(*words, REJECT, limit=30_000).ended()
    assert ended.code == 1, ended.err
    said = [line for line in ended.err.splitlines() if not line.startswith(("warning", "peak"))]
    assert len(said) == 1
    assert "run the same command again" in said[0]
    assert not (tmp_path / "scored.csv").exists()
    for again in (score(*words, REJECT), score(*parquet)):
        assert again.code == 0, again.err
        assert again.line["rows"] + again.line["rejected"] == ROWS


@pytest.mark.parametrize(
    ("ending", "file"),
    [("csv", "rows.npy"), ("csv", "ids.npy"), ("csv", "csv"), ("parquet", "arrow")],
)
def test_a_disk_that_is_full_for_any_file_of_a_part_is_one_paragraph(
    start, score, table, tmp_path, ending, file
):
    words = (f"input={tmp_path}/members.csv", f"output={tmp_path}/scored.{ending}", REJECT)
    job = start(*words, halt=4)
    folder = tmp_path / f".scored.{ending}.parts"
    wait_until_halted(job)
    full = folder / f"000005.{file}"
    full.symlink_to("/dev/full")
    ended = go_on(job)
    assert ended.code == 1, ended.err
    assert f"written to {tmp_path} (No space left on device)" in ended.err
    assert not (folder / "000005.json").exists()
    full.unlink()
    ended = score(*words)
    assert (ended.line["rows"], ended.line["rejected"]) == (ROWS - 3, 3)


def test_an_output_folder_that_is_removed_is_one_paragraph(start, score, table, words, tmp_path):
    (tmp_path / "out").mkdir()
    words = [words[0], f"output={tmp_path}/out/scored.csv", REJECT]
    job = start(*words, halt=2)
    wait_until_halted(job)
    (tmp_path / "out").rename(tmp_path / "away")
    ended = go_on(job)
    assert ended.code == 1, ended.err
    assert "Create it and run the same command again" in ended.err
    (tmp_path / "out").mkdir()
    again = score(*words)
    assert again.line["rows"] + again.line["rejected"] == ROWS


def test_an_input_that_changes_while_it_is_read_is_refused(start, score, table, words, tmp_path):
    job = start(*words, REJECT, halt=2)
    wait_until_halted(job)
    with (tmp_path / "members.csv").open("a") as file:
        file.write(",".join(map(str, table.iloc[0])) + "\n")
    ended = go_on(job)
    assert ended.code == 2, ended.err
    assert "was changed while it was read" in ended.err
    assert not (tmp_path / "scored.csv").exists()
    assert score(*words, REJECT).line["rows"] == ROWS - 3 + 1


def test_an_input_rewritten_in_the_same_size_while_it_is_read_is_refused(
    start, score, table, words, tmp_path
):
    job = start(*words, REJECT, halt=2)
    wait_until_halted(job)
    content = (tmp_path / "members.csv").read_bytes()
    (tmp_path / "members.csv").write_bytes(content.replace(b"00017,", b"90017,"))
    ended = go_on(job)
    assert ended.code == 2, ended.err
    assert "was changed while it was read" in ended.err
    assert {path.name for path in tmp_path.iterdir()} == {"members.csv"}


def test_an_input_that_is_away_for_a_while_costs_no_finished_part(
    start, score, table, words, tmp_path
):
    job = start(*words, REJECT, halt=4)
    wait_until_halted(job)
    (tmp_path / "members.csv").rename(tmp_path / "away.csv")
    ended = go_on(job)
    assert ended.code == 2, ended.err
    assert "No such file" in ended.err
    kept = sorted((tmp_path / ".scored.csv.parts").glob("*.json"))
    ended = score(*words, REJECT)
    assert (ended.code, "There is no file" in ended.err) == (2, True)
    assert sorted((tmp_path / ".scored.csv.parts").glob("*.json")) == kept
    assert len(kept) > 5
    (tmp_path / "away.csv").rename(tmp_path / "members.csv")
    ended = score(*words, REJECT)
    assert (ended.line["rows"], ended.line["rejected"]) == (ROWS - 3, 3)


def test_a_url_that_breaks_off_or_a_kill_while_it_comes_costs_no_finished_part(
    start, score, table, tmp_path
):
    content, sent, killed = (tmp_path / "members.csv").read_bytes(), [], Event()
    half = len(content) // 2

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            sent.append(self.path)
            self.wfile.write(content[:half])
            if len(sent) == 1:
                killed.wait()
            elif len(sent) != 3:
                self.wfile.write(content[half:])

        def log_message(self, *_: object) -> None:
            """Keep quiet."""

    folder = tmp_path / ".scored.csv.parts"
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}/members.csv"
        words = [f"input={url}", f"output={tmp_path}/scored.csv", REJECT]
        job = start(*words)
        assert job.until(
            lambda: [file for file in folder.rglob("members.csv") if file.stat().st_size],
            "the first half",
        )
        job.kill()
        killed.set()
        assert {path.suffix for path in tmp_path.iterdir()} == {".csv", ".parts"}
        job = start(*words, halt=4)
        wait_until_halted(job)
        job.kill()
        kept = {path: path.stat().st_mtime_ns for path in folder.glob("0*.json")}
        ended = score(*words)
        assert ended.code == 2, ended.err
        broken = f"{half:,} of {len(content):,} bytes; run the same command again"
        assert f"broke off after {broken}" in ended.err
        assert {path: path.stat().st_mtime_ns for path in folder.glob("0*.json")} == kept
        ended = score(*words)
        server.shutdown()
    assert len(sent) == 4
    assert (ended.line["rows"], ended.line["rejected"]) == (ROWS - 3, 3)
    assert {path.suffix for path in tmp_path.iterdir()} == {".csv"}


def test_parts_of_another_input_or_command_are_not_continued(start, score, table, words, tmp_path):
    job = start(*words, REJECT, halt=4)
    wait_until_halted(job)
    job.kill()
    table.iloc[::-1].to_csv(tmp_path / "members.csv", index=False)
    ended = score(*words, REJECT, "score.reasons=true")
    assert ended.code == 0, ended.err
    scored = pd.read_csv(tmp_path / "scored.csv")
    assert scored["card"].iloc[0] == ROWS - 1
    assert scored["reasons"].notna().any()


def test_a_folder_of_csv_files_is_scored_in_the_order_of_their_names(score, table, tmp_path):
    folder = tmp_path / "monthly"
    folder.mkdir()
    table = table.drop(index=[3, 2_500, 5_990])
    table.iloc[:3_000].to_csv(folder / "a.csv", index=False)
    with gzip.open(folder / "b.csv.gz", "wt") as file:
        table.iloc[3_000:].to_csv(file, index=False)
    ended = score(f"input={folder}", f"output={tmp_path}/scored.parquet")
    assert ended.code == 0, ended.err
    assert pd.read_parquet(tmp_path / "scored.parquet")["card"].tolist() == table["card"].tolist()
    table.rename(columns={"Age": "age"}).to_csv(folder / "c.csv", index=False)
    ended = score(f"input={folder}", f"output={tmp_path}/scored.parquet")
    assert (ended.code, "c.csv has another header than a.csv" in ended.err) == (2, True)


def test_a_folder_of_parquet_files_is_scored_in_the_order_of_their_names(
    start, score, table, tmp_path
):
    folder = tmp_path / "monthly"
    folder.mkdir()
    table["card"] = pd.array([None, *range(1, ROWS)], dtype="Int64")
    table.iloc[:2_600].to_parquet(folder / "a.parquet")
    table.iloc[2_600:].to_parquet(folder / "b.parquet")
    words = [f"input={folder}", f"output={tmp_path}/scored.csv", REJECT, "dataset.id=card"]
    job = start(*words, halt=4)
    wait_until_halted(job)
    job.kill()
    ended = score(*words)
    assert ended.code == 0, ended.err
    assert (ended.line["rows"], ended.line["rejected"]) == (ROWS - 3, 3)
    scored = pd.read_csv(tmp_path / "scored.csv", dtype="str")
    expected = [str(row) for row in range(1, ROWS) if row not in (3, 2_500, 5_990)]
    assert scored["card"].isna().tolist() == [True, *[False] * (ROWS - 4)]
    assert scored["card"].tolist()[1:] == expected
    rejected = pd.read_csv(tmp_path / "scored.csv.rejected.csv", dtype="str")
    assert rejected["card"].tolist() == ["3", "2500", "5990"], "whole numbers next to a gap"
    table.to_csv(folder / "c.csv", index=False)
    ended = score(*words)
    assert ended.code == 2
    assert "c.csv in the folder is not Parquet" in ended.err


def test_whole_numbers_next_to_a_gap_are_whole_in_a_contact_list(score, table, tmp_path):
    table["card"] = [None, *map(float, range(1, ROWS))]
    table.to_parquet(tmp_path / "members.parquet")
    words = [f"input={tmp_path}/members.parquet", f"output={tmp_path}/list.csv", REJECT]
    ended = score(*words, "dataset.id=card", "contacts=true", "score.top=7", *COSTS.split())
    assert ended.code == 0, ended.err
    files = ("list.csv", "list.csv.left_out.csv")
    cards = pd.concat([pd.read_csv(tmp_path / name, dtype="str")["card"] for name in files])
    assert sorted(cards) == sorted(["row 0", *map(str, range(1, ROWS))])


def test_an_id_of_an_earlier_part_is_rejected(score, table, words, tmp_path):
    table = table.drop(index=[3, 2_500, 5_990])
    table.loc[5_500, "card"] = table.loc[10, "card"]
    table.to_csv(tmp_path / "members.csv", index=False)
    ended = score(*words, "dataset.id=card")
    assert ended.code == 2
    assert "occurs in an earlier row, too" in ended.err
    ended = score(*words, "dataset.id=card", REJECT)
    assert (ended.line["rows"], ended.line["rejected"]) == (len(table) - 1, 1)
    rejected = pd.read_csv(tmp_path / "scored.csv.rejected.csv", dtype="str")
    assert rejected["reason"].tolist() == ["id card: '00010' occurs in an earlier row, too"]


def test_the_memory_of_a_job_does_not_grow_with_its_input(start, tmp_path):
    rows, more = 20_000, 20 if SOAK else 10
    table, peaks = members(rows, seed=5).drop(columns="Churn"), []
    for times in (1, more):
        file = tmp_path / f"{times}.csv"
        for number in range(times):
            table.to_csv(file, index=False, mode="a", header=number == 0)
        words = (f"input={file}", f"output={tmp_path}/{times}.parquet")
        ended = start(*words, size=500_000).ended()
        assert ended.code == 0, ended.err
        assert ended.line["rows"] == rows * times
        peaks.append(int(ended.err.rpartition("peak ")[2]))
    assert peaks[1] < peaks[0] + 30 * 1024, "in KiB: the rows alone are more"
    once = pd.read_parquet(tmp_path / "1.parquet")["churn_probability"].to_numpy()
    often = pd.read_parquet(tmp_path / f"{more}.parquet")["churn_probability"].to_numpy()
    assert np.array_equal(np.tile(once, more), often)


def test_lines_with_too_few_or_too_many_cells_are_rejected_wherever_they_are(
    score, table, words, tmp_path
):
    lines = (tmp_path / "members.csv").read_text(encoding="utf-8").splitlines()
    lines[1] += ",7"
    lines[3_000] = "0,1,1"
    lines += ["0,1"]
    (tmp_path / "members.csv").write_text("\n".join(lines), encoding="utf-8")
    refused = score(*words)
    assert refused.code == 2
    width = len(lines[0].split(","))
    assert f"line 2, {width + 1} cells where the header has {width}" in refused.err
    for ending in ("csv", "parquet"):
        ended = score(words[0], f"output={tmp_path}/scored.{ending}", REJECT, "dataset.id=card")
        assert ended.code == 0, ended.err
        assert (ended.line["rows"], ended.line["rejected"]) == (ROWS - 5, 6)
        rejected = pd.read_csv(tmp_path / f"scored.{ending}.rejected.csv", dtype="str")
        places = ["line 2", "line 5", "line 2502", "line 3001", "line 5992", f"line {ROWS + 2}"]
        assert rejected["place"].tolist() == places
        assert rejected["reason"][0] == f"{width + 1} cells where the header has {width}"
        assert rejected["reason"][3] == f"3 cells where the header has {width}"
        assert rejected["reason"][5] == f"2 cells where the header has {width}"
        assert rejected["card"].isna().tolist() == [True, False, False, True, False, True]
    scored = pd.read_parquet(tmp_path / "scored.parquet")
    expected = [row for row in range(ROWS) if row not in (0, 3, 2_500, 2_999, 5_990)]
    assert scored["card"].astype("int64").tolist() == expected


def test_a_last_part_without_a_whole_row_is_rejected(score, table, words, tmp_path):
    lines = (tmp_path / "members.csv").read_text(encoding="utf-8").splitlines()
    lines = [*lines[:1], *lines[10:1_000], *(["1,2,3"] * 9_000)]
    (tmp_path / "members.csv").write_text("\n".join(lines), encoding="utf-8")
    ended = score(*words, REJECT)
    assert ended.code == 0, ended.err
    assert (ended.line["rows"], ended.line["rejected"]) == (990, 9_000)


@pytest.mark.parametrize("damage", ["cut off", "changed", "a picture"])
def test_a_damaged_input_is_not_taken_for_a_full_disk(score, table, tmp_path, damage):
    content = bytearray(gzip.compress((tmp_path / "members.csv").read_bytes()))
    if damage == "cut off":
        del content[len(content) // 2 :]
    elif damage == "changed":
        content[-6] ^= 1  # of the checksum
    else:
        content = bytearray(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR")
    (tmp_path / "members.csv.gz").write_bytes(content)
    ended = score(f"input={tmp_path}/members.csv.gz", f"output={tmp_path}/scored.csv", REJECT)
    assert ended.code == 2, ended.err
    assert "members.csv.gz cannot be read as a table: " in ended.err
    assert "Nothing more can be written" not in ended.err
    assert not (tmp_path / "scored.csv").exists()


def test_a_number_is_read_to_the_same_bits_in_every_form(
    promoted, score, client_at, tmp_path, monkeypatch
):
    rng, rows = np.random.default_rng(0), 2_000
    table = members(rows, seed=3).drop(columns="Churn")
    name = "Avg_class_frequency_total"
    written = [f"{number:.17g}" for number in rng.uniform(0.1, 5, rows)]
    table[name] = [float(text) for text in written]
    exact = table[name].to_numpy()
    text = table.assign(**{name: written})
    text.to_csv(tmp_path / "plain.csv", index=False)
    text.to_csv(tmp_path / "quoted.csv", index=False, quoting=csv.QUOTE_ALL)
    table.to_parquet(tmp_path / "typed.parquet")
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    files = version_folder(client_at(promoted.home), "demo-churn", "1")
    version = mlflow.pyfunc.load_model(str(files))
    records = json.loads(json.dumps(table.to_dict(orient="records")))
    served = [one["churn_probability"] for one in version.predict(records)]
    assert served == [one["churn_probability"] for one in version.predict(table.astype(float))]
    for file in ("plain.csv", "quoted.csv", "typed.parquet"):
        ended = score(f"input={tmp_path}/{file}", f"output={tmp_path}/scored.parquet")
        assert ended.code == 0, ended.err
        scored = pd.read_parquet(tmp_path / "scored.parquet")
        assert (scored[name].to_numpy() == exact).all(), file
        assert scored["churn_probability"].tolist() == served, file
