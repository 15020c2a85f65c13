import pytest

from limbeck.core.candidate import Candidate
from limbeck.core.shape import LayerShape, Shape
from limbeck.errors import InputError
from limbeck.techniques.distill import Distill
from limbeck.techniques.linearize import Linearize
from limbeck.techniques.pretrain_distill import PretrainDistill
from limbeck.train.distillation_losses import AttentionLoss, HiddenLoss, RelationLoss
from limbeck.train.layer_distillation import (
    LayerDistillationConfig,
    most_heads,
    same_tokens,
    state_marks,
    token_problems,
)
from limbeck.train.token_ranking import TokenRankingLoss

TEACHER = Shape.uniform(layers=4, hidden=32, heads=4, ffn=64)


def sides(make_model, shape):
    return [Candidate(make_model(side), None, None) for side in (shape, TEACHER)]


def test_terms_are_those_asked_for_with_their_weights(make_model):
    both = sides(make_model, Shape.uniform(layers=2, hidden=16, heads=4, ffn=8))
    step = LayerDistillationConfig(hidden_weight=2.0, relations_weight=0.5, layer_map="top", hidden_loss="cosine")
    terms = step.terms(("relations", "hidden", "logits"), *both, "pupil")
    assert {name: weight for name, (weight, _) in terms.items()} == {"hidden": 2.0, "relations": 0.5}
    hidden, relations = terms["hidden"][1], terms["relations"][1]
    assert isinstance(hidden, HiddenLoss)
    assert (hidden.kind, hidden.mapping, hidden.depths) == ("cosine", "top", (2, 4))
    assert len(hidden.project) == 3
    assert relations == RelationLoss(4, 1, 3)
    assert step.terms(("attention",), *both, "pupil")["attention"][1] == AttentionLoss("mse", "top", (2, 4))
    dynamic = LayerDistillationConfig(layer_map="dynamic").terms(("attention",), *both, "pupil")
    assert dynamic["attention"][1].mapping == "uniform"
    assert (
        len(LayerDistillationConfig(shared_projection=True).terms(("hidden",), *both, "pupil")["hidden"][1].project)
        == 1
    )


BAD = {
    "deeper": ({}, "hidden", Shape.uniform(layers=5, hidden=32, heads=4, ffn=8), "pupil: .* 5 layers.*teacher's 4"),
    "heads": ({}, "attention", Shape.uniform(layers=2, hidden=32, heads=2, ffn=8), "pupil: match 'attention'"),
    "no heads": (
        {},
        "attention",
        Shape.uniform(layers=2, hidden=32, heads=0, ffn=8, head_dim=8),
        "needs attention heads, but the student has none",
    ),
    "no heads, relations": (
        {},
        "relations",
        Shape.uniform(layers=2, hidden=32, heads=0, ffn=8, head_dim=8),
        "'relations' needs attention heads",
    ),
    "fewer tokens": ({}, "attention", TEACHER.with_tokens(1, 0.5, 0.5, 0.5), "the student's layers read fewer of them"),
    "fewer tokens, relations": (
        {},
        "relations",
        TEACHER.with_tokens(1, 0.5, 0.5, 0.5),
        "pupil: match 'relations' comp",
    ),
    "all tokens": ({}, "token_ranking", TEACHER, "pupil: token_ranking is for students whose layers pass on fewer"),
    "no layers": ({}, "relations", Shape(32, 8, ()), "needs attention heads"),
    "relations": ({"relation_heads": 3}, "relations", TEACHER, r"pupil.relation_heads: 3 does not .*use [24]"),
}


@pytest.mark.parametrize("case", BAD)
def test_shapes_that_cannot_be_compared(make_model, case):
    fields, match, shape, message = BAD[case]
    with pytest.raises(InputError, match=message):
        LayerDistillationConfig(**fields).terms((match,), *sides(make_model, shape), "pupil")


