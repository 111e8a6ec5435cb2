"""Scored files: every row is answered by one version, and the version is named."""

import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import mlflow
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from churnlab.data.demo import members
from support.running import (
    PROMOTED_ROWS,
    artifact,
    churnlab_at,
    version_folder,
)

pytestmark = pytest.mark.slow

ANSWERS = ["churn_probability", "will_churn", "segment", "segment_name", "recommended_action"]


@pytest.fixture(scope="module")
def churnlab(promoted):
    return churnlab_at(promoted.home)


@pytest.fixture
def table() -> pd.DataFrame:
    """Members to be scored: no target, an id, a column that nobody declared, in no particular
    order."""
    table = members(40, seed=7).drop(columns="Churn")
    table.insert(0, "card", [f"{number:03d}" for number in range(40)])
    return (
        table.assign(note='replied: "later", perhaps')
        .sample(frac=1, random_state=1)
        .reset_index(drop=True)
    )


@pytest.fixture(scope="module")
def bundle(promoted, client_at, tmp_path_factory):
    """The champion as anybody loads it."""
    files = version_folder(client_at(promoted.home), "demo-churn", promoted.promote["version"])
    bytecode, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    yield mlflow.pyfunc.load_model(str(files))
    sys.dont_write_bytecode = bytecode


def features(table: pd.DataFrame) -> pd.DataFrame:
    return table.drop(columns=["card", "note"]).astype("float64")


@pytest.mark.parametrize("ending", [".csv", ".csv.gz", ".parquet"])
def test_every_member_comes_back_in_order_with_the_champions_answer(
    churnlab, table, bundle, tmp_path, ending
):
    given, output = tmp_path / f"members{ending}", tmp_path / f"scored{ending}"
    write = table.to_parquet if ending == ".parquet" else table.to_csv
    write(given, index=False)
    ended = churnlab("score", f"input={given}", f"output={output}")
    assert ended.code == 0, ended.err
    assert {key: ended.line[key] for key in ("command", "rows", "output")} == {
        "command": "score",
        "rows": 40,
        "output": str(output),
    }
    scored = read(output)
    assert list(scored.columns) == [*table.columns, *ANSWERS]
    assert scored["card"].tolist() == table["card"].tolist()
    assert scored["note"].tolist() == table["note"].tolist()
    pd.testing.assert_frame_equal(
        scored[features(table).columns].astype("float64"), features(table), rtol=1e-12
    )
    answers = pd.DataFrame(bundle.predict(features(table), params={"reasons": False}))
    np.testing.assert_allclose(
        scored["churn_probability"], answers["churn_probability"], atol=1e-12
    )
    for name in ANSWERS[1:]:
        assert scored[name].tolist() == answers[name].tolist()


def read(path) -> pd.DataFrame:
    """A scored table, the cards as text."""
    return (
        pd.read_parquet(path)
        if path.suffix == ".parquet"
        else pd.read_csv(path, dtype={"card": "str"})
    )


def test_the_cells_of_a_csv_file_come_back_as_they_were_written(churnlab, table, tmp_path):
    table.to_csv(tmp_path / "members.csv", index=False)
    before = (tmp_path / "members.csv").read_text(encoding="utf-8").splitlines()
    assert (
        churnlab("score", f"input={tmp_path}/members.csv", f"output={tmp_path}/scored.csv").code
        == 0
    )
    after = (tmp_path / "scored.csv").read_text(encoding="utf-8").splitlines()
    assert len(after) == len(before)
    assert all(new.startswith(f"{old},") for old, new in zip(before, after, strict=True))


def test_a_parquet_file_made_of_csv_has_types_and_loses_no_zeros(churnlab, table, tmp_path):
    table.assign(visits=range(40)).to_csv(tmp_path / "members.csv", index=False)
    ended = churnlab("score", f"input={tmp_path}/members.csv", f"output={tmp_path}/scored.parquet")
    assert ended.code == 0, ended.err
    scored = pd.read_parquet(tmp_path / "scored.parquet")
    assert scored["card"].tolist() == table["card"].tolist()
    assert scored["visits"].tolist() == list(range(40))
    pd.testing.assert_frame_equal(scored[features(table).columns], features(table), rtol=1e-12)


