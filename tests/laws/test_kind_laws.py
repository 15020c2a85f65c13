"""Laws that every kind of task keeps: from rows to labels, training, answers, metric, ONNX and prediction."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch

from limbeck.core.answer_changes import Answers, compare
from limbeck.core.candidate import Candidate
from limbeck.core.judged_texts import BY_ROW
from limbeck.core.kinds import KINDS
from limbeck.core.metrics import IGNORED, METRICS, metrics_of
from limbeck.core.outputs import OutputSpec
from limbeck.core.requests import requests_of
from limbeck.core.shape import Shape
from limbeck.core.step import REGISTRY, RunContext
from limbeck.core.task import Task
from limbeck.data.baseline import baseline, score_constant
from limbeck.data.batching import collate, encode, predict
from limbeck.data.loading import load_task
from limbeck.data.synthetic import TOYS, toy_task, toy_tokenizer
from limbeck.engine.predict import answer
from limbeck.measure.evaluation import evaluate
from limbeck.measure.label_order import compare_orders
from limbeck.measure.portability import agreement
from limbeck.measure.quality import assess
from limbeck.model.checkpoints import open_model, save_model
from limbeck.techniques.export import Export
from limbeck.techniques.finetune import Finetune
from limbeck.train.distillation_losses import LogitLoss
from limbeck.train.objectives import Outputs

SHAPE = Shape.uniform(layers=1, hidden=16, heads=2, ffn=16)


@cache
def task_of(toy: str) -> Task:
    return toy_task(toy, train=24, validation=16, test=16)


@pytest.fixture(scope="module")
def candidates(make_model):
    """A random model of each kind, with the labels of its task."""
    result = {}
    for toy in TOYS:
        task = task_of(toy)
        tokenizer = toy_tokenizer(task)
        model = make_model(SHAPE, labels=task.num_labels, kind=task.kind, vocab_size=len(tokenizer))
        names = task.label_names or ("score",)
        model.config.id2label = dict(enumerate(names))
        model.config.label2id = {name: index for index, name in enumerate(names)}
        result[toy] = Candidate(model, tokenizer, task)
    return result


def rows_of(logits):
    return [np.asarray(row) for row in logits]


def number_of(kind, label):
    """The number in a label: of a document its gain."""
    return label[1] if kind.grouped else label


def right_logits(task: Task, split: str) -> list[np.ndarray]:
    """Logits that give every label of a split."""
    kind, rows = task.task_kind, []
    for label in task.split(split).labels:
        if kind.vectors:
            rows.append(np.array([1.0, 0.0, label, np.sqrt(1 - label**2)]))
        elif kind.numeric:
            rows.append(np.array([number_of(kind, label)]))
        elif kind.per_token:
            rows.append(8 * np.eye(task.num_labels)[list(label)] - 4)
        else:
            present = list(kind.classes_in(label))
            rows.append(8.0 * np.isin(np.arange(task.num_labels), present) - 4)
    return rows


def test_every_kind_has_a_toy_task():
    assert {task_of(toy).kind for toy in TOYS} == set(KINDS)


@pytest.mark.parametrize("toy", TOYS)
def test_law_1_rows_written_by_label_name_read_back_as_the_task(toy, tmp_path):
    task = task_of(toy)
    kind = task.task_kind
    for name, split in task.splits.items():
        lines = []
        for row in split.to_rows():
            names = [task.label_names[index] for index in kind.classes_in(row["label"])]
            cell = (
                number_of(kind, row["label"]) if kind.numeric else names if kind.per_token or kind.several else names[0]
            )
            lines.append(json.dumps(row | {"label": cell}))
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    names = {"label_names": list(task.label_names)} if task.label_names else {}
    again = load_task({"path": str(tmp_path), "kind": task.kind, **names})
    assert (again.kind, again.label_names, again.metric) == (task.kind, task.label_names, task.metric)
    assert {name: split.texts for name, split in again.splits.items()} == {
        name: split.texts for name, split in task.splits.items()
    }
    assert [split.labels for split in again.splits.values()] == [split.labels for split in task.splits.values()]


@pytest.mark.parametrize("toy", TOYS)
def test_law_2_a_saved_task_reads_back_equal(toy, tmp_path):
    task = task_of(toy)
    again = Task.from_folder(task.to_folder(tmp_path / "task"))
    assert again == task
    assert again.fingerprint == task.fingerprint


@pytest.mark.parametrize("toy", TOYS)
def test_law_3_labels_follow_their_names(toy):
    if not task_of(toy).label_names:
        return
    task = replace(task_of(toy), metric="accuracy")  # which lets the labels have any order
    order = list(reversed(range(task.num_labels)))
    turned = task.relabel(task.label_names[::-1], order)
    assert turned.relabel(task.label_names, order) == task
    for label, other in zip(task.split("test").labels, turned.split("test").labels, strict=True):
        names = [
            sorted(side.label_names[index] for index in side.task_kind.classes_in(row))
            for side, row in ((task, label), (turned, other))
        ]
        assert names[0] == names[1]


@pytest.mark.parametrize("toy", TOYS)
def test_law_4_right_answers_score_best_in_every_metric(toy):
    task = task_of(toy)
    kind, labels, right = task.task_kind, task.split("test").labels, right_logits(task, "test")
    for metric in metrics_of(task.kind):
        if (metric == "f1" and task.num_labels != 2) or metric in ("mean_cosine", "neighbor_overlap"):
            continue
        if metric == "overlap_at_10":  # of fewer than ten documents
            continue
        if kind.vectors and metric in BY_ROW:  # labels of another form, see tests/core/test_judged_texts.py
            continue
        if METRICS[metric].reads_entities and not METRICS[task.metric].reads_entities:
            continue  # its tags mark no entities
        best = kind.score(metric, task.label_names, right, labels)
        assert best == (pytest.approx(0, abs=1e-2) if METRICS[metric].reads_distributions else pytest.approx(1.0))
        wrong = [[-1, -1, 1, 1] * row for row in right] if kind.vectors else [-row for row in right]
        assert kind.score(metric, task.label_names, wrong, labels) < best
    assert kind.assess(task.metric, task.label_names, right, labels).quality.value == pytest.approx(1.0)


@pytest.mark.parametrize("toy", TOYS)
def test_law_5_an_answer_says_what_decode_says(toy):
    task = task_of(toy)
    kind, spec = task.task_kind, OutputSpec.for_task(task.kind, task.label_names)
    for label, logits in zip(task.split("test").labels, right_logits(task, "test"), strict=True):
        if kind.vectors:  # the answer is the vector itself
            assert spec.decode(logits)["answer"] == logits.tolist()
            assert kind.decode(logits[None])[0] == pytest.approx(label)
            continue
        wanted = number_of(kind, label) if kind.grouped else label
        assert kind.label_of(spec.decode(logits), task.label_names) == wanted
        decoded = kind.decode(logits if kind.per_token else logits[None])
        assert np.array_equal(decoded.reshape(-1), np.asarray(wanted).reshape(-1))


@pytest.mark.parametrize("toy", TOYS)
def test_law_6_right_logits_overrule_nothing_and_confirm_the_order(toy):
    task = task_of(toy)
    kind, labels, right = task.task_kind, task.split("train").labels, right_logits(task, "train")
    for label, logits in zip(labels, right, strict=True):
        prediction, accepted = kind.review(logits, label, 0.5)
        assert accepted == label
        assert prediction == (pytest.approx(label) if kind.vectors else label)
    same, largest = agreement(task.kind, right, right, labels)
    assert same.all()
    assert largest == 0
    if not kind.numeric:
        order = compare_orders(task.kind, right, labels, task.num_labels)
        assert order.outputs == tuple(range(task.num_labels))
        assert order.accuracy == 1.0


@pytest.mark.parametrize("toy", TOYS)
def test_law_7_the_constant_answer_is_the_best_of_its_candidates(toy):
    task = task_of(toy)
    truth = task.task_kind.truth(task.split("train").labels)
    values = [score_constant(task, value) for value, _ in task.task_kind.constants(truth, task.num_labels)]
    constant = baseline(task)
    assert score_constant(task, constant.value) == max(values)
    assert constant.answer.startswith("always ")


@pytest.mark.parametrize("toy", TOYS)
def test_law_8_padding_plays_no_part(toy, candidates):
    candidate = candidates[toy]
    encoded = encode(candidate.task, "test", candidate.tokenizer)
    together, alone = predict(candidate.model, encoded, 8), predict(candidate.model, encoded, 1)
    assert len(together) == len(encoded)
    for a, b in zip(together, alone, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    value = candidate.task.score(together, encoded.labels)
    assert assess(candidate.task, together, encoded.labels, encoded.unseen).quality.value == pytest.approx(value)


@pytest.mark.parametrize("toy", TOYS)
def test_law_9_onnx_equals_torch(toy, candidates, tmp_path):
    candidate = candidates[toy]
    (exported,) = Export().apply(candidate, RunContext(scratch=tmp_path))
    encoded = encode(candidate.task, "test", candidate.tokenizer)
    for a, b in zip(predict(exported.model, encoded, 8), predict(candidate.model, encoded, 8), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)


@pytest.mark.parametrize("toy", TOYS)
def test_law_10_a_saved_model_predicts_what_was_measured(toy, candidates, tmp_path):
    candidate = candidates[toy]
    save_model(candidate.model, candidate.tokenizer, tmp_path / "model")
    model, tokenizer = open_model(tmp_path / "model", task=candidate.task)
    assert not model.fresh_head
    task, kind = candidate.task, candidate.task.task_kind
    rows = task.split("test")
    encoded = encode(task, "test", tokenizer)
    logits = predict(model, encoded, 1)
    texts = [" ".join(text) if kind.per_token else text for text in rows.texts]
    for row, values, labels in zip(answer(tmp_path / "model", texts, rows.pairs), logits, encoded.labels, strict=True):
        counted = values[np.asarray(labels) != IGNORED] if kind.per_token else values[None]
        expected = kind.decode(counted).reshape(-1)
        label = np.asarray(kind.label_of(row, tuple(model.config.id2label.values()))).reshape(-1)
        np.testing.assert_allclose(label, expected, atol=1e-5)


@pytest.mark.parametrize("toy", TOYS)
def test_law_11_a_step_on_the_labels_lowers_their_loss(toy, candidates, tmp_path):
    candidate = candidates[toy]
    task = candidate.task
    save_model(candidate.model, candidate.tokenizer, tmp_path / "model")
    model, tokenizer = open_model(tmp_path / "model", task=task)
    step = Finetune.of(num_train_epochs=4, learning_rate=3e-3, evaluations_per_epoch=0)
    batch = collate(encode(task, "train", tokenizer), range(24))
    before = float(model.loss(model.run(batch)[0], batch["labels"]).detach())
    (tuned,) = step.apply(Candidate(model, tokenizer, task), RunContext(scratch=tmp_path / "scratch"))
    tuned.model.eval()
    after = float(tuned.model.loss(tuned.model.run(batch)[0], batch["labels"]).detach())
    assert np.isfinite(after)
    assert after < before


@pytest.mark.parametrize("toy", TOYS)
def test_law_12_the_distance_to_the_teacher_is_least_for_equal_answers(toy, candidates):
    candidate = candidates[toy]
    batch = collate(encode(candidate.task, "train", candidate.tokenizer), range(8))
    logits = candidate.model.run(batch)[0].detach()
    student = logits.clone().requires_grad_()
    distance, teacher = LogitLoss(problem_type=candidate.task.problem_type), Outputs(logits, {})
    loss = distance(Outputs(student, {}), teacher, batch)
    (gradient,) = torch.autograd.grad(loss, student)
    assert float(gradient.abs().max()) < 1e-6
    assert float(distance(Outputs(2 * logits + 1, {}), teacher, batch)) > float(loss.detach())


OF_ONE_KIND = {"early_exit": "classification", "cascade": "classification"}
"""Steps that make sense for one kind alone."""


@pytest.mark.parametrize("kind", KINDS)
def test_law_13_no_step_refuses_a_kind_with_its_usual_fields(kind):
    """What makes no sense for a kind is a choice of the user's, and the reason names the field."""
    refused = {name: cls().kind_problems(KINDS[kind]) for name, cls in REGISTRY.items() if not cls.info.files}
    for name, problems in refused.items():
        assert set(problems) <= {"", *vars(REGISTRY[name]())}
        assert bool(problems) == (name in OF_ONE_KIND and kind != OF_ONE_KIND[name])


