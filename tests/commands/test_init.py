"""The draft YAML of a table without one, and the way from there to a dataset."""

import shlex
import subprocess

import numpy as np
import pandas as pd
import pytest
import yaml

from churnlab.commands import init
from churnlab.config.groups import DatasetKeys
from support.running import churnlab_at


def clients(n: int = 900, *, seed: int = 3) -> pd.DataFrame:
    """Customers of a bank: an id, numbers and categories with gaps, dates, remarks, and a leaking
    column."""
    rng = np.random.default_rng(seed)
    age, balance = rng.integers(18, 80, n), np.exp(rng.normal(8, 1.5, n)).round(2)
    country = rng.choice(["France", "Germany", "Spain"], n, p=[0.5, 0.3, 0.2])
    active = rng.integers(0, 2, n)
    risk = 0.08 * (age - 45) + (country == "Germany") - 1.5 * active - 1.2
    left = rng.random(n) < 1 / (1 + np.exp(-risk))
    table = pd.DataFrame(
        {
            "CustomerId": 15_600_000 + rng.permutation(n),
            "Age": age.astype("float64"),
            "Balance": balance,
            "Country": country,
            "Active": active,
            "Joined": (
                pd.Timestamp("2020-01-01") + pd.to_timedelta(rng.integers(0, 900, n), unit="D")
            ).astype("str"),
            "Remark": [f"client {number}" for number in range(n)],
            "Currency": "EUR",
            "Fax": np.nan,
            "Refund": np.where(left, rng.normal(50, 3, n), 0).round(2),
            "Exited": np.where(left, "Yes", "No"),
        }
    )
    table.loc[rng.choice(n, 60, replace=False), "Age"] = np.nan
    table.loc[rng.choice(n, 30, replace=False), "Country"] = None
    return table


@pytest.fixture(scope="module")
def churnlab(shared_home):
    """Return what runs commands in the folder where the table is."""
    clients().to_csv(shared_home.parent / "clients.csv", index=False)
    return churnlab_at(shared_home)


@pytest.fixture(scope="module")
def written(churnlab, shared_home):
    """How ``churnlab init`` ended, and the YAML it wrote."""
    ended = churnlab("init", "clients.csv", "name=bank")
    assert ended.code == 0, ended.err
    return ended, (shared_home.parent / "my_conf/dataset/bank.yaml").read_text(encoding="utf-8")


def test_the_draft_declares_what_every_column_seems_to_be(written):
    ended, text = written
    draft = yaml.safe_load(text)
    assert (draft["name"], draft["target"], draft["positive"], draft["id"]) == (
        "bank",
        "Exited",
        "Yes",
        "CustomerId",
    )
    assert draft["columns"] == {
        "Age": {"kind": "numeric", "min": 0, "max": 110, "whole": True},
        "Balance": {"kind": "numeric", "min": 0, "max": draft["columns"]["Balance"]["max"]},
        "Country": {"kind": "category", "values": ["France", "Germany", "Spain"]},
        "Active": {"kind": "binary"},
        "Joined": {"kind": "date", "before": "2022-06-18"},
    }
    assert ended.line == {
        "command": "init",
        "run_id": None,
        "output": "my_conf/dataset/bank.yaml",
        "target": "Exited",
        "id": "CustomerId",
        "left_out": ["Remark", "Currency", "Fax", "Refund"],
    }


def test_columns_left_out_are_comments_with_the_reason(written):
    remarks = {
        line.split(":")[0].strip(" #"): line.partition(":")[2]
        for line in written[1].splitlines()
        if line.startswith("  #")
    }
    assert "dates" in remarks["Joined"]
    assert "identifier" in remarks["Remark"]
    assert "always EUR" in remarks["Currency"]
    assert "empty" in remarks["Fax"]
    assert "who left (AUC 1.000)" in remarks["Refund"]
    assert "60 missing" in written[1]


def test_the_draft_is_a_dataset_that_churnlab_reads(written):
    draft = yaml.safe_load(written[1]) | {"rules": {}, "late": []}
    assert DatasetKeys.model_validate(draft).contract.columns["Age"].whole


