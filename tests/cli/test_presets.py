"""Words that need not be typed: presets of a dataset's YAML, CHURNLAB_CONF and churnlab.yaml."""

import shlex
from pathlib import Path

import pytest
import yaml

from churnlab.cli.presets import kept_words, preset_words
from churnlab.config.shipped import ROOT
from churnlab.errors import InputError
from support.running import churnlab_at

PRESETS = {"features": "raw", "segments": "all", "playbook": "any", "decision": "f1"}
COLUMNS = {"age": {"kind": "numeric", "min": 0}, "active": {"kind": "binary"}}


def keep(folder: Path, name: str, presets: object, **keys: object) -> Path:
    """Write the YAML of a dataset with presets into a folder of YAMLs; return the folder."""
    block = {"name": name, "path": f"{name}.csv", "target": "left", "positive": 1, "id": None}
    block |= {"columns": COLUMNS, "rules": {}, "late": [], "presets": presets} | keys
    file = folder / "dataset" / f"{name}.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(yaml.safe_dump(block, sort_keys=False), encoding="utf-8")
    return folder


@pytest.fixture
def words_for(tmp_path):
    """Return ``words_for(command, WORDS)``: what the presets of my_conf add to a command line."""

    def find(command: str, line: str) -> list[str]:
        return preset_words(command, shlex.split(line), root=ROOT, folders=[tmp_path / "my_conf"])

    return find


@pytest.fixture
def my_conf(tmp_path):
    return keep(tmp_path / "my_conf", "bank", PRESETS)


@pytest.mark.usefixtures("my_conf")
@pytest.mark.parametrize(
    ("command", "line", "added"),
    [
        ("train", "dataset=bank", ["features=raw", "decision=f1"]),
        ("segment", "dataset=bank", ["segments=all", "playbook=any"]),
        ("explore", "dataset=bank", []),
        ("train", "dataset=demo", []),
        ("train", "", []),
        ("train", "dataset=bank decision=fixed", ["features=raw"]),
        ("train", "dataset=bank features=raw,behaviour", ["decision=f1"]),
        ("train", "dataset=bank features.late=false", ["features=raw", "decision=f1"]),
        ("train", "dataset=bank experiment=course_table", []),
        ("train", "dataset=bank experiment=forest_size", ["decision=f1"]),
        ("train", "dataset=bank experiment=churn_baselines", ["decision=f1"]),
        ("segment", "dataset=bank experiment=cluster_count", ["playbook=any"]),
        (
            "pipeline",
            "dataset=bank",
            [
                "~features@feature_sets.behaviour",
                *("segments=all", "playbook=any", "decision=f1"),
            ],
        ),
        (
            "pipeline",
            "dataset=bank ~features@feature_sets.raw",
            ["segments=all", "playbook=any", "decision=f1"],
        ),
    ],
)
def test_a_preset_is_chosen_where_neither_the_line_nor_its_experiment_decides(
    words_for, command, line, added
):
    assert words_for(command, line) == added


def test_the_features_of_a_preset_are_the_whole_set_of_the_pipeline(tmp_path, words_for):
    (tmp_path / "my_conf" / "features").mkdir(parents=True)
    (tmp_path / "my_conf" / "features" / "ratios.yaml").write_text("name: ratios\n")
    keep(tmp_path / "my_conf", "bank", {"features": "ratios"})
    assert words_for("pipeline", "dataset=bank") == [
        *("~features@feature_sets.raw", "~features@feature_sets.behaviour"),
        "+features@feature_sets.ratios=ratios",
    ]


