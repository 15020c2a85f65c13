"""Plan the recipe that ``compress`` runs: from a model, a task, a target and a budget to steps.

The one module of the engine that names techniques: a plan is made of their step objects.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import median
from typing import Any

from limbeck.core.analytic_cost import NumberFormat
from limbeck.core.decision import DecisionGoal
from limbeck.core.field_groups import changed
from limbeck.core.shape import Shape
from limbeck.core.step import Step
from limbeck.core.target import Budget, Target
from limbeck.core.task import Task
from limbeck.core.task_kind import TaskKind
from limbeck.core.token_schedule import schedule_problem
from limbeck.engine.planning.compress_request import CompressRequest, Effort, Strategy
from limbeck.engine.planning.training_options import loss_of
from limbeck.engine.store.store import Store
from limbeck.engine.tasks.task_adaptation import fit
from limbeck.errors import InputError
from limbeck.measure.decision import DecisionProbe
from limbeck.measure.latency import Latency
from limbeck.measure.memory import Size
from limbeck.measure.portability import Portability
from limbeck.measure.quality import Quality
from limbeck.measure.throughput import Throughput
from limbeck.recipe.recipe import Fork, Recipe
from limbeck.techniques.cascade import Cascade
from limbeck.techniques.distill import Distill
from limbeck.techniques.export import Export
from limbeck.techniques.finetune import Finetune
from limbeck.techniques.linearize import Linearize
from limbeck.techniques.prune import Prune
from limbeck.techniques.prune_tokens import PruneTokens
from limbeck.techniques.quantize import Mode, Quantize
from limbeck.techniques.search import Search
from limbeck.techniques.selection import Best, Cheapest
from limbeck.techniques.supernet import Supernet
from limbeck.techniques.vocabulary import Vocabulary
from limbeck.train.config import TrainingConfig
from limbeck.train.supernet_config import SupernetConfig

EPOCHS: dict[str, tuple[float, float]] = {"one-shot": (3, 0), "quick": (2, 2), "standard": (3, 3), "thorough": (3, 6)}
"""Epochs of fine-tuning and of distillation; a super-network is trained for as many as a distillation.

In one shot nothing is trained after the fine-tuning: only second-order pruning and its repair. A whole front takes
minutes and shows where a longer search would start."""

GOALS: dict[str, tuple[float, ...]] = {
    "one-shot": (0.95, 0.8, 0.65, 0.5),
    "quick": (0.9,),
    "standard": (0.92, 0.7),
    "thorough": (0.95, 0.8, 0.65, 0.5),
}
"""Latency of the pruned candidates as fractions of the budget; below 1, as the latency table errs by some per cent."""

SPEEDUPS: dict[str, tuple[float, ...]] = {
    "one-shot": (1.5, 2.0, 3.0, 4.0, 6.0, 8.0),
    "quick": (2.0, 3.0),
    "standard": (2.0, 3.0, 4.0),
    "thorough": (1.5, 2.0, 3.0, 4.0, 6.0),
}
"""Speed-ups of the smaller candidates over the whole model when the budget names no latency."""

BOUNDS: dict[str, tuple[float, ...]] = {"quick": (1.0,), "standard": (1.0, 0.75), "thorough": (1.0, 0.85, 0.7, 0.55)}
"""Latency of the searched candidates as fractions of the budget: a search allows for its cost model's error itself."""

SEARCHES: dict[str, Search] = {
    "quick": Search.of(population=15, generations=3, samples=500),
    "standard": Search.of(population=25, generations=4, samples=1000),
    "thorough": Search.of(population=40, generations=8, winners=2),
}
"""How long to search, on how many texts slices are scored, and how many winners of each bound are trained further."""

PARTS = {"layers": 3, "heads": 6, "ffn": 12}
"""A super-network's smallest slice has this fraction (1/3, 1/6, 1/12) of the whole. Hidden width stays, as in pruning:
a latency table then suffices, which takes half a minute to measure, and narrow embeddings would need a corpus."""

LONG = 128
"""Median tokens of a task's texts from which on models that read fewer of them are tried."""
FEWER_TOKENS = PruneTokens.of(keep=0.45, allocation="learned")
"""How such models are made. On BBC news, at 400 tokens, half the time is left, with equal accuracy."""

FFN_STEP = 32
LEARNING_RATE = 5e-5
"""Of every training after the fine-tuning."""

QUANTIZATIONS: dict[str, tuple[tuple[Mode, bool], ...]] = {
    "one-shot": (("dynamic", False),),
    "quick": (("dynamic", False),),
    "standard": (("dynamic", False), ("static", False)),
    "thorough": (("dynamic", False), ("dynamic", True), ("static", False), ("static", True)),
}
"""Modes of INT8 that are tried, each without or with smoothing of the activations."""

