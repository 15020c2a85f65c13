"""What several processes do in one training step so that it is the step of one process with the whole batch.

Each takes its share of the rows; gradients are summed. A loss that is a mean over rows enters with the share's part of
the rows as its weight, so unequal shares give exactly the gradient of the whole batch. Means over tokens (hidden
states, relations, word labels) are weighted in the same way: there the mean of a share counts by its rows, not by its
tokens, which differs a little, as rows of a batch are about equally long.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, distributed, nn

from limbeck.distributed import context as processes


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
    missing = [place for place, parameter in enumerate(parameters) if parameter.grad is None]
    heard = processes.agree(**({"missing": missing} if missing else {}))
    unused = set.intersection(*(set(one.get("missing", ())) for one in heard))
    chosen = [parameter for place, parameter in enumerate(parameters) if place not in unused]
    for parameter in chosen:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    gradients = [parameter.grad for parameter in chosen if parameter.grad is not None]
    for dtype in sorted({gradient.dtype for gradient in gradients}, key=str):
        group = [gradient for gradient in gradients if gradient.dtype == dtype]
        flat = torch.cat([gradient.flatten() for gradient in group])
        with processes.connected():
            distributed.all_reduce(flat)
        parts = flat.split([gradient.numel() for gradient in group])
        for gradient, part in zip(group, parts, strict=True):
            gradient.copy_(part.view_as(gradient))


def totals(seconds: float, terms: Mapping[str, Tensor], weight: float) -> tuple[float, dict[str, Tensor]]:
    """Process 0's seconds, and the terms of the whole batch from those of the shares."""
    if processes.count() == 1:
        return seconds, dict(terms)
    heard = processes.agree(seconds=seconds, terms={name: float(term) * weight for name, term in terms.items()})
    return heard[0]["seconds"], {name: torch.tensor(sum(one["terms"][name] for one in heard)) for name in terms}


def same_weights(module: nn.Module) -> None:
    """Give every process the weights of process 0."""
    if processes.count() == 1:
        return
    processes.agree()  # nobody gave up before
    with processes.connected(), torch.no_grad():
        for tensor in module.state_dict().values():
            if tensor.numel():  # layers may be cut away
                distributed.broadcast(tensor, 0)
