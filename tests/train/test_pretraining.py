import pytest
import torch

from limbeck.core.candidate import Candidate
from limbeck.core.shape import Shape
from limbeck.core.step import RunContext, Teacher
from limbeck.data.batching import Encoded
from limbeck.data.corpus.documents import Source
from limbeck.data.synthetic import toy_task, toy_tokenizer
from limbeck.errors import InputError
from limbeck.train.config import TrainingConfig
from limbeck.train.objectives import Loss
from limbeck.train.pretraining import PretrainingConfig, check_sides, mean_loss, train_on_text

FULL = Shape.uniform(layers=2, hidden=32, heads=4, ffn=64)


@pytest.fixture
def candidate(make_model):
    task = toy_task(train=60, validation=10, test=10)
    tokenizer = toy_tokenizer(task)
    return Candidate(make_model(FULL, vocab_size=len(tokenizer)), tokenizer, task)


def short(**fields):
    return PretrainingConfig(max_length=16, held_out=0.2, **fields)


class Shrink:
    """Makes every bias of the first layer's output smaller."""

    modules = torch.nn.ModuleDict()

    def __call__(self, model, batch, progress):
        yield Loss(model.encoder.layers[0].down.bias.square().sum(), {})


def test_the_loss_is_the_mean_over_sequences_without_dropout(make_model):
    rows = [[2, *range(5, 5 + length), 3] for length in (1, 9, 4, 7, 2)]
    encoded = Encoded(rows, None, (), 0, "corpus")
    heard = []

    def lengths(model, batch, progress):
        heard.append((model.training, progress.step))
        yield Loss(batch["attention_mask"].sum(1).float().mean() / 2, {})
        yield Loss(torch.tensor(1.0), {})

    model = make_model(FULL).train()
    expected = sum(len(row) / 2 for row in rows) / 5 + 1
    assert mean_loss(model, lengths, encoded, 2) == pytest.approx(expected)
    assert model.training
    assert set(heard) == {(False, 0)}


def test_where_texts_come_from_and_what_is_not_there(tmp_path):
    (tmp_path / "a.txt").write_text("one\n")
    assert PretrainingConfig().source() is None
    assert PretrainingConfig(corpus="a.txt", column="text").source() == Source(("a.txt",), "text")
    step = PretrainingConfig(
        corpus=(str(tmp_path / "a.txt"), str(tmp_path / "b.txt")), exclude=("no.csv",), pretrained="no/where/x"
    )
    assert [text.split(":")[0] for text in step.file_problems()] == ["pretrained", "corpus", "exclude"]
    assert not PretrainingConfig(corpus=str(tmp_path / "a.txt")).file_problems()


def test_training_says_what_it_did_to_the_held_out_part(candidate):
    messages = []
    before = candidate.model.encoder.layers[0].down.bias.detach().square().sum()
    context = RunContext(log=lambda message, **numbers: messages.append(message) if message and not numbers else None)
    training = TrainingConfig(num_train_epochs=1, per_device_train_batch_size=8, learning_rate=1e-2)
    train_on_text(candidate, Shrink(), training, short(), context)
    after = candidate.model.encoder.layers[0].down.bias.detach().square().sum()
    assert after < before
    assert messages[0].startswith("corpus: 60 sentences in ")
    assert messages[1].startswith("loss on 12 held-out sequences ")
    assert messages[1].endswith(f"{before:.4f} -> {after:.4f}")
    assert messages[2].endswith(" sequences/s")


def test_texts_of_validation_and_test_are_left_out(candidate, tmp_path):
    texts = [text for name in ("train", "validation", "test") for text in candidate.task.split(name).texts]
    (tmp_path / "corpus.txt").write_text("\n\n".join(texts))
    held_out = {text for name in ("validation", "test") for text in candidate.task.split(name).texts}
    step = short(corpus=str(tmp_path / "corpus.txt"))
    sequences = step.sequences(candidate, RunContext())
    tokenizer = candidate.tokenizer
    decoded = {tokenizer.decode(sequences.input_ids[row], skip_special_tokens=True) for row in range(len(sequences))}
    assert decoded == {text for text in texts if text not in held_out}
    every = short(corpus=str(tmp_path / "corpus.txt"), exclude_splits=()).sequences(candidate, RunContext())
    assert len(every) > len(sequences)


def test_sides_must_read_the_same_sequences(candidate, make_model):
    with pytest.raises(InputError, match="named has no teacher"):
        PretrainingConfig().teacher(candidate, RunContext(), "named")
    assert (
        PretrainingConfig().teacher(candidate, RunContext(teacher=Teacher("key", lambda: candidate)), "named")
        is candidate
    )
    with pytest.raises(InputError, match=r"named\.max_length: 128 is more than the model's 64 positions; use 64"):
        check_sides(candidate, None, 128, "named")
    other = Candidate(candidate.model, toy_tokenizer(toy_task(train=1, validation=1, test=1, seed=9)), candidate.task)
    with pytest.raises(InputError, match="another vocabulary"):
        check_sides(candidate, other, 16, "named")
    check_sides(candidate, candidate, 16, "named")
