import base64
import io

import pytest
from jinja2 import UndefinedError

from churnlab.plots.style import new_figure
from churnlab.report.page import FIGURE_DPI, TEMPLATES, picture, render


def test_a_picture_holds_the_figure_at_its_size_in_inches():
    written = io.BytesIO()
    figure = new_figure("Title", width=5.0, height=3.0)
    assert figure.dpi == FIGURE_DPI
    figure.savefig(written)
    shown = picture(written.getvalue())
    assert (shown.width, shown.height) == (5 * 96, 3 * 96)
    assert base64.b64decode(shown.uri.removeprefix("data:image/png;base64,")) == written.getvalue()


def test_a_value_that_a_template_needs_and_does_not_get_is_an_error():
    with pytest.raises(UndefinedError):
        render("report.html.j2", name="demo")


def test_no_template_turns_the_escaping_off():
    for template in TEMPLATES.iterdir():
        text = template.read_text(encoding="utf-8")
        assert "|safe" not in text.replace(" ", "")
        assert "autoescape" not in text
