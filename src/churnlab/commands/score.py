"""Score a file of members: add probability, decision, segment and action to each row.

Why: marketing works with files. Each row is checked against the dataset's contract and scored, in
order, by one version; its number is kept in the run, the result and a Parquet output. The output
appears complete or not at all; with score.on_bad_row=reject rows that break the contract are left
out of it and kept, with the reason, in a file next to it. contacts=true writes whom to contact
instead, the best first: the members for whom it is expected to pay, within score.top members or
score.budget, by the costs in the version's decision or in decision=.

    churnlab score input=members.csv output=scored.csv
    churnlab score dataset=gym input=members.parquet output=scored.parquet score.reasons=true
    churnlab score contacts=true input=members.csv output=contacts.csv score.budget=5000
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd

from churnlab.config.commands import Result, Score
from churnlab.config.objects import build_object
from churnlab.data import drift, quality
from churnlab.data.contract import Contract
from churnlab.data.dataset import Members
from churnlab.errors import InputError
from churnlab.formatting import counted
from churnlab.registry import versions
from churnlab.registry.champion import ModelReference, model_name, resolve
from churnlab.scoring import job, output, parts
from churnlab.scoring.blocks import opened
from churnlab.scoring.contacts import ContactList, decision_of, member_values
from churnlab.scoring.counts import Counts, sha256_of
from churnlab.scoring.part import CONTACTS, PLACE, Scoring, as_frame, plain_name
from churnlab.tracking.fingerprints import code_sha256, deciding
from churnlab.tracking.names import Tag
from churnlab.tracking.runs import start_run
from churnlab.tuning.needs import PARTS, needs_of

log = logging.getLogger(__name__)

ENDINGS = (".csv", ".csv.gz", ".parquet")


@dataclass(frozen=True)
class ScoredMembers(Members):
    """The members of a run; ``X`` has the columns and no rows, ``found`` is counted of all."""

    found: Mapping[str, Any]

    def report(self) -> dict[str, Any]:
        """Return the data report that the run logs."""
        return {"source": self.source, **self.found, "warnings": list(self.warnings)}


def run(settings: Score) -> Result:
    """Resolve the version once, score the members part by part, join the parts to the output."""
    contract, target = settings.dataset.contract, Path(settings.output)
    _check_output(target, source=settings.input)
    model = resolve(settings.model_uri or f"models:/{model_name(contract.name)}@champion")
    served = versions.load_trusted(model.uri, unverified=settings.model.unverified)
    job.use(model.uri, served)
    if served.spec.get("extra") == "refuse":
        contract = replace(contract, extra="refuse")
    stated, contract = contract, versions.with_its_days(served, contract)
    if settings.contacts:
        member_values(
            decision_of(served.spec.get("decision"), settings.decision)
        )  # before the members are scored
    with _parts(settings, contract, model, target) as (scoring, counts, count):
        if not counts.rows:
            raise InputError(
                f"No row of {settings.input} can be scored: all {counts.rejected} break the "
                f"contract of dataset {contract.name}. {counts.first_bad}."
            )
        members = _members(settings, scoring, counts, count)
        _warn(members, counts, served, stated, model_uri=model.uri)
        return _finish(settings, scoring, counts, count, members, served, model)


@contextmanager
def _parts(
    settings: Score, contract: Contract, model: ModelReference, target: Path
) -> Iterator[tuple[Scoring, Counts, int]]:
    """Yield how the blocks of the input are scored, what is counted of them all, and their number.

    The parts stay where the job fails or is killed, unless the members are at fault, and go when it
    has ended well.
    """
    ending = next(one for one in ENDINGS if target.name.endswith(one))
    ending = CONTACTS if settings.contacts else ending
    engine = build_object(settings.engine, key="engine")
    with parts.locked(target) as folder:
        scoring = Scoring(
            contract, model.uri, settings.score.reasons or settings.contacts,
            settings.score.on_bad_row == "reject", ending, folder,
        )  # fmt: skip
        with opened(settings.input, contract, folder=folder / parts.DOWNLOAD) as members:
            made_of = [members.state, deciding(settings.model_dump()), model.uri, ending]
            made_of += [repr(contract), code_sha256()]
            parts.begin(folder, {"made_of": made_of})
            needs = needs_of([settings.model_dump()]).and_folder(folder, PARTS)
            try:
                with engine.pool(needs) as pool:
                    counts, count = job.run(
                        members, scoring, pool, tracking=settings.tracking.uri,
                        unverified=settings.model.unverified, workers=engine.workers,
                    )  # fmt: skip
            except InputError as error:
                if getattr(error.__cause__, "errno", None) is None:  # no fault of a disk
                    parts.forget(folder)
                raise
        try:
            yield scoring, counts, count
        except InputError:
            parts.forget(folder)
            raise
        parts.forget(folder)


def _members(settings: Score, scoring: Scoring, counts: Counts, count: int) -> ScoredMembers:
    """Return what the run says of the members, with the fingerprint of the accepted rows."""
    contract = scoring.contract
    X = pd.DataFrame({name: pd.Series(dtype="float64") for name in contract.columns})
    columns = [*(["id of the contract"] if contract.id is not None else []), *X]
    hashes = (parts.hashes(scoring.folder, number, "rows") for number in range(count))
    found = {
        "rows": counts.rows,
        "rejected": counts.rejected,
        "rejected_by": dict(counts.why),
        "missing": dict(counts.missing),
    }
    sha256 = sha256_of(columns, hashes)
    return ScoredMembers(contract, X, None, settings.input, sha256, found)


def _warn(
    members: ScoredMembers,
    counts: Counts,
    served: versions.Served,
    stated: Contract,
    *,
    model_uri: str,
) -> None:
    """Warn of gaps, unlisted categories, other days, and of drift since the version's training."""
    for warning in counts.warnings:
        members.warn(warning)
    for warning in quality.gaps_of(counts.missing, counts.rows, counts.words):
        members.warn(warning)
    for name, others in counts.others.items():
        if others:
            members.warn(quality.unlisted(name, [*others], others.total(), counts.rows))
    _warn_of_days(members, stated, model_uri=model_uri)
    training = served.spec.get("training")
    if training:
        for warning in drift.warnings_of(counts.seen, training, model=model_uri):
            members.warn(warning)
        for warning in drift.score_warnings_of(counts.scores, training, model=model_uri):
            members.warn(warning)


