"""Steps, a model and a task that take no time: enough to see what the engine does. Not a test."""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Gt, Le

from limbeck.core.combination import Combination, Pair
from limbeck.core.goal import TechniqueWithGoal
from limbeck.core.measurement import Measurement
from limbeck.core.shape import Shape
from limbeck.core.step import REGISTRY, Choice, Probe, StepInfo, Technique, step
from limbeck.core.task import Split, Task
from limbeck.engine.store.store import Store

PRESETS = {"long": {"epochs": 9, "terms": ["a", "b"]}, "fancy": {"kind": "fancy"}}
LABELS = ("down", "up")
CALLS = "TOY_CALLS"  # environment variable: a file that counts what was really done


def called(what: str) -> None:
    if path := os.environ.get(CALLS):
        with open(path, "a", encoding="utf-8") as stream:
            stream.write(f"{what}\n")


@dataclass
class ToyModel:
    weights: list[float]
    ffn: int = 8
    runtime: str = "torch"
    fresh_head: bool = False
    untrained: str = ""
    int8: bool = False
    space: None = None
    leaves_early: bool = False

    @property
    def shape(self) -> Shape:
        return Shape.uniform(layers=1, hidden=4, heads=1, ffn=self.ffn)


def ToyTask(rows: Sequence[str] = ("good", "bad"), name: str = "toy") -> Task:
    labels = tuple(number % 2 for number in range(len(rows)))
    return Task(name, "classification", {"train": Split(tuple(rows), labels)}, LABELS, "accuracy")


def rows_of(task: Task) -> tuple[str, ...]:
    return task.split("train").texts


open_task = Task.from_folder


def save(model: ToyModel, tokenizer: Any, folder: Path) -> None:
    data = {"model_type": "bert", "hidden_size": 4, "num_hidden_layers": 1, "num_attention_heads": 1}
    data |= {"intermediate_size": model.ffn, "max_position_embeddings": 512, "vocab_size": 9, "type_vocab_size": 2}
    data |= {"weights": model.weights, "toy_runtime": model.runtime}
    data["id2label"] = dict(enumerate(LABELS))
    data["architectures"] = [] if model.fresh_head else ["BertForSequenceClassification"]
    (folder / "config.json").write_text(json.dumps(data))


def open_model(source: str | Path, *, task: Any = None, seed: int = 0) -> tuple[ToyModel, str]:
    called(f"open {Path(source).name}")
    data = json.loads((Path(source) / "config.json").read_text())
    opened = ToyModel(data["weights"], data["intermediate_size"], data["toy_runtime"])
    opened.fresh_head = data["architectures"] == [] and task is not None
    return opened, "tokenizer"


def store(root: Path) -> Store:
    return Store(root, save=save, open_model=open_model, open_task=open_task)


def model_folder(path: Path, weights: Sequence[float] = (1.0, 2.0), fresh_head: bool = False) -> str:
    path.mkdir(parents=True, exist_ok=True)
    save(ToyModel(list(weights), fresh_head=fresh_head), None, path)
    return str(path)


@dataclass(frozen=True)
class Rate:
    start: float = 0.1
    end: float = 0.0


class ToyTrain(Technique):
    """Add to the weights, one epoch after the other, with a checkpoint after each."""

    epochs: Annotated[int, Gt(0)] = 2
    by: float = 1.0
    rate: Rate = field(default_factory=Rate)
    kind: Literal["plain", "fancy"] = "plain"
    terms: tuple[str, ...] = ("logits",)

    def apply(self, candidate: Any, context: Any) -> Iterable[Any]:
        state = context.scratch / "state.json"
        begin, weights = 0, candidate.model.weights
        if state.exists():
            begin, weights = json.loads(state.read_text())
        for epoch in range(begin, self.epochs):
            called(f"epoch {self.by} {epoch}")
            context.log("", step=epoch + 1, total=self.epochs)
            time.sleep(float(os.environ.get("TOY_SLOW", "0")))
            weights = [weight + self.by + context.seed for weight in weights]
            temporary = state.with_suffix(".tmp")
            temporary.write_text(json.dumps([epoch + 1, weights]))
            temporary.replace(state)
        context.log(f"trained {self.epochs} epochs")
        candidate.model.weights = weights
        yield candidate

    def estimated_seconds(self, shape: Shape, rows: Any, tokens: float) -> float:
        return 7.0 * rows["train"]


