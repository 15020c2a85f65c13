"""Recipes whose teacher only gives answers: files of scores, models of transformers, functions."""

import runpy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.special import softmax

from limbeck.core.candidate import Candidate
from limbeck.core.shape import Shape
from limbeck.core.target import Budget
from limbeck.core.task import Split
from limbeck.data.answers import by_word
from limbeck.data.batching import encode, predict
from limbeck.data.synthetic import toy_task, toy_tokenizer
from limbeck.engine.given_teacher import SCORES
from limbeck.engine.outputs import budget_violations
from limbeck.engine.run import read_result, run
from limbeck.errors import InputError, RecipeError
from limbeck.measure.memory import Size
from limbeck.measure.quality import Quality
from limbeck.model.checkpoints import open_model, save_model
from limbeck.recipe.recipe import Recipe, check, load_recipe, parse
from limbeck.report.display_names import names
from limbeck.report.table import rows as table_rows
from limbeck.techniques.augment import Augment
from limbeck.techniques.distill import Distill
from limbeck.techniques.prune import Prune
from limbeck.techniques.selection import Best
from limbeck.techniques.supernet import Supernet
from limbeck.train.config import TrainingConfig

save_foreign = runpy.run_path(str(Path(__file__).parent.parent / "teachers" / "test_transformers_model.py"))["save"]
TRAINING = TrainingConfig(num_train_epochs=2, learning_rate=1e-2, per_device_train_batch_size=8)
DISTILL = Distill(training=TRAINING)
SMALL = Shape.uniform(layers=1, hidden=16, heads=2, ffn=16, head_dim=8)


@pytest.fixture
def student(make_model, task, tmp_path):
    tokenizer = toy_tokenizer(task)
    model = make_model(SMALL, labels=task.num_labels, vocab_size=len(tokenizer), seed=3)
    model.config.id2label = dict(enumerate(task.label_names))
    model.config.label2id = {name: index for index, name in enumerate(task.label_names)}
    save_model(model, tokenizer, tmp_path / "student")
    return str(tmp_path / "student")


@pytest.fixture
def data(task, tmp_path):
    return str(task.to_folder(tmp_path / "task"))


def save_teacher(teacher, folder):
    names = teacher.task.label_names
    teacher.model.config.id2label = dict(enumerate(names))
    teacher.model.config.label2id = {name: index for index, name in enumerate(names)}
    save_model(teacher.model, teacher.tokenizer, folder)
    return str(folder)


@pytest.mark.parametrize("field", ["logits", "probabilities"])
def test_distilling_from_a_file_is_distilling_from_the_teacher_that_wrote_it(
    teacher, student, task, tmp_path, rows_of, write_jsonl, field
):
    rows = [row for split in task.splits for row in rows_of(teacher, split, field)]
    file = str(write_jsonl(tmp_path / "scores.jsonl", rows))
    recipe = Recipe(student, "in memory", (DISTILL, Quality()), teacher=save_teacher(teacher, tmp_path / "teacher"))
    live = run(recipe, tmp_path / "store", tmp_path / "live", task=task)
    scored = run(replace(recipe, teacher=file), tmp_path / "store", tmp_path / "scored", task=task)
    assert not live.failed
    assert not scored.failed
    before, after, again = (
        predict(model, encode(task, "test", toy_tokenizer(task)))
        for model in (open_model(student)[0], *(result.open(result.front[0]).model for result in (live, scored)))
    )
    assert np.abs(after - before).max() > 0.1
    np.testing.assert_allclose(again, after, atol=1e-3)  # Adam divides by gradients that may be nearly 0
    facts = [result.records[result.teacher].fact("quality") for result in (live, scored)]
    assert facts[0].value == facts[1].value


def test_a_file_teacher_is_named_and_scored_and_has_no_latency(teacher, student, task, tmp_path, rows_of, write_jsonl):
    rows = [row for split in task.splits for row in rows_of(teacher, split)]
    file = str(write_jsonl(tmp_path / "scores.jsonl", rows))
    steps = (DISTILL, Quality(), Size(), Best())
    recipe = Recipe(student, "in memory", steps, teacher=file, allow_weak_teacher=True)
    result = run(recipe, tmp_path / "store", tmp_path / "run", task=task)
    assert not result.failed
    record = result.records[result.teacher]
    assert (record.shape, record.step, record.traits) == (None, "teacher", {"teacher"})
    assert record.fact("quality") is not None
    assert record.fact("size") is None
    assert "file of scores" in record.notes[0]
    assert "teacher scores.jsonl" in str(result)
    again = run(recipe, tmp_path / "store", tmp_path / "run", task=task)
    assert again.front == result.front


@pytest.mark.parametrize("model_type", ["xlnet", "gpt2"])
def test_a_model_that_limbeck_does_not_open_teaches(student, task, tmp_path, model_type):
    save_foreign(tmp_path / "foreign", model_type, task, task.label_names[::-1])
    recipe = Recipe(student, "in memory", (DISTILL, Quality()), teacher=str(tmp_path / "foreign"))
    result = run(recipe, tmp_path / "store", tmp_path / "run", task=task)
    assert not result.failed
    assert result.records[result.teacher].fact("quality") is not None


