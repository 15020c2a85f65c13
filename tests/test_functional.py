"""The techniques as functions, on plain models of transformers."""

from __future__ import annotations

import json
import runpy
from functools import partial
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from scipy.special import softmax
from transformers import AutoModelForSequenceClassification, BertConfig, BertForSequenceClassification

import limbeck
from limbeck.cli.model_commands import evaluate as command
from limbeck.cli.task_options import TaskOptions
from limbeck.data.synthetic import toy_task, toy_tokenizer
from limbeck.errors import InputError
from limbeck.measure import evaluation
from limbeck.model.checkpoints import peek
from limbeck.model.tokenizer_loading import open_tokenizer

TASK = toy_task("classification", train=32, validation=16, test=16)
TOKENIZER = toy_tokenizer(TASK)
TEXTS = list(TASK.split("train").texts)
LABELED = (TEXTS, [TASK.label_names[label] for label in TASK.split("train").labels])


def make_bert(seed, positions=64):
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(TOKENIZER),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=positions,
        id2label=dict(enumerate(TASK.label_names)),
        label2id={name: index for index, name in enumerate(TASK.label_names)},
    )
    model = BertForSequenceClassification(config)
    for parameter in model.parameters():
        parameter.data.normal_(0.0, 0.3)
    return model.eval()


@pytest.fixture
def bert():
    """A model of transformers, not of limbeck."""
    return make_bert(0)


def logits(model, texts=TEXTS[:4]):
    return np.asarray(model.predict(TOKENIZER(texts, padding=True, return_tensors="pt")))


def test_prune_leaves_the_model_as_it_was(bert):
    before = {name: value.clone() for name, value in bert.state_dict().items()}
    small = limbeck.prune(bert, TOKENIZER, TEXTS, keep=0.5, cost="macs", samples=16, ffn_multiple=8)
    assert sum(row.ffn for row in small.shape.layers) < 128
    assert all(torch.equal(before[name], value) for name, value in bert.state_dict().items())


def test_prune_takes_a_hidden_width(bert):
    before = {name: value.clone() for name, value in bert.state_dict().items()}
    small = limbeck.prune(bert, TOKENIZER, TEXTS, hidden=24, samples=16)
    assert str(small.shape) == "2x24 heads 4 of 8 ffn 64"
    assert np.abs(logits(small) - logits(limbeck.prune(bert, TOKENIZER, TEXTS, hidden=32))).max() < 1.0
    assert all(torch.equal(before[name], value) for name, value in bert.state_dict().items())


def test_prune_chooses_a_hidden_width_by_texts_that_are_held_out(bert):
    messages = []
    options = {"keep": 0.4, "cost": "macs", "samples": 16, "ffn_multiple": 16, "log": messages.append}
    small = limbeck.prune(bert, TOKENIZER, TEXTS, hidden="auto", **options)
    count = min(512, len(TEXTS) // 3)
    assert any(message.startswith(f"hidden 32: answers to {count} other texts differ by") for message in messages)
    assert f"hidden {small.shape.hidden}" in messages[-1]


def test_a_result_is_saved_opened_and_trained_by_transformers(bert, tmp_path):
    small = limbeck.prune(bert, TOKENIZER, LABELED, heads=2, ffn=32, samples=16)
    limbeck.save_model(small, TOKENIZER, tmp_path / "small")
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path / "small", trust_remote_code=True)
    batch = TOKENIZER(TEXTS[:4], padding=True, return_tensors="pt")
    np.testing.assert_allclose(again(**batch).logits.detach().numpy(), logits(small), atol=1e-5)
    again(**batch, labels=torch.tensor([0, 1, 0, 1])).loss.backward()
    assert again.classifier.weight.grad.abs().sum() > 0


def test_distill_brings_the_student_nearer_to_its_teacher(bert):
    student, messages = make_bert(1), []
    taught = limbeck.distill(
        student,
        bert,
        TOKENIZER,
        TEXTS,
        epochs=10,
        learning_rate=1e-3,
        log=lambda text, **numbers: messages.append(numbers),
    )
    teacher = bert(**TOKENIZER(TEXTS[:4], padding=True, return_tensors="pt")).logits.detach().numpy()
    before = student(**TOKENIZER(TEXTS[:4], padding=True, return_tensors="pt")).logits.detach().numpy()
    distance = [np.abs(softmax(side, axis=1) - softmax(teacher, axis=1)).mean() for side in (before, logits(taught))]
    assert distance[1] < 0.5 * distance[0]
    assert any("loss" in numbers for numbers in messages)


