"""Requests: each form gives the version's own answers, and what is wrong gets no number."""

import json
import warnings

import mlflow
import numpy as np
import orjson
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlflow.exceptions import MlflowException
from mlflow.pyfunc.scoring_server import infer_and_parse_data
from mlflow.pyfunc.scoring_server import invocations as mlflow_server

from churnlab.data.demo import members
from churnlab.serving.requests import Invocations, Refusal
from support.club import club_members
from support.running import version_folder
from support.soak import SOAK

pytestmark = pytest.mark.slow

MOST = 2000


def examples(most: int) -> settings:
    """Return how many examples a property is tried on: in the short form a fifth."""
    return settings(deadline=None, max_examples=most if SOAK else most // 5)


def loaded(folder) -> mlflow.pyfunc.PyFuncModel:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.dont_write_bytecode", True)  # leave the version as it is
        return mlflow.pyfunc.load_model(str(folder))


@pytest.fixture(scope="module")
def demo_version(promoted, client_at):
    """A version that ignores other columns; its members are numbers."""
    version = promoted.promote["version"]
    return loaded(version_folder(client_at(promoted.home), "demo-churn", version))


@pytest.fixture(scope="module")
def club_version(club):
    """A version that refuses other columns; its members have texts, dates, codes and gaps."""
    return loaded(club)


@pytest.fixture(scope="module")
def versions(demo_version, club_version):
    return {"demo": demo_version, "club": club_version}


@pytest.fixture(scope="module")
def invocations(versions):
    models = {name: version.unwrap_python_model() for name, version in versions.items()}
    return {name: Invocations(model, most_rows=MOST) for name, model in models.items()}


@pytest.fixture(scope="module")
def demo(invocations):
    return invocations["demo"]


def records(name: str, n: int, *, seed: int = 1) -> list[dict]:
    """Members as JSON has them."""
    table = members(n, seed=seed) if name == "demo" else club_members(n, seed=seed)
    table = table.drop(columns="Churn" if name == "demo" else "left")
    found = json.loads(table.to_json(orient="records", double_precision=15))
    return [{key: None if cell == "" else cell for key, cell in one.items()} for one in found]


def body(**request) -> bytes:
    return json.dumps(request).encode()


def outcome(ask, *given) -> object:
    """The answers, or status, message and what is known of the place."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of columns that are no inputs
            return ask(*given)
    except Refusal as refusal:
        found = {key: one for key, one in refusal.body.items() if key != "error_code"}
        return refusal.status, found.pop("message"), found
    except MlflowException as error:
        return error.get_http_status_code(), error.message, error.json_kwargs


# The same answers in every form


def as_columns(rows: list[dict]) -> dict[str, list]:
    return {name: [row[name] for row in rows] for name in rows[0]}


FORMS = {
    "records": lambda rows: body(dataframe_records=rows),
    "split": lambda rows: body(
        dataframe_split={"columns": [*rows[0]], "data": [[*row.values()] for row in rows]}
    ),
    "split of pandas": lambda rows: body(
        dataframe_split=pd.DataFrame(rows, dtype=object).to_dict("split")
    ),
    "inputs as records": lambda rows: body(inputs=rows),
    "inputs as columns": lambda rows: body(inputs=as_columns(rows)),
    "instances as records": lambda rows: body(instances=rows),
    "instances as columns": lambda rows: body(instances=as_columns(rows)),
    "records in another order": lambda rows: body(
        dataframe_records=[dict(reversed(row.items())) for row in rows]
    ),
    "with blanks around a name": lambda rows: body(
        dataframe_records=[{f" {name}\t": cell for name, cell in row.items()} for row in rows]
    ),
    "without null": lambda rows: body(
        dataframe_records=[{k: v for k, v in row.items() if v is not None} for row in rows]
    ),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["demo", "club"])
@pytest.mark.parametrize("batch", [1, 7, 1000])
def test_every_form_in_batches_of_any_size_has_the_bits_of_the_version(
    versions, invocations, name, form, batch
):
    rows = records(name, 1000 if batch == 1000 else 14)
    expected = versions[name].predict(pd.DataFrame(rows, dtype=object))
    found = []
    for start in range(0, len(rows), batch):
        found += invocations[name].json(FORMS[form](rows[start : start + batch]))
    assert found == expected
    json.loads(orjson.dumps(found))


@pytest.mark.parametrize("name", ["demo", "club"])
@pytest.mark.parametrize("batch", [1, 7, 1000])
def test_a_csv_has_the_bits_of_the_same_members_in_a_frame(versions, invocations, name, batch):
    table = members(1000, seed=2) if name == "demo" else club_members(1000, seed=2)
    table = table.drop(columns="Churn" if name == "demo" else "left")
    expected = versions[name].predict(table)
    found = []
    for start in range(0, 1000 if batch == 1000 else 21, batch):
        part = table.iloc[start : start + batch]
        found += invocations[name].csv(part.to_csv(index=False).encode())
    assert found == expected[: len(found)]


@pytest.mark.parametrize("name", ["demo", "club"])
def test_one_member_alone_is_an_input_too(invocations, name):
    (row,) = records(name, 1)
    expected = invocations[name].json(body(dataframe_records=[row]))
    assert invocations[name].json(body(inputs=row)) == expected
    assert invocations[name].json(body(instances=row)) == expected


@pytest.mark.parametrize("name", ["demo", "club"])
def test_mlflow_answers_the_same_from_the_same_json(versions, invocations, name):
    for form in ("records", "split"):
        sent = FORMS[form](records(name, 50))
        parsed = infer_and_parse_data(json.loads(sent))
        assert invocations[name].json(sent) == versions[name].predict(parsed)


def test_what_mlflow_converts_before_the_version_sees_it_is_refused(demo_version, demo):
    rows = records("demo", 2)
    true = [rows[0], {**rows[1], "Lifetime": True}]
    table = pd.DataFrame(rows)
    twice = table.to_csv(index=False).splitlines()
    shifted = [twice[0], *(f"0,{line}" for line in twice[1:])]
    for kind, converted, message in (
        ("json", body(instances=true), "Row 1: Lifetime is True"),
        ("json", body(inputs=as_columns(true)), "Row 1: Lifetime is True"),
        ("json", body(inputs=rows).replace(b'"Age": ', b'"Age": 99, "Age": '), "occurs twice"),
        ("json", body(inputs=rows, params={"treshold": 0.1}), "no parameter 'treshold'"),
        ("json", body(inputs=rows, rows=2), "the unknown field 'rows'"),
        (
            "csv",
            "\n".join([twice[0] + ",Age", *(f"{row},9" for row in twice[1:])]).encode(),
            "keep",
        ),
        ("csv", "\n".join(shifted).encode(), "Line 2 has 14 cells"),
    ):
        content = {"json": "application/json", "csv": "text/csv"}[kind]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            answered = mlflow_server(converted, content, demo_version, None)
        assert len(json.loads(answered.response)["predictions"]) == 2
        with pytest.raises(Refusal, match=message):
            getattr(demo, kind)(converted)


def test_threshold_and_reasons_are_those_of_the_request(versions, invocations):
    rows = records("demo", 30)
    for params in ({}, {"reasons": False}, {"threshold": 0}, {"threshold": 0.9, "reasons": True}):
        expected = versions["demo"].predict(pd.DataFrame(rows), params=params)
        assert invocations["demo"].json(body(instances=rows, params=params)) == expected


def test_columns_that_are_no_inputs_are_ignored_without_a_word(demo):
    rows = records("demo", 3)
    other = [{**row, "Churn": 1, f"shoe {i}": {"size": [42]}} for i, row in enumerate(rows)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert demo.json(body(dataframe_records=other)) == demo.json(body(dataframe_records=rows))
        table = pd.DataFrame(rows).assign(Churn=1, shoe="a,b")
        assert demo.csv(table.to_csv(index=False).encode()) == demo.json(body(inputs=rows))


def test_ids_are_echoed_as_they_were_written(invocations):
    rows = records("club", 6)
    ids = ["007", 7, 7.0, None, "Анна", 2**53]
    found = invocations["club"].json(
        body(inputs=[{**row, "card": card} for row, card in zip(rows, ids, strict=True)])
    )
    assert [one.get("card") for one in found] == ["007", "7", "7", None, "Анна", str(2**53)]
    table = club_members(3, seed=1).drop(columns="left").assign(card=["007", "", "NA"])
    found = invocations["club"].csv(table.to_csv(index=False).encode())
    assert [one.get("card") for one in found] == ["007", None, "NA"]


def test_a_version_of_an_earlier_churnlab_answers_through_a_frame(versions, invocations):
    class Earlier:
        def __init__(self, model):
            self.served, self.predict = model.served, model.predict

    for name in versions:
        earlier = Invocations(Earlier(versions[name].unwrap_python_model()), most_rows=MOST)
        for sent in (FORMS["records"](records(name, 20)), FORMS["split"](records(name, 1))):
            assert earlier.json(sent) == invocations[name].json(sent)
        wrong = body(inputs=[{**records(name, 1)[0], "age": -1, "Age": -1}])
        assert outcome(earlier.json, wrong) == outcome(invocations[name].json, wrong)
        table = pd.DataFrame(records(name, 3)).assign(shoe=42).to_csv(index=False).encode()
        assert outcome(earlier.csv, table) == outcome(invocations[name].csv, table)


# Whatever is in the cells: as the version answers a frame of them

CELLS = (
    st.none()
    | st.booleans()
    | st.integers(-3, 120)
    | st.sampled_from([0, 1, 6, 12, 7, 500, 999, 2**53 + 2, -(2**63)])
    | st.floats(-10, 400)
    | st.sampled_from([1e300, -1e16, 5e-324, 0.5, 7.0, 12.0, 999.0, -0.0])
    | st.sampled_from(
        ["gold", " gold ", "basic", "don't know", "Omsk", "", " ", "NA", "None", "007", "7", "01"]
    )
    | st.sampled_from(["yes", "No", "TRUE", "30.04.2026", "2026-04-30", "1.234,5", "12", "1e3"])
    | st.text(st.characters(exclude_categories=("Cs",)), max_size=4)
)


def exact(name: str, cell: object) -> bool:
    """Not a long number where digits count: such a one is refused before the version sees it."""
    texts = ("card", "plan", "city", "district", "offer")
    return name not in texts or not isinstance(cell, float) or abs(cell) < 2**53


@examples(250)
@given(data=st.data(), name=st.sampled_from(["demo", "club"]), seed=st.integers(0, 5))
def test_any_cells_are_answered_or_refused_in_the_words_of_the_version(
    versions, invocations, data, name, seed
):
    rows = records(name, data.draw(st.integers(1, 4)), seed=seed)
    names = [*rows[0], "member_id", "Churn", "left", "shoe", " Age", "age "]
    for _ in range(data.draw(st.integers(0, 4), label="changes")):
        row, field = data.draw(st.sampled_from(rows)), data.draw(st.sampled_from(names))
        if data.draw(st.integers(0, 4), label="change") == 0:
            row.pop(field, None)
        else:
            cell = data.draw(CELLS, label=field)
            if exact(field, cell):
                row[field] = cell
    frame = pd.DataFrame(rows, dtype=object)
    expected = outcome(versions[name].unwrap_python_model().predict, None, frame)
    for form in (body(dataframe_records=rows), body(instances=rows)):
        assert outcome(invocations[name].json, form) == expected
    split = frame.astype(object).where(frame.notna(), None).to_dict("split")
    assert outcome(invocations[name].json, body(dataframe_split=split)) == expected


@examples(100)
@given(data=st.data(), rows=st.integers(1, 3))
def test_texts_that_were_read_before_mean_the_same_again(invocations, data, rows):
    table = records("club", rows)
    for row in table:
        row["city"] = data.draw(
            st.sampled_from(["Omsk", " ", "NA", "Нет", " Omsk"]) | st.text("ab ")
        )
        row["plan"] = data.draw(st.sampled_from(["gold", "gold ", "basic", "\u200bgold"]))
    sent = body(dataframe_records=table)
    first = outcome(invocations["club"].json, sent)
    assert outcome(invocations["club"].json, sent) == first


def test_what_is_kept_of_texts_and_headers_is_bounded(versions):
    club = Invocations(versions["club"].unwrap_python_model(), most_rows=20_000)
    (row,) = records("club", 1)
    many = [{**row, "city": f"city {number}"} for number in range(15_000)]
    for start in range(0, 15_000, 5_000):
        club.json(body(inputs=many[start : start + 5_000], params={"reasons": False}))
    club.json(body(inputs=[{**row, "city": "x" * 1000}]))
    assert 5_000 < len(club.texts["city"]) <= 10_001
    assert max(len(text) for text in club.texts["city"] if text) <= 100
    before = club.places.cache_info().currsize
    wide = {**row, **dict.fromkeys((f"column {number}" for number in range(2_000)), 1)}
    with pytest.raises(Refusal, match="does not declare the columns column 0, column 1"):
        club.json(body(inputs=[wide]))
    assert club.places.cache_info().currsize == before


def test_more_columns_than_a_table_has_are_refused(invocations):
    for name, asked in invocations.items():
        (row,) = records(name, 1)
        wide = row | dict.fromkeys((f"column {number}" for number in range(10_000)), 1)
        csv = pd.DataFrame([wide]).to_csv(index=False).encode()
        for ask, sent in ((asked.json, body(inputs=wide)), (asked.csv, csv)):
            status, message, found = outcome(ask, sent)
            assert (status, found["reason"]) == (400, "columns")
            assert message.startswith("There are 10,01")


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(-5, 5) | st.text("aA é", max_size=3),
    lambda parts: (
        st.lists(parts, max_size=3)
        | st.dictionaries(
            st.sampled_from(["Age", "columns", "data", "index", "a"]), parts, max_size=3
        )
    ),
    max_leaves=8,
)
FIELDS = ("dataframe_records", "dataframe_split", "inputs", "instances", "params", "other")


@examples(300)
@given(request=st.dictionaries(st.sampled_from(FIELDS), ANYTHING, max_size=2) | ANYTHING)
def test_whatever_the_forms_hold_it_is_refused(demo, request):
    status, message, found = outcome(demo.json, json.dumps(request).encode())
    assert status == 400
    assert message
    assert found["reason"] in ("form", "params", "rows", "columns")


def test_as_many_names_as_rows_cost_no_square(demo):
    rows = [{**row, f"other {number}": 1} for number, row in enumerate(records("demo", MOST))]
    assert len(demo.json(body(inputs=rows, params={"reasons": False}))) == MOST


# What is refused: cells

WRONG_CELLS = {
    "words": ("thirty", "type"),
    "digits in quotes": ("30", "type"),
    "other digits": ("٣٠", "type"),
    "an empty text": ("", "type"),
    "a list": ([30], "type"),
    "an empty list": ([], "type"),
    "an object": ({"value": 30}, "type"),
    "null": (None, "missing"),
    "far too low": (-(10**9), "range"),
    "far too high": (1e300, "range"),
    "a tiny fraction": (5e-324, "range"),
    "true": (True, "type"),
    "false": (False, "type"),
}
BINARY = ("gender", "Near_Location", "Partner", "Promo_friends", "Phone", "Group_visits")
REAL = (
    "Avg_additional_charges_total",
    "Month_to_end_contract",
    "Avg_class_frequency_total",
    "Avg_class_frequency_current_month",
)


PLACES = [
    (field, wrong)
    for field in (*BINARY, *REAL, "Contract_period", "Age", "Lifetime")
    for wrong, (cell, _) in WRONG_CELLS.items()
    if not (isinstance(cell, bool) and field in BINARY or cell == 5e-324 and field in REAL)
]


@pytest.mark.parametrize(("field", "wrong"), PLACES)
@pytest.mark.parametrize("form", ["records", "split", "inputs as columns"])
def test_a_wrong_cell_is_refused_with_row_field_and_value(demo, field, wrong, form):
    cell, reason = WRONG_CELLS[wrong]
    rows = records("demo", 3)
    rows[1][field] = cell
    with pytest.raises(Refusal) as refused:
        demo.json(FORMS[form](rows))
    found = refused.value.body
    assert refused.value.status == 400
    assert found["error_code"] == "INVALID_PARAMETER_VALUE"
    assert (found["reason"], found["row"], found["field"]) == (reason, 1, field)
    assert found["message"].startswith(f"Row 1: {field} is ")
    if not isinstance(cell, list | dict | None):
        assert found["value"] == (cell if cell != 1e300 else "1e+300")
    assert len(found["message"]) < 400
    assert orjson.loads(orjson.dumps(found)) == found


CLUB_CELLS = {
    "an unknown plan": (
        "plan",
        "platinum",
        "category",
        "plan is platinum; it must be one of basic",
    ),
    "a plan without end": ("plan", "x" * 10**6, "category", "it must be one of basic"),
    "a plan by its number": ("plan", 1, "category", "it must be one of basic"),
    "no plan": ("plan", None, "missing", "plan is missing"),
    "a blank plan": ("plan", " \t", "missing", "plan is missing"),
    "plans": ("plan", ["gold"], "type", "plan is a list; give one value."),
    "a code of two": ("offer", 1, "type", "offer is 1 (int); give the text (1 or 01)."),
    "an unknown code": ("offer", 2, "category", "it must be one of 1, 01, None"),
    "a gap for None": ("offer", None, "missing", "for the text None: keep_default_na"),
    "a city that is a list": ("city", ["Omsk"], "type", "city is a list; give one value."),
    "a city of many digits": ("city", 10**25, "type", "city is 1e+25; give so long a number as"),
    "two days": ("joined", "31.02.2026", "type", "give a date written like DD.MM.YYYY"),
    "a day of another format": ("joined", "2026-04-30", "type", "written like DD.MM.YYYY"),
    "a day that is true": ("joined", True, "type", "joined is True (bool); give a date"),
    "money of another format": ("paid", "1,234.5", "type", "a number written like 1.234,5"),
    "money that is a word": ("paid", "much", "type", "paid is the text 'much'; give a number"),
    "money below zero": ("paid", "-5", "range", "paid is -5; it must be at least 0"),
    "half a year": ("age", 30.5, "range", "age is 30.5; it must be a whole number"),
    "years in quotes": ("age", "30", "type", "age is the text '30'; give a number"),
    "a score in words": ("score", "best", "type", "score is the text 'best'; give a number"),
    "neither yes nor no": ("news", "perhaps", "type", "news is the text 'perhaps'"),
    "two for one": ("news", 2, "range", "news is 2; it must be one of 0, 1"),
    "truth in quotes": ("vip", "true", "type", "vip is the text 'true'; give a number"),
    "a broken rule": ("first_visit", 5000, "rule", "it must hold that first_visit <= `last visit`"),
    "an id that is a list": ("card", [7], "type", "card is a list; give one value."),
    "an id that is an object": ("card", {"id": 7}, "type", "card is an object; give one value."),
    "an id of many digits": ("card", 10**25, "type", "card is 1e+25; give so long a number as"),
}


@pytest.mark.parametrize("wrong", CLUB_CELLS)
@pytest.mark.parametrize("form", ["records", "split", "instances as columns"])
def test_texts_dates_and_codes_are_refused_likewise(invocations, wrong, form):
    field, cell, reason, message = CLUB_CELLS[wrong]
    rows = records("club", 3, seed=4)
    rows[2][field] = cell
    with pytest.raises(Refusal) as refused:
        invocations["club"].json(FORMS[form](rows))
    found = refused.value.body
    assert (found["reason"], found["row"], found["field"]) == (reason, 2, field)
    assert found["message"].startswith("Row 2: ")
    assert message in found["message"]
    assert len(orjson.dumps(found)) < 800


def test_the_first_wrong_row_is_named_with_all_that_is_wrong_in_it(demo):
    rows = records("demo", 4)
    rows[3]["Age"] = True
    rows[2] |= {"Age": "old", "Phone": 0.5, "gender": None}
    with pytest.raises(Refusal) as refused:
        demo.json(body(dataframe_records=rows))
    assert refused.value.body["message"] == (
        "Row 2: Age is the text 'old'; give a number. gender is missing; give it a value. "
        "Phone is 0.5; it must be one of 0, 1."
    )


# What is refused: bodies

ROW = records("demo", 1)[0]
NAMES, DATA = [*ROW], [[*ROW.values()]]
WITHOUT_AGE = {name: cell for name, cell in ROW.items() if name != "Age"}
WRONG_BODIES = {
    "no JSON": ("{", "json", "The body is no strict JSON: it is cut off"),
    "a name twice": ('{"inputs": [{"Age": 1, "Age": 2}]}', "json", "the name 'Age' occurs twice"),
    "a form twice": ('{"inputs": [], "inputs": []}', "json", "the name 'inputs' occurs twice"),
    "NaN": ('{"inputs": [{"Age": NaN}]}', "json", "NaN is no number in JSON"),
    "beyond float64": ('{"inputs": [{"Age": 1e999}]}', "json", "1e999 is too large a number"),
    "a list": ([ROW], "form", "The body is a list; give an object with one of dataframe_records"),
    "a text": ("dataframe_records", "form", "The body is the text"),
    "null": (None, "form", "The body is null; give an object"),
    "a number": (30, "form", "The body is 30; give an object"),
    "an empty object": ({}, "form", "The body has none of dataframe_records, dataframe_split"),
    "only params": ({"params": {}}, "form", "The body has none of"),
    "a member itself": (ROW, "form", 'give exactly one, as {"dataframe_records": [{"NAME"'),
    "two forms": (
        {"inputs": [ROW], "instances": [ROW]},
        "form",
        "The body has inputs, instances of dataframe_records",
    ),
    "an unknown field": ({"inputs": [ROW], "id": 1}, "form", "has the unknown field 'id'"),
    "a parameter outside": (
        {"inputs": [ROW], "threshold": 0.3},
        "form",
        "give inputs, and threshold and reasons within params",
    ),
    "MLflow's old form": ({"columns": NAMES, "data": DATA}, "form", "The body has none of"),
    "signature_name": ({"instances": [ROW], "signature_name": "x"}, "form", "'signature_name'"),
    "messages": ({"messages": []}, "form", "The body has none of"),
    "no list": ({"dataframe_records": ROW}, "form", "dataframe_records is an object; give a list"),
    "records that are null": ({"dataframe_records": None}, "form", "dataframe_records is null"),
    "records in quotes": ({"dataframe_records": "[]"}, "form", "dataframe_records is the text"),
    "inputs that are a number": ({"inputs": 1}, "form", "inputs is 1; give a list of one object"),
    "inputs that are null": ({"inputs": None}, "form", "inputs is null; give a list"),
    "rows without names": ({"instances": DATA}, "form", "Row 0 is a list; give an object of names"),
    "a row that is null": ({"instances": [ROW, None]}, "form", "Row 1 is null; give an object"),
    "a row that is a text": ({"inputs": [ROW, "ROW"]}, "form", "Row 1 is the text 'ROW'"),
    "a row of a row": ({"inputs": [[ROW]]}, "form", "Row 0 is a list"),
    "columns of two lengths": (
        {"inputs": {"Age": [1, 2], "Phone": [1]}},
        "form",
        "inputs has 2 rows, but Phone is a list of length 1; give one cell per row.",
    ),
    "a column and a value": (
        {"instances": {"Age": [1, 2], "Phone": 1}},
        "form",
        "instances has 2 rows, but Phone is 1; give one cell per row.",
    ),
    "columns of objects": ({"inputs": {"Age": {"0": 30}}}, "columns", "There is no column gender"),
    "split that is a list": ({"dataframe_split": [ROW]}, "form", "must be an object with columns"),
    "split without columns": (
        {"dataframe_split": {"data": DATA}},
        "form",
        "must be an object with",
    ),
    "split without data": (
        {"dataframe_split": {"columns": NAMES}},
        "form",
        "must be an object with",
    ),
    "split with more": (
        {"dataframe_split": {"columns": NAMES, "data": DATA, "dtype": "float"}},
        "form",
        "must be an object with columns, data and perhaps index",
    ),
    "split with a name that is none": (
        {"dataframe_split": {"columns": [1, *NAMES[1:]], "data": DATA}},
        "form",
        "columns of dataframe_split must be a list of names",
    ),
    "split with columns of levels": (
        {"dataframe_split": {"columns": [[name, "x"] for name in NAMES], "data": DATA}},
        "form",
        "must be a list of names",
    ),
    "split with one row": (
        {"dataframe_split": {"columns": NAMES, "data": DATA[0]}},
        "form",
        "must be a list with one list of cells per row",
    ),
    "split with records": (
        {"dataframe_split": {"columns": NAMES, "data": [ROW]}},
        "form",
        "must be a list with one list of cells per row",
    ),
    "split with a short row": (
        {"dataframe_split": {"columns": NAMES, "data": [DATA[0], DATA[0][:-1]]}},
        "form",
        "Row 1 of data has 12 cells for 13 columns",
    ),
    "split with a long row": (
        {"dataframe_split": {"columns": NAMES, "data": [[*DATA[0], 1]]}},
        "form",
        "Row 0 of data has 14 cells for 13 columns",
    ),
    "split with a short index": (
        {"dataframe_split": {"columns": NAMES, "data": DATA, "index": []}},
        "form",
        "index of dataframe_split must be a list with one label per row",
    ),
    "split with an index that is a number": (
        {"dataframe_split": {"columns": NAMES, "data": DATA, "index": 0}},
        "form",
        "index of dataframe_split must be",
    ),
    "split with a column twice": (
        {"dataframe_split": {"columns": [*NAMES, "Age"], "data": [[*DATA[0], 30]]}},
        "columns",
        "Several columns are called Age; keep one.",
    ),
    "split with an id twice": (
        {"dataframe_split": {"columns": [*NAMES, *["member_id"] * 2], "data": [[*DATA[0], 1, 2]]}},
        "columns",
        "Several columns are called member_id; keep one.",
    ),
    "split with a column twice but for a blank": (
        {
            "dataframe_split": {
                "columns": [*NAMES[1:], " gender", "gender "],
                "data": [[*DATA[0], 1]],
            }
        },
        "columns",
        "Several columns are called gender; keep one.",
    ),
    "no row": ({"dataframe_records": []}, "rows", "There is no row; give at least one member."),
    "no row in columns": ({"inputs": {"Age": []}}, "rows", "There is no row"),
    "no row in split": ({"dataframe_split": {"columns": NAMES, "data": []}}, "rows", "There is no"),
    "an empty member": ({"inputs": [{}]}, "columns", "There is no column gender; the inputs are"),
    "nobody": ({"inputs": {}}, "columns", "There is no column gender"),
    "a missing column": (
        {"inputs": [WITHOUT_AGE]},
        "columns",
        "There is no column Age; the inputs",
    ),
    "a name of another case": (
        {"inputs": [{**WITHOUT_AGE, "age": 30}]},
        "columns",
        "no column Age",
    ),
    "a column missing in one row": (
        {"inputs": [ROW, WITHOUT_AGE]},
        "missing",
        "Row 1: Age is missi",
    ),
    "params that are null": (
        {"inputs": [ROW], "params": None},
        "params",
        "params is null; give an",
    ),
    "params that are a list": ({"inputs": [ROW], "params": []}, "params", "params is a list; give"),
    "params that are a text": (
        {"inputs": [ROW], "params": "x"},
        "params",
        "params is the text 'x'",
    ),
}
WRONG_PARAMS = {
    "another": (
        {"treshold": 0.5},
        "There is no parameter 'treshold'; there are threshold and reas",
    ),
    "an upper case": ({"Reasons": True}, "There is no parameter 'Reasons'"),
    "a text": ({"threshold": "0.5"}, "threshold is the text '0.5'; give a probability between 0"),
    "true": ({"threshold": True}, "threshold is true; give a probability"),
    "null": ({"threshold": None}, "threshold is null; give a probability"),
    "a list": ({"threshold": [0.5]}, "threshold is a list; give a probability"),
    "below": ({"threshold": -0.01}, "threshold is -0.01; give a probability between 0 and 1"),
    "above": ({"threshold": 1.01}, "threshold is 1.01; give a probability between 0 and 1"),
    "far above": ({"threshold": 10**30}, "give a probability between 0 and 1"),
    "one for true": ({"reasons": 1}, "reasons is 1; give true or false"),
    "a word for true": ({"reasons": "true"}, "reasons is the text 'true'; give true or false"),
    "nothing": ({"reasons": None}, "reasons is null; give true or false"),
    "an object": ({"reasons": {}}, "reasons is an object; give true or false"),
}
WRONG_BODIES |= {
    f"params: {name}": ({"inputs": [ROW], "params": params}, "params", message)
    for name, (params, message) in WRONG_PARAMS.items()
}


@pytest.mark.parametrize("wrong", WRONG_BODIES)
def test_a_wrong_body_is_refused_with_the_reason(demo, wrong):
    request, reason, message = WRONG_BODIES[wrong]
    raw = isinstance(request, str) and request.startswith("{")
    with pytest.raises(Refusal) as refused:
        demo.json(request.encode() if raw else json.dumps(request).encode())
    assert refused.value.status == 400
    assert refused.value.body["reason"] == reason
    assert message in refused.value.body["message"]
    assert len(refused.value.body["message"]) < 400
    orjson.dumps(refused.value.body)


def test_other_columns_are_refused_where_the_dataset_does_so(invocations):
    (row,) = records("club", 1)
    assert invocations["club"].json(body(inputs=[{**row, "left": "yes"}]))
    with pytest.raises(Refusal) as refused:
        invocations["club"].json(body(inputs=[{**row, "shoe": 42, "x" * 10**6: 1}]))
    assert (refused.value.body["reason"], refused.value.body["field"]) == ("columns", "shoe")
    assert "does not declare the columns shoe, xxx" in refused.value.body["message"]
    assert len(refused.value.body["message"]) < 200


def test_too_many_rows_are_refused_in_one_sentence_in_every_form(demo):
    rows = records("demo", 1) * MOST
    assert len(demo.json(body(inputs=rows, params={"reasons": False}))) == MOST
    rows += rows[:1]
    table = pd.DataFrame(rows).to_csv(index=False).encode()
    asked = [lambda form=form: demo.json(form(rows)) for form in FORMS.values()]
    for ask in (*asked, lambda: demo.csv(table)):
        with pytest.raises(Refusal) as refused:
            ask()
        assert refused.value.status == 413
        assert refused.value.body["reason"] == "rows"
        assert str(refused.value) == "There are 2,001 rows; give at most 2,000 in a request."


# What is refused: CSV

HEADER, LINE = ",".join(NAMES), ",".join(map(str, DATA[0]))


def with_age(cell: str) -> str:
    cells = [cell if name == "Age" else str(value) for name, value in ROW.items()]
    return f"{HEADER}\n{LINE}\n{','.join(cells)}\n"


WRONG_TABLES = {
    "nothing": ("", "csv", "The CSV is empty"),
    "blank lines": ("\n \n\n", "csv", "The CSV is empty"),
    "no row": (f"{HEADER}\n", "rows", "There is no row"),
    "no header": (f"{LINE}\n{LINE}\n", "columns", "There is no column gender"),
    "semicolons": (
        f"{HEADER};x\n{LINE}\n".replace(",", ";"),
        "columns",
        "There is no column gender",
    ),
    "JSON": ('{"inputs": []}\n{"inputs": []}\n', "columns", "There is no column gender"),
    "a cell too many": (
        f"{HEADER}\n{LINE},1\n",
        "csv",
        "Line 2 has 14 cells, but the header has 13.",
    ),
    "a cell too many in each line": (
        f"{HEADER}\n1,{LINE}\n1,{LINE}\n",
        "csv",
        "Line 2 has 14 cells",
    ),
    "a cell too few": (
        f"{HEADER}\n{LINE}\n\n{LINE[:-4]}".rpartition(",")[0],
        "csv",
        "Line 4 has 1",
    ),
    "a column twice": (f"{HEADER},Age\n{LINE},30\n", "columns", "Several columns are called Age"),
    "an open quote": (f'{HEADER}\n"{LINE}\n', "csv", "Line 2 has 1 cell, but the header has 13."),
    "a quote without end": (
        f'{HEADER}\n{LINE[:-3]}"{"x" * 140_000}',
        "csv",
        "The CSV cannot be read",
    ),
    "a zero byte": (f"{HEADER}\n{LINE}\0\n", "csv", "The CSV is not UTF-8 text."),
    "words": (with_age("thirty"), "type", "Row 1: Age is the text 'thirty'; give a number."),
    "true": (with_age("True"), "type", "Row 1: Age is the text 'True'; give a number."),
    "an empty cell": (with_age(""), "missing", "Row 1: Age is missing"),
    "NA": (with_age("NA"), "missing", "Row 1: Age is missing"),
    "infinity": (with_age("inf"), "infinite", "Row 1: Age is infinite"),
    "half a year": (with_age("30.5"), "range", "Row 1: Age is 30.5; it must be a whole number."),
    "too old": (with_age("101"), "range", "Row 1: Age is 101; it must be at most 100."),
    "a unit": (with_age("30 years"), "type", "Row 1: Age is the text '30 years'; give a number."),
    "hexadecimal": (with_age("0x1E"), "type", "Row 1: Age is the text '0x1E'; give a number."),
    "underscores": (with_age("3_0"), "type", "Row 1: Age is the text '3_0'; give a number."),
}


@pytest.mark.parametrize("wrong", WRONG_TABLES)
def test_a_wrong_csv_is_refused_with_the_reason(demo, wrong):
    text, reason, message = WRONG_TABLES[wrong]
    with pytest.raises(Refusal) as refused:
        demo.csv(text.encode())
    assert (refused.value.status, refused.value.body["reason"]) == (400, reason)
    assert message in refused.value.body["message"]


def test_a_csv_may_have_what_spreadsheets_write(demo):
    expected = demo.json(body(inputs=[ROW, ROW]))
    for text in (
        f"\ufeff{HEADER}\r\n{LINE}\r\n{LINE}\r\n",
        f"\n{HEADER}\n\n{LINE}\n\n{LINE}",
        ",".join(f'" {name} "' for name in NAMES) + f"\n{LINE}\n{LINE}\n",
    ):
        assert demo.csv(text.encode()) == expected
    with pytest.raises(Refusal, match="The CSV is not UTF-8 text"):
        demo.csv(f"{HEADER},Größe\n{LINE},1\n".encode("latin-1"))


@pytest.mark.parametrize("cut", range(0, 420, 7))
def test_half_a_body_gets_no_number(demo, cut):
    sent = body(dataframe_records=[ROW])
    if cut < len(sent):
        with pytest.raises(Refusal, match="no strict JSON"):
            demo.json(sent[:cut])


@examples(300)
@given(data=st.data())
def test_noise_gets_no_server_error(demo, data):
    sent = bytearray(body(dataframe_records=[ROW], params={"threshold": 0.5}))
    for _ in range(data.draw(st.integers(1, 4))):
        sent[data.draw(st.integers(0, len(sent) - 1))] = data.draw(st.integers(0, 255))
    for ask in (demo.json, demo.csv):
        found = outcome(ask, bytes(sent))
        if isinstance(found, list):
            assert all(0 <= answer["churn_probability"] <= 1 for answer in found)
        else:
            assert found[0] == 400
        assert len(orjson.dumps(found)) < 3000


def test_no_bits_depend_on_what_was_asked_before(demo):
    rows = records("demo", 50, seed=9)
    first = demo.json(body(inputs=rows))
    order = np.random.default_rng(0).permutation(50)
    again = demo.json(body(inputs=[rows[place] for place in order]))
    assert again == [first[place] for place in order]
