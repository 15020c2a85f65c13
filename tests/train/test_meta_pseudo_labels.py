"""Meta Pseudo Labels: the gradient that reaches the teacher, against finite differences on tiny models."""

import copy
import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from limbeck.core.shape import Shape
from limbeck.data.batching import Encoded
from limbeck.train.config import TrainingConfig
from limbeck.train.meta_pseudo_labels import (
    LabeledBatches,
    MetaPseudoLabels,
    moved_logits,
    pseudo_labels,
    pseudo_loss,
    step_derivatives,
)
from limbeck.train.objectives import Progress, StepTaken

TEXTS, CLASSES = 4, 3
SINGLE, MULTI = "single_label_classification", "multi_label_classification"


class Tiny(nn.Module):
    """A model of one hidden layer in 64 bits, that reads [texts, 5] (or [texts, tokens, 5]) as if they were ids."""

    def __init__(self, seed, problem=SINGLE, classes=CLASSES, width=4):
        super().__init__()
        torch.manual_seed(seed)
        self.problem = problem
        self.first, self.last = nn.Linear(5, width).double(), nn.Linear(width, classes).double()

    def run(self, batch):
        return self.last(torch.tanh(self.first(batch["input_ids"]))), {}

    def loss(self, logits, labels):
        if self.problem == "regression":
            return F.mse_loss(logits.squeeze(-1), labels)
        if self.problem == MULTI:
            return F.binary_cross_entropy_with_logits(logits, labels)
        return F.cross_entropy(logits.flatten(0, -2), labels.flatten())


def batches(kind):
    """An unlabeled and a labeled batch (the labels of the first say only which tokens count)."""
    torch.manual_seed(9)
    both = []
    for _ in range(2):
        shape = (TEXTS, 2, 5) if kind == "tokens" else (TEXTS, 5)
        labels = torch.randint(0, CLASSES, shape[:-1])
        if kind == "tokens":
            labels[1, 1] = labels[3, 0] = -100
        if kind == "multi":
            labels = torch.randint(0, 2, (TEXTS, CLASSES)).double()
        if kind == "regression":
            labels = torch.randn(TEXTS).double()
        both.append({"input_ids": torch.randn(shape).double(), "labels": labels})
    return both


PROBLEMS = {"single": SINGLE, "tokens": SINGLE, "multi": MULTI, "regression": "regression"}
OPTIMISERS = {
    "sgd": lambda ps: torch.optim.SGD(ps, lr=0.3),
    "adamw": lambda ps: torch.optim.AdamW(ps, lr=0.02, weight_decay=0.1),
}


