"""How the hidden states of a text become one vector, in the terms of sentence-transformers.

Tokens are pooled, pass through dense layers, if there are any, and are normalized. A model folder of ours has this as
the entry ``sentence_embedding`` of its config.json; ``model/sentence_transformers.py`` reads it from their folders.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from limbeck.errors import InputError, nearest, shown

SECTION = "sentence_embedding"
"""The entry of config.json."""
POOLINGS = ("mean", "cls", "max", "mean_sqrt_len_tokens", "lasttoken")
"""Modes of sentence-transformers' ``Pooling`` that are supported."""
ACTIVATIONS = ("identity", "tanh", "gelu", "relu", "sigmoid", "silu")
"""Activations of dense layers."""
QUERY_PROMPTS, DOCUMENT_PROMPTS = ("query",), ("document", "passage", "corpus")
"""Names of the prompts of texts that search, and of those that are found; the first that a model has counts, as in
``encode_query`` and ``encode_document`` of sentence-transformers."""


@dataclass(frozen=True)
class Dense:
    """A dense layer after pooling: its output width, whether it has a bias, and its activation."""

    width: int
    bias: bool = True
    activation: str = "identity"


@dataclass(frozen=True)
class SentenceEmbedding:
    """How hidden states become a vector.

    Attributes:
        pooling: One of ``POOLINGS``.
        dense: Dense layers, first to last.
        normalize: Whether the vector is scaled to length 1.
        prompts: Text put before a text, by name, such as 'query'.
        default_prompt: Name of the prompt that is used unless the caller names one.
        max_length: Longest text in tokens, special tokens included; None: as the tokenizer and the positions say.
        lower_case: Whether texts are lower-cased before the tokenizer sees them.

    >>> SentenceEmbedding.from_json(SentenceEmbedding(dense=(Dense(8),)).to_json()) == SentenceEmbedding(
    ...     dense=(Dense(8),)
    ... )
    True
    """

    pooling: str = "mean"
    dense: tuple[Dense, ...] = ()
    normalize: bool = True
    prompts: Mapping[str, str] = field(default_factory=dict)
    default_prompt: str | None = None
    max_length: int | None = None
    lower_case: bool = False

    def __post_init__(self) -> None:
        if self.pooling not in POOLINGS:
            raise InputError(f"pooling {shown(self.pooling)} is not supported; {nearest(str(self.pooling), POOLINGS)}")
        for layer in self.dense:
            if layer.activation not in ACTIVATIONS:
                raise InputError(
                    f"activation {shown(layer.activation)} of a dense layer is not supported; "
                    f"{nearest(str(layer.activation), ACTIVATIONS)}"
                )
        if self.default_prompt is not None and self.default_prompt not in self.prompts:
            raise InputError(
                f"the default prompt {shown(self.default_prompt)} is not among the prompts; "
                f"{nearest(str(self.default_prompt), self.prompts)}"
            )

    @property
    def prompt(self) -> str:
        """Text that is put before each text; empty for none."""
        return "" if self.default_prompt is None else self.prompts[self.default_prompt]

    def prompt_of(self, names: Sequence[str]) -> str:
        """Return the first of these prompts that there is, as sentence-transformers chooses; else the default one."""
        return next((self.prompts[name] for name in names if name in self.prompts), self.prompt)

    def width(self, hidden: int) -> int:
        """Return the number of components of a vector, given the hidden width."""
        return self.dense[-1].width if self.dense else hidden

    def to_json(self) -> dict[str, Any]:
        """Return plain values, as in config.json."""
        return {**asdict(self), "dense": [asdict(layer) for layer in self.dense], "prompts": dict(self.prompts)}

    @classmethod
    def from_json(cls, data: object, source: object = "model") -> SentenceEmbedding:
        """Invert :meth:`to_json`.

        Args:
            data: The entry of a config.json.
            source: Name of the model in errors.

        Raises:
            InputError: The entry is damaged, or holds what is not supported.
        """
        try:
            if not isinstance(data, Mapping):
                raise TypeError(f"got {shown(data)}")
            dense = tuple(Dense(int(row["width"]), bool(row["bias"]), row["activation"]) for row in data["dense"])
            prompts = {str(name): str(text) for name, text in data["prompts"].items()}
            length = data["max_length"]
            return cls(
                data["pooling"],
                dense,
                bool(data["normalize"]),
                prompts,
                data["default_prompt"],
                None if length is None else int(length),
                bool(data["lower_case"]),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(
                f"{source}: {SECTION} in config.json should say how texts become vectors: {error}"
            ) from None


def embedding_in(config: Mapping[str, Any], source: object = "model") -> SentenceEmbedding | None:
    """Return what a config.json of ours says about vectors; None for a model that gives none."""
    return SentenceEmbedding.from_json(config[SECTION], source) if config.get(SECTION) is not None else None
