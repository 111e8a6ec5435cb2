from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import skops.io
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from churnlab.data.expressions import derive
from churnlab.errors import InputError
from churnlab.models.features import Features

CONF = Path(__file__).parents[2] / "conf"


def frame(**columns: list) -> pd.DataFrame:
    return pd.DataFrame(columns)


def test_derived_columns_are_appended_as_float64_and_the_frame_is_unchanged():
    given_frame = frame(a=[1, 2], b=[0.5, 4.0])
    before = given_frame.copy()
    result = derive(given_frame, {"more": "a > b", "twice": "more * 2"})
    assert list(result.columns) == ["a", "b", "more", "twice"]
    assert result["more"].tolist() == [1.0, 0.0]
    assert result["twice"].tolist() == [2.0, 0.0]
    assert result.dtypes["more"] == result.dtypes["twice"] == "float64"
    pd.testing.assert_frame_equal(given_frame, before)


def test_without_expressions_the_frame_is_returned_unchanged():
    given_frame = frame(a=[1.0])
    pd.testing.assert_frame_equal(derive(given_frame, {}), given_frame)


def test_the_index_of_the_frame_is_kept():
    chosen = frame(a=[1.0, 2.0, 3.0]).iloc[[2, 0]]
    result = derive(chosen, {"b": "a + 1"})
    assert result.index.tolist() == [2, 0]
    assert result["b"].tolist() == [4.0, 2.0]


def test_an_expression_for_no_rows_gives_no_rows():
    assert derive(frame(a=[1.0]).iloc[:0], {"b": "log1p(a) + 1", "c": "5"}).shape == (0, 3)


def test_a_number_alone_fills_the_column():
    assert derive(frame(a=[1.0, 2.0]), {"b": "5"})["b"].tolist() == [5.0, 5.0]


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("plan == 'gold'", [1.0, 0.0, 0.0]),
        ("plan in ['gold', 'basic']", [1.0, 1.0, 0.0]),
        ("plan not in ['gold']", [0.0, 1.0, 1.0]),
        ("0 < a < 3", [1.0, 1.0, 0.0]),
        ("not a == 1 and a < 3", [0.0, 1.0, 0.0]),
        ("~(a == 1) & a < 3", [0.0, 1.0, 0.0]),
        ("a == 1 | a == 3", [1.0, 0.0, 1.0]),
        ("maximum(a - 2, 0)", [0.0, 0.0, 1.0]),
        ("`odd name` + 1", [11.0, 21.0, 31.0]),
        ("a\n+ 1", [2.0, 3.0, 4.0]),
        ("a in [-1, 3]", [0.0, 0.0, 1.0]),
    ],
)
def test_expressions_are_evaluated_as_written(expression, expected):
    table = frame(
        a=[1.0, 2.0, 3.0], plan=["gold", "basic", "none"], **{"odd name": [10.0, 20.0, 30.0]}
    )
    assert derive(table, {"z": expression})["z"].tolist() == expected


numbers = st.floats(min_value=-100, max_value=100, allow_nan=False).map(
    lambda value: round(value, 3)
)
arithmetic = st.recursive(
    st.sampled_from(["a", "b", "c", "2", "0.25", "10"]),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["+", "-", "*", "/"]), inner).map(
            lambda t: f"({t[0]} {t[1]} {t[2]})"
        ),
        inner.map(lambda text: f"-{text}"),
        inner.map(lambda text: f"abs({text})"),
        inner.map(lambda text: f"({text}) ** 2"),
        inner.map(lambda text: f"exp(-abs({text}))"),
        st.tuples(inner, st.sampled_from(["<", ">=", "=="]), inner).map(
            lambda t: f"(({t[0]} {t[1]} {t[2]}) * 1)"
        ),
    ),
    max_leaves=8,
)


@settings(max_examples=60, deadline=None)
@given(arithmetic, st.lists(st.tuples(numbers, numbers, numbers), min_size=1, max_size=5))
def test_an_expression_gives_the_bits_that_pandas_eval_gives(expression, rows):
    table = pd.DataFrame(rows, columns=["a", "b", "c"])
    expression = f"a * 0 + {expression}"
    with np.errstate(all="ignore"):
        expected = table.eval(expression, engine="python").to_numpy(dtype="float64")
    if np.isfinite(expected).all():
        assert derive(table, {"z": expression})["z"].tolist() == expected.tolist()
    else:
        with pytest.raises(InputError, match="not a finite number"):
            derive(table, {"z": expression})


