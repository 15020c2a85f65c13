"""The output layer and its labels: a model around given weights, and the head that a task needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from limbeck.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from limbeck.core.shape import Shape
    from limbeck.data.task import Kind
    from limbeck.model.encoder import LimbeckForSequenceClassification

PROBLEMS: Mapping[str, str] = {
    "classification": "single_label_classification",
    "tokens": "single_label_classification",
    "multilabel": "multi_label_classification",
    "regression": "regression",
}
"""What a kind of task is called in a Hugging Face configuration."""

HEAD = ("pooler", "classifier")


def build(
    settings: Mapping[str, Any],
    weights: Mapping[str, Tensor],
    *,
    per_token: bool,
    shape: Shape,
    source: object = "model",
) -> LimbeckForSequenceClassification:
    """Our model around given weights, which are copied to float32; nothing is initialised in between.

    The head alone may be missing; it then stays on the meta device until :func:`set_labels` draws it.
    """
    import torch

    from limbeck.model.encoder import (
        LimbeckConfig,
        LimbeckForSequenceClassification,
        LimbeckForTokenClassification,
    )

    kind = LimbeckForTokenClassification if per_token else LimbeckForSequenceClassification
    with torch.device("meta"):
        model = kind(LimbeckConfig(**settings))
    # A copy, not a view of the file: later writes to the file, or page faults while timing, must not show.
    owned = {name: weight.to(torch.float32, copy=True) for name, weight in weights.items()}
    _check_fit(owned, model.state_dict(), source)
    model.load_state_dict(owned, strict=False, assign=True)
    model.encoder.shape = shape
    return model.eval()


def _check_fit(weights: Mapping[str, Tensor], expected: Mapping[str, Tensor], source: object) -> None:
    """Names and sizes must be those that the configuration implies."""
    rows = weights.get("classifier.bias")
    if rows is not None and rows.shape != expected["classifier.bias"].shape:
        raise InputError(
            f"{source}: the output layer has {len(rows)} labels, config.json names {len(expected['classifier.bias'])}"
        )
    absent = sorted(name for name in expected.keys() - weights.keys() if name.split(".")[0] not in HEAD)
    strange = sorted(weights.keys() - expected.keys())
    sizes = [name for name in sorted(weights.keys() & expected) if weights[name].shape != expected[name].shape]
    for names, fault in ((absent, "missing"), (strange, "unknown to config.json"), (sizes, "of another size")):
        if names:
            detail = (
                f" ({list(weights[names[0]].shape)}, not {list(expected[names[0]].shape)})" if names is sizes else ""
            )
            raise InputError(
                f"{source}: {len(names)} weights are {fault}, the first is '{names[0]}'{detail}; "
                "the file is incomplete, or is not of the model that config.json describes"
            )


def set_labels(
    model: LimbeckForSequenceClassification,
    label_names: Sequence[str] | None,
    kind: Kind | None,
    *,
    seed: int = 0,
) -> None:
    """Give the head the labels of a task; ``model.fresh_head`` then says whether it must still be trained.

    The same labels in another order: the outputs are reordered. Names that say nothing (``LABEL_0``, ``0``) on
    either side: the outputs are kept when their number fits. Otherwise the output layer is drawn anew from ``seed``
    (normal, 0.02), and so is every part of the head that the weights lacked.
    """
    import torch
    from torch import nn

    config: Any = model.config
    old = [str(config.id2label[index]) for index in range(len(config.id2label))]
    new = old if label_names is None else [str(name) for name in label_names]
    if kind == "regression":
        new = new[:1] if len(new) == 1 else ["score"]
    order = label_order(old, new)
    problem = config.problem_type if kind is None else PROBLEMS[kind]
    fresh = {path for path in HEAD if getattr(model, path) is not None and getattr(model, path).weight.is_meta}
    if order is None or config.problem_type not in (None, problem):
        fresh.add("classifier")
    model.fresh_head = "classifier" in fresh
    generator = torch.Generator().manual_seed(seed)
    for path, width in (("pooler", config.hidden_size), ("classifier", len(new))):
        if path in fresh:
            layer = nn.Linear(config.hidden_size, width, device="meta").to_empty(device="cpu")
            nn.init.normal_(layer.weight, 0.0, 0.02, generator=generator)
            nn.init.zeros_(layer.bias)
            setattr(model, path, layer.to(model.device))
    if not model.fresh_head and order != list(range(len(new))):
        for parameter in model.classifier.parameters():
            parameter.data = parameter.data[order].clone()
    config.id2label = dict(enumerate(new))
    config.label2id = {name: index for index, name in enumerate(new)}
    config.problem_type = problem


def label_order(old: Sequence[str], new: Sequence[str]) -> list[int] | None:
    """For each new label the old output that stands for it; None when the two have nothing to do with each other.

    >>> label_order(["NEGATIVE", "POSITIVE"], ["positive", "negative"])
    [1, 0]
    >>> label_order(["LABEL_0", "LABEL_1"], ["negative", "positive"])
    [0, 1]
    >>> label_order(["entailment", "contradiction"], ["negative", "positive"]) is None
    True
    """

    def silent(names: Sequence[str]) -> bool:
        return all(name.removeprefix("LABEL_").isdigit() for name in names)

    if len(old) != len(new):
        return None
    before, after = ([name.casefold() for name in names] for names in (old, new))
    if sorted(before) == sorted(after) and len(set(before)) == len(before):
        return [before.index(name) for name in after]
    return list(range(len(new))) if silent(old) or silent(new) or len(new) == 1 else None
