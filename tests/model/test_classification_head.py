"""Which head a task gets: the old one, the old one reordered, or a new one."""

from __future__ import annotations

from itertools import permutations

import pytest
import torch

from limbeck.core.outputs import match_labels
from limbeck.core.shape import Shape
from limbeck.data.synthetic import toy_task, toy_tokenizer
from limbeck.errors import InputError
from limbeck.model.classification_head import build, set_labels

SHAPE = Shape.uniform(layers=1, hidden=8, heads=2, ffn=4)
NAMES = ("red", "green", "blue")
SETTINGS = {
    "hidden_size": 8,
    "head_dim": 4,
    "layer_heads": [2],
    "layer_ffn": [4],
    "vocab_size": 11,
    "max_positions": 6,
    "id2label": dict(enumerate(NAMES)),
    "label2id": {name: index for index, name in enumerate(NAMES)},
}


def weights():
    from limbeck.model.encoder import LimbeckConfig, LimbeckForSequenceClassification

    torch.manual_seed(0)
    return LimbeckForSequenceClassification(LimbeckConfig(**SETTINGS)).state_dict()


@pytest.mark.parametrize("new", permutations(NAMES))
def test_outputs_follow_their_names(new):
    model = build(SETTINGS, weights(), per_token=False, shape=SHAPE)
    inputs = {"input_ids": torch.tensor([[1, 2, 3]])}
    before = dict(zip(NAMES, model.predict(inputs)[0], strict=True))
    set_labels(model, new, "classification")
    assert not model.fresh_head
    assert dict(zip(new, model.predict(inputs)[0], strict=True)) == pytest.approx(before)
    assert model.config.label2id == {name: index for index, name in enumerate(new)}


def test_names_that_say_nothing_keep_the_order():
    numbered = ("LABEL_0", "LABEL_1", "LABEL_2")
    assert match_labels(NAMES, ("0", "1", "2"), subset=False).outputs == (0, 1, 2)
    assert match_labels(numbered, NAMES, subset=False).outputs == (0, 1, 2)
    assert match_labels(numbered[:2], numbered[1::-1], subset=False).outputs == (1, 0)
    assert not match_labels(("a", "a"), ("a", "a"), subset=False)
    assert not match_labels(NAMES, NAMES[:2], subset=False)


def test_weights_are_copied_in_float32():
    given = {name: weight.half() for name, weight in weights().items()}
    model = build(SETTINGS, given, per_token=False, shape=SHAPE)
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}
    given = weights()
    model = build(SETTINGS, given, per_token=False, shape=SHAPE)
    given["classifier.weight"].zero_()
    assert model.classifier.weight.any()
    assert all(weight.requires_grad for weight in model.parameters())


@pytest.mark.parametrize("part", ["pooler", "classifier"])
def test_only_the_head_may_be_missing(part):
    given = {name: weight for name, weight in weights().items() if not name.startswith(part)}
    model = build(SETTINGS, given, per_token=False, shape=SHAPE)
    set_labels(model, NAMES, "classification", seed=4)
    assert model.fresh_head
    assert f"{part}.weight, {part}.bias" in model.untrained
    assert model.predict({"input_ids": torch.tensor([[1, 2]])}).shape == (1, 3)
    del given["encoder.embeddings.word.weight"]
    with pytest.raises(InputError, match=r"'encoder\.embeddings\.word\.weight'"):
        build(SETTINGS, given, per_token=False, shape=SHAPE)


@pytest.mark.parametrize("name", ["pooler.weight", "pooler.bias", "classifier.weight", "classifier.bias"])
def test_any_missing_tensor_makes_the_head_untrained(name):
    given = {key: weight for key, weight in weights().items() if key != name}
    first, again = (build(SETTINGS, given, per_token=False, shape=SHAPE) for _ in range(2))
    for model in (first, again):
        set_labels(model, None, None, seed=3, names={"pooler": "theirs.dense"})
    assert first.fresh_head
    assert first.untrained.endswith(name.replace("pooler", "theirs.dense"))
    assert not any(parameter.is_meta for parameter in first.parameters())
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    pretrained = given.keys() & {"pooler.weight", "classifier.weight"}
    assert all(torch.equal(first.state_dict()[key], given[key]) for key in pretrained)


def test_an_order_that_only_position_gives_is_noted():
    for names, assumed in ((("blue", "green", "red"), False), (("0", "1", "2"), True)):
        model = build(SETTINGS, weights(), per_token=False, shape=SHAPE)
        set_labels(model, names, "classification")
        assert not model.fresh_head
        assert model.order_assumed is assumed


