import pytest
import torch
import torch.nn.functional as F

from limbeck.core.metrics import IGNORED
from limbeck.core.search_space import Range, Space
from limbeck.core.shape import Shape
from limbeck.data.corpus.masking import Masking
from limbeck.model.mlm_head import LanguageHead
from limbeck.model.pruning.subnetwork import extract
from limbeck.train.mlm import LanguageLoss, OnMasked
from limbeck.train.objectives import LiveTeacher, Outputs, Progress
from limbeck.train.supernet_loss import LastHidden, SandwichLoss

FULL = Shape.uniform(layers=3, hidden=32, heads=4, ffn=64)
SPACE = Space(Range(1, 3), Range(8, 24, 8), Range(1, 4), Range(16, 64, 16), Range(2, 8, 2), per_layer=True)
MASKING = Masking(4, frozenset(range(5)), 60, share=0.3)


def batch_of(make_batch):
    return make_batch(rows=8) | {"index": torch.arange(8)}


@pytest.mark.parametrize("style", [{}, {"embedding_size": 20}])
def test_slices_have_the_loss_of_the_model_that_is_extracted(make_model, make_batch, style):
    """With a head of its own, cut to size, and logits at every place."""
    model = make_model(FULL, **style)
    head = LanguageHead(32, model.encoder.style)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    elastic = SandwichLoss({"mlm": (1.0, LanguageLoss(head, model.encoder.embeddings.word))}, None, SPACE, samples=6)
    batch, progress = batch_of(make_batch), Progress(3, 10)
    with torch.no_grad():
        losses = list(OnMasked(elastic, MASKING)(model, batch, progress))
        seen = MASKING(batch, 3)
        for shape, loss in zip(elastic.shapes(3), losses, strict=True):
            small = extract(model, shape)
            its = LanguageHead(shape.hidden, small.encoder.style)
            for name, tensor in its.state_dict().items():
                tensor.copy_(head.state_dict()[name][tuple(map(slice, tensor.shape))])
            states = small.encoder(seen["input_ids"], seen["attention_mask"], seen["token_type_ids"])[0]
            logits = its(states.flatten(0, 1), small.encoder.embeddings.word.weight)
            expected = F.cross_entropy(logits, seen["hidden_tokens"].flatten(), ignore_index=IGNORED)
            torch.testing.assert_close(loss.total * 8, expected)


def test_the_head_is_trained_and_the_embeddings_are_the_models_own(make_model, make_batch):
    model = make_model(FULL)
    term = LanguageLoss(LanguageHead(32, model.encoder.style), model.encoder.embeddings.word)
    objective = OnMasked(SandwichLoss({"mlm": (1.0, term)}, None, SPACE), MASKING)
    trained = {id(parameter) for parameter in objective.modules.parameters()}
    assert trained == {id(parameter) for parameter in term.head.parameters()}
    sum(loss.total for loss in objective(model, batch_of(make_batch), Progress(0, 1))).backward()
    assert all(parameter.grad is not None for parameter in term.parameters())
    unseen = torch.ones(60, dtype=torch.bool)
    unseen[batch_of(make_batch)["input_ids"]] = False
    assert model.encoder.embeddings.word.weight.grad[unseen].any(), "as outputs they get gradients too"


def test_student_and_teacher_see_the_same_hidden_tokens(make_model, make_batch):
    model, batch, heard = make_model(FULL), batch_of(make_batch), []

    def teacher(batch, taps):
        heard.append(batch["input_ids"])
        return Outputs(*model.run(batch, taps=taps))

    space = Space(Range(3, 3), Range(32, 32), Range(4, 4), Range(64, 64), Range(8, 8))
    elastic = SandwichLoss({"hidden": (1.0, LastHidden(32, 32, 3))}, teacher, space, "single", 1)
    (loss,) = OnMasked(elastic, MASKING)(model, batch, Progress(5, 9))
    assert float(loss.total.detach()) == pytest.approx(0.0, abs=1e-9)
    assert torch.equal(heard[0], MASKING(batch, 5)["input_ids"])


def test_a_batch_without_words_has_no_loss(make_model):
    model = make_model(FULL)
    term = LanguageLoss(LanguageHead(32, model.encoder.style), model.encoder.embeddings.word)
    batch = {"input_ids": torch.tensor([[2, 1, 3]]), "attention_mask": torch.ones(1, 3), "index": torch.tensor([0])}
    batch["attention_mask"] = batch["attention_mask"].long()
    elastic = SandwichLoss({"mlm": (1.0, term)}, LiveTeacher(model), SPACE)
    assert sum(float(loss.total.detach()) for loss in OnMasked(elastic, MASKING)(model, batch, Progress(0, 1))) == 0.0
