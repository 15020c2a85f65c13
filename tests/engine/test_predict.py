"""Answers of saved models, for every kind of task."""

from __future__ import annotations

import json

import numpy as np
import pytest
import transformers
from safetensors.torch import load_file, save_file

from limbeck.core.requests import requests_of
from limbeck.core.sentence_embedding import SentenceEmbedding
from limbeck.data.batching import encode, predict
from limbeck.data.synthetic import toy_task, toy_tokenizer
from limbeck.engine.predict import answer
from limbeck.errors import InputError
from limbeck.model.checkpoints import save_model
from limbeck.model.classification_head import set_labels


@pytest.fixture
def saved(tmp_path, make_model):
    def save(kind):
        task = toy_task(kind, train=24, validation=8, test=8)
        tokenizer = toy_tokenizer(task)
        model = make_model(labels=task.num_labels, kind=task.kind, vocab_size=len(tokenizer))
        set_labels(model, task.label_names, task.kind, seed=0)
        save_model(model, tokenizer, tmp_path / kind)
        return tmp_path / kind, task, predict(model, encode(task, "test", tokenizer))

    return save


@pytest.mark.parametrize("kind", ["classification", "pairs"])
def test_classes(saved, kind):
    folder, task, logits = saved(kind)
    split = task.split("test")
    answers = answer(folder, split.texts, split.pairs)
    assert [row["answer"] for row in answers] == [task.label_names[row.argmax()] for row in logits]
    assert all(sum(row["scores"].values()) == pytest.approx(1) for row in answers)


def test_several_labels(saved):
    folder, task, logits = saved("multilabel")
    answers = answer(folder, task.split("test").texts)
    names = [", ".join(name for name, logit in zip(task.label_names, row, strict=True) if logit > 0) for row in logits]
    assert [row["answer"] for row in answers] == names


def test_vectors_of_a_named_prompt(tmp_path, make_model):
    """As if the prompt stood in the text; without a name the default prompt counts."""
    task = toy_task("embedding", train=24, validation=8, test=8)
    tokenizer = toy_tokenizer(task)
    model = make_model(labels=task.num_labels, kind=task.kind, vocab_size=len(tokenizer))
    prompts = {"query": "good ", "document": ""}
    embedding = SentenceEmbedding(prompts=prompts, default_prompt="document")
    model.config.sentence_embedding = embedding.to_json()
    save_model(model, tokenizer, tmp_path / "model")
    texts = list(task.split("test").texts)
    plain = [row["answer"] for row in answer(tmp_path / "model", [f"good {text}" for text in texts])]
    assert [row["answer"] for row in answer(tmp_path / "model", texts, prompt_name="query")] == plain
    assert [row["answer"] for row in answer(tmp_path / "model", texts)] != plain
    with pytest.raises(InputError, match="has no prompt 'querry'; did you mean 'query'"):
        answer(tmp_path / "model", texts, prompt_name="querry")


def test_texts_that_are_searched_have_the_prompt_of_documents(tmp_path, make_model):
    task = toy_task("embedding", train=24, validation=8, test=8)
    tokenizer = toy_tokenizer(task)
    model = make_model(labels=task.num_labels, kind=task.kind, vocab_size=len(tokenizer))
    model.config.sentence_embedding = SentenceEmbedding(prompts={"query": "good ", "document": "bad "}).to_json()
    save_model(model, tokenizer, tmp_path / "model")
    texts, pairs = list(task.split("test").texts), list(task.split("test").pairs)
    found = answer(tmp_path / "model", texts, pairs, prompt_name="query")
    plain = answer(tmp_path / "model", [f"good {text}" for text in texts], [f"bad {text}" for text in pairs])
    assert [row["answer"] for row in found] == [row["answer"] for row in plain]


def test_a_model_without_prompts_has_none_of_that_name(saved):
    folder, task, _ = saved("classification")
    with pytest.raises(InputError, match="has no prompt 'query'; it has none"):
        answer(folder, task.split("test").texts, prompt_name="query")


def test_numbers(saved):
    folder, task, logits = saved("regression")
    assert [row["answer"] for row in answer(folder, task.split("test").texts)] == pytest.approx(logits[:, 0].tolist())


