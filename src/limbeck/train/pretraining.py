"""Training on plain text: the corpus as a group of fields, what is excluded from it, and how training is evaluated.

Texts of the task's validation and test splits are never trained on. The loss on a held-out part of the corpus shows the
progress. The pretrained model is the one that the recipe started from. Imports no torch.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Annotated, Literal

from annotated_types import Ge, Le, Lt, MinLen

from limbeck.core.candidate import Candidate
from limbeck.core.field_groups import CheckedGroup
from limbeck.core.shape import skipped_positions
from limbeck.errors import InputError
from limbeck.train.config import TRAINING, TrainingConfig
from limbeck.train.layer_distillation import check_vocabulary

if TYPE_CHECKING:
    from limbeck.core.step import RunContext
    from limbeck.data.batching import Encoded
    from limbeck.data.corpus.documents import Source
    from limbeck.data.corpus.packing import Corpus
    from limbeck.model.encoder import LimbeckForSequenceClassification
    from limbeck.train.objectives import Objective


@dataclass(frozen=True)
class PretrainingConfig(CheckedGroup):
    """The running text that a model is trained on before any task, and the pretrained model that it may imitate.

    Attributes:
        pretrained: The pretrained model, a folder or hub name; the recipe's initial model unless given.
        corpus: Files, folders, or the name of a data set on the hub; the task's own training texts unless given.
        column: Column with the text, by name or number from 0; a customary name or the only column unless given.
        dataset_config: Configuration of the data set.
        dataset_split: Split of the data set.
        exclude_splits: Splits of the task whose texts are excluded from the corpus.
        exclude: Files whose texts are excluded too, such as the test split of another task; no names of data sets.
        max_length: Tokens in a sequence; sentences of a document are joined up to this length.
        held_out: Fraction of the sequences that is not trained on, to measure progress.
        num_proc: Processes that tokenize; one per core unless given.
    """

    pretrained: str | None = None
    corpus: Annotated[tuple[str, ...], MinLen(1)] | str | None = None
    column: str | None = None
    dataset_config: str | None = None
    dataset_split: str = "train"
    exclude_splits: tuple[Literal["validation", "test"], ...] = ("validation", "test")
    exclude: tuple[str, ...] = ()
    max_length: Annotated[int, Ge(3), Le(100_000)] = 128
    held_out: Annotated[float, Ge(0), Lt(1)] = 0.01
    num_proc: Annotated[int, Ge(1), Le(1_024)] | None = None

    def source(self) -> Source | None:
        """Return the source of the corpus; None for the texts of the task."""
        from limbeck.data.corpus.documents import Source

        if self.corpus is None:
            return None
        paths = (self.corpus,) if isinstance(self.corpus, str) else tuple(self.corpus)
        return Source(paths, self.column, self.dataset_config, self.dataset_split)

    def file_problems(self) -> list[str]:
        """Return a message for every field that names something that is not there."""
        from limbeck.data.corpus.documents import files_of
        from limbeck.model.checkpoints import peek_here

        messages = []
        try:
            if self.pretrained is not None:
                peek_here(self.pretrained)
        except InputError as error:
            messages.append(f"pretrained: {error}")
        source = self.source()
        for name, look in (("corpus", source.files if source else list), ("exclude", lambda: files_of(self.exclude))):
            try:
                look()
            except InputError as error:
                messages.append(f"{name}: {error}")
        return messages

    def teacher(self, candidate: Candidate, context: RunContext, step: str) -> Candidate:
        """Open the pretrained model.

        Args:
            candidate: The student, whose task the model is opened for.
            context: Has the model that the recipe began with.
            step: Name of the step, for messages.
        """
        from limbeck.model.checkpoints import open_model

        if self.pretrained is not None:
            return Candidate(*open_model(self.pretrained, task=candidate.task), candidate.task)
        if context.teacher is None:
            raise InputError(f"{step} has no teacher")
        return context.teacher.open()

    def sequences(self, candidate: Candidate, context: RunContext) -> Corpus:
        """Return the corpus as packed token sequences."""
        from limbeck.data.corpus.packing import kept_corpus

        corpus, counts = kept_corpus(
            self.source(),
            candidate.task,
            candidate.tokenizer,
            self.max_length,
            context.keep,
            splits=self.exclude_splits,
            exclude=self.exclude,
            scratch=context.scratch,
            num_proc=self.num_proc,
            log=context.log,
        )
        context.log(f"corpus: {counts}")
        return corpus


def check_sides(candidate: Candidate, teacher: Candidate | None, max_length: int, step: str) -> None:
    """Refuse a student and a teacher that cannot process the same sequences.

    Args:
        candidate: The student.
        teacher: The teacher, if there is one.
        max_length: Tokens in a sequence.
        step: Name of the step, for messages.

    Raises:
        InputError: Their vocabularies differ, or the student has too few positions.
    """
    if teacher is not None:
        check_vocabulary(candidate, teacher, step)
    style = candidate.model.encoder.style
    most = style.max_positions - skipped_positions(style.position_offset)
    if max_length > most:
        raise InputError(f"{step}.max_length: {max_length} is more than the model's {most} positions; use {most}")


def train_on_text(
    candidate: Candidate,
    objective: Objective,
    training: TrainingConfig,
    pretraining: PretrainingConfig,
    context: RunContext,
) -> None:
    """Train the candidate's model in place on the corpus, and log the loss on the held-out part before and after.

    Keeps the last weights, or those with the lowest held-out loss if there are evaluations.

    Args:
        candidate: The model and its tokenizer.
        objective: What to minimize.
        training: Hyper-parameters of the training.
        pretraining: The corpus, and how much of it is held out.
        context: Seed, scratch folder and log.
    """
    from limbeck.train.kept_steps import keep_steps
    from limbeck.train.loop import fit

    train, held = pretraining.sequences(candidate, context).hold_out(pretraining.held_out, context.seed)
    if pretraining.held_out and not len(held):
        context.log(f"nothing is held out: the corpus has too few sequences ({len(train):,})")
    held_out_loss = partial(
        mean_loss, objective=objective, encoded=held, batch_size=2 * training.per_device_train_batch_size
    )
    before = held_out_loss(candidate.model)
    evaluate = (lambda model: -held_out_loss(model)) if training.evaluations_per_epoch and len(held) else None
    report = fit(
        candidate.model,
        objective,
        train,
        training,
        seed=context.seed,
        evaluate=evaluate,
        scratch=context.scratch,
        log=context.log,
        after_step=keep_steps(candidate.model, training.save_steps, context.scratch),
        memo=context.memo,
    )
    if len(held):
        after = held_out_loss(candidate.model)
        context.log(f"loss on {len(held):,} held-out sequences {before:.4f} -> {after:.4f}")
    context.log(f"{report.pace}, {report.examples_per_second:.1f} sequences/s")


def mean_loss(
    model: LimbeckForSequenceClassification, objective: Objective, encoded: Encoded, batch_size: int
) -> float:
    """Compute the mean loss over sequences, without dropout.

    Args:
        model: The model, which keeps its training mode.
        objective: Yields the losses of a batch.
        encoded: The sequences.
        batch_size: Sequences in a batch.

    Returns:
        The mean loss; 0 for no sequences.
    """
    import torch

    from limbeck.data.batching import collate, length_batches
    from limbeck.train.objectives import Progress

    training, total = model.training, 0.0
    model.eval()
    with torch.no_grad():
        for indices in length_batches(encoded.lengths, batch_size):
            batch = {name: value.to(model.device) for name, value in collate(encoded, indices).items()}
            total += sum(float(loss.total) * len(indices) for loss in objective(model, batch, Progress(0, 1)))
    model.train(training)
    return total / max(1, len(encoded))


ON_TEXT = TrainingConfig(learning_rate=1e-4, gradient_accumulation_steps=8, evaluations_per_epoch=0)
"""Defaults of training on plain text: those of TinyBERT, 256 sequences to a step."""

PRETRAINING = replace(
    TRAINING,
    trains=False,  # the head is not trained
    headless=True,
    imitates="root",
    files={"corpus", "exclude", "pretrained"},
    neutral=TRAINING.neutral | {"num_proc"},
)
"""What every technique with a :class:`PretrainingConfig` declares."""
