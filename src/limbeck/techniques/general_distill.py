"""Teach a student the inside of a pretrained model on plain text, before any task: general distillation.

Reference: Jiao et al., 2020, arXiv:1909.10351 (TinyBERT, section 3.2; defaults as in its code): hidden states of the
embeddings and of all mapped layers, and attention scores, of a teacher that was not fine-tuned; no prediction loss;
3 epochs of batches of 256, learning rate 1e-4. Differs: losses leave padding out; relations (Wang et al., 2021,
arXiv:2012.15828) where heads differ in number; texts of the task's validation and test splits are left out of the
corpus; a held-out part of it says how well the teacher is imitated.

    model: bert-base-uncased
    task: sst2
    steps:
      - finetune: {}                                     # the teacher of the last step, not of general_distill
      - student: {layers: 4, hidden: 384}                # or prune, or student: {layers: 6, init: layers}
      - general_distill:
          corpus: [wiki.txt, reviews.parquet]            # null: the training texts of the task
          exclude: [other-test.tsv]                      # the task's own validation and test texts go anyway
      - distill: {match: [logits, hidden, attention]}

A corpus is plain text (one sentence a line, a blank line between documents), a column of CSV, TSV, JSONL or Parquet, or
the name of a data set, which is streamed. TFRecord is not read: not worth a dependency; convert it to text or Parquet.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from annotated_types import Ge, Gt, Lt, MinLen

from limbeck.core.candidate import Candidate
from limbeck.core.step import Lab, step
from limbeck.errors import InputError
from limbeck.train.imitate import Imitation, Layers, same_tokens

if TYPE_CHECKING:
    from limbeck.core.shape import Shape
    from limbeck.data.corpus import Corpus
    from limbeck.data.documents import Source


@step("general_distill", needs={"torch"}, reads={"seed", "teacher"})
class GeneralDistill(Imitation):
    """Train the candidate on running text to imitate the model that the recipe began with, as it was pretrained.

    Defaults are TinyBERT's: 3 epochs, 256 sequences to a step (32 at a time), a learning rate of 1e-4 after a warm-up
    of 10 %. The weights after the last step are kept, unless ``evaluations_per_epoch`` asks for those that imitate the
    teacher best on the held-out part. With mixed_precision fp16 (on a GPU) the loss is scaled.

    Attributes:
        match: What to imitate; each has a weight of its own. Attention of sides with other numbers of heads is compared
            as relations.
        pretrained: The model to imitate, as a folder or hub name; unless given, the recipe's model as it was given.
        corpus: Files, folders, or the name of a data set of the hub; the task's own training texts unless given.
        column: Column with the text, by name or number from 0; by its customary name, or the only one, unless given.
        dataset_config: Configuration of the data set.
        dataset_split: Split of the data set.
        exclude_splits: Splits of the task whose texts are left out of the corpus.
        exclude: Files whose texts are left out too, such as the test split of another task; no names of data sets.
        max_length: Tokens in a sequence; sentences are joined up to this, within their document.
        held_out: Share of the sequences that is not trained on and tells how well the teacher is imitated.
        num_proc: Processes that tokenise; one for each core unless given.
    """

    match: Annotated[tuple[Layers, ...], MinLen(1)] = ("hidden", "attention")
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

    trains: ClassVar[bool] = False  # the head learns nothing here
    headless: ClassVar[bool] = True
    imitates: ClassVar[str] = "root"
    files: ClassVar[frozenset[str]] = frozenset({"corpus", "exclude", "pretrained"})
    neutral: ClassVar[frozenset[str]] = Imitation.neutral | {"num_proc"}

    example: ClassVar[dict[str, Any]] = {
        "num_train_epochs": 2,
        "per_device_train_batch_size": 8,
        "gradient_accumulation_steps": 2,
        "max_length": 32,
        "held_out": 0.1,
    }

    def source(self) -> Source | None:
        """Where the corpus comes from; None for the texts of the task."""
        from limbeck.data.documents import Source

        if self.corpus is None:
            return None
        places = (self.corpus,) if isinstance(self.corpus, str) else tuple(self.corpus)
        return Source(places, self.column, self.dataset_config, self.dataset_split)

    def missing(self) -> list[str]:
        """What is wrong with the files that the fields name."""
        from limbeck.data.documents import files_of
        from limbeck.model.files import peek_here

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

    def apply(self, candidate: Candidate, lab: Lab) -> Iterator[Candidate]:
        """Yield the candidate with trained weights."""
        from accelerate.utils import set_seed

        from limbeck.train.fit import fit
        from limbeck.train.objectives import LiveTeacher, Weighted

        teacher = self.teacher(candidate, lab)
        self.check_sides(candidate, teacher)
        match, note = self.comparable(self.match, candidate, teacher)
        if note:
            lab.log(note)
        set_seed(lab.seed)  # projections are drawn here, before the loop seeds itself
        terms = self.layer_terms(match, candidate, teacher)
        objective = Weighted(terms, LiveTeacher(teacher.model.eval()))
        train, held = self.sequences(candidate, lab).hold_out(self.held_out, lab.seed)
        if self.held_out and not len(held):
            lab.log(f"nothing is held out: the corpus has too few sequences ({len(train):,})")
        judged = partial(mean_loss, objective=objective, encoded=held, batch_size=2 * self.per_device_train_batch_size)
        before = judged(candidate.model)
        evaluate = (lambda model: -judged(model)) if self.evaluations_per_epoch and len(held) else None
        report = fit(
            candidate.model, objective, train, self, seed=lab.seed, evaluate=evaluate, scratch=lab.scratch, log=lab.log
        )
        if len(held):
            after = judged(candidate.model)
            lab.log(f"loss on {len(held):,} held-out sequences {before:.4f} -> {after:.4f}")
        lab.log(f"{report.steps} steps in {report.seconds:.0f} s, {report.examples_per_second:.1f} sequences/s")
        yield replace(candidate, folder=None)

    def teacher(self, candidate: Candidate, lab: Lab) -> Candidate:
        """The pretrained model."""
        from limbeck.model.files import open_model

        if self.pretrained is not None:
            return Candidate(*open_model(self.pretrained, task=candidate.task), candidate.task)
        if lab.teacher is None:
            raise InputError("general_distill has no teacher")
        return lab.teacher.open()

    def check_sides(self, candidate: Candidate, teacher: Candidate) -> None:
        """Refuse a student that is its teacher, and sides that cannot read the same sequences."""
        mine, theirs = (side.model.encoder.state_dict() for side in (candidate, teacher))
        if mine.keys() == theirs.keys() and all(mine[name].equal(theirs[name]) for name in mine):
            raise InputError(
                "general_distill: the student is the very model it should imitate; make it smaller first ('student', "
                "'prune'), or name the model to imitate with 'pretrained'"
            )
        if not same_tokens(candidate, teacher):
            raise InputError("general_distill: the teacher has another vocabulary than the student")
        style = candidate.model.encoder.style
        most = style.max_positions - (0 if style.position_offset is None else style.position_offset + 1)
        if self.max_length > most:
            raise InputError(
                f"general_distill.max_length: {self.max_length} is more than the model's {most} positions; use {most}"
            )

    def sequences(self, candidate: Candidate, lab: Lab) -> Corpus:
        """The corpus as packed sequences of tokens."""
        from limbeck.data.corpus import kept_corpus

        corpus, counts = kept_corpus(
            self.source(),
            candidate.task,
            candidate.tokenizer,
            self.max_length,
            lab.keep,
            splits=self.exclude_splits,
            exclude=self.exclude,
            scratch=lab.scratch,
            num_proc=self.num_proc,
            tell=lab.log,
        )
        lab.log(f"corpus: {counts}")
        return corpus


def mean_loss(model: Any, objective: Any, encoded: Any, batch_size: int) -> float:
    """The objective on sequences that are not trained on, without dropout: the mean over them."""
    import torch

    from limbeck.data.batches import collate, length_batches
    from limbeck.train.objectives import Progress

    training, total = model.training, 0.0
    model.eval()
    with torch.no_grad():
        for indices in length_batches(encoded.lengths, batch_size):
            batch = {name: value.to(model.device) for name, value in collate(encoded, indices).items()}
            total += sum(float(loss.total) * len(indices) for loss in objective(model, batch, Progress(0, 1)))
    model.train(training)
    return total / max(1, len(encoded))
