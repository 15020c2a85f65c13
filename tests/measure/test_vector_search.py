from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from limbeck.data.beir import Retrieval
from limbeck.data.first_stage import candidates_of
from limbeck.data.synthetic import toy_task, toy_tokenizer
from limbeck.engine.predict import answer
from limbeck.errors import InputError
from limbeck.measure.vector_search import by_vectors
from limbeck.model.checkpoints import save_model


@pytest.fixture
def texts():
    return list(dict.fromkeys(toy_task("classification", train=20).split("train").texts))


def saved(make_model, kind, folder):
    task = toy_task("classification", train=20)
    tokenizer = toy_tokenizer(task)
    save_model(make_model(kind=kind, vocab_size=len(tokenizer)), tokenizer, folder)
    return str(folder)


def test_the_nearest_documents_are_those_of_the_vectors_that_the_model_answers(make_model, texts, tmp_path):
    model = saved(make_model, "embedding", tmp_path / "model")
    vectors = np.array([row["answer"] for row in answer(model, texts)])
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    ranked = by_vectors(model, texts[3:], texts[:3], 5)
    cosines = unit[:3] @ unit[3:].T
    for row, best in zip(cosines, ranked, strict=True):
        np.testing.assert_allclose(row[best], np.sort(row)[::-1][:5], atol=1e-5)


def test_it_is_a_first_stage(make_model, texts, tmp_path, monkeypatch):
    monkeypatch.setenv("LIMBECK_STORE", str(tmp_path / "store"))
    saved(make_model, "embedding", tmp_path / "model")
    retrieval = Retrieval({str(i): text for i, text in enumerate(texts)}, {"q": texts[4]}, {"q": {"4": 1.0}})
    assert candidates_of(retrieval, "model", 3, tmp_path, by_vectors)["q"][0] == "4"


@pytest.mark.parametrize("name", ["tokenizer.json", "model.safetensors", "config.json"])
def test_a_ranking_belongs_to_the_content_of_the_model(make_model, texts, tmp_path, monkeypatch, name):
    """Of every file, whatever its size and times say; where the model lies does not matter."""
    monkeypatch.setenv("LIMBECK_STORE", str(tmp_path / "store"))
    folder = Path(saved(make_model, "embedding", tmp_path / "model"))
    retrieval = Retrieval({str(i): text for i, text in enumerate(texts)}, {"q": texts[4]}, {"q": {"4": 1.0}})
    ranked = candidates_of(retrieval, "model", 3, tmp_path, by_vectors)
    other = lambda *_: [[5, 6, 7]]  # noqa: E731
    shutil.copytree(folder, tmp_path / "copy")
    assert candidates_of(retrieval, "copy", 3, tmp_path, other) == ranked
    path = folder / name
    content, status = path.read_bytes(), path.stat()
    path.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert candidates_of(retrieval, "model", 3, tmp_path, other)["q"] == ["5", "6", "7"]


def test_a_model_without_vectors_is_refused(make_model, texts, tmp_path):
    with pytest.raises(InputError, match="gives no vectors"):
        by_vectors(saved(make_model, "classification", tmp_path / "model"), texts, texts, 2)
