"""Sentences for the report: what the measured numbers say, readable for a manager.

Values in, plain text out; the page escapes it. A sentence claims no more than its confidence
interval (CI) supports and never states a cause.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from scipy.stats import binomtest

from churnlab.formatting import counted, number, percent, readable, whole
from churnlab.report.model_sentences import how_well, is_guessing, which_model

TEST_FIRST = (
    ", and give an action to a random half of its segment before all get it (an A/B test), because "
    "a correlation is not an effect"
)
"""What follows if the playbook has an action with an effect for any segment."""

FIRST_MODELS = "train -m model=logistic_regression,random_forest"
"""The command that trains the first models of any table."""

Part = Mapping[Any, Any]
"""The values of one section of the report, by name."""


class Conclusion(NamedTuple):
    """One sentence with its topic, the runs it rests on and the next command (without churnlab)."""

    topic: str
    text: str
    runs: tuple[str, ...] = ()
    command: str | None = None


def five_sentences(
    members: Part,
    models: Part | None,
    segments: Part | None,
    champion: Part | None,
    *,
    registered: str,
) -> list[Conclusion]:
    """Return who leaves, which model, how well it ranks, which segments and what is next.

    A part is None if its command has not run. members: rows, left, churn_rate, run_id, groups (None
    if not explored). models: recommended, value, best, rival ... segments: portraits, run_id.
    champion: version, since, recommended ... ``registered`` is the registered model's name.
    """
    rate, left, groups = members["churn_rate"], members["left"], members["groups"]
    who = who_leaves(members["rows"], left, groups, looked=members.get("looked", 0))
    explore = "explore" if groups is None else None
    following, command = what_next(
        registered,
        champion,
        guessing=models is not None and is_guessing(models["test"]),
        refused=models and models["refused"],
        promote=_promote(models),
        nothing=_nothing_to_promote(models),
        test=TEST_FIRST if segments is None or _acts(*segments["portraits"]) else "",
    )
    return [
        Conclusion("Who leaves", who, _runs(members), explore),
        *_about_models(models),
        _about_segments(segments, churn_rate=rate, left=left),
        Conclusion("What next", following, _runs(champion or {}), command),
    ]


def _nothing_to_promote(models: Part | None) -> tuple[str, str] | None:
    """Say why no model can be promoted, and return the command that helps; None if one can, or if
    none was trained."""
    if models is None or models["recommended"] is not None:
        return None
    if not models["kept"]:
        return "No run has kept its model, so there is none to promote: train one.", FIRST_MODELS
    return (
        "Every score is too good to be true, so there is no model to promote: look for a column "
        "that is known only after a member has left."
    ), "explore"


def _promote(models: Part | None) -> str:
    """Return the command that promotes the recommended run, which may not be the best one."""
    other = models is not None and models["recommended"] and models["best"]
    return f"promote churn_run={models['run_id']}" if models and other else "promote"


def _about_models(models: Part | None) -> list[Conclusion]:
    if models is None:
        missing = "No model has been trained on this table and split yet."
        later = "How well a model ranks members is measured on held-out members when it is trained."
        return [Conclusion("Which model", missing, (), FIRST_MODELS), Conclusion("How well", later)]
    keys = (
        "recommended",
        "kept",
        "value",
        "best",
        "rival",
        "rivals",
        "found",
        "metric",
        "held_out",
        "test",
    )
    suspects = models.get("suspects", 0)
    which = which_model(**{key: models[key] for key in keys}, suspects=suspects)
    late = models["late"]
    well = how_well(
        models["test"],
        models["gains"],
        held_out=models["held_out"],
        late=late,
    )
    measure = models["measure_late"] if late and late.without is None else None
    return [
        Conclusion("Which model", which, _runs(models, "best_run_id", "rival_run_id")),
        Conclusion("How well", well, _runs(models), measure),
    ]


def _about_segments(segments: Part | None, *, churn_rate: float, left: int) -> Conclusion:
    if segments is None:
        missing = "The members have not been divided into segments yet."
        return Conclusion("Which segments", missing, (), "segment")
    text = which_segments(segments["portraits"], churn_rate=churn_rate, left=left)
    return Conclusion("Which segments", text, _runs(segments))


def _runs(part: Part, *more: str) -> tuple[str, ...]:
    found = (part[key] for key in ("run_id", *more) if part.get(key))
    return tuple(dict.fromkeys(found))


def riskier(
    driver: Part, *, kind: str, unit: str | None = None, words: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Turn a row of statistics.risk_ratios to the side with the higher churn: its ratio is >= 1.

    Return group (in words), n, n_other, churn, churn_other, ratio, low, high, q. ``kind`` and
    ``unit`` are the column's, ``words`` those with which the table writes "0" and "1" in it.
    """
    ratio, low, high = driver["risk_ratio"], driver["low"], driver["high"]
    turned = ratio < 1
    if turned:
        ratio, low, high = (1 / end if end else math.inf for end in (ratio, high, low))
    here, there = ("without", "with") if turned else ("with", "without")
    return {
        "group": _group(driver["feature"], driver["split"], kind, unit, words or {}, turned=turned),
        "n": int(driver[f"n_{here}"]),
        "n_other": int(driver[f"n_{there}"]),
        "churn": driver[f"churn_{here}"],
        "churn_other": driver[f"churn_{there}"],
        **{"ratio": ratio, "low": low, "high": high, "q": driver.get("q_value", math.nan)},
    }


