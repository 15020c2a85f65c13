"""The layers between hidden states and logits: of the last layer, and of inner ones that may answer early.

A saved model folder carries this file beside ``encoder.py``; it may import torch, transformers and the files beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from transformers.activations import ACT2FN

from .dropout import dropout
from .layers import layer_norm, linear, slice_linear, slice_norm
from .style import Style

POOLED = ("bert", "ernie", "albert", "rembert", "megatron-bert", "modernbert", "deberta-v2")
"""Families whose dense layer before the output belongs to the encoder; in others dropout comes before it."""


class Head(Protocol):
    """Dense layer with activation (the families' pooler), perhaps a norm, then the output layer."""

    pooler: nn.Linear | None
    pooler_norm: nn.LayerNorm | None
    classifier: nn.Linear
    training: bool


def head_logits(head: Head, hidden: Tensor, mask: Tensor | None, style: Style, *, per_token: bool = False) -> Tensor:
    """Return logits [batch, classes], or [batch, seq, classes] when ``per_token``.

    Args:
        head: The layers.
        hidden: Hidden states [batch, seq, hidden].
        mask: 1 where a token is, 0 where padding is [batch, seq]; None if there is no padding.
        style: How the model computes.
        per_token: Whether it labels tokens.
    """
    features = head_features(head, hidden, mask, style, per_token=per_token)
    return slice_linear(features, head.classifier, head.classifier.out_features, features.shape[-1])


def sums_of_tokens(hidden: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Sum hidden states over the tokens of a text, in float32: float16 ends at 65,504.

    Args:
        hidden: Hidden states [batch, seq, hidden].
        mask: 1 where a token is, 0 where padding is [batch, seq]; None if there is no padding.

    Returns:
        The sums [batch, hidden], and the numbers of tokens, at least 1 [batch, 1]; in float32 if in half precision.
    """
    precision = torch.promote_types(hidden.dtype, torch.float32)
    if mask is None:
        return hidden.sum(1, dtype=precision), hidden.new_full((len(hidden), 1), hidden.shape[1], dtype=precision)
    weights = mask[..., None].to(hidden.dtype)
    return (hidden * weights).sum(1, dtype=precision), weights.sum(1, dtype=precision).clamp_min(1)


def mean_of_tokens(hidden: Tensor, mask: Tensor | None) -> Tensor:
    """Average hidden states [batch, seq, hidden] over the tokens that a mask [batch, seq] marks with 1; None: all."""
    total, count = sums_of_tokens(hidden, mask)
    return (total / count).to(hidden.dtype)


def pooled(hidden: Tensor, mask: Tensor | None, style: Style) -> Tensor:
    """Return what stands for a text [batch, hidden]: the state of its first token, or the mean of all.

    Args:
        hidden: Hidden states [batch, seq, hidden].
        mask: 1 where a token is, 0 where padding is [batch, seq]; None if there is no padding.
        style: How the model computes.
    """
    return hidden[:, 0] if style.pooling == "cls" else mean_of_tokens(hidden, mask)


def head_features(head: Head, hidden: Tensor, mask: Tensor | None, style: Style, *, per_token: bool = False) -> Tensor:
    """Return what the output layer reads [batch, hidden], or [batch, seq, hidden] when ``per_token``.

    Args:
        head: The layers.
        hidden: Hidden states [batch, seq, hidden].
        mask: 1 where a token is, 0 where padding is [batch, seq]; None if there is no padding.
        style: How the model computes.
        per_token: Whether it labels tokens.
    """
    if not per_token:
        hidden = pooled(hidden, mask, style)
    if head.pooler is not None:
        before = 0.0 if style.family in (*POOLED, "distilbert") else style.classifier_dropout
        before = before if style.pooler_dropout is None else style.pooler_dropout
        hidden = dropout(hidden, before, head.training)
        hidden = ACT2FN[style.pooler](slice_linear(hidden, head.pooler, hidden.shape[-1], hidden.shape[-1]))
    if head.pooler_norm is not None:
        hidden = slice_norm(hidden, head.pooler_norm)
    return dropout(hidden, style.classifier_dropout, head.training)


class InnerHead(nn.Module):
    """A head after an inner layer, of the same layers as that of the model."""

    def __init__(self, width: int, labels: int, style: Style) -> None:
        super().__init__()
        self.pooler: nn.Linear | None = linear(width, width, style.pooler_bias)
        self.pooler_norm = layer_norm(width, style) if style.pooler_norm else None
        self.classifier = linear(width, labels)


class _Answered(NamedTuple):
    """What the heads so far have answered.

    Attributes:
        logits: Of the first head that was sure, else of the newest [batch, classes].
        sure: Whether a head was sure [batch], bool.
        classes: Answers of the newest head [batch].
        agreed: How many heads in a row before the newest gave its answer [batch].
    """

    logits: Tensor
    sure: Tensor
    classes: Tensor
    agreed: Tensor


class EarlyExits(nn.ModuleList):
    """Heads after inner layers; a text that one of them is sure of goes no further.

    A batch goes on until every text is answered. The answer of a text that was sure before is kept, so that it does not
    depend on the texts beside it.
    """

    def __init__(self, settings: Mapping[str, Any], width: int, labels: int, style: Style) -> None:
        """Add a head after each of the layers.

        Args:
            settings: ``layers`` (after how many layers each head stands), ``criterion`` and ``threshold``; see
                ``limbeck.core.early_exits.EarlyExits``.
            width: Width of the hidden states.
            labels: Number of outputs.
            style: How the model computes.
        """
        super().__init__(InnerHead(width, labels, style) for _ in settings["layers"])
        self.style = style
        self.set_rule(settings)

    def set_rule(self, settings: Mapping[str, Any]) -> None:
        """Say when heads are sure; the layers are those that there are."""
        self.after = tuple(settings["layers"])
        self.criterion, self.threshold = settings["criterion"], settings["threshold"]

    @property
    def heads(self) -> list[InnerHead]:
        """The heads, the first one first."""
        return [head for head in self if isinstance(head, InnerHead)]

    def each(
        self, states: Iterable[Tensor], mask: Tensor | None, norm: Callable[[Tensor], Tensor]
    ) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Yield hidden states one by one, each with the logits of the head after it; None where there is none.

        Args:
            states: The embeddings, then the hidden states after each layer [batch, seq, hidden].
            mask: 1 where a token is, 0 where padding is [batch, seq]; None if there is no padding.
            norm: Normalizes hidden states for a head, where the family does.
        """
        heads = dict(zip(self.after, self.heads, strict=True))
        for depth, hidden in enumerate(states):
            head = heads.get(depth)
            yield hidden, None if head is None else head_logits(head, norm(hidden), mask, self.style)

    def answer(
        self,
        states: Iterable[Tensor],
        mask: Tensor | None,
        norm: Callable[[Tensor], Tensor],
        last: Callable[[Tensor], Tensor],
    ) -> Tensor:
        """Return the logits of the first head that is sure of a text, or else of the last [batch, classes].

        Args:
            states: As for :meth:`each`; no more are computed once every text is answered.
            mask: As for :meth:`each`.
            norm: As for :meth:`each`.
            last: Gives the logits of the model's own head from the normalized last hidden states.
        """
        answered: _Answered | None = None
        for hidden, logits in self.each(states, mask, norm):
            final = hidden
            if logits is not None:
                answered = self._with(answered, logits)
                if bool(answered.sure.all()):
                    return answered.logits
        own = last(norm(final))
        return own if answered is None else torch.where(answered.sure[:, None], answered.logits, own)

    def _with(self, before: _Answered | None, logits: Tensor) -> _Answered:
        """Return what is answered after another head."""
        classes = logits.argmax(-1)
        agreed = torch.zeros_like(classes)
        if before is not None:
            agreed = torch.where(classes == before.classes, before.agreed + 1, agreed)
        sure = self._is_sure(logits.float(), agreed)
        if before is None:
            return _Answered(logits, sure, classes, agreed)
        answered_logits = torch.where(before.sure[:, None], before.logits, logits)
        return _Answered(answered_logits, before.sure | sure, classes, agreed)

    def _is_sure(self, logits: Tensor, agreed: Tensor) -> Tensor:
        assert self.threshold is not None
        sure: Tensor
        if self.criterion == "confidence":
            sure = logits.softmax(-1).amax(-1) >= self.threshold
        elif self.criterion == "entropy":
            logs = logits.log_softmax(-1)
            sure = -(logs.exp() * logs).sum(-1) <= self.threshold
        else:
            sure = agreed >= self.threshold
        return sure