def test_a_label_for_every_word(saved):
    folder, task, _ = saved("tokens")
    texts = [" ".join(words) for words in task.split("test").texts]
    answers = answer(folder, texts)
    assert [len(row["labels"]) for row in answers] == [len(text.split()) for text in texts]
    assert {label for row in answers for label in row["labels"]} <= set(task.label_names)


def test_a_score(saved):
    folder, task, logits = saved("regression")
    config = json.loads((folder / "config.json").read_text())
    del config["problem_type"]
    (folder / "config.json").write_text(json.dumps(config))
    texts = task.split("test").texts
    sigmoid = 1 / (1 + np.exp(-logits[:, 0].astype(float)))
    assert [row["answer"] for row in answer(folder, texts)] == pytest.approx(sigmoid.tolist(), rel=1e-5)
    config["sentence_transformers"] = {"activation_fn": "torch.nn.modules.linear.Identity"}
    (folder / "config.json").write_text(json.dumps(config))
    assert [row["answer"] for row in answer(folder, texts)] == pytest.approx(logits[:, 0].tolist(), rel=1e-5)


def test_a_text_without_a_number_is_named(saved, monkeypatch):
    folder, task, logits = saved("classification")
    logits[2, 1] = np.nan
    monkeypatch.setattr("limbeck.data.batching.predict", lambda *given: logits)
    with pytest.raises(InputError, match=r"gives no numbers for text 3 .*1 NaN of 3"):
        answer(folder, task.split("test").texts)


@pytest.mark.parametrize("kind", ["classification", "tokens"])
def test_an_untrained_head_answers_nothing(saved, kind):
    folder, _, _ = saved(kind)
    weights = load_file(folder / "model.safetensors")
    del weights["classifier.bias"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"no trained head: its weights lack 1 tensor of the head: classifier\.bias"):
        answer(folder, ["a text"])


@pytest.mark.parametrize("family", ["bert", "distilbert", "roberta"])
def test_a_label_for_every_word_of_a_checkpoint_of_a_family(tmp_path, family):
    task = toy_task("tokens", train=24, validation=8, test=8)
    tokenizer = toy_tokenizer(task)
    sizes = {"hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 1, "intermediate_size": 8}
    if family == "distilbert":
        sizes = {"dim": 16, "n_heads": 2, "n_layers": 1, "hidden_dim": 8}
    names = {"id2label": dict(enumerate(task.label_names)), "label2id": {n: i for i, n in enumerate(task.label_names)}}
    config = transformers.AutoConfig.for_model(family, vocab_size=len(tokenizer), pad_token_id=0, **sizes, **names)
    transformers.AutoModelForTokenClassification.from_config(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    (row,) = answer(tmp_path, ["one two three"])
    assert len(row["labels"]) == 3
    assert set(row["labels"]) <= set(task.label_names)


def test_as_many_second_texts_as_texts(saved):
    folder, _, _ = saved("pairs")
    with pytest.raises(InputError, match="2 texts but 1 second texts"):
        answer(folder, ["a", "b"], ["c"])
    assert answer(folder, []) == []


def test_one_text_may_stand_for_all_second_texts(saved):
    folder, _, _ = saved("pairs")
    rows = answer(folder, ["a"], ["c", "d e"])
    assert rows == answer(folder, ["a", "a"], ["c", "d e"])
    assert [(row["text"], row["pair"]) for row in rows] == [("a", "c"), ("a", "d e")]


@pytest.mark.parametrize(
    ("takes_pairs", "pairs", "message"), [(False, ["b"], "takes single texts"), (True, None, "pairs")]
)
def test_an_artefact_says_whether_it_takes_pairs(saved, takes_pairs, pairs, message):
    folder, _, _ = saved("classification")
    (folder / "limbeck.json").write_text(json.dumps({"pair": takes_pairs, "max_length": 16}))
    with pytest.raises(InputError, match=message):
        answer(folder, ["a"], pairs)


def test_a_model_that_labels_words_takes_no_pairs(saved):
    folder, _, _ = saved("tokens")
    with pytest.raises(InputError, match="takes single texts"):
        answer(folder, ["a"], ["b"])


def test_a_checkpoint_does_not_say_and_takes_both(saved):
    folder, task, _ = saved("classification")
    text = task.split("test").texts[0]
    assert len(answer(folder, [text])) == len(answer(folder, [text], [text])) == 1


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"max_length": 16, "encoding": {"max_length": 10_000}}, "limbeck.json has texts of 10000 tokens"),
        ({"max_length": 16, "encoding": {"max_length": 16, "words": True}}, "words: True, and the model labels whole"),
        ({"max_length": 16, "encoding": {"max_length": "16"}}, "'encoding.max_length' should be a whole number"),
        ({"pair": False}, "'max_length' is required"),
    ],
)
def test_a_description_that_does_not_fit_its_model_is_refused(saved, entries, message):
    folder, _, _ = saved("classification")
    (folder / "limbeck.json").write_text(json.dumps(entries))
    with pytest.raises(InputError, match=message):
        answer(folder, ["a"])