def _finish(
    settings: Score,
    scoring: Scoring,
    counts: Counts,
    count: int,
    members: ScoredMembers,
    served: versions.Served,
    model: ModelReference,
) -> Result:
    """Keep the run, and let the output appear."""
    target, origin = Path(settings.output), _origin(model)
    separator = counts.separator
    form = {} if separator is None else {"sep": separator, "decimal": members.contract.decimal}
    name = f"score {Path(settings.input).name}"
    totals: dict[str, Any] = {}
    with start_run("score", settings.model_dump(), name=name, dataset=members, tags=origin) as run:
        bad = output.rejected_file(target)
        with parts.writing(target):
            if counts.rejected:
                output.write_rejected(scoring, count, bad, form)
                log.warning(
                    "warning: %s rejected, with the reason of each: %s",
                    counted(counts.rejected, "row"),
                    bad,
                )
            elif scoring.reject:
                bad.unlink(missing_ok=True)  # of an earlier job
            if settings.contacts:
                totals = _write_contacts(settings, scoring, count, served, origin, form)
            else:
                output.write(scoring, count, target, counts, origin)
        mlflow.log_metrics(_metrics(counts, served.spec) | totals)
    log.info(
        "%d members scored by %s, %d predicted to churn", counts.rows, model.uri, counts.leaving
    )
    log.info("The %s: %s", "contact list" if settings.contacts else "scored file", target)
    values = {"run_id": run.info.run_id, "rows": counts.rows, "version": model.version}
    if scoring.reject:
        rejected_output = str(bad) if counts.rejected else None
        values |= {"rejected": counts.rejected, "rejected_output": rejected_output}
    return Result(values | totals | {"output": str(target)})


