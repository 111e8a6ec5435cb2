"""Score one block: check its rows, ask the version, keep the rows and what is counted of them."""

from __future__ import annotations

import gzip
import io
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from mlflow.exceptions import MlflowException

from churnlab.data import drift
from churnlab.data.cells import BLANKS, gaps
from churnlab.data.contract import Contract
from churnlab.data.dataset import row_hashes
from churnlab.data.table import Table
from churnlab.data.validation import Checked, inspect
from churnlab.data.violations import Violation, message
from churnlab.errors import InputError
from churnlab.registry import versions
from churnlab.scoring.answers import TEXTS, ask, cannot, refusal, refused_row
from churnlab.scoring.batch import Batch, kind_of, read
from churnlab.scoring.blocks import Block, CsvBlock
from churnlab.scoring.counts import Counts

CONTACTS = ".contacts"
"""In place of an ending: the parts are those of a contact list."""

PLACE = "\0place"
"""The column of a part with the line or row of each member."""


@dataclass(frozen=True)
class Scoring:
    """What decides how a block is scored. ``ending`` is that of the output; ``folder`` keeps the
    parts."""

    contract: Contract
    model_uri: str
    reasons: bool
    reject: bool
    ending: str
    folder: Path


@dataclass(frozen=True)
class Part:
    """A scored block, not yet kept: its counts, the accepted rows with their answers, the rejected
    ones, and hashes of its rows and of its ids (0: none)."""

    counts: Counts
    accepted: pa.Table
    rejected: pd.DataFrame
    row_hashes: np.ndarray
    id_hashes: np.ndarray


def score(
    block: Block, scoring: Scoring, served: versions.Served, taken: Sequence[int] = ()
) -> Part:
    """Score a block; ``taken`` are the positions of rows whose id an earlier block has.

    InputError: a fault of the whole file; without ``reject`` also a row that breaks the contract.
    """
    contract, optional = scoring.contract, served.spec["may_be_missing"]
    batch, found = _inspected(block, scoring, optional, plain=True)
    if found[1] and isinstance(block, CsvBlock):  # to say what is wrong as it is written
        batch, found = _inspected(block, scoring, optional, plain=False)
    table, ((X, _, ids, warnings), violations) = batch.table, found
    if block.number and table.frame.empty and not table.violations:
        return Part(Counts(warnings=[*table.warnings]), pa.table({}), pd.DataFrame(), *_none())
    if len(taken):
        text = f"id {contract.id}: the value occurs in an earlier row, too"
        rows = table.frame.index.to_numpy()[list(taken)]
        violations.append(Violation(text, "keep one row per member", rows))
    id_hashes = _id_hashes(ids)
    place = _places(table, block)
    reasons = _bad_rows(table, X, violations, scoring, optional, place)
    rows = table.frame.index.to_numpy()
    kept = ~np.isin(rows, list(reasons)) if reasons else np.ones(len(rows), bool)
    answers = _answers(served, X, rows, kept, reasons, scoring)
    counts = Counts(rows=int(kept.sum()), rejected=len(reasons), warnings=[*warnings])
    counts.separator = table.separator if isinstance(block, CsvBlock) else None
    counts.why.update(_kind(found[0]) for found in reasons.values())
    assert batch.written is not None
    rejected = _rejected(batch.written, rows, reasons, place)
    if len(rejected):
        counts.first_bad = f"{rejected['place'][0]}, {rejected['reason'][0]}"
    if answers is None:
        return Part(counts, pa.table({}), rejected, np.empty(0, np.uint64), id_hashes)
    _count(counts, table, X, kept, answers, served, scoring)
    members = _members(block, batch, X, kept, counts, scoring)
    if both := [name for name in answers.column_names if name in members.column_names]:
        raise InputError(
            f"{block.source} has columns with the names of the answers: {', '.join(both)}; "
            "rename them and score again."
        )
    for name in answers.column_names:
        members = members.append_column(name, answers[name])
    counts.columns = members.column_names
    if scoring.ending == CONTACTS:
        names = [plain_name(name, contract) for name in members.column_names]
        places = [int(place(int(row)).rpartition(" ")[2]) for row in rows[kept]]
        members = members.rename_columns(names).append_column(PLACE, pa.array(places))
    ids = None if ids is None else ids[kept].reset_index(drop=True)
    return Part(counts, members, rejected, row_hashes(X.loc[kept], ids), id_hashes)


def _answers(
    served: versions.Served,
    X: pd.DataFrame,
    rows: np.ndarray,
    kept: np.ndarray,
    reasons: dict[int, list[str]],
    scoring: Scoring,
) -> pa.Table | None:
    """Return the answers for the rows that are ``kept``, None if there is none left.

    Members whom the version refuses get its reason, and are kept no longer.
    """
    while kept.any():
        X_kept = X if kept.all() else X.loc[kept].reset_index(drop=True)
        try:
            return ask(served, X_kept, reasons=scoring.reasons)
        except MlflowException as error:
            bad = refused_row(error, X_kept)
            if not scoring.reject or bad is None:
                raise cannot(scoring.model_uri, error) from error
            at = int(np.flatnonzero(kept)[bad])
            reasons[int(rows[at])] = [refusal(error).partition(": ")[2]]
            kept[at] = False
    return None


