"""The site: every page is in its navigation, every step has its page and its options explained, and it builds."""

import doctest
import os
import re
import runpy
import subprocess
import sys
from importlib import import_module
from types import SimpleNamespace

import pytest
import yaml
from pages import DOCS, ROOT

import limbeck
from limbeck.core.field_groups import fields_of
from limbeck.core.step import REGISTRY

hooks = SimpleNamespace(**runpy.run_path(str(DOCS / "hooks.py")))
CONFIGURATION = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
TABLES = {name: page for page in DOCS.rglob("*.md") for name in hooks.MARKER.findall(page.read_text(encoding="utf-8"))}


def targets(entries):
    """The pages of a navigation, depth first."""
    for entry in entries:
        for target in entry.values() if isinstance(entry, dict) else [entry]:
            if isinstance(target, list):
                yield from targets(target)
            else:
                yield target


def test_every_page_is_in_the_navigation_once():
    listed = sorted(targets(CONFIGURATION["nav"]))
    pages = [path.relative_to(DOCS).as_posix() for suffix in ("md", "ipynb") for path in DOCS.rglob(f"*.{suffix}")]
    assert listed == sorted([*pages, *hooks.OUTSIDE.values()])


def test_every_step_has_its_table_of_options():
    import_module("limbeck.techniques")  # registers the steps

    steps = {name for name, step in REGISTRY.items() if step.__module__.startswith("limbeck.")}
    assert steps == set(TABLES)


@pytest.mark.parametrize("name", sorted(TABLES))
def test_every_option_is_explained(name):
    table = hooks.options_table(name)
    explained = {row[0]: row[-1] for row in re.findall(r"^\| `(\w+)` \|.*\| (.*) \|$", table, re.MULTILINE)}
    assert set(explained) == {option.name for option in fields_of(REGISTRY[name])}
    assert all(explained.values()), [option for option, text in explained.items() if not text]


def test_the_reference_has_every_public_name():
    text = (DOCS / "reference" / "index.md").read_text(encoding="utf-8")
    assert hooks.FURTHER in text
    documented = re.findall(r"^::: ([\w.]+)$", text + hooks.further_names(text), re.MULTILINE)
    assert set(limbeck.__all__) - {"__version__"} <= {name.rpartition(".")[2] for name in documented}
    for name in documented:
        module, _, attribute = name.rpartition(".")
        assert hasattr(import_module(module), attribute), name


def test_names_that_a_page_lacks_are_added():
    assert "::: limbeck.core.shape.Shape" in hooks.further_names("::: limbeck.core.shape.LayerShape")
    assert "LayerShape" not in hooks.further_names("::: limbeck.core.shape.LayerShape")


@pytest.mark.parametrize(
    ("target", "link"),
    [
        ("../../benchmarks/README.md#peers", "[x](../benchmarks/details.md#peers)"),
        ("../../benchmarks/predictor.py", "x"),
        ("tinybert.md", "[x](tinybert.md)"),
        ("../decisions", "[x](../decisions/index.md)"),
        ("#here", "[x](#here)"),
        ("https://example.org", "[x](https://example.org)"),
    ],
)
def test_links_lead_to_what_the_site_has(target, link):
    assert hooks.site_link("x", target, "recipes/mpl.md", "docs/recipes/mpl.md") == link


def test_examples_of_the_hooks():
    examples = doctest.DocTestFinder().find(hooks.describe_type, "describe_type", globs=vars(hooks))
    assert doctest.DocTestRunner().run(examples[0]).failed == 0


@pytest.mark.slow
def test_it_builds_without_a_warning(tmp_path):
    pytest.importorskip("mkdocs", reason="pip install 'limbeck[docs]'")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "site" / "tutorial.html").is_file()
