"""Where a model reads its hidden states, which linear maps read them there, and which norm they come out of."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from limbeck.model.heads import head_features
from limbeck.model.pruning.importance import answered
from limbeck.model.sentence_encoder import LimbeckForSentenceEmbedding, pool

if TYPE_CHECKING:
    from limbeck.model.encoder import LimbeckForSequenceClassification

TAPS = ("hidden", "attention_input", "ffn_input", "mask")
"""Activations that show what is read."""
SUM = "mean_sqrt_len_tokens"
"""The pooling that is a sum over the root of the number of tokens."""


@dataclass(frozen=True)
class ReadPoint:
    """A point where hidden states are read.

    Attributes:
        tap: The tap that shows them: 'attention_input' or 'ffn_input' of a layer, or 'hidden'; 'distances' for
            embeddings of distances, which have the channels of hidden states; 'features' for what the output layer
            reads, where a dense layer comes before it.
        index: Which entry of the tap.
        maps: Paths of the linear maps that read them; some may have no outputs.
        norm: Path of the norm whose output they are; empty where no norm comes right before.
    """

    tap: str
    index: int
    maps: tuple[str, ...]
    norm: str = ""

    @property
    def judged(self) -> bool:
        """Whether errors of what is read here reach the answers through ``maps`` alone, so that a gradient shows it."""
        return bool(self.maps) and self.tap not in ("distances", "features")


def embedding_norm(model: LimbeckForSequenceClassification) -> str:
    """Return the path of the norm that the first hidden states come out of; empty where there is none."""
    embeddings = model.encoder.embeddings
    last = embeddings.project is None or model.encoder.style.project_before_norm
    return "encoder.embeddings.norm" if embeddings.norm is not None and last else ""


def read_points(model: LimbeckForSequenceClassification) -> list[ReadPoint]:
    """Return all points where a model with layers reads hidden states, in their order."""
    first, before, points = model.encoder.style.norm_first, embedding_norm(model), []
    for index, layer in enumerate(model.encoder.layers):
        path = f"encoder.layers.{index}"
        own = f"{path}.attention_norm" if layer.attention_norm is not None else ""
        if first and own and before:
            points.append(ReadPoint("hidden", index, (), before))  # the norm alone
        inputs = tuple(f"{path}.{name}" for name in ("query", "key", "value"))
        points.append(ReadPoint("attention_input", index, inputs, (own or before) if first else before))
        neurons = tuple(f"{path}.{name}" for name in ("up", "gate") if getattr(layer, name) is not None)
        points.append(ReadPoint("ffn_input", index, neurons, f"{path}.ffn_norm" if first else own))
        before = "" if first else f"{path}.ffn_norm"
    points.append(ReadPoint("hidden", -1, (_first_of_head(model),), "encoder.norm" if first else before))
    relative = model.encoder.relative
    if relative is not None and not model.encoder.style.share_att_key:
        norm = "encoder.relative.norm" if relative.norm is not None else ""
        points.append(ReadPoint("distances", 0, position_maps(model), norm))
    if model.pooler is not None:
        norm = "pooler_norm" if model.pooler_norm is not None else ""
        points.append(ReadPoint("features", 0, ("classifier",), norm))
    return points


def position_maps(model: LimbeckForSequenceClassification) -> tuple[str, ...]:
    """Return the paths of the linear maps that read embeddings of distances: maps of their own, or those of states.

    Only softmax attention scores distances; maps may have no outputs.
    """
    terms, paths = model.encoder.style.pos_att_type, []
    softmax = [widths.core[0] == "softmax" for widths in model.shape.layers]
    for index, layer in compress(enumerate(model.encoder.layers), softmax):
        given = (("c2p", layer.position_key, "key"), ("p2c", layer.position_query, "query"))
        for term, own, shared in given:
            if term in terms:
                paths.append(f"encoder.layers.{index}.{shared if own is None else f'position_{shared}'}")
    return tuple(paths)


def _first_of_head(model: LimbeckForSequenceClassification) -> str:
    """Return the path of the linear map of the head that reads hidden states."""
    if isinstance(model, LimbeckForSentenceEmbedding):
        return "dense.0"
    return "classifier" if model.pooler is None else "pooler"


def linear_at(model: LimbeckForSequenceClassification, path: str) -> nn.Linear:
    """Return the linear map at a path."""
    module = model.get_submodule(path)
    assert isinstance(module, nn.Linear)
    return module


def norm_at(model: LimbeckForSequenceClassification, path: str) -> nn.LayerNorm | None:
    """Return the norm at a path; None for an empty one."""
    if not path:
        return None
    module = model.get_submodule(path)
    assert isinstance(module, nn.LayerNorm)
    return module


def pooling_of(model: LimbeckForSequenceClassification) -> str | None:
    """Return how a text's hidden states become one vector; None where every token is answered."""
    if model.per_token:
        return None
    return model.embedding.pooling if isinstance(model, LimbeckForSentenceEmbedding) else model.encoder.style.pooling


