"""Train a super-network: one model whose slices of many shapes all answer the task.

References: DynaBERT (Hou et al., 2020, arXiv:2004.04037): heads and neurons sorted by importance, then distilled at
several widths and depths; AutoTinyBERT (Yin et al., 2021, arXiv:2107.13686) and Bigger&Faster (arXiv:2209.12127): one
random slice a step imitates a frozen teacher. Differs: any mixture of both, on the task's own texts and those that
``augment`` made; slices are leading parts of the weights, computed without copies; hidden channels are sorted too.

    steps:
      - finetune: {}
      - supernet: {layers: [2, 6], hidden: [128, 384], heads: [2, 12], ffn: [128, 1536]}
      - search: {}
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from annotated_types import Ge, Gt, MinLen

from limbeck.core.candidate import Candidate
from limbeck.core.shape import Shape
from limbeck.core.space import Range, Space
from limbeck.core.step import Lab, step
from limbeck.errors import InputError
from limbeck.train.plan import Plan

if TYPE_CHECKING:
    from limbeck.train.elastic import Rule

RANGES = ("layers", "hidden", "heads", "ffn", "head_dim")
LOWEST = {"layers": 3, "hidden": 3, "heads": 3, "ffn": 6}  #: parts of the whole that slices go down to by default
Bounds = tuple[Annotated[int, Ge(0)], Annotated[int, Ge(0)]]


@step("supernet", needs={"torch", "teacher"}, gives={"elastic"}, reads={"seed", "teacher"})
class Supernet(Plan):
    """Train the candidate so that its slices of all shapes of a space are good models; 'search' chooses among them.

    A range that is not given stays at the candidate's own value; without any, depth, hidden width and heads go down to
    a third of it and neurons to a sixth. The weights after the last step are kept.

    Attributes:
        layers: Fewest and most layers; slices keep the first.
        hidden: Least and greatest width of the hidden states.
        heads: Fewest and most heads in a layer.
        ffn: Fewest and most feed-forward neurons in a layer.
        head_dim: Least and greatest width of a head.
        hidden_step: Widths of the hidden states are this far apart.
        ffn_step: Numbers of neurons are this far apart.
        head_dim_step: Widths of a head are this far apart.
        per_layer: Every layer has its own numbers of heads and neurons; else all layers have the same.
        rule: Slices of a step (the largest, the smallest and some between; or some drawn, nothing else).
        samples: Slices that are drawn in each step.
        in_place: All but the largest slice learn the answers of the largest, not the teacher's (sandwich).
        match: What is imitated: answers, last hidden states, relations of the last attention.
        temperature: Softens both distributions of the logits.
        logits_weight: Weight of the logits.
        hidden_weight: Weight of the hidden states.
        relations_weight: Weight of the relations.
        task_weight: Weight of the task's own loss on the labels.
        sort: Heads, neurons and channels are put in order of importance first.
        sort_samples: Training texts by which importance is judged.
    """

    layers: Bounds | None = None
    hidden: Bounds | None = None
    heads: Bounds | None = None
    ffn: Bounds | None = None
    head_dim: Bounds | None = None
    hidden_step: Annotated[int, Ge(1)] = 16
    ffn_step: Annotated[int, Ge(1)] = 32
    head_dim_step: Annotated[int, Ge(1)] = 4
    per_layer: bool = False
    rule: Literal["sandwich", "single"] = "sandwich"
    samples: Annotated[int, Ge(1)] = 2
    in_place: bool = False
    match: Annotated[tuple[Literal["logits", "hidden", "relations"], ...], MinLen(1)] = ("logits", "hidden")
    temperature: Annotated[float, Gt(0)] = 2.0
    logits_weight: Annotated[float, Ge(0)] = 1.0
    hidden_weight: Annotated[float, Ge(0)] = 1.0
    relations_weight: Annotated[float, Ge(0)] = 1.0
    task_weight: Annotated[float, Ge(0)] = 0.0
    sort: bool = True
    sort_samples: Annotated[int, Ge(1)] = 1024

    evaluations_per_epoch: Annotated[int, Ge(0)] = 0  # the best moment of one slice is not that of the others

    passes: ClassVar[float] = 6.0  # slices are smaller, but a step trains several, and the teacher answers once

    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "autotinybert": {
            "rule": "single",
            "samples": 1,
            "match": ["logits", "hidden", "relations"],  # the paper has no logits, and no task at this point
            "num_train_epochs": 5,
        },
        "dynabert": {"rule": "sandwich", "in_place": True, "match": ["logits", "hidden"]},
    }

    example: ClassVar[dict[str, Any]] = {
        "num_train_epochs": 1,
        "learning_rate": 1e-3,
        "layers": (1, 2),
        "hidden": (16, 32),
        "heads": (1, 4),
        "ffn": (32, 64),
        "samples": 1,
        "match": ("logits", "hidden", "relations"),
    }

    def problems(self) -> list[str]:
        """What fields contradict each other."""
        found = []
        for name in RANGES:
            bounds = getattr(self, name)
            if bounds is not None and bounds[0] > bounds[1]:
                found.append(f"{name}: the first should be the lower, got {list(bounds)}")
        if self.in_place and self.rule != "sandwich":
            found.append("in_place: the largest slice teaches the others, so it needs rule: sandwich")
        if self.in_place and "logits" not in self.match:
            found.append("in_place: the largest slice teaches by its logits; add logits to match")
        return found

    def estimate(self, shape: Shape, rows: Mapping[str, int], tokens: float) -> float:
        """Rough seconds: a slice has about half the work of the whole."""
        slices = self.samples * 0.5 + (1.2 if self.rule == "sandwich" else 0.0)
        return slices * Plan.estimate(self, shape, rows, tokens) * Plan.passes / self.passes * 1.3

    def space(self, shape: Shape) -> Space:
        """The space of slices of a model; an error if the model is too small for it."""
        heads, ffn = max(row.heads for row in shape.layers), max(row.ffn for row in shape.layers)
        own = {"layers": shape.depth, "hidden": shape.hidden, "heads": heads, "ffn": ffn, "head_dim": shape.head_dim}
        steps = {"hidden": self.hidden_step, "ffn": self.ffn_step, "head_dim": self.head_dim_step}
        ranges, free = {}, all(getattr(self, name) is None for name in RANGES)
        for name, most in own.items():
            step = steps.get(name, 1)
            lowest = max(1, -(-most // LOWEST[name] // step) * step) if free and name in LOWEST else most
            low, high = getattr(self, name) or (min(lowest, most), most)
            if high > most:
                raise InputError(f"supernet.{name}: the model has {most}, got {high}; use at most {most}")
            if low < 1:
                raise InputError(f"supernet.{name}: should be at least 1, got {low}")
            ranges[name] = Range(low, high, step)
        return Space(**ranges, per_layer=self.per_layer)

    def apply(self, candidate: Candidate, lab: Lab) -> Iterator[Candidate]:
        """Yield the super-network; its configuration says of which space."""
        from accelerate.utils import set_seed

        from limbeck.model.extract import extract
        from limbeck.train.elastic import Elastic
        from limbeck.train.objectives import LiveTeacher
        from limbeck.train.task import train_on_task

        if problems := self.problems():
            raise InputError(f"supernet: {problems[0]}")
        if lab.teacher is None:
            raise InputError("supernet has no teacher; put 'finetune' before it or name one with 'teacher: MODEL'")
        teacher = lab.teacher.open()
        if candidate.tokenizer.get_vocab() != teacher.tokenizer.get_vocab():
            raise InputError("supernet: the teacher has another vocabulary than the candidate")
        space = self.space(candidate.model.shape)
        if self.sort:
            self.sorted(candidate, space, lab.seed)
        model = extract(candidate.model, space.largest)
        lab.log(f"{space.size:,} slices, from {space.smallest} to {space.largest}")
        set_seed(lab.seed)  # the projection is drawn here, before the loop seeds itself
        candidate = replace(candidate, model=model, folder=None)
        terms = self.terms(candidate, teacher, space)
        rule: Rule = self.rule
        objective = Elastic(
            terms, LiveTeacher(teacher.model.eval()), space, rule, self.samples, self.in_place, lab.seed
        )
        train_on_task(candidate, objective, self, lab)
        model.config.space = space.to_json()
        yield candidate

    def sorted(self, candidate: Candidate, space: Space, seed: int) -> None:
        """Put heads, neurons and, where their number varies, channels in order of importance."""
        from limbeck.data.batches import collate, encode, length_batches
        from limbeck.data.task import choose
        from limbeck.model.criteria import CRITERIA
        from limbeck.model.extract import channel_scores, sort_channels, sort_parts

        encoded = encode(candidate.task, "train", candidate.tokenizer)
        rows = choose(encoded.labels, min(self.sort_samples, len(encoded)), seed, stratified=False)
        lengths = encoded.lengths[rows]
        batches = [collate(encoded, [rows[i] for i in part]) for part in length_batches(lengths, 32)]
        sort_parts(candidate.model, CRITERIA["fisher"](candidate.model, batches))
        if space.hidden.low < space.hidden.high:
            sort_channels(candidate.model, channel_scores(candidate.model))

    def terms(self, candidate: Candidate, teacher: Candidate, space: Space) -> dict[str, tuple[float, Any]]:
        """Weighted terms of the loss of a slice."""
        from limbeck.train.elastic import LastHidden
        from limbeck.train.imitate import most_heads
        from limbeck.train.objectives import LogitLoss, RelationLoss, TaskLoss

        theirs = teacher.model.shape
        found: dict[str, tuple[float, Any]] = {}
        if self.task_weight:
            found["task"] = (self.task_weight, TaskLoss(candidate.model.loss))
        if "logits" in self.match:
            found["logits"] = (self.logits_weight, LogitLoss("kl", self.temperature, candidate.task.problem_type))
        if "hidden" in self.match:
            found["hidden"] = (self.hidden_weight, LastHidden(space.hidden.high, theirs.hidden, theirs.depth))
        if "relations" in self.match:
            last = max(index for index, layer in enumerate(theirs.layers) if layer.heads)
            heads = most_heads(theirs.layers[last].heads * theirs.head_dim, *space.head_dim)
            found["relations"] = (self.relations_weight, RelationLoss(heads, -1, last))
        return found
