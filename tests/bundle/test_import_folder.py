"""Modules of a version's folder stay apart from others of the same names."""

import sys

from churnlab.bundle.import_folder import imported_from


def test_two_folders_with_the_same_module_do_not_mix(tmp_path):
    for name in ("old", "new"):
        (tmp_path / name / "pack_of_two").mkdir(parents=True)
        (tmp_path / name / "pack_of_two/__init__.py").write_text("")
        (tmp_path / name / "pack_of_two/inner.py").write_text(f"WHICH = '{name}'\n")
        (tmp_path / name / "one_of_two.py").write_text(
            "from pack_of_two.inner import WHICH\nclass Model:\n    which = WHICH\n"
        )
    path, found = [*sys.path], []
    for name in ("old", "new", "old"):
        with imported_from(tmp_path / name):
            import one_of_two

            found.append(one_of_two.Model().which)
        assert sys.path == path
        assert not {"one_of_two", "pack_of_two", "pack_of_two.inner"} & {*sys.modules}
    assert found == ["old", "new", "old"]
    assert not list(tmp_path.rglob("__pycache__"))


def test_a_module_that_was_loaded_before_is_back_afterwards(tmp_path):
    (tmp_path / "colorsys.py").write_text("MINE = True\n")
    import colorsys

    with imported_from(tmp_path):
        import colorsys as mine

        assert mine.MINE
    assert sys.modules["colorsys"] is colorsys
    assert not hasattr(colorsys, "MINE")
