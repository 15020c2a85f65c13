"""Models with early exits whose inner heads are unlike the last one. Not a test."""

from __future__ import annotations

import torch

from limbeck.core.early_exits import EarlyExits
from limbeck.model.early_exits import add_exits, set_rule

LAYERS = (1, 2, 3)


def with_exits(make_model, shape, rule):
    """Give a model of a shape heads after inner layers; ``make_model`` makes it, ``rule`` says when they are sure."""
    model = make_model(shape, labels=3)
    add_exits(model, EarlyExits(rule.layers))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.exits.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.3)
    set_rule(model, rule)
    return model.eval()
