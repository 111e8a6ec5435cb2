"""Tables on disk: every format of one table is one dataset, and every change of it is another."""

import gzip
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from churnlab.data.contract import Column, Contract
from churnlab.data.dataset import data_sha256, folds_sha256, make_dataset, split_sha256
from churnlab.data.demo import members
from churnlab.data.reading import read_table
from churnlab.data.table import in_memory
from churnlab.errors import InputError

CONF = Path(__file__).parents[2] / "conf"
COLUMNS = {
    name: Column(**{key: tuple(value) if key == "values" else value for key, value in keys.items()})
    for name, keys in yaml.safe_load((CONF / "dataset/gym.yaml").read_text())["columns"].items()
}
GYM = Contract("gym", "Churn", 1, {**COLUMNS, "Plan": Column(kind="category")}, id="Member")
ROWS = 60


def gym_members(n: int = ROWS, seed: int = 0) -> pd.DataFrame:
    """Generated members with full floats, an id that looks like a number and a category."""
    frame = members(n, seed=seed)
    rng = np.random.default_rng(
        [seed, 1]
    )  # the stream of the members decides who leaves: drawn again it would tell
    frame["Avg_class_frequency_total"] = rng.uniform(0, 5, n)
    frame["Avg_additional_charges_total"] = rng.lognormal(3, 4, n).clip(0, 100_000)
    return frame.assign(
        Member=[f"{number:04d}" for number in range(n)],
        Plan=np.where(rng.random(n) < 0.5, "a", "b"),
    )


def sha256(path: Path, contract: Contract = GYM) -> str:
    return make_dataset(read_table(str(path), contract), contract).sha256


def write(frame: pd.DataFrame, folder: Path, kind: str) -> Path:
    """The same table in one of the formats."""
    path = folder / kind
    if kind.endswith(".gz"):
        path.write_bytes(gzip.compress(frame.to_csv(index=False).encode()))
    elif kind.endswith(".csv"):
        frame.to_csv(path, index=False)
    elif kind.endswith((".parquet", ".pq")):
        frame.to_parquet(path, index=False)
    elif kind == "folder":
        path.mkdir()
        for part, start in enumerate(range(0, len(frame), 25)):
            frame.iloc[start : start + 25].to_parquet(path / f"part-{part}.parquet", index=False)
    elif kind == "nullable.types":
        path = path.with_suffix(".parquet")
        frame.convert_dtypes().to_parquet(path, index=False)
    elif kind == "other.order":
        path = path.with_suffix(".csv")
        frame.assign(Shoes=42)[["Shoes", *reversed(frame.columns)]].to_csv(path, index=False)
    elif kind == "windows":
        path = path.with_suffix(".csv")
        frame.to_csv(path, index=False, lineterminator="\r\n", encoding="utf-8-sig", quoting=1)
    return path


@pytest.mark.parametrize(
    "kind",
    ["m.csv.gz", "m.parquet", "m.pq", "folder", "nullable.types", "other.order", "windows"],
)
def test_every_format_of_one_table_has_one_fingerprint(tmp_path, kind):
    frame = gym_members()
    assert sha256(write(frame, tmp_path, kind)) == sha256(write(frame, tmp_path, "plain.csv"))


@settings(max_examples=40, deadline=None)
@given(
    values=st.lists(
        st.floats(0, 100_000, allow_subnormal=False).map(lambda value: value + 0.0),
        min_size=2,
        max_size=20,
    )
)
def test_csv_and_parquet_agree_to_the_last_bit(tmp_path_factory, values):
    folder = tmp_path_factory.mktemp("bits")
    contract = Contract("bits", "y", 1, {"x": Column(kind="numeric")})
    frame = pd.DataFrame({"x": values, "y": [0, *[1] * (len(values) - 1)]})
    frame.to_csv(folder / "x.csv", index=False)
    frame.to_parquet(folder / "x.parquet", index=False)
    assert sha256(folder / "x.csv", contract) == sha256(folder / "x.parquet", contract)


