from __future__ import annotations

import json

import pytest
from huggingface_hub.errors import EntryNotFoundError

from limbeck.core.sentence_embedding import SentenceEmbedding
from limbeck.errors import InputError, UnsupportedModel
from limbeck.measure.vector_search import by_vectors
from limbeck.model.checkpoints import open_model, peek
from limbeck.model.location import ALIASES, check_vectors, embedding_of, model_folder, read_config
from limbeck.model.sentence_transformers import SETTINGS, write_modules
from limbeck.teachers.opening import name_problems


def test_a_short_name_without_its_package_says_what_to_install(monkeypatch):
    monkeypatch.setitem(ALIASES, "minilm-l6", ("no_such_package_here", "model", "demo"))
    with pytest.raises(InputError, match=r"pip install 'limbeck\[demo\]'"):
        open_model("minilm-l6")


def test_a_hub_name_is_no_folder(tmp_path):
    assert model_folder(str(tmp_path)) == tmp_path
    assert model_folder("owner/name") is None


class Hub:
    """A hub of one model, in a folder; it counts what is asked for."""

    def __init__(self, folder):
        self.folder, self.requests = folder, []

    def hf_hub_download(self, name, file):
        self.requests.append(file)
        if not (self.folder / file).is_file():
            raise EntryNotFoundError(f"{name} has no {file}")
        return str(self.folder / file)

    def snapshot_download(self, name, allow_patterns=None):
        self.requests.append(tuple(allow_patterns))
        return str(self.folder)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    new_hub = Hub(tmp_path)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", new_hub.hf_hub_download)
    monkeypatch.setattr("huggingface_hub.snapshot_download", new_hub.snapshot_download)
    return new_hub


def test_parts_of_an_embedding_model_on_the_hub_are_read(hub):
    config = {"model_type": "bert", "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config |= {"intermediate_size": 16, "vocab_size": 30, "max_position_embeddings": 32}
    (hub.folder / "config.json").write_text(json.dumps(config))
    assert not peek("owner/name")["vectors"]
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    ]
    (hub.folder / "modules.json").write_text(json.dumps(modules))
    (hub.folder / "1_Pooling").mkdir()
    (hub.folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_cls_token": True}))
    assert peek("owner/name")["vectors"]
    _, read = read_config("owner/name")
    embedding = embedding_of("owner/name", read)
    assert (embedding.pooling, embedding.normalize) == ("cls", False)
    assert not any(file == "model.safetensors" for file in hub.requests)


def test_vectors_that_are_not_supported_are_no_missing_training(tmp_path):
    """What only looks at a model goes on without its vectors; what needs them says why there are none."""
    write_modules(tmp_path, SentenceEmbedding(normalize=False), 16, {})
    config = {"model_type": "bert", "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config |= {"intermediate_size": 16, "vocab_size": 30, "max_position_embeddings": 32}
    (tmp_path / "config.json").write_text(json.dumps(config))
    check_vectors(tmp_path)
    assert peek(tmp_path)["vectors"]
    (tmp_path / SETTINGS).write_text(json.dumps({"similarity_fn_name": "dot"}))
    assert not peek(tmp_path)["vectors"]
    reason = "similarity_fn_name 'dot' is not supported"
    with pytest.raises(UnsupportedModel, match=reason):
        check_vectors(tmp_path)
    (problem,) = name_problems([str(tmp_path)], "teacher")
    assert reason in problem
    with pytest.raises(UnsupportedModel, match=reason):
        by_vectors(str(tmp_path), ["a"], ["b"], 1)


def test_a_model_with_labels_is_not_asked_for_its_parts(hub):
    labels = {"id2label": {"0": "no", "1": "yes"}, "model_type": "bert"}
    (hub.folder / "config.json").write_text(json.dumps(labels))
    _, config = read_config("owner/name")
    assert embedding_of("owner/name", config) is None
    assert hub.requests == ["config.json"]
