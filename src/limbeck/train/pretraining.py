"""Shared by techniques that train on plain text: the corpus, what is excluded from it, and how training is evaluated.

Texts of the task's validation and test splits are never trained on. The loss on a held-out part of the corpus shows the
progress. The pretrained model is the one that the recipe started from. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from annotated_types import Ge, Gt, Lt, MinLen

from limbeck.core.candidate import Candidate
from limbeck.core.shape import Shape, skipped_positions
from limbeck.core.step import StepInfo
from limbeck.errors import InputError
from limbeck.train.config import TRAINING, TrainingConfig
from limbeck.train.layer_distillation import same_tokens

if TYPE_CHECKING:
    from limbeck.core.step import RunContext
    from limbeck.data.batching import Encoded
    from limbeck.data.corpus.documents import Source
    from limbeck.data.corpus.packing import Corpus
    from limbeck.model.encoder import LimbeckForSequenceClassification
    from limbeck.train.objectives import Objective


@dataclass(frozen=True)
class PretrainingConfig(TrainingConfig):
    """Hyper-parameters of training on running text, before any task.

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
    max_length: Annotated[int, Ge(3)] = 128
    held_out: Annotated[float, Ge(0), Lt(1)] = 0.01
    num_proc: Annotated[int, Ge(1)] | None = None

    learning_rate: Annotated[float, Gt(0)] = 1e-4
    gradient_accumulation_steps: Annotated[int, Ge(1)] = 8
    evaluations_per_epoch: Annotated[int, Ge(0)] = 0

    info: ClassVar[StepInfo]

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

    def estimated_seconds(self, shape: Shape, rows: Mapping[str, int], tokens: float) -> float | None:  # type: ignore[override]
        """Estimate the time of training on the task's own texts.

        Args:
            shape: The model's shape.
            rows: Number of texts by split.
            tokens: Mean tokens per text.

        Returns:
            Seconds, rough; None for a corpus, which would have to be read.
        """
        return super().estimated_seconds(shape, rows, tokens) if self.corpus is None else None

    def teacher(self, candidate: Candidate, context: RunContext) -> Candidate:
        """Open the pretrained model."""
        from limbeck.model.checkpoints import open_model

        if self.pretrained is not None:
            return Candidate(*open_model(self.pretrained, task=candidate.task), candidate.task)
        if context.teacher is None:
            raise InputError(f"{self.info.name} has no teacher")
        return context.teacher.open()

    def check_sides(self, candidate: Candidate, teacher: Candidate | None) -> None:
        """Refuse a student and a teacher that cannot process the same sequences."""
        if teacher is not None and not same_tokens(candidate, teacher):
            raise InputError(f"{self.info.name}: the teacher has another vocabulary than the student")
        style = candidate.model.encoder.style
        most = style.max_positions - skipped_positions(style.position_offset)
        if self.max_length > most:
            raise InputError(
                f"{self.info.name}.max_length: {self.max_length} is more than the model's {most} positions; use {most}"
            )

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

    def train_on_text(self, candidate: Candidate, objective: Objective, context: RunContext) -> None:
        """Train the candidate's model in place, and log the loss on the held-out part before and after.

        Keeps the last weights, or those with the lowest held-out loss if there are evaluations.

        Args:
            candidate: The model and its tokenizer.
            objective: What to minimize.
            context: Seed, scratch folder and log.
        """
        from limbeck.train.kept_steps import keep_steps
        from limbeck.train.loop import fit

        train, held = self.sequences(candidate, context).hold_out(self.held_out, context.seed)
        if self.held_out and not len(held):
            context.log(f"nothing is held out: the corpus has too few sequences ({len(train):,})")
        held_out_loss = partial(
            mean_loss, objective=objective, encoded=held, batch_size=2 * self.per_device_train_batch_size
        )
        before = held_out_loss(candidate.model)
        evaluate = (lambda model: -held_out_loss(model)) if self.evaluations_per_epoch and len(held) else None
        report = fit(
            candidate.model,
            objective,
            train,
            self,
            seed=context.seed,
            evaluate=evaluate,
            scratch=context.scratch,
            log=context.log,
            after_step=keep_steps(candidate.model, self.save_steps, context.scratch),
        )
        if len(held):
            after = held_out_loss(candidate.model)
            context.log(f"loss on {len(held):,} held-out sequences {before:.4f} -> {after:.4f}")
        context.log(f"{report.steps} steps in {report.seconds:.0f} s, {report.examples_per_second:.1f} sequences/s")


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


PRETRAINING = replace(
    TRAINING,
    trains=False,  # the head is not trained
    headless=True,
    imitates="root",
    files={"corpus", "exclude", "pretrained"},
    neutral=TRAINING.neutral | {"num_proc"},
)
"""What every technique with a :class:`PretrainingConfig` declares."""
