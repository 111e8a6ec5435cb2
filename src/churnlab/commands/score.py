"""Score a file of members: add probability, decision, segment and action to each row.

Why: marketing works with files. Each row is checked against the dataset's contract and scored, in
order, by one version; its number is kept in the run, the result and a Parquet output. The output
appears complete or not at all; with score.on_bad_row=reject rows that break the contract are left
out of it and kept, with the reason, in a file next to it.

    churnlab score input=members.csv output=scored.csv
    churnlab score dataset=gym input=members.parquet output=scored.parquet score.reasons=true
    churnlab score model_uri=models:/gym-churn/3 dataset=gym input=members.csv output=scored.csv
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException

from churnlab.config.commands import Result, Score
from churnlab.data.contract import Contract
from churnlab.data.dataset import Members, make_members
from churnlab.data.reading import read_table
from churnlab.data.table import Table
from churnlab.data.validation import inspect
from churnlab.data.violations import Violation, message
from churnlab.errors import InputError
from churnlab.formatting import counted, listed
from churnlab.registry import versions
from churnlab.registry.champion import ModelReference, model_name, resolve
from churnlab.tracking.names import Tag
from churnlab.tracking.runs import start_run

log = logging.getLogger(__name__)

ENDINGS = (".csv", ".csv.gz", ".parquet")


def run(settings: Score) -> Result:
    """Resolve the version once, read and check the members, score them, write the output."""
    contract, output = settings.dataset.contract, Path(settings.output)
    _check_output(output, source=settings.input)
    model = resolve(settings.model_uri or f"models:/{model_name(contract.name)}@champion")
    table = read_table(settings.input, contract, key="input", whole=True)
    served = _load(model.uri)
    if served.spec.get("extra") == "refuse":
        contract = replace(contract, extra="refuse")
    stated, contract = contract, versions.with_its_days(served, contract)
    table = _with_absent(table, contract, served)
    optional, rejected = served.spec["may_be_missing"], None
    if settings.score.on_bad_row == "reject":
        table, rejected = _without_bad_rows(table, contract, optional)
    members = make_members(table, contract)
    _check_gaps(members, table, optional, model_uri=model.uri)
    _warn_of_days(members, stated, model_uri=model.uri)
    versions.warn_of_drift(members, served.spec, model=model.uri)
    run_name, origin = f"score {Path(settings.input).name}", _origin(model)
    with start_run(
        "score", settings.model_dump(), name=run_name, dataset=members, tags=origin
    ) as mlflow_run:
        answers = _answers(served, members, model_uri=model.uri, reasons=settings.score.reasons)
        scores = answers["churn_probability"].to_numpy()
        versions.warn_of_score_drift(members, scores, served.spec, model=model.uri)
        undated = [name for name, column in contract.columns.items() if column.kind != "date"]
        written = _as_written(table, members.X[undated], typed=output.suffix == ".parquet")
        taken = [str(name) for name in answers.columns if name in written.columns]
        if taken:
            raise InputError(
                f"{settings.input} has columns with the names of the answers: {', '.join(taken)}; "
                "rename them and score again."
            )
        scored = pd.concat([written, answers], axis=1)
        assert len(scored) == len(members.X)
        form = {} if table.lines is None else {"sep": table.separator, "decimal": contract.decimal}
        bad = _write_rejected(rejected, output, form=form)
        _write(scored, output, metadata=origin, form=form)
        leaving = int(answers["will_churn"].sum())
        mlflow.log_metrics({"rows": len(scored), "will_churn": leaving})
    log.info("%d members scored by %s, %d predicted to churn", len(scored), model.uri, leaving)
    log.info("The scored file: %s", output)
    values = {"run_id": mlflow_run.info.run_id, "rows": len(scored), "version": model.version}
    if rejected is not None:
        values |= {"rejected": len(rejected), "rejected_output": bad and str(bad)}
    return Result(values | {"output": str(output)})


def _origin(model: ModelReference) -> dict[str, str]:
    """Return the tags of the run and of a Parquet output: which model scored, which version."""
    version = {} if model.version is None else {Tag.VERSION: model.version}
    return {Tag.MODEL_URI: model.uri} | version


def _as_written(table: Table, X: pd.DataFrame, *, typed: bool) -> pd.DataFrame:
    """Return the members as written: a CSV file's cells as text, so that 007 does not become 7.

    ``typed`` gives types to features and to columns whose values read the same as their text.
    """
    assert table.written is not None
    members = table.written.copy()
    if table.lines is None or not typed:
        return members
    for written, name in zip(members, list(table.frame)[: members.shape[1]], strict=True):
        if name in X:
            members[written] = X[name]
        elif table.frame[name].astype("str").equals(members[written]):
            members[written] = table.frame[name]
    return members


def _with_absent(table: Table, contract: Contract, served: versions.Served) -> Table:
    """Return the table with empty columns for those that the version can do without, as a server
    answers rows without them."""
    optional = served.spec["may_be_missing"]
    absent = [name for name in contract.columns if name in optional and name not in table.columns]
    if not absent or len(absent) == len(contract.columns):
        return table
    frame = table.frame.assign(**dict.fromkeys(absent, np.nan))
    warning = f"there is no column {listed(absent)}: every value counts as missing"
    return replace(
        table,
        frame=frame,
        columns=(*table.columns, *absent),
        warnings=(*table.warnings, warning),
    )


def _without_bad_rows(
    table: Table, contract: Contract, may_be_missing: Sequence[str]
) -> tuple[Table, pd.DataFrame]:
    """Divide the rows: the table of those that can be scored, and the others as they are written,
    each with its line (or row) and what is wrong. A fault of the whole table is left to the check.
    """
    (X, *_), violations = inspect(table, contract, needs_target=False)
    rows = table.frame.index.to_numpy()
    reasons: dict[int, list[str]] = {}
    if table.written is None or any(one.rows is None for one in violations):
        return table, pd.DataFrame()
    for name in [name for name in X if name not in may_be_missing]:
        for row in rows[X[name].isna().to_numpy()]:
            reasons.setdefault(int(row), []).append(f"column {name}: the value is missing")
    for row in sorted({int(row) for one in violations if one.rows is not None for row in one.rows}):
        alone = replace(table, frame=table.frame.loc[[row]], violations=())
        found = inspect(alone, contract, needs_target=False)[1]
        found = found or [one for one in violations if one.rows is not None and row in one.rows]
        reasons[row] = [one.text for one in found]  # a wrong cell is missing for this reason
    bad = sorted(reasons)
    if len(bad) == len(rows):
        return table, pd.DataFrame()
    places = [table.place(row) for row in bad]
    wrong = ["; ".join(reasons[row]) for row in bad]
    rejected = pd.DataFrame({"place": places, "reason": wrong})
    rejected = pd.concat([rejected, table.written.loc[bad].reset_index(drop=True)], axis=1)
    kept = np.setdiff1d(rows, bad)

    def part(frame: pd.DataFrame) -> pd.DataFrame:
        return frame.loc[kept].reset_index(drop=True)

    fitting = replace(
        table,
        frame=part(table.frame),
        lines=None if table.lines is None else np.asarray(table.lines)[kept],
        written=part(table.written),
        gap_texts=None if table.gap_texts is None else part(table.gap_texts),
    )
    return fitting, rejected


def _write_rejected(
    rejected: pd.DataFrame | None, output: Path, *, form: Mapping[str, Any]
) -> Path | None:
    """Write the rejected rows next to the output, if there are any; return the file."""
    if rejected is None or rejected.empty:
        return None
    stem = output.name.removesuffix(".gz").rpartition(".")[0]
    file = output.with_name(f"{stem}_rejected.csv")
    _write(rejected, file, metadata={}, form=form)
    log.warning(
        "warning: %s rejected, with the reason of each: %s", counted(len(rejected), "row"), file
    )
    return file


def _load(model_uri: str) -> versions.Served:
    try:
        return versions.load(model_uri)
    except LookupError as error:
        raise InputError(
            f"{model_uri} cannot score members: {error}. Name another version with "
            "model_uri=models:/NAME/VERSION."
        ) from error


def _check_gaps(
    members: Members, table: Table, may_be_missing: Sequence[str], *, model_uri: str
) -> None:
    """Refuse missing values in columns that had none when the version was trained."""
    violations = [
        Violation(
            f"column {name}: the value is missing, and {model_uri} was trained without missing "
            "values there",
            "fill it in, or promote a version that was trained on a table with such gaps",
            np.flatnonzero(members.X[name].isna()),
        )
        for name in members.gaps
        if name not in may_be_missing
    ]
    if violations:
        head = f"{members.source} cannot be scored"
        raise InputError(message(violations, head=head, place=table.place))


def _warn_of_days(members: Members, stated: Contract, *, model_uri: str) -> None:
    """Warn where the YAML states another day for the ages of dates than the version has."""
    for name, column in members.contract.columns.items():
        if column.before != stated.columns[name].before:
            members.warn(
                f"{name}: {model_uri} counts ages before {column.before}, as it was trained; the "
                f"YAML of {stated.name} says {stated.columns[name].before}, which a model trained "
                "from now on will have"
            )


def _answers(
    served: versions.Served, members: Members, *, model_uri: str, reasons: bool
) -> pd.DataFrame:
    """Return the version's answers, one row per member; its id is in the input already."""
    try:
        answers = pd.DataFrame(versions.answers(served, members.X, reasons=reasons))
    except MlflowException as error:
        # MLflow puts the members themselves before the reason.
        reason = str(error).rpartition("Error: ")[2]
        raise InputError(
            f"{model_uri} cannot score these members: {reason} Use the dataset= that it was made "
            "for."
        ) from error
    if reasons:
        answers["reasons"] = answers["reasons"].str.join("; ")
    return answers