def _group(
    feature: str, split: str, kind: str, unit: str | None, words: Mapping[str, str], *, turned: bool
) -> str:
    """Name a side of a split, as ``Age at most 29 (years)``, ``Partner = 0``, ``Plan = gold``."""
    name = readable(feature)
    sign, _, value = split.partition(" ")
    if sign == ">":
        units = f" ({unit})" if unit else ""
        return f"{name} {'at most' if turned else 'above'} {value}{units}"
    if kind == "binary":
        value = "0" if turned else "1"
        return f"{name} = {words.get(value, value)}"
    return f"{name} {'other than' if turned else '='} {value}"


def who_leaves(rows: int, left: int, groups: Sequence[Part] | None, *, looked: int) -> str:
    """Say how many members left, and among which group most clearly.

    ``groups`` are those of ``riskier`` that differ beyond chance, the clearest first; None if not
    explored yet. ``looked`` is the number of groups that were compared.
    """
    text = f"Of {counted(rows, 'member')}, {whole(left)} left ({percent(left / rows)})"
    if groups is None:
        return f"{text}; who they are has not been explored yet."
    if not groups:
        return f"{text}; none of the {looked} groups looked at differs beyond chance."
    first = groups[0]
    others = percent(first["churn_other"]) if first["churn_other"] else "none"
    times = ""
    if not math.isinf(first["ratio"]):
        ci = f"95% CI {number(first['low'], 1)} to {number(first['high'], 1)}"
        times = f", {number(first['ratio'], 1)} times the rate ({ci})"
    return (
        f"{text}, most clearly those with {first['group']}: {percent(first['churn'])} of them "
        f"left, against {others} of the others{times}. {looked} groups were looked at, and "
        f"{len(groups)} {'differs' if len(groups) == 1 else 'differ'} at a false discovery rate of "
        "5%."
    )


def needs_attention(portraits: Sequence[Part], *, churn_rate: float) -> Part | None:
    """Return the segment with the most leavers beyond the overall rate, of those in which somebody
    stays, or None.

    Only segments that churn more than the members overall beyond chance count: by the binomial test
    at 5% over the number of segments (Bonferroni), since any of them may be named.
    """
    level = 0.05 / max(len(portraits), 1)
    clear = [
        portrait
        for portrait in portraits
        if portrait["churn_low"] > churn_rate
        and portrait["churn_rate"] < 1
        and _chance(portrait, churn_rate) < level
    ]
    return max(
        clear,
        key=lambda portrait: portrait["size"] * (portrait["churn_rate"] - churn_rate),
        default=None,
    )


def _chance(portrait: Part, churn_rate: float) -> float:
    """Return the p-value of a segment's churn if it were that of all members."""
    size = int(portrait["size"])
    left = round(size * portrait["churn_rate"])
    return float(binomtest(left, size, churn_rate, alternative="greater").pvalue)


