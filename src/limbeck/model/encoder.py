"""A BERT-class encoder with a width of its own for every layer, as transformers models.

A saved folder carries this file and those that it imports, so a pruned model opens anywhere through
``trust_remote_code=True``. They depend on torch and transformers alone.

Three things set it apart from the usual BERT: layers may differ in heads and feed-forward width; a call may name a
smaller ``shape`` and then uses the leading slices of the weights (a super-network without hidden state); and ``taps``
return named activations, so distillation needs no hooks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput, SequenceClassifierOutput, TokenClassifierOutput
from transformers.utils.generic import ModelOutput

from .attention import Rotation, core, rotation
from .calling_convention import check_attentions, check_options, per_layer
from .configuration import GUARD, LimbeckConfig
from .disentangled_attention import RelativeEmbeddings
from .embeddings import Embeddings
from .heads import EarlyExits, head_logits
from .layers import (
    EncoderShape,
    Gates,
    Layer,
    Positions,
    layer_norm,
    length_projection,
    linear,
    slice_norm,
)
from .output_losses import OutputLosses, losses_of
from .style import Style
from .token_pruning import RemainingTokens

if TYPE_CHECKING:
    import numpy as np

Packed = TypeVar("Packed", bound=ModelOutput)


class Encoder(nn.Module):
    """Embeddings and layers.

    >>> from limbeck.core.shape import Shape
    >>> encoder = Encoder(Shape.uniform(layers=2, hidden=32, heads=4, ffn=64), Style(vocab_size=100))
    >>> hidden, taps = encoder(torch.tensor([[2, 5, 3]]), taps=("attention",))
    >>> tuple(hidden.shape), [tuple(a.shape) for a in taps["attention"]]
    ((1, 3, 32), [(1, 4, 3, 3), (1, 4, 3, 3)])
    """

    layers: Sequence[Layer]  # an nn.ModuleList, whose elements have no type

    def __init__(self, shape: EncoderShape, style: Style) -> None:
        super().__init__()
        self.shape, self.style = shape, style
        self.embeddings = Embeddings(shape.hidden, style)
        rows = enumerate(shape.layers)
        layers = (Layer(shape.hidden, shape.head_dim, layer, style, index) for index, layer in rows)
        self.layers = nn.ModuleList(layers)  # type: ignore[assignment]
        sizes = [size for name, size in (core(layer.attention) for layer in shape.layers) if name == "linformer"]
        shared = style.projections == "layer" and sizes
        self.lengths = length_projection(style, max(sizes)) if shared else None
        self.norm = layer_norm(shape.hidden, style) if style.norm_first else None
        self.position_bias: nn.Embedding | None = None
        if style.relative_buckets:
            self.position_bias = nn.Embedding(style.relative_buckets, style.relative_heads)
            self.position_bias.weight.data.normal_(0.0, 0.02)
        self.relative = RelativeEmbeddings(shape.hidden, style) if style.pos_att_type else None

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        *,
        shape: EncoderShape | None = None,
        gates: Gates | None = None,
        taps: Sequence[str] = (),
    ) -> tuple[Tensor, dict[str, list[Tensor]]]:
        """Encode a batch of token sequences.

        Taps: ``hidden`` (embeddings first, then every layer, the last one after the final norm if there is one)
        [batch, seq, hidden]; ``attention`` scores before the softmax [batch, heads, query, key], also where the core
        has none; ``query``, ``key``, ``value`` [batch, heads, seq, head_dim]; ``attention_input`` and ``ffn_input``
        [batch, seq, hidden], what the two parts of a layer read, normalized where they normalize it; ``context``
        [batch, seq, heads * head_dim] and ``neurons`` [batch, seq, ffn], the inputs of the two output projections;
        ``attention_output`` and ``ffn_output`` [batch, seq, hidden], their outputs; ``mask`` [batch, seq], True where a
        token is; ``positions`` [batch, seq]. Where layers pass on fewer tokens, ``seq`` counts those that a layer
        reads; ``hidden`` has all, the others as they were last and without gradient.

        Args:
            input_ids: Token ids [batch, seq].
            attention_mask: 1 where a token is, 0 where padding is [batch, seq]; None if there is no padding.
            token_type_ids: Segment ids [batch, seq]; None stands for zeros.
            shape: A smaller shape, run on the leading slices of the weights; None runs all.
            gates: Multipliers of heads, neurons and layers.
            taps: Names of the activations to return.

        Returns:
            The last hidden states [batch, seq, hidden], and for every tap a list over layers.
        """
        tapped: dict[str, list[Tensor]] = {name: [] for name in taps}
        remaining = RemainingTokens(attention_mask, input_ids)
        for state in self.states(remaining, input_ids, token_type_ids, shape, gates, tapped):
            x = state
        last = self.normalized(remaining.merged(x))
        if "hidden" in tapped:
            left_behind = remaining.states is not None
            tapped["hidden"].append(self.normalized(remaining.merged(x, detached=True)) if left_behind else last)
        return last, tapped

    def states(
        self,
        remaining: RemainingTokens,
        input_ids: Tensor,
        token_type_ids: Tensor | None = None,
        shape: EncoderShape | None = None,
        gates: Gates | None = None,
        tapped: dict[str, list[Tensor]] | None = None,
    ) -> Iterator[Tensor]:
        """Yield the embeddings, then the states after each layer of the tokens that remain; lazily, without final norm.

        Args:
            remaining: The tokens that layers read; it changes as layers leave tokens behind.
            input_ids: As for :meth:`forward`, like the next three.
            token_type_ids: Segment ids.
            shape: A smaller shape.
            gates: Multipliers of heads, neurons and layers.
            tapped: Lists that each layer appends its activations to, by name of the tap.
        """
        shape, gates, tapped = shape or self.shape, gates or Gates(), tapped if tapped is not None else {}
        tokens = input_ids.shape[1]
        thetas = {layer.rotary_theta for layer in self.layers if layer.rotary_theta is not None}
        size = (tokens, shape.head_dim)
        turns: dict[float | None, Rotation] = {theta: rotation(*size, theta, input_ids.device) for theta in thetas}
        relative = None if self.relative is None else self.relative(tokens, shape.hidden)
        positions = Positions(remaining.score_bias(self.position_bias, self.style), relative)
        x = self.embeddings(input_ids, token_type_ids, shape.hidden, remaining.mask)
        yield x
        for index, (layer, layer_shape) in enumerate(zip(self.layers, shape.layers)):  # noqa: B905 a slice is shorter
            remaining.tap(x, tapped)
            own = Gates(*(None if gate is None else gate[index] for gate in gates))
            turned = positions._replace(turn=remaining.turn(turns.get(layer.rotary_theta)))
            fewer = index + 1 < len(shape.layers) and remaining.fewer_after(layer_shape, own)
            layer_taps = {"attention": [], **tapped} if fewer else tapped
            y = layer(x, remaining.keys, layer_shape, shape.head_dim, own, layer_taps, self.lengths, turned)
            y = remaining.updated(x, y)
            x = y if own.layers is None else x + own.layers * (y - x)
            if fewer:
                x = remaining.drop(x, layer_taps["attention"][-1], layer_shape, own)
                positions = positions._replace(bias=remaining.score_bias(self.position_bias, self.style))
            yield x

    def normalized(self, x: Tensor) -> Tensor:
        """Apply the final norm to hidden states, if there is one."""
        return x if self.norm is None else slice_norm(x, self.norm)


class LimbeckModel(PreTrainedModel):
    """The encoder alone: hidden states, for embeddings and as a teacher of general distillation."""

    config: LimbeckConfig
    config_class = LimbeckConfig
    base_model_prefix = "encoder"
    _supports_sdpa = True
    # An empty tensor under one of the family's names makes the family's own class refuse a shape it cannot hold.
    _keys_to_ignore_on_load_unexpected = {GUARD}  # noqa: RUF012
    accepts_loss_kwargs = False  # else Trainer infers them from forward's **options and scales accumulated losses

    def __init__(self, config: LimbeckConfig) -> None:
        super().__init__(config)
        self.encoder = Encoder(config.shape, config.style)
        self.add_head(config)
        self.post_init()

    def add_head(self, config: LimbeckConfig) -> None:
        """Add the layers after the encoder; the plain model has none."""

    def _init_weights(self, module: nn.Module) -> None:
        """Initialize weights that a checkpoint lacks as transformers does; skip empty ones, which would warn."""
        if all(parameter.numel() for parameter in module.parameters(recurse=False)):
            super()._init_weights(module)  # type: ignore[no-untyped-call]

    def get_input_embeddings(self) -> nn.Embedding:
        """Return the word embeddings."""
        return self.encoder.embeddings.word

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the word embeddings."""
        assert isinstance(value, nn.Embedding)
        self.encoder.embeddings.word = value

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        *,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        **options: Any,  # as transformers calls it
    ) -> BaseModelOutput | SequenceClassifierOutput | TokenClassifierOutput | tuple[Tensor, ...]:
        """Encode a batch by transformers' calling convention.

        Args:
            input_ids: Token ids [batch, seq].
            attention_mask: 1 where a token is, 0 where padding is [batch, seq].
            token_type_ids: Segment ids [batch, seq].
            output_attentions: Whether to return attention weights; None takes the configuration's choice.
            output_hidden_states: Whether to return the hidden states of every layer; None likewise.
            return_dict: Whether to return a ``ModelOutput``, not a tuple; None likewise.
            **options: Ignored, except that options which would change the output are refused.

        Returns:
            The last hidden states, and whatever else was requested.

        Raises:
            ValueError: An option is not supported, or there are no ``input_ids``.
        """
        check_options(input_ids, options)
        taps = self.wanted_taps(output_attentions, output_hidden_states)
        hidden, tapped = self.encoder(input_ids, attention_mask, token_type_ids, taps=taps)
        return self.packed(BaseModelOutput(last_hidden_state=hidden, **per_layer(tapped)), return_dict)

    def wanted_taps(self, output_attentions: bool | None, output_hidden_states: bool | None) -> tuple[str, ...]:
        """Return the taps for the outputs that a call requests, or else the configuration.

        Args:
            output_attentions: As in transformers; None for what the configuration says.
            output_hidden_states: As in transformers; None for what the configuration says.

        Raises:
            ValueError: Attention weights are requested of a core that has none, or of layers that read fewer tokens.
        """
        attentions = self.config.output_attentions if output_attentions is None else output_attentions
        states = self.config.output_hidden_states if output_hidden_states is None else output_hidden_states
        if attentions:
            check_attentions(self.encoder.shape.layers)
        return ("hidden",) * bool(states) + ("attention",) * bool(attentions)

    def packed(self, output: Packed, return_dict: bool | None) -> Packed | tuple[Tensor, ...]:
        """Return the output as it is, or as a tuple."""
        wanted = self.config.return_dict if return_dict is None else return_dict
        return output if wanted else tuple(output.to_tuple())


