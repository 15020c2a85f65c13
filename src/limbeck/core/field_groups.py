"""Groups of fields: hyper-parameters that several steps share are a dataclass of their own, which each step has::

    class Finetune(Technique):
        training: TrainingConfig = group(default=TrainingConfig())
        keep: str = "best"

Python nests them: ``Finetune(training=TrainingConfig(num_train_epochs=1))``. Everywhere else (recipes, options of the
command line, cache keys, error messages) a step has one flat list of fields, which is made here. Each step declares its
own default of a group: ``group(default=TrainingConfig(learning_rate=1e-4))``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar, get_type_hints

from limbeck.errors import nearest

if TYPE_CHECKING:
    from limbeck.core.task_kind import TaskKind

T = TypeVar("T")
_MARK = "limbeck.group"


class CheckedGroup:
    """What a group inherits from if it checks its own fields; the step's checks then include those of the group."""

    def problems(self) -> list[str]:
        """Return what is wrong with the fields together."""
        return []

    def file_problems(self) -> list[str]:
        """Return what is wrong with the files that fields name."""
        return []

    def kind_problems(self, kind: TaskKind) -> dict[str, str]:
        """Return the fields that make no sense for a kind of task, with the reason."""
        return {}


def group(*, default: T) -> T:
    """Declare a field of a step that holds a group of fields.

    Args:
        default: The group with the defaults of this step, a frozen dataclass.

    Returns:
        The declaration of the field, which a type checker takes for its default.
    """
    declared: T = dataclasses.field(default=default, metadata={_MARK: True})
    return declared


@dataclass(frozen=True)
class FlatField:
    """A field as users see it, wherever it is kept.

    Attributes:
        name: Its name.
        owner: The dataclass that declares it: the step, or one of its groups.
        default: Its default in this step; ``dataclasses.MISSING`` if it is required.
        group: The field of the step that holds it; empty for a field of the step itself.
    """

    name: str
    owner: type
    default: Any  # a value of the field's type
    group: str = ""

    @property
    def hint(self) -> Any:  # an annotation is no type
        """Its annotation, with the bounds."""
        return hints_of(self.owner)[self.name]


@cache
def hints_of(cls: type) -> dict[str, Any]:
    """Return the annotations of a class, resolved, with the bounds."""
    return get_type_hints(cls, include_extras=True)


def fields_of(cls: type) -> tuple[FlatField, ...]:
    """Return the fields of a step class, or of any dataclass: those of a group stand where the group is declared."""
    flat: list[FlatField] = []
    for spec in dataclasses.fields(cls):
        default = spec.default if spec.default_factory is dataclasses.MISSING else spec.default_factory()
        if _MARK in spec.metadata:
            held = type(default)
            names = [f.name for f in dataclasses.fields(held)]  # type: ignore[arg-type]  # group() gave the default
            flat += [FlatField(name, held, getattr(default, name), spec.name) for name in names]
        elif spec.init:
            flat.append(FlatField(spec.name, cls, default))
    return tuple(flat)


def groups_of(cls: type) -> dict[str, type]:
    """Return the groups of a step class, by the name of their field."""
    return {spec.name: type(spec.default) for spec in dataclasses.fields(cls) if _MARK in spec.metadata}


def checked_groups(instance: Any) -> list[CheckedGroup]:  # any dataclass: a step has groups of any type
    """Return the groups of an instance that check themselves."""
    groups = (getattr(instance, name) for name in groups_of(type(instance)))
    return [held for held in groups if isinstance(held, CheckedGroup)]


def build(cls: type[T], values: Mapping[str, Any]) -> T:
    """Create an instance from flat fields; those of a group that are not given have the defaults of the class.

    Args:
        cls: A step class, or any dataclass.
        values: The fields by name.

    Returns:
        The instance.

    Raises:
        TypeError: The class has no such field.
    """
    fields = {field.name: field for field in fields_of(cls)}
    nested: dict[str, dict[str, Any]] = {}
    for name, value in values.items():
        if name not in fields:
            raise TypeError(f"{cls.__name__} has no field '{name}'; {nearest(name, fields)}")
        nested.setdefault(fields[name].group, {})[name] = value
    arguments = nested.pop("", {})
    for name, changes in nested.items():
        arguments[name] = dataclasses.replace(getattr(cls, name), **changes)
    return cls(**arguments)


def values_of(instance: Any) -> dict[str, Any]:  # any dataclass: a step, a target, a budget
    """Return the flat fields of an instance by name."""
    return {
        field.name: getattr(getattr(instance, field.group) if field.group else instance, field.name)
        for field in fields_of(type(instance))
    }


def changed(instance: T, **values: Any) -> T:  # Any: each field has a type of its own
    """Return an instance with some flat fields replaced, as ``dataclasses.replace`` does without groups.

    Args:
        instance: A step, or any dataclass.
        **values: New values by name.
    """
    return build(type(instance), values_of(instance) | values)


def without_effect(instance: Any, names: Iterable[str], reason: str) -> list[str]:
    """Return a problem for each of these fields that is not at its default, since it would change nothing.

    Args:
        instance: A step, or a group of fields.
        names: Fields that have no effect.
        reason: Why, as in 'without logits in match'.
    """
    values, defaults = values_of(instance), {field.name: field.default for field in fields_of(type(instance))}
    return [f"{name}: has no effect {reason}; leave it out" for name in names if values[name] != defaults[name]]


def parameters(instance: Any) -> dict[str, Any]:  # any dataclass: a step, a target, a budget
    """Return the flat fields of an instance as plain JSON values."""
    return {name: plain(value) for name, value in values_of(instance).items()}


def plain(value: Any) -> Any:
    """Return a value as JSON has it: dataclasses and mappings become objects, tuples lists."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, (tuple, list)):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    return value


def check_fields(cls: type) -> None:
    """Refuse a class with two fields of one name, or with fields that it inherits.

    Args:
        cls: A step class.

    Raises:
        TypeError: The class inherits from a dataclass.
        ValueError: Two fields, or a field and a group, have the same name.
    """
    names = [*groups_of(cls), *(field.name for field in fields_of(cls))]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"{cls.__name__} has two fields called '{twice[0]}'")
    for base in (cls, *groups_of(cls).values()):
        if any(dataclasses.is_dataclass(parent) for parent in base.__mro__[1:]):
            raise TypeError(f"{base.__name__} inherits fields; give it a group of fields instead")
