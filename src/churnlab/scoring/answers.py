"""Ask a version about a batch of members: its answers as columns, or which member it refuses."""

from __future__ import annotations

import re
from typing import Any

import pandas as pd
import pyarrow as pa
from mlflow.exceptions import MlflowException

from churnlab.errors import InputError
from churnlab.registry import versions

TEXTS = ("segment_name", "recommended_action")
"""What an answer says of the segment in words: a few texts, again and again."""


def ask(served: versions.Served, X: pd.DataFrame, *, reasons: bool) -> pa.Table:
    """Return a version's answers as columns. Older versions answer row by row."""
    model = served.model.unwrap_python_model()
    if not hasattr(model, "scores"):
        answers = pd.DataFrame(versions.answers(served, X, reasons=reasons))
        if reasons:
            answers["reasons"] = answers["reasons"].str.join("; ")
        return pa.Table.from_pandas(answers, preserve_index=False).replace_schema_metadata()
    inputs, unreadable = model.reader.members(model.reader.with_known_names(X))
    scores = model.scores(inputs, len(X), unreadable=unreadable, reasons=reasons)
    columns: dict[str, Any] = {
        "churn_probability": pa.array(scores.probability),
        "will_churn": pa.array(scores.will_churn),
    }
    named = {
        "segment": "number",
        "segment_name": "name",
        "recommended_action": "recommended_action",
    }
    for name, key in named.items():
        kind = pa.int64() if key == "number" else pa.string()
        if scores.labels is None:
            columns[name] = pa.nulls(len(X), kind)
            continue
        segments = served.spec["segments"]
        known = [segments.get(str(label), {}).get(key) for label in range(len(segments))]
        columns[name] = pa.array(known, kind).take(pa.array(scores.labels))
    if scores.reasons is not None:
        columns["reasons"] = pa.array(["; ".join(texts) for texts in scores.reasons], pa.string())
    return pa.table(columns)


def refusal(error: MlflowException) -> str:
    """Return the reason of a refusal: MLflow puts the members themselves before it."""
    return str(error).rpartition("Error: ")[2]


def cannot(model_uri: str, error: MlflowException) -> InputError:
    return InputError(
        f"{model_uri} cannot score these members: {refusal(error)} Use the dataset= that it was "
        "made for."
    )


def refused_row(error: MlflowException, X: pd.DataFrame) -> int | None:
    found = re.match(r"Row (\d+): ", refusal(error))
    return int(found[1]) if found and int(found[1]) < len(X) else None
