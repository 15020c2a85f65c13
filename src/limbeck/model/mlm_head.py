"""The head of a masked language model, for slices of an encoder too, and where a checkpoint keeps it.

Reference: Devlin et al., 2019, arXiv:1810.04805 (BERT); the other families have the same head under other names. It
serves training on text and is not saved with a model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.activations import ACT2FN

from limbeck.model._transformers import explained, quiet
from limbeck.model.layers import layer_norm, linear, slice_linear, slice_norm
from limbeck.model.location import check_weights, read_config

if TYPE_CHECKING:
    from limbeck.model.encoder import LimbeckForSequenceClassification
    from limbeck.model.style import Style


class HeadPaths(NamedTuple):
    """Where a masked language model keeps its head.

    Attributes:
        dense: Path of the dense layer.
        norm: Path of the LayerNorm.
        decoder: Path of the decoder, which the head has if its weights are the word embeddings; '' where there is none.
        bias: Name of the decoder's bias.
    """

    dense: str
    norm: str
    decoder: str
    bias: str


def _head_paths(dense: str, norm: str, decoder: str) -> HeadPaths:
    return HeadPaths(dense, norm, decoder, f"{decoder}.bias")


_ROBERTA = _head_paths("lm_head.dense", "lm_head.layer_norm", "lm_head.decoder")
_BERT = _head_paths("cls.predictions.transform.dense", "cls.predictions.transform.LayerNorm", "cls.predictions.decoder")
GELU_FAMILIES = (
    "roberta", "xlm-roberta", "camembert", "data2vec-text", "mpnet", "electra", "roberta-prelayernorm",
    "xlm-roberta-xl",
)  # fmt: skip
"""Families whose head has GELU, whatever activation their layers have."""
HEAD_PATHS = dict.fromkeys(GELU_FAMILIES, _ROBERTA) | {
    "bert": _BERT,
    "ernie": _BERT,
    "megatron-bert": _BERT,
    "roformer": _BERT,
    "deberta-v2": _BERT,
    "rembert": _head_paths("cls.predictions.dense", "cls.predictions.LayerNorm", "cls.predictions.decoder"),
    "albert": _head_paths("predictions.dense", "predictions.LayerNorm", "predictions.decoder"),
    "electra": _head_paths("generator_predictions.dense", "generator_predictions.LayerNorm", "generator_lm_head"),
    "modernbert": _head_paths("head.dense", "head.norm", "decoder"),
    "distilbert": _head_paths("vocab_transform", "vocab_layer_norm", "vocab_projector"),
}
"""By ``model_type``."""
_NEW_DEBERTA = HeadPaths(
    "lm_predictions.lm_head.dense", "lm_predictions.lm_head.LayerNorm", "", "lm_predictions.lm_head.bias"
)
"""That of a DeBERTa whose configuration has ``legacy: false``; it multiplies by the word embeddings themselves."""


class LanguageHead(nn.Module):
    """Logits of all words for hidden states: dense layer, activation, LayerNorm, then the tied word embeddings.

    Narrower states run on leading slices, as in the encoder: of the dense layer, the norm and, unless the encoder
    projects its embeddings to its own width, the embeddings' channels. A new head starts as BERT's: normal, 0.02.
    Where a norm follows the dense layer of a classifier (ModernBERT), that head is the same as this one.

    Shapes: states [tokens, hidden], table [vocabulary, embedding]; result [tokens, vocabulary].
    """

    def __init__(self, hidden: int, style: Style) -> None:
        super().__init__()
        width = style.embedding_size or hidden
        self.projected = width != hidden
        self.dense = linear(hidden, width, style.pooler_bias)
        self.norm = layer_norm(width, style)
        self.bias = nn.Parameter(torch.zeros(style.vocab_size))
        own = style.pooler if style.pooler_norm else style.activation
        self.activation = ACT2FN["gelu" if style.family in GELU_FAMILIES else own]

    def forward(self, states: Tensor, table: Tensor) -> Tensor:
        """Return the logits of every word of the table for every state."""
        rows = self.dense.out_features if self.projected else states.shape[-1]
        transformed = self.activation(slice_linear(states, self.dense, rows, states.shape[-1]))
        return F.linear(slice_norm(transformed, self.norm), table[:, :rows], self.bias)

    def permute_channels(self, order: Sequence[int]) -> None:
        """Reorder the channels as those of the encoder were (see ``subnetwork.sort_channels``)."""
        index = torch.as_tensor(order)
        with torch.no_grad():
            self.dense.weight.copy_(self.dense.weight[:, index])
            if not self.projected:
                for tensor in (*self.dense.parameters(), *self.norm.parameters()):
                    tensor.copy_(tensor[index])


def language_head(model: LimbeckForSequenceClassification, source: str | None) -> tuple[LanguageHead, str]:
    """Build a head for a model, with the weights of a pretrained ``source`` if it has some that fit.

    Args:
        model: The encoder whose embeddings the head shares.
        source: Folder or hub name of the pretrained model; None for a new head.

    Returns:
        The head, and a note that says whether its weights are pretrained or new.
    """
    head = LanguageHead(model.shape.hidden, model.encoder.style)
    weights, why = ({}, "") if source is None else _trained(source, head.state_dict())
    fits = {name: tensor.shape for name, tensor in weights.items()} == {
        name: tensor.shape for name, tensor in head.state_dict().items()
    }
    if not fits:
        why = f"that of '{source}' has another size" if weights else why
        return head, "the head of the language model is drawn anew" + (f": {why}" if why else "")
    head.load_state_dict(weights)
    return head, f"the head of the language model is that of '{source}'"


def open_masked(source: str) -> tuple[Any, list[str]]:  # transformers mistypes PreTrainedModel.to
    """Open a masked language model of transformers (safetensors only); return it and the names of missing weights."""
    from transformers import AutoModelForMaskedLM

    folder, _ = read_config(source)
    if folder is not None:
        check_weights(folder)
    with quiet(), explained(source):
        model, report = AutoModelForMaskedLM.from_pretrained(
            folder or source,
            use_safetensors=True,
            trust_remote_code=False,
            attn_implementation="eager",
            local_files_only=folder is not None,
            output_loading_info=True,
        )
    return model, sorted(report["missing_keys"])


def _trained(source: str, ours: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], str]:
    """Read the head's weights from a checkpoint, under our names.

    Args:
        source: Folder or hub name of the pretrained model.
        ours: The head's weights here, by name.

    Returns:
        The weights, or none and the reason.
    """
    folder, config = read_config(source)
    family, none = config.get("model_type"), f"'{source}' has none"
    if family not in HEAD_PATHS:
        return {}, none
    model, missing = open_masked(str(folder or source))  # a short name of a model stands for a folder
    new = family == "deberta-v2" and config.get("legacy") is False
    paths, weights = _NEW_DEBERTA if new else HEAD_PATHS[family], model.state_dict()
    decoder = weights[f"{paths.decoder}.weight"] if paths.decoder else None
    if decoder is not None and not torch.equal(decoder, model.get_input_embeddings().weight):
        return {}, f"the decoder of '{source}' has other weights than its word embeddings, which this head would use"
    weights.setdefault(paths.bias, torch.zeros(config.get("vocab_size", len(ours["bias"]))))  # ModernBERT may have none
    modules = {"dense": paths.dense, "norm": paths.norm}
    names = {own: own.replace(own.split(".")[0], modules[own.split(".")[0]], 1) for own in ours if own != "bias"}
    names["bias"] = paths.bias
    if set(names.values()) & set(missing) or names.values() - weights.keys():
        return {}, none
    return {own: weights[name].float() for own, name in names.items()}, ""