@pytest.mark.parametrize("toy", TOYS)
def test_law_14_flips_are_symmetric_and_a_model_differs_from_itself_in_nothing(toy):
    task = task_of(toy)
    kind, labels, right = task.task_kind, task.split("test").labels, right_logits(task, "test")
    rng = np.random.default_rng(0)
    noisy = [row + rng.normal(scale=6, size=row.shape) for row in right]
    lengths = rng.integers(3, 20, len(labels))
    first, second = Answers(right, labels, lengths), Answers(noisy, labels, lengths)
    same, there, back = (
        compare(kind, task.label_names, *pair) for pair in ((second, second), (first, second), (second, first))
    )
    assert not same.changed.any()
    assert not same.drift.any()
    assert same.most_changed(task.split("test").texts) == []
    assert there.drift.max() > 0
    assert there.changed.any() != kind.numeric
    assert there.changed.tolist() == back.changed.tolist()
    assert (there.lost.tolist(), there.won.tolist()) == (back.won.tolist(), back.lost.tolist())
    for groups in [there.by_length(lengths)] + ([] if kind.numeric else [there.by_answer()]):
        assert sum(group["n"] for group in groups) == len(there.rows)
        for name in ("changed", "lost", "won"):
            assert sum(group[name] for group in groups) == getattr(there, name).sum()
    names = [fact.name for fact in there.facts("test", "key", lengths, ["text"] * len(labels))]
    assert names == (["drift"] if kind.numeric else ["flips", "drift"])


