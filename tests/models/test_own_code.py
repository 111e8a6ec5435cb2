"""Which code a model's own classes need."""

import sys
from pathlib import Path

import pytest

from churnlab.models.own_code import own_code, types_in


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A folder of modules, none of them imported yet, at the end of the path."""
    (tmp_path / "kit").mkdir()
    for place, text in {
        "nets.py": "import numpy as np\nimport helpers_of_nets\ntry:\n    import no_such\n"
        "except ImportError:\n    pass\n",
        "helpers_of_nets.py": "def late():\n    import yaml\n    from kit.inner import x\n",
        "kit/__init__.py": "",
        "kit/inner.py": "from . import other\nx = 1\n",
        "kit/other.py": "import json, sklearn.linear_model\n",
        "unrelated.py": "import matplotlib\n",
    }.items():
        (tmp_path / place).write_text(text)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    return tmp_path


def test_files_are_found_through_their_imports_and_nothing_is_imported(folder):
    found = own_code(["nets.Net"])
    assert set(found.files) == {
        *("nets.py", "helpers_of_nets.py", "kit/__init__.py", "kit/inner.py", "kit/other.py")
    }
    assert found.files["kit/inner.py"] == folder / "kit/inner.py"
    assert {name.lower() for name in found.packages} == {"pyyaml"}
    assert not {"nets", "helpers_of_nets", "kit"} & {*sys.modules}


def test_the_fingerprint_changes_with_any_of_the_files(folder):
    before = own_code(["nets.Net"]).sha256()
    (folder / "unrelated.py").write_text("x = 2\n")
    assert own_code(["nets.Net"]).sha256() == before
    (folder / "kit/other.py").write_text("import json\n")
    assert own_code(["nets.Net"]).sha256() != before


def test_an_installed_class_needs_its_package_and_no_file():
    pytest.importorskip("lightgbm")
    found = own_code(["lightgbm.sklearn.LGBMClassifier", "sklearn.tree.DecisionTreeClassifier"])
    assert (dict(found.files), found.packages) == ({}, {"lightgbm"})


def test_classes_of_scikit_learn_need_nothing_else():
    found = own_code(["sklearn.svm.SVC", "churnlab.models.features.Features", "builtins.float"])
    assert (dict(found.files), set(found.packages)) == ({}, set())


def test_the_types_of_a_block_are_those_after_target_wherever_they_stand():
    nested = {"_target_": "a.B", "steps": [["x", {"_target_": "c.D", "of": {"_target_": "e.F"}}]]}
    assert list(types_in(nested)) == ["a.B", "c.D", "e.F"]
    assert list(types_in(None)) == list(types_in({"_target_": 5})) == []
