"""Show what a command logs: plain lines in a pipe; on a terminal colors, tables and a live line."""

from __future__ import annotations

import logging
import os
import re
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from churnlab.errors import InputError, JobError, in_systems_words
from churnlab.formatting import PROGRESS, Table, clipped

if TYPE_CHECKING:  # what runs in pipes does not load rich
    from rich.console import Console

Column = tuple[Sequence[str], bool]
"""The name and the cells of a column, and whether it holds numbers."""

MARKS = {"warning:": "yellow", "failed:": "red", "undecided:": "yellow", "== ": "bold"}
"""The style of a line, by what it begins with."""

STAGES = ("== ", "job ")
"""What a message begins with that also stands in the live line, besides progress."""

RUN_ID = re.compile(r"\b([0-9a-f]{8})[0-9a-f]{24}\b")

LEAST = 8
"""Characters of a word that stay on one line of a table in a narrow terminal."""

PATIENCE = 2.0
"""Seconds after which a command shows its live line."""

FLAGS = {"--json": "--json", "--quiet": "-q", "--verbose": "-v", "-q": "-q", "-v": "-v"}
"""The flags that every command takes, in any place, with their short names."""

LEVELS = {"-q": "WARNING", "-v": "DEBUG"}
"""The flags that choose the level from which on messages are shown."""

LEVEL = "CHURNLAB_LOG"
"""The variable with the level that is shown; worker processes inherit it."""

ERASE = "\r\x1b[2K"
"""Moves the cursor to the start of its line and clears the line."""

MARGIN = 14
"""The columns of the live line that its spinner and the elapsed time take."""