def test_scores_of_the_hold_out_are_those_of_the_train_run(churnlab, promoted, client_at, tmp_path):
    run = client_at(promoted.home).get_run(promoted.train["run_id"])
    held_out = pd.read_parquet(artifact(run, "predictions/test.parquet"))
    whole = members(int(PROMOTED_ROWS[0].partition("=")[2]), seed=0)
    whole.iloc[held_out["row"]].to_parquet(tmp_path / "members.parquet")
    ended = churnlab(
        "score", f"input={tmp_path}/members.parquet", f"output={tmp_path}/scored.parquet"
    )
    assert ended.code == 0, ended.err
    scored = pd.read_parquet(tmp_path / "scored.parquet")
    np.testing.assert_allclose(scored["churn_probability"], held_out["probability"], atol=1e-9)
    assert scored["Churn"].tolist() == held_out["y"].tolist(), (
        "what the file knows of the target is echoed"
    )


def test_an_id_is_echoed_as_written_and_reasons_are_given_on_request(
    churnlab, table, bundle, tmp_path
):
    table.to_csv(tmp_path / "members.csv", index=False)
    words = [f"input={tmp_path}/members.csv", f"output={tmp_path}/scored.csv"]
    ended = churnlab("score", *words, "dataset.id=card", "score.reasons=true")
    assert ended.code == 0, ended.err
    scored = pd.read_csv(tmp_path / "scored.csv", dtype="str", keep_default_na=False)
    assert list(scored.columns) == [*table.columns, *ANSWERS, "reasons"], "the id is there once"
    assert scored["card"].tolist() == table["card"].tolist()
    reasons = ["; ".join(answer["reasons"]) for answer in bundle.predict(features(table))]
    assert scored["reasons"].tolist() == reasons
    assert any(reasons)


def test_a_named_version_and_the_run_of_scoring_are_kept(
    churnlab, table, promoted, client_at, tmp_path
):
    table.to_parquet(tmp_path / "members.parquet")
    uri = f"models:/demo-churn/{promoted.promote['version']}"
    ended = churnlab(
        "score",
        f"input={tmp_path}/members.parquet",
        f"output={tmp_path}/scored.csv",
        f"model_uri={uri}",
    )
    assert ended.code == 0, ended.err
    run = client_at(promoted.home).get_run(ended.line["run_id"])
    assert (run.info.status, run.data.tags["churnlab.model_uri"], run.data.metrics["rows"]) == (
        "FINISHED",
        uri,
        40,
    )


def named(promoted, client_at) -> dict[str, tuple[str | None, str | None]]:
    """Ways to name the same version: model_uri, and the number that it resolves to."""
    client = client_at(promoted.home)
    model_id = client.get_run(promoted.promote["run_id"]).outputs.model_outputs[0].model_id
    folder = version_folder(client, "demo-churn", "1")
    return {
        "default": (None, "1"),
        "alias": ("models:/demo-churn@champion", "1"),
        "number": ("models:/demo-churn/1", "1"),
        "latest": ("models:/demo-churn/latest", "1"),
        "logged model": (f"models:/{model_id}", None),
        "run": (f"runs:/{promoted.promote['run_id']}/bundle", None),
        "folder": (str(folder), None),
    }


@pytest.mark.parametrize(
    "name", ["default", "alias", "number", "latest", "logged model", "run", "folder"]
)
def test_the_result_the_run_and_a_parquet_file_name_the_version_that_answered(
    churnlab, table, promoted, client_at, tmp_path, name
):
    uri, version = named(promoted, client_at)[name]
    used = uri if version is None else "models:/demo-churn/1"
    table.to_parquet(tmp_path / "members.parquet")
    output = tmp_path / "scored.parquet"
    words = [f"input={tmp_path}/members.parquet", f"output={output}"]
    words += [] if uri is None else [f"model_uri={uri}"]
    if version is None:  # only a version has a manifest
        refused = churnlab("score", *words)
        assert (refused.code, refused.out) == (3, "")
        words.append("model.unverified=true")
    ended = churnlab("score", *words)
    assert ended.code == 0, ended.err
    assert set(ended.line) == {"command", "run_id", "rows", "version", "output", "warnings"}
    assert ended.line["version"] == version
    tags = client_at(promoted.home).get_run(ended.line["run_id"]).data.tags
    assert (tags["churnlab.model_uri"], tags.get("churnlab.version")) == (used, version)
    metadata = pq.read_schema(output).metadata
    assert metadata[b"churnlab.model_uri"] == used.encode()
    assert metadata.get(b"churnlab.version") == (version and version.encode())
    assert pd.read_parquet(output)["churn_probability"].between(0, 1).all()