class Game:
    """A student with an optimizer that has a history, a teacher, and a step of both outside of the training loop."""

    def __init__(self, kind="single", optimizer="sgd", limit=1e9, **options):
        self.problem, self.limit = PROBLEMS[kind], limit
        classes = 1 if kind == "regression" else CLASSES
        self.student, self.teacher = Tiny(1, self.problem, classes), Tiny(2, self.problem, classes)
        self.u, self.l = batches(kind)
        self.optimizer = OPTIMISERS[optimizer](self.student.parameters())
        for seed in range(3):
            torch.manual_seed(seed)
            self.optimizer.zero_grad()
            (self.student.run({"input_ids": torch.randn_like(self.u["input_ids"])})[0] ** 2).mean().backward()
            self.optimizer.step()
        self.optimizer.zero_grad()
        self.options = options

    def step(self, student, optimizer, loss):
        optimizer.zero_grad()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(student.parameters(), self.limit)
        optimizer.step()
        return min(1.0, self.limit / (float(norm) + 1e-6))

    def feedback_gradient(self, labels=None, step=0):
        """The gradient of the teacher by the objective, less that of its own labeled loss, parameter by parameter."""
        student, optimizer = self.copied()
        objective = MetaPseudoLabels(
            self.teacher, TrainingConfig(), lambda number: self.l, self.problem, **self.options
        )
        given = objective(student, self.u, Progress(step, 10))
        loss = next(given)
        if labels is not None:  # hard labels of our choice instead of a draw
            relabeled = objective._step._replace(labels=labels)
            objective._step = relabeled
            loss = loss._replace(total=pseudo_loss(student.run(self.u)[0], labels, self.problem))
        clipping = self.step(student, optimizer, loss.total)
        (loss,) = objective.auxiliary_losses(student, StepTaken(optimizer, clipping, Progress(step, 10)))
        parameters = list(self.teacher.parameters())
        own = self.teacher.loss(self.teacher.run(self.l)[0], self.l["labels"])
        whole = torch.autograd.grad(loss.total, parameters, retain_graph=True)
        return [a - b for a, b in zip(whole, torch.autograd.grad(own, parameters), strict=True)], loss.terms

    def copied(self):
        student, optimizer = copy.deepcopy((self.student, self.optimizer))
        return student, optimizer

    def after(self, labels):
        """``L_l(S')``: the student's labeled loss once it has taken a step on these labels."""
        student, optimizer = self.copied()
        mask = self.u["labels"] != -100 if self.u["input_ids"].dim() == 3 else None
        self.step(student, optimizer, pseudo_loss(student.run(self.u)[0], labels, self.problem, mask))
        return student.loss(student.run(self.l)[0], self.l["labels"]).detach()

    def differences(self, value, width=1e-5):
        """Central differences of ``value()`` by every weight of the teacher."""
        actual = []
        for p in self.teacher.parameters():
            slope = torch.zeros_like(p)
            for index in itertools.product(*map(range, p.shape)):
                with torch.no_grad():
                    start, sides = p[index].item(), []
                    for move in (width, -width):
                        p[index] = start + move
                        sides.append(value())
                    p[index] = start
                slope[index] = (sides[0] - sides[1]) / (2 * width)
            actual.append(slope)
        return actual

    def soft(self):
        return pseudo_labels(self.teacher.run(self.u)[0].detach(), "soft", self.problem)

    def reaches(self):
        with torch.enable_grad():
            return self.after(self.soft())


def close(actual, expected, rtol):
    scale = max(float(e.abs().max()) for e in expected)
    assert scale > 0
    for a, b in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=rtol, atol=rtol * scale)


# --- exact ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [1e9, 0.05])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("kind", list(PROBLEMS))
def test_exact_feedback_is_the_gradient_of_the_labeled_loss_after_the_step(kind, optimizer, limit):
    """Of the step as it is taken, with AdamW's division and with clipping, for every kind of task."""
    game = Game(kind, optimizer, limit)
    # clip_grad_norm_ divides by |g| + 1e-6, the formula by |g|
    close(game.feedback_gradient()[0], game.differences(game.reaches), rtol=1e-5 if limit > 1 else 1e-4)


def test_exact_feedback_is_weighted_and_comes_after_the_warm_up():
    once, twice = Game().feedback_gradient()[0], Game(weight=2.0).feedback_gradient()[0]
    close(twice, [2 * gradient for gradient in once], rtol=1e-9)
    for step, silent in ((4, True), (5, False)):
        gradient, terms = Game(warmup_steps=5).feedback_gradient(step=step)
        assert all(float(g.abs().max()) < 1e-12 for g in gradient) == silent
        assert ("feedback" in terms) == (not silent)
    assert "feedback" not in Game(feedback="off").feedback_gradient()[1]


def test_what_exact_says_of_the_gain_is_its_first_order():
    game = Game()
    game.optimizer.param_groups[0]["lr"] = 1e-4
    before = game.student.loss(game.student.run(game.l)[0], game.l["labels"]).detach()
    gained = float(before - game.after(game.soft()))
    assert float(game.feedback_gradient()[1]["feedback"]) == pytest.approx(gained, rel=1e-2)


