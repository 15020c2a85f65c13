"""Replace the softmax attention of a model by cores of linear cost, and train it beside its guide.

Works on a model in memory with its task, without recipe or store; ``techniques/linearize.py`` and
``limbeck.linearize`` call it. ``train/linearization.py`` has the losses.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from limbeck.errors import InputError
from limbeck.model.attention_conversion import convert, new_projections
from limbeck.train.finetuning import train_on_task
from limbeck.train.linearization import missing_positions, restart

if TYPE_CHECKING:
    from limbeck.core.candidate import Candidate
    from limbeck.core.shape import Shape
    from limbeck.core.step import RunContext
    from limbeck.model.encoder import LimbeckForSequenceClassification
    from limbeck.train.config import TrainingConfig
    from limbeck.train.guide_config import GuideConfig


def linearize(
    candidate: Candidate,
    attention: Sequence[str],
    guidance: GuideConfig,
    training: TrainingConfig,
    context: RunContext,
    *,
    share: str = "none",
    tokens: Callable[[Candidate], int] | None = None,
    max_length: int | None = None,
    checkpoints: str | None = None,
) -> LimbeckForSequenceClassification:
    """Give a model other attention, keep all other weights, and train it on its task.

    Args:
        candidate: The model with its tokenizer and task. Its weights may be replaced by those that the teacher had
            before it was fine-tuned, and its tokenizer cuts texts at ``max_length`` afterwards if that is longer.
        attention: Core of all layers, or one for each.
        guidance: What the student is compared with.
        training: How it is trained.
        context: Gives the teacher, the seed, the scratch folder and the log.
        share: Which length projections layers share.
        tokens: Returns the length of a text for which new length projections average neighbors; None draws them.
        max_length: Tokens that the model should be able to read, if more than now.
        checkpoints: Folder with the teacher's epochs; None for those that it kept.

    Returns:
        The trained model.

    Raises:
        InputError: The cores do not fit the model, or there is no suitable teacher.
    """
    before = candidate.model
    cores = _cores(before.shape, attention)
    teacher = guidance.teacher(candidate, context, max_length, checkpoints)
    if teacher is not None and guidance.from_pretrained:
        restart(before, teacher)
    positions = missing_positions(before, max_length)
    if positions:
        candidate.tokenizer.model_max_length = max_length
    length = tokens(candidate) if tokens is not None else None
    model = convert(before, cores, share=share, positions=positions, tokens=length, seed=context.seed)
    fresh = new_projections(model, before)
    if guidance.freeze_steps and not fresh:
        raise InputError("linearize.freeze_steps: the model has these projections already, so nothing is new")
    guide = None if teacher is None else teacher.model.eval()
    if guidance.guide == "trajectory":
        exact = [layer.attention if layer.core[0] == "local" else "softmax" for layer in before.shape.layers]
        guide = convert(before, exact, positions=positions)
    objective = guidance.objective(
        model,
        guide,
        training,
        problem_type=candidate.task.problem_type,
        epoch_checkpoints=() if teacher is None else teacher.epoch_checkpoints,
        fresh=fresh,
    )
    context.log(f"{before.shape} -> {model.shape}; projections shared: {share}")
    train_on_task(replace(candidate, model=model, folder=None), objective, training, context)
    return model.requires_grad_()


def _cores(shape: Shape, attention: Sequence[str]) -> list[str]:
    """Return the core of every layer, of the cores that a user gave."""
    try:
        return [layer.attention for layer in shape.converted(attention).layers]
    except InputError as error:
        raise InputError(f"linearize.{error}") from error
