"""What records say of a model: whether its answers must still be trained, and whether a step can take it."""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet

from limbeck.core.analytic_cost import as_shape
from limbeck.core.candidate import Record
from limbeck.core.early_exits import refusal
from limbeck.core.model import Runnable
from limbeck.core.step import REGISTRY, Step, find, needs
from limbeck.errors import InputError
from limbeck.model.onnx.onnx_model import OnnxModel
from limbeck.recipe.checks import before_training
from limbeck.recipe.parsing import LocatedStep

ROOT_VERSION = 2
"""Of the records; 2: a head of which any part is missing counts as untrained."""
FRESH_HEAD = "has no trained head for this task"
"""Beginning of the note on a root whose answers must still be trained."""


def untrained(record: Record) -> str:
    """Return why the answers of a root must still be trained; empty if they need not."""
    return next((note for note in record.notes if note.startswith(FRESH_HEAD)), "")


def check_trained(record: Record, source: str, teacher: str | None) -> None:
    """Refuse a teacher whose answers were never trained, whatever the store holds of it.

    Args:
        record: The record of an input model.
        source: Folder or hub name of the model.
        teacher: That of the recipe's teacher; None if it names none.
    """
    if source == teacher and (note := untrained(record)):
        raise InputError(f"teacher '{source}' {note}; fine-tune it first, then name its folder")


def check_head(root: Record, model: str, steps: Sequence[LocatedStep]) -> None:
    """Refuse to work with answers that were never trained.

    Args:
        root: The record of the model that a recipe begins with.
        model: Its folder or hub name.
        steps: The steps of the recipe.
    """
    if (reason := untrained(root)) and (early := before_training(steps)):
        infos = [cls.info for _, cls in sorted(REGISTRY.items())]
        first = [info.name for info in infos if info.trains and not refusal(find(early[0].name).info, info.gives)]
        trainers = " or ".join(f"'{name}'" for name in first)
        raise InputError(
            f"'{model}' {reason}, and '{early[0].name}' ({early[0].path}) works on trained answers; "
            f"put {trainers} before it"
        )


def check_graph(model: Runnable) -> None:
    """Open the graph of an exported model: a damaged one is an error before any step begins."""
    if isinstance(model, OnnxModel):
        model.session()


def check_traits(step: Step, parent: Record, always: AbstractSet[str]) -> None:
    """Refuse a step that needs traits which a model lacks, or that cannot follow early exits.

    Args:
        step: The step.
        parent: The record of the model that it would take.
        always: Traits that every model of the run counts as having.
    """
    if missing := ", ".join(sorted(needs(step) - parent.traits - always)):
        raise InputError(f"{step.info.name} needs a candidate with {missing}; {parent.key} has none")
    if reason := refusal(step.info, parent.traits):
        raise InputError(f"{step.info.name} {reason}")
    if texts := step.trait_problems(parent.traits):
        raise InputError(f"{step.info.name}: {texts[0]}")


def root_record(key: str, role: str, source: str, model: Runnable) -> Record:
    """Return the record of an input model.

    Args:
        key: Its key.
        role: 'model' or 'teacher'.
        source: Folder or hub name of the model.
        model: The model.
    """
    note = f"{FRESH_HEAD}: {model.untrained}" if model.untrained else FRESH_HEAD
    traits = {"torch"} if model.runtime == "torch" else {"onnx"}
    if model.space:
        traits.add("elastic")
    if model.leaves_early:
        traits.add("exits")
    if as_shape(model.shape).tokens:
        traits.add("fewer_tokens")
    if isinstance(model, OnnxModel) and model.cascade is not None:
        traits.add("cascade")
    if role == "teacher":
        traits.add("teacher")
    notes = (note,) if model.fresh_head else ()
    return Record(key, None, role, {"source": source}, model.shape, frozenset(traits), notes=notes)
