"""Count what a job warns of: churnlab's own warnings, and those of the libraries it calls."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from churnlab.formatting import of_a_library

if TYPE_CHECKING:
    from churnlab.data.dataset import Members


log = logging.getLogger(__name__)


class _Seen(logging.Handler):
    """Collect the texts of churnlab's warnings, each once."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.add(record.getMessage().removeprefix("warning: "))


@contextmanager
def warnings_of(tables: Sequence[Members]) -> Iterator[set[str]]:
    """Collect every warning inside the block, each once; those that a table has are among them.

    ``tables`` gets the job's table once it is read. What a library then warns of becomes a warning
    of the table: it is shown in one line, and stands in the report of the run.
    """

    def show(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
        warning = of_a_library(category, message)
        if tables:
            tables[0].warn(warning)
        else:
            log.warning("warning: %s", warning)

    seen, ours = _Seen(), logging.getLogger("churnlab")
    before, warnings.showwarning = warnings.showwarning, show
    ours.addHandler(seen)
    try:
        yield seen.texts
    finally:
        ours.removeHandler(seen)
        warnings.showwarning = before
        seen.texts.update(warning for members in tables for warning in members.warnings)
