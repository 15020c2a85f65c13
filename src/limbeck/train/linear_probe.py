"""Fit a new output layer to the encoder's features before the encoder itself is trained.

Reference: Kumar et al., 2022, arXiv:2202.10054 (linear probing, then fine-tuning): gradients through a random output
layer distort features that were good. Differs: L-BFGS with one penalty for every task, in place of gradient descent
with a penalty chosen on held-out rows, since the layer is only where training starts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from limbeck.core.kinds import KINDS
from limbeck.core.task import choose
from limbeck.data.batching import Encoded, collate, length_batches
from limbeck.distributed import context as processes
from limbeck.distributed import gradients
from limbeck.model.heads import head_features
from limbeck.model.output_losses import IGNORE

if TYPE_CHECKING:
    from limbeck.model.encoder import LimbeckForSequenceClassification

ANSWERS = 10_000
"""Texts, or labeled words, that the layer is fitted to: more cost as much as training on them."""
PENALTY = 10.0
"""Of the squared weights of standardized features, against the sum of the losses: C = 0.1 in scikit-learn's terms."""
ITERATIONS = 100
NARROWEST = 0.01
"""Features of a smaller spread, relative to the widest, count as of this spread."""
ROUNDING = 1e-6
"""Spread of features that differ by rounding alone."""
BATCH = 64


def fit_output_layer(model: LimbeckForSequenceClassification, texts: Encoded, seed: int = 0) -> None:
    """Replace the output layer, in place, by the one that answers best while the rest of the model stays as it is.

    Where several processes train, all must call this; process 0 computes.

    Args:
        model: The model, on the device that computes.
        texts: The training texts with their labels.
        seed: Decides which texts are read where there are more than ``ANSWERS``.
    """
    if processes.rank() == 0:
        features, labels = _features(model, texts, seed)
        weight, bias = _solve(model, features, labels)
        with torch.no_grad():
            model.classifier.weight.copy_(weight)
            model.classifier.bias.copy_(bias)
    gradients.broadcast_weights(model.classifier)


@torch.no_grad()
def _features(model: LimbeckForSequenceClassification, texts: Encoded, seed: int) -> tuple[Tensor, Tensor]:
    """Return what the output layer reads [answers, hidden], without dropout, and the labels [answers, ...]."""
    kind, training = KINDS[texts.kind], model.training
    answers = sum(label != IGNORE for row in texts.labels for label in row) if kind.per_token else len(texts)
    count = max(1, min(len(texts), ANSWERS * len(texts) // max(1, answers)))
    rows = choose(texts.labels, count, seed, stratified=kind.single_class)
    features, labels = [], []
    model.eval()
    for batch_rows in length_batches(texts.lengths[rows], BATCH):
        batch = {name: value.to(model.device) for name, value in collate(texts, [rows[i] for i in batch_rows]).items()}
        mask = batch["attention_mask"]
        hidden, _ = model.encoder(batch["input_ids"], mask, batch.get("token_type_ids"))
        read = head_features(model, hidden, mask, model.style, per_token=model.per_token)
        labeled = batch["labels"] != IGNORE if model.per_token else slice(None)
        features.append(read[labeled].float())
        labels.append(batch["labels"][labeled])
    model.train(training)
    return torch.cat(features), torch.cat(labels)


def _solve(model: LimbeckForSequenceClassification, features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return weight [outputs, hidden] and bias [outputs] of the least penalized loss on the labels."""
    mean, spread = features.mean(0), features.std(0, correction=0)
    spread = spread.clamp_min(max(float(spread.max()) * NARROWEST, ROUNDING))
    standardized = (features - mean) / spread
    weight, bias = torch.zeros_like(model.classifier.weight), torch.zeros_like(model.classifier.bias)
    solver = torch.optim.LBFGS(
        [weight.requires_grad_(), bias.requires_grad_()], max_iter=ITERATIONS, line_search_fn="strong_wolfe"
    )

    def penalized() -> float:
        solver.zero_grad()
        logits = standardized @ weight.T + bias
        loss = model.loss(logits, labels) + PENALTY / (2 * len(labels)) * weight.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return float(loss.detach())

    solver.step(penalized)
    weight, bias = weight.detach(), bias.detach()
    return weight / spread, bias - (weight / spread) @ mean
