"""All commands by name: registered without importing them, summarized from their source."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest
from commands import call, recipe

import limbeck.techniques  # noqa: F401 registers them
from limbeck.cli.commands import COMMANDS, FAMILIES, make_app, read_docstrings, read_techniques
from limbeck.core.combination import Combination
from limbeck.core.step import REGISTRY, Technique

SLOW = {"torch", "transformers", "onnxruntime", "scipy", "datasets", "accelerate", "huggingface_hub"}
PROGRAM = """
import json, sys
sys.argv = ["limbeck", *sys.argv[1:]]
from limbeck.cli import main
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
print(json.dumps(sorted(sys.modules)), file=sys.stderr)
"""


def modules_of(*arguments):
    """What a command prints, and the modules that it imports."""
    command = [sys.executable, "-c", PROGRAM, *arguments]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout, set(json.loads(finished.stderr.splitlines()[-1]))


def test_the_list_of_commands_imports_almost_nothing():
    printed, modules = modules_of("--help")
    assert {"compress", "run", "evaluate", "prune", "distill"} <= set(re.findall(r"^│ (\w+)", printed, re.M))
    assert not (SLOW | {"numpy", "pydantic", "markdown_it"}) & modules
    assert not {name for name in modules if name.startswith(("limbeck.techniques", "limbeck.core", "limbeck.engine"))}
    assert len(modules) < 330


@pytest.mark.parametrize("command", ["check", "plan"])
def test_checking_and_planning_need_no_torch(command):
    steps = [{"finetune": {"epochs": 1}}, {"prune": {"heads": 1}}, {"export": {}}, {"quantize": {}}]
    recipe("light.yaml", *steps, "size", "quality", "latency", {"best": {}}, model="bert-moods")
    printed, modules = modules_of(command, "light.yaml")
    assert "light.yaml" in printed
    assert not SLOW & modules


def test_summaries_are_the_docstrings_of_the_commands():
    declared = {
        name: cls for name, cls in REGISTRY.items() if issubclass(cls, Technique) and not issubclass(cls, Combination)
    }
    declared = {name: cls for name, cls in declared.items() if cls.__module__.startswith("limbeck.techniques.")}
    read = {source.name: source for source in read_techniques()}
    assert read.keys() == declared.keys()
    assert {name: source.formerly for name, source in read.items()} == {
        name: cls.info.formerly for name, cls in declared.items()
    }
    for name, source in read.items():
        assert source.docstring.split() == declared[name].__doc__.split()
    for module, (_, functions) in COMMANDS.items():
        docstrings = read_docstrings(module)
        assert all(docstrings[name] for name in functions)
    for module, functions, _ in FAMILIES.values():
        docstrings = read_docstrings(module)
        assert all(docstrings[name] for name in functions)


def test_every_command_is_the_function_of_its_name():
    app = make_app(["--help"])
    for names in app:
        for name in [names] if isinstance(names, str) else names:
            if not name.startswith("-") and name not in FAMILIES:
                assert callable(app[name].default_command)
    for family, (_, functions, _) in FAMILIES.items():
        assert all(callable(app[family][name].default_command) for name in functions)
    assert make_app(["student"])["student"].default_command is app["student_init"].default_command


def test_help_of_a_command_is_whole_wherever_it_is_asked_for():
    for name, end in (("gc", "made again when needed"), ("prune", "no layer gets narrower")):
        status, out, _ = call(name, "--help")
        assert (status, end in " ".join(out.split())) == (0, True)
        assert call("--help", name)[1] == out


def test_a_misspelt_command_gets_the_nearest():
    for word, nearest in (("chek", "check"), ("distill", "distill")):
        status, out, err = call(word, "x.yaml")
        assert (status, f'"{nearest}"' in out + err) == (2, True), out + err


def test_an_interrupted_command_says_how_to_go_on(monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("limbeck.cli.run_commands._load_recipe", interrupted)
    status, _, err = call("plan", "quickstart")
    assert (status, err) == (130, "interrupted; the same command resumes where it stopped\n")
