"""The three kinds of step (Technique, Probe, Choice), what a step declares about itself, and the registry of steps.

A step is a frozen dataclass that inherits from one of the three; its fields are its hyper-parameters, and those
that several steps share are groups of fields (``core/field_groups.py``)::

    @step(StepInfo("shorten", label="shortened", needs={"torch"}, reads={"seed"}))
    class Shorten(Technique):
        layers: int = 2

        def apply(self, candidate: Candidate, context: RunContext) -> Iterator[Candidate]: ...

What the engine has to know about a step is in its ``StepInfo``, a record that rejects unknown names; what depends on
the values of the fields is in methods of ``Step``, which have defaults.

Modules of techniques import torch inside ``apply``, so that the command line, ``check`` and ``plan`` start quickly.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, TypeVar, dataclass_transform

from limbeck.core.candidate import Candidate, Record, Reference, Stored
from limbeck.core.cost import Memo, TargetCost, measure_now
from limbeck.core.field_groups import build, check_fields, checked_groups, fields_of, group
from limbeck.core.measurement import Measurement
from limbeck.core.model import AnswersOnly
from limbeck.core.paths import fill_temporary
from limbeck.core.pieces import Divisible, Spread
from limbeck.core.search_space import Space
from limbeck.core.shape import Shape
from limbeck.core.step_keys import Keyed
from limbeck.core.target import Budget, Target
from limbeck.errors import nearest

if TYPE_CHECKING:
    from limbeck.core.task import Task
    from limbeck.core.task_kind import TaskKind

TRAITS = frozenset({"torch", "onnx", "int8", "teacher", "elastic", "exits", "cascade", "fewer_tokens"})
"""torch: weights that can be trained; onnx: an exported graph; int8: quantized; teacher: later steps may imitate it;
elastic: slices of it are good models too; exits: inner heads answer early, so that its weights stay as they are;
cascade: two models in one graph; fewer_tokens: some layers do not read all tokens."""

SERVICES = frozenset({"seed", "target", "budget", "teacher", "cost", "partner"})
"""What a step may declare in ``reads``; the other services are always there, and change no result."""


@dataclass(frozen=True)
class StepInfo:
    """What a step declares of itself.

    Attributes:
        name: How recipes call it.
        label: How it reads in the name of a candidate, such as 'pruned'; empty for the name itself.
        formerly: An earlier name: recipes may still use it, with a notice; cache keys keep it, as stored results do.
        version: Bump it when the same parameters give other results: stored results of other versions are not used.
        needs: Traits that a candidate must have.
        gives: Traits that the result has besides.
        drops: Traits that the result has no more.
        reads: Services of the ``RunContext`` that decide the result: they enter the cache key, others are refused.
        aliases: Shorter names of fields: alias -> field.
        presets: Named sets of field values: ``preset: name`` in a recipe; fields given beside it win.
        files: Fields that name files or folders: in recipes relative to the recipe's file; in the cache key their
            content counts, not the name.
        neutral: Fields that do not change the result and stay out of the cache key.
        sizes: Fields that say how small the result is: steps that differ in them alone make models of several sizes.
        added: Fields that are newer than stored results: out of the cache key while they have their default.
        example: Field values with which the step runs in seconds on a tiny model: what the laws run.
        trains: A technique whose result has a trained head.
        headless: A technique that looks at no answers, so it may come before the head is trained.
        keeps_model: A technique that changes the task alone.
        keeps_shape: A technique whose result has the shape that came in.
        every_process: A technique that calls ``fit``: where several processes train together, all of them run it;
            other steps run on process 0 alone.
        imitates: 'root' for a technique whose ``context.teacher`` is the recipe's model as it was given.
        standardizes: A technique that trains on standardized labels of a regression.
        with_teacher: A probe that measures the teacher first, beside the candidates.
        group: A probe whose facts compare only within one call.
        machine_bound: A probe whose facts hold on one machine alone; nothing else may run there meanwhile.
        at_target: A machine-bound probe that the measuring service of a target carries out, if it has one.
        judges: A probe of answers: refused before the head is trained.
        final: A choice whose result is what the user came for; other choices only narrow the front.
    """

    name: str
    _: dataclasses.KW_ONLY
    label: str = ""
    formerly: str = ""
    version: int = 1
    needs: AbstractSet[str] = frozenset()
    gives: AbstractSet[str] = frozenset()
    drops: AbstractSet[str] = frozenset()
    reads: AbstractSet[str] = frozenset()
    aliases: Mapping[str, str] = field(default_factory=dict)
    presets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    files: AbstractSet[str] = frozenset()
    neutral: AbstractSet[str] = frozenset()
    sizes: AbstractSet[str] = frozenset()
    added: AbstractSet[str] = frozenset()
    example: Mapping[str, Any] = field(default_factory=dict)
    trains: bool = False
    headless: bool = False
    keeps_model: bool = False
    keeps_shape: bool = False
    every_process: bool = False
    imitates: Literal["", "root"] = ""
    standardizes: bool = False
    with_teacher: bool = False
    group: bool = False
    machine_bound: bool = False
    at_target: bool = False
    judges: bool = False
    final: bool = False

    def __post_init__(self) -> None:
        if unknown := (self.needs | self.gives | self.drops) - TRAITS:
            raise ValueError(f"step '{self.name}': no trait '{min(unknown)}'; {nearest(min(unknown), TRAITS)}")
        if unknown := self.reads - SERVICES:
            raise ValueError(f"step '{self.name}': no service '{min(unknown)}'; {nearest(min(unknown), SERVICES)}")

    @property
    def key_name(self) -> str:
        """The name in cache keys."""
        return self.formerly or self.name


EQUAL_SCORES = "learns the order of the scores of pairs, and all have {:g}; use finetune: {{pair_loss: contrastive}}"
NO_TEACHER = "has no teacher; put 'finetune' before it or name one with 'teacher: MODEL'"


@dataclass(frozen=True)
class Teacher(Stored):
    """The model that later steps imitate and choices compare with; ``ancestor``: whether the candidate came from it."""

    ancestor: bool = False


def discard(message: str, **numbers: object) -> None:
    """Report to nobody: what ``log`` does unless given."""


@dataclass(frozen=True)
class RunContext:
    """The services of a run; fields only."""

    seed: int = 0
    target: Target = field(default_factory=Target)
    budget: Budget = field(default_factory=Budget)
    teacher: Teacher | None = None
    partner: Stored | None = None
    """The other candidate, of a combination (core/combination.py)."""
    reference: Reference | None = None
    cost: TargetCost | None = None
    keep: Callable[[str, Callable[[Path], None]], Path] = fill_temporary
    """Fill a folder once, keep it under ``name`` (which must identify the content), and return it; it is read-only."""
    memo: Memo = measure_now
    """Measure something of this machine once, alone on it, and store it."""
    scratch: Path | None = None
    """A folder for the step's own checkpoints: kept if the step is interrupted, removed when it is done."""
    spread: Spread | None = None
    """Have pieces of the step carried out by the run's workers (core/pieces.py); None where there are none."""
    log: Callable[..., None] = discard
    """Report to the user: a message, or numbers (step, total, loss) for progress and trackers."""


