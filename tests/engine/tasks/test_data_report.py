"""What was read is announced, with the tokens that a model's own tokenizer counts."""

from __future__ import annotations

import json
from dataclasses import replace

from limbeck.data.synthetic import toy_task, toy_tokenizer
from limbeck.engine.tasks.data_report import announce, data_report, token_counter


def test_tokens_are_counted_as_the_model_does(tmp_path):
    task = toy_task()
    tokenizer = toy_tokenizer(task)
    tokenizer.save_pretrained(tmp_path)
    texts = list(task.split("train").texts[:20])
    counted = token_counter(str(tmp_path))(texts, None)
    assert counted == [len(ids) for ids in tokenizer(texts)["input_ids"]]
    pairs = token_counter(str(tmp_path))(texts, texts[::-1])
    assert pairs == [len(ids) for ids in tokenizer(texts, texts[::-1])["input_ids"]]
    words = [tuple(text.split()) for text in texts]
    counted = token_counter(str(tmp_path))(words, None)
    assert counted == [len(ids) for ids in tokenizer(list(map(list, words)), is_split_into_words=True)["input_ids"]]
    assert data_report(task, str(tmp_path)).truncation[0].cut == 0


def test_a_name_on_the_hub_counts_where_its_tokenizer_was_fetched_before(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    task = toy_task()
    repository = tmp_path / "models--owner--name"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("abc")
    toy_tokenizer(task).save_pretrained(repository / "snapshots" / "abc")
    (truncation, *_) = data_report(replace(task, max_length=2), "owner/name").truncation
    assert truncation.cut > 0
    assert token_counter("owner/other") is None
    assert token_counter("no name/of/the hub") is None


def test_a_tokenizer_that_is_not_at_hand_is_no_error(tmp_path):
    assert token_counter("owner/name-of-the-hub") is None
    (tmp_path / "tokenizer.json").write_text("{}")
    assert token_counter(str(tmp_path)) is None
    assert data_report(toy_task(), str(tmp_path)).truncation == ()


def test_an_event_for_those_who_listen():
    seen = []
    announce(seen.append, toy_task())
    (event,) = seen
    assert event["kind"] == "data"
    assert event["message"].startswith("data: ")
    json.dumps(event["data"])


def test_a_vocabulary_with_fewer_tokens_than_the_model_embeds_is_noted(tmp_path):
    task = toy_task()
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"word{number}" for number in range(95))]
    for rows, tokens, noted in ((100, 100, False), (104, 100, False), (128, 100, False), (104, 50, True)):
        (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert", "vocab_size": rows}))
        (tmp_path / "vocab.txt").write_text("\n".join(words[:tokens]) + "\n")
        notes = data_report(task, str(tmp_path)).notes
        assert any("cut short" in note for note in notes) == noted
    toy_tokenizer(task).save_pretrained(tmp_path)  # tokenizer.json counts, where there is one
    assert not any("cut short" in note for note in data_report(task, str(tmp_path)).notes)
