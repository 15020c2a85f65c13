"""Embedding models that only sentence-transformers opens, as teachers of vectors."""

from __future__ import annotations

import json
from shutil import copytree

import numpy as np
import pytest

from limbeck.core.candidate import Candidate
from limbeck.core.judged_texts import Document, Query
from limbeck.core.model import VectorSource
from limbeck.core.task import Split, Task
from limbeck.data.synthetic import toy_task, toy_tokenizer
from limbeck.engine.run import run
from limbeck.engine.store.store import Store
from limbeck.engine.tasks.answered_texts import load_run_task
from limbeck.errors import InputError, MissingExtra, UnsupportedModel
from limbeck.model.checkpoints import save_model
from limbeck.recipe.recipe import parse
from limbeck.teachers.opening import describe, open_vectors
from limbeck.teachers.sentence_transformers_model import SentenceTransformersTeacher, is_embedding_model

pytest.importorskip("sentence_transformers")
TEXTS = ("a sunny film", "dull", "the bleak and slow one", "a fine film")
PAIRS = Task("pairs", "embedding", {"train": Split(TEXTS[:2], (1.0, 0.0), TEXTS[2:])}, (), "spearman")


@pytest.fixture(scope="module")
def decoder(tmp_path_factory):
    """A small Qwen3 with the last token's state as its vector, and a prompt for queries."""
    import torch
    from transformers import Qwen3Config, Qwen3Model

    folder = tmp_path_factory.mktemp("decoder")
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "head_dim": 8}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1}
    Qwen3Model(Qwen3Config(vocab_size=60, max_position_embeddings=64, **sizes, **heads)).save_pretrained(folder)
    toy_tokenizer(toy_task()).save_pretrained(folder)
    names = ("Transformer", "Pooling", "Normalize")
    parts = [
        {"idx": index, "name": str(index), "path": f"{index}_{name}" if index else "", "type": f"{LIBRARY}.{name}"}
        for index, name in enumerate(names)
    ]
    (folder / "modules.json").write_text(json.dumps(parts))
    (folder / "1_Pooling").mkdir()
    pooling = {"word_embedding_dimension": 16, "pooling_mode_lasttoken": True, "pooling_mode_mean_tokens": False}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    (folder / "2_Normalize").mkdir()
    (folder / "config_sentence_transformers.json").write_text(json.dumps({"prompts": {"query": "sunny "}}))
    return folder


LIBRARY = "sentence_transformers.models"


def test_vectors_are_those_of_the_library(decoder):
    from sentence_transformers import SentenceTransformer

    teacher = open_vectors(str(decoder))
    assert isinstance(teacher, VectorSource)
    assert teacher.width == 16
    library = SentenceTransformer(str(decoder), device="cpu")
    first, second = library.encode(list(TEXTS[:2])), library.encode(list(TEXTS[2:]))
    np.testing.assert_allclose(teacher.answer(PAIRS, "train"), np.concatenate([first, second], 1), atol=1e-6)
    labels = (Document(0), Query(((0, 1.0),)), Document(1), Query(()))
    search = Task("search", "embedding", {"test": Split(TEXTS, labels)}, (), "ndcg_at_10")
    vectors = teacher.answer(search, "test")
    np.testing.assert_allclose(vectors[[1, 3]], library.encode_query([TEXTS[1], TEXTS[3]]), atol=1e-6)
    np.testing.assert_allclose(vectors[[0, 2]], library.encode_document([TEXTS[0], TEXTS[2]]), atol=1e-6)
    assert np.abs(vectors[[1, 3]] - library.encode([TEXTS[1], TEXTS[3]])).max() > 1e-3


def test_texts_are_cut_at_the_length_of_the_task(decoder):
    from dataclasses import replace

    teacher = open_vectors(str(decoder))
    short = replace(PAIRS, max_length=4)
    assert np.abs(teacher.answer(short, "train") - teacher.answer(PAIRS, "train"))[:, 16:].max() > 1e-3
    assert teacher.max_length == 32


def test_a_student_learns_the_vectors_of_a_decoder(decoder, tmp_path, make_model):
    described = describe(str(decoder))
    assert described is not None
    assert "limbeck does not open it" in described.reason
    model = make_model(kind="embedding", vocab_size=60)
    save_model(model, toy_tokenizer(toy_task()), tmp_path / "model")
    (tmp_path / "texts.txt").write_text("\n".join(f"{text} {word}" for text in TEXTS for word in "abcdef"))
    recipe = {
        "model": str(tmp_path / "model"),
        "teacher": str(decoder),
        "task": {"texts": str(tmp_path / "texts.txt")},
        "allow_weak_teacher": True,
        "steps": [{"distill": {"match": ["logits"], "epochs": 2}}, {"quality": {"split": "validation"}}],
    }
    store = Store.of(tmp_path / "store")
    store.prepare()
    task = load_run_task(recipe["task"], recipe["model"], recipe["teacher"], store)
    assert len(task.split("validation").labels[0]) == 16
    result = run(parse(recipe), tmp_path / "store", tmp_path / "run", progress=False)
    opened = result.open(result.front[0])
    assert isinstance(opened, Candidate)
    assert opened.model.embedding.width(opened.model.shape.hidden) == 16
    assert result.records[result.front[0]].fact("quality", "validation").value > 0


def test_what_gives_no_vectors_is_refused(decoder, tmp_path, monkeypatch):
    assert is_embedding_model(str(decoder))
    (tmp_path / "config.json").write_text((decoder / "config.json").read_text())
    assert not is_embedding_model(str(tmp_path))
    with pytest.raises(InputError, match=r"gives no vectors: modules\.json, which says how they are made, is missing"):
        SentenceTransformersTeacher(str(tmp_path), "id")
    for kind, words in (("somebody.code.Transformer", "'somebody.code.Transformer'"), ("", "no Pooling")):
        parts = [{"idx": 0, "name": "0", "path": "", "type": kind or f"{LIBRARY}.Transformer"}]
        parts += [{"idx": 1, "name": "1", "path": "1_Pooling", "type": f"{LIBRARY}.Pooling"}] if kind else []
        (tmp_path / "modules.json").write_text(json.dumps(parts))
        with pytest.raises(InputError, match=words):
            SentenceTransformersTeacher(str(tmp_path), "id")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"limbeck\[sentence-transformers\]"):
        SentenceTransformersTeacher(str(decoder), "id")


def test_a_teacher_whose_vectors_are_compared_by_another_similarity_is_refused(decoder, tmp_path):
    copytree(decoder, tmp_path / "dot")
    settings = tmp_path / "dot" / "config_sentence_transformers.json"
    settings.write_text(json.dumps({"similarity_fn_name": "dot"}))
    open_vectors(str(tmp_path / "dot"))  # it normalizes
    parts = json.loads((decoder / "modules.json").read_text())[:2]
    (tmp_path / "dot" / "modules.json").write_text(json.dumps(parts))
    with pytest.raises(UnsupportedModel, match=r"similarity_fn_name 'dot' is not supported"):
        open_vectors(str(tmp_path / "dot"))
