"""Give a student the width of its teacher's vectors (Vujanic and Rueckstiess, 2025, arXiv:2509.12539, LEAF).

The map is a dense layer of the student, kept after training: its queries can then search an index of the teacher.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, cast

import torch

from limbeck.core.model import VectorSource
from limbeck.core.sentence_embedding import Dense, embedding_in
from limbeck.errors import InputError

if TYPE_CHECKING:
    from limbeck.core.model import AnswerSource, Runnable
    from limbeck.model.sentence_encoder import LimbeckForSentenceEmbedding


def vector_width(model: Runnable | AnswerSource) -> int:
    """Return the width of a model's vectors.

    Args:
        model: A torch model, an ONNX file, or a teacher that only gives vectors.

    Raises:
        InputError: It makes none.
    """
    if isinstance(model, VectorSource):
        return model.width
    model = cast("Runnable", model)
    config = model.config  # type: ignore[attr-defined]  # both kinds of model have one
    embedding = embedding_in(config if isinstance(config, Mapping) else config.to_dict())
    if embedding is None:
        raise InputError("the teacher makes no vectors; take one that does, such as a folder of sentence-transformers")
    return embedding.width(model.shape.hidden)


def match_width(
    student: LimbeckForSentenceEmbedding, teacher: Runnable | AnswerSource, log: Callable[[str], None]
) -> None:
    """Append a dense layer to a student whose vectors have another width than its teacher's.

    Args:
        student: The student, changed in place.
        teacher: The teacher.
        log: Called with what was added.

    Raises:
        InputError: The teacher makes no vectors.
    """
    own, width = vector_width(student), vector_width(teacher)
    if own == width:
        return
    weight = torch.nn.init.orthogonal_(torch.empty(width, own))
    student.widen(Dense(width, bias=False), weight, None)
    log(f"a dense layer from {own} to the teacher's {width} components was added")
