"""Training labels that differ in nothing that a loss reads, from which a model would learn one constant answer."""

from __future__ import annotations

from collections.abc import Sequence


def pair_loss_problem(kind: str, scores: Sequence[float]) -> str:
    """Return why a loss on pairs of texts has nothing to learn from their scores; empty where it has.

    Args:
        kind: As for ``PairLoss``.
        scores: Scores of the training pairs.
    """
    if kind == "contrastive" or min(scores) != max(scores):
        return ""
    return (
        f"{kind} compares scores, and all pairs have {scores[0]:g}; if the texts of each pair belong "
        "together, set pair_loss: contrastive"
    )


def rank_loss_problem(kind: str, gains: Sequence[float]) -> str:
    """Return why a loss on documents that are ranked for a query has nothing to learn from their gains.

    Args:
        kind: As for ``RankLoss``.
        gains: Gains of the training documents, or a teacher's scores of them.
    """
    least, most = min(gains), max(gains)
    if least == most:
        return f"all training documents have a gain of {least:g}, so none is to come before another"
    if kind == "binary" and least > 0:
        return "binary takes a gain above 0 as relevant, and all have one; for scores of a teacher, set pointwise"
    if kind != "pointwise" and most <= 0:
        return f"{kind} takes a gain above 0 as relevant, and none has one; for scores of a teacher, set pointwise"
    return ""
