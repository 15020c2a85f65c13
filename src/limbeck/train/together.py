"""What several processes do in one training step so that it is the step of one process with the whole batch.

Each takes its share of the rows; gradients are summed. A loss that is a mean over rows enters with the share's part of
the rows as its weight, so unequal shares give exactly the gradient of the whole batch. Means over tokens (hidden
states, relations, word labels) are weighted in the same way: there the mean of a share counts by its rows, not by its
tokens, which differs a little, as rows of a batch are about equally long.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, distributed, nn

from limbeck import processes


def share(indices: Sequence[int]) -> tuple[list[int], float]:
    """The rows of a batch that this process takes, and their part of all.

    A batch may have fewer rows than there are processes; those without one take the first row with weight 0, because
    all of them must meet.
    """
    mine = list(indices[processes.rank() :: processes.count()])
    return mine or list(indices[:1]), len(mine) / len(indices)


def sum_gradients(parameters: Sequence[Tensor]) -> None:
    """Replace gradients by their sums over the processes; what got none anywhere (an unused part) still has none."""
    if processes.count() == 1:
        return
    used = torch.tensor([float(p.grad is not None) for p in parameters], device=parameters[0].device)
    _sum(used)
    chosen = [p for p, seen in zip(parameters, used.tolist(), strict=True) if seen]
    for dtype in sorted({p.dtype for p in chosen}, key=str):
        group = [p for p in chosen if p.dtype == dtype]
        for parameter in group:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        gradients = [p.grad for p in group if p.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        _sum(flat)
        parts = flat.split([gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))


def totals(seconds: float, terms: Mapping[str, Tensor], weight: float) -> tuple[float, dict[str, Tensor]]:
    """Process 0's seconds, and the terms of the whole batch from those of the shares."""
    if processes.count() == 1:
        return seconds, dict(terms)
    first = terms["loss"]
    clock = torch.full_like(first, seconds if processes.rank() == 0 else 0.0, dtype=torch.float64)
    values = torch.stack([clock, *(terms[name].to(clock) * weight for name in sorted(terms))])
    _sum(values)
    return float(values[0]), dict(zip(sorted(terms), values[1:], strict=True))


def same_weights(module: nn.Module) -> None:
    """Give every process the weights of process 0."""
    if processes.count() == 1:
        return
    with processes.connected(), torch.no_grad():
        for tensor in _tensors(module):
            distributed.broadcast(tensor, 0)


def _tensors(module: nn.Module) -> Iterable[Tensor]:
    return (tensor for tensor in module.state_dict().values() if tensor.numel())


def _sum(tensor: Tensor) -> None:
    with processes.connected():
        distributed.all_reduce(tensor)
