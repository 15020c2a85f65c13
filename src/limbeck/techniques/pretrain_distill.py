"""Teach a student the inside of a pretrained model on plain text, before any task: general distillation.

Reference: Jiao et al., 2020, arXiv:1909.10351 (TinyBERT, section 3.2; defaults as in its code): hidden states of the
embeddings and of all mapped layers, and attention scores, of a teacher that was not fine-tuned; no prediction loss;
3 epochs of batches of 256, learning rate 1e-4. Differs: losses leave padding out; relations (Wang et al., 2021,
arXiv:2012.15828) where heads differ in number; texts of the task's validation and test splits are left out of the
corpus; a held-out part of it says how well the teacher is imitated.

    model: bert-base-uncased
    task: sst2
    steps:
      - finetune: {}                                     # the teacher of the last step, not of pretrain_distill
      - student_init: {layers: 4, hidden: 384}                # or prune, or student_init: {layers: 6, init: layers}
      - pretrain_distill:
          corpus: [wiki.txt, reviews.parquet]            # null: the training texts of the task
          exclude: [other-test.tsv]                      # the task's own validation and test texts go anyway
      - distill: {match: [logits, hidden, attention]}

A corpus is plain text (one sentence a line, a blank line between documents), a column of CSV, TSV, JSONL or Parquet, or
the name of a data set, which is streamed. TFRecord is not read: not worth a dependency; convert it to text or Parquet.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

from annotated_types import MinLen

from limbeck.core.candidate import Candidate
from limbeck.core.field_groups import group
from limbeck.core.step import RunContext, Technique, step
from limbeck.errors import InputError
from limbeck.train.config import TrainingConfig
from limbeck.train.layer_distillation import LayerDistillationConfig, Layers, state_marks, token_problems
from limbeck.train.pretraining import ON_TEXT, PRETRAINING, PretrainingConfig, check_sides, train_on_text

if TYPE_CHECKING:
    from limbeck.core.shape import Shape


@step(
    replace(
        PRETRAINING,
        name="pretrain_distill",
        formerly="general_distill",
        label="distilled on text",
        version=2,
        needs={"torch"},
        reads={"seed", "teacher"},
        added=PRETRAINING.added | {"token_ranking_weight"},
        example={
            "num_train_epochs": 2,
            "per_device_train_batch_size": 8,
            "gradient_accumulation_steps": 2,
            "max_length": 32,
            "held_out": 0.1,
        },
    )
)
class PretrainDistill(Technique):
    """Train the candidate on running text to imitate the model that the recipe began with, as it was pretrained.

    Defaults are TinyBERT's: 3 epochs, 256 sequences to a step (32 at a time), a learning rate of 1e-4 after a warm-up
    of 10 %. The weights after the last step are kept, unless ``evaluations_per_epoch`` asks for those that imitate the
    teacher best on the held-out part. With mixed_precision fp16 (on a GPU) the loss is scaled.

    Attributes:
        training: How the student is trained.
        pretraining: The corpus, and the model to imitate.
        layerwise: How the inside of the teacher is imitated.
        match: What to imitate; each has a weight of its own. Attention of sides with other numbers of heads is compared
            as relations.
    """

    training: TrainingConfig = group(default=ON_TEXT)
    pretraining: PretrainingConfig = group(default=PretrainingConfig())
    layerwise: LayerDistillationConfig = group(default=LayerDistillationConfig())
    match: Annotated[tuple[Layers, ...], MinLen(1)] = ("hidden", "attention")

    def apply(self, candidate: Candidate, context: RunContext) -> Iterator[Candidate]:
        """Yield the candidate with trained weights."""
        from accelerate.utils import set_seed

        from limbeck.train.objectives import LiveTeacher, Weighted

        teacher = self.pretraining.teacher(candidate, context, "pretrain_distill")
        check_sides(candidate, teacher, self.pretraining.max_length, "pretrain_distill")
        check_difference(candidate, teacher)
        match, note = self.layerwise.comparable(self.match, candidate, teacher)
        if note:
            context.log(note)
        set_seed(context.seed)  # projections are drawn here, before the loop seeds itself
        terms = self.layerwise.terms(match, candidate, teacher, "pretrain_distill")
        objective = Weighted(terms, LiveTeacher(teacher.model.eval()))
        train_on_text(candidate, objective, self.training, self.pretraining, context)
        yield replace(candidate, folder=None)

    def trait_problems(self, traits: AbstractSet[str]) -> list[str]:
        """Return what cannot be imitated as the student leaves tokens behind, or as it does not."""
        return token_problems(self.match, traits)

    def marks(self, traits: AbstractSet[str]) -> Mapping[str, Any]:
        """Mark results of students that leave tokens behind."""
        return state_marks(self.match, traits)

    def estimated_seconds(self, shape: Shape, rows: Mapping[str, int], tokens: float) -> float | None:
        """Estimate the time of training on the task's own texts; None for a corpus, which would have to be read.

        Args:
            shape: Shape of the model.
            rows: Rows of the task, by split.
            tokens: Tokens of a typical text.
        """
        if self.pretraining.corpus is not None:
            return None
        return self.training.estimated_seconds(shape, rows, tokens)

    def teacher_texts(self, rows: Mapping[str, int]) -> float:
        """Return the texts that the teacher reads: those of every epoch."""
        return rows.get("train", 0) * self.training.num_train_epochs


def check_difference(candidate: Candidate, teacher: Candidate) -> None:
    """Refuse a student that is its teacher."""
    student_state, teacher_state = (side.model.encoder.state_dict() for side in (candidate, teacher))
    if student_state.keys() == teacher_state.keys() and all(
        student_state[name].equal(teacher_state[name]) for name in student_state
    ):
        raise InputError(
            "pretrain_distill: the student is the very model it should imitate; make it smaller first "
            "('student_init', 'prune'), or name the model to imitate with 'pretrained'"
        )
