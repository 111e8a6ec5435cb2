"""Guess which column says who left, which of its values means it, and which rows take part."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from churnlab.data.cells import BLANKS
from churnlab.drafting.names import words_of
from churnlab.drafting.written import Look

LEFT = re.compile(
    "churn(ed|er|ers)?|left|leaver|lost|exit(ed)?|attrited|attrition|cancel(l?ed)?|gone|quit"
    "|terminated|departed|closed|deactivated|unsubscribed|lapsed|resigned|inactive|expired|ушел|ушёл"
    "|отток"
)
"""Words that say that somebody left."""

STAYED = re.compile(
    "stay(ed|s)?|retained|existing|active|current|remain(s|ed)?|kept|loyal|renewed|open|subscribed"
    "|остался"
)

NOT = {"not", "no", "non", "never", "didn"}
YES = ("yes", "true", "y", "t", "1", "ja", "oui", "si", "sí", "sim", "да")
NO = ("no", "false", "n", "f", "0", "nein", "non", "não", "нет")

NAMED = re.compile(
    r"((has|is|was|did|have|will|the|client|customer|member|user|account|contract) )*"
    r"(churn(ed|er)?|left|exit(ed)?|attrition|attrited|leave[rs]?|cancel(l?ed)?|quit|unsubscribed"
    r"|departed|resigned|lapsed|closed|отток|ушел|ушёл|gekündigt|kündigung|abgewandert|résilié"
    r"|abandono|baja|cancelado)"
    r"( (flag|label|value|status|yn|indicator|ind|binary|target|class|bool|0|1|company|bank"
    r"|service|or|not|stay|stayed))*"
)
"""Names of columns that say who left."""

RELATED = re.compile("churn(ed|er)?|attrition|attrited|отток")
"""Words in names of columns about leaving; what is no target among them was recorded later."""

AFTERWARDS = {
    "reason",
    "category",
    "score",
    "date",
    "month",
    "type",
    "cause",
    "risk",
    "probability",
}

ANYTHING = ("target", "label", "y")
"""Names that say no more than that a column is to be predicted."""

KEPT = re.compile(r"((has|is|was|did|client|customer|member) )*(retained|renewed|stayed)( flag)?")
"""Names of columns that say who stayed."""

MOST_VALUES = 6

LETTERS = {**dict.fromkeys("clxi", "left"), **dict.fromkeys("asr", "stayed")}
"""What single letters mean among codes: C churned or cancelled, A active ... E may be either."""

LEFT_WORDS = (
    *("churned", "left", "lost", "exited", "attrited", "cancelled", "canceled", "gone", "quit"),
    *("terminated", "departed", "closed", "deactivated", "unsubscribed", "lapsed", "resigned"),
    *("inactive", "expired"),
)
STAYED_WORDS = (
    *("stayed", "retained", "existing", "active", "current", "remained", "kept", "loyal"),
    *("renewed", "open"),
)

LONGEST_CODE = 4
"""Letters of a code that is the start of such a word."""

STATUS = re.compile(r"((client|customer|member|user|account|contract|subscription|policy) )*status")
"""Names of columns whose codes may say who left."""


@dataclass(frozen=True)
class Target:
    """The target's column, the value that means left, the two values (left, stayed) in the file's
    own types, and whether the table has others, whose rows do not take part.

    ``left`` is true in the rows of who left; ``sure`` is false if ``positive`` is a guess, and
    ``coded`` true if it was guessed from codes such as ACT and CHU; ``values`` are the cells of who
    left and who stayed as every command reads them.
    """

    name: str
    positive: Any
    stayed: Any
    others: list[str]
    left: np.ndarray
    taking_part: np.ndarray
    sure: bool
    values: Sequence[Any] = ()
    coded: bool = False

    @property
    def rows_where(self) -> str | None:
        """The expression that says which rows take part, None if all do."""
        if self.taking_part.all():
            return None
        return rows_where(self.name, self.values)


def rows_where(name: str, values: Sequence[Any]) -> str:
    """Return the expression that selects the rows with one of these values."""
    quoted = name if re.fullmatch(r"[A-Za-z]\w*", name, re.ASCII) else f"`{name}`"
    return f"{quoted} in [{', '.join(map(repr, values))}]"


def two_of(look: Look) -> str:
    """Say how to learn from two values of a few; "" for two values, and for many."""
    counts = look.known.value_counts()
    if not 2 < len(counts) <= MOST_VALUES:
        return ""
    stayed, left, *_ = counts.index
    both = [cell for one in (left, stayed) for cell in _cells(look, (look.texts == one).to_numpy())]
    return (
        f'; or, if {left} means left and {stayed} stayed, write target: "{look.name}", positive: '
        f"{json.dumps(both[0], ensure_ascii=False)} and"
        f' rows_where: "{rows_where(look.name, both)}" into the YAML'
    )


def meaning(value: str) -> str | None:
    """Return what a value says of a member: left, stayed, yes, no, or None.

    >>> meaning("Attrited Customer"), meaning("not churned"), meaning("Y"), meaning("Joined")
    ('left', 'stayed', 'yes', None)
    """
    words = words_of(value)
    if " ".join(words) in YES or value in ("1", "1.0"):
        return "yes"
    if " ".join(words) in NO or value in ("0", "0.0"):
        return "no"
    denied = bool({*words} & NOT)
    for pattern, meant, opposite in ((LEFT, "left", "stayed"), (STAYED, "stayed", "left")):
        if any(map(pattern.fullmatch, words)):
            return opposite if denied else meant
    return None


def code_meaning(code: str) -> str | None:
    """Return what a code says of a member: left, stayed, or None. It is a letter, the start of one
    of the words, or the start without its vowels.

    >>> [code_meaning(code) for code in ("C", "ACT", "CHRN", "EXI", "NEW")]
    ['left', 'stayed', 'left', None, None]
    """
    plain = code.casefold()
    if not re.fullmatch(rf"[^\W\d_]{{1,{LONGEST_CODE}}}", plain):
        return None
    if len(plain) == 1:
        return LETTERS.get(plain)
    starts = {
        meant
        for words, meant in ((LEFT_WORDS, "left"), (STAYED_WORDS, "stayed"))
        for word in words
        if word.startswith(plain) or (word[0] + re.sub("[aeiou]", "", word[1:])).startswith(plain)
    }
    return starts.pop() if len(starts) == 1 else None


def make_target(look: Look) -> Target | None:
    """Read a column as the target; None if its values do not say who left and who stayed.

    Of more than two values two must say so by themselves.
    """
    texts = _usual_spelling(look.texts)
    counts = texts[~look.missing].value_counts()
    if not 2 <= len(counts) <= MOST_VALUES:
        return None
    coded = {*counts.index} == {"1", "2"}  # where 1 is not yes
    meanings = {value: None if coded else meaning(value) for value in counts.index}
    inverted = any(map(STAYED.fullmatch, words_of(look.name))) and not names_target(look.name)
    left, stayed = ("no", "yes") if inverted else ("yes", "no")
    ones = [value for value in meanings if meanings[value] == "left"]
    ones = ones or [value for value in meanings if meanings[value] == left]
    zeros = [value for value in meanings if meanings[value] == "stayed"]
    zeros = zeros or [value for value in meanings if meanings[value] == stayed]
    sure, coded_as = True, _of_codes([*counts.index])
    if (len(ones), len(zeros)) != (1, 1) and coded_as is not None:
        sure, ones, zeros = False, [coded_as[0]], [coded_as[1]]
    elif len(counts) == 2 and (len(ones) != 1 or len(zeros) != 1):
        coded_as = None
        sure = len(ones) + len(zeros) == 1 or {*counts.index} == {"-1", "1"}
        if len(ones) == 1:
            zeros = [value for value in counts.index if value not in ones]
        elif len(zeros) == 1:
            ones = [value for value in counts.index if value not in zeros]
        elif {*counts.index} == {"-1", "1"}:
            ones, zeros = ["1"], ["-1"]
        else:  # nobody can know: most stay
            ones, zeros = [counts.index[1]], [counts.index[0]]
    if len(ones) != 1 or len(zeros) != 1:
        return None
    others = [value for value in counts.index if value not in (ones[0], zeros[0])]
    gone, there = ((texts == value).to_numpy() & ~look.missing for value in (ones[0], zeros[0]))
    left_cells, stayed_cells = _cells(look, gone), _cells(look, there)
    if not left_cells or not stayed_cells:  # None, which every command reads as a gap
        return None
    return Target(
        look.name,
        _value(left_cells[0]),
        _value(stayed_cells[0]),
        others,
        gone,
        gone | there,
        sure,
        [*left_cells, *stayed_cells],
        not sure and coded_as is not None,
    )


def _of_codes(values: Sequence[str]) -> tuple[str, str] | None:
    """Return the codes that mean left and stayed, None unless there is one of each."""
    left, stayed = (
        [value for value in values if code_meaning(value) == meant] for meant in ("left", "stayed")
    )
    return (left[0], stayed[0]) if len(left) == len(stayed) == 1 else None


def _usual_spelling(texts: pd.Series) -> pd.Series:
    """Return texts in which words that differ in capitals alone are one: No for NO."""
    counts = texts[texts != ""].value_counts()
    usual: dict[str, str] = {}
    for text in counts.index:
        usual.setdefault(text.casefold(), text)
    if len(counts) > 3 * MOST_VALUES or len(usual) == len(counts):
        return texts
    return texts.map(lambda text: usual.get(text.casefold(), text))


def _cells(look: Look, rows: np.ndarray) -> list[Any]:
    """Return the different cells of these rows as every command reads them, the usual first."""
    read = look.texts if look.read is None else look.read
    cells = read[rows].value_counts().index.tolist()
    return [int(cell) if isinstance(cell, float) and cell.is_integer() else cell for cell in cells]


def _value(cell: Any) -> Any:
    return cell.strip(BLANKS) if isinstance(cell, str) else cell


def names_target(name: str) -> bool:
    """Return whether a column says by its name who left.

    >>> [names_target(name) for name in ("Attrition_Flag", "has left", "months left")]
    [True, True, False]
    """
    return bool(NAMED.fullmatch(" ".join(words_of(name))))


def names_status(name: str) -> bool:
    """Return whether a column is a member's status by its name: status, account status."""
    return bool(STATUS.fullmatch(" ".join(words_of(name))))


