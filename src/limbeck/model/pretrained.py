"""Open a transformers checkpoint of a supported family as our model, and turn ours into a transformers model."""

from __future__ import annotations

import copy
import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from limbeck.core.kinds import find
from limbeck.core.label_names import is_token_classifier
from limbeck.core.sentence_embedding import SECTION
from limbeck.core.shape import LayerShape, Shape
from limbeck.errors import InputError, UnsupportedModel, nearest
from limbeck.model import layer_types
from limbeck.model._transformers import explained, quiet
from limbeck.model.classification_head import build, head_parts, set_labels
from limbeck.model.families import (
    bias_columns,
    joined,
    module_names,
    ragged_layers,
    read_shape,
    read_style,
    unknown_keys,
)
from limbeck.model.family_table import FAMILIES, Family
from limbeck.model.finite_weights import check_finite
from limbeck.model.folder_files import shards
from limbeck.model.layout import shape_config, tensor_sizes

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PretrainedConfig, PreTrainedModel

    from limbeck.core.kinds import Kind
    from limbeck.core.sentence_embedding import SentenceEmbedding
    from limbeck.model.encoder import LimbeckForSequenceClassification
    from limbeck.model.style import Style


def load_pretrained(
    name_or_path: str | Path,
    *,
    task_kind: Kind | None = None,
    label_names: Sequence[str] | None = None,
    embedding: SentenceEmbedding | None = None,
    dense: Mapping[str, Tensor] | None = None,
    seed: int = 0,
) -> LimbeckForSequenceClassification:
    """Open a Hugging Face checkpoint of a supported family as our model.

    Parts of a head that are missing, or were trained for other labels, are initialized anew (normal, 0.02), and
    ``model.fresh_head`` is then True.

    Args:
        name_or_path: A folder, or a name on the hub.
        task_kind: The kind of task; None takes that of the checkpoint's own head.
        label_names: The labels; None keeps the checkpoint's.
        embedding: How texts become vectors; the model then gives these, and has no other head.
        dense: Weights of the dense layers of ``embedding``.
        seed: Seed of new weights.

    Raises:
        InputError: The checkpoint cannot be opened, or its family is not supported.
    """
    import transformers

    local = Path(name_or_path).is_dir()
    arguments = {"local_files_only": True} if local else {}
    with quiet(), explained(name_or_path):
        config = transformers.AutoConfig.from_pretrained(name_or_path, trust_remote_code=False, **arguments)
    content = config.to_dict()
    shape = read_shape(content, name_or_path)
    per_token = find(task_kind).per_token if task_kind else is_token_classifier(content)
    per_token = per_token and embedding is None
    style = read_style(content, per_token=per_token, source=name_or_path)
    if local:
        _check_weights(Path(name_or_path), shape, style)
    names = module_names(style.family, shape.depth, per_token=per_token)
    weights = _weights(name_or_path, per_token=per_token, local=local)
    raw, _ = transformers.PretrainedConfig.get_config_dict(name_or_path, **arguments)
    settings = unknown_keys(raw, style.family) | _settings(config, shape, style)
    head = {path: names[path] for path in head_parts(style, per_token=per_token)}
    ours = _translated(weights, names, shared=FAMILIES[style.family].shared_layers)
    if FAMILIES[style.family].interleaved:
        ours = _in_halves(ours, shape.head_dim)
    other = "ForSequenceClassification" if per_token else "ForTokenClassification"
    # a word's class and a text's class have nothing in common
    other_head = any(str(name).endswith(other) for name in content.get("architectures") or ())
    if other_head or embedding is not None:
        ours = {name: weight for name, weight in ours.items() if name.startswith("encoder.")}
    if embedding is not None:
        ours |= dict(dense or {})
        settings |= {SECTION: embedding.to_json()}
        with explained(name_or_path):
            return build(settings, ours, per_token=False, shape=shape, source=name_or_path)
    with explained(name_or_path):
        model = build(settings, ours, per_token=per_token, shape=shape, source=name_or_path)
        set_labels(model, label_names, task_kind, seed=seed, names=head)
    model.eval()
    return model


def _weights(source: str | Path, *, per_token: bool, local: bool) -> dict[str, Tensor]:
    """Read the weights of a checkpoint under the names of the family's own model, without those that are not there."""
    import transformers

    auto = "AutoModelForTokenClassification" if per_token else "AutoModelForSequenceClassification"
    with quiet(), explained(source):
        reference, report = getattr(transformers, auto).from_pretrained(
            source,
            use_safetensors=True,
            trust_remote_code=False,
            attn_implementation="eager",  # the weights alone are used; config.json may name a kernel to be fetched
            dtype="float32",
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            **({"local_files_only": True} if local else {}),
        )
    _check_sizes(report["mismatched_keys"], source)
    weights: dict[str, Tensor] = reference.state_dict()
    for absent in report["missing_keys"]:
        if not (getattr(reference.config, "sinusoidal_pos_embds", False) and "position_embeddings" in absent):
            weights.pop(absent, None)
    check_finite(weights, source)
    return weights


