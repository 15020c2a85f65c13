"""Ways to search a bounded space: at random, by a rule of thumb, by evolution, or for a front.

Each is a function of a :class:`BoundedSpace` and of something that scores shapes; for the references see
``search/evolution.py`` and ``search/nsga2.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Literal

from limbeck.core import pareto
from limbeck.core.pieces import Spread
from limbeck.core.shape import Shape, canonical_json
from limbeck.errors import InputError
from limbeck.search.bounded_space import BoundedSpace, amount
from limbeck.search.evolution import Score, evolve, sample_shapes, satisfies_rule

if TYPE_CHECKING:
    from limbeck.search.subnet_scores import SliceScores

Method = Literal["evolution", "random", "rule", "nsga2"]
Scored = Mapping[Shape, float]
SENSES: tuple[pareto.Sense, pareto.Sense] = ("max", "min")  # of score and cost


@dataclass(frozen=True)
class Settings:
    """How much is searched, and how.

    Attributes:
        population: Shapes in a generation.
        generations: Generations; for random searches, populations that are sampled in total.
        explore: Fraction of a generation that is sampled from the whole space (evolution).
        mutation: Probability that a value of a child changes.
        seed: Seed of the sampling.
    """

    population: int = 25
    generations: int = 4
    explore: float = 0.5
    mutation: float = 0.25
    seed: int = 0

    @property
    def total(self) -> int:
        """Shapes that are scored in total."""
        return self.population * self.generations


@dataclass(frozen=True)
class StudyFile:
    """Where NSGA-II keeps its study.

    Attributes:
        storage: A file or the URL of a database; None keeps the study in memory.
        name: Name of the study; one made from ``settings`` if empty.
        settings: What decides scores and costs; searches that share a study must agree in it.
        shared: Whether other processes may work on the same study.
    """

    storage: str | Path | None
    name: str
    settings: Mapping[str, str]
    shared: bool = False


def sample(bounded: BoundedSpace, score: Score, settings: Settings, *, rule: bool = False) -> Scored:
    """Score shapes sampled at random.

    Args:
        bounded: The shapes to sample from.
        score: What to maximize.
        settings: How many shapes are sampled, and the seed.
        rule: Sample only shapes that satisfy AutoTinyBERT's rule of thumb.

    Returns:
        The score of each shape.
    """
    fits = _ruled(bounded) if rule else bounded.fits
    shapes = sample_shapes(bounded.space, fits, settings.total, Random(settings.seed))
    return dict(zip(shapes, score(shapes), strict=True))


def _ruled(bounded: BoundedSpace) -> Callable[[Sequence[Shape]], list[bool]]:
    """Return a function that says which shapes fit and satisfy the rule of thumb."""

    def fits(shapes: Sequence[Shape]) -> list[bool]:
        ruled = [shape for shape in shapes if satisfies_rule(shape)]
        fitting = {shape for shape, fits in zip(ruled, bounded.fits(ruled), strict=True) if fits}
        return [shape in fitting for shape in shapes]

    return fits


def evolution(bounded: BoundedSpace, score: Score, settings: Settings) -> Iterator[Scored]:
    """Evolve shapes; yield the score of every shape so far after each generation.

    Args:
        bounded: The shapes to search.
        score: What to maximize.
        settings: How much is searched.
    """
    return evolve(
        bounded.space,
        bounded.fits,
        score,
        population=settings.population,
        generations=settings.generations,
        explore=settings.explore,
        mutation=settings.mutation,
        rng=Random(settings.seed),
    )


def nsga2(
    bounded: BoundedSpace,
    score: Score,
    settings: Settings,
    study_file: StudyFile,
    log: Callable[[str], None] = lambda message: None,
) -> Iterator[Scored]:
    """Search a front of score and cost by NSGA-II; yield all scores so far, those of other processes included.

    Args:
        bounded: The shapes to search.
        score: What to maximize.
        settings: How much is searched.
        study_file: Where the study is kept.
        log: Called with the name of a shared study.

    Raises:
        InputError: The storage cannot be opened, or its study belongs to another search.
    """
    from limbeck.search.nsga2 import FrontSearch, open_study

    space = bounded.space
    ends = [shape for shape in (space.smallest, space.largest) if bounded.fits([shape])[0]]
    rng, missing = Random(settings.seed), settings.population - len(ends)
    first = [*ends, *sample_shapes(space, bounded.fits, missing, rng, ends)]
    if not first:
        return
    try:
        study = open_study(study_file.storage, study_file.name, study_file.settings)
    except InputError as error:
        raise InputError(f"search.{error}") from error
    if study_file.shared:
        log(f"study {study.study_name} in {study_file.storage}")
    search = FrontSearch(
        study,
        space,
        bounded.price,
        first,
        population=settings.population,
        mutation=settings.mutation,
        seed=settings.seed,
        alone=not study_file.shared,
    )
    yield from search(score, settings.total)


def study_settings(
    bounded: BoundedSpace, score_settings: Mapping[str, str], cost: str, population: int
) -> dict[str, str]:
    """Return what decides scores and costs of shapes; searches that share a study must agree in it.

    Args:
        bounded: The shapes and their limits.
        score_settings: What a score depends on besides the shape.
        cost: What a cost depends on besides the shape.
        population: Shapes in a generation.
    """
    return {
        "space": canonical_json(bounded.space.to_json()),
        **score_settings,
        "cost": cost,
        "bound": f"{bounded.least:.6g} to {bounded.most:.6g}" + (", surely" if bounded.sure else ""),
        "population": str(population),
    }


def last(generations: Iterable[Scored], log: Callable[[str], None] = lambda message: None) -> Scored:
    """Run a search to its end, with a message for every generation, and return its scores; none if nothing fits."""
    scores: Scored = {}
    for number, scores in enumerate(generations, start=1):
        log(f"generation {number}: {len(scores)} shapes scored, best {max(scores.values()):.4f}")
    return scores


def search(
    method: Method,
    bounded: BoundedSpace,
    score: Score,
    settings: Settings,
    *,
    study_file: StudyFile | None = None,
    log: Callable[[str], None] = lambda message: None,
) -> Scored:
    """Search by the named method, and return the score of every shape that was evaluated.

    Args:
        method: How shapes are found.
        bounded: The shapes to search.
        score: What to maximize.
        settings: How much is searched.
        study_file: Where NSGA-II keeps its study; in memory unless given.
        log: Called with a message for every generation.
    """
    if method == "nsga2":
        return last(nsga2(bounded, score, settings, study_file or StudyFile(None, "", {}), log), log)
    if method == "evolution":
        return last(evolution(bounded, score, settings), log)
    return sample(bounded, score, settings, rule=method == "rule")


def best(bounded: BoundedSpace, scores: Scored, count: int) -> list[Shape]:
    """Return the shapes with the best scores, the cheaper first among equals.

    Args:
        bounded: Gives the costs.
        scores: Scores of shapes.
        count: Most shapes to return.
    """
    # one number decides: all are within the bound, and among the many shapes that no test tells from the first one, the
    # cheapest would be one of the worst; the winner is trained further and measured beside the other candidates
    return sorted(scores, key=lambda shape: (-scores[shape], bounded.costs(shape).value))[:count]


def best_of_front(
    bounded: BoundedSpace, scores: Scored, count: int, metric: str, log: Callable[[str], None] = lambda message: None
) -> list[Shape]:
    """Return the shapes that together span the most of the front of score and cost.

    Args:
        bounded: Gives the costs.
        scores: Scores of shapes.
        count: Most shapes to return.
        metric: Name of the score, for the message.
        log: Called with the size and the hypervolume of the front.
    """
    shapes = list(scores)
    points = [(scores[shape], bounded.costs(shape).value) for shape in shapes]
    corner, size = pareto.beyond(points, SENSES), int(pareto.front(points, SENSES).sum())
    unit = bounded.costs(shapes[0]).unit
    volume = amount(pareto.hypervolume(points, corner, SENSES), unit)
    log(
        f"front of {size} among {len(shapes)} shapes: hypervolume {volume} x {metric}, from the reference point "
        f"{metric} {corner[0]:.4f}, {amount(corner[1], unit)}"
    )
    return [shapes[index] for index in pareto.spread(points, corner, SENSES, count)]


def winners(
    method: Method,
    bounded: BoundedSpace,
    scores: Scored,
    count: int,
    *,
    metric: str = "score",
    log: Callable[[str], None] = lambda message: None,
) -> list[Shape]:
    """Return the winners of a search: the best shapes, or those that span the most of a front.

    Args:
        method: How the shapes were found.
        bounded: Gives the costs.
        scores: Scores of shapes.
        count: Most shapes to return.
        metric: Name of the score, for messages.
        log: Called with messages.
    """
    if method == "nsga2":
        return best_of_front(bounded, scores, count, metric, log)
    return best(bounded, scores, count)


def search_slices(
    method: Method,
    bounded: BoundedSpace,
    slices: SliceScores,
    settings: Settings,
    count: int = 1,
    *,
    workers: int = 1,
    spread: Spread | None = None,
    study_file: StudyFile | None = None,
    log: Callable[..., None] = lambda message, **numbers: None,
) -> tuple[list[Shape], Scored]:
    """Search the slices of a super-network.

    Args:
        method: How shapes are found.
        bounded: The slices to search.
        slices: Scores of the slices.
        settings: How much is searched.
        count: Most shapes to return.
        workers: Processes that score slices, where ``spread`` is None.
        spread: Has slices scored by the workers of a run, unless other searches work on the same study.
        study_file: Where NSGA-II keeps its study; in memory unless given.
        log: Called with messages, and with the number of every slice that is scored.

    Returns:
        The winners, and the score of every shape that was evaluated.

    Raises:
        InputError: No shape is within the limits.
    """
    if study_file is not None and spread is not None:
        if study_file.shared:
            spread = None  # its trials are taken by whoever is free: a search that begins again would lose its own
        else:
            study_file = replace(study_file, storage=None)  # the search begins anew, with the scores that are there
    with slices.reported(log, settings.total).shared(workers, spread) as score:
        scored = search(method, bounded, score, settings, study_file=study_file, log=log)
    if not scored:
        raise InputError(bounded.why_empty())
    metric = slices.candidate.task.metric
    shapes = winners(method, bounded, scored, count, metric=metric, log=log)
    for shape in shapes:
        cost = bounded.costs(shape)
        log(f"{shape}: {metric} {scored[shape]:.4f}, {cost.name} {amount(cost.value, cost.unit)}")
    return shapes, scored
