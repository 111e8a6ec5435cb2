"""A playbook: tests that give a segment its traits, and rules that turn traits and risk into
actions.

It is plain data (conf/playbook/*.yaml documents its form); this module reads it and holds no word
of any business.
"""

from __future__ import annotations

import operator
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import pandas as pd

from churnlab.data.expressions import check_expression
from churnlab.errors import InputError

PARTS = (
    *("risk", "salient", "traits", "naming", "columns", "values", "levers", "sentences"),
    *("actions", "rules", "fallback", "everyone"),
)

ACTION = ("text", "lever", "cost", "keeps")

AUDIENCES = ("members", "left", "others")
"""Whom an action is for: members of the segment, those of them who left, or people outside the
table. What the table cannot tell of the last two, the share that is lost without the action, is the
action's ``rate``."""

NUMBERS = (
    "reach",
    "rate",
    "keeps",
    "cost",
    "each",
    "worth",
    "break_even",
    "per_arm",
    "smallest_cut",
    "points",
)
"""What a sentence may name: portraits.plan's numbers, the cost of each reached, and the smallest
cut in points of a hundred."""

SENTENCES = ("worth", "never", "outside", "free", "proof", "too_small", "unprovable")

RISKS = ("high", "medium", "low")

KINDS = ("mean", "deviation", "share")
"""What a test may look at: a column's mean in the segment, its standardised deviation from the
table's mean, or the share of the segment's rows for which an expression holds."""

COMPARISONS = {
    "at_least": operator.ge,
    "above": operator.gt,
    "at_most": operator.le,
    "below": operator.lt,
}

Facts = Mapping[str, Any]
"""What is known of one segment: facts[kind][column or expression] is a number."""


def traits_of(playbook: Mapping[str, Any], facts: Facts) -> list[str]:
    """The traits whose tests hold for a segment, in the playbook's order."""
    held: list[str] = []
    for name, trait in playbook["traits"].items():
        if _holds(trait["when"], facts, held):
            held.append(name)
    return held


def risk_of(playbook: Mapping[str, Any], low: float, high: float, base: float) -> str:
    """The risk by the interval (low, high) of a segment's churn rate against ``base``, the rate of
    all rows."""
    if low > playbook["risk"]["high_above"] * base:
        return "high"
    return "low" if high < playbook["risk"]["low_below"] * base else "medium"


def actions_of(playbook: Mapping[str, Any], traits: Collection[str], risk: str) -> list[str]:
    """Names of the actions of every matching rule, in order and each once; without a match the
    fallback's."""
    matching = [
        rule
        for rule in playbook["rules"]
        if set(rule.get("needs", [])) <= set(traits) and risk in (rule.get("risk") or RISKS)
    ]
    named = [action for rule in matching for action in rule["do"]] or playbook["fallback"]
    return list(dict.fromkeys(named))


def shares_in(playbook: Mapping[str, Any]) -> list[str]:
    """Every expression whose share of rows some trait tests."""
    return list(dict.fromkeys(test["share"] for _, test in _tests(playbook) if "share" in test))


def text(entry: str | Mapping[str, str], language: str) -> str:
    """A text of the playbook in a language; one that is no {en: ..., ru: ...} serves for all
    languages."""
    if isinstance(entry, str):
        return entry
    if language not in entry:
        raise InputError(
            f"The playbook has no text in {language!r} beside "
            f"{next(iter(entry.values()), entry)!r}; add it or choose "
            f"playbook.language={next(iter(entry), 'en')}."
        )
    return entry[language]