def _check_output(output: Path, *, source: str) -> None:
    if not str(output).endswith(ENDINGS):
        raise InputError(f"output={output} has no known ending; give one of {', '.join(ENDINGS)}.")
    if not output.absolute().parent.is_dir():
        raise InputError(f"output={output} is in a folder that does not exist; create it first.")
    if output.is_dir():
        raise InputError(f"output={output} is a folder; name a file in it.")
    if Path(source).absolute() == output.absolute():
        raise InputError(f"output={output} is the input itself; name another file.")


def _write(
    scored: pd.DataFrame, output: Path, *, metadata: Mapping[str, str], form: Mapping[str, Any]
) -> None:
    """Write to a temporary file and rename it, so that a kill leaves no half of an output.

    A CSV file has the separator and the decimal mark of the input (``form``); a Parquet file gets
    the ``metadata`` as key-value metadata.
    """
    building = output.with_name(f".{os.getpid()}.{output.name}")
    try:
        if output.suffix == ".parquet":
            import pyarrow as pa
            import pyarrow.parquet as pq

            table = pa.Table.from_pandas(scored, preserve_index=False)
            metadata = table.schema.metadata | metadata
            pq.write_table(table.replace_schema_metadata(metadata), building)
        else:
            scored.to_csv(building, index=False, **form)
        os.replace(building, output)
    finally:
        building.unlink(missing_ok=True)
