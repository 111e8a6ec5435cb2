"""A file of members in, the same members with probability, decision, segment and action out.

Why: marketing works on files. Each row is checked against the dataset's contract and answered by a
registered version, in order; the output appears whole or not at all.

    churnlab score input=members.csv output=scored.csv
    churnlab score dataset=gym input=members.parquet output=scored.parquet score.reasons=true
    churnlab score model_uri=models:/gym-churn/3 dataset=gym input=members.csv output=scored.csv
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException

from churnlab.config.commands import Result, Score
from churnlab.data.dataset import Members, make_members
from churnlab.data.reading import Table, read_table
from churnlab.data.violations import Violation, message
from churnlab.errors import InputError
from churnlab.registry import champion as registry
from churnlab.registry import versions
from churnlab.registry.versions import load_bundle, read_version
from churnlab.tracking.names import Tag
from churnlab.tracking.runs import start_run

log = logging.getLogger(__name__)

ENDINGS = (".csv", ".csv.gz", ".parquet")


def run(settings: Score) -> Result:
    """Read, check, ask the version, write."""
    contract, output = settings.dataset.contract, Path(settings.output)
    _check_output(output, source=settings.input)
    table = read_table(settings.input, contract, whole=True)
    members = make_members(table, contract)
    model_uri = settings.model_uri or f"models:/{registry.model_name(contract.name)}@champion"
    model, config = _model(model_uri), settings.model_dump()
    served = read_version(model_uri, "served.json") or {}
    _check_gaps(members, table, served.get("may_be_missing", members.gaps), model_uri=model_uri)
    versions.warn_of_drift(members, served, model=model_uri)
    with start_run(
        "score", config, name=f"score {Path(settings.input).name}", dataset=members
    ) as mlflow_run:
        answers = _answers(model, members, model_uri=model_uri, reasons=settings.score.reasons)
        if settings.score.reasons:
            answers["reasons"] = answers["reasons"].str.join("; ")
        answers = answers.drop(columns="member_id") if contract.id == "member_id" else answers
        written = _as_written(table, members.X, typed=output.suffix == ".parquet")
        taken = [str(name) for name in answers.columns if name in written.columns]
        if taken:
            raise InputError(
                f"{settings.input} has columns that the answers need: {', '.join(taken)}; rename "
                "them and score again."
            )
        scored = pd.concat([written, answers], axis=1)
        assert len(scored) == len(members.X)
        _write(scored, output)
        leaving = int(answers["will_churn"].sum())
        mlflow.log_metrics({"rows": len(scored), "will_churn": leaving})
        mlflow.set_tag(Tag.MODEL_URI, model_uri)
    log.info(
        "%d members scored by %s, %d of them likely to leave: %s",
        len(scored),
        model_uri,
        leaving,
        output,
    )
    values = {"run_id": mlflow_run.info.run_id, "rows": len(scored), "output": str(output)}
    return Result(values | {"warnings": len(members.warnings)})


def _as_written(table: Table, X: pd.DataFrame, *, typed: bool) -> pd.DataFrame:
    """The members as they came: a CSV file's cells as their text, so that the member 007 does not
    become 7.

    With ``typed``, features and what is written just as its value are of their types.
    """
    assert table.written is not None
    members = table.written.copy()
    if table.lines is None or not typed:
        return members
    for written, name in zip(members, table.frame, strict=True):
        if name in X:
            members[written] = X[name]
        elif table.frame[name].astype("str").equals(members[written]):
            members[written] = table.frame[name]
    return members


def _model(model_uri: str) -> mlflow.pyfunc.PyFuncModel:
    try:
        return load_bundle(model_uri)
    except (MlflowException, OSError) as error:
        raise InputError(
            f"There is no model {model_uri} ({str(error).splitlines()[0]}); run churnlab promote "
            "first, or name another version with model_uri=models:/NAME/VERSION."
        ) from error


def _check_gaps(
    members: Members, table: Table, may_be_missing: Sequence[str], *, model_uri: str
) -> None:
    """Refuse members without a value where the version has never seen a gap, by the lines of the
    file."""
    faults = [
        Violation(
            f"column {name}: the value is missing, which {model_uri} has never seen there",
            "fill it in, or promote a version that was trained on a table with such gaps",
            np.flatnonzero(members.X[name].isna()),
        )
        for name in members.gaps
        if name not in may_be_missing
    ]
    if faults:
        raise InputError(
            message(faults, head=f"{members.source} cannot be scored", place=table.place)
        )


def _answers(
    model: mlflow.pyfunc.PyFuncModel, members: Members, *, model_uri: str, reasons: bool
) -> pd.DataFrame:
    X = (
        members.X
        if members.ids is None
        else members.X.assign(member_id=members.ids.replace("", None))
    )
    try:
        return pd.DataFrame(model.predict(X, params={"reasons": reasons}))
    except MlflowException as error:
        said = str(error).rpartition("Error: ")[
            2
        ]  # what MLflow puts before it are the members themselves
        raise InputError(
            f"{model_uri} does not take these members: {said} Score them with the dataset= that it "
            "was made for."
        ) from error


def _check_output(output: Path, *, source: str) -> None:
    if not str(output).endswith(ENDINGS):
        raise InputError(f"output={output} has no known ending; give one of {', '.join(ENDINGS)}.")
    if not output.absolute().parent.is_dir():
        raise InputError(f"output={output} lies in a folder that does not exist; make it first.")
    if output.is_dir():
        raise InputError(f"output={output} is a folder; name a file in it.")
    if Path(source).absolute() == output.absolute():
        raise InputError(f"output={output} is the input itself; give the answers another file.")


def _write(scored: pd.DataFrame, output: Path) -> None:
    """Write beside the output and move it into place: a kill leaves no half of a file under its
    name."""
    building = output.with_name(f".{os.getpid()}.{output.name}")
    try:
        if output.suffix == ".parquet":
            scored.to_parquet(building, index=False)
        else:
            scored.to_csv(building, index=False)
        os.replace(building, output)
    finally:
        building.unlink(missing_ok=True)
