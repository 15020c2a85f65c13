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
from limbeck.train.plan import Plan

Match = Literal["logits", "hidden", "attention", "relations"]


@step("distill", needs={"torch", "teacher"}, reads={"seed", "teacher"}, version=2)
class Distill(Plan):
    """Train the candidate to imitate its fine-tuned, unpruned ancestor.

    Attributes:
        match: What to imitate; each has a weight of its own.
        temperature: Softens both distributions of the logits.
        logits_weight: Weight of the logits.
        task_weight: Weight of the task's own loss on the labels.
        hidden_weight: Weight of the hidden states.
        attention_weight: Weight of the attention scores.
        relations_weight: Weight of the relations.
        logits_loss: How logits are compared.
        hidden_loss: How hidden states are compared.
        attention_loss: How attention scores are compared.
        layer_map: Which teacher layer each student layer imitates.
        relation_heads: Into how many heads relations are split; the student's number of heads unless given.
        shared_projection: One projection for all layers when widths differ, as TinyBERT has it.
    """

    match: Annotated[tuple[Match, ...], MinLen(1)] = ("logits",)
    temperature: Annotated[float, Gt(0)] = 2.0
    logits_weight: Annotated[float, Ge(0)] = 1.0
    task_weight: Annotated[float, Ge(0)] = 0.0
    hidden_weight: Annotated[float, Ge(0)] = 1.0
    attention_weight: Annotated[float, Ge(0)] = 1.0
    relations_weight: Annotated[float, Ge(0)] = 1.0
    logits_loss: Literal["kl", "soft_cross_entropy", "mse"] = "kl"
    hidden_loss: Literal["mse", "cosine"] = "mse"
    attention_loss: Literal["mse", "cosine"] = "mse"
    layer_map: Literal["uniform", "last_of_block", "top", "bottom", "dynamic"] = "uniform"
    relation_heads: Annotated[int, Ge(1)] | None = None
    shared_projection: bool = False

    passes: ClassVar[float] = 4.0  # the teacher's forward pass comes on top

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
        if live and candidate.tokenizer.get_vocab() != teacher.tokenizer.get_vocab():
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
        for name in ("hidden", "attention", "relations"):
            if name in self.match:
                found[name] = (getattr(self, f"{name}_weight"), getattr(self, f"_{name}")(candidate, teacher))
        return found

    def _depths(self, candidate: Candidate, teacher: Candidate) -> tuple[int, int]:
        depths = (candidate.model.shape.depth, teacher.model.shape.depth)
        if depths[0] > depths[1]:
            raise InputError(f"distill: the student has {depths[0]} layers, more than its teacher's {depths[1]}")
        return depths

    def _hidden(self, candidate: Candidate, teacher: Candidate) -> Any:
        from limbeck.train.objectives import HiddenLoss

        widths = (candidate.model.shape.hidden, teacher.model.shape.hidden)
        depths = self._depths(candidate, teacher)
        return HiddenLoss(self.hidden_loss, self.layer_map, depths, widths, self.shared_projection)

    def _attention(self, candidate: Candidate, teacher: Candidate) -> Any:
        from limbeck.train.objectives import AttentionLoss

        mine = {layer.heads for layer in candidate.model.shape.layers}
        theirs = {layer.heads for layer in teacher.model.shape.layers}
        if mine != theirs or len(mine) > 1:
            raise InputError(
                f"distill: match 'attention' needs equally many heads, but the student has {sorted(mine)} and the "
                f"teacher {sorted(theirs)}; use match 'relations', which works for any widths"
            )
        mapping = "uniform" if self.layer_map == "dynamic" else self.layer_map
        return AttentionLoss(self.attention_loss, mapping, self._depths(candidate, teacher))

    def _relations(self, candidate: Candidate, teacher: Candidate) -> Any:
        from limbeck.train.objectives import RelationLoss

        sides = (candidate.model.shape, teacher.model.shape)
        last = [max(i for i, layer in enumerate(shape.layers) if layer.heads) for shape in sides]
        widths = [shape.layers[i].heads * shape.head_dim for shape, i in zip(sides, last, strict=True)]
        heads = self.relation_heads or sides[0].layers[last[0]].heads
        for side, width in zip(("student", "teacher"), widths, strict=True):
            if width % heads:
                valid = [n for n in range(1, min(widths) + 1) if not any(w % n for w in widths)]
                near = min(valid, key=lambda n: abs(n - heads))
                raise InputError(
                    f"distill.relation_heads: {heads} does not divide the {side}'s attention width {width}; use {near}"
                )
        return RelationLoss(heads, last[0], last[1])

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
