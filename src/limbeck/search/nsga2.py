"""A front of shapes, searched by NSGA-II in an Optuna study that processes and machines may join and resume.

References: NSGA-II (Deb et al., 2002, doi:10.1109/4235.996017), with its constrained domination: a shape that fits
beats one that does not, and of two that do not the one nearer to the bound. Optuna crosses and selects
(``samplers.NSGAIISampler``) and stores. Differs: children are mutated by the small steps of ``search/evolution.py``; a
shape beyond the bound is never judged, its cost is enough; no shape is judged twice, whoever asks for it; the first
generation has the ends of the space that fit, and shapes that are drawn among those that fit.

What Optuna does, and what is done about it:

* A seeded sampler starts anew when a study is resumed, and would repeat itself. Here every draw has a number and a
  sampler seeded by it: what is proposed follows from the seed, the number and the generations before. A search that
  is alone in its storage judges a generation at a time, so resumed it ends as if it had not been interrupted, whatever
  the number of worker processes.
* A generation of several processes is complete when so many shapes are, whoever judged them; what comes late has no
  children. So a search that others may join is not repeatable, and judges a quarter of a generation at a time.
* Nobody is told of a process that died: heartbeats are those of ``Study.optimize`` with a database. Here a trial says
  whose it is. It is lost if that process of this machine is gone, or after ``PATIENCE`` if it is another machine's;
  then its shape may be asked for again.

Stored are numbers and texts: JSON lines in a file, columns of a database; nothing is pickled.
"""

from __future__ import annotations

import hashlib
import math
import os
import socket
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from limbeck.core.search_space import Space
from limbeck.core.shape import Shape, canonical_json
from limbeck.errors import InputError, MissingExtra
from limbeck.search.evolution import Worth

try:
    import optuna
    from optuna.storages.journal import JournalFileBackend
    from optuna.trial import TrialState
except ImportError:
    raise MissingExtra("optuna", "search") from None

PATIENCE = 3600.0  #: seconds after which a shape that another machine judges is given up
TRIES = 40  #: draws for a shape of a generation, at most
BARREN = 5  #: shares of a generation without a shape that fits, after which no more are asked for
ABOUT = "limbeck"  #: the attribute in which a study says what is judged, and a trial of which shape
Price = Callable[[Shape], tuple[float, float]]
"""What a shape costs, and how far it is beyond the bound (as a share of it; at most 0 if it fits)."""


class Asked(NamedTuple):
    """A trial that is not told yet."""

    number: int
    shape: Shape
    cost: float
    beyond: float


