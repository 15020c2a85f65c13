"""Tokenizers of model folders: open them, try them, and adapt them to what their model takes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from limbeck.core.cascade import cascade_in
from limbeck.core.label_names import is_token_classifier
from limbeck.core.shape import skipped_positions
from limbeck.core.tokenizer import fit, fit_embedding
from limbeck.errors import InputError, shown
from limbeck.model import families
from limbeck.model._transformers import explained_tokenizer, quiet
from limbeck.model.family_table import FAMILIES
from limbeck.model.folder_files import check_tokenizer, check_word_list, portable_settings
from limbeck.model.layout import TOKENIZER_FILES
from limbeck.model.location import embedding_of, read_config

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TRIAL = "a \u2603"
"""A text to try a tokenizer on: one that lacks its unknown token fails only at a text that needs it."""


def open_tokenizer(source: str | Path) -> PreTrainedTokenizerBase:
    """Open only the tokenizer of a model: a folder, or a name on the hub."""
    folder, config = read_config(source)
    tokenizer = load_tokenizer(folder, source, config, words=is_token_classifier(config))
    if (embedding := embedding_of(source, config)) is not None:
        fit_embedding(tokenizer, embedding)
    return tokenizer


def load_tokenizer(
    folder: Path | None, source: str | Path, config: Mapping[str, Any], *, words: bool
) -> PreTrainedTokenizerBase:
    """Load a tokenizer and adapt it to its model.

    Args:
        folder: The folder of the model; None for a name that is read from the hub.
        source: The folder or name that was given.
        config: The model's configuration; one without ``model_type`` says nothing of positions.
        words: Whether texts are given as words.

    Raises:
        InputError: There is no fast tokenizer, it is damaged, or it has more tokens than the model.
    """
    tokenizer = _plain_tokenizer(folder, source)
    rows = config.get("vocab_size", len(tokenizer))
    if len(tokenizer) > rows:
        raise InputError(f"{source}: the tokenizer has {len(tokenizer)} tokens but the model embeds {rows}")
    if "model_type" in config:
        positions, token_types = token_limits(config, source)
        fit(tokenizer, positions=positions, token_types=token_types, words=words)
    return tokenizer


def open_plain_tokenizer(source: str | Path) -> PreTrainedTokenizerBase:
    """Open the tokenizer of any model as it is, not adapted to a model: a folder, or a name on the hub."""
    return _plain_tokenizer(read_config(source)[0], source)


def _plain_tokenizer(folder: Path | None, source: str | Path) -> PreTrainedTokenizerBase:
    from transformers import AutoTokenizer

    if folder is not None and not any((folder / name).is_file() for name in TOKENIZER_FILES):
        raise InputError(f"{folder} has no tokenizer ({', '.join(TOKENIZER_FILES)}); save it beside the model")
    if folder is not None:
        check_tokenizer(folder)
    with quiet(), explained_tokenizer(source, folder):
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            folder or str(source), trust_remote_code=False, local_files_only=folder is not None
        )
        tokenizer.init_kwargs = portable_settings(tokenizer.init_kwargs)
    if not tokenizer.is_fast:
        raise InputError(f"{source}: its tokenizer has no fast version (tokenizer.json), which limbeck needs")
    if folder is not None:
        specials = (tokenizer.unk_token, tokenizer.cls_token, tokenizer.sep_token, tokenizer.pad_token)
        check_word_list(folder, [token for token in specials if token is not None])
    length = tokenizer.model_max_length
    if type(length) not in (int, float):
        raise InputError(f"{source}: model_max_length of the tokenizer should be a number, got {shown(length)}")
    with quiet(), explained_tokenizer(source, folder):
        tokenizer(TRIAL)
    return tokenizer


def _own_positions(config: Mapping[str, Any]) -> int:
    """Return how many tokens a single model of ours has positions for."""
    return int(config.get("max_positions", 512)) - skipped_positions(config.get("position_offset"))


def token_limits(config: Mapping[str, Any], source: object) -> tuple[int, int]:
    """Return how many tokens a model has positions for, and how many segment ids; of a cascade, both of its models."""
    if config.get("model_type") == "limbeck":
        cascade = cascade_in(config, source)
        sides = [config] if cascade is None else [config, cascade.small]
        return min(map(_own_positions, sides)), int(config.get("token_types", 2))
    family = FAMILIES[families.read_family(config, source)]
    offset = family.value(config, "pad_token_id") if family.positions_from_padding else None
    types = family.value(config, "token_types") if "token_type" in family.embeddings else 0
    return int(family.value(config, "max_positions")) - skipped_positions(offset), int(types)
