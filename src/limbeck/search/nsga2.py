"""Search a front of shapes by NSGA-II, in an Optuna study that processes and machines may join and resume.

References: NSGA-II (Deb et al., 2002, doi:10.1109/4235.996017) with its constrained domination: a shape within the
bound beats one beyond it, and of two beyond it the nearer one wins. Optuna crosses, selects
(``samplers.NSGAIISampler``) and stores. Differs: children are mutated by the small steps of ``search/evolution.py``; a
shape beyond the bound is never scored, its cost is enough; no shape is scored twice, whoever proposes it; the first
generation holds the extremes of the space that fit, and shapes sampled among those that fit.

Limitations of Optuna, and how this module works around them:

* A seeded sampler restarts when a study is resumed, and would repeat its proposals. Here every draw has a number and a
  sampler seeded by it, so a proposal follows from the seed, the number and the earlier generations. A search that is
  alone in its storage scores a generation at a time. When resumed, it ends as if it had not been interrupted, whatever
  the number of worker processes.
* With several processes, a generation is complete when enough shapes are, whoever scored them; later results have no
  children. So a search that others may join is not repeatable, and it scores a quarter of a generation at a time.
* Optuna does not notice dead processes: heartbeats exist only for ``Study.optimize`` with a database. Here a trial
  records its owner. It is lost if the owner was a process of this machine that has exited, or after ``CLAIM_TIMEOUT``
  if the owner is on another machine. Then its shape may be proposed again.

Only numbers and texts are stored, as JSON lines in a file or columns of a database; nothing is pickled.
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
from typing import TYPE_CHECKING, Any, NamedTuple

from limbeck.core.paths import user_path
from limbeck.core.search_space import Space
from limbeck.core.shape import Shape, canonical_json
from limbeck.errors import InputError, MissingExtra
from limbeck.search.evolution import Score

try:
    import optuna
    from optuna.storages.journal import JournalFileBackend
    from optuna.trial import TrialState
except ImportError:
    raise MissingExtra("optuna", "search") from None

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial

CLAIM_TIMEOUT = 3600.0  #: seconds after which a shape claimed by another machine is given up
TRIES = 40  #: most draws for each shape of a generation
MAX_EMPTY_GENERATIONS = 5  #: batches in a row without a shape that fits, after which no more are proposed
ATTRIBUTE = "limbeck"  #: user attribute with the settings of a study, and with the claim of a trial
Price = Callable[[Shape], tuple[float, float]]
"""Returns the cost of a shape, and its excess over the bound as a fraction of the bound (at most 0 if it fits)."""


class OpenTrial(NamedTuple):
    """A trial that this search has claimed but not finished; ``excess`` over the bound as in ``Price``."""

    number: int
    shape: Shape
    cost: float
    excess: float


def open_study(storage: str | Path | None, name: str, settings: Mapping[str, str]) -> optuna.Study:
    """Open the study of that name; create it if there is none, refuse it if it has other settings.

    Args:
        storage: A file (JSON lines), the URL of a database (sqlite:///…), or None for this process's memory.
        name: The study's name; if empty, one derived from ``settings``.
        settings: Everything that the score and the cost of a shape depend on.

    Returns:
        The study, which maximizes the score and minimizes the cost.

    Raises:
        InputError: The storage cannot be opened, or the study was made with other settings or by another program.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    digest = hashlib.sha256(canonical_json(dict(settings)).encode()).hexdigest()[:12]
    name = name or f"search-{digest}"
    try:
        study = optuna.create_study(
            storage=_open_storage(storage), study_name=name, directions=["maximize", "minimize"], load_if_exists=True
        )
        stored = study.user_attrs.get(ATTRIBUTE, {})
        foreign = not stored and (len(study.directions) != 2 or bool(study.get_trials(deepcopy=False)))
        if not stored and not foreign:
            study.set_user_attr(ATTRIBUTE, dict(settings))
            stored = dict(settings)
    except Exception as error:  # every database raises its own errors
        raise InputError(_refusal(storage, error)) from error
    if foreign:
        raise InputError(f"study_name: '{name}' in '{storage}' is not a limbeck search; give another name")
    other = [
        f"{key} ({stored.get(key, 'none')}, here {value})"
        for key, value in settings.items()
        if stored.get(key) != value
    ]
    if other:
        raise InputError(
            f"study_name: '{name}' in '{storage}' is a search with different {', '.join(other)}; give another name"
        )
    return study


def unusable(storage: str) -> list[str]:
    """Explain why a storage cannot be opened, as far as can be checked without creating it; empty if it can."""
    path = user_path(storage)
    try:
        if "://" in storage:
            from sqlalchemy import make_url

            make_url(storage).get_dialect().import_dbapi()
        elif path.exists():
            _open_storage(storage)
        elif not (folder := next(parent for parent in path.absolute().parents if parent.exists())).is_dir():
            raise NotADirectoryError(f"{folder} is no folder")
    except Exception as error:  # every database raises its own errors
        return [_refusal(storage, error)]
    return []


def _refusal(storage: str | Path | None, error: Exception) -> str:
    return f"storage: '{storage}' cannot be opened as the storage of a search: {error}"


def _open_storage(storage: str | Path | None) -> BaseStorage:
    if storage is None:
        return optuna.storages.InMemoryStorage()
    if "://" in str(storage):
        return optuna.storages.RDBStorage(str(storage))
    path = user_path(storage)
    path.parent.mkdir(parents=True, exist_ok=True)
    return optuna.storages.JournalStorage(JournalFileBackend(str(path)))


class _Sampler(optuna.samplers.NSGAIISampler):
    """NSGA-II for a single draw: the proposal is stored at once together with its owner, not value by value."""

    def __init__(self, search: FrontSearch, draw_index: int, generation: int) -> None:
        seed = int(hashlib.sha256(f"{search.seed} {generation} {draw_index}".encode()).hexdigest()[:8], 16)
        super().__init__(population_size=search.population, mutation_prob=0.0, seed=seed)
        self.search, self.draw_index, self.generation, self.rng = search, draw_index, generation, Random(seed)

    def __call__(self, breed: bool) -> Shape:
        """Propose the shape of this draw: bred from the earlier generations, or sampled from the space."""
        search = self.search
        if self.generation == 0 and self.draw_index < len(search.first):
            return search.first[self.draw_index]
        if self.generation == 0 or not breed:
            return search.space.sample(self.rng)
        # selecting the parents first fixes their order, which is another one in the call that selects them
        self.get_parent_population(search.study, self.generation)
        child: dict[str, int] = self.sample_relative(search.study, None, search.distributions)  # type: ignore[arg-type]
        return search.space.mutate(search.shape(child), self.rng, search.mutation)

    def get_trial_generation(self, study: optuna.Study, trial: FrozenTrial) -> int:
        """Return the generation of this draw."""
        return self.generation

    def get_population(self, study: optuna.Study, generation: int) -> list[FrozenTrial]:
        """Return the finished trials of a generation."""
        finished = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        return [trial for trial in finished if _claim_of(trial).get("generation") == generation]


@dataclass(frozen=True)
class FrontSearch:
    """A search that continues from the trials in its study.

    Attributes:
        study: The study, see :func:`open_study`.
        space: The shapes to search.
        price: Cost of a shape, and its excess over the bound.
        first: Shapes to begin with.
        population: Shapes in a generation.
        mutation: Probability that a value of a child changes.
        seed: Determines the proposals.
        alone: No other process uses the study: unfinished trials were left by an interrupted run of this search.
        open_trials: Numbers of the trials that this search has claimed but not finished.
    """

    study: optuna.Study
    space: Space
    price: Price
    first: Sequence[Shape]
    population: int = 25
    mutation: float = 0.25
    seed: int = 0
    alone: bool = True
    open_trials: set[int] = field(default_factory=set)

    def __call__(self, score: Score, total: int) -> Iterator[dict[Shape, float]]:
        """Score shapes until ``total`` are scored or none is left; yield all scores after every batch."""
        empty_generations, yielded, lost = self._count_empty_generations(), 0, len(self._trials(TrialState.FAIL))
        try:
            while True:
                running = self._running()
                before, lost = lost, len(self._trials(TrialState.FAIL))
                if lost > before and not self.alone:
                    empty_generations = 0  # the shapes of a lost process may be proposed again
                exhausted = empty_generations >= MAX_EMPTY_GENERATIONS
                room = 0 if exhausted else total - len(self.scores()) - len(running)
                if trials := self._propose(room) if room > 0 else []:
                    results = iter(score([trial.shape for trial in trials if trial.excess <= 0]))
                    for trial in trials:
                        self._finish(trial.number, [next(results) if trial.excess <= 0 else -math.inf, trial.cost])
                    empty_generations = 0 if any(trial.excess <= 0 for trial in trials) else empty_generations + 1
                    scores = self.scores()
                    yielded = len(scores)
                    yield scores
                elif running:
                    time.sleep(1.0)  # until the others have finished their trials, or are lost
                    if room > 0:
                        empty_generations = MAX_EMPTY_GENERATIONS  # no shape is left to propose
                else:
                    break
            if len(scores := self.scores()) > yielded:  # others finished trials last, or before this search began
                yield scores
        finally:
            for number in tuple(self.open_trials):
                self._finish(number)

    def scores(self) -> dict[Shape, float]:
        """Return the score of every shape scored so far, by any process."""
        finished = [trial for trial in self._trials(TrialState.COMPLETE) if math.isfinite(trial.values[0])]
        return {Shape.from_json(_claim_of(trial)["shape"]): trial.values[0] for trial in finished}

    @cached_property
    def distributions(self) -> dict[str, BaseDistribution]:
        """Optuna's search space: an index into the values of every dimension that has more than one value."""
        sizes = {name: len(values) for name, values in self.space.dimensions.items() if len(values) > 1}
        return {name: optuna.distributions.IntDistribution(0, size - 1) for name, size in sizes.items()}

    def parameters(self, shape: Shape) -> dict[str, int]:
        """Convert a shape to Optuna's parameters."""
        values, dimensions = self.space.values(shape), self.space.dimensions
        return {name: dimensions[name].values.index(values[name]) for name in self.distributions}

    def shape(self, parameters: Mapping[str, int]) -> Shape:
        """Convert Optuna's parameters to a shape; inverse of :meth:`parameters`."""
        return self.space.build(
            {name: dimension.values[parameters.get(name, 0)] for name, dimension in self.space.dimensions.items()}
        )

    def _trials(self, *states: TrialState) -> list[FrozenTrial]:
        return list(self.study.get_trials(deepcopy=False, states=states))

    def _count_empty_generations(self) -> int:
        """Count the complete generations since the last one that has a shape within the bound."""
        _, generation = self._generation_sizes()
        fitting = [trial for trial in self._trials(TrialState.COMPLETE) if math.isfinite(trial.values[0])]
        return max(0, generation - 1 - max((int(_claim_of(trial)["generation"]) for trial in fitting), default=-1))

    def _generation_sizes(self) -> tuple[Counter[int], int]:
        """Return the number of finished trials of each generation, and the generation that is not complete."""
        sizes = Counter(int(_claim_of(trial)["generation"]) for trial in self._trials(TrialState.COMPLETE))
        last = max(sizes, default=0)
        return sizes, last + (sizes[last] >= self.population)

    def _running(self) -> list[FrozenTrial]:
        """Return the running trials of other processes; mark those that are lost as failed."""
        running = []
        for trial in self._trials(TrialState.RUNNING):
            if self.alone or _lost(_claim_of(trial)):
                self._finish(trial.number)
            else:
                running.append(trial)
        return running

    def _propose(self, most: int) -> list[OpenTrial]:
        """Claim shapes that no one has claimed: part of a generation, at most ``most`` of them within the bound."""
        sizes, generation = self._generation_sizes()
        count = self.population - sizes[generation] if self.alone else -(-self.population // 4)
        claims = [_claim_of(trial) for trial in self._trials(TrialState.COMPLETE, TrialState.RUNNING)]
        claimed = {Shape.from_json(claim["shape"]) for claim in claims if claim}
        limit = TRIES * self.population
        free = sorted(set(range(len(claims) + limit)) - {claim.get("draw") for claim in claims})
        trials: list[OpenTrial] = []
        for attempt, draw_index in enumerate(free[:limit]):
            if len(trials) == count or sum(trial.excess <= 0 for trial in trials) == most:
                break
            breed = attempt < limit / 2  # after that, the children of the parents seem to be exhausted
            shape = _Sampler(self, draw_index, generation)(breed)
            if shape in claimed:
                continue
            claimed.add(shape)
            cost, excess = self.price(shape)
            if breed or excess <= 0:
                number = self._start({"draw": draw_index, "generation": generation, "shape": shape.to_json()}, excess)
                trials += [OpenTrial(number, shape, cost, excess)] if number is not None else []
        return trials

    def _start(self, claim: Mapping[str, Any], excess: float) -> int | None:
        """Start a trial of a shape and return its number; None if another process was faster.

        A trial is stored together with its shape, and trials are numbered in the order in which they are stored. If two
        processes claim a shape at the same time, at least the later one sees both, and the lower number keeps it.
        """
        owned = {**claim, **_owner(), "token": uuid.uuid4().hex}
        trial = optuna.trial.create_trial(
            state=TrialState.RUNNING,
            params=self.parameters(Shape.from_json(claim["shape"])),
            distributions=self.distributions,
            user_attrs={ATTRIBUTE: owned},
            constraints={"bound": excess},
        )
        self.study.add_trial(trial)
        claims = {trial.number: _claim_of(trial) for trial in self._trials(TrialState.RUNNING, TrialState.COMPLETE)}
        same = {number: other for number, other in claims.items() if other.get("shape") == claim["shape"]}
        number = next(number for number, other in same.items() if other["token"] == owned["token"])
        self.open_trials.add(number)
        if all(other >= number for other in same):
            return number
        self._finish(number, state=TrialState.PRUNED)
        return None

    def _finish(self, number: int, values: Sequence[float] | None = None, state: TrialState | None = None) -> None:
        """Finish a trial, by default as complete with values and as failed without; others may have failed it."""
        final = state or (TrialState.COMPLETE if values is not None else TrialState.FAIL)
        self.study.tell(number, values, state=final, skip_if_finished=True)
        self.open_trials.discard(number)


def _claim_of(trial: FrozenTrial) -> dict[str, Any]:
    """Return what a trial records: draw, generation, shape and owner, as JSON; empty if limbeck did not write it."""
    claim: dict[str, Any] = trial.user_attrs.get(ATTRIBUTE, {})
    return claim


def _owner() -> dict[str, Any]:
    """Describe this process, as the owner of a trial."""
    pid = os.getpid()
    return {"host": socket.gethostname(), "pid": pid, "born": _start_time(pid), "asked": time.time()}


def _start_time(pid: int) -> float | None:
    """Return when a process of this machine started, as pids are reused; None if it has exited."""
    import psutil

    try:
        return float(psutil.Process(pid).create_time())
    except psutil.NoSuchProcess:
        return None


def _lost(claim: Mapping[str, Any]) -> bool:
    """Decide whether the owner of a claim will never finish its trial."""
    if not claim:
        return False
    if claim["host"] != socket.gethostname():
        return bool(time.time() - claim["asked"] > CLAIM_TIMEOUT)
    # a claim of this very process is one of an earlier search
    return bool(claim["pid"] == os.getpid() or claim["born"] != _start_time(claim["pid"]))