def names_outcome(name: str) -> bool:
    """Return whether a column is about leaving by its name: what is no target was known later."""
    return any(map(RELATED.fullmatch, words_of(name)))


def likely_targets(looks: Iterable[Look]) -> list[Target]:
    """Return the columns that may say who left, the likeliest alone, several if equally likely."""
    found: dict[int, list[Target]] = {}
    for look in looks:
        words = words_of(look.name)
        made = make_target(look)
        if made is None or {*words} & AFTERWARDS:
            continue
        meanings = {meaning(value) for value in look.known.unique()}
        if names_target(look.name):
            rank = 4
        elif names_outcome(look.name) and len({"left", "stayed", "yes", "no"} & meanings) > 1:
            rank = 3
        elif {"left", "stayed"} <= meanings:
            rank = 2
        elif " ".join(words) in ANYTHING or KEPT.fullmatch(" ".join(words)):
            rank = 1
        elif made.coded and names_status(look.name):
            rank = 0
        else:
            continue
        found.setdefault(rank, []).append(made)
    return found[max(found)] if found else []


def same(one: Target, other: Target) -> bool:
    """Return whether two targets say the same of every member."""
    both = one.taking_part & other.taking_part
    return bool((one.left[both] == other.left[both]).all())


def agreed(targets: Sequence[Target]) -> Target | None:
    """Return one of several targets if all say the same, of 1 and 0 before words; else None."""
    if targets and all(same(targets[0], other) for other in targets[1:]):
        return min(targets, key=lambda one: isinstance(one.positive, str))
    return None
