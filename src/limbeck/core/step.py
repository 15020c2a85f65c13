"""The three verbs (Technique, Probe, Choice), the services they may use (RunContext), and the registry of steps.

A step is a frozen dataclass whose fields are its hyper-parameters. ``@step("name", ...)`` adds four facts:

* ``needs`` / ``gives`` / ``drops``: traits, so that a recipe can be checked before anything runs;
* ``reads``: the ``RunContext`` services that decide its result; they enter the cache key, and others are refused;
* ``version``: bump it when the same parameters give other results.

A class may say more of itself: ``trains`` (a technique: what it gives has a trained head), ``headless`` (a technique:
it looks at no answers, so it may come before the head is trained), ``keeps_model`` (a technique: only the task
changes), ``every_process`` (a technique: it calls ``fit``, so where several processes train together all of them run
it; other steps run on process 0 alone), ``imitates`` ("root": its ``context.teacher`` is the recipe's model as it was
given), ``with_teacher`` (a probe: the teacher comes first among its candidates), ``group`` (facts hold only beside
those of the same call), ``machine_bound`` (facts hold on this machine alone, and nothing else may be timed meanwhile),
``aliases`` (shorter names of fields), ``added`` (fields that are newer than stored results, see ``identity``),
``presets`` (name -> fields: in a recipe ``preset: name`` stands for those fields, and fields given beside it win) and
``files`` (fields that name files or folders: in a recipe relative to it, and in the cache key the content counts, not
the name; a method ``missing`` tells what is wrong with them before anything runs). A method ``requires`` names traits
that the parameters need besides; ``unbounded`` tells, of a recipe's budget, that it does not give the bound that the
step needs; ``out_of_reach`` says, of the model that comes in and before the steps ahead of it train, why nothing can
meet the step's goal (see ``engine/reachability.py``).

A technique's module imports nothing heavy: torch is imported inside ``apply``, so that the command line, ``check``
and ``plan`` answer at once.
"""

from __future__ import annotations

import dataclasses
import hashlib
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar, runtime_checkable

from limbeck.core.candidate import Candidate, Record
from limbeck.core.measurement import Measurement
from limbeck.core.target import Budget, Target
from limbeck.errors import UndeclaredService, nearest

TRAITS = frozenset({"torch", "onnx", "int8", "teacher", "elastic"})
"""torch: weights that can be trained; onnx: an exported graph; int8: quantized; teacher: later steps may imitate it;
elastic: slices of it are good models too."""

SERVICES = frozenset({"seed", "target", "budget", "teacher", "cost"})
"""What a step may declare in ``reads``; ``keep``, ``scratch`` and ``log`` change no result and are always there."""


@dataclass(frozen=True)
class Teacher:
    """The unpruned model that later steps imitate and choices compare with; opened only when asked for."""

    key: str
    open: Callable[[], Candidate]
    record: Record | None = None
    """What is known of it, with the facts measured so far."""


def _anew(name: str, build: Callable[[Path], None]) -> Path:
    """Without a store: fill a folder that the operating system clears away."""
    folder = Path(tempfile.mkdtemp(prefix="limbeck-"))
    build(folder)
    return folder


@dataclass(frozen=True)
class RunContext:
    """The services of a run; fields only."""

    seed: int = 0
    target: Target = field(default_factory=Target)
    budget: Budget = field(default_factory=Budget)
    teacher: Teacher | None = None
    cost: Callable[..., Measurement] | None = None
    keep: Callable[[str, Callable[[Path], None]], Path] = _anew
    """Fill a folder once and keep it under ``name`` (which must identify the content); returns it, to be read only."""
    scratch: Path | None = None
    """A folder for this step's own checkpoints: kept if the step is interrupted, removed when it is done."""
    log: Callable[..., None] = lambda message, **numbers: None
    """Tell the person watching: a message worth a line, or numbers (step, total, loss) for progress and trackers."""


class RestrictedContext:
    """A RunContext that shows only the declared services.

    >>> RestrictedContext(RunContext(seed=3), {"seed"}, "prune").seed
    3
    """

    def __init__(self, context: RunContext, reads: Iterable[str], step: str) -> None:
        self._context, self._reads, self._step = context, frozenset(reads), step

    def __getattr__(self, name: str) -> Any:
        if name in SERVICES and name not in self._reads:
            raise UndeclaredService(f"step '{self._step}' used context.{name}; add '{name}' to its reads")
        return getattr(self._context, name)


