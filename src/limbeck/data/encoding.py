"""How text becomes token ids: defined once, used by everything that measures, trains or serves a model.

An artefact carries the definition in ``limbeck.json`` and, as far as the format allows, in ``tokenizer.json`` itself:
:meth:`TextEncoding.bake` writes truncation, segment ids and the space before words into it, so that
``tokenizers.Tokenizer.from_file`` yields the same ids that were measured.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol

from annotated_types import Ge

from limbeck.core.judged_texts import Document, Query
from limbeck.core.search_score import SearchScore
from limbeck.core.tokenizer import largest_length, spaced, with_spaces, without_segments

if TYPE_CHECKING:
    from tokenizers import Tokenizer


class Encodings(Protocol):
    """The result of a transformers tokenizer for several texts."""

    def __getitem__(self, name: str) -> Any:  # lists whose depth depends on the name
        """Return the rows of an input, such as ``input_ids``."""
        ...

    def get(self, name: str) -> list[list[int]] | None:
        """Return the rows of an input, or None."""
        ...

    def tokens(self, index: int) -> list[str]:
        """Return the tokens of a row."""
        ...

    def word_ids(self, index: int) -> list[int | None]:
        """Return the word index of every token of a row; None for special tokens."""
        ...


class TaskTokenizer(Protocol):
    """The part of a fast transformers tokenizer that encoding needs."""

    model_input_names: list[str]
    model_max_length: int
    truncation_side: str
    pad_token_id: int | None

    @property
    def backend_tokenizer(self) -> Tokenizer:
        """The underlying ``tokenizers.Tokenizer``."""
        ...

    def __call__(self, texts: Sequence[Any], pairs: Sequence[str] | None = None, **options: object) -> Encodings:
        """Encode texts, with options as in transformers."""
        ...


@dataclass(frozen=True)
class TextEncoding:
    """How to turn the texts of a task into token ids.

    Attributes:
        max_length: Maximum tokens of a text, or of a pair of texts, special tokens included; longer ones are truncated.
        truncation_side: The side that is cut; of a pair, the longer text is cut first.
        token_type_ids: Whether the second text of a pair has segment id 1; if not, all segment ids are 0.
        words: Whether a text is a list of words, each with a label, rather than running text.
        split_special_tokens: Whether special tokens that occur in a text are read as ordinary characters.
        prompt: What is put before each text.
        prompts: Of a model that makes vectors, what is put before a 'query' and before a 'document' of a search.
    """

    max_length: Annotated[int, Ge(1)]
    truncation_side: Literal["left", "right"] = "right"
    token_type_ids: bool = True
    words: bool = False
    split_special_tokens: bool = False
    prompt: str = ""
    prompts: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, tokenizer: TaskTokenizer, max_length: int, *, words: bool = False) -> TextEncoding:
        """Describe how a tokenizer encodes.

        Args:
            tokenizer: A fast tokenizer of transformers.
            max_length: Maximum tokens of a text; a smaller limit of the tokenizer takes precedence.
            words: Whether texts are lists of words.
        """
        return cls(
            max_length=min(max_length, largest_length(tokenizer) or max_length),
            truncation_side="left" if tokenizer.truncation_side == "left" else "right",
            token_type_ids="token_type_ids" in tokenizer.model_input_names,
            words=words,
            split_special_tokens=bool(getattr(tokenizer, "split_special_tokens", False)),
            prompt=str(getattr(tokenizer, "prompt", "")),
            prompts={part.__name__.lower(): text for part, text in getattr(tokenizer, "search_prompts", {}).items()},
        )

    def to_json(self) -> dict[str, Any]:
        """Return plain values, as in ``limbeck.json``."""
        return asdict(self)

    @property
    def stride(self) -> int:
        """The tokens that two windows of a long text share."""
        return self.max_length // 4

    def encode_windows(self, tokenizer: TaskTokenizer, texts: Sequence[Sequence[str]]) -> Encodings:
        """Encode lists of words without padding, long ones as overlapping windows.

        Args:
            tokenizer: The tokenizer whose encoding this is.
            texts: Lists of words.

        Returns:
            As for :meth:`encode`, a row for each window; the first one of a text is what :meth:`encode` gives. In
            addition ``overflow_to_sample_mapping`` has the text of each window, and ``offset_mapping`` and
            ``special_tokens_mask`` describe its tokens; offsets are those in the word.
        """
        return self._encode(
            tokenizer,
            texts,
            None,
            return_overflowing_tokens=True,
            stride=self.stride,
            return_offsets_mapping=True,
            return_special_tokens_mask=True,
        )

    def encode(
        self,
        tokenizer: TaskTokenizer,
        texts: Sequence[Any],
        pairs: Sequence[str] | None = None,
        prompts: Sequence[str] | None = None,
    ) -> Encodings:
        """Encode texts without padding.

        Args:
            tokenizer: The tokenizer whose encoding this is.
            texts: Strings, or lists of words.
            pairs: Second texts.
            prompts: What is put before each text, where that is not :attr:`prompt`.

        Returns:
            ``input_ids`` and, where there are any, ``token_type_ids``, as ragged rows.
        """
        if prompts is not None:
            texts = [prompt + text for prompt, text in zip(prompts, texts, strict=True)]
            return replace(self, prompt="")._encode(tokenizer, texts, pairs)
        return self._encode(tokenizer, texts, pairs)

    def _encode(
        self, tokenizer: TaskTokenizer, texts: Sequence[Any], pairs: Sequence[str] | None, **options: object
    ) -> Encodings:
        reader = spaced(tokenizer) if self.words else tokenizer
        encodings: Encodings = reader(
            [self.prompt + text for text in texts] if self.prompt else list(texts),
            list(pairs) if pairs is not None else None,
            truncation=True,
            max_length=self.max_length,
            is_split_into_words=self.words,
            return_attention_mask=False,
            return_token_type_ids=self.token_type_ids,
            split_special_tokens=self.split_special_tokens,
            **options,
        )
        return encodings

    def bake(self, tokenizer_json: str) -> str:
        """Write this encoding into the text of a ``tokenizer.json``.

        That is truncation with its side and length, no padding, a space before each word of a list, and segment ids of
        0 where they are not used. ``split_special_tokens`` cannot be written: ``tokenizers`` takes it as an attribute.
        """
        state = json.loads(tokenizer_json)
        state["truncation"] = {
            "direction": self.truncation_side.capitalize(),
            "max_length": self.max_length,
            "strategy": "LongestFirst",
            "stride": 0,
        }
        state["padding"] = None
        if self.words:
            state = with_spaces(state)
        if not self.token_type_ids:
            state["post_processor"] = without_segments(state["post_processor"])
        return json.dumps(state, ensure_ascii=False)


def part_of_search(label: object, *, second: bool = False) -> type | None:
    """Return whether a text is a ``Query`` or a ``Document`` of a search; None if it is of none.

    Args:
        label: The label of its row.
        second: Whether it is the second text of a pair.
    """
    if isinstance(label, SearchScore):
        return Document if second else Query
    return type(label) if isinstance(label, (Query, Document)) else None


def search_prompts(tokenizer: TaskTokenizer, labels: Sequence[object], *, second: bool = False) -> list[str] | None:
    """Return what a model wants before each text of a search; None where that is what it has before every text.

    Args:
        tokenizer: The model's tokenizer.
        labels: The label of each text, which says what part of a search it is, if it is any.
        second: Whether the texts are the second ones of pairs.
    """
    prompts: Mapping[type, str] = getattr(tokenizer, "search_prompts", {})
    usual = getattr(tokenizer, "prompt", "")
    if {usual, *prompts.values()} == {usual}:
        return None
    parts = [part_of_search(label, second=second) for label in labels]
    if not set(parts) & prompts.keys():
        return None
    return [usual if part is None else prompts[part] for part in parts]


def first_pieces(word_ids: Sequence[int | None], words: int) -> list[int | None]:
    """Find the first token of every word of a text.

    Args:
        word_ids: The word index of every token; None for special tokens.
        words: Number of words in the text.

    Returns:
        The position of each word's first token; None for a word without one, because the text was truncated before it
        or because the tokenizer drops all its characters.

    >>> first_pieces([None, 0, 0, 2, None], 4)
    [1, None, 3, None]
    """
    positions: dict[int, int] = {}
    for position, word in enumerate(word_ids):
        if word is not None:
            positions.setdefault(word, position)
    return [positions.get(word) for word in range(words)]
