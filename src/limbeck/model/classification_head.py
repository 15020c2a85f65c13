"""The output layer and its labels: a model around given weights, and the head that a task needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from limbeck.core.kinds import KINDS, find
from limbeck.core.outputs import ACTIVATION, LEGACY_ACTIVATION, SECTION, OutputSpec, match_labels, missing_tensors
from limbeck.core.sentence_embedding import embedding_in
from limbeck.core.task_kind import PROBLEM_TYPES
from limbeck.errors import InputError
from limbeck.model.sentence_transformers import TORCH_NAMES

if TYPE_CHECKING:
    from torch import Tensor

    from limbeck.core.kinds import Kind
    from limbeck.core.shape import Shape
    from limbeck.core.task_kind import TaskKind
    from limbeck.model.configuration import LimbeckConfig
    from limbeck.model.encoder import LimbeckForSequenceClassification
    from limbeck.model.style import Style

HEAD = ("pooler", "pooler_norm", "classifier")
OTHER_EXITS = (
    "the model has early exits, whose heads answer for the labels {labels}; for another task take the model that it "
    "was made from, and put 'early_exit' after its training"
)
MARKS = tuple(kind.config_mark for kind in KINDS.values() if kind.config_mark is not None)
"""Entries of a configuration that say what kind its outputs are of."""


def model_class(*, per_token: bool, vectors: bool = False) -> type[LimbeckForSequenceClassification]:
    """Return the class of models that answer texts, or every word, or that give vectors."""
    if vectors:
        from limbeck.model.sentence_encoder import LimbeckForSentenceEmbedding

        return LimbeckForSentenceEmbedding
    from limbeck.model.encoder import LimbeckForSequenceClassification, LimbeckForTokenClassification

    return LimbeckForTokenClassification if per_token else LimbeckForSequenceClassification


def build(
    settings: Mapping[str, Any],
    weights: Mapping[str, Tensor],
    *,
    per_token: bool,
    shape: Shape,
    source: object = "model",
) -> LimbeckForSequenceClassification:
    """Build the model around given weights, which are copied to float32; nothing is initialized in between.

    The head alone may be missing; what is stays on the meta device until :func:`set_labels` draws it.

    Args:
        settings: Keyword arguments of the configuration.
        weights: Tensors by their names in the model.
        per_token: Whether it labels tokens.
        shape: Shape of the encoder.
        source: What to call the model in errors.
    """
    import torch

    from limbeck.model.configuration import LimbeckConfig

    with torch.device("meta"):
        vectors = embedding_in(settings, source) is not None
        model = model_class(per_token=per_token, vectors=vectors)(LimbeckConfig(**settings))
    # A copy, not a view of the file: later writes to the file, or page faults while timing, must not show.
    owned = {name: weight.to(torch.float32, copy=True) for name, weight in weights.items()}
    _check_fit(owned, model.state_dict(), source)
    model.load_state_dict(owned, strict=False, assign=True)
    model.encoder.shape = shape
    model.eval()
    return model


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


def head_parts(style: Style, *, per_token: bool) -> tuple[str, ...]:
    """Return the paths of the layers between the encoder and the logits.

    Args:
        style: How the model computes.
        per_token: Whether it labels tokens.
    """
    if per_token and not style.pooler_per_token:
        return HEAD[2:]
    return HEAD if style.pooler_norm else (HEAD[0], HEAD[2])


def our_head_tensors(style: Style, *, per_token: bool) -> tuple[str, ...]:
    """Return the names of the tensors between the encoder and the logits.

    Args:
        style: How the model computes.
        per_token: Whether it labels tokens.
    """
    biases = {"pooler": style.pooler_bias, "pooler_norm": style.norm_bias, "classifier": True}
    parts = head_parts(style, per_token=per_token)
    return tuple(f"{path}.{part}" for path in parts for part in ("weight", "bias")[: 1 + biases[path]])


def set_labels(
    model: LimbeckForSequenceClassification,
    label_names: Sequence[str] | None,
    kind: Kind | None,
    *,
    seed: int = 0,
    names: Mapping[str, str] | None = None,
) -> None:
    """Give the head the labels of a task, and note on the model whether it must still be trained.

    The same labels in another order: the outputs are reordered. Names that say nothing (``LABEL_0``, ``0``) on
    either side: the outputs are kept when their number fits, and ``model.order_assumed`` is True if only their position
    says which is which. Otherwise the output layer is drawn anew from ``seed`` (normal, 0.02), and so is every part of
    the head that the weights lacked. ``model.fresh_head`` is then True and ``model.untrained`` says why.

    Args:
        model: The model; parts of its head may be on the meta device.
        label_names: The task's label names; None keeps the model's.
        kind: The task's kind; None keeps the model's.
        seed: Decides drawn weights.
        names: What the parts of the head are called in the weights, for messages; ours unless given.
    """
    config = model.config
    own = OutputSpec.from_config(
        {
            "id2label": dict(config.id2label or {}),
            "problem_type": config.problem_type,
            "architectures": ["ForTokenClassification"] if model.per_token else [],
            **{key: getattr(config, key, None) for key in (SECTION, LEGACY_ACTIVATION)},
            **{mark: getattr(config, mark, None) for mark in MARKS},
        }
    )
    reason, order, new = _fit(own, label_names, kind)
    if model.exits is not None and order is None:
        raise InputError(OTHER_EXITS.format(labels=", ".join(own.labels[:12])))
    absent = tuple(f"{(names or {}).get(path, path)}.{part}" for path, part in missing_parts(model))
    model.order_assumed = order is not None and order.assumed and not absent
    if absent:
        reason = missing_tensors(absent)
    declared = getattr(config, "limbeck_untrained_head", "")
    model.untrained = reason or (str(declared) if declared else "")
    model.fresh_head = bool(model.untrained)
    _initialize(model, len(new), seed, fresh_output=order is None)
    if order is not None and order.outputs != tuple(range(len(new))) and not absent:
        for head in (model, *(model.exits.heads if model.exits is not None else ())):
            for parameter in head.classifier.parameters():
                parameter.data = parameter.data[list(order.outputs)].clone()
    config.id2label = dict(enumerate(new))
    config.label2id = {name: index for index, name in enumerate(new)}
    if kind is not None:
        _declare(config, find(kind))


def _declare(config: LimbeckConfig, kind: TaskKind) -> None:
    """Note in a configuration what the outputs mean, so that limbeck and others read it back."""
    problem_type = kind.problem_type if kind.problem_type in PROBLEM_TYPES else None
    config.problem_type = problem_type  # type: ignore[assignment]  # these are transformers' names
    declared = any(getattr(config, key, None) for key in (SECTION, LEGACY_ACTIVATION))
    section = {key: value for key, value in (getattr(config, SECTION, None) or {}).items() if key != ACTIVATION}
    for key in (*MARKS, SECTION, LEGACY_ACTIVATION):
        if key != kind.config_mark and hasattr(config, key):
            delattr(config, key)
    if kind.config_mark is not None:
        setattr(config, kind.config_mark, True)
    if kind.config_mark is not None or (declared and kind.numeric):
        section[ACTIVATION] = TORCH_NAMES[kind.activation]  # as sentence-transformers' CrossEncoder reads it
    if section:
        setattr(config, SECTION, section)


def _fit(own: OutputSpec, label_names: Sequence[str] | None, kind: Kind | None) -> tuple[str, Any, list[str]]:
    """Why the head does not answer (empty if it does), the match (None: the outputs are of no use), the new names."""
    from limbeck.core.outputs import Match

    new = list(own.labels) if label_names is None else [str(name) for name in label_names]
    if kind is None and label_names is None:
        return "", Match(tuple(range(len(new))), tuple(new)), new
    if kind is not None and find(kind).numeric:
        new = new[:1] if len(new) == 1 else ["score"]
        match = own.match(kind, new)
        return match.refusal, Match((0,), tuple(new)) if len(own.labels) == 1 else None, new
    match = own.match(kind or own.kind, new)
    if match and len(match.outputs) < len(own.labels):  # the task was not adapted to the model
        match = match_labels(own.labels, new, subset=False)
    return match.refusal, match or None, new


def missing_parts(model: LimbeckForSequenceClassification) -> list[tuple[str, str]]:
    """Return the parts of the head that the weights lacked, as (layer, 'weight' or 'bias')."""
    return [
        (path, part)
        for path in head_parts(model.style, per_token=model.per_token)
        for part, parameter in model.get_submodule(path).named_parameters()
        if parameter.is_meta
    ]


def _initialize(model: LimbeckForSequenceClassification, width: int, seed: int, *, fresh_output: bool) -> None:
    """Draw the layers of the head that have no weights, and the output layer if it is to be of another width."""
    import torch
    from torch import nn

    missing = set(missing_parts(model))
    generator = torch.Generator().manual_seed(seed)
    hidden: int = model.config.hidden_size
    for path in head_parts(model.style, per_token=model.per_token):
        rows = width if path == "classifier" else hidden
        layer = model.get_submodule(path)
        if isinstance(layer, nn.LayerNorm):
            if (path, "weight") in missing:
                setattr(model, path, nn.LayerNorm(hidden, eps=layer.eps, bias=layer.bias is not None).to(model.device))
            continue
        assert isinstance(layer, nn.Linear)
        if (path, "weight") in missing or (path == "classifier" and (fresh_output or len(layer.weight) != rows)):
            bias = layer.bias is not None
            layer = nn.Linear(hidden, rows, bias=bias, device="meta").to_empty(device="cpu")
            nn.init.normal_(layer.weight, 0.0, 0.02, generator=generator)
            if bias:
                nn.init.zeros_(layer.bias)
            setattr(model, path, layer.to(model.device))
        elif (path, "bias") in missing:
            layer.bias = nn.Parameter(torch.zeros(len(layer.weight), device=layer.weight.device))