class Step(Divisible, Keyed, ABC):
    """What every step has: its declaration, and answers about it that depend on the values of its fields."""

    info: ClassVar[StepInfo]

    @classmethod
    def of(cls, **values: Any) -> Self:  # Any: each field has a type of its own
        """Create a step from flat fields, as recipes have them; those of its groups need not be nested."""
        return build(cls, values)

    def problems(self) -> list[str]:
        """Return what is wrong with the step's own fields together; ``problems_of`` adds those of its groups."""
        return []

    def required_traits(self) -> AbstractSet[str]:
        """Return traits that these parameters need, besides those of ``info.needs``."""
        return frozenset()

    def further_traits(self) -> AbstractSet[str]:
        """Return traits that these parameters give the result besides those of ``info.gives``."""
        return frozenset()

    def trait_problems(self, traits: AbstractSet[str]) -> list[str]:
        """Return why the step cannot take a candidate with these traits, besides those that it needs and lacks."""
        return []

    def file_problems(self) -> list[str]:
        """Return what is wrong with the files that fields name; those of the groups, unless overridden."""
        return [text for group in checked_groups(self) for text in group.file_problems()]

    def epoch_problems(self, *, epochs: bool) -> list[str]:
        """Return what the step lacks in its teacher, which has the weights of every epoch or not (``epochs``)."""
        return []

    def keeps_epochs(self) -> bool:
        """Return whether the result, as a teacher, comes with the weights of every epoch."""
        return False

    def teacher_problems(self, teacher: AnswersOnly) -> list[str]:
        """Return why the step cannot learn from a teacher that only gives answers; empty if it can."""
        if self.info.imitates or "teacher" not in needs(self) or "teacher" not in self.info.reads:
            return []
        return [f"needs a teacher that limbeck opens, and '{teacher.source}' only gives answers: {teacher.reason}"]

    def kind_problems(self, kind: TaskKind) -> dict[str, str]:
        """Return the fields that make no sense for a kind, '' for the step; those of the groups, unless overridden."""
        return {name: text for group in checked_groups(self) for name, text in group.kind_problems(kind).items()}

    def label_problems(self, kind: TaskKind) -> dict[str, str]:
        """Return the fields that need labels, with what to use for texts without; '' stands for the step itself."""
        return {}

    def equal_label_problems(self, task: Task) -> dict[str, str]:
        """Return the fields that learn nothing from labels that are alike, '' for the step: those that need labels."""
        if (score := task.only_score) is None:
            return {}
        return dict.fromkeys(self.label_problems(task.task_kind), EQUAL_SCORES.format(score))

    def task_problems(self, task: Task) -> dict[str, str]:
        """Return the fields that make no sense for a task, with the reason; '' stands for the step itself."""
        unlabeled = self.label_problems(task.task_kind) if task.answered_by is not None else {}
        return unlabeled or self.equal_label_problems(task) | self.kind_problems(task.task_kind)

    def budget_problems(self, budget: Budget) -> list[str]:
        """Return what the step needs of a recipe's budget and does not find there."""
        return []

    def target_problems(self, target: Target, others: Sequence[Step]) -> dict[str, str]:
        """Return the fields ('': the step) that do not suit the target beside the recipe's other steps, and why."""
        return {}

    def goal_target(self) -> str | None:
        """Return the name of the target that a goal in latency is for: '' for the first; None without such a goal."""
        return None

    def required_splits(self) -> tuple[str, ...]:
        """Return the splits of the task that the step reads because a field names them."""
        return ()

    def max_tokens(self) -> int:
        """Return how many tokens a text may have afterwards, where the step decides it; else 0."""
        return 0

    def rows_after(self, rows: Mapping[str, int]) -> Mapping[str, int]:
        """Return the number of texts in each split afterwards."""
        return rows

    def shape_after(self, shape: Shape) -> Shape | None:
        """Return the shape that comes out; None where it is not known before, or is impossible."""
        return shape if self.info.keeps_shape else None

    def search_space(self, shape: Shape) -> Space | None:
        """Return the space of slices that the result of this shape is trained for; None if it is no super-network."""
        return None

    def result_count(self) -> int:
        """Return how many candidates come out of one."""
        return 1

    def estimated_seconds(self, shape: Shape, rows: Mapping[str, int], tokens: float) -> float | None:
        """Estimate how long the step takes, roughly.

        Args:
            shape: The shape that comes in.
            rows: Number of texts in each split.
            tokens: Tokens of a text, on average.

        Returns:
            Seconds; None where nothing can be said before.
        """
        return None

    def teacher_texts(self, rows: Mapping[str, int]) -> float:
        """Return how many texts the teacher reads meanwhile, whose time ``estimated_seconds`` leaves out."""
        return 0.0