def test_a_url_is_read_like_a_file(tmp_path):
    path = write(gym_members(), tmp_path, "m.csv")
    table = read_table(path.as_uri(), GYM)
    assert (len(table.frame), table.place(0)) == (ROWS, "line 2")


def test_the_member_007_does_not_become_7(tmp_path):
    dataset = make_dataset(read_table(str(write(gym_members(), tmp_path, "m.csv")), GYM), GYM)
    assert dataset.ids.tolist()[7] == "0007"
    assert "Member" not in dataset.X.columns


def test_lines_are_counted_in_csv_and_rows_in_parquet(tmp_path):
    frame = gym_members()
    frame.loc[4, "Age"] = 7

    def refusal(path: Path) -> str:
        with pytest.raises(InputError) as raised:
            sha256(path)
        return str(raised.value)

    assert "m.csv violates the contract" in refusal(write(frame, tmp_path, "m.csv"))
    assert "line 6, column Age: 7 is below 14" in refusal(write(frame, tmp_path, "m.csv.gz"))
    assert "row 4, column Age: 7 is below 14" in refusal(write(frame, tmp_path, "m.parquet"))


def test_a_file_without_a_table_is_refused(tmp_path):
    ragged = tmp_path / "ragged.csv"
    ragged.write_text("a,b\n1,2\n1,2,3\n")
    empty = tmp_path / "empty.csv"
    empty.touch()
    broken = tmp_path / "broken.parquet"
    broken.write_bytes(b"PAR1 and then nothing")
    cut = tmp_path / "cut.csv.gz"
    cut.write_bytes(gzip.compress(b"a,b\n" + b"1,2\n" * 1000)[:-20])
    (tmp_path / "folder").mkdir()
    picture = tmp_path / "picture.csv"
    picture.write_bytes(bytes(range(256)) * 4)
    for path, text in [
        (tmp_path / "nowhere.csv", "There is no file"),
        (ragged, "line 3"),
        (empty, "cannot be read as a table"),
        (broken, "cannot be read as a table"),
        (cut, "cannot be read as a table"),
        (tmp_path / "folder", "there is no file in the folder"),
        (picture, "cannot be read as a table"),
    ]:
        with pytest.raises(InputError) as raised:
            sha256(path)
        assert str(path) in str(raised.value)
        assert text in str(raised.value)


BASE = gym_members(30)
PARTS = (
    BASE[list(GYM.columns)].astype(dict.fromkeys(COLUMNS, "float64")),
    BASE["Churn"].to_numpy(),
    BASE["Member"],
)


@settings(max_examples=80, deadline=None)
@given(row=st.integers(0, 29), column=st.sampled_from([*GYM.columns, "Churn", "Member"]))
def test_a_change_of_any_cell_changes_the_fingerprint(row, column):
    X, y, ids = PARTS[0].copy(), PARTS[1].copy(), PARTS[2].copy()
    if column == "Churn":
        y[row] = 1 - y[row]
    elif column == "Member":
        ids[row] += "x"
    elif column == "Plan":
        X.loc[row, column] += "x"
    else:
        X.loc[row, column] = np.nextafter(X.loc[row, column], np.inf)
    assert data_sha256(X, y, ids) != data_sha256(*PARTS)


@settings(max_examples=40, deadline=None)
@given(pair=st.sets(st.integers(0, 29), min_size=2, max_size=2))
def test_another_order_of_rows_changes_the_fingerprint(pair):
    first, second = pair
    order = np.arange(30)
    order[[first, second]] = second, first
    X, y, ids = (
        part[order] if isinstance(part, np.ndarray) else part.iloc[order] for part in PARTS
    )
    assert data_sha256(X.reset_index(drop=True), y, ids.reset_index(drop=True)) != data_sha256(
        *PARTS
    )


