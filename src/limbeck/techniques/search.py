"""Choose shapes of a super-network: the most accurate slices that meet a latency, or a front of accuracy and latency.

References: AutoTinyBERT (Yin et al., 2021, arXiv:2107.13686): random, rule-based and evolutionary search near a latency
bound; Bigger&Faster / SpeedLimit (arXiv:2209.12127): with INT8, the slice is quantized before it is judged, and its
INT8 latency counts, because larger quantized models then win; NSGA-II (Deb et al., 2002, doi:10.1109/4235.996017), see
``search/nsga2.py``. Differs: latency comes from a model that was measured on the target and states its error, and a
shape fits only if its latency is below the bound with that error; the winners come out as candidates, to be distilled
further, quantized and measured themselves, with their predicted latency beside.

    steps:
      - finetune: {}
      - supernet: {}
      - search: {latency_ms: 1.0, number_format: int8, winners: 3}
      - distill: {match: [logits, hidden]}
      - export: {}
      - quantize: {}
      - latency: {}
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated, Literal

from annotated_types import Ge, Gt, Le

from limbeck.core.bound import Bound
from limbeck.core.candidate import Candidate
from limbeck.core.measurement import Measurement, machine
from limbeck.core.shape import Shape
from limbeck.core.step import RunContext, Step, StepInfo, Technique, content, step
from limbeck.errors import InputError, MissingExtra
from limbeck.search.bounded_space import BoundedSpace, amount, trained_space
from limbeck.train.config import forward_seconds

if TYPE_CHECKING:
    from limbeck.core.search_space import Space
    from limbeck.core.target import Budget
    from limbeck.search.strategies import StudyFile
    from limbeck.search.subnet_scores import SliceScores


@step(
    StepInfo(
        "search",
        label="searched",
        version=2,
        needs={"torch", "elastic"},
        drops={"elastic"},
        reads={"seed", "target", "budget", "cost"},
        files=frozenset({"profile"}),
        neutral=frozenset({"workers"}),
        presets={
            "autotinybert": {"number_format": "float", "at_least": 0.85, "at_most": 1.1, "sure": False},
            "bigger-and-faster": {"number_format": "int8", "at_least": 0.85, "at_most": 1.1, "sure": False},
        },
        example={
            "keep": 0.7,
            "cost": "macs",
            "at_least": 0.2,
            "population": 4,
            "generations": 2,
            "winners": 2,
            "samples": 16,
        },
    )
)
class Search(Technique):
    """Search the space of a super-network, and give the best slices as models of their own.

    At most one bound: ``latency_ms``, ``speedup`` (over the largest slice), or ``keep`` (fraction of its cost); without
    any, the latency of the recipe's budget. ``nsga2`` needs no bound: then its front spans all of the space.

    Attributes:
        method: How shapes are found (evolution; drawn at random; drawn at random among those that keep AutoTinyBERT's
            rule of thumb; nsga2 for a front of the metric against the cost, which needs the extra 'search').
        latency_ms: Most that a call may take on the target.
        speedup: Times as fast as the largest slice, by the model of latency.
        keep: Most of the largest slice's cost.
        cost: What is bounded: latency, measured on the target, or multiply-accumulates.
        profile: Latency data of another machine, made there by 'limbeck profile --full': latency is that machine's.
        number_format: What serves: slices are judged, and their latency is stated, in this format.
        at_least: Shapes below this share of the bound are not judged: they leave too much of it unused. 0.85 unless
            given; 0 for nsga2, whose front has faster shapes too.
        at_most: Shapes above this share of the bound are not judged.
        sure: A shape fits only if the upper end of its latency's 95 % interval is below the bound.
        population: Shapes in a generation.
        generations: Generations; of random searches, populations that are drawn in all.
        explore: Share of a generation that is drawn from the whole space (evolution).
        mutation: Chance of every value of a child to change.
        winners: Models that come out, the best first; of nsga2 those that together span the most of the front.
        split: Where slices are judged.
        samples: Texts that slices are judged on; all of the split unless given.
        workers: Processes of this machine that judge slices, each with one thread; the result is the same.
        storage: Where nsga2 keeps what it knows, so that other processes and machines can join in, and later searches
            go on: a file that all of them see, or the URL of a database (sqlite:///…); a file of its own unless given.
        study_name: Name of the search in the storage; one made from what is searched unless given.
    """

    method: Literal["evolution", "random", "rule", "nsga2"] = "evolution"
    latency_ms: Annotated[float, Gt(0), Le(10_000_000)] | None = None
    speedup: Annotated[float, Gt(0), Le(1_000)] | None = None
    keep: Annotated[float, Gt(0), Le(1)] | None = None
    cost: Literal["latency", "macs"] = "latency"
    profile: str | None = None
    number_format: Literal["int8", "float"] = "int8"
    at_least: Annotated[float, Ge(0), Le(1)] | None = None
    at_most: Annotated[float, Gt(0), Le(1_000)] = 1.0
    sure: bool = True
    population: Annotated[int, Ge(1), Le(100_000)] = 25
    generations: Annotated[int, Ge(1), Le(100_000)] = 4
    explore: Annotated[float, Ge(0), Le(1)] = 0.5
    mutation: Annotated[float, Ge(0), Le(0.5)] = 0.25
    winners: Annotated[int, Ge(1), Le(10_000)] = 1
    split: str = "validation"
    samples: Annotated[int, Ge(1)] | None = None
    workers: Annotated[int, Ge(1), Le(1_024)] = 1
    storage: str | None = None
    study_name: str | None = None

    def problems(self) -> list[str]:
        """Return the conflicts between fields."""
        problems = []
        if len(self.bound.given) > 1:
            problems.append(f"give one bound, got {', '.join(self.bound.given)}")
        if self.cost == "macs" and self.latency_ms is not None:
            problems.append("latency_ms needs cost: latency, got cost: macs")
        if self.cost == "macs" and self.profile is not None:
            problems.append("profile needs cost: latency, got cost: macs")
        if self.least >= self.at_most:
            problems.append(f"at_least should be below at_most, got {self.least:g} and {self.at_most:g}")
        if self.method == "nsga2" and self.population < 2:
            problems.append(f"population should be at least 2 for method: nsga2, got {self.population}")
        if self.storage is not None and self.method != "nsga2":
            problems.append(f"storage needs method: nsga2, got method: {self.method}")
        if self.study_name is not None and self.storage is None:
            problems.append("study_name needs a storage")
        return problems

    @property
    def bound(self) -> Bound:
        """The bound that the fields give."""
        return Bound(self.latency_ms, self.speedup, self.keep)

    @property
    def least(self) -> float:
        """``at_least``, or what stands for it."""
        return self.at_least if self.at_least is not None else 0.0 if self.method == "nsga2" else 0.85

    def file_problems(self) -> list[str]:
        """Return the problems of the latency data file, the storage and missing packages."""
        from limbeck.cost_models.predictor_file import file_problems

        problems = file_problems(self.profile, self.number_format)
        if self.method == "nsga2" and find_spec("optuna") is None:
            problems.append(f"method: {MissingExtra('optuna', 'search')}")
        elif self.storage is not None:
            from limbeck.search.nsga2 import unusable

            problems += unusable(self.storage)
        return problems

    def required_splits(self) -> tuple[str, ...]:
        """Return the split whose texts are read."""
        return (self.split,)

    def result_count(self) -> int:
        """Return the number of winners."""
        return self.winners

    def budget_problems(self, budget: Budget) -> list[str]:
        """Return a problem if neither the fields nor the recipe's budget give a bound where one is needed."""
        if self.bound.given or self.method == "nsga2" or (self.cost == "latency" and budget.latency_ms is not None):
            return []
        by_latency = self.cost == "latency"
        return [
            "give a bound: "
            + ("latency_ms, speedup or keep, or a budget with latency_ms" if by_latency else "speedup or keep")
        ]

    def estimated_seconds(self, shape: Shape, rows: Mapping[str, int], tokens: float) -> float:
        """Return rough seconds: slices of half the work, each judged on the split.

        Args:
            shape: Shape of the model.
            rows: Rows of the task, by split.
            tokens: Tokens of a typical text.
        """
        texts = min(self.samples or rows.get(self.split, 0), rows.get(self.split, 0))
        return 0.5 * forward_seconds(shape, self.population * self.generations * texts, tokens)

    def apply(self, candidate: Candidate, context: RunContext) -> Iterator[Candidate]:
        """Yield the winners."""
        from limbeck.cost_models.shape_cost import is_elsewhere, predicted_latency
        from limbeck.model.pruning.subnetwork import extract
        from limbeck.report.evaluated_shapes import evaluated_shapes
        from limbeck.search import strategies
        from limbeck.search.subnet_scores import SliceScores

        if problems := self.problems() + self.budget_problems(context.budget):
            raise InputError(f"search: {problems[0]}")
        try:
            bounded = self._bounded(trained_space(candidate.model), candidate, context)
        except InputError as error:
            raise InputError(f"search: {error}") from error
        settings = strategies.Settings(self.population, self.generations, self.explore, self.mutation, context.seed)
        file = context.scratch / "scores.jsonl" if context.scratch else None
        slices = SliceScores(candidate, self.number_format, self.split, batch=context.target.batch, file=file)
        slices = slices.sampled(self.samples, context.seed).reported(context.log, settings.total)
        study = self._study(bounded, slices, context) if self.method == "nsga2" else None
        with slices.shared(self.workers) as scores:
            scored = strategies.search(self.method, bounded, scores, settings, study_file=study, log=context.log)
        if not scored:
            raise InputError(f"search: {bounded.why_empty()}")
        metric = candidate.task.metric
        elsewhere = self.profile is not None and is_elsewhere(bounded.costs.cost, candidate, context.target)
        winners = strategies.winners(self.method, bounded, scored, self.winners, metric=metric, log=context.log)
        for shape in winners:
            cost = bounded.costs(shape)
            context.log(f"{shape}: {metric} {scored[shape]:.4f}, {cost.name} {amount(cost.value, cost.unit)}")
            latency = predicted_latency(cost, self.number_format, elsewhere=elsewhere)
            facts: tuple[Measurement, ...] = (latency,) if self.cost == "latency" else ()
            if shape == winners[0]:
                values = bounded.costs.many(list(scored))[:, 0].tolist()
                facts += (evaluated_shapes(scored, values, winners, cost, metric, self.split),)
            yield replace(candidate, model=extract(candidate.model, shape), folder=None, facts=facts)

    def _bounded(self, space: Space, candidate: Candidate, context: RunContext) -> BoundedSpace:
        """Return the space with its costs and the limits that the fields set."""
        from limbeck.cost_models.shape_cost import counted_cost, latency_cost
        from limbeck.search.cached_cost import CachedCost

        if self.cost == "macs":
            cost = counted_cost("macs", candidate)
        else:
            cost = latency_cost(context.cost, context.target, self.number_format, profile=self.profile, log=context.log)
        bound, costs = self.bound, CachedCost(cost)
        if not bound.given and self.cost == "latency":
            bound = Bound(latency_ms=context.budget.latency_ms)
        most = bound.amount(costs, space.largest)
        return BoundedSpace.near(space, costs, most, at_least=self.least, at_most=self.at_most, sure=self.sure)

    def _study(self, bounded: BoundedSpace, scores: SliceScores, context: RunContext) -> StudyFile:
        """Return where NSGA-II keeps its study, and what those who share it must agree in."""
        from limbeck.search.strategies import StudyFile, study_settings

        if self.cost == "macs":  # which depends on the length of texts
            cost = f"macs, {bounded.costs(bounded.space.largest).value:.0f} of the largest"
        else:
            data = content(self.profile) if self.profile is not None else bounded.costs.cost.key or machine()
            cost = f"latency by {data} on {context.target}"
        storage = self.storage or (context.scratch / "study.jsonl" if context.scratch else None)
        agreed = study_settings(bounded, scores.settings, cost, self.population)
        return StudyFile(storage, self.study_name or "", agreed, shared=self.storage is not None)

    def out_of_reach(self, candidate: Candidate, context: RunContext, earlier: Sequence[Step] = ()) -> str | None:
        """Say why no slice meets the bound; None if one may.

        Args:
            candidate: The model that will be made a super-network.
            context: The services that ``apply`` gets.
            earlier: The steps in between, that which makes the super-network among them.
        """
        makers = [step for step in earlier if "elastic" in step.info.gives]
        shape = candidate.model.shape
        if len(makers) != 1 or candidate.model.space is not None:
            return None
        space = makers[0].search_space(shape)
        if space is None:
            return None
        fixed = len(space.hidden) * len(space.head_dim) == 1
        in_table = fixed and (space.largest.hidden, space.largest.head_dim) == (shape.hidden, shape.head_dim)
        if self.cost == "latency" and self.profile is None and not in_table:
            return None  # a predictor would have to be measured, which takes minutes
        return self._bounded(space, candidate, context).out_of_reach()
