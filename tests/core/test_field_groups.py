from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Annotated

import pytest
from annotated_types import Gt

from limbeck.core.field_groups import build, check_fields, fields_of, group, groups_of, parameters, values_of


@dataclass(frozen=True)
class Schedule:
    epochs: Annotated[float, Gt(0)] = 3.0
    rate: float = 0.1


@dataclass(frozen=True)
class Learner:
    name: str
    schedule: Schedule = group(default=Schedule(rate=0.5))
    parts: tuple[int, ...] = (1, 2)


def test_fields_of_a_group_stand_where_it_is_declared_with_the_defaults_of_the_class():
    fields = fields_of(Learner)
    assert [(field.name, field.default, field.group) for field in fields] == [
        ("name", dataclasses.MISSING, ""),
        ("epochs", 3.0, "schedule"),
        ("rate", 0.5, "schedule"),
        ("parts", (1, 2), ""),
    ]
    assert [field.owner for field in fields] == [Learner, Schedule, Schedule, Learner]
    assert fields[1].hint == Annotated[float, Gt(0)]
    assert groups_of(Learner) == {"schedule": Schedule}


def test_an_instance_is_built_from_flat_fields_and_becomes_flat_again():
    learner = build(Learner, {"name": "a", "epochs": 1.0, "parts": (4,)})
    assert learner == Learner("a", Schedule(1.0, 0.5), (4,))
    assert values_of(learner) == {"name": "a", "epochs": 1.0, "rate": 0.5, "parts": (4,)}
    assert parameters(learner) == {"name": "a", "epochs": 1.0, "rate": 0.5, "parts": [4]}
    assert build(Learner, values_of(learner)) == learner
    assert build(Learner, {"name": "a"}) == Learner("a")


def test_a_field_that_does_not_exist_is_refused_with_the_nearest():
    with pytest.raises(TypeError, match="Learner has no field 'epoch'; did you mean 'epochs'"):
        build(Learner, {"name": "a", "epoch": 2})
    with pytest.raises(TypeError, match="no field 'schedule'"):
        build(Learner, {"name": "a", "schedule": Schedule()})


def test_two_fields_of_one_name_are_refused():
    @dataclass(frozen=True)
    class Twice:
        schedule: Schedule = group(default=Schedule())
        rate: float = 0.2

    @dataclass(frozen=True)
    class Same:
        rate: Schedule = group(default=Schedule())

    for cls in (Twice, Same):
        with pytest.raises(ValueError, match=f"{cls.__name__} has two fields called 'rate'"):
            check_fields(cls)
    check_fields(Learner)


def test_inherited_fields_are_refused_in_a_class_and_in_its_groups():
    @dataclass(frozen=True)
    class Longer(Schedule):
        warmup: int = 0

    @dataclass(frozen=True)
    class Holder:
        schedule: Longer = group(default=Longer())

    for cls in (Longer, Holder):
        with pytest.raises(TypeError, match="Longer inherits fields; give it a group of fields instead"):
            check_fields(cls)
