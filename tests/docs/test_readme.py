"""README and pages tell the truth: recipes check, commands exist, code compiles, links lead on."""

import ast
import re
from pathlib import Path

import pytest

import limbeck
from limbeck.recipe.recipe import check
from limbeck.recipe.yaml import load

ROOT = Path(__file__).parent.parent.parent
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
}
ALL = "\n".join(PAGES.values())


def blocks(language, text=ALL):
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def test_the_readme_is_short():
    assert len(PAGES["README.md"].splitlines()) <= 150


def test_the_two_commands_are_those_that_ci_runs():
    first, second = blocks("bash", PAGES["README.md"])[:2]
    assert first.strip() == "pip install -c constraints.txt -e '.[demo]' && limbeck run quickstart"
    install, test = second.strip().split(" && ")
    ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert install.replace("pip install", "pip install --quiet") in ci
    assert re.search(rf"^{test}$", ci, re.MULTILINE)


@pytest.mark.parametrize("block", [block for block in blocks("yaml") if "steps:" in block])
def test_recipes_have_no_problems(block):
    assert not check(load(block))


@pytest.mark.parametrize("block", blocks("python"))
def test_code_compiles_and_imports_what_there_is(block):
    for node in ast.walk(ast.parse(block)):
        if isinstance(node, ast.ImportFrom) and node.module == "limbeck":
            assert {alias.name for alias in node.names} <= set(limbeck.__all__)


def test_commands_exist():
    import limbeck.techniques  # noqa: F401
    from limbeck.cli import app
    from limbeck.core.step import REGISTRY

    known = {name for names in app for name in ([names] if isinstance(names, str) else names)} | set(REGISTRY)
    groups = re.findall(r"`limbeck ([a-z_|\\]+)", ALL)
    named = {word for group in groups for word in group.replace("\\", "").split("|")}
    assert named
    assert named <= known


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#:]+)\)", PAGES[page]):
        assert ((ROOT / page).parent / target).exists(), target
