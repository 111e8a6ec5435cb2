"""A pipeline on a file without a YAML: ``churnlab pipeline input=FILE``."""

from pathlib import Path

import pytest

from churnlab.cli.drafted import draft_input
from churnlab.errors import InputError

ROWS = [f"{number},{18 + number % 60},{number % 2},{int(number % 7 == 0)}" for number in range(120)]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for file, target in (("clients.csv", "churned"), ("people.csv", "colour")):
        text = "\n".join([f"client id,age,active,{target}", *ROWS])
        (tmp_path / file).write_text(f"{text}\n", encoding="utf-8")
    return tmp_path


def test_the_yaml_is_drafted_once_and_then_kept(folder):
    words = ["input=clients.csv", "tune.n_trials=3"]
    expected = ["--config-dir", "my_conf", "dataset=clients", "tune.n_trials=3"]
    assert draft_input("pipeline", words, []) == expected
    draft = folder / "my_conf/dataset/clients.yaml"
    assert "presets: {features: raw, segments: all, playbook: any, decision: as_many}" in (
        draft.read_text(encoding="utf-8")
    )
    draft.write_text(draft.read_text(encoding="utf-8") + "# corrected\n", encoding="utf-8")
    assert draft_input("pipeline", words, []) == expected
    assert draft.read_text(encoding="utf-8").endswith("# corrected\n")


def test_it_is_drafted_into_the_folder_of_the_command_line():
    words = ["input=clients.csv", "name=bank", "target=churned"]
    assert draft_input("pipeline", words, [Path("conf_of_mine")]) == ["dataset=bank"]
    assert Path("conf_of_mine/dataset/bank.yaml").is_file()


def test_a_dry_run_writes_nothing():
    words = ["input=clients.csv", "target=churned", "seed=1", "dry_run=true"]
    assert draft_input("pipeline", words, []) == ["seed=1", "dry_run=true"]
    assert not Path("my_conf").exists()


def test_other_commands_and_words_without_input_are_left_alone():
    for command, words in (("pipeline", ["dataset=demo"]), ("score", ["input=clients.csv"])):
        assert draft_input(command, words, []) == words
    assert not Path("my_conf").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["input=nobody.csv"], "There is no file nobody.csv .*; name an existing table with input"),
        (["input=people.csv"], "No column of people.csv says .* who left; name it with target=COL"),
        (["input=clients.csv", "dataset=demo"], "input=clients.csv and dataset=demo name two tab"),
        (["input=clients.csv", "target=left"], "clients.csv has no column left"),
    ],
)
def test_what_cannot_be_drafted_is_refused_and_leaves_no_file(words, message):
    with pytest.raises(InputError, match=message):
        draft_input("pipeline", words, [])
    assert not list(Path("my_conf").rglob("*.yaml"))


def test_a_yaml_for_another_target_is_not_overwritten():
    draft_input("pipeline", ["input=clients.csv"], [])
    before = Path("my_conf/dataset/clients.yaml").read_bytes()
    with pytest.raises(InputError, match=r"clients\.yaml is there already .* name=NAME, or delete"):
        draft_input("pipeline", ["input=clients.csv", "target=active"], [])
    assert Path("my_conf/dataset/clients.yaml").read_bytes() == before