@pytest.mark.parametrize("form", ["function", "file", "foreign"])
def test_distill_from_a_teacher_that_gives_answers_alone(bert, tmp_path, form):
    """From the logits of a model as from the model itself; nothing inside it can be imitated."""
    requested = []

    def answer(texts):
        requested.extend(texts)
        return bert(**TOKENIZER(list(texts), padding=True, return_tensors="pt")).logits

    teacher = answer
    if form == "file":
        teacher = tmp_path / "scores.jsonl"
        rows = zip(TEXTS, softmax(answer(TEXTS).detach().numpy().astype(float), 1).tolist(), strict=True)
        lines = [{"text": text, "probabilities": dict(zip(TASK.label_names, row, strict=True))} for text, row in rows]
        teacher.write_text("".join(json.dumps(line) + "\n" for line in lines))
    if form == "foreign":
        save = runpy.run_path(str(Path(__file__).parent / "teachers" / "test_transformers_model.py"))["save"]
        teacher, _ = save(tmp_path / "foreign", "xlnet", TASK)
    before = make_bert(1)
    untrained = before(**TOKENIZER(TEXTS[:4], padding=True, return_tensors="pt")).logits.detach().numpy()
    taught = limbeck.distill(before, teacher, TOKENIZER, TEXTS, epochs=2, learning_rate=1e-3)
    assert abs(logits(taught) - untrained).max() > 0.01
    if form != "foreign":
        same = limbeck.distill(make_bert(1), bert, TOKENIZER, TEXTS, epochs=2, learning_rate=1e-3)
        np.testing.assert_allclose(logits(taught), logits(same), atol=1e-3)
        assert len(requested) == len(set(TEXTS)) or form == "file"
    with pytest.raises(InputError, match="use match: "):
        limbeck.distill(before, teacher, TOKENIZER, TEXTS, match=["logits", "hidden"])


def test_linearize_gives_other_attention(bert):
    model = limbeck.linearize(bert, TOKENIZER, LABELED, attention="window:3", epochs=1)
    assert {row.attention for row in model.shape.layers} == {"window:3"}


def test_export_and_quantize_write_folders(bert, tmp_path):
    exported = limbeck.export(bert, TOKENIZER, TEXTS, tmp_path / "float")
    small = limbeck.quantize(exported, TOKENIZER, TEXTS, tmp_path / "int8")
    truncation = json.loads((tmp_path / "float" / "tokenizer.json").read_text())["truncation"]
    assert truncation["max_length"] > 0  # other runtimes read the length from here
    expected = bert(**TOKENIZER(TEXTS[:4], padding=True, return_tensors="pt")).logits.detach().numpy()
    np.testing.assert_allclose(logits(exported), expected, atol=1e-4)
    np.testing.assert_allclose(logits(small), expected, atol=0.1 * np.abs(expected).max())
    assert (tmp_path / "float" / "onnx" / "model.onnx").is_file()
    assert (tmp_path / "int8" / "onnx" / "model_quantized.onnx").is_file()
    quality = limbeck.evaluate(tmp_path / "int8", None, LABELED)
    assert (quality.examples, quality.threads) == (32, 1)
    assert quality.runtime.startswith("onnxruntime")


def test_int8_vectors_are_judged_by_their_cosine(tmp_path):
    """The labels of texts alone are the model's own vectors, not scores of pairs."""
    exported = limbeck.export("minilm-l6", None, TEXTS[:24], tmp_path / "float")
    small = limbeck.quantize(exported, open_tokenizer("minilm-l6"), TEXTS[:24], tmp_path / "int8", max_drop=5.0)
    feed = open_tokenizer("minilm-l6")(TEXTS[:4], padding=True, return_tensors="pt")
    whole, quantized = (np.asarray(model.predict(feed)) for model in (exported, small))
    assert (whole * quantized).sum(-1).min() > 0.9


def test_impossible_targets_are_refused_before_any_work(bert):
    for call in (partial(limbeck.prune, speedup=2.0, threads=0), partial(limbeck.latency, batch=0)):
        with pytest.raises(InputError, match=r"(threads|batch) should be in .*got 0"):
            call(bert, TOKENIZER, TEXTS)


def test_a_folder_with_something_else_is_never_replaced(bert, tmp_path):
    written = limbeck.export(bert, TOKENIZER, TEXTS, tmp_path / "onnx").folder
    limbeck.quantize(bert, TOKENIZER, TEXTS, tmp_path / "onnx")  # an earlier result is
    assert not (written / "onnx" / "model.onnx").exists()
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "notes.txt").write_text("mine")
    (written / "notes.txt").write_text("mine")
    bert.save_pretrained(tmp_path / "torch")
    TOKENIZER.save_pretrained(tmp_path / "torch")
    refused = "neither empty nor an exported model"
    for folder, message in (
        (tmp_path / "results", refused), (written, refused), (tmp_path, refused), (tmp_path / "torch", "which is read"),
        (tmp_path / "torch" / "onnx", "which is read"),
    ):  # fmt: skip
        for write in (limbeck.export, limbeck.quantize):
            with pytest.raises(InputError, match=message):
                write(tmp_path / "torch", None, TEXTS, folder)
    with pytest.raises(InputError, match="which is read"):
        limbeck.quantize(limbeck.export(bert, TOKENIZER, TEXTS, tmp_path / "b"), TOKENIZER, TEXTS, tmp_path / "b")
    with pytest.raises(InputError, match=refused):
        limbeck.cascade(tmp_path / "b", tmp_path / "b", None, LABELED, tmp_path / "results")
    assert (tmp_path / "results" / "notes.txt").read_text() == (written / "notes.txt").read_text() == "mine"


