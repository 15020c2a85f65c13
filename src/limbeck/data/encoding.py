"""How text becomes token ids: decided once, followed by everything that measures, trains or serves a model.

An artefact carries the description in ``limbeck.json`` and, as far as the format can say it, inside ``tokenizer.json``
itself: :meth:`TextEncoding.bake` writes truncation, segment ids and the space before words into it, so that
``tokenizers.Tokenizer.from_file`` gives the ids that were measured.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol

from limbeck.core.tokenizer import largest_length, spaced, with_spaces, without_segments


class Encodings(Protocol):
    """What a tokenizer of transformers returns for several texts."""

    def __getitem__(self, name: str) -> Any:
        """Return the rows of an input."""
        ...

    def get(self, name: str) -> Any:
        """Return the rows of an input, or None."""
        ...

    def word_ids(self, index: int) -> list[int | None]:
        """Return the word of every token of a row; None for special tokens."""
        ...


class TaskTokenizer(Protocol):
    """The part of transformers' fast tokenizers that encoding needs."""

    model_input_names: list[str]
    model_max_length: int
    truncation_side: str
    pad_token_id: int | None

    @property
    def backend_tokenizer(self) -> Any:
        """Return the ``tokenizers.Tokenizer`` behind it."""
        ...

    def __call__(self, texts: Any, pairs: Any = None, **options: Any) -> Encodings:
        """Encode texts."""
        ...


@dataclass(frozen=True)
class TextEncoding:
    """How the texts of a task become token ids.

    Attributes:
        max_length: Tokens after which a text, or a pair of texts, is cut; special tokens count.
        truncation_side: The side that is cut off; of a pair, the longer text is cut first.
        token_type_ids: Whether the second text of a pair has segment id 1; without, all segment ids are 0.
        words: Whether a text is given as a list of words, each with a label, or as running text.
        split_special_tokens: Whether special tokens that stand in a text are read as letters.
    """

    max_length: int
    truncation_side: Literal["left", "right"] = "right"
    token_type_ids: bool = True
    words: bool = False
    split_special_tokens: bool = False

    @classmethod
    def of(cls, tokenizer: TaskTokenizer, max_length: int, *, words: bool = False) -> TextEncoding:
        """Describe how a tokenizer encodes.

        Args:
            tokenizer: A fast tokenizer of transformers.
            max_length: Where to cut, in tokens; a smaller largest length of the tokenizer goes before it.
            words: Whether texts are lists of words.
        """
        return cls(
            max_length=min(max_length, largest_length(tokenizer) or max_length),
            truncation_side="left" if tokenizer.truncation_side == "left" else "right",
            token_type_ids="token_type_ids" in tokenizer.model_input_names,
            words=words,
            split_special_tokens=bool(getattr(tokenizer, "split_special_tokens", False)),
        )

    def to_json(self) -> dict[str, Any]:
        """Return plain values, as ``limbeck.json`` has them."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> TextEncoding:
        """Inverse of :meth:`to_json`."""
        return cls(**data)

    def encode(self, tokenizer: TaskTokenizer, texts: Sequence[Any], pairs: Sequence[str] | None = None) -> Encodings:
        """Encode texts without padding.

        Args:
            tokenizer: The tokenizer that this describes.
            texts: Strings, or lists of words.
            pairs: Second texts.

        Returns:
            ``input_ids`` and, where there are any, ``token_type_ids``; ragged rows.
        """
        reader = spaced(tokenizer) if self.words else tokenizer
        encodings: Encodings = reader(
            list(texts),
            list(pairs) if pairs is not None else None,
            truncation=True,
            max_length=self.max_length,
            is_split_into_words=self.words,
            return_attention_mask=False,
            return_token_type_ids=self.token_type_ids,
            split_special_tokens=self.split_special_tokens,
        )
        return encodings

    def bake(self, tokenizer_json: str) -> str:
        """Write this description into the text of a ``tokenizer.json``.

        Truncation with its side and length, no padding, a space before each word of a list, and segment ids of 0 where
        none were measured. ``split_special_tokens`` has no place there: ``tokenizers`` takes it as an attribute.
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


def first_pieces(word_ids: Sequence[int | None], words: int) -> list[int | None]:
    """Find the first token of every word of a text.

    Args:
        word_ids: The word of every token; None for special tokens.
        words: Words in the text.

    Returns:
        The position of each word's first token; None for a word that has none, because the text was cut before it or
        because it consists of characters that the tokenizer drops.

    >>> first_pieces([None, 0, 0, 2, None], 4)
    [1, None, 3, None]
    """
    positions: dict[int, int] = {}
    for position, word in enumerate(word_ids):
        if word is not None:
            positions.setdefault(word, position)
    return [positions.get(word) for word in range(words)]


def default_label(labels: Sequence[str]) -> int:
    """Choose the label of a word that a model did not see: 'O' where there is one, else the first.

    >>> default_label(["B-PER", "O"]), default_label(["noun", "verb"])
    (1, 0)
    """
    return list(labels).index("O") if "O" in labels else 0
