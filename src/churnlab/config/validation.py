"""Validate a composed config and report each error with its key and what is allowed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import UnionType
from typing import Any, ClassVar, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel, ValidationError

from churnlab.config import groups
from churnlab.config.commands import COMMANDS
from churnlab.errors import InputError, did_you_mean, unknown_key
from churnlab.formatting import clipped, typed

BLOCK, LIST, PAIR = "a block of keys, {{KEY: VALUE}}", "a list, [A,B]", "a list of two, [A,B]"
ALLOWED = {
    **{"int": "a whole number", "finite": "a whole number", "float": "a number"},
    **{"bool": "true or false", "string": "a text (in quotes if it looks like a number: '\"5\"')"},
    **{"list": LIST, "tuple": LIST, "too_long": PAIR, "missing": PAIR, "too_short": "not empty"},
    **{"dict": BLOCK, "model": BLOCK, "dataclass": BLOCK, "literal_error": "{expected}"},
    **{"greater_than": "above {gt:g}", "greater_than_equal": "at least {ge:g}"},
    **{"less_than": "below {lt:g}", "less_than_equal": "at most {le:.10g}"},
    "string_too_long": "at most {max_length} characters long",
    groups.NAME: "made of A-Z, a-z, 0-9, _ and -, the first a letter or digit",
    groups.IDENTIFIER: "made of letters, digits and _, the first no digit",
    groups.DOTTED: "the dotted name of a type, such as my_models.Net",
}
"""What a value must be, by pydantic's type of error, its first word, or the pattern not matched."""


def read(command: str, config: Mapping[str, Any]) -> Any:
    """Validate a composed config; returns the command's keys. InputError: names every error."""
    for key in _not_given(config):
        positional = key == COMMANDS[command].positional
        example = f"churnlab {command} {key.upper()}" if positional else f"{key}=VALUE"
        raise InputError(f"{key} has no value yet; give one: {example}.")
    try:
        return COMMANDS[command].model_validate(config)
    except ValidationError as invalid:
        errors = invalid.errors(include_url=False)
        paths = [_path(error, config) for error in errors]
        allowed: dict[str, dict[str, None]] = {}
        for error, path in zip(errors, paths, strict=True):
            if not any(path == longer[: len(path)] != longer for longer in paths):
                start, reason = _sentence(COMMANDS[command], error, config)
                allowed.setdefault(start, {})[reason] = None
        sentences = [f"{start}{' or '.join(reasons)}." for start, reasons in allowed.items()]
        raise InputError("\n".join(sentences)) from None


def check_key(command: str, path: list[str]) -> None:
    """Refuse a dotted key that the command does not have. Blocks with free keys are not checked."""
    for depth, key in enumerate(path):
        known = known_keys(COMMANDS[command], path[:depth])
        if known and key not in known:
            foreign = any(key in other.model_fields for other in COMMANDS.values())
            if depth or not foreign or did_you_mean(key, known):
                raise InputError(unknown_key(path[:depth], key, known))
            whole = " it works on the whole store;" if COMMANDS[command].whole_store else ""
            raise InputError(
                f"churnlab {command} takes no {key}=:{whole} leave it out. Its keys: "
                f"{', '.join(known)}."
            )


def _not_given(config: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Yield the dotted keys that a YAML leaves to the user."""
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from _not_given(value, f"{prefix}{key}.")
        elif value == "???":
            yield f"{prefix}{key}"


def _sentence(model: type[BaseModel], error: Any, config: Mapping[str, Any]) -> tuple[str, str]:
    """Describe an error in two parts: the key with its value, and one of the values allowed."""
    path, kind, limits = _path(error, config), error["type"], error.get("ctx", {})
    key = ".".join(path)
    if kind in ("extra_forbidden", "unexpected_keyword_argument"):
        return unknown_key(path[:-1], path[-1], known_keys(model, path[:-1])).removesuffix("."), ""
    if kind == "missing" and isinstance(error["loc"][-1], str):
        return f"The key {key} is missing; give {key}=VALUE", ""
    if kind == "value_error":
        return ": ".join([*([key] if key else []), str(limits["error"])]), ""
    shown = "" if error["loc"][-1] == "[key]" else f"={clipped(typed(error['input']), 60)}"
    name = limits.get("pattern", kind if kind in ALLOWED else kind.partition("_")[0])
    allowed = ALLOWED.get(name, "another value").format(**limits).replace("'", "")
    return f"{key}{shown} is not possible: it must be ", allowed


def _path(error: Any, config: Mapping[str, Any]) -> list[str]:
    """Return the path of an error in the config's keys; pydantic's also names members of unions."""
    path: list[str] = []
    block: Any = config
    for part in error["loc"]:
        if isinstance(block, Mapping) and part in block:
            path.append(str(part))
            block = block[part]
        elif isinstance(block, list) and part in range(len(block)):
            path[-1] += f"[{part}]"
            block = block[part]
    missing = error["type"] == "missing" and isinstance(error["loc"][-1], str)
    return [*path, error["loc"][-1]] if missing else path


def known_keys(model: type[BaseModel], path: list[str]) -> list[str]:
    """Return the keys that a block may have; ``path`` leads to it from the command's own keys."""
    return list(_fields(_block(model, path)))


def is_text(model: type[BaseModel], path: list[str]) -> bool:
    """Return whether a dotted key of a command holds text and nothing else (but null)."""
    held = _held(_block(model, path[:-1]), path[-1])
    kinds = get_args(held) if get_origin(held) in (Union, UnionType) else (held,)
    return {*kinds} - {type(None)} == {str}


def _block(model: type[BaseModel], path: list[str]) -> Any:
    """Return the type of the block that ``path`` leads to; None if there is no such block."""
    block: Any = model
    for key in path:
        held = _held(block, key)
        kinds = [held] if get_origin(held) is dict else [held, *get_args(held)]
        block = next((kind for kind in kinds if get_origin(kind) is dict or _fields(kind)), None)
    return block


def _held(block: Any, key: str) -> Any:
    """Return the type of what a block has under a key."""
    key = key.partition("[")[0]
    return get_args(block)[1] if get_origin(block) is dict else _fields(block).get(key)


def _fields(block: Any) -> dict[str, Any]:
    """Return the keys of a model, a dataclass or a TypedDict with their types."""
    hints = get_type_hints(block) if isinstance(block, type) else {}
    return {
        name: kind
        for name, kind in hints.items()
        if get_origin(kind) is not ClassVar and not name.startswith("_")
    }
