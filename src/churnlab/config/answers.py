"""Declare the keys of the commands that answer with a version, score and serve."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from churnlab.config.groups import Keys


class ServedModelKeys(Keys):
    """``unverified``: use a version that has no manifest of its files, too."""

    unverified: bool


class ScoringKeys(Keys):
    """What a scored file holds besides the predictions, and what a row that breaks the contract
    does: it fails the file, or is left out. ``top`` and ``budget`` limit a contact list."""

    reasons: bool
    on_bad_row: Literal["fail", "reject"] = "fail"
    top: Annotated[int, Field(ge=1)] | None = None
    budget: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None


class ServingKeys(Keys):
    """What a request to the server may be, how many at the same time, and who may ask.

    ``poll`` and ``seconds`` are seconds; ``hosts``: None is this machine and the address itself.
    """

    poll: Annotated[float, Field(ge=0.05, le=3600)]
    workers: Annotated[int, Field(ge=1, le=256)]
    most_rows: Annotated[int, Field(ge=1)]
    most_bytes: Annotated[int, Field(ge=1000)]
    seconds: Annotated[float, Field(gt=0, le=3600)]
    concurrency: Annotated[int, Field(ge=1)]
    hosts: list[str] | None
