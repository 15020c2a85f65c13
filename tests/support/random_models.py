"""Random encoders, and batches for them. Not a test."""

from __future__ import annotations

import torch

from limbeck.core.kinds import KINDS
from limbeck.core.sentence_embedding import SentenceEmbedding
from limbeck.core.shape import Shape
from limbeck.core.task_kind import PROBLEM_TYPES
from limbeck.model.classification_head import model_class
from limbeck.model.encoder import LimbeckConfig, Style


def build_model(shape: Shape | None = None, *, labels: int = 2, kind: str = "classification", seed: int = 0, **style):
    """A random encoder with biases and norms that matter, in evaluation mode."""
    shape = shape or Shape.uniform(layers=2, hidden=32, heads=4, ffn=64)
    torch.manual_seed(seed)
    config = LimbeckConfig(
        hidden_size=shape.hidden,
        head_dim=shape.head_dim,
        layer_heads=[layer.heads for layer in shape.layers],
        layer_ffn=[layer.ffn for layer in shape.layers],
        num_labels=labels,
        **({"sentence_embedding": SentenceEmbedding().to_json()} if KINDS[kind].vectors else {}),
        **({str(KINDS[kind].config_mark): True} if KINDS[kind].config_mark else {}),
        problem_type=KINDS[kind].problem_type if KINDS[kind].problem_type in PROBLEM_TYPES else None,
        **{"vocab_size": 60, "max_positions": 64, **style},
    )
    model = model_class(per_token=KINDS[kind].per_token, vectors=KINDS[kind].vectors)(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    model.encoder.shape = shape
    assert isinstance(model.encoder.style, Style)
    return model.eval()


def random_batch(rows: int = 3, longest: int = 9, vocabulary: int = 60, seed: int = 0) -> dict[str, torch.Tensor]:
    """Token ids of different lengths, padded on the right, with two token types and binary labels."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(5, vocabulary, (rows, longest), generator=generator)
    lengths = torch.randint(3, longest + 1, (rows,), generator=generator)
    lengths[0] = longest
    mask = (torch.arange(longest)[None] < lengths[:, None]).long()
    types = (torch.arange(longest)[None] >= (lengths // 2)[:, None]).long() * mask
    labels = torch.randint(0, 2, (rows,), generator=generator)
    return {"input_ids": ids * mask, "attention_mask": mask, "token_type_ids": types, "labels": labels}
