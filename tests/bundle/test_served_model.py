"""The served model: what it answers, what it refuses, and a table that is nothing like a gym's."""

import json
import math
import shutil
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import skops.io
from hypothesis import given, settings
from hypothesis import strategies as st
from mlflow.exceptions import MlflowException
from sklearn.ensemble import RandomForestClassifier
from skops.io.exceptions import UntrustedTypesFoundException

from churnlab.bundle import arrays, coordinates, reading, served_model, skops_types
from churnlab.data import cells, expressions
from churnlab.data.demo import members
from support.running import (
    PROMOTED_ROWS,
    THREE_SEGMENTS,
    churnlab_at,
    environment,
    version_folder,
)

pytestmark = pytest.mark.slow

KINDS = {
    "churn_probability": float,
    "will_churn": bool,
    "segment": int,
    "segment_name": str,
    "recommended_action": str,
    "reasons": list,
}


@pytest.fixture(scope="module", autouse=True)
def _leave_the_versions_as_they_are():
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    yield
    sys.dont_write_bytecode = before


@pytest.fixture(scope="module")
def served(promoted, client_at):
    """The champion as anybody loads it, without churnlab."""
    files = version_folder(client_at(promoted.home), "demo-churn", promoted.promote["version"])
    return mlflow.pyfunc.load_model(str(files))


@pytest.fixture
def member() -> pd.DataFrame:
    """A member about to leave."""
    row = {
        **{
            "gender": 1,
            "Near_Location": 1,
            "Partner": 0,
            "Promo_friends": 0,
            "Phone": 1,
            "Contract_period": 1,
        },
        **{
            "Group_visits": 0,
            "Age": 25,
            "Avg_additional_charges_total": 80.5,
            "Month_to_end_contract": 1,
        },
        **{
            "Lifetime": 1,
            "Avg_class_frequency_total": 1.9,
            "Avg_class_frequency_current_month": 0.4,
        },
    }
    return pd.DataFrame([row]).astype("float64")


def demo(n: int, *, seed: int) -> pd.DataFrame:
    return members(n, seed=seed).drop(columns="Churn").astype("float64")


def test_an_answer_has_exactly_the_keys_and_types_that_were_promised(served, member, promoted):
    (answer,) = served.predict(member)
    assert {key: type(value) for key, value in answer.items()} == KINDS
    assert list(answer) == list(KINDS)
    assert all(type(reason) is str for reason in answer["reasons"])
    segment = promoted.segment["segments"][answer["segment"]]
    assert segment["id"] == answer["segment"]
    assert (answer["segment_name"], answer["recommended_action"]) == (
        segment["name"],
        segment["recommended_action"],
    )
    assert json.loads(json.dumps(answer)) == answer


def test_an_id_is_echoed_first_when_it_is_given_and_absent_otherwise(served, member):
    given = pd.concat([member] * 3, ignore_index=True).assign(member_id=["007", None, "Анна"])
    answers = served.predict(given)
    assert [answer.get("member_id") for answer in answers] == ["007", None, "Анна"]
    assert next(iter(answers[0])) == "member_id"
    assert "member_id" not in answers[1]
    assert all({key: answer[key] for key in KINDS} == answers[1] for answer in answers)


def test_rows_are_answered_in_order_each_as_if_it_were_alone(served):
    many = demo(30, seed=11)
    together = served.predict(many.set_index(pd.Index(range(100, 130))))
    for row, answer in enumerate(together):
        (alone,) = served.predict(many.iloc[[row]])
        assert answer["churn_probability"] == pytest.approx(alone["churn_probability"], abs=1e-12)
        assert {**answer, "churn_probability": 0} == {**alone, "churn_probability": 0}


def test_columns_that_the_model_does_not_know_change_nothing_and_one_warning_names_them(
    served, member
):
    given = member.assign(Churn=1.0, shoe_size=42.0, coat="blue")
    with pytest.warns(UserWarning, match="ignored") as warned:
        assert served.predict(given) == served.predict(member)
    assert [str(warning.message) for warning in warned] == [
        "ignored columns that are no inputs: shoe_size, coat"
    ], "the target is no stranger"