def test_a_missing_column_is_named_with_the_expression_and_the_known_columns():
    with pytest.raises(InputError) as error:
        derive(frame(a=[1.0], b=[1.0]), {"change": "a - before"})
    for part in ["change", "a - before", "the column before", "a, b"]:
        assert part in str(error.value)


def test_an_expression_may_not_use_a_later_one():
    with pytest.raises(InputError, match="needs the column second"):
        derive(frame(a=[1.0]), {"first": "second + 1", "second": "a"})


def test_a_derived_column_may_not_take_the_name_of_a_column():
    with pytest.raises(InputError, match="there is a column a already"):
        derive(frame(a=[1.0]), {"a": "a + 1"})


@pytest.mark.parametrize(
    "expression", ["a +", "", "a b", "(a", "'open", "y = a", "a := 2", "lambda: 1", "a if a else a"]
)
def test_invalid_expressions_are_refused(expression):
    with pytest.raises(InputError, match="cannot be read"):
        derive(frame(a=[1.0]), {"z": expression})


def test_an_expression_reaches_nothing_but_columns_and_functions(tmp_path):
    written = tmp_path / "stolen.csv"
    for expression in [
        f"a.to_csv('{written}')",
        "__import__('os')",
        "a.__class__",
        "@frame",
        "a[0]",
        "f'{a}'",
    ]:
        with pytest.raises(InputError, match="cannot be read"):
            derive(frame(a=[1.0]), {"z": expression})
    assert not written.exists()


def test_a_function_may_not_write_into_a_column():
    table = frame(a=[4.0], b=[9.0])
    with pytest.raises(InputError, match="sqrt takes 1 values, not 2"):
        derive(table, {"z": "sqrt(a, b)"})
    assert table["b"].tolist() == [9.0]


@pytest.mark.parametrize(
    "expression", ["9 ** 9 ** 9 ** 9", "1 / 0", "a + " * 3000 + "a", "(" * 500 + "a" + ")" * 500]
)
def test_an_expression_that_cannot_be_computed_is_an_input_error(expression):
    with pytest.raises(InputError):
        derive(frame(a=[1.0]), {"z": expression})


def test_a_derived_column_cannot_be_text():
    with pytest.raises(InputError, match="does not give a number in each row"):
        derive(frame(plan=["gold", "none"]), {"z": "plan"})


def test_an_infinite_value_is_refused_with_its_first_row():
    with pytest.raises(
        InputError,
        match=r"in 2 of 3 rows; the first is row 1 \(b = 0.0, a = 2.0\)|row 1 \(a = 2.0, b = 0.0\)",
    ):
        derive(frame(a=[1.0, 2.0, 3.0], b=[1.0, 0.0, 0.0]), {"z": "a / b"})


def test_the_behavior_features_are_the_twelve_of_the_reference():
    expressions = yaml.safe_load((CONF / "features" / "behaviour.yaml").read_text())["derive"]
    rng = np.random.default_rng(0)
    n = 200
    contract = rng.choice([1.0, 6.0, 12.0], n)
    month = np.minimum(contract, rng.integers(1, 13, n))
    lifetime = rng.integers(0, 5, n).astype(float)
    total = np.abs(rng.normal(2, 1, n))
    current = np.maximum(0, total + rng.normal(-0.2, 0.6, n)) * (rng.random(n) > 0.1)
    table = frame(
        Contract_period=contract,
        Month_to_end_contract=month,
        Lifetime=lifetime,
        Avg_class_frequency_total=total,
        Avg_class_frequency_current_month=current,
    )
    drop = current - total
    expected = [
        drop,
        np.abs(drop),
        drop**2,
        np.maximum(-drop - 0.15, 0),
        current / (total + 0.25),
        current == 0,
        np.log1p(lifetime),
        lifetime == 0,
        lifetime <= 1,
        contract == 1,
        contract == 12,
        contract - month,
    ]
    derived = derive(table, expressions)[list(expressions)].to_numpy()
    assert derived.shape == (n, 12)
    np.testing.assert_array_equal(derived, np.column_stack(expected).astype("float64"))