def open_streams() -> None:
    """Open stdin, stdout and stderr if this process was started without them: else the next file
    that is opened takes the number of one, and what is printed gets into it."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            os.dup2(os.open(os.devnull, os.O_RDWR), number)
            os.set_inheritable(number, True)  # dup2 of a number to itself leaves it as it was
            setattr(sys, name, os.fdopen(number, "w" if number else "r"))


@contextmanager
def printing() -> Iterator[None]:
    """Print a result on stdout inside; its reader may read no further than ``| head`` does.

    JobError: it cannot be written.
    """
    try:
        yield
        sys.stdout.flush()
    except OSError as error:  # Python flushes again at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            raise JobError(
                f"The result cannot be written to standard output ({in_systems_words(error)}); the "
                "command itself has done its work. Send the output to where it can be written."
            ) from None


def print_out(text: str) -> None:
    """Print a result on stdout. JobError: it cannot be written."""
    with printing():
        print(text)


def set_up(words: list[str]) -> tuple[set[str], list[str]]:
    """Show messages as the flags among the words demand; return the flags and the other words."""
    flags = {FLAGS[word] for word in words if word in FLAGS}
    for flag in flags & LEVELS.keys():
        os.environ[LEVEL] = LEVELS[flag]
    level = shown_level()
    known = level in logging.getLevelNamesMapping()
    if not known:
        os.environ[LEVEL] = "INFO"
    log_to_stderr()
    if not known:
        raise InputError(f"{LEVEL}={level} is no level; give DEBUG, INFO or WARNING.")
    if LEVELS.keys() <= flags:
        raise InputError("-q shows less and -v shows more; give one of them.")
    return flags, [word for word in words if word not in FLAGS]


def log_to_stderr(
    prefix: str = "", *, is_worker: bool = False, warned_in: str | None = None
) -> None:
    """Show on stderr what churnlab logs, and the warnings of the libraries.

    Each message begins with ``prefix``. ``is_worker``: this process works for another one, takes
    its jobs one after another, and prints over that one's live line. On a terminal a warning is
    printed only by the first of the workers that share the folder ``warned_in``.
    """
    logging.raiseExceptions = False  # it would print a traceback about a full disk under stderr
    level = logging.getLevelNamesMapping()[shown_level()]
    if sys.stderr.isatty():
        handler: logging.Handler = Terminal(prefix, level, is_worker=is_worker, warned_in=warned_in)
        if level <= logging.INFO and not is_worker:
            level = min(level, PROGRESS)
    else:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter(f"{prefix}%(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=is_worker)
    logging.getLogger("churnlab").setLevel(level)


def shown_level() -> str:
    """Return the name of the level from which on messages are shown."""
    return os.environ.get(LEVEL, "INFO").upper()


class Terminal(logging.Handler):
    """Print messages in color and tables within the terminal's width; print a warning only once."""

    def __init__(
        self, prefix: str, level: int, *, is_worker: bool, warned_in: str | None = None
    ) -> None:
        super().__init__()
        from rich.console import Console

        class Visible(Console):
            """A console that never hides the cursor: a killed process could not show it again."""

            def show_cursor(self, show: bool = True) -> bool:
                return False

        self.console = Visible(stderr=True, highlight=False, markup=False, emoji=False)
        self.prefix = prefix
        self.printed_from = level
        self.is_worker = is_worker
        self.warned_in = warned_in
        self.warned: set[str] = set()
        self.report: Callable[[str], None] = lambda text: None
        """Takes what the live line shows besides the elapsed time."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = record.getMessage()
            if record.levelno == PROGRESS or text.lstrip().startswith(STAGES):
                self.report(text)
            if record.levelno < self.printed_from or record.levelno == PROGRESS:
                return
            if self.is_worker:
                self.console.file.write(ERASE)
            if record.levelno < logging.WARNING:
                self._print(record)
            elif self._is_first(words := text.strip().removeprefix("warning: ")):
                self._line(f"warning: {self.prefix}{words}", MARKS["warning:"])
        except Exception:  # as logging's own handlers do
            self.handleError(record)

    def _is_first(self, warning: str) -> bool:
        """Return whether neither this process nor another worker has printed the warning."""
        if warning in self.warned:
            return False
        self.warned.add(warning)
        if self.warned_in is None:
            return True
        try:
            Path(self.warned_in, sha256(warning.encode()).hexdigest()).touch(exist_ok=False)
        except FileExistsError:
            return False
        return True

    def _print(self, record: logging.LogRecord) -> None:
        """Print the tables among a record's arguments as tables, the rest as it is."""
        args = record.args if isinstance(record.args, tuple) else ()
        tables = [part for arg in args for part in getattr(arg, "parts", [arg]) if _is_table(part)]
        text, rest = "", f"{self.prefix}{record.getMessage()}"
        for table in tables:
            text, _, rest = rest.partition(str(table))
            if text.rstrip("\n"):
                self._line(text.rstrip("\n"))
            draw(self.console, table)
            rest = rest.removeprefix("\n")
        if rest or not tables:
            self._line(rest)

    def _line(self, text: str, style: str = "") -> None:
        """Print text that the terminal itself wraps, so that a long command can be copied."""
        for line in text.split("\n"):
            marked = next((MARKS[mark] for mark in MARKS if line.startswith(mark)), style)
            self.console.print(line, style=marked, soft_wrap=True)


def _is_table(part: object) -> bool:
    return isinstance(part, Table)


