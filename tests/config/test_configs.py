"""The vocabulary: every YAML composes with every command that uses it, and is valid."""

import copy
import itertools
import math
import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.utils import instantiate
from optuna.distributions import BaseDistribution
from sklearn.base import BaseEstimator, clone

from churnlab.cli import arguments
from churnlab.cli.hydra_compose import open_model, plain
from churnlab.config import validation
from churnlab.config.build import build_estimator
from churnlab.config.commands import COMMANDS
from churnlab.config.groups import Keys
from churnlab.errors import InputError

CONF = Path(__file__).parents[2] / "conf"
GIVEN = {
    "dataset.path": "members.csv",
    "path": "members.csv",
    "input": "in.csv",
    "output": "out.csv",
    "run": "0" * 32,
}
"""What a YAML leaves to the user."""


def options(group: str | Path) -> list[str]:
    return sorted(path.stem for path in (CONF / group).glob("[!_]*.yaml"))


def groups(command: str) -> Iterator[str]:
    """The groups in a command's list of defaults, base.yaml's included."""
    for file in ("base", command):
        for entry in yaml.safe_load((CONF / f"{file}.yaml").read_text())["defaults"]:
            if isinstance(entry, dict):
                (name,) = entry
                if name != "experiment" and not name.startswith(("override ", "hydra")):
                    yield name


def covering(command: str) -> Iterator[dict[str, str]]:
    """As few combinations of choices as show every choice of every group of a command once."""
    choices = {group: options(group.partition("@")[0]) for group in groups(command)}
    for number in range(max(map(len, choices.values()))):
        yield {group: names[number % len(names)] for group, names in choices.items()}


COMBINATIONS = [(command, choices) for command in COMMANDS for choices in covering(command)]


@pytest.fixture
def composed(monkeypatch, tmp_path):
    """``composed(command, *overrides)``: the checked keys of a command."""
    monkeypatch.setenv("CHURNLAB_HOME", str(tmp_path))

    def read(command: str, *overrides: str):
        GlobalHydra.instance().clear()
        with initialize_config_dir(str(CONF), version_base="1.3"):
            config = plain(compose(command, overrides=open_model([*overrides])))
        for key, value in GIVEN.items():
            *path, name = key.split(".")
            block = config
            for part in path:
                block = block.get(part, {})
            if block.get(name) == "???":
                block[name] = value
        read.config = config
        return validation.read(command, config)

    return read


def test_every_command_with_a_schema_has_a_yaml_and_the_other_way_round():
    named = {path.stem for path in CONF.glob("*.yaml")} - {"base"}
    commands = {path.stem for path in (CONF.parent / "src/churnlab/commands").glob("[a-z]*.py")}
    assert named == commands == set(COMMANDS)


@pytest.mark.parametrize(("command", "choices"), COMBINATIONS)
def test_every_choice_composes_and_is_checked_for_every_command_that_has_it(
    composed, command, choices
):
    settings = composed(command, *[f"{group}={option}" for group, option in choices.items()])
    for group, option in choices.items():
        chosen = getattr(settings, group, None)
        if isinstance(chosen, Keys) and "name" in type(chosen).model_fields:
            assert chosen.name == option


def test_every_yaml_is_used_by_some_command():
    used = {
        (group.partition("@")[0], option)
        for _, choices in COMBINATIONS
        for group, option in choices.items()
    }
    assert used == {
        (folder.name, option)
        for folder in CONF.iterdir()
        if folder.is_dir()
        for option in options(folder)
    }


@pytest.mark.parametrize("model", options("model"))
def test_every_key_of_a_space_is_a_parameter_of_its_estimator_and_its_range_holds_legal_values(
    composed, model
):
    settings = composed("tune", f"model={model}").model
    estimator = build_estimator(settings, where="model")
    assert set(settings.space) <= set(estimator.get_params(deep=True))
    for name, block in settings.space.items():
        distribution = instantiate(block)
        assert isinstance(distribution, BaseDistribution)
        for edge in ("low", "high"):
            if edge in block:
                changed = clone(estimator).set_params(**{name: block[edge]})
                for part in [changed, *changed.get_params(deep=True).values()]:
                    if isinstance(part, BaseEstimator):
                        part._validate_params()