def with_decision(folder, **decision):
    (folder / "limbeck.json").write_text(json.dumps({"pair": False, "max_length": 16, "decision": decision}))


def test_an_artefact_answers_by_its_thresholds_and_temperature(saved):
    folder, task, logits = saved("classification")
    texts, name = task.split("test").texts, task.label_names[1]
    with_decision(folder, temperature=2.0, thresholds={name: 0.0})
    answers = answer(folder, texts)
    assert {row["answer"] for row in answers} == {name}
    shares = np.exp(logits.astype(float) / 2)
    expected = shares / shares.sum(1, keepdims=True)
    assert np.array([list(row["scores"].values()) for row in answers]) == pytest.approx(expected, rel=1e-5)
    with_decision(folder, thresholds={name: 1.5})
    others = [np.delete(np.arange(logits.shape[1]), 1)[np.delete(row, 1).argmax()] for row in logits]
    assert [row["answer"] for row in answer(folder, texts)] == [task.label_names[index] for index in others]


@pytest.mark.parametrize(
    ("decision", "message"),
    [
        ({"thresholds": {"nobody": 0.5}}, "a threshold of 'nobody'; thresholds are of labels of the model"),
        ({"thresholds": [0.5]}, "'decision.thresholds' should be an object"),
        ({"temperature": 0}, "'decision.temperature' should be in"),
        ({"positive_score": "entropy"}, "'decision.positive_score' cannot be 'entropy'"),
    ],
)
def test_a_decision_that_does_not_fit_its_model_is_refused(saved, decision, message):
    folder, _, _ = saved("classification")
    with_decision(folder, **decision)
    with pytest.raises(InputError, match=message):
        answer(folder, ["a"])


def test_bands_of_an_artefact_begin_at_numbers(saved):
    folder, task, logits = saved("regression")
    texts, middle = task.split("test").texts, float(np.median(logits))
    with_decision(folder, thresholds={"4": middle, "2": -1000.0})
    answers = answer(folder, texts)
    assert [row["band"] for row in answers] == [4.0 if value >= middle else 2.0 for value in logits[:, 0].astype(float)]
    with_decision(folder, thresholds={"four": 1.0})
    with pytest.raises(InputError, match="thresholds are of the numbers where bands begin"):
        answer(folder, texts)


def test_documents_are_ranked_for_their_query(saved):
    folder, task, logits = saved("rerank")
    split = task.split("test")
    answers = answer(folder, split.texts, split.pairs)
    np.testing.assert_allclose([row["answer"] for row in answers], logits[:, 0], atol=1e-5)
    for rows in requests_of(split.labels):
        ranked = sorted(rows, key=lambda row: -answers[row]["answer"])
        assert [answers[row]["rank"] for row in ranked] == list(range(1, len(rows) + 1))
    first = requests_of(split.labels)[0]
    documents = [split.pairs[row] for row in first]
    assert answer(folder, [split.texts[first[0]]], documents) == answer(folder, split.texts[: len(first)], documents)
    with pytest.raises(InputError, match="2 texts but 3 second texts"):
        answer(folder, split.texts[:2], split.pairs[:3])
