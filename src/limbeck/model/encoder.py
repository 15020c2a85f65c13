"""A BERT-class encoder with a width of its own for every layer.

This is the one modelling file: a saved folder carries it (with ``attention.py``), so a pruned model opens anywhere
through ``trust_remote_code=True``. It depends on torch and transformers alone.

Three things set it apart from the usual BERT: layers may differ in heads and feed-forward width; a call may name a
smaller ``shape`` and then uses the leading slices of the weights (a super-network without hidden state); and ``taps``
return named activations, so distillation needs no hooks.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.activations import ACT2FN
from transformers.modeling_outputs import BaseModelOutput, ModelOutput, SequenceClassifierOutput, TokenClassifierOutput

from .attention import CORES, Lengths, core, scores


@dataclasses.dataclass(frozen=True)
class Style:
    """What distinguishes families, apart from the shape.

    ``position_offset``: None counts positions from 0; a number p counts the tokens that are not padding from p + 1
    and gives padding the position p (RoBERTa). ``pooler``: activation of the dense layer before the output layer.
    ``resplit``: a slice with narrower heads takes the leading channels of all heads together and splits them anew into
    its heads; otherwise every head keeps its own leading channels. ``projections``: which learned projections of the
    length linformer layers have: two a layer ('none' shared), one a layer for keys and values ('kv'), one for all
    layers ('layer'), or two for every head ('per_head').
    """

    family: str = "bert"
    vocab_size: int = 30522
    embedding_size: int | None = None
    max_positions: int = 512
    token_types: int = 2
    position_offset: int | None = None
    pad_token_id: int = 0
    activation: str = "gelu"
    layer_norm_eps: float = 1e-12
    dropout: float = 0.1
    attention_dropout: float = 0.1
    classifier_dropout: float = 0.1
    pooler: str = "tanh"
    resplit: bool = False
    projections: str = "none"


class _Layer(NamedTuple):
    heads: int
    ffn: int
    attention: str


class _Shape(NamedTuple):
    """The fields of ``limbeck.core.shape.Shape``; used where limbeck is not installed."""

    hidden: int
    head_dim: int
    layers: tuple[Any, ...]


class Gates(NamedTuple):
    """Multipliers of heads [layers, heads], neurons [layers, ffn] and whole layers [layers]; None stands for ones.

    Rows are as wide as the widest layer; a layer uses the leading entries of its row. A layer with gate 0 passes its
    input on. Pruning scores are gradients with respect to gates, and a masked model is one with gates of 0 and 1.
    """

    heads: Tensor | None = None
    ffn: Tensor | None = None
    layers: Tensor | None = None


def _dense(inputs: int, outputs: int) -> nn.Linear:
    layer = nn.Linear(max(inputs, 1), max(outputs, 1))
    if not inputs * outputs:  # torch warns when it initialises an empty weight
        layer.weight = nn.Parameter(torch.empty(outputs, inputs))
        layer.bias = nn.Parameter(torch.empty(outputs))
        layer.in_features, layer.out_features = inputs, outputs
    with torch.no_grad():
        layer.bias.zero_()
        layer.weight.normal_(0.0, 0.02)
    return layer


def _slice(x: Tensor, layer: nn.Linear, rows: int, columns: int) -> Tensor:
    """Apply the leading ``rows`` outputs and ``columns`` inputs of a layer."""
    if (rows, columns) == layer.weight.shape:
        return layer(x)
    return F.linear(x, layer.weight[:rows, :columns], layer.bias[:rows])


def _norm(x: Tensor, norm: nn.LayerNorm) -> Tensor:
    width = x.shape[-1]
    return F.layer_norm(x, (width,), norm.weight[:width], norm.bias[:width], norm.eps)


def _lengths(style: Style, size: int, *heads: int) -> nn.Parameter:
    """A projection of the length ~ N(0, 1), [position, size]; with ``heads`` one for each."""
    return nn.Parameter(torch.randn(*heads, style.max_positions, size))


class Embeddings(nn.Module):
    """Word, position and token-type embeddings, normalised; projected when they are narrower than the encoder."""

    def __init__(self, hidden: int, style: Style) -> None:
        super().__init__()
        width = style.embedding_size or hidden
        self.style = style
        self.word = nn.Embedding(style.vocab_size, width)
        self.position = nn.Embedding(style.max_positions, width)
        self.token_type = nn.Embedding(style.token_types, width) if style.token_types else None
        self.norm = nn.LayerNorm(width, eps=style.layer_norm_eps)
        self.project = _dense(width, hidden) if width != hidden else None
        for table in (self.word, self.position, self.token_type):
            if table is not None:
                table.weight.data.normal_(0.0, 0.02)

    def positions(self, input_ids: Tensor) -> Tensor:
        """Position of every token [batch, seq]."""
        if self.style.position_offset is None:
            return torch.arange(input_ids.shape[1], device=input_ids.device)[None]
        real = (input_ids != self.style.pad_token_id).long()
        return real.cumsum(1) * real + self.style.position_offset

    def forward(self, input_ids: Tensor, token_type_ids: Tensor | None, hidden: int) -> Tensor:
        """Embed tokens [batch, seq] to [batch, seq, hidden]."""
        x = self.word(input_ids) + self.position(self.positions(input_ids))
        if self.token_type is not None:
            x = x + self.token_type(torch.zeros_like(input_ids) if token_type_ids is None else token_type_ids)
        if self.project is None:
            x = x[..., :hidden]
        x = F.dropout(_norm(x, self.norm), self.style.dropout, self.training)
        return x if self.project is None else _slice(x, self.project, hidden, x.shape[-1])


class Layer(nn.Module):
    """Attention and feed-forward, each followed by a residual sum and a LayerNorm (post-norm).

    A layer without heads keeps the output bias of its attention, one without neurons that of its feed-forward part:
    cutting everything is then exactly the same as masking everything.
    """

    def __init__(self, hidden: int, head_dim: int, row: Any, style: Style) -> None:
        super().__init__()
        self.head_dim, self.style = head_dim, style
        heads, ffn, (name, size) = row.heads, row.ffn, core(row.attention)
        width = heads * head_dim
        self.query, self.key, self.value = (_dense(hidden, width) for _ in range(3))
        self.attention_out = _dense(width, hidden)
        self.attention_norm = nn.LayerNorm(hidden, eps=style.layer_norm_eps)
        self.up, self.down = _dense(hidden, ffn), _dense(ffn, hidden)
        self.ffn_norm = nn.LayerNorm(hidden, eps=style.layer_norm_eps)
        self.activation = ACT2FN[style.activation]
        self.key_lengths: nn.Parameter | None = None
        self.value_lengths: nn.Parameter | None = None
        if name == "linformer" and style.projections != "layer":
            each = (heads,) if style.projections == "per_head" else ()
            self.key_lengths = _lengths(style, size, *each)
            self.value_lengths = None if style.projections == "kv" else _lengths(style, size, *each)

    def lengths(self, shared: Tensor | None, heads: int) -> Lengths | None:
        """Projections of the length for keys and values; None where the core has none."""
        key = self.key_lengths if shared is None else shared
        value = self.value_lengths if shared is None and self.value_lengths is not None else key
        if key is None or value is None:
            return None
        return (key, value) if key.dim() == 2 else (key[:heads], value[:heads])

    def split(self, x: Tensor, layer: nn.Linear, heads: int, head_dim: int) -> Tensor:
        """Project to [batch, heads, seq, head_dim]: leading heads, leading channels of each (or of all together)."""
        if head_dim == self.head_dim or self.style.resplit:
            y = _slice(x, layer, heads * head_dim, x.shape[-1])
        else:
            weight = layer.weight.unflatten(0, (-1, self.head_dim))[:heads, :head_dim, : x.shape[-1]].flatten(0, 1)
            y = F.linear(x, weight, layer.bias.unflatten(0, (-1, self.head_dim))[:heads, :head_dim].flatten())
        return y.unflatten(-1, (heads, head_dim)).transpose(1, 2)

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None,
        shape: Any,
        head_dim: int,
        gates: Gates,
        taps: dict[str, list[Tensor]],
        shared: Tensor | None = None,
    ) -> Tensor:
        """Hidden states in, hidden states out [batch, seq, hidden]; ``taps`` are appended to in passing."""
        hidden, heads = x.shape[-1], shape.heads
        drop = self.style.dropout
        context = x.new_zeros(*x.shape[:2], 0)
        if heads:
            query, key, value = (self.split(x, p, heads, head_dim) for p in (self.query, self.key, self.value))
            for name, value_ in (("query", query), ("key", key), ("value", value)):
                if name in taps:
                    taps[name].append(value_)
            if "attention" in taps:
                taps["attention"].append(scores(query, key, mask))
            dropout = self.style.attention_dropout if self.training else 0.0
            name, size = core(shape.attention)
            context = CORES[name](query, key, value, mask, dropout, size, self.lengths(shared, heads))
            if gates.heads is not None:
                context = context * gates.heads[:heads, None, None]
            context = context.transpose(1, 2).flatten(2)
        else:  # keep the lists of taps aligned with the layers
            for name in taps.keys() & {"query", "key", "value", "attention"}:
                width = x.shape[1] if name == "attention" else head_dim
                taps[name].append(x.new_zeros(x.shape[0], 0, x.shape[1], width))
        if "context" in taps:
            taps["context"].append(context)
        out = self.attention_out
        if heads and head_dim != self.head_dim and not self.style.resplit:
            columns = out.weight.unflatten(1, (-1, self.head_dim))[:hidden, :heads, :head_dim].flatten(1)
            attended = F.linear(context, columns, out.bias[:hidden])
        else:
            attended = _slice(context, out, hidden, context.shape[-1])
        if "attended" in taps:
            taps["attended"].append(attended)
        x = _norm(x + F.dropout(attended, drop, self.training), self.attention_norm)
        neurons = self.activation(_slice(x, self.up, shape.ffn, hidden)) if shape.ffn else x[..., :0]
        if gates.ffn is not None and shape.ffn:
            neurons = neurons * gates.ffn[: shape.ffn]
        if "neurons" in taps:
            taps["neurons"].append(neurons)
        fed = _slice(neurons, self.down, hidden, shape.ffn)
        if "fed" in taps:
            taps["fed"].append(fed)
        return _norm(x + F.dropout(fed, drop, self.training), self.ffn_norm)


class Encoder(nn.Module):
    """Embeddings and layers.

    >>> from limbeck.core.shape import Shape
    >>> encoder = Encoder(Shape.uniform(layers=2, hidden=32, heads=4, ffn=64), Style(vocab_size=100))
    >>> hidden, taps = encoder(torch.tensor([[2, 5, 3]]), taps=("attention",))
    >>> tuple(hidden.shape), [tuple(a.shape) for a in taps["attention"]]
    ((1, 3, 32), [(1, 4, 3, 3), (1, 4, 3, 3)])
    """

    def __init__(self, shape: Any, style: Style) -> None:
        super().__init__()
        self.shape, self.style = shape, style
        self.embeddings = Embeddings(shape.hidden, style)
        self.layers = nn.ModuleList(Layer(shape.hidden, shape.head_dim, layer, style) for layer in shape.layers)
        sizes = [size for name, size in (core(layer.attention) for layer in shape.layers) if name == "linformer"]
        one = style.projections == "layer" and sizes
        self.lengths = _lengths(style, max(sizes)) if one else None

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        *,
        shape: Any = None,
        gates: Gates | None = None,
        taps: Sequence[str] = (),
    ) -> tuple[Tensor, dict[str, list[Tensor]]]:
        """Return the last hidden states [batch, seq, hidden] and the tapped activations, a list over layers each.

        Taps: ``hidden`` (embeddings first, then every layer) [batch, seq, hidden]; ``attention`` scores before the
        softmax [batch, heads, query, key], also where the core has none; ``query``, ``key``, ``value`` [batch, heads,
        seq, head_dim]; ``context`` [batch, seq, heads * head_dim] and ``neurons`` [batch, seq, ffn], the inputs of the
        two output projections; ``attended`` and ``fed`` [batch, seq, hidden], what they make of them.
        ``shape``: a smaller shape, run on the leading slices of the weights. ``gates``: see :class:`Gates`.
        """
        shape = shape or self.shape
        gates = gates or Gates()
        tapped: dict[str, list[Tensor]] = {name: [] for name in taps}
        mask = None if attention_mask is None else attention_mask[:, None, None, :].bool()
        x = self.embeddings(input_ids, token_type_ids, shape.hidden)
        for index, (layer, layer_shape) in enumerate(zip(self.layers, shape.layers)):  # noqa: B905 a slice is shorter
            if "hidden" in tapped:
                tapped["hidden"].append(x)
            mine = Gates(*(None if gate is None else gate[index] for gate in gates))
            y = layer(x, mask, layer_shape, shape.head_dim, mine, tapped, self.lengths)
            x = y if mine.layers is None else x + mine.layers * (y - x)
        if "hidden" in tapped:
            tapped["hidden"].append(x)
        return x, tapped


STANDARD_KEYS = frozenset((
    "num_hidden_layers", "num_attention_heads", "intermediate_size", "max_position_embeddings", "type_vocab_size",
    "hidden_act", "hidden_dropout_prob", "attention_probs_dropout_prob", "dim", "n_layers", "n_heads", "hidden_dim",
    "seq_classif_dropout",
))  # fmt: skip
"""Keys by which the families say what the entry ``limbeck`` says for each layer."""


class LimbeckConfig(PretrainedConfig):
    """The shape, one entry a layer, and the style, as a Hugging Face configuration."""

    model_type = "limbeck"
    attribute_map = {"num_hidden_layers": "depth", "max_position_embeddings": "max_positions"}  # noqa: RUF012

    def __init__(
        self,
        hidden_size: int = 384,
        head_dim: int = 32,
        layer_heads: Sequence[int] = (),
        layer_ffn: Sequence[int] = (),
        layer_attention: Sequence[str] = (),
        **kwargs: Any,
    ) -> None:
        self.hidden_size, self.head_dim = hidden_size, head_dim
        self.layer_heads, self.layer_ffn = list(layer_heads), list(layer_ffn)
        self.layer_attention = list(layer_attention) or ["softmax"] * len(self.layer_heads)
        for field in dataclasses.fields(Style):
            setattr(self, field.name, kwargs.pop(field.name, field.default))
        pad: int = self.pad_token_id  # type: ignore[has-type]
        super().__init__(**kwargs)
        self.pad_token_id = pad

    @classmethod
    def get_config_dict(
        cls, pretrained_model_name_or_path: Any, **kwargs: Any
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Read config.json; of one in the words of the family, take what its entry ``limbeck`` says."""
        config, rest = super().get_config_dict(pretrained_model_name_or_path, **kwargs)
        ours = config.pop("limbeck", None)
        if ours is not None:
            others = {key: value for key, value in config.items() if key not in STANDARD_KEYS}
            config = {**others, **ours, "model_type": cls.model_type}
        return config, rest

    @property
    def depth(self) -> int:
        """Number of layers."""
        return len(self.layer_heads)

    @property
    def shape(self) -> _Shape:
        """Shape of the encoder."""
        rows = zip(self.layer_heads, self.layer_ffn, self.layer_attention, strict=True)
        return _Shape(self.hidden_size, self.head_dim, tuple(_Layer(*row) for row in rows))

    @property
    def style(self) -> Style:
        """Style of the encoder."""
        return Style(**{field.name: getattr(self, field.name) for field in dataclasses.fields(Style)})