class ToyPrune(TechniqueWithGoal):
    """Narrow the model."""

    keep: Annotated[float, Gt(0), Le(1)] = 0.5

    def apply(self, candidate: Any, context: Any) -> Iterable[Any]:
        called(f"prune {self.keep}")
        candidate.model.ffn = int(candidate.model.ffn * self.keep)
        yield candidate

    def shape_after(self, shape: Shape) -> Shape:
        return shape.with_layer(0, ffn=int(shape.layers[0].ffn * self.keep))

    def out_of_reach(self, candidate: Any, context: Any, earlier: Sequence[Any] = ()) -> str | None:
        return None


class ToyLevels(Technique):
    """Several children of one candidate."""

    ffn: tuple[int, ...] = (4, 2)
    goal: bool = False
    criterion: str = "obs"

    def goal_target(self) -> str | None:
        return "" if self.goal else None

    def apply(self, candidate: Any, context: Any) -> Iterable[Any]:
        for level in self.ffn:
            called(f"level {level}")
            foretold = Measurement("latency_predicted", level / 1e3, "s")
            yield replace(candidate, model=ToyModel(list(candidate.model.weights), level), facts=(foretold,))


class ToyExport(Technique):
    """Another runtime; no training after it."""

    def apply(self, candidate: Any, context: Any) -> Iterable[Any]:
        yield replace(candidate, model=replace(candidate.model, runtime="onnxruntime"))


class ToyAugment(Technique):
    """More rows."""

    def apply(self, candidate: Any, context: Any) -> Iterable[Any]:
        yield replace(candidate, task=ToyTask((*rows_of(candidate.task), "more")))


class ToyImitate(Technique):
    """Take the teacher's weights, once they were written to a kept folder."""

    def apply(self, candidate: Any, context: Any) -> Iterable[Any]:
        teacher = context.teacher

        def build(folder: Path) -> None:
            called("teacher opened")
            (folder / "weights.json").write_text(json.dumps(list(teacher.open().model.weights)))

        folder = context.keep(f"toy/{teacher.key}", build)
        candidate.model.weights = json.loads((folder / "weights.json").read_text())
        yield candidate


class ToyBreak(Technique):
    """Fail on some candidates."""

    below: int = 0
    rude: bool = True

    def apply(self, candidate: Any, context: Any) -> Iterable[Any]:
        from limbeck.errors import InputError

        if candidate.model.ffn < self.below:
            raise RuntimeError("too thin") if self.rude else InputError("too thin; choose more")
        yield candidate


class ToyPair(Combination):
    """Add the weights and the width of the thinnest candidate to those of the widest."""

    by: float = 1.0
    partner: str = ""

    def pairs(self, candidates: Sequence[Any], context: Any) -> list[Pair]:
        called("pairs")
        ordered = sorted(candidates, key=lambda candidate: candidate.record.shape.layers[0].ffn)
        if len(ordered) < 2:
            context.log("no pair")
            return []
        return [Pair(ordered[-1].key, ordered[0].key)]

    def apply(self, candidate: Any, context: Any) -> Iterable[Any]:
        called(f"pair {candidate.model.ffn}")
        other = context.partner.open().model
        both = zip(candidate.model.weights, other.weights, strict=True)
        candidate.model.weights = [weight + self.by * more for weight, more in both]
        candidate.model.ffn += other.ffn
        yield candidate

    def estimated_seconds(self, shape: Shape, rows: Any, tokens: float) -> float:
        return 3.0