# --- the paper's ----------------------------------------------------------------------------------------------------


def draws():
    for chosen in itertools.product(range(CLASSES), repeat=TEXTS):
        yield F.one_hot(torch.tensor(chosen), CLASSES).double()


def rng(game, labels):
    return float((game.teacher.run(game.u)[0].detach().softmax(-1) * labels).sum(-1).prod())


def test_the_mean_of_reinforce_is_the_gradient_of_the_mean_labeled_loss():
    """Over all draws of labels, each with its probability; a mean over texts makes it 1/texts of the gradient."""
    game = Game(feedback="reinforce", labels="sampled")
    mean = None
    for labels in draws():
        weighted = [TEXTS * rng(game, labels) * g for g in game.feedback_gradient(labels)[0]]
        mean = weighted if mean is None else [a + b for a, b in zip(mean, weighted, strict=True)]
    results = [(labels, game.after(labels)) for labels in draws()]
    expected = game.differences(lambda: sum(rng(game, labels) * loss for labels, loss in results))
    close(mean, expected, rtol=1e-6)
    # and for a small step it is what exact says of soft labels
    small = Game(feedback="reinforce", labels="sampled")
    small.optimizer.param_groups[0]["lr"] = 1e-5
    mean = [torch.zeros_like(p) for p in small.teacher.parameters()]
    for labels in draws():
        for total, g in zip(mean, small.feedback_gradient(labels)[0], strict=True):
            total += TEXTS * rng(small, labels) * g
    small.options = {}
    close(mean, small.feedback_gradient()[0], rtol=1e-3)


def test_h_is_what_the_step_gained():
    game = Game(feedback="reinforce", labels="argmax")
    labels = pseudo_labels(game.teacher.run(game.u)[0], "argmax", SINGLE)
    gradient, terms = game.feedback_gradient()
    before = game.student.loss(game.student.run(game.l)[0], game.l["labels"])
    gained = before.detach() - game.after(labels)
    assert float(terms["feedback"]) == pytest.approx(float(gained))
    direct = torch.autograd.grad(
        F.cross_entropy(game.teacher.run(game.u)[0], labels.argmax(-1)), list(game.teacher.parameters())
    )
    close(gradient, [gained * g for g in direct], rtol=1e-9)


def test_reinforce_on_soft_labels_teaches_nothing():
    """Why the technique refuses it: the teacher's cross-entropy to its own answer is at its least already."""
    gradient, terms = Game(feedback="reinforce", labels="soft").feedback_gradient()
    assert abs(float(terms["feedback"])) > 1e-4
    assert all(float(g.abs().max()) < 1e-12 for g in gradient)


def test_the_moving_average_is_taken_off():
    game = Game(feedback="reinforce", labels="argmax", average=0.9)
    objective = MetaPseudoLabels(game.teacher, TrainingConfig(), lambda number: game.l, SINGLE, **game.options)
    usual, gains = 0.0, []
    for number in range(3):
        (loss,) = objective(game.student, game.u, Progress(number, 3))
        game.step(game.student, game.optimizer, loss.total)
        (loss,) = objective.auxiliary_losses(game.student, StepTaken(game.optimizer, 1.0, Progress(number, 3)))
        gains.append(float(loss.terms["feedback"]))
        own = float(loss.terms["teacher"])
        answers = game.teacher.run(game.u)[0].detach()
        entropy = F.cross_entropy(answers, answers.argmax(-1))
        assert float(loss.total.detach()) - own == pytest.approx((gains[-1] - usual) * float(entropy), rel=1e-5)
        usual = 0.9 * usual + 0.1 * gains[-1]
    assert float(objective.state.usual) == pytest.approx(usual, rel=1e-5)