def draw(console: Console, table: Table) -> None:
    """Draw a table within the width of the terminal: long texts take several lines, and a run's id
    is cut as git cuts them, which every command accepts."""
    from rich import box
    from rich.table import Table as Drawn
    from rich.text import Text

    is_wide = max(map(len, table.split("\n"))) > console.width
    cells = [
        [name.replace("_", " ") if is_wide else name, *(RUN_ID.sub(r"\1", cell) for cell in column)]
        for name, column in zip(table.columns, _by_column(table), strict=True)
    ]
    shown = dict(zip(table.columns, zip(cells, table.numeric, strict=True), strict=True))
    widths = _widths(shown.values(), room=console.width) if is_wide else None
    for name in table.spare if is_wide else ():
        if widths is not None and _holds_words(shown.values(), widths):
            break
        del shown[name]
        widths = _widths(shown.values(), room=console.width)
    drawn = Drawn(
        box=box.SIMPLE_HEAD,
        header_style="bold",
        padding=(0, 0 if is_wide else 1, 0, 0),
        show_edge=False,
    )
    for number, ((name, *_), numeric) in enumerate(shown.values()):
        drawn.add_column(
            Text(name),
            justify="right" if numeric else "left",
            overflow="fold",
            width=widths[number] if widths else None,
        )
    for row in zip(*(column[1:] for column, _ in shown.values()), strict=True):
        drawn.add_row(*map(Text, row))
    console.print(drawn)


def _by_column(table: Table) -> list[list[str]]:
    return [[row[number] for row in table.rows] for number in range(len(table.columns))]


def _holds_words(columns: Iterable[Column], widths: Sequence[int]) -> bool:
    """Return whether every word stays on one line in columns of these widths."""
    return all(
        len(word) <= width
        for (cells, _), width in zip(columns, widths, strict=True)
        for cell in cells
        for word in cell.split()
    )


def _widths(columns: Iterable[Column], *, room: int) -> list[int] | None:
    """Return the widths of columns in which numbers stay whole, and texts as far as there is room.

    None: the room is too small even for numbers and the least width of texts.
    """
    columns = [*columns]
    longest = [max(map(len, cells)) for cells, _ in columns]
    widths = [
        max(max(map(len, name.split(" "))), *map(len, cells), 1) if is_number else min(most, LEAST)
        for ((name, *cells), is_number), most in zip(columns, longest, strict=True)
    ]
    left = room - sum(widths) - len(widths)
    words = [
        max(len(word) for cell in cells for word in [*cell.split(), ""]) for cells, _ in columns
    ]
    for _ in range(left):  # whole words first
        lacking = [most - width for most, width in zip(words, widths, strict=True)]
        if max(lacking) <= 0:
            lacking = [most - width for most, width in zip(longest, widths, strict=True)]
        widths[lacking.index(max(lacking))] += max(lacking) > 0
    return widths if left >= 0 else None


@contextmanager
def live(what: str) -> Iterator[None]:
    """Show a line with the elapsed time and the last message while the block takes its time.

    Only on a terminal, and only if messages of the level INFO are shown.
    """
    shown = _terminal()
    if shown is None or shown.printed_from > logging.INFO:
        yield
        return
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    console = shown.console
    line = Progress(
        SpinnerColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}", markup=False),
        console=console,
        transient=True,
        refresh_per_second=5,
        redirect_stdout=False,
    )
    task = line.add_task(what)

    def report(text: str) -> None:
        first = text.strip().partition("\n")[0]
        room = max(console.width - MARGIN - len(what), 10)
        line.update(task, description=f"{what}: {clipped(first, room)}")

    shown.report = report
    timer = threading.Timer(PATIENCE, line.start)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
        shown.report = lambda text: None
        line.stop()


def show_next(command_line: str | None) -> None:
    """Print the command that usually comes next, ready to paste, for a person who reads along."""
    terminal = _terminal()
    if command_line is not None and terminal is not None and terminal.printed_from <= logging.INFO:
        terminal.console.print(f"next: {command_line}", style="bold green", soft_wrap=True)


def show_error(message: str) -> None:
    """Print what went wrong."""
    terminal = _terminal()
    if terminal is not None:
        terminal.console.print(message, style="red", soft_wrap=True)
    else:
        with suppress(OSError):  # nobody can read it, but the exit code
            print(message, file=sys.stderr)


def _terminal() -> Terminal | None:
    """Return what prints on the terminal; None if stderr is none."""
    handlers = (handler for handler in logging.root.handlers if isinstance(handler, Terminal))
    return next(handlers, None)
