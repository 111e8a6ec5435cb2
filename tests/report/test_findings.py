"""The page of an exploration: every feature in its place, sentences that say what the tables say
and no more."""

import re

import numpy as np
import pandas as pd
import pytest

from churnlab.data.contract import Column, Contract
from churnlab.explore import redundancy, statistics
from churnlab.explore.association import links
from churnlab.report import findings


def explored(
    X: pd.DataFrame, y: np.ndarray, columns: dict[str, Column], **more
) -> tuple[Contract, np.ndarray, dict]:
    gradients = statistics.gradients(X, y, columns)
    tables = {
        "completeness": statistics.completeness(X, y),
        "links": links(gradients, columns),
        "drivers": statistics.risk_ratios(X, y, columns),
        "gradients": gradients,
        "collinear": redundancy.collinear(X, limit=0.95),
        "same_groups": redundancy.same_groups(X, columns),
    }
    return Contract("shop", "left", 1, columns, **more), y, tables


def sections(page: str) -> dict[str, str]:
    return dict(part.split("\n\n", 1) for part in page.split("\n## ")[1:])


@pytest.fixture(scope="module")
def shop():
    """2,000 members: leaving goes with a plan, with age in both directions, with visits that two
    columns hold."""
    rng, n = np.random.default_rng(0), 2000
    X = pd.DataFrame(
        {
            "plan": rng.choice(["basic", "gold|silver", "day_pass"], n),
            "age": rng.integers(18, 70, n).astype(float),
            "visits": rng.gamma(2, 1, n),
            "city": rng.choice(list("abcdefgh"), n),
            "app": rng.integers(0, 2, n).astype(float),
            "country": 7.0,
        }
    )
    risk = (
        0.25
        + 0.3 * (X["plan"] == "basic")
        + 0.3 * ((X["age"] - 44).abs() > 15)
        - 0.07 * X["visits"].clip(upper=3)
    )
    y = (rng.random(n) < risk - 0.08 * (X["plan"] == "gold|silver")).astype(int)
    X["visits_a_year"] = 52 * X["visits"]
    X["basic"] = (X["plan"] == "basic").astype(float)
    X["app"] = X["app"].mask(rng.random(n) < 0.1 + 0.2 * y)
    X["city"] = X["city"].mask(rng.random(n) < 0.7)
    kinds = {"plan": "category", "city": "category", "app": "binary", "basic": "binary"}
    units = {"age": "years"}
    columns = {name: Column(kinds.get(name, "numeric"), unit=units.get(name)) for name in X}
    return explored(X, y, columns, late=("visits",), rules={"one": "age > 0"})


@pytest.fixture(scope="module")
def page(shop) -> dict[str, str]:
    return sections(findings.page(*shop, warnings=["a column is odd"]))


def test_the_page_opens_with_how_many_left(shop):
    _, y, _ = shop
    text = findings.page(*shop, warnings=[])
    assert text.startswith("# What the table of shop says\n\nOf 2,000 members")
    assert f"{y.sum():,} left: {y.mean():.1%} (95% interval" in text


def test_every_feature_is_in_one_place(page):
    more, silent = page["Who leaves more"], page["No signal"]
    assert [
        name
        for name in ("age", "plan", "visits", "visits a year", "basic")
        if f"| {name}" not in more
    ] == []
    assert [name for name in ("city", "app") if f"| {name}" not in silent] == []
    assert "| city" not in more
    assert "| age" not in silent
    assert "No two known values: country." in silent


def test_a_line_holds_the_numbers_of_its_driver(shop, page):
    _, _, tables = shop
    row = tables["drivers"].set_index(["feature", "split"]).loc[("plan", "= basic")]
    expected = f"{row['risk_ratio']:.2f} ({row['low']:.2f} to {row['high']:.2f})"
    (line,) = re.findall(r"^\| plan = basic .*$", page["Who leaves more"], re.M)
    assert f"| {row['churn_with']:.1%} | {row['churn_without']:.1%} | {expected} |" in line
    rates = tables["gradients"].query("feature == 'plan'")["churn_rate"]
    assert f"between {rates.min():.1%}" in line
    assert f"{rates.max():.1%} (basic)" in line


def test_a_feature_whose_median_shows_nothing_is_told_by_its_values(page):
    (line,) = re.findall(r"^\| age .*$", page["Who leaves more"], re.M)
    assert line.startswith("| age |  |  |  | between ")


def test_of_many_levels_without_a_signal_none_is_held_up(page):
    (line,) = re.findall(r"^\| city .*$", page["No signal"], re.M)
    assert re.fullmatch(r"\| city \|  \|  \|  \| at most \d\.\d\d% \|", line)


def test_cells_do_not_break_the_table(shop, page):
    assert r"gold\|silver" in page["Who leaves more"]
    for line in re.findall(r"^\|.*$", "\n".join(page.values()), re.M):
        assert len(re.findall(r"(?<!\\)\|", line)) in (6, 7), line


def test_warnings_are_told_and_gaps_that_go_with_leaving(shop, page):
    text = page["Complete and correct"]
    completeness = shop[2]["completeness"].set_index("feature")
    assert "Members without app leave more often" in text
    assert f"{completeness.loc['app', 'churn_missing']:.1%} of them left" in text
    assert "Members without city" not in text
    assert "1 rule" in text
    assert "\n- a column is odd\n" in text


def test_what_is_said_twice_is_named(page):
    said = page["Says the same twice"]
    assert "visits and visits a year: correlation 1.00" in said
    assert "basic = 1 is exactly plan = basic" in said


def test_what_the_table_cannot_tell_follows_from_the_table(page):
    said = page["What this table cannot tell"]
    assert "visits is known only close to the event" in said
    assert "visits or visits a year" in said
    assert (
        "Whether city, app matter a little" in said or "Whether app, city matter a little" in said
    )
    assert "Much about city" in said


def test_a_whole_table_of_one_honest_column_has_fewer_limits():
    X = pd.DataFrame({"seen": np.tile([0.0, 1.0], 500)})
    y = ((np.arange(1000) % 4 == 1) | (np.arange(1000) % 20 == 0)).astype(int)
    page = sections(findings.page(*explored(X, y, {"seen": Column("binary")}), warnings=[]))
    assert "No value is missing in 1 feature." in page["Complete and correct"]
    assert page["No signal"].strip() == "Every feature has one."
    assert page["Says the same twice"].strip() == "Nothing does."
    said = page["What this table cannot tell"]
    assert [
        word
        for word in ("close to the event", "matter", "Much about", "of fewer than")
        if word in said
    ] == []
    points = [float(value) for value in re.findall(r"by (\d+\.\d)", said)]
    assert points[0] < points[1]


def test_the_short_form_names_every_feature_that_can_be_compared(shop):
    text = findings.short(*shop)
    for name in ("plan = basic", "age", "visits", "basic"):
        assert re.search(rf"^{name}", text, re.M), name
    (silent,) = re.findall(r"^No signal: (.*)\.$", text, re.M)
    assert set(silent.split(", ")) == {"city", "app"}
    assert max(map(len, text.splitlines())) < 130
