"""The champion outside churnlab: behind MLflow's own scoring server, and in an environment made
from its own list."""

import json
import shutil
import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path

import mlflow
import pandas as pd
import pytest
from packaging.requirements import Requirement

from churnlab.data.demo import members
from support.running import churnlab_at, environment, version_folder
from support.servers import post, serving
from support.soak import SOAK

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return (
        members(12, seed=21)
        .drop(columns="Churn")
        .assign(member_id=[f"{number:03d}" for number in range(12)])
    )


@pytest.fixture(scope="module")
def server(promoted):
    with serving(promoted.home, "models:/demo-churn@champion") as address:
        yield address


def test_the_server_answers_what_churnlab_score_writes(server, promoted, table, tmp_path):
    table.to_csv(tmp_path / "in.csv", index=False)
    churnlab = churnlab_at(promoted.home)
    words = ("score", f"input={tmp_path}/in.csv", f"output={tmp_path}/out.csv")
    ended = churnlab(*words, "dataset.id=member_id", "score.reasons=true")
    assert ended.code == 0, ended.err
    scored = pd.read_csv(tmp_path / "out.csv", dtype={"member_id": "str"}, keep_default_na=False)
    status, answer = post(server, {"dataframe_records": table.to_dict("records")})
    assert status == 200
    names = [
        "member_id",
        "churn_probability",
        "will_churn",
        "segment",
        "segment_name",
        "recommended_action",
    ]
    assert [list(row) for row in answer["predictions"]] == [[*names, "reasons"]] * len(table)
    for row, written in zip(answer["predictions"], scored.to_dict("records"), strict=True):
        assert row["churn_probability"] == pytest.approx(written["churn_probability"], abs=1e-12)
        assert "; ".join(row["reasons"]) == written["reasons"]
        for name in set(names) - {"churn_probability"}:
            assert row[name] == written[name]


def test_a_notebook_gets_the_same_bits_as_the_server(server, promoted, client_at, table, tmp_path):
    table.to_csv(tmp_path / "members.csv", index=False)
    files = version_folder(client_at(promoted.home), "demo-churn", "1")
    read = pd.read_csv(tmp_path / "members.csv", dtype={"member_id": "str"})
    assert read["Age"].dtype == "int64"
    status, answer = post(server, {"dataframe_records": read.to_dict("records")})
    assert status == 200
    assert answer["predictions"] == mlflow.pyfunc.load_model(str(files)).predict(read)


def test_the_example_that_mlflow_shows_is_answered(server, promoted, client_at):
    files = version_folder(client_at(promoted.home), "demo-churn", "1")
    request = (files / "serving_input_example.json").read_text(encoding="utf-8")
    status, answer = post(server, request)
    assert (status, len(answer["predictions"])) == (200, 1)


def test_every_form_of_request_gets_the_same_answer(server, table):
    one = table.drop(columns="member_id").iloc[:2]
    split = one.to_dict("split")
    replies = [
        post(server, {"dataframe_records": one.to_dict("records")}),
        post(server, {"dataframe_split": {"columns": split["columns"], "data": split["data"]}}),
        post(server, {"inputs": one.to_dict("list")}),
        post(server, {"inputs": one.to_dict("records")}),
        post(server, {"instances": one.to_dict("records")}),
        post(server, {"dataframe_records": one.assign(note="x", Churn=0).to_dict("records")}),
        post(server, {"dataframe_records": one[one.columns[::-1]].to_dict("records")}),
        post(server, one.to_csv(index=False), content="text/csv"),
    ]
    assert replies[0][0] == 200
    assert all(reply == replies[0] for reply in replies)


def test_a_request_may_set_the_threshold_and_leave_out_the_reasons(server, table):
    records = table.to_dict("records")
    _, plain = post(server, {"dataframe_records": records})
    status, strict = post(
        server, {"dataframe_records": records, "params": {"threshold": 0.01, "reasons": False}}
    )
    assert status == 200
    for before, after in zip(plain["predictions"], strict["predictions"], strict=True):
        assert after["will_churn"] == (before["churn_probability"] > 0.01)
        assert set(before) - set(after) == {"reasons"}