def test_datasets_of_one_sweep_need_like_presets_or_a_choice_on_the_line(tmp_path, words_for):
    for name, segments in (("bank", "all"), ("shop", "all"), ("club", "behaviour")):
        keep(tmp_path / "my_conf", name, {"segments": segments, "playbook": "any"})
    assert words_for("segment", "dataset=bank,shop") == ["segments=all", "playbook=any"]
    with pytest.raises(InputError, match=r"bank and club have unlike presets for segments"):
        words_for("segment", "dataset=bank,club")
    with pytest.raises(InputError, match=r"bank and demo have unlike presets for segments \(all"):
        words_for("segment", "dataset=bank,demo")
    assert words_for("segment", "dataset=bank,club segments=all") == ["playbook=any"]
    assert words_for("explore", "dataset=bank,club") == []


@pytest.mark.parametrize(
    ("presets", "message"),
    [
        ({"segments": "al"}, r"bank\.yaml: presets: There is no segments=al\. Did you mean "),
        ({"segmets": "all"}, r"bank\.yaml: presets\.segmets is no group; presets choose features"),
        ({"dataset": "demo"}, r"bank\.yaml: presets\.dataset is no group"),
        (["all"], r"bank\.yaml: presets is a block, GROUP: CHOICE"),
    ],
)
def test_a_preset_that_does_not_exist_is_refused_with_the_file(
    tmp_path, words_for, presets, message
):
    keep(tmp_path / "my_conf", "bank", presets)
    with pytest.raises(InputError, match=message):
        words_for("segment", "dataset=bank")


def test_presets_are_not_typed(words_for):
    with pytest.raises(InputError, match=r"dataset\.presets\.segments=all: presets are kept in"):
        words_for("segment", "dataset=demo dataset.presets.segments=all")


@pytest.mark.usefixtures("my_conf")
def test_a_folder_remembers_its_yamls_and_its_dataset(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CHURNLAB_CONF", raising=False)

    def kept(command: str, line: str = "") -> list[str]:
        return kept_words(command, shlex.split(line), root=ROOT)

    assert kept("train") == []
    Path("churnlab.yaml").write_text("config_dir: my_conf\ndataset: bank\n")
    assert kept("train") == ["--config-dir", "my_conf", "dataset=bank"]
    assert kept("train", "dataset=demo") == ["--config-dir", "my_conf"]
    assert kept("init", "clients.csv") == ["--config-dir", "my_conf"]
    assert kept("train", "--config-dir other") == kept("train", "--config-dir=other") == []
    monkeypatch.setenv("CHURNLAB_CONF", "elsewhere")
    assert kept("train") == ["--config-dir", "elsewhere", "dataset=bank"]
    Path("churnlab.yaml").write_text("config_dirs: my_conf\n")
    with pytest.raises(InputError, match=r"churnlab\.yaml: There is no key config_dirs\. Did you"):
        kept("train")


@pytest.mark.usefixtures("my_conf")
def test_a_run_has_what_its_dataset_presets_and_a_config_without_the_presets(
    home, tmp_path, runs_at
):
    ages = [*range(18, 78)] * 4
    rows = [f"{age},{age % 2},{int(age > 45) ^ int(age % 7 == 0)}" for age in ages]
    (tmp_path / "bank.csv").write_text("\n".join(["age,active,left", *rows]) + "\n")
    kept = tmp_path / "churnlab.yaml"
    kept.write_text("config_dir: my_conf\ndataset: bank\n")
    churnlab = churnlab_at(home)  # runs in tmp_path
    trained = churnlab("train", "evaluation.folds=3")
    assert trained.code == 0, trained.err
    params = runs_at(home, command="train")[0].data.params
    assert params["dataset.name"] == "bank"
    assert params["decision._target_"] == "churnlab.models.decision.f1"
    assert not any("presets" in key for key in params)
    shown = churnlab("segment", "--help").out
    assert "dataset=bank|demo|gym" in shown
    assert "dataset.target=left" in shown
    assert "segments=all|" in shown
    kept.unlink()
    offered = churnlab("train", "dataset=bank")
    assert offered.code == 2
    assert "There is my_conf/dataset/bank.yaml: add --config-dir my_conf." in offered.err
