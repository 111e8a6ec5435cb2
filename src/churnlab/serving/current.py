"""Hold the version that answers now, and follow the alias that names it."""

from __future__ import annotations

import json
import logging
import math
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import mlflow
import orjson
from mlflow.environment_variables import MLFLOW_HTTP_REQUEST_MAX_RETRIES as RETRIES

from churnlab.errors import disk_fault
from churnlab.registry.champion import version_number
from churnlab.registry.input_example import EXAMPLES
from churnlab.registry.manifest import Unverified, verified_copy
from churnlab.registry.versions import load_files
from churnlab.serving import openapi
from churnlab.serving.requests import Invocations, Refusal
from churnlab.tracking.search import look_up
from churnlab.tracking.server import is_gone

log = logging.getLogger(__name__)

MLFLOW_EXAMPLE = "serving_input_example.json"
"""The request that MLflow keeps with each version; it has no answers."""

SAME = 1e-9
"""How far a probability may be from the promised one: another machine sums in another order."""


AGAIN = 60
"""Seconds after which a refused version is tried again: its files may be back."""


class Source(NamedTuple):
    """Which version to serve: ``uri`` at the start, and then that with the ``alias`` of the
    registered model ``name``, unless it is None. ``unverified``: also one without a manifest."""

    uri: str
    name: str
    alias: str | None
    unverified: bool


class Version:
    """A version that has answered its own examples: ``number`` is "none" for an unregistered
    model, ``spec`` its served.json."""

    def __init__(self, source: Source, *, most_rows: int) -> None:
        """Load a verified copy. LookupError: the reason why the version is not to be used."""
        self.name, self.most_rows = source.name, most_rows
        number = source.uri.rpartition("/")[2]
        self.number = number if number.isdecimal() else "none"
        self.header = (b"x-churnlab-version", self.number.encode())
        with verified_copy(source.uri, unverified=source.unverified) as folder:
            served = load_files(folder)
            request, answers = _read_examples(folder)
        self.spec: Mapping[str, Any] = served.spec
        model = served.model.unwrap_python_model()
        self.invocations = Invocations(model, most_rows=most_rows)
        self._ask(Invocations(model, most_rows=sys.maxsize), request, answers)
        members = orjson.loads(request)["dataframe_records"] if request and answers else []
        self.example: dict[str, Any] | None = next(iter(members), None)
        self.since = datetime.now(UTC).isoformat(timespec="seconds")

    @staticmethod
    def _ask(
        version: Invocations, request: bytes | None, promised: Sequence[Mapping[str, Any]] | None
    ) -> None:
        """Ask the version its examples, twice: what is made at the first request is made now."""
        for _ in range(2 if request is not None else 0):
            try:
                answers = version.json(request or b"")
            except Exception as error:  # a version's own code can raise anything
                why = f" ({error})" if isinstance(error, Refusal) else ""
                raise LookupError(f"it does not answer its own example{why}") from error
            if promised is not None and not _are_same(answers, promised):
                raise LookupError("it does not answer its examples as it did when it was made")

    def described(self, *, most_bytes: int, token: bool) -> bytes:
        """Return the OpenAPI description of the version; its arguments are those of ``openapi``."""
        described = openapi.description(
            self.spec,
            title=self.name,
            version=self.number,
            most_rows=self.most_rows,
            most_bytes=most_bytes,
            token=token,
            example=self.example,
        )
        return orjson.dumps(described)


def _read_examples(folder: Path) -> tuple[bytes | None, list[dict[str, Any]] | None]:
    """Return a request that a version must answer and its answers; None: they are not known."""
    if (folder / EXAMPLES).exists():
        examples = json.loads((folder / EXAMPLES).read_text(encoding="utf-8"))
        return orjson.dumps({"dataframe_records": examples["members"]}), examples["answers"]
    if (folder / MLFLOW_EXAMPLE).exists():
        return (folder / MLFLOW_EXAMPLE).read_bytes(), None
    return None, None