def test_what_needs_the_inside_of_a_teacher_is_refused_before_any_work(
    teacher, student, data, task, tmp_path, rows_of, write_jsonl
):
    file = str(write_jsonl(tmp_path / "scores.jsonl", rows_of(teacher)))
    save_foreign(tmp_path / "foreign", "xlnet", task)
    steps = (
        Distill(match=("logits", "hidden")),
        Supernet(),
        Distill.of(logits_loss="mse"),
        Augment(labels="teacher", guard="off"),
    )
    for source, count in ((file, 4), (str(tmp_path / "foreign"), 2)):
        problems = [str(problem) for problem in check(Recipe(student, data, steps, teacher=source))]
        assert len(problems) == count, problems
        assert all(source in problem for problem in problems)
    assert "use match: [logits]" in problems[0]
    missing = check(Recipe(student, data, (DISTILL,), teacher=str(tmp_path / "absent.jsonl")))
    assert "there is no such file" in str(missing[0])


def test_a_file_that_lacks_texts_stops_before_any_work(teacher, student, task, tmp_path, rows_of, write_jsonl):
    file = str(write_jsonl(tmp_path / "scores.jsonl", rows_of(teacher)[:-5]))
    with pytest.raises(InputError, match="has no scores for "):
        run(Recipe(student, "in memory", (DISTILL,), teacher=file), tmp_path / "store", tmp_path / "run", task=task)
    assert not list((tmp_path / "store" / "objects").glob("*"))


def test_a_function_is_asked_once_for_each_text_over_candidates_and_runs(teacher, student, task, tmp_path):
    requested = []

    def answer(texts):
        requested.extend(texts)
        rows = replace(task, splits={"train": task.split("train").take([0] * len(texts))})
        rows = replace(rows, splits={"train": replace(rows.split("train"), texts=tuple(texts))})
        return softmax(predict(teacher.model, encode(rows, "train", teacher.tokenizer)).astype(float), 1)

    recipe = Recipe(student, "in memory", (DISTILL, DISTILL, Quality()))
    result = run(recipe, tmp_path / "store", tmp_path / "run", task=task, teacher=answer)
    assert not result.failed
    unique = len(set().union(*(split.texts for split in task.splits.values())))
    assert len(requested) == unique
    notes = []
    run(recipe, tmp_path / "store", tmp_path / "run", task=task, teacher=answer, on_event=notes.append)
    assert len(requested) == unique
    assert any("answers of an earlier run are reused" in event.get("message", "") for event in notes)
    written = load_recipe(tmp_path / "run" / "recipe.yaml")
    assert written.teacher.endswith(SCORES)
    assert not check(written)
    with pytest.raises(RecipeError, match="needs a teacher that limbeck opens"):
        run(replace(recipe, steps=(Supernet(),)), tmp_path / "store", tmp_path / "r", task=task, teacher=answer)


def test_figures_are_relative_to_the_whole_model_of_the_run_where_the_teacher_gives_answers_alone(
    teacher, student, task, tmp_path, rows_of, write_jsonl
):
    rows = [row for split in task.splits for row in rows_of(teacher, split)]
    file = str(write_jsonl(tmp_path / "scores.jsonl", rows))
    steps = [
        {"fork": [[], [{"finetune": {"epochs": 1}}]]},
        {"distill": {"epochs": 1, "mixed_precision": "no"}},
        {"prune": {"heads": 1, "ffn": 8, "criterion": "fisher"}},
        {"size": {}},
        {"quality": {}},
        {"cheapest": {}},
    ]
    given = {"model": student, "task": "in memory", "teacher": file, "steps": steps, "allow_weak_teacher": True}
    for branches, step in ((steps[0]["fork"][0], "model"), (steps[0]["fork"][1], "finetune")):
        recipe = parse(given | {"steps": [*branches, *steps[1:]], "budget": {"max_drop": 100}})
        result = run(recipe, tmp_path / "store", tmp_path / f"run-{step}", task=task)
        assert not result.failed
        reference = result.records[result.reference]
        assert reference.step == step
        assert {fact.name for fact in reference.facts} >= {"size", "quality"}
        assert {fact.name for fact in result.records[result.teacher].facts} == {"quality"}
        rows = {row.key: row for row in table_rows(result.run_summary)}
        drop = reference.fact("quality").value - result.records[result.chosen[0]].fact("quality").value
        assert rows[result.chosen[0]].drop == pytest.approx(100 * drop)
        assert read_result(result.folder, result.store).reference == result.reference


