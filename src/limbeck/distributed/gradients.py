"""Data-parallel training steps that equal the step of one process on the whole batch.

Each process takes a shard of the rows, and gradients are summed. A loss that is a mean over rows is weighted by the
shard's fraction of the rows, so unequal shards give exactly the gradient of the whole batch. Means over tokens (hidden
states, relations, word labels) are weighted by rows too, not by tokens. That differs slightly, since rows of a batch
have about the same length.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, distributed, nn

from limbeck.distributed import context as processes


def shard(indices: Sequence[int]) -> tuple[list[int], float]:
    """Return this process's rows of a batch, and their fraction of the batch.

    A batch may have fewer rows than there are processes; a process without rows takes the first row with weight 0,
    because all processes must take part in the step.
    """
    rows = list(indices[processes.rank() :: processes.count()])
    return rows or list(indices[:1]), len(rows) / len(indices)


def sum_gradients(parameters: Sequence[Tensor]) -> None:
    """Replace gradients by their sums over the processes; a parameter without a gradient on any process keeps none."""
    if processes.count() == 1:
        return
    missing = [index for index, parameter in enumerate(parameters) if parameter.grad is None]
    messages = processes.all_gather(**({"missing": missing} if missing else {}))
    unused = set.intersection(*(set(message.get("missing", ())) for message in messages))
    used = [parameter for index, parameter in enumerate(parameters) if index not in unused]
    for parameter in used:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    gradients = [parameter.grad for parameter in used if parameter.grad is not None]
    for dtype in sorted({gradient.dtype for gradient in gradients}, key=str):
        group = [gradient for gradient in gradients if gradient.dtype == dtype]
        flat = torch.cat([gradient.flatten() for gradient in group])
        with processes.connected():
            distributed.all_reduce(flat)
        parts = flat.split_with_sizes([gradient.numel() for gradient in group])
        for gradient, part in zip(group, parts, strict=True):
            gradient.copy_(part.view_as(gradient))


def reduce_terms(seconds: float, terms: Mapping[str, Tensor], weight: float) -> tuple[float, dict[str, Tensor]]:
    """Combine what the processes log of a step.

    Args:
        seconds: Training time so far on this process.
        terms: Loss terms of this process's shard, scalars.
        weight: The shard's fraction of the batch.

    Returns:
        The seconds of process 0, and the terms of the whole batch.
    """
    if processes.count() == 1:
        return seconds, dict(terms)
    messages = processes.all_gather(seconds=seconds, terms={name: float(term) * weight for name, term in terms.items()})
    sums = {name: sum(message["terms"][name] for message in messages) for name in terms}
    return messages[0]["seconds"], {name: torch.tensor(total) for name, total in sums.items()}


def broadcast_weights(module: nn.Module) -> None:
    """Copy the weights of process 0 to all processes."""
    if processes.count() == 1:
        return
    processes.all_gather()  # fails if a process gave up before
    with processes.connected(), torch.no_grad():
        for tensor in module.state_dict().values():
            if tensor.numel():  # pruning may leave empty layers
                distributed.broadcast(tensor, 0)
