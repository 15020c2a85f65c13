import pytest

from limbeck.core.candidate import Candidate
from limbeck.core.shape import Shape
from limbeck.core.step import Lab
from limbeck.data.batches import encode, predict
from limbeck.data.synthetic import toy_task, toy_tokenizer
from limbeck.techniques.finetune import Finetune


@pytest.mark.parametrize(
    ("kind", "goal"),
    [("classification", 0.9), ("pairs", 0.85), ("multilabel", 0.9), ("regression", 0.8), ("tokens", 0.9)],
)
def test_every_kind_of_task_is_learnt(make_model, kind, goal):
    task = toy_task(kind, train=512, validation=64, test=64)
    tokenizer = toy_tokenizer(task)
    quiet = {"dropout": 0.0, "attention_dropout": 0.0, "classifier_dropout": 0.0}
    shape = Shape.uniform(layers=2, hidden=32, heads=4, ffn=64)
    model = make_model(shape, labels=task.num_labels, kind=task.kind, vocab_size=len(tokenizer), **quiet)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.data.mul_(0.3)
    step = Finetune(num_train_epochs=12, learning_rate=3e-3, evaluations_per_epoch=1)
    (made,) = step.apply(Candidate(model, tokenizer, task), Lab())
    test = encode(task, "test", tokenizer)
    assert task.score(predict(made.model, test), test.labels) > goal