def test_a_yaml_is_not_overwritten_unless_forced(churnlab, written, shared_home):
    again = churnlab("init", "clients.csv", "name=bank")
    assert (again.code, again.out) == (2, "")
    assert (
        "exists already; choose another file with output=FILE, or overwrite it with force=true."
        in again.err
    )
    assert churnlab("init", "clients.csv", "name=bank", "force=true").code == 0


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ((), "path has no value yet; give one: churnlab init PATH."),
        (("nothing.csv",), "name an existing table with path=FILE."),
        (("nothing.csv",), "There is no file nothing.csv"),
        (("clients.csv", "target=Exitd"), "has no column Exitd. Did you mean Exited?"),
        (("clients.csv", "name=a b"), "name="),
        (("clients.csv", "output=clients.csv/x.yaml"), "cannot be written"),
    ],
)
def test_a_mistake_is_explained_in_one_paragraph(churnlab, words, text):
    ended = churnlab("init", *words)
    assert (ended.code, ended.out) == (2, "")
    assert text in ended.err
    assert len(ended.err.splitlines()) == 1


def test_without_a_likely_target_the_yaml_requires_one(churnlab, shared_home):
    clients().rename(columns={"Exited": "Outcome"}).to_csv(
        shared_home.parent / "other table.csv", index=False
    )
    ended = churnlab("init", "other table.csv")
    assert ended.code == 0, ended.err
    assert ended.line["target"] is None
    text = (shared_home.parent / "my_conf/dataset/other_table.yaml").read_text(encoding="utf-8")
    assert "target: ???" in text
    assert "one of Active, Outcome" in text
    explored = churnlab("explore", "--config-dir", "my_conf", "dataset=other_table")
    assert explored.code == 2
    assert "dataset.target has no value yet" in explored.err


NAMED = {
    "Клиенты банка.csv": "klienty_banka",
    "Ærø-café.csv": "r_cafe",
    "会员.csv": "members",
    "2024-05.csv": "members_2024_05",
    "true.csv": "members_true",
    "on.csv": "members_on",
    "null.csv": "members_null",
    "1e3.csv": "members_1e3",
    "~.csv": "members",
    "a=b, c & d.csv": "a_b_c_d",
    "it's [a] #list?.csv": "it_s_a_list",
}


@pytest.mark.parametrize("file", NAMED)
def test_a_dataset_gets_a_latin_name_of_its_file(file):
    assert init._word(init._dataset_name(file)).replace("-", "_") == NAMED[file]


@pytest.mark.parametrize(
    "file", ["Клиенты банка.csv", "2024-05.csv", "a=b, c & d.csv", "it's [a] #list?.csv"]
)
def test_the_name_of_any_file_is_told_and_the_next_command_works(churnlab, shared_home, file):
    name, folder = NAMED[file], shared_home.parent
    clients().to_csv(folder / file, index=False)
    ended = churnlab("init", file, "force=true")
    assert ended.code == 0, ended.err
    assert ended.line["output"] == f"my_conf/dataset/{name}.yaml"
    assert f"the dataset's name is {name}; choose another with name=NAME" in ended.err
    _, _, command = ended.err.partition("Check it, then run: churnlab ")
    explored = churnlab(*shlex.split(command))
    assert explored.code == 0, explored.err


@pytest.mark.parametrize("name", ["2026", "on"])
def test_a_given_name_that_reads_as_no_text_gets_a_word_too(churnlab, written, name):
    ended = churnlab("init", "clients.csv", f"name={name}", "force=true")
    assert ended.code == 0, ended.err
    assert f"the dataset's name is members_{name}; choose another with name=NAME" in ended.err
    _, _, command = ended.err.partition("Check it, then run: churnlab ")
    assert churnlab(*shlex.split(command), "dry_run=true").code == 0


@pytest.mark.parametrize(
    "words",
    [["demo.csv"], ["clients.csv", "name=demo"], ["clients.csv", "output=y/dataset/gym.yaml"]],
)
def test_a_name_that_churnlab_has_is_refused_with_a_command_that_works(
    churnlab, shared_home, words
):
    clients(90).to_csv(shared_home.parent / "demo.csv", index=False)
    ended = churnlab("init", *words, "force=true")
    assert (ended.code, ended.out) == (2, "")
    assert "would be ignored: churnlab has a dataset " in ended.err
    assert len(ended.err.splitlines()) == 1
    advised = shlex.split(ended.err.rpartition(": ")[2])
    assert advised[:2] == ["churnlab", "init"]
    again = churnlab(*advised[1:], "force=true")
    assert again.code == 0, again.err
    _, _, command = again.err.partition("Check it, then run: churnlab ")
    explored = churnlab(*shlex.split(command))
    assert explored.line["rows"] == (90 if words == ["demo.csv"] else 900)