Steps = tuple[Step | Fork, ...]


class Planner:
    """Plans the recipe that :func:`limbeck.compress` runs; it can be printed, edited and run again.

    A model that already answers the task is taken as it is and becomes the teacher; any other is fine-tuned first.
    """

    def __init__(self, model: str, task: Task, request: CompressRequest, store: Store | None = None) -> None:
        """Read the model's configuration, once for all plans.

        Args:
            model: A folder, a hub name or 'minilm-l6'.
            task: The task.
            request: What to plan for.
            store: Where the check of an assumed order of labels is kept.

        Raises:
            InputError: The model cannot be trained, or strategy and effort do not fit it.
        """
        from limbeck.measure.samples import lengths_of
        from limbeck.model.checkpoints import peek, peek_style

        request.check()
        description = peek(model)
        if description["runtime"] != "torch":
            raise InputError(
                f"'{model}' is an exported model, which cannot be trained; give the folder it was made from"
            )
        fitted = fit(model, task, store)
        self.model, self.task, self.request = model, task, request
        self.shape: Shape = description["shape"]
        self.ready = fitted is not None and fitted.answers
        if task.task_kind.vectors and task.answered_by is None:  # any encoder has hidden states to pool
            self.ready = self.ready and description["vectors"]
        self.fewer_tokens = (
            median(lengths_of(task, description["vector_length" if task.task_kind.vectors else "max_length"])) >= LONG
            and self.shape.depth >= 4  # of fewer layers too little is left
            and schedule_problem(self.shape, peek_style(model)) is None
            and FEWER_TOKENS.gates.problem_of(self.shape) is None
        )
        self.may_linearize = request.effort != "one-shot" and not Linearize().task_problems(task)

    @property
    def needs_whole(self) -> bool:
        """Whether the latency of the whole model decides which candidates are planned."""
        return self.request.effort == "one-shot" and self.request.budget.latency_ms is not None

    def recipe(
        self,
        spec: str | Mapping[str, Any],
        target: Target,
        linear: str | None = None,
        whole_ms: float | None = None,
    ) -> Recipe:
        """Return the recipe for a target.

        Args:
            spec: What the recipe says of its task: a name, a path or a mapping.
            target: What will serve.
            linear: An attention core that is faster than softmax for these texts here (see ``faster_core``): one
                branch converts the model to it, and one prunes the result.
            whole_ms: Predicted latency of the whole model in INT8, where :attr:`needs_whole`: goals that it meets
                would make the same model again, and are left out.
        """
        request, task = self.request, self.task
        effort, training = request.effort, request.training
        shared = training.shared(task, EPOCHS[effort][1])
        taught = request.teacher is not None
        parts = (request.budget, target, request.strategy, effort, shared, taught, request.profile, whole_ms)
        limited = request.max_minutes is not None
        plan = _CandidatePlan(self.model, self.shape, *parts, limited=limited, fewer_tokens=self.fewer_tokens)
        first: Steps = () if self.ready else (self._finetune(),)
        if taught:
            first = (*first, plan.distill)
        return Recipe(
            model=self.model,
            task=spec,
            steps=(*first, plan.candidates(linear), *plan.measurements(task, request.decision)),
            target=target,
            budget=request.budget,
            seed=request.seed,
            teacher=request.teacher or (self.model if self.ready else None),
            replicas=request.replicas,
            name=request.name,
            allow_weak_teacher=request.allow_weak_teacher,
            max_minutes=request.max_minutes,
        )

    def _finetune(self) -> Finetune:
        training = self.request.training
        config = training.finetune(self.task, EPOCHS[self.request.effort][0])
        return changed(Finetune(training=config, class_weights=training.class_weights), **loss_of(self.task))