def which_segments(portraits: Sequence[Part], *, churn_rate: float, left: int) -> str:
    """Say how many segments there are, and which one has the most leavers, with its actions."""
    text = f"The members fall into {counted(len(portraits), 'segment')}"
    if not all(portrait.get("stable", True) for portrait in portraits):
        text += ", a cut that may look different on other members"
    empty = [portrait for portrait in portraits if portrait["churn_rate"] == 1]
    for portrait in empty:
        text += (
            f"; all {counted(portrait['size'], 'member')} of segment {portrait['id']}, "
            f"“{portrait['name']}”, have left, so there is nobody to address"
        )
    worst, other = needs_attention(portraits, churn_rate=churn_rate), "other " * bool(empty)
    if worst is None:
        return f"{text}; no {other}segment churns clearly more than the members overall."
    gone, actions = round(worst["size"] * worst["churn_rate"]), worst["actions"]
    more = f" (and {len(actions) - 3} more, below)" if len(actions) > 3 else ""
    stay = worst["size"] - gone
    advises = "The playbook advises, with no effect measured yet"
    if not _acts(worst):
        advises = "The playbook expects no effect of what it advises for them"
    return (
        f"{text}; {'of the others, ' * bool(empty)}segment {worst['id']}, “{worst['name']}”, has "
        f"the most leavers beyond the overall rate: {percent(worst['churn_rate'])} of its "
        f"{counted(worst['size'], 'member')} left (95% CI {percent(worst['churn_low'])} to "
        f"{percent(worst['churn_high'])}), "
        f"{whole(gone)} of all {whole(left)} who left; {whole(stay)} "
        f"{'is' if stay == 1 else 'are'} still there. {advises}: {'; '.join(actions[:3])}{more}."
    )


def _acts(*portraits: Part) -> bool:
    """Return whether an action for any of these segments is assumed to have an effect."""
    return any(
        planned["keeps"] > 0 for portrait in portraits for planned in portrait.get("plans", ())
    )


def how_stable(found: Part, limits: Mapping[str, float], groups: str | None = None) -> str:
    """Say whether the segments are groups, or a cut that comes back on other members.

    ``found`` is a row of the evidence per k, ``limits`` are choose_k.stable_limits, ``groups`` what
    null_model.groups_sentence says (None: a run of an earlier version, which did not test it).
    """
    stable = all(found[name] >= limit for name, limit in limits.items())
    ari = number(limits["bootstrap_ari"], 2)
    second, words = "prediction_strength", "their prediction strength is"
    if second not in limits:
        second, words = "jaccard_min", "the worst of them has a Jaccard index of"
    cut = f"a cut that {'comes back' if stable else 'may not come back'} on other members"
    return (
        f"They are {groups or cut}: refits on resampled members agree with them at an adjusted "
        f"Rand index of {number(found['bootstrap_ari'], 2)} (1 is identical, at least {ari} is "
        f"required), {words} {number(found[second], 2)} (at least {number(limits[second], 2)}), "
        f"and the smallest has {percent(found['min_share'])} of the members (at least "
        f"{percent(limits['min_share'], 0)})."
    )


def what_next(
    registered: str,
    champion: Part | None,
    *,
    guessing: bool,
    refused: Part | None,
    promote: str,
    test: str,
    nothing: tuple[str, str] | None = None,
) -> tuple[str, str]:
    """Say what is in the registry and what to do next, and return the command for it.

    ``champion``: version, since, whether it uses the recommended model (None: no model to recommend
    yet), and lost: why it cannot score (None: it can). ``guessing``: the recommended model is not
    shown to be better than guessing. ``refused``: the version made of it that the gate did not let
    pass, and the verdict (None: there is none). ``promote`` is the command that lets the gate judge
    it. ``test`` is TEST_FIRST, or "" if no segment has an action to test. ``nothing`` says why
    there is no model to promote, with the command that helps.
    """
    score = "score input=members.csv output=scored.csv"
    state = f"No version of {registered} is promoted yet, so no member can be scored"
    if champion is not None:
        state = (
            f"Version {champion['version']} of {registered} has been the champion "
            f"since {champion['since']}"
        )
        if champion["lost"]:
            return f"{state}, but it cannot score anybody: {champion['lost']}.", "doctor"
        if champion["recommended"] is not False:
            uses = " and uses the recommended model" if champion["recommended"] else ""
            return f"{state}{uses}: score the members with it{test}.", score
        state += ", but does not use the recommended model"
    if nothing is not None:
        return f"{state}. {nothing[0]}", nothing[1]
    if guessing:
        return (
            f"{state}. No model is shown to be better than guessing, so there is none to promote: "
            "look for columns that say more about who leaves, or for more members."
        ), "explore"
    if refused is None:
        which = "between them" if champion else "on one"
        return (
            f"{state}: let the gate decide {which} (churnlab promote){test}.",
            promote,
        )
    answer = "refused it" if refused["verdict"] == "refused" else "had too few members to judge it"
    state += f". The gate {answer} (version {refused['version']})"
    if champion is None:
        return f"{state}: train another model, and let the gate judge that one.", FIRST_MODELS
    return f"{state}: score the members with the champion{test}.", score
