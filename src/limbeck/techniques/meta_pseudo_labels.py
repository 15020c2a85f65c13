"""Train a student on the labels of a teacher that gets feedback at every step on how its labels changed the student.

Reference: Pham et al., 2021, arXiv:2003.10580 (Meta Pseudo Labels). Differs: the feedback is by default the exact
gradient of the student's loss on labeled texts after its step (a forward-mode pass, for soft labels), where the paper
weights the gradient for hard labels by what the step gained (preset 'paper'); AdamW and clipping are part of that
gradient; the teacher has been fine-tuned before; there is no UDA loss. ``train/meta_pseudo_labels.py`` has the
mathematics.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from annotated_types import Ge, Gt, Le, Lt

from limbeck.core.candidate import Candidate
from limbeck.core.field_groups import group, without_effect
from limbeck.core.step import NO_TEACHER, RunContext, Technique, step
from limbeck.errors import InputError
from limbeck.train.config import META_PASSES, NO_LABELS, PASSES, TRAINING, TrainingConfig
from limbeck.train.layer_distillation import check_vocabulary

if TYPE_CHECKING:
    from limbeck.core.shape import Shape
    from limbeck.core.task import Task
    from limbeck.core.task_kind import TaskKind
    from limbeck.train import meta_pseudo_labels as pseudo


@step(
    replace(
        TRAINING,
        name="meta_pseudo_labels",
        label="taught by pseudo labels",
        version=2,
        needs={"torch", "teacher"},
        reads={"seed", "teacher"},
        files=frozenset({"unlabelled"}),
        presets={
            "paper": {"feedback": "reinforce", "pseudo_labels": "sampled"},
            "teacher-finetune": {"feedback": "off", "teacher_learning_rate": 5e-5, "teacher_weight_decay": 0.01},
        },
        example={"num_train_epochs": 2, "learning_rate": 1e-3, "labelled_batch_size": 8, "teacher_learning_rate": 1e-4},
    )
)
class MetaPseudoLabels(Technique):
    """Train the candidate on its teacher's labels while the teacher learns which labels help it; then on true labels.

    The teacher's copy is trained beside the student, on labeled texts and on the feedback, and is discarded at the
    end. The fields of training are the student's; schedule, warm-up and clipping hold for both.

    Attributes:
        training: How the student is trained.
        feedback: What reaches the teacher (exact gradient, the paper's estimate of it, or nothing but labels).
        pseudo_labels: Labels that the teacher gives (its probabilities, a draw from them, or the likeliest class).
        feedback_weight: Weight of the feedback beside the teacher's loss on labels; one step changes little, so the
            feedback's gradient is usually some percent of that of the labels, or less.
        feedback_warmup_steps: Steps at the beginning in which the teacher learns from labels alone.
        feedback_average: Decay of the moving average that is taken off the paper's estimate; 0 takes nothing off.
        teacher_learning_rate: The highest learning rate of the teacher.
        teacher_weight_decay: AdamW's for the teacher, on matrices alone.
        labelled_batch_size: Labeled texts in each step.
        unlabelled: File of texts without labels (one a line, or a table); the train split's texts, augmented ones too,
            unless given.
        unlabelled_columns: Column of the table with the texts, two for pairs; by customary names unless given.
        finetune_epochs: Passes over the labeled texts at the end; 0 leaves that out.
        finetune_learning_rate: The highest learning rate of these.
    """

    training: TrainingConfig = group(default=TrainingConfig())
    feedback: Literal["exact", "reinforce", "off"] = "exact"
    pseudo_labels: Literal["soft", "sampled", "argmax"] = "soft"
    feedback_weight: Annotated[float, Ge(0), Le(1_000_000)] = 1.0
    feedback_warmup_steps: Annotated[int, Ge(0)] = 0
    feedback_average: Annotated[float, Ge(0), Lt(1)] = 0.0
    teacher_learning_rate: Annotated[float, Gt(0), Le(100)] = 1e-5
    teacher_weight_decay: Annotated[float, Ge(0), Le(100)] = 0.01
    labelled_batch_size: Annotated[int, Ge(1), Le(100_000)] = 32
    unlabelled: str | None = None
    unlabelled_columns: tuple[str, ...] = ()
    finetune_epochs: Annotated[float, Ge(0), Le(100_000)] = 1.0
    finetune_learning_rate: Annotated[float, Gt(0), Le(100)] = 2e-5

    def problems(self) -> list[str]:
        """Return the conflicts between fields."""
        problems = []
        if self.feedback == "reinforce" and self.pseudo_labels == "soft":
            problems.append(
                "feedback 'reinforce' of soft labels is nothing; set pseudo_labels: sampled, or feedback: exact"
            )
        if self.feedback_average and self.feedback != "reinforce":
            problems.append(f"feedback_average belongs to feedback 'reinforce', got '{self.feedback}'")
        if self.training.gradient_accumulation_steps > 1:
            problems.append("the teacher follows every batch, so gradient_accumulation_steps should be 1")
        if self.feedback == "off":
            problems += without_effect(self, ("feedback_weight", "feedback_warmup_steps"), "with feedback: off")
        if not self.finetune_epochs:
            problems += without_effect(self, ("finetune_learning_rate",), "with finetune_epochs: 0")
        if self.unlabelled is None:
            problems += without_effect(self, ("unlabelled_columns",), "without a file: unlabelled")
        return problems

    def kind_problems(self, kind: TaskKind) -> dict[str, str]:
        """Return that vectors are no labels, or the field that asks for hard labels where answers are numbers."""
        if kind.vectors:
            return {"": "its teacher gives labels or numbers, and answers are vectors here; use 'distill'"}
        name = "feedback" if self.feedback == "reinforce" else "pseudo_labels"
        hard = kind.numeric and (name == "feedback" or self.pseudo_labels != "soft")
        return {name: "a number has no hard labels; use pseudo_labels: soft, feedback: exact"} if hard else {}

    def label_problems(self, kind: TaskKind) -> dict[str, str]:
        """Return that the teacher gets no feedback without labels."""
        return {"": f"{NO_LABELS}, by which its teacher is judged; use 'distill'"}

    def file_problems(self) -> list[str]:
        """Return the problems of the text file and of the number of processes."""
        from limbeck.data.unlabeled import check_texts
        from limbeck.distributed import context as processes

        if processes.count() > 1:
            return [f"trains two models in turn, which one process alone can; {processes.count()} were started"]
        if self.unlabelled is not None:
            try:
                check_texts(Path(self.unlabelled))
            except InputError as error:
                return [f"unlabelled: {error}"]
        return []

    def estimated_seconds(self, shape: Shape, rows: Mapping[str, int], tokens: float) -> float:
        """Return rough seconds: both trainings; the texts of a file are taken to be as many as the train split's.

        Args:
            shape: Shape of the model.
            rows: Rows of the task, by split.
            tokens: Tokens of a typical text.
        """
        last = replace(self.training, num_train_epochs=self.finetune_epochs)
        first = self.training.estimated_seconds(shape, rows, tokens, META_PASSES)
        return first + PASSES / META_PASSES * last.estimated_seconds(shape, rows, tokens, META_PASSES)

    def apply(self, candidate: Candidate, context: RunContext) -> Iterator[Candidate]:
        """Yield the candidate with trained weights."""
        from limbeck.data.unlabeled import divided
        from limbeck.train.finetuning import finetune_if_better, train_on_task

        teacher = self.teacher(candidate, context)
        file = Path(self.unlabelled) if self.unlabelled is not None else None
        labeled, unlabeled = divided(candidate.task, file, self.unlabelled_columns)
        source = f"; {unlabeled.notes[-1]}" if self.unlabelled else ""
        rows = [len(task.split("train")) for task in (labeled, unlabeled)]
        context.log(f"{rows[0]} texts with labels, {rows[1]} for pseudo labels{source}")
        objective = self.objective(candidate, teacher, labeled, context.seed)
        first = train_on_task(replace(candidate, task=unlabeled), objective, self.training, context, "pseudo")
        if self.finetune_epochs:
            rate = self.finetune_learning_rate
            plan = replace(self.training, num_train_epochs=self.finetune_epochs, learning_rate=rate)
            finetune_if_better(replace(candidate, task=labeled), plan, context, "labels", first.best_score)
        yield replace(candidate, folder=None)

    def teacher(self, candidate: Candidate, context: RunContext) -> Candidate:
        """Return a copy of the teacher after checking that it can teach this student in this way."""
        if context.teacher is None:
            raise InputError(f"meta_pseudo_labels {NO_TEACHER}")
        for name, reason in self.kind_problems(candidate.task.task_kind).items():
            raise InputError(f"meta_pseudo_labels.{name}: {reason}")
        teacher = context.teacher.open()
        check_vocabulary(candidate, teacher, "meta_pseudo_labels", "; use 'distill' with match: [logits]")
        return teacher

    def objective(self, candidate: Candidate, teacher: Candidate, labeled: Task, seed: int) -> pseudo.MetaPseudoLabels:
        """Return the objective with both losses of a step.

        Args:
            candidate: The candidate that the step works on.
            teacher: The model to imitate.
            labeled: The task with its labeled rows.
            seed: Decides everything random.
        """
        from limbeck.data.batching import encode
        from limbeck.train import meta_pseudo_labels as pseudo

        rate, decay = self.teacher_learning_rate, self.teacher_weight_decay
        return pseudo.MetaPseudoLabels(
            teacher.model,
            replace(self.training, learning_rate=rate, weight_decay=decay),
            pseudo.LabeledBatches(encode(labeled, "train", candidate.tokenizer), self.labelled_batch_size, seed),
            candidate.task.problem_type,
            feedback=self.feedback,
            labels=self.pseudo_labels,
            weight=self.feedback_weight,
            warmup_steps=self.feedback_warmup_steps,
            average=self.feedback_average,
        )
