"""Fit a new head to the encoder's features before the encoder itself is trained.

Reference: Kumar et al., 2022, arXiv:2202.10054 (linear probing, then fine-tuning): gradients through a random output
layer distort features that were good. Differs: L-BFGS with one penalty for every task, in place of gradient descent
with a penalty chosen on held-out rows, since the layer is only where training starts.

A dense layer before the output layer begins anew, too, as Zhang et al., 2021, arXiv:2006.05987, advise for BERT's.
Differs: it is not drawn at random, but passes on what it reads. Outputs of a random one are small, so that the layer
after it is large, and each step of Adam changes the answers too much.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from transformers.activations import ACT2FN

from limbeck.core.kinds import KINDS
from limbeck.core.task import choose
from limbeck.data.batching import Encoded, collate, length_batches
from limbeck.distributed import context as processes
from limbeck.distributed import gradients
from limbeck.model.heads import head_features, pooled
from limbeck.model.output_losses import IGNORE

if TYPE_CHECKING:
    from torch import nn

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
SPREAD = 0.5
"""Standard deviation of what enters the activation of a dense layer, where tanh is almost linear. Less where states
hardly differ, as of a random encoder: were they larger than 1, the first steps would saturate the activation."""
OFFSET = 2.0
"""Mean of what enters an activation that is almost linear above 0 alone, as ReLU and GELU."""
BATCH = 64


def fit_head(model: LimbeckForSequenceClassification, texts: Encoded, seed: int = 0) -> None:
    """Replace the head, in place, by one that answers as well as it can while the encoder stays as it is.

    The output layer has the least loss on the labels. A dense layer before it that has a bias becomes a multiple of the
    identity. Where several processes train, all must call this; process 0 computes.

    Args:
        model: The model, on the device that computes.
        texts: The training texts with their labels.
        seed: Decides which texts are read where there are more than ``ANSWERS``.
    """
    if processes.rank() == 0:
        training = model.training
        model.eval()
        states, labels = _states(model, texts, seed)
        with torch.no_grad():
            if model.pooler is not None and model.pooler.bias is not None:
                _pass_on(model.pooler, states, model.style.pooler)
            features = head_features(model, states[:, None], None, model.style)
        weight, bias = _solve(model, features, labels)
        with torch.no_grad():
            model.classifier.weight.copy_(weight)
            model.classifier.bias.copy_(bias)
        model.train(training)
    gradients.broadcast_weights(model)


@torch.no_grad()
def _states(model: LimbeckForSequenceClassification, texts: Encoded, seed: int) -> tuple[Tensor, Tensor]:
    """Return what the head reads for each answer [answers, hidden], and the labels [answers, ...]."""
    kind = KINDS[texts.kind]
    answers = sum(label != IGNORE for row in texts.labels for label in row) if kind.per_token else len(texts)
    count = max(1, min(len(texts), ANSWERS * len(texts) // max(1, answers)))
    rows = choose(texts.labels, count, seed, stratified=kind.single_class)
    states, labels = [], []
    for batch_rows in length_batches(texts.lengths[rows], BATCH):
        batch = {name: value.to(model.device) for name, value in collate(texts, [rows[i] for i in batch_rows]).items()}
        mask, answered = batch["attention_mask"], batch["labels"]
        hidden, _ = model.encoder(batch["input_ids"], mask, batch.get("token_type_ids"))
        labeled = answered != IGNORE if model.per_token else slice(None)
        states.append((hidden if model.per_token else pooled(hidden, mask, model.style))[labeled].float())
        labels.append(answered[labeled])
    return torch.cat(states), torch.cat(labels)


def _pass_on(dense: nn.Linear, states: Tensor, activation: str) -> None:
    """Make a dense layer and its activation give back the states [answers, hidden], nearly, but for mean and scale."""
    function, unit = ACT2FN[activation], torch.ones(())
    odd = torch.isclose(function(unit), -function(-unit), atol=1e-4)
    mean = states.mean(0)
    spread, size = (each.square().mean().sqrt().clamp_min(ROUNDING) for each in (states - mean, states))
    factor = min(SPREAD / spread, 1 / size)
    dense.weight.copy_(factor * torch.eye(len(mean), device=mean.device))
    dense.bias.copy_((0.0 if odd else OFFSET) - factor * mean)


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
        loss = model.loss(logits, labels) + PENALTY / (2 * labels.numel()) * weight.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return float(loss.detach())

    solver.step(penalized)
    weight, bias = weight.detach(), bias.detach()
    return weight / spread, bias - (weight / spread) @ mean
