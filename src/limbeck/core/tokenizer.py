"""Adapt tokenizers to their models: length limits, segment ids, and a space before each word of a list.

``model/checkpoints.py`` adapts every tokenizer to the model it is opened for, so that later users of the pair, and the
folder it is saved to, share one tokenizer. JSON in this module has the format of ``tokenizer.json``.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from limbeck.core.judged_texts import Document, Query
from limbeck.core.sentence_embedding import DOCUMENT_PROMPTS, QUERY_PROMPTS, SentenceEmbedding

if TYPE_CHECKING:
    from tokenizers import Tokenizer

LARGEST_LENGTH = 10**9
"""Larger values stand for no limit (transformers stores 1e30)."""
SEGMENTS = "token_type_ids"

State = Mapping[str, Any]
"""JSON of one part of a tokenizer, or of several; values are Any because every type of part has fields of its own."""


class FastTokenizer(Protocol):
    """The part of transformers' fast tokenizers that this module changes."""

    model_input_names: list[str]
    model_max_length: int
    truncation_side: str
    init_kwargs: dict[str, Any]

    @property
    def backend_tokenizer(self) -> Tokenizer:
        """The ``tokenizers.Tokenizer`` behind it."""
        ...


class HasBackend(Protocol):
    """A tokenizer whose backend alone is needed."""

    @property
    def backend_tokenizer(self) -> Tokenizer:
        """The ``tokenizers.Tokenizer`` behind it."""
        ...


T = TypeVar("T", bound=HasBackend)


def largest_length(tokenizer: object) -> int | None:
    """Return a tokenizer's limit of tokens; None if it has none."""
    length = getattr(tokenizer, "model_max_length", None)
    return int(length) if length is not None and 0 < length < LARGEST_LENGTH else None


def fit(tokenizer: FastTokenizer, *, positions: int, token_types: int, words: bool) -> None:
    """Adapt a tokenizer to its model, in place.

    Args:
        tokenizer: A tokenizer opened for this model alone.
        positions: Positions of the model; the tokenizer's limit is reduced to it.
        token_types: Segment ids of the model; below two, the tokenizer returns none.
        words: Whether the model labels words; the tokenizer then puts a space before each (see :func:`space_words`).
    """
    tokenizer.model_max_length = min(positions, largest_length(tokenizer) or positions)
    if token_types < 2:
        tokenizer.model_input_names = [name for name in tokenizer.model_input_names if name != SEGMENTS]
    if words:
        space_words(tokenizer)


def fit_embedding(tokenizer: FastTokenizer, embedding: SentenceEmbedding) -> None:
    """Adapt a tokenizer to a model that makes vectors, in place: maximum length, lower case, and prompts.

    Args:
        tokenizer: A tokenizer opened for this model alone.
        embedding: How the model makes vectors.
    """
    from tokenizers import normalizers

    if embedding.max_length is not None:
        tokenizer.model_max_length = min(embedding.max_length, largest_length(tokenizer) or embedding.max_length)
    tokenizer.prompt = embedding.prompt  # type: ignore[attr-defined]  # read by TextEncoding.of
    tokenizer.search_prompts = {  # type: ignore[attr-defined]  # read by with_search_prompts
        Query: embedding.prompt_of(QUERY_PROMPTS),
        Document: embedding.prompt_of(DOCUMENT_PROMPTS),
    }
    backend = tokenizer.backend_tokenizer
    if embedding.lower_case and "Lowercase" not in str(_text_state(backend)["normalizer"]):
        own = [] if backend.normalizer is None else [backend.normalizer]
        backend.normalizer = normalizers.Sequence([normalizers.Lowercase(), *own])


def note_settings(tokenizer: object) -> None:
    """Copy settings that were changed in Python to ``init_kwargs``, which is what transformers saves."""
    saved = getattr(tokenizer, "init_kwargs", None)  # not every tokenizer is one of transformers'
    if saved is None:
        return
    for name in ("truncation_side", "model_input_names", "split_special_tokens"):
        if hasattr(tokenizer, name):
            saved[name] = getattr(tokenizer, name)


def space_words(tokenizer: FastTokenizer) -> None:
    """Make a byte-level or SentencePiece tokenizer put a space before every word of a list, in place.

    Trained on running text, it has different pieces for the beginning and the inside of a word; without the space,
    each word of a list would be read as the inside of one.
    """
    backend = tokenizer.backend_tokenizer
    before = _text_state(backend)
    after = with_spaces(before)
    if after == before:
        return
    template = _tokenizer_with(after)
    backend.normalizer, backend.pre_tokenizer = template.normalizer, template.pre_tokenizer
    tokenizer.add_prefix_space = True  # type: ignore[attr-defined]  # read by its class when it is opened again
    tokenizer.init_kwargs["add_prefix_space"] = True


