"""Any classifier of texts or of words that transformers can open as a teacher, with its own tokenizer."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from limbeck.core.outputs import Match, OutputSpec
from limbeck.core.paths import user_path
from limbeck.core.task import Task
from limbeck.errors import InputError
from limbeck.model._transformers import explained, explained_tokenizer, quiet
from limbeck.model.location import check_weights, model_folder, read_config

if TYPE_CHECKING:
    from transformers import BatchEncoding, PreTrainedModel, PreTrainedTokenizerBase

BATCH = 32
BUFFERS = (".position_ids", ".token_type_ids", ".inv_freq", ".attn.bias", ".attention.bias", ".masked_bias")
"""How the names of constants end that older versions of transformers stored beside the weights."""


class TransformersTeacher:
    """A transformers model of which only the logits are used.

    Attributes:
        probabilities: Always False: it gives logits.
        match: Which output each label of the task has.
        order_assumed: Whether labels were matched by position.
    """

    probabilities = False
    notes: tuple[str, ...] = ()

    def __init__(self, source: str, task: Task, identity: str) -> None:
        """Match the model's labels with the task's; its weights are read on first use.

        Args:
            source: Folder or hub name of the model.
            task: The task.
            identity: Identifies the model's content.

        Raises:
            InputError: The model has no head for the task, or other labels.
        """
        self.source, self.identity = source, identity
        self._words, self._auto_class = task.task_kind.per_token, task.task_kind.auto_class
        self.match = match_outputs(source, task)
        self.order_assumed = self.match.assumed
        if self.match.assumed:
            names = ", ".join(task.label_names)
            self.notes = (f"'{source}' and the data name the labels differently, so their order is assumed ({names})",)

    def lacks(self, task: Task, split: str) -> str:
        """Return an empty string: a model can answer any text."""
        return ""

    @cached_property
    def _model(self) -> PreTrainedModel:
        import transformers

        from limbeck.model.placement import on_accelerator

        folder = model_folder(self.source)
        if folder is not None:
            check_weights(folder)
        with quiet(), explained(self.source):
            model, report = getattr(transformers, self._auto_class).from_pretrained(
                folder or self.source,
                use_safetensors=True,
                trust_remote_code=False,
                dtype="float32",
                output_loading_info=True,
                local_files_only=folder is not None,
            )
        if missing := sorted(report["missing_keys"]):
            raise InputError(
                f"teacher '{self.source}' is not trained: its weights lack {', '.join(missing[:4])}; fine-tune it first"
            )
        _check_all_is_used(self.source, model, report["unexpected_keys"])
        return on_accelerator(model).eval()  # type: ignore[no-any-return]

    @cached_property
    def _tokenizer(self) -> PreTrainedTokenizerBase:
        from transformers import AutoTokenizer

        folder = model_folder(self.source)
        with quiet(), explained_tokenizer(self.source, folder):
            tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
                folder or self.source, trust_remote_code=False, local_files_only=folder is not None
            )
        return tokenizer

    def answer(self, task: Task, split: str) -> np.ndarray | list[np.ndarray]:
        """Return the logits of a split in the order of the task's labels.

        Only texts of equal length share a batch, so nothing is padded. Padding changes what many architectures answer:
        positions counted from the left, a last token found by its id, pooling over fixed windows, no mask at all.

        Args:
            task: The task; texts are cut at its ``max_length``, counted in the teacher's own tokens.
            split: Name of the split.

        Returns:
            [rows, labels]; where words have labels, a list of [words, labels], of the first token of each word. A text
            in which the tokenizer finds no token has 0 for every label.

        Raises:
            InputError: The model, or its tokenizer, fails on the texts, or its logits are not finite.
        """
        from limbeck.core.logits import require_finite_logits
        from limbeck.data.answers import by_word
        from limbeck.data.encoding import first_pieces

        texts = task.split(split).texts
        encoded = self._encode(task, split)
        nothing = np.zeros((0, len(self.match.outputs)) if self._words else len(self.match.outputs), dtype=np.float32)
        rows: list[np.ndarray] = [nothing] * len(texts)
        for indices in self._batches(encoded["input_ids"]):
            logits = self._logits({name: [values[index] for index in indices] for name, values in encoded.items()})
            for index, row in zip(indices, logits, strict=True):
                rows[index] = row
        require_finite_logits(rows, texts)
        if not self._words:
            return np.stack(rows)
        return by_word(rows, [first_pieces(encoded.word_ids(row), len(text)) for row, text in enumerate(texts)])

    def _batches(self, input_ids: Sequence[Sequence[int]]) -> Iterator[list[int]]:
        """Yield batches of rows of equal length; of one row for decoders without a padding token, which refuse more."""
        by_length: dict[int, list[int]] = defaultdict(list)
        for index, ids in enumerate(input_ids):
            if ids:
                by_length[len(ids)].append(index)
        size = BATCH if getattr(self._model.config.get_text_config(), "pad_token_id", None) is not None else 1
        for _, rows in sorted(by_length.items()):
            yield from (rows[start : start + size] for start in range(0, len(rows), size))

    def _logits(self, inputs: dict[str, list[list[int]]]) -> np.ndarray:
        """Return the logits of texts of equal length [rows, labels], or of their tokens [rows, tokens, labels]."""
        import torch

        model = self._model
        embeddings, highest = _known_tokens(model), max(map(max, inputs["input_ids"]))
        if embeddings is not None and highest >= embeddings:
            raise InputError(
                f"teacher '{self.source}': its tokenizer gives the token {highest}, and the model has embeddings of "
                f"{embeddings}; save the tokenizer that it was trained with in its folder"
            )
        try:
            with torch.no_grad():
                output: Any = model(**{name: torch.tensor(rows).to(model.device) for name, rows in inputs.items()})
        except Exception as error:  # whatever the code of an architecture raises
            raise InputError(f"teacher '{self.source}' fails on the texts: {error!r:.300}") from error
        logits: np.ndarray = output.logits.float().cpu().numpy()[..., list(self.match.outputs)]
        return logits

    def _encode(self, task: Task, split: str) -> BatchEncoding:
        """Encode a split, without padding, in the teacher's own way."""
        from limbeck.core.tokenizer import spaced

        tokenizer, rows, mask = self._tokenizer, task.split(split), task.mask_token
        texts: list[Any] = list(map(list, rows.texts)) if self._words else list(rows.texts)
        if mask and split == "train" and (own := tokenizer.mask_token):
            texts = [
                [word.replace(mask, own) for word in text] if self._words else text.replace(mask, own) for text in texts
            ]
        limits = (task.max_length, tokenizer.model_max_length, _most_tokens(self._model))
        longest = min(limit for limit in limits if limit is not None)
        if self._words and not tokenizer.is_fast:
            raise InputError(f"teacher '{self.source}': its tokenizer does not say which token is of which word")
        reader = spaced(tokenizer) if self._words else tokenizer
        pairs = list(rows.pairs) if rows.pairs else None
        encoded: BatchEncoding = reader(
            texts, pairs, truncation=True, max_length=longest, is_split_into_words=self._words
        )
        return encoded