REFUSED = (
    "position_ids", "inputs_embeds", "head_mask", "encoder_hidden_states", "encoder_attention_mask", "past_key_values",
)  # fmt: skip
"""Options of transformers' own encoders that would change the answer and that this one does not have."""


def _check_options(input_ids: Tensor | None, options: Mapping[str, Any]) -> None:
    for name in REFUSED:
        if options.get(name) is not None:
            raise ValueError(f"this model does not take {name}: give input_ids, from which it counts positions itself")
    if input_ids is None:
        raise ValueError("this model needs input_ids [batch, seq]")


def _per_layer(tapped: Mapping[str, list[Tensor]]) -> dict[str, tuple[Tensor, ...]]:
    """Tapped activations under transformers' names; attention as weights that sum to 1."""
    found = {"hidden_states": tuple(tapped["hidden"])} if "hidden" in tapped else {}
    if "attention" in tapped:
        found["attentions"] = tuple(row.softmax(-1) for row in tapped["attention"])
    return found


class LimbeckModel(PreTrainedModel):
    """The encoder alone: hidden states, for embeddings and as a teacher of general distillation."""

    config_class = LimbeckConfig
    base_model_prefix = "encoder"
    _supports_sdpa = True
    # An empty tensor under a name of the family makes the family's own class refuse a shape that it cannot hold.
    _keys_to_ignore_on_load_unexpected = {r"^(bert|roberta|electra|distilbert)\.embeddings\.LayerNorm\.weight$"}  # noqa: RUF012
    accepts_loss_kwargs = False  # or Trainer takes **_ of forward for them and scales accumulated losses wrongly

    def __init__(self, config: LimbeckConfig) -> None:
        super().__init__(config)
        self.encoder = Encoder(config.shape, config.style)
        self.add_head(config)
        self.post_init()

    def add_head(self, config: LimbeckConfig) -> None:
        """Add the layers after the encoder; the plain model has none."""

    def _init_weights(self, module: nn.Module) -> None:
        """As everywhere in transformers, which asks for weights that a checkpoint lacks; not for empty ones."""
        if all(parameter.numel() for parameter in module.parameters(recurse=False)):
            super()._init_weights(module)

    def get_input_embeddings(self) -> nn.Embedding:
        """The word embeddings."""
        return self.encoder.embeddings.word

    def set_input_embeddings(self, value: Any) -> None:
        """Replace the word embeddings."""
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
        **options: Any,
    ) -> ModelOutput | tuple[Tensor, ...]:
        """Last hidden states, and those of every layer and the attention where wanted, as transformers gives them."""
        _check_options(input_ids, options)
        taps = self.wanted_taps(output_attentions, output_hidden_states)
        hidden, tapped = self.encoder(input_ids, attention_mask, token_type_ids, taps=taps)
        return self.packed(BaseModelOutput(last_hidden_state=hidden, **_per_layer(tapped)), return_dict)

    def wanted_taps(self, output_attentions: bool | None, output_hidden_states: bool | None) -> tuple[str, ...]:
        """Taps of the encoder for what a call wants, or else the configuration."""
        attentions = self.config.output_attentions if output_attentions is None else output_attentions
        states = self.config.output_hidden_states if output_hidden_states is None else output_hidden_states
        if attentions:
            for index, layer in enumerate(self.encoder.shape.layers):
                if layer.heads and core(layer.attention)[0] != "softmax":
                    raise ValueError(
                        f"layer {index} has {layer.attention} attention, which has no weight for each pair of tokens: "
                        "call without output_attentions"
                    )
        return ("hidden",) * bool(states) + ("attention",) * bool(attentions)

    def packed(self, output: ModelOutput, return_dict: bool | None) -> ModelOutput | tuple[Tensor, ...]:
        """The output, or its entries as a tuple."""
        wanted = self.config.return_dict if return_dict is None else return_dict
        return output if wanted else output.to_tuple()


