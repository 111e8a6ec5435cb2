"""The OpenAPI description is valid, and says of members and answers what the version does."""

import json
from collections.abc import Mapping
from typing import Any

import jsonschema
import mlflow
import pytest
from openapi_spec_validator import validate

from churnlab.serving.openapi import description
from churnlab.serving.requests import Invocations, Refusal
from support.club import club_members

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def invocations(club):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.dont_write_bytecode", True)  # leave the version as it is
        version = mlflow.pyfunc.load_model(str(club))
    return Invocations(version.unwrap_python_model(), most_rows=100)


@pytest.fixture
def spec(invocations) -> Mapping[str, Any]:
    return invocations.served


def described(spec, **given) -> dict[str, Any]:
    limits = {"title": "club-churn", "version": "7", "most_rows": 100, "most_bytes": 10**6}
    return description(spec, **limits | given)


def valid(made: dict[str, Any], schema: str, instance: Any) -> bool:
    """Whether an instance keeps one of the description's schemas."""
    whole = {"$ref": f"#/components/schemas/{schema}", "components": made["components"]}
    return jsonschema.Draft202012Validator(whole).is_valid(instance)


def member(**changes: Any) -> dict[str, Any]:
    table = club_members(1, seed=3).drop(columns="left")
    row = json.loads(table.to_json(orient="records", double_precision=15))[0]
    return row | {"news": 1, "paid": 1000.5, "city": "Omsk"} | changes


@pytest.mark.parametrize("token", [True, False])
def test_the_description_is_valid_openapi_and_json(spec, token):
    made = json.loads(json.dumps(described(spec, token=token, example=member()), allow_nan=False))
    validate(made)
    answers = made["paths"]["/invocations"]["post"]["responses"]
    assert {"200", "400", "413", "415", "503"} <= {*answers}
    assert ("401" in answers, "security" in made) == (token, token)
    assert made["info"]["version"] == "7"


def test_each_field_has_type_range_values_and_unit(spec):
    fields = described(spec)["components"]["schemas"]["Member"]["properties"]
    assert [*fields] == ["card", *spec["inputs"]]
    assert fields["age"] | {"description": ""} == {
        "type": "integer",
        "minimum": 14,
        "maximum": 100,
        "description": "",
    }
    assert fields["plan"]["enum"] == ["basic", "gold", "don't know"]
    assert fields["paid"]["description"].endswith("in EUR")
    assert "null" in fields["city"]["type"]
    assert "null" not in fields["plan"]["type"]


def test_a_version_without_a_schema_is_described_by_the_kinds_of_its_inputs(spec):
    older = {key: value for key, value in spec.items() if key != "schema"}
    made = described(older)
    validate(made)
    fields = made["components"]["schemas"]["Member"]["properties"]
    assert fields["age"] == {"type": "number"}
    assert fields["vip"] == {"type": ["integer", "boolean"], "enum": [0, 1, False, True]}
    assert fields["city"] == {"type": ["string", "null"]}
    assert valid(made, "Member", member())


def test_a_version_without_segments_is_described(spec):
    made = described({**spec, "segments": {}})
    validate(made)
    assert made["components"]["schemas"]["Answer"]["properties"]["segment"] == {"type": "null"}


WRONG = {
    "too young": {"age": 13},
    "too old": {"age": 101},
    "half a year": {"age": 30.5},
    "an age in quotes": {"age": "30"},
    "an age that is true": {"age": True},
    "no age": {"age": None},
    "a list": {"age": [30]},
    "an unknown plan": {"plan": "platinum"},
    "no plan": {"plan": None},
    "a third truth": {"vip": 2},
    "half a truth": {"vip": 0.5},
    "less than nothing": {"paid": -1},
    "another column": {"shoe": 42},
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_the_schema_excludes_the_version_refuses(spec, invocations, wrong):
    made, row = described(spec), member(**WRONG[wrong])
    assert not valid(made, "Member", row)
    with pytest.raises(Refusal) as refused:
        invocations.json(json.dumps({"inputs": [row]}).encode())
    assert valid(made, "Refusal", refused.value.body)


OTHER_BODIES = (
    [],
    {},
    {"inputs": [], "instances": []},
    {"inputs": [], "params": {}},
    {"inputs": None},
    {"dataframe_records": [member()], "more": 1},
    {"dataframe_records": [member()], "params": {"threshold": 2}},
    {"dataframe_records": [member()], "params": {"reasons": "no"}},
    {"dataframe_records": [member()], "params": {"other": 1}},
    {"dataframe_records": [member()] * 101},
    {"dataframe_split": {"columns": ["age"]}},
)


@pytest.mark.parametrize("body", OTHER_BODIES, ids=range(len(OTHER_BODIES)))
def test_a_body_that_the_schema_excludes_is_refused(spec, invocations, body):
    assert not valid(described(spec), "Request", body)
    with pytest.raises(Refusal):
        invocations.json(json.dumps(body).encode())


def test_requests_and_answers_keep_their_schemas(spec, invocations):
    made, row = described(spec), member()
    for request in (
        {"dataframe_records": [row, member(card=None, city=None)]},
        {"dataframe_records": [row, member(vip=True, news=False)]},
        {"dataframe_records": [row], "params": {"threshold": 0.25, "reasons": False}},
        {"dataframe_split": {"columns": [*row], "data": [[*row.values()]], "index": [0]}},
        {"inputs": row},
        {"inputs": {name: [cell, cell] for name, cell in row.items()}},
        {"instances": [row]},
    ):
        assert valid(made, "Request", request)
        answers = invocations.json(json.dumps(request).encode())
        assert all(valid(made, "Answer", answer) for answer in answers)
    assert not valid(made, "Answer", {**answers[0], "churn_probability": 1.5})
    assert not valid(made, "Answer", {**answers[0], "segment_name": "nobody"})
