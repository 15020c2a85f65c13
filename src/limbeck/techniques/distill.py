"""Teach a student to imitate its teacher: logits, hidden states, attention, relations, in any mixture.

References: Hinton et al., 2015, arXiv:1503.02531 (logits); Jiao et al., 2020, arXiv:1909.10351 (TinyBERT: hidden
states and attention); Wang et al., 2021, arXiv:2012.15828 (MiniLMv2: relations). Differs: all losses leave padding
out; terms share one forward pass; the teacher's logits are computed once and kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge, Gt, MinLen

from limbeck.core.candidate import Candidate
from limbeck.core.step import Lab, step
from limbeck.errors import InputError
from limbeck.train.imitate import Imitation, same_tokens

Match = Literal["logits", "hidden", "attention", "relations"]


@step("distill", needs={"torch", "teacher"}, reads={"seed", "teacher"}, version=2)
class Distill(Imitation):
    """Train the candidate to imitate its fine-tuned, unpruned ancestor.

    Attributes:
        match: What to imitate; each has a weight of its own.
        temperature: Softens both distributions of the logits.
        logits_weight: Weight of the logits.
        task_weight: Weight of the task's own loss on the labels.
        logits_loss: How logits are compared.
    """

    match: Annotated[tuple[Match, ...], MinLen(1)] = ("logits",)
    temperature: Annotated[float, Gt(0)] = 2.0
    logits_weight: Annotated[float, Ge(0)] = 1.0
    task_weight: Annotated[float, Ge(0)] = 0.0
    logits_loss: Literal["kl", "soft_cross_entropy", "mse"] = "kl"

    example: ClassVar[dict[str, Any]] = {"num_train_epochs": 1, "match": ["logits", "hidden"], "task_weight": 0.5}

    def apply(self, candidate: Candidate, lab: Lab) -> Iterator[Candidate]:
        """Yield the candidate with trained weights."""
        from accelerate.utils import set_seed

        from limbeck.train.objectives import LiveTeacher, Weighted
        from limbeck.train.task import train_on_task

        if lab.teacher is None:
            raise InputError("distill has no teacher; put 'finetune' before it or name one with 'teacher: MODEL'")
        teacher = lab.teacher.open()
        set_seed(lab.seed)  # projections are drawn here, before the loop seeds itself
        terms = self.terms(candidate, teacher)
        live = any(term.taps for _, term in terms.values()) or candidate.task.kind == "tokens"
        if live and not same_tokens(candidate, teacher):
            raise InputError(
                "distill: the teacher has another vocabulary than the student, so it cannot read the same tokens; "
                "use match: [logits] on a task of whole texts"
            )
        logits = None
        if not live:
            logits = self.cached_logits(candidate, teacher, lab)
        objective = Weighted(terms, LiveTeacher(teacher.model.eval(), logits))
        train_on_task(candidate, objective, self, lab)
        yield replace(candidate, folder=None)

    def terms(self, candidate: Candidate, teacher: Candidate) -> dict[str, tuple[float, Any]]:
        """Weighted terms of the loss."""
        from limbeck.train.objectives import LogitLoss, TaskLoss

        found: dict[str, tuple[float, Any]] = {}
        if self.task_weight:
            found["task"] = (self.task_weight, TaskLoss(candidate.model.loss))
        if "logits" in self.match:
            kind = LogitLoss(self.logits_loss, self.temperature, candidate.task.problem_type)
            found["logits"] = (self.logits_weight, kind)
        return found | self.layer_terms(self.match, candidate, teacher)

    def cached_logits(self, candidate: Candidate, teacher: Candidate, lab: Lab) -> Any:
        """The teacher's logits on the training split [examples, classes]."""
        import numpy as np

        from limbeck.data.arrays import kept_arrays
        from limbeck.data.batches import encode, predict

        task = candidate.task
        name = f"logits-{lab.teacher.key}-{task.fingerprint}-train"  # type: ignore[union-attr]
        encoded = encode(task, "train", teacher.tokenizer)
        made = kept_arrays(lab.keep, name, lambda: {"logits": np.asarray(predict(teacher.model, encoded, 64))})
        return made["logits"]