@runtime_checkable
class Technique(Protocol):
    """Turns one candidate into others (usually one). It owns the model it receives: in-place surgery is legal."""

    name: ClassVar[str]

    def apply(self, candidate: Candidate, context: RunContext) -> Iterable[Candidate]:
        """Yield the candidates made of this one."""
        ...


@runtime_checkable
class Probe(Protocol):
    """Measures candidates and changes none of them.

    All candidates that reached the probe come together, because times are comparable only when they alternate.
    Yields (index of the candidate, fact).
    """

    name: ClassVar[str]

    def measure(self, candidates: Sequence[Candidate], context: RunContext) -> Iterable[tuple[int, Measurement]]:
        """Yield facts, each with the index of the candidate that it is about."""
        ...


@runtime_checkable
class Choice(Protocol):
    """Selects records by their facts."""

    name: ClassVar[str]

    def choose(self, records: Sequence[Record], context: RunContext) -> Sequence[Record]:
        """The records to keep, best first where there is an order."""
        ...


REGISTRY: dict[str, type] = {}
S = TypeVar("S", bound=type)


def step(
    name: str,
    *,
    needs: Iterable[str] = (),
    gives: Iterable[str] = (),
    drops: Iterable[str] = (),
    reads: Iterable[str] = (),
    version: int = 1,
) -> Callable[[S], S]:
    """Make a class a frozen dataclass, give it its four facts, and register it under ``name``."""

    def decorate(cls: S) -> S:
        made: Any = dataclass(frozen=True)(cls)
        facts: dict[str, Any] = {"name": name, "reads": frozenset(reads), "version": version}
        facts |= {"needs": frozenset(needs), "gives": frozenset(gives), "drops": frozenset(drops)}
        assert facts["needs"] | facts["gives"] | facts["drops"] <= TRAITS, f"{name}: unknown trait"
        assert facts["reads"] <= SERVICES, f"{name}: unknown service"
        assert name not in REGISTRY, f"two steps are called {name}"
        for key, value in facts.items():
            setattr(made, key, value)
        REGISTRY[name] = made
        return made

    return decorate


def find(name: str) -> type:
    """The step class of that name; the error names the nearest."""
    if name not in REGISTRY:
        raise KeyError(f"no step called '{name}'; {nearest(name, REGISTRY)}")
    return REGISTRY[name]


def needs(step: Any) -> frozenset[str]:
    """Traits that a step with these parameters needs: those of its class, and those that ``requires`` adds."""
    return frozenset(step.needs | (step.requires() if hasattr(step, "requires") else set()))


def parameters(step: Any) -> dict[str, Any]:
    """The fields of a step as plain JSON values."""
    return {f.name: _plain(getattr(step, f.name)) for f in dataclasses.fields(step)}


def identity(step: Any) -> dict[str, Any]:
    """The parameters that decide a result: all but those that the class lists as ``neutral``; of files the content.

    Fields that the class lists as ``added`` came after results were stored: at their default, which changes nothing,
    they stay out, so that those results are still found.
    """
    left_out = set(getattr(step, "neutral", frozenset()))
    defaults = {f.name: f.default for f in dataclasses.fields(step)}
    left_out |= {name for name in getattr(step, "added", frozenset()) if getattr(step, name) == defaults[name]}
    decisive = {name: value for name, value in parameters(step).items() if name not in left_out}
    return decisive | {name: content(decisive[name]) for name in getattr(step, "files", ())}


def content(value: Any) -> Any:
    """Digests in place of the files and folders that ``value`` names; other names stand for themselves."""
    if isinstance(value, list):
        return [content(one) for one in value]
    path = Path(value).expanduser() if isinstance(value, str) else None
    if path is not None and path.is_dir():
        files = sorted(one for one in path.rglob("*") if one.is_file())
        return [[one.relative_to(path).as_posix(), file_digest(one)] for one in files]
    return file_digest(path) if path is not None and path.is_file() else value


def file_digest(path: Path) -> str:
    """Hash of a file's content, read again only when its size or time of change is another."""
    about = path.stat()
    return _read_digest(str(path), about.st_mtime_ns, about.st_size)


@lru_cache(maxsize=256)
def _read_digest(file: str, changed: int, size: int) -> str:
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()[:16]


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    return value
