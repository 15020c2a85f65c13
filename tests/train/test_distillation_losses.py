import math

import pytest
import torch
import torch.nn.functional as F

from limbeck.core.shape import Shape
from limbeck.train.distillation_losses import (
    LOGIT_LOSSES,
    AttentionLoss,
    HiddenLoss,
    LogitLoss,
    RelationLoss,
    relation,
)
from limbeck.train.objectives import Outputs

TEACHER = Shape.uniform(layers=4, hidden=32, heads=4, ffn=24)
STUDENT = Shape.uniform(layers=2, hidden=32, heads=4, ffn=16)
TAPS = ("hidden", "attention", "query", "key", "value", "positions")


@pytest.fixture
def sides(make_model, make_batch):
    """Student outputs, teacher outputs, batch with padding."""
    batch = make_batch(rows=4)
    student, teacher = make_model(STUDENT, seed=1), make_model(TEACHER, seed=2)
    return Outputs(*student.run(batch, taps=TAPS)), Outputs(*teacher.run(batch, taps=TAPS)), batch


def loops_hidden(student, teacher, batch, mapping):
    """Mean squared difference over real tokens, layer by layer, with loops."""
    total = 0.0
    pairs = [(0, 0), *((j + 1, m) for j, m in enumerate(mapping))]
    for own, target in pairs:
        squares = []
        for row in range(len(batch["input_ids"])):
            for token in range(int(batch["attention_mask"][row].sum())):
                a, b = student.taps["hidden"][own][row, token], teacher.taps["hidden"][target][row, token]
                squares += ((a - b) ** 2).tolist()
        total += sum(squares) / len(squares)
    return total / len(pairs)


def test_hidden_loss_is_the_mean_over_real_tokens(sides):
    student, teacher, batch = sides
    loss = HiddenLoss("mse", "uniform", (2, 4), (32, 32))(student, teacher, batch)
    assert float(loss.detach()) == pytest.approx(loops_hidden(student, teacher, batch, (2, 4)), rel=1e-5)


def test_attention_loss_is_the_mean_over_real_pairs(sides):
    student, teacher, batch = sides
    total = 0.0
    for own, target in enumerate((2, 4)):
        squares = []
        for row in range(len(batch["input_ids"])):
            n = int(batch["attention_mask"][row].sum())
            a = student.taps["attention"][own][row, :, :n, :n]
            b = teacher.taps["attention"][target - 1][row, :, :n, :n]
            squares += (a - b).square().flatten().tolist()
        total += sum(squares) / len(squares)
    loss = AttentionLoss("mse", "uniform", (2, 4))(student, teacher, batch)
    assert float(loss.detach()) == pytest.approx(total / 2, rel=1e-5)


def test_relations_are_those_of_minilm(sides):
    student, _, batch = sides
    relations = relation(student.taps["value"][1], 8, batch["attention_mask"])
    x = student.taps["value"][1].transpose(1, 2).reshape(4, -1, 8, 4)
    for row in range(4):
        n = int(batch["attention_mask"][row].sum())
        for head in range(8):
            block = x[row, :n, head]
            expected = torch.log_softmax(block @ block.T / math.sqrt(4), -1)
            torch.testing.assert_close(relations[row, head, :n, :n], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "term",
    [
        HiddenLoss("mse", "uniform", (4, 4), (32, 32)),
        HiddenLoss("cosine", "last_of_block", (4, 4), (32, 32)),
        HiddenLoss("mse", "dynamic", (4, 4), (32, 32)),
        AttentionLoss("mse", "uniform", (4, 4)),
        AttentionLoss("cosine", "uniform", (4, 4)),
        RelationLoss(4),
        LogitLoss("kl"),
        LogitLoss("mse"),
    ],
    ids=lambda term: f"{type(term).__name__}-{getattr(term, 'kind', '')}",
)
def test_a_student_equal_to_its_teacher_has_no_loss_and_padding_plays_no_part(term, make_model, make_batch):
    model, batch = make_model(TEACHER), make_batch(rows=4)
    other = make_model(TEACHER, seed=5)
    same = Outputs(*model.run(batch, taps=TAPS))
    assert float(term(same, same, batch).detach()) == pytest.approx(0.0, abs=1e-5)

    def loss(padding):
        wider = {name: F.pad(batch[name], (0, padding)) for name in ("input_ids", "attention_mask", "token_type_ids")}
        wider["labels"] = batch["labels"]
        sides = (Outputs(*m.run(wider, taps=TAPS)) for m in (model, other))
        return float(term(*sides, wider).detach())

    assert loss(0) > 0.001
    assert loss(0) == pytest.approx(loss(6), rel=1e-4)


def test_widths_may_differ_through_a_learned_projection(make_model, make_batch):
    batch = make_batch()
    narrow = make_model(Shape.uniform(layers=2, hidden=16, heads=2, ffn=16))
    student, teacher = Outputs(*narrow.run(batch, taps=TAPS)), Outputs(*make_model(TEACHER).run(batch, taps=TAPS))
    for shared, count in ((False, 3), (True, 1)):
        term = HiddenLoss("mse", "uniform", (2, 4), (16, 32), shared)
        assert len(list(term.parameters())) == count
        term(student, teacher, batch).backward(retain_graph=True)
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in term.parameters())
    assert float(RelationLoss(4)(student, teacher, batch).detach()) > 0