class Technique(Step):
    """Turns one candidate into others (usually one). It owns the model it receives: in-place surgery is legal."""

    @abstractmethod
    def apply(self, candidate: Candidate, context: RunContext) -> Iterable[Candidate]:
        """Yield the candidates made of this one."""


class Probe(Step):
    """Measures candidates and changes none of them.

    All candidates that reached the probe come together, because times are comparable only when they alternate.
    """

    def prepares(self, kind: TaskKind, target: Target) -> bool:
        """Return whether ``work_on`` of an empty piece keeps, for a single candidate, what ``measure`` reads of it."""
        return False

    def newer_facts(self, budget: Budget) -> AbstractSet[str]:
        """Return the facts that a budget needs and that stored results of earlier versions may lack."""
        return frozenset()

    @abstractmethod
    def measure(self, candidates: Sequence[Candidate], context: RunContext) -> Iterable[tuple[int, Measurement]]:
        """Yield facts, each with the index of its candidate; unless it is a ``group``, one candidate after another."""


class Choice(Step):
    """Selects records by their facts."""

    fastest_wins: ClassVar[bool] = False  #: of those that meet the budget

    @abstractmethod
    def choose(self, records: Sequence[Record], context: RunContext) -> Sequence[Record]:
        """Return the records to keep, best first where there is an order."""


