"""Nothing of a version is imported before its files are those that were registered."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import skops.io
import yaml
from sklearn.ensemble import RandomForestClassifier

from churnlab.data.demo import members
from churnlab.registry import manifest, versions
from churnlab.registry.input_example import EXAMPLES
from churnlab.tracking.names import Tag
from support.champions import store_at
from support.planted import tables
from support.running import churnlab_at, version_folder

pytestmark = pytest.mark.slow

IMPORTED = "raise SystemExit('a changed file was run')\n"


@pytest.fixture
def home(promoted, tmp_path):
    """A copy of a store with a champion."""
    shutil.copytree(promoted.kept, tmp_path / "home")
    churnlab = churnlab_at(tmp_path / "home")  # opens the moved store
    assert churnlab("history").code == 0
    return tmp_path / "home"


@pytest.fixture
def files(home, client_at):
    return version_folder(client_at(home), "demo-churn", "1")


def test_a_version_keeps_the_hash_of_each_of_its_files(files, client_at, home):
    tags = client_at(home).get_model_version("demo-churn", "1").tags
    kept = json.loads(tags[Tag.MANIFEST])
    present = manifest.manifest_of(files)
    assert {name: present.get(name) for name in kept} == kept
    unlisted = {*present} - {*kept}
    assert all(any(part in manifest.NOT_OURS for part in Path(name).parts) for name in unlisted)
    assert Tag.BY_PIPELINE not in tags, "every shipped model is computed by arrays"


def test_a_version_answers_its_own_examples_as_when_it_was_made(files):
    examples = json.loads((files / EXAMPLES).read_text(encoding="utf-8"))
    assert len(examples["members"]) == len(examples["answers"]) > 1
    assert versions.load_files(files).model.predict(examples["members"]) == examples["answers"]


def test_any_changed_added_removed_or_swapped_file_is_refused_before_anything_is_run(
    files, home, tmp_path
):
    """`make soak` runs 10,000 changes."""
    with store_at(home):
        uri, copy = "models:/demo-churn/1", tmp_path / "copy"
        with manifest.verified_copy(uri) as checked:
            shutil.copytree(checked, copy)
        kept = manifest.manifest_of(copy)
    rng, names = np.random.default_rng(0), sorted(kept)
    for _ in range(tables(300, 10_000)):
        name = str(rng.choice(names))
        path, kind = copy / name, rng.choice(["byte", "add", "remove", "swap", "link"])
        before, named = path.read_bytes(), name
        if kind == "byte":
            place = int(rng.integers(len(before))) if before else 0
            path.write_bytes(
                before[:place] + bytes([(before + b"\0")[place] ^ 1]) + before[place + 1 :]
            )
        elif kind == "add":
            named = f"{path.parent.relative_to(copy).as_posix()}/sitecustomize.py".removeprefix(
                "./"
            )
            (copy / named).write_text(IMPORTED, encoding="utf-8")
        elif kind == "remove":
            path.unlink()
        elif kind == "swap":
            other = copy / str(rng.choice([each for each in names if kept[each] != kept[name]]))
            path.write_bytes(other.read_bytes())
        else:
            path.unlink()
            path.symlink_to("/dev/null")
        with pytest.raises(manifest.Unverified) as refused:
            manifest.check(copy, kept)
        assert "files are not those that were registered" in str(refused.value)
        assert named in str(refused.value)
        (copy / named).unlink(missing_ok=True)
        path.write_bytes(before)
    manifest.check(copy, kept)


def test_a_folder_that_is_loaded_in_another_way_or_holds_other_types_is_refused(files):
    with manifest.copied(str(files)) as copy:
        model = yaml.safe_load((copy / "MLmodel").read_text(encoding="utf-8"))
        forest = RandomForestClassifier(2, random_state=0).fit([[0], [1]], [0, 1])
        skops.io.dump(forest, copy / "artifacts" / "churn.skops")
        manifest.check(copy, manifest.manifest_of(copy))
        (copy / "artifacts" / "skops_types.py").write_text("TRUSTED = []\n", encoding="utf-8")
        with pytest.raises(manifest.Unverified, match=r"churn.skops holds types that its list"):
            manifest.check(copy, manifest.manifest_of(copy))
        model["flavors"]["python_function"]["code"] = "code"
        (copy / "MLmodel").write_text(yaml.safe_dump(model), encoding="utf-8")
        with pytest.raises(manifest.Unverified, match="another way to load it"):
            manifest.check(copy, manifest.manifest_of(copy))


def test_what_is_loaded_is_a_copy_that_later_changes_do_not_reach(files, home):
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    with store_at(home), manifest.verified_copy("models:/demo-churn/1") as copy:
        (files / "served_model.py").write_text(IMPORTED, encoding="utf-8")
        assert copy not in (files, *files.parents)
        assert versions.load_files(copy).spec["dataset"] == "demo"
    sys.dont_write_bytecode = before


def test_every_command_refuses_a_champion_whose_file_was_changed(files, home, tmp_path):
    code = files / "served_model.py"
    code.write_text(IMPORTED + code.read_text(encoding="utf-8"), encoding="utf-8")
    output = tmp_path / "out.csv"
    churnlab = churnlab_at(home)
    (home / "in.csv").write_text("Age\n30\n", encoding="utf-8")
    scored = churnlab("score", f"input={home}/in.csv", f"output={output}")
    unverified = churnlab(
        "score", f"input={home}/in.csv", f"output={output}", "model.unverified=true"
    )
    report = churnlab("report", f"output={tmp_path}/report.html", "dataset.rows=400")
    history = churnlab("history")
    rollback = churnlab("rollback")
    doctor = churnlab("doctor")
    for ended in (scored, unverified, report):
        assert ended.code == 3, ended.err
        assert "changed: served_model.py" in ended.err
        assert "Traceback" not in ended.err
    assert not output.exists()
    assert history.code == 0
    assert rollback.code == 3, "there is no earlier champion"
    (problem,) = doctor.line["problems"]
    assert (problem["kind"], problem["where"]) == ("version with other files", "demo-churn/1")
    assert "changed: served_model.py" in problem["what"]
    assert "reason=version 1 has other files" in problem["fix"]


def test_a_version_without_a_manifest_is_refused_unless_it_is_taken_unverified(
    home, client_at, tmp_path
):
    client_at(home).delete_model_version_tag("demo-churn", "1", Tag.MANIFEST)
    members(20, seed=1).drop(columns="Churn").to_csv(tmp_path / "in.csv", index=False)
    words = ("score", f"input={tmp_path}/in.csv", f"output={tmp_path}/out.csv")
    churnlab = churnlab_at(home)
    refused = churnlab(*words)
    assert refused.code == 3
    assert "no manifest" in refused.err
    assert "model.unverified=true" in refused.err
    taken = churnlab(*words, "model.unverified=true")
    assert taken.code == 0, taken.err
    assert churnlab("history").code == 0