WRONG = {
    "half a year": ({"Age": 30.5}, "Row 0: Age is 30.5; it must be a whole number."),
    "nothing": ({"Age": None}, "Row 0: Age is missing"),
    "words": ({"Age": "thirty"}, "Row 0: Age is the text 'thirty'; give a number."),
    "digits in quotes": ({"Age": "30"}, "Row 0: Age is the text '30'; give a number."),
    "truth": ({"Age": True}, "Row 0: Age is True (bool); give a number."),
    "a contract nobody sells": (
        {"Contract_period": 3, "Month_to_end_contract": 1},
        "Contract_period is 3; it must be",
    ),
    "a rule": (
        {"Contract_period": 1, "Month_to_end_contract": 9},
        "it must hold that Month_to_end_contract <= ",
    ),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_bad_member_gets_400_and_the_reason(server, table, wrong):
    values, message = WRONG[wrong]
    status, answer = post(server, {"dataframe_records": [table.iloc[0].to_dict() | values]})
    assert status == 400
    assert message in answer["message"]
    assert "predictions" not in answer
    assert "Traceback" not in json.dumps(answer)


def test_a_bad_request_gets_400(server, table):
    records = table.to_dict("records")
    columns = list(table.columns)
    for body in (
        {},
        {"dataframe_records": []},
        {"dataframe_split": {"columns": columns, "data": []}},
        {"dataframe_records": [{name: row for name, row in records[0].items() if name != "Age"}]},
        {"dataframe_records": records, "params": {"threshold": 2}},
        {"dataframe_records": records, "params": {"threshold": "high"}},
        "{",
    ):
        status, answer = post(server, body)
        assert (status, "predictions" in answer) == (400, False), body


ALONE = """
import importlib.util, json, sys
import mlflow.pyfunc, pandas as pd
assert importlib.util.find_spec("churnlab") is None
model = mlflow.pyfunc.load_model(sys.argv[1])
print(json.dumps(model.predict(pd.read_json(sys.argv[2], dtype="float64"))))
"""


def test_a_version_works_in_an_environment_made_from_its_own_requirements(
    promoted, client_at, table, tmp_path
):
    files = tmp_path / "version"
    shutil.copytree(version_folder(client_at(promoted.home), "demo-churn", "1"), files)
    members = table.drop(columns="member_id").astype("float64")
    members.to_json(tmp_path / "members.json", orient="records", double_precision=15)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    (install if SOAK else link)(python, files / "requirements.txt")
    settings = environment(tmp_path) | {"MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"}
    alone = subprocess.run(
        [python, "-c", ALONE, files, tmp_path / "members.json"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=settings,
    )
    assert alone.returncode == 0, alone.stderr
    assert "warning" not in alone.stderr.lower(), alone.stderr
    here = mlflow.pyfunc.load_model(str(files)).predict(members)
    there = json.loads(alone.stdout.splitlines()[-1])
    assert [list(answer) for answer in there] == [list(answer) for answer in here]
    for one, other in zip(there, here, strict=True):
        assert one["churn_probability"] == pytest.approx(other["churn_probability"], abs=1e-9)
        assert {**one, "churn_probability": 0} == {**other, "churn_probability": 0}


def link(python: Path, requirements: Path) -> None:
    """Give an environment what pip would install, from the packages that are installed here."""
    (place,) = python.parents[1].glob("lib/*/site-packages")
    wanted = [Requirement(line) for line in requirements.read_text().splitlines()]
    linked = set()
    while wanted:
        requirement = wanted.pop()
        package = distribution(requirement.name)
        assert requirement.specifier.contains(package.version, prereleases=True), requirement
        extras = ("", *sorted(requirement.extras))
        if (package.name, extras) in linked:
            continue
        linked.add((package.name, extras))
        needs = [Requirement(text) for text in package.requires or ()]
        for need in needs:
            if need.marker is None or any(need.marker.evaluate({"extra": one}) for one in extras):
                wanted.append(need)
        for name in {file.parts[0] for file in package.files or ()} - {"..", "__pycache__"}:
            if not (place / name).is_symlink():
                (place / name).symlink_to(package.locate_file(name))


def install(python: Path, requirements: Path) -> None:
    """Install a version's requirements; skip the test where pip reaches no registry."""
    pip = [sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check"]
    smallest = next(line for line in requirements.read_text().split() if line.startswith("skops=="))
    download = subprocess.run(
        [
            *pip,
            "--retries=1",
            "--timeout=30",
            "download",
            "--quiet",
            "--no-deps",
            smallest,
            "-d",
            python.parent,
        ],
        capture_output=True,
        text=True,
    )
    if download.returncode:
        pytest.skip(
            "pip reaches no package registry here, which this test installs from: "
            f"{download.stderr.strip()[-300:]}"
        )
    # Nothing is compiled beforehand: of all that is installed, this test imports a small part.
    made = subprocess.run(
        [*pip, "install", "--quiet", "--no-compile", "-r", requirements],
        capture_output=True,
        text=True,
    )
    assert made.returncode == 0, made.stderr
