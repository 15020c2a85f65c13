"""Give a model early exits, set their rule, and compute the logits of all its heads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from limbeck.model.heads import EarlyExits as Exits
from limbeck.model.pruning.subnetwork import forget_slices
from limbeck.model.token_pruning import RemainingTokens

if TYPE_CHECKING:
    from torch import Tensor

    from limbeck.core.early_exits import EarlyExits
    from limbeck.model.encoder import LimbeckForSequenceClassification


def add_exits(model: LimbeckForSequenceClassification, exits: EarlyExits) -> None:
    """Add heads after inner layers, in place; each begins as a copy of the last one.

    Args:
        model: The model; it is no super-network any more.
        exits: Where the heads stand.
    """
    settings, width = exits.to_json(), model.encoder.shape.hidden
    heads = Exits(settings, width, model.classifier.out_features, model.encoder.style)
    own = {name: module for name, module in model.named_children() if name in ("pooler", "pooler_norm", "classifier")}
    for head in heads.heads:
        for name, module in own.items():
            head.get_submodule(name).load_state_dict(module.state_dict())
    forget_slices(model.config)
    model.config.early_exits = settings
    model.exits = heads.to(model.device).train(model.training)


def set_rule(model: LimbeckForSequenceClassification, exits: EarlyExits) -> None:
    """Say when the heads of a model are sure, in place.

    Args:
        model: A model with heads after the layers of ``exits``.
        exits: The rule.
    """
    assert model.exits is not None
    model.config.early_exits = exits.to_json()
    model.exits.set_rule(exits.to_json())


def all_logits(model: LimbeckForSequenceClassification, batch: Mapping[str, Any]) -> list[Tensor]:
    """Return the logits of every inner head and of the last one, each [batch, classes].

    Args:
        model: A model with early exits.
        batch: ``input_ids``, ``attention_mask`` and perhaps ``token_type_ids``, each [batch, seq].
    """
    assert model.exits is not None
    encoder, mask = model.encoder, batch.get("attention_mask")
    remaining = RemainingTokens(mask, batch["input_ids"])
    states = encoder.states(remaining, batch["input_ids"], batch.get("token_type_ids"))
    logits: list[Tensor] = []
    for hidden, own in model.exits.each(states, mask, lambda x: encoder.normalized(remaining.merged(x))):
        last = hidden
        logits += [] if own is None else [own]
    return [*logits, model.logits(encoder.normalized(remaining.merged(last)), mask)]
