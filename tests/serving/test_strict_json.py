"""JSON with one meaning: what it parses, and what it refuses with the reason."""

import json
import math

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from churnlab.serving.strict_json import NotStrict, parse

REFUSED = {
    "nothing": (b"", "cut off or malformed at line 1, character 1"),
    "blanks": (b" \n ", "cut off or malformed at line 2"),
    "half an object": (b'{"a": 1', "cut off or malformed"),
    "two documents": (b'{"a": 1} {"a": 1}', "cut off or malformed at line 1, character 10"),
    "a comma too many": (b"[1, 2,]", "cut off or malformed"),
    "a leading zero": (b"[007]", "cut off or malformed"),
    "a plus": (b"[+7]", "cut off or malformed"),
    "a bare point": (b"[.5]", "cut off or malformed"),
    "hexadecimal": (b"[0x10]", "cut off or malformed"),
    "single quotes": (b"{'a': 1}", "cut off or malformed"),
    "a comment": (b"[1] // one", "cut off or malformed"),
    "Python's truth": (b"[True]", "cut off or malformed"),
    "a line end in a text": (b'"a\nb"', "cut off or malformed"),
    "an unknown escape": (b'"\\x41"', "cut off or malformed"),
    "not a number": (b'{"a": NaN}', "NaN is no number in JSON; null is a missing value"),
    "infinity": (b'{"a": Infinity}', "Infinity is no number in JSON"),
    "minus infinity": (b'{"a": -Infinity}', "-Infinity is no number in JSON"),
    "too large": (b'{"a": 1e999}', "1e999 is too large a number"),
    "too large below zero": (b'{"a": -1e999}', "-1e999 is too large a number"),
    "309 digits and a point": (b"[1" + b"0" * 309 + b".5]", "is too large a number"),
    "400 digits": (b"[" + b"9" * 400 + b"]", "is too large a number"),
    "5,000 digits": (b"[" + b"9" * 5000 + b"]", "is too large a number"),
    "Latin-1": ('{"Größe": 1}'.encode("latin-1"), "byte 4 is not UTF-8"),
    "UTF-16": ('{"a": 1}'.encode("utf-16"), "byte 0 is not UTF-8"),
    "an encoded surrogate": (b'"\xed\xa0\x80"', "byte 1 is not UTF-8"),
    "an overlong slash": (b'"\xc0\xaf"', "byte 1 is not UTF-8"),
    "a byte-order mark": (b'\xef\xbb\xbf{"a": 1}', "it starts with a byte-order mark"),
    "half a pair": (b'["\\ud800"]', "one half of a surrogate pair"),
    "the other half": (b'["\\udc00"]', "one half of a surrogate pair"),
    "half a pair as a name": (b'{"\\ud800": 1, "\\ud800": 2}', "half of a surrogate pair"),
    "a name twice": (b'{"a": 1, "a": 1}', "the name 'a' occurs twice in one object"),
    "an empty name twice": (b'{"": 1, "": 1}', "the name '' occurs twice"),
    "a name twice below": (b'{"r": [{"a": 1}, {"b": 1, "b": 2}]}', "the name 'b' occurs twice"),
    "a name twice far below": (b'[[[[{"r": {"a": 1, "a": 2}}]]]]', "the name 'a' occurs twice"),
    "an escaped name twice": (b'{"a": 1, "\\u0061": 2}', "the name 'a' occurs twice"),
    "a name twice near a colon": (b'{"a:": ":", "b": 1, "b": 2}', "the name 'b' occurs twice"),
    "lists without end": (b"[" * 100_000, "nested too deeply"),
    "objects without end": (b'{"a":' * 100_000, "nested too deeply"),
    "deep lists": (b"[" * 1100 + b"]" * 1100, "nested too deeply"),
    "deep objects": (b'{"a":' * 1100 + b"1" + b"}" * 1100, "nested too deeply"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_single_meaning_is_refused_with_the_reason(name):
    body, reason = REFUSED[name]
    with pytest.raises(NotStrict) as refused:
        parse(body)
    assert reason in str(refused.value)
    assert len(str(refused.value)) < 120
    str(refused.value).encode("utf-8")


TEXTS = st.text(st.characters(exclude_categories=("Cs",)), max_size=8)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXTS,
    lambda parts: st.lists(parts, max_size=4) | st.dictionaries(TEXTS, parts, max_size=4),
    max_leaves=12,
)


def same(one, other) -> bool:
    """Equal, of the same types, and of the same bits: 1 is not 1.0, and 0.0 is not -0.0."""
    return json.dumps(one) == json.dumps(other)


@settings(deadline=None, max_examples=300)
@given(value=VALUES, escaped=st.booleans(), indent=st.none() | st.integers(0, 2))
def test_a_value_comes_out_as_it_was_written(value, escaped, indent):
    body = json.dumps(value, ensure_ascii=escaped, indent=indent).encode("utf-8")
    assert same(parse(body), value)


@settings(deadline=None, max_examples=200)
@given(value=VALUES, name=TEXTS, first=VALUES, second=VALUES)
def test_a_repeated_name_is_found_wherever_it_is(value, name, first, second):
    twice = f"{{{json.dumps(name)}: {json.dumps(first)}, {json.dumps(name)}: {json.dumps(second)}}}"
    marked = json.dumps({"request": [value, "HERE", {"x": value}]}).replace('"HERE"', twice)
    assume(marked.count(twice) == 1)
    with pytest.raises(NotStrict, match="occurs twice"):
        parse(marked.encode())


@settings(deadline=None, max_examples=200)
@given(digits=st.integers(2**64, 10**300), sign=st.sampled_from([1, -1]))
def test_an_integer_of_any_length_is_at_least_the_nearest_number(digits, sign):
    (found,) = parse(json.dumps([sign * digits]).encode())
    assert found == float(sign * digits)
    assert math.isfinite(found)


@pytest.mark.parametrize("cut", range(len('{"dataframe_records": [{"Age": 30.5, "b": "ü"}]}') - 1))
def test_a_body_that_was_cut_off_is_refused_wherever_it_was(cut):
    body = '{"dataframe_records": [{"Age": 30.5, "b": "ü"}]}'.encode()[: cut + 1]
    with pytest.raises(NotStrict):
        parse(body)
