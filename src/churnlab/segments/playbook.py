"""Declare the form of a playbook, and apply its tests and rules to a segment.

A playbook is plain data: tests give a segment its traits, and rules turn traits and risk into
actions. conf/playbook/gym.yaml documents the form; this module holds no word of any business.
Keep it light to import: a config is checked by it before pandas is loaded.
"""

from __future__ import annotations

import operator
from collections.abc import Collection, Iterator, Mapping
from typing import Annotated, Any, Literal, NotRequired, get_args

from pydantic import AfterValidator, ConfigDict, Field, StrictFloat, StrictInt, with_config
from typing_extensions import TypedDict  # pydantic needs this one before Python 3.12

from churnlab.errors import InputError

Risk = Literal["high", "medium", "low"]
Audience = Literal["members", "left", "others"]
"""Members of the segment, those of them who left, or people outside the table. The table does not
show how many of the last two are lost without the action: that share is the action's ``rate``."""

KINDS = ("mean", "deviation", "share")
"""What a test looks at: a column's mean in the segment, its standardized deviation from the mean of
the table, or the share of the segment's rows for which an expression holds."""

COMPARISONS = {
    "at_least": operator.ge,
    "above": operator.gt,
    "at_most": operator.le,
    "below": operator.lt,
}

NUMBERS = (
    *("reach", "gone", "rate", "keeps", "keeps_low", "keeps_high", "cost", "each"),
    *("worth", "worth_low", "worth_high", "break_even"),
    *("per_arm", "smallest_cut", "points"),
)
"""What a sentence may name: the numbers of portraits.plan, the cost per person reached (each), and
the smallest cut in percentage points (points)."""

INSTEAD = {"nobody": "free", "worth_range": "worth"}
"""The sentence for a playbook that lacks a newer one."""

ALL_LEFT = {
    "en": "all of them have left, so there is nobody to address",
    "ru": "все уже ушли, обращаться не к кому",
}
"""Stands for the actions of a segment in which nobody stays."""

LEAST_HIGH = 0.05
"""While the low end of the interval is below this, a segment has no high risk."""

Facts = Mapping[str, Any]
"""What is known about one segment: facts[kind][column or expression] is a number."""


def _check_test(test: dict[str, Any]) -> dict[str, Any]:
    """Return a test unchanged; ValueError if it is not one of the forms that a test can have."""
    keys = set(test)
    compares = keys <= {*KINDS, *COMPARISONS} and keys & set(COMPARISONS)
    if keys not in ({"trait"}, {"all"}, {"any"}) and not (compares and len(keys & set(KINDS)) == 1):
        raise ValueError(
            f"{test} is not a test; give one of {', '.join(KINDS)} with one or more of "
            f"{', '.join(COMPARISONS)}, as in {{mean: Age, above: 40}}, or {{trait: NAME}}, or a "
            "list of tests under all or any"
        )
    return test


def _check_sentence(entry: str | dict[str, str]) -> str | dict[str, str]:
    """Return a sentence unchanged; ValueError if it cannot be filled in with the NUMBERS."""
    for sentence in [entry] if isinstance(entry, str) else entry.values():
        try:
            sentence.format(**dict.fromkeys(NUMBERS, 1.0))
        except (KeyError, ValueError, IndexError) as error:
            raise ValueError(
                f"{sentence!r} cannot be filled in ({error}); it may name {', '.join(NUMBERS)} in "
                "braces, with a format as in {reach:,.0f} or {keeps:.0%}"
            ) from None
    return entry


Number = Annotated[StrictInt | StrictFloat, Field(ge=0)]
Share = Annotated[StrictInt | StrictFloat, Field(ge=0, le=1)]


def _check_range(ends: list[float]) -> list[float]:
    """Return a range unchanged; ValueError if its ends are not in order."""
    if ends[0] > ends[1]:
        raise ValueError(f"[{ends[0]:g}, {ends[1]:g}] must have LOW <= HIGH")
    return ends


ShareRange = Annotated[list[Share], Field(min_length=2, max_length=2), AfterValidator(_check_range)]
Text = str | dict[str, str]
"""A text for all languages, or one text per language: {en: ..., ru: ...}."""
Sentence = Annotated[Text, AfterValidator(_check_sentence)]
Test = Annotated["SegmentTest", AfterValidator(_check_test)]
Form = with_config(ConfigDict(extra="forbid"))