FORMS = {
    "float32": lambda column: column.astype("float32"),
    "float64": lambda column: column.astype("float64"),
    "Float64": lambda column: column.astype("Float64"),
    "object": lambda column: column.astype(object),
    "category": lambda column: column.astype("category"),
    "decimal": lambda column: column.map(lambda value: Decimal(str(value))).astype(object),
    "sparse": lambda column: column.astype(pd.SparseDtype("float64", 0.0)),
    "double[pyarrow]": lambda column: column.astype("double[pyarrow]"),
}
WHOLE = {
    dtype: lambda column, dtype=dtype: column.astype("int64").astype(dtype)
    for dtype in ("int64", "int8", "uint16", "Int64", "int64[pyarrow]")
}
TRUTH = {
    dtype: lambda column, dtype=dtype: column.astype("bool").astype(dtype)
    for dtype in ("bool", "boolean", "bool[pyarrow]", object)
}
BINARY = ("gender", "Near_Location", "Partner", "Promo_friends", "Phone", "Group_visits")
FRACTIONS = (
    "Avg_additional_charges_total",
    "Avg_class_frequency_total",
    "Avg_class_frequency_current_month",
)


@settings(deadline=None, max_examples=40)
@given(data=st.data(), seed=st.integers(0, 2**32 - 1))
def test_any_order_and_any_types_of_the_columns_give_the_same_bits(served, data, seed):
    plain = demo(6, seed=seed)
    plain[list(FRACTIONS)] = (plain[list(FRACTIONS)] * 8).round() / 8  # float32 holds them exactly
    given = {}
    for name in data.draw(st.permutations(list(plain)), label="order"):
        forms = FORMS | ({} if name in FRACTIONS else WHOLE) | (TRUTH if name in BINARY else {})
        form = data.draw(st.sampled_from(list(forms)), label=name)
        given[name] = forms[form](plain[name])
    assert served.predict(pd.DataFrame(given)) == served.predict(plain)


@pytest.mark.parametrize("backend", ["numpy_nullable", "pyarrow", None])
def test_a_file_is_answered_as_pandas_reads_it(served, tmp_path, backend):
    plain = members(30, seed=14).drop(columns="Churn")
    plain.to_csv(tmp_path / "members.csv", index=False)
    words = {} if backend is None else {"dtype_backend": backend}
    read = pd.read_csv(tmp_path / "members.csv", **words)
    assert served.predict(read) == served.predict(plain.astype("float64"))


def test_records_columns_and_one_member_are_tables_too(served):
    plain = demo(3, seed=15)
    assert served.predict(plain.to_dict("records")) == served.predict(plain)
    assert served.predict(plain.to_dict("list")) == served.predict(plain)
    assert served.predict(plain.iloc[0].to_dict()) == served.predict(plain.iloc[[0]])
    for nothing in ("Age", 5, [1, 2], {"Age": [1, 2], "Phone": [1]}):
        with pytest.raises(MlflowException, match="This is no table; give a frame"):
            served.predict(nothing)


NO_NUMBER = {
    "words": ("thirty", "the text 'thirty'"),
    "digits in quotes": ("30", "the text '30'"),
    "other digits": ("٣٠", "the text '٣٠'"),
    "nothing in quotes": ("", "the text ''"),
    "a long text": ("x" * 5000, "the text 'xxx"),
    "truth": (True, "True (bool)"),
    "truth of numpy": (np.bool_(True), "True (bool)"),
    "a date": (pd.Timestamp("2026-05-01"), "2026-05-01 00:00:00 (Timestamp)"),
    "days": (pd.Timedelta(days=30), "30 days 00:00:00 (Timedelta)"),
    "a list": ([30], "[30] (list)"),
    "a mapping": ({"age": 30}, "{'age': 30} (dict)"),
    "bytes": (b"30", "b'30' (bytes)"),
    "a complex number": (30 + 0j, "(30+0j) (complex)"),
}


