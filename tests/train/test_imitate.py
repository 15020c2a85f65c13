from typing import ClassVar

import pytest

from limbeck.core.candidate import Candidate
from limbeck.core.shape import Shape
from limbeck.errors import InputError
from limbeck.train.imitate import Imitation, same_tokens
from limbeck.train.objectives import AttentionLoss, HiddenLoss, RelationLoss


class Pupil(Imitation):
    name: ClassVar[str] = "pupil"


TEACHER = Shape.uniform(layers=4, hidden=32, heads=4, ffn=64)


def sides(make_model, shape):
    return [Candidate(make_model(one), None, None) for one in (shape, TEACHER)]


def test_terms_are_those_asked_for_with_their_weights(make_model):
    both = sides(make_model, Shape.uniform(layers=2, hidden=16, heads=4, ffn=8))
    step = Pupil(hidden_weight=2.0, relations_weight=0.5, layer_map="top", hidden_loss="cosine")
    found = step.layer_terms(("relations", "hidden", "logits"), *both)
    assert {name: weight for name, (weight, _) in found.items()} == {"hidden": 2.0, "relations": 0.5}
    hidden, relations = found["hidden"][1], found["relations"][1]
    assert isinstance(hidden, HiddenLoss)
    assert (hidden.kind, hidden.mapping, hidden.depths) == ("cosine", "top", (2, 4))
    assert len(hidden.project) == 3
    assert relations == RelationLoss(4, 1, 3)
    assert step.layer_terms(("attention",), *both)["attention"][1] == AttentionLoss("mse", "top", (2, 4))
    dynamic = Pupil(layer_map="dynamic").layer_terms(("attention",), *both)
    assert dynamic["attention"][1].mapping == "uniform"
    assert len(Pupil(shared_projection=True).layer_terms(("hidden",), *both)["hidden"][1].project) == 1


BAD = {
    "deeper": ({}, "hidden", Shape.uniform(layers=5, hidden=32, heads=4, ffn=8), "pupil: .* 5 layers.*teacher's 4"),
    "heads": ({}, "attention", Shape.uniform(layers=2, hidden=32, heads=2, ffn=8), "pupil: match 'attention'"),
    "relations": ({"relation_heads": 3}, "relations", TEACHER, r"pupil.relation_heads: 3 does not .*use [24]"),
}


@pytest.mark.parametrize("case", BAD)
def test_shapes_that_cannot_be_compared(make_model, case):
    fields, match, shape, message = BAD[case]
    with pytest.raises(InputError, match=message):
        Pupil(**fields).layer_terms((match,), *sides(make_model, shape))


def test_tokens_are_the_same_if_the_vocabularies_are():
    class Words:
        def __init__(self, *words):
            self.words = words

        def get_vocab(self):
            return {word: place for place, word in enumerate(self.words)}

    first, same, other = (Candidate(None, Words(*words), None) for words in ("ab", "ab", "ba"))
    assert same_tokens(first, same)
    assert not same_tokens(first, other)
