from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from limbeck.core.candidate import Candidate
from limbeck.core.judged_texts import Document, Query
from limbeck.core.sentence_embedding import POOLINGS, Dense, SentenceEmbedding
from limbeck.core.shape import Shape
from limbeck.core.task import Split, Task
from limbeck.data.batching import encode, predict
from limbeck.data.encoding import TextEncoding
from limbeck.data.synthetic import toy_task, toy_tokenizer
from limbeck.model.checkpoints import open_model, save_model
from limbeck.model.interchange import translate_folder
from limbeck.model.pruning.subnetwork import channel_scores, extract, sort_channels
from limbeck.model.sentence_encoder import pool


def one_text(hidden, pooling):
    """Pool the tokens of one text, without padding."""
    return {
        "mean": hidden.mean(0),
        "cls": hidden[0],
        "max": hidden.max(0).values,
        "mean_sqrt_len_tokens": hidden.sum(0) / len(hidden) ** 0.5,
        "lasttoken": hidden[-1],
    }[pooling]


@pytest.mark.parametrize("pooling", POOLINGS)
def test_pooling_leaves_padding_out(pooling):
    hidden = torch.randn(3, 5, 4)
    lengths = [5, 2, 1]
    mask = (torch.arange(5)[None] < torch.tensor(lengths)[:, None]).long()
    for row, length in zip(range(3), lengths, strict=True):
        expected = one_text(hidden[row, :length], pooling)
        torch.testing.assert_close(pool(hidden, mask, pooling)[row], expected)
        torch.testing.assert_close(pool(hidden[row : row + 1, :length], None, pooling)[0], expected)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_long_texts_in_half_precision(pooling):
    """Sums over 9,000 tokens are beyond what float16 holds."""
    hidden = torch.rand(1, 9000, 3, generator=torch.Generator().manual_seed(0)) * 20
    expected = one_text(hidden[0], pooling)
    for mask in (torch.ones(1, 9000, dtype=torch.long), None):
        torch.testing.assert_close(pool(hidden.half(), mask, pooling)[0].float(), expected, rtol=1e-3, atol=0)


@pytest.fixture(scope="module")
def candidate(make_model):
    task = toy_task("embedding", train=8, validation=8, test=8)
    tokenizer = toy_tokenizer(task)
    model = make_model(kind="embedding", vocab_size=len(tokenizer))
    model.widen(Dense(5, True, "tanh"), torch.randn(5, 32), torch.randn(5))
    return Candidate(model, tokenizer, task)


def test_a_row_has_the_vectors_of_both_its_texts(candidate):
    model, tokenizer, task = candidate.model, candidate.tokenizer, candidate.task
    rows = task.split("test")
    both = predict(model, encode(task, "test", tokenizer), 3)
    for side, texts in enumerate((rows.texts, rows.pairs)):
        alone = replace(task, splits={"test": replace(rows, texts=texts, pairs=None)})
        expected = predict(model, encode(alone, "test", tokenizer), 1)
        np.testing.assert_allclose(both[:, 5 * side : 5 * side + 5], expected, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(expected, axis=1), 1, atol=1e-6)


def test_an_artefact_opens_with_the_same_vectors(candidate, tmp_path):
    save_model(candidate.model, candidate.tokenizer, tmp_path)
    translate_folder(tmp_path, 16)
    again, tokenizer = open_model(tmp_path)
    encoded = encode(candidate.task, "test", tokenizer)
    np.testing.assert_array_equal(predict(again, encoded), predict(candidate.model, encoded))


def test_a_classifier_can_be_made_of_it_and_it_of_a_classifier(candidate, tmp_path, make_model):
    save_model(candidate.model, candidate.tokenizer, tmp_path / "vectors")
    moods = toy_task(train=8, validation=8, test=8)
    classifier, _ = open_model(tmp_path / "vectors", task=moods)
    assert classifier.fresh_head
    save_model(make_model(vocab_size=len(candidate.tokenizer)), candidate.tokenizer, tmp_path / "classes")
    vectors, _ = open_model(tmp_path / "classes", task=candidate.task)
    assert vectors.embedding == SentenceEmbedding()
    assert not vectors.fresh_head