class ToySneak(Technique):
    """Use a service that it does not declare."""

    def apply(self, candidate: Any, context: Any) -> Iterable[Any]:
        candidate.model.weights = [context.seed]
        yield candidate


class ToyCost(Technique):
    """Ask what a shape costs."""

    def apply(self, candidate: Any, context: Any) -> Iterable[Any]:
        candidate.model.weights = [context.cost.for_format("int8")(candidate.model.shape).value]
        yield candidate


class ToyGoal(Technique):
    """Take the latency on a target for a weight."""

    target: str | None = None

    def goal_target(self) -> str:
        return self.target or ""

    def apply(self, candidate: Any, context: Any) -> Iterable[Any]:
        cost = context.cost.for_format("int8")(candidate.model.shape).value
        candidate.model.weights = [cost, float(context.target.threads)]
        yield candidate


class ToyShare(Technique):
    """Add what pieces of work find, in rounds that follow from each other; some pieces keep a folder."""

    rounds: int = 2
    parts: int = 5
    broken: int = -1
    kept: bool = False

    def apply(self, candidate: Any, context: Any) -> Iterable[Any]:
        total = 0.0
        for number in range(self.rounds):
            pieces = [{"round": number, "part": part, "from": total} for part in range(self.parts)]
            if self.kept:
                pieces = [{**piece, "keeps": f"toy-{number}-{piece['part']}-{total}"} for piece in pieces]
            if context.spread is None:
                results = list(self.work_on(pieces, {"by": 2.0}, candidate, context))
            else:
                results = context.spread(pieces, {"by": 2.0})
            total += sum(each["value"] for each in results)
            if self.kept:
                total += sum(float(self._kept(piece, context).read_text()) for piece in pieces)
            context.log(f"round {number}: {total}")
        candidate.model.weights = [weight + total for weight in candidate.model.weights]
        yield candidate

    def work_on(self, pieces: Sequence[Any], shared: Any, candidate: Any, context: Any) -> Iterable[Any]:
        for piece in pieces:
            called(f"piece {piece['round']} {piece['part']}")
            if piece["part"] == self.broken:
                raise RuntimeError("a part is broken")
            if self.kept:
                self._kept(piece, context)
            yield {"value": (piece["part"] + piece["from"]) * shared["by"] + sum(candidate.model.weights)}

    def _kept(self, piece: Any, context: Any) -> Path:
        def build(folder: Path) -> None:
            called(f"kept {piece['keeps']}")
            (folder / "value").write_text(str(piece["part"] / 4))

        return context.keep(piece["keeps"], build) / "value"


class ToyQuality(Probe):
    """Sum of the weights."""

    refuse: int = -1
    split: str = "train"

    def required_splits(self) -> tuple[str, ...]:
        return (self.split,)

    def measure(self, candidates: Sequence[Any], context: Any) -> Iterable[tuple[int, Measurement]]:
        for number, candidate in enumerate(candidates):
            called(f"quality {candidate.model.ffn}")
            if candidate.model.ffn == self.refuse:
                raise RuntimeError("cannot be measured")
            yield number, Measurement("quality", sum(candidate.model.weights), "1", split="validation")


class ToyAnswers(Probe):
    """Sum of the weights, computed once and kept."""

    def prepares(self, kind: Any, target: Any) -> bool:
        return True

    def work_on(self, pieces: Sequence[Any], shared: Any, candidate: Any, context: Any) -> Iterable[Any]:
        for _ in pieces:
            yield {"value": self._answer(candidate, context)}

    def measure(self, candidates: Sequence[Any], context: Any) -> Iterable[tuple[int, Measurement]]:
        for number, candidate in enumerate(candidates):
            yield number, Measurement("answers", self._answer(candidate, context), "1", split="validation")

    def _answer(self, candidate: Any, context: Any) -> float:
        def build(folder: Path) -> None:
            called(f"answers {candidate.folder.name} in {os.getpid()}")
            (folder / "value").write_text(str(sum(candidate.model.weights)))

        return float((context.keep(f"answers-{candidate.folder.name}", build) / "value").read_text())


