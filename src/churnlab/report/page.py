"""One self-contained HTML page from a template: no script, no address outside the page, every text
escaped."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from churnlab.formatting import counted, number, percent, spoken, whole

TEMPLATES = Path(__file__).with_name("templates")

FIGURE_DPI = 120
"""Dots an inch of the figures of churnlab.plots."""

FILTERS = {
    "percent": percent,
    "number": number,
    "whole": whole,
    "spoken": spoken,
    "counted": counted,
}


def render(template: str, **values: Any) -> str:
    """Fill a template; a value that the template needs and does not get is an error."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= FILTERS
    return environment.get_template(template).render(**values)


class Picture(NamedTuple):
    """A picture that the page itself holds: its address, and its size on the page in CSS pixels."""

    uri: str
    width: int
    height: int


def picture(png: bytes) -> Picture:
    """A figure (PNG) as part of a page, where an inch has 96 CSS pixels."""
    width, height = (
        int.from_bytes(png[at : at + 4], "big") for at in (16, 20)
    )  # in the first chunk, IHDR
    uri = "data:image/png;base64," + base64.b64encode(png).decode("ascii")
    return Picture(uri, round(width * 96 / FIGURE_DPI), round(height * 96 / FIGURE_DPI))