def test_the_loss_that_a_budget_allows_counts_from_the_reference(
    teacher, student, task, tmp_path, rows_of, write_jsonl
):
    """Not from a file of scores that no model comes near."""
    labels = {
        text: task.label_names[label]
        for split in task.splits.values()
        for text, label in zip(split.texts, split.labels, strict=True)
    }
    file = str(write_jsonl(tmp_path / "scores.jsonl", [{"text": t, "label": name} for t, name in labels.items()]))
    steps = (replace(DISTILL, training=replace(TRAINING, learning_rate=1e-6)), Quality(), Best())
    recipe = Recipe(student, "in memory", steps, teacher=file, budget=Budget(max_drop=5.0), allow_weak_teacher=True)
    result = run(recipe, tmp_path / "store", tmp_path / "run", task=task)
    assert result.records[result.teacher].fact("quality").value == 1.0
    assert result.records[result.chosen[0]].fact("quality").value < 0.9
    assert budget_violations(result) == ()
    assert not any("no candidate meets" in note for note in result.records[result.chosen[0]].notes)


def test_another_checkpoint_is_measured_beside_the_students(teacher, student, task, tmp_path):
    source = save_teacher(teacher, tmp_path / "teacher")
    recipe = Recipe(student, "in memory", (DISTILL, Size(), Quality()), teacher=source, allow_weak_teacher=True)
    result = run(recipe, tmp_path / "store", tmp_path / "run", task=task)
    assert result.reference == result.teacher
    reference = result.records[result.reference]
    assert {fact.name for fact in reference.facts} >= {"size", "quality"}
    assert "vs" in str(result)
    assert f"over teacher {Path(source).name} (PyTorch)" in str(result)


def words_model(make_model, words, folder, shape=None, seed=1):
    tokenizer = toy_tokenizer(words)
    model = make_model(shape, labels=3, kind="tokens", vocab_size=len(tokenizer), seed=seed)
    source = save_teacher(Candidate(model, tokenizer, words), folder)
    return source, model, tokenizer


def test_a_file_and_a_function_of_scores_of_words_teach_what_their_live_teacher_does(make_model, tmp_path, write_jsonl):
    words = toy_task("tokens", train=40, validation=12, test=12)
    student, _, tokenizer = words_model(make_model, words, tmp_path / "student", SMALL, seed=3)
    live, model, _ = words_model(make_model, words, tmp_path / "teacher")

    def tag(texts):
        rows = Split(tuple(map(tuple, texts)), tuple((0,) * len(text) for text in texts))
        encoded = encode(replace(words, splits={"train": rows}), "train", tokenizer)
        return by_word(predict(model, encoded), encoded.first_pieces)

    tag.__qualname__ = "tag"
    texts = [text for split in words.splits.values() for text in split.texts]
    rows = [
        {"words": list(t), "logits": [list(map(float, word)) for word in tag([t])[0]]} for t in dict.fromkeys(texts)
    ]
    file = str(write_jsonl(tmp_path / "scores.jsonl", rows))
    recipe = Recipe(student, "in memory", (DISTILL, Quality()), allow_weak_teacher=True)
    answers, values = [], []
    for name, source, function in (("live", live, None), ("file", file, None), ("function", None, tag)):
        given = replace(recipe, teacher=source)
        result = run(given, tmp_path / "store", tmp_path / name, task=words, teacher=function)
        assert not result.failed
        values.append(result.records[result.teacher].fact("quality").value)
        distilled = result.open(result.front[0]).model
        answers.append(np.concatenate(predict(distilled, encode(words, "test", tokenizer))))
    before = np.concatenate(predict(open_model(student)[0], encode(words, "test", tokenizer)))
    assert np.abs(answers[0] - before).max() > 0.1
    for again in answers[1:]:
        np.testing.assert_allclose(again, answers[0], atol=1e-3)
    assert values[0] == values[1] == values[2]
    assert result.records[result.teacher].parameters["function"] == f"{__name__}.tag"
    assert names(result.run_summary)[result.teacher] == f"teacher {__name__}.tag"
    assert SCORES not in str(result)


def test_a_wrong_number_of_scores_of_words_stops_before_any_work(make_model, tmp_path, write_jsonl):
    words = toy_task("tokens", train=8, validation=4, test=4)
    student, _, _ = words_model(make_model, words, tmp_path / "student", SMALL)
    rows = [{"words": list(text), "label": ["O"] * len(text)} for text in words.split("train").texts]
    rows[4]["label"].pop()
    file = str(write_jsonl(tmp_path / "scores.jsonl", rows))
    for source, function in ((file, None), (None, lambda texts: [[[0.5, 0.2, 0.3]]] * len(texts))):
        recipe = Recipe(student, "in memory", (DISTILL,), teacher=source)
        with pytest.raises(InputError, match="words, but scores of "):
            run(recipe, tmp_path / "store", tmp_path / "run", task=words, teacher=function)
    assert not list((tmp_path / "store" / "objects").glob("*"))


def test_a_latency_relative_to_a_teacher_without_a_shape_is_refused(
    teacher, student, data, tmp_path, rows_of, write_jsonl
):
    file = str(write_jsonl(tmp_path / "scores.jsonl", rows_of(teacher)))
    recipe = Recipe(student, data, (Prune.of(speedup=2.0, relative_to="teacher"),), teacher=file)
    (problem,) = check(recipe)
    assert "has no shape, since it only gives answers; with relative_to: input" in str(problem)
