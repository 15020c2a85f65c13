"""All commands by name. A command's module is imported when the command is called, not before.

The list of commands (``limbeck --help``) needs their summaries as well. These are read from the source, where
they are the docstrings of functions and techniques, since importing the modules takes most of a second.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from cyclopts import App, CycloptsError, Group, Parameter

RUNS = Group("Compress and run", sort_key=1)
MODELS = Group("Use and measure a model", sort_key=2)
STEPS = Group("One technique at a time", sort_key=3)

COMMANDS: dict[str, tuple[Group, tuple[str, ...]]] = {
    "run_commands": (RUNS, ("compress", "run", "check", "plan", "recipes", "report", "lineage", "save", "gc")),
    "model_commands": (MODELS, ("evaluate", "predict")),
    "benchmark_commands": (MODELS, ("bench",)),
    "machine": (MODELS, ("profile", "predictor")),
}
"""Group and functions of each module of commands."""
FAMILIES = {"measure": ("measure_commands", ("serve",), "Measure for other machines, as a service.")}
"""Commands that have commands of their own: the module, its functions, and the summary."""
OPTIONS = {"bench": {"default_parameter": Parameter(consume_multiple=True, negative=())}}
"""Further options of single commands, as :class:`cyclopts.App` takes them."""
TECHNIQUES = {"Technique", "TechniqueWithGoal"}
"""What a technique that has a command inherits from; a combination has none, since it takes two models."""


class TechniqueSource(NamedTuple):
    """What the source of a technique says: its name, an earlier name or '', and its docstring."""

    name: str
    formerly: str
    docstring: str


def make_app(arguments: Sequence[str] = ()) -> App:
    """Create the application.

    Args:
        arguments: Words of the command line. Unless they name a command, the commands get their summaries.

    Returns:
        The application, with every command.
    """
    app = App(
        name="limbeck",
        error_formatter=_usage_error,
        default_parameter=Parameter(converter=_convert),
        help="Make BERT-class encoders small and fast: prune, distill, quantize, and measure under a latency budget.",
        help_format="plaintext",
        version=lambda: _version(),
        suppress_keyboard_interrupt=False,  # main says how to go on
    )
    names = {name for _, functions in COMMANDS.values() for name in functions} | {*FAMILIES}
    techniques = () if names & {*arguments[:1]} else tuple(read_techniques())
    listed = not {*names, *(name for technique in techniques for name in technique[:2])} & {*arguments}
    for module, (group, functions) in COMMANDS.items():
        docstrings = read_docstrings(module) if listed else {}
        for name in functions:
            options = OPTIONS.get(name, {})
            _add(app, f"{module}:{name}", name, group=group, help=_summary(docstrings.get(name)), **options)
    for name, (module, functions, description) in FAMILIES.items():
        family = App(name=name, help=description, group=MODELS, help_format="markdown", error_formatter=_usage_error)
        docstrings = read_docstrings(module) if name in arguments else {}
        for function in functions:
            _add(family, f"{module}:{function}", function, help=_summary(docstrings.get(function)))
        app.command(family)
    for technique in techniques:
        path = f"technique_commands:command_{technique.name}"
        summary = _summary(technique.docstring) if listed else None
        _add(app, path, technique.name, group=STEPS, help=summary)
        if technique.formerly:
            _add(app, path, technique.formerly, show=False)
    return app


def _add(app: App, path: str, name: str, **options: Any) -> None:  # options of cyclopts.App
    app.command(f"limbeck.cli.{path}", name=name, help_format="markdown", **options)


def read_docstrings(module: str) -> dict[str, str]:
    """Read the docstrings of the functions of a module of commands, without importing it."""
    source = Path(__file__).with_name(f"{module}.py").read_text(encoding="utf-8")
    functions = (node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef))
    return {function.name: ast.get_docstring(function) or "" for function in functions}


def read_techniques() -> Iterator[TechniqueSource]:
    """Read name and docstring of every technique from the source, without importing it."""
    for path in sorted((Path(__file__).parents[1] / "techniques").glob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and TECHNIQUES & {ast.unparse(base) for base in node.bases}:
                yield _read_technique(node)


def _read_technique(node: ast.ClassDef) -> TechniqueSource:
    """Read the declaration ``@step(StepInfo("name", formerly="…"))``, or the same of an info that is refined."""
    calls = [call for decorator in node.decorator_list for call in ast.walk(decorator) if isinstance(call, ast.Call)]
    first = [
        argument.value
        for call in calls
        for argument in call.args
        if isinstance(argument, ast.Constant) and isinstance(argument.value, str)
    ]
    named = {
        keyword.arg: keyword.value.value
        for call in calls
        for keyword in call.keywords
        if isinstance(keyword.value, ast.Constant)
    }
    name = named["name"] if "name" in named else first[0]
    return TechniqueSource(str(name), str(named.get("formerly", "")), ast.get_docstring(node) or "")


def _summary(docstring: str | None) -> str | None:
    return " ".join(docstring.split("\n\n")[0].split()) if docstring else None


def _convert(annotation: Any, tokens: Any) -> Any:  # what cyclopts passes on: words, by name where there are several
    """Convert words of the command line as cyclopts does, but refuse 1.5 as a whole number instead of rounding it."""
    from cyclopts import convert

    def convert_token(kind: type, value: str) -> Any:
        if kind is int and not re.fullmatch(r"[-+]?[0-9]{1,20}", value.strip()):
            raise ValueError(value)
        return kind(value) if kind in (int, float) else convert(kind, [value])

    return convert(annotation, tokens, converter=convert_token)


def _usage_error(error: CycloptsError) -> object:
    """Format an error of the command line: violated bounds as in recipes, others as cyclopts does."""
    from cyclopts import CycloptsPanel
    from rich.text import Text

    if error.argument is None or type(error.__cause__).__name__ != "ValidationError":
        return CycloptsPanel(error)
    from pydantic import ValidationError

    from limbeck.recipe.validation import explain_value

    assert isinstance(error.__cause__, ValidationError)
    message = explain_value(error.argument.field_info.annotation, error.__cause__)
    return Text(f"error: {error.argument.name} {message}", no_wrap=True, overflow="ignore")


def _version() -> str:
    from importlib.metadata import version

    return version("limbeck")