REGISTRY: dict[str, type[Step]] = {}
S = TypeVar("S", bound=Step)


@dataclass_transform(frozen_default=True, field_specifiers=(field, group))
def step(info: StepInfo) -> Callable[[type[S]], type[S]]:
    """Make a class a frozen dataclass, give it its declaration, and register it.

    Args:
        info: The declaration; fields that it names must be fields of the class.

    Returns:
        The decorator.

    Raises:
        TypeError: the class is no technique, probe or choice, or inherits fields.
        ValueError: two steps have the same name, or two fields; or ``info`` names a field that the class does not have.
    """

    def decorate(cls: type[S]) -> type[S]:
        if not issubclass(cls, (Technique, Probe, Choice)):
            raise TypeError(f"step '{info.name}': inherit from Technique, Probe or Choice")
        if info.name in REGISTRY:
            raise ValueError(f"two steps are called '{info.name}'")
        decorated = dataclass(frozen=True)(cls)
        check_fields(decorated)
        names = {f.name for f in fields_of(decorated)}
        named = {*info.aliases.values(), *info.files, *info.neutral, *info.sizes, *info.added, *info.example}
        if unknown := named - names:
            raise ValueError(f"step '{info.name}': no field '{min(unknown)}'; {nearest(min(unknown), names)}")
        decorated.info = info
        REGISTRY[info.name] = decorated
        return decorated

    return decorate


def registered(name: str) -> type[Step] | None:
    """Return the step class of that name, which may be an earlier one; None where there is none."""
    return REGISTRY.get(current_name(name))


def current_name(name: str) -> str:
    """Return today's name of a step for its earlier one; any other name as it is."""
    return next((today for today, cls in REGISTRY.items() if cls.info.formerly == name), name)


def find(name: str) -> type[Step]:
    """Return the step class of that name; the error names the nearest."""
    if (cls := registered(name)) is None:
        raise KeyError(f"no step called '{name}'; {nearest(name, REGISTRY)}")
    return cls


def needs(step: Step) -> frozenset[str]:
    """Return the traits that a step with these parameters needs."""
    return frozenset(step.info.needs | step.required_traits())


def problems_of(step: Step) -> list[str]:
    """Return what is wrong with the fields of a step and of its groups together."""
    return [*step.problems(), *(text for group in checked_groups(step) for text in group.problems())]