def _rejected(
    written: pa.Table, rows: np.ndarray, reasons: Mapping[int, list[str]], place: Any
) -> pd.DataFrame:
    """Return the rejected rows as they are written, each with its place and what is wrong.

    Rows with too few or too many cells, which are none of ``rows``, have no cells there.
    """
    if not reasons:
        return pd.DataFrame()
    bad = sorted(reasons)
    found = {
        "place": [place(row) for row in bad],
        "reason": ["; ".join(reasons[row]) for row in bad],
    }
    at = pa.array(np.searchsorted(rows, bad), pa.int64(), mask=~np.isin(bad, rows))
    return pd.concat([pd.DataFrame(found), as_frame(written.take(at))], axis=1)


def _members(
    block: Block,
    batch: Batch,
    X: pd.DataFrame,
    kept: np.ndarray,
    counts: Counts,
    scoring: Scoring,
) -> pa.Table:
    """Return the accepted rows as written, those of a CSV with types where the output has types."""
    contract, contacts = scoring.contract, scoring.ending == CONTACTS
    typed = isinstance(block, CsvBlock) and not scoring.ending.startswith(".csv")
    assert batch.written is not None
    members = batch.written
    if typed or contacts:
        members = _with_types(members, batch.table, X, contract, dates=contacts)
    members = members if kept.all() else members.filter(pa.array(kept))
    if typed and not contacts:
        counts.kinds = {
            name: kind_of(members[name])
            for name in members.column_names
            if members[name].type in (pa.string(), pa.large_string())
            and plain_name(name, contract) not in contract.text
        }
    return members


def _inspected(
    block: Block, scoring: Scoring, optional: Sequence[str], *, plain: bool
) -> tuple[Batch, tuple[Checked, list[Violation]]]:
    """Read a block and check its rows."""
    typed = not scoring.ending.startswith(".csv")
    batch = read(block, scoring.contract, optional, typed=typed, plain=plain)
    return batch, inspect(batch.table, scoring.contract, needs_target=False)


def _none() -> tuple[np.ndarray, np.ndarray]:
    return np.empty(0, np.uint64), np.empty(0, np.uint64)


def _places(table: Table, block: Block) -> Any:
    """Return what names a row: its line in a text file, else its number from 0 on."""
    if isinstance(block, CsvBlock):
        return table.place
    return lambda row: f"row {block.row + row}"


def _id_hashes(ids: pd.Series | None) -> np.ndarray:
    if ids is None:
        return np.empty(0, np.uint64)
    hashes = pd.util.hash_pandas_object(ids.astype(object), index=False).to_numpy()
    return np.where(gaps(ids, ()), np.uint64(0), hashes)


def _bad_rows(
    table: Table,
    X: pd.DataFrame,
    violations: Sequence[Violation],
    scoring: Scoring,
    optional: Sequence[str],
    place: Any,
) -> dict[int, list[str]]:
    """Return what is wrong in which rows; InputError without ``reject``, and for a fault of the
    whole table."""
    rows, contract = table.frame.index.to_numpy(), scoring.contract
    whole = [one for one in violations if one.rows is None]
    if whole or (violations and not scoring.reject):
        head = f"{table.source} violates the contract of dataset {contract.name}"
        raise InputError(message(violations, head=head, place=place))
    gap = {name: X[name].isna().to_numpy() for name in X if name not in optional}
    if not scoring.reject:
        missing = [
            Violation(
                f"column {name}: the value is missing, and {scoring.model_uri} was trained without "
                "missing values there",
                "fill it in, or promote a version that was trained on a table with such gaps",
                rows[np.flatnonzero(found)],
            )
            for name, found in gap.items()
            if found.any()
        ]
        if missing:
            head = f"{table.source} cannot be scored"
            raise InputError(message(missing, head=head, place=place))
        return {}
    reasons: dict[int, list[str]] = {}
    for name, found in gap.items():
        for row in rows[found]:
            reasons.setdefault(int(row), []).append(f"column {name}: the value is missing")
    for row in sorted({int(row) for one in violations if one.rows is not None for row in one.rows}):
        reasons[row] = _of_row(row, table, violations, contract)
    return reasons


def _of_row(
    row: int, table: Table, violations: Sequence[Violation], contract: Contract
) -> list[str]:
    """Return what is wrong in a row, with its own values."""
    if row in table.frame.index:
        alone = replace(table, frame=table.frame.loc[[row]], violations=())
        found = [one.text for one in inspect(alone, contract, needs_target=False)[1]]
        if found:
            return found
        found_ids = [one for one in violations if one.rows is not None and row in one.rows]
        value = repr(str(table.frame[contract.id][row])) if contract.id in table.frame else ""
        return [
            re.sub(r"^(id .*?: ).* occurs in", rf"\g<1>{value} occurs in", one.text)
            for one in found_ids
        ]
    return [one.text for one in violations if one.rows is not None and row in one.rows]


