"""Times of earlier runs hold for the same shape and texts, and are carried over to others in proportion."""

from __future__ import annotations

from dataclasses import replace

import pytest

from limbeck.core.candidate import Record
from limbeck.core.field_groups import parameters
from limbeck.core.shape import Shape
from limbeck.core.task import Split, Task
from limbeck.engine.past_times import PastTimes, Work, typical_tokens
from limbeck.measure.memory import Memory
from limbeck.recipe.parsing import registry
from limbeck.recipe.validation import read
from limbeck.train.config import forward_seconds

Finetune, Augment = registry()["finetune"], registry()["augment"]
SMALL, LARGE = (Shape.uniform(layers=layers, hidden=64, heads=4, ffn=128) for layers in (2, 12))
ROWS = {"train": 1000, "validation": 0}
HERE = Work(SMALL, ROWS, 20.0, "root", ROWS)


def past_record(key, parent, step, seconds, **fields):
    return Record(key, parent, step.info.name, parameters(step), SMALL, duration=seconds, **fields)


@pytest.fixture
def step():
    return Finetune()


@pytest.fixture
def past(step):
    roots = [Record("root", None, "model", shape=SMALL), Record("other", None, "model", shape=SMALL)]
    trained = [past_record(f"t{seconds}", "root", step, seconds) for seconds in (9.0, 10.0, 30.0)]
    return PastTimes([*roots, *trained, past_record("x", "other", step, 500.0)], [])


def test_the_same_work_takes_what_it_took(step, past):
    assert past.seconds(step, HERE) == (10.0, False)


def test_other_work_on_the_same_task_is_in_proportion(step, past):
    for work, factor in (
        (replace(HERE, shape=LARGE), LARGE.weights / SMALL.weights),
        (replace(HERE, rows={**ROWS, "train": 5000}), 5),
    ):
        seconds, rough = past.seconds(step, work)
        assert (seconds, rough) == (pytest.approx(10 * factor), True)
    longer = read(Finetune, {"num_train_epochs": 6.0}, "")[0]
    assert past.seconds(longer, HERE)[0] == pytest.approx(20)


@pytest.mark.parametrize(("fields", "epochs"), [({"match": ("logits", "hidden")}, 2), ({"match": ("logits",)}, 1)])
def test_the_pass_of_a_larger_teacher_counts(fields, epochs):
    """In every epoch, or once where its answers are kept."""
    distill, past = registry()["distill"].of(num_train_epochs=2, **fields), PastTimes([], [])
    alone, taught = (past.seconds(distill, replace(HERE, teacher=shape))[0] for shape in (SMALL, LARGE))
    assert alone == past.seconds(distill, HERE)[0]
    more = forward_seconds(LARGE, epochs * 1000, 20.0) - forward_seconds(SMALL, epochs * 1000, 20.0)
    assert taught - alone == pytest.approx(more)


def test_texts_that_a_step_added_count(step):
    more = Augment()
    rows = more.rows_after(ROWS)
    chain = [
        Record("root", None, "model", shape=SMALL),
        past_record("a", "root", more, 1.0),
        past_record("b", "a", step, 40.0),
    ]
    past = PastTimes(chain, [])
    assert past.seconds(step, replace(HERE, rows=rows)) == (40.0, False)
    seconds, rough = past.seconds(step, HERE)
    assert (seconds, rough) == (pytest.approx(40 * ROWS["train"] / rows["train"]), True)


def test_another_task_says_nothing(step, past):
    elsewhere = replace(HERE, root="new")
    assert past.seconds(step, elsewhere) == (step.estimated_seconds(SMALL, ROWS, 20.0), True)
    large = replace(elsewhere, shape=LARGE, rows={**ROWS, "train": 100_000}, tokens=128.0)
    assert past.seconds(step, large)[0] > 1000 * past.seconds(step, elsewhere)[0]
    assert past.seconds(step, replace(elsewhere, shape=None)) == (None, False)


def test_probes_without_an_estimate_take_what_they_took():
    past = PastTimes([], [("memory", parameters(Memory()), 2.0), ("memory", {"other": 1}, 9.0)])
    assert past.seconds(Memory(), HERE) == (2.0, True)
    assert PastTimes([], []).seconds(Memory(), HERE) == (None, False)


def test_what_no_longer_is_a_step_is_passed_over(step):
    root = Record("root", None, "model", shape=SMALL)
    strange = replace(past_record("t", "root", step, 1.0), parameters={"epochs_of_old": 3})
    unknown = replace(past_record("u", "root", step, 1.0), step="gone")
    past = PastTimes([root, strange, unknown, replace(past_record("v", "u", step, 7.0))], [])
    assert past.seconds(step, HERE) == (7.0, False)


def test_a_training_of_a_new_kind_is_in_proportion_to_others(step, past):
    distill = registry()["distill"]()
    seconds, rough = past.seconds(distill, HERE)
    passes = HERE.seconds(distill, SMALL, ROWS) / HERE.seconds(step, SMALL, ROWS)
    assert (seconds, rough) == (pytest.approx(10 * passes), True)
    own = PastTimes([Record("root", None, "model", shape=SMALL), past_record("d", "root", distill, 77.0)], [])
    assert own.seconds(distill, HERE) == (77.0, False)


def test_typical_tokens():
    words = (("a", "b"), ("c", "d"))  # already split, as in a task of tokens
    texts = Task("t", "classification", {"train": Split(("a b", "c d e f"), (0, 1))}, ("x", "y"), "accuracy", 5)
    tokens = Task("t", "tokens", {"train": Split(words, ((0, 0), (0, 0)))}, ("x", "y"), "accuracy", 5)
    assert [typical_tokens(task) for task in (texts, tokens)] == [5.0, pytest.approx(4.6)]
