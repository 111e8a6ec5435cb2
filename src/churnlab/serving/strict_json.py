"""Parse JSON that has one meaning only."""

from __future__ import annotations

import json
import math
from typing import Any

import orjson

from churnlab.formatting import clipped

LONGEST = 40
"""Characters of a number or a name that a message shows."""


class NotStrict(ValueError):
    """Why a body is no strict JSON."""


def parse(body: bytes) -> Any:
    """Return the value of a JSON document in UTF-8. NotStrict: the reason why it is none.

    No name occurs twice in an object, no number is NaN or beyond float64, and all text can be
    encoded. An integer of more than 64 bits may come as the nearest float64.

    >>> parse(b'{"Age": 30}')
    {'Age': 30}
    >>> parse(b'{"Age": 30, "Age": 31}')
    Traceback (most recent call last):
    churnlab.serving.strict_json.NotStrict: the name 'Age' occurs twice in one object
    """
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise NotStrict(_reason(body)) from None
    # orjson keeps the last of two equal names. Each name has a colon, which a text may have, too.
    if body.count(b":") != _names(value):
        try:
            UNIQUE.decode(body.decode("utf-8"))
        except RecursionError:
            raise NotStrict("it is nested too deeply") from None
    return value


def _names(value: Any) -> int:
    """Count the names in the objects of a request; those in deeper ones are not counted."""
    if type(value) is not dict:
        return 0
    count = len(value)
    for part in value.values():
        if type(part) is dict:
            count += len(part)
        elif type(part) is list and {*map(type, part)} == {dict}:
            count += sum(map(len, part))
    return count


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise NotStrict(f"the name {clipped(repr(twice), LONGEST)} occurs twice in one object")
    return found


def _reason(body: bytes) -> str:
    """Return why orjson cannot parse a body."""
    try:
        text = body.decode("utf-8")
        if text.startswith("\ufeff"):
            return "it starts with a byte-order mark"
        WORDED.decode(text)
    except UnicodeDecodeError as error:
        return f"byte {error.start} is not UTF-8"
    except json.JSONDecodeError as error:
        return f"it is cut off or malformed at line {error.lineno}, character {error.colno}"
    except RecursionError:
        return "it is nested too deeply"
    except NotStrict as error:
        return str(error)
    return "a text holds one half of a surrogate pair"


def _constant(text: str) -> None:
    raise NotStrict(f"{text} is no number in JSON; null is a missing value")


def _number(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise NotStrict(f"{clipped(text, LONGEST)} is too large a number")
    return value


UNIQUE = json.JSONDecoder(object_pairs_hook=_object)
WORDED = json.JSONDecoder(parse_constant=_constant, parse_float=_number, parse_int=_number)
