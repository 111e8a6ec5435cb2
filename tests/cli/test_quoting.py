"""What a user types as text arrives as that text, whatever letters and signs it has."""

import re

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import QuotedString
from hypothesis import given
from hypothesis import strategies as st

from churnlab.cli.arguments import quoted
from churnlab.cli.outcomes import shell_words
from churnlab.cli.quoting import PROSE, quote_texts

PARSER = OverridesParser.create()
SIGNS = st.text("ab 1.,'\"\\[]{}()=&#;%!~$<>*?:/|-_+\n\tжéß漢😀", min_size=1, max_size=20)
WORDS = st.sampled_from(
    ["on", "1e3", "2026-05", "true", "nan", "it's", "[a].csv", "a=b", "-5", "~"]
)
ANY = SIGNS | WORDS | st.text(min_size=1, max_size=20).filter(str.isprintable)


def parsed(command: str, word: str, *, several: bool = False):
    """Return what Hydra reads in a word after its texts are quoted."""
    (rewritten,) = quote_texts(command, [word], several=several)
    return PARSER.parse_override(rewritten)


def is_quoted(text: str) -> bool:
    """Return whether the user has quoted the text for Hydra."""
    try:
        return isinstance(PARSER.parse_override(f"key={text}")._value, QuotedString)
    except Exception:
        return False


@given(ANY)
def test_a_reason_is_kept_to_the_letter(text):
    if text.lower() != "null" and not is_quoted(text):
        assert parsed("promote", f"reason={text}").value() == text


@given(ANY)
def test_a_path_without_commas_is_kept_to_the_letter(text):
    swept = "," in text or re.search(r"\w\(", text)  # choice(...), range(...), glob(...)
    if text.lower() != "null" and not is_quoted(text) and not swept:
        assert parsed("score", f"input={text}").value() == text


@given(st.lists(st.from_regex(r"[^,'\"\\()\s]+", fullmatch=True), min_size=2, max_size=4))
def test_a_sweep_over_paths_has_each_of_them(paths):
    if all(path.lower() != "null" and path[0] not in "[{" for path in paths):
        found = parsed("score", f"input={','.join(paths)}", several=True)
        assert [str(value) for value in found.sweep_iterator(lambda value: value)] or found
        assert [getattr(value, "text", value) for value in found._value.list] == paths


@given(ANY)
def test_what_is_quoted_is_read_back(text):
    assert PARSER.parse_override(f"key={quoted(text)}").value() == text


@pytest.mark.parametrize(
    ("command", "word", "value"),
    [
        ("train", "dataset=2026", "2026"),
        ("train", "experiment=null", None),
        ("init", "name=1e3", "1e3"),
        ("init", "target=Status ", "Status "),
        ("train", "seed=3", 3),
        ("train", "dataset.late=[Возраст, 'a,b', Age]", ["Возраст", "a,b", "Age"]),
        (
            "train",
            "+dataset.columns.A={kind: numeric, unit: руб.}",
            {"kind": "numeric", "unit": "руб."},
        ),
        ("train", "dataset.positive=Да", "Да"),
        ("train", "dataset.positive=1", 1),
        ("train", "model.estimator.C=0.1", 0.1),
        ("promote", "reason='as quoted'", "as quoted"),
        ("promote", "reason=null", None),
    ],
)
def test_text_stays_text_and_numbers_stay_numbers(command, word, value):
    assert parsed(command, word).value() == value


@pytest.mark.parametrize(
    "word", ["~model", "input=a,b.csv", "seed=1,2", "seed=range(1,3)", "segments.range=[2"]
)
def test_what_hydra_must_explain_is_left_alone(word):
    assert quote_texts("score", [word], several=False) == [word]


def test_only_prose_keeps_its_commas_in_a_sweep():
    assert {"reason"} <= PROSE
    assert parsed("promote", "reason=refreshed in May, by Ann", several=True).value() == (
        "refreshed in May, by Ann"
    )


@given(st.lists(SIGNS, min_size=1, max_size=3))
def test_a_printed_command_is_read_by_a_shell_as_its_words(words):
    import shlex

    assert shlex.split(shell_words(words)) == words
