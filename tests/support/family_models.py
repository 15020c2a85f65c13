"""Random models of every family with several odd configurations, made by transformers' own classes. Not a test."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from typing import Any

import torch
import transformers

from limbeck.model.encoder import LimbeckForSequenceClassification
from limbeck.model.family_table import FAMILIES
from limbeck.model.pretrained import load_pretrained

VOCABULARY = 60
COMMON = {"vocab_size": VOCABULARY, "max_position_embeddings": 40, "layer_norm_eps": 1e-5}
SIZES = {
    "small": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48},
    "odd": {"hidden_size": 21, "num_hidden_layers": 3, "num_attention_heads": 3, "intermediate_size": 37},
    "one": {"hidden_size": 10, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 5},
}
DISTILBERT = {"hidden_size": "dim", "num_hidden_layers": "n_layers", "num_attention_heads": "n_heads"}
DISTILBERT["intermediate_size"] = "hidden_dim"
OPTIONS: dict[str, dict[str, Any]] = {
    "roberta": {"type_vocab_size": 1},
    "xlm-roberta": {"type_vocab_size": 1},
    "camembert": {"type_vocab_size": 1},
    "xlm-roberta-xl": {"type_vocab_size": 1},
    "data2vec-text": {"type_vocab_size": 1, "hidden_act": "gelu_new"},
    "electra": {"embedding_size": 12},
    "albert": {"embedding_size": 12},
    "rembert": {"input_embedding_size": 12},
    "roformer": {"embedding_size": 12, "bos_token_id": 1, "eos_token_id": 2},
    "distilbert": {"activation": "relu"},
    "deberta-v2": {"relative_attention": True, "pos_att_type": ["p2c", "c2p"]},
    "modernbert": {
        "norm_eps": 1e-5,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "cls_token_id": 1,
        "sep_token_id": 2,
    },
}
"""What differs from a family's defaults, apart from sizes."""
OTHER_SIZES: dict[str, dict[str, dict[str, Any]]] = {
    "electra": {"odd": {"embedding_size": 21}},  # as wide as the encoder, so there is no projection
    "roformer": {"odd": {"hidden_size": 18}},  # heads of even width
    "deberta-v2": {  # buckets narrower than the texts; distances beyond the largest; one term alone
        "small": {
            "share_att_key": True, "position_buckets": 8, "norm_rel_ebd": "layer_norm", "position_biased_input": False
        },
        "odd": {"max_relative_positions": 6, "embedding_size": 12, "type_vocab_size": 2},
        "one": {"pos_att_type": "c2p", "position_buckets": 6, "pooler_hidden_act": "tanh"},
    },
    "modernbert": {  # both kinds of layers, and heads of even width; the second window is narrower than the texts
        "small": {"num_hidden_layers": 4, "classifier_pooling": "mean"},
        "odd": {"hidden_size": 18, "num_hidden_layers": 5, "local_attention": 7, "mlp_bias": True, "norm_bias": True},
        "one": {
            "num_hidden_layers": 2, "local_attention": 1, "attention_bias": True, "classifier_bias": True,
            "hidden_activation": "silu",
        },
    },
}  # fmt: skip
"""What differs from the usual sizes."""
CASES = tuple(f"{family}-{size}" for family in FAMILIES for size in SIZES)


AUTO = {"text": "AutoModelForSequenceClassification", "tokens": "AutoModelForTokenClassification"}


def reference(case: str, kind: str = "text", seed: int = 0) -> Any:
    """Return transformers' own model for texts or tokens."""
    return random_model(case, AUTO[kind], seed)


def random_model(case: str, auto: str, seed: int = 0, **changes: Any) -> Any:
    """Return a model of one of transformers' classes with weights so large that every part of it shows in the answers.

    Args:
        case: Family and size.
        auto: Name of the class.
        seed: Seed of the weights.
        **changes: Keys of the configuration, sizes by the names of BERT, in place of the case's own.
    """
    family, _, size = case.rpartition("-")
    settings = COMMON | OPTIONS.get(family, {}) | SIZES[size] | OTHER_SIZES.get(family, {}).get(size, {})
    settings |= {"num_labels": 3} | changes
    if family == "distilbert":
        settings = {DISTILBERT.get(key, key): value for key, value in settings.items()}
    config = transformers.AutoConfig.for_model(family, **settings)
    torch.manual_seed(seed)
    model = getattr(transformers, auto).from_config(config)
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            if parameter.requires_grad:  # RoFormer's table of positions is computed
                parameter.normal_(0.0, 0.2)
            if "norm" in parameter_name.lower() and parameter_name.endswith("weight"):
                parameter.add_(1.0)
    return model.eval()


def ours(case: str, kind: str = "text") -> LimbeckForSequenceClassification:
    """Return our model of the same weights."""
    with tempfile.TemporaryDirectory() as folder:
        reference(case, kind).save_pretrained(folder)
        return load_pretrained(folder)


def defined(model: LimbeckForSequenceClassification, batch: dict[str, torch.Tensor], logits: Any) -> Any:
    """Return the logits [values, classes] of a batch that mean something: all, unless attention is local.

    Padding that is near no token sees nothing there, and each implementation gives it other states.
    """
    mask = batch.get("attention_mask")
    if mask is None or not any(layer.core[0] == "local" for layer in model.shape.layers):
        return logits
    if logits.ndim == 3:
        return logits[mask.bool()]
    return logits if model.style.pooling == "mean" else logits[mask[:, 0].bool()]


def batches(pad: int, *, types: bool) -> Iterator[dict[str, torch.Tensor]]:
    """Yield batches [rows, tokens] with padding on either side, with holes, and without a mask."""
    generator = torch.Generator().manual_seed(1)
    tokens = 13
    ids = torch.randint(5, VOCABULARY, (4, tokens), generator=generator)
    position, lengths = torch.arange(tokens), torch.tensor([[13], [1], [4], [7]])
    holes = torch.rand(4, tokens, generator=generator).gt(0.4).index_fill_(1, torch.tensor(0), True)
    for mask in (position < lengths, position >= tokens - lengths, holes, torch.ones(4, tokens, dtype=torch.bool)):
        batch = {"input_ids": torch.where(mask, ids, pad), "attention_mask": mask.long()}
        yield batch | ({"token_type_ids": (position > 3).long().expand(4, -1)} if types else {})
    yield {"input_ids": ids}