def _kind(reason: str) -> str:
    """Return what a reason is about: the column, rule or id that it opens with.

    >>> _kind("column Age: 170 is above 100"), _kind("id card: '7' occurs in an earlier row, too")
    ('column Age', 'id card')
    """
    return reason.partition(":")[0] if ":" in reason else reason


def _count(
    counts: Counts,
    table: Table,
    X: pd.DataFrame,
    kept: np.ndarray,
    answers: pa.Table,
    served: versions.Served,
    scoring: Scoring,
) -> None:
    """Count what the run and the warnings say of the accepted rows."""
    X = X if kept.all() else X.loc[kept]
    probability = answers["churn_probability"].to_numpy()
    counts.leaving = int(answers["will_churn"].to_numpy().sum())
    counts.probability = float(probability.sum())
    numbers = answers["segment"].value_counts().to_pylist()
    counts.segments.update({str(one["values"]): one["counts"] for one in numbers})
    training = served.spec.get("training", {})
    counts.seen = drift.seen(X, training)
    if "scores" in training:
        counts.scores = drift.Seen.of(pd.Series(probability), training["scores"])
    missing = X.isna().sum()
    counts.missing.update({str(name): int(n) for name, n in missing.items() if n})
    for name, column in scoring.contract.columns.items():
        if column.unknown == "accept" and column.values is not None:
            known = X[name].dropna()
            others = known[~known.isin(column.values)].value_counts(sort=False)
            counts.others[name] = Counter({str(one): int(n) for one, n in others.items()})
        raw = table.frame[name] if name in counts.missing else None
        if raw is not None and table.gap_texts is not None and name in table.gap_texts:
            raw = table.gap_texts[name].loc[raw.index]
        if raw is not None and raw.dtype.kind not in "biufcmM":
            raw = raw[kept]
            words = raw[gaps(raw, scoring.contract.words(name)) & raw.notna().to_numpy()]
            found = words.astype("str").value_counts().items()
            counts.words[name] = Counter({str(word): int(n) for word, n in found})


def as_frame(rows: pa.Table) -> pd.DataFrame:
    """Return rows in which whole numbers stay whole next to gaps."""
    return rows.to_pandas(
        types_mapper=lambda kind: pd.ArrowDtype(kind) if pa.types.is_integer(kind) else None
    )


def plain_name(written: str, contract: Contract) -> str:
    """Return the contract's name of a column as the file writes it."""
    bare = written if written in contract.columns else written.strip(BLANKS)
    return contract.rename.get(written, contract.rename.get(bare, bare))


def _with_types(
    written: pa.Table, table: Table, X: pd.DataFrame, contract: Contract, *, dates: bool
) -> pa.Table:
    """Return the members as written, the features with their types; ``dates``: as their ages."""
    names = [name for name in table.frame if not str(name).startswith("\0")]
    for at, name in enumerate(written.column_names):
        plain = plain_name(name, contract)
        column = contract.columns.get(plain)
        if column is not None and (dates or column.kind != "date") and plain in names:
            written = written.set_column(at, name, pa.array(X[plain], from_pandas=True))
    return written


def keep(part: Part, number: int, scoring: Scoring, *, header: bool) -> None:
    """Write a part's rows into the folder of parts; its counts, which make it count, come last."""
    folder, stem = scoring.folder, f"{number:06d}"
    separator = part.counts.separator
    form: dict[str, Any] = {}
    if separator is not None:
        form = {"sep": separator, "decimal": scoring.contract.decimal}
    if scoring.ending.startswith(".csv"):
        frame = as_frame(part.accepted)
        text = frame.to_csv(index=False, header=header, **form) if len(frame.columns) else ""
        content = text.encode()
        if scoring.ending == ".csv.gz":
            content = gzip.compress(content, 6, mtime=0)
        (folder / f"{stem}.csv").write_bytes(content)
    elif part.counts.rows:
        rows = part.accepted
        for at, field in enumerate(rows.schema):
            if field.name in TEXTS and field.type == pa.string():
                rows = rows.set_column(at, field.name, rows[at].dictionary_encode())
        with pa.ipc.new_file(folder / f"{stem}.arrow", rows.schema) as writer:
            writer.write_table(rows)
    if len(part.rejected):
        part.rejected.to_parquet(folder / f"{stem}.rejected")
    for kind, hashes in (("rows", part.row_hashes), ("ids", part.id_hashes)):
        content = io.BytesIO()
        np.save(content, hashes)  # into a file it would not notice a disk that is full at the end
        (folder / f"{stem}.{kind}.npy").write_bytes(content.getvalue())
