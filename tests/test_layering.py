"""The import layers of the design: a package imports those below it, and nothing heavy where it must be light."""

import ast
import re
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from limbeck.model.layout import CODE

ROOT = Path(__file__).parent.parent / "src" / "limbeck"
LAYERS = (
    ("core", "storage", "distributed"),
    ("model", "data", "report"),
    ("train", "measure", "augmentation"),
    ("cost_models", "search", "teachers"),
    ("techniques",),
    ("recipe",),
    ("engine",),
    ("benchmark",),
    ("cli",),
)
"""The packages, low to high; a package imports what stands before it here."""
ORDER = [package for layer in LAYERS for package in layer]
BARRED = {"recipe": {"techniques"}, "model": {"distributed"}, "data": {"model"}, "techniques": {"report"}}
"""What stands before a package and is none of its business: data know no network, a page decides nothing."""
REGISTRY = {"recipe": "limbeck.techniques"}
"""A package whose import registers what is in it, for one that names none of it."""
ALLOWED = {package: {*ORDER[: ORDER.index(package) + 1]} - BARRED.get(package, set()) for package in ORDER}
FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef)
HEAVY = {"torch", "transformers", "onnxruntime", "accelerate", "datasets", "sklearn", "scipy", "plotly"}


def imports(path, *, top_level=False, typing=False):
    """Name every module that a file imports, also late by its name; those of type checking alone only if ``typing``."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    nodes = tree.body if top_level else ast.walk(tree)
    package = ("limbeck", *path.relative_to(ROOT).with_suffix("").parts[:-1])
    for node in nodes:
        if id(node) in typing_only and not typing:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            prefix = ".".join(package[: len(package) - node.level + 1]) + "." if node.level else ""
            module = prefix + (node.module or "")
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] == "import_module":
            yield from (each.value for each in node.args if isinstance(each, ast.Constant))


def room(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return parts[0]


FILES = sorted(path for path in ROOT.rglob("*.py") if room(path) in ALLOWED)


def test_no_modules_import_each_other():
    """Not in a circle of any length, and not inside functions either."""
    files = {
        ".".join(("limbeck", *path.relative_to(ROOT).with_suffix("").parts)): path
        for path in ROOT.rglob("*.py")
        if path.name != "__init__.py"
    }
    graph = {module: {*imports(path)} & files.keys() - {module} for module, path in files.items()}
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle


def test_every_package_has_its_place():
    assert sorted(path.parent.name for path in ROOT.glob("*/__init__.py")) == sorted(ORDER)


def test_the_guide_lists_them_in_this_order():
    guide = (ROOT.parent.parent / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| `(\w+)` \|", guide.split("## Adding a technique")[0], re.MULTILINE) == ["errors", *ORDER]
    for package, others in BARRED.items():
        for other in others:
            assert re.search(rf"`{package}`( imports)?\snothing\sfrom\s`{other}`", guide), (package, other)


def test_no_package_has_more_than_an_eighth_of_the_lines():
    """A package inside another counts for itself."""
    lines = {
        init.parent.relative_to(ROOT).as_posix(): sum(
            len(path.read_text(encoding="utf-8").splitlines()) for path in init.parent.glob("*.py")
        )
        for init in ROOT.rglob("__init__.py")
    }
    assert max(lines.values()) <= sum(lines.values()) / 8, max(lines, key=lines.__getitem__)


def test_files_are_short():
    """Of a technique, what is not the step itself belongs further down."""
    for path in ROOT.rglob("*.py"):
        most = 200 if path.parent == ROOT / "techniques" else 400
        lines = len(path.read_text(encoding="utf-8").splitlines())
        assert lines <= most, f"{path.relative_to(ROOT)} has {lines} lines, more than {most}"


def functions(tree):
    """Yield every function, after what it stands in: a module, a class, another function."""
    for node in ast.walk(tree):
        yield from ((node, each) for each in ast.iter_child_nodes(node) if isinstance(each, FUNCTION))


def test_functions_are_short():
    """What counts is what they do: neither the signature nor the docstring."""
    for path in ROOT.rglob("*.py"):
        for _, function in functions(ast.parse(path.read_text(encoding="utf-8"))):
            body = function.body[ast.get_docstring(function) is not None :]
            lines = body[-1].end_lineno - body[0].lineno + 1 if body else 0
            assert lines <= 60, f"{function.name} in {path.relative_to(ROOT)} has {lines} lines"


def test_public_functions_document_more_than_two_arguments():
    """An override may leave them to the method of ``core`` that it overrides."""

    def names(function):
        every = (*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs)
        every += tuple(filter(None, (function.args.vararg, function.args.kwarg)))
        return tuple(each.arg for each in every if each.arg not in ("self", "cls"))

    inherited, missing = set(), []
    for path in sorted(ROOT.rglob("*.py"), key=lambda path: room(path) != "core"):
        for owner, function in functions(ast.parse(path.read_text(encoding="utf-8"))):
            here, documented = (function.name, names(function)), "Args:" in (ast.get_docstring(function) or "")
            method = isinstance(owner, ast.ClassDef)
            if documented and method and room(path) == "core":
                inherited.add(here)
            public = not any(getattr(each, "name", "").startswith("_") for each in (owner, function))
            overload = any(getattr(each, "id", "") == "overload" for each in function.decorator_list)
            exempt = not public or overload or not isinstance(owner, (ast.Module, ast.ClassDef))
            if len(here[1]) > 2 and not (documented or exempt or (method and here in inherited)):
                missing.append(f"{path.relative_to(ROOT)}: {function.name}")
    assert not missing, f"no Args in the docstrings of {missing}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_package_imports_only_those_below(path):
    """For type checking, too."""
    here = room(path)
    names = {*imports(path, typing=True)} - {REGISTRY.get(here)}
    seen = {name.split(".")[1] for name in names if name.startswith("limbeck.")}
    rooms = {name for name in seen if name in ALLOWED}
    assert rooms <= ALLOWED[here], f"{path.name} in {here} imports {sorted(rooms - ALLOWED[here])}"


@pytest.mark.parametrize("path", sorted((ROOT / "techniques").glob("*.py")), ids=lambda path: path.name)
def test_techniques_do_not_import_each_other_and_are_light(path):
    for name in imports(path):
        assert not name.startswith("limbeck.techniques."), f"{path.name} imports {name}"
    heavy = {name.split(".")[0] for name in imports(path, top_level=True)} & HEAVY
    assert not heavy, f"{path.name} imports {heavy} at its top"


@pytest.mark.parametrize("path", sorted((ROOT / "core").rglob("*.py")), ids=lambda path: path.name)
def test_core_is_light_and_never_imports_torch(path):
    """Metrics and statistics call scikit-learn and scipy, inside functions."""
    assert not {name.split(".")[0] for name in imports(path, top_level=True)} & HEAVY
    assert not {name.split(".")[0] for name in imports(path)} & (HEAVY - {"scipy", "sklearn"})


@pytest.mark.parametrize("path", sorted((ROOT / "engine").rglob("*.py")), ids=lambda path: path.name)
def test_the_engine_names_no_technique(path):
    """Apart from the planner, whose plans are made of them."""
    if path.name == "planner.py":
        return
    assert not [name for name in imports(path) if name.startswith("limbeck.techniques.")]


def test_the_modeling_files_stand_alone():
    """A saved folder carries them, so they may need torch, transformers and each other alone."""
    modules = tuple(f"limbeck.model.{name.removesuffix('.py')}" for name in CODE)
    for name in CODE:
        outside = {module.split(".")[0] for module in imports(ROOT / "model" / name) if not module.startswith(modules)}
        library = {"__future__", "abc", "collections", "dataclasses", "math", "typing"}
        assert outside <= {*library, "torch", "transformers"}, outside


def test_tests_mirror_the_source():
    tests = {path.relative_to(Path(__file__).parent).as_posix() for path in Path(__file__).parent.rglob("test_*.py")}
    # private files and packages are tested through the public ones beside them
    missing = [
        path.relative_to(ROOT).as_posix()
        for path in FILES
        if not path.name.startswith("_")
        and len(path.relative_to(ROOT).parts) > 1
        and f"{path.parent.relative_to(ROOT).as_posix()}/test_{path.name}" not in tests
    ]
    assert not missing, f"no mirrored test for {missing}"
