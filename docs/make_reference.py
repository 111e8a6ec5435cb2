"""Write docs/reference/ from the code and the configs: ``make docs``."""

from __future__ import annotations

import ast
import os
from collections.abc import Iterator
from pathlib import Path

from churnlab.__main__ import ROOT
from churnlab.cli import help, outcomes
from churnlab.config.commands import COMMANDS
from churnlab.evaluation.metric_names import METRICS
from churnlab.tracking import names

PAGES = Path(__file__).parent / "reference"
NOTE = "<!-- Written by `make docs` from the code and conf/; edit those, not this page. -->"


def pages() -> dict[str, str]:
    """Return the text of every page of the reference by its file name."""
    os.environ.setdefault("CHURNLAB_HOME", str(ROOT))
    written = {
        "commands.md": commands(),
        "keys.md": keys(),
        "tags.md": documented("Tags", names.__file__, inside="Tag"),
        "artifacts.md": documented("Artifacts", names.__file__, inside="Artifact"),
        "metrics.md": metrics(),
        "exit-codes.md": documented("Exit codes", outcomes.__file__),
    }
    return {name: f"{NOTE}\n\n{text.rstrip()}\n" for name, text in written.items()}


def commands() -> str:
    """Describe every command in the order of a working day: what, why, where, three examples."""
    parts = ["# Commands", "`churnlab COMMAND [KEY=VALUE ...]`; [keys.md](keys.md) lists the keys."]
    for name, command in COMMANDS.items():
        *prose, examples = help.docstring(name).split("\n\n")
        kept = f"`<dataset.name>-{command.experiment}`" if command.experiment else "none"
        parts += [f"## {name}", *prose, f"```sh\n{unindented(examples)}\n```"]
        parts.append(f"Experiment of its runs: {kept}.")
    return "\n\n".join(parts)


def unindented(text: str) -> str:
    """Return the lines of a text without the blanks around each."""
    return "\n".join(line.strip() for line in text.splitlines())


def keys() -> str:
    """List the choices and keys of every command, and what each choice of each group is."""
    parts = ["# Keys", "A comment says what a key means; the value is the default."]
    parts += ["## Flags", f"```text\n{help.FLAGS}\n```"]
    for name in COMMANDS:
        helped = help.command_help(name, root=ROOT)
        parts += [f"## {name}", f"```text\n{helped[helped.index('Choices (') :]}\n```"]
    parts += ["## Groups", "Each choice of a group is one YAML in conf/."]
    for folder in sorted(path for path in (ROOT / "conf").iterdir() if path.is_dir()):
        files = sorted(folder.glob("[!_]*.yaml"))
        rows = [f"| `{file.stem}` | {opening(file)} |" for file in files]
        parts.append(f"### {folder.name}")
        parts.append("\n".join(["| choice | what it is |", "|---|---|", *rows]))
    return "\n\n".join(parts)


def opening(file: Path) -> str:
    """Return the comment that a YAML opens with, as one line."""
    lines = []
    for line in file.read_text(encoding="utf-8").splitlines():
        if not line.startswith("# "):
            break
        lines.append(line.removeprefix("# "))
    return " ".join(lines)


def metrics() -> str:
    """List the metrics, and how a run logs them."""
    rows = [
        f"| `{name}` | {metric.label} | {'lower' if metric.lower_is_better else 'higher'} |"
        for name, metric in METRICS.items()
    ]
    return "\n\n".join(
        [
            "# Metrics",
            "A run logs `cv_<metric>`, the mean over the folds, and `test_<metric>`, the value on "
            "the hold-out. `fold_<metric>` has the folds as steps. Result lines also carry "
            "`cv_<metric>_std` and the ends of the 95% CI, `test_<metric>_low` and "
            "`test_<metric>_high`.",
            "\n".join(["| metric | called | better |", "|---|---|---|", *rows]),
        ]
    )


def documented(title: str, file: str, *, inside: str | None = None) -> str:
    """List the documented constants of a module, or of one of its classes, as a table."""
    rows = [f"| `{value}` | {text} |" for value, text in constants(Path(file), inside=inside)]
    return f"# {title}\n\n" + "\n".join(["| value | meaning |", "|---|---|", *rows])


def constants(file: Path, *, inside: str | None) -> Iterator[tuple[object, str]]:
    """Yield the value and the docstring of each constant of a module or of one of its classes."""
    body = ast.parse(file.read_text(encoding="utf-8")).body
    if inside is not None:
        body = next(
            node.body for node in body if isinstance(node, ast.ClassDef) and node.name == inside
        )
    for node, after in zip(body, body[1:], strict=False):
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
            assert isinstance(after, ast.Expr)
            yield node.value.value, " ".join(ast.literal_eval(after.value).split())


if __name__ == "__main__":
    PAGES.mkdir(exist_ok=True)
    for page, text in pages().items():
        (PAGES / page).write_text(text, encoding="utf-8")