def _settings(config: PretrainedConfig, shape: Shape, style: Style) -> dict[str, Any]:
    """Return the keyword arguments of LimbeckConfig for a transformers configuration."""
    labels = {int(index): str(name) for index, name in (config.id2label or {}).items()}
    special_tokens = {
        name: getattr(config, name)
        for name in ("bos_token_id", "eos_token_id")
        if isinstance(getattr(config, name, None), int)
    }
    return {
        **shape_config(shape),
        "id2label": labels,
        "label2id": {name: index for index, name in labels.items()},
        "problem_type": config.problem_type,
        **special_tokens,
        **dataclasses.asdict(style),
    }


def _translated(weights: Mapping[str, Tensor], names: Mapping[str, str], *, shared: bool) -> dict[str, Tensor]:
    """Return weights under our names; a module that the family may lack (ELECTRA's projection) is left out."""
    parts = ((f"{path}.{part}", part, ours) for path, ours in joined(names).items() for part in ("weight", "bias"))
    tensors = ((ours, part, weights[name]) for name, part, ours in parts if name in weights)
    rows = ((ours, part, [w] * len(ours) if shared else w.chunk(len(ours))) for ours, part, w in tensors)
    return {f"{path}.{part}": chunk for ours, part, chunks in rows for path, chunk in zip(ours, chunks, strict=True)}


def _check_weights(folder: Path, shape: Shape, style: Style) -> None:
    """Refuse weights of another depth or width than config.json says, before transformers builds what that describes.

    transformers leaves out the layers that config.json does not count, and draws those that the weights lack.
    """
    family = FAMILIES[style.family]
    sizes = {name: size for path in shards(folder) for name, size in tensor_sizes(path).items()}
    layer = re.compile(rf"(?:{re.escape(family.prefix)}\.)?{re.escape(family.layers)}\.(\d+)\.")
    layers = {int(match[1]) for name in sizes if (match := layer.match(name))}
    if layers != set(range(shape.depth)) and not family.shared_layers:
        raise InputError(
            f"{folder}: config.json has {family.keys['depth'][0]} = {shape.depth}, but the weights have "
            f"{len(layers)} layers; correct config.json, or give the weights that belong to it"
        )
    width = style.embedding_size or shape.hidden
    expected = {f"{family.embeddings['word']}.weight": [style.vocab_size, width]}
    if "position" in family.embeddings:
        expected[f"{family.embeddings['position']}.weight"] = [style.max_positions, width]
    for index, row in enumerate(shape.layers):
        for part, outputs in (("query", shape.hidden), ("up", row.ffn)):
            path = family.layer[part]
            together = list(family.layer.values()).count(path)
            expected[f"{family.layer_path(index)}.{path}.weight"] = [outputs * together, shape.hidden]
    wanted = {name: expected.get(name.removeprefix(f"{family.prefix}."), size) for name, size in sizes.items()}
    _check_sizes([(name, size, wanted[name]) for name, size in sizes.items() if size != wanted[name]], folder)


def _check_sizes(mismatched: Iterable[tuple[str, Sequence[int], Sequence[int]]], source: object) -> None:
    """Refuse weights whose size is not the one that config.json implies, and name the first."""
    for key, size, expected in sorted(mismatched, key=str):
        labels = f"; config.json names {expected[0]} labels" if len(size) and "classifier" in key else ""
        raise InputError(
            f"{source}: '{key}' has shape {list(size)} in the checkpoint but {list(expected)} by config.json{labels}"
        )


