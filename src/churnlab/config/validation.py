"""Whether a config says what its command understands: a fault is a sentence that names the key and
what is allowed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError

from churnlab.config.commands import COMMANDS
from churnlab.errors import InputError, unknown_key


def read(command: str, config: Mapping[str, Any]) -> Any:
    """Check a composed config; returns the command's keys as an object, raises InputError naming
    each fault."""
    missing = list(_not_given(config))
    if missing:
        raise InputError(f"{missing[0]} has no value yet; give one: {missing[0]}=VALUE.")
    try:
        return COMMANDS[command].model_validate(config)
    except ValidationError as invalid:
        faults: dict[str, list[str]] = {}
        for fault in invalid.errors(include_url=False):
            start, reason = _sentence(COMMANDS[command], fault, config)
            faults.setdefault(start, []).append(reason)
        sentences = [f"{start}{', or '.join(reasons)}." for start, reasons in faults.items()]
        raise InputError("\n".join(sentences)) from None


def check_key(command: str, path: list[str]) -> None:
    """Refuse a dotted key that the command does not have; blocks with keys of their own choice are
    not looked into."""
    for depth, key in enumerate(path):
        known = known_keys(COMMANDS[command], path[:depth])
        if known and key not in known:
            raise InputError(unknown_key(path[:depth], key, known))


def _not_given(config: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """The dotted keys that a YAML leaves to the user."""
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from _not_given(value, f"{prefix}{key}.")
        elif value == "???":
            yield f"{prefix}{key}"


def _sentence(model: type[BaseModel], fault: Any, config: Mapping[str, Any]) -> tuple[str, str]:
    """One fault in two parts: the key with what was found, and what is allowed (a union's members
    have the first)."""
    path = _path(fault, config)
    key = ".".join(path)
    if fault["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        return unknown_key(path[:-1], path[-1], known_keys(model, path[:-1])).removesuffix("."), ""
    if fault["type"] == "missing":
        return f"{key} has too few values" if isinstance(
            fault["loc"][-1], int
        ) else f"The key {key} is missing", ""
    if fault["type"] == "value_error":
        return f"{key or 'The config'}: {fault['ctx']['error']}", ""
    return (
        f"{key}={fault['input']!r} is not possible: ",
        f"{fault['msg'][0].lower()}{fault['msg'][1:]}",
    )


def _path(fault: Any, config: Mapping[str, Any]) -> list[str]:
    """Where a fault is, in the config's own keys: pydantic's path also names the members of unions."""
    path, block = [], config
    for part in fault["loc"]:
        if isinstance(block, Mapping) and part in block:
            path.append(str(part))
            block = block[part]
    missing = fault["type"] == "missing" and isinstance(fault["loc"][-1], str)
    return [*path, fault["loc"][-1]] if missing else path


def known_keys(model: type[BaseModel], path: list[str]) -> list[str]:
    """The keys that a block may have; ``path`` leads to the block from the command's own keys."""
    block: Any = model
    for key in path:
        block = _inside(block, key)
    return _keys(block)


def _inside(block: Any, key: str) -> Any:
    """The type of the block that another block has under a key, None when it is no block."""
    if get_origin(block) is dict:
        held = get_args(block)[1]
    elif key in getattr(block, "model_fields", {}):
        held = block.model_fields[key].annotation
    else:
        return None
    kinds = [held] if get_origin(held) is dict else [held, *get_args(held)]
    return next((kind for kind in kinds if get_origin(kind) is dict or _keys(kind)), None)


def _keys(block: Any) -> list[str]:
    if is_dataclass(block):
        return [field.name for field in fields(block)]
    return list(getattr(block, "model_fields", []))
