"""Describe a version's API as OpenAPI 3.1, written from the version's own contract."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from churnlab.serving.forms import FORMS

JSON, CSV = "application/json", "text/csv"
"""The types of bodies that are read."""

OF_KINDS: Mapping[str, Mapping[str, Any]] = {
    "numeric": {"type": "number"},
    "binary": {"type": "integer", "enum": [0, 1]},
    "category": {"type": "string"},
    "date": {"type": "string", "description": "a date"},
}
"""What an input of each kind is in a version that holds no schema."""

REFUSALS = {
    400: "The body is malformed, or a member breaks the contract: row and field say where.",
    403: "The Host header names another server.",
    408: "The body arrived too slowly.",
    413: "The body has too many bytes or rows.",
    415: f"The body is neither {JSON} nor {CSV} in UTF-8, or it is compressed.",
    431: "The headers have too many bytes.",
    503: "The server is busy or stops; ask again after the seconds in Retry-After.",
}
"""What else a request may be answered, by the status of HTTP."""

UNAUTHORIZED = "The bearer token is missing or wrong."

TABLE = {"type": "string", "minLength": 1, "description": "a header and one line per member"}

CELL = {"type": ["number", "string", "boolean", "null"]}

Schema = dict[str, Any]
"""A JSON Schema."""


def description(
    spec: Mapping[str, Any],
    *,
    title: str,
    version: str,
    most_rows: int,
    most_bytes: int,
    token: bool = False,
    example: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the description of a version, whose served.json is ``spec``, as an object for JSON.

    ``title`` is the registered model, ``version`` its number; ``most_rows`` and ``most_bytes`` are
    the limits of a request, and ``token`` says that it needs one. ``example`` is a member.
    """
    schemas = {
        "Member": _member(spec),
        "Columns": _columns(spec),
        "Params": _params(spec),
        "Request": _request(most_rows),
        "Answer": _answer(spec),
        "Refusal": _refusal(),
    }
    components: dict[str, Any] = {"schemas": schemas}
    made: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {
            "title": title,
            "version": version,
            "description": f"Who will churn, why, and what to do: dataset {spec['dataset']}. "
            f"A request has at most {most_rows:,} rows and {most_bytes:,} bytes.",
        },
        "paths": {
            "/invocations": {"post": _invocations(example, token=token)},
            **dict(_short_answers()),
        },
        "components": components,
    }
    if token:
        components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        made["security"] = [{"token": []}]
        made["paths"]["/ping"]["get"]["security"] = []
    return made


def input_schemas(spec: Mapping[str, Any]) -> dict[str, Schema]:
    """Return the schema of each input, without limits that JSON cannot write.

    >>> kinds = {"inputs": ["Age"], "kinds": {"Age": "numeric"}, "may_be_missing": ["Age"]}
    >>> input_schemas(kinds)
    {'Age': {'type': ['number', 'null']}}
    """
    if "schema" in spec:
        found = {name: _finite(one) for name, one in spec["schema"].items()}
    else:
        found = {
            name: _nullable(OF_KINDS[spec["kinds"][name]], name in spec["may_be_missing"])
            for name in spec["inputs"]
        }
    return {
        name: _with_truth(one) if spec["kinds"].get(name) == "binary" else one
        for name, one in found.items()
    }


def _finite(schema: Mapping[str, Any]) -> Schema:
    return {
        key: value
        for key, value in schema.items()
        if not isinstance(value, float) or math.isfinite(value)
    }


def _with_truth(schema: Schema) -> Schema:
    """Let true and false stand for 1 and 0, as the version does in a binary column."""
    if schema.get("enum", [])[:2] != [0, 1]:
        return schema
    types = [schema["type"]] if isinstance(schema["type"], str) else schema["type"]
    return {**schema, "type": [*types, "boolean"], "enum": [*schema["enum"], False, True]}


def _nullable(schema: Mapping[str, Any], optional: bool) -> Schema:
    if not optional:
        return {**schema}
    values = {"enum": [*schema["enum"], None]} if "enum" in schema else {}
    return {**schema, "type": [schema["type"], "null"], **values}


def _member(spec: Mapping[str, Any]) -> Schema:
    inputs, member = input_schemas(spec), spec["id"] or "member_id"
    echoed = {**CELL, "description": "echoed as text"}
    return {
        "type": "object",
        "properties": {member: echoed, **inputs},
        "required": [name for name in spec["inputs"] if name not in spec["may_be_missing"]],
        **_closed(spec),
    }


def _closed(spec: Mapping[str, Any]) -> Schema:
    """Say that there are no other columns, where the dataset refuses them; the target may come."""
    if spec.get("extra") != "refuse":
        return {}
    return {"propertyNames": {"enum": [spec["id"] or "member_id", *spec["inputs"], spec["target"]]}}


def _columns(spec: Mapping[str, Any]) -> Schema:
    member = _member(spec)
    lists = {name: {"type": "array", "items": one} for name, one in member["properties"].items()}
    return {**member, "properties": lists, "description": "columns of the same length, by name"}