@pytest.mark.parametrize("toy", TOYS)
@pytest.mark.parametrize("batch", [1, 5])
def test_law_15_a_timed_evaluation_scores_what_was_predicted(toy, batch, candidates, tmp_path):
    candidate = candidates[toy]
    encoded = encode(candidate.task, "test", candidate.tokenizer)
    logits = rows_of(predict(candidate.model, encoded))
    expected = assess(candidate.task, logits, encoded.labels, encoded.unseen).quality
    (exported,) = Export().apply(candidate, RunContext(scratch=tmp_path))
    for model in (candidate.model, exported.model):
        result = evaluate(model, candidate.tokenizer, candidate.task, batch=batch)
        grouped = candidate.task.task_kind.grouped
        assert result.examples == (len(requests_of(encoded.labels)) if grouped else len(encoded))
        assert (result.quality, result.low, result.high) == pytest.approx(tuple(expected), abs=1e-5)


@pytest.mark.parametrize("toy", TOYS)
def test_law_16_a_limit_keeps_rows_that_belong_together(toy):
    task = task_of(toy)
    whole, few, fewer = (part.split("train") for part in (task, task.limit(train=12), task.limit(train=9)))
    retained = [
        set(zip(part.texts, part.pairs or part.texts, part.labels, strict=True)) for part in (whole, few, fewer)
    ]
    assert retained[2] <= retained[1] < retained[0]
    if not task.task_kind.grouped:
        assert (len(few), len(fewer)) == (12, 9)
        return
    assert few.labels
    for part in (few, fewer):
        queries = {label[0] for label in part.labels}
        assert len(part) == sum(label[0] in queries for label in whole.labels)
