"""Every technique on every family: it works, or it refuses before any training with a reason."""

from __future__ import annotations

import family_models as families
import numpy as np
import pytest
from format_cost import FormatCost
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import PreTrainedTokenizerFast

import limbeck.techniques  # noqa: F401 registers the steps
from limbeck.core.analytic_cost import macs
from limbeck.core.candidate import Candidate, Stored
from limbeck.core.measurement import Measurement
from limbeck.core.restricted_context import RestrictedContext
from limbeck.core.search_space import Range, Space
from limbeck.core.step import REGISTRY, RunContext, Teacher, Technique
from limbeck.data.batching import collate, encode
from limbeck.data.synthetic import SPECIAL_TOKENS, toy_task, toy_tokenizer, with_special_tokens
from limbeck.errors import LimbeckError
from limbeck.model.checkpoints import open_model, save_model
from limbeck.model.family_table import FAMILIES
from limbeck.recipe.recipe import parse
from limbeck.train import loop

TECHNIQUES = sorted(name for name, cls in REGISTRY.items() if issubclass(cls, Technique))
TASK = toy_task("classification", train=24, validation=12, test=12)
REFUSED = {("prune_tokens", "deberta-v2"): "distances of all tokens"}
"""What a technique says of a family it cannot work on."""


def step_of(name):
    recipe = parse({"model": "m", "task": "t", "steps": [{name: REGISTRY[name].info.example}]})
    return recipe.steps[0]


def fake_cost(shape, number_format="int8"):
    return Measurement("latency_p50", macs(shape, 16) * 1e-9, "s")


def tokenizer_of(family):
    """A tokenizer of the toy task's words; where positions count from padding, its padding is token 1 as there."""
    words = list(toy_tokenizer(TASK).get_vocab())
    special = sorted(SPECIAL_TOKENS, key=lambda token: token == SPECIAL_TOKENS[0])
    first = (special[0], special[-1], *special[1:-1]) if FAMILIES[family].positions_from_padding else SPECIAL_TOKENS
    ids = {word: number for number, word in enumerate((*first, *sorted({*words} - {*first})))}
    tokenizer = Tokenizer(WordLevel(ids, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    return with_special_tokens(tokenizer, TASK.max_length)


@pytest.fixture(scope="module", params=FAMILIES)
def parents(request, tmp_path_factory):
    """Stored parents of one family, of each kind that a technique may need."""
    family, folder = request.param, tmp_path_factory.mktemp(request.param)
    tokenizer = tokenizer_of(family)
    sizes = {"hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 2, "intermediate_size": 64}
    labels = {"id2label": dict(enumerate(TASK.label_names)), "num_labels": TASK.num_labels}
    labels["label2id"] = {name: number for number, name in enumerate(TASK.label_names)}
    settings = {"vocab_size": len(tokenizer), "max_position_embeddings": 80, "pad_token_id": tokenizer.pad_token_id}
    settings |= sizes | labels
    for name, seed in (("torch", 0), ("teacher", 1)):
        families.random_model(f"{family}-small", families.AUTO["text"], seed, **settings).save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    model = open_model(folder / "torch", task=TASK)[0]
    space = Space(Range(1, 2), Range(16, 32, 16), Range(1, 4), Range(32, 64, 32), Range(8, 8))
    cores = [layer.attention for layer in model.shape.layers]
    model.config.space = space.to_json() | ({"attention": cores} if {*cores} != {"softmax"} else {})
    save_model(model, tokenizer, folder / "elastic")
    for kind, name in (("torch", "onnx"), ("teacher", "partner")):
        (exported,) = step_of("export").apply(opened(folder / kind), RunContext(scratch=folder / "scratch"))
        save_model(exported.model, tokenizer, folder / name)
    return family, folder


def opened(folder):
    model, tokenizer = open_model(folder, task=TASK)
    assert isinstance(tokenizer, PreTrainedTokenizerFast)
    return Candidate(model, tokenizer, TASK, folder)


@pytest.mark.slow
@pytest.mark.parametrize("name", TECHNIQUES)
def test_a_technique_works_or_refuses_before_any_training(name, parents, tmp_path, monkeypatch):
    family, folder = parents
    info, trained, begin = REGISTRY[name].info, [], loop._Loop.__init__

    def counted(self, *args, **kwargs):
        trained.append(name)
        begin(self, *args, **kwargs)

    monkeypatch.setattr(loop._Loop, "__init__", counted)
    teacher = Teacher("teacher", lambda: opened(folder / "teacher"))
    partner = Stored("partner", lambda: opened(folder / "partner"))
    context = RunContext(teacher=teacher, partner=partner, cost=FormatCost(fake_cost), scratch=tmp_path / "scratch")
    parent = opened(folder / next((trait for trait in ("onnx", "elastic") if trait in info.needs), "torch"))
    reason = REFUSED.get((name, family))
    if reason:
        with pytest.raises(LimbeckError, match=reason):
            list(step_of(name).apply(parent, RestrictedContext(context, info)))
        assert not trained
        return
    candidates = list(step_of(name).apply(parent, RestrictedContext(context, info)))
    assert candidates
    for number, candidate in enumerate(candidates):
        encoded = encode(TASK, "test", candidate.tokenizer)
        together = candidate.model.predict(collate(encoded, list(range(8))))
        alone = np.concatenate([candidate.model.predict(collate(encoded, [row])) for row in range(8)])
        assert np.isfinite(together).all()
        # dynamic INT8 scales activations by their range over the whole batch: near, not equal
        tolerance = 0.15 * float(np.abs(alone).max()) if "int8" in info.gives else 1e-4
        np.testing.assert_allclose(together, alone, atol=tolerance, rtol=1e-4)
        save_model(candidate.model, candidate.tokenizer, tmp_path / str(number))
        again = opened(tmp_path / str(number)).model
        np.testing.assert_array_equal(again.predict(collate(encoded, list(range(8)))), together)
