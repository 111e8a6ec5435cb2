"""The form of requests to a version, members as people hand them over, and what it answers them."""

from __future__ import annotations

import io
import json
import time
import timeit
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from mlflow.pyfunc.scoring_server import infer_and_parse_data
from mlflow.types import Schema

from churnlab.data.dataset import Dataset
from churnlab.registry.versions import Served, answers


def interface(version: Served) -> dict[str, dict[str, tuple[str, bool]]]:
    """Return a version's ``inputs``, ``outputs`` and ``params``: each field's type, and whether it
    is required. ``others`` is not empty if it accepts columns that are no inputs.

    The id is none of them: it is echoed where it is given.
    """
    signature, spec = version.model.metadata.signature, version.spec
    if signature.inputs is None:
        inputs = {
            name: ("string" if kind == "category" else "double", name not in spec["may_be_missing"])
            for name, kind in spec["kinds"].items()
        }
    else:  # an earlier version: MLflow checks its inputs
        inputs = _fields(signature.inputs)
        inputs.pop("member_id", None)
    params = {param.name: (param.dtype.name, False) for param in signature.params or ()}
    others = {} if spec.get("extra") == "refuse" else {"others": ("any", False)}
    outputs = _fields(signature.outputs)
    return {"inputs": inputs, "outputs": outputs, "params": params, "others": others}


def _fields(schema: Schema) -> dict[str, tuple[str, bool]]:
    return {field.name: (field.type.name, bool(field.required)) for field in schema.inputs}


class Predicted(NamedTuple):
    """A version's answers for the rows of the table that it was given, nan for others."""

    probability: np.ndarray
    segment: np.ndarray
    batch_ms: float


def ask(version: Served, dataset: Dataset, rows: np.ndarray) -> Predicted:
    """Return a version's probabilities and segments, and its milliseconds per member.

    It gets the members as a notebook has them.
    """
    members = as_read(dataset.X.iloc[rows], version)
    started = time.perf_counter()
    given = answers(version, members)
    batch_ms = (time.perf_counter() - started) / len(rows) * 1000
    probability, segment = np.full((2, len(dataset.y)), np.nan)
    probability[rows] = [answer["churn_probability"] for answer in given]
    segment[rows] = [answer["segment"] for answer in given]
    return Predicted(probability, segment, batch_ms)


def one_ms(version: Served, member: pd.DataFrame) -> float:
    """Return the milliseconds for one member with reasons.

    The best of five: the cost of the model, not the load of the machine.
    """
    seconds = timeit.repeat(lambda: answers(version, member, reasons=True), number=1, repeat=5)
    return min(seconds) * 1000


def as_read(X: pd.DataFrame, version: Served) -> pd.DataFrame:
    """Return members as a notebook has them: as pandas reads them from a CSV file.

    Whole numbers are int64, and the code 007 is 7. Codes that would then be equal (7 and 007) are
    read as text, and only an empty cell is missing.
    """
    unlike = [
        name
        for name, codes in version.spec["codes"].items()
        if any(len(texts) > 1 for texts in codes.values())
    ]
    return pd.read_csv(
        io.StringIO(_as_written(X).to_csv(index=False)),
        dtype=dict.fromkeys(unlike, "str"),
        keep_default_na=False,
        na_values=[""],
    )


def as_sent(X: pd.DataFrame, version: Served) -> Any:
    """Return members as MLflow's scoring server hands them on after reading them from JSON."""
    cells = _as_written(X).astype(object).where(X.notna(), None).to_numpy().tolist()
    body = json.dumps({"dataframe_split": {"columns": list(X), "data": cells}})
    return infer_and_parse_data(json.loads(body), version.model.metadata.get_input_schema())


def whole_columns(X: pd.DataFrame) -> list[str]:
    """Return the columns of numbers that are all whole, which files hold without decimals."""
    numbers = X.select_dtypes("number")
    return [str(name) for name, column in numbers.items() if (column.dropna() % 1 == 0).all()]


def _as_written(X: pd.DataFrame) -> pd.DataFrame:
    return X.astype(dict.fromkeys(whole_columns(X), "Int64"))