def _check_all_is_used(source: str, model: PreTrainedModel, unexpected: Iterable[str]) -> None:
    """Refuse a model of whose layers, or embeddings, transformers leaves something out.

    Other heads, poolers and buffers that older versions stored are left out, too; these do not change the logits.

    Args:
        source: How the user named it.
        model: The model.
        unexpected: Names of the weights that found no place in it.

    Raises:
        InputError: Names the weights.
    """
    inner = re.compile(rf"{re.escape(model.base_model_prefix)}\.(.*\.)?(\d+|\w*embeddings)\.")
    if unused := sorted(name for name in unexpected if inner.match(name) and not name.endswith(BUFFERS)):
        raise InputError(
            f"teacher '{source}' would answer otherwise than it was trained: transformers {_version()} does not use "
            f"{', '.join(unused[:4])}{' and others' * (len(unused) > 4)}"
        )
    kind = getattr(model.config, "position_embedding_type", None)
    if str(kind).startswith("relative_key") and not any("distance_embedding" in name for name in model.state_dict()):
        raise InputError(
            f"teacher '{source}' would answer otherwise than it was trained: its position_embedding_type is '{kind}', "
            f"which transformers {_version()} does not compute"
        )


def _version() -> str:
    from transformers import __version__

    return __version__


def _known_tokens(model: PreTrainedModel) -> int | None:
    """Return how many tokens a model has embeddings of; None where it has no such table, as for characters."""
    try:
        table: Any = model.get_input_embeddings()
    except NotImplementedError:
        return None
    return int(table.weight.shape[0]) if hasattr(table, "weight") else None


def _most_tokens(model: PreTrainedModel) -> int | None:
    """Return how many tokens a model has positions for; None where there is no limit.

    Architectures after RoBERTa count positions from behind the padding token, whose index the table then has.
    """
    positions: object = getattr(model.config, "max_position_embeddings", None)
    if not isinstance(positions, int) or positions <= 0:  # -1 stands for no limit
        return None
    tables = (module for name, module in model.named_modules() if name.endswith("position_embeddings"))
    padding = next((table.padding_idx for table in tables if getattr(table, "padding_idx", None) is not None), None)
    return positions if padding is None else positions - int(padding) - 1


def match_outputs(source: str, task: Task) -> Match:
    """Match the outputs of a model of any architecture with a task's labels, by its config.json alone.

    Args:
        source: Folder or hub name of the model.
        task: The task.

    Raises:
        InputError: The model does not answer the task.
    """
    _, config = read_config(source)
    architectures = [str(name) for name in config.get("architectures") or ()]
    ending = task.task_kind.auto_class.removeprefix("AutoModel")
    classifies = any(name.endswith(ending) for name in architectures)
    match = OutputSpec.from_config(config, source).match(task.kind, task.label_names)
    if not classifies or not match:
        reason = match.refusal if classifies else f"it is a {', '.join(architectures) or 'model without a head'}"
        raise InputError(f"teacher '{source}' does not answer this task: {reason}")
    return match


def is_known_to_transformers(source: str | Path) -> bool:
    """Return whether transformers has a classifier, of texts or of words, of the model's architecture."""
    from transformers.models.auto import modeling_auto

    texts = modeling_auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES
    words = modeling_auto.MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES
    _, config = read_config(user_path(source) if user_path(source).is_dir() else source)
    return config.get("model_type") in {*texts, *words}