def test_a_score_must_be_trained_to_be_a_number():
    untrained = {**SETTINGS, "id2label": {0: "LABEL_0"}, "label2id": {"LABEL_0": 0}}
    given = {key: weight[:1] if "classifier" in key else weight for key, weight in weights().items()}
    for settings, fresh in ((untrained, True), (untrained | {"problem_type": "regression"}, False)):
        model = build(settings, given, per_token=False, shape=SHAPE)
        set_labels(model, (), "regression")
        assert model.fresh_head is fresh
        assert torch.equal(model.classifier.weight, given["classifier.weight"])  # training goes on from there


def test_a_reranker_says_so_in_its_configuration_and_another_kind_takes_it_back(make_model, tmp_path):
    from limbeck.model.checkpoints import open_model, peek_outputs, save_model

    task = toy_task("rerank", train=12)
    tokenizer, model = toy_tokenizer(task), make_model(labels=1, kind="regression")
    set_labels(model, (), "rerank")
    assert model.config.problem_type is None
    assert model.config.sentence_transformers == {"activation_fn": "torch.nn.modules.linear.Identity"}
    save_model(model, tokenizer, tmp_path / "model")
    spec = peek_outputs(tmp_path / "model")
    assert (spec.kind, spec.activation, spec.trained) == ("rerank", "identity", True)
    again, _ = open_model(tmp_path / "model", task=task)
    assert not again.fresh_head
    labels = torch.tensor([[0.0, 2.0, 1.0], [0.0, 0.0, 1.0]])
    logits = torch.tensor([[0.3], [-0.2]])
    expected = torch.nn.functional.binary_cross_entropy_with_logits(logits[:, 0], torch.tensor([1.0, 0.0]))
    assert float(again.loss(logits, labels)) == pytest.approx(float(expected))
    set_labels(again, (), "regression")
    assert again.config.problem_type == "regression"
    assert not hasattr(again.config, "reranker")


@pytest.mark.parametrize(
    "declared",
    [
        {"sentence_transformers": {"activation_fn": "torch.nn.modules.activation.Sigmoid", "version": "5.1"}},
        {"sbert_ce_default_activation_function": "torch.nn.modules.activation.Sigmoid"},
    ],
)
def test_a_score_that_learns_plain_numbers_no_longer_declares_its_sigmoid(make_model, tmp_path, declared):
    from limbeck.model.checkpoints import open_model, peek_outputs, save_model

    task = toy_task("regression", train=12)
    tokenizer, model = toy_tokenizer(task), make_model(labels=1, kind="regression")
    model.config.problem_type = None
    for key, value in declared.items():
        setattr(model.config, key, value)
    save_model(model, tokenizer, tmp_path / "score")
    assert peek_outputs(tmp_path / "score").activation == "sigmoid"
    tuned, _ = open_model(tmp_path / "score", task=task)
    assert tuned.fresh_head  # its answers are no plain numbers yet
    tuned.fresh_head, tuned.untrained = False, ""
    save_model(tuned, tokenizer, tmp_path / "number")
    spec = peek_outputs(tmp_path / "number")
    assert (spec.kind, spec.activation, spec.trained) == ("regression", "identity", True)
    assert spec.decode([3.7])["answer"] == pytest.approx(3.7)
    kept = declared.get("sentence_transformers", {}).get("version")
    assert tuned.config.sentence_transformers.get("version") == kept


def test_a_number_may_be_declared_in_the_older_way(make_model):
    model = make_model(labels=1, kind="regression")
    model.config.problem_type = None
    model.config.sbert_ce_default_activation_function = "torch.nn.modules.linear.Identity"
    set_labels(model, (), "regression")
    assert not model.fresh_head


def test_any_single_output_ranks_documents(make_model):
    for problem_type, declared in ((None, "Sigmoid"), (None, "Identity"), ("regression", None)):
        model = make_model(labels=1, kind="regression")
        model.config.problem_type = problem_type
        if declared:
            model.config.sentence_transformers = {"activation_fn": f"torch.nn.modules.linear.{declared}"}
        before = model.classifier.weight.clone()
        set_labels(model, (), "rerank")
        assert not model.fresh_head
        assert torch.equal(model.classifier.weight, before)
    two = make_model(labels=2)
    set_labels(two, (), "rerank")
    assert two.fresh_head
    assert len(two.classifier.weight) == 1
