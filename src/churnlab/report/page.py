"""Render one self-contained HTML page: no script, no link outside the page, every text escaped."""

from __future__ import annotations

import base64
import os
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from churnlab.errors import InputError
from churnlab.evaluation.metric_names import LABELS
from churnlab.formatting import counted, day, number, percent, readable, small, whole

TEMPLATES = Path(__file__).with_name("templates")

FIGURE_DPI = 120
"""Dots per inch of the figures of churnlab.plots."""

FILTERS = {
    "percent": percent,
    "number": number,
    "whole": whole,
    "readable": readable,
    "counted": counted,
    "small": small,
}


def render(template: str, **values: Any) -> str:
    """Fill a template; a missing value is an error."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= FILTERS
    always = {"today": day(date.today()), "metric_names": LABELS, "version": version("churnlab")}
    return environment.get_template(template).render(always | values)


class Picture(NamedTuple):
    """A picture embedded in the page: its data URI, and its size in CSS pixels."""

    uri: str
    width: int
    height: int


def picture(png: bytes) -> Picture:
    """Embed a figure (PNG) at its size in inches: an inch has 96 CSS pixels."""
    # A PNG states its size in the first chunk, IHDR.
    width, height = (int.from_bytes(png[at : at + 4], "big") for at in (16, 20))
    uri = "data:image/png;base64," + base64.b64encode(png).decode("ascii")
    return Picture(uri, round(width * 96 / FIGURE_DPI), round(height * 96 / FIGURE_DPI))


def output_path(given: str | None, name: str) -> Path:
    """Return the path of the page: the given one, or ``name`` in the outputs of CHURNLAB_HOME.

    InputError: its folder is missing, or it does not end in .html.
    """
    if given is None:
        folder = Path(os.environ["CHURNLAB_HOME"]) / "outputs"
        folder.mkdir(parents=True, exist_ok=True)
        return folder / name
    output = Path(given).absolute()
    if output.suffix not in (".html", ".htm"):
        raise InputError(f"output={given} is not a page; give a name that ends in .html.")
    if not output.parent.is_dir():
        raise InputError(f"output={given} is in a folder that does not exist; create it first.")
    return output


def replaced(output: Path, *, data_sha256: str) -> str | None:
    """Say that a page about another table, which does not name this fingerprint, is at ``output``;
    None if there is none."""
    if not output.is_file() or data_sha256 in output.read_text(encoding="utf-8", errors="replace"):
        return None
    return (
        f"{output} was a page about another table or other rows, which the run of that report "
        "keeps as report.html; output=FILE.html writes the new one to another place"
    )


def write(html: str, output: Path) -> None:
    """Write a page to a temporary file and rename it: a kill leaves no partial page."""
    building = output.with_name(f".{os.getpid()}.{output.name}")
    try:
        building.write_text(html, encoding="utf-8")
        os.replace(building, output)
    finally:
        building.unlink(missing_ok=True)