def test_prompt_length_and_case_belong_to_the_tokenizer(candidate, tmp_path, make_model):
    model = make_model(kind="embedding", vocab_size=len(candidate.tokenizer))
    model.embedding = SentenceEmbedding(prompts={"q": "Sunny "}, default_prompt="q", max_length=6, lower_case=True)
    save_model(model, candidate.tokenizer, tmp_path)
    _, tokenizer = open_model(tmp_path)
    encoding = TextEncoding.of(tokenizer, 100)
    assert encoding.max_length == 6
    expected = TextEncoding.of(candidate.tokenizer, 6).encode(candidate.tokenizer, ["sunny bleak film"])["input_ids"]
    assert encoding.encode(tokenizer, ["BLEAK film"])["input_ids"] == expected


@pytest.mark.parametrize(
    ("prompts", "default", "query_prompt", "document_prompt"),
    [
        ({"query": "Sunny ", "passage": "bleak "}, None, "sunny film", "bleak film"),
        ({"query": "Sunny "}, None, "sunny film", "film"),
        ({"query": "Sunny ", "q": "dull "}, "q", "sunny film", "dull film"),
        ({"query": "Sunny ", "document": "Sunny "}, None, "sunny film", "sunny film"),
        ({"other": "Sunny "}, None, "film", "film"),
    ],
)
def test_texts_of_a_search_have_the_prompts_of_their_part(  # as encode_query and encode_document choose
    candidate, tmp_path, make_model, prompts, default, query_prompt, document_prompt
):
    model = make_model(kind="embedding", vocab_size=len(candidate.tokenizer))
    model.embedding = SentenceEmbedding(prompts=prompts, default_prompt=default, lower_case=True)
    save_model(model, candidate.tokenizer, tmp_path)
    _, tokenizer = open_model(tmp_path)
    labels = (Document(0), Document(1), Query(((0, 1.0),)))
    search = Task("search", "embedding", {"test": Split(("film",) * 3, labels)}, (), "ndcg_at_10")
    expected = TextEncoding.of(candidate.tokenizer, 50).encode(
        candidate.tokenizer, [document_prompt, document_prompt, query_prompt]
    )["input_ids"]
    assert encode(search, "test", tokenizer).input_ids == expected


@pytest.mark.slow
def test_sentence_transformers_opens_an_artefact(candidate, tmp_path):
    library = pytest.importorskip("sentence_transformers")
    save_model(candidate.model, candidate.tokenizer, tmp_path)
    translate_folder(tmp_path, 16)
    texts = list(candidate.task.split("test").texts)
    alone = replace(candidate.task.split("test"), pairs=None)
    encoded = encode(replace(candidate.task, splits={"test": alone}), "test", candidate.tokenizer)
    vectors = library.SentenceTransformer(str(tmp_path), device="cpu").encode(texts)
    np.testing.assert_allclose(vectors, predict(candidate.model, encoded), atol=1e-5)


@pytest.mark.parametrize("dense", [False, True])
def test_slices_keep_the_width_of_the_whole_model_whose_vectors_do_not_change(make_model, make_batch, dense):
    model, batch = make_model(kind="embedding"), make_batch()
    if dense:
        model.widen(Dense(24), torch.randn(24, 32), torch.randn(24))
    before, layers = model.predict(batch), len(model.dense)
    model.keep_width()
    torch.testing.assert_close(model.predict(batch), before)
    assert len(model.dense) == max(1, layers)
    small = Shape.uniform(layers=1, hidden=16, heads=2, ffn=16)
    sliced = model.run(batch, shape=small)[0]
    assert sliced.shape == before.shape
    torch.testing.assert_close(extract(model, small).run(batch)[0], sliced)


@pytest.mark.parametrize("dense", [False, True])
def test_sorted_channels_make_the_same_vectors(make_model, make_batch, dense):
    model, batch = make_model(kind="embedding"), make_batch()
    if dense:
        model.widen(Dense(24), torch.randn(24, 32), torch.randn(24))
    before = model.predict(batch)
    model.keep_width()
    order = sort_channels(model, channel_scores(model))
    assert order.tolist() != list(range(32))
    torch.testing.assert_close(model.predict(batch), before, atol=1e-5, rtol=1e-4)


def test_the_layer_that_keeps_the_width_may_have_a_bias(make_model, make_batch):
    model, batch = make_model(kind="embedding"), make_batch()
    before = model.predict(batch)
    model.keep_width(bias=True)
    assert model.embedding.dense == (Dense(32),)
    assert not model.dense[0].bias.any()
    torch.testing.assert_close(model.predict(batch), before)
