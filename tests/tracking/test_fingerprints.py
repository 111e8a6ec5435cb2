"""What the fingerprints of code and config depend on: real copies of the package."""

import shutil
from pathlib import Path

import pytest

from churnlab.tracking.fingerprints import PACKAGE, code_sha256, config_sha256, deciding

ROOMS = sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py"))
FOLDERS = sorted(
    {
        path.parent.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*")
        if path.is_file() and path.parent.name != "__pycache__"
    }
)


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """Return a copy of the package without compiled files."""
    ignored = shutil.ignore_patterns("__pycache__")
    return Path(shutil.copytree(PACKAGE, tmp_path / "churnlab", ignore=ignored))


def fingerprint(package: Path) -> str:
    code_sha256.cache_clear()
    return code_sha256(package)


def test_the_fingerprint_covers_the_package_and_not_only_its_own_room():
    assert PACKAGE.name == "churnlab"
    assert {"commands", "data", "models", "registry", "tracking"} <= set(ROOMS) <= set(FOLDERS)
    assert "." in FOLDERS


@pytest.mark.parametrize("folder", FOLDERS)
def test_one_changed_byte_in_any_folder_changes_the_fingerprint(package, folder):
    before = fingerprint(package)
    file = max(
        (path for path in (package / folder).iterdir() if path.is_file()),
        key=lambda path: path.stat().st_size,
    )
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    assert fingerprint(package) != before


def test_a_new_a_moved_and_a_removed_file_change_the_fingerprint(package):
    found = [fingerprint(package)]
    (package / "data/new.py").write_text("")
    found.append(fingerprint(package))
    (package / "data/new.py").rename(package / "models/new.py")
    found.append(fingerprint(package))
    (package / "models/new.py").unlink()
    (package / "errors.py").unlink()
    found.append(fingerprint(package))
    assert len(set(found)) == 4


def test_compiled_files_and_the_place_of_the_package_do_not_change_the_fingerprint(
    package, tmp_path
):
    before = fingerprint(package)
    for folder in (package, package / "data"):
        (folder / "__pycache__").mkdir()
        (folder / "__pycache__/errors.cpython-311.pyc").write_bytes(b"compiled")
    assert fingerprint(package) == before
    assert fingerprint(Path(shutil.move(package, tmp_path / "elsewhere"))) == before
    assert fingerprint(PACKAGE) == before


def test_a_config_is_fingerprinted_by_what_decides_the_result():
    config = {"seed": 0, "dataset": {"name": "gym", "path": "a.csv"}, "engine": {"workers": 1}}
    same = {"seed": 0, "dataset": {"name": "gym", "path": "b.csv.gz"}, "engine": {"workers": 4}}
    assert deciding(config) == {"seed": 0, "dataset": {"name": "gym"}}
    assert config_sha256("train", config) == config_sha256("train", same)
    assert config_sha256("train", config) != config_sha256("train", same | {"seed": 1})
    assert config_sha256("train", config) != config_sha256("tune", config)


def test_keys_that_datasets_have_got_since_change_no_earlier_fingerprint():
    column = {"kind": "category", "values": ["a", "b"]}
    before = {"dataset": {"name": "club", "columns": {"plan": column}}}
    silent = {"format": None, "missing": None, "before": None, "ordered": False}
    since = column | silent | {"encoding": "one_hot", "fold": False}
    form = {"separator": ";", "decimal": ",", "missing": ["-"], "encoding": "cp1252"}
    now = {"dataset": {"name": "club", "columns": {"plan": since}, "rows_where": None} | form}
    assert config_sha256("train", now) == config_sha256("train", before)
    changes = ({"ordered": True}, {"encoding": "target"}, {"before": "2026-05-01"}, {"fold": True})
    for changed in changes:
        other = {"dataset": {"name": "club", "columns": {"plan": since | changed}}}
        assert config_sha256("train", other) != config_sha256("train", before), changed
    other = {"dataset": before["dataset"] | {"rows_where": "plan != 'a'"}}
    assert config_sha256("train", other) != config_sha256("train", before)


def test_how_numbers_are_written_decides_nothing():
    plain, euros = ({"kind": "numeric", "format": form} for form in (None, "1.234,5 €"))
    one, other = ({"dataset": {"columns": {"paid": column}}} for column in (plain, euros))
    assert config_sha256("train", one) == config_sha256("train", other)
