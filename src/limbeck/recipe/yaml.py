"""The part of YAML that recipes are written in: plain mappings, lists and scalars.

Anchors, aliases, tags and repeated keys are refused; ``1e-4`` is a number and ``no`` is a word (YAML 1.2).
"""

from __future__ import annotations

import re
from typing import Any

import yaml

from limbeck.errors import RecipeError

_TAG = "tag:yaml.org,2002:"


class _Loader(yaml.SafeLoader):
    def compose_node(self, parent: Any, index: Any) -> Any:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise yaml.MarkedYAMLError(
                problem=f"anchors and aliases ('{event.anchor}') have no place in a recipe; "
                "share steps with 'use: file.yaml'",
                problem_mark=event.start_mark,
            )
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.MarkedYAMLError(problem=f"the key '{key.value}' appears twice", problem_mark=key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


_REPLACED = {f"{_TAG}bool", f"{_TAG}float", f"{_TAG}timestamp", f"{_TAG}merge"}
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag not in _REPLACED]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(f"{_TAG}bool", re.compile("^(?:true|True|false|False)$"), list("tTfF"))
_FLOAT = re.compile(r"^(?:[-+]?(?:\d+\.\d*(?:[eE][-+]?\d+)?|\d+[eE][-+]?\d+|\.\d+(?:[eE][-+]?\d+)?)|[-+]?\.inf|\.nan)$")
_Loader.add_implicit_resolver(f"{_TAG}float", _FLOAT, list("-+0123456789."))


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


_Dumper.add_implicit_resolver(f"{_TAG}float", _FLOAT, list("-+0123456789."))  # so that the text '1e-4' is quoted


def load(text: str, where: str = "recipe") -> Any:
    """Plain data from YAML text; a mistake names the file and the line."""
    try:
        return yaml.load(text, _Loader)  # a SafeLoader: builds plain data only
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        location = f"{where}, line {mark.line + 1}, column {mark.column + 1}" if mark else where
        raise RecipeError(f"{location}: {getattr(error, 'problem', None) or error}") from None


def dump(data: Any) -> str:
    """YAML text: innermost collections on one line, no anchors, order kept."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, default_flow_style=None, width=110, allow_unicode=True)