FLOAT, INT, CHOICES = (
    f"optuna.distributions.{kind}Distribution" for kind in ("Float", "Int", "Categorical")
)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["model.space.C=[0.1,1,10]"], {"C": {"_target_": CHOICES, "choices": [0.1, 1, 10]}}),
        (
            ["model.space.C.low=0.1"],
            {"C": {"_target_": FLOAT, "low": 0.1, "high": 100.0, "log": True}},
        ),
        (
            ["model.space.C={low: 1e-3, high: 10, log: true}"],
            {"C": {"_target_": FLOAT, "low": 0.001, "high": 10, "log": True}},
        ),
        (["model.space.C={low: 1, high: 3}"], {"C": {"_target_": INT, "low": 1, "high": 3}}),
        (
            ["model.space.max_iter={low: 50, high: 60, step: 5}", "~model.space.C"],
            {"max_iter": {"_target_": INT, "low": 50, "high": 60, "step": 5}},
        ),
        (
            ["model.space={C: [1,2], tol: [0.001]}"],
            {
                "C": {"_target_": CHOICES, "choices": [1, 2]},
                "tol": {"_target_": CHOICES, "choices": [0.001]},
            },
        ),
    ],
    ids=lambda part: str(part)[:40],
)
def test_a_space_on_the_command_line_becomes_distributions(composed, words, expected):
    assert composed("tune", *words).model.space == expected


@pytest.mark.parametrize("model", options("model"))
def test_every_model_takes_the_seed_and_can_be_built(composed, model):
    settings = composed("train", f"model={model}", "seed=7").model
    built = build_estimator(settings, where="model")
    assert hasattr(built, "predict_proba")
    fixed = getattr(built, "strategy", None) == "prior"
    for name, value in built.get_params(deep=True).items():
        if name.endswith("random_state"):  # every source of chance in a model takes the seed
            assert fixed or value == 7, name


def test_the_pipelines_gate_has_the_limits_of_promote(composed):
    alone, inside = composed("promote"), composed("pipeline")
    assert (alone.gate, alone.ceiling) == (inside.gate, inside.ceiling)
    assert (alone.require, inside.require) == ("better", "not_worse")


BAD = (None, True, -1, 0.5, 10**30, math.nan, math.inf, "", "a b", "x" * 3000)
BAD_BLOCKS = ([], [1], ["a"] * 3, {}, {"a b": 1}, {"nope": {"nope": []}}, [{"nope": 1}], [[1, 2]])
OF_A_LIBRARY = re.compile(
    r"should|validation|Input |valid |pattern|greater than|less than|instance|unable|parse|"
    r"\bNone\b|\bTrue\b|\bFalse\b|another value"
)
"""Words of pydantic and Python, and ours for an error that nobody thought of."""


def places(block: dict | list, path: tuple = ()) -> Iterator[tuple]:
    """The path of every value in a config; of deeper blocks only the first values."""
    parts = list(block.items() if isinstance(block, dict) else enumerate(block))
    for key, value in parts if len(path) < 2 else parts[:4]:
        yield (*path, key)
        if isinstance(value, dict | list):
            yield from places(value, (*path, key))


def refusal(command: str, config: dict, path: tuple, wrong: object) -> str:
    """The message for a config with a wrong value at one place, empty if it is accepted."""
    changed = block = copy.copy(config)
    for part in path[:-1]:
        block[part] = copy.copy(block[part])
        block = block[part]
    block[path[-1]] = wrong
    try:
        validation.read(command, changed)
    except InputError as error:
        return str(error)
    return ""


def test_no_wrong_value_of_any_key_is_answered_in_the_words_of_a_library(composed):
    refused: dict[tuple, int] = {}
    for command in COMMANDS:
        composed(command)
        config = composed.config
        for path in [place for place in places(config) if place not in refused]:
            messages = [
                (wrong, refusal(command, config, path, wrong)) for wrong in (*BAD, *BAD_BLOCKS)
            ]
            refused[path] = sum(bool(message) for _, message in messages)
            for wrong, message in messages:
                foreign = OF_A_LIBRARY.search(message.replace(str(wrong), ""))
                assert not foreign, (command, path, wrong, message)
    assert len(refused) > 250
    assert sum(refused.values()) > 2000


