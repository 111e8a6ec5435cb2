"""Quote the values of a command line that are text, so that Hydra reads them as they stand.

Hydra's grammar reads ``2026`` as a number and ``a,b`` as two values, and knows only Latin letters.
"""

from __future__ import annotations

import re
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, QuotedString, Sweep
from hydra.errors import HydraException

from churnlab.cli.arguments import OVERRIDE, quoted
from churnlab.config import validation
from churnlab.config.commands import COMMANDS
from churnlab.config.shipped import ROOT

PROSE = {"reason", "run_name"}
"""Keys whose commas are commas: nobody sweeps over them."""

QUOTES = r"""'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*\""""
VALUES = re.compile(rf"(?:{QUOTES}|[^,])+", re.DOTALL)
"""The values of a sweep, which commas separate."""

ITEMS = re.compile(rf"{QUOTES}|(?<=[\[,:])\s*([^\s\[\]{{}},:'\"][^\[\]{{}},:'\"]*)", re.DOTALL)
"""The plain items of a list and values of a block."""

UNREADABLE = object()


def quote_texts(command: str, words: list[str], *, several: bool) -> list[str]:
    """Quote what is text in words of a command line; with ``several``, commas separate values."""
    parser = OverridesParser.create()

    def read(value: str) -> Any:
        try:
            return parser.parse_override(f"key={value}")._value
        except HydraException:
            return UNREADABLE

    def as_text(value: str) -> str:
        found = read(value)
        kept = found is None or found == value or isinstance(found, QuotedString)
        return value if kept else quoted(value)

    def readable(item: re.Match[str]) -> str:
        plain = (item[1] or "").rstrip()
        return item[0] if read(plain) is not UNREADABLE else item[0].replace(plain, quoted(plain))

    def rewrite(word: str) -> str:
        given = OVERRIDE.fullmatch(word)
        if given is None or "~" in given["sign"]:
            return word
        key, value = given["key"], given["value"]
        found, head = read(value), word.removesuffix(value)
        if not _is_text(command, key):
            if found is not UNREADABLE:
                return word
            if value[:1] in ("[", "{"):
                items = ITEMS.sub(readable, value)
                return word if read(items) is UNREADABLE else head + items
        if key in PROSE:
            return head + as_text(value)
        function = isinstance(found, Sweep) and not getattr(found, "simple_form", False)
        if function or (isinstance(found, ChoiceSweep) and not several):
            return word  # Hydra says that a sweep needs -m
        return head + (",".join(map(as_text, VALUES.findall(value))) if several else as_text(value))

    return [rewrite(word) for word in words]


def unquoted(command: str, word: str) -> str:
    """Return a word as a person types it: without the quotes that ``quote_texts`` adds."""
    given = OVERRIDE.fullmatch(word)
    text = given and re.fullmatch(QUOTES, given["value"], re.DOTALL)
    if not given or not text:
        return word
    plain = OverridesParser.create().parse_override(word).value()
    typed = f"{word.removesuffix(given['value'])}{plain}"
    return typed if quote_texts(command, [typed], several=False) == [word] else word


def _is_text(command: str, key: str) -> bool:
    """Return whether a key holds text; so does a group, whose values are the names of YAMLs."""
    group = (ROOT / "conf" / key).is_dir() or key == "experiment"
    return group or validation.is_text(COMMANDS[command], key.split("."))