def takes_constants(model: LimbeckForSequenceClassification, path: str) -> bool:
    """Return whether the bias of a linear map can make up for constants in the hidden states that it reads.

    It cannot where there is none, or where a sum over the root of the number of tokens is read: there constants grow
    with the text.
    """
    grows = path == _first_of_head(model) and pooling_of(model) == SUM
    return linear_at(model, path).bias is not None and not grows


def rows_read(
    model: LimbeckForSequenceClassification,
    point: ReadPoint,
    taps: Mapping[str, Sequence[Tensor]],
    batch: Mapping[str, Any],
    change: Callable[[Tensor], Tensor] = lambda states: states,
) -> Tensor:
    """Return what is read at a point.

    Args:
        model: The model.
        point: The point.
        taps: The activations of a batch, of :data:`TAPS`.
        batch: The batch.
        change: Applied to what is there, before tokens are pooled.

    Returns:
        Rows [rows, hidden]: a token, a text where its head reads a pooled vector, or a distance. Padding is left out;
        so are, of what the head of words reads, tokens that are not ``importance.answered``. Sums over the root of the
        number of tokens are given as means: they differ by a factor for each text, which leaves a linear map as it is,
        but not its bias (see :func:`takes_constants`).
    """
    if point.tap == "distances":
        assert model.encoder.relative is not None
        return change(model.encoder.relative.rows(model.shape.hidden, slice(None)))
    if point.tap == "features":
        mask, style = batch["attention_mask"], model.encoder.style
        features = head_features(model, taps["hidden"][-1], mask, style, per_token=model.per_token)
        return change(features[answered(model, batch)] if model.per_token else features)
    states = taps[point.tap][point.index]
    if point.tap != "hidden":
        return change(states[taps["mask"][point.index]])
    mask = batch["attention_mask"]
    if not point.maps:  # the norm of the embeddings alone acts on every token
        return change(states[mask.bool()])
    pooling = pooling_of(model)
    if pooling is None:
        return change(states[answered(model, batch)])
    return pool(change(states), mask, "mean" if pooling == SUM else pooling)


def gradient_rows(
    model: LimbeckForSequenceClassification,
    point: ReadPoint,
    gradient: Tensor,
    taps: Mapping[str, Sequence[Tensor]],
    batch: Mapping[str, Any],
) -> Tensor:
    """Return the gradient with respect to what is read at a point, row by row.

    Args:
        model: The model.
        point: A point that is judged.
        gradient: Gradient with respect to the tap [batch, seq, hidden].
        taps: As for :func:`rows_read`.
        batch: The batch.

    Returns:
        Rows as those of :func:`rows_read`. That of a pooled vector is the sum over its tokens: their weights add to 1.
    """
    if point.tap != "hidden":
        return gradient[taps["mask"][point.index]]
    return gradient[answered(model, batch)] if model.per_token else gradient.sum(1)
