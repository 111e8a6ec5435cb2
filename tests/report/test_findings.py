"""The findings page: every feature is listed once, and sentences claim no more than the tables."""

import re

import numpy as np
import pandas as pd
import pytest

from churnlab.data.contract import Column, Contract
from churnlab.data.dataset import Dataset
from churnlab.explore import redundancy, statistics
from churnlab.explore.association import links
from churnlab.report import findings


def explored(
    X: pd.DataFrame, y: np.ndarray, columns: dict[str, Column], **more
) -> tuple[Dataset, dict]:
    gradients = statistics.gradients(X, y, columns)
    tables = {
        "completeness": statistics.completeness(X, y),
        "links": links(gradients, columns),
        "drivers": statistics.risk_ratios(X, y, columns),
        "gradients": gradients,
        "collinear": redundancy.collinear(X, limit=0.95),
        "same_groups": redundancy.same_groups(X, columns),
    }
    contract = Contract("shop", "left", 1, columns, **more)
    return Dataset(contract, X, None, "shop.csv", "", y), tables


def sections(page: str) -> dict[str, str]:
    return dict(part.split("\n\n", 1) for part in page.split("\n## ")[1:])


@pytest.fixture(scope="module")
def shop():
    """2,000 members: churn depends on a plan, on age in both directions and on visits, which two
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
    dataset, tables = shop
    dataset.warnings[:] = ["a column is odd"]
    return sections(findings.page(dataset, tables))


def test_the_page_opens_with_how_many_left(shop):
    y, text = shop[0].y, findings.page(*shop)
    assert text.startswith("# Findings: shop\n\nOf 2,000 members, ")
    assert f"{y.sum():,} left: {y.mean():.1%} (95% CI" in text


def test_every_feature_is_listed_once(page):
    more, silent = page["Features with a signal"], page["Features without a signal"]
    assert [
        name
        for name in ("age", "plan", "visits", "visits a year", "basic")
        if f"| {name}" not in more
    ] == []
    assert [name for name in ("city", "app") if f"| {name}" not in silent] == []
    assert "| city" not in more
    assert "| age" not in silent
    assert "Constant or empty: country." in silent


def test_a_row_holds_the_numbers_of_its_risk_ratio(shop, page):
    _, tables = shop
    row = tables["drivers"].set_index(["feature", "split"]).loc[("plan", "= basic")]
    expected = f"{row['risk_ratio']:.2f} ({row['low']:.2f} to {row['high']:.2f})"
    (line,) = re.findall(r"^\| plan = basic .*$", page["Features with a signal"], re.M)
    assert f"| {row['churn_with']:.1%} | {row['churn_without']:.1%} | {expected} |" in line
    rates = tables["gradients"].query("feature == 'plan'")["churn_rate"]
    assert f"between {rates.min():.1%}" in line
    assert f"{rates.max():.1%} (basic)" in line


def test_a_feature_whose_median_shows_nothing_is_described_by_its_values(page):
    (line,) = re.findall(r"^\| age .*$", page["Features with a signal"], re.M)
    assert line.startswith("| age | – | – | – | between ")


def test_of_many_levels_without_a_signal_none_is_singled_out(page):
    (line,) = re.findall(r"^\| city .*$", page["Features without a signal"], re.M)
    assert re.fullmatch(r"\| city \| – \| – \| – \| at most \d\.\d\d% \|", line)


def test_cells_do_not_break_the_table(shop, page):
    assert r"gold\|silver" in page["Features with a signal"]
    for line in re.findall(r"^\|.*$", "\n".join(page.values()), re.M):
        assert len(re.findall(r"(?<!\\)\|", line)) in (6, 7), line


def test_warnings_and_gaps_associated_with_churn_are_listed(shop, page):
    text = page["Data quality"]
    completeness = shop[1]["completeness"].set_index("feature")
    assert "Members without app leave more often" in text
    assert f"{completeness.loc['app', 'churn_missing']:.1%} of them left" in text
    assert "Members without city" not in text
    assert "1 rule" in text
    assert "\n- a column is odd\n" in text


def test_redundant_columns_are_named(page):
    redundant = page["Redundant columns"]
    assert "visits and visits a year: correlation 1.00" in redundant
    assert "basic = 1 and plan = basic are the same " in redundant


def test_the_limits_follow_from_the_table(page):
    limits = page["Limits of this table"]
    assert "visits is known only close to the event" in limits
    assert "visits or visits a year" in limits
    assert "Weak effects of city, app:" in limits or "Weak effects of app, city:" in limits
    assert "Columns that are mostly missing: city." in limits


def test_a_complete_table_of_one_column_has_fewer_limits():
    X = pd.DataFrame({"seen": np.tile([0.0, 1.0], 500)})
    y = ((np.arange(1000) % 4 == 1) | (np.arange(1000) % 20 == 0)).astype(int)
    page = sections(findings.page(*explored(X, y, {"seen": Column("binary")})))
    assert "No value is missing in 1 feature." in page["Data quality"]
    assert page["Features without a signal"].strip() == "None."
    assert page["Redundant columns"].strip() == "None."
    limits = page["Limits of this table"]
    assert [
        word
        for word in (
            "close to the event",
            "matters",
            "Weak effects",
            "mostly missing",
            "fewer than",
        )
        if word in limits
    ] == []
    points = [float(value) for value in re.findall(r"of (\d+\.\d)", limits)]
    assert points[0] < points[1]


def test_the_short_form_names_every_feature_that_can_be_compared(shop):
    text = findings.short(*shop)
    for name in ("plan = basic", "age", "visits", "basic"):
        assert re.search(rf"^{name}", text, re.M), name
    (silent,) = re.findall(r"^No signal shown: (.*)\.$", text, re.M)
    assert set(silent.split(", ")) == {"city", "app"}
    assert max(map(len, text.splitlines())) < 130


def test_on_a_terminal_a_feature_without_a_telling_split_shows_its_values(shop):
    (row,) = re.findall("^ *age.*$", findings.short(*shop), re.MULTILINE)
    assert re.match(r" *age: between [\d.]+% \(.+\) and [\d.]+% \(.+\) +– +– +– +\d", row)


def test_equal_columns_are_named_as_one_group_and_not_pair_by_pair():
    pairs = [("a", "b", 1.0), ("c", "d", -1.0), ("b", "c", 1.0), ("x", "y", 0.97), ("p", "q", 1.0)]
    tables = {
        "collinear": pd.DataFrame(pairs, columns=["feature_a", "feature_b", "pearson_r"]),
        "same_groups": pd.DataFrame(),
    }
    assert list(findings.redundancies(tables, {})) == [
        "a, b, c, d: each has a correlation of 1 or -1 with each other.",
        "x and y: correlation 0.97.",
        "p and q: correlation 1.00.",
    ]
