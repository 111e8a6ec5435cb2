"""A table of a shop in every format: its contract, its text, its frame."""

import io

import pandas as pd
import pytest

from churnlab.data.contract import Column, Contract
from churnlab.data.reading import read_table
from churnlab.data.table import Table
from churnlab.data.validation import check
from churnlab.data.violations import LONGEST_MESSAGE
from churnlab.errors import InputError

SHOP = Contract(
    name="shop",
    target="Left",
    positive="yes",
    id="Client",
    columns={
        "Age": Column(kind="numeric", min=0, max=120),
        "Plan": Column(kind="category", values=("basic", "None", "золото")),
    },
)
TEXT = """\
Client,Age,Plan,Left
007,20,basic,no
008,33.5,золото,yes
009,41,None,no
"""


def read(content: bytes | str, path, contract: Contract | None = SHOP, **options) -> Table:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_table(str(path), contract, **options)


def refusal(content: bytes | str, path, contract: Contract = SHOP) -> str:
    with pytest.raises(InputError) as raised:
        check(read(content, path, contract), contract)
    message = str(raised.value)
    assert message.startswith(str(path))
    assert len(message) < LONGEST_MESSAGE
    return message


def parquet(frame: pd.DataFrame, **options) -> bytes:
    buffer = io.BytesIO()
    frame.to_parquet(buffer, **options)
    return buffer.getvalue()


FRAME = pd.DataFrame(
    {
        "Client": ["007", "008", "009"],
        "Age": [20, 33.5, 41],
        "Plan": ["basic", "золото", "None"],
        "Left": list("yny"),
    }
).replace({"Left": {"y": "no", "n": "yes"}})


def error_of(path: str, contract: Contract | None) -> str | None:
    """The message for a file that is refused."""
    try:
        table = read_table(path, contract)
        if contract is not None:
            check(table, contract)
    except InputError as error:
        return str(error)
    return None