@pytest.mark.parametrize(
    ("command", "path", "wrong", "message"),
    [
        ("compare", "runs", ["a"], "runs=[a] is not possible: it must be a list of two, [A,B]."),
        ("tune", "tune.study", "a b", "tune.study=a b is not possible: it must be made of A-Z"),
        ("train", "seed", 1.5, "seed=1.5 is not possible: it must be a whole number."),
        ("train", "seed", 2**32, "it must be at most 4294967295."),
        ("train", "model.scale", 7, "model.scale=7 is not possible: it must be true or false."),
        ("train", "model.trusted", ["Net"], "must be the dotted name of a type"),
        ("tune", "model.space.C", {"low": 1}, "give a list of choices, [A,B], or a range"),
        ("tune", "model.space.C", [], "give a list of choices, [A,B], or a range"),
        ("tune", "model.space.C", {"low": 1, "high": "x"}, "high must be a number, and is x"),
        ("tune", "model.space.C", {"low": 1, "high": 2, "lgo": 1}, "and not lgo"),
        ("train", "evaluation.folds", None, "evaluation.folds=null is not possible"),
        ("train", "evaluation.calibrated", 5, "it must be a block of keys, {KEY: VALUE}."),
        ("train", "dataset.late", 5, "dataset.late=5 is not possible: it must be a list, [A,B]."),
        ("train", "dataset.columns", {}, "no column is left to learn from"),
        ("train", "features.derive", {"1a": "Age"}, "features.derive.1a is not possible: it must"),
        ("promote", "gate.minimum", {"ece": 1}, "gate.minimum.ece is not possible: it must be roc"),
        ("promote", "reason", "x" * 2001, "it must be at most 2000 characters long."),
        ("segment", "segments.k", "x", "it must be a whole number or auto."),
        ("segment", "segments.columns", {"a": [1]}, "segments.columns.a=[1] is not possible: it"),
        (
            "segment",
            "playbook.rules",
            [{"do": [], "of": 1}],
            "no key playbook.rules[0].of. The keys",
        ),
        ("segment", "playbook.rules", [{}], "The key playbook.rules[0].do is missing"),
    ],
)
def test_the_error_of_each_kind_names_the_key_and_what_it_must_be(
    composed, command, path, wrong, message
):
    composed(command)
    (line,) = refusal(command, composed.config, tuple(path.split(".")), wrong).splitlines()
    assert message in line


EXAMPLES = [
    (command, line.partition(f"churnlab {command}")[2])
    for command in COMMANDS
    for line in (CONF.parent / f"src/churnlab/commands/{command}.py")
    .read_text()
    .partition('"""\n\n')[0]
    .splitlines()
    if line.startswith(f"    churnlab {command}")
]


@pytest.mark.parametrize(("command", "words"), EXAMPLES)
def test_every_example_of_a_commands_help_composes_and_is_checked(composed, command, words):
    options, overrides = arguments.split(shlex.split(words))
    overrides = arguments.named(command, overrides)
    if options and options[0] == "--config-dir":  # with a dataset, and claims, of the user's own
        overrides = [word for word in overrides if word not in ("dataset=bank", "claims=board")]
    else:
        assert options in ([], ["-m"])
    arguments.check(command, overrides, root=CONF.parent)
    sweeps = [
        [f"{key}={value}" for value in ([values] if "[" in values else values.split(","))]
        for key, values in (override.split("=", 1) for override in overrides)
    ]
    for job in itertools.product(*sweeps):
        composed(command, *job)


def test_every_command_has_three_examples():
    assert {
        command: sum(of == command for of, _ in EXAMPLES) for command in COMMANDS
    } == dict.fromkeys(COMMANDS, 3)


def test_the_demo_has_the_contract_of_the_gym(composed):
    demo, gym = (composed("train", f"dataset={name}").dataset for name in ("demo", "gym"))
    assert demo.columns == gym.columns
    assert (demo.rules, demo.target, demo.late) == (gym.rules, gym.target, gym.late)


@pytest.mark.parametrize(
    "path", sorted((CONF.parent / "experiments").glob("*.yaml")), ids=lambda path: path.stem
)
def test_every_experiment_opens_with_its_question_and_its_command(path):
    text = path.read_text()
    question, command = text.splitlines()[:2]
    named = yaml.safe_load(text)["command"]
    assert question.startswith("# ")
    assert question.endswith("?")
    assert command.startswith(f"#   churnlab {named} experiment={path.stem}")
    assert named in COMMANDS


def test_paths_of_a_config_lie_in_the_home(composed, tmp_path):
    settings = composed("tune")
    assert settings.tracking.uri is None  # mlflow.db in the home, which may be moved
    assert settings.storage["folder"] == os.path.join(tmp_path, "studies")