@pytest.mark.parametrize("mapping", ["uniform", "last", "dynamic"])
@pytest.mark.parametrize("width", [16, 32])
def test_states_of_tokens_that_were_left_behind_play_no_part(make_model, make_batch, mapping, width):
    """Neither in the loss nor in what projections learn: the loss has no gradient at them, so they stay as they are."""
    shape = Shape.uniform(layers=3, hidden=width, heads=2, ffn=16).with_tokens(0.6, 0.4, 0.4)
    batch = make_batch(rows=4)
    student = Outputs(*make_model(shape, layer_tokens=list(shape.tokens)).run(batch, taps=TAPS))
    teacher = Outputs(*make_model(TEACHER).run(batch, taps=TAPS))
    torch.manual_seed(0)
    term = HiddenLoss("mse", mapping, (3, 4), (width, 32))
    other, real = [], batch["attention_mask"].bool()
    for layer, states in enumerate(student.taps["hidden"]):
        behind = real.clone()
        for row, positions in enumerate(student.taps["positions"][min(layer, 2)]):
            behind[row, positions[positions < behind.shape[1]]] = False
        other.append(torch.where(behind[..., None], states + 100.0, states))
        assert bool(behind.any()) == (layer > 0)
    changed = Outputs(student.logits, {**student.taps, "hidden": other})
    losses = [term(outputs, teacher, batch) for outputs in (student, changed)]
    torch.testing.assert_close(losses[1], losses[0])
    if width != 32:
        gradients = [torch.autograd.grad(loss, list(term.parameters()), allow_unused=True) for loss in losses]
        torch.testing.assert_close(gradients[1], gradients[0])
    if mapping == "uniform" and width == 32:
        total = 0.0
        for own, target in ((0, 0), *term.pairs):
            squares = (student.taps["hidden"][own] - teacher.taps["hidden"][target]).square().detach()
            total += float(squares[real & (other[own] == student.taps["hidden"][own]).all(-1)].mean())
        assert float(losses[0].detach()) == pytest.approx(total / 4, rel=1e-5)


def test_temperature_scales_as_hinton_says():
    """At a high temperature the soft loss has the gradient of matching centred logits, whatever the temperature."""
    student = torch.tensor([[1.0, -1.0, 0.5]], requires_grad=True)
    teacher = torch.tensor([[0.5, 0.3, -0.2]])
    gradients = []
    for temperature in (50.0, 100.0):
        loss = LOGIT_LOSSES["kl"](student, teacher, temperature).sum()
        gradients.append(torch.autograd.grad(loss, student)[0])
    torch.testing.assert_close(gradients[0], gradients[1], rtol=0.05, atol=1e-3)
    centred = (student - student.mean()) - (teacher - teacher.mean())
    torch.testing.assert_close(gradients[1], centred.detach() / 3, rtol=0.05, atol=1e-2)


@pytest.mark.parametrize("texts", [3, 6])
def test_vectors_are_compared_text_by_text(texts):
    """Rows of pairs hold two vectors, so of 3 rows there are 6 texts."""
    student, teacher = torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(0))
    loss = LogitLoss(problem_type="embedding")(Outputs(student, {}), Outputs(teacher, {}), {"input_ids": [[1]] * texts})
    assert float(loss) == pytest.approx(float((student - teacher).square().sum()) / texts)


def test_regression_and_several_labels_compare_values(make_model):
    student, teacher = torch.tensor([[0.5], [1.0]]), torch.tensor([[0.0], [3.0]])
    outputs = Outputs(student, {}), Outputs(teacher, {})
    assert float(LogitLoss(problem_type="regression")(*outputs, {})) == pytest.approx((0.25 + 4) / 2)
    several = LogitLoss(problem_type="multi_label_classification")(outputs[0], outputs[0], {})
    assert float(several) == pytest.approx(float(F.binary_cross_entropy_with_logits(student, torch.sigmoid(student))))


def test_dynamic_map_finds_the_layers_that_moved(make_model, make_batch):
    """A student whose first layer does nothing: its layers stand one place later than a uniform map expects."""
    batch, teacher = make_batch(rows=4), make_model(TEACHER)
    target = Outputs(*teacher.run(batch, taps=TAPS))
    hidden = target.taps["hidden"]
    # six student layers; teacher layers 1 and 3 appear after student layers 2 and 5, those of a uniform map elsewhere
    moved = [hidden[0], hidden[0], hidden[1], hidden[0], hidden[0], hidden[3], hidden[4]]
    student = Outputs(target.logits, {"hidden": moved, "positions": target.taps["positions"]})
    losses = {
        kind: HiddenLoss("mse", kind, (6, 4), (32, 32))(student, target, batch) for kind in ("uniform", "dynamic")
    }
    assert float(losses["dynamic"].detach()) == pytest.approx(0.0, abs=1e-6)
    assert float(losses["uniform"].detach()) > 0.01


def test_last_pairs_the_last_layers_alone(make_model, make_batch):
    """The embeddings and the last hidden states, as FastFormers compares them, and the last attention."""
    batch, student, teacher = make_batch(), make_model(STUDENT), make_model(TEACHER)
    own, target = (Outputs(*model.run(batch, taps=TAPS)) for model in (student, teacher))
    depths = STUDENT.depth, TEACHER.depth
    loss = HiddenLoss("mse", "last", depths, (STUDENT.hidden, TEACHER.hidden))
    expected = sum(
        loss.distance(loss.projected(own, layer), target.taps["hidden"][other], batch["attention_mask"])
        for layer, other in ((0, 0), depths)
    )
    torch.testing.assert_close(loss(own, target, batch), expected / 2)
    assert loss.taps == {"hidden": (0, TEACHER.depth), "positions": ()}
    assert AttentionLoss("mse", "last", depths).taps == {"attention": (TEACHER.depth - 1,)}