def _are_same(answers: Sequence[Mapping[str, Any]], promised: Sequence[Mapping[str, Any]]) -> bool:
    def same(found: Any, value: Any) -> bool:
        if isinstance(value, float) and isinstance(found, float):
            return math.isclose(found, value, rel_tol=0, abs_tol=SAME)
        return found == value

    return len(answers) == len(promised) and all(
        answer.keys() == expected.keys()
        and all(same(answer[name], expected[name]) for name in expected)
        for answer, expected in zip(answers, promised, strict=True)
    )


class Current:
    """The version that answers now. A request takes ``version`` once, at its start.

    ``refused`` is the version to which the alias points and that is not used, with the reason;
    ``reachable`` whether the registry answered last; ``events`` is called with what happened:
    swapped, refused, unreachable, reachable.
    """

    def __init__(self, source: Source, *, most_rows: int) -> None:
        """Load the version. LookupError: the reason why it cannot be served."""
        self.source, self.most_rows = source, most_rows
        self.version = Version(source, most_rows=most_rows)
        self.refused: tuple[str, str] | None = None
        self.reachable, self._again = True, 0.0
        self.events: Callable[[str], None] = lambda event: None
        self._stop = threading.Event()

    def follow(self, every: float) -> None:
        """Look where the alias points every so many seconds, in a thread, until ``leave``."""
        if self.source.alias is not None:
            os.environ.setdefault(RETRIES.name, "0")  # the next look tries again
            threading.Thread(target=self._follow, args=(every,), daemon=True).start()

    def leave(self) -> None:
        """Follow the alias no longer."""
        self._stop.set()

    def _follow(self, every: float) -> None:
        while not self._stop.wait(every):
            self.look()

    def look(self) -> None:
        """Look once where the alias points, and swap the version if it points to another one."""
        name, alias = self.source.name, self.source.alias
        assert alias is not None
        try:
            found = look_up(mlflow.MlflowClient().get_model_version_by_alias, name, alias)
            number = version_number(found.version) if found else None
            if number == self.version.number:
                self.refused = None
            elif self._is_due(number or "none"):
                self._swap(number)
        except Exception as error:  # it can fail in any way; the next look tries again
            if self.reachable:
                self.reachable = False
                self.events("unreachable")
                kind, number = type(error).__name__, self.version.number
                log.warning(
                    "warning: the registry cannot be reached (%s): version %s stays", kind, number
                )
            return
        if not self.reachable:
            self.reachable = True
            log.info("The registry can be reached again.")
            self.events("reachable")

    def _is_due(self, number: str) -> bool:
        """Return whether to try a version: a refused one again after a while."""
        known = self.refused is not None and self.refused[0] == number
        return not known or time.monotonic() >= self._again

    def _swap(self, number: str | None) -> None:
        """Load and check another version, then let requests take it; report one that is bad."""
        name, before = self.source.name, self.version.number
        try:
            if number is None:
                raise LookupError(f"no version has the alias {self.source.alias}")
            moved = self.source._replace(uri=f"models:/{name}/{number}")
            self.version = Version(moved, most_rows=self.most_rows)
        except LookupError as error:
            self._refuse(number, error)
            return
        except Exception as error:
            fault = disk_fault(error) or getattr(error, "errno", None)
            if is_gone(error) or fault is None:
                raise  # it says nothing of the version
            where = "to the folder of temporary files (TMPDIR)"
            why = f"its files cannot be copied {where}: {os.strerror(fault)}"
            self._refuse(number, LookupError(why))
            return
        self.refused = None
        log.info("%s: version %s replaces version %s", name, number, before)
        self.events("swapped")

    def _refuse(self, number: str | None, error: LookupError) -> None:
        """Report a version that is not used, once for each reason, and try it again in a while."""
        refused, known = (number or "none", _reason(error)), self.refused
        self.refused, self._again = refused, time.monotonic() + AGAIN
        if refused != known:
            log.warning(
                "warning: %s version %s is not used: %s; version %s stays",
                *(self.source.name, refused[0], error, self.version.number),
            )
            self.events("refused")


def _reason(error: LookupError) -> str:
    """Return a reason that may be shown to clients: no path of this machine is in it."""
    shown = isinstance(error, Unverified) or error.__cause__ is None
    return str(error) if shown else "it cannot be loaded"