def check_playbook(playbook: Mapping[str, Any], X: pd.DataFrame) -> None:
    """Refuse a playbook that needs columns X does not have, lacks a part, or names a trait or
    action it lacks."""
    where = f"The playbook {playbook.get('name', '')}"
    _check_parts(where, playbook, PARTS)
    _check_parts(f"{where}, risk", playbook["risk"], ("high_above", "low_below", "names"))
    _check_parts(f"{where}, risk.names", playbook["risk"]["names"], RISKS)
    _check_parts(f"{where}, naming", playbook["naming"], ("most", "more", "less", "plain"))
    for name, trait in playbook["traits"].items():
        _check_parts(f"{where}, trait {name}", trait, ("when",))
    numbers = X.select_dtypes("number").columns
    used = {
        test[kind] for _, test in _tests(playbook) for kind in ("mean", "deviation") if kind in test
    }
    if missing := sorted(used - set(numbers)):
        raise InputError(
            f"{where} needs the number columns {', '.join(missing)}, which the table does not "
            f"have; it has {', '.join(numbers)}. Choose playbook=any, or write a playbook for this "
            "table."
        )
    for name, test in _tests(playbook):
        _check_test(f"{where}, trait {name}", name, test, playbook, list(X.columns))
    for rule in playbook["rules"]:
        _check_parts(f"{where}, rule {dict(rule)}", rule, ("do",))
        _check_names(where, "trait", rule.get("needs", []), playbook["traits"])
        _check_names(where, "risk", rule.get("risk") or [], RISKS)
        _check_names(where, "action", rule["do"], playbook["actions"])
    _check_actions(where, playbook, list(X.columns))
    if not playbook["fallback"]:
        raise InputError(
            f"{where} has no fallback; name an action for the segments that no rule is for."
        )
    _check_names(
        where, "action", [*playbook["fallback"], *playbook["everyone"]], playbook["actions"]
    )


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
    """Every single test with the name of its trait; "all" and "any" are opened."""

    def leaves(test: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
        parts = test.get("all") or test.get("any")
        if parts is None:
            yield test
        for part in parts or []:
            yield from leaves(part)

    for name, trait in playbook["traits"].items():
        yield from ((name, test) for test in leaves(trait["when"]))


def _check_test(
    where: str,
    name: str,
    test: Mapping[str, Any],
    playbook: Mapping[str, Any],
    columns: Collection[str],
) -> None:
    words = set(test)
    if words == {"trait"}:
        earlier = list(playbook["traits"])[: list(playbook["traits"]).index(name)]
        _check_names(
            f"{where} (a trait is tested after the ones it uses)", "trait", [test["trait"]], earlier
        )
    elif (
        len(words & set(KINDS)) != 1
        or not words & set(COMPARISONS)
        or words - {*KINDS, *COMPARISONS}
    ):
        raise InputError(
            f"{where} has the test {dict(test)}. A test is one of {', '.join(KINDS)} with one or more of "
            f"{', '.join(COMPARISONS)}, as in {{mean: Age, above: 40}}, or {{trait: NAME}}, or a list under all or any."
        )
    elif "share" in words:
        try:
            check_expression(f"share in {name}", test["share"], columns)
        except InputError as error:
            raise InputError(f"{where}: {error} Or choose playbook=any.") from None


def _check_actions(where: str, playbook: Mapping[str, Any], columns: Collection[str]) -> None:
    _check_parts(f"{where}, values", playbook["values"], ("member",))
    _check_number(f"{where}, values.member", playbook["values"]["member"], above=0)
    _check_parts(f"{where}, sentences", playbook["sentences"], SENTENCES)
    for name, entry in playbook["sentences"].items():
        for said in [entry] if isinstance(entry, str) else entry.values():
            _check_sentence(f"{where}, sentence {name}", said)
    for name, action in playbook["actions"].items():
        here = f"{where}, action {name}"
        if not isinstance(action, Mapping):
            raise InputError(
                f"{here} is only a text; it has the parts {', '.join(ACTION)}, as in "
                "conf/playbook/gym.yaml."
            )
        _check_parts(here, action, ACTION)
        _check_names(here, "lever", [action["lever"]], playbook["levers"])
        _check_names(here, "audience", [action.get("audience", "members")], AUDIENCES)
        _check_number(f"{here}, cost", action["cost"])
        for share in (
            "keeps",
            *(["rate"] if action.get("audience", "members") != "members" else []),
        ):
            _check_parts(here, action, [share])
            _check_number(f"{here}, {share}", action[share], most=1)
        if "reach" in action:
            try:
                check_expression(f"reach of {name}", action["reach"], columns)
            except InputError as error:
                raise InputError(f"{here}: {error} Or choose playbook=any.") from None


def _check_sentence(where: str, said: str) -> None:
    try:
        said.format(**dict.fromkeys(NUMBERS, 1.0))
    except (KeyError, ValueError, IndexError) as error:
        raise InputError(
            f"{where} cannot be filled in ({error}): {said!r}. It may name {', '.join(NUMBERS)} in braces, with a "
            "format as in {reach:,.0f} or {keeps:.0%}."
        ) from None


def _check_number(
    where: str, value: Any, *, above: float | None = None, most: float = float("inf")
) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not 0 <= value <= most or value == above:
        allowed = (
            "above 0"
            if above == 0
            else "of 0 or more"
            if most == float("inf")
            else f"from 0 to {most:g}"
        )
        raise InputError(f"{where} is {value!r}; give a number {allowed}.")


def _check_parts(where: str, block: Mapping[str, Any], parts: Collection[str]) -> None:
    if missing := [part for part in parts if part not in block]:
        raise InputError(
            f"{where} has no {', '.join(missing)}; conf/playbook/gym.yaml shows the form of a "
            "playbook."
        )


def _check_names(where: str, what: str, used: Collection[str], known: Collection[str]) -> None:
    if unknown := [name for name in used if name not in known]:
        raise InputError(
            f"{where} names the {what} {', '.join(unknown)}, which is not defined; defined: "
            f"{', '.join(known)}."
        )
