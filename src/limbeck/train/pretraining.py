"""What techniques that train on plain text have in common: where it comes from, what is left out, how it is judged.

The texts of the task's validation and test splits never train, a held-out part of the corpus says how far the training
came, and the pretrained model is the one that the recipe began with. Light to import.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from annotated_types import Ge, Gt, Lt, MinLen

from limbeck.core.candidate import Candidate
from limbeck.core.shape import Shape, skipped_positions
from limbeck.errors import InputError
from limbeck.train.config import TrainingConfig
from limbeck.train.layer_distillation import same_tokens

if TYPE_CHECKING:
    from limbeck.core.step import RunContext
    from limbeck.data.corpus.documents import Source
    from limbeck.data.corpus.packing import Corpus
    from limbeck.train.objectives import Objective


@dataclass(frozen=True)
class PretrainingConfig(TrainingConfig):
    """Hyper-parameters of learning from running text, before any task.

    Attributes:
        pretrained: The pretrained model, as a folder or hub name; unless given, the recipe's model as it was given.
        corpus: Files, folders, or the name of a data set of the hub; the task's own training texts unless given.
        column: Column with the text, by name or number from 0; by its customary name, or the only one, unless given.
        dataset_config: Configuration of the data set.
        dataset_split: Split of the data set.
        exclude_splits: Splits of the task whose texts are left out of the corpus.
        exclude: Files whose texts are left out too, such as the test split of another task; no names of data sets.
        max_length: Tokens in a sequence; sentences are joined up to this, within their document.
        held_out: Share of the sequences that is not trained on and tells how far the training came.
        num_proc: Processes that tokenise; one for each core unless given.
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

    name: ClassVar[str]

    trains: ClassVar[bool] = False  # the head learns nothing here
    headless: ClassVar[bool] = True
    imitates: ClassVar[str] = "root"
    files: ClassVar[frozenset[str]] = frozenset({"corpus", "exclude", "pretrained"})
    neutral: ClassVar[frozenset[str]] = TrainingConfig.neutral | {"num_proc"}

    def source(self) -> Source | None:
        """Where the corpus comes from; None for the texts of the task."""
        from limbeck.data.corpus.documents import Source

        if self.corpus is None:
            return None
        places = (self.corpus,) if isinstance(self.corpus, str) else tuple(self.corpus)
        return Source(places, self.column, self.dataset_config, self.dataset_split)

    def missing(self) -> list[str]:
        """What is wrong with the files that the fields name."""
        from limbeck.data.corpus.documents import files_of
        from limbeck.model.checkpoints import peek_here

        found = []
        try:
            if self.pretrained is not None:
                peek_here(self.pretrained)
        except InputError as error:
            found.append(f"pretrained: {error}")
        source = self.source()
        for name, look in (("corpus", source.files if source else list), ("exclude", lambda: files_of(self.exclude))):
            try:
                look()
            except InputError as error:
                found.append(f"{name}: {error}")
        return found

    def estimate(self, shape: Shape, rows: Mapping[str, int], tokens: float) -> float | None:  # type: ignore[override]
        """Rough seconds for the task's own texts; unknown for a corpus, which is not read to tell."""
        return super().estimate(shape, rows, tokens) if self.corpus is None else None

    def teacher(self, candidate: Candidate, context: RunContext) -> Candidate:
        """The pretrained model."""
        from limbeck.model.checkpoints import open_model

        if self.pretrained is not None:
            return Candidate(*open_model(self.pretrained, task=candidate.task), candidate.task)
        if context.teacher is None:
            raise InputError(f"{self.name} has no teacher")
        return context.teacher.open()

    def check_sides(self, candidate: Candidate, teacher: Candidate | None) -> None:
        """Refuse sides that cannot read the same sequences."""
        if teacher is not None and not same_tokens(candidate, teacher):
            raise InputError(f"{self.name}: the teacher has another vocabulary than the student")
        style = candidate.model.encoder.style
        most = style.max_positions - skipped_positions(style.position_offset)
        if self.max_length > most:
            raise InputError(
                f"{self.name}.max_length: {self.max_length} is more than the model's {most} positions; use {most}"
            )

    def sequences(self, candidate: Candidate, context: RunContext) -> Corpus:
        """The corpus as packed sequences of tokens."""
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
        """Train the candidate's model in place, and say what that did to the loss on the held-out part.

        The last weights stay, or those with the least such loss if there are evaluations.
        """
        from limbeck.train.loop import fit

        train, held = self.sequences(candidate, context).hold_out(self.held_out, context.seed)
        if self.held_out and not len(held):
            context.log(f"nothing is held out: the corpus has too few sequences ({len(train):,})")
        judged = partial(mean_loss, objective=objective, encoded=held, batch_size=2 * self.per_device_train_batch_size)
        before = judged(candidate.model)
        evaluate = (lambda model: -judged(model)) if self.evaluations_per_epoch and len(held) else None
        report = fit(
            candidate.model,
            objective,
            train,
            self,
            seed=context.seed,
            evaluate=evaluate,
            scratch=context.scratch,
            log=context.log,
        )
        if len(held):
            after = judged(candidate.model)
            context.log(f"loss on {len(held):,} held-out sequences {before:.4f} -> {after:.4f}")
        context.log(f"{report.steps} steps in {report.seconds:.0f} s, {report.examples_per_second:.1f} sequences/s")


def mean_loss(model: Any, objective: Any, encoded: Any, batch_size: int) -> float:
    """The objective on sequences that are not trained on, without dropout: the mean over them."""
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
