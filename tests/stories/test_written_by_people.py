"""A table as people write it goes from init to a champion that gives a scored file, JSON and a
notebook the same answer for the file's own cells."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from mlflow.exceptions import MlflowException

from churnlab.models.decision import COSTS
from support.champions import loaded
from support.odd_club import odd_club
from support.running import THREE_SEGMENTS, churnlab_at

pytestmark = pytest.mark.slow

NAMED = ("--config-dir", "my_conf", "dataset=club")
ANSWERED = ["churn_probability", "will_churn", "segment"]


def read(scored: Path) -> pd.DataFrame:
    """A scored file, which has the separator and the decimal comma of the input."""
    return pd.read_csv(scored, sep=";", decimal=",", dtype={"Card No": "str"})


@pytest.fixture(scope="module")
def churnlab(shared_home):
    """Return what runs commands in the folder of the tables."""
    odd_club(700, seed=0).to_csv(shared_home.parent / "club.csv", sep=";", index=False)
    new = odd_club(40, seed=1).drop(columns="Customer Status")
    new.to_csv(shared_home.parent / "new.csv", sep=";", index=False)
    new.assign(Visits="?").to_csv(shared_home.parent / "nobody.csv", sep=";", index=False)
    return churnlab_at(shared_home)


@pytest.fixture(scope="module")
def road(churnlab):
    """How init, explore, train, segment and promote ended, without a touch of the YAML."""
    clustering = ("segments=all", "playbook=any", *THREE_SEGMENTS)
    ended = {
        "init": churnlab("init", "club.csv"),
        "explore": churnlab("explore", *NAMED),
        "train": churnlab("train", *NAMED, "evaluation.folds=3"),
        "segment": churnlab("segment", *NAMED, *clustering),
        "promote": churnlab("promote", *NAMED, "evaluation.folds=3", "force=true", "reason=test"),
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
    """The file to be scored, cell by cell as text."""
    return pd.read_csv(shared_home.parent / "new.csv", sep=";", dtype="str", keep_default_na=False)


@pytest.fixture(scope="module")
def scored(churnlab, road, shared_home):
    ended = churnlab("score", *NAMED, "input=new.csv", "output=scored.csv")
    assert ended.code == 0, ended.err
    assert "Visits (" in ended.err
    assert "written '?' (" in ended.err
    return read(shared_home.parent / "scored.csv")


def test_init_says_what_it_saw_and_explore_reads_it(road):
    for seen in (
        "who left: Customer Status is Churned in ",
        "id: Card No",
        "rows with Joined take no part: `Customer Status` in ['Churned', 'Stayed']",
        "Joined on: dates, read as their age in days before ",
        "Visits: numbers but for '?' in ",
        "'None' in ",
    ):
        assert seen in road["init"].err
    assert "to correct before it is used" not in road["init"].err
    assert "rows take no part: `Customer Status` in" in road["explore"].err
    assert road["explore"].line["rows"] < 700
    assert road["train"].line["cv_roc_auc"] > 0.75


def test_a_file_a_notebook_and_json_get_the_same_answer_for_the_same_cells(version, cells, scored):
    answers = pd.DataFrame(version.predict(cells))
    records = json.loads(cells.to_json(orient="records"))
    assert version.predict(records) == version.predict(cells)
    assert answers["Card No"].tolist() == scored["Card No"].tolist()
    pd.testing.assert_frame_equal(
        answers[ANSWERED], scored[ANSWERED], check_exact=False, rtol=1e-12
    )


def test_a_frame_as_pandas_reads_the_file_gets_the_same_answer_too(version, cells, shared_home):
    read = pd.read_csv(
        shared_home.parent / "new.csv", sep=";", decimal=",", na_values="?", keep_default_na=False
    )
    assert read["Visits"].dtype.kind == "f"
    assert version.predict(read) == version.predict(cells)


def test_ages_count_from_the_day_of_training_whatever_day_the_yaml_states_later(
    churnlab, version, scored, shared_home
):
    yaml = shared_home.parent / "my_conf/dataset/club.yaml"
    written = yaml.read_text(encoding="utf-8")
    trained = version.unwrap_python_model().served["reading"]["Joined on"]["before"]
    assert f'before: "{trained}"' in written
    later = written.replace(f'before: "{trained}"', 'before: "2031-05-01"')
    yaml.write_text(later, encoding="utf-8")
    try:
        ended = churnlab("score", *NAMED, "input=new.csv", "output=later.csv")
    finally:
        yaml.write_text(written, encoding="utf-8")
    assert ended.code == 0, ended.err
    assert f"counts ages before {trained}, as it was trained; the YAML of club says" in ended.err
    pd.testing.assert_frame_equal(read(shared_home.parent / "later.csv"), scored)


@pytest.mark.parametrize(
    ("name", "cell", "text"),
    [
        (" Paid ", "12.5 €", "Paid is the text '12.5 €'; give a number written like 1.234,5 €."),
        ("Joined on", "2024-05-01", "give a date written like DD.MM.YYYY."),
        ("Pays itself", "perhaps", "Pays itself is the text 'perhaps'; give a number."),
        ("Months", "3-1", "Months is 3-1; it must be one of 1-3, 4-6, 10-12, 13+"),
    ],
)
def test_a_cell_in_other_clothes_gets_no_number(
    version, cells, churnlab, shared_home, name, cell, text
):
    wrong = cells.copy()
    wrong.loc[3, name] = cell
    with pytest.raises(MlflowException) as refused:
        version.predict(wrong)
    assert refused.value.message.startswith("Row 3: ")
    assert text in refused.value.message
    wrong.to_csv(shared_home.parent / "wrong.csv", sep=";", index=False)
    ended = churnlab("score", *NAMED, "input=wrong.csv", "output=never.csv")
    assert ended.code == 2
    assert f"line 5, column {name.strip()}: {cell!r} is not" in ended.err


def test_what_may_be_missing_may_be_missing_in_every_row_of_a_batch(
    churnlab, version, cells, shared_home
):
    ended = churnlab("score", *NAMED, "input=nobody.csv", "output=nobody_scored.csv")
    assert ended.code == 0, ended.err
    assert "Visits (40 of 40, 100.0%, written '?' (40))" in ended.err
    answers = version.predict(cells.assign(Visits=None))
    found = read(shared_home.parent / "nobody_scored.csv")["churn_probability"]
    assert found.tolist() == pytest.approx([one["churn_probability"] for one in answers])


def test_a_column_that_may_be_missing_may_be_absent_from_a_batch_as_from_a_request(
    churnlab, version, cells, shared_home
):
    without = cells.drop(columns="Visits")
    without.to_csv(shared_home.parent / "without.csv", sep=";", index=False)
    ended = churnlab("score", *NAMED, "input=without.csv", "output=without_scored.csv")
    assert ended.code == 0, ended.err
    assert "there is no column Visits: every value counts as missing" in ended.err
    found = read(shared_home.parent / "without_scored.csv")["churn_probability"]
    answers = version.predict(without)
    assert found.tolist() == pytest.approx([one["churn_probability"] for one in answers])


@pytest.mark.parametrize("seed", range(3))
def test_any_batch_is_scored_as_the_version_answers_its_cells(
    churnlab, version, cells, shared_home, seed
):
    rng = np.random.default_rng(seed)
    batch = cells.sample(int(rng.integers(1, 12)), random_state=seed).reset_index(drop=True)
    for name, gaps in {"Visits": ["?", "", " "], " Paid ": ["", "  ", "\u00a0"]}.items():
        gone = rng.random(len(batch)) < rng.choice([0.5, 1.0])
        batch.loc[gone, name] = rng.choice(gaps, int(gone.sum()))
    for name in ("Months", "Offer", "Pays itself"):
        batch[name] = [
            f"{' ' * rng.integers(3)}{cell}{' ' * rng.integers(2)}" for cell in batch[name]
        ]
    batch.to_csv(shared_home.parent / "batch.csv", sep=";", index=False)
    ended = churnlab("score", *NAMED, "input=batch.csv", "output=batch_scored.csv")
    assert ended.code == 0, ended.err
    found = read(shared_home.parent / "batch_scored.csv")
    answers = pd.DataFrame(version.predict(batch))
    assert version.predict(json.loads(batch.to_json(orient="records"))) == version.predict(batch)
    pd.testing.assert_frame_equal(answers[ANSWERED], found[ANSWERED], rtol=1e-12)


@pytest.mark.parametrize("output", ["kept.csv", "kept.parquet"])
def test_bad_rows_are_rejected_with_their_lines_and_reasons_and_the_others_are_scored(
    churnlab, version, cells, shared_home, output
):
    wrong = cells.copy()
    wrong.loc[3, " Paid "] = "12.5 €"
    wrong.loc[3, "Offer"] = "Silver"
    wrong.loc[7, "Card No"] = wrong.loc[6, "Card No"]
    wrong.loc[9, "Offer"] = " "
    wrong.to_csv(shared_home.parent / "wrong.csv", sep=";", index=False)
    words = ("input=wrong.csv", f"output={output}", "score.on_bad_row=reject")
    ended = churnlab("score", *NAMED, *words)
    assert ended.code == 0, ended.err
    assert (ended.line["rows"], ended.line["rejected"]) == (37, 3)
    assert f"3 rows rejected, with the reason of each: {output}.rejected.csv" in ended.err
    rejected = pd.read_csv(
        shared_home.parent / ended.line["rejected_output"],
        sep=";",
        dtype="str",
        keep_default_na=False,
    )
    assert rejected["place"].tolist() == ["line 5", "line 9", "line 11"]
    assert rejected["reason"].tolist() == [
        "column Paid: '12.5 €' is not a number written like 1.234,5 €; "
        "column Offer: 'Silver' is not one of Basic, Gold, None",
        f"id Card No: {wrong.loc[6, 'Card No']!r} occurs in an earlier row, too",
        "column Offer: the value is missing",
    ]
    assert rejected[" Paid "][0] == "12.5 €"
    file = shared_home.parent / output
    found = pd.read_parquet(file) if output.endswith("parquet") else read(file)
    kept = cells.drop(index=[3, 7, 9])
    assert found["Joined on"].tolist() == kept["Joined on"].tolist()
    assert found["Card No"].tolist() == kept["Card No"].tolist()
    answers = [one["churn_probability"] for one in version.predict(kept)]
    assert found["churn_probability"].tolist() == pytest.approx(answers)


def test_what_may_not_be_missing_is_refused_in_such_a_batch(churnlab, cells, shared_home):
    cells.assign(Offer="").to_csv(shared_home.parent / "no_offer.csv", sep=";", index=False)
    ended = churnlab("score", *NAMED, "input=no_offer.csv", "output=never.csv")
    assert ended.code == 2
    assert "column Offer: the value is missing" in ended.err


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_a_contact_list_knows_the_value_and_the_id_as_the_table_writes_them(
    churnlab, road, cells, shared_home, form
):
    table = cells.copy()
    table.loc[3, "Offer"] = "Silver"
    wished = {" Paid ": "Fee", "Card No": "Number"}
    table = table.rename(columns=wished)
    file = shared_home.parent / f"renamed.{form}"
    table.to_parquet(file) if form == "parquet" else table.to_csv(file, sep=";", index=False)
    renamed = "+dataset.rename={Fee: Paid, Number: Card No}"
    words = ("score", *NAMED, f"input=renamed.{form}", renamed, "score.on_bad_row=reject")
    words = (*words, "contacts=true", *COSTS.split(), "decision.retained_value=null")
    words = (*words, "decision.value_column=Paid")
    lists, workers = [], ("engine=processes", "engine.workers=2")
    for engine in ((), workers) if form == "csv" else ((),):
        ended = churnlab(*words, f"output=contacts.{form}", *engine)
        assert ended.code == 0, ended.err
        assert (ended.line["rows"], ended.line["rejected"]) == (39, 1)
        place = shared_home.parent / f"contacts.{form}"
        found = pd.read_parquet(place) if form == "parquet" else read(place)
        lists.append(found)
        how = {"sep": None, "engine": "python", "dtype": "str", "encoding": "utf-8-sig"}
        out = pd.read_csv(f"{place}.left_out.csv", **how)
        assert sorted([*found["Card No"], *out["Card No"]]) == sorted(cells["Card No"])
        (why,) = out.loc[out["Card No"] == cells["Card No"][3], "reason"]
        assert why == "rejected: column Offer: 'Silver' is not one of Basic, Gold, None"
    pd.testing.assert_frame_equal(lists[0], lists[-1])
    paid = cells.set_index("Card No")[" Paid "].loc[found["Card No"]].str.removesuffix(" €")
    amounts = paid.str.replace(".", "").str.replace(",", ".").astype("float64")
    assert len(found) > 3
    assert found["value"].tolist() == amounts.tolist()


def test_the_value_of_a_member_may_follow_from_the_age_of_a_date(
    churnlab, road, version, cells, shared_home
):
    value = "decision.retained_value='2 * `Joined on`'"
    words = ("score", *NAMED, "input=new.csv", "output=by_age.csv", "contacts=true")
    ended = churnlab(*words, *COSTS.split(), value)
    assert ended.code == 0, ended.err
    found = read(shared_home.parent / "by_age.csv")
    before = version.unwrap_python_model().served["reading"]["Joined on"]["before"]
    joined = pd.to_datetime(cells.set_index("Card No")["Joined on"], format="%d.%m.%Y")
    days = (pd.Timestamp(before) - joined).dt.days
    assert len(found) > 3
    assert found["value"].tolist() == (2.0 * days.loc[found["Card No"]]).tolist()
