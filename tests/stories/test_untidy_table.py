"""Values in several spellings, codes for unknown, nulls and a status of codes go from init to a
champion that gives a scored file, JSON and a notebook the same answers; totals are no members."""

import json

import numpy as np
import pandas as pd
import pytest

from support.champions import loaded
from support.running import churnlab_at

pytestmark = pytest.mark.slow

NAMED = ("--config-dir", "my_conf", "dataset=club")


def untidy_club(n: int, *, seed: int) -> pd.DataFrame:
    """Draw members as text, as several people typed them."""
    rng = np.random.default_rng(seed)
    town = rng.choice(["Paris", "PARIS", "paris ", "Lyon", "lyon"], n)
    age, auto = rng.integers(18, 80, n), rng.choice(["Yes", "no", "null", ""], n)
    joined = pd.Timestamp("2015-01-01") + pd.to_timedelta(rng.integers(0, 3000, n), unit="D")
    risk = 0.06 * (45 - age) + 1.2 * (pd.Series(town).str.strip().str.casefold() == "paris")
    left = risk + rng.logistic(0, 0.8, n) > 0.5
    table = pd.DataFrame(
        {
            "member": [f"M-{number:04d}" for number in range(n)],
            "town": town,
            "age": age.astype(str),
            "joined": joined.strftime("%d.%m.%Y"),
            "auto": auto,
            "visits": rng.poisson(4, n).astype(str),
            "status": np.where(left, "CHU", np.where(rng.random(n) < 0.1, "NEW", "ACT")),
        }
    )
    table.loc[rng.random(n) < 0.1, "age"] = "999"
    table.loc[rng.random(n) < 0.1, "joined"] = "01.01.1900"
    return table


@pytest.fixture(scope="module")
def churnlab(shared_home):
    """Return what runs commands in the folder of the tables."""
    untidy_club(400, seed=0).to_csv(shared_home.parent / "club.csv", index=False)
    new = untidy_club(40, seed=1).drop(columns="status")
    new.to_csv(shared_home.parent / "new.csv", index=False)
    return churnlab_at(shared_home)


@pytest.fixture(scope="module")
def road(churnlab):
    """How init, train and promote ended, without a touch of the YAML."""
    promoted = ("segment_run=none", "force=true", "reason=test", "evaluation.folds=3")
    ended = {
        "init": churnlab("init", "club.csv"),
        "train": churnlab("train", *NAMED, "evaluation.folds=3"),
        "promote": churnlab("promote", *NAMED, *promoted),
    }
    for end in ended.values():
        assert end.code == 0, end.err
    return ended


@pytest.fixture(scope="module")
def version(road, shared_home):
    """The champion as anybody loads it."""
    with loaded(shared_home, "club-churn") as version:
        yield version


@pytest.fixture(scope="module")
def cells(road, shared_home):
    """The file to be scored, cell by cell as text; visits, which no table wrote in words, not."""
    table = pd.read_csv(shared_home.parent / "new.csv", dtype="str", keep_default_na=False)
    return table.astype({"visits": "int64"})


def probabilities(answers: list[dict]) -> list[float]:
    return [answer["churn_probability"] for answer in answers]


def test_init_says_what_it_saw(road):
    for seen in (
        "not sure: status holds codes: CHU is read as left, ACT as stayed, NEW as neither",
        "is also written '",
        "one value each (fold: true)",
        "age: numbers but for '999' in ",
        "joined: dates but for '01.01.1900' in ",
        "auto: Yes or no but for 'null' in ",
        " empty cells, which count as missing",
    ):
        assert seen in road["init"].err
    assert "to correct before it is used" not in road["init"].err


def test_a_file_json_and_a_notebook_get_the_same_answer(churnlab, version, cells, shared_home):
    ended = churnlab("score", *NAMED, "input=new.csv", "output=scored.csv")
    assert ended.code == 0, ended.err
    scored = pd.read_csv(shared_home.parent / "scored.csv")["churn_probability"].tolist()
    assert probabilities(version.predict(cells)) == pytest.approx(scored, rel=1e-12)
    records = json.loads(cells.to_json(orient="records"))
    assert probabilities(version.predict(records)) == pytest.approx(scored, rel=1e-12)
    as_pandas_reads = pd.read_csv(shared_home.parent / "new.csv")
    days = pd.to_datetime(as_pandas_reads["joined"], format="%d.%m.%Y")
    assert as_pandas_reads["age"].dtype.kind == "i"
    typed = version.predict(as_pandas_reads.assign(joined=days))
    assert probabilities(typed) == pytest.approx(scored, rel=1e-12)


def test_one_member_in_any_spelling_has_one_probability(version, cells):
    ways = ["Paris", "PARIS", " paris", "pArIs  "]
    same = pd.concat([cells.head(1)] * 4).assign(town=ways, member=["a", "b", "c", "d"])
    assert len({*probabilities(version.predict(same))}) == 1


def test_totals_below_a_file_are_no_member_in_any_command(churnlab, road, cells, shared_home):
    visits = str(cells["visits"].sum())
    line = {"member": "Total", "visits": visits}
    new = pd.concat([cells, pd.DataFrame([line])]).fillna("")
    new.to_csv(shared_home.parent / "totals.csv", index=False)
    words = ("score", *NAMED, "input=totals.csv")
    refused = churnlab(*words, "output=never.csv")
    assert refused.code == 2
    assert f"line 42, a line of totals ('Total', and visits is {visits}, the sum" in refused.err
    kept = churnlab(*words, "output=kept.csv", "score.on_bad_row=reject")
    assert (kept.code, kept.line["rows"], kept.line["rejected"]) == (0, 40, 1), kept.err
    club = pd.read_csv(shared_home.parent / "club.csv", dtype="str", keep_default_na=False)
    line["visits"] = str(club["visits"].astype(int).sum())
    both = pd.concat([club, pd.DataFrame([line])]).fillna("")
    both.to_csv(shared_home.parent / "both.csv", index=False)
    drafted = churnlab("init", "both.csv")
    assert drafted.code == 2
    assert "line 402 holds totals ('Total', and visits is " in drafted.err
    trained = churnlab("train", *NAMED, "dataset.path=both.csv", "dataset.rows_where=null")
    assert trained.code == 2
    assert "line 402, a line of totals ('Total'" in trained.err