class LimbeckForSequenceClassification(LimbeckModel):
    """A class, several classes or a number for a text or a pair of texts."""

    per_token = False
    fresh_head = False  # set by model/classification_head.py: a part of the head was drawn and is not trained yet
    untrained = ""  # why, in words
    order_assumed = False  # only their position says which output is which label

    def add_head(self, config: LimbeckConfig) -> None:
        """Dense layer with activation (the families' pooler), then the output layer."""
        self.pooler = None if self.per_token else _dense(config.hidden_size, config.hidden_size)
        self.classifier = _dense(config.hidden_size, config.num_labels or 1)

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits [batch, classes] (of every token, [batch, seq, classes], when ``per_token``)."""
        style = self.encoder.style
        if self.pooler is not None:
            pooled = hidden[:, 0]
            if style.family != "bert":  # BERT's pooler belongs to the encoder; elsewhere dropout comes first
                pooled = F.dropout(pooled, style.classifier_dropout, self.training and style.family != "distilbert")
            hidden = ACT2FN[style.pooler](_slice(pooled, self.pooler, pooled.shape[-1], pooled.shape[-1]))
        hidden = F.dropout(hidden, style.classifier_dropout, self.training)
        return _slice(hidden, self.classifier, self.classifier.out_features, hidden.shape[-1])

    @property
    def shape(self) -> Any:
        """Shape of the encoder."""
        return self.encoder.shape

    @property
    def runtime(self) -> str:
        """Where this model runs."""
        return "torch"

    @torch.inference_mode()
    def predict(self, batch: dict[str, Tensor]) -> Any:
        """Logits of a batch as a numpy array, without dropout."""
        training = self.training
        logits = self.eval().run({name: value.to(self.device) for name, value in batch.items()})[0]
        self.train(training)
        return logits.float().cpu().numpy()

    def run(self, batch: Mapping[str, Any], **options: Any) -> tuple[Tensor, dict[str, list[Tensor]]]:
        """Logits and taps of a batch; ``options`` (shape, gates, taps) go to the encoder."""
        inputs = (batch["input_ids"], batch.get("attention_mask"), batch.get("token_type_ids"))
        hidden, taps = self.encoder(*inputs, **options)
        return self.logits(hidden), taps

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The loss of ``config.problem_type``; tokens labelled -100 do not count."""
        problem = self.config.problem_type or ("regression" if logits.shape[-1] == 1 else None)
        if problem == "regression":
            return F.mse_loss(logits.squeeze(-1), labels.to(logits.dtype).view(-1))
        if problem == "multi_label_classification":
            return F.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype))
        return F.cross_entropy(logits.reshape(-1, logits.shape[-1]), labels.reshape(-1))

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
        **options: Any,
    ) -> ModelOutput | tuple[Tensor, ...]:
        """Hugging Face calling convention, so that ``transformers.Trainer`` can go on from here."""
        batch = {"input_ids": input_ids, "attention_mask": attention_mask, "token_type_ids": token_type_ids}
        _check_options(input_ids, options)
        logits, tapped = self.run(batch, taps=self.wanted_taps(output_attentions, output_hidden_states))
        loss = None if labels is None else self.loss(logits, labels)
        kind = TokenClassifierOutput if self.per_token else SequenceClassifierOutput
        return self.packed(kind(loss=loss, logits=logits, **_per_layer(tapped)), return_dict)


class LimbeckForTokenClassification(LimbeckForSequenceClassification):
    """A class for every token."""

    per_token = True