def test_every_feature_set_can_be_computed_from_the_gyms_columns():
    dataset = yaml.safe_load((CONF / "dataset" / "gym.yaml").read_text())
    table = pd.DataFrame({name: [1.0, 6.0] for name in dataset["columns"]})
    for path in sorted((CONF / "features").glob("*.yaml")):
        preset = yaml.safe_load(path.read_text())
        assert preset["name"] == path.stem
        keep = [
            name for name in dataset["columns"] if preset["late"] or name not in dataset["late"]
        ]
        made = Features(keep, preset["derive"]).fit(table)
        assert list(made.transform(table).columns) == [*keep, *preset["derive"]]


def test_a_feature_set_without_late_columns_cannot_derive_from_them():
    with pytest.raises(InputError, match="needs the column late"):
        Features(["early"], {"change": "late - early"}).fit(frame(early=[1.0], late=[2.0]))


def test_features_keep_the_given_columns_in_order_as_float64():
    table = frame(c=[1, 2], b=[True, False], a=[0.5, 0.25], plan=["x", "y"], extra=[1, 1])
    result = Features(["a", "b", "c", "plan"], {"d": "a * c"}).fit_transform(table)
    assert list(result.columns) == ["a", "b", "c", "plan", "d"]
    assert [str(dtype) for dtype in result.dtypes[["a", "b", "c", "d"]]] == ["float64"] * 4
    assert result["plan"].tolist() == ["x", "y"]


def test_features_say_which_kept_column_is_missing():
    with pytest.raises(InputError, match="no column b"):
        Features(["a", "b"], {}).transform(frame(a=[1.0]))


def test_features_are_a_scikit_learn_transformer():
    table = frame(a=[1.0, 2.0], b=[3.0, 5.0])
    features = Features(["a", "b"], {"c": "a + b"})
    again = clone(features)
    assert again is not features
    assert again.get_params() == features.get_params()
    assert features.set_output(transform="pandas").fit_transform(table).columns.tolist() == [
        "a",
        "b",
        "c",
    ]
    steps = (
        make_pipeline(clone(features), StandardScaler()).set_output(transform="pandas").fit(table)
    )
    assert (
        list(steps.get_feature_names_out())
        == list(steps.transform(table).columns)
        == ["a", "b", "c"]
    )


def test_features_survive_saving_without_pickle():
    table = frame(a=[1.0, 2.0], plan=["x", "y"])
    features = Features(["a", "plan"], {"b": "log1p(a)", "c": "plan == 'x'"})
    saved = skops.io.dumps(features)
    assert skops.io.get_untrusted_types(data=saved) == ["churnlab.models.features.Features"]
    loaded = skops.io.loads(saved, trusted=["churnlab.models.features.Features"])
    pd.testing.assert_frame_equal(loaded.transform(table), features.transform(table))


def test_a_gap_is_filled_with_the_typical_value_of_the_fitted_table():
    seen = pd.DataFrame(
        {"a": [1.0, 2.0, 30.0, np.nan], "plan": ["x", "y", "y", None], "b": [1.0, 1.0, 1.0, 1.0]}
    )
    features = Features(["a", "plan"], {"twice": "2 * a"}).fit(seen)
    later = pd.DataFrame({"a": [np.nan, 5.0], "plan": ["z", None], "b": [0.0, 0.0]})
    made = features.transform(later)
    assert made["a"].tolist() == [2.0, 5.0]
    assert made["plan"].tolist() == ["z", "y"]
    assert made["twice"].tolist() == [4.0, 10.0]


def test_members_without_finite_derived_values_are_masked():
    X = frame(a=[1.0, 4.0, 2.0, None], b=[0.0, 5.0, 2.0, 1.0])
    features = Features(["a", "b"], {"root": "sqrt(a - b)", "share": "a / (a - b)"}).fit(X)
    table, known = features.possible(X)
    assert known.tolist() == [True, False, False, True]
    pd.testing.assert_frame_equal(table, features.transform(X[known]))
    everybody, known = Features(["a"], {}).fit(X).possible(X)
    assert known.all()
    assert everybody["a"].tolist() == [1.0, 4.0, 2.0, 2.0]