def test_names_and_order_of_columns_and_the_lack_of_a_row_change_the_fingerprint():
    X, y, ids = PARTS
    known = {data_sha256(*PARTS)}
    known.add(data_sha256(X.rename(columns={"Age": "Years"}), y, ids))
    known.add(data_sha256(X[X.columns[::-1]], y, ids))
    known.add(data_sha256(X.iloc[:-1], y[:-1], ids.iloc[:-1]))
    known.add(data_sha256(X, y, None))
    assert len(known) == 5


def test_a_change_beyond_row_10_000_changes_the_fingerprint():
    frame = gym_members(12_000)
    X, y = frame[list(COLUMNS)].astype("float64"), frame["Churn"].to_numpy()
    before = data_sha256(X, y, None)
    X.loc[11_999, "Lifetime"] += 1
    assert data_sha256(X, y, None) != before


def test_a_split_is_identified_by_its_data_and_its_test_rows_in_any_order():
    test = np.array([5, 3, 9])
    assert split_sha256("data", test) == split_sha256("data", test[::-1])
    others = [
        split_sha256("data", np.array([5, 3, 8])),
        split_sha256("other", test),
        split_sha256("data", test[:2]),
    ]
    assert len({split_sha256("data", test), *others}) == 4


def test_folds_are_identified_by_their_validation_rows():
    one, two = np.array([0, 1]), np.array([2, 3])
    known = folds_sha256("data", [one, two])
    assert known == folds_sha256("data", [one[::-1], two])
    others = [
        folds_sha256("data", [two, one]),
        folds_sha256("data", [np.array([0, 1, 2]), np.array([3])]),
        folds_sha256("data", [np.arange(4)]),
        folds_sha256("other", [one, two]),
    ]
    assert len({known, *others}) == 5


def test_the_frame_of_a_dataset_holds_features_and_target():
    dataset = make_dataset(in_memory(gym_members(), source="generated"), GYM)
    assert list(dataset.frame.columns) == [*GYM.columns, "Churn"]
    assert dataset.frame["Churn"].tolist() == gym_members()["Churn"].tolist()


@pytest.mark.slow
def test_a_bad_table_ends_a_command_with_2_and_leaves_no_run(home, run_command, runs_at, tmp_path):
    frame = gym_members(300).astype({"Month_to_end_contract": object})
    frame.loc[[7, 9], "Age"] = [7, 9]
    frame.loc[11, "Month_to_end_contract"] = "soon"
    path = write(frame, tmp_path, "bad.csv")
    ended = run_command(home, "train", "dataset=gym", f"dataset.path={path}")
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.splitlines() == [
        f"{path} violates the contract of dataset gym (2 problems):",
        "  - line 9, column Age: 7 is below 14 (and in 1 more row); correct it, or change "
        "dataset.columns.Age.min in the YAML of gym.",
        "  - line 13, column Month_to_end_contract: 'soon' is not a number; correct it, or "
        "declare the column as kind: category.",
    ]
    assert runs_at(home) == []


@pytest.mark.parametrize(
    ("cells", "words"),
    [
        (["No", "Yes", "no", "No"], {"0": "No", "1": "Yes"}),
        ([True, False, False, True], {"0": "False", "1": "True"}),
        ([" n", None, "y", "y"], {"0": "n", "1": "y"}),
        ([0, 1, 0, 1], {}),
        (["0", "1", "0", "1"], {}),
    ],
)
def test_a_dataset_knows_the_words_of_its_table_for_no_and_yes(cells, words):
    contract = Contract("shop", "left", 1, {"card": Column("binary"), "age": Column("numeric")})
    frame = pd.DataFrame({"card": cells, "age": [1, 2, 3, 4], "left": [0, 1, 0, 1]})
    dataset = make_dataset(in_memory(frame, source="memory"), contract)
    assert dataset.words == ({"card": words} if words else {})