@dataclass(frozen=True)
class _CandidatePlan:
    """The parts of a recipe; ``shared`` is what all trainings after the fine-tuning have in common.

    ``taught``: the teacher is not the compressed model, so only its answers are imitated. ``limited``: the run has a
    limit of time, so what needs no training comes first, and every stage is served before the next one begins.
    ``fewer_tokens``: texts are so long that models that read fewer of their tokens are tried.
    """

    model: str
    shape: Shape
    budget: Budget
    target: Target
    strategy: Strategy
    effort: Effort
    shared: TrainingConfig
    taught: bool = False
    profile: str | None = None
    whole_ms: float | None = None
    limited: bool = False
    fewer_tokens: bool = False

    def candidates(self, linear: str | None) -> Fork:
        """Return the branches: the teacher as it is, exported, in INT8, and every smaller model in INT8."""
        if self.target.on_gpu:
            return self._in_float(linear)
        served = self._int8()
        return Fork(((), served[:1], served, *self._smaller(linear, served)))

    def _in_float(self, linear: str | None) -> Fork:
        """Return the branches for a GPU, where INT8 graphs do not run: exports in the target's precision."""
        fused = self.target.runtime != "tensorrt"
        whole, half = Export(fused=fused), self.target.precision == "float16"
        export = Export(fused=fused, precision="float16") if half else whole
        return Fork(((), (whole,), *([(export,)] if half else []), *self._smaller(linear, (export,))))

    def measurements(self, task: Task, decision: DecisionGoal | None = None) -> Steps:
        """Return the probes of all candidates, the choice, and what is fitted and checked for the chosen one.

        Args:
            task: The task.
            decision: What thresholds and a temperature are fitted for.
        """
        split = "test" if "test" in task.splits else "validation"
        quality = (Quality(split="validation"), *([Quality(split="test")] if split == "test" else []))
        indexed = (Throughput.of(split=split),) if task.task_kind.vectors else ()  # documents come in batches
        timed = (
            Latency.for_p99(split, self.target) if self.budget.latency_statistic == "p99" else Latency.of(split=split)
        )
        measured: Steps = (Size(split=split), *quality, timed, *indexed)
        cascades: Steps = (Cascade(), *measured) if self._pairs(task.task_kind) else ()
        choice = Best() if self.budget.latency_ms or self.budget.size_mb else Cheapest()
        fitted = () if decision is None else (DecisionProbe(goal=decision, split=split),)
        portable = () if self.target.on_gpu else (Portability(),)
        return (*measured, *cascades, choice, *fitted, *portable)

    def _pairs(self, kind: TaskKind) -> bool:
        """Return whether cascades are tried: they need no training, but all candidates are timed once more.

        Args:
            kind: The kind of task.
        """
        wanted = self.budget.latency_statistic == "mean" or (self.effort == "thorough" and not self.limited)
        served = self.target.runtime == "onnxruntime" and not self.target.on_gpu
        cascade = Cascade()
        return wanted and served and not (cascade.kind_problems(kind) or cascade.target_problems(self.target, ()))

    @property
    def _training(self) -> TrainingConfig:
        """Return the hyper-parameters of every training after the fine-tuning."""
        return replace(self.shared, num_train_epochs=float(EPOCHS[self.effort][1]), learning_rate=LEARNING_RATE)

    @property
    def distill(self) -> Distill:
        """Return the training of every model that learns from the teacher."""
        return Distill(training=self._training, match=("logits",) if self.taught else ("logits", "hidden"))

    def _smaller(self, linear: str | None, served: Steps) -> list[Steps]:
        """Return the ways to smaller models, each from the fine-tuned one.

        Args:
            linear: See :meth:`Planner.recipe`.
            served: The steps that each of them ends with.
        """
        goals, others = self._goals()
        if self.budget.size_mb:  # most bytes of a small model are its words
            first = tuple(goals[:1]) if self.budget.latency_ms else others[0]
            others.append((Vocabulary(), *first))
        others += self._token_steps(goals)
        if self.effort == "one-shot":  # one pass serves every goal
            return [(*steps, *served) for steps in [*((goal,) for goal in goals), *others]]
        branches: list[Steps] = []
        if self.strategy != "search":
            relative = goals if self.budget.latency_ms else self._relative(goals)
            family = [(goal, self.distill) for goal in relative]
            if self.limited:
                branches += [(goal, *served) for goal in (goals if self.taught else relative)]
            branches.append(stages(family, served) if self.limited else (*stages(family), *served))
            branches += [(*steps, self.distill, *served) for steps in others]
        if self.strategy != "prune":
            branches.append((*self._search(), self.distill, *served))
        if linear is not None:
            convert = Linearize(training=self._training, attention=(linear,))
            branches.append((convert, Fork(((), (goals[0], self.distill))), *served))
        return branches

    def _token_steps(self, goals: Sequence[Prune]) -> list[Steps]:
        """Return the ways with fewer tokens: alone, and pruned to the first goal."""
        served = self.target.runtime == "onnxruntime" and not self.target.on_gpu and self.profile is None
        if not self.fewer_tokens or not served:
            return []
        return [(FEWER_TOKENS,), *((FEWER_TOKENS, goal) for goal in goals[:1])]

    def _relative(self, goals: Sequence[Prune]) -> list[Prune]:
        """Return the goals of one family, cut in stages, so that speed-ups are those over the whole model."""
        if not self.taught:
            return [replace(goal, pruning=replace(goal.pruning, relative_to="teacher")) for goal in goals]
        speedups = (1.0, *SPEEDUPS[self.effort])
        return [self._faster(speedup=round(after / before, 4)) for before, after in pairwise(speedups)]

    def _goals(self) -> tuple[list[Prune], list[Steps]]:
        """Return the prunings of one family, the weakest first, and other ways to prune.

        With all layers, even empty ones, a tight latency may be out of reach, so half of them are tried, too.
        """
        budget, depth = self.budget, self.shape.depth
        if budget.latency_ms:
            values = [round(fraction * budget.latency_ms, 4) for fraction in GOALS[self.effort]]
            half: Steps = (self._faster(latency_ms=values[0], layers=depth // 2),)
            cutting = [value for value in values if self.whole_ms is None or value < self.whole_ms]
            return [self._faster(latency_ms=value) for value in cutting], [half] * (depth >= 4)
        size = {} if budget.size_mb is None else {"size_mb": round(0.98 * budget.size_mb, 4)}
        small: list[Steps] = [(Prune.of(**size, number_format=self._format),)] if size else []
        return [self._faster(speedup=speedup) for speedup in SPEEDUPS[self.effort]], small

    def _faster(self, **goal: float) -> Prune:
        """Return a pruning to a goal in latency, on the machine that counts."""
        return Prune.of(**goal, profile=self.profile, number_format=self._format)

    @property
    def _format(self) -> NumberFormat:
        return "float" if self.target.on_gpu else "int8"

    def _search(self) -> Steps:
        """Return the super-network of the fine-tuned model, and one search for each bound."""
        shape, budget = self.shape, self.budget
        if len(set(shape.layers)) != 1:
            raise InputError(
                f"strategy: a search needs a model whose layers are alike, but '{self.model}' is {shape}; use 'prune'"
            )
        whole = {"layers": shape.depth, "heads": shape.layers[0].heads, "ffn": shape.layers[0].ffn}
        least = {name: -(-most // PARTS[name]) for name, most in whole.items()}
        least["ffn"] = min(-(-least["ffn"] // FFN_STEP) * FFN_STEP, whole["ffn"])
        if not all(least.values()):
            raise InputError(f"strategy: '{self.model}' is {shape}, which leaves nothing to search; use 'prune'")
        ranges = {name: (least[name], most) for name, most in whole.items()}
        slices = SupernetConfig(
            layers=ranges["layers"], heads=ranges["heads"], ffn=ranges["ffn"], per_layer=True, ffn_step=FFN_STEP
        )
        evaluations = Supernet.training.evaluations_per_epoch
        supernet = Supernet(training=replace(self._training, evaluations_per_epoch=evaluations), slices=slices)
        search = changed(SEARCHES[self.effort], number_format=self._format, at_least=0.7, profile=self.profile)
        if budget.latency_ms:
            values = [round(fraction * budget.latency_ms, 4) for fraction in BOUNDS[self.effort]]
            searches = [changed(search, latency_ms=value) for value in values]
        else:
            searches = [changed(search, speedup=speedup) for speedup in SPEEDUPS[self.effort]]
        return (supernet, Fork(tuple((each,) for each in searches)))

    def _int8(self) -> Steps:
        """Return export and quantization. OpenVINO reads only standard operators, and INT8 only with static ranges."""
        openvino = self.target.runtime == "openvino"
        modes = QUANTIZATIONS[self.effort]
        if openvino:
            modes = tuple(dict.fromkeys(("static", smooth) for _, smooth in modes))
        max_drop = None if self.budget.max_drop is None else round(self.budget.max_drop / 2, 4)
        quantizations = [Quantize(mode=mode, smooth=smooth, max_drop=max_drop) for mode, smooth in modes]
        if self.effort in ("one-shot", "quick") and not openvino:
            return Export(), quantizations[0]
        return Export(fused=not openvino), Fork(tuple((each,) for each in quantizations))


def stages(steps: Sequence[Steps], served: Steps = ()) -> Steps:
    """Return the steps one stage after another; the result of every stage continues, as with ``stages`` in a recipe.

    Args:
        steps: The steps of each stage.
        served: Steps that the result of each stage goes through before the next stage begins, beside that one.
    """
    placed: Steps = ()
    for stage in reversed(steps):
        placed = (*stage, Fork((served, placed))) if placed else (*stage, *served)
    return placed