def _params(spec: Mapping[str, Any]) -> Schema:
    return {
        "type": "object",
        "properties": {
            "threshold": {
                "type": "number",
                "minimum": 0,
                "maximum": 1,
                "default": spec["threshold"],
                "description": "churn is predicted where the probability is above it",
            },
            "reasons": {"type": "boolean", "default": True, "description": "whether to give any"},
        },
        "additionalProperties": False,
    }


def _request(most_rows: int) -> Schema:
    """Return the schema of a body, which has exactly one of the forms."""
    rows = {"minItems": 1, "maxItems": most_rows}
    records: Schema = {"type": "array", "items": _reference("Member"), **rows}
    split: Schema = {
        "type": "object",
        "properties": {
            "columns": {"type": "array", "items": {"type": "string"}},
            "data": {"type": "array", "items": {"type": "array", "items": CELL}, **rows},
            "index": {"type": "array", "description": "ignored; one label per row"},
        },
        "required": ["columns", "data"],
        "additionalProperties": False,
    }
    table: Schema = {"anyOf": [records, _reference("Columns"), _reference("Member")]}
    forms = dict(zip(FORMS, (records, split, table, table), strict=True))
    return {
        "oneOf": [
            {
                "type": "object",
                "properties": {form: schema, "params": _reference("Params")},
                "required": [form],
                "additionalProperties": False,
            }
            for form, schema in forms.items()
        ]
    }


def _answer(spec: Mapping[str, Any]) -> Schema:
    segments = [*spec["segments"].values()]
    properties: dict[str, Schema] = {
        spec["id"] or "member_id": {"type": "string", "description": "the id, if it was given"},
        "churn_probability": {"type": "number", "minimum": 0, "maximum": 1},
        "will_churn": {"type": "boolean", "description": "whether it is above the threshold"},
        "segment": _one_of("integer", [one["number"] for one in segments]),
        "segment_name": _one_of("string", [one["name"] for one in segments]),
        "recommended_action": {"type": ["string", "null"]},
        "reasons": {
            "type": "array",
            "items": {"type": "string"},
            "description": "what raises the risk, the most important first",
        },
    }
    return {
        "type": "object",
        "properties": properties,
        "required": [*properties][1:-1],
        "additionalProperties": False,
    }


def _one_of(kind: str, values: list[Any]) -> Schema:
    """Return the schema of one of the values, or of null where a version has no segments."""
    return {"type": kind, "enum": [*dict.fromkeys(values)]} if values else {"type": "null"}


def _refusal() -> Schema:
    return {
        "type": "object",
        "properties": {
            "error_code": {"type": "string", "description": "as MLflow's server names it"},
            "message": {"type": "string", "description": "what is wrong, and how to correct it"},
            "reason": {
                "type": "string",
                "description": "json, csv, form, params, rows or columns of the request; type, "
                "missing, infinite, range, category, rule or value of a member; or the server's",
            },
            "row": {"type": "integer", "minimum": 0, "description": "the first row is 0"},
            "field": {"type": "string", "description": "the first field concerned"},
            "value": {"type": ["number", "string", "boolean"]},
        },
        "required": ["error_code", "message", "reason"],
    }


def _invocations(example: Mapping[str, Any] | None, *, token: bool) -> dict[str, Any]:
    request: dict[str, Any] = {"schema": _reference("Request")}
    if example is not None:
        request["example"] = {"dataframe_records": [example]}
    answers = {
        "type": "object",
        "properties": {"predictions": {"type": "array", "items": _reference("Answer")}},
        "required": ["predictions"],
    }
    by = {"X-Churnlab-Version": {"schema": {"type": "string"}, "description": "who answered"}}
    refusals = {**REFUSALS, **({401: UNAUTHORIZED} if token else {})}
    refused: dict[str, Any] = {
        str(status): {
            "description": text,
            "content": {JSON: {"schema": _reference("Refusal")}},
        }
        for status, text in sorted(refusals.items())
    }
    refused["503"]["headers"] = {"Retry-After": {"schema": {"type": "integer"}}}
    return {
        "operationId": "invocations",
        "summary": "Answer members: one object per row, in order",
        "requestBody": {
            "required": True,
            "content": {JSON: request, CSV: {"schema": TABLE}},
        },
        "responses": {
            "200": {
                "description": "One answer per row, in order",
                "headers": by,
                "content": {JSON: {"schema": answers}},
            },
            **refused,
        },
    }


def _short_answers() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the other paths, which are asked without a body."""
    for path, text in {
        "/ping": "Whether the server answers",
        "/health": "The same",
        "/version": "Which version of the model answers",
        "/metrics": "Requests, rows, seconds, refusals and predicted churn, for Prometheus",
    }.items():
        name = path.removeprefix("/")
        refused = {"description": "Refused", "content": {JSON: {"schema": _reference("Refusal")}}}
        answers = {"200": {"description": text}, "default": refused}
        yield path, {"get": {"operationId": name, "summary": text, "responses": answers}}


def _reference(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}
