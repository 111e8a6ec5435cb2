"""Build the objects that blocks with ``_target_`` describe, without loading scikit-learn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate

from churnlab.errors import InputError


def build_object(spec: Mapping[str, Any], *, key: str) -> Any:
    """Build the object that a block with ``_target_`` describes; InputError: it cannot be built."""
    try:  # without Hydra 1.4's whitelist: one of all that users may name would lift its blocklist
        return instantiate(dict(spec), _convert_="all")  # estimators take lists, not OmegaConf's
    except Exception as error:  # Hydra 1.3 wraps what the target raises, Hydra 1.4 does not
        cause = error.__cause__ if isinstance(error, InstantiationException) else error
        if isinstance(cause, InputError):
            raise cause from None
        reason = " ".join(str(cause or error).split())
        raise InputError(f"{key} cannot be made of {dict(spec)}: {reason}") from error