def _write_contacts(
    settings: Score,
    scoring: Scoring,
    count: int,
    served: versions.Served,
    origin: Mapping[str, str],
    form: Mapping[str, Any],
) -> dict[str, Any]:
    """Write the contact list of all parts; return its totals."""
    contract = scoring.contract
    words = [name for name, column in contract.columns.items() if column.kind == "category"]
    with ContactList(
        decision_of(served.spec.get("decision"), settings.decision),
        Path(settings.output),
        identifier=contract.id,
        place="line" if form else "row",
        words=words,
        form=form,
        top=settings.score.top,
        budget=settings.score.budget,
        strict=not scoring.reject,
        about={"version": origin.get(Tag.VERSION), "model_uri": origin[Tag.MODEL_URI]},
    ) as contacts:
        for number in range(count):
            if (rows := parts.rows(scoring.folder, number)) is not None:
                frame = as_frame(rows)
                contacts.add(frame, frame, frame[PLACE].tolist())
            if (bad := parts.rejected(scoring.folder, number)) is not None:
                places = [place.rpartition(" ")[2] for place in bad["place"]]
                known = bad.rename(columns=lambda name: plain_name(name, contract))
                contacts.reject(places, bad["reason"].tolist(), known)
        totals = contacts.write()
    log.info("%s", contacts.summary)
    return totals


def _metrics(counts: Counts, spec: Mapping[str, Any]) -> dict[str, float]:
    """Return what was found, with what the version promised: the mean probability out of fold."""
    metrics = {
        "rows": counts.rows,
        "rejected": counts.rejected,
        "will_churn": counts.leaving,
        "predicted_churn": counts.probability / counts.rows,
    }
    promised = spec.get("training", {}).get("scores", {}).get("mean")
    if promised is not None:
        metrics["promised_churn"] = promised
    for number, size in counts.segments.items():
        metrics[f"segment_{number}_size"] = size
    for segment in spec.get("segments", {}).values():
        if "share" in segment:
            metrics[f"segment_{segment['number']}_promised_share"] = segment["share"]
    for why, rows in counts.why.items():
        metrics["rejected_by " + "".join(c if c.isalnum() else "_" for c in why)] = rows
    return metrics


def _origin(model: ModelReference) -> dict[str, str]:
    """Return the tags of the run and of a Parquet output: which model scored, which version."""
    version = {} if model.version is None else {Tag.VERSION: model.version}
    return {Tag.MODEL_URI: model.uri} | version


def _warn_of_days(members: Members, stated: Contract, *, model_uri: str) -> None:
    """Warn where the YAML states another day for the ages of dates than the version has."""
    for name, column in members.contract.columns.items():
        if column.before != stated.columns[name].before:
            members.warn(
                f"{name}: {model_uri} counts ages before {column.before}, as it was trained; the "
                f"YAML of {stated.name} says {stated.columns[name].before}, which a model trained "
                "from now on will have"
            )


def _check_output(output: Path, *, source: str) -> None:
    if not str(output).endswith(ENDINGS):
        raise InputError(f"output={output} has no known ending; give one of {', '.join(ENDINGS)}.")
    if not output.absolute().parent.is_dir():
        raise InputError(f"output={output} is in a folder that does not exist; create it first.")
    if output.is_dir():
        raise InputError(f"output={output} is a folder; name a file in it.")
    if Path(source).absolute() == output.absolute():
        raise InputError(f"output={output} is the input itself; name another file.")
    if Path(source).is_dir() and Path(source).resolve() in output.resolve().parents:
        raise InputError(
            f"output={output} is in the folder that is scored, so it would be scored the next "
            "time; name a file elsewhere."
        )