@pytest.mark.parametrize("wrong", NO_NUMBER)
def test_a_cell_that_is_no_number_is_refused_in_a_notebook_too(served, member, wrong):
    cell, described = NO_NUMBER[wrong]
    many = pd.concat([member] * 3, ignore_index=True)
    many["Age"] = pd.Series([25, cell, 25], dtype=object)
    with pytest.raises(MlflowException) as refused:
        served.predict(many)
    assert refused.value.error_code == "INVALID_PARAMETER_VALUE"
    assert refused.value.message.startswith(f"Row 1: Age is {described}")
    assert refused.value.message.endswith("; give a number.")
    assert len(refused.value.message) < 120


@pytest.mark.parametrize("dtype", ["str", "string", "category", "bool", "boolean", "bool[pyarrow]"])
def test_a_column_of_a_type_that_is_no_number_is_refused(served, member, dtype):
    truth = dtype.startswith("bool")
    column = pd.Series([True] if truth else ["30"]).astype(dtype)
    with pytest.raises(MlflowException, match=r"Row 0: Age is .*; give a number\."):
        served.predict(member.assign(Age=column))


@pytest.mark.parametrize("dtype", ["str", "string", "category", "object"])
def test_text_is_read_as_in_a_file_where_the_versions_own_table_had_text(
    served, member, dtype, monkeypatch
):
    texts = {"Age": " 30 ", "Phone": "Yes", "gender": "f", "Lifetime": "1e1"}
    python_model = served.unwrap_python_model()
    monkeypatch.setitem(python_model.served, "texts", list(texts))
    given = member.assign(**{name: pd.Series([text]).astype(dtype) for name, text in texts.items()})
    numbers = member.assign(Age=30.0, Phone=1.0, gender=0.0, Lifetime=10.0)
    assert served.predict(given) == served.predict(numbers)
    for gap in ("", "  ", "NA"):
        with pytest.raises(MlflowException, match="Row 0: Age is missing"):
            served.predict(member.assign(Age=pd.Series([gap]).astype(dtype)))


def test_missing_and_endless_numbers_of_every_type_are_refused(served, member):
    for missing in (None, np.nan, pd.NA, pd.NaT, Decimal("NaN")):
        with pytest.raises(MlflowException, match="Row 0: Age is missing"):
            served.predict(member.assign(Age=pd.Series([missing], dtype=object)))
    for dtype in ("float32", "Int64", "Float64", "boolean", "int64[pyarrow]", "datetime64[ns]"):
        with pytest.raises(MlflowException, match="Row 0: Age is missing"):
            served.predict(member.assign(Age=pd.Series([None], dtype=dtype)))
    for endless in (math.inf, -math.inf, Decimal("Infinity"), 10**400):
        with pytest.raises(MlflowException, match="Row 0: Age is infinite"):
            served.predict(member.assign(Age=pd.Series([endless], dtype=object)))


def test_a_version_has_an_example_made_up_from_the_contract(served, promoted):
    example = served.input_example
    (answer,) = served.predict(example)
    assert set(answer) == set(KINDS)
    table = members(int(PROMOTED_ROWS[0].partition("=")[2]), seed=0).drop(columns="Churn")
    assert list(example) == list(table)
    assert not (table == example.iloc[0]).all(axis=1).any(), "the example is a member"
    assert all(example.dtypes[name].kind == "i" for name in (*BINARY, "Age", "Lifetime"))
    inputs = served.metadata.metadata["inputs"]
    assert set(inputs) == set(table)
    assert inputs["Age"] == "numeric, at least 14, at most 100, a whole number"


def test_the_threshold_decides_for_whom_churn_is_predicted(served):
    many = demo(60, seed=12)
    probability = [answer["churn_probability"] for answer in served.predict(many)]
    for threshold in (0.0, 0.2, 0.5, 1.0, sorted(probability)[30]):
        answers = served.predict(many, params={"threshold": threshold})
        assert [answer["will_churn"] for answer in answers] == [
            chance > threshold for chance in probability
        ]
        assert [answer["churn_probability"] for answer in answers] == probability
    assert [answer["will_churn"] for answer in served.predict(many)] == [
        chance > 0.5 for chance in probability
    ]


