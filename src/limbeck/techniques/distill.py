"""Teach a student to imitate its teacher: logits, hidden states, attention, relations, in any mixture.

References: Hinton et al., 2015, arXiv:1503.02531 (logits); Jiao et al., 2020, arXiv:1909.10351 (TinyBERT: hidden
states and attention); Wang et al., 2021, arXiv:2012.15828 (MiniLMv2: relations). Differs: all losses leave padding
out; terms share one forward pass; the teacher's logits are computed once and kept. Presets: 'tinybert' learns the
inside of the teacher first and its answers then; 'patient' is Sun et al., 2019, arXiv:1908.09355, whose normalized
distance of hidden states is the cosine here, over all tokens and not the first alone; 'minilm' adds the answers to
MiniLMv2's relations; 'fastformers' compares logits as the code of Kim and Hassan, 2020, arXiv:2010.13382, does, and
with match: [logits, hidden] the embeddings and the last hidden states.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

from annotated_types import Ge, Gt, Le, MinLen

from limbeck.core.candidate import Candidate
from limbeck.core.field_groups import group, without_effect
from limbeck.core.model import AnswersOnly, AnswerSource
from limbeck.core.step import NO_TEACHER, RunContext, Technique, step
from limbeck.errors import InputError
from limbeck.train.answer_distillation import AnswerDistillationConfig
from limbeck.train.config import TRAINING, TrainingConfig
from limbeck.train.distillation_presets import PRESETS
from limbeck.train.layer_distillation import (
    LAYERS,
    LayerDistillationConfig,
    Match,
    answers_only_problems,
    state_marks,
    token_problems,
    unused_weights,
)

if TYPE_CHECKING:
    from limbeck.core.pieces import Piece, Result
    from limbeck.core.shape import Shape
    from limbeck.core.task_kind import TaskKind
    from limbeck.train.distillation import Terms


@step(
    replace(
        TRAINING,
        name="distill",
        label="distilled",
        version=5,
        needs={"torch", "teacher"},
        reads={"seed", "teacher"},
        standardizes=True,
        files=frozenset({"teachers"}),
        added=TRAINING.added | {"class_weights", "focal_gamma", "matryoshka", "token_ranking_weight"},
        presets=PRESETS,
        example={"num_train_epochs": 1, "match": ["logits", "hidden"], "task_weight": 0.5},
    )
)
class Distill(Technique):
    """Train the candidate to imitate its fine-tuned, unpruned ancestor.

    Attributes:
        training: How the student is trained.
        layerwise: How the inside of the teacher is imitated.
        answers: How its answers are imitated.
        match: What to imitate, each with its own weight; attention as relations where numbers of heads differ.
        intermediate_epochs: Passes of a first phase for the inside of the teacher, before one for answers; 0 for none.
        intermediate_learning_rate: The highest learning rate of the first phase.
        teachers: Folders or hub names of further teachers, whose logits are averaged with those of the recipe's; hidden
            states, attention and relations remain those of the recipe's.
        linear_probe: Start a new output layer from the one that fits the labels best, as 'finetune' does.
        cache_teacher: Keep on disk, as float16, what is imitated inside the teacher: no epoch after the first and no
            second student then costs a pass of the teacher. A layer takes 2 bytes per number; logits are always kept.
    """

    training: TrainingConfig = group(default=TrainingConfig())
    layerwise: LayerDistillationConfig = group(default=LayerDistillationConfig())
    answers: AnswerDistillationConfig = group(default=AnswerDistillationConfig())
    match: Annotated[tuple[Match, ...], MinLen(1)] = ("logits",)
    intermediate_epochs: Annotated[float, Ge(0), Le(100_000)] = 0.0
    intermediate_learning_rate: Annotated[float, Gt(0), Le(100)] = 5e-5
    teachers: tuple[str, ...] = ()
    linear_probe: bool = True
    cache_teacher: bool = False

    def apply(self, candidate: Candidate, context: RunContext) -> Iterator[Candidate]:
        """Yield the candidate with trained weights."""
        from accelerate.utils import set_seed

        from limbeck.teachers.opening import open_teachers
        from limbeck.train.distillation import INTERMEDIATE, teacher_outputs, two_phases
        from limbeck.train.finetuning import needs_probe, target_scale, train_on_task
        from limbeck.train.objectives import Weighted
        from limbeck.train.vector_width import match_width

        if context.teacher is None:
            raise InputError(f"distill {NO_TEACHER}")
        teacher, key = context.teacher.open(), context.teacher.key
        set_seed(context.seed)  # projections are drawn here, before the loop seeds itself
        if candidate.task.task_kind.vectors:
            match_width(candidate.model, teacher.model, context.log)
        terms = self.answers.terms(candidate, self.match)
        if isinstance(teacher.model, AnswerSource):
            limits = AnswersOnly(context.teacher.key, "of its kind", probabilities=teacher.model.probabilities)
            if problems := self.teacher_problems(limits):
                raise InputError(f"distill: {problems[0]}")
        else:
            match, note = self.layerwise.comparable(self.match, candidate, teacher)
            if note:
                context.log(note)
            terms |= self.layerwise.terms(match, candidate, teacher, "distill")
        phases: list[tuple[str, TrainingConfig, Terms]] = [("", self.training, terms)]
        if self.intermediate_epochs:
            rate = self.intermediate_learning_rate
            phases = list(two_phases(terms, LAYERS, self.training, self.intermediate_epochs, rate))
        outputs = []
        for _, _, used in phases:  # all of them before any training: the step may end here, and begin again
            further = tuple(open_teachers(self.teachers, candidate.task)) if "logits" in used else ()
            given = partial(teacher_outputs, used, candidate, teacher, key, context)
            outputs.append(given(further=further, cache=self.cache_teacher))
        scale, probe = target_scale(candidate.task), self.linear_probe and needs_probe(candidate)
        for (phase, plan, used), source in zip(phases, outputs, strict=True):
            new = probe and phase != INTERMEDIATE
            train_on_task(candidate, Weighted(used, source), plan, context, phase, scale=scale, linear_probe=new)
        yield replace(candidate, folder=None)

    def work_on(
        self, pieces: Sequence[Piece], shared: Mapping[str, Any], candidate: Candidate, context: RunContext
    ) -> Iterator[Result]:
        """Keep answers of the teachers."""
        from limbeck.teachers.opening import open_teachers
        from limbeck.train.distillation import work_on

        assert context.teacher is not None  # the step has handed out the pieces
        teachers = [(context.teacher.key, context.teacher.open()), *open_teachers(self.teachers, candidate.task)]
        yield from work_on(pieces, candidate, teachers, context.keep)

    def teacher_problems(self, teacher: AnswersOnly) -> list[str]:
        """Return why the step cannot learn from a teacher that only gives answers."""
        return answers_only_problems(teacher, self.match, self.answers.logits_loss)

    def trait_problems(self, traits: AbstractSet[str]) -> list[str]:
        """Return what cannot be imitated as the student leaves tokens behind, or as it does not."""
        return token_problems(self.match, traits)

    def kind_problems(self, kind: TaskKind) -> dict[str, str]:
        """Return why the labels of a kind of task cannot be weighted, or what cannot be kept of its rows."""
        problems = self.answers.kind_problems(kind)
        if kind.vectors and self.cache_teacher:
            problems["cache_teacher"] = "keeps what a teacher has inside for single texts, and rows may be pairs here"
        if kind.vectors and self.teachers:
            problems["teachers"] = "have no vectors in common that could be averaged; give one 'teacher'"
        return problems

    def label_problems(self, kind: TaskKind) -> dict[str, str]:
        """Return that the labels cannot have a weight where there are none."""
        return self.answers.label_problems()

    def marks(self, traits: AbstractSet[str]) -> Mapping[str, Any]:
        """Mark results of students that leave tokens behind."""
        return state_marks(self.match, traits)

    def problems(self) -> list[str]:
        """Return the conflicts between fields."""
        problems, inside = [], set(self.match) & set(LAYERS)
        if self.intermediate_epochs and not (inside and ("logits" in self.match or self.answers.task_weight)):
            problems.append(
                "intermediate_epochs: has one phase for the inside of the teacher and one for logits or labels, "
                f"got match: [{', '.join(self.match)}]"
            )
        if self.cache_teacher and not inside:
            problems.append(f"cache_teacher: is for what is imitated inside the teacher, got match: {list(self.match)}")
        if self.teachers and "logits" not in self.match:
            problems.append(f"teachers: their logits are averaged, so match needs logits, got {list(self.match)}")
        problems += unused_weights(self, self.match)
        if not self.intermediate_epochs:
            problems += without_effect(self, ("intermediate_learning_rate",), "without intermediate_epochs")
        return problems

    def file_problems(self) -> list[str]:
        """Return the problems of the further teachers."""
        if not self.teachers:
            return []
        from limbeck.teachers.opening import name_problems

        return name_problems(self.teachers, "teachers")

    def estimated_seconds(self, shape: Shape, rows: Mapping[str, int], tokens: float) -> float:
        """Estimate the time of both phases."""
        both = replace(self.training, num_train_epochs=self.intermediate_epochs + self.training.num_train_epochs)
        return both.estimated_seconds(shape, rows, tokens)

    def teacher_texts(self, rows: Mapping[str, int]) -> float:
        """Return the texts that the teacher reads: once where its answers are kept, else in every epoch."""
        once = self.cache_teacher or not set(self.match) & set(LAYERS)
        epochs = self.intermediate_epochs + self.training.num_train_epochs
        return rows.get("train", 0) * (1 if once else epochs)