def test_layers_that_leave_tokens_behind_are_ranked(make_model):
    """By the last layer of the teacher that attends to all tokens."""
    student = TEACHER.with_tokens(1, 0.5, 0.5, 0.2)
    config = LayerDistillationConfig(token_ranking_weight=0.5)
    (weight, term) = config.terms(("logits", "token_ranking"), *sides(make_model, student), "pupil")["token_ranking"]
    assert weight == 0.5
    assert term == TokenRankingLoss(((1, 0.5),), 3)
    local = Candidate(make_model(TEACHER.with_layer(3, attention="local:3")), None, None)
    (_, term) = config.terms(("token_ranking",), sides(make_model, student)[0], local, "pupil")["token_ranking"]
    assert term.teacher_layer == 2


def test_where_all_tokens_go_on_a_ranking_is_left_out_if_there_is_more_to_imitate(make_model):
    config, whole = LayerDistillationConfig(), sides(make_model, TEACHER)
    match, note = config.comparable(("logits", "token_ranking", "attention"), *whole)
    assert match == ("logits", "attention")
    assert note == "no ranking of tokens is learned, as all of them go on"
    assert config.comparable(("token_ranking",), *whole) == (("token_ranking",), "")
    fewer = sides(make_model, TEACHER.with_tokens(1, 0.5, 0.5, 0.2))
    assert config.comparable(("logits", "token_ranking"), *fewer) == (("logits", "token_ranking"), "")


def test_a_teacher_that_reads_fewer_tokens_cannot_rank_them(make_model):
    fewer, linear = TEACHER.with_tokens(1, 0.5, 0.5, 0.5), TEACHER.with_attention("kernel")
    student = Candidate(make_model(fewer), None, None)
    for shape in (fewer, linear):
        teacher = Candidate(make_model(shape), None, None)
        with pytest.raises(InputError, match="'token_ranking' imitates a teacher that attends to all tokens"):
            LayerDistillationConfig().terms(("token_ranking",), student, teacher, "pupil")


def test_a_recipe_without_fewer_tokens_has_no_ranking():
    assert token_problems(("logits",), set()) == token_problems(("token_ranking",), {"fewer_tokens"}) == []
    assert "put prune_tokens before it" in token_problems(("token_ranking",), {"torch"})[0]
    assert [text.split()[1] for text in token_problems(("logits", "relations", "attention"), {"fewer_tokens"})] == [
        "'attention'",
        "'relations'",
    ]


def test_students_that_leave_tokens_behind_have_other_keys_than_when_all_states_were_compared():
    assert state_marks(("logits", "hidden"), {"torch", "fewer_tokens"}) == {"states": "of tokens that go on"}
    assert state_marks(("logits", "hidden"), {"torch"}) == {}
    assert state_marks(("logits",), {"torch", "fewer_tokens"}) == {}
    marked = [Distill(match=("hidden",)), PretrainDistill(), Linearize()]
    unmarked = [Distill(), PretrainDistill(match=("attention",)), Linearize.of(guide="unguided")]
    assert [bool(step.marks({"fewer_tokens"})) for step in (*marked, *unmarked)] == [True] * 3 + [False] * 3
    assert not any(step.marks({"torch"}) for step in marked)


def test_tokens_are_the_same_if_the_vocabularies_are():
    class Words:
        def __init__(self, *words):
            self.words = words

        def get_vocab(self):
            return {word: index for index, word in enumerate(self.words)}

    first, same, other = (Candidate(None, Words(*words), None) for words in ("ab", "ab", "ba"))
    assert same_tokens(first, same)
    assert not same_tokens(first, other)


def test_relations_split_into_what_both_widths_allow(make_model):
    """Without a number given, a student of three heads has one that its teacher of four can have too."""
    three = Shape(32, 8, (LayerShape(3, 16), LayerShape(3, 16)))
    (_, term) = LayerDistillationConfig().terms(("relations",), *sides(make_model, three), "pupil")["relations"]
    assert term.relation_heads == 8
    assert 24 % term.relation_heads == 0 == 32 % term.relation_heads
    for dims in ([8], [8, 12, 16], [32, 64]):
        heads = most_heads(384, *dims)
        assert all(count * dim % heads == 0 for count in range(1, 13) for dim in dims)
