"""Orders: one technique on one stored candidate, as plain data that another process can carry out.

An order names the store, the recipe, the step by its path, and the candidate by its key. Its result is the records of
the children; their objects are in the store. So whoever gave it finds them there as if it had made them itself.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from limbeck import errors
from limbeck.core.candidate import Record, lineage
from limbeck.core.combination import Combination, as_made, as_written
from limbeck.core.pieces import KnownResults, PiecesWanted
from limbeck.core.step import Step, Technique
from limbeck.distributed.workers import Log, Values
from limbeck.engine.builder import CandidateBuilder
from limbeck.engine.store.fingerprint import fingerprint
from limbeck.engine.store.ledger import record_to_json
from limbeck.engine.store.provenance import Provenance
from limbeck.engine.store.store import Store, refusal
from limbeck.engine.store.stored_form import read_record
from limbeck.engine.store.transfer import KEPT_PREFIX, TASK, has, pack, unpack
from limbeck.errors import LimbeckError, StepFailed, StoreError
from limbeck.model.location import model_folder
from limbeck.recipe.parsing import LocatedStep, leaves
from limbeck.recipe.recipe import Recipe, parse, placed_steps, to_data
from limbeck.storage.disk import disk_full

OPEN_STORE: Callable[[Path], Store] = Store
"""Opens the store of an order; tests replace it."""


NO_TEACHER = "the recipe's teacher only gives answers, and is not there as it was when the run began"
"""Why a machine cannot ask the teacher."""
OTHER_KIND = "it has another processor or other versions than the one that ordered"
"""Why a machine cannot make the same as the one that ordered."""


def needs_other_machine(reason: str) -> Values:
    """Return the outcome where only another machine can make the same."""
    return {"elsewhere": f"{socket.gethostname()} cannot: {reason}"}


def reason_of(outcome: Mapping[str, Any]) -> str:
    """Return why an order has no records and no error."""
    return str(outcome.get("elsewhere", f"no worker has {', '.join(outcome.get('missing', ()))}"))


def order(builder: CandidateBuilder, key: str, placed: LocatedStep, seed: int, token: str) -> Values:
    """Return the order to apply a step to a candidate.

    ``results`` may be added to it: those of pieces that the step wants, by name. Without it the step does everything
    itself.

    Args:
        builder: Knows how the candidate and its teacher were made.
        key: Key of the candidate.
        placed: The step.
        seed: Seed of everything random.
        token: File in the store's folder of locks, by which a worker knows that it sees the same store.
    """
    step = placed.step
    teacher = builder.teacher(key, step) if "teacher" in step.info.reads else None
    ancestors = lineage(builder.records, key)
    if teacher is not None and teacher in builder.records:
        ancestors += lineage(builder.records, teacher)
    for record in ancestors:  # and of those that are added
        origin = builder.origins.get(record.key)
        if origin is not None and isinstance(origin.step, Combination):
            ancestors += lineage(builder.records, origin.step.partner)
    paths = _paths(builder.recipe)
    return {
        "store": str(builder.store.root),
        "token": token,
        "objects": {},
        "recipe": to_data(builder.recipe, full=True),
        "sources": builder.sources,
        "task": builder.store.keep_task(builder.task),
        "records": [_described(each, builder, seed, paths) for each in {own.key: own for own in ancestors}.values()],
        "key": key,
        "path": placed.path,
        "seed": seed,
        "base": builder.child_base(key, step, seed) if isinstance(step, Technique) else None,
        "given": builder.given_key,
        "needed": [name for name in (key, teacher) if name is not None and name != builder.given_key],
    }


def _paths(recipe: Recipe) -> dict[Step, str]:
    """Return where each step first stands in a recipe."""
    return {placed.step: placed.path for placed in reversed(list(leaves(placed_steps(recipe))))}


def _described(record: Record, builder: CandidateBuilder, seed: int, paths: Mapping[Step, str]) -> Values:
    """Return a record with how it was made: its place in the recipe, and what its key depends on besides."""
    origin = builder.origins.get(record.key, Provenance(seed))
    provenance = {"seed": origin.seed, "index": origin.index, "source": origin.source, "role": origin.role}
    path = None
    if origin.step is not None:
        path = paths[origin.step if origin.step in paths else as_written(origin.step)]
    return {"record": record_to_json(record), "made": provenance, "path": path}


@dataclass(frozen=True)
class Setting:
    """What an order is carried out with: a builder that knows what the one who gave it knows, and the step."""

    builder: CandidateBuilder
    step: Step
    shared: bool
    """Whether the store is that of the one who gave the order."""


def open_order(payload: Values, report: Log) -> Setting | Values:
    """Return what an order is carried out with; or ``missing``, what has to be sent first.

    Args:
        payload: The order.
        report: Receives messages and progress.
    """
    shared = _is_shared(payload)
    store = OPEN_STORE(Path(payload["store"])) if shared else Store()
    store.notify = lambda message: report({"note": message})
    store.machine.used = lambda use: report({"use": use._asdict()})
    store.prepare()
    if not shared:
        for name, data in payload["objects"].items():
            unpack(store, name, data)
        needed = (*payload["needed"], f"{TASK}{payload['task']}")  # an object comes with its own task, maybe another
        if missing := [name for name in needed if not has(store, name)]:
            return {"missing": missing}
    recipe = parse(payload["recipe"])

    def log(step: str, key: str, message: str, /, **numbers: float) -> None:
        report({"step": step, "key": key, "message": message, "numbers": numbers})

    builder = CandidateBuilder(recipe, store.task(payload["task"]), store, log=log)
    builder.sources.update(payload["sources"])
    builder.find_given = lambda: payload["given"]  # the teacher may be where the run alone sees it
    steps = {placed.path: placed.step for placed in leaves(placed_steps(recipe))}
    for described in payload["records"]:
        record = read_record(described["record"])
        builder.records[record.key] = record
        maker = steps.get(described["path"])
        technique = as_made(maker, record.parameters) if isinstance(maker, Technique) else None
        builder.origins[record.key] = Provenance(step=technique, **described["made"])
    step = steps[payload["path"]]
    if _lacks_teacher(builder, payload["key"], step):
        return needs_other_machine(NO_TEACHER)
    return Setting(builder, step, shared)


def _lacks_teacher(builder: CandidateBuilder, key: str, step: Step) -> bool:
    """Return whether a step asks a teacher that only gives answers, and it is not here as it was when the run began."""
    given, source = builder.given_key, builder.recipe.teacher
    if given is None or source is None or "teacher" not in step.info.reads or builder.teacher(key, step) != given:
        return False
    return fingerprint(model_folder(source) or source) != builder.sources[source]


def carry_out_order(payload: Values, report: Log) -> Values:
    """Carry out an order.

    Args:
        payload: The order.
        report: Receives messages and progress.

    Returns:
        ``records``: the children, as JSON; or ``error`` with the name of its class and its message; or ``elsewhere``,
        why only another machine can make the same; or ``wanted``: pieces whose results the step waits for.
    """
    try:
        return _carried_out(payload, report)
    except Exception as error:  # it concerns this candidate alone: whoever gave the order reports it
        return failure(payload, error)


def failure(payload: Values, error: Exception) -> Values:
    """Return the outcome of an order that ended with an error.

    The error of a store that is this machine's own concerns nobody else: another machine can make the same.

    Args:
        payload: The order.
        error: The error.
    """
    if disk_full(error) and not isinstance(error, StoreError):
        error = StoreError(refusal(error, Path(payload["store"]) if _is_shared(payload) else Store().root))
    if isinstance(error, StoreError) and not _is_shared(payload):
        return needs_other_machine(str(error))
    return {"error": type(error).__name__, "message": str(error), "expected": isinstance(error, LimbeckError)}


def _is_shared(payload: Values) -> bool:
    """Return whether the store of whoever gave an order is seen here."""
    return Path(payload["store"], "locks", payload["token"]).is_file()


def _carried_out(payload: Values, report: Log) -> Values:
    opened = open_order(payload, report)
    if not isinstance(opened, Setting):
        return opened
    builder, step = opened.builder, opened.step
    assert isinstance(step, Technique)
    base = builder.child_base(payload["key"], step, payload["seed"])
    if base != payload["base"]:
        return needs_other_machine(OTHER_KIND)
    if "results" in payload:
        spread = KnownResults(payload["results"])
        builder.spread = lambda first: spread if first == base else None  # no other step that has to be done again
    try:
        records, _ = builder.children(builder.records[payload["key"]], step, payload["seed"])
    except PiecesWanted as wanted:
        return {"wanted": {"pieces": wanted.pieces, "shared": wanted.shared}}
    objects = {} if opened.shared else {record.key: pack(builder.store, record.key) for record in records}
    return {"base": base, "records": [record_to_json(record) for record in records], "objects": objects}


def supply(store: Store, missing: Sequence[str]) -> Values | None:
    """Return what to add to an order whose worker has not got these objects; None if the store has lost some of them.

    Args:
        store: Where they should be.
        missing: Their names.
    """
    try:
        return {"objects": {name: pack(store, name) for name in missing}}
    except (StoreError, FileNotFoundError):
        return None


def restore(builder: CandidateBuilder, names: Sequence[str]) -> bool:
    """Make again what the store has lost, and return whether all of it is there.

    Args:
        builder: Knows how it was made.
        names: Names of objects, of the task, or of kept folders, which only their steps can make again.

    Raises:
        LimbeckError: It could not be made again.
    """
    for name in names:
        if name.startswith(TASK):
            builder.store.keep_task(builder.task)
        elif not name.startswith(KEPT_PREFIX):
            builder.ensure(name)
    return all(has(builder.store, name) for name in names)


def receive(store: Store, outcome: Values) -> None:
    """Keep what a worker made that does not share the store's folder.

    Args:
        store: Where to keep it.
        outcome: What :func:`carry_out_order` returned.
    """
    if objects := outcome.pop("objects", None):
        for name, data in objects.items():
            unpack(store, name, data)
        if "records" in outcome:
            store.facts.remember(f"children-{outcome['base']}", outcome["records"])


def error_of(outcome: Mapping[str, Any]) -> Exception | None:
    """Return the error that an order ended with, as it would have been raised here; None without one.

    Args:
        outcome: What :func:`carry_out_order` returned.
    """
    if "error" not in outcome:
        return None
    name, message = str(outcome["error"]), str(outcome["message"])
    cls = getattr(errors, name, None)
    if outcome["expected"] and isinstance(cls, type) and cls is not errors.MissingExtra:  # that one takes other words
        return cast(Exception, cls(message))
    return StepFailed(message if outcome["expected"] else f"{name}: {message}")


def records_of(outcome: Mapping[str, Any]) -> Iterable[Record]:
    """Return the records that an order made.

    Args:
        outcome: What :func:`carry_out_order` returned.
    """
    return [read_record(record) for record in cast(list[Values], outcome.get("records", []))]