@Form
class SegmentTest(TypedDict, total=False):
    """Declare a test on the members of a segment (_check_test says which keys go together)."""

    mean: str
    deviation: str
    share: str
    at_least: StrictInt | StrictFloat
    above: StrictInt | StrictFloat
    at_most: StrictInt | StrictFloat
    below: StrictInt | StrictFloat
    trait: str
    all: Annotated[list[Test], Field(min_length=1)]
    any: Annotated[list[Test], Field(min_length=1)]


@Form
class Trait(TypedDict):
    """Declare a trait; one without a name is not part of a segment's name."""

    name: NotRequired[Text]
    when: Test


@Form
class RiskNames(TypedDict):
    """Declare the words for each risk."""

    high: Text
    medium: Text
    low: Text


@Form
class RiskLimits(TypedDict):
    """Declare from which multiple of the overall churn rate on a segment's risk is high or low.

    It is also high if the share that stays is as many times smaller (portraits.few_stay).
    """

    high_above: Number
    low_below: Number
    names: RiskNames


@Form
class Naming(TypedDict):
    """Declare how segments are named: at most ``most`` traits, or columns that stand out.

    ``often`` and ``rarely``, which go together, are for words: often Plan = gold.
    """

    most: int
    more: Text
    less: Text
    plain: Text
    often: NotRequired[Text]
    rarely: NotRequired[Text]


@Form
class Values(TypedDict):
    """Declare what a member who stays is worth, in the currency of the costs."""

    member: Annotated[StrictInt | StrictFloat, Field(gt=0)]


@Form
class Sentences(TypedDict):
    """Declare the sentences that portraits.plan chooses from."""

    worth: Sentence
    worth_range: NotRequired[Sentence]
    gone: NotRequired[Sentence]
    together: NotRequired[Sentence]
    never: Sentence
    outside: Sentence
    free: Sentence
    nobody: NotRequired[Sentence]
    proof: Sentence
    too_small: Sentence
    unprovable: Sentence


@Form
class Action(TypedDict):
    """Declare an action: whom it reaches, what it costs per person, and which share of those who
    would leave it is assumed to keep, as a number or as [low, high]."""

    text: Text
    lever: str
    cost: Number
    keeps: Share | ShareRange
    reach: NotRequired[str]
    audience: NotRequired[Audience]
    rate: NotRequired[Share]


@Form
class Rule(TypedDict):
    """Declare which actions segments with all these traits and one of these risks get."""

    needs: NotRequired[list[str]]
    risk: NotRequired[list[Risk] | None]
    do: list[str]


def check_names(playbook: Mapping[str, Any]) -> None:
    """Check that a playbook defines what it names; ValueError with the key that does not.

    A trait may use only traits above it.
    """
    traits, actions = list(playbook["traits"]), playbook["actions"]
    used: list[tuple[str, Collection[str], Collection[str]]] = [
        (f"traits.{name}.when", [test["trait"]], traits[: traits.index(name)])
        for name, test in _tests(playbook)
        if "trait" in test
    ]
    for place, rule in enumerate(playbook["rules"]):
        used.append((f"rules[{place}].needs", rule.get("needs", []), traits))
        used.append((f"rules[{place}].do", rule["do"], actions))
    for name, action in actions.items():
        used.append((f"actions.{name}.lever", [action["lever"]], playbook["levers"]))
        if action.get("audience", "members") != "members" and "rate" not in action:
            raise ValueError(
                f"actions.{name} has no rate; give the share of its audience "
                f"({action['audience']}) that is lost without it"
            )
    if not playbook["fallback"]:
        raise ValueError("there is no fallback; name an action for segments that match no rule")
    used += [(key, playbook[key], actions) for key in ("fallback", "everyone")]
    for key, names, known in used:
        if unknown := [name for name in names if name not in known]:
            there = f"defined{' above it' if key.startswith('traits') else ''}"
            raise ValueError(
                f"{key} names {', '.join(unknown)}, which is not {there}; {there}: "
                f"{', '.join(known) or 'none'}"
            )


def find_traits(playbook: Mapping[str, Any], facts: Facts) -> list[str]:
    """Return the traits whose tests hold for a segment, in the playbook's order."""
    held: list[str] = []
    for name, trait in playbook["traits"].items():
        if _holds(trait["when"], facts, held):
            held.append(name)
    return held


