"""A user's YAML with the name of one of churnlab's own is refused by every command, not ignored."""

import shlex
import subprocess

import pytest

from churnlab.config.commands import COMMANDS
from churnlab.config.shipped import yamls
from support.running import churnlab_at


@pytest.fixture(scope="module")
def churnlab(shared_home):
    return churnlab_at(shared_home)


def test_every_name_that_churnlab_has_is_refused_with_both_paths_and_a_free_name(
    churnlab, shared_home
):
    for number, (path, place) in enumerate(yamls()):
        own = shared_home.parent / f"own folder {number}" / place
        own.parent.mkdir(parents=True)
        own.write_text("seed: 7\n")
        folder = own.parents[len(place.parts) - 1]
        ended = churnlab("explore", "--config-dir", str(folder))
        assert (ended.code, ended.out) == (2, ""), place
        assert ended.err.startswith(f"{own} would be ignored: churnlab has a YAML of that name, ")
        assert str(path) in ended.err
        assert ended.err.count("\n") == 1
        advice = ended.err.rpartition(": ")[2]
        subprocess.run(["bash", "-c", advice], check=True)
        (renamed,) = own.parent.glob("*.yaml")
        if place.parts[0] in ("model", "experiment"):
            assert f"{place.parts[0]}={renamed.stem}: mv " in ended.err
            elsewhere = churnlab("explore", "--config-dir", str(folder), "dry_run=true")
            assert elsewhere.code == 0, elsewhere.err


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_refuses_the_name(churnlab, shared_home, command):
    own = shared_home.parent / "own/model/random_forest.yaml"
    own.parent.mkdir(parents=True, exist_ok=True)
    own.write_text("name: mine\n")
    for option in (["--config-dir", "own"], ["-cd=own"], [f"hydra.searchpath=[{own.parents[1]}]"]):
        ended = churnlab(command, *option)
        assert ended.code == 2
        assert "own/model/random_forest.yaml would be ignored" in ended.err


def test_churnlabs_own_folder_is_no_user_of_its_names(churnlab):
    path, place = next(yamls())
    folder = path.parents[len(place.parts) - 1]
    assert churnlab("explore", "--config-dir", str(folder), "dry_run=true").code == 0


def test_a_free_name_is_free_in_both_folders(churnlab, shared_home):
    for name in ("dummy", "my_dummy", "my_dummy_2"):
        own = shared_home.parent / f"crowded/model/{name}.yaml"
        own.parent.mkdir(parents=True, exist_ok=True)
        own.write_text("name: mine\n")
    ended = churnlab("train", "--config-dir", "crowded")
    assert shlex.split(ended.err.rpartition(": ")[2])[-1] == "crowded/model/my_dummy_3.yaml"