class LimbeckForSequenceClassification(LimbeckModel):
    """A class, several classes or a number for a text or a pair of texts."""

    per_token = False
    int8 = False
    fresh_head = False  # set by model/classification_head.py: a part of the head is random and not trained yet
    untrained = ""  # the reason, in words
    order_assumed = False  # outputs and labels are matched by position alone

    pooler: nn.Linear | None
    pooler_norm: nn.LayerNorm | None
    classifier: nn.Linear
    exits: EarlyExits | None

    def add_head(self, config: LimbeckConfig) -> None:
        """Dense layer with activation (the families' pooler), perhaps a norm, then the output layer."""
        style, width = config.style, config.hidden_size
        dense = style.pooler_per_token or not self.per_token
        self.pooler = linear(width, width, style.pooler_bias) if dense else None
        self.pooler_norm = layer_norm(width, style) if dense and style.pooler_norm else None
        self.classifier = linear(width, config.num_labels or 1)
        exits = config.early_exits
        self.exits = None if exits is None else EarlyExits(exits, width, config.num_labels or 1, style)

    def logits(self, hidden: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return logits [batch, classes], or [batch, seq, classes] when ``per_token``.

        Args:
            hidden: The last hidden states [batch, seq, hidden].
            mask: 1 where a token is, 0 where padding is [batch, seq]; None if there is no padding.
        """
        return head_logits(self, hidden, mask, self.encoder.style, per_token=self.per_token)

    @property
    def leaves_early(self) -> bool:
        """Whether inner heads answer texts that they are sure of."""
        return self.exits is not None and self.exits.threshold is not None

    @property
    def shape(self) -> Any:  # a limbeck Shape wherever limbeck made the model; this file cannot import it
        """Shape of the encoder."""
        return self.encoder.shape

    @property
    def style(self) -> Style:
        """Style of the encoder."""
        return self.config.style

    @property
    def space(self) -> dict[str, Any] | None:
        """The space of the slices that are good models too, as JSON; None if there is none."""
        return self.config.space

    @property
    def runtime(self) -> str:
        """Where this model runs."""
        return "torch"

    @torch.inference_mode()
    def predict(self, batch: Mapping[str, Tensor]) -> np.ndarray:
        """Return the logits of a batch as an array, without dropout."""
        training = self.training
        logits = self.eval().run({name: value.to(self.device) for name, value in batch.items()})[0]
        self.train(training)
        array: np.ndarray = logits.float().cpu().numpy()
        return array

    def run(
        self,
        batch: Mapping[str, Any],
        *,
        shape: EncoderShape | None = None,
        gates: Gates | None = None,
        taps: Sequence[str] = (),
    ) -> tuple[Tensor, dict[str, list[Tensor]]]:
        """Return the logits and the tapped activations of a batch; inner heads answer only where nothing else is asked.

        Args:
            batch: ``input_ids``, ``attention_mask`` and perhaps ``token_type_ids``, each [batch, seq].
            shape: A smaller shape, run on the leading slices of the weights; None runs all.
            gates: Multipliers of heads, neurons and layers.
            taps: Names of the activations to return.
        """
        mask = batch.get("attention_mask")
        inputs = (batch["input_ids"], mask, batch.get("token_type_ids"))
        if self.exits is not None and self.leaves_early and not (self.training or shape or gates or taps):
            remaining = RemainingTokens(mask, batch["input_ids"])
            states = self.encoder.states(remaining, batch["input_ids"], batch.get("token_type_ids"))
            norm = self.encoder.normalized
            return self.exits.answer(
                states, mask, lambda x: norm(remaining.merged(x)), lambda x: self.logits(x, mask)
            ), {}
        hidden, tapped = self.encoder(*inputs, shape=shape, gates=gates, taps=taps)
        return self.logits(hidden, mask), tapped

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the loss of ``config.problem_type``, a scalar; tokens labeled -100 do not count."""
        return self.output_losses(logits.shape[-1]).on_labels(logits, labels)

    def output_losses(self, outputs: int) -> OutputLosses:
        """Return the losses that the configuration implies, for a number of outputs."""
        return losses_of(self.config.problem_type, outputs, reranker=bool(getattr(self.config, "reranker", False)))

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        labels: Tensor | None = None,
        *,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        **options: Any,  # as transformers calls it
    ) -> SequenceClassifierOutput | TokenClassifierOutput | tuple[Tensor, ...]:
        """Classify a batch by transformers' calling convention, so that ``transformers.Trainer`` can train the model.

        Args:
            input_ids: Token ids [batch, seq].
            attention_mask: 1 where a token is, 0 where padding is [batch, seq].
            token_type_ids: Segment ids [batch, seq].
            labels: Class indices [batch], or as ``config.problem_type`` needs them; None computes no loss.
            output_attentions: Whether to return attention weights; None takes the configuration's choice.
            output_hidden_states: Whether to return the hidden states of every layer; None likewise.
            return_dict: Whether to return a ``ModelOutput``, not a tuple; None likewise.
            **options: Ignored, except that options which would change the output are refused.

        Returns:
            Loss (given labels), logits, and whatever else was requested.
        """
        batch = {"input_ids": input_ids, "attention_mask": attention_mask, "token_type_ids": token_type_ids}
        check_options(input_ids, options)
        logits, tapped = self.run(batch, taps=self.wanted_taps(output_attentions, output_hidden_states))
        loss = None if labels is None else self.loss(logits, labels)
        kind = TokenClassifierOutput if self.per_token else SequenceClassifierOutput
        return self.packed(kind(loss=loss, logits=logits, **per_layer(tapped)), return_dict)


class LimbeckForTokenClassification(LimbeckForSequenceClassification):
    """A class for every token."""

    per_token = True
