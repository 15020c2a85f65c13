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

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from random import Random
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

from annotated_types import Ge, Gt, Le

from limbeck.core.candidate import Candidate
from limbeck.core.cost import FunctionCost
from limbeck.core.measurement import Measurement, machine
from limbeck.core.search_space import Space
from limbeck.core.shape import Shape, canonical_json
from limbeck.core.step import RunContext, Step, StepInfo, Technique, content, step
from limbeck.errors import InputError, MissingExtra
from limbeck.search.evolution import Fits, evolve, sample_shapes, satisfies_rule
from limbeck.train.config import forward_seconds

if TYPE_CHECKING:
    from limbeck.core.target import Budget
    from limbeck.search.cached_cost import CachedCost
    from limbeck.search.subnet_scores import SliceScores


class Limits(NamedTuple):
    """What a shape may cost, in the unit of the cost."""

    least: float
    most: float


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
        given = [name for name in ("latency_ms", "speedup", "keep") if getattr(self, name) is not None]
        problems = []
        if len(given) > 1:
            problems.append(f"give one bound, got {', '.join(given)}")
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
        given = any(bound is not None for bound in (self.latency_ms, self.speedup, self.keep))
        if given or self.method == "nsga2" or (self.cost == "latency" and budget.latency_ms is not None):
            return []
        ways = (
            "latency_ms, speedup or keep, or a budget with latency_ms" if self.cost == "latency" else "speedup or keep"
        )
        return [f"give a bound: {ways}"]

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
        from limbeck.model.pruning.subnetwork import extract
        from limbeck.report.evaluated_shapes import evaluated_shapes

        if problems := self.problems() + self.budget_problems(context.budget):
            raise InputError(f"search: {problems[0]}")
        space = self.space(candidate)
        costs = self.costs(candidate, context)
        limits = self.limits(costs, space, context)
        with self.scores(candidate, context).shared(self.workers) as scores:
            scored = self.searched(space, costs, limits, scores, context)
        if not scored:
            largest, smallest = costs(space.largest), costs(space.smallest)
            raise InputError(
                f"search: no shape of the space costs between {limits.least:.4g} and {limits.most:.4g} "
                f"{largest.unit}; it goes from {smallest.value:.4g} to {largest.value:.4g}"
            )
        winners = self.best(scored, costs, candidate.task.metric, context)
        for shape in winners:
            cost = costs(shape)
            amount = _amount(cost.value, cost.unit)
            context.log(f"{shape}: {candidate.task.metric} {scored[shape]:.4f}, {cost.name} {amount}")
            facts: tuple[Measurement, ...] = (
                (self.predicted_latency(cost, costs, candidate, context),) if self.cost == "latency" else ()
            )
            if shape == winners[0]:
                values = costs.many(list(scored))[:, 0].tolist()
                facts += (evaluated_shapes(scored, values, winners, cost, candidate.task.metric, self.split),)
            yield replace(candidate, model=extract(candidate.model, shape), folder=None, facts=facts)

    def predicted_latency(
        self, latency: Measurement, costs: CachedCost, candidate: Candidate, context: RunContext
    ) -> Measurement:
        """Return the latency predicted for a winner in its number format, to be compared with the measured one.

        It is marked 'elsewhere' where the file is of another machine or of another length of texts, and not compared.

        Args:
            latency: Latency of the winner by the cost model.
            costs: CachedCost of shapes.
            candidate: The candidate that the step works on.
            context: Services of the run.
        """
        from limbeck.cost_models.latency_table import typical_length

        detail = {"number_format": self.number_format, **latency.detail}
        if self.profile is not None:
            learnt: Any = costs.cost  # a Predictor
            here = (machine(), context.target.seq_len or typical_length(candidate, context.target.batch))
            detail |= {"elsewhere": True} if (learnt.machine, learnt.setting.seq_len) != here else {}
        return replace(latency, name="latency_predicted", detail=detail)

    def best(self, scores: Mapping[Shape, float], costs: CachedCost, metric: str, context: RunContext) -> list[Shape]:
        """Return the winners: by score and then by cost; of a front, those that span most of it.

        Args:
            scores: Scores of the shapes.
            costs: CachedCost of shapes.
            metric: Name of the metric, for messages.
            context: Services of the run.
        """
        if self.method != "nsga2":
            return sorted(scores, key=lambda shape: (-scores[shape], costs(shape).value))[: self.winners]
        from limbeck.core.pareto import beyond, front, hypervolume, spread

        shapes = list(scores)
        points = [(scores[shape], costs(shape).value) for shape in shapes]
        senses: tuple[Any, Any] = ("max", "min")
        corner, count = beyond(points, senses), int(front(points, senses).sum())
        unit = costs(shapes[0]).unit
        volume = _amount(hypervolume(points, corner, senses), unit)
        context.log(
            f"front of {count} among {len(shapes)} shapes: hypervolume {volume} x {metric}, from the reference point "
            f"{metric} {corner[0]:.4f}, {_amount(corner[1], unit)}"
        )
        return [shapes[index] for index in spread(points, corner, senses, self.winners)]

    def space(self, candidate: Candidate) -> Space:
        """Return the space that the super-network was trained for."""
        from limbeck.core.analytic_cost import as_shape

        stored = getattr(candidate.model.config, "space", None)
        if stored is None:
            raise InputError("search: the model says of no space of slices; train it with 'supernet' first")
        space = Space.from_json(stored)
        if space.largest != as_shape(candidate.model.shape):
            raise InputError(
                f"search: the model is {candidate.model.shape}, but its space goes up to {space.largest}; search "
                "before other steps change its shape"
            )
        return space

    def costs(self, candidate: Candidate, context: RunContext) -> CachedCost:
        """Return the cost model of shapes."""
        from limbeck.core import analytic_cost as counts
        from limbeck.cost_models.latency_table import typical_length
        from limbeck.search.cached_cost import CachedCost

        if self.cost == "macs":
            model, length = candidate.model, typical_length(candidate)
            style, labels, pooler = model.encoder.style, candidate.task.num_labels, model.pooler is not None
            return CachedCost(
                FunctionCost(
                    lambda shape: Measurement("macs", counts.macs(shape, length, style, labels, pooler), "MAC")
                )
            )
        if self.profile is not None:
            from limbeck.cost_models.predictor_file import open_predictor

            return CachedCost(open_predictor(self.profile, context.target, self.number_format, context.log))
        if context.cost is None:
            raise InputError("search: no model of latency for this target; use cost: macs")
        return CachedCost(context.cost.for_format(self.number_format))

    def limits(self, costs: CachedCost, space: Space, context: RunContext) -> Limits:
        """Return the range of allowed costs; it begins at a share of the bound or, if cheaper, of the largest slice.

        Args:
            costs: CachedCost of shapes.
            space: The space of slices.
            context: Services of the run.
        """
        bound, whole = self.bound(costs, space, context), costs(space.largest).value
        return Limits(self.least * min(bound, whole), self.at_most * bound)

    def bound(self, costs: CachedCost, space: Space, context: RunContext) -> float:
        """Return the most that a shape may cost, in the unit of the cost; infinite where a front needs no bound.

        Args:
            costs: CachedCost of shapes.
            space: The space of slices.
            context: Services of the run.
        """
        if self.latency_ms is not None:
            return self.latency_ms / 1e3
        whole = costs(space.largest).value
        if self.speedup is not None:
            return whole / self.speedup
        if self.keep is not None:
            return whole * self.keep
        if context.budget.latency_ms is not None and self.cost == "latency":
            return context.budget.latency_ms / 1e3
        return math.inf

    def out_of_reach(self, candidate: Candidate, context: RunContext, earlier: Sequence[Step] = ()) -> str | None:
        """Say why no slice meets the bound; None if one may.

        Args:
            candidate: The model that will be made a super-network.
            context: The services that ``apply`` gets.
            earlier: The steps in between, that which makes the super-network among them.
        """
        makers = [step for step in earlier if "elastic" in step.info.gives]
        shape = candidate.model.shape
        if len(makers) != 1 or getattr(candidate.model.config, "space", None) is not None:
            return None
        space = makers[0].search_space(shape)
        if space is None:
            return None
        if self.cost == "latency" and self.profile is None and not _fits_table(space, shape):
            return None  # a predictor would have to be measured, which takes minutes
        costs = self.costs(candidate, context)
        limits = self.limits(costs, space, context)
        value, high = costs.many([space.smallest])[0]
        if (high if self.sure else value) <= limits.most:
            return None
        unit = costs(space.smallest).unit
        smallest = f"{space.smallest}, the smallest slice, takes {_amount(value, unit)}"
        sure = f" (surely below {_amount(high, unit)})" if self.sure and high > value else ""
        return f"the bound of {_amount(limits.most, unit)} is out of reach: {smallest}{sure}; ask for less"

    def scores(self, candidate: Candidate, context: RunContext) -> SliceScores:
        """Return the scorer of slices on the split."""
        from limbeck.core.task import choose
        from limbeck.search.subnet_scores import SliceScores

        split = candidate.task.split(self.split)
        rows = None
        if self.samples is not None and self.samples < len(split):
            rows = choose(split.labels, self.samples, context.seed, stratified=candidate.task.kind == "classification")
        seen = {"best": float("-inf"), "count": 0}

        def report(shape: Shape, score: float) -> None:
            seen["count"] += 1
            seen["best"] = max(seen["best"], score)
            total = self.population * self.generations
            context.log("", step=seen["count"], total=total, score=score, best=seen["best"])

        file = context.scratch / "scores.jsonl" if context.scratch else None
        return SliceScores(candidate, self.number_format, self.split, rows, context.target.batch, file, report)

    def beyond(self, costs: CachedCost, limits: Limits, shapes: Sequence[Shape]) -> list[float]:
        """Return how far each shape exceeds its limits, as a share of them; at most 0 if it fits.

        Args:
            costs: CachedCost of shapes.
            limits: Least and most that a shape may cost.
            shapes: Shapes to judge.
        """
        values, highs = costs.many(shapes).T
        most = (highs if self.sure else values) / limits.most - 1
        if not limits.least:
            return [float(share) for share in most]
        least = 1 - values / limits.least
        return [max(float(over), float(under)) for over, under in zip(most, least, strict=True)]

    def searched(
        self, space: Space, costs: CachedCost, limits: Limits, scores: SliceScores, context: RunContext
    ) -> Mapping[Shape, float]:
        """Run the search and return every shape that was evaluated, with its score.

        Args:
            space: The space of slices.
            costs: CachedCost of shapes.
            limits: Least and most that a shape may cost.
            scores: Scores slices.
            context: Services of the run.
        """

        def fits(shapes: Sequence[Shape]) -> list[bool]:
            return [share <= 0 for share in self.beyond(costs, limits, shapes)]

        rng, total = Random(context.seed), self.population * self.generations
        if self.method == "nsga2":
            evaluated = self.front(space, costs, limits, fits, scores, context)
        elif self.method == "evolution":
            options: dict[str, Any] = {"population": self.population, "generations": self.generations}
            options |= {"explore": self.explore, "mutation": self.mutation, "rng": rng}
            evaluated = evolve(space, fits, scores, **options)
        else:
            sampled = sample_shapes(space, _ruled(fits) if self.method == "rule" else fits, total, rng)
            return dict(zip(sampled, scores(sampled), strict=True))
        scored: Mapping[Shape, float] = {}
        for number, scored in enumerate(evaluated, start=1):
            context.log(f"generation {number}: {len(scored)} shapes judged, best {max(scored.values()):.4f}")
        return scored

    def front(
        self, space: Space, costs: CachedCost, limits: Limits, fits: Fits, scores: SliceScores, context: RunContext
    ) -> Iterator[Mapping[Shape, float]]:
        """Yield every shape evaluated so far, by this search and by those that share its study.

        Args:
            space: The space of slices.
            costs: CachedCost of shapes.
            limits: Least and most that a shape may cost.
            fits: Tells which shapes are within the limits.
            scores: Scores slices.
            context: Services of the run.
        """
        from limbeck.search.nsga2 import FrontSearch, open_study

        def price(shape: Shape) -> tuple[float, float]:
            return costs(shape).value, self.beyond(costs, limits, [shape])[0]

        ends = [shape for shape in (space.smallest, space.largest) if fits([shape])[0]]
        first = [*ends, *sample_shapes(space, fits, self.population - len(ends), Random(context.seed), ends)]
        if not first:
            return
        storage = self.storage or (context.scratch / "study.jsonl" if context.scratch else None)
        try:
            study = open_study(
                storage, self.study_name or "", self.study_attributes(space, costs, limits, scores, context)
            )
        except InputError as error:
            raise InputError(f"search.{error}") from error
        if self.storage:
            context.log(f"study {study.study_name} in {self.storage}")
        options: dict[str, Any] = {"population": self.population, "mutation": self.mutation, "seed": context.seed}
        yield from FrontSearch(study, space, price, first, **options, alone=self.storage is None)(
            scores, self.population * self.generations
        )

    def study_attributes(
        self, space: Space, costs: CachedCost, limits: Limits, scores: SliceScores, context: RunContext
    ) -> dict[str, str]:
        """Return what decides scores and costs of shapes; searches that share a storage must agree in it.

        Args:
            space: The space of slices.
            costs: CachedCost of shapes.
            limits: Least and most that a shape may cost.
            scores: Scores slices.
            context: Services of the run.
        """
        cost = f"macs, {costs(space.largest).value:.0f} of the largest"  # which depends on the length of texts
        if self.cost == "latency":
            data = content(self.profile) if self.profile is not None else costs.cost.key or machine()
            cost = f"latency by {data} on {context.target}"
        return {
            "space": canonical_json(space.to_json()),
            **scores.settings,
            "cost": cost,
            "bound": f"{limits.least:.6g} to {limits.most:.6g}" + (", surely" if self.sure else ""),
            "population": str(self.population),
        }


def _fits_table(space: Space, shape: Shape) -> bool:
    """Return whether one latency table, that of the whole model, knows all shapes of the space."""
    fixed = len(space.hidden) * len(space.head_dim) == 1
    return fixed and (space.largest.hidden, space.largest.head_dim) == (shape.hidden, shape.head_dim)


def _amount(value: float, unit: str) -> str:
    return f"{value * 1e3:.4g} ms" if unit == "s" else f"{value:.4g} {unit}"


def _ruled(fits: Fits) -> Fits:
    """Return whether shapes fit and keep the rule of thumb."""

    def both(shapes: Sequence[Shape]) -> list[bool]:
        by_thumb = [shape for shape in shapes if satisfies_rule(shape)]
        fitting = {shape for shape, good in zip(by_thumb, fits(by_thumb), strict=True) if good}
        return [shape in fitting for shape in shapes]

    return both
