"""Which model figures are relative to, and what probes measure beside a front."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from limbeck.core.candidate import Record
from limbeck.core.measurement import Measurement
from limbeck.core.step import StepInfo
from limbeck.engine.reference import measured_with, reference
from limbeck.engine.root_record import FRESH_HEAD

FINETUNE, DISTILL, PRUNE = (
    StepInfo("finetune", trains=True, gives={"teacher"}),
    StepInfo("distill", trains=True),
    StepInfo("prune"),
)
SIZE, QUALITY = StepInfo("size", with_teacher=True), StepInfo("quality", with_teacher=True, judges=True)


def line(*infos, answers_only=True, fresh=False, measured=(), vectors=False):
    """A builder of one line of records '0', '1', ..., and the teacher 'given'."""
    keys = list(map(str, range(len(infos) + 1)))
    fact = Measurement("size", 1.0, "B")
    records = {
        key: Record(key, str(number - 1) if number else None, "x", {}, None, frozenset(), (fact,) * (key in measured))
        for number, key in enumerate(keys)
    }
    notes = (FRESH_HEAD,) if fresh else ()
    records["0"] = Record("0", None, "model", {}, None, frozenset(), records["0"].facts, notes=notes)
    records["given"] = Record("given", None, "teacher", {}, None, frozenset())
    steps = [None, *(SimpleNamespace(info=info) for info in infos)]
    origins = {key: SimpleNamespace(step=step) for key, step in zip(keys, steps, strict=True)}
    key = "given" if answers_only else None
    task = SimpleNamespace(task_kind=SimpleNamespace(vectors=vectors), answered_by="given" if vectors else None)
    teacher = {"given_key": key, "teacher": lambda key, step=None: "given"}
    return SimpleNamespace(records=records, origins=origins, task=task, **teacher)


@pytest.mark.parametrize(
    ("infos", "fresh", "expected"),
    [
        ((FINETUNE, DISTILL, PRUNE, DISTILL), True, "1"),
        ((FINETUNE, DISTILL, PRUNE, DISTILL), False, "1"),
        ((DISTILL, FINETUNE, PRUNE), False, "2"),
        ((DISTILL, PRUNE, DISTILL), False, "0"),
        ((DISTILL, PRUNE, DISTILL), True, "1"),
        ((PRUNE, DISTILL), True, "2"),
        ((PRUNE,), True, "0"),
    ],
)
def test_the_reference_is_the_fine_tuned_model_or_the_first_that_is_trained(infos, fresh, expected):
    builder = line(*infos, fresh=fresh)
    assert reference(builder, [str(len(infos))]) == expected
    assert reference(line(*infos, answers_only=False), [str(len(infos))]) == "given"


def test_a_model_that_has_not_learned_the_vectors_of_a_teacher_is_no_reference():
    assert reference(line(DISTILL, PRUNE, vectors=True), ["2"]) == "1"
    assert reference(line(DISTILL, PRUNE, vectors=True, answers_only=False), ["2"]) == "given"


def test_of_several_references_one_that_was_measured_counts():
    builder = line(FINETUNE, FINETUNE, measured=("0",))
    assert reference(builder, ["2", "0"]) == "0"
    assert reference(line(FINETUNE), ["1", "0"]) == "1"


def test_probes_measure_the_reference_and_the_answers_of_the_teacher():
    builder = line(FINETUNE, PRUNE)
    assert measured_with(builder, ["2"], SimpleNamespace(info=SIZE)) == ["1"]
    assert measured_with(builder, ["2"], SimpleNamespace(info=QUALITY)) == ["given", "1"]
    assert measured_with(builder, ["2"], SimpleNamespace(info=StepInfo("count"))) == []
    random_head = line(PRUNE, fresh=True)
    assert measured_with(random_head, ["1"], SimpleNamespace(info=SIZE)) == ["0"]
    assert measured_with(random_head, ["1"], SimpleNamespace(info=QUALITY)) == ["given"]