def spaced(tokenizer: T) -> T:
    """Return the tokenizer if it puts a space before every word of a list, or else a copy that does."""
    state = _text_state(tokenizer.backend_tokenizer)
    if with_spaces(state) == state:
        return tokenizer
    duplicate = copy.deepcopy(tokenizer)
    space_words(duplicate)  # type: ignore[arg-type]  # every fast tokenizer has the other fields, too
    return duplicate


def _text_state(backend: Tokenizer) -> dict[str, Any]:
    """Return the JSON of a tokenizer's normalizer and pre-tokenizer."""
    parts = {"normalizer": backend.normalizer, "pre_tokenizer": backend.pre_tokenizer}
    return {name: None if part is None else json.loads(part.__getstate__()) for name, part in parts.items()}


def _tokenizer_with(state: State) -> Tokenizer:
    """Build an empty tokenizer with this normalizer and pre-tokenizer."""
    from tokenizers import Tokenizer
    from tokenizers.models import BPE

    return Tokenizer.from_str(json.dumps({**json.loads(Tokenizer(BPE()).to_str()), **state}))


def with_spaces(state: State) -> dict[str, Any]:
    """Change a tokenizer's JSON so that it puts a space before every word of a list.

    Byte-level and SentencePiece pre-tokenizers have an option for it. Where another pre-tokenizer splits before a
    byte-level one, that option would put a space before each split, so the normalizer does it.
    """
    pre_tokenizer = state.get("pre_tokenizer")
    if _bytes_after_splits(pre_tokenizer):
        return {**state, "normalizer": _prepend_space(state.get("normalizer"))}
    return {**state, "pre_tokenizer": _enable_space(pre_tokenizer)}


def _parts(state: State | None, name: str) -> list[Any]:
    if state is None:
        return []
    return list(state[name]) if state.get("type") == "Sequence" else [state]


def _bytes_after_splits(state: State | None) -> bool:
    kinds = [part.get("type") for part in _parts(state, "pretokenizers")]
    return "ByteLevel" in kinds[1:]


def _prepend_space(normalizer: State | None) -> dict[str, Any]:
    space, parts = {"type": "Prepend", "prepend": " "}, _parts(normalizer, "normalizers")
    if normalizer is not None and space in parts:
        return dict(normalizer)
    return {"type": "Sequence", "normalizers": [*parts, space]} if parts else space


def _enable_space(state: State | None) -> State | None:
    if state is None:
        return None
    if state.get("type") == "ByteLevel":
        return {**state, "add_prefix_space": True}
    if state.get("type") == "Metaspace" and state.get("prepend_scheme", "always") != "always":
        return {**state, "prepend_scheme": "always"}
    if state.get("type") == "Sequence":
        return {**state, "pretokenizers": [_enable_space(part) for part in state["pretokenizers"]]}
    return state


def without_segments(state: State | None) -> State | None:
    """Change a post-processor's JSON so that every token has segment id 0.

    Args:
        state: A post-processor. None, or one that does not set segment ids, gives the second text of a pair id 1.
    """
    zeroed = _zero_segments(state)
    if _sets_segments(zeroed):
        return zeroed
    plain: dict[str, Any] = {"type": "TemplateProcessing", "single": [_text("A")], "pair": [_text("A"), _text("B")]}
    plain["special_tokens"] = {}
    return plain if zeroed is None else {"type": "Sequence", "processors": [*_parts(zeroed, "processors"), plain]}


def _sets_segments(state: State | None) -> bool:
    """Return whether a post-processor sets segment ids."""
    kinds = {part.get("type") for part in _parts(state, "processors")}
    return bool(kinds & {"TemplateProcessing", "RobertaProcessing"})


def _text(name: str) -> dict[str, Any]:
    return {"Sequence": {"id": name, "type_id": 0}}


def _token(name: str) -> dict[str, Any]:
    return {"SpecialToken": {"id": name, "type_id": 0}}


def _zero_segments(state: State | None) -> State | None:
    if state is None:
        return None
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
        return {**state, "single": _zero_ids(state["single"]), "pair": _zero_ids(state["pair"])}
    if state.get("type") == "Sequence":
        return {**state, "processors": [_zero_segments(part) for part in state["processors"]]}
    return state


def _zero_ids(pieces: Sequence[State]) -> list[dict[str, Any]]:
    return [{kind: {**value, "type_id": 0} for kind, value in piece.items()} for piece in pieces]
