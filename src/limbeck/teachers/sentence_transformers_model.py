"""Any embedding model that sentence-transformers opens as a teacher of vectors, with its own tokenizer and prompts."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from limbeck.core.judged_texts import Document, Query
from limbeck.core.task import Task
from limbeck.core.task_kind import OWN_LENGTH
from limbeck.data.encoding import part_of_search
from limbeck.errors import InputError, MissingExtra
from limbeck.model._transformers import explained, quiet
from limbeck.model.location import model_folder, sentence_folder
from limbeck.model.sentence_transformers import MODULES, check_gives_vectors, check_similarity

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

BATCH = 32


def is_embedding_model(source: str) -> bool:
    """Return whether a model that limbeck does not open is one of sentence-transformers that gives vectors.

    Args:
        source: Folder or hub name.
    """
    root = sentence_folder(source)
    if root is None:
        return False
    try:
        check_gives_vectors(root)
    except InputError:
        return False
    return True


class SentenceTransformersTeacher:
    """An embedding model of which only the vectors are used.

    Attributes:
        probabilities: Always False: it gives vectors.
        order_assumed: Always False: components have no names.
    """

    probabilities = False
    order_assumed = False
    notes: tuple[str, ...] = ()

    def __init__(self, source: str, identity: str) -> None:
        """Keep the arguments; the model is opened on first use.

        Args:
            source: Folder or hub name of a model of sentence-transformers.
            identity: Identifies the model's content.

        Raises:
            MissingExtra: sentence-transformers is not installed.
            InputError: The folder is none of sentence-transformers, or names parts of other libraries.
            UnsupportedModel: Its vectors are not compared by their cosine.
        """
        from importlib.util import find_spec

        self.source, self.identity = source, identity
        self._root = root = sentence_folder(source)
        if root is None:
            raise InputError(
                f"teacher '{source}' gives no vectors: {MODULES}, which says how they are made, is missing; give a "
                "folder of sentence-transformers, or its name on the hub"
            )
        check_gives_vectors(root)
        check_similarity(root)
        if find_spec("sentence_transformers") is None:
            raise MissingExtra("sentence-transformers", "sentence-transformers")

    @cached_property
    def _model(self) -> SentenceTransformer:
        from sentence_transformers import SentenceTransformer

        from limbeck.model.placement import on_accelerator

        is_on_hub = model_folder(self.source) is None
        with quiet(), explained(self.source):
            model = SentenceTransformer(
                self.source if is_on_hub else str(self._root),
                device="cpu",
                trust_remote_code=False,
                local_files_only=not is_on_hub,
                model_kwargs={"use_safetensors": True, "dtype": "float32"},
            )
        return on_accelerator(model).eval()

    @property
    def max_length(self) -> int:
        """Longest text that it reads, in its own tokens."""
        return int(self._model.max_seq_length or OWN_LENGTH)

    @property
    def width(self) -> int:
        """Components of its vectors."""
        width = self._model.get_embedding_dimension()
        if width is None:
            raise InputError(f"teacher '{self.source}' does not say how many components its vectors have")
        return int(width)

    def lacks(self, task: Task, split: str) -> str:
        """Return an empty string: a model can answer any text."""
        return ""

    def answer(self, task: Task, split: str) -> np.ndarray:
        """Return the vectors of a split.

        Args:
            task: The task; texts are cut at its ``max_length``, counted in the teacher's own tokens.
            split: Name of the split.

        Returns:
            [rows, width]; of pairs, both vectors joined [rows, 2 * width].
        """
        rows, own = task.split(split), self._model.max_seq_length
        self._model.max_seq_length = min(task.max_length, self.max_length)
        try:
            first = self._vectors(rows.texts, rows.labels)
            if rows.pairs is None:
                return first
            return np.concatenate([first, self._vectors(rows.pairs, rows.labels, second=True)], axis=1)
        finally:
            self._model.max_seq_length = own

    def _vectors(self, texts: Sequence[str], labels: Sequence[Any], *, second: bool = False) -> np.ndarray:
        """Return the vectors of texts; queries and documents of a search have the model's prompts for them."""
        options: dict[str, Any] = {"batch_size": BATCH, "show_progress_bar": False, "convert_to_numpy": True}
        encoders = {Query: self._model.encode_query, Document: self._model.encode_document}
        parts = [part_of_search(label, second=second) for label in labels]
        if None in parts or not parts:
            return np.asarray(self._model.encode(list(texts), **options), dtype=np.float32)
        vectors = np.empty((len(texts), self.width), dtype=np.float32)
        for part, encode in encoders.items():
            if rows := [row for row, each in enumerate(parts) if each is part]:
                vectors[rows] = encode([texts[row] for row in rows], **options)
        return vectors