def test_a_model_that_is_no_version_is_refused(churnlab, table, promoted, client_at, tmp_path):
    run = client_at(promoted.home).get_run(promoted.train["run_id"])
    model_id = run.outputs.model_outputs[0].model_id
    table.to_csv(tmp_path / "members.csv", index=False)
    words = [f"input={tmp_path}/members.csv", f"output={tmp_path}/scored.csv"]
    for uri, reason in {
        f"models:/{model_id}": "it was not made by churnlab promote",
        "nowhere": "its files cannot be read",
        "models:/m-0123": "its files cannot be read",
    }.items():
        ended = churnlab("score", *words, f"model_uri={uri}", "model.unverified=true")
        assert (ended.code, ended.out) == (2, "")
        assert f"{uri} cannot be used: {reason}" in ended.err
        assert one_paragraph(ended.err)


@contextmanager
def served_after(event: Callable[[], None], content: bytes) -> Iterator[str]:
    """The address of a file that is sent only after an event has taken place."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            event()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Keep quiet."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/members.csv"
        finally:
            server.shutdown()
            thread.join()


def test_a_promotion_while_members_are_scored_does_not_change_the_version_that_answers(
    promoted, shared_home, run_command, client_at, table, tmp_path
):
    trained, output = (*PROMOTED_ROWS, "evaluation.folds=3"), tmp_path / "scored.parquet"
    shutil.copytree(promoted.kept, shared_home, dirs_exist_ok=True)
    churnlab = churnlab_at(shared_home)
    assert churnlab("history").code == 0  # which finds the files of a store that was moved
    dummy = churnlab("train", *trained, "model=dummy").line["run_id"]
    promotions = []

    def promote() -> None:
        words = ("promote", *trained, f"churn_run={dummy}", "force=true", "reason=meanwhile")
        promotions.append(run_command(shared_home, *words))

    content = table.to_csv(index=False).encode()
    with served_after(promote, content) as address:
        ended = churnlab("score", f"input={address}", f"output={output}")
    table.to_csv(tmp_path / "members.csv", index=False)
    later = churnlab("score", f"input={tmp_path}/members.csv", f"output={tmp_path}/later.csv")
    assert [(end.code, end.line["version"]) for end in promotions] == [(0, "2")]
    client = client_at(shared_home)
    assert str(client.get_model_version_by_alias("demo-churn", "champion").version) == "2"
    assert ended.code == 0, ended.err
    assert ended.line["version"] == "1"
    tags = client.get_run(ended.line["run_id"]).data.tags
    assert tags["churnlab.version"] == "1"
    assert pq.read_schema(output).metadata[b"churnlab.version"] == b"1"
    first = mlflow.pyfunc.load_model(str(version_folder(client, "demo-churn", "1")))
    answers = pd.DataFrame(first.predict(features(table), params={"reasons": False}))
    scored = pd.read_parquet(output)
    assert scored["churn_probability"].nunique() > 1, "the dummy of version 2 answers all alike"
    np.testing.assert_allclose(
        scored["churn_probability"], answers["churn_probability"], atol=1e-12
    )
    assert later.line["version"] == "2"
    assert pd.read_csv(tmp_path / "later.csv")["churn_probability"].nunique() == 1


WRONG = {
    "age in words": ("Age", 3, "thirty", ["line 5, column Age: 'thirty' is not a number"]),
    "no age": ("Age", 0, "", ["line 2, column Age: the value is missing"]),
    "half a year": ("Age", 1, "30.5", ["line 3, column Age: 30.5 is not a whole number"]),
    "too old": ("Age", 4, "170", ["line 6, column Age: 170 is above 100"]),
    "a contract nobody sells": (
        "Contract_period",
        2,
        "3",
        ["line 4, column Contract_period: 3 is not one of 1, 6, 12"],
    ),
    "more months than the contract": (
        "Month_to_end_contract",
        6,
        "12",
        ["line 8, rule months_left", "(Month_to_end_contract = 12, Contract_period = "],
    ),
    "endless visits": (
        "Avg_class_frequency_total",
        6,
        "inf",
        ["line 8, column Avg_class_frequency_total: inf"],
    ),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_member_who_breaks_the_contract_stops_the_file_with_line_and_column(
    churnlab, table, tmp_path, wrong
):
    column, row, value, messages = WRONG[wrong]
    table["Contract_period"], table["Month_to_end_contract"] = 6, 3
    text = table.astype("str")
    text.loc[row, column] = value
    text.to_csv(tmp_path / "members.csv", index=False)
    ended = churnlab("score", f"input={tmp_path}/members.csv", f"output={tmp_path}/scored.csv")
    assert ended.code == 2
    assert ended.out == ""
    for part in [str(tmp_path / "members.csv"), *messages]:
        assert part in ended.err
    assert "Traceback" not in ended.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["members.csv"], (
        "no half of a file is left"
    )


def one_paragraph(err: str) -> bool:
    """Return whether a refusal is one line, apart from warnings of the table."""
    return len([line for line in err.strip().splitlines() if not line.startswith("warning: ")]) == 1


REFUSED = {
    "no such file": (["input=nowhere.csv", "output=scored.csv"], "There is no file nowhere.csv"),
    "no output": (["input=members.csv"], "output has no value yet"),
    "unknown ending": (
        ["input=members.csv", "output=scored.xlsx"],
        "no known ending; give one of .csv, .csv.gz",
    ),
    "no such folder": (
        ["input=members.csv", "output=nowhere/scored.csv"],
        "a folder that does not exist",
    ),
    "a folder": (["input=members.csv", "output=folder.csv"], "output=folder.csv is a folder"),
    "the input": (["input=members.csv", "output=./members.csv"], "is the input itself"),
    "scored already": (
        ["input=scored_before.csv", "output=scored.csv"],
        "churn_probability; rename them",
    ),
    "no version": (
        ["input=members.csv", "output=scored.csv", "model_uri=models:/demo-churn/99"],
        "There is no model models:/demo-churn/99",
    ),
    "no champion": (
        ["input=members.csv", "output=scored.csv", "dataset.name=other"],
        "name the dataset of another champion",
    ),
    "no model at all": (
        ["input=members.csv", "output=scored.csv", "model_uri=nonsense"],
        "model_uri=nonsense is no model",
    ),
}


@pytest.mark.parametrize("refused", REFUSED)
def test_what_cannot_be_read_or_written_is_the_users_mistake(churnlab, table, promoted, refused):
    words, message = REFUSED[refused]
    place = promoted.home.parent  # where the process stands
    table.to_csv(place / "members.csv", index=False)
    table.assign(churn_probability=0.5).to_csv(place / "scored_before.csv", index=False)
    (place / "folder.csv").mkdir(exist_ok=True)
    ended = churnlab("score", *words)
    assert ended.code == 2
    assert ended.out == ""
    assert message in ended.err
    assert "Traceback" not in ended.err
    assert one_paragraph(ended.err)
    assert not (place / "scored.csv").exists()


def test_other_columns_are_left_out_with_one_warning_or_refused(churnlab, table, tmp_path):
    table.to_csv(tmp_path / "members.csv", index=False)
    words = ["score", f"input={tmp_path}/members.csv", f"output={tmp_path}/scored.csv"]
    ignored = churnlab(*words)
    assert ignored.code == 0, ignored.err
    assert ignored.err.count("card, note") == 1
    refused = churnlab(*words, "dataset.extra=refuse")
    assert (refused.code, refused.out) == (2, "")
    assert "does not declare the columns card, note; leave them out" in refused.err
    assert churnlab(*words, "dataset.extra=keep").code == 2


def test_a_version_of_other_columns_says_which_are_missing(churnlab, table, tmp_path):
    table.drop(columns="Age").to_csv(tmp_path / "members.csv", index=False)
    words = [
        f"input={tmp_path}/members.csv",
        f"output={tmp_path}/scored.csv",
        "~dataset.columns.Age",
    ]
    ended = churnlab("score", *words)
    assert ended.code == 2
    assert "models:/demo-churn/1 cannot score these members" in ended.err
    assert "There is no column Age; the inputs are gender, " in ended.err
    assert one_paragraph(ended.err), "no member is shown"