# --- parts ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [0, 1, 7])
def test_step_derivatives_of_adamw_are_those_of_its_step(steps):
    """Also where a gradient is the first of its kind: there the step has a fixed length, and the slope is almost 0."""
    torch.manual_seed(0)
    history = torch.randn(steps, 6).double()
    history[:, 0] = 0.0

    def moved(gradient):
        p = nn.Parameter(torch.zeros(6).double())
        optimizer = torch.optim.AdamW([p], lr=0.1, weight_decay=0.3)
        for g in (*history, gradient):
            p.grad = g.clone()
            optimizer.step()
        return p, optimizer

    last = torch.randn(6).double()
    p, optimizer = moved(last)
    actual = step_derivatives(optimizer)[p]
    for index in range(6):
        change = torch.zeros(6).double()
        change[index] = 1e-6
        difference = (moved(last + change)[0] - moved(last - change)[0]) / 2e-6
        assert float(actual[index]) == pytest.approx(-float(difference[index].detach()), rel=1e-4, abs=1e-7)
    if steps:
        assert abs(float(actual[0])) < 1e-3 * float(actual[1:].abs().max())


@pytest.mark.parametrize(
    "shape",
    [None, Shape.uniform(layers=2, hidden=32, heads=4, ffn=64).with_layer(0, ffn=0).with_layer(1, heads=0, ffn=0)],
)
def test_moved_logits_of_an_encoder_against_differences(make_model, make_batch, shape):
    model, batch = make_model(shape).double(), make_batch()
    weights = {name: p.detach().clone() for name, p in model.named_parameters()}
    torch.manual_seed(3)
    moves = {name: torch.randn_like(p) for name, p in weights.items() if "word" not in name}
    logits, change = moved_logits(model, weights, moves, batch)
    torch.testing.assert_close(logits, model.run(batch)[0].detach())
    sides = []
    for width in (1e-6, -1e-6):
        model.load_state_dict({name: w + width * moves.get(name, torch.zeros_like(w)) for name, w in weights.items()})
        sides.append(model.run(batch)[0].detach())
    torch.testing.assert_close(change, (sides[0] - sides[1]) / 2e-6, rtol=1e-5, atol=1e-7)


def test_labels_of_each_kind():
    logits = torch.tensor([[2.0, 1.0, 0.0], [0.0, 1.0, 2.0]])
    torch.testing.assert_close(pseudo_labels(logits, "soft", SINGLE), logits.softmax(-1))
    assert pseudo_labels(logits, "argmax", SINGLE).argmax(-1).tolist() == [0, 2]
    assert pseudo_labels(logits - 0.5, "argmax", MULTI).tolist() == [[1, 1, 0], [0, 1, 1]]
    assert pseudo_labels(logits, "argmax", "regression") is logits
    torch.manual_seed(0)
    many = torch.stack([pseudo_labels(logits, "sampled", SINGLE) for _ in range(2000)])
    torch.testing.assert_close(many.mean(0), logits.softmax(-1), atol=0.04, rtol=0)
    assert (many.sum(-1) == 1).all()
    many = torch.stack([pseudo_labels(logits, "sampled", MULTI) for _ in range(2000)])
    torch.testing.assert_close(many.mean(0), logits.sigmoid(), atol=0.04, rtol=0)


def test_labeled_batches_depend_on_seed_and_step_alone():
    encoded = Encoded([[1] * (3 + n % 4) for n in range(10)], None, list(range(10)), 0, "classification")
    stream = LabeledBatches(encoded, 4, seed=0)
    whole = [stream(step)["labels"].tolist() for step in range(9)]
    for step in (7, 0, 4):  # from anywhere, as after an interruption
        assert LabeledBatches(encoded, 4, seed=0)(step)["labels"].tolist() == whole[step]
    for epoch in range(3):
        assert sorted(itertools.chain(*whole[3 * epoch : 3 * epoch + 3])) == list(range(10))
    assert whole[:3] != whole[3:6]
    assert [LabeledBatches(encoded, 4, seed=1)(step)["labels"].tolist() for step in range(9)] != whole