def test_cascade_writes_a_folder_that_answers_as_the_one_or_the_other(bert, tmp_path):
    near = make_bert(0)
    near.classifier.weight.data += 0.1 * torch.randn(near.classifier.weight.shape)
    small = limbeck.quantize(near, TOKENIZER, TEXTS, tmp_path / "a" / "int8")
    large = limbeck.export(bert, TOKENIZER, TEXTS, tmp_path / "b" / "int8")
    messages = []
    folders = tmp_path / "a" / "int8", tmp_path / "b" / "int8"
    cascade = limbeck.cascade(*folders, None, LABELED, tmp_path / "both", max_changed=90, log=messages.append)
    assert "the smaller model answers" in messages[0]
    answers, sides = logits(cascade, TEXTS[:1]), [logits(model, TEXTS[:1]) for model in (small, large)]
    assert min(np.abs(answers - side).max() for side in sides) < 1e-5
    assert json.loads((tmp_path / "both" / "config.json").read_text())["cascade"]["criterion"] == "confidence"
    again = limbeck.cascade(small, large, TOKENIZER, LABELED, tmp_path / "again", max_changed=90, criterion="entropy")
    assert again.cascade.criterion == "entropy"
    assert limbeck.evaluate(tmp_path / "both", None, LABELED).examples == 32
    with pytest.raises(InputError, match="cascade: large is a torch model; export or quantize it first"):
        limbeck.cascade(small, bert, TOKENIZER, TEXTS, tmp_path / "no")
    bert.save_pretrained(tmp_path / "torch")
    with pytest.raises(InputError, match="cascade: small is a torch model; export or quantize it first"):
        limbeck.cascade(tmp_path / "torch", large, TOKENIZER, TEXTS, tmp_path / "no")


@pytest.mark.parametrize("positions", [(24, 64), (64, 24)])
def test_cascade_reads_as_many_tokens_as_both_models_do(tmp_path, positions):
    models = [make_bert(0, most) for most in positions]
    models[0].classifier.weight.data *= 20  # so that it is sure of some texts
    pair = [
        limbeck.export(model, TOKENIZER, TEXTS, tmp_path / name)
        for name, model in zip(("small", "large"), models, strict=True)
    ]
    cascade = limbeck.cascade(*pair, TOKENIZER, LABELED, tmp_path / "both", max_changed=100)
    assert peek(tmp_path / "both")["max_length"] == 24
    assert json.loads((tmp_path / "both" / "tokenizer_config.json").read_text())["model_max_length"] == 24
    tokenizer = open_tokenizer(tmp_path / "both")
    long = tokenizer(" ".join(TEXTS), truncation=True, return_tensors="np")
    assert long["input_ids"].shape == (1, 24)
    assert np.isfinite(cascade.predict(long)).all()


@pytest.mark.parametrize("opened", [False, True])
def test_cascade_refuses_models_with_labels_in_another_order(bert, tmp_path, opened, monkeypatch):
    names = list(TASK.label_names)
    large = limbeck.export(bert, TOKENIZER, TEXTS, tmp_path / "large")
    turned = make_bert(1)
    turned.config.id2label = dict(enumerate(reversed(names)))
    turned.config.label2id = {name: index for index, name in enumerate(reversed(names))}
    small = limbeck.export(turned, TOKENIZER, TEXTS, tmp_path / "small")
    monkeypatch.setattr("limbeck.exported.open_candidate", lambda *_, **__: pytest.fail("worked"))
    pair = (small, large) if opened else (tmp_path / "small", tmp_path / "large")
    reason = f"have other labels: {', '.join(reversed(names))} and {', '.join(names)}"
    with pytest.raises(InputError, match=f"cascade: the two models {reason}; both should have the same labels"):
        limbeck.cascade(*pair, TOKENIZER, LABELED, tmp_path / "both", max_changed=90)
    assert not (tmp_path / "both").exists()


