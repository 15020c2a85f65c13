"""What cache keys have of a step beside its fields: which of them change nothing, and what decides results besides."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, Any

from limbeck.core.digests import content
from limbeck.core.field_groups import fields_of, parameters, values_of

if TYPE_CHECKING:
    from limbeck.core.step import Step
    from limbeck.core.target import Target
    from limbeck.core.task import Task


class Keyed:
    """A step whose results are stored under keys. Overridden where a key depends on more than the declaration says."""

    def idle_fields(self) -> Mapping[str, Any]:
        """Return the fields that change nothing beside the others, with the values that cache keys have for them.

        A name that is no field marks results that are others than before for these values of the fields alone.
        """
        return {}

    def decisive_services(self, read: Mapping[str, Any], task: Task, target: Target) -> Mapping[str, Any]:
        """Return what cache keys have of the services that the step reads.

        Less than ``read``, where a service decides nothing for these fields; more, to mark results that are others than
        before for such a task alone.

        Args:
            read: The services that ``info.reads`` names, with their values in keys.
            task: The task of the run.
            target: The target that the step reads, if it reads one.
        """
        return read

    def marks(self, traits: AbstractSet[str]) -> Mapping[str, Any]:
        """Return what marks, in cache keys, results that are others than before for candidates with these traits."""
        return {}


class ScoresParts(Keyed):
    """A step that scores the parts of a model by the slope of the loss on labels, or on answers of the model."""

    @property
    def samples_answers(self) -> bool:
        """Whether answers of the model decide, even where there are labels."""
        return False

    def decisive_services(self, read: Mapping[str, Any], task: Task, target: Target) -> Mapping[str, Any]:
        """Mark results that are others than before, by where labels come from.

        Of pairs that all have the same score, labels were once not sampled, and the slope was 0. Of words, answers were
        once sampled for all tokens, although only the first one of each word is read.

        Args:
            read: The services that the step reads.
            task: The task.
            target: Ignored.
        """
        if task.only_score is not None:
            return {**read, "labels": "sampled"}
        if task.task_kind.per_token and self.samples_answers:
            return {**read, "labels": "first-pieces"}
        return read


def identity(step: Step) -> dict[str, Any]:
    """Return the parameters that decide a result, as they enter the cache key.

    Left out are fields of ``info.neutral``, and those of ``info.added`` at their default; of files the content counts.
    """
    info, values = step.info, parameters(step) | dict(step.idle_fields())
    given, defaults = values_of(step), {f.name: f.default for f in fields_of(type(step))}
    unchanged = {name for name in info.added if given[name] == defaults[name]}
    decisive = {name: value for name, value in values.items() if name not in info.neutral | unchanged}
    return decisive | {name: content(decisive[name]) for name in info.files - unchanged}