def assumed_range(keeps: float | list[float]) -> tuple[float, float]:
    """Return the ends of the share that an action is assumed to keep; equal ones for a number.

    >>> assumed_range(0.1), assumed_range([0.05, 0.15])
    ((0.1, 0.1), (0.05, 0.15))
    """
    low, high = keeps if isinstance(keeps, list) else (keeps, keeps)
    return float(low), float(high)


def rate_risk(
    playbook: Mapping[str, Any], low: float, high: float, base: float, *, few_stay: bool = False
) -> Risk:
    """Rate the risk of a segment by the 95% interval (low, high) of its churn rate.

    ``base`` is the churn rate of all rows. Where most leave, no rate can be far above it:
    ``few_stay`` says that far fewer stay than of all rows, and that this is no chance. Where few
    leave, a segment in which nineteen in twenty stay is not high.

    >>> limits = {"risk": {"high_above": 1.4, "low_below": 0.5}}
    >>> rate_risk(limits, 0.30, 0.40, base=0.2), rate_risk(limits, 0.15, 0.40, base=0.2)
    ('high', 'medium')
    >>> rate_risk(limits, 0.88, 0.92, base=0.82, few_stay=True)
    'high'
    >>> rate_risk(limits, 0.028, 0.036, base=0.013)
    'medium'
    """
    if low > max(playbook["risk"]["high_above"] * base, LEAST_HIGH) or few_stay:
        return "high"
    return "low" if high < playbook["risk"]["low_below"] * base else "medium"


def choose_actions(playbook: Mapping[str, Any], traits: Collection[str], risk: str) -> list[str]:
    """Return the actions of every matching rule, in order and each once; without a match those of
    the fallback."""
    matching = [
        rule
        for rule in playbook["rules"]
        if set(rule.get("needs", [])) <= set(traits)
        and risk in (rule.get("risk") or get_args(Risk))
    ]
    named = [action for rule in matching for action in rule["do"]] or playbook["fallback"]
    return list(dict.fromkeys(named))


def operands(playbook: Mapping[str, Any], kind: str) -> dict[str, str]:
    """Return the columns or expressions that tests of a kind look at, each with its trait."""
    return {test[kind]: name for name, test in _tests(playbook) if kind in test}


def text(entry: Text, language: str) -> str:
    """Return a text of the playbook in a language; a plain string serves for all languages.

    InputError: there is no such language.

    >>> text({"en": "near", "ru": "рядом"}, "en"), text("gold", "ru")
    ('near', 'gold')
    """
    if isinstance(entry, str):
        return entry
    if language not in entry:
        raise InputError(
            f"The playbook has no text in {language!r} for {next(iter(entry.values()), entry)!r}; "
            f"add it or choose playbook.language={next(iter(entry), 'en')}."
        )
    return entry[language]


def page_language(playbook: Mapping[str, Any], language: str) -> str:
    """Return the language of the terminal, the figures and the report: English, or the playbook's
    own if any of its texts is not in English.

    >>> page_language({"text": {"en": "near", "ru": "рядом"}}, "ru")
    'en'
    >>> page_language({"actions": [{"text": {"ru": "рядом"}}]}, "ru")
    'ru'
    """
    return language if _lacks_english(playbook, language) else "en"


def _lacks_english(part: Any, language: str) -> bool:
    if isinstance(part, Mapping):
        missing = language in part and "en" not in part
        return missing or any(_lacks_english(each, language) for each in part.values())
    return isinstance(part, list) and any(_lacks_english(each, language) for each in part)


def _holds(test: Mapping[str, Any], facts: Facts, held: Collection[str]) -> bool:
    if "all" in test:
        return all(_holds(part, facts, held) for part in test["all"])
    if "any" in test:
        return any(_holds(part, facts, held) for part in test["any"])
    if "trait" in test:
        return test["trait"] in held
    value = next(facts[kind][test[kind]] for kind in KINDS if kind in test)
    return all(compare(value, test[word]) for word, compare in COMPARISONS.items() if word in test)


def _tests(playbook: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield every single test with the name of its trait; "all" and "any" are opened."""
    for name, trait in playbook["traits"].items():
        yield from ((name, test) for test in _opened(trait["when"]))


def _opened(test: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for part in test.get("all", []) + test.get("any", []):
        yield from _opened(part)
    if not test.keys() & {"all", "any"}:
        yield test