@pytest.mark.parametrize("threshold", [-0.01, 1.5, math.nan])
def test_a_threshold_that_is_no_probability_is_refused(served, member, threshold):
    with pytest.raises(MlflowException, match="give a probability between 0 and 1") as refused:
        served.predict(member, params={"threshold": threshold})
    assert refused.value.error_code == "INVALID_PARAMETER_VALUE"


def test_reasons_can_be_left_out(served, member):
    (answer,) = served.predict(member, params={"reasons": False})
    assert list(answer) == [key for key in KINDS if key != "reasons"]


def test_reasons_say_how_a_member_differs_from_those_who_stay(served, member):
    (answer,) = served.predict(member)
    assert answer["churn_probability"] > 0.9
    assert answer["reasons"][0] == "visits fell from 1.9 to 0.4 a week"
    assert "a member for one month only" in answer["reasons"]
    gone = member.assign(Avg_class_frequency_current_month=0.0)
    assert served.predict(gone)[0]["reasons"][0] == "no visits this month"


def test_a_safe_member_has_no_reasons_and_nobody_more_than_three(served, member):
    safe = member.assign(
        **{
            "Contract_period": 12.0,
            "Month_to_end_contract": 12.0,
            "Lifetime": 12.0,
            "Age": 33.0,
            "Group_visits": 1.0,
        },
        **{
            "Avg_class_frequency_total": 3.0,
            "Avg_class_frequency_current_month": 3.1,
            "Promo_friends": 1.0,
        },
        **{"Partner": 1.0, "Avg_additional_charges_total": 250.0},
    )
    (answer,) = served.predict(safe)
    assert answer["churn_probability"] < 0.05
    assert answer["reasons"] == []
    found = [answer["reasons"] for answer in served.predict(demo(400, seed=13))]
    assert max(map(len, found)) == 3
    assert all(len(set(reasons)) == len(reasons) for reasons in found)


BAD = {
    "binary": ({"Phone": 0.5}, "Row 1: Phone is 0.5; it must be one of 0, 1."),
    "listed": (
        {"Contract_period": 3.0, "Month_to_end_contract": 1.0},
        "Row 1: Contract_period is 3; it must be one",
    ),
    "low": ({"Age": 13.0}, "Row 1: Age is 13; it must be at least 14."),
    "high": ({"Age": 101.0}, "Row 1: Age is 101; it must be at most 100."),
    "whole": ({"Lifetime": 2.25}, "Row 1: Lifetime is 2.25; it must be a whole number."),
    "rule": (
        {"Month_to_end_contract": 5.0},
        "Row 1: Month_to_end_contract is 5, Contract_period is 1; it must hold that "
        "Month_to_end_contract <=",
    ),
    "missing": ({"Age": math.nan}, "Row 1: Age is missing"),
    "infinite": (
        {"Avg_class_frequency_total": math.inf},
        "Row 1: Avg_class_frequency_total is infinite",
    ),
    "negative": (
        {"Avg_additional_charges_total": -0.01},
        "Row 1: Avg_additional_charges_total is -0.01; it must be",
    ),
}


@pytest.mark.parametrize("bad", BAD)
def test_a_bad_row_gets_no_number_but_a_message_with_row_column_and_value(served, member, bad):
    values, message = BAD[bad]
    with pytest.raises(MlflowException) as refused:
        served.predict(pd.concat([member, member.assign(**values), member], ignore_index=True))
    assert refused.value.error_code == "INVALID_PARAMETER_VALUE"
    assert refused.value.message.startswith(message)


