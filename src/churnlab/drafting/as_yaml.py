"""Write a draft as the YAML of a dataset, with a remark on every column."""

from __future__ import annotations

import re
from typing import Any

import yaml

from churnlab.drafting.draft import Draft, candidates

PLAIN = re.compile(r"[^\W\d](?:[\w -]*\w)?")
"""Text that needs no quotes: words. All else gets them, for Hydra takes 1e3 for a number."""

PRESETS = {"features": "raw", "segments": "all", "playbook": "any", "decision": "as_many"}
"""Choices that fit any table, in place of defaults that name columns of churnlab's own datasets."""


class _Quoted(yaml.SafeDumper):
    """Quote every text that is no plain word."""

    def ignore_aliases(self, data: Any) -> bool:
        """Write a value twice rather than refer to it."""
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    plain = PLAIN.fullmatch(text) and isinstance(yaml.safe_load(text), str)
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if plain else '"')


_Quoted.add_representer(str, _text)


def as_yaml(found: Draft, *, name: str, path: str, encoding: str, separator: str) -> str:
    """Return the dataset's YAML with a remark on every column; columns left out are comments."""
    target, remark = _scalar(found.target and found.target.name), "the column that says who left"
    if found.target is None:
        target, remark = "???", f"which column says who left? {candidates(found.candidates)}"
    positive = 1 if found.target is None else found.target.positive
    width = max((len(_key(column.name)) for column in found.columns), default=0) + 1
    lines = [
        f"# A draft contract for {name}, a table of {found.rows:,} rows: read it and correct it.",
        *[_comment(note) for note in found.notes],
        f"name: {_scalar(name)}",
        f"path: {_scalar(path)}",
        f"encoding: {encoding}",
        *_file_keys(found, separator),
        f"target: {target}    # {_line(remark)}",
        f"positive: {_scalar(positive)}    # the value that means left",
        f"id: {_scalar(found.id)}    # copied to the output, never a feature",
    ]
    if found.repeated_ids:
        lines.append("repeated_ids: true    # a member may have several rows")
    if found.target and found.target.rows_where:
        which = "    # the rows to learn from; score takes all"
        lines.append(f"rows_where: {_scalar(found.target.rows_where)}{which}")
    lines.append("columns:    # every feature, in order; commented-out columns are left out")
    for column in found.columns:
        lines += [_comment(f"{column.name}: {note}", "  ") for note in column.notes]
        key = f"{_key(column.name)}:"
        if column.declared is None:
            lines.append(f"  # {key:{width}} {_line(column.remark)}")
        else:
            lines.append(f"  {key:{width}} {_inline(column.declared)}    # {_line(column.remark)}")
    lines += [
        "rules: {}    # expressions that hold in every row, as  months_left: End <= Contract",
        "late: []     # columns known only close to the event",
        f"presets: {_inline(PRESETS)}    # what commands choose unless you do",
    ]
    return "\n".join(lines) + "\n"


def _file_keys(found: Draft, separator: str) -> list[str]:
    """Return the lines that say how the file is written, where it is not the rule."""
    lines = []
    if separator != ",":
        word = "tab" if separator == "\t" else separator
        lines.append(f"separator: {_scalar(word)}    # between the cells of the file")
    if found.decimal != ".":
        lines.append(f"decimal: {_scalar(found.decimal)}    # numbers are written as 1234,5")
    if found.rename:
        lines.append(f"rename: {_inline(found.rename)}    # names in the file: names here")
    return lines


def _comment(text: str, indent: str = "") -> str:
    return f"{indent}# {_line(text)}"


def _line(text: str) -> str:
    return " ".join(str(text).split())


def _escaped(value: Any) -> Any:
    """Return a value in which ${ is text: it would be an interpolation, except in a key, and a
    backslash before it its escape."""
    if isinstance(value, dict):
        return {key: _escaped(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_escaped(inner) for inner in value]
    if isinstance(value, str):
        return re.sub(r"(\\*)\$\{", lambda found: rf"{found[1] * 2}\${{", value)
    return value


def _key(name: str) -> str:
    return _dumped(name)


def _scalar(value: Any) -> str:
    return _dumped(_escaped(value))


def _inline(block: dict[str, Any]) -> str:
    return _dumped(_escaped(block), default_flow_style=True, sort_keys=False)


def _dumped(value: Any, **style: Any) -> str:
    text = yaml.dump(value, Dumper=_Quoted, allow_unicode=True, width=1_000_000, **style)
    return text.removesuffix("\n").removesuffix("\n...")
