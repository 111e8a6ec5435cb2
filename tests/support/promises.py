"""What holds of a store after a command was stopped somewhere and run again."""

import json
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from support.forked import churnlab, redirect
from support.killing import check_promise, runs
from support.running import Ended

NAME = "demo-churn"

GATED = {"passed", "forced"}

Check = Callable[[Path, Ended, Mapping[str, Any]], None]
"""Checks a store after a command has ended well; gets its home, how the command ended, and the
result line that it has on a sound store."""


def go_on(
    home: Path, steps: Sequence[tuple[str, ...]], output: Path, check: Check, sound: dict[str, Any]
) -> int:
    """Run commands one after another, then check the store; return 0.

    How the commands ended is in ``output``.codes and ``output``.NUMBER.out and .err. ``sound`` is
    the result line of the last of them that is not doctor on a sound store.
    """
    codes: list[int] = []
    for number, words in enumerate(steps):
        redirect(f"{output}.{number}")
        codes.append(churnlab(home, words))
        output.with_name(f"{output.name}.codes").write_text(json.dumps(codes))
    redirect(output)
    (command,) = [number for number, words in enumerate(steps) if words[0] != "doctor"]
    ended = steps_ended(output)
    doctors = [end for number, end in enumerate(ended) if number != command]
    assert {end.code for end in ended} == {0}, [end.err for end in ended if end.code]
    for end in doctors:
        assert end.line.get("left", []) == []
        assert all("churnlab doctor fix=true" in one["fix"] for one in end.line["problems"])
    assert doctors[-1].line["problems"] == [] or len(doctors) == 1
    assert {run.info.status for run in runs(home)} <= {"FINISHED", "KILLED", "FAILED"}
    assert not [*home.rglob(".artifact.uploading.*")]
    check(home, ended[command], sound)
    return 0


def steps_ended(output: Path) -> list[Ended]:
    """Return how the commands of ``go_on`` ended."""
    codes = json.loads(output.with_name(f"{output.name}.codes").read_text())
    return [
        Ended(code, *(Path(f"{output}.{number}.{name}").read_text() for name in ("out", "err")))
        for number, code in enumerate(codes)
    ]


def history_is_whole(home: Path, ended: Ended, sound: Mapping[str, Any]) -> None:
    """Check that there is one champion, whose files verify, and that its history is whole."""
    from mlflow import MlflowClient

    from churnlab.registry.champion import undo_stack
    from churnlab.registry.manifest import verified_copy

    client = MlflowClient()
    model = client.get_registered_model(NAME)
    aliases = {alias: str(version) for alias, version in model.aliases.items()}
    keys = sorted(key for key in model.tags if key.startswith("churnlab.move."))
    moves = [json.loads(model.tags[key]) for key in keys]
    assert moves[0]["from"] is None
    assert all(before["to"] == after["from"] for before, after in pairwise(moves))
    assert moves[-1]["to"] == aliases["champion"]
    assert aliases.get("previous") == next(reversed(undo_stack(moves)), None)
    for move in moves:
        assert client.get_model_version(NAME, move["to"]).tags["churnlab.gate"] in GATED
        assert client.get_run(move["run_id"]).info.status == "FINISHED"
    with verified_copy(f"models:/{NAME}/{aliases['champion']}"):
        pass


def version_is_champion(home: Path, ended: Ended, sound: Mapping[str, Any]) -> None:
    """Check that the command's version is the champion, with a whole history."""
    from mlflow import MlflowClient

    history_is_whole(home, ended, sound)
    champion = MlflowClient().get_model_version_by_alias(NAME, "champion")
    assert str(champion.version) == ended.line["version"]


def promoted(home: Path, ended: Ended, sound: Mapping[str, Any]) -> None:
    """Check that a version was promoted, judged against the one that it replaced."""
    import mlflow

    version_is_champion(home, ended, sound)
    assert ended.line["promoted"]
    gate = mlflow.artifacts.load_dict(f"runs:/{ended.line['run_id']}/gate.json")
    tags = mlflow.MlflowClient().get_model_version(NAME, ended.line["version"]).tags
    assert (gate["version"], gate["against"]) == (ended.line["version"], tags["churnlab.replaced"])


def same_line(home: Path, ended: Ended, sound: Mapping[str, Any]) -> None:
    """Check that the command has the result that it has on a sound store."""
    ids = {"run_id", "best_run_id", "parent"}
    assert {key: value for key, value in ended.line.items() if key not in ids} == {
        key: value for key, value in sound.items() if key not in ids
    }


def same_study(home: Path, ended: Ended, sound: Mapping[str, Any]) -> None:
    """Check that a study has all its trials once, and the values that it has on a sound store."""
    all_trials(home, ended, sound)
    same_line(home, ended, sound)


def all_trials(home: Path, ended: Ended, sound: Mapping[str, Any]) -> None:
    """Check that a study has all its trials once."""
    check_promise(home, sound["n_complete"], ended)


def same_files(home: Path, ended: Ended, sound: Mapping[str, Any]) -> None:
    """Check that nothing but the output and the rejected rows is where a file was scored."""
    same_line(home, ended, sound)
    output = Path(ended.line["output"])
    assert sorted(path.name for path in output.parent.iterdir()) == sorted(
        [output.name, f"{output.name}.rejected.csv"]
    )
