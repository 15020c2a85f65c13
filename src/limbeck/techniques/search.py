"""Choose shapes of a super-network: the most accurate slices that meet a latency.

References: AutoTinyBERT (Yin et al., 2021, arXiv:2107.13686): random, rule-based and evolutionary search near a latency
bound; Bigger&Faster / SpeedLimit (arXiv:2209.12127): with INT8, the slice is quantized before it is judged, and its
INT8 latency counts, because larger quantized models then win. Differs: latency comes from a model that was measured on
the target and states its error, and a shape fits only if its latency is below the bound with that error; the winners
come out as candidates, to be distilled further, quantized and measured themselves.

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

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from annotated_types import Ge, Gt, Le

from limbeck.core.candidate import Candidate
from limbeck.core.evolution import by_rule, draw, evolve
from limbeck.core.facts import Measurement
from limbeck.core.shape import Shape
from limbeck.core.space import Space
from limbeck.core.step import Lab, step
from limbeck.errors import InputError
from limbeck.train.plan import forward_seconds

if TYPE_CHECKING:
    from limbeck.measure.slices import SliceScores


@step("search", needs={"torch", "elastic"}, drops={"elastic"}, reads={"seed", "target", "budget", "cost"})
class Search:
    """Search the space of a super-network, and give the best slices as models of their own.

    At most one bound: ``latency_ms``, ``speedup`` (over the largest slice), or ``keep`` (fraction of its cost); without
    any, the latency of the recipe's budget.

    Attributes:
        method: How shapes are found (evolution; drawn at random; drawn at random among those that keep AutoTinyBERT's
            rule of thumb).
        latency_ms: Most that a call may take on the target.
        speedup: Times as fast as the largest slice, by the model of latency.
        keep: Most of the largest slice's cost.
        cost: What is bounded: latency, measured on the target, or multiply-accumulates.
        profile: Latency data of another machine, made there by 'limbeck profile --full': latency is that machine's.
        number_format: What serves: slices are judged, and their latency is stated, in this format.
        at_least: Shapes below this share of the bound are not judged: they leave too much of it unused.
        at_most: Shapes above this share of the bound are not judged.
        sure: A shape fits only if the upper end of its latency's 95 % interval is below the bound.
        population: Shapes in a generation.
        generations: Generations; of random searches, populations that are drawn in all.
        explore: Share of a generation that is drawn from the whole space.
        mutation: Chance of every value of a child to change.
        winners: Models that come out, the best first.
        split: Where slices are judged.
        samples: Texts that slices are judged on; all of the split unless given.
    """

    method: Literal["evolution", "random", "rule"] = "evolution"
    latency_ms: Annotated[float, Gt(0)] | None = None
    speedup: Annotated[float, Gt(0)] | None = None
    keep: Annotated[float, Gt(0), Le(1)] | None = None
    cost: Literal["latency", "macs"] = "latency"
    profile: str | None = None
    number_format: Literal["int8", "float"] = "int8"
    at_least: Annotated[float, Ge(0), Le(1)] = 0.85
    at_most: Annotated[float, Gt(0)] = 1.0
    sure: bool = True
    population: Annotated[int, Ge(1)] = 25
    generations: Annotated[int, Ge(1)] = 4
    explore: Annotated[float, Ge(0), Le(1)] = 0.5
    mutation: Annotated[float, Ge(0), Le(0.5)] = 0.25
    winners: Annotated[int, Ge(1)] = 1
    split: str = "validation"
    samples: Annotated[int, Ge(1)] | None = None

    files: ClassVar[frozenset[str]] = frozenset({"profile"})

    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "autotinybert": {"number_format": "float", "at_least": 0.85, "at_most": 1.1, "sure": False},
        "bigger-and-faster": {"number_format": "int8", "at_least": 0.85, "at_most": 1.1, "sure": False},
    }

    example: ClassVar[dict[str, Any]] = {
        "keep": 0.7,
        "cost": "macs",
        "at_least": 0.2,
        "population": 4,
        "generations": 2,
        "winners": 2,
        "samples": 16,
    }

    def problems(self) -> list[str]:
        """What fields contradict each other."""
        given = [name for name in ("latency_ms", "speedup", "keep") if getattr(self, name) is not None]
        found = []
        if len(given) > 1:
            found.append(f"give one bound, got {', '.join(given)}")
        if self.cost == "macs" and self.latency_ms is not None:
            found.append("latency_ms needs cost: latency, got cost: macs")
        if self.cost == "macs" and self.profile is not None:
            found.append("profile needs cost: latency, got cost: macs")
        if self.at_least >= self.at_most:
            found.append(f"at_least should be below at_most, got {self.at_least:g} and {self.at_most:g}")
        return found

    def missing(self) -> list[str]:
        """What is wrong with the file of latency data."""
        from limbeck.data.read import missing_file

        path = Path(self.profile).expanduser() if self.profile else None
        return [] if path is None or path.is_file() else [f"profile: {missing_file(path)}"]

    def estimate(self, shape: Shape, rows: Mapping[str, int], tokens: float) -> float:
        """Rough seconds: slices of half the work, each judged on the split."""
        texts = min(self.samples or rows.get(self.split, 0), rows.get(self.split, 0))
        return 0.5 * forward_seconds(shape, self.population * self.generations * texts, tokens)

    def apply(self, candidate: Candidate, lab: Lab) -> Iterator[Candidate]:
        """Yield the winners."""
        from limbeck.model.extract import extract

        if problems := self.problems():
            raise InputError(f"search: {problems[0]}")
        space = self.space(candidate)
        costs = self.costs(candidate, lab)
        bound = self.bound(costs, space, lab)
        scores = self.scores(candidate, lab)

        def fits(shape: Shape) -> bool:
            cost = costs(shape)
            most = cost.high if self.sure and cost.high is not None else cost.value
            return self.at_least * bound <= cost.value and most <= self.at_most * bound

        known = self.searched(space, fits, scores, lab)
        if not known:
            largest, smallest = costs(space.largest), costs(space.smallest)
            raise InputError(
                f"search: no shape of the space costs between {self.at_least * bound:.4g} and "
                f"{self.at_most * bound:.4g} {largest.unit}; it goes from {smallest.value:.4g} to {largest.value:.4g}"
            )
        for shape in sorted(known, key=lambda one: (-known[one], costs(one).value))[: self.winners]:
            cost = costs(shape)
            lab.log(f"{shape}: {candidate.task.metric} {known[shape]:.4f}, {cost.name} {cost.value:.4g} {cost.unit}")
            yield replace(candidate, model=extract(candidate.model, shape), folder=None)

    def space(self, candidate: Candidate) -> Space:
        """The space that the super-network was trained for."""
        from limbeck.measure.counts import as_shape

        about = getattr(candidate.model.config, "space", None)
        if about is None:
            raise InputError("search: the model says of no space of slices; train it with 'supernet' first")
        space = Space.from_json(about)
        if space.largest != as_shape(candidate.model.shape):
            raise InputError(
                f"search: the model is {candidate.model.shape}, but its space goes up to {space.largest}; search "
                "before other steps change its shape"
            )
        return space

    def costs(self, candidate: Candidate, lab: Lab) -> Callable[[Shape], Measurement]:
        """What a shape costs; asked for once."""
        from functools import cache

        from limbeck.measure import counts
        from limbeck.measure.table import typical_length

        if self.cost == "macs":
            model, length = candidate.model, typical_length(candidate)
            style, labels, pooler = model.encoder.style, candidate.task.num_labels, model.pooler is not None
            return cache(lambda shape: Measurement("macs", counts.macs(shape, length, style, labels, pooler), "FLOP"))
        if self.profile is not None:
            return cache(self.elsewhere(lab))
        if lab.cost is None:
            raise InputError("search: no model of latency for this target; use cost: macs")
        measured = lab.cost
        return cache(lambda shape: measured(shape, number_format=self.number_format))

    def elsewhere(self, lab: Lab) -> Callable[[Shape], Measurement]:
        """Latency on the machine that the file describes, learnt from its shapes."""
        from limbeck.measure.dataset import read
        from limbeck.measure.predictor import Predictor, check_extra

        check_extra()
        target = lab.target
        about = {"runtime": target.runtime, "threads": target.threads, "batch": target.batch}
        series = read(str(self.profile)).series(number_format=self.number_format, **about)
        learnt = Predictor.of(series)
        lab.log(f"latency of machine {series.machine}: learnt from {len(series.shapes)} shapes, {learnt.errors}")
        return learnt

    def bound(self, costs: Callable[[Shape], Measurement], space: Space, lab: Lab) -> float:
        """Most that a shape may cost, in the unit of the cost."""
        if self.latency_ms is not None:
            return self.latency_ms / 1e3
        whole = costs(space.largest).value
        if self.speedup is not None:
            return whole / self.speedup
        if self.keep is not None:
            return whole * self.keep
        if lab.budget.latency_ms is not None and self.cost == "latency":
            return lab.budget.latency_ms / 1e3
        raise InputError("search: give a bound: latency_ms, speedup or keep, or a budget with latency_ms")

    def scores(self, candidate: Candidate, lab: Lab) -> SliceScores:
        """What slices are worth on the split."""
        from limbeck.data.task import choose
        from limbeck.measure.slices import SliceScores

        split = candidate.task.split(self.split)
        rows = None
        if self.samples is not None and self.samples < len(split):
            rows = choose(split.labels, self.samples, lab.seed, stratified=candidate.task.kind == "classification")
        seen = {"best": float("-inf"), "count": 0}

        def tell(shape: Shape, score: float) -> None:
            seen["count"] += 1
            seen["best"] = max(seen["best"], score)
            total = self.population * self.generations
            lab.log("", step=seen["count"], total=total, score=score, best=seen["best"])

        file = lab.scratch / "scores.jsonl" if lab.scratch else None
        return SliceScores(candidate, self.number_format, self.split, rows, lab.target.batch, file, tell)

    def searched(
        self, space: Space, fits: Callable[[Shape], bool], scores: SliceScores, lab: Lab
    ) -> Mapping[Shape, float]:
        """Every shape that was judged, with its score."""
        chance = Random(lab.seed)
        if self.method != "evolution":
            rule = by_rule if self.method == "rule" else lambda shape: True
            drawn = draw(space, lambda one: rule(one) and fits(one), self.population * self.generations, chance)
            return dict(zip(drawn, scores(drawn), strict=True))
        known: Mapping[Shape, float] = {}
        options: dict[str, Any] = {"population": self.population, "generations": self.generations}
        options |= {"explore": self.explore, "mutation": self.mutation, "chance": chance}
        for number, known in enumerate(evolve(space, fits, scores, **options), start=1):
            lab.log(f"generation {number}: {len(known)} shapes judged, best {max(known.values()):.4f}")
        return known
