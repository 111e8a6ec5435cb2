"""Members in the forms in which people hand them to a version, and what a version may be asked."""

import sys

import pandas as pd
import pytest

from churnlab.data.demo import members
from churnlab.registry import requests, versions
from support.running import version_folder

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def version(promoted, client_at):
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    files = version_folder(client_at(promoted.home), "demo-churn", "1")
    yield versions.load_files(files)
    sys.dont_write_bytecode = before


def test_members_are_given_as_a_notebook_and_a_server_have_them_with_the_same_values(version):
    X = members(25, seed=8).drop(columns="Churn").astype("float64")
    X.index = range(100, 125)
    for given in (requests.as_read(X, version), requests.as_sent(X, version)):
        pd.testing.assert_frame_equal(
            given, X.reset_index(drop=True), check_dtype=False, check_exact=True
        )
        assert given["Age"].tolist() == X["Age"].tolist()
        assert all(type(value) is int for value in given["Age"].tolist()), (
            "whole numbers stay whole"
        )


def test_codes_stay_apart_and_words_such_as_none_stay_words(version):
    codes = {"offer": {"1.0": ["1", "01"]}, "district": {"7.0": ["007"]}}
    shop = versions.Served(version.model, version.spec | {"codes": codes})
    X = pd.DataFrame(
        {"offer": ["1", "01"], "district": ["007", "007"], "note": ["None", None], "n": [1.0, None]}
    )
    read = requests.as_read(X, shop)
    assert read["offer"].tolist() == ["1", "01"]
    assert read["district"].tolist() == [7, 7]
    assert read["note"].tolist()[0] == "None"
    assert read[["note", "n"]].isna().iloc[1].all()


def test_a_version_declares_its_inputs_although_its_signature_has_none(version):
    assert version.model.metadata.get_input_schema() is None
    interface = requests.interface(version)
    assert interface["inputs"]["Age"] == ("double", True)
    assert list(interface["inputs"]) == version.spec["inputs"]
    assert interface["others"]
    assert (
        requests.interface(versions.Served(version.model, version.spec | {"extra": "refuse"}))[
            "others"
        ]
        == {}
    )