@pytest.mark.parametrize("output", ["own/x.yaml", "o n/dataset/y.yml", "z.yaml"])
def test_the_next_command_moves_a_yaml_to_where_datasets_are_found(churnlab, shared_home, output):
    ended = churnlab("init", "clients.csv", f"output='{output}'")
    assert ended.code == 0, ended.err
    *moves, explore = ended.err.partition("then run: ")[2].strip().split(" && churnlab ")
    subprocess.run(moves[0], shell=True, check=True, cwd=shared_home.parent)
    explored = churnlab(*shlex.split(explore), "dry_run=true")
    assert explored.code == 0, explored.err


@pytest.mark.parametrize(
    ("target", "holds"),
    [
        ("Age", "54 (21 rows), "),
        ("Country", "France ("),
        ("Currency", "EUR (900 rows)"),
        ("Fax", "nothing"),
    ],
)
def test_a_target_without_two_values_is_refused_with_its_values_and_what_to_do(
    churnlab, target, holds
):
    ended = churnlab("init", "clients.csv", f"target={target}", "name=none")
    assert (ended.code, ended.out) == (2, "")
    assert f"The column {target} holds " in ended.err
    assert holds in ended.err
    assert "cannot be the target, which has two values: who left and who stayed." in ended.err
    assert "(one of Active, Exited)" in ended.err


def test_nested_and_boolean_columns_of_parquet_are_recognized(churnlab, shared_home):
    frame = clients(60).assign(Tags=[["a", "b"]] * 60, Loyal=[True, None, False] * 20)
    frame.to_parquet(shared_home.parent / "nested.parquet")
    ended = churnlab("init", "nested.parquet")
    assert ended.code == 0, ended.err
    draft = yaml.safe_load(
        (shared_home.parent / "my_conf/dataset/nested.yaml").read_text(encoding="utf-8")
    )
    assert "Tags" in ended.line["left_out"]
    assert draft["columns"]["Loyal"] == {"kind": "binary"}
    refused = churnlab("init", "nested.parquet", "target=Tags", "force=true")
    assert refused.code == 2
    assert "The column Tags holds lists or the like and cannot be the target" in refused.err
    declared = churnlab(
        "explore",
        "--config-dir",
        "my_conf",
        "dataset=nested",
        "+dataset.columns.Tags={kind: category}",
    )
    assert declared.code == 2
    assert (
        "column Tags: ['a' 'b'] is a list or the like, not a category (and in 59 more rows)"
        in declared.err
    )


@pytest.mark.parametrize("command", ["init", "pipeline"])
def test_a_table_in_which_no_column_is_left_to_learn_from_says_so_and_why(
    churnlab, shared_home, command
):
    table = pd.DataFrame(
        {
            "id": [f"M-{number}" for number in range(60)],
            "salary": [f"{number / 2}k" for number in range(60)],
            "churn": [0, 1, 0] * 20,
        }
    )
    file = f"none_left_{command}.csv"
    table.to_csv(shared_home.parent / file, index=False)
    if command == "init":
        ended = churnlab("init", file, "target=churn")
        assert ended.code == 0
    else:
        ended = churnlab("pipeline", f"input={file}", "target=churn")
        assert ended.code == 2
    said = "no column is left to learn from: salary (numbers that a letter multiplies, as 0.0k"
    assert said in ended.err
    assert "declare one under columns:" in ended.err
    assert "valid dictionary" not in ended.err


def test_the_yaml_of_a_dataset_without_columns_is_refused_with_what_to_do(churnlab, shared_home):
    folder = shared_home.parent / "bare/dataset"
    folder.mkdir(parents=True)
    keys = "name: bare\npath: clients.csv\ntarget: Exited\npositive: 'Yes'\nid: CustomerId\n"
    (folder / "bare.yaml").write_text(f"{keys}columns:\nrules: {{}}\nlate: []\n", encoding="utf-8")
    ended = churnlab("explore", "--config-dir", str(folder.parent), "dataset=bare")
    assert ended.code == 2
    assert "dataset.columns: no column is left to learn from; declare one" in ended.err
