"""What MkDocs does beyond its configuration: tables of options, and pages that live outside docs/.

``<!-- options: prune -->`` in a page becomes the table of that step's options, made from its dataclass, so that it
cannot differ from the code. ``<!-- further public names -->`` becomes the reference of every name that limbeck exports
and the page does not have yet. Files of ``OUTSIDE`` are shown as pages of the site; links to any other file outside
docs/ become plain text, because the site has no copy of them.
"""

from __future__ import annotations

import inspect
import posixpath
import re
from dataclasses import MISSING
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

    from limbeck.core.field_groups import FlatField

ROOT = Path(__file__).parent.parent
OUTSIDE = {
    "benchmarks/README.md": "benchmarks/details.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}
"""Files of the repository that the site shows: path in the repository -> path below docs/."""

BOUNDS = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than", "min_length": "entries: at least"}
LINK = re.compile(r"(?<!!)\[([^\]]*)\]\(([^)\s]+)\)")
MARKER = re.compile(r"<!-- options: (\w+) -->")
FURTHER = "<!-- further public names -->"


def describe_type(hint: Any) -> str:
    """Return a type as a reader of a recipe understands it.

    >>> describe_type(Literal["int8", "float"] | None)
    '`int8`, `float`'
    """
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        limits = [
            f"{words} {getattr(bound, name)}"
            for bound in arguments[1:]
            for name, words in BOUNDS.items()
            if getattr(bound, name, None) is not None
        ]
        return ", ".join([describe_type(arguments[0]), *limits])
    if origin in (Union, UnionType):
        return " or ".join(describe_type(argument) for argument in arguments if argument is not type(None))
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in arguments)
    if origin in (tuple, list):
        return f"list of {describe_type(arguments[0])}"
    if origin is not None:
        return "mapping"
    return {"int": "whole number", "float": "number", "bool": "true or false", "str": "text"}.get(
        getattr(hint, "__name__", ""), str(hint)
    )


def describe_default(option: FlatField) -> str:
    """Return the default of an option as a recipe writes it; empty where there is none."""
    value = option.default
    if value is None or value is MISSING:
        return ""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, tuple):
        return f"`[{', '.join(map(str, value))}]`"
    return f"`{value}`"


def option_helps(step: type) -> dict[str, str]:
    """Return what a step's docstring says of each option, or the comment ``#:`` beside it."""
    from limbeck.cli.technique_commands import field_helps

    comments = dict(re.findall(r"^    (\w+): .*?#: (.*)$", inspect.getsource(step), re.MULTILINE))
    return {**comments, **field_helps(step)}


def options_table(name: str) -> str:
    """Return the table of a step's options, in Markdown."""
    import limbeck.techniques  # noqa: F401 registers the steps
    from limbeck.core.field_groups import fields_of
    from limbeck.core.step import REGISTRY

    step = REGISTRY[name]
    options, helps = fields_of(step), option_helps(step)
    lines = ["| option | values | default | meaning |", "|---|---|---|---|"]
    for option in options:
        cells = (
            f"`{option.name}`",
            describe_type(option.hint),
            describe_default(option),
            helps.get(option.name, ""),
        )
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) if options else "This step has no options."


def further_names(markdown: str) -> str:
    """Return a section for the public names that a page of the reference does not have; empty if it has all."""
    import limbeck

    listed = {path.rpartition(".")[2] for path in re.findall(r"^::: ([\w.]+)$", markdown, re.MULTILINE)}
    exported = {name: getattr(limbeck, name) for name in limbeck.__all__ if name not in listed}
    blocks = [f"::: {value.__module__}.{value.__qualname__}" for value in exported.values() if callable(value)]
    return "\n\n".join(["## Further names", *blocks]) if blocks else ""


def site_link(text: str, target: str, page: str, source: str) -> str:
    """Return a link as the site needs it.

    Args:
        text: What the reader sees.
        target: Where the link leads, relative to ``source``.
        page: The page's path below docs/.
        source: The page's path in the repository.
    """
    if re.match(r"[a-z]+:|#", target):
        return f"[{text}]({target})"
    path, _, anchor = target.partition("#")
    path = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
    inside = OUTSIDE.get(path) or (path.removeprefix("docs/") if path.startswith("docs/") else None)
    if inside is None:
        return text
    if not posixpath.splitext(inside)[1]:
        inside += "/index.md"
    relative = posixpath.relpath(inside, posixpath.dirname(page) or ".")
    return f"[{text}]({relative}{'#' + anchor if anchor else ''})"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that live outside docs/."""
    from mkdocs.structure.files import File

    for source, page in OUTSIDE.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Fill in tables of options, and lead links to where the site has their targets."""
    path = page.file.src_uri
    source = {shown: outside for outside, shown in OUTSIDE.items()}.get(path, f"docs/{path}")
    parts = re.split(r"(```.*?```)", markdown, flags=re.DOTALL)  # code stays as it is
    for index in range(0, len(parts), 2):
        parts[index] = LINK.sub(lambda found: site_link(*found.groups(), path, source), parts[index])
        parts[index] = MARKER.sub(lambda found: options_table(found[1]), parts[index])
    filled = "".join(parts)
    return filled.replace(FURTHER, further_names(filled)) if FURTHER in filled else filled
