"""Teach a student to imitate its teacher: logits, hidden states, attention, relations, in any mixture.

References: Hinton et al., 2015, arXiv:1503.02531 (logits); Jiao et al., 2020, arXiv:1909.10351 (TinyBERT: hidden
states and attention); Wang et al., 2021, arXiv:2012.15828 (MiniLMv2: relations). Differs: all losses leave padding
out; terms share one forward pass; the teacher's logits are computed once and kept. Presets: 'tinybert' learns the
inside of the teacher first and its answers then; 'patient' is Sun et al., 2019, arXiv:1908.09355, whose normalised
distance of hidden states is the cosine here, over all tokens and not the first alone; 'minilm' adds the answers to
MiniLMv2's relations; 'fastformers' compares logits as the code of Kim and Hassan, 2020, arXiv:2010.13382, does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, get_args

from annotated_types import Ge, Gt, MinLen

from limbeck.core.candidate import Candidate
from limbeck.core.step import Lab, step
from limbeck.errors import InputError
from limbeck.train.imitate import Imitation, Layers, same_tokens

if TYPE_CHECKING:
    from limbeck.core.shape import Shape

Match = Literal["logits", "hidden", "attention", "relations"]
LAYERS = get_args(Layers)
Terms = dict[str, tuple[float, Any]]


@step("distill", needs={"torch", "teacher"}, reads={"seed", "teacher"}, version=2)
class Distill(Imitation):
    """Train the candidate to imitate its fine-tuned, unpruned ancestor.

    Attributes:
        match: What to imitate; each has a weight of its own.
        temperature: Softens both distributions of the logits.
        logits_weight: Weight of the logits.
        task_weight: Weight of the task's own loss on the labels.
        logits_loss: How logits are compared.
        intermediate_epochs: Passes of a first phase that learns the inside of the teacher alone; the second then learns
            answers alone. 0 learns all together.
        intermediate_learning_rate: The highest learning rate of the first phase.
    """

    match: Annotated[tuple[Match, ...], MinLen(1)] = ("logits",)
    temperature: Annotated[float, Gt(0)] = 2.0
    logits_weight: Annotated[float, Ge(0)] = 1.0
    task_weight: Annotated[float, Ge(0)] = 0.0
    logits_loss: Literal["kl", "soft_cross_entropy", "mse"] = "kl"
    intermediate_epochs: Annotated[float, Ge(0)] = 0.0
    intermediate_learning_rate: Annotated[float, Gt(0)] = 5e-5

    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "tinybert": {
            "match": ["logits", "hidden", "attention"],
            "intermediate_epochs": 20,
            "num_train_epochs": 3,
            "learning_rate": 3e-5,
            "logits_loss": "soft_cross_entropy",
            "temperature": 1.0,
            "shared_projection": True,
        },
        "fastformers": {"logits_loss": "mse", "per_device_train_batch_size": 64},
        "minilm": {"match": ["logits", "relations"]},
        "patient": {
            "match": ["logits", "hidden"],
            "hidden_loss": "cosine",
            "temperature": 5.0,
            "logits_weight": 0.5,
            "task_weight": 0.5,
        },
    }

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
        for phase, plan, terms in self.phases(self.terms(candidate, teacher)):
            live = any(term.taps for _, term in terms.values()) or candidate.task.kind == "tokens"
            if live and not same_tokens(candidate, teacher):
                raise InputError(
                    "distill: the teacher has another vocabulary than the student, so it cannot read the same tokens; "
                    "use match: [logits] on a task of whole texts"
                )
            logits = None if live else self.cached_logits(candidate, teacher, lab)
            objective = Weighted(terms, LiveTeacher(teacher.model.eval(), logits))
            train_on_task(candidate, objective, plan, lab, phase)
        yield replace(candidate, folder=None)

    def problems(self) -> list[str]:
        """What fields contradict each other."""
        if self.intermediate_epochs and not (
            set(self.match) - {"logits"} and ("logits" in self.match or self.task_weight)
        ):
            return [
                "intermediate_epochs: has one phase for hidden, attention or relations and one for logits or labels, "
                f"got match: [{', '.join(self.match)}]"
            ]
        return []

    def estimate(self, shape: Shape, rows: Mapping[str, int], tokens: float) -> float:
        """Rough seconds of both phases."""
        first = replace(self, num_train_epochs=self.intermediate_epochs + self.num_train_epochs)
        return Imitation.estimate(first, shape, rows, tokens)

    def phases(self, terms: Terms) -> Iterator[tuple[str, Distill, Terms]]:
        """Name, plan and terms of each training."""
        if not self.intermediate_epochs:
            yield "", self, terms
            return
        inside = {name: term for name, term in terms.items() if name in LAYERS}
        first = replace(
            self,
            num_train_epochs=self.intermediate_epochs,
            learning_rate=self.intermediate_learning_rate,
            evaluations_per_epoch=0,  # the answers do not change sensibly before the second phase
        )
        yield "intermediate", first, inside
        yield "prediction", self, {name: term for name, term in terms.items() if name not in LAYERS}

    def terms(self, candidate: Candidate, teacher: Candidate) -> Terms:
        """Weighted terms of the loss."""
        from limbeck.train.objectives import LogitLoss, TaskLoss

        found: Terms = {}
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