def test_all_violations_of_the_first_bad_row_are_named_up_to_a_few(served, member):
    first = {"Phone": 0.5, "Age": "thirty", "Lifetime": math.inf, "gender": math.nan}
    later = member.astype(object).assign(Age=True)
    with pytest.raises(MlflowException) as refused:
        served.predict(pd.concat([member, member.astype(object).assign(**first), later]))
    assert refused.value.message == (
        "Row 1: Age is the text 'thirty'; give a number. gender is missing; give it a value. "
        "Lifetime is infinite; give it a value. Phone is 0.5; it must be one of 0, 1."
    )
    every = member.assign(**dict.fromkeys(member, math.nan))
    with pytest.raises(MlflowException) as refused:
        served.predict(every)
    assert refused.value.message.count("is missing") == 5


FOUND = {
    "words": ({"Age": "thirty"}, ("type", 1, "Age", "thirty")),
    "nothing": ({"Age": None}, ("missing", 1, "Age", None)),
    "without end": ({"Age": 10**400}, ("infinite", 1, "Age", None)),
    "too old": ({"Age": 101}, ("range", 1, "Age", 101.0)),
    "two wrong": ({"Phone": 0.5, "Age": True}, ("type", 1, "Age", True)),
    "together": ({"Month_to_end_contract": 5}, ("rule", 1, "Month_to_end_contract", 5.0)),
    "a novel": ({"Age": "x" * 5000}, ("type", 1, "Age", "x" * 60 + "...")),
    "far too old": ({"Age": 1e300}, ("range", 1, "Age", "1e+300")),
}


@pytest.mark.parametrize("wrong", FOUND)
def test_what_is_wrong_where_is_there_for_programs_too(served, member, wrong):
    values, (reason, row, field, value) = FOUND[wrong]
    (right,) = member.to_dict("records")
    with pytest.raises(MlflowException) as refused:
        served.predict(pd.DataFrame([right, right | values], dtype=object))
    sent = json.loads(refused.value.serialize_as_json())
    found = {"reason": reason, "row": row, "field": field, "value": value}
    assert found.items() - {("value", None)} <= sent.items()
    assert ("value" in sent) == (value is not None)


def test_a_request_without_rows_or_without_a_column_is_refused(served, member):
    with pytest.raises(MlflowException, match="There is no row"):
        served.predict(member.iloc[:0])
    with pytest.raises(MlflowException, match="There is no column Age; the inputs are gender, "):
        served.predict(member.drop(columns="Age"))
    with pytest.raises(MlflowException, match="Several columns are called Age; keep one"):
        served.predict(pd.concat([member, member[["Age"]]], axis=1))


VALID = {
    "Contract_period": st.sampled_from([1.0, 6.0, 12.0]),
    "Age": st.integers(14, 100).map(float),
    "Lifetime": st.integers(0, 600).map(float),
    "Avg_additional_charges_total": st.floats(0, 100_000),
    "Month_to_end_contract": st.floats(0, 1),  # no contract is shorter
    "Avg_class_frequency_total": st.floats(0, 50),
    "Avg_class_frequency_current_month": st.floats(0, 50),
    **{
        name: st.sampled_from([0.0, 1.0])
        for name in ("gender", "Near_Location", "Partner", "Promo_friends", "Phone")
    },
}


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**32 - 1), changes=st.fixed_dictionaries({}, optional=VALID))
def test_every_member_who_keeps_the_contract_gets_a_probability_and_a_segment(
    served, promoted, seed, changes
):
    names = {segment["id"]: segment["name"] for segment in promoted.segment["segments"]}
    given = demo(5, seed=seed).assign(**changes)
    given["Month_to_end_contract"] = given[["Month_to_end_contract", "Contract_period"]].min(axis=1)
    for answer in served.predict(given):
        assert 0 <= answer["churn_probability"] <= 1
        assert answer["segment_name"] == names[answer["segment"]]
        assert answer["recommended_action"]
        assert len(answer["reasons"]) <= 3


WITHOUT_CHURNLAB = """
import sys
sys.dont_write_bytecode, sys.modules["churnlab"] = True, None  # an import of it fails
import json, mlflow.pyfunc, pandas as pd
model = mlflow.pyfunc.load_model(sys.argv[1])
print(json.dumps(model.predict(pd.read_json(sys.argv[2], dtype="float64"))))
"""


