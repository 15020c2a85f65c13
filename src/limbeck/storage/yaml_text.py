"""The part of YAML 1.2 that people write files in: plain mappings, lists and scalars, with a position in every error.

ruamel.yaml parses; this module turns its nodes into plain data by the core schema of YAML 1.2 (``1e-4`` is a number,
``no`` and ``1:30`` are words, ``0777`` is 777), because ruamel's own schema takes more than that (``0x_``, ``1_000``,
dates). Anchors, aliases, tags, repeated keys and keys that are not scalars are refused.
"""

from __future__ import annotations

import re
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any  # Any: the values of YAML are of every type

from limbeck.errors import InputError, LimbeckError
from limbeck.storage.text_file import read_text

if TYPE_CHECKING:
    from ruamel.yaml import YAML
    from ruamel.yaml.nodes import Node

MAX_DEPTH = 50
"""Levels of lists and mappings within each other."""

MAX_CHARACTERS = 100_000
"""The length of a file: some 2,000 lines; the slowest to parse take about two seconds."""

_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_BOOL = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_INFINITE = re.compile(r"([-+]?)\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_MAX_DIGITS = 300
"""Digits of a number; more overflow a float."""


def load(text: str, where: str = "recipe", *, typed: bool = True, error: type[LimbeckError] = InputError) -> Any:
    """Read plain data from YAML text.

    Args:
        text: The YAML.
        where: The file, for messages.
        typed: Whether scalars become numbers, booleans and null; otherwise all but null stay text.
        error: The class of the error.

    Raises:
        LimbeckError: The text is no such YAML; the message says where and why.

    >>> load("{keep: 0.5, name: no, layers: [1, 2]}")
    {'keep': 0.5, 'name': 'no', 'layers': [1, 2]}
    """
    if len(text) > MAX_CHARACTERS:
        raise error(f"{where}: has {len(text):,} characters; at most {MAX_CHARACTERS:,} are read as YAML")
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    try:
        return _Reader(typed).value(_parser().compose(text))
    except MarkedYAMLError as problem:
        mark = problem.problem_mark or problem.context_mark
        position = f"{where}, line {mark.line + 1}, column {mark.column + 1}" if mark else where
        raise error(f"{position}: {problem.problem or problem.context}") from None
    except (YAMLError, ValueError, OverflowError) as problem:  # a character that YAML does not allow, escaped or not
        raise error(f"{where}: {' '.join(str(problem).split())}") from None


def load_file(path: Path, what: str = "recipe", *, typed: bool = True, error: type[LimbeckError] = InputError) -> Any:
    """Read plain data from a YAML file.

    Args:
        path: The file.
        what: What the file should be, for messages.
        typed: Whether scalars become numbers, booleans and null; otherwise all but null stay text.
        error: The class of the error.

    Raises:
        LimbeckError: It is no file of that size, not UTF-8, or no such YAML.
    """
    try:
        text = read_text(path, 4 * MAX_CHARACTERS)
    except InputError as problem:
        raise error(f"{problem} (a {what} is YAML in UTF-8)") from None
    return load(text, str(path), typed=typed, error=error)


def dump(data: Any) -> str:
    """Write YAML text: innermost collections on one line, no anchors, order kept.

    >>> print(dump({"steps": [{"prune": {"keep": 0.5}}], "name": "1e-4"}), end="")
    steps:
    - prune: {keep: 0.5}
    name: '1e-4'
    """
    stream = StringIO()
    _writer().dump(data, stream)
    return stream.getvalue().removesuffix("...\n")  # which marks the end of a bare scalar


class _Reader:
    """Turns nodes into plain data."""

    def __init__(self, typed: bool) -> None:
        self.typed = typed

    def value(self, node: Node | None) -> Any:
        from ruamel.yaml.nodes import MappingNode, ScalarNode, SequenceNode

        if node is None:
            return None
        if isinstance(node, ScalarNode):
            node.value.encode()  # a lone surrogate, which no file could hold
            return node.value if node.style else self._plain(node)
        if isinstance(node, SequenceNode):
            return [self.value(child) for child in node.value]
        assert isinstance(node, MappingNode)
        mapping: dict[str, Any] = {}
        for key, child in node.value:
            if not isinstance(key, ScalarNode):
                raise _problem("a key should be text, not a list or a mapping", key)
            if key.value in mapping:
                raise _problem(f"the key '{key.value}' appears twice", key)
            mapping[key.value] = self.value(child)
        return mapping

    def _plain(self, node: Node) -> Any:
        """Return the value of a scalar without quotes."""
        text = node.value
        if text in _NULL:
            return None
        if not self.typed:
            return text
        if text in _BOOL:
            return _BOOL[text]
        if _INT.fullmatch(text) or _FLOAT.fullmatch(text):
            if len(text) > _MAX_DIGITS:
                raise _problem(f"a number of {len(text):,} digits", node)
            base = {"0o": 8, "0x": 16}.get(text[:2])
            return int(text[2:], base) if base else int(text) if _INT.fullmatch(text) else float(text)
        return float(text.replace(".", "", 1)) if _INFINITE.fullmatch(text) else text


def _problem(text: str, node: Node) -> Exception:
    from ruamel.yaml.error import MarkedYAMLError

    return MarkedYAMLError(None, None, text, node.start_mark)


def _parser() -> YAML:
    """Create a parser that refuses anchors, aliases and tags before it follows them."""
    from ruamel.yaml import YAML
    from ruamel.yaml.composer import Composer
    from ruamel.yaml.error import MarkedYAMLError
    from ruamel.yaml.events import AliasEvent

    class PlainComposer(Composer):
        def compose_node(self, parent: Any, index: Any) -> Any:
            event = self.parser.peek_event()
            if isinstance(event, AliasEvent) or event.anchor is not None:
                text = f"anchors and aliases ('{event.anchor}') are not supported"
                raise MarkedYAMLError(None, None, text, event.start_mark)
            if event.ctag is not None:
                raise MarkedYAMLError(None, None, f"tags ('{event.ctag}') are not supported", event.start_mark)
            if self.depth >= MAX_DEPTH:
                raise MarkedYAMLError(None, None, f"nested more than {MAX_DEPTH} levels deep", event.start_mark)
            return super().compose_node(parent, index)

    parser = YAML(typ="safe", pure=True)
    parser.Composer = PlainComposer
    return parser


def _writer() -> YAML:
    """Create a writer of the style that recipes have."""
    from ruamel.yaml import YAML

    parser = YAML(typ="safe", pure=True)
    writer: Any = parser  # its settings have no types
    writer.default_flow_style = None  # innermost collections alone
    writer.sort_base_mapping_type_on_output = False
    writer.allow_unicode = True
    writer.width = 110
    writer.representer.ignore_aliases = lambda data: True
    return parser
