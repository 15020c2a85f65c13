"""Models as Hugging Face folders: open them, save them, or read the configuration alone.

A folder that limbeck writes holds ``config.json`` (the shape, one entry per layer), ``model.safetensors``, the
tokenizer and the modeling code (``layout.CODE``), so it opens with transformers whether or not limbeck is installed.
An ONNX model is in ``onnx/``, beside the weights it was exported from. Nothing is ever unpickled.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from limbeck.core.analytic_cost import as_shape
from limbeck.core.cascade import cascade_in
from limbeck.core.early_exits import exits_in
from limbeck.core.label_names import is_token_classifier, read_labels
from limbeck.core.outputs import OutputSpec
from limbeck.core.paths import is_path, user_path
from limbeck.core.sentence_embedding import SECTION, embedding_in
from limbeck.core.shape import Shape
from limbeck.core.token_schedule import style_problem
from limbeck.core.tokenizer import fit_embedding, note_settings
from limbeck.errors import InputError, UnsupportedModel, nearest
from limbeck.model import external, families, interchange, pretrained
from limbeck.model._transformers import explained, quiet
from limbeck.model.classification_head import OTHER_EXITS, build, our_head_tensors, set_labels
from limbeck.model.family_table import FAMILIES
from limbeck.model.finite_weights import check_finite
from limbeck.model.folder_files import (
    auto_map,
    onnx_path,
    without_code,
)
from limbeck.model.layout import WEIGHTS, shape_config, shape_of, style_of, traits_of, write_code
from limbeck.model.location import (
    check_weights,
    checkpoint_tensor_names,
    embedding_of,
    model_folder,
    read_config,
    sentence_folder,
)
from limbeck.model.onnx.onnx_model import FLOAT_FILE
from limbeck.model.sentence_transformers import read_dense
from limbeck.model.style import Style
from limbeck.model.tokenizer_loading import load_tokenizer, token_limits

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from limbeck.core.model import Runnable, TrainableEncoder
    from limbeck.core.task import Task
    from limbeck.model.encoder import LimbeckForSequenceClassification
    from limbeck.model.onnx.onnx_model import OnnxModel


def open_model(
    source: str | Path, *, task: Task | None = None, seed: int = 0, runtime: str | None = None
) -> tuple[Runnable, PreTrainedTokenizerBase]:
    """Open a limbeck folder, a Hugging Face folder or a name on the hub.

    Given a task, the head has the task's labels. A head that does not fit is initialized anew from ``seed``, as is any
    part of it that the weights lack, and ``model.fresh_head`` is then True.

    Args:
        source: The folder, or the name.
        task: The task whose labels the head should have; None keeps the model's own.
        seed: Seed of new weights.
        runtime: ``torch`` opens the torch weights beside an ONNX model; None opens what config.json names.

    Returns:
        The model in eval mode, and its tokenizer.

    Raises:
        InputError: There is no such model, it is damaged, or it is an ONNX model with other labels than the task's.
    """
    folder, config = read_config(source)
    read_labels(config, source)
    if folder is None and config.get("model_type") == "limbeck":
        from huggingface_hub import snapshot_download

        with quiet(), explained(source):
            folder = Path(snapshot_download(str(source)))
    embedding = embedding_of(source, config, wanted=task.task_kind.vectors if task else None)
    config = {key: value for key, value in config.items() if key != SECTION}
    if embedding is not None:
        config[SECTION] = embedding.to_json()
    model: Runnable
    if config.get("model_type") != "limbeck":
        families.read_shape(config, source)
        if folder is not None:
            check_weights(folder)
        kind, labels = (task.kind, task.label_names) if task else (None, None)
        root = sentence_folder(source) if embedding is not None and embedding.dense else None
        model = pretrained.load_pretrained(
            folder or str(source),
            task_kind=kind,
            label_names=labels,
            embedding=embedding,
            dense=read_dense(root) if root is not None else None,
            seed=seed,
        )
    elif runtime != "torch" and config.get("limbeck_runtime", "torch") == "onnxruntime":
        assert folder is not None
        model = _open_onnx(folder, config, task)
    else:
        assert folder is not None
        model = _open_torch(folder, config, task, seed)
    words = task.task_kind.per_token if task else is_token_classifier(config)
    tokenizer = load_tokenizer(folder, source, config, words=words)
    if embedding is not None:
        fit_embedding(tokenizer, embedding)
    return model, tokenizer


def peek(source: str | Path) -> dict[str, Any]:
    """Return what config.json says: family, shape, labels, runtime, traits as a recipe's input, and its vectors.

    ``max_length`` and ``vector_length``, of a model that makes vectors, are in tokens; ``prompts`` has those by name.
    Opens no weights and does not import torch. ``labels`` is empty when the model has no head yet.
    """
    folder, config = read_config(source)
    if config.get("model_type") == "limbeck":
        family, shape = config.get("family", "bert"), _limbeck_shape(config, source)
    else:
        family, shape = families.read_family(config, source), families.read_shape(config, source)
    embedding, (most, _) = embedding_of(source, config), token_limits(config, source)
    return {
        "family": family,
        "shape": shape,
        "labels": read_labels(_with_architecture(config, folder, source), source),
        "runtime": config.get("limbeck_runtime", "torch"),
        "traits": traits_of(config, shape, source),
        "max_length": most,
        "vector_length": most if embedding is None else min(most, embedding.max_length or most),
        "vectors": embedding is not None,
        "prompts": {} if embedding is None else dict(embedding.prompts),
    }


def peek_outputs(source: str | Path) -> OutputSpec:
    """Read what the outputs of a model mean from its config.json and the names of its weights. Opens no weights.

    Args:
        source: A folder or a name on the hub, as for :func:`open_model`.

    Returns:
        The specification; ``missing`` lists the tensors of the head that the weights lack.
    """
    folder, config = read_config(source)
    if (embedding := embedding_of(source, config)) is not None:
        return OutputSpec.from_config({**config, SECTION: embedding.to_json()}, source)
    config = _with_architecture(config, folder, source)
    declared = (str(config["limbeck_untrained_head"]),) if config.get("limbeck_untrained_head") else ()
    spec = OutputSpec.from_config(config, source, declared)
    if config.get("limbeck_runtime", "torch") == "onnxruntime":  # the head is in the graph
        return spec
    if config.get("model_type") == "limbeck":
        prefix = ""
        wanted = our_head_tensors(style_of(config), per_token=spec.per_token)
    else:
        family = families.read_family(config, source)
        prefix = f"{FAMILIES[family].prefix}."
        style = families.read_style(config, per_token=spec.per_token, source=source)
        wanted = families.head_tensors(style, per_token=spec.per_token)
    present = checkpoint_tensor_names(folder, source)
    if config.get("model_type") == "limbeck":  # an artefact may use the family's names
        present = set(interchange.our_tensors(present, config))
    missing = tuple(name for name in wanted if name not in present and name.removeprefix(prefix) not in present)
    return dataclasses.replace(spec, missing=missing or declared)


def _with_architecture(config: dict[str, Any], folder: Path | None, source: str | Path) -> dict[str, Any]:
    """Return a configuration; one that names neither architecture nor labels names that of the head in the weights.

    transformers does not write usual labels, and an architecture need not be there for it to open a classifier.

    Args:
        config: Content of config.json.
        folder: The model's folder, of whose weights the names are read; None if it has none here.
        source: Name of the model in errors.
    """
    silent = not config.get("architectures") and not config.get("id2label")
    if folder is None or not silent or config.get("model_type") not in FAMILIES:
        return config
    with contextlib.suppress(InputError):  # what cannot be read is an error where it is opened
        wanted = families.head_tensors(families.read_style(config, source=source), per_token=False)
        if checkpoint_tensor_names(folder, source).issuperset(wanted):
            return {**config, "architectures": ["ForSequenceClassification"]}
    return config


def peek_style(source: str | Path) -> Style:
    """Read the style from config.json, that is all but the shape. Opens no weights."""
    _, config = read_config(source)
    if config.get("model_type") != "limbeck":
        return families.read_style(config)
    return Style(**{field.name: config[field.name] for field in dataclasses.fields(Style) if field.name in config})


def peek_here(source: str) -> dict[str, Any] | None:
    """Call :func:`peek` for a model on this machine; return None for a name that only the hub can know."""
    if model_folder(source) is not None:
        return peek(source)
    if not is_path(source):
        return None
    path = user_path(source)
    siblings = [str(path.parent / entry.name) for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    raise InputError(f"no model folder '{source}'; {nearest(source, siblings)}")


def fingerprint(model: TrainableEncoder) -> str:
    """Return a digest of the weights, and of the tokens that layers pass on, which decide what the weights do."""
    tokens = as_shape(model.shape).tokens
    digest = hashlib.sha256(repr(tokens).encode() if tokens else b"")
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def save_model(model: Runnable, tokenizer: PreTrainedTokenizerBase, folder: str | Path) -> None:
    """Write a model as a Hugging Face folder; ``config.json`` comes last, since a folder without it is no model.

    Args:
        model: A torch model, or an ONNX model whose files are copied.
        tokenizer: Its tokenizer.
        folder: Where to write; existing files of the same names are replaced.
    """
    folder = _create_folder(folder)
    if model.runtime == "onnxruntime":
        config = _copy_onnx(cast("OnnxModel", model), folder)
    else:
        config = _write_torch(cast("LimbeckForSequenceClassification", model), folder)
    note_settings(tokenizer)
    tokenizer.save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def write_plain(model: Runnable, tokenizer: PreTrainedTokenizerBase, folder: str | Path) -> None:
    """Write a model as a plain checkpoint of its family, which needs no code of ours.

    Args:
        model: A torch model whose layers all have the same widths.
        tokenizer: Its tokenizer.
        folder: Where to write.

    Raises:
        InputError: The family's configuration cannot express the shape, or the model is not a torch model.
    """
    if model.runtime != "torch":
        raise InputError(f"a plain checkpoint holds torch weights; this model runs in {model.runtime}")
    plain = pretrained.to_transformers(cast("LimbeckForSequenceClassification", model))
    folder = _create_folder(folder)
    with quiet():
        plain.save_pretrained(folder)
    note_settings(tokenizer)
    tokenizer.save_pretrained(folder)


# --- opening --------------------------------------------------------------------------------------------------------


def _limbeck_shape(config: Mapping[str, Any], source: object) -> Shape:
    try:
        return shape_of(config)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{source}: config.json describes no shape (layer_heads, layer_ffn): {error}") from error
    except InputError as error:
        raise UnsupportedModel(f"{source}: {error}") from error


def _open_torch(folder: Path, config: dict[str, Any], task: Task | None, seed: int) -> LimbeckForSequenceClassification:
    from safetensors.torch import load_file

    shape = _limbeck_shape(config, folder)
    families.check_style(style_of(config), folder)
    if shape.tokens and (problem := style_problem(style_of(config))):
        raise UnsupportedModel(f"{folder}: config.json has layer_tokens, but {problem}")
    check_weights(folder)
    with explained(folder):
        weights = load_file(folder / WEIGHTS)
    check_finite(weights, folder)
    located = interchange.our_tensors(weights, config).items()
    weights = {ours: weights[rows.name].chunk(rows.parts)[rows.part] for ours, rows in located}
    if (embedding := embedding_in(config, folder)) is not None:
        if embedding.dense and "dense.0.weight" not in weights:  # as in an artefact
            weights |= read_dense(folder)
        weights = {name: weight for name, weight in weights.items() if name.startswith(("encoder.", "dense."))}
        with explained(folder):
            return build(config, weights, per_token=False, shape=shape, source=folder)
    weights = {name: weight for name, weight in weights.items() if not name.startswith("dense.")}
    own = is_token_classifier(config)
    per_token = task.task_kind.per_token if task else own
    if exits_in(config, folder) is not None and per_token != own:
        raise InputError(OTHER_EXITS.format(labels=", ".join(read_labels(config, folder)[:12])))
    if per_token != own:  # a word's class and a text's class have nothing in common
        weights = {name: weight for name, weight in weights.items() if name.startswith("encoder.")}
    labels = dict(enumerate(read_labels(config, folder) or ("LABEL_0", "LABEL_1")))
    settings = {**config, "id2label": labels, "label2id": {name: index for index, name in labels.items()}}
    with explained(folder):
        model = build(settings, weights, per_token=per_token, shape=shape, source=folder)
        set_labels(model, task.label_names if task else None, task.kind if task else None, seed=seed)
    return model


def _open_onnx(folder: Path, config: dict[str, Any], task: Task | None) -> OnnxModel:
    from limbeck.model.onnx.onnx_model import OnnxModel

    file = str(config.get("limbeck_onnx_file", FLOAT_FILE))
    if not onnx_path(folder, config.get("limbeck_onnx_file", FLOAT_FILE)).is_file():
        present = [str(path.relative_to(folder)) for path in folder.glob("onnx/*.onnx")]
        raise InputError(f"{folder}: config.json names {file}, which is not there; {nearest(file, present)}")
    if task is not None:
        spec = peek_outputs(folder)
        if not spec.trained:
            raise InputError(f"{folder} has no trained head: {spec.untrained}; fine-tune the model it was made from")
        match = spec.match(task.kind, task.label_names)
        if not match or match.outputs != tuple(range(len(spec.labels))):
            wanted = f" with {', '.join(task.label_names)}" if task.label_names else ""
            raise InputError(
                f"{folder} is exported for {spec.kind} with labels {', '.join(spec.labels)}; task '{task.name}' is "
                f"{task.kind}{wanted}; open the model it was exported from instead"
            )
    return OnnxModel(folder, file, config)


# --- saving ---------------------------------------------------------------------------------------------------------


def _create_folder(folder: str | Path) -> Path:
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; give the name of a folder to write the model to")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _write_torch(model: LimbeckForSequenceClassification, folder: Path) -> dict[str, Any]:
    """Write weights and code; return the configuration to write."""
    from safetensors.torch import save_file

    weights = {name: weight.detach().cpu().contiguous() for name, weight in model.state_dict().items()}
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
    write_code(folder)
    # The model's shape overrides that of its configuration, which pruning may not have updated yet.
    config = {key: value for key, value in without_code(model.config.to_dict()).items() if key != "layer_tokens"}
    config |= shape_config(as_shape(model.shape)) | {
        "architectures": [type(model).__name__],
        "auto_map": auto_map(per_token=model.per_token),
        "dtype": str(next(model.parameters()).dtype).removeprefix("torch."),
    }
    if config.get(SECTION) is not None:
        config = {key: value for key, value in config.items() if key not in ("id2label", "label2id", "problem_type")}
    declared = config.pop("limbeck_untrained_head", None)
    for key in ("_name_or_path", "limbeck_runtime", "limbeck_onnx_file"):
        config.pop(key, None)
    if model.fresh_head:  # a random head must not pass for a trained one when the folder is opened again
        config["limbeck_untrained_head"] = model.untrained or declared or "it was drawn and not trained"
    return config


def _copy_onnx(model: OnnxModel, folder: Path) -> dict[str, Any]:
    """Copy the ONNX file and the weights it was exported from; return the configuration to write."""
    path = Path(model.path)
    (folder / "onnx").mkdir(exist_ok=True)
    files = {entry: folder / "onnx" / entry.name for entry in external.files(path)}
    for copy in external.files(folder / "onnx" / path.name):  # of an earlier model; a session may have it mapped
        if path.parent.resolve() != copy.parent.resolve():
            copy.unlink(missing_ok=True)
    for origin, copy in files.items():
        if origin.is_file() and origin.resolve() != copy.resolve():
            shutil.copyfile(origin, copy)
    config = without_code(model.config)
    config |= {"limbeck_runtime": "onnxruntime", "limbeck_onnx_file": f"onnx/{path.name}"}
    if cascade_in(config, folder) is not None:  # no class of ours holds two models
        return config
    write_code(folder)
    weights, copy = Path(model.folder) / WEIGHTS, folder / WEIGHTS
    if weights.is_file() and weights.resolve() != copy.resolve():
        interchange.restore_weights(weights, copy, model.config)
    return config | {"auto_map": auto_map(per_token=is_token_classifier(model.config))}