def test_evaluate_scores_the_split_that_is_asked_for(bert):
    quality = limbeck.evaluate(bert, TOKENIZER, TASK, "validation")
    assert (quality.metric, quality.examples) == ("accuracy", 16)
    assert quality.low <= quality.quality <= quality.high
    with pytest.raises(InputError, match="evaluate needs labels"):
        limbeck.evaluate(bert, TOKENIZER, TEXTS)


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("form", ["lists", "named", "data set"])
def test_evaluate_scores_every_row_that_it_is_given(bert, rows, form):
    """Also of one label, and a single row."""
    labeled = (TEXTS[:rows], [TASK.label_names[1]] * rows)
    table = datasets.Dataset.from_dict(dict(zip(("text", "label"), labeled, strict=True)))
    data = {"lists": labeled, "named": {"test": labeled}, "data set": table}[form]
    quality = limbeck.evaluate(bert, TOKENIZER, data)
    assert (quality.metric, quality.examples) == ("accuracy", rows)
    if form != "named":
        assert limbeck.evaluate(bert, TOKENIZER, data, "train").examples == rows


@pytest.mark.parametrize("chosen", [None, 32])
def test_evaluate_cuts_the_texts_of_an_artefact_as_the_command_does(bert, tmp_path, monkeypatch, chosen):
    limbeck.export(bert, TOKENIZER, TEXTS, tmp_path / "served")
    encoding = {"max_length": 6, "truncation_side": "right", "token_type_ids": False, "words": False}
    (tmp_path / "served" / "limbeck.json").write_text(json.dumps({"max_length": 6, "encoding": encoding}))
    rows = "".join(f"{text},{label}\n" for text, label in zip(*LABELED, strict=True))
    (tmp_path / "rows.csv").write_text(f"text,label\n{rows}")
    measure, judged = evaluation.evaluate, []

    def recorded(model, tokenizer, task, *options, **named):
        judged.append((task.max_length, measure(model, tokenizer, task, *options, **named)))
        return judged[-1][1]

    monkeypatch.setattr(evaluation, "evaluate", recorded)
    data = {"path": str(tmp_path / "rows.csv")}
    limbeck.evaluate(tmp_path / "served", None, data if chosen is None else {**data, "max_length": chosen})
    options = TaskOptions(max_length=chosen)
    command(str(tmp_path / "served"), task=str(tmp_path / "rows.csv"), data=options, json=True)
    (length, result), (same_length, same) = judged
    assert length == same_length == (chosen or 6)
    assert (result.quality, result.examples) == (same.quality, same.examples)


@pytest.mark.slow
def test_latency_times_models_beside_each_other(bert):
    small = limbeck.prune(bert, TOKENIZER, TEXTS, layers=1, samples=16)
    times = limbeck.latency({"whole": bert, "small": small}, TOKENIZER, TEXTS, rounds=2)
    assert list(times) == ["whole", "small"]
    assert {fact.unit for fact in times.values()} == {"s"}
    assert times["whole"].detail["session"] == times["small"].detail["session"]
    assert limbeck.latency(bert, TOKENIZER, TEXTS, rounds=2).low > 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda model: limbeck.prune(model, TOKENIZER, TEXTS), "give a goal"),
        (
            lambda model: limbeck.prune(model, TOKENIZER, TEXTS, keep=1.5),
            r"keep: should be in \(0, 1\], got 1\.5",
        ),
        (
            lambda model: limbeck.prune(model, TOKENIZER, TEXTS, keeps=0.5),
            "did you mean 'keep'",
        ),
        (lambda model: limbeck.prune(model, None, TEXTS, keep=0.5), "a model in memory needs its tokenizer"),
        (lambda model: limbeck.prune(torch.nn.Linear(2, 2), TOKENIZER, TEXTS, keep=0.5), "got Linear"),
        (lambda model: limbeck.prune(model, TOKENIZER, [], keep=0.5), "there is no text"),
        (lambda model: limbeck.prune(model, TOKENIZER, (TEXTS, ["odd", "even"] * 16), keep=0.5), "does not answer"),
    ],
)
def test_what_is_wrong_is_said_before_any_work(bert, call, message):
    with pytest.raises(InputError, match=message):
        call(bert)


def test_options_that_make_no_sense_for_a_kind_of_task_are_refused():
    config = BertConfig(
        vocab_size=len(TOKENIZER),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=64,
        num_labels=1,
        problem_type="regression",
    )
    model, numbers = BertForSequenceClassification(config).eval(), (TEXTS, list(np.linspace(0, 1, len(TEXTS))))
    with pytest.raises(InputError, match=r"^temperature: has no effect on answers of kind regression"):
        limbeck.distill(model, model, TOKENIZER, numbers, temperature=4.0)
    with pytest.raises(InputError, match=r"^temperature: has no effect on answers of kind regression"):
        limbeck.linearize(model, TOKENIZER, numbers, alpha_output=1.0, temperature=4.0)