class ToyClock(Probe):
    """Time of a group, beside the teacher."""

    def measure(self, candidates: Sequence[Any], context: Any) -> Iterable[tuple[int, Measurement]]:
        called(f"clock {len(candidates)}")
        session = uuid.uuid4().hex
        for number, candidate in enumerate(candidates):
            seconds = candidate.model.ffn / 1e3 / context.target.threads
            yield number, Measurement("latency_p50", seconds, "s", detail={"session": session})


class ToyBest(Choice):
    """The thinnest."""

    def choose(self, records: Sequence[Any], context: Any) -> Sequence[Any]:
        return sorted(records, key=lambda record: record.shape.layers[0].ffn)[:1]


class ToyWithin(Choice):
    """The widest whose latency is in the budget, or the thinnest."""

    def choose(self, records: Sequence[Any], context: Any) -> Sequence[Any]:
        limit = (context.budget.latency_ms or 1e9) / 1e3
        within = [record for record in records if record.fact("latency_p50").value <= limit]
        if not within:
            return sorted(records, key=lambda record: record.shape.layers[0].ffn)[:1]
        return sorted(within, key=lambda record: -record.shape.layers[0].ffn)[:1]


class ToyFaster(Choice):
    """Those that are in the budget."""

    def choose(self, records: Sequence[Any], context: Any) -> Sequence[Any]:
        limit = (context.budget.latency_ms or 1e9) / 1e3
        return [record for record in records if record.fact("latency_p50").value <= limit] or records[:1]


class ToyFront(Choice):
    """The first ones."""

    count: int = 2

    def choose(self, records: Sequence[Any], context: Any) -> Sequence[Any]:
        return records[: self.count]


def _step_classes() -> dict[str, type]:
    training = {"reads": {"seed"}, "trains": True, "keeps_shape": True, "presets": PRESETS}
    step(StepInfo("toy-train", needs={"torch"}, gives={"teacher"}, **training))(ToyTrain)
    step(StepInfo("toy-prune", needs={"torch"}, sizes={"keep"}))(ToyPrune)
    step(StepInfo("toy-levels", needs={"torch"}, sizes={"ffn"}))(ToyLevels)
    step(StepInfo("toy-export", needs={"torch"}, gives={"onnx"}, drops={"torch"}, keeps_shape=True))(ToyExport)
    step(StepInfo("toy-augment"))(ToyAugment)
    step(StepInfo("toy-imitate", needs={"torch", "teacher"}, reads={"teacher"}))(ToyImitate)
    step(StepInfo("toy-break"))(ToyBreak)
    step(StepInfo("toy-share", needs={"torch"}))(ToyShare)
    step(StepInfo("toy-pair", reads={"partner", "target"}))(ToyPair)
    step(StepInfo("toy-sneak"))(ToySneak)
    step(StepInfo("toy-cost", reads={"cost"}))(ToyCost)
    step(StepInfo("toy-quality"))(ToyQuality)
    step(StepInfo("toy-answers"))(ToyAnswers)
    step(StepInfo("toy-clock", reads={"target", "teacher"}, with_teacher=True, group=True, machine_bound=True))(
        ToyClock
    )
    step(StepInfo("toy-goal", reads={"target", "cost"}, neutral={"target"}))(ToyGoal)
    step(StepInfo("toy-within", reads={"budget"}, final=True))(ToyWithin)
    step(StepInfo("toy-faster", reads={"budget"}))(ToyFaster)
    step(StepInfo("toy-best", final=True))(ToyBest)
    step(StepInfo("toy-front"))(ToyFront)
    return {name: REGISTRY.pop(name) for name in list(REGISTRY) if REGISTRY[name].__module__ == __name__}


TOYS = _step_classes()
