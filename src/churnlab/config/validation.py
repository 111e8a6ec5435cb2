"""Validate a composed config and report each error with its key and what is allowed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any, get_args, get_origin, get_type_hints

from pydantic import BaseModel, ValidationError
from typing_extensions import is_typeddict

from churnlab.config.commands import COMMANDS
from churnlab.errors import InputError, unknown_key


def read(command: str, config: Mapping[str, Any]) -> Any:
    """Validate a composed config; returns the command's keys. InputError: names every error."""
    for key in _not_given(config):
        positional = key == COMMANDS[command].positional
        example = f"churnlab {command} {key.upper()}" if positional else f"{key}=VALUE"
        raise InputError(f"{key} has no value yet; give one: {example}.")
    try:
        return COMMANDS[command].model_validate(config)
    except ValidationError as invalid:
        allowed: dict[str, list[str]] = {}
        for error in invalid.errors(include_url=False):
            start, reason = _sentence(COMMANDS[command], error, config)
            allowed.setdefault(start, []).append(reason)
        sentences = [f"{start}{', or '.join(reasons)}." for start, reasons in allowed.items()]
        raise InputError("\n".join(sentences)) from None


def check_key(command: str, path: list[str]) -> None:
    """Refuse a dotted key that the command does not have. Blocks with free keys are not checked."""
    for depth, key in enumerate(path):
        known = known_keys(COMMANDS[command], path[:depth])
        if known and key not in known:
            raise InputError(unknown_key(path[:depth], key, known))


def _not_given(config: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Yield the dotted keys that a YAML leaves to the user."""
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from _not_given(value, f"{prefix}{key}.")
        elif value == "???":
            yield f"{prefix}{key}"


def _sentence(model: type[BaseModel], error: Any, config: Mapping[str, Any]) -> tuple[str, str]:
    """Describe an error in two parts: the key with its value, and what is allowed."""
    path = _path(error, config)
    key = ".".join(path)
    if error["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        return unknown_key(path[:-1], path[-1], known_keys(model, path[:-1])).removesuffix("."), ""
    if error["type"] == "missing":
        return f"{key} has too few values" if isinstance(
            error["loc"][-1], int
        ) else f"The key {key} is missing", ""
    if error["type"] == "value_error":
        return ": ".join([*([key] if key else []), str(error["ctx"]["error"])]), ""
    reason = error["msg"].partition(", unable to parse")[0].replace("Input should", "it must")
    return f"{key}={error['input']!r} is not possible: ", f"{reason[0].lower()}{reason[1:]}"


def _path(error: Any, config: Mapping[str, Any]) -> list[str]:
    """Return the path of an error in the config's keys; pydantic's also names members of unions."""
    path, block = [], config
    for part in error["loc"]:
        if isinstance(block, Mapping) and part in block:
            path.append(str(part))
            block = block[part]
    missing = error["type"] == "missing" and isinstance(error["loc"][-1], str)
    return [*path, error["loc"][-1]] if missing else path


def known_keys(model: type[BaseModel], path: list[str]) -> list[str]:
    """Return the keys that a block may have; ``path`` leads to it from the command's own keys."""
    block: Any = model
    for key in path:
        block = _inside(block, key)
    return _keys(block)


def _inside(block: Any, key: str) -> Any:
    """Return the type of the block under a key of another block; None if it is no block."""
    if get_origin(block) is dict:
        held = get_args(block)[1]
    elif key in getattr(block, "model_fields", {}):
        held = block.model_fields[key].annotation
    elif is_typeddict(block):
        held = get_type_hints(block).get(key)
    else:
        return None
    kinds = [held] if get_origin(held) is dict else [held, *get_args(held)]
    return next((kind for kind in kinds if get_origin(kind) is dict or _keys(kind)), None)


def _keys(block: Any) -> list[str]:
    if is_dataclass(block):
        return [field.name for field in fields(block)]
    if is_typeddict(block):
        return list(get_type_hints(block))
    return list(getattr(block, "model_fields", []))