def test_a_version_carries_the_list_of_trusted_types_and_answers_without_churnlab(
    served, promoted, client_at, member, tmp_path
):
    files = version_folder(client_at(promoted.home), "demo-churn", promoted.promote["version"])
    for module in (arrays, cells, coordinates, expressions, reading, skops_types):
        source = Path(module.__file__)
        assert (files / "artifacts" / source.name).read_bytes() == source.read_bytes()
    assert not hasattr(served_model, "TRUSTED"), "there is one list, and it is not here"
    member.to_json(tmp_path / "member.json", orient="records", double_precision=15)
    alone = subprocess.run(
        [sys.executable, "-c", WITHOUT_CHURNLAB, files, tmp_path / "member.json"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment(tmp_path),
    )
    assert alone.returncode == 0, alone.stderr
    assert json.loads(alone.stdout.splitlines()[-1]) == served.predict(member)


def test_a_version_loads_only_types_of_the_list_that_it_carries(promoted, client_at, tmp_path):
    files = version_folder(client_at(promoted.home), "demo-churn", promoted.promote["version"])
    copied = tmp_path / "version"
    shutil.copytree(files, copied)
    forest = RandomForestClassifier(2, random_state=0).fit([[0], [1]], [0, 1])
    skops.io.dump(forest, copied / "artifacts" / "churn.skops")
    spec = json.loads((copied / "artifacts" / "served.json").read_text(encoding="utf-8"))
    spec["arrays"]["churn"] = False  # a bare forest has no step before it
    (copied / "artifacts" / "served.json").write_text(json.dumps(spec), encoding="utf-8")
    mlflow.pyfunc.load_model(str(copied))
    (copied / "artifacts" / "skops_types.py").write_text("TRUSTED = []\n", encoding="utf-8")
    with pytest.raises(UntrustedTypesFoundException, match=r"sklearn.tree._tree.Tree"):
        mlflow.pyfunc.load_model(str(copied))


SHOP = """
name: shop
path: null
target: left
positive: "yes"
id: card
extra: refuse
columns:
  plan: {kind: category, values: [basic, gold, don't know]}
  city: {kind: category}
  district: {kind: category}
  offer: {kind: category, values: ["1", "01", "None"]}
  news: {kind: category, values: ["TRUE", "FALSE"]}
  vip: {kind: binary}
  spent: {kind: numeric}
  first_visit: {kind: numeric, min: 0, unit: days}
  last visit: {kind: numeric, min: 0, unit: days}
rules:
  order: first_visit <= `last visit`
late: []
"""
GAP = """
name: gap
late: true
derive:
  gap: sqrt(`last visit` - first_visit)
"""


def shoppers(n: int, *, seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    plan = rng.choice(["basic", "gold", "don't know"], n)
    first = np.round(rng.uniform(0, 300, n), 1)
    last = first + np.round(rng.gamma(2, 40, n), 1)
    spent = np.round(rng.normal(0, 1000, n), 2)
    risk = (plan == "basic") * 1.5 - (last - first) / 60 + rng.logistic(0, 0.7, n)
    return pd.DataFrame(
        {
            "card": [f"{number:04d}" for number in range(n)],
            "plan": plan,
            "city": rng.choice(["Omsk", "Perm", "Tver"], n),
            "district": np.resize(["007", "12", "0500"], n),
            "offer": np.resize(["1", "01", "None", "None"], n),
            "news": np.resize(["TRUE", "FALSE"], n),
            "vip": rng.integers(0, 2, n),
            "spent": spent,
            "first_visit": first,
            "last visit": last,
            "left": np.where(risk > 0, "yes", "no"),
        }
    )


@pytest.fixture(scope="module")
def shop(shared_home):
    """From a table with categories to a champion; and a way to score with it."""
    place = shared_home.parent
    for path, text in {"dataset/shop.yaml": SHOP, "features/gap.yaml": GAP}.items():
        (place / "conf" / path).parent.mkdir(parents=True)
        (place / "conf" / path).write_text(text, encoding="utf-8")
    shoppers(400, seed=0).to_csv(place / "shop.csv", index=False)
    table = ("--config-dir", str(place / "conf"), "dataset=shop")
    trained = (*table, f"dataset.path={place}/shop.csv")
    churnlab = churnlab_at(shared_home)
    ended = {
        "train": churnlab("train", *trained, "features=gap", "evaluation.folds=2"),
        "segment": churnlab("segment", *trained, "segments=all", "playbook=any", *THREE_SEGMENTS),
        "promote": churnlab("promote", *trained, "evaluation.folds=2"),
    }
    for name, end in ended.items():
        assert end.code == 0, f"{name}: {end.err}"
    return lambda *words: churnlab("score", *table, *words)


@pytest.fixture(scope="module")
def shop_version(shop, shared_home, client_at):
    return mlflow.pyfunc.load_model(str(version_folder(client_at(shared_home), "shop-churn", "1")))


def test_a_table_with_categories_goes_from_end_to_end(shop, shop_version, tmp_path):
    visitors = shoppers(25, seed=1).drop(columns="left")
    visitors.to_csv(tmp_path / "in.csv", index=False)
    ended = shop(f"input={tmp_path}/in.csv", f"output={tmp_path}/out.csv", "score.reasons=true")
    assert ended.code == 0, ended.err
    scored = pd.read_csv(tmp_path / "out.csv", dtype={"card": "str"}, keep_default_na=False)
    answers = shop_version.predict(visitors)
    assert list(scored) == [*visitors, *KINDS], "the id is there once"
    assert all(list(answer) == ["card", *KINDS] for answer in answers)
    assert scored["card"].tolist() == visitors["card"].tolist()
    assert [answer["card"] for answer in answers] == visitors["card"].tolist()
    assert scored["segment"].tolist() == [answer["segment"] for answer in answers]
    assert scored["reasons"].tolist() == ["; ".join(answer["reasons"]) for answer in answers]
    np.testing.assert_allclose(
        scored["churn_probability"], [answer["churn_probability"] for answer in answers], atol=1e-12
    )
    assert "plan is basic" in {reason for answer in answers for reason in answer["reasons"]}


def test_an_unknown_category_is_refused_where_the_values_are_declared(shop, shop_version, tmp_path):
    visitors = shoppers(4, seed=2).drop(columns="left")
    visitors.loc[2, "plan"] = "platinum"
    visitors.to_csv(tmp_path / "in.csv", index=False)
    ended = shop(f"input={tmp_path}/in.csv", f"output={tmp_path}/out.csv")
    assert ended.code == 2
    assert "line 4, column plan: 'platinum' is not one of basic, gold, don't know" in ended.err
    request = visitors.assign(vip=1.0).drop(columns="card")
    with pytest.raises(
        MlflowException, match="Row 2: plan is platinum; it must be one of basic, gold, don't know"
    ):
        shop_version.predict(request)
    (answer,) = shop_version.predict(request.iloc[[0]].assign(city="Nowhere"))
    assert 0 < answer["churn_probability"] < 1, (
        "a city that was not seen is no mistake: no cities are declared"
    )


def test_a_column_without_limits_still_takes_no_infinite_number(shop_version):
    visitor = shoppers(1, seed=3).drop(columns=["left", "card"]).assign(vip=1.0)
    assert shop_version.predict(visitor.assign(spent=1e12))[0]["churn_probability"] <= 1
    with pytest.raises(MlflowException, match="Row 0: spent is infinite"):
        shop_version.predict(visitor.assign(spent=-math.inf))


def test_a_typical_value_that_this_member_could_not_have_is_no_reason_and_no_error(shop_version):
    """Median last visit is before the first visit of a late comer: sqrt of a negative number."""
    late = shoppers(1, seed=3).drop(columns="left").assign(plan="basic", first_visit=500.0)
    (answer,) = shop_version.predict(late.assign(**{"last visit": 501.0}))
    assert answer["will_churn"]
    assert not any("last visit" in reason for reason in answer["reasons"])


TEXTS = {
    "object": lambda column: column.astype(object),
    "category": lambda column: column.astype("category"),
    "string": lambda column: column.astype("string"),
    "string[pyarrow]": lambda column: column.astype(pd.ArrowDtype(pa.string())),
    "dictionary": lambda column: column.astype(pd.ArrowDtype(pa.dictionary(pa.int8(), pa.utf8()))),
}


@pytest.mark.parametrize("form", TEXTS)
def test_text_of_any_type_gives_the_same_bits(shop_version, form):
    visitors = shoppers(9, seed=4).drop(columns="left")
    text = ["card", "plan", "city", "district", "offer", "news"]
    given = visitors.assign(**{name: TEXTS[form](visitors[name]) for name in text})
    assert shop_version.predict(given[given.columns[::-1]]) == shop_version.predict(visitors)


def test_codes_that_pandas_reads_as_numbers_or_truth_are_the_categories_that_they_were(
    shop_version, tmp_path
):
    visitors = shoppers(6, seed=5).drop(columns="left")
    visitors.to_csv(tmp_path / "in.csv", index=False)
    read = pd.read_csv(tmp_path / "in.csv", dtype={"card": "str"}, keep_default_na=False)
    assert (read["district"].dtype.kind, read["news"].dtype.kind) == ("i", "b")
    assert shop_version.predict(read) == shop_version.predict(visitors)
    gap = read.assign(district=read["district"].astype("float64"))
    assert shop_version.predict(gap) == shop_version.predict(visitors)
    with pytest.raises(
        MlflowException, match=r"Row 2: offer is 1 \(int\); give the text \(1 or 01"
    ):
        shop_version.predict(
            visitors.assign(offer=pd.Series(["1", "01", 1, 1, 1, 1], dtype=object))
        )
    with pytest.raises(MlflowException, match="Row 2: offer is missing; .*for the text None: keep"):
        shop_version.predict(read.assign(offer=["1", "01", None, None, "1", "01"]))
    for odd in (["a list"], pd.Timestamp("2026-05-01")):
        city = pd.Series([odd] * 6, dtype=object)
        with pytest.raises(MlflowException, match="Row 0: city is .*; give a category as text"):
            shop_version.predict(visitors.assign(city=city))


def test_the_id_is_echoed_as_text_under_its_own_name(shop_version):
    visitors = shoppers(3, seed=6).drop(columns="left")
    for ids, echoed in (
        ([7, 8, 9], ["7", "8", "9"]),
        ([7.0, None, 9.5], ["7", None, "9.5"]),
        (pd.array([7, None, 9], dtype="Int64"), ["7", None, "9"]),
        (["007", "Анна", None], ["007", "Анна", None]),
    ):
        answers = shop_version.predict(visitors.assign(card=ids))
        assert [answer.get("card") for answer in answers] == echoed
    assert all("card" not in row for row in shop_version.predict(visitors.drop(columns="card")))


def test_where_the_dataset_refuses_other_columns_the_version_and_score_do_too(
    shop, shop_version, tmp_path
):
    visitors = shoppers(3, seed=7)
    shop_version.predict(visitors)  # the target is declared
    other = visitors.assign(shoe_size=42, member_id="7")
    message = "The dataset does not declare the columns shoe_size, member_id; leave them out"
    with pytest.raises(MlflowException, match=message):
        shop_version.predict(other)
    other.to_csv(tmp_path / "in.csv", index=False)
    for words in ([], ["dataset.extra=ignore"]):  # the version's own word counts
        ended = shop(f"input={tmp_path}/in.csv", f"output={tmp_path}/out.csv", *words)
        assert (ended.code, ended.out) == (2, "")
        assert "does not declare the columns shoe_size, member_id; leave them out" in ended.err


def test_the_example_of_a_version_keeps_the_rules_and_shows_the_id(shop_version):
    (answer,) = shop_version.predict(shop_version.input_example)
    assert answer["card"] == "example"