def open_study(storage: str | Path | None, name: str, about: Mapping[str, str]) -> Any:
    """The study of that name; made if there is none, refused if it judges something else.

    Args:
        storage: A file (JSON lines), the URL of a database (sqlite:///…), or None for this process's memory.
        name: The study's name; one made from ``about`` if empty.
        about: What decides what a shape is worth and costs.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    digest = hashlib.sha256(canonical_json(dict(about)).encode()).hexdigest()[:12]
    name = name or f"search-{digest}"
    try:
        study = optuna.create_study(
            storage=_opened(storage), study_name=name, directions=["maximize", "minimize"], load_if_exists=True
        )
        known = study.user_attrs.get(ABOUT, {})
        foreign = not known and (len(study.directions) != 2 or bool(study.get_trials(deepcopy=False)))
        if not known and not foreign:
            study.set_user_attr(ABOUT, dict(about))
            known = dict(about)
    except Exception as error:  # every database has errors of its own
        raise InputError(_refused(storage, error)) from error
    if foreign:
        raise InputError(f"study_name: '{name}' in '{storage}' is no search of limbeck; give another name")
    other = [f"{key} ({known.get(key, 'none')}, here {about[key]})" for key in about if known.get(key) != about[key]]
    if other:
        raise InputError(
            f"study_name: '{name}' in '{storage}' is a search with another {', '.join(other)}; give another name"
        )
    return study


def unusable(storage: str) -> list[str]:
    """Why a storage cannot be opened, as far as that is known without making one."""
    place = Path(storage).expanduser()
    try:
        if "://" in storage:
            from sqlalchemy import make_url

            make_url(storage).get_dialect().import_dbapi()
        elif place.exists():
            _opened(storage)
        elif not (folder := next(one for one in place.absolute().parents if one.exists())).is_dir():
            raise NotADirectoryError(f"{folder} is no folder")
    except Exception as error:  # as above
        return [_refused(storage, error)]
    return []


def _refused(storage: str | Path | None, error: Exception) -> str:
    return f"storage: '{storage}' cannot be opened as the storage of a search: {error}"


def _opened(storage: str | Path | None) -> Any:
    if storage is None:
        return optuna.storages.InMemoryStorage()
    if "://" in str(storage):
        return optuna.storages.RDBStorage(str(storage))
    place = Path(storage).expanduser()
    place.parent.mkdir(parents=True, exist_ok=True)
    return optuna.storages.JournalStorage(JournalFileBackend(str(place)))


class _Sampler(optuna.samplers.NSGAIISampler):
    """NSGA-II for one draw: what it proposes is stored at once with who asked, not value by value."""

    def __init__(self, search: FrontSearch, draw: int, generation: int) -> None:
        seed = int(hashlib.sha256(f"{search.seed} {generation} {draw}".encode()).hexdigest()[:8], 16)
        super().__init__(population_size=search.population, mutation_prob=0.0, seed=seed)
        self.search, self.draw, self.generation, self.rng = search, draw, generation, Random(seed)

    def __call__(self, breed: bool) -> Shape:
        """The shape of this draw: bred of the generations before, or drawn from the space."""
        search = self.search
        if self.generation == 0 and self.draw < len(search.first):
            return search.first[self.draw]
        if self.generation == 0 or not breed:
            return search.space.sample(self.rng)
        self.get_parent_population(search.study, self.generation)  # which come in another order when they are chosen
        child: dict[str, int] = self.sample_relative(search.study, None, search.ranges)  # type: ignore[arg-type]
        return search.space.mutate(search.shape(child), self.rng, search.mutation)

    def get_trial_generation(self, study: Any, trial: Any) -> int:
        """The generation of this draw."""
        return self.generation

    def get_population(self, study: Any, generation: int) -> list[Any]:
        """The shapes of a generation that are told."""
        told = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        return [trial for trial in told if _claim(trial).get("generation") == generation]


@dataclass(frozen=True)
class FrontSearch:
    """A search that goes on from what its study knows.

    Attributes:
        study: Where it stands, see :func:`open_study`.
        space: The shapes there are.
        price: Cost of a shape, and how far it is beyond the bound.
        first: Shapes to begin with.
        population: Shapes in a generation.
        mutation: Chance of every value of a child to change.
        seed: Decides what is proposed.
        alone: Nobody else has the study open: what is unfinished in it was left by this search, interrupted.
    """

    study: Any
    space: Space
    price: Price
    first: Sequence[Shape]
    population: int = 25
    mutation: float = 0.25
    seed: int = 0
    alone: bool = True
    mine: set[int] = field(default_factory=set)  #: numbers of the trials that this search has asked for, not told yet

    def __call__(self, worth: Worth, total: int) -> Iterator[dict[Shape, float]]:
        """All shapes judged so far and their worth, after every share, until ``total`` are judged or none is left."""
        empty_generations, told, lost = self._barren(), 0, len(self._trials(TrialState.FAIL))
        try:
            while True:
                running = self._running()
                before, lost = lost, len(self._trials(TrialState.FAIL))
                empty_generations = (
                    0 if lost > before and not self.alone else empty_generations
                )  # its shapes may be asked for again
                room = total - len(self.judged()) - len(running) if empty_generations < BARREN else 0
                if asked := self._ask(room) if room > 0 else []:
                    scores = iter(worth([one.shape for one in asked if one.beyond <= 0]))
                    for one in asked:
                        self._tell(one.number, [next(scores) if one.beyond <= 0 else -math.inf, one.cost])
                    empty_generations = 0 if any(one.beyond <= 0 for one in asked) else empty_generations + 1
                    known = self.judged()
                    told = len(known)
                    yield known
                elif running:
                    time.sleep(1.0)  # what others judge now is still to come, or is lost with them
                    empty_generations = BARREN if room > 0 else empty_generations  # no shape is left to ask for
                else:
                    break
            if len(known := self.judged()) > told:  # what others judged last, or before
                yield known
        finally:
            for number in tuple(self.mine):
                self._tell(number)

    def judged(self) -> dict[Shape, float]:
        """Every shape that was judged, by anyone, and its worth."""
        told = [trial for trial in self._trials(TrialState.COMPLETE) if math.isfinite(trial.values[0])]
        return {Shape.from_json(_claim(trial)["shape"]): trial.values[0] for trial in told}

    @cached_property
    def ranges(self) -> dict[str, Any]:
        """What Optuna varies: places in the ranges of the dimensions that have more than one value."""
        dimensions = {name: len(each) for name, each in self.space.dimensions.items() if len(each) > 1}
        return {name: optuna.distributions.IntDistribution(0, count - 1) for name, count in dimensions.items()}

    def places(self, shape: Shape) -> dict[str, int]:
        """A shape as Optuna's parameters."""
        values, dimensions = self.space.values(shape), self.space.dimensions
        return {name: dimensions[name].values.index(values[name]) for name in self.ranges}

    def shape(self, places: Mapping[str, int]) -> Shape:
        """Inverse of :meth:`places`."""
        return self.space.build(
            {name: each.values[places.get(name, 0)] for name, each in self.space.dimensions.items()}
        )

    def _trials(self, *states: Any) -> list[Any]:
        return list(self.study.get_trials(deepcopy=False, states=states))

    def _barren(self) -> int:
        """Generations since the last of which a shape fits, as far as they were told."""
        _, generation = self._born()
        fitting = [one for one in self._trials(TrialState.COMPLETE) if math.isfinite(one.values[0])]
        return max(0, generation - 1 - max((int(_claim(one)["generation"]) for one in fitting), default=-1))

    def _born(self) -> tuple[Counter[int], int]:
        """How many shapes of each generation are told, and the generation that is not complete."""
        born = Counter(int(_claim(trial)["generation"]) for trial in self._trials(TrialState.COMPLETE))
        last = max(born, default=0)
        return born, last + (born[last] >= self.population)

    def _running(self) -> list[Any]:
        """Trials of others that go on; those that are lost are told to have failed."""
        found = []
        for trial in self._trials(TrialState.RUNNING):
            if self.alone or _lost(_claim(trial)):
                self._tell(trial.number)
            else:
                found.append(trial)
        return found

    def _ask(self, most: int) -> list[Asked]:
        """Trials of shapes that nobody has: a share of a generation, of which at most so many fit."""
        born, generation = self._born()
        share = self.population - born[generation] if self.alone else -(-self.population // 4)
        claims = [_claim(trial) for trial in self._trials(TrialState.COMPLETE, TrialState.RUNNING)]
        known = {Shape.from_json(claim["shape"]) for claim in claims if claim}
        limit = TRIES * self.population
        free = sorted(set(range(len(claims) + limit)) - {claim.get("draw") for claim in claims})
        found: list[Asked] = []
        for tries, draw in enumerate(free[:limit]):
            if len(found) == share or sum(one.beyond <= 0 for one in found) == most:
                break
            bred = tries < limit / 2  # after that, what can be bred of the parents seems to be known
            shape = _Sampler(self, draw, generation)(bred)
            if shape in known:
                continue
            known.add(shape)
            cost, beyond = self.price(shape)
            if bred or beyond <= 0:
                number = self._take({"draw": draw, "generation": generation, "shape": shape.to_json()}, beyond)
                found += [Asked(number, shape, cost, beyond)] if number is not None else []
        return found

    def _take(self, claim: Mapping[str, Any], beyond: float) -> int | None:
        """The number of a new trial of a shape; None if somebody else was faster.

        A trial is stored together with its shape, and numbered in this order. So of two that take one shape at the
        same time at least the later sees the other, and the lower number keeps it.
        """
        about = {**claim, **_me(), "token": uuid.uuid4().hex}
        trial = optuna.trial.create_trial(
            state=TrialState.RUNNING,
            params=self.places(Shape.from_json(claim["shape"])),
            distributions=self.ranges,
            user_attrs={ABOUT: about},
            constraints={"bound": beyond},
        )
        self.study.add_trial(trial)
        there = self._trials(TrialState.RUNNING, TrialState.COMPLETE)
        same = [one for one in there if _claim(one).get("shape") == claim["shape"]]
        number = next(int(one.number) for one in same if _claim(one)["token"] == about["token"])
        self.mine.add(number)
        if all(one.number >= number for one in same):
            return number
        self._tell(number, state=TrialState.PRUNED)
        return None

    def _tell(self, number: int, values: Sequence[float] | None = None, state: Any = None) -> None:
        """Finish a trial: with values, as given, or as failed; who was taken for lost comes too late."""
        given = state or (TrialState.COMPLETE if values is not None else TrialState.FAIL)
        self.study.tell(number, values, state=given, skip_if_finished=True)
        self.mine.discard(number)


def _claim(trial: Any) -> dict[str, Any]:
    """What a trial says of itself: its draw, its generation, its shape, whose it is; nothing if it is not of ours."""
    said: dict[str, Any] = trial.user_attrs.get(ABOUT, {})
    return said


def _me() -> dict[str, Any]:
    pid = os.getpid()
    return {"host": socket.gethostname(), "pid": pid, "born": _born(pid), "asked": time.time()}


def _born(pid: int) -> float | None:
    """When a process of this machine began, which tells it from a later one with its number; None if it is gone."""
    import psutil

    try:
        return float(psutil.Process(pid).create_time())
    except psutil.NoSuchProcess:
        return None


def _lost(claim: Mapping[str, Any]) -> bool:
    """Whether whoever took a shape will never tell what it is worth."""
    if not claim:
        return False
    if claim["host"] != socket.gethostname():
        return bool(time.time() - claim["asked"] > PATIENCE)
    return claim["pid"] == os.getpid() or claim["born"] != _born(claim["pid"])  # ours: of an earlier search