def to_transformers(model: LimbeckForSequenceClassification) -> PreTrainedModel:
    """Build the plain transformers model of the family, with the same logits.

    Args:
        model: The model.

    Raises:
        InputError: The family's configuration cannot express the shape, or its layers share weights and the model's no
            longer do; the message names the layers that differ.
    """
    import torch
    import transformers

    shape, style, per_token = model.shape, model.encoder.style, model.per_token
    if model.config.to_dict().get(SECTION) is not None:
        raise InputError("a plain checkpoint cannot say how texts become vectors; save_model can")
    if not isinstance(shape, Shape):
        shape = Shape(shape.hidden, shape.head_dim, tuple(LayerShape(*layer) for layer in shape.layers))
    family = FAMILIES.get(style.family)
    if family is None:
        raise UnsupportedModel(f"family '{style.family}' is unknown to transformers; {nearest(style.family, FAMILIES)}")
    if reasons := ragged_layers(shape, style):
        raise InputError(
            f"shape {shape} cannot be a plain {style.family} checkpoint: {'; '.join(reasons)}; "
            "save_model keeps any shape, as a folder that transformers opens too"
        )
    names = module_names(style.family, shape.depth, per_token=per_token)
    weights = _with_heads_in_order(model).state_dict()
    if style.relative_buckets and shape.layers:
        table = weights["encoder.position_bias.weight"]
        weights["encoder.position_bias.weight"] = table[:, bias_columns(shape, style, 0)]
    if family.interleaved:
        weights = _in_halves(weights, shape.head_dim, back=True)
    if strange := sorted({name.rpartition(".")[0] for name in weights} - set(names)):
        raise InputError(f"a plain {style.family} checkpoint has no place for {', '.join(strange)}")
    config = transformers.AutoConfig.for_model(style.family, **_plain_settings(model, shape, family))
    auto = (
        transformers.AutoModelForTokenClassification if per_token else transformers.AutoModelForSequenceClassification
    )
    with quiet():
        plain: PreTrainedModel = auto.from_config(config)  # type: ignore[no-untyped-call]
    renamed = {}
    for path, ours in joined(names).items():
        for part in ("weight", "bias"):
            parts = {name: weights[name] for name in (f"{module}.{part}" for module in ours) if name in weights}
            if parts:
                joint = _one_layer(parts) if family.shared_layers else torch.cat(list(parts.values()))
                renamed[f"{path}.{part}"] = joint
    computed = {f"{family.prefix}.{name}" for name in family.computed}
    plain.load_state_dict(renamed | {name: plain.get_parameter(name) for name in computed})
    plain.eval()
    return plain


def _in_halves(weights: Mapping[str, Tensor], head_dim: int, *, back: bool = False) -> dict[str, Tensor]:
    """Reorder the channels of queries and keys in each head from neighboring pairs to two halves; no score changes.

    Args:
        weights: Tensors under our names.
        head_dim: Channels of a head.
        back: Whether to reorder from halves to pairs.
    """
    import torch

    order = torch.arange(head_dim).view(*((2, -1) if back else (-1, 2))).T.reshape(-1)
    turned = {
        name: weight.unflatten(0, (-1, head_dim))[:, order].flatten(0, 1)
        for name, weight in weights.items()
        if name.rsplit(".", 2)[-2] in ("query", "key")
    }
    return dict(weights) | turned


def _one_layer(copies: Mapping[str, Tensor]) -> Tensor:
    """Return the weights that all layers share, given those of every layer by name."""
    first, *others = copies.items()
    for name, copied in others:
        if not copied.equal(first[1]):
            raise InputError(
                f"a plain checkpoint of this family has one layer that all repeat, but '{name}' differs from that of "
                "the first layer since the model was trained or pruned; save_model keeps all of them"
            )
    return first[1]


def _with_heads_in_order(model: LimbeckForSequenceClassification) -> LimbeckForSequenceClassification:
    """Return the model with heads in the order of its position biases, the only one that the family knows."""
    from limbeck.model.pruning.slicing import Cut, slice_to

    if not model.config.position_heads:
        return model
    orders = tuple(tuple(np.argsort(layer.position_heads).tolist()) for layer in model.encoder.layers)
    return slice_to(copy.deepcopy(model), dataclasses.replace(Cut.everything(model.shape), heads=orders))


def _plain_settings(model: LimbeckForSequenceClassification, shape: Shape, family: Family) -> dict[str, Any]:
    """Return the keyword arguments of the family's own configuration class."""
    style = dataclasses.asdict(model.encoder.style)
    values = style | {
        "hidden": shape.hidden,
        "depth": shape.depth,
        "heads": shape.hidden // shape.head_dim,
        "ffn": shape.layers[0].ffn if shape.layers else 4 * shape.hidden,
        "embedding_size": style["embedding_size"] or shape.hidden,
    }
    config: Any = model.config
    settings = family.standard_keys(values)
    if family.local:
        settings |= layer_types.keys_of(shape, model.encoder.style.rotary_theta)
    settings |= {"id2label": dict(config.id2label), "label2id": dict(config.label2id)}
    settings |= unknown_keys(config.to_dict(), model.encoder.style.family)
    return settings | {"problem_type": config.problem_type}
