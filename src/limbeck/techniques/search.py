"""Choose shapes of a super-network: the most accurate slices that meet a latency, or a front of accuracy and latency.

References: AutoTinyBERT (Yin et al., 2021, arXiv:2107.13686): random, rule-based and evolutionary search near a latency
bound; Bigger&Faster / SpeedLimit (arXiv:2209.12127): with INT8, the slice is quantized before it is judged, and its
INT8 latency counts, because larger quantized models then win; NSGA-II (Deb et al., 2002, doi:10.1109/4235.996017), see
``search/nsga2.py``. Differs: latency comes from a model that was measured on the target and states its error, and a
shape fits only if its latency is below the bound with that error; the winners come out as candidates, to be distilled
further, quantized and measured themselves, with their predicted latency beside.

    steps: [finetune: {}, supernet: {}, search: {latency_ms: 1.0, winners: 3}, distill: {}, export: {}, quantize: {}]
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

from annotated_types import Ge, Le

from limbeck.core.candidate import Candidate
from limbeck.core.field_groups import group
from limbeck.core.goal import TechniqueWithGoal
from limbeck.core.shape import Shape
from limbeck.core.step import RunContext, Step, StepInfo, step
from limbeck.errors import InputError
from limbeck.search.bound_config import BoundConfig
from limbeck.search.bounded_space import trained_space
from limbeck.search.study_config import StudyConfig
from limbeck.train.config import forward_seconds

if TYPE_CHECKING:
    from limbeck.core.pieces import Piece, Result
    from limbeck.core.target import Budget, Target
    from limbeck.search.subnet_scores import SliceScores


EXAMPLE = {"keep": 0.7, "cost": "macs", "at_least": 0.2, "population": 4, "generations": 2, "winners": 2, "samples": 16}


@step(
    StepInfo(
        "search",
        label="searched",
        version=2,
        needs={"torch", "elastic"},
        drops={"elastic"},
        reads={"seed", "target", "budget", "cost"},
        files=frozenset({"profile"}),
        neutral=frozenset({"workers", "target"}),  # the target that is named is in the key
        sizes={"latency_ms", "speedup", "keep"},
        presets={
            "autotinybert": {"number_format": "float", "at_least": 0.85, "at_most": 1.1, "sure": False},
            "bigger-and-faster": {"number_format": "int8", "at_least": 0.85, "at_most": 1.1, "sure": False},
        },
        example=EXAMPLE,
    )
)
class Search(TechniqueWithGoal):
    """Search the space of a super-network, and give the best slices as models of their own.

    At most one bound: ``latency_ms``, ``speedup`` (over the largest slice), or ``keep`` (fraction of its cost); without
    any, the latency of the recipe's budget. ``nsga2`` needs no bound: then its front spans all of the space.

    Attributes:
        method: How shapes are found (evolution; drawn at random; drawn at random among those that keep AutoTinyBERT's
            rule of thumb; nsga2 for a front of the metric against the cost, which needs the extra 'search').
        bound: Which shapes fit by their cost.
        population: Shapes in a generation.
        generations: Generations; of random searches, populations that are drawn in all.
        explore: Share of a generation that is drawn from the whole space (evolution).
        mutation: Chance of every value of a child to change.
        winners: Models that come out, the best first; of nsga2 those that together span the most of the front.
        split: Where slices are judged.
        samples: Texts that slices are judged on, or queries that search all documents; all of the split unless given.
        workers: Processes that judge slices, each with one thread, unless the run has workers; the result is the same.
        study: Where nsga2 keeps its study.
    """

    method: Literal["evolution", "random", "rule", "nsga2"] = "evolution"
    bound: BoundConfig = group(default=BoundConfig())
    population: Annotated[int, Ge(1), Le(100_000)] = 25
    generations: Annotated[int, Ge(1), Le(100_000)] = 4
    explore: Annotated[float, Ge(0), Le(1)] = 0.5
    mutation: Annotated[float, Ge(0), Le(0.5)] = 0.25
    winners: Annotated[int, Ge(1), Le(10_000)] = 1
    split: str = "validation"
    samples: Annotated[int, Ge(1)] | None = None
    workers: Annotated[int, Ge(1), Le(1_024)] = 1
    study: StudyConfig = group(default=StudyConfig())

    def problems(self) -> list[str]:
        """Return the conflicts between fields."""
        problems = self.bound.problems(front=self.searches_front) + self.study.problems(self.method)
        if self.method == "nsga2" and self.population < 2:
            problems.append(f"population should be at least 2 for method: nsga2, got {self.population}")
        return problems

    @property
    def searches_front(self) -> bool:
        """Whether a front is searched, which needs no bound."""
        return self.method == "nsga2"

    def file_problems(self) -> list[str]:
        """Return the problems of the latency data file, the storage and missing packages."""
        from limbeck.cost_models.predictor_file import file_problems

        problems = file_problems(self.bound.profile, self.bound.number_format)
        return problems + self.study.file_problems(self.method)

    def required_splits(self) -> tuple[str, ...]:
        """Return the split whose texts are read."""
        return (self.split,)

    def result_count(self) -> int:
        """Return the number of winners."""
        return self.winners

    def budget_problems(self, budget: Budget) -> list[str]:
        """Return a problem if neither the fields nor the recipe's budget give a bound where one is needed."""
        return self.bound.budget_problems(budget, front=self.searches_front)

    def goal_target(self) -> str | None:
        """Return the name of the target that a goal in latency is for."""
        return self.bound.goal_target

    def target_problems(self, target: Target, others: Sequence[Step]) -> dict[str, str]:
        """Return what the bound needs where the target is elsewhere."""
        return self.bound.target_problems(target)

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
        from limbeck.search.evaluated_shapes import evaluated_shapes
        from limbeck.search.strategies import Settings, search_slices, study_settings

        if problems := self.problems() + self.budget_problems(context.budget):
            raise InputError(f"search: {problems[0]}")
        settings = Settings(self.population, self.generations, self.explore, self.mutation, context.seed)
        slices = self.scores(candidate, context)
        try:
            space = trained_space(candidate.model)
            bounded = self.bound.bounded(space, candidate, context, front=self.searches_front)
            source = self.bound.source(bounded, context.target)
            agreed = study_settings(bounded, slices.settings, source, self.population) if self.searches_front else {}
            winners, scored = search_slices(
                self.method,
                bounded,
                slices,
                settings,
                self.winners,
                workers=self.workers,
                spread=context.spread,
                study_file=self.study.file(context.scratch, agreed),
                log=context.log,
            )
        except InputError as error:
            raise InputError(f"search: {error}") from error
        for shape in winners:
            facts = self.bound.predicted(shape, bounded, candidate, context.target)
            if shape == winners[0]:
                values, cost = bounded.costs.many(list(scored))[:, 0].tolist(), bounded.costs(shape)
                facts += (evaluated_shapes(scored, values, winners, cost, candidate.task.metric, self.split),)
            yield replace(candidate, model=extract(candidate.model, shape), folder=None, facts=facts)

    def scores(self, candidate: Candidate, context: RunContext) -> SliceScores:
        """Return what scores the slices of a candidate."""
        from limbeck.search.subnet_scores import SliceScores

        return SliceScores.of(candidate, context, self.bound.number_format, self.split, self.samples)

    def work_on(
        self, pieces: Sequence[Piece], shared: Mapping[str, Any], candidate: Candidate, context: RunContext
    ) -> Iterator[Result]:
        """Yield the scores of slices."""
        yield from self.scores(candidate, context).work_on(pieces)

    def out_of_reach(self, candidate: Candidate, context: RunContext, earlier: Sequence[Step] = ()) -> str | None:
        """Say why no slice meets the bound of the super-network that an earlier step will make; None if one may."""
        makers, shape = [step for step in earlier if "elastic" in step.info.gives], candidate.model.shape
        if len(makers) != 1 or candidate.model.space is not None:
            return None
        if (space := makers[0].search_space(shape)) is None or self.bound.must_measure(space, shape):
            return None
        return self.bound.bounded(space, candidate, context, front=self.searches_front).out_of_reach()
