"""A bad table at the command line: exit code 2, one short message, no run kept.

A good table in an unusual format is declared in a YAML."""

import gzip

import pandas as pd
import pytest

from churnlab.data.demo import members
from support.running import churnlab_at

pytestmark = pytest.mark.slow


def written(frame: pd.DataFrame) -> bytes:
    return frame.to_csv(index=False).encode()


GOOD = members(300, seed=4)
BAD = {
    "nothing": b"",
    "a header": written(GOOD.iloc[:0]),
    "binary": bytes(range(256)) * 99,
    "cut off": gzip.compress(written(GOOD))[:-99],
    "semicolons": GOOD.to_csv(index=False, sep=";", decimal=",").encode(),
    "short lines": written(GOOD).replace(b"\n", b",7\n").replace(b"Churn,7", b"Churn,Note", 1)[:-3],
    "a copy of the target": written(GOOD.assign(gender=GOOD["Churn"])),
    "one class": written(GOOD.assign(Churn=0)),
    "three leavers": written(
        pd.concat([GOOD[GOOD["Churn"] == 0], GOOD[GOOD["Churn"] == 1].iloc[:3]])
    ),
    "words": written(GOOD.assign(Churn=GOOD["Churn"].map({0: "stayed", 1: "left"}))),
    "everything": written(GOOD.astype("str").replace(r"\d+", "much " * 200, regex=True)),
}
MESSAGES = {
    "nothing": "it is empty",
    "a header": "a header and no rows",
    "binary": "it is binary",
    "cut off": "cannot be read as a table",
    "semicolons": "its header is separated by semicolons",
    "short lines": "line 301, 14 cells where the header has 15",
    "a copy of the target": "column gender alone predicts who left (AUC 1.000)",
    "one class": "target Churn is never 1 (found: 0)",
    "three leavers": "evaluation.folds=5",
    "words": "target Churn is never 1 (found: stayed, left)",
    "everything": "(14 problems; the first ",
}


@pytest.fixture(scope="module")
def churnlab(shared_home):
    return churnlab_at(shared_home)


@pytest.fixture
def path(shared_home):
    return shared_home.parent / "members.csv"


@pytest.mark.parametrize("bad", BAD)
def test_a_bad_table_ends_with_2_a_short_message_and_nothing_kept(
    churnlab, path, shared_home, runs_at, client_at, bad
):
    path.write_bytes(BAD[bad])
    for command in ("train", "tune") if bad == "three leavers" else ("explore", "train"):
        ended = churnlab(command, "dataset=gym", f"dataset.path={path}")
        assert (ended.code, ended.out) == (2, ""), ended.err
        assert MESSAGES[bad] in ended.err
        assert len(ended.err) < 2000
        assert "Traceback" not in ended.err
    assert all(run.info.status == "FAILED" for run in runs_at(shared_home))
    assert not client_at(shared_home).search_registered_models()


def test_every_job_of_a_sweep_says_what_is_wrong_with_its_table(
    churnlab, path, shared_home, runs_at
):
    path.write_bytes(BAD["one class"])
    ended = churnlab("explore", "-m", "dataset=gym", f"dataset.path={path}", "seed=7,8")
    assert ended.code != 0
    failed = [run for run in runs_at(shared_home, command="explore") if run.info.status == "FAILED"]
    assert [MESSAGES["one class"] in run.data.tags["mlflow.note.content"] for run in failed] == [
        True,
        True,
    ]


def test_an_unusual_format_is_declared_in_a_yaml_of_its_own(churnlab, path):
    frame = GOOD.rename(columns={"Age": "age "}).assign(Phone=1, Town="Orléans")
    path.write_bytes(gzip.compress(frame.to_csv().encode("cp1252")))
    words = ("explore", "dataset=gym", f"dataset.path={path}")
    unknown = churnlab(*words)
    assert unknown.code == 2
    assert (
        "line 2 (byte 0xe9) is not utf-8; declare its encoding, as dataset.encoding=cp1252"
        in unknown.err
    )
    missing = churnlab(*words, "dataset.encoding=cp1252")
    assert missing.code == 2
    assert "there is no column Age" in missing.err
    assert "or write rename: {'age': Age} into the YAML of gym" in missing.err
    own = path.parent / "my_conf/dataset/club.yaml"
    own.parent.mkdir(parents=True)
    own.write_text(
        "defaults: [gym, _self_]\nname: club\nencoding: cp1252\nrename: {'age ': Age}\n",
        encoding="utf-8",
    )
    ended = churnlab(
        "explore",
        "--config-dir",
        str(path.parent / "my_conf"),
        "dataset=club",
        f"dataset.path={path}",
    )
    assert ended.code == 0, ended.err
    assert ended.line["warnings"] == 3
    for warning in (
        "left out the first column, which has no name: an index",
        "left out columns that the dataset does not declare: Town",
        "constant columns, of no use to a model: Phone",
    ):
        assert f"warning: {warning}" in ended.err


@pytest.mark.parametrize(
    ("word", "text"),
    [
        ("dataset.encoding=klingon", "there is no encoding klingon"),
        ("+dataset.rename={a: b}", "rename leads to b, which is no column, target or id"),
    ],
)
def test_an_unknown_encoding_or_name_is_refused(churnlab, path, word, text):
    ended = churnlab("explore", "dataset=gym", f"dataset.path={path}", word)
    assert ended.code == 2
    assert text in ended.err
