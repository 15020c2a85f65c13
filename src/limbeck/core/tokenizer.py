"""Tokenizers as their models need them: limits, segment ids, and a space before each word of a list.

``model/checkpoints.py`` fits every tokenizer to the model that it is opened for, so that all who use the pair
afterwards, and the folder that they are saved to, have the same one. The JSON here is that of ``tokenizer.json``.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

LARGEST_LENGTH = 10**9
"""From here on a largest length is the 1e30 of a tokenizer that has none."""
SEGMENTS = "token_type_ids"


class FastTokenizer(Protocol):
    """The part of transformers' fast tokenizers that is changed here."""

    model_input_names: list[str]
    model_max_length: int
    truncation_side: str
    init_kwargs: dict[str, Any]

    @property
    def backend_tokenizer(self) -> Any:
        """Return the ``tokenizers.Tokenizer`` behind it."""
        ...


def largest_length(tokenizer: Any) -> int | None:
    """Tokens that a tokenizer says its model takes at most; None where it says nothing."""
    length = getattr(tokenizer, "model_max_length", None)
    return int(length) if length is not None and 0 < length < LARGEST_LENGTH else None


def fit(tokenizer: FastTokenizer, *, positions: int, token_types: int, words: bool) -> None:
    """Make a tokenizer give what a model can read, in place.

    Args:
        tokenizer: A tokenizer that was opened for the model and is nobody else's.
        positions: Tokens that the model has positions for; a larger limit, or none, becomes this.
        token_types: Segment ids that the model knows; of one or none, the tokenizer gives none.
        words: Whether the model labels words; the tokenizer then puts a space before each (see :func:`space_words`).
    """
    tokenizer.model_max_length = min(positions, largest_length(tokenizer) or positions)
    if token_types < 2:
        tokenizer.model_input_names = [name for name in tokenizer.model_input_names if name != SEGMENTS]
    if words:
        space_words(tokenizer)


def note_settings(tokenizer: Any) -> None:
    """See that settings which were changed in Python are saved with a tokenizer; transformers saves those it read."""
    values = getattr(tokenizer, "init_kwargs", None)
    if values is None:
        return
    for name in ("truncation_side", "model_input_names", "split_special_tokens"):
        if hasattr(tokenizer, name):
            values[name] = getattr(tokenizer, name)


def space_words(tokenizer: FastTokenizer) -> None:
    """Make a tokenizer of bytes or of SentencePiece put a space before every word of a list, in place.

    Trained on running text, it has one kind of piece for the beginning of a word and another for its inside; without
    the space, each word of a list would be read as the inside of one.
    """
    backend = tokenizer.backend_tokenizer
    before = _text_state(backend)
    after = with_spaces(before)
    if after == before:
        return
    parts = _built(after)
    backend.normalizer, backend.pre_tokenizer = parts.normalizer, parts.pre_tokenizer
    tokenizer.add_prefix_space = True  # type: ignore[attr-defined]  # its class builds it anew when it is opened again
    tokenizer.init_kwargs["add_prefix_space"] = True


def spaced(tokenizer: Any) -> Any:
    """The tokenizer if it puts a space before every word of a list; else a copy that does."""
    state = _text_state(tokenizer.backend_tokenizer)
    if with_spaces(state) == state:
        return tokenizer
    made = copy.deepcopy(tokenizer)
    space_words(made)
    return made


def _text_state(backend: Any) -> dict[str, Any]:
    """The JSON of what a tokenizer does to a text before it looks for pieces."""

    def state(part: Any) -> Any:
        return None if part is None else json.loads(part.__getstate__())

    return {"normalizer": state(backend.normalizer), "pre_tokenizer": state(backend.pre_tokenizer)}


def _built(state: Mapping[str, Any]) -> Any:
    """An empty tokenizer with this normalizer and pre-tokenizer."""
    from tokenizers import Tokenizer
    from tokenizers.models import BPE

    return Tokenizer.from_str(json.dumps({**json.loads(Tokenizer(BPE()).to_str()), **state}))


def with_spaces(state: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON of a tokenizer that puts a space before every word of a list.

    Byte-level and SentencePiece pre-tokenizers have a switch. Where others split before a byte-level one, its switch
    would put a space before each of their splits, so the normalizer puts it.
    """
    before = state.get("pre_tokenizer")
    if _bytes_after_splits(before):
        return {**state, "normalizer": _prepending(state.get("normalizer"))}
    return {**state, "pre_tokenizer": _switched(before)}


def _parts(state: Any, name: str) -> list[Any]:
    if not isinstance(state, Mapping):
        return []
    return list(state[name]) if state.get("type") == "Sequence" else [state]


def _bytes_after_splits(state: Any) -> bool:
    kinds = [part.get("type") for part in _parts(state, "pretokenizers")]
    return "ByteLevel" in kinds[1:]


def _prepending(state: Any) -> dict[str, Any]:
    space, parts = {"type": "Prepend", "prepend": " "}, _parts(state, "normalizers")
    if space in parts:
        return dict(state)
    return {"type": "Sequence", "normalizers": [*parts, space]} if parts else space


def _switched(state: Any) -> Any:
    if not isinstance(state, Mapping):
        return state
    if state.get("type") == "ByteLevel":
        return {**state, "add_prefix_space": True}
    if state.get("type") == "Metaspace" and state.get("prepend_scheme", "always") != "always":
        return {**state, "prepend_scheme": "always"}
    if state.get("type") == "Sequence":
        return {**state, "pretokenizers": [_switched(part) for part in state["pretokenizers"]]}
    return state


def without_segments(state: Any) -> Any:
    """The JSON of a post-processor that gives every token segment id 0.

    Args:
        state: A post-processor; None, or one that leaves segment ids alone, gives the second text of a pair id 1.
    """
    flat = _flattened(state)
    if _frames(flat):
        return flat
    plain: dict[str, Any] = {"type": "TemplateProcessing", "single": [_text("A")], "pair": [_text("A"), _text("B")]}
    plain["special_tokens"] = {}
    return plain if flat is None else {"type": "Sequence", "processors": [*_parts(flat, "processors"), plain]}


def _frames(state: Any) -> bool:
    """Whether a post-processor sets segment ids."""
    kinds = {part.get("type") for part in _parts(state, "processors")}
    return bool(kinds & {"TemplateProcessing", "RobertaProcessing"})


def _text(name: str) -> dict[str, Any]:
    return {"Sequence": {"id": name, "type_id": 0}}


def _token(name: str) -> dict[str, Any]:
    return {"SpecialToken": {"id": name, "type_id": 0}}


def _flattened(state: Any) -> Any:
    if not isinstance(state, Mapping):
        return state
    if state.get("type") == "BertProcessing":
        (sep, sep_id), (cls, cls_id) = state["sep"], state["cls"]
        single = [_token(cls), _text("A"), _token(sep)]
        return {
            "type": "TemplateProcessing",
            "single": single,
            "pair": [*single, _text("B"), _token(sep)],
            "special_tokens": {
                name: {"id": name, "ids": [number], "tokens": [name]} for name, number in ((cls, cls_id), (sep, sep_id))
            },
        }
    if state.get("type") == "TemplateProcessing":
        return {**state, "single": _zeros(state["single"]), "pair": _zeros(state["pair"])}
    if state.get("type") == "Sequence":
        return {**state, "processors": [_flattened(part) for part in state["processors"]]}
    return state


def _zeros(pieces: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [{kind: {**value, "type_id": 0} for kind, value in piece.items()} for piece in pieces]
