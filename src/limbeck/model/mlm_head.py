"""The head of a masked language model, for slices of an encoder too, and where a checkpoint keeps it.

Reference: Devlin et al., 2019, arXiv:1810.04805 (BERT); RoBERTa, ELECTRA's generator and DistilBERT have the same head
under other names. It serves training on text and is not saved with a model.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

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

_ROBERTA = ("lm_head.dense", "lm_head.layer_norm", "lm_head.bias")
_BERT = ("cls.predictions.transform.dense", "cls.predictions.transform.LayerNorm", "cls.predictions.bias")
NAMES = {
    "bert": _BERT,
    "ernie": _BERT,
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
    "camembert": _ROBERTA,
    "data2vec-text": _ROBERTA,
    "mpnet": _ROBERTA,
    "albert": ("predictions.dense", "predictions.LayerNorm", "predictions.bias"),
    "electra": ("generator_predictions.dense", "generator_predictions.LayerNorm", "generator_lm_head.bias"),
    "modernbert": ("head.dense", "head.norm", "decoder.bias"),
    "distilbert": ("vocab_transform", "vocab_layer_norm", "vocab_projector.bias"),
    "deberta-v2": ("cls.predictions.transform.dense", "cls.predictions.transform.LayerNorm", "cls.predictions.bias"),
}
"""Dense layer, LayerNorm and bias of the head in a checkpoint, by ``model_type``; the decoder is tied."""
_NEW_DEBERTA = tuple(f"lm_predictions.lm_head.{part}" for part in ("dense", "LayerNorm", "bias"))
"""The same of a DeBERTa whose configuration has ``legacy: false``."""


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
        self.activation = ACT2FN[style.pooler if style.pooler_norm else style.activation]

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
    weights = {} if source is None else _trained(source, head.state_dict())
    fits = {name: tensor.shape for name, tensor in weights.items()} == {
        name: tensor.shape for name, tensor in head.state_dict().items()
    }
    if not fits:
        why = f"'{source}' has none" if not weights else f"that of '{source}' has another size"
        return head, "the head of the language model is drawn anew" + (f": {why}" if source is not None else "")
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


def _trained(source: str, ours: Iterable[str]) -> dict[str, Tensor]:
    """Read the head's weights from a checkpoint, under our names; return none if it has no trained head.

    Args:
        source: Folder or hub name of the pretrained model.
        ours: Names of the head's weights here.
    """
    folder, config = read_config(source)
    family = config.get("model_type")
    if family not in NAMES:
        return {}
    model, missing = open_masked(str(folder or source))  # a short name of a model stands for a folder
    new = family == "deberta-v2" and config.get("legacy") is False
    dense, norm, bias = _NEW_DEBERTA if new else NAMES[family]
    paths = {"dense": dense, "norm": norm, "bias": bias}
    names = {own: own.replace(own.split(".")[0], paths[own.split(".")[0]], 1) for own in ours}
    weights = model.state_dict()
    if set(names.values()) & set(missing) or names.values() - weights.keys():
        return {}
    return {own: weights[name].float() for own, name in names.items()}
